//! `zpool create`, `zpool destroy`, `zpool sync`: reading device specifications as OpenZFS's `zpool` does.

use crate::getopt::Parsed;
use crate::props::{self, parse};
use crate::sentence;
use crate::session::{Run, Session, Stop, putln};
use crate::zfs::mount::{self, How};
use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use uzfs_proto::{CreatePoolArgs, DatasetKind, DestroyPoolArgs, FailureCode, Raw, SyncPoolsArgs, VdevSpec, method};

/// Most devices of a RAID-Z group.
const MAX_RAIDZ: usize = 255;

fn refuse<T>(session: &mut Session, sentence: &str) -> Result<T, Stop> {
    putln!(session.err, "{sentence}");
    Err(Stop::Exit(1))
}

/// Kind of a group and the fewest devices it needs; nothing when the word is a device.
fn group(word: &str) -> Option<(String, usize)> {
    match word {
        "mirror" => Some((word.into(), 2)),
        "raidz" | "raidz1" => Some(("raidz1".into(), 2)),
        "raidz2" => Some((word.into(), 3)),
        "raidz3" => Some((word.into(), 4)),
        _ => None,
    }
}

/// What devices after a word are for.
fn class(word: &str) -> Option<&'static str> {
    ["log", "special", "dedup", "spare", "cache"].into_iter().find(|c| *c == word || (*c == "log" && word == "logs"))
}

/// The device that a word names. The error is the sentence.
fn device(word: &str) -> Result<VdevSpec, String> {
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
                let what = if c == "log" { "logs" } else { c };
                return Err(format!("invalid vdev specification: '{what}' can be specified only once"));
            }
            purpose = c;
            continue;
        }
        if word.starts_with("draid") {
            return Err("making dRAID groups is not supported yet by uzfs".into());
        }
        let Some((kind, least)) = group(word) else {
            out.push(VdevSpec { class: purpose.into(), ..device(word)? });
            continue;
        };
        if matches!(purpose, "spare" | "cache") || (purpose == "log" && kind != "mirror") {
            return Err(format!("invalid vdev specification: unsupported '{purpose}' device: {word}"));
        }
        let count = rest.iter().take_while(|w| group(w).is_none() && class(w).is_none()).count();
        let (members, tail) = rest.split_at(count);
        rest = tail;
        if count < least {
            return Err(format!("invalid vdev specification: {word} requires at least {least} devices"));
        }
        if count > MAX_RAIDZ {
            return Err(format!("invalid vdev specification: {word} supports no more than {MAX_RAIDZ} devices"));
        }
        let children = members.iter().map(|m| device(m)).collect::<Result<_, _>>()?;
        out.push(VdevSpec { kind, path: None, class: purpose.into(), children });
    }
    if !out.iter().any(|v| v.class.is_empty()) {
        return Err("invalid vdev specification: at least one toplevel vdev must be specified".into());
    }
    Ok(out)
}

/// How redundant a group is: kind and number of devices.
fn replication(v: &VdevSpec) -> (&str, usize) {
    if v.children.is_empty() { ("disk", 1) } else { (v.kind.as_str(), v.children.len()) }
}

/// Complains about groups for data that protect it differently.
fn mismatch(vdevs: &[VdevSpec]) -> Option<String> {
    let data: Vec<_> = vdevs.iter().filter(|v| v.class.is_empty()).map(replication).collect();
    let (first, first_count) = *data.first()?;
    for (kind, count) in data.iter().skip(1) {
        if *kind != first {
            return Some(format!("mismatched replication level: both {first} and {kind} vdevs are present"));
        }
        if *count != first_count {
            return Some(format!(
                "mismatched replication level: both {first_count}-way and {count}-way {kind} vdevs are present"
            ));
        }
    }
    None
}

fn pool_properties(session: &mut Session, args: &Parsed) -> Result<BTreeMap<String, String>, Stop> {
    let mut out = BTreeMap::new();
    for option in args.values('o') {
        let Some((name, value)) = option.split_once('=') else {
            return refuse(session, "missing '=' for -o option");
        };
        if props::pool(name).is_none() && !props::is_feature(name) {
            return refuse(session, &format!("property '{name}' is not a valid pool or vdev property"));
        }
        if out.insert(name.to_owned(), value.to_owned()).is_some() {
            return refuse(session, &format!("property '{name}' specified multiple times"));
        }
    }
    Ok(out)
}

fn dataset_properties(session: &mut Session, args: &Parsed, what: &str) -> Result<BTreeMap<String, Raw>, Stop> {
    let mut out = BTreeMap::new();
    let mountpoint = args.value('m').map(|m| format!("mountpoint={m}"));
    for option in args.values('O').chain(mountpoint.as_deref()) {
        let Some((name, value)) = option.split_once('=') else {
            return refuse(session, "missing '=' for -O option");
        };
        match parse::value(name, value, DatasetKind::Filesystem, true) {
            Ok(raw) => out.insert(name.to_owned(), raw),
            Err(why) => return refuse(session, &format!("{what}: {why}")),
        };
    }
    Ok(out)
}

/// Says why the mountpoint of a new pool cannot be used.
fn unusable_mountpoint(place: &str) -> Option<String> {
    if place == "none" || place == "legacy" {
        return None;
    }
    if !place.starts_with('/') {
        return Some(format!("invalid mountpoint '{place}': must be an absolute path, 'legacy', or 'none'"));
    }
    let mut entries = std::fs::read_dir(Path::new(place)).ok()?;
    entries.next().map(|_| {
        format!("mountpoint '{place}' exists and is not empty\nuse '-m' option to provide a different default")
    })
}

