//! The options of `zdb`: one table from which parsing, the usage text and the man page are made.
//!
//! An option given n times has level n; `-v` raises every option that was given, and with no option that selects
//! output, everything that can be dumped is dumped once. Arguments and options may be mixed, `--` ends the options,
//! long names may be shortened as far as they stay unique, as with GNU getopt.

use std::fmt::Write as _;

/// What giving an option means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Selects something to dump: then "everything" is not the default any more.
    Dump,
    /// Changes how things are done.
    Modifier,
    /// Takes a value.
    Value,
    /// Takes a value and selects something to dump.
    DumpValue,
    /// Known to OpenZFS's zdb, not to this one.
    Absent,
}

/// One row of the table.
pub struct Opt {
    /// Short letter.
    pub short: char,
    /// Long name.
    pub long: &'static str,
    /// How the long name is written in the usage text when that differs.
    pub shown: &'static str,
    /// Meaning.
    pub kind: Kind,
    /// What the usage text says.
    pub help: &'static str,
}

const fn opt(short: char, long: &'static str, shown: &'static str, kind: Kind, help: &'static str) -> Opt {
    Opt { short, long, shown, kind, help }
}

use Kind::{Absent, Dump, DumpValue, Modifier, Value};

/// Options that control the amount of output, in the order of the usage text.
pub const OUTPUT: &[Opt] = &[
    opt('b', "block-stats", "", Dump, "block statistics"),
    opt('B', "backup", "", Absent, "backup stream"),
    opt('c', "checksum", "", Dump, "checksum all metadata (twice for all data) blocks"),
    opt('C', "config", "", Dump, "config (or cachefile if alone)"),
    opt('d', "datasets", "", Dump, "dataset(s)"),
    opt('D', "dedup-stats", "", Dump, "dedup statistics"),
    opt(
        'E',
        "embedded-block-pointer",
        "embedded-block-pointer=INTEGER",
        Dump,
        "decode and display block from an embedded block pointer",
    ),
    opt('h', "history", "", Dump, "pool history"),
    opt('i', "intent-logs", "", Dump, "intent logs"),
    opt('l', "label", "", Dump, "read label contents"),
    opt('k', "checkpointed-state", "", Modifier, "examine the checkpointed state of the pool"),
    opt('L', "disable-leak-tracking", "", Modifier, "disable leak tracking (do not load spacemaps)"),
    opt('m', "metaslabs", "", Dump, "metaslabs"),
    opt('M', "metaslab-groups", "", Dump, "metaslab groups"),
    opt('O', "object-lookups", "", Dump, "perform object lookups by path"),
    opt('r', "copy-object", "", Dump, "copy an object by path to file"),
    opt('R', "read-block", "", Dump, "read and display block from a device"),
    opt('s', "io-stats", "", Dump, "report stats on zdb's I/O"),
    opt('S', "simulate-dedup", "", Dump, "simulate dedup to measure effect"),
    opt('v', "verbose", "", Modifier, "verbose (applies to all others)"),
    opt('y', "livelist", "", Dump, "perform livelist and metaslab validation on any livelists being deleted"),
];

/// Options that go with others, in the order of the usage text.
pub const WITH_OTHERS: &[Opt] = &[
    opt('A', "ignore-assertions", "", Modifier, "ignore assertions (-A), enable panic recovery (-AA) or both (-AAA)"),
    opt('e', "exported", "", Modifier, "pool is exported/destroyed/has altroot/not in a cachefile"),
    opt('F', "automatic-rewind", "", Modifier, "attempt automatic rewind within safe range of transaction groups"),
    opt('G', "dump-debug-msg", "", Dump, "dump zfs_dbgmsg buffer before exiting"),
    opt('I', "inflight", "inflight=INTEGER", Value, "specify the maximum number of checksumming I/Os [default is 200]"),
    opt('K', "key", "key=KEY", Value, "decryption key for encrypted dataset"),
    opt('o', "option", "option=\"OPTION=INTEGER\"", DumpValue, "set global variable to an unsigned 32-bit integer"),
    opt('p', "path", "path==PATH", Value, "use one or more with -e to specify path to vdev dir"),
    opt('P', "parseable", "", Modifier, "print numbers in parseable form"),
    opt('q', "skip-label", "", Modifier, "don't print label contents"),
    opt('t', "txg", "txg=INTEGER", Value, "highest txg to use when searching for uberblocks"),
    opt('T', "brt-stats", "", Dump, "BRT statistics"),
    opt('u', "uberblock", "", Dump, "uberblock"),
    opt('U', "cachefile", "cachefile=PATH", Value, "use alternate cachefile"),
    opt('V', "verbatim", "", Modifier, "do verbatim import"),
    opt('x', "dump-blocks", "dump-blocks=PATH", Value, "dump all read blocks into specified directory"),
    opt('X', "extreme-rewind", "", Modifier, "attempt extreme rewind (does not work with dataset)"),
    opt('Y', "all-reconstruction", "", Modifier, "attempt all reconstruction combinations for split blocks"),
    opt('Z', "zstd-headers", "", Dump, "show ZSTD headers "),
];

