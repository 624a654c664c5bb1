//! ListDatasets: which datasets a listing is about, in which order, and their properties.
//!
//! Names are walked once, a parent before its children; what is asked for several times is sent once. Rows are sent
//! in parts, so a listing of many thousands needs no memory to speak of on either side.

use super::{Engine, Imported, failure};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use uzfs_proto::{
    Dataset as Row, DatasetKind as Kind, Failure, ListDatasetsArgs, ListDatasetsReply, Property, PropertySource, Raw,
    Sink, U64,
};
use zfs_spa::dsl::Bookmark;
use zfs_spa::dsl::props::Source;
use zfs_spa::{Dataset, DatasetKind};

/// Rows in one part of the answer.
const ROWS_PER_PART: usize = 256;

/// What a row is about.
pub enum Subject {
    /// A file system, volume or snapshot.
    Dataset(Arc<Dataset>),
    /// A bookmark and the dataset it belongs to.
    Bookmark(Arc<Dataset>, Bookmark),
}

struct Listing<'a> {
    engine: &'a Engine,
    args: &'a ListDatasetsArgs,
    kinds: HashSet<Kind>,
    seen: HashSet<String>,
    part: ListDatasetsReply,
    sink: &'a mut dyn Sink<ListDatasetsReply>,
    gone: bool,
}

fn kind_of(dataset: &Dataset) -> Result<Kind, Failure> {
    Ok(match dataset.kind().map_err(|e| failure::engine(&e).about(dataset.name.clone()))? {
        DatasetKind::Filesystem => Kind::Filesystem,
        DatasetKind::Volume => Kind::Volume,
        DatasetKind::Snapshot => Kind::Snapshot,
    })
}

impl Listing<'_> {
    fn flush(&mut self) {
        let empty = self.part.datasets.is_empty() && self.part.failures.is_empty();
        if !empty && !self.sink.send(std::mem::take(&mut self.part)) {
            self.gone = true;
        }
    }

    fn emit(&mut self, imported: &Arc<Imported>, subject: &Subject, kind: Kind) {
        let name = match subject {
            Subject::Dataset(d) => d.name.clone(),
            Subject::Bookmark(d, b) => format!("{}#{}", d.name, b.name),
        };
        if self.gone || !self.kinds.contains(&kind) || !self.seen.insert(name.clone()) {
            return;
        }
        let (guid, createtxg, inconsistent) = match subject {
            Subject::Dataset(d) => (d.phys.guid, d.phys.creation_txg, d.is_inconsistent()),
            Subject::Bookmark(_, b) => (b.phys.guid, b.phys.creation_txg, false),
        };
        let properties = self.engine.properties(imported, subject, self.args.properties.as_deref());
        self.part.datasets.push(Row {
            name,
            kind,
            guid: U64(guid),
            createtxg: U64(createtxg),
            inconsistent,
            properties,
        });
        if self.part.datasets.len() >= ROWS_PER_PART {
            self.flush();
        }
    }

    /// The dataset and what is at most `depth` levels below it.
    fn walk(&mut self, imported: &Arc<Imported>, root: &Arc<Dataset>, depth: u64) -> Result<(), Failure> {
        let dsl = imported.pool.dsl().map_err(|e| failure::engine(&e))?;
        let mut pending = vec![(root.clone(), depth)];
        while let Some((dataset, left)) = pending.pop() {
            if self.gone {
                return Ok(());
            }
            let wrong = |e: zfs_spa::Error| failure::engine(&e).about(dataset.name.clone());
            self.emit(imported, &Subject::Dataset(dataset.clone()), kind_of(&dataset)?);
            if left == 0 || dataset.is_snapshot() {
                continue;
            }
            if self.kinds.contains(&Kind::Snapshot) {
                for snapshot in dataset.snapshots().map_err(wrong)? {
                    self.emit(imported, &Subject::Dataset(snapshot), Kind::Snapshot);
                }
            }
            if self.kinds.contains(&Kind::Bookmark) {
                for mark in dataset.bookmarks().map_err(wrong)? {
                    self.emit(imported, &Subject::Bookmark(dataset.clone(), mark), Kind::Bookmark);
                }
            }
            for dir in dsl.children(&dataset.dir).map_err(wrong)?.into_iter().rev() {
                if let Some(child) = dsl.head(&dir).map_err(wrong)? {
                    pending.push((child, left - 1));
                }
            }
        }
        Ok(())
    }

    fn root(&mut self, root: &str, depth: u64) -> Result<(), Failure> {
        if root.starts_with('/') {
            let found = self.engine.mounts.above(Path::new(root)).ok_or_else(|| failure::no_dataset(root))?;
            return self.root(&found.dataset, depth);
        }
        if let Some((head, short)) = root.split_once('#') {
            let (imported, dataset) = self.engine.dataset(head)?;
            let marks = dataset.bookmarks().map_err(|e| failure::engine(&e))?;
            let mark = marks.into_iter().find(|m| m.name == short).ok_or_else(|| failure::no_dataset(root))?;
            self.emit(&imported, &Subject::Bookmark(dataset, mark), Kind::Bookmark);
            return Ok(());
        }
        let (imported, dataset) = self.engine.dataset(root)?;
        self.walk(&imported, &dataset, depth)
    }
}

