//! `zpool get PROPERTIES POOL VDEV…`: properties of devices, made from the device tree.

use super::vdev::{self, Naming};
use super::{finish_vdev_json, pools};
use crate::columns::{self, Table, Wanted};
use crate::getprint::{self, Field, Row};
use crate::json::{self, Object};
use crate::props::Column;
use crate::session::{Run, Session, Stop, putln};
use uzfs_proto::{GetPoolsArgs, Pool, PropertySource, Raw, VdevNode};

/// What was asked for.
pub struct Ask<'a> {
    /// Property list.
    pub list: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// Devices by name, or `all-vdevs`, or `root`.
    pub vdevs: &'a [String],
    /// Columns.
    pub fields: &'a [Field],
    /// Numbers are not shortened.
    pub exact: bool,
    /// JSON output.
    pub as_json: bool,
    /// Numbers as numbers in JSON.
    pub as_int: bool,
}

struct Found<'a> {
    name: String,
    node: &'a VdevNode,
    parent: Option<&'a VdevNode>,
}

fn walk<'a>(node: &'a VdevNode, parent: Option<&'a VdevNode>, out: &mut Vec<Found<'a>>) {
    if vdev::is_hole(node) {
        return;
    }
    out.push(Found { name: vdev_name(node), node, parent });
    for child in node.children.iter().chain(&node.l2cache).chain(&node.spares) {
        walk(child, Some(node), out);
    }
}

fn vdev_name(node: &VdevNode) -> String {
    match node.kind.as_str() {
        "root" => "root-0".into(),
        _ => vdev::name(node, None, Naming::default().numbered()),
    }
}

fn matches(found: &Found, wanted: &str) -> bool {
    let path = found.node.path.as_deref();
    let alias = wanted == "root" && found.node.kind == "root";
    let last = path.and_then(|p| p.rsplit('/').next());
    alias
        || found.name == wanted
        || path == Some(wanted)
        || last == Some(wanted)
        || found.node.guid.to_string() == wanted
}

/// True if the operands are a pool and devices of it rather than several pools.
pub fn names_vdevs(session: &mut Session, operands: &[String]) -> Result<bool, Stop> {
    let Some((pool, rest)) = operands.split_first() else { return Ok(false) };
    if rest.iter().any(|v| v == "all-vdevs" || v == "root" || v.contains('/')) {
        return Ok(true);
    }
    let ask = GetPoolsArgs { tree: true, pools: vec![pool.clone()], ..Default::default() };
    let reply = session.call::<uzfs_proto::method::GetPools>("cannot get pools", &ask)?;
    let Some(tree) = reply.pools.first().and_then(|p| p.tree.as_ref()) else { return Ok(false) };
    let mut all = Vec::new();
    walk(tree, None, &mut all);
    Ok(rest.iter().all(|w| all.iter().any(|f| matches(f, w))))
}

fn numbers(found: &Found, property: &str) -> Option<u64> {
    let (node, s) = (found.node, &found.node.stats);
    let op = |i: usize| s.ops.get(i).copied().unwrap_or(0);
    let bytes = |i: usize| s.bytes.get(i).copied().unwrap_or(0);
    let flag = u64::from;
    Some(match property {
        "capacity" => s.alloc.saturating_mul(100).checked_div(s.space).unwrap_or(0),
        "guid" => node.guid.0,
        "asize" => node.asize.unwrap_or(0),
        "psize" => node.psize.unwrap_or(0),
        "ashift" => node.ashift.unwrap_or(0),
        "size" => s.space,
        "free" => s.space.saturating_sub(s.alloc),
        "allocated" => s.alloc,
        "expandsize" => s.esize,
        "fragmentation" => s.fragmentation.unwrap_or(u64::MAX),
        "bootsize" => 0,
        "parity" => node.nparity.unwrap_or(0),
        "numchildren" => node.children.len() as u64,
        "read_errors" => s.read_errors,
        "write_errors" => s.write_errors,
        "checksum_errors" => s.checksum_errors,
        "initialize_errors" => s.initialize_errors,
        "trim_errors" => s.trim_errors,
        "slow_ios" => s.slow_ios,
        "null_ops" => op(0),
        "read_ops" => op(1),
        "write_ops" => op(2),
        "free_ops" => op(3),
        "claim_ops" => op(4),
        "trim_ops" => op(5),
        "null_bytes" => bytes(0),
        "read_bytes" => bytes(1),
        "write_bytes" => bytes(2),
        "free_bytes" => bytes(3),
        "claim_bytes" => bytes(4),
        "trim_bytes" => bytes(5),
        "removing" => flag(node.removing),
        "allocating" => flag(!node.noalloc),
        "raidz_expanding" => flag(node.raidz_expanding),
        "trim_support" => flag(!node.trim_notsup && node.is_leaf()),
        _ => return None,
    })
}

