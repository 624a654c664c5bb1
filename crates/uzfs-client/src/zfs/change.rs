//! Subcommands that change datasets: create, destroy, snapshot, clone, rename, rollback, set, inherit.

use super::datasets::{self, Query};
use super::mount::{self, How};
use crate::getopt::Parsed;
use crate::props::{self, FS, SNAP, VOL, parse};
use crate::sentence;
use crate::session::{Run, Session, Stop, putln};
use std::collections::BTreeMap;
use uzfs_proto::{
    CloneSnapshotArgs, CreateDatasetArgs, CreateSnapshotsArgs, DatasetKind, DestroyDatasetsArgs, Failure, FailureCode,
    Raw, RenameDatasetArgs, RollbackArgs, SetPropertiesArgs, method,
};

/// Ends a command with a sentence and exit code 1.
fn refuse<T>(session: &mut Session, sentence: &str) -> Result<T, Stop> {
    putln!(session.err, "{sentence}");
    Err(Stop::Exit(1))
}

fn usage<T>(why: &str) -> Result<T, Stop> {
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

fn one(args: &Parsed, missing: &str) -> Result<String, Stop> {
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
    if let (Some(size), false) = (volume_size, args.has('s')) {
        // The whole volume is promised its space unless it is sparse.
        properties.entry("refreservation".into()).or_insert_with(|| Raw::number(size));
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
fn names_below(session: &mut Session, root: &str, kinds: u8) -> Result<Vec<String>, Stop> {
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

/// `zfs destroy`.
pub fn destroy(session: &mut Session, args: &Parsed) -> Run {
    let name = one(args, "missing dataset argument")?;
    if name.contains('#') {
        return refuse(session, "destroying bookmarks is not supported yet by uzfs");
    }
    if args.has('R') {
        return refuse(session, "destroying dependents with -R is not supported yet by uzfs");
    }
    let doomed = match name.split_once('@') {
        Some((dataset, snaps)) => doomed_snapshots(session, args, dataset, snaps)?,
        None => doomed_datasets(session, args, &name)?,
    };
    if args.has('v') || args.has('n') {
        for name in &doomed {
            let word = match (args.has('p'), args.has('n')) {
                (true, _) => "destroy\t",
                (false, true) => "would destroy ",
                (false, false) => "will destroy ",
            };
            putln!(session.out, "{word}{name}");
        }
    }
    if args.has('n') {
        return Ok(0);
    }
    let call = DestroyDatasetsArgs { names: doomed, defer: args.has('d'), force: args.has('f') };
    match session.try_call::<method::DestroyDatasets>(&call)? {
        Ok(_) => Ok(0),
        Err(f) => {
            let subject = f.subject.clone().unwrap_or(name);
            let noun = if subject.contains('@') { "snapshot " } else { "" };
            putln!(session.err, "cannot destroy {noun}'{subject}': {}", destroy_sentence(&f));
            Ok(1)
        }
    }
}

fn destroy_sentence(failure: &Failure) -> String {
    match failure.code {
        FailureCode::Busy => "dataset is busy".into(),
        FailureCode::DatasetExists => failure.message.clone(),
        _ => sentence::of(failure),
    }
}

/// The snapshots that `ds@a,b` means, in `ds` or with `-r` below it too.
fn doomed_snapshots(session: &mut Session, args: &Parsed, dataset: &str, snaps: &str) -> Result<Vec<String>, Stop> {
    if snaps.contains('%') {
        return refuse(session, "ranges of snapshots are not supported yet by uzfs");
    }
    let all = names_below(session, dataset, SNAP)?;
    let mut out = Vec::new();
    for snap in snaps.split(',') {
        let belongs = |full: &&String| match full.split_once('@') {
            Some((of, short)) => short == snap && (of == dataset || args.has('r')),
            None => false,
        };
        out.extend(all.iter().filter(belongs).cloned());
    }
    if out.is_empty() {
        return refuse(session, "could not find any snapshots to destroy; check snapshot names.");
    }
    Ok(out)
}

/// A dataset, with `-r` everything below it first.
fn doomed_datasets(session: &mut Session, args: &Parsed, name: &str) -> Result<Vec<String>, Stop> {
    let what = format!("cannot destroy '{name}'");
    if !name.contains('/') {
        putln!(session.err, "{what}: operation does not apply to pools");
        putln!(session.err, "use 'zfs destroy -r {name}' to destroy all datasets in the pool");
        putln!(session.err, "use 'zpool destroy {name}' to destroy the pool itself");
        return Err(Stop::Exit(1));
    }
    let mut all = names_below(session, name, FS | VOL | SNAP)?;
    if all.len() > 1 && !args.has('r') {
        putln!(session.err, "{what}: filesystem has children");
        putln!(session.err, "use '-r' to destroy the following datasets:");
        for below in all.iter().skip(1) {
            putln!(session.err, "{below}");
        }
        return Err(Stop::Exit(1));
    }
    all.reverse();
    // Snapshots go before the datasets they are of, which parents-first order reversed does not give.
    all.sort_by_key(|n| !n.contains('@'));
    Ok(all)
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
            match parse::value(prop, text, kind, false) {
                Ok(value) => properties.insert(prop.to_owned(), value),
                Err(why) => return refuse(session, &format!("{what}: {why}")),
            };
        }
        let remount = properties.contains_key("mountpoint");
        let call = SetPropertiesArgs { name: name.clone(), properties, inherit: Vec::new() };
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
    if args.has('S') {
        return refuse(session, "reverting to received values with -S is not supported yet by uzfs");
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
            let call =
                SetPropertiesArgs { name: name.clone(), properties: BTreeMap::new(), inherit: vec![prop.clone()] };
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

/// `zfs rollback`.
pub fn rollback(session: &mut Session, args: &Parsed) -> Run {
    let name = one(args, "missing dataset argument")?;
    let Some((dataset, snap)) = name.split_once('@') else {
        return refuse(session, &format!("cannot open '{name}': not a snapshot"));
    };
    let what = format!("cannot rollback to '{name}'");
    let of = format!("{dataset}@");
    let all: Vec<String> = names_below(session, dataset, SNAP)?.into_iter().filter(|n| n.starts_with(&of)).collect();
    let Some(at) = all.iter().position(|n| n.split_once('@').is_some_and(|(_, s)| s == snap)) else {
        return refuse(session, &format!("cannot open '{name}': dataset does not exist"));
    };
    let later: Vec<String> = all.iter().skip(at + 1).rev().cloned().collect();
    if !later.is_empty() {
        if !args.has('r') && !args.has('R') {
            putln!(session.err, "{what}: more recent snapshots or bookmarks exist");
            putln!(session.err, "use '-r' to force deletion of the following snapshots and bookmarks:");
            for n in later.iter().rev() {
                putln!(session.err, "{n}");
            }
            return Ok(1);
        }
        let call = DestroyDatasetsArgs { names: later, defer: false, force: args.has('f') };
        session.call::<method::DestroyDatasets>(&what, &call)?;
    }
    session.call::<method::Rollback>(&what, &RollbackArgs { snapshot: name, force: args.has('f') })?;
    Ok(0)
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
    let properties = properties(session, args, DatasetKind::Filesystem, &what)?;
    if args.has('p') {
        create_parents(session, &name)?;
    }
    let call = CloneSnapshotArgs { origin, name: name.clone(), properties };
    session.call::<method::CloneSnapshot>(&what, &call)?;
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
    if args.has('r') {
        return refuse(session, "renaming snapshots with -r is not supported yet by uzfs");
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
    let call = RenameDatasetArgs { from: from.clone(), to: to.clone(), force: args.has('f') };
    session.call::<method::RenameDataset>(&what, &call)?;
    if from.contains('@') || args.has('u') { Ok(0) } else { mount::move_mounts(session, &to) }
}
