//! The subcommand and flag tables, and parsing of arguments by them.
//!
//! One definition a subcommand ([`Command`]) is all there is: parsing, usage texts, man pages and
//! shell completions are made from it. Parsing follows GNU getopt, as scripts rely on it: short
//! flags can be combined, options may stand after operands, `--` ends them, long options may be cut
//! short. clap was looked at: it neither permutes like getopt nor can its errors and usage texts be
//! made byte-equal to OpenZFS's.

/// What an operand or an option's value is, for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Nothing to complete.
    None,
    /// A file or directory.
    Path,
    /// An imported pool.
    Pool,
    /// A dataset.
    Dataset,
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub struct Flag {
    /// Letter; a blank for none.
    pub short: char,
    /// Long name; empty for none.
    pub long: &'static str,
    /// Name of its value; empty for a switch, in brackets if the option may come last without one.
    pub value: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// A switch with a letter.
pub const fn switch(short: char, help: &'static str) -> Flag {
    Flag { short, long: "", value: "", help }
}

/// An option with a letter and a value.
pub const fn option(short: char, value: &'static str, help: &'static str) -> Flag {
    Flag { short, long: "", value, help }
}

/// A switch with a long name only.
pub const fn long(long: &'static str, help: &'static str) -> Flag {
    Flag { short: ' ', long, value: "", help }
}

/// One subcommand.
#[derive(Debug)]
pub struct Command {
    /// Name.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// One line on what it does; empty for subcommands that are not there yet.
    pub about: &'static str,
    /// Synopses without the program name; continuation lines start with blanks.
    pub usage: &'static [&'static str],
    /// Options.
    pub flags: &'static [Flag],
    /// A missing value is reported as such and not as an invalid option.
    pub tells_missing: bool,
    /// What its operands are.
    pub operands: Hint,
    /// False if it is only in the table to be listed.
    pub ready: bool,
}

/// A subcommand that is known but not there yet.
pub const fn later(name: &'static str, usage: &'static [&'static str]) -> Command {
    Command {
        name,
        aliases: &[],
        about: "",
        usage,
        flags: &[],
        tells_missing: false,
        operands: Hint::None,
        ready: false,
    }
}

/// Arguments taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    options: Vec<(&'static Flag, Option<String>)>,
    /// What is no option.
    pub operands: Vec<String>,
    /// The whole command from the subcommand on, as the history tells it.
    pub line: String,
}

impl Parsed {
    /// True if the switch was given.
    pub fn has(&self, short: char) -> bool {
        self.options.iter().any(|(f, _)| f.short == short)
    }

    /// True if the switch of that long name was given.
    pub fn has_long(&self, name: &str) -> bool {
        self.options.iter().any(|(f, _)| f.long == name)
    }

    /// The last value given for an option.
    pub fn value(&self, short: char) -> Option<&str> {
        self.values(short).last()
    }

    /// Every value given for an option.
    pub fn values(&self, short: char) -> impl Iterator<Item = &str> {
        self.options.iter().filter(move |(f, _)| f.short == short).filter_map(|(_, v)| v.as_deref())
    }

    /// Options in the order given.
    pub fn ordered(&self) -> impl Iterator<Item = (char, &str)> {
        self.options.iter().map(|(f, v)| (f.short, v.as_deref().unwrap_or_default()))
    }
}

fn long_flag(flags: &'static [Flag], name: &str) -> Option<&'static Flag> {
    if let Some(exact) = flags.iter().find(|f| !f.long.is_empty() && f.long == name) {
        return Some(exact);
    }
    let mut fits = flags.iter().filter(|f| !f.long.is_empty() && f.long.starts_with(name));
    match (fits.next(), fits.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// Takes `args` apart by the flags of `command`. The error is the sentence to print above the usage.
pub fn parse(command: &Command, args: &[String]) -> Result<Parsed, String> {
    let flags = command.flags;
    let invalid = |what: &str| format!("invalid option '{what}'");
    let missing = |what: &str| {
        if command.tells_missing { format!("missing argument for '{what}' option") } else { invalid(what) }
    };
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            parsed.operands.extend(rest.cloned());
            break;
        }
        if let Some(name) = arg.strip_prefix("--") {
            let (name, given) = match name.split_once('=') {
                Some((n, v)) => (n, Some(v.to_owned())),
                None => (name, None),
            };
            let flag = long_flag(flags, name).ok_or_else(|| invalid(name))?;
            let value = match (flag.value.is_empty(), given) {
                (true, None) => None,
                (true, Some(_)) => return Err(invalid(name)),
                (false, Some(v)) => Some(v),
                (false, None) => Some(rest.next().cloned().ok_or_else(|| missing(name))?),
            };
            parsed.options.push((flag, value));
            continue;
        }
        let Some(letters) = arg.strip_prefix('-').filter(|l| !l.is_empty()) else {
            parsed.operands.push(arg.clone());
            continue;
        };
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            let name = letter.to_string();
            let flag = flags.iter().find(|f| f.short == letter && letter != ' ').ok_or_else(|| invalid(&name))?;
            if flag.value.is_empty() {
                parsed.options.push((flag, None));
                continue;
            }
            let glued: String = letters.by_ref().collect();
            let value = match rest.as_slice().first() {
                _ if !glued.is_empty() => glued,
                Some(_) => rest.next().cloned().unwrap_or_default(),
                None if flag.value.starts_with('[') => glued,
                None => return Err(missing(&name)),
            };
            parsed.options.push((flag, Some(value)));
        }
    }
    Ok(parsed)
}

/// Finds a subcommand by name or alias.
pub fn find(commands: &'static [Command], name: &str) -> Option<&'static Command> {
    commands.iter().find(|c| c.name == name || c.aliases.contains(&name))
}

/// The synopses of a subcommand as usage texts show them.
pub fn usage_lines(command: &Command) -> String {
    let mut out = String::new();
    for line in command.usage {
        for part in line.split('\n') {
            out.push('\t');
            out.push_str(part);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: Command = Command {
        name: "t",
        aliases: &[],
        about: "",
        usage: &[],
        flags: &[
            switch('H', ""),
            switch('p', ""),
            option('o', "x", ""),
            Flag { short: 'j', long: "json", value: "", help: "" },
            long("json-int", ""),
        ],
        tells_missing: true,
        operands: Hint::None,
        ready: true,
    };

    fn run(args: &[&str]) -> Result<Parsed, String> {
        parse(&TEST, &args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn like_getopt() {
        let p = run(&["tank", "-Hp", "-oname,used", "-o", "size", "--", "-x"]).unwrap();
        assert!(p.has('H') && p.has('p') && !p.has('j'));
        assert_eq!(p.values('o').collect::<Vec<_>>(), ["name,used", "size"]);
        assert_eq!(p.operands, ["tank", "-x"]);
        let p = run(&["-j", "--json-i", "-"]).unwrap();
        assert!(p.has('j') && p.has_long("json-int"));
        assert_eq!(p.operands, ["-"]);
        assert!(run(&["--json"]).unwrap().has('j'));
        assert_eq!(run(&["-x"]).unwrap_err(), "invalid option 'x'");
        assert_eq!(run(&["-o"]).unwrap_err(), "missing argument for 'o' option");
        assert_eq!(run(&["--js"]).unwrap_err(), "invalid option 'js'");
    }
}
