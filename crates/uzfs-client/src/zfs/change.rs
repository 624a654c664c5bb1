//! Subcommands that change datasets: create, snapshot, clone, rename, rollback, set, inherit.

use super::datasets::{self, Query};
use super::destroy::Family;
use super::mount::{self, How};
use super::relate;
use crate::getopt::Parsed;
use crate::props::{self, FS, MARK, SNAP, VOL, parse};
use crate::sentence;
use crate::session::{Run, Session, Stop, putln};
use crate::who;
use std::collections::{BTreeMap, BTreeSet};
use uzfs_proto::{
    CloneSnapshotArgs, CreateDatasetArgs, CreateSnapshotsArgs, DatasetKind, DestroyDatasetsArgs, FailureCode, Raw,
    RenameDatasetArgs, RollbackArgs, SetPropertiesArgs, method,
};

/// Block size of volumes unless told otherwise.
const VOLBLOCK: u64 = 16 << 10;

/// Ends a command with a sentence and exit code 1.
pub(super) fn refuse<T>(session: &mut Session, sentence: &str) -> Result<T, Stop> {
    putln!(session.err, "{sentence}");
    Err(Stop::Exit(1))
}

pub(super) fn usage<T>(why: &str) -> Result<T, Stop> {
    Err(Stop::Usage(why.into()))
}

/// The values of `-o`, checked.
fn properties(
    session: &mut Session,
    args: &Parsed,
    kind: DatasetKind,
    what: &str,
) -> Result<BTreeMap<String, Raw>, Stop> {
    let mut out = BTreeMap::new();
    for option in args.values('o') {
        let Some((name, text)) = option.split_once('=') else {
            return refuse(session, "missing '=' for property=value argument");
        };
        let value = match parse::value(name, text, kind, true) {
            Ok(value) => value,
            Err(why) => return refuse(session, &format!("{what}: {why}")),
        };
        if out.insert(name.to_owned(), value).is_some() {
            return refuse(session, &format!("property '{name}' specified multiple times"));
        }
    }
    Ok(out)
}

fn check_name(session: &mut Session, name: &str, what: &str) -> Result<(), Stop> {
    match sentence::bad_dataset_name(name) {
        Some(why) => refuse(session, &format!("{what}: {why}")),
        None => Ok(()),
    }
}

pub(super) fn one(args: &Parsed, missing: &str) -> Result<String, Stop> {
    match args.operands.as_slice() {
        [] => usage(missing),
        [one] => Ok(one.clone()),
        _ => usage("too many arguments"),
    }
}

/// `zfs create`.
pub fn create(session: &mut Session, args: &Parsed) -> Run {
    let missing = if args.has('V') { "missing volume name argument" } else { "missing filesystem name argument" };
    let name = one(args, missing)?;
    let what = format!("cannot create '{name}'");
    if name.contains(['@', '#']) {
        return refuse(session, &format!("{what}: snapshot delimiter '@' is not expected here"));
    }
    check_name(session, &name, &what)?;
    let kind = if args.has('V') { DatasetKind::Volume } else { DatasetKind::Filesystem };
    let mut properties = properties(session, args, kind, &what)?;
    if let Some(size) = args.value('b') {
        let size = parse::value("volblocksize", size, kind, true);
        properties.insert("volblocksize".into(), size.or_else(|why| refuse(session, &format!("{what}: {why}")))?);
    }
    let volume_size = match args.value('V').map(parse::number) {
        None => None,
        Some(Ok(size)) => Some(size),
        Some(Err(why)) => {
            return refuse(session, &format!("bad volume size '{}': {why}", args.value('V').unwrap_or("")));
        }
    };
    let block = properties.get("volblocksize").and_then(Raw::as_u64).unwrap_or(VOLBLOCK);
    // A volume is made of whole blocks.
    let volume_size = volume_size.map(|size| size.checked_next_multiple_of(block).unwrap_or(size));
    if volume_size.is_some() && !args.has('s') {
        // The whole volume is promised its space unless it is sparse; the daemon knows how much that is.
        properties.entry("refreservation".into()).or_insert_with(|| Raw::number(u64::MAX));
    }
    if args.has('p') {
        create_parents(session, &name)?;
    }
    if args.has('n') {
        if args.has('v') {
            putln!(session.out, "would create {name}");
        }
        return Ok(0);
    }
    let call = CreateDatasetArgs { name: name.clone(), kind, volume_size, properties };
    match session.try_call::<method::CreateDataset>(&call)? {
        Ok(_) => {}
        Err(f) if args.has('p') && f.code == FailureCode::DatasetExists => return Ok(0),
        Err(f) if f.code == FailureCode::NoSuchDataset => {
            return refuse(session, &format!("{what}: parent does not exist"));
        }
        Err(f) => return Err(session.fail(&what, &f)),
    }
    if args.has('v') {
        putln!(session.out, "create {name}");
    }
    if kind == DatasetKind::Filesystem && !args.has('u') {
        return mount::mount_new(session, &name, &How::default());
    }
    Ok(0)
}

