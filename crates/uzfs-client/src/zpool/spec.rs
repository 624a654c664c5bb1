//! Device specifications as OpenZFS's `zpool` reads them: words to groups of devices, and whether groups match.

use std::os::unix::fs::FileTypeExt;
use uzfs_proto::{VdevNode, VdevSpec};

/// Most devices of a RAID group.
const MAX_RAID: usize = 255;
/// Difference of sizes that is let pass (`ZPOOL_FUZZ`).
const FUZZ: u64 = 16 << 20;
/// Most distributed spares.
const MAX_SPARES: u64 = 100;

/// Parity of a word such as `raidz2`; nothing when it names none.
fn parity(word: &str, prefix: &str) -> Option<usize> {
    let rest = word.strip_prefix(prefix)?;
    match rest.split(':').next()? {
        "" => Some(1),
        digit => digit.parse().ok().filter(|p| (1..=3).contains(p)),
    }
}

/// Kind of a group and the fewest devices it needs; nothing when the word is a device.
fn group(word: &str) -> Option<(String, usize)> {
    if word == "mirror" {
        return Some((word.into(), 2));
    }
    if let Some(p) = parity(word, "raidz").filter(|_| !word.contains(':')) {
        return Some((format!("raidz{p}"), p + 1));
    }
    parity(word, "draid").map(|p| (word.into(), p + 1))
}

/// What devices after a word are for.
fn class(word: &str) -> Option<&'static str> {
    ["log", "special", "dedup", "spare", "cache"].into_iter().find(|c| *c == word)
}