/// Accepted, but not in the usage text (as in OpenZFS).
const UNLISTED: &[Opt] =
    &[opt('N', "numeric", "", Dump, "interpret the name behind the pool as a dataset's object number")];

const SYNOPSIS: &str = "\
Usage:\tzdb [-AbcdDFGhikLMPsvXy] [-e [-V] [-p <path> ...]] [-I <inflight I/Os>]
\t\t[-o <var>=<value>]... [-t <txg>] [-U <cache>] [-x <dumpdir>]
\t\t[-K <key>]
\t\t[<poolname>[/<dataset | objset id>] [<object | range> ...]]
\tzdb [-AdiPv] [-e [-V] [-p <path> ...]] [-U <cache>] [-K <key>]
\t\t[<poolname>[/<dataset | objset id>] [<object | range> ...]
\tzdb -B [-e [-V] [-p <path> ...]] [-I <inflight I/Os>]
\t\t[-o <var>=<value>]... [-t <txg>] [-U <cache>] [-x <dumpdir>]
\t\t[-K <key>] <poolname>/<objset id> [<backupflags>]
\tzdb [-v] <bookmark>
\tzdb -C [-A] [-U <cache>] [<poolname>]
\tzdb -l [-Aqu] <device>
\tzdb -m [-AFLPX] [-e [-V] [-p <path> ...]] [-t <txg>] [-U <cache>]
\t\t<poolname> [<vdev> [<metaslab> ...]]
\tzdb -O [-K <key>] <dataset> <path>
\tzdb -r [-K <key>] <dataset> <path> <destination>
\tzdb -R [-A] [-e [-V] [-p <path> ...]] [-U <cache>]
\t\t<poolname> <vdev>:<offset>:<size>[:<flags>]
\tzdb -E [-A] word0:word1:...:word15
\tzdb -S [-AP] [-e [-V] [-p <path> ...]] [-U <cache>] <poolname>

    Dataset name must include at least one separator character '/' or '@'
    If dataset name is specified, only that dataset is dumped
    If object numbers or object number ranges are specified, only those
    objects or ranges are dumped.

    Object ranges take the form <start>:<end>[:<flags>]
        start    Starting object number
        end      Ending object number, or -1 for no upper bound
        flags    Optional flags to select object types:
            A     All objects (this is the default)
            d     ZFS directories
            f     ZFS files 
            m     SPA space maps
            z     ZAPs
            -     Negate effect of next flag

";

fn row(out: &mut String, o: &Opt) {
    let name = if o.shown.is_empty() { o.long } else { o.shown };
    let head = format!("-{} --{name}", o.short);
    // The tunable's row is set tighter in the original, and what is parsed there must not be reflowed here.
    if o.short == 'o' {
        let _ = writeln!(out, "        {head} {}", o.help);
    } else if head.len() < 28 {
        let _ = writeln!(out, "        {head:<28} {}", o.help);
    } else {
        let _ = writeln!(out, "        {head}\n{:37}{}", "", o.help);
    }
}

/// The usage text.
pub fn usage() -> String {
    let mut out = String::from(SYNOPSIS);
    out.push_str("    Options to control amount of output:\n");
    OUTPUT.iter().for_each(|o| row(&mut out, o));
    out.push_str("\n    Below options are intended for use with other options:\n");
    WITH_OTHERS.iter().for_each(|o| row(&mut out, o));
    out.push_str("Specify an option more than once (e.g. -bb) to make only that option verbose\n");
    out.push_str("Default is to dump everything non-verbosely\n");
    out
}

/// Every row.
pub fn all() -> impl Iterator<Item = &'static Opt> {
    OUTPUT.iter().chain(WITH_OTHERS).chain(UNLISTED)
}