/// Makes the file systems above `name` that are missing.
fn create_parents(session: &mut Session, name: &str) -> Result<(), Stop> {
    let parts: Vec<&str> = name.split('/').collect();
    for depth in 2..parts.len() {
        let parent = parts.get(..depth).unwrap_or_default().join("/");
        let call = CreateDatasetArgs {
            name: parent.clone(),
            kind: DatasetKind::Filesystem,
            volume_size: None,
            properties: BTreeMap::new(),
        };
        match session.try_call::<method::CreateDataset>(&call)? {
            Ok(_) => {
                mount::mount_new(session, &parent, &How::default())?;
            }
            Err(f) if f.code == FailureCode::DatasetExists => {}
            Err(f) => return Err(session.fail(&format!("cannot create '{parent}'"), &f)),
        }
    }
    Ok(())
}

/// `zfs snapshot`.
pub fn snapshot(session: &mut Session, args: &Parsed) -> Run {
    if args.operands.is_empty() {
        return usage("missing snapshot argument");
    }
    let mut names = Vec::new();
    for name in &args.operands {
        let what = format!("cannot create snapshot '{name}'");
        let Some((dataset, snap)) = name.split_once('@') else {
            return refuse(
                session,
                &format!("{what}: missing '@' delimiter in snapshot name, did you mean to use -r?"),
            );
        };
        check_name(session, name, &what)?;
        if args.has('r') {
            let below = names_below(session, dataset, FS | VOL)?;
            names.extend(below.into_iter().map(|d| format!("{d}@{snap}")));
        } else {
            names.push(name.clone());
        }
    }
    let mut properties = BTreeMap::new();
    for option in args.values('o') {
        match option.split_once('=') {
            Some((name, value)) if props::is_user(name) => {
                properties.insert(name.to_owned(), value.to_owned());
            }
            Some((name, _)) => return refuse(session, &format!("invalid property '{name}'")),
            None => return refuse(session, "missing '=' for property=value argument"),
        }
    }
    let call = CreateSnapshotsArgs { names, properties };
    match session.try_call::<method::CreateSnapshots>(&call)? {
        Ok(_) => Ok(0),
        Err(f) => {
            let subject = f.subject.clone().unwrap_or_else(|| call.names.first().cloned().unwrap_or_default());
            let what = format!("cannot create snapshot '{subject}'");
            putln!(session.err, "{what}: {}", sentence::of(&f));
            if call.names.len() > 1 {
                putln!(session.err, "no snapshots were created");
            }
            Ok(1)
        }
    }
}

/// Names of a dataset and everything of some kinds below it, parents first.
pub(super) fn names_below(session: &mut Session, root: &str, kinds: u8) -> Result<Vec<String>, Stop> {
    let query = Query {
        roots: vec![root.to_owned()],
        recursive: true,
        depth: None,
        kinds,
        listsnapshots: false,
        properties: Some(Vec::new()),
    };
    let (found, failed) = datasets::fetch(session, &query)?;
    if failed { Err(Stop::Exit(1)) } else { Ok(found.into_iter().map(|d| d.name).collect()) }
}

