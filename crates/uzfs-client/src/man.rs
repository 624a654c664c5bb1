//! Manual pages made from the subcommand tables.

use crate::getopt::{Command, Flag};
use crate::program::Program;
use std::fmt::Write;

/// Escapes what roff would take for a command or change.
fn roff(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.chars().enumerate() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '.' | '\'' if i == 0 => {
                out.push_str("\\&");
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

fn header(out: &mut String, title: &str, about: &str) {
    let source = format!("uzfs {}", env!("CARGO_PKG_VERSION"));
    let upper = title.to_uppercase();
    let _ = writeln!(out, ".TH \"{upper}\" \"8\" \"\" \"{source}\" \"System Administration\"");
    let _ = writeln!(out, ".SH NAME\n{} \\- {}", roff(title), roff(about));
}

fn synopsis(out: &mut String, program: &str, command: &Command) {
    for usage in command.usage {
        out.push_str(".HP\n");
        let line = usage.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "\\fB{}\\fR {}", roff(program), roff(&line));
    }
}

fn flag(out: &mut String, flag: &Flag) {
    let mut names = Vec::new();
    if flag.short != ' ' {
        names.push(format!("\\fB\\-{}\\fR", flag.short));
    }
    if !flag.long.is_empty() {
        names.push(format!("\\fB\\-\\-{}\\fR", roff(flag.long)));
    }
    let value = match flag.value {
        "" => String::new(),
        value => format!(" \\fI{}\\fR", roff(value)),
    };
    let _ = writeln!(out, ".TP\n{}{value}\n{}", names.join(", "), roff(flag.help));
}

const EXIT: &str = ".SH EXIT STATUS\n0 on success, 1 if something failed, 2 if the arguments were \
    wrong or the subcommand is not supported.\n";

/// The manual page of a program with all its subcommands, as roff text.
pub fn page(program: &Program) -> String {
    let mut out = String::new();
    header(&mut out, program.name, program.about);
    out.push_str(".SH SYNOPSIS\n");
    let _ = writeln!(out, "\\fB{}\\fR \\fIsubcommand\\fR [\\fIarguments\\fR]", program.name);
    out.push_str(".SH SUBCOMMANDS\n");
    for command in program.commands.iter().filter(|c| c.ready) {
        let _ = writeln!(out, ".SS {} {}", program.name, roff(command.name));
        synopsis(&mut out, program.name, command);
        let _ = writeln!(out, ".PP\n{}", roff(command.about));
        if !command.aliases.is_empty() {
            let names: Vec<String> = command.aliases.iter().map(|a| roff(a)).collect();
            let _ = writeln!(out, "Also called {}.", names.join(", "));
        }
        command.flags.iter().for_each(|f| flag(&mut out, f));
    }
    let later = program.commands.iter().filter(|c| !c.ready && !c.name.is_empty());
    let names: Vec<String> = later.map(|c| roff(c.name)).collect();
    let _ = writeln!(out, ".SS Not supported yet\n{}", names.join(", "));
    out.push_str(EXIT);
    out.push_str(ENVIRONMENT);
    out
}

const ENVIRONMENT: &str = ".SH ENVIRONMENT\n.TP\nUZFS_SOCKET\nSocket of the daemon.\n\
    .TP\nUZFS_NO_AUTOSTART\nDo not start a daemon where none is running.\n\
    .TP\nZPOOL_IMPORT_PATH\nDirectories to look for devices in, separated by colons.\n\
    .TP\nZPOOL_VDEV_NAME_GUID, ZPOOL_VDEV_NAME_PATH, ZPOOL_VDEV_NAME_FOLLOW_LINKS\n\
    Name devices as with \\-g, \\-P and \\-L.\n";