/// Whether a word names a distributed spare: parity, number of the dRAID and number of the spare, as `draid1-0-0`.
fn is_distributed_spare(word: &str) -> bool {
    let numbers: Vec<&str> = word.strip_prefix("draid").map(|rest| rest.split('-').collect()).unwrap_or_default();
    numbers.len() == 3 && numbers.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// The device that a word names. The error is the sentence.
pub fn device(word: &str) -> Result<VdevSpec, String> {
    if is_distributed_spare(word) {
        return Ok(VdevSpec { kind: "dspare".into(), path: Some(word.into()), ..VdevSpec::default() });
    }
    let path = if word.starts_with('/') { word.to_owned() } else { format!("/dev/{word}") };
    let kind = match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() => "file",
        Ok(meta) if meta.file_type().is_block_device() => "disk",
        Ok(_) => return Err(format!("cannot use '{path}': must be a block device or regular file")),
        Err(_) if !word.starts_with('/') => {
            return Err(format!(
                "cannot open '{word}': no such device in /dev\nmust be a full path or shorthand device name"
            ));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(format!("cannot resolve path '{path}'")),
        Err(e) => return Err(format!("cannot open '{path}': {}", plain(&e))),
    };
    Ok(VdevSpec { kind: kind.into(), path: Some(path), ..VdevSpec::default() })
}

/// An error of the system in the words of strerror(3).
fn plain(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Reads device specifications. The error is the sentence.
pub fn specification(words: &[String]) -> Result<Vec<VdevSpec>, String> {
    let mut out: Vec<VdevSpec> = Vec::new();
    let mut purpose = "";
    let mut rest = words;
    while let Some((word, tail)) = rest.split_first() {
        rest = tail;
        if let Some(c) = class(word) {
            if out.iter().any(|v| v.class == c) && matches!(c, "log" | "spare" | "cache") {
                return Err(format!("invalid vdev specification: '{c}' can be specified only once"));
            }
            purpose = c;
            let none = tail.first().is_none_or(|w| class(w).is_some());
            if none && c != "special" && c != "dedup" {
                return Err(format!("invalid vdev specification: {c} requires at least 1 devices"));
            }
            continue;
        }
        let Some((kind, least)) = group(word) else {
            if is_distributed_spare(word) && matches!(purpose, "log" | "special" | "dedup" | "spare") {
                return Err(format!("cannot open '{word}': dRAID spares can only be used to replace primary vdevs"));
            }
            out.push(VdevSpec { class: purpose.into(), ..device(word)? });
            continue;
        };
        if matches!(purpose, "spare" | "cache") {
            purpose = "";
        }
        if purpose == "log" && kind != "mirror" {
            let kind = kind.trim_end_matches(|c: char| c.is_ascii_digit());
            return Err(format!("invalid vdev specification: unsupported 'log' device: {kind}"));
        }
        let count = rest.iter().take_while(|w| group(w).is_none() && class(w).is_none()).count();
        let (members, tail) = rest.split_at(count);
        rest = tail;
        let children = members.iter().map(|m| device(m)).collect::<Result<_, _>>()?;
        if count < least {
            return Err(format!("invalid vdev specification: {word} requires at least {least} devices"));
        }
        if count > MAX_RAID && kind != "mirror" {
            return Err(format!("invalid vdev specification: {word} supports no more than {MAX_RAID} devices"));
        }
        let kind = if kind.starts_with("draid") { draid(word, count as u64)? } else { kind };
        out.push(VdevSpec { kind, path: None, class: purpose.into(), children });
    }
    if out.is_empty() {
        return Err("invalid vdev specification: at least one toplevel vdev must be specified".into());
    }
    Ok(out)
}

/// The full form of a dRAID word for `width` devices. The error is the sentence.
fn draid(word: &str, width: u64) -> Result<String, String> {
    let nparity = parity(word, "draid").unwrap_or(1) as u64;
    let (mut ndata, mut nspares) = (None, 0u64);
    for part in word.split(':').skip(1) {
        let syntax = || format!("invalid dRAID syntax; expected [:<number><c|d|s>] not '{word}'");
        let end = part.find(|c: char| !c.is_ascii_digit()).ok_or_else(syntax)?;
        let (number, unit) = part.split_at(end);
        let number: u64 = number.parse().map_err(|_| syntax())?;
        match unit.to_ascii_lowercase().as_str() {
            "c" | "w" if number != width => {
                return Err(format!("invalid number of dRAID children; {number} required but {width} provided"));
            }
            "c" | "w" => {}
            "d" => ndata = Some(number),
            "s" => nspares = number,
            _ => return Err(syntax()),
        }
    }
    let left = width.saturating_sub(nspares.saturating_add(nparity));
    let ndata = match ndata {
        None if left == 0 => {
            return Err(format!(
                "request number of distributed spares {nspares} and parity level {nparity}\n\
                 leaves no disks available for data"
            ));
        }
        None => left.min(8),
        Some(n) => n,
    };
    if ndata == 0 || ndata > left {
        return Err(format!(
            "requested number of dRAID data disks per group {ndata} is too high,\n\
             at most {left} disks are available for data"
        ));
    }
    if nspares > MAX_SPARES || nspares > width.saturating_sub(ndata + nparity) {
        return Err(format!("invalid number of dRAID spares {nspares}; additional disks would be required"));
    }
    Ok(format!("draid{nparity}:{ndata}d:{width}c:{nspares}s"))
}

/// How redundant a group is (`replication_level_t`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Level {
    kind: String,
    parity: usize,
    children: usize,
}

fn level(v: &VdevSpec) -> Level {
    if v.children.is_empty() {
        return Level { kind: v.kind.clone(), parity: 0, children: 1 };
    }
    let kind = ["raidz", "draid"].into_iter().find(|k| v.kind.starts_with(k));
    let parity = kind.and_then(|k| parity(&v.kind, k)).unwrap_or(0);
    Level { kind: kind.unwrap_or(&v.kind).to_owned(), parity, children: v.children.len() }
}

fn level_of(node: &VdevNode) -> Level {
    let parity = node.nparity.unwrap_or(0) as usize;
    Level { kind: node.kind.clone(), parity, children: node.children.len().max(1) }
}

/// Two levels that are judged by how many failures they survive: names, failures survived.
fn by_failures(a: &Level, b: &Level) -> Option<(usize, usize)> {
    let survived = |l: &Level| match l.kind.as_str() {
        "mirror" => Some(l.children - 1),
        "raidz" | "draid" => Some(l.parity),
        _ => None,
    };
    let mixed = a.kind != b.kind;
    survived(a).zip(survived(b)).filter(|_| mixed && (a.kind != "draid" || b.kind != "mirror"))
}

fn compare(first: &Level, second: &Level, of_pool: bool) -> Option<String> {
    let what = |text: String| Some(format!("mismatched replication level: {text}"));
    if let Some((a, b)) = by_failures(first, second) {
        if a == b {
            return None;
        }
        let (x, y, ways) = match (first.kind.as_str(), second.kind.as_str()) {
            ("mirror", _) => ((&second.kind, b), (&first.kind, a), Some(first.children)),
            (_, "mirror") => ((&first.kind, a), (&second.kind, b), Some(second.children)),
            _ => ((&first.kind, a), (&second.kind, b), None),
        };
        let ways = ways.map_or_else(String::new, |n| format!(" ({n}-way)"));
        return what(match of_pool {
            true => {
                format!(
                    "pool and new vdev with different redundancy, {} and {} vdevs, {} vs. {}{ways}",
                    x.0, y.0, x.1, y.1
                )
            }
            false => {
                format!("{} and {} vdevs with different redundancy, {} vs. {}{ways} are present", x.0, y.0, x.1, y.1)
            }
        });
    }
    let (k1, k2) = (&first.kind, &second.kind);
    if k1 != k2 {
        return what(match of_pool {
            true => format!("pool uses {k1} and new vdev is {k2}"),
            false => format!("both {k1} and {k2} vdevs are present"),
        });
    }
    if first.parity != second.parity {
        let (p1, p2) = (first.parity, second.parity);
        return what(match of_pool {
            true => format!("pool uses {p1} device parity and new vdev uses {p2}"),
            false => format!("both {p1} and {p2} device parity {k1} vdevs are present"),
        });
    }
    if first.children != second.children {
        let (c1, c2) = (first.children, second.children);
        return what(match of_pool {
            true => format!("pool uses {c1}-way {k1} and new vdev uses {c2}-way {k1}"),
            false => format!("both {c1}-way and {c2}-way {k1} vdevs are present"),
        });
    }
    None
}

/// Complains about groups that protect data differently, or whose members differ.
pub fn mismatches(vdevs: &[VdevSpec]) -> Vec<String> {
    let counted = |v: &&VdevSpec| !matches!(v.class.as_str(), "log" | "spare" | "cache");
    let mut out = Vec::new();
    let mut last: Option<Level> = None;
    for v in vdevs.iter().filter(counted) {
        let own = level(v);
        let kinds: Vec<&str> = v.children.iter().map(|c| c.kind.as_str()).collect();
        if kinds.iter().any(|k| kinds.first() != Some(k)) {
            out.push(format!("mismatched replication level: {} contains both files and devices", own.kind));
        } else if sizes_differ(v) {
            out.push(format!("{} contains devices of different sizes", own.kind));
        }
        if let Some(why) = last.as_ref().and_then(|l| compare(l, &own, false)) {
            out.push(why);
        }
        last = Some(own);
    }
    out
}

fn sizes_differ(v: &VdevSpec) -> bool {
    let sizes = v.children.iter().filter_map(|c| std::fs::metadata(c.path.as_ref()?).ok());
    let sizes: Vec<u64> = sizes.filter(std::fs::Metadata::is_file).map(|m| m.len()).collect();
    sizes.windows(2).any(|w| matches!(w, [a, b] if a.abs_diff(*b) > FUZZ))
}

/// Complains about a new group that protects data differently from those of a pool that agree with each other.
pub fn mismatch_with(pool: &VdevNode, vdevs: &[VdevSpec]) -> Option<String> {
    let there = |v: &&VdevNode| !v.is_log && !matches!(v.kind.as_str(), "hole" | "indirect");
    let levels: Vec<Level> = pool.children.iter().filter(there).map(level_of).collect();
    if levels.windows(2).any(|w| matches!(w, [a, b] if compare(a, b, false).is_some())) {
        return None;
    }
    let counted = |v: &&VdevSpec| !matches!(v.class.as_str(), "log" | "spare" | "cache");
    compare(levels.last()?, &level(vdevs.iter().rfind(counted)?), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        let dir = tempfile::tempdir().unwrap();
        let file = |n: &str| {
            let path = dir.path().join(n);
            std::fs::write(&path, b"").unwrap();
            path.to_string_lossy().into_owned()
        };
        let files: Vec<String> = ["a", "b", "c", "d", "e", "f"].iter().map(|n| file(n)).collect();
        let read = |text: &str| {
            let words: Vec<String> = text
                .split(' ')
                .map(|w| match w.as_bytes() {
                    [c @ b'a'..=b'f'] => files[usize::from(c - b'a')].clone(),
                    _ => w.to_owned(),
                })
                .collect();
            specification(&words)
        };
        let v = read("mirror a b log c spare d").unwrap();
        let shape: Vec<_> = v.iter().map(|v| (v.kind.as_str(), v.class.as_str(), v.children.len())).collect();
        assert_eq!(shape, [("mirror", "", 2), ("file", "log", 0), ("file", "spare", 0)]);
        assert_eq!(read("raidz a b c").unwrap()[0].kind, "raidz1");
        assert_eq!(read("draid2:2d:1s a b c d e").unwrap()[0].kind, "draid2:2d:5c:1s");
        assert_eq!(read("draid a b c").unwrap()[0].kind, "draid1:2d:3c:0s");
        assert_eq!(
            read("draid1:9d a b c").unwrap_err(),
            "requested number of dRAID data disks per group 9 is too high,\nat most 2 disks are available for data"
        );
        assert_eq!(read("raidz2 a b").unwrap_err(), "invalid vdev specification: raidz2 requires at least 3 devices");
        assert_eq!(read("log a log b").unwrap_err(), "invalid vdev specification: 'log' can be specified only once");
        assert_eq!(read("/nowhere/x").unwrap_err(), "cannot resolve path '/nowhere/x'");
        let one = |text: &str| mismatches(&read(text).unwrap());
        assert_eq!(
            one("mirror a b raidz2 c d e"),
            [
                "mismatched replication level: raidz and mirror vdevs with different redundancy, 2 vs. 1 (2-way) are present"
            ]
        );
        assert_eq!(
            one("raidz a b c raidz2 d e f"),
            ["mismatched replication level: both 1 and 2 device parity raidz vdevs are present"]
        );
        assert_eq!(one("a mirror b c"), ["mismatched replication level: both file and mirror vdevs are present"]);
        assert!(one("mirror a b mirror c d").is_empty());
        let mut pool = VdevNode::new("root", 0, 1);
        pool.children = vec![VdevNode::new("file", 0, 2)];
        assert_eq!(
            mismatch_with(&pool, &read("mirror a b").unwrap()).unwrap(),
            "mismatched replication level: pool uses file and new vdev is mirror"
        );
    }
}
