//! `zfs mount`, `zfs unmount`, mounting after an import, and `mount.zfs`.
//!
//! What may be mounted where is decided here from the properties, as libzfs does; the daemon mounts
//! what it is told.

use super::datasets::{self, Query};
use super::keys::{self, text};
use super::outside::{self, By};
use crate::getopt::Parsed;
use crate::json::{self, Object};
use crate::props::FS;
use crate::session::{Run, Session, Stop, put, putln};
use serde_json::json;
use std::collections::BTreeSet;
use uzfs_proto::{
    Dataset, Empty, Failure, FailureCode, ItemResult, MountArgs, MountEntry, MountItem, UnmountArgs, method,
};

/// Properties needed to decide.
const PROPERTIES: &[&str] = &["mountpoint", "canmount", "zoned", "encryption", "overlay", "receive_resume_token"];

/// How to mount.
#[derive(Default)]
pub struct How {
    /// Options the user gave.
    pub options: Vec<String>,
    /// Over directories that are not empty.
    pub overlay: bool,
    /// Load keys first.
    pub load_keys: bool,
    /// Show progress.
    pub verbose: bool,
}

fn query(roots: Vec<String>, recursive: bool) -> Query {
    let names = PROPERTIES.iter().chain(keys::PROPERTIES);
    let names: BTreeSet<String> = names.map(|p| (*p).to_owned()).collect();
    Query {
        roots,
        recursive,
        depth: None,
        kinds: FS,
        listsnapshots: false,
        properties: Some(names.into_iter().collect()),
    }
}

/// Why a dataset is not mounted by itself; more lines may follow the first.
fn unfit(ds: &Dataset, explicit: bool, load_keys: bool) -> Option<&'static str> {
    let locked = !matches!(text(ds, "encryption").as_str(), "off" | "") && text(ds, "keystatus") == "unavailable";
    match (text(ds, "mountpoint").as_str(), text(ds, "canmount").as_str()) {
        _ if text(ds, "zoned") == "on" => Some("dataset is exported to a local zone"),
        ("legacy", _) => Some("legacy mountpoint\nuse mount(8) to mount this filesystem"),
        ("none" | "", _) => Some("no mountpoint set"),
        (_, "off") => Some("'canmount' property is set to 'off'"),
        (_, "noauto") if !explicit => Some("not mounted automatically"),
        _ if locked && !load_keys => Some("encryption key not loaded"),
        _ if ds.inconsistent && !text(ds, "receive_resume_token").is_empty() => Some(
            "Contains partially-completed state from \"zfs receive -s\", \
             which can be resumed with \"zfs send -t\"",
        ),
        _ => None,
    }
}

pub(super) fn mounts(session: &mut Session) -> Result<Vec<MountEntry>, Stop> {
    Ok(session.call::<method::ListMounts>("cannot list mounts", &Empty {})?.mounts)
}

fn mount_sentence(failure: &Failure) -> String {
    match failure.code {
        FailureCode::Busy => "mountpoint or dataset is busy".into(),
        FailureCode::PermissionDenied => "Insufficient privileges".into(),
        FailureCode::MountpointInvalid | FailureCode::MountFailed => failure.message.clone(),
        _ => crate::sentence::of(failure),
    }
}

/// Asks the daemon to mount `items` and reports what failed; the number of failures.
fn mount_items(session: &mut Session, items: Vec<MountItem>) -> Result<usize, Stop> {
    if items.is_empty() {
        return Ok(0);
    }
    let args = MountArgs { items, create: true };
    let results = match outside::by(session) {
        By::Daemon => session.call::<method::Mount>("cannot mount", &args)?.results,
        By::Agent => session.call::<method::MountByAgent>("cannot mount", &args)?.results,
        By::Program(program) => outside::mount_items(session, &program, &args)?,
    };
    let mut failed = 0;
    for (result, item) in results.iter().zip(&args.items) {
        let Some(failure) = &result.failure else { continue };
        failed += 1;
        // libzfs names the directory when the directory is the trouble, else the dataset.
        let place = matches!(failure.code, FailureCode::MountpointNotEmpty | FailureCode::MountpointInvalid);
        let name = if place { &item.mountpoint } else { &item.dataset };
        putln!(session.err, "cannot mount '{name}': {}", mount_sentence(failure));
    }
    Ok(failed)
}

/// A parent directory before what lies in it.
fn by_place(rows: &mut [Dataset]) {
    rows.sort_by_cached_key(|d| {
        let place = text(d, "mountpoint");
        (place.split('/').map(str::to_owned).collect::<Vec<_>>(), d.name.clone())
    });
}