impl Engine {
    pub(super) fn list_datasets(
        &self,
        args: &ListDatasetsArgs,
        sink: &mut dyn Sink<ListDatasetsReply>,
    ) -> Result<(), Failure> {
        let all = [Kind::Filesystem, Kind::Volume, Kind::Snapshot, Kind::Bookmark];
        let kinds = if args.kinds.is_empty() { all.into() } else { args.kinds.iter().copied().collect() };
        let depth = args.depth.unwrap_or(u64::MAX);
        let everything: Vec<String> = self.pools.read().keys().cloned().collect();
        let roots = if args.roots.is_empty() { &everything } else { &args.roots };
        let part = ListDatasetsReply::default();
        let mut listing = Listing { engine: self, args, kinds, seen: HashSet::new(), part, sink, gone: false };
        for root in roots {
            if let Err(failure) = listing.root(root, depth) {
                listing.part.failures.push(Failure { subject: Some(root.clone()), ..failure });
            }
        }
        listing.flush();
        Ok(())
    }

    fn properties(&self, pool: &Arc<Imported>, of: &Subject, wanted: Option<&[String]>) -> BTreeMap<String, Property> {
        let mut out = BTreeMap::new();
        let Subject::Dataset(dataset) = of else { return out };
        let want = |name: &str| wanted.is_none_or(|w| w.iter().any(|n| n == name));
        if want("mountpoint")
            && let Some(p) = mountpoint(pool, dataset)
        {
            out.insert("mountpoint".into(), p);
        }
        if want("canmount") && !dataset.is_snapshot() {
            let (value, source) = match dataset.prop("canmount", false) {
                Ok(Some((v, s))) => (v.number().unwrap_or(1), s),
                _ => (1, Source::Default),
            };
            out.insert("canmount".into(), property(Raw::number(value), &source));
        }
        if want("mounted") {
            let mounted = self.mounts.of(&dataset.name).is_some();
            out.insert("mounted".into(), Property::fixed(Raw::number(u64::from(mounted))));
        }
        out
    }
}

/// A value and its source in the contract's words.
fn property(value: Raw, source: &Source) -> Property {
    match source {
        Source::None => Property::fixed(value),
        Source::Default => Property::with(value, PropertySource::Default),
        Source::Temporary => Property::with(value, PropertySource::Temporary),
        Source::Local => Property::with(value, PropertySource::Local),
        Source::Inherited(from) => Property::inherited(value, from.clone()),
        Source::Received => Property::with(value, PropertySource::Received),
    }
}

/// Where a file system is mounted by default: what is inherited gets the rest of the name behind it.
fn mountpoint(pool: &Imported, dataset: &Dataset) -> Option<Property> {
    if dataset.kind().ok()? != DatasetKind::Filesystem {
        return None;
    }
    let (value, source) = match dataset.prop("mountpoint", true).ok()? {
        Some((v, s)) => (v.text()?.to_owned(), s),
        None => (format!("/{}", super::import::pool_of(&dataset.name)), Source::Default),
    };
    if !value.starts_with('/') {
        return Some(property(Raw::text(value), &source));
    }
    let tail = match &source {
        Source::Inherited(from) => dataset.name.strip_prefix(from.as_str()).unwrap_or(""),
        Source::Default => dataset.name.strip_prefix(super::import::pool_of(&dataset.name)).unwrap_or(""),
        _ => "",
    };
    let path = format!("{}{tail}", value.trim_end_matches('/'));
    let path = match pool.pool.altroot() {
        Some(root) => format!("{}{path}", root.trim_end_matches('/')),
        None => path,
    };
    let path = if path.is_empty() { "/".to_owned() } else { path };
    Some(property(Raw::text(path), &source))
}