/// The man page (section 8), in mdoc.
pub fn man_page() -> String {
    let mut out = String::from(
        ".Dd November 22, 2026\n.Dt ZDB 8\n.Os\n.Sh NAME\n.Nm zdb\n.Nd display ZFS storage pool debugging and \
         consistency information\n.Sh SYNOPSIS\n.Nm\n.Op Ar options\n.Op Ar poolname Ns Op / Ns Ar dataset\n.Op Ar \
         object ...\n.Sh DESCRIPTION\n.Nm\nexamines pools without the daemon and never writes to them.\n.Sh \
         OPTIONS\n.Bl -tag -width Ds\n",
    );
    for o in all() {
        let gone = o.kind == Absent;
        let note = if gone { " (not in this implementation)" } else { "" };
        let name = if o.shown.is_empty() { o.long } else { o.shown };
        let _ = writeln!(out, ".It Fl {} , -{}\n{}{note}.", o.short, name, o.help.trim_end());
    }
    out.push_str(
        ".El\n.Sh EXIT STATUS\n0 on success, 1 when something could not be read, 2 when the arguments were wrong \
         or leaks were found, 3 when blocks failed to verify.\n.Sh SEE ALSO\n.Xr zfs 8 ,\n.Xr zpool 8\n",
    );
    out
}

/// The parsed command line.
#[derive(Debug, Clone, Default)]
pub struct Opts {
    levels: std::collections::BTreeMap<char, u32>,
    /// `-v` count.
    pub verbose: u32,
    /// Whether no option selected anything, so that everything is dumped.
    pub dump_all: bool,
    /// `-p`.
    pub paths: Vec<String>,
    /// `-U`.
    pub cachefile: Option<String>,
    /// `-K`.
    pub key: Option<String>,
    /// `-t`.
    pub txg: Option<u64>,
    /// `-I`.
    pub inflight: Option<u64>,
    /// `-o`.
    pub tunables: Vec<String>,
    /// `-x`.
    pub copies: Option<String>,
    /// What is left: pool or dataset, objects.
    pub args: Vec<String>,
}

/// Why parsing ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A line (possibly empty) for standard error, then the usage text; exit 2.
    Usage(String),
    /// Just a line; exit 2.
    Absent(String),
}

impl Opts {
    /// Level of an option: 0 when not wanted.
    pub fn lvl(&self, c: char) -> u32 {
        self.levels.get(&c).copied().unwrap_or(0)
    }

    /// Whether an option was given.
    pub fn has(&self, c: char) -> bool {
        self.lvl(c) > 0
    }

    /// Sets a level by force.
    pub fn set(&mut self, c: char, level: u32) {
        self.levels.insert(c, level);
    }

