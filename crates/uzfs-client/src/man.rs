//! Man pages made from the subcommand tables.

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

/// The page of a program: file name and roff text.
pub fn program_page(program: &Program) -> (String, String) {
    let mut out = String::new();
    header(&mut out, program.name, program.about);
    out.push_str(".SH SYNOPSIS\n");
    let _ = writeln!(out, "\\fB{}\\fR \\fIsubcommand\\fR [\\fIarguments\\fR]", program.name);
    out.push_str(".SH SUBCOMMANDS\n");
    for command in program.commands.iter().filter(|c| c.ready) {
        let page = format!("{}\\-{}", program.name, roff(command.name));
        let _ = writeln!(out, ".TP\n\\fB{}\\fR", roff(command.name));
        let _ = writeln!(out, "{} See \\fB{page}\\fR(8).", roff(command.about));
    }
    let later = program.commands.iter().filter(|c| !c.ready && !c.name.is_empty());
    let names: Vec<String> = later.map(|c| roff(c.name)).collect();
    let _ = writeln!(out, ".PP\nNot supported yet: {}.", names.join(", "));
    out.push_str(EXIT);
    (format!("{}.8", program.name), out)
}

/// The pages of all subcommands that are there.
pub fn command_pages(program: &Program) -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for command in program.commands.iter().filter(|c| c.ready) {
        let title = format!("{}-{}", program.name, command.name);
        let mut out = String::new();
        header(&mut out, &title, command.about.trim_end_matches('.'));
        out.push_str(".SH SYNOPSIS\n");
        synopsis(&mut out, program.name, command);
        let _ = writeln!(out, ".SH DESCRIPTION\n{}", roff(command.about));
        for f in command.flags {
            flag(&mut out, f);
        }
        if !command.aliases.is_empty() {
            let names: Vec<String> = command.aliases.iter().map(|a| roff(a)).collect();
            let _ = writeln!(out, ".PP\nAlso called {}.", names.join(", "));
        }
        out.push_str(EXIT);
        let _ = writeln!(out, ".SH SEE ALSO\n\\fB{}\\fR(8)", program.name);
        pages.push((format!("{title}.8"), out));
    }
    pages
}
