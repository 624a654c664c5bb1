//! `zfs destroy`: what goes with what, in which order, and what is said about it.

use super::change::{one, refuse};
use super::datasets::{self, Query};
use crate::getopt::Parsed;
use crate::nicenum;
use crate::props::{FS, SNAP, VOL};
use crate::sentence;
use crate::session::{Run, Session, Stop, putln};
use std::collections::{BTreeMap, BTreeSet};
use uzfs_proto::{Dataset, DatasetKind, DestroyDatasetsArgs, Failure, FailureCode, SnapshotSpaceArgs, method};

/// Every dataset of a pool, and what belongs to what.
pub(super) struct Family {
    kinds: BTreeMap<String, DatasetKind>,
    /// Children of a file system, snapshots of a dataset, clones of a snapshot; in the order they are listed.
    children: BTreeMap<String, Vec<String>>,
    snapshots: BTreeMap<String, Vec<String>>,
    clones: BTreeMap<String, Vec<String>>,
}

impl Family {
    /// The pool of `name`.
    pub(super) fn of(session: &mut Session, name: &str) -> Result<Self, Stop> {
        let query = Query {
            roots: vec![name.split(['/', '@']).next().unwrap_or(name).to_owned()],
            recursive: true,
            depth: None,
            kinds: FS | VOL | SNAP,
            listsnapshots: false,
            properties: Some(vec!["clones".into()]),
        };
        let (found, failed) = datasets::fetch(session, &query)?;
        if failed {
            return Err(Stop::Exit(1));
        }
        let (kinds, children, snapshots, clones) = Default::default();
        let mut out = Self { kinds, children, snapshots, clones };
        for ds in found {
            out.add(ds);
        }
        Ok(out)
    }

    fn add(&mut self, ds: Dataset) {
        let name = ds.name;
        if let Some((head, _)) = name.split_once('@') {
            self.snapshots.entry(head.to_owned()).or_default().push(name.clone());
            let clones = ds.properties.get("clones").and_then(|p| p.value.text.clone()).unwrap_or_default();
            let clones = clones.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
            self.clones.insert(name.clone(), clones);
        } else if let Some((above, _)) = name.rsplit_once('/') {
            self.children.entry(above.to_owned()).or_default().push(name.clone());
        }
        self.kinds.insert(name, ds.kind);
    }

    fn listed(map: &BTreeMap<String, Vec<String>>, name: &str) -> Vec<String> {
        map.get(name).cloned().unwrap_or_default()
    }

    /// Snapshots of a dataset, oldest first.
    pub(super) fn snapshots(&self, name: &str) -> Vec<String> {
        Self::listed(&self.snapshots, name)
    }

    /// A dataset and everything below it, parents first, without snapshots.
    fn heads_below(&self, name: &str) -> Vec<String> {
        let mut out = vec![name.to_owned()];
        for child in Self::listed(&self.children, name) {
            out.extend(self.heads_below(&child));
        }
        out
    }

    /// Appends what depends on `name`, then `name`: nothing comes before what depends on it.
    pub(super) fn gather(&self, name: &str, seen: &mut BTreeSet<String>, out: &mut Vec<String>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        for map in [&self.clones, &self.children, &self.snapshots] {
            for other in Self::listed(map, name) {
                self.gather(&other, seen, out);
            }
        }
        out.push(name.to_owned());
    }

    fn word(&self, name: &str) -> &'static str {
        self.kinds.get(name).map_or("filesystem", |k| k.word())
    }
}

/// Whether `name` is `root`, below it, or a snapshot of either.
fn is_within(name: &str, root: &str) -> bool {
    name.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@']))
}

/// `zfs destroy`.
pub fn destroy(session: &mut Session, args: &Parsed) -> Run {
    let name = one(args, "missing dataset argument")?;
    if name.contains('#') {
        return bookmark(session, args, name);
    }
    match name.split_once('@') {
        Some((dataset, snaps)) => snapshots(session, args, dataset, snaps),
        None => datasets(session, args, &name),
    }
}

