//! `zfs promote`, `zfs bookmark`, `zfs hold`, `zfs holds`, `zfs release`.

use super::change::{names_below, one, refuse, usage};
use super::datasets::{self, Query};
use crate::getopt::Parsed;
use crate::props::{FS, MARK, SNAP, VOL};
use crate::sentence;
use crate::session::{Run, Session, Stop, putln};
use uzfs_proto::{
    BookmarkSpec, CreateBookmarksArgs, Dataset, DatasetKind, Failure, FailureCode, HoldArgs, HoldEntry, ListHoldsArgs,
    PromoteArgs, method,
};

/// One dataset, snapshot or bookmark with some properties; says that it does not exist otherwise.
pub(super) fn open(session: &mut Session, name: &str, properties: &[&str]) -> Result<Option<Dataset>, Stop> {
    let query = Query {
        roots: vec![name.to_owned()],
        recursive: false,
        depth: Some(0),
        kinds: FS | VOL | SNAP | MARK,
        listsnapshots: false,
        properties: Some(properties.iter().map(|p| (*p).to_owned()).collect()),
    };
    let (found, _) = datasets::fetch(session, &query)?;
    Ok(found.into_iter().find(|d| d.name == name))
}

/// What kind of dataset, snapshot or bookmark there is of that name; says nothing.
pub(super) fn kind(session: &mut Session, name: &str) -> Result<Option<DatasetKind>, Stop> {
    let call = uzfs_proto::ListDatasetsArgs {
        roots: vec![name.to_owned()],
        depth: Some(0),
        kinds: vec![DatasetKind::Filesystem, DatasetKind::Volume, DatasetKind::Snapshot, DatasetKind::Bookmark],
        properties: Some(Vec::new()),
    };
    let mut kind = None;
    let _ = session.stream::<method::ListDatasets>(&call, &mut |part| {
        kind = kind.or_else(|| part.datasets.iter().find(|d| d.name == name).map(|d| d.kind));
        true
    })?;
    Ok(kind)
}

/// `zfs promote`.
pub fn promote(session: &mut Session, args: &Parsed) -> Run {
    let name = match args.operands.as_slice() {
        [] => return usage("missing clone filesystem argument"),
        _ => one(args, "")?,
    };
    let what = format!("cannot promote '{name}'");
    if name.contains('@') {
        return refuse(session, &format!("{what}: snapshots can not be promoted"));
    }
    let Some(clone) = open(session, &name, &["origin"])? else { return Ok(1) };
    let origin = clone.properties.get("origin").and_then(|p| p.value.text.clone()).unwrap_or_default();
    if origin.is_empty() {
        return refuse(session, &format!("{what}: not a cloned filesystem"));
    }
    match session.try_call::<method::Promote>(&PromoteArgs { name: name.clone() })? {
        Ok(_) => Ok(0),
        Err(f) if f.code == FailureCode::DatasetExists => {
            let conflict = conflicting(session, &name, &origin)?;
            refuse(session, &format!("{what}: conflicting snapshot '{conflict}' from parent '{origin}'"))
        }
        Err(f) => Err(session.fail(&what, &f)),
    }
}

/// The first snapshot that both a clone and the dataset of its origin have.
fn conflicting(session: &mut Session, clone: &str, origin: &str) -> Result<String, Stop> {
    let head = origin.split('@').next().unwrap_or(origin);
    let mut of = |name: &str| {
        let mark = format!("{name}@");
        let all = names_below(session, name, SNAP)?;
        Ok::<Vec<String>, Stop>(all.iter().filter_map(|n| n.strip_prefix(&mark)).map(str::to_owned).collect())
    };
    let ours = of(clone)?;
    Ok(of(head)?.into_iter().find(|s| ours.contains(s)).unwrap_or_default())
}

/// `zfs bookmark`.
pub fn bookmark(session: &mut Session, args: &Parsed) -> Run {
    let (source, name) = match args.operands.as_slice() {
        [] => return usage("missing source argument"),
        [_] => return usage("missing bookmark argument"),
        [source, name, ..] => (source.clone(), name.clone()),
    };
    if !source.contains(['@', '#']) {
        return usage(&format!("invalid source name '{source}': must contain a '@' or '#'"));
    }
    if !name.contains('#') {
        return usage(&format!("invalid bookmark name '{name}': must contain a '#'"));
    }
    let dataset = |full: &str| full.split(['@', '#']).next().unwrap_or_default().to_owned();
    let (source, name) = match (dataset(&source).is_empty(), dataset(&name).is_empty()) {
        (true, true) => return usage("either source or bookmark must be specified as full dataset paths"),
        (true, false) => (format!("{}{source}", dataset(&name)), name),
        (false, true) => (source.clone(), format!("{}{name}", dataset(&source))),
        (false, false) => (source, name),
    };
    if open(session, &source, &[])?.is_none() {
        return Err(Stop::Usage(String::new()));
    }
    let what = format!("cannot create bookmark '{name}'");
    if let Some(why) = sentence::bad_dataset_name(&name) {
        return refuse(session, &format!("{what}: {why}"));
    }
    let call = CreateBookmarksArgs { bookmarks: vec![BookmarkSpec { name, source }] };
    match session.try_call::<method::CreateBookmarks>(&call)? {
        Ok(_) => Ok(0),
        Err(f) => refuse(session, &format!("{what}: {}", bookmark_sentence(&f))),
    }
}

