//! The dataset and snapshot layer: names to datasets, and what is known about each.
//!
//! Purpose: everything is read on demand from the meta object set, which never changes under a read-only import;
//! directories are kept once opened, because properties are inherited through them.

pub mod accounting;
pub mod bookmark;
pub mod dataset;
pub mod dir;
pub mod figures;
mod native;
pub mod props;
mod token;
pub mod values;

pub use bookmark::Bookmark;
pub use dataset::{Dataset, DatasetKind};
pub use dir::Dir;
pub use props::{PropValue, Source};
pub use values::{Property, View};

use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use zfs_dmu::{Error, Objset, Result, Zap};
use zfs_phys::dsl::{DslDatasetPhys, DslDirPhys};

/// Deepest nesting of datasets followed.
const MAX_DEPTH: usize = 256;

/// Names to datasets.
pub struct Dsl {
    mos: Arc<Objset>,
    root: Arc<Dir>,
    /// Directories opened so far, by object.
    dirs: RwLock<HashMap<u64, Arc<Dir>>>,
}

impl Dsl {
    pub(crate) fn load(pool: &str, mos: &Arc<Objset>, directory: &Zap) -> Result<Self> {
        let object =
            directory.lookup_u64(b"root_dataset")?.ok_or_else(|| Error::corrupt("the pool has no root dataset"))?;
        let root = Dir::open(mos, object, pool.to_owned(), None)?;
        Ok(Self { mos: mos.clone(), dirs: RwLock::new(HashMap::from([(object, root.clone())])), root })
    }

    /// The pool's own directory.
    pub fn root_dir(&self) -> &Arc<Dir> {
        &self.root
    }

    /// A child of `dir` by name.
    fn child(&self, dir: &Arc<Dir>, short: &str) -> Result<Option<Arc<Dir>>> {
        if dir.phys.child_dir_zapobj == 0 {
            return Ok(None);
        }
        match Zap::open(&self.mos, dir.phys.child_dir_zapobj)?.lookup_u64(short.as_bytes())? {
            Some(object) => self.open_child(dir, short, object).map(Some),
            None => Ok(None),
        }
    }

    fn open_child(&self, dir: &Arc<Dir>, short: &str, object: u64) -> Result<Arc<Dir>> {
        if let Some(known) = self.dirs.read().get(&object) {
            return Ok(known.clone());
        }
        let opened = Dir::open(&self.mos, object, format!("{}/{short}", dir.name), Some(dir.clone()))?;
        Ok(self.dirs.write().entry(object).or_insert(opened).clone())
    }

    /// The directory of that full name, the internal `$MOS`, `$FREE` and `$ORIGIN` included.
    pub fn dir(&self, name: &str) -> Result<Option<Arc<Dir>>> {
        let mut parts = name.split('/');
        if parts.next() != Some(self.root.name.as_str()) {
            return Ok(None);
        }
        let mut dir = self.root.clone();
        for (depth, part) in parts.enumerate() {
            if depth > MAX_DEPTH {
                return Ok(None);
            }
            match self.child(&dir, part)? {
                Some(next) => dir = next,
                None => return Ok(None),
            }
        }
        Ok(Some(dir))
    }

    /// The file system or volume of a directory; nothing for directories without one.
    pub fn head(&self, dir: &Arc<Dir>) -> Result<Option<Arc<Dataset>>> {
        if dir.phys.head_dataset_obj == 0 {
            return Ok(None);
        }
        Dataset::open(&self.mos, dir.phys.head_dataset_obj, dir.name.clone(), dir).map(Some)
    }

    /// The file system, volume or snapshot of that full name.
    pub fn dataset(&self, name: &str) -> Result<Option<Arc<Dataset>>> {
        let (head, snap) = match name.split_once('@') {
            Some((head, snap)) => (head, Some(snap)),
            None => (name, None),
        };
        let Some(dir) = self.dir(head)? else { return Ok(None) };
        let Some(ds) = self.head(&dir)? else { return Ok(None) };
        match snap {
            Some(snap) => ds.snapshot(snap),
            None => Ok(Some(ds)),
        }
    }

    /// Children of a file system by name, without internal ones.
    pub fn children(&self, dir: &Arc<Dir>) -> Result<Vec<Arc<Dir>>> {
        let mut out = Vec::new();
        for (short, object) in dir.children()? {
            if !short.starts_with(['$', '%']) {
                out.push(self.open_child(dir, &short, object)?);
            }
        }
        Ok(out)
    }

    /// All file systems and volumes, parents before children, siblings by name.
    pub fn filesystems(&self) -> Result<Vec<Arc<Dataset>>> {
        self.filesystems_below(&self.root)
    }

    /// The file system or volume of `dir` and all below it, parents before children, siblings by name.
    pub fn filesystems_below(&self, dir: &Arc<Dir>) -> Result<Vec<Arc<Dataset>>> {
        let mut out = Vec::new();
        let mut seen = HashSet::new();
        let mut pending = vec![dir.clone()];
        while let Some(dir) = pending.pop() {
            // A tree; forged directories could hold each other.
            if !seen.insert(dir.object) {
                return Err(Error::corrupt("a directory of datasets is in two places"));
            }
            out.extend(self.head(&dir)?);
            pending.extend(self.children(&dir)?.into_iter().rev());
        }
        Ok(out)
    }

    /// The dataset in an object: names are found by walking up (`dsl_dataset_name`). Nothing when the object is no
    /// dataset (any more).
    pub fn by_object(&self, object: u64) -> Result<Option<Arc<Dataset>>> {
        let Ok(dnode) = self.mos.dnode(object) else { return Ok(None) };
        let Ok(phys) = DslDatasetPhys::decode(&dnode.bonus()?, dnode.phys().endian) else { return Ok(None) };
        let Some(dir) = self.dir_by_object(phys.dir_obj)? else { return Ok(None) };
        let Some(head) = self.head(&dir)? else { return Ok(None) };
        if head.object == object {
            return Ok(Some(head));
        }
        for (short, snap) in head.snapshot_objects()? {
            if snap == object {
                return head.snapshot(&short);
            }
        }
        Ok(None)
    }

    /// The directory in an object; nothing when the object is none that hangs below the pool's own.
    pub fn dir_by_object(&self, object: u64) -> Result<Option<Arc<Dir>>> {
        if let Some(known) = self.dirs.read().get(&object) {
            return Ok(Some(known.clone()));
        }
        // Upwards to a directory that is known, the pool's own at the latest; then down again by name.
        let mut chain = Vec::new();
        let mut at = object;
        let mut top = None;
        for _ in 0..MAX_DEPTH {
            if let Some(known) = self.dirs.read().get(&at) {
                top = Some(known.clone());
                break;
            }
            let Ok(dnode) = self.mos.dnode(at) else { return Ok(None) };
            let Ok(phys) = DslDirPhys::decode(&dnode.bonus()?, dnode.phys().endian) else { return Ok(None) };
            if phys.parent_obj == 0 {
                return Ok(None);
            }
            chain.push(at);
            at = phys.parent_obj;
        }
        let Some(mut dir) = top else { return Ok(None) };
        for object in chain.into_iter().rev() {
            let Some((short, _)) = dir.children()?.into_iter().find(|(_, o)| *o == object) else { return Ok(None) };
            dir = self.open_child(&dir, &short, object)?;
        }
        Ok(Some(dir))
    }

    /// The meta object set.
    pub fn mos(&self) -> &Arc<Objset> {
        &self.mos
    }
}