/// Loads the keys that `rows` need, each encryption root once; names of roots that stay locked.
fn unlock(session: &mut Session, rows: &[Dataset]) -> Result<BTreeSet<String>, Stop> {
    let (mut seen, mut locked) = (BTreeSet::new(), BTreeSet::new());
    for ds in rows.iter().filter(|d| text(d, "keystatus") == "unavailable") {
        let root = text(ds, "encryptionroot");
        if !seen.insert(root.clone()) {
            continue;
        }
        let (roots, _) = datasets::fetch(session, &keys::query(vec![root.clone()], false))?;
        let worked = match roots.first() {
            Some(root) => keys::load(session, root, false, None)?,
            None => false,
        };
        if !worked {
            locked.insert(root);
        }
    }
    Ok(locked)
}

/// Mounts everything at and below `roots` (every pool if empty) that mounts by itself and is not
/// mounted yet; false if something failed.
pub fn mount_all(session: &mut Session, roots: Vec<String>, how: &How) -> Result<bool, Stop> {
    let (mut rows, missing) = datasets::fetch(session, &query(roots, true))?;
    rows.retain(|d| unfit(d, false, how.load_keys).is_none());
    let mounted: BTreeSet<String> = mounts(session)?.into_iter().map(|m| m.dataset).collect();
    if !how.options.iter().any(|o| o == "remount") {
        rows.retain(|d| !mounted.contains(&d.name));
    }
    by_place(&mut rows);
    let mut worked = !missing;
    if how.load_keys {
        let locked = unlock(session, &rows)?;
        worked &= locked.is_empty();
        rows.retain(|d| !locked.contains(&text(d, "encryptionroot")));
    }
    let total = rows.len();
    let items = rows.iter().map(|d| item(d, how)).collect();
    worked &= mount_items(session, items)? == 0;
    if how.verbose {
        put!(session.out, "\rMounting ZFS filesystems ({total}/{total})\n");
    }
    Ok(worked)
}

fn item(ds: &Dataset, how: &How) -> MountItem {
    MountItem {
        dataset: ds.name.clone(),
        mountpoint: text(ds, "mountpoint"),
        options: how.options.clone(),
        overlay: how.overlay || text(ds, "overlay") == "on",
    }
}

/// Mounts a file system that was just made, if it mounts by itself.
pub fn mount_new(session: &mut Session, name: &str, how: &How) -> Run {
    let (rows, _) = datasets::fetch(session, &query(vec![name.to_owned()], false))?;
    match rows.first() {
        Some(ds) if unfit(ds, false, false).is_none() => Ok(i32::from(mount_items(session, vec![item(ds, how)])? != 0)),
        _ => Ok(0),
    }
}

