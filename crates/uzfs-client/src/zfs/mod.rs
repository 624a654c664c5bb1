//! The program `zfs`.

mod change;
mod datasets;
mod destroy;
pub mod keys;
mod list;
pub mod mount;
pub mod outside;
mod relate;
mod table;
mod upgrade;

pub(crate) use change::LIBZFS_FAILED;
pub use table::COMMANDS;

use crate::columns::{self, Table};
use crate::getopt::{Command, Parsed};
use crate::program::{self, Program};
use crate::props::Attr;
use crate::session::{Run, Session};
use std::fmt::Write;

/// The program.
pub const PROGRAM: Program =
    Program { name: "zfs", commands: COMMANDS, about: "configure ZFS datasets", run, usage_end };

fn run(session: &mut Session, command: &Command, args: &Parsed) -> Run {
    match command.name {
        "list" => list::list(session, args),
        "create" => change::create(session, args),
        "destroy" => destroy::destroy(session, args),
        "snapshot" => change::snapshot(session, args),
        "rollback" => change::rollback(session, args),
        "clone" => change::clone(session, args),
        "rename" => change::rename(session, args),
        "set" => change::set(session, args),
        "inherit" => change::inherit(session, args),
        "promote" => relate::promote(session, args),
        "bookmark" => relate::bookmark(session, args),
        "hold" => relate::hold(session, args, true),
        "release" => relate::hold(session, args, false),
        "holds" => relate::holds(session, args),
        "get" => list::get(session, args),
        "upgrade" => upgrade::upgrade(session, args),
        "mount" => mount::mount(session, args),
        "unmount" => mount::unmount(session, args),
        "load-key" => keys::run(session, args, true),
        "unload-key" => keys::run(session, args, false),
        "version" => program::version(session, args, "zfs"),
        _ => Ok(program::not_yet(session, "zfs", command.name)),
    }
}

/// Properties of users, groups and projects as usage texts list them.
const PARAMETRIC: &[(&str, bool)] = &[
    ("userused@...", false),
    ("groupused@...", false),
    ("projectused@...", false),
    ("userobjused@...", false),
    ("groupobjused@...", false),
    ("projectobjused@...", false),
    ("userquota@...", true),
    ("groupquota@...", true),
    ("projectquota@...", true),
    ("userobjquota@...", true),
    ("groupobjquota@...", true),
    ("projectobjquota@...", true),
    ("written@<snap>", false),
    ("written#<bookmark>", false),
];

/// What follows the synopses in usage texts.
fn usage_end(command: Option<&Command>) -> String {
    let mut out = String::new();
    if command.is_none() {
        out.push_str("\nEach dataset is of the form: pool/[dataset/]*dataset[@name]\n");
    }
    if !matches!(command.map(|c| c.name), Some("set" | "get" | "inherit" | "list")) {
        out.push_str("\nFor the property list, run: zfs set|get\n");
        out.push_str("\nFor the delegated permission list, run: zfs allow|unallow\n");
        out.push_str("\nFor further help on a command or topic, run: zfs help [<topic>]\n");
        return out;
    }
    out.push_str("\nThe following properties are supported:\n");
    let _ = writeln!(out, "\n\t{:<21} EDIT  INHERIT   VALUES\n", "PROPERTY");
    for def in program::usage_order(&columns::all_native(Table::Dataset)) {
        let edit = if matches!(def.attr, Attr::Inherit | Attr::Default) { "YES    " } else { " NO    " };
        let inherit = if matches!(def.attr, Attr::Inherit | Attr::OneTime) { "  YES   " } else { "   NO   " };
        let _ = writeln!(out, "\t{:<22} {edit}{inherit}{}", def.name, def.values);
    }
    for (name, settable) in PARAMETRIC {
        let rest = if *settable { "YES       NO   <size> | none" } else { " NO       NO   <size>" };
        let _ = writeln!(out, "\t{name:<22} {rest}");
    }
    out.push_str("\nSizes are specified in bytes with standard units such as K, M, G, etc.\n");
    out.push_str("\nUser-defined properties can be specified by using a name containing a colon (:).\n");
    out.push_str(
        "\nThe {user|group|project}[obj]{used|quota}@ properties must be appended with\n\
         a user|group|project specifier of one of these forms:\n    \
         POSIX name      (eg: \"matt\")\n    POSIX id        (eg: \"126829\")\n    \
         SMB name@domain (eg: \"matt@sun\")\n    SMB SID         (eg: \"S-1-234-567-89\")\n",
    );
    out
}