fn texts(found: &Found, property: &str) -> Option<String> {
    let node = found.node;
    let list = |nodes: &[VdevNode]| nodes.iter().map(vdev_name).collect::<Vec<_>>().join(",");
    match property {
        "name" => Some(found.name.clone()),
        "state" => Some(vdev::state_name(node.state, node.aux).to_owned()),
        "path" => node.path.clone(),
        "devid" => node.devid.clone(),
        "physpath" => node.phys_path.clone(),
        "encpath" => node.enc_path.clone(),
        "fru" => node.fru.clone(),
        "parent" => found.parent.map(vdev_name),
        "children" => Some(list(&node.children)),
        _ => None,
    }
    .filter(|t| !t.is_empty())
}

fn row(found: &Found, column: &Column, exact: bool) -> Row {
    let name = column.name();
    let set = found.node.properties.as_ref().and_then(|p| p.get(name));
    let (raw, source) = match set {
        Some(raw) => (Some(raw.clone()), PropertySource::Local),
        None => {
            let own = texts(found, name).map(Raw::text);
            let own = own.or_else(|| numbers(found, name).map(Raw::number));
            let default = match column {
                Column::Native(def) => def.default_property().map(|p| p.value),
                Column::Named(_) => None,
            };
            let by_default = own.is_none() && default.is_some();
            let source = if by_default { PropertySource::Default } else { PropertySource::None };
            (own.or(default), source)
        }
    };
    let value = raw.and_then(|r| column.spell(&r, exact)).unwrap_or_else(|| "-".into());
    Row { name: found.name.clone(), property: name.to_owned(), value, source, from: None, received: None }
}

fn select<'a>(session: &mut Session, pool: &'a Pool, wanted: &[String]) -> Option<Vec<Found<'a>>> {
    let mut all = Vec::new();
    if let Some(tree) = &pool.tree {
        walk(tree, None, &mut all);
    }
    if wanted.iter().any(|w| w == "all-vdevs") {
        return Some(all);
    }
    let mut chosen = Vec::new();
    for name in wanted {
        match all.iter().position(|f| matches(f, name)) {
            Some(at) => chosen.push(all.swap_remove(at)),
            None => {
                let pool = &pool.name;
                putln!(session.err, "could not find '{name}' in pool '{pool}'");
                return None;
            }
        }
    }
    Some(chosen)
}

/// Runs the command.
pub fn get(session: &mut Session, ask: &Ask, scripted: bool) -> Run {
    let wanted = columns::parse(Table::Vdev, ask.list).map_err(Stop::Usage)?;
    let mut entries = match wanted {
        Wanted::These(entries) => entries,
        Wanted::All => columns::all_native(Table::Vdev),
    };
    let tree = GetPoolsArgs { tree: true, ..Default::default() };
    let (pools, _) = pools::fetch(session, &[ask.pool.to_owned()], tree)?;
    let Some(pool) = pools.first() else { return Ok(1) };
    let Some(found) = select(session, pool, ask.vdevs) else { return Ok(1) };
    let (mut rows, mut vdevs) = (Vec::new(), Object::new());
    for one in &found {
        let mut properties = Object::new();
        for entry in &mut entries {
            let row = row(one, &entry.column, ask.exact);
            entry.fit(&row.value, ask.exact);
            properties.insert(row.property.clone(), json::property(&row, ask.as_int));
            rows.push(row);
        }
        let mut object = super::vdev_json(pool, one.node, None, &one.name, Some("VDEV"), ask.as_int);
        object.insert("properties".into(), properties.into());
        vdevs.insert(one.name.clone(), object.into());
    }
    if ask.as_json {
        putln!(session.out, "{}", finish_vdev_json(pool, vdevs, ask.as_int));
        return Ok(0);
    }
    let longest = found.iter().map(|f| f.name.len()).max().unwrap_or(0);
    getprint::print(session, ask.fields, &rows, &entries, longest, scripted);
    Ok(0)
}
