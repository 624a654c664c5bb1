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
    CloneSnapshotArgs, CreateDatasetArgs, CreateSnapshotsArgs, DatasetKind, DestroyDatasetsArgs, FailureCode,
    GetPoolsArgs, Raw, RenameDatasetArgs, RollbackArgs, SetPropertiesArgs, method,
};

/// Block size of volumes unless told otherwise.
const VOLBLOCK: u64 = 16 << 10;

/// Exit code where OpenZFS's tools pass on the -1 of their library.
pub(crate) const LIBZFS_FAILED: i32 = 255;

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

fn check_name(session: &mut Session, name: &str, kinds: u8, what: &str) -> Result<(), Stop> {
    match sentence::bad_new_name(name, kinds) {
        Some(why) => refuse(session, &format!("{what}: {why}")),
        None => Ok(()),
    }
}

/// Checks that a file system is there for `name` to be below.
fn check_parent(session: &mut Session, name: &str) -> Result<(), Stop> {
    let Some((parent, _)) = name.rsplit_once('/') else {
        return refuse(session, &format!("cannot create '{name}': missing dataset name"));
    };
    let pool = name.split('/').next().unwrap_or(name);
    let why = match relate::kind(session, parent)? {
        Some(DatasetKind::Filesystem) => return Ok(()),
        Some(_) => "parent is not a filesystem".to_owned(),
        None if parent != pool && relate::kind(session, pool)?.is_some() => "parent does not exist".to_owned(),
        None => format!("no such pool '{pool}'"),
    };
    refuse(session, &format!("cannot create '{name}': {why}"))
}

pub(super) fn one(args: &Parsed, missing: &str) -> Result<String, Stop> {
    match args.operands.as_slice() {
        [] => usage(missing),
        [one] => Ok(one.clone()),
        _ => usage("too many arguments"),
    }
}

/// What goes with an option that is missing its counterpart.
fn check_create_options(args: &Parsed) -> Result<(), Stop> {
    let volume = args.has('V');
    if (args.has('b') || args.has('s')) && !volume {
        return usage("'-s' and '-b' can only be used when creating a volume");
    }
    if args.has('u') && volume {
        return usage("'-u' can only be used when creating a filesystem");
    }
    Ok(())
}

