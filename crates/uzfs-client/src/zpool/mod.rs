//! The program `zpool`.

mod change;
mod compat;
mod create;
mod ddt;
mod import;
mod import_list;
mod interval;
mod list;
mod log;
mod pools;
mod reason;
mod scan;
mod scripts;
mod spec;
mod status;
mod status_json;
mod status_text;
mod table;
mod vdev;
mod vdevget;

pub use table::COMMANDS;

use crate::columns::{self, Table};
use crate::getopt::{Command, Parsed};
use crate::json::{self, Object};
use crate::program::{self, Program};
use crate::props::Attr;
use crate::session::{Run, Session};
use serde_json::Value;
use std::fmt::Write;
use uzfs_proto::{Pool, VdevAux, VdevNode, VdevState};

/// The program.
pub const PROGRAM: Program =
    Program { name: "zpool", commands: COMMANDS, about: "configure ZFS storage pools", run, usage_end };

fn run(session: &mut Session, command: &Command, args: &Parsed) -> Run {
    match command.name {
        "create" => create::create(session, args),
        "destroy" => create::destroy(session, args),
        "sync" => create::sync(session, args),
        "add" => change::add(session, args),
        "set" => change::set(session, args),
        "upgrade" => change::upgrade(session, args),
        "reguid" => change::reguid(session, args),
        "labelclear" => change::labelclear(session, args),
        "clear" => change::clear(session, args),
        "online" => change::set_state(session, args, true),
        "offline" => change::set_state(session, args, false),
        "attach" => change::attach(session, args, false),
        "replace" => change::attach(session, args, true),
        "detach" => change::detach(session, args),
        "scrub" => change::scan(session, args, false),
        "resilver" => change::scan(session, args, true),
        "list" => list::list(session, args),
        "get" => list::get(session, args),
        "status" => status::status(session, args),
        "import" => import::import(session, args),
        "export" => import::export(session, args),
        "history" => log::history(session, args),
        "events" => log::events(session, args),
        "version" => program::version(session, args, "zpool"),
        _ => Ok(program::not_yet(session, "zpool", command.name)),
    }
}

/// What follows the synopses in usage texts.
fn usage_end(command: Option<&Command>) -> String {
    let mut out = String::new();
    match command.map(|c| c.name) {
        None => {
            out.push_str("\nFor further help on a command or topic, run: zpool help [<topic>]\n");
        }
        Some("set" | "get" | "list") => {
            out.push_str("\nthe following properties are supported:\n");
            let _ = writeln!(out, "\n\t{:<19}  EDIT   VALUES\n", "PROPERTY");
            for def in program::usage_order(&columns::all_native(Table::Pool)) {
                let edit = if def.attr == Attr::ReadOnly { "  NO   " } else { " YES   " };
                let _ = writeln!(out, "\t{:<19}  {edit}{}", def.name, def.values);
            }
            let values = "disabled | enabled | active";
            let _ = writeln!(out, "\t{:<19}   YES   {values}", "feature@...");
            out.push_str("\nThe feature@ properties must be appended with a feature name.\n");
            out.push_str("See zpool-features(7).\n");
        }
        Some(_) => {}
    }
    out
}

/// The fields every pool object starts with.
fn pool_json(pool: &Pool, typed: bool, as_int: bool) -> Object {
    let mut object = Object::new();
    object.insert("name".into(), pool.name.clone().into());
    if typed {
        object.insert("type".into(), "POOL".into());
    }
    object.insert("state".into(), vdev::pool_state(pool).into());
    object.insert("pool_guid".into(), json::number(pool.guid.0, as_int));
    // A pool that is imported read-only has no txg of its own.
    if !pool.readonly {
        object.insert("txg".into(), json::number(pool.txg.0, as_int));
    }
    object.insert("spa_version".into(), json::number(5000, as_int));
    object.insert("zpl_version".into(), json::number(pool.zpl_version, as_int));
    object
}

/// What a device is for, in JSON. Children of a mirror that is reserved for something say so too.
fn vdev_class<'a>(pool: &'a Pool, node: &'a VdevNode, parent: Option<&'a VdevNode>) -> &'a str {
    let among = |list: &[VdevNode]| list.iter().any(|v| v.guid == node.guid);
    // A spare that was never opened is not known to be one.
    let opened = node.state != VdevState::CantOpen || node.aux == VdevAux::Spared;
    let tree = pool.tree.as_ref();
    match node.kind.as_str() {
        "hole" => "hole",
        _ if tree.is_some_and(|t| among(&t.l2cache)) => "l2cache",
        "dspare" => "spare",
        _ if opened && tree.is_some_and(|t| among(&t.spares)) => "spare",
        _ if node.is_log => "log",
        _ => vdev::class_of(node).or_else(|| parent?.alloc_bias.as_deref()).unwrap_or("normal"),
    }
}

/// The fields every vdev object starts with.
fn vdev_json(
    pool: &Pool,
    node: &VdevNode,
    parent: Option<&VdevNode>,
    name: &str,
    kind: Option<&str>,
    as_int: bool,
) -> Object {
    let mut object = Object::new();
    object.insert("name".into(), name.into());
    if let Some(kind) = kind {
        object.insert("type".into(), kind.into());
    }
    if node.kind == "draid" {
        return object; // OpenZFS does not find a dRAID by its own name, so it leaves out what follows.
    }
    object.insert("vdev_type".into(), node.kind.clone().into());
    object.insert("guid".into(), json::number(node.guid.0, as_int));
    let places = [("path", &node.path), ("phys_path", &node.phys_path), ("devid", &node.devid)];
    for (key, value) in places {
        if let Some(value) = value {
            object.insert(key.into(), value.clone().into());
        }
    }
    object.insert("class".into(), vdev_class(pool, node, parent).into());
    object.insert("state".into(), node.state.word().to_uppercase().into());
    object
}

/// Envelope, time stamp and pools as one line.
fn finish_json(command: &str, stamp: Option<String>, as_int: bool, pools: Object) -> String {
    let mut top = json::envelope(command);
    if let Some(stamp) = stamp {
        let time = if as_int { crate::time::now().into() } else { Value::from(stamp) };
        top.insert("time".into(), time);
    }
    top.insert("pools".into(), pools.into());
    Value::Object(top).to_string()
}

fn finish_vdev_json(pool: &Pool, vdevs: Object, as_int: bool) -> String {
    let mut top = json::envelope("zpool get");
    top.insert("pool".into(), pool_json(pool, false, as_int).into());
    top.insert("vdevs".into(), vdevs.into());
    Value::Object(top).to_string()
}
