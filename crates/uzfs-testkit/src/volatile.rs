//! What may differ from the recorded tables, each with its reason. Nothing else may.
//!
//! Cells whose reason is "judged by" something are not left unchecked: the transcript of the same bytes
//! imported read-only by OpenZFS, or OpenZFS's `zdb`, has the figure they are compared with.

use crate::tables::Cells;
use std::path::Path;

/// A recorded table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `zfs list -Hp -r -t all`.
    ZfsList,
    /// `zfs get -Hp -r all`.
    ZfsGet,
    /// `zpool get -Hp all`.
    PoolGet,
    /// `zpool list -Hpv`.
    PoolList,
}

/// Access times that were still to be written when the table was printed.
const ATIMES: &str = "reading every file for the manifest changed access times; they were written after the table \
                      was printed (judged by the transcript)";
/// OpenZFS does not load space maps for a read-only import and shows zero; before the export it was right.
const SPACE: &str = "the export itself wrote blocks, and the manifest's access times (judged by OpenZFS's zdb)";

/// Cells that are not compared: table, column, reason.
const RULES: &[(Table, &str, &str)] = &[
    (Table::ZfsList, "used", ATIMES),
    (Table::ZfsList, "avail", ATIMES),
    (Table::ZfsList, "refer", ATIMES),
    (Table::ZfsGet, "used", ATIMES),
    (Table::ZfsGet, "available", ATIMES),
    (Table::ZfsGet, "referenced", ATIMES),
    (Table::ZfsGet, "compressratio", ATIMES),
    (Table::ZfsGet, "refcompressratio", ATIMES),
    (Table::ZfsGet, "usedbysnapshots", ATIMES),
    (Table::ZfsGet, "usedbydataset", ATIMES),
    (Table::ZfsGet, "usedbychildren", ATIMES),
    (Table::ZfsGet, "usedbyrefreservation", ATIMES),
    (Table::ZfsGet, "written", ATIMES),
    (Table::ZfsGet, "logicalused", ATIMES),
    (Table::ZfsGet, "logicalreferenced", ATIMES),
    (Table::PoolGet, "feature@livelist", "an empty livelist goes with the export (judged by the transcript)"),
    (Table::PoolGet, "altroot", "the test imports below a folder of its own"),
    (Table::PoolGet, "altroot (source)", "the test imports below a folder of its own"),
    (Table::PoolGet, "cachefile", "import -R implies cachefile=none"),
    (Table::PoolGet, "cachefile (source)", "import -R implies cachefile=none"),
    (Table::PoolGet, "readonly", "the test imports read-only, the table was printed read-write"),
    (Table::PoolGet, "load_guid", "a random number of each import"),
    (Table::PoolGet, "allocated", SPACE),
    (Table::PoolGet, "free", SPACE),
    (Table::PoolGet, "capacity", SPACE),
    (Table::PoolGet, "fragmentation", SPACE),
    (Table::PoolGet, "checkpoint", SPACE),
    (Table::PoolGet, "dedup_table_size", SPACE),
    (Table::PoolList, "alloc", SPACE),
    (Table::PoolList, "free", SPACE),
    (Table::PoolList, "frag", SPACE),
    (Table::PoolList, "cap", SPACE),
    (Table::PoolList, "ckpoint", SPACE),
    (Table::PoolList, "altroot", "the test imports below a folder of its own"),
];

/// Why a cell is not compared with the table of the corpus; none if it is.
pub fn reason(table: Table, row: &str, column: &str, expected: &Cells) -> Option<&'static str> {
    if let Some((_, _, why)) = RULES.iter().find(|(t, c, _)| *t == table && *c == column) {
        return Some(why);
    }
    let value = |c: &str| expected.get(&(row.to_owned(), c.to_owned())).map(String::as_str);
    let mounted = value("mounted") == Some("yes");
    match (table, column) {
        (Table::PoolList, "size") if value("health") == Some("OFFLINE") => {
            Some("it was open before it was taken offline; after an import it is not (judged by the transcript)")
        }
        (Table::ZfsGet, "readonly" | "readonly (source)") if mounted => {
            Some("a file system of a pool that is imported read-only is mounted read-only (judged by the transcript)")
        }
        _ => None,
    }
}

