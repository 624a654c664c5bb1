//! `zfs upgrade`: which file systems are of older versions, and giving them a newer one.

use super::change::usage;
use super::datasets::{self, Query};
use crate::getopt::Parsed;
use crate::props::{self, FS};
use crate::session::{Run, Session, Stop, putln};
use std::collections::{BTreeMap, BTreeSet};
use uzfs_proto::{Dataset, DatasetKind, GetPoolsArgs, LogHistoryArgs, Raw, SetPropertiesArgs, method};

/// Newest version of file systems.
const ZPL_VERSION: u64 = 5;
/// Version that a pool has to have for file systems of each version, from the first.
const POOL_VERSIONS: [u64; 5] = [1, 1, 9, 15, 24];
/// What `-v` says of each version, from the first.
const DESCRIPTIONS: [&str; 5] = [
    "Initial ZFS filesystem version",
    "Enhanced directory entries",
    "Case insensitive and filesystem user identifier (FUID)",
    "userquota, groupquota properties",
    "System attributes",
];

/// `zfs upgrade`.
pub fn upgrade(session: &mut Session, args: &Parsed) -> Run {
    let mut version = 0;
    for text in args.values('V') {
        match props::parse::value("version", text, DatasetKind::Filesystem, false) {
            Ok(raw) => version = raw.as_u64().unwrap_or(0),
            Err(_) => {
                putln!(session.err, "invalid version {text}");
                return usage("");
            }
        }
    }
    let (all, recursive, some) = (args.has('a'), args.has('r'), !args.operands.is_empty());
    let aimless = !all && !some && (recursive || version != 0);
    let showing = args.has('v');
    if aimless || (showing && (recursive || all || version != 0 || some)) || (all && some) {
        return usage("");
    }
    if showing {
        show_versions(session);
        return Ok(0);
    }
    if !all && !some {
        return list(session);
    }
    let version = if version == 0 { ZPL_VERSION } else { version };
    let (found, failed) = filesystems(session, &args.operands, recursive)?;
    let (code, pools) = raise(session, &found, version)?;
    if all {
        // No operand tells whose history it belongs to.
        for pool in pools {
            let call = LogHistoryArgs { pool, command: format!("zfs {}", args.line) };
            let _ = session.try_call::<method::LogHistory>(&call);
        }
    }
    Ok(code.max(i32::from(failed)))
}

fn show_versions(session: &mut Session) {
    putln!(session.out, "The following filesystem versions are supported:\n");
    putln!(session.out, "VER  DESCRIPTION");
    putln!(session.out, "---  --------------------------------------------------------");
    for (n, text) in (1..).zip(DESCRIPTIONS) {
        putln!(session.out, "{n:>2}   {text}");
    }
    putln!(session.out, "\nFor more information on a particular version, including supported releases,");
    putln!(session.out, "see the ZFS Administration Guide.\n");
}

fn filesystems(session: &mut Session, roots: &[String], recursive: bool) -> Result<(Vec<Dataset>, bool), Stop> {
    let query = Query {
        roots: roots.to_vec(),
        recursive: recursive || roots.is_empty(),
        depth: None,
        kinds: FS,
        listsnapshots: false,
        properties: Some(vec!["version".to_owned()]),
    };
    let (mut found, failed) = datasets::fetch(session, &query)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((found, failed))
}

fn version_of(dataset: &Dataset) -> u64 {
    dataset.properties.get("version").and_then(|p| p.value.as_u64()).unwrap_or(0)
}

/// Tells which file systems are not of the newest version.
fn list(session: &mut Session) -> Run {
    putln!(session.out, "This system is currently running ZFS filesystem version {ZPL_VERSION}.\n");
    let (found, failed) = filesystems(session, &[], true)?;
    let (old, new): (Vec<&Dataset>, Vec<&Dataset>) =
        found.iter().filter(|d| version_of(d) != ZPL_VERSION).partition(|d| version_of(d) < ZPL_VERSION);
    const OLD: &str = "The following filesystems are out of date, and can be upgraded.  After being\n\
        upgraded, these filesystems (and any 'zfs send' streams generated from\n\
        subsequent snapshots) will no longer be accessible by older software versions.\n\n";
    const NEW: &str = "The following filesystems are formatted using a newer software version and\n\
        cannot be accessed on the current system.\n\n";
    for (which, text) in [(&old, OLD), (&new, NEW)] {
        if !which.is_empty() {
            putln!(session.out, "{text}");
            putln!(session.out, "VER  FILESYSTEM\n---  ------------");
            which.iter().for_each(|d| putln!(session.out, "{:>2}   {}", version_of(d), d.name));
        }
    }
    if old.is_empty() && new.is_empty() {
        putln!(session.out, "All filesystems are formatted with the current version.");
    }
    Ok(i32::from(failed))
}

/// Gives file systems a version. Tells the exit code, and the pools of those that got it.
fn raise(session: &mut Session, found: &[Dataset], version: u64) -> Result<(i32, BTreeSet<String>), Stop> {
    let call = GetPoolsArgs { properties: Some(Vec::new()), ..GetPoolsArgs::default() };
    let pools = session.call::<method::GetPools>("cannot list pools", &call)?.pools;
    let needed = usize::try_from(version).ok().and_then(|v| POOL_VERSIONS.get(v.wrapping_sub(1))).copied().unwrap_or(0);
    let (mut done, mut same, mut failed, mut changed) = (0u64, 0u64, 0u64, BTreeSet::new());
    for dataset in found {
        let (name, now) = (&dataset.name, version_of(dataset));
        let pool = name.split('/').next().unwrap_or(name);
        if pools.iter().any(|p| p.name == pool && p.version < needed) {
            putln!(
                session.out,
                "{name}: can not be upgraded; the pool version needs to first be upgraded\nto version {needed}\n"
            );
            failed += 1;
        } else if now > version {
            putln!(session.out, "{name}: can not be downgraded; it is already at version {now}");
            failed += 1;
        } else if now == version {
            same += 1;
        } else {
            let properties = BTreeMap::from([("version".to_owned(), Raw::number(version))]);
            let call = SetPropertiesArgs { name: name.clone(), properties, ..SetPropertiesArgs::default() };
            match session.try_call::<method::SetProperties>(&call)? {
                Ok(_) => {
                    done += 1;
                    changed.insert(pool.to_owned());
                }
                Err(f) => {
                    session.report(&format!("cannot set property for '{name}'"), &f);
                    failed += 1;
                }
            }
        }
    }
    putln!(session.out, "{done} filesystems upgraded");
    if same > 0 {
        putln!(session.out, "{same} filesystems already at this version");
    }
    Ok((i32::from(failed > 0), changed))
}
