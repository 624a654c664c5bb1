//! What `zpool` and `zfs` have in common: finding the subcommand, usage texts, version, help.

use crate::columns::Entry;
use crate::getopt::{self, Command, Parsed};
use crate::props::{Attr, Column, Def};
use crate::session::{Run, Session, Stop, put, putln};
use serde_json::json;
use uzfs_proto::{Empty, LogHistoryArgs, method};

/// OpenZFS release whose behaviour the tools follow; scripts compare it.
pub const OPENZFS: &str = "2.3.2";

/// A program with subcommands.
pub struct Program {
    /// Name.
    pub name: &'static str,
    /// Subcommands; an empty name is a blank line in the usage text.
    pub commands: &'static [Command],
    /// One line on what it does.
    pub about: &'static str,
    /// Runs a subcommand that is there.
    pub run: fn(&mut Session, &Command, &Parsed) -> Run,
    /// What follows the synopses in usage texts.
    pub usage_end: fn(Option<&Command>) -> String,
}

/// The version this build tells the world.
pub fn version_text() -> String {
    format!("{OPENZFS}-uzfs-{}", env!("CARGO_PKG_VERSION"))
}

impl Program {
    /// The usage text, of one subcommand or of all.
    pub fn usage(&self, command: Option<&Command>) -> String {
        let mut out = String::new();
        match command {
            Some(command) => {
                out.push_str("usage:\n");
                out.push_str(&getopt::usage_lines(command));
            }
            None => {
                out.push_str(&format!("usage: {} command args ...\n", self.name));
                out.push_str("where 'command' is one of the following:\n\n");
                for command in self.commands {
                    if command.name.is_empty() {
                        out.push('\n');
                    }
                    out.push_str(&getopt::usage_lines(command));
                }
            }
        }
        out.push_str(&(self.usage_end)(command));
        out
    }

    fn wrong(&self, session: &mut Session, why: &str, command: Option<&Command>) -> i32 {
        if !why.is_empty() {
            putln!(session.err, "{why}");
        }
        put!(session.err, "{}", self.usage(command));
        2
    }

    fn help(&self, session: &mut Session, topic: Option<&String>) -> i32 {
        let Some(topic) = topic else {
            put!(session.out, "{}", self.usage(None));
            return 0;
        };
        match getopt::find(self.commands, topic) {
            Some(command) => {
                put!(session.out, "{}", self.usage(Some(command)));
                0
            }
            None => self.wrong(session, &format!("no help on '{topic}'"), None),
        }
    }

    /// The document that packagers ask for with `UZFS_GENERATE`: `man`, `bash`, `zsh` or `fish`.
    pub fn document(&self, what: &str) -> Option<String> {
        match what {
            "man" => Some(crate::man::page(self)),
            "bash" => Some(crate::complete::bash(self)),
            "zsh" => Some(crate::complete::zsh(self)),
            "fish" => Some(crate::complete::fish(self)),
            _ => None,
        }
    }

    /// Runs the program with the arguments after its name; the exit code.
    pub fn main(&self, session: &mut Session, args: &[String]) -> i32 {
        if let Some(document) = session.variable("UZFS_GENERATE").and_then(|w| self.document(&w)) {
            put!(session.out, "{document}");
            return 0;
        }
        let Some((name, rest)) = args.split_first() else {
            return self.wrong(session, "missing command", None);
        };
        let name = match name.as_str() {
            "-?" | "--help" => return self.help(session, None),
            "help" => return self.help(session, rest.first()),
            "-V" | "--version" => "version",
            other => other,
        };
        let command = getopt::find(self.commands, name).filter(|c| !c.name.is_empty());
        let Some(command) = command else {
            return self.wrong(session, &format!("unrecognized command '{name}'"), None);
        };
        if !command.ready {
            return not_yet(session, self.name, name);
        }
        let parsed = match getopt::parse(command, rest) {
            Ok(mut parsed) => {
                parsed.line = args.join(" ");
                parsed
            }
            Err(why) => return self.wrong(session, &why, Some(command)),
        };
        let code = match (self.run)(session, command, &parsed) {
            Ok(code) | Err(Stop::Exit(code)) => code,
            Err(Stop::Usage(why)) => self.wrong(session, &why, Some(command)),
        };
        if code == 0 {
            self.log(session, command, &parsed, args);
        }
        let _ = session.out.flush();
        code
    }

    /// Has a command that changed a pool written to its history. That this fails is no error of the command.
    fn log(&self, session: &mut Session, command: &Command, parsed: &Parsed, args: &[String]) {
        let changes = match self.name {
            "zfs" => CHANGES_DATASETS,
            "zpool" => CHANGES_POOLS,
            _ => &[],
        };
        if !changes.contains(&command.name) || parsed.has('n') {
            return;
        }
        // The last operand names a dataset for every command of `zfs`, unless it is short for one like the operand before
        // (`#mark`, `@snap`); a pool comes first, but behind what is set.
        let named = match (self.name, command.name) {
            ("zfs", _) => parsed.operands.iter().rfind(|o| !o.starts_with(['@', '#'])),
            (_, "set" | "import") => parsed.operands.last(),
            _ => parsed.operands.first(),
        };
        let Some(named) = named else { return };
        let pool = named.split(['/', '@', '#']).next().unwrap_or(named).to_owned();
        let line: Vec<&str> = std::iter::once(self.name).chain(args.iter().map(String::as_str)).collect();
        let _ = session.try_call::<method::LogHistory>(&LogHistoryArgs { pool, command: line.join(" ") });
    }
}

/// Commands that are written to the history.
const CHANGES_DATASETS: &[&str] = &[
    "create", "destroy", "snapshot", "rollback", "clone", "promote", "rename", "bookmark", "set", "inherit", "hold",
    "release", "upgrade",
];
const CHANGES_POOLS: &[&str] = &[
    "add", "attach", "detach", "replace", "offline", "online", "clear", "scrub", "set", "reguid", "upgrade", "import",
];

/// Says that a subcommand is not there yet.
pub fn not_yet(session: &mut Session, program: &str, command: &str) -> i32 {
    putln!(session.err, "{program}: '{command}' is not supported yet by uzfs");
    2
}

/// `zpool version` and `zfs version`.
pub fn version(session: &mut Session, args: &Parsed, program: &str) -> Run {
    if !args.operands.is_empty() {
        return Err(Stop::Usage("too many arguments".into()));
    }
    let ours = format!("zfs-{}", version_text());
    let daemon = session.call::<method::GetVersion>("cannot get the daemon's version", &Empty {});
    let daemon = daemon.map(|v| format!("zfs-kmod-{}-uzfs-{}", v.openzfs, v.version))?;
    if args.has('j') {
        let mut top = crate::json::envelope(&format!("{program} version"));
        top.insert("zfs_version".into(), json!({ "userland": ours, "kernel": daemon }));
        putln!(session.out, "{}", serde_json::Value::Object(top));
    } else {
        putln!(session.out, "{ours}\n{daemon}");
    }
    Ok(0)
}

/// Properties in the order of usage texts: those that cannot be set first, each by name.
pub fn usage_order(entries: &[Entry]) -> Vec<&'static Def> {
    let native = |e: &Entry| match e.column {
        Column::Native(def) => Some(def),
        Column::Named(_) => None,
    };
    let mut defs: Vec<&'static Def> = entries.iter().filter_map(native).collect();
    defs.sort_by_key(|d| (d.attr != Attr::ReadOnly, d.name));
    defs
}
