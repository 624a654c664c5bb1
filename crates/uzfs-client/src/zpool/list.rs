//! `zpool list` and `zpool get`.

use super::interval;
use super::pools;
use super::vdev::{self, LIST_CLASSES, Naming};
use crate::columns::{self, Entry, Table, Wanted};
use crate::getopt::Parsed;
use crate::getprint::{self, Field, Row};
use crate::json::{self, Object};
use crate::nicenum::nicenum;
use crate::props::{self, Column};
use crate::sentence;
use crate::session::{Run, Session, Stop, put, putln};
use serde_json::Value;
use uzfs_proto::{GetPoolsArgs, Pool, PropertySource, VdevNode, method};

const DEFAULT: &str = "name,size,allocated,free,checkpoint,expandsize,fragmentation,capacity,\
    dedupratio,health,altroot";

/// The naming of devices asked for by options and environment.
pub fn naming(session: &Session, args: &Parsed) -> Naming {
    Naming {
        guid: args.has('g') || session.is_set("ZPOOL_VDEV_NAME_GUID"),
        follow: args.has('L') || session.is_set("ZPOOL_VDEV_NAME_FOLLOW_LINKS"),
        path: args.has('P') || session.is_set("ZPOOL_VDEV_NAME_PATH"),
        type_id: false,
    }
}

/// The `-j` options, checked: (json, numbers as numbers, key by guid).
pub fn json_options(args: &Parsed) -> Result<(bool, bool, bool), Stop> {
    let json = args.has('j');
    let (as_int, by_guid) = (args.has_long("json-int"), args.has_long("json-pool-key-guid"));
    if as_int && !json {
        return Err(Stop::Usage("'--json-int' only works with '-j' option".into()));
    }
    if by_guid && !json {
        return Err(Stop::Usage("'json-pool-key-guid' only works with '-j' option".into()));
    }
    Ok((json, as_int, by_guid))
}

struct Style {
    exact: bool,
    scripted: bool,
    verbose: bool,
    naming: Naming,
    name_width: usize,
}

/// `zpool list`.
pub fn list(session: &mut Session, args: &Parsed) -> Run {
    let (as_json, as_int, by_guid) = json_options(args)?;
    let mut operands = args.operands.clone();
    let mut interval = interval::take(&mut operands)?;
    let fields = args.value('o').unwrap_or(DEFAULT);
    let wanted = columns::parse(Table::Pool, fields).map_err(Stop::Usage)?;
    let mut style = Style {
        exact: args.has('p') || as_int,
        scripted: args.has('H'),
        verbose: args.has('v'),
        naming: naming(session, args),
        name_width: 0,
    };
    let mut first = true;
    loop {
        let (mut entries, properties) = match &wanted {
            Wanted::These(entries) => (entries.clone(), Some(pools::names(entries))),
            Wanted::All => (columns::all_native(Table::Pool), Some(Vec::new())),
        };
        let ask = GetPoolsArgs { properties, tree: true, ..Default::default() };
        let (found, failed) = pools::fetch(session, &operands, ask)?;
        if wanted == Wanted::All {
            let name = props::pool("name").map(|d| Entry::new(Column::Native(d), true));
            entries.splice(0..0, name);
            pools::add_named(&mut entries, &found);
        }
        if found.is_empty() {
            if operands.is_empty() && !style.scripted && !as_json {
                putln!(session.out, "no pools available");
            }
            return Ok(i32::from(failed));
        }
        if as_json {
            let stamp = interval::timestamp(args)?;
            let all = list_json(&found, &entries, &style, as_int, by_guid);
            putln!(session.out, "{}", super::finish_json("zpool list", stamp, as_int, all));
        } else {
            interval::print_timestamp(session, args)?;
            print_list(session, &found, &mut entries, &mut style, first);
            first = false;
        }
        if !interval.again(session) {
            return Ok(i32::from(failed));
        }
    }
}