/// The expected cell where the pool is imported below `root`.
pub fn below_root(table: Table, column: &str, want: &str, root: &Path) -> String {
    let point = matches!((table, column), (Table::ZfsList | Table::ZfsGet, "mountpoint"));
    match want {
        "/" if point => root.display().to_string(),
        path if point && path.starts_with('/') => format!("{}{path}", root.display()),
        other => other.to_owned(),
    }
}

/// Commands of the transcripts that are not compared, by their first words, with the reason.
const COMMANDS: &[(&str, &str)] = &[
    ("zpool list", "OpenZFS shows no allocated space of a read-only pool; ours is judged by its zdb"),
    ("zpool scrub", "writing is not there yet"),
    ("zpool set", "writing is not there yet"),
    ("zfs snapshot", "writing is not there yet"),
    ("zfs create", "writing is not there yet"),
    ("zfs set", "writing is not there yet"),
    ("zfs destroy", "writing is not there yet"),
    ("zfs holds", "the subcommand is not there yet"),
    ("zpool version", "names this program's version"),
    ("zpool --version", "names this program's version"),
    ("zpool -V", "names this program's version"),
    ("zfs version", "names this program's version"),
    ("zfs --version", "names this program's version"),
    ("zfs -V", "names this program's version"),
];

/// Why a command of a transcript is not compared; none if it is.
pub fn command_reason(line: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(start, _)| line.starts_with(start)).map(|(_, why)| *why)
}

/// Lines of a transcript that are left out on both sides: start of the command, what the line holds,
/// reason.
const LINES: &[(&str, &str, &str)] = &[
    ("zpool get -o name,value size,free", "basic", "no property is named, and OpenZFS shows all space as free"),
    ("zpool get", "\tload_guid\t", "a random number of each import"),
    ("zpool get", " load_guid ", "a random number of each import"),
    ("zpool get", "\tallocated\t", "OpenZFS shows no allocated space of a read-only pool"),
    ("zpool get", " allocated ", "OpenZFS shows no allocated space of a read-only pool"),
    ("zpool get", "\tfree\t", "OpenZFS shows no allocated space of a read-only pool"),
    ("zpool get", " free ", "OpenZFS shows no allocated space of a read-only pool"),
    ("zpool get", "\tcapacity\t", "OpenZFS shows no allocated space of a read-only pool"),
    ("zpool get", " capacity ", "OpenZFS shows no allocated space of a read-only pool"),
    ("zpool get", "\tfragmentation\t", "OpenZFS loads no space maps of a read-only pool"),
    ("zpool get", " fragmentation ", "OpenZFS loads no space maps of a read-only pool"),
    ("zpool status", " copied at ", "the speed of an expansion is that of the moment"),
    ("zpool status", "dedup: DDT entries", "how much memory the table takes depends on its representation there"),
];

/// Whether a line of a command's output is compared.
pub fn compared(command: &str, line: &str) -> bool {
    !LINES.iter().any(|(start, part, _)| command.starts_with(start) && line.contains(part))
}

/// Whether a value of JSON output, named by its path, is left out: OpenZFS counts no allocated space in a
/// pool that is imported read-only, and a pass of a scan that is over starts with the import.
pub fn json_is_volatile(path: &str) -> bool {
    let space = ["/alloc_space", "/checkpoint_space", "/raidz_expand_stats/to_reflow", "/scan_stats/pass_start"];
    // The pool's own deflated space counts what deduplication and clones save, which OpenZFS has not loaded.
    let parts: Vec<&str> = path.split('/').collect();
    let root = matches!(parts[..], ["", "pools", pool, "vdevs", root, "def_space"] if pool == root);
    root || space.iter().any(|s| path.ends_with(s))
}