fn bookmark(session: &mut Session, args: &Parsed, name: String) -> Run {
    let options = [('n', "dryrun"), ('d', "defer destroy"), ('r', "recursive"), ('R', "recursive")];
    if let Some((_, what)) = options.iter().find(|(letter, _)| args.has(*letter)) {
        return refuse(session, &format!("{what} is not supported with bookmark"));
    }
    if super::relate::kind(session, &name)?.is_none() {
        return refuse(session, &format!("bookmark '{name}' does not exist."));
    }
    let call = DestroyDatasetsArgs { names: vec![name], defer: false, force: false };
    session.call::<method::DestroyDatasets>("cannot destroy bookmark", &call)?;
    Ok(0)
}

fn say(session: &mut Session, args: &Parsed, doomed: &[String]) {
    if !args.has('v') && !args.has('p') {
        return;
    }
    for name in doomed {
        let word = match (args.has('p'), args.has('n')) {
            (true, _) => "destroy\t",
            (false, true) => "would destroy ",
            (false, false) => "will destroy ",
        };
        putln!(session.out, "{word}{name}");
    }
}

fn execute(session: &mut Session, args: &Parsed, names: Vec<String>) -> Run {
    let first = names.first().cloned().unwrap_or_default();
    super::mount::let_go(session, args.has('f'), &|d| names.iter().any(|n| n == d))?;
    let call = DestroyDatasetsArgs { names, defer: args.has('d'), force: args.has('f') };
    match session.try_call::<method::DestroyDatasets>(&call)? {
        Ok(_) => Ok(0),
        Err(f) => {
            let subject = f.subject.clone().unwrap_or(first);
            if f.code == FailureCode::Busy && subject.contains('@') {
                let how = format!("Run 'zfs holds -r {subject}' to see holders.");
                return refuse(session, &format!("cannot destroy snapshot {subject}: it's being held. {how}"));
            }
            let subject = if subject.contains('@') { format!("snapshot {subject}") } else { format!("'{subject}'") };
            putln!(session.err, "cannot destroy {subject}: {}", why(&f));
            Ok(1)
        }
    }
}

fn why(failure: &Failure) -> String {
    match failure.code {
        FailureCode::Busy => "dataset is busy".into(),
        FailureCode::DatasetExists => "dataset already exists".into(),
        _ => sentence::of(failure),
    }
}

/// Says that something depends on `name`, and how to destroy it all.
fn dependents(session: &mut Session, family: &Family, name: &str, flag: char, what: &str, all: &[String]) -> Run {
    putln!(session.err, "cannot destroy '{name}': {} has {what}", family.word(name));
    putln!(session.err, "use '-{flag}' to destroy the following datasets:");
    for other in all {
        putln!(session.err, "{other}");
    }
    Ok(1)
}

fn datasets(session: &mut Session, args: &Parsed, name: &str) -> Run {
    let family = Family::of(session, name)?;
    let recursive = args.has('r') || args.has('R');
    if !family.kinds.contains_key(name) {
        return refuse(session, &format!("cannot open '{name}': dataset does not exist"));
    }
    if !recursive && !name.contains('/') {
        putln!(session.err, "cannot destroy '{name}': operation does not apply to pools");
        putln!(session.err, "use 'zfs destroy -r {name}' to destroy all datasets in the pool");
        putln!(session.err, "use 'zpool destroy {name}' to destroy the pool itself");
        return Ok(1);
    }
    let mut all = Vec::new();
    family.gather(name, &mut BTreeSet::new(), &mut all);
    let others: Vec<String> = all.iter().filter(|n| *n != name).cloned().collect();
    let within: Vec<String> = others.iter().filter(|n| is_within(n, name)).cloned().collect();
    if !recursive && !within.is_empty() {
        return dependents(session, &family, name, 'r', "children", &within);
    }
    let outside: Vec<String> = others.into_iter().filter(|n| !is_within(n, name)).collect();
    if !args.has('R') && !outside.is_empty() {
        return dependents(session, &family, name, 'R', "dependent clones", &outside);
    }
    // The pool's own file system stays when all that is in it goes.
    if !name.contains('/') {
        all.retain(|n| n != name);
    }
    say(session, args, &all);
    if args.has('n') || all.is_empty() {
        return Ok(0);
    }
    execute(session, args, all)
}