    /// Parses arguments (without the program's name).
    pub fn parse<I: IntoIterator<Item = String>>(argv: I) -> Result<Self, Refusal> {
        let mut o = Opts { dump_all: true, ..Opts::default() };
        let mut argv = argv.into_iter();
        while let Some(arg) = argv.next() {
            if arg == "--" {
                o.args.extend(argv);
                break;
            } else if let Some(long) = arg.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((n, v)) => (n, Some(v.to_owned())),
                    None => (long, None),
                };
                let row = by_long(name)?;
                let value = match (takes_value(row), value) {
                    (true, None) => {
                        Some(argv.next().ok_or_else(|| {
                            Refusal::Usage(format!("zdb: option '--{}' requires an argument", row.long))
                        })?)
                    }
                    (true, v) => v,
                    (false, Some(_)) => {
                        return Err(Refusal::Usage(format!("zdb: option '--{}' doesn't allow an argument", row.long)));
                    }
                    (false, None) => None,
                };
                o.take(row, value)?;
            } else if arg.len() > 1 && arg.starts_with('-') {
                o.cluster(arg.get(1..).unwrap_or_default(), &mut argv)?;
            } else {
                o.args.push(arg);
            }
        }
        o.finish()?;
        Ok(o)
    }

    fn cluster(&mut self, letters: &str, argv: &mut impl Iterator<Item = String>) -> Result<(), Refusal> {
        let mut rest = letters.chars();
        while let Some(c) = rest.next() {
            let row =
                all().find(|r| r.short == c).ok_or_else(|| Refusal::Usage(format!("zdb: invalid option -- '{c}'")))?;
            if takes_value(row) {
                let tail = rest.as_str().to_owned();
                let value = if tail.is_empty() { argv.next() } else { Some(tail) };
                let value =
                    value.ok_or_else(|| Refusal::Usage(format!("zdb: option requires an argument -- '{c}'")))?;
                return self.take(row, Some(value));
            }
            self.take(row, None)?;
        }
        Ok(())
    }

    fn take(&mut self, row: &Opt, value: Option<String>) -> Result<(), Refusal> {
        match row.kind {
            Absent => {
                let (c, long) = (row.short, row.long);
                return Err(Refusal::Absent(format!("zdb: option -{c} (--{long}) is not available in this program")));
            }
            Dump | DumpValue => self.dump_all = false,
            Modifier | Value => {}
        }
        if row.short == 'v' {
            self.verbose += 1;
            return Ok(());
        }
        if let Some(v) = value {
            self.value(row.short, v)?;
        }
        if !matches!(row.short, 'p' | 't' | 'I' | 'U' | 'x') {
            *self.levels.entry(row.short).or_insert(0) += 1;
        }
        Ok(())
    }

    fn value(&mut self, c: char, v: String) -> Result<(), Refusal> {
        match c {
            'p' => self.paths.push(v),
            'K' => self.key = Some(v),
            'o' => self.tunables.push(v),
            'x' => self.copies = Some(v),
            'U' => {
                if !v.starts_with('/') {
                    let why = "cachefile must be an absolute path (i.e. start with a slash)";
                    return Err(Refusal::Usage(why.into()));
                }
                self.cachefile = Some(v);
            }
            't' => match number(&v) {
                Some(n) if n >= 4 => self.txg = Some(n),
                _ => return Err(Refusal::Usage(format!("incorrect txg specified: {v}"))),
            },
            'I' => match number(&v) {
                Some(n) if n > 0 => self.inflight = Some(n),
                _ => {
                    let why = "maximum number of inflight bytes must be greater than 0";
                    return Err(Refusal::Usage(why.into()));
                }
            },
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Refusal> {
        if !self.has('e') && !self.paths.is_empty() {
            return Err(Refusal::Usage("-p option requires use of -e".into()));
        }
        if self.dump_all {
            self.verbose = self.verbose.max(1);
            for row in all().filter(|r| r.kind == Dump && !"ABeEFkKlLNOPrRSXy".contains(r.short)) {
                self.levels.insert(row.short, 1);
            }
        }
        let verbose = self.verbose;
        for level in self.levels.values_mut() {
            *level += verbose;
        }
        if self.has('N') && !self.has('d') {
            let level = self.lvl('N');
            self.set('d', level);
        }
        Ok(())
    }
}

fn takes_value(row: &Opt) -> bool {
    matches!(row.kind, Value | DumpValue)
}

fn by_long(name: &str) -> Result<&'static Opt, Refusal> {
    if let Some(exact) = all().find(|r| r.long == name) {
        return Ok(exact);
    }
    let mut hits = all().filter(|r| r.long.starts_with(name));
    match (hits.next(), hits.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(Refusal::Usage(format!("zdb: option '--{name}' is ambiguous"))),
        _ => Err(Refusal::Usage(format!("zdb: unrecognized option '--{name}'"))),
    }
}

/// A number as C's `strtoull(…, 0)` reads it: decimal, `0x` hexadecimal, `0` octal.
pub fn number(s: &str) -> Option<u64> {
    if let Some(hex) = s.strip_prefix("0x").or_else(|| s.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    if s.len() > 1 && s.starts_with('0') {
        return u64::from_str_radix(s, 8).ok();
    }
    s.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(s: &str) -> Result<Opts, Refusal> {
        Opts::parse(s.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn levels_add_up_and_verbose_raises_them() {
        let o = parse("-e tank -bcc -p /a --path=/b -vv 7").unwrap();
        assert_eq!((o.lvl('b'), o.lvl('c'), o.lvl('d'), o.lvl('e')), (3, 4, 0, 3));
        assert_eq!(
            (o.args.as_slice(), o.paths.as_slice()),
            (&["tank", "7"].map(String::from)[..], &["/a", "/b"].map(String::from)[..])
        );
    }

    #[test]
    fn nothing_chosen_means_everything() {
        let o = parse("-e tank").unwrap();
        assert!(o.dump_all && o.lvl('d') == 2 && o.lvl('b') == 2 && o.lvl('l') == 0 && o.lvl('S') == 0);
    }

    #[test]
    fn refusals() {
        assert_eq!(parse("-Q").unwrap_err(), Refusal::Usage("zdb: invalid option -- 'Q'".into()));
        assert_eq!(parse("-p /x tank").unwrap_err(), Refusal::Usage("-p option requires use of -e".into()));
        assert!(matches!(parse("-B tank/54").unwrap_err(), Refusal::Absent(_)));
        assert!(matches!(parse("-U x").unwrap_err(), Refusal::Usage(_)));
        assert!(matches!(parse("--c").unwrap_err(), Refusal::Usage(_)));
        assert_eq!(parse("--checks tank").map_or(0, |o| o.lvl('c')), 1);
    }

    #[test]
    fn numbers_as_in_c() {
        assert_eq!((number("0x1f"), number("017"), number("19"), number("x")), (Some(31), Some(15), Some(19), None));
    }
}
