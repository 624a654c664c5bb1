//! Shell completions made from the subcommand tables.

use crate::getopt::{Command, Hint};
use crate::program::Program;
use std::fmt::Write;

fn ready(program: &Program) -> impl Iterator<Item = &'static Command> {
    program.commands.iter().filter(|c| c.ready)
}

fn names(program: &Program) -> String {
    let all = ready(program).flat_map(|c| std::iter::once(c.name).chain(c.aliases.iter().copied()));
    all.collect::<Vec<_>>().join(" ")
}

fn flags(command: &Command) -> String {
    let mut words = Vec::new();
    for f in command.flags {
        if f.short != ' ' {
            words.push(format!("-{}", f.short));
        }
        if !f.long.is_empty() {
            words.push(format!("--{}", f.long));
        }
    }
    words.join(" ")
}

/// The command that lists what operands can be; empty if nothing can be listed.
fn source(hint: Hint) -> &'static str {
    match hint {
        Hint::Pool => "zpool list -H -o name 2>/dev/null",
        Hint::Dataset => "zfs list -H -o name -t filesystem,volume 2>/dev/null",
        Hint::None | Hint::Path => "",
    }
}

fn patterns(command: &Command, separator: &str) -> String {
    std::iter::once(command.name).chain(command.aliases.iter().copied()).collect::<Vec<_>>().join(separator)
}

/// Completion for bash.
pub fn bash(program: &Program) -> String {
    let name = program.name;
    let mut out = format!("# bash completion for {name}\n_uzfs_{name}() {{\n");
    out.push_str("    local cur=${COMP_WORDS[COMP_CWORD]} words=\n");
    let _ = writeln!(out, "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"{}\"", names(program));
    out.push_str("    else\n        case ${COMP_WORDS[1]} in\n");
    for command in ready(program) {
        let _ = writeln!(out, "        {})", patterns(command, "|"));
        let _ = writeln!(out, "            case $cur in\n            -*) words=\"{}\" ;;", flags(command));
        match source(command.operands) {
            "" => out.push_str("            *) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"),
            list => {
                let _ = writeln!(out, "            *) words=\"$({list})\" ;;");
            }
        }
        out.push_str("            esac ;;\n");
    }
    out.push_str("        esac\n    fi\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n");
    let _ = writeln!(out, "complete -F _uzfs_{name} {name}");
    out
}

fn quote(text: &str) -> String {
    text.replace('\'', "'\\''")
}

/// Completion for zsh.
pub fn zsh(program: &Program) -> String {
    let name = program.name;
    let mut out = format!("#compdef {name}\n_{name}() {{\n    local -a commands\n    commands=(\n");
    for command in ready(program) {
        let about = quote(&command.about.replace(':', "\\:"));
        let _ = writeln!(out, "        '{}:{about}'", command.name);
    }
    out.push_str("    )\n    if (( CURRENT == 2 )); then\n");
    let _ = writeln!(out, "        _describe '{name} command' commands\n        return\n    fi");
    out.push_str("    case $words[2] in\n");
    for command in ready(program) {
        let _ = write!(out, "    {})\n        _arguments -s", patterns(command, "|"));
        for f in command.flags {
            let help = quote(&f.help.replace(['[', ']'], ""));
            let value = if f.value.is_empty() {
                String::new()
            } else {
                format!(":{}:", quote(&f.value.replace([':', '[', ']'], "")))
            };
            if f.short != ' ' {
                let _ = write!(out, " \\\n            '*-{}[{help}]{value}'", f.short);
            }
            if !f.long.is_empty() {
                let _ = write!(out, " \\\n            '--{}[{help}]{value}'", f.long);
            }
        }
        let action = match source(command.operands) {
            "" => "_files".to_owned(),
            list => format!("compadd -- ${{(f)\"$({list})\"}}"),
        };
        let _ = writeln!(out, " \\\n            '*: :{{{action}}}' ;;");
    }
    let _ = writeln!(out, "    esac\n}}\n_{name} \"$@\"");
    out
}

/// Completion for fish.
pub fn fish(program: &Program) -> String {
    let name = program.name;
    let mut out = format!("# fish completion for {name}\n");
    for command in ready(program) {
        let about = quote(command.about);
        let words = patterns(command, " ");
        let _ = writeln!(out, "complete -c {name} -n __fish_use_subcommand -f -a {} -d '{about}'", command.name);
        let seen = format!("'__fish_seen_subcommand_from {words}'");
        for f in command.flags {
            let mut line = format!("complete -c {name} -n {seen}");
            if f.short != ' ' {
                let _ = write!(line, " -s {}", f.short);
            }
            if !f.long.is_empty() {
                let _ = write!(line, " -l {}", f.long);
            }
            if !f.value.is_empty() {
                line.push_str(" -r");
            }
            let _ = writeln!(out, "{line} -d '{}'", quote(f.help));
        }
        let list = source(command.operands);
        if !list.is_empty() {
            let _ = writeln!(out, "complete -c {name} -n {seen} -f -a '({list})'");
        }
    }
    out
}