/// `zfs create`.
pub fn create(session: &mut Session, args: &Parsed) -> Run {
    check_create_options(args)?;
    let kind = if args.has('V') { DatasetKind::Volume } else { DatasetKind::Filesystem };
    let name = one(args, &format!("missing {} argument", kind.word()))?;
    let what = format!("cannot create '{name}'");
    let pool = name.split('/').next().unwrap_or(&name);
    if (args.has('n') || args.has('V')) && relate::kind(session, pool)?.is_none() {
        return refuse(session, &format!("cannot open '{pool}': no such pool"));
    }
    let mut shown: BTreeMap<String, String> =
        args.values('o').filter_map(|o| o.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut properties = properties(session, args, kind, &what)?;
    if let Some(why) = inconsistent(&properties) {
        return refuse(session, &format!("{what}: {why}"));
    }
    if let Some(size) = args.value('b') {
        let size = parse::value("volblocksize", size, kind, true);
        let size = size.or_else(|why| refuse(session, &format!("{what}: {why}")))?;
        shown.insert("volblocksize".into(), size.as_u64().unwrap_or(0).to_string());
        properties.insert("volblocksize".into(), size);
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
    shown.extend(volume_size.map(|size| ("volsize".to_owned(), size.to_string())));
    if volume_size.is_some() && !args.has('s') {
        // The whole volume is promised its space unless it is sparse; the daemon knows how much that is.
        properties.entry("refreservation".into()).or_insert_with(|| Raw::number(u64::MAX));
    }
    if args.has('p') && sentence::bad_new_name(&name, FS | VOL).is_none() {
        if relate::kind(session, &name)?.is_some() {
            return Ok(0);
        }
        told(session, args, "ancestors of ", "_ancestors", &name, &BTreeMap::new());
        if !args.has('n') {
            create_parents(session, &name)?;
        }
    }
    told(session, args, "", "", &name, &shown);
    if args.has('n') {
        return Ok(0);
    }
    check_name(session, &name, FS | VOL, &what)?;
    check_parent(session, &name)?;
    let call = CreateDatasetArgs { name: name.clone(), kind, volume_size, properties };
    session.call::<method::CreateDataset>(&what, &call)?;
    if kind == DatasetKind::Filesystem && !args.has('u') {
        return mount::mount_new(session, &name, &How::default());
    }
    Ok(0)
}

/// Says with `-v` or `-P` what is made, and with which properties.
fn told(session: &mut Session, args: &Parsed, of: &str, mark: &str, name: &str, shown: &BTreeMap<String, String>) {
    match (args.has('P'), args.has('v'), args.has('n')) {
        (true, ..) => putln!(session.out, "create{mark}\t{name}"),
        (_, true, true) => putln!(session.out, "would create {of}{name}"),
        (_, true, false) => putln!(session.out, "create {of}{name}"),
        _ => return,
    }
    for (property, value) in shown {
        if args.has('P') {
            putln!(session.out, "property\t{property}\t{value}");
        } else {
            putln!(session.out, "\t{property}={value}");
        }
    }
}

/// Why properties cannot go together.
fn inconsistent(properties: &BTreeMap<String, Raw>) -> Option<&'static str> {
    let of = |name: &str| properties.get(name).and_then(Raw::as_u64);
    let normalized = of("normalization").is_some_and(|n| n != 0);
    (normalized && of("utf8only") == Some(0)).then_some("'utf8only' must be set 'on' if normalization chosen")
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
    let mut names: Vec<String> = Vec::new();
    for name in &args.operands {
        let Some((dataset, snap)) = name.split_once('@') else { return usage("") };
        let heads = match kind_of(session, dataset)? {
            None => return usage(""),
            Some(_) if args.has('r') => names_below(session, dataset, FS | VOL)?,
            Some(_) => vec![dataset.to_owned()],
        };
        for name in heads.into_iter().map(|d| format!("{d}@{snap}")) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    for name in &names {
        check_name(session, name, SNAP, &format!("cannot create snapshot '{name}'"))?;
    }
    let mut properties = BTreeMap::new();
    for option in args.values('o') {
        match option.split_once('=') {
            Some((name, value)) if props::is_user(name) => {
                properties.insert(name.to_owned(), value.to_owned());
            }
            Some((name, _)) => {
                let why = match props::dataset(name) {
                    Some(_) => "this property can not be modified for snapshots".to_owned(),
                    None => format!("invalid property '{name}'"),
                };
                return refuse(session, &format!("cannot create snapshots : {why}"));
            }
            None => return refuse(session, "missing '=' for property=value argument"),
        }
    }
    let many = args.has('r') || args.operands.len() > 1;
    let call = CreateSnapshotsArgs { names, properties };
    let Err(f) = session.try_call::<method::CreateSnapshots>(&call)? else { return Ok(0) };
    if f.code == FailureCode::ReadOnly || f.message.starts_with("multiple snapshots") {
        putln!(session.err, "cannot create snapshots : {}", sentence::of(&f));
    } else {
        let subject = f.subject.clone().unwrap_or_else(|| call.names.first().cloned().unwrap_or_default());
        putln!(session.err, "cannot create snapshot '{subject}': {}", sentence::of(&f));
    }
    if many {
        putln!(session.err, "no snapshots were created");
    }
    Ok(1)
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
    match args.operands.as_slice() {
        [] => return usage("missing arguments"),
        [_] if pairs.is_empty() => return usage("missing property=value argument(s)"),
        _ if names.is_empty() => return usage("missing dataset name"),
        _ => {}
    }
    let mut code = 0;
    for name in names {
        let what = format!("cannot set property for '{name}'");
        let Some(kind) = kind_of(session, name)? else {
            code = 1;
            continue;
        };
        if pairs.iter().any(|p| p.starts_with("special_small_blocks=")) {
            warn_without_special(session, name)?;
        }
        let mut properties = BTreeMap::new();
        for pair in &pairs {
            let (prop, text) = pair.split_once('=').unwrap_or((pair.as_str(), ""));
            let prop = &who::numeric(prop);
            match parse::value(prop, text, kind, false) {
                Ok(value) => properties.insert(prop.to_owned(), value),
                Err(why) => {
                    putln!(session.err, "{what}: {why}");
                    return Ok(LIBZFS_FAILED);
                }
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
                code = LIBZFS_FAILED;
            }
        }
    }
    Ok(code)
}

/// Says that a pool has no devices for what would go to them.
fn warn_without_special(session: &mut Session, name: &str) -> Result<(), Stop> {
    let pool = name.split(['/', '@']).next().unwrap_or(name);
    let call = GetPoolsArgs { pools: vec![pool.to_owned()], tree: true, ..GetPoolsArgs::default() };
    let reply = session.call::<method::GetPools>("cannot open pools", &call)?;
    let special = |p: &uzfs_proto::Pool| {
        p.tree.iter().flat_map(|t| &t.children).any(|v| v.alloc_bias.as_deref() == Some("special"))
    };
    if !reply.pools.iter().any(special) {
        putln!(session.err, "special_small_blocks: property requires a special device in the pool");
    }
    Ok(())
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
        None if !props::is_user(prop) => return usage(&format!("invalid property '{prop}'")),
        Some(props::Attr::ReadOnly) => return refuse(session, &format!("{prop} property is read-only")),
        Some(props::Attr::Default) if !args.has('S') => {
            putln!(session.err, "'{prop}' property cannot be inherited");
            if matches!(prop.as_str(), "quota" | "reservation" | "refquota" | "refreservation") {
                putln!(session.err, "use 'zfs set {prop}=none' to clear");
                putln!(session.err, "use 'zfs inherit -S {prop}' to revert to received value");
            }
            return Ok(1);
        }
        _ if args.has('S') && matches!(prop.as_str(), "volsize" | "version") => {
            return refuse(session, &format!("'{prop}' property cannot be reverted to a received value"));
        }
        _ => {}
    }
    let mut code = 0;
    for name in names {
        let all = match (relate::open(session, name, &[])?, args.has('r')) {
            (None, _) => {
                code = 1;
                continue;
            }
            (Some(_), true) => names_below(session, name, FS | VOL)?,
            (Some(_), false) => vec![name.clone()],
        };
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
        return refuse(session, &format!("cannot open '{name}': missing '@' delimiter in snapshot name"));
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
    if let Some(why) = sentence::bad_new_name(&origin, SNAP) {
        return refuse(session, &format!("cannot open '{origin}': {why}"));
    }
    if relate::open(session, &origin, &[])?.is_none() {
        return Ok(1);
    }
    let head = origin.split('@').next().unwrap_or_default().to_owned();
    let Some(kind) = kind_of(session, &head)? else { return Ok(1) };
    if !args.has('p') {
        check_name(session, &name, FS | VOL, &what)?;
        check_parent(session, &name)?;
    }
    let properties = properties(session, args, kind, &what)?;
    if args.has('p') {
        if relate::kind(session, &name)?.is_some() {
            return Ok(0);
        }
        create_parents(session, &name)?;
        check_name(session, &name, FS | VOL, &what)?;
        check_parent(session, &name)?;
    }
    let call = CloneSnapshotArgs { origin, name: name.clone(), properties };
    session.call::<method::CloneSnapshot>(&what, &call)?;
    if kind == DatasetKind::Volume || args.has('u') {
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
    if args.has('r') && args.has('p') {
        return usage("-p and -r options are mutually exclusive");
    }
    if args.has('u') && args.has('p') {
        return usage("-u and -p options are mutually exclusive");
    }
    if relate::open(session, &from, &[])?.is_none() {
        return Ok(1);
    }
    let to = match from.split_once('@') {
        Some((dataset, _)) if to.starts_with('@') => format!("{dataset}{to}"),
        Some((dataset, _)) if !to.contains('@') => format!("{dataset}@{to}"),
        _ => to,
    };
    if from == to {
        return Ok(0);
    }
    let what = format!("cannot rename to '{to}'");
    if args.has('p') && sentence::bad_new_name(&to, FS | VOL).is_none() {
        create_parents(session, &to)?;
    }
    if let Some((dataset, _)) = from.split_once('@') {
        if to.split('@').next() != Some(dataset) {
            return refuse(session, &format!("{what}: snapshots must be part of same dataset"));
        }
        check_name(session, &to, SNAP, &what)?;
    } else {
        check_name(session, &to, FS | VOL, &what)?;
        check_parent(session, &to)?;
        if from.split('/').next() != to.split('/').next() {
            return refuse(session, &format!("{what}: datasets must be within same pool"));
        }
        if to.starts_with(&format!("{from}/")) {
            let why = "New dataset name cannot be a descendant of current dataset name";
            return refuse(session, &format!("{what}: {why}"));
        }
    }
    let recursive = args.has('r');
    let below = format!("{from}/");
    mount::let_go(session, args.has('f'), &|d| d == from || d.starts_with(&below))?;
    let call = RenameDatasetArgs { from: from.clone(), to: to.clone(), force: args.has('f'), recursive };
    session.call::<method::RenameDataset>(&format!("cannot rename '{from}'"), &call)?;
    let stays = from.contains('@') || args.has('u') || relate::kind(session, &to)? == Some(DatasetKind::Volume);
    if stays { Ok(0) } else { mount::move_mounts(session, &to) }
}