fn print_list(session: &mut Session, found: &[Pool], entries: &mut [Entry], style: &mut Style, first: bool) {
    let mut rows = Vec::new();
    for pool in found {
        let mut cells = Vec::new();
        for entry in entries.iter_mut() {
            let cell = pools::row(pool, &entry.column, style.exact).map(|r| r.value);
            let cell = cell.unwrap_or_else(|| "-".into());
            if !props::is_feature(entry.column.name()) {
                entry.fit(&cell, style.exact);
            }
            cells.push(cell);
        }
        rows.push(cells);
    }
    style.name_width = 9;
    for pool in found {
        let mut width = pool.name.len();
        if let (true, Some(tree)) = (style.verbose, &pool.tree) {
            let naming = style.naming.numbered();
            width = vdev::max_width(tree, Some(&pool.name), 0, style.name_width, naming);
        }
        style.name_width = style.name_width.max(width);
    }
    if let (true, Some(entry)) = (style.verbose, entries.first_mut()) {
        entry.width = style.name_width;
    }
    if !style.scripted && (first || style.verbose) {
        putln!(session.out, "{}", columns::header(entries));
    }
    for (pool, cells) in found.iter().zip(&rows) {
        putln!(session.out, "{}", columns::row(entries, cells, style.scripted));
        if let (true, Some(tree)) = (style.verbose, &pool.tree) {
            list_children(session, pool, tree, style, 0);
        }
    }
}

/// Columns of devices in `zpool list -v`: release 2.3 prints these whatever `-o` says.
const VDEV_COLUMNS: [&str; 9] =
    ["size", "allocated", "free", "checkpoint", "expandsize", "fragmentation", "capacity", "dedupratio", "health"];

/// A line of dashes behind the name of a section, padded also in scripted mode as OpenZFS does.
fn dashes(session: &mut Session, style: &Style, title: &str) {
    let width = style.name_width;
    put!(session.out, "{title:width$}");
    let line = "      -      -      -        -         -      -      -      -         -";
    putln!(session.out, "{line}");
}

