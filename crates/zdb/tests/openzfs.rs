//! The same command lines as OpenZFS's zdb, on every pool there is: the output must be the same, byte for byte.

use std::path::Path;
use std::process::Command;
use uzfs_testkit::corpus::{self, POOLS};

const OPENZFS: &str = "/usr/sbin/zdb";

fn openzfs() -> bool {
    let there = Path::new(OPENZFS).exists();
    if !there {
        println!("skipped: {OPENZFS} is not installed");
    }
    there
}

struct Ran {
    out: String,
    err: String,
    code: Option<i32>,
}

fn run(program: &str, args: &[&str]) -> Ran {
    let got = Command::new(program).args(args).env("TZ", "UTC").output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    Ran { out: text(got.stdout), err: text(got.stderr), code: got.status.code() }
}

/// First line that differs.
fn difference(ours: &str, theirs: &str) -> Option<String> {
    let (mut a, mut b) = (ours.lines(), theirs.lines());
    for n in 1.. {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (x, y) if x == y => {}
            (x, y) => return Some(format!("line {n}:\n  ours:    {x:?}\n  openzfs: {y:?}")),
        }
    }
    None
}

fn compare(pools: &[&str], args: &[&str]) {
    compare_by(pools, args, &str::to_owned);
}

/// Compares what `shown` leaves of the output.
fn compare_by(pools: &[&str], args: &[&str], shown: &dyn Fn(&str) -> String) {
    if !openzfs() {
        return;
    }
    let mut bad = Vec::new();
    for spec in POOLS.iter().filter(|s| pools.is_empty() || pools.contains(&s.name)) {
        let pool = match corpus::open(spec) {
            Ok(p) => p,
            Err(why) => {
                println!("{}: skipped: {why}", spec.name);
                continue;
            }
        };
        let dir = pool.devices.to_string_lossy().into_owned();
        let mut line = vec!["-e", "-p", &dir];
        line.extend(args);
        line.push(spec.name);
        let (ours, theirs) = (run(env!("CARGO_BIN_EXE_zdb"), &line), run(OPENZFS, &line));
        match difference(&shown(&ours.out), &shown(&theirs.out)) {
            None if ours.code == theirs.code => println!("{}: same", spec.name),
            None => bad.push(format!("{}: exit {:?}, openzfs {:?}: {}", spec.name, ours.code, theirs.code, ours.err)),
            Some(d) => bad.push(format!("{}: {d}\n{}", spec.name, ours.err)),
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn every_pool_is_whole_and_counted_alike() {
    compare(&[], &["-bcc"]);
}

#[test]
fn tables_of_blocks() {
    compare(&["basic", "gang", "removed", "classes"], &["-bbbb"]);
}

#[test]
fn datasets_and_objects() {
    compare(&["basic", "v28", "acls", "vol", "longnames", "crypt", "zil", "quotas", "algos"], &["-L", "-dddd"]);
}

#[test]
fn configuration_history_and_root() {
    compare(&["basic", "v28", "expanded", "dr2"], &["-Chu"]);
}

#[test]
fn shared_blocks() {
    compare(&["dedup", "legacydedup"], &["-DDDDD"]);
    compare(&["dedup", "z1x3", "gang"], &["-S"]);
    compare(&["reflink", "basic"], &["-TTTT"]);
}

#[test]
fn metaslabs() {
    compare(&["basic", "classes", "removed", "dr1"], &["-mm"]);
}

/// Everything at once, as without options. What was read by then differs by what each program caches.
#[test]
fn the_whole_dump() {
    compare_by(&["basic", "v28", "classes", "removed", "crypt", "quotas"], &[], &|text| {
        text.lines().filter(|l| !is_rate(l)).map(|l| format!("{l}\n")).collect()
    });
}

/// Whether a line of `-s` follows: seven figures behind a name.
fn is_rate(line: &str) -> bool {
    let figures = line.split_whitespace().rev().take_while(|w| w.starts_with(|c: char| c.is_ascii_digit()));
    figures.count() >= 7 && !line.contains(':')
}

/// The same columns and figures of space; how much was read is each program's own.
#[test]
fn space_beside_io() {
    let shown = |text: &str| {
        let cut = |l: &str| l.get(..38).unwrap_or(l).trim_end().to_owned();
        text.lines().map(|l| format!("{}\n", cut(l))).collect()
    };
    compare_by(&["basic", "classes", "removed", "dr1"], &["-s"], &shown);
}

#[test]
fn livelists_and_metaslabs() {
    compare(&["basic", "removed", "checkpoint", "dr1", "gang"], &["-y"]);
    compare(&["basic", "dedup"], &["-dddd"]);
}

#[test]
fn fragmentation() {
    compare(&[], &["-MM"]);
}

#[test]
fn headers_of_zstd() {
    compare(&["algos"], &["-L", "-Z", "-ddddd"]);
}

#[test]
fn what_an_import_begins_with() {
    compare(&["basic", "classes", "removed", "dr1", "lostdisk"], &["-CC"]);
    compare(&["z1x3"], &["-FXCC"]);
}

/// A copy of what was read is enough to read it again, and nothing is ever written over.
#[test]
fn copies_of_what_was_read() {
    let Some(Ok(pool)) = POOLS.iter().find(|s| s.name == "basic").map(corpus::open) else { return };
    let dir = std::env::temp_dir().join(format!("uzfs-zdb-copies-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (from, to) = (pool.devices.to_string_lossy(), dir.to_string_lossy());
    let zdb = env!("CARGO_BIN_EXE_zdb");
    let first = run(zdb, &["-e", "-p", &from, "-x", &to, "-d", "basic"]);
    assert_eq!(first.code, Some(0), "{}", first.err);
    let again = run(zdb, &["-e", "-p", &to, "-d", "basic"]);
    assert_eq!((again.code, difference(&again.out, &first.out)), (Some(0), None), "{}", again.err);
    let over = run(zdb, &["-e", "-p", &to, "-x", &to, "-d", "basic"]);
    assert_eq!(over.code, Some(1), "{}", over.err);
    let spared = run(zdb, &["-e", "-p", &to, "-d", "basic"]);
    assert_eq!(spared.code, Some(0), "the copies were touched: {}", spared.err);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn tunables_and_messages() {
    let zdb = env!("CARGO_BIN_EXE_zdb");
    let set = run(zdb, &["-o", "zfs_arc_max=67108864", "-e", "-p", "/nonexistent", "-G", "none"]);
    assert_eq!((set.code, set.out.as_str()), (Some(1), "zfs_arc_max: 268435456 -> 67108864\n"));
    assert!(
        set.err.contains("\nZFS_DBGMSG(zdb) START:\n") && set.err.ends_with("ZFS_DBGMSG(zdb) END\n"),
        "{}",
        set.err
    );
    let unknown = run(zdb, &["-o", "zfs_none=1", "-C"]);
    assert_eq!((unknown.code, unknown.err.as_str()), (Some(1), "no such tunable: zfs_none\n"));
}

#[test]
fn labels() {
    if !openzfs() {
        return;
    }
    for name in ["basic", "classes", "expanded", "v28"] {
        let Some(Ok(pool)) = POOLS.iter().find(|s| s.name == name).map(corpus::open) else { continue };
        for device in pool.device_names() {
            let path = pool.devices.join(device).to_string_lossy().into_owned();
            for flags in ["-l", "-lll", "-lu", "-luuuu", "-luq"] {
                let line = [flags, path.as_str()];
                let (ours, theirs) = (run(env!("CARGO_BIN_EXE_zdb"), &line), run(OPENZFS, &line));
                assert_eq!(difference(&ours.out, &theirs.out), None, "{flags} {path}");
                assert_eq!(ours.code, theirs.code, "{flags} {path}");
            }
        }
    }
}

#[test]
fn usage_and_refusals() {
    let zdb = env!("CARGO_BIN_EXE_zdb");
    let odd = run(zdb, &["-Q"]);
    assert_eq!(odd.code, Some(2));
    assert!(odd.err.starts_with("zdb: invalid option -- 'Q'\nUsage:\tzdb [-AbcdDFGhikLMPsvXy]"), "{}", odd.err);
    let absent = run(zdb, &["-B", "tank/54"]);
    assert_eq!((absent.code, absent.err.lines().count()), (Some(2), 1));
    let none = run(zdb, &["-e", "-p", "/nonexistent", "no-such-pool"]);
    assert_eq!(none.code, Some(1));
    // Without options everything is wanted, messages too.
    let (why, rest) = none.err.split_once('\n').unwrap();
    assert_eq!(why, "zdb: can't open 'no-such-pool': No such file or directory");
    assert!(rest.starts_with("\nZFS_DBGMSG(zdb) START:\n"), "{rest}");
    if openzfs() {
        // The name in front of the first line is how the program was called.
        let theirs = run(OPENZFS, &["-Q"]);
        assert_eq!(difference(&odd.err, &theirs.err.replacen(OPENZFS, "zdb", 1)), None);
    }
}

/// Needs no OpenZFS: every pool that ships with the repository is whole, also in the middle of an expansion or with
/// devices missing, and each block of it verifies.
#[test]
fn golden_pools_are_whole() {
    for spec in POOLS.iter().filter(|s| s.golden) {
        let pool = corpus::open(spec).unwrap();
        let dir = pool.devices.to_string_lossy().into_owned();
        let ran = run(env!("CARGO_BIN_EXE_zdb"), &["-e", "-p", &dir, "-bcc", spec.name]);
        assert_eq!(ran.code, Some(0), "{}: {}{}", spec.name, ran.out, ran.err);
        assert!(ran.out.contains("\tNo leaks (block sum matches space maps exactly)\n"), "{}: {}", spec.name, ran.out);
        let listed = run(env!("CARGO_BIN_EXE_zdb"), &["-e", "-p", &dir, "-L", "-dddddd", spec.name]);
        assert_eq!(listed.code, Some(0), "{}: {}", spec.name, listed.err);
        assert!(listed.out.contains("Verified large_blocks feature refcount of"), "{}", spec.name);
    }
}