/// `zfs set`.
pub fn set(session: &mut Session, args: &Parsed) -> Run {
    let is_pair = |o: &&String| o.contains('=') && !o.starts_with('/');
    let pairs: Vec<&String> = args.operands.iter().take_while(is_pair).collect();
    let names: Vec<&String> = args.operands.iter().skip(pairs.len()).collect();
    if args.operands.is_empty() {
        return usage("missing arguments");
    }
    if pairs.is_empty() {
        return usage("missing property=value argument(s)");
    }
    if names.is_empty() {
        return usage("missing dataset name");
    }
    let mut code = 0;
    for name in names {
        let what = format!("cannot set property for '{name}'");
        let Some(kind) = kind_of(session, name)? else {
            code = 1;
            continue;
        };
        let mut properties = BTreeMap::new();
        for pair in &pairs {
            let (prop, text) = pair.split_once('=').unwrap_or((pair.as_str(), ""));
            let prop = &who::numeric(prop);
            match parse::value(prop, text, kind, false) {
                Ok(value) => properties.insert(prop.to_owned(), value),
                Err(why) => return refuse(session, &format!("{what}: {why}")),
            };
        }
        // A file system that may not be mounted any more is not.
        let off = properties.get("canmount").and_then(Raw::as_u64) == Some(0);
        let remount = properties.contains_key("mountpoint") || off;
        let call = SetPropertiesArgs { name: name.clone(), properties, ..SetPropertiesArgs::default() };
        match session.try_call::<method::SetProperties>(&call)? {
            Ok(_) if remount && !args.has('u') => code = code.max(mount::move_mounts(session, name)?),
            Ok(_) => {}
            Err(f) => {
                session.report(&what, &f);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// The kind of a dataset; says that it does not exist otherwise.
fn kind_of(session: &mut Session, name: &str) -> Result<Option<DatasetKind>, Stop> {
    let query = Query {
        roots: vec![name.to_owned()],
        recursive: false,
        depth: Some(0),
        kinds: FS | VOL | SNAP,
        listsnapshots: false,
        properties: Some(Vec::new()),
    };
    let (found, _) = datasets::fetch(session, &query)?;
    Ok(found.first().map(|d| d.kind))
}

/// `zfs inherit`.
pub fn inherit(session: &mut Session, args: &Parsed) -> Run {
    let Some((prop, names)) = args.operands.split_first() else { return usage("missing property argument") };
    if names.is_empty() {
        return usage("missing dataset argument");
    }
    let native = props::dataset(prop);
    match native.map(|d| d.attr) {
        None if !props::is_user(prop) => return refuse(session, &format!("invalid property '{prop}'")),
        Some(props::Attr::ReadOnly) => return refuse(session, &format!("{prop} property is read-only")),
        Some(props::Attr::Default)
            if matches!(prop.as_str(), "quota" | "reservation" | "refquota" | "refreservation") =>
        {
            putln!(session.err, "'{prop}' property cannot be inherited");
            putln!(session.err, "use 'zfs set {prop}=none' to clear");
            return Ok(1);
        }
        _ => {}
    }
    let mut code = 0;
    for name in names {
        let all = if args.has('r') { names_below(session, name, FS | VOL)? } else { vec![name.clone()] };
        for name in all {
            let call = SetPropertiesArgs {
                name: name.clone(),
                inherit: vec![prop.clone()],
                to_received: args.has('S'),
                ..SetPropertiesArgs::default()
            };
            match session.try_call::<method::SetProperties>(&call)? {
                Ok(_) if prop == "mountpoint" => code = code.max(mount::move_mounts(session, &name)?),
                Ok(_) => {}
                Err(f) => {
                    session.report(&format!("cannot inherit {prop} for '{name}'"), &f);
                    code = 1;
                }
            }
        }
    }
    Ok(code)
}

/// Most names that are listed before giving up.
const MOST_LISTED: usize = 32;

/// `zfs rollback`.
pub fn rollback(session: &mut Session, args: &Parsed) -> Run {
    let name = one(args, "missing dataset argument")?;
    let Some((dataset, _)) = name.split_once('@') else {
        return refuse(session, &format!("cannot open '{name}': not a snapshot"));
    };
    let what = format!("cannot rollback to '{name}'");
    let Some(snap) = relate::open(session, &name, &[])? else { return Ok(1) };
    let query = Query {
        roots: vec![dataset.to_owned()],
        recursive: true,
        depth: Some(1),
        kinds: SNAP | MARK,
        listsnapshots: false,
        properties: Some(Vec::new()),
    };
    let (found, _) = datasets::fetch(session, &query)?;
    let of_dataset = |n: &str| n.split(['@', '#']).next() == Some(dataset);
    let later: Vec<String> =
        found.into_iter().filter(|d| of_dataset(&d.name) && d.createtxg.0 > snap.createtxg.0).map(|d| d.name).collect();
    if !later.is_empty() {
        if !args.has('r') && !args.has('R') {
            putln!(session.err, "{what}: more recent snapshots or bookmarks exist");
            putln!(session.err, "use '-r' to force deletion of the following snapshots and bookmarks:");
            for n in later.iter().take(MOST_LISTED) {
                putln!(session.err, "{n}");
            }
            if later.len() >= MOST_LISTED {
                putln!(session.err, "Output limited to {MOST_LISTED} snapshots/bookmarks");
            }
            return Ok(1);
        }
        let names = rolled_away(session, args, &what, later)?;
        let call = DestroyDatasetsArgs { names, defer: false, force: args.has('f') };
        session.call::<method::DestroyDatasets>(&what, &call)?;
    }
    session.call::<method::Rollback>(&what, &RollbackArgs { snapshot: name, force: args.has('f') })?;
    Ok(0)
}

/// What has to go for a rollback over `later`, clones with `-R` only.
fn rolled_away(session: &mut Session, args: &Parsed, what: &str, later: Vec<String>) -> Result<Vec<String>, Stop> {
    let (marks, snaps): (Vec<String>, Vec<String>) = later.into_iter().partition(|n| n.contains('#'));
    let Some(first) = snaps.first() else { return Ok(marks) };
    let family = Family::of(session, first)?;
    let mut names = Vec::new();
    let mut seen = BTreeSet::new();
    for snap in snaps.iter().rev() {
        family.gather(snap, &mut seen, &mut names);
    }
    let clones: Vec<&String> = names.iter().filter(|n| !snaps.contains(n)).collect();
    if !clones.is_empty() && !args.has('R') {
        putln!(session.err, "{what}: clones of previous snapshots exist");
        putln!(session.err, "use '-R' to force deletion of the following clones and dependents:");
        for clone in clones {
            putln!(session.err, "{clone}");
        }
        return Err(Stop::Exit(1));
    }
    names.extend(marks);
    Ok(names)
}

/// `zfs clone`.
pub fn clone(session: &mut Session, args: &Parsed) -> Run {
    let (origin, name) = match args.operands.as_slice() {
        [] => return usage("missing source dataset argument"),
        [_] => return usage("missing target dataset argument"),
        [origin, name] => (origin.clone(), name.clone()),
        _ => return usage("too many arguments"),
    };
    let what = format!("cannot create '{name}'");
    check_name(session, &name, &what)?;
    let head = origin.split('@').next().unwrap_or_default().to_owned();
    if !origin.contains('@') {
        return refuse(session, &format!("cannot open '{origin}': not a snapshot"));
    }
    let Some(kind) = kind_of(session, &head)? else { return Ok(1) };
    let properties = properties(session, args, kind, &what)?;
    if args.has('p') {
        if relate::exists(session, &name)? {
            return Ok(0);
        }
        create_parents(session, &name)?;
    }
    let call = CloneSnapshotArgs { origin, name: name.clone(), properties };
    session.call::<method::CloneSnapshot>(&what, &call)?;
    if kind == DatasetKind::Volume {
        return Ok(0);
    }
    mount::mount_new(session, &name, &How::default())
}

/// `zfs rename`.
pub fn rename(session: &mut Session, args: &Parsed) -> Run {
    let (from, to) = match args.operands.as_slice() {
        [] => return usage("missing source dataset argument"),
        [_] => return usage("missing target dataset argument"),
        [from, to] => (from.clone(), to.clone()),
        _ => return usage("too many arguments"),
    };
    if args.has('r') && !from.contains('@') {
        return usage("source dataset for recursive rename must be a snapshot");
    }
    let to = match (from.split_once('@'), to.strip_prefix('@')) {
        (Some((dataset, _)), Some(short)) => format!("{dataset}@{short}"),
        _ => to,
    };
    let what = format!("cannot rename to '{to}'");
    check_name(session, &to, &what)?;
    if args.has('p') {
        create_parents(session, &to)?;
    }
    let recursive = args.has('r');
    let below = format!("{from}/");
    mount::let_go(session, args.has('f'), &|d| d == from || d.starts_with(&below))?;
    let call = RenameDatasetArgs { from: from.clone(), to: to.clone(), force: args.has('f'), recursive };
    session.call::<method::RenameDataset>(&what, &call)?;
    if from.contains('@') || args.has('u') { Ok(0) } else { mount::move_mounts(session, &to) }
}