fn list_children(session: &mut Session, pool: &Pool, node: &VdevNode, style: &Style, depth: usize) {
    let numbered = style.naming.numbered();
    let normal = |c: &&VdevNode| !vdev::is_hole(c) && vdev::class_of(c).is_none();
    for child in node.children.iter().filter(normal) {
        let name = vdev::name(child, Some(&pool.name), numbered);
        list_vdev(session, pool, child, &name, style, depth + 2, false);
    }
    for class in LIST_CLASSES {
        let mut titled = false;
        for child in node.children.iter().filter(|c| vdev::class_of(c) == Some(class)) {
            if !child.is_log && child.kind == "indirect" {
                continue;
            }
            if !std::mem::replace(&mut titled, true) {
                dashes(session, style, class);
            }
            let name = vdev::name(child, Some(&pool.name), numbered);
            list_vdev(session, pool, child, &name, style, depth + 2, false);
        }
    }
    for (title, devices, spare) in [("cache", &node.l2cache, false), ("spare", &node.spares, true)] {
        if !devices.is_empty() {
            dashes(session, style, title);
        }
        for child in devices {
            let name = vdev::name(child, Some(&pool.name), style.naming);
            list_vdev(session, pool, child, &name, style, depth + 2, spare);
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn list_vdev(
    session: &mut Session,
    pool: &Pool,
    node: &VdevNode,
    name: &str,
    style: &Style,
    depth: usize,
    spare: bool,
) {
    // OpenZFS means to leave out removed devices but compares with the unnumbered name, so they are
    // there, numbered.
    if name == "indirect" {
        return;
    }
    if style.scripted {
        put!(session.out, "\t{name}");
    } else {
        let pad = style.name_width.saturating_sub(name.len() + depth);
        put!(session.out, "{:depth$}{name}{:pad$}", "", "");
    }
    for property in VDEV_COLUMNS {
        let text = vdev_cell(node, property, style.exact, spare);
        if style.scripted {
            put!(session.out, "\t{text}");
        } else {
            let width = props::pool(property).map_or(8, props::Def::width);
            put!(session.out, "  {text:>width$}");
        }
    }
    putln!(session.out);
    list_children(session, pool, node, style, depth);
}

/// A cell of a device's row in `zpool list -v`.
fn vdev_cell(node: &VdevNode, property: &str, exact: bool, spare: bool) -> String {
    let s = &node.stats;
    let top = s.space != 0;
    let count = |n: u64| if exact { n.to_string() } else { nicenum(n) };
    let or_dash = |n: u64| if n == 0 { None } else { Some(count(n)) };
    let text = match property {
        "size" if s.pspace != 0 => or_dash(s.pspace),
        "size" => or_dash(s.space),
        "allocated" if top => Some(count(s.alloc)),
        "free" if top => Some(count(s.space.saturating_sub(s.alloc))),
        "checkpoint" if top => or_dash(s.checkpoint_space),
        "expandsize" => or_dash(s.esize),
        "fragmentation" if top => s.fragmentation.map(|f| percent(f, exact)),
        "capacity" if top => Some(capacity(s.alloc, s.space, exact)),
        "health" => Some(vdev::state_of(node, spare).to_owned()),
        _ => None,
    };
    text.unwrap_or_else(|| "-".into())
}

fn percent(n: u64, exact: bool) -> String {
    if exact { n.to_string() } else { format!("{n}%") }
}

fn capacity(alloc: u64, space: u64, exact: bool) -> String {
    let permyriad = u64::try_from(u128::from(alloc) * 10_000 / u128::from(space.max(1))).unwrap_or(0);
    let value = permyriad as f64 / 100.0;
    match permyriad {
        _ if exact => (permyriad / 100).to_string(),
        0..1000 => format!("{value:.2}%"),
        1000..10_000 => format!("{value:.1}%"),
        _ => format!("{value:.0}%"),
    }
}

fn none_row(name: &str, property: &str, value: String) -> Row {
    Row {
        name: name.to_owned(),
        property: property.to_owned(),
        value,
        source: PropertySource::None,
        from: None,
        received: None,
    }
}

fn list_json(found: &[Pool], entries: &[Entry], style: &Style, as_int: bool, by_guid: bool) -> Object {
    let mut all = Object::new();
    for pool in found {
        let mut properties = Object::new();
        for entry in entries.iter().filter(|e| e.column.name() != "name") {
            let row = pools::row(pool, &entry.column, style.exact);
            let name = entry.column.name();
            let row = row.unwrap_or_else(|| none_row(&pool.name, name, "-".into()));
            properties.insert(name.to_owned(), json::property(&row, as_int));
        }
        let mut object = super::pool_json(pool, true, as_int);
        object.insert("properties".into(), properties.into());
        if let (true, Some(tree)) = (style.verbose, &pool.tree) {
            let mut vdevs = Object::new();
            vdevs_json(pool, tree, style, as_int, &mut vdevs);
            object.insert("vdevs".into(), vdevs.into());
        }
        let key = if by_guid { pool.guid.to_string() } else { pool.name.clone() };
        all.insert(key, object.into());
    }
    all
}

fn vdev_json(
    pool: &Pool,
    node: &VdevNode,
    parent: Option<&VdevNode>,
    name: &str,
    style: &Style,
    as_int: bool,
    spare: bool,
) -> Value {
    let mut object = super::vdev_json(pool, node, parent, name, None, as_int);
    let mut properties = Object::new();
    for property in VDEV_COLUMNS {
        let value = vdev_cell(node, property, style.exact, spare);
        let row = none_row(name, property, value);
        properties.insert(property.to_owned(), json::property(&row, as_int));
    }
    object.insert("properties".into(), properties.into());
    if !node.children.is_empty() {
        let mut below = Object::new();
        vdevs_json(pool, node, style, as_int, &mut below);
        object.insert("vdevs".into(), below.into());
    }
    object.into()
}

fn vdevs_json(pool: &Pool, node: &VdevNode, style: &Style, as_int: bool, into: &mut Object) {
    let numbered = style.naming.numbered();
    for child in node.children.iter().filter(|c| !vdev::is_hole(c)) {
        let name = vdev::name(child, Some(&pool.name), numbered);
        let value = vdev_json(pool, child, Some(node), &name, style, as_int, false);
        match vdev::class_of(child) {
            None => {
                into.insert(name, value);
            }
            Some(class) => {
                let section = into.entry(class).or_insert_with(|| Object::new().into());
                if let Value::Object(section) = section {
                    section.insert(name, value);
                }
            }
        }
    }
    for (title, devices, spare) in [("l2cache", &node.l2cache, false), ("spares", &node.spares, true)] {
        let mut section = Object::new();
        for child in devices {
            let name = vdev::name(child, Some(&pool.name), style.naming);
            let value = vdev_json(pool, child, None, &name, style, as_int, spare);
            section.insert(name, value);
        }
        if !section.is_empty() {
            into.insert(title.into(), section.into());
        }
    }
}

/// Fetches the pools of `zpool get`. Of one operand OpenZFS looks first whether it is a pool at all.
fn fetch_for_get(session: &mut Session, operands: &[String], ask: GetPoolsArgs) -> Result<(Vec<Pool>, bool), Stop> {
    let [only] = operands else { return pools::fetch(session, operands, ask) };
    if sentence::bad_pool_name(only).is_some() {
        return pools::fetch(session, operands, ask);
    }
    let ask = GetPoolsArgs { pools: vec![only.clone()], ..ask };
    let found = session.call::<method::GetPools>("cannot get pools", &ask)?.pools;
    if found.is_empty() {
        putln!(session.err, "Cannot get properties of {only}: no such pool available.");
    }
    let failed = found.is_empty();
    Ok((found, failed))
}

/// `zpool get`.
pub fn get(session: &mut Session, args: &Parsed) -> Run {
    let (as_json, as_int, by_guid) = json_options(args)?;
    let exact = args.has('p') || as_int;
    let mut fields = vec![Field::Name, Field::Property, Field::Value, Field::Source];
    if let Some(list) = args.value('o') {
        fields = getprint::parse_fields(list, false).map_err(Stop::Usage)?;
    }
    let Some((list, operands)) = args.operands.split_first() else {
        return Err(Stop::Usage("missing property argument".into()));
    };
    if let [pool, vdevs @ ..] = operands
        && !vdevs.is_empty()
        && super::vdevget::names_vdevs(session, operands)?
    {
        let ask = super::vdevget::Ask { list, pool, vdevs, fields: &fields, exact, as_json, as_int };
        return super::vdevget::get(session, &ask, args.has('H'));
    }
    let wanted = columns::parse(Table::Pool, list).map_err(Stop::Usage)?;
    let (mut entries, properties) = match wanted.clone() {
        Wanted::These(entries) => {
            let names = pools::names(&entries);
            (entries, Some(names))
        }
        Wanted::All => (columns::all_native(Table::Pool), Some(Vec::new())),
    };
    let ask = GetPoolsArgs { properties, tree: true, ..Default::default() };
    let (found, failed) = fetch_for_get(session, operands, ask)?;
    if wanted == Wanted::All {
        pools::add_named(&mut entries, &found);
    }
    let mut rows = Vec::new();
    let mut all = Object::new();
    for pool in &found {
        let mut properties = Object::new();
        for entry in &mut entries {
            let Some(row) = pools::row(pool, &entry.column, exact) else { continue };
            if !props::is_feature(&row.property) {
                entry.fit(&row.value, exact);
            }
            properties.insert(row.property.clone(), json::property(&row, as_int));
            rows.push(row);
        }
        if as_json {
            let mut object = super::pool_json(pool, true, as_int);
            object.insert("properties".into(), properties.into());
            let key = if by_guid { pool.guid.to_string() } else { pool.name.clone() };
            all.insert(key, object.into());
        }
    }
    if as_json {
        if !failed {
            putln!(session.out, "{}", super::finish_json("zpool get", None, as_int, all));
        }
        return Ok(i32::from(failed));
    }
    // OpenZFS keeps room for the names of pools only when it prints for people.
    let longest = found.iter().map(|p| p.name.len()).max().unwrap_or(0);
    getprint::print(session, &fields, &rows, &entries, longest, args.has('H'));
    Ok(i32::from(failed))
}
