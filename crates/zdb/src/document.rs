//! What packagers ask for with `UZFS_GENERATE`: the manual page and completions, made from the table of options.

use crate::opts::{self, Kind, Opt};
use std::fmt::Write as _;

/// Options that are there.
fn present() -> impl Iterator<Item = &'static Opt> {
    opts::all().filter(|o| o.kind != Kind::Absent)
}

fn takes_value(o: &Opt) -> bool {
    matches!(o.kind, Kind::Value | Kind::DumpValue)
}

fn quote(text: &str) -> String {
    text.trim().replace('\'', "'\\''")
}

/// The document of that name: `man`, `bash`, `zsh` or `fish`.
pub fn of(what: &str) -> Option<String> {
    match what {
        "man" => Some(opts::man_page()),
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

fn bash() -> String {
    let words: Vec<String> = present().map(|o| format!("-{} --{}", o.short, o.long)).collect();
    format!(
        "# bash completion for zdb\n_uzfs_zdb() {{\n    local cur=${{COMP_WORDS[COMP_CWORD]}}\n    case $cur in\n    \
         -*) COMPREPLY=($(compgen -W \"{}\" -- \"$cur\")) ;;\n    \
         *) COMPREPLY=($(compgen -f -W \"$(zpool list -H -o name 2>/dev/null)\" -- \"$cur\")) ;;\n    esac\n}}\n\
         complete -F _uzfs_zdb zdb\n",
        words.join(" ")
    )
}

fn zsh() -> String {
    let mut out = String::from("#compdef zdb\n_zdb() {\n    _arguments -s");
    for o in present() {
        let help = quote(&o.help.replace(['[', ']'], "").replace(':', "\\:"));
        let value = if takes_value(o) { format!(":{}:_files", o.long) } else { String::new() };
        let _ = write!(out, " \\\n        '*-{}[{help}]{value}' \\\n        '*--{}[{help}]{value}'", o.short, o.long);
    }
    out.push_str(" \\\n        '*: :_files'\n}\n_zdb \"$@\"\n");
    out
}

fn fish() -> String {
    let mut out = String::from("# fish completion for zdb\n");
    for o in present() {
        let value = if takes_value(o) { " -r" } else { "" };
        let _ = writeln!(out, "complete -c zdb -s {} -l {}{value} -d '{}'", o.short, o.long, quote(o.help));
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn documents_name_every_option_that_is_there() {
        for what in ["man", "bash", "zsh", "fish"] {
            let text = super::of(what).unwrap();
            for option in super::present() {
                assert!(text.contains(option.long), "{what}: {}", option.long);
            }
            let absent = super::opts::all().find(|o| o.kind == super::Kind::Absent);
            assert!(what == "man" || absent.is_none_or(|o| !text.contains(o.long)), "{what}");
        }
        assert!(super::of("other").is_none());
    }
}