fn bookmark_sentence(failure: &Failure) -> String {
    match failure.code {
        FailureCode::DatasetExists => "bookmark exists".into(),
        FailureCode::WrongKind => "source is not an ancestor of the new bookmark's dataset".into(),
        FailureCode::NotSupported => "bookmark feature not enabled".into(),
        FailureCode::InvalidArgument => "bookmark is not in the same pool as the source".into(),
        _ => sentence::of(failure),
    }
}

/// The snapshot named, with `-r` those of the same name below; nothing (with a complaint) when there is none.
fn meant(session: &mut Session, full: &str, recursive: bool) -> Result<Option<Vec<String>>, Stop> {
    let Some((dataset, snap)) = full.split_once('@') else {
        putln!(session.err, "'{full}' is not a snapshot");
        return Ok(None);
    };
    if open(session, dataset, &[])?.is_none() {
        return Ok(None);
    }
    let all = names_below(session, dataset, SNAP)?;
    let is_meant = |n: &&String| match n.split_once('@') {
        Some((of, short)) => short == snap && (recursive || of == dataset),
        None => false,
    };
    Ok(Some(all.iter().filter(is_meant).cloned().collect()))
}

/// `zfs hold` and `zfs release`.
pub fn hold(session: &mut Session, args: &Parsed, holding: bool) -> Run {
    let Some((tag, names)) = args.operands.split_first().filter(|(_, names)| !names.is_empty()) else {
        return usage("");
    };
    if holding && tag.starts_with('.') {
        return usage("tag may not start with '.'");
    }
    let verb = if holding { "hold snapshot" } else { "release hold from snapshot" };
    let mut code = 0;
    for full in names {
        let Some(mut snaps) = meant(session, full, args.has('r'))? else {
            code = 1;
            continue;
        };
        if !holding && args.has('r') {
            // Snapshots below that are not held so are passed over.
            let reply = session.call::<method::ListHolds>(
                &format!("cannot {verb} '{full}'"),
                &ListHoldsArgs { names: snaps.clone() },
            )?;
            snaps.retain(|s| reply.holds.iter().any(|h| h.snapshot == *s && h.tag == *tag));
            if snaps.is_empty() {
                putln!(session.err, "cannot {verb} '{full}': no such tag on this dataset");
                code = 1;
                continue;
            }
        }
        if snaps.is_empty() {
            putln!(session.err, "cannot {verb} '{full}': dataset does not exist");
            code = 1;
            continue;
        }
        let call = HoldArgs { names: snaps, tag: tag.clone() };
        let result = match holding {
            true => session.try_call::<method::HoldSnapshots>(&call)?,
            false => session.try_call::<method::ReleaseSnapshots>(&call)?,
        };
        if let Err(f) = result {
            let why = match f.code {
                FailureCode::DatasetExists => "tag already exists on this dataset".into(),
                FailureCode::NoSuchDataset if !holding => "no such tag on this dataset".into(),
                _ => sentence::of(&f),
            };
            putln!(session.err, "cannot {verb} '{full}': {why}");
            code = 1;
        }
    }
    Ok(code)
}

/// `zfs holds`.
pub fn holds(session: &mut Session, args: &Parsed) -> Run {
    if args.operands.is_empty() {
        return usage("");
    }
    let (mut code, mut names) = (0, Vec::new());
    for full in &args.operands {
        match meant(session, full, args.has('r'))? {
            None => code = 1,
            Some(found) if found.is_empty() => {
                putln!(session.err, "cannot open '{full}': dataset does not exist");
                code = 1;
            }
            Some(found) => names.extend(found),
        }
    }
    let none = names.is_empty();
    let reply = session.call::<method::ListHolds>("cannot list holds", &ListHoldsArgs { names })?;
    let width =
        |of: &dyn Fn(&HoldEntry) -> usize, least: usize| reply.holds.iter().map(of).max().unwrap_or(0).max(least);
    let (name_width, tag_width) = (width(&|h| h.snapshot.len(), 4), width(&|h| h.tag.len(), 3));
    if !args.has('H') {
        putln!(session.out, "{:name_width$}  {:tag_width$}  TIMESTAMP", "NAME", "TAG");
    }
    for h in &reply.holds {
        let time = if args.has('p') { h.time.0.to_string() } else { crate::time::held(h.time.0) };
        if args.has('H') {
            putln!(session.out, "{}\t{}\t{time}", h.snapshot, h.tag);
        } else {
            putln!(session.out, "{:name_width$}  {:tag_width$}  {time}", h.snapshot, h.tag);
        }
    }
    if none {
        putln!(session.err, "no datasets available");
    }
    Ok(code)
}