/// The snapshots of one dataset that `a,b%c` means, in the order they were taken.
fn chosen(all: &[String], spec: &str) -> Vec<usize> {
    let at = |short: &str| all.iter().position(|n| n.split_once('@').is_some_and(|(_, s)| s == short));
    let mut out = BTreeSet::new();
    for part in spec.split(',') {
        match part.split_once('%') {
            None => out.extend(at(part)),
            Some((first, last)) => {
                let first = if first.is_empty() { Some(0) } else { at(first) };
                let last = if last.is_empty() { all.len().checked_sub(1) } else { at(last) };
                if let (Some(first), Some(last)) = (first, last) {
                    out.extend(first..=last);
                }
            }
        }
    }
    out.into_iter().collect()
}

fn snapshots(session: &mut Session, args: &Parsed, dataset: &str, spec: &str) -> Run {
    let family = Family::of(session, dataset)?;
    if !family.kinds.contains_key(dataset) {
        return refuse(session, &format!("cannot open '{dataset}': dataset does not exist"));
    }
    let recursive = args.has('r') || args.has('R');
    let heads = if recursive { family.heads_below(dataset) } else { vec![dataset.to_owned()] };
    let (mut doomed, mut rows) = (Vec::new(), Vec::new());
    for head in heads {
        let all = family.snapshots(&head);
        let mut row: Vec<usize> = Vec::new();
        for at in chosen(&all, spec) {
            if row.last().is_some_and(|last| last + 1 != at) {
                rows.push((head.clone(), std::mem::take(&mut row)));
            }
            row.push(at);
            doomed.extend(all.get(at).cloned());
        }
        if !row.is_empty() {
            rows.push((head, row));
        }
    }
    if doomed.is_empty() {
        return refuse(session, "could not find any snapshots to destroy; check snapshot names.");
    }
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    let mut refused = 0;
    for snap in &doomed {
        let mut of = Vec::new();
        family.gather(snap, &mut BTreeSet::new(), &mut of);
        of.retain(|n| n != snap);
        if !of.is_empty() && !args.has('R') && !args.has('d') {
            refused = dependents(session, &family, snap, 'R', "dependent clones", &of)?;
        }
        if args.has('R') {
            family.gather(snap, &mut seen, &mut all);
        } else {
            all.push(snap.clone());
        }
    }
    say(session, args, &all);
    if refused != 0 {
        return Ok(refused);
    }
    if args.has('v') || args.has('p') {
        reclaimed(session, args, &family, &rows)?;
    }
    if args.has('n') { Ok(0) } else { execute(session, args, all) }
}

/// Says what would come free.
fn reclaimed(session: &mut Session, args: &Parsed, family: &Family, rows: &[(String, Vec<usize>)]) -> Result<(), Stop> {
    let mut bytes = 0u64;
    for (head, row) in rows {
        let all = family.snapshots(head);
        let of = |at: Option<&usize>| at.and_then(|at| all.get(*at)).cloned();
        if let (Some(first), Some(last)) = (of(row.first()), of(row.last())) {
            let call = SnapshotSpaceArgs { first, last };
            let reply = session.call::<method::SnapshotSpace>("cannot tell what would be reclaimed", &call)?;
            bytes = bytes.saturating_add(reply.bytes.0);
        }
    }
    match (args.has('p'), args.has('n')) {
        (true, _) => putln!(session.out, "reclaim\t{bytes}"),
        (false, true) => putln!(session.out, "would reclaim {}", nicenum::nicebytes(bytes)),
        (false, false) => putln!(session.out, "will reclaim {}", nicenum::nicebytes(bytes)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_chosen_by_name_and_by_range() {
        let all: Vec<String> = ["a", "b", "c", "d"].iter().map(|s| format!("p/f@{s}")).collect();
        for (spec, want) in [
            ("b", vec![1]),
            ("d,a", vec![0, 3]),
            ("b%c", vec![1, 2]),
            ("%b", vec![0, 1]),
            ("c%", vec![2, 3]),
            ("%", vec![0, 1, 2, 3]),
            ("x", vec![]),
            ("x%b", vec![]),
            ("a,c%d", vec![0, 2, 3]),
        ] {
            assert_eq!(chosen(&all, spec), want, "{spec}");
        }
    }

    #[test]
    fn names_within() {
        assert!(is_within("p/a", "p/a") && is_within("p/a/b@s", "p/a") && is_within("p/a@s", "p/a"));
        assert!(!is_within("p/ab", "p/a") && !is_within("p", "p/a"));
    }
}