/// Mounts a file system and those below it, which are mounted somewhere else, where they belong now.
pub fn move_mounts(session: &mut Session, name: &str) -> Run {
    let all = mounts(session)?;
    let targets = at_and_below(name, &all);
    if !targets.is_empty() {
        let code = unmount_targets(session, UnmountArgs { targets, force: false, unload_keys: false }, &all)?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(i32::from(!mount_all(session, vec![name.to_owned()], &How::default())?))
}

fn mount_one(session: &mut Session, name: &str, how: &How) -> Run {
    let (rows, missing) = datasets::fetch(session, &query(vec![name.to_owned()], false))?;
    let Some(ds) = rows.first() else { return Ok(i32::from(missing)) };
    let mut why = unfit(ds, true, how.load_keys);
    let remount = how.options.iter().any(|o| o == "remount");
    if why.is_none() && !remount && mounts(session)?.iter().any(|m| m.dataset == ds.name) {
        why = Some("filesystem already mounted");
    }
    if let Some(why) = why {
        putln!(session.err, "cannot mount '{}': {why}", ds.name);
        return Ok(1);
    }
    if how.load_keys && !unlock(session, std::slice::from_ref(ds))?.is_empty() {
        return Ok(1);
    }
    Ok(i32::from(mount_items(session, vec![item(ds, how)])? != 0))
}

fn print_mounts(session: &mut Session, as_json: bool) -> Run {
    let mut list = mounts(session)?;
    list.retain(|m| !m.dataset.contains('@'));
    if as_json {
        let mut datasets = Object::new();
        for m in &list {
            let entry = json!({ "filesystem": m.dataset, "mountpoint": m.mountpoint });
            datasets.insert(m.dataset.clone(), entry);
        }
        if !datasets.is_empty() {
            let mut top = json::envelope("zfs mount");
            top.insert("datasets".into(), datasets.into());
            putln!(session.out, "{}", serde_json::Value::Object(top));
        }
        return Ok(0);
    }
    for m in &list {
        putln!(session.out, "{:<30}  {}", m.dataset, m.mountpoint);
    }
    Ok(0)
}

/// `zfs mount`.
pub fn mount(session: &mut Session, args: &Parsed) -> Run {
    let (all, below) = (args.has('a'), args.has('R'));
    let names = &args.operands;
    if args.values('o').any(str::is_empty) {
        return Err(Stop::Usage("empty mount options (-o) specified".into()));
    }
    let how = How {
        options: args.values('o').flat_map(|o| o.split(',')).map(str::to_owned).collect(),
        overlay: args.has('O'),
        load_keys: args.has('l'),
        verbose: args.has('v'),
    };
    if args.has('j') && !names.is_empty() || all && !names.is_empty() {
        return Err(Stop::Usage("too many arguments".into()));
    }
    if below && names.is_empty() {
        return Err(Stop::Usage("no dataset provided".into()));
    }
    if all || below {
        return Ok(i32::from(!mount_all(session, names.clone(), &how)?));
    }
    match names.as_slice() {
        [] if !how.options.is_empty() => Err(Stop::Usage("missing filesystem argument (specify -a for all)".into())),
        [] => print_mounts(session, args.has('j')),
        [name] => mount_one(session, name, &how),
        _ => Err(Stop::Usage("too many arguments".into())),
    }
}

fn report_unmounts(session: &mut Session, results: &[ItemResult], mounts: &[MountEntry]) -> i32 {
    let mut code = 0;
    for result in results {
        let Some(failure) = &result.failure else { continue };
        code = 1;
        let place = mounts.iter().find(|m| m.dataset == result.subject);
        let name = place.map_or(result.subject.as_str(), |m| m.mountpoint.as_str());
        let why = match failure.code {
            FailureCode::Busy => "pool or dataset is busy".into(),
            _ => crate::sentence::of(failure),
        };
        putln!(session.err, "cannot unmount '{name}': {why}");
    }
    code
}

/// Unmounts `ask.targets`, which are names of datasets, in their order: by the daemon, or by the system where a front end
/// of its own has one.
fn unmount_targets(session: &mut Session, ask: UnmountArgs, mounts: &[MountEntry]) -> Run {
    if ask.targets.is_empty() {
        return Ok(0);
    }
    let served = |name: &String| mounts.iter().find(|m| m.frontend && m.dataset == *name);
    if !ask.targets.iter().any(|t| served(t).is_some()) {
        let reply = session.call::<method::Unmount>("cannot unmount", &ask)?;
        return Ok(report_unmounts(session, &reply.results, mounts));
    }
    let mut results = Vec::new();
    for target in &ask.targets {
        if let Some(entry) = served(target) {
            results.push(outside::unmount(session, entry, &ask)?);
            continue;
        }
        let one = UnmountArgs { targets: vec![target.clone()], ..ask };
        results.extend(session.call::<method::Unmount>("cannot unmount", &one)?.results);
    }
    Ok(report_unmounts(session, &results, mounts))
}

/// Ends the mounts of front ends that the daemon cannot end itself, before it closes `which`. What stays is said, and
/// the daemon refuses then.
pub fn let_go(session: &mut Session, force: bool, which: &dyn Fn(&str) -> bool) -> Result<(), Stop> {
    let all = mounts(session)?;
    let mut targets: Vec<String> =
        all.iter().filter(|m| m.frontend && which(&m.dataset)).map(|m| m.dataset.clone()).collect();
    targets.sort_unstable_by(|a, b| b.cmp(a));
    unmount_targets(session, UnmountArgs { targets, force, unload_keys: false }, &all).map(drop)
}

fn asked(targets: Vec<String>, args: &Parsed) -> UnmountArgs {
    UnmountArgs { targets, force: args.has('f'), unload_keys: args.has('u') }
}

/// A dataset with its mounted descendants and snapshots, deepest first.
fn at_and_below(name: &str, mounts: &[MountEntry]) -> Vec<String> {
    let below = |m: &&MountEntry| match m.dataset.strip_prefix(name) {
        Some(rest) => rest.is_empty() || rest.starts_with(['/', '@']),
        None => false,
    };
    let mut found: Vec<String> = mounts.iter().filter(below).map(|m| m.dataset.clone()).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

fn unmount_everything(session: &mut Session, args: &Parsed, mounts: &[MountEntry]) -> Run {
    let (rows, _) = datasets::fetch(session, &query(Vec::new(), true))?;
    let keep = |name: &str| {
        let ds = rows.iter().find(|d| d.name == name);
        ds.is_some_and(|d| text(d, "mountpoint") == "legacy" || text(d, "canmount") == "noauto")
    };
    let mut names: Vec<String> = mounts.iter().map(|m| m.dataset.clone()).collect();
    names.retain(|n| !keep(n.split('@').next().unwrap_or(n)));
    names.sort_unstable_by(|a, b| b.cmp(a));
    unmount_targets(session, asked(names, args), mounts)
}

/// Says why nothing of ours can be unmounted from a path.
fn not_ours(session: &mut Session, path: &str) {
    match std::fs::metadata(path) {
        Err(e) => {
            let why = crate::os_sentence(&e);
            putln!(session.err, "cannot open '{path}': {why}");
            putln!(session.err, "warning: {path} not in/proc/self/mounts");
            putln!(session.err, "{path}: {why}");
        }
        Ok(_) => putln!(session.err, "cannot unmount '{path}': {}", not_a_mountpoint(path)),
    }
}

/// Whether a path lies in a file system of ours or in one of somebody else.
fn not_a_mountpoint(path: &str) -> &'static str {
    use std::os::unix::fs::MetadataExt;
    let device = |p: &str| std::fs::metadata(p).map(|m| m.dev()).ok();
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let rows = table.lines().filter_map(|l| {
        let mut words = l.split(' ').skip(1);
        Some((words.next()?.replace("\\040", " "), words.next()?))
    });
    let here = device(path);
    let mut ours = rows.filter(|(at, kind)| matches!(*kind, "zfs" | "fuse.zfs" | "fuse.uzfs") && device(at) == here);
    if ours.next().is_some() { "not a mountpoint" } else { "not a ZFS filesystem" }
}

/// `zfs unmount`.
pub fn unmount(session: &mut Session, args: &Parsed) -> Run {
    let name = match (args.has('a'), args.operands.as_slice()) {
        (true, []) => {
            let mounts = mounts(session)?;
            return unmount_everything(session, args, &mounts);
        }
        (false, []) => return Err(Stop::Usage("missing filesystem argument".into())),
        (false, [name]) => name.clone(),
        _ => return Err(Stop::Usage("too many arguments".into())),
    };
    let mounts = mounts(session)?;
    let dataset = if name.starts_with('/') {
        let path = std::fs::canonicalize(&name).unwrap_or_else(|_| (&name).into());
        match mounts.iter().find(|m| std::path::Path::new(&m.mountpoint) == path) {
            Some(m) => m.dataset.clone(),
            None => {
                not_ours(session, &name);
                return Ok(1);
            }
        }
    } else {
        name
    };
    let (rows, _) = datasets::fetch(session, &query(vec![dataset.clone()], false))?;
    let Some(ds) = rows.first() else { return Ok(1) };
    if text(ds, "mountpoint") == "legacy" {
        putln!(session.err, "cannot unmount '{dataset}': legacy mountpoint");
        putln!(session.err, "use umount(8) to unmount this filesystem");
        return Ok(1);
    }
    if !mounts.iter().any(|m| m.dataset == dataset) {
        putln!(session.err, "cannot unmount '{dataset}': not currently mounted");
        return Ok(1);
    }
    unmount_targets(session, asked(at_and_below(&dataset, &mounts), args), &mounts)
}

/// `mount.zfs DATASET DIRECTORY`, the helper that `mount -t zfs` runs.
pub fn helper(session: &mut Session, dataset: &str, place: &str, options: Vec<String>) -> Run {
    let zfsutil = options.iter().any(|o| o == "zfsutil");
    if !zfsutil && !dataset.contains('@') {
        let (rows, _) = datasets::fetch(session, &query(vec![dataset.to_owned()], false))?;
        let Some(ds) = rows.first() else { return Ok(1) };
        if text(ds, "mountpoint") != "legacy" && text(ds, "mountpoint") != "none" {
            putln!(
                session.err,
                "filesystem '{dataset}' cannot be mounted using 'mount'.\n\
                 Use 'zfs set mountpoint=legacy' or 'zfs mount {dataset}'.\n\
                 See zfs(8) for more information."
            );
            return Ok(1);
        }
    }
    let drop = ["zfsutil", "defaults", "auto", "noauto", "user", "nouser", "_netdev", "nofail"];
    let options = options.into_iter().filter(|o| !drop.contains(&o.as_str())).collect();
    let item = MountItem { dataset: dataset.to_owned(), mountpoint: place.to_owned(), options, overlay: true };
    let reply = session.call::<method::Mount>("cannot mount", &MountArgs { items: vec![item], create: false })?;
    match reply.results.first().and_then(|r| r.failure.as_ref()) {
        None => Ok(0),
        Some(failure) => {
            let why = mount_sentence(failure);
            putln!(session.err, "filesystem '{dataset}' can not be mounted: {why}");
            // mount(8): 32 means that the mount failed.
            Ok(32)
        }
    }
}