/// `zpool create`.
pub fn create(session: &mut Session, args: &Parsed) -> Run {
    let Some((name, words)) = args.operands.split_first() else {
        return Err(Stop::Usage("missing pool name argument".into()));
    };
    if words.is_empty() {
        return Err(Stop::Usage("missing vdev specification".into()));
    }
    let what = format!("cannot create '{name}'");
    if name.contains('/') {
        putln!(session.err, "{what}: invalid character '/' in pool name");
        return refuse(session, "use 'zfs create' to create a dataset");
    }
    let reserved = ["mirror", "raidz", "draid", "spare", "log"].iter().any(|r| name.starts_with(r));
    if let Some(why) = sentence::bad_pool_name(name).or(reserved.then(|| "name is reserved".to_owned())) {
        return refuse(session, &format!("{what}: {why}"));
    }
    let vdevs = match specification(words) {
        Ok(vdevs) => vdevs,
        Err(why) => return refuse(session, &why),
    };
    if let (Some(why), false) = (mismatch(&vdevs), args.has('f')) {
        putln!(session.err, "invalid vdev specification\nuse '-f' to override the following errors:");
        return refuse(session, &why);
    }
    let mut properties = pool_properties(session, args)?;
    let altroot = args.value('R').map(str::to_owned).or_else(|| properties.remove("altroot"));
    if let Some(root) = altroot.as_deref().filter(|r| !r.starts_with('/')) {
        return refuse(session, &format!("invalid alternate root '{root}': must be an absolute path"));
    }
    let dataset_properties = dataset_properties(session, args, &what)?;
    let own = format!("/{name}");
    let place = args.value('m').unwrap_or(&own);
    let place = format!("{}{place}", altroot.as_deref().filter(|_| place.starts_with('/')).unwrap_or(""));
    if let Some(why) = unusable_mountpoint(&place) {
        return refuse(session, &why);
    }
    if args.has('n') {
        putln!(session.out, "would create '{name}' with the following layout:\n\n\t{name}");
        print_layout(session, &vdevs);
        return Ok(0);
    }
    let call = CreatePoolArgs {
        name: name.clone(),
        vdevs,
        properties,
        dataset_properties,
        no_features: args.has('d'),
        altroot,
        force: args.has('f'),
    };
    match session.try_call::<method::CreatePool>(&call)? {
        Ok(_) => mount::mount_new(session, name, &How::default()),
        Err(f) if f.code == FailureCode::InvalidProperty || f.code == FailureCode::BadDevice => {
            refuse(session, &format!("{what}: {}", f.message))
        }
        Err(f) => Err(session.fail(&what, &f)),
    }
}

fn print_layout(session: &mut Session, vdevs: &[VdevSpec]) {
    let sections = [
        ("", ""),
        ("dedup", "dedup"),
        ("special", "special"),
        ("log", "logs"),
        ("cache", "cache"),
        ("spare", "spares"),
    ];
    for (class, title) in sections {
        let of_class: Vec<_> = vdevs.iter().filter(|v| v.class == class).collect();
        if !title.is_empty() && !of_class.is_empty() {
            putln!(session.out, "\t{title}");
        }
        for v in of_class {
            let name = v.path.as_deref().unwrap_or(&v.kind);
            putln!(session.out, "\t  {name}");
            for child in &v.children {
                putln!(session.out, "\t    {}", child.path.as_deref().unwrap_or(""));
            }
        }
    }
}

/// `zpool destroy`.
pub fn destroy(session: &mut Session, args: &Parsed) -> Run {
    let pool = match args.operands.as_slice() {
        [] => return Err(Stop::Usage("missing pool argument".into())),
        [pool] => pool.clone(),
        _ => return Err(Stop::Usage("too many arguments".into())),
    };
    if pool.contains('/') {
        putln!(session.err, "cannot open '{pool}': invalid character '/' in pool name");
        return refuse(session, "use 'zfs destroy' to destroy a dataset");
    }
    let call = DestroyPoolArgs { pool: pool.clone(), force: args.has('f') };
    match session.try_call::<method::DestroyPool>(&call)? {
        Ok(_) => Ok(0),
        Err(f) if f.code == FailureCode::NoSuchPool => refuse(session, &format!("cannot open '{pool}': no such pool")),
        Err(f) if f.code == FailureCode::Busy => {
            putln!(session.err, "cannot destroy '{pool}': {}", sentence::of(&f));
            refuse(session, &format!("could not destroy '{pool}': could not unmount datasets"))
        }
        Err(f) => Err(session.fail(&format!("cannot destroy '{pool}'"), &f)),
    }
}

/// `zpool sync`.
pub fn sync(session: &mut Session, args: &Parsed) -> Run {
    let call = SyncPoolsArgs { pools: args.operands.clone() };
    match session.try_call::<method::SyncPools>(&call)? {
        Ok(_) => Ok(0),
        Err(f) => {
            let pool = f.subject.clone().unwrap_or_default();
            Err(session.fail(&format!("cannot open '{pool}'"), &f))
        }
    }
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
        assert_eq!(read("raidz2 a b").unwrap_err(), "invalid vdev specification: raidz2 requires at least 3 devices");
        assert_eq!(
            read("log a").unwrap_err(),
            "invalid vdev specification: at least one toplevel vdev must be specified"
        );
        assert!(read("/nowhere/x").unwrap_err().contains("No such file"));
        assert_eq!(
            mismatch(&read("mirror a b raidz c d e").unwrap()).unwrap(),
            "mismatched replication level: both mirror and raidz1 vdevs are present"
        );
        assert_eq!(mismatch(&read("mirror a b mirror c d").unwrap()), None);
    }
}
