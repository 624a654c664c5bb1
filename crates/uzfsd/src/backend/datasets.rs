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
use zfs_spa::dsl::props::{PropValue, Source};
use zfs_spa::dsl::values::View;
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
            Subject::Bookmark(_, b) => b.name.clone(),
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
        let dsl = imported.view().dsl().map_err(|e| failure::engine(&e))?;
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
        if let Some((head, _)) = root.split_once('#') {
            let (imported, dataset) = self.engine.dataset(head)?;
            let marks = dataset.bookmarks().map_err(|e| failure::engine(&e))?;
            let mark = marks.into_iter().find(|m| m.name == root).ok_or_else(|| failure::no_dataset(root))?;
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

    /// The properties of a row; what cannot be read is left out, and said in the log.
    fn properties(&self, pool: &Arc<Imported>, of: &Subject, wanted: Option<&[String]>) -> BTreeMap<String, Property> {
        let found = match of {
            Subject::Dataset(dataset) => self.of_dataset(pool, dataset, wanted),
            Subject::Bookmark(dataset, mark) => pool.view().bookmark_properties(dataset, mark).map(|all| {
                all.into_iter()
                    .filter(|(name, _)| wanted.is_none_or(|w| w.contains(name)))
                    .map(|(name, p)| (name, property(&p)))
                    .collect()
            }),
        };
        found.unwrap_or_else(|e| {
            tracing::error!("reading properties: {e}");
            BTreeMap::new()
        })
    }

    fn of_dataset(
        &self,
        pool: &Arc<Imported>,
        dataset: &Arc<Dataset>,
        wanted: Option<&[String]>,
    ) -> zfs_spa::Result<BTreeMap<String, Property>> {
        let now = pool.view();
        let view = View::new(&now, dataset)?;
        let mut out = BTreeMap::new();
        match wanted {
            None => out.extend(view.all()?.into_iter().map(|(name, p)| (name, property(&p)))),
            Some(names) => {
                for name in names {
                    if let Some(p) = view.get(name)? {
                        out.insert(name.clone(), property(&p));
                    }
                }
            }
        }
        let mounted = self.mounts.of(&dataset.name);
        // A snapshot that is mounted by name shows it, as in OpenZFS, through the mount table only.
        if wanted.is_none_or(|w| w.iter().any(|n| n == "mounted")) && view.kind() == DatasetKind::Filesystem {
            out.insert(
                "mounted".into(),
                Property::fixed(Raw::number(u64::from(mounted.is_some() || self.is_served(&dataset.name)))),
            );
        }
        for (name, value) in mounted.iter().flat_map(|m| &m.temporary) {
            if let Some(p) = out.get_mut(*name) {
                *p = Property {
                    received: p.received.take(),
                    ..Property::with(Raw::number(*value), PropertySource::Temporary)
                };
            }
        }
        Ok(out)
    }
}

fn raw(value: &PropValue) -> Raw {
    match value {
        PropValue::Number(n) => Raw::number(*n),
        PropValue::Text(t) => Raw::text(t.clone()),
    }
}

/// A property in the contract's words.
pub fn property(p: &zfs_spa::dsl::values::Property) -> Property {
    let value = raw(&p.value);
    let shown = match &p.source {
        Source::None => Property::fixed(value),
        Source::Default => Property::with(value, PropertySource::Default),
        Source::Temporary => Property::with(value, PropertySource::Temporary),
        Source::Local => Property::with(value, PropertySource::Local),
        Source::Inherited(from) => Property::inherited(value, from.clone()),
        Source::Received => Property::with(value, PropertySource::Received),
    };
    Property { received: p.received.as_ref().map(raw), ..shown }
}
