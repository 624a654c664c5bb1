//! Objects of the pool that nothing refers to, and references to objects that are not there.
//!
//! Everything that names an object of the meta object set is followed: the directory, vdevs with their space maps and
//! tables, directories and datasets with their lists, clones that are being freed, tables of deduplication and of cloned
//! blocks. What was not come by is an object nobody will ever free. OpenZFS's `zdb` searches alike (`dump_mos_leaks`); it
//! forgets that permissions (`zfs allow`) have tables of their own, which are followed here.

use crate::ctx::Ctx;
use crate::{datasets, p, view};
use std::collections::BTreeSet;
use std::sync::Arc;
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::{Objset, Zap};
use zfs_phys::bpobj::MAX_DEPTH;
use zfs_phys::brt::BRT_OBJECT_VDEV_PREFIX;
use zfs_phys::dsl::{DslDatasetPhys, DslDirPhys, field};
use zfs_phys::enums::DmuObjectType;
use zfs_phys::feature::Feature;
use zfs_phys::indirect::IndirectMappingPhys;
use zfs_spa::check::dedup::DdtTable;
use zfs_spa::check::layout::Layout;
use zfs_spa::dsl::figures::deadlist_entries;
use zfs_spa::{Pool, Result};
use zfs_zio::config::VdevConfig;
use zfs_zio::vdev::Vdev;

/// The directory of the pool.
const DIRECTORY: u64 = 1;
/// Its entries whose value is the number of an object that names no other.
const PLAIN: [&[u8]; 16] = [
    b"config",
    b"features_for_write",
    b"features_for_read",
    b"feature_descriptions",
    b"feature_enabled_txg",
    b"history",
    b"pool_props",
    b"errlog_scrub",
    b"errlog_last",
    b"spares",
    b"l2cache",
    b"tmp_userrefs",
    b"bptree_obj",
    b"empty_bpobj",
    b"com.delphix:vdev_zap_map",
    b"com.delphix:log_spacemap_zap",
];
/// Its lists of block pointers.
const LISTS: [&[u8]; 3] = [b"sync_bplist", b"free_bpobj", b"com.delphix:obsolete_bpobj"];
/// Names below the root that hold no file systems.
const HIDDEN: [&[u8]; 3] = [b"$MOS", b"$FREE", b"$LEAK"];
/// Word of the state of a scan that names its queue.
const SCAN_QUEUE: usize = 2;

/// Objects that something refers to.
struct Found {
    pool: Arc<Pool>,
    mos: Arc<Objset>,
    objects: BTreeSet<u64>,
    /// The list that all empty places of deadlists share.
    empty: u64,
}

/// Prints what is lost and what is missing; whether there is any.
pub fn check(c: &mut Ctx<'_>) -> Result<bool> {
    let mos = c.pool.mos().clone();
    let empty = c.pool.directory().lookup_u64(b"empty_bpobj")?.unwrap_or(0);
    let mut found = Found { pool: c.pool.clone(), mos: mos.clone(), objects: BTreeSet::new(), empty };
    found.directory()?;
    found.hidden()?;
    found.datasets(c)?;
    let pool = c.pool.clone();
    found.vdev(pool.zio().vdevs().root())?;
    found.space()?;
    found.shared()?;
    let (mut wrong, mut at) = (false, 0);
    while let Some(object) = mos.next_object(at)? {
        if !found.objects.remove(&object) {
            let kind = view::type_name(mos.dnode(object)?.phys().object_type);
            p!(c.o, "MOS object {object} ({kind}) leaked\n");
            wrong = true;
        }
        at = object;
    }
    for object in found.objects {
        p!(c.o, "MOS object {object} referenced but not allocated\n");
        wrong = true;
    }
    Ok(wrong)
}

impl Found {
    fn add(&mut self, object: u64) {
        if object != 0 {
            self.objects.insert(object);
        }
    }

    /// Adds a table whose values are objects.
    fn table(&mut self, object: u64) -> Result<()> {
        if object == 0 {
            return Ok(());
        }
        self.add(object);
        for entry in Zap::open(&self.mos, object)?.iter() {
            self.add(entry?.value.first());
        }
        Ok(())
    }

    fn directory(&mut self) -> Result<()> {
        let pool = self.pool.clone();
        let dir = pool.directory();
        let number = |name: &[u8]| Ok::<_, zfs_zio::Error>(dir.lookup_u64(name)?.unwrap_or(0));
        let words = |name: &[u8]| Ok::<_, zfs_zio::Error>(dir.lookup(name)?.map(|v| v.u64s()).unwrap_or_default());
        self.add(DIRECTORY);
        for name in PLAIN {
            self.add(number(name)?);
        }
        for name in LISTS {
            self.list(number(name)?, 0)?;
        }
        if pool.features().is_enabled(Feature::HeadErrlog) {
            self.table(number(b"errlog_scrub")?)?;
            self.table(number(b"errlog_last")?)?;
        }
        self.table(number(b"com.delphix:log_spacemap_zap")?)?;
        self.add(words(b"scan")?.get(SCAN_QUEUE).copied().unwrap_or(0));
        // The vdev, the mapping that is to come, and the space map of what it leaves out.
        if let [_, mapping, map, ..] = words(b"com.delphix:condensing_indirect")?[..] {
            self.add(map);
            self.mapping(mapping)?;
        }
        let deleted = number(b"com.delphix:deleted_clones")?;
        if deleted != 0 {
            self.add(deleted);
            for entry in Zap::open(&self.mos, deleted)?.iter() {
                self.deadlist(entry?.value.first())?;
            }
        }
        Ok(())
    }

    fn bonus<T>(
        &self,
        object: u64,
        decode: impl Fn(&[u8], zfs_phys::read::Endian) -> zfs_phys::Result<T>,
    ) -> Result<T> {
        let dn = self.mos.dnode(object)?;
        Ok(decode(&dn.bonus()?, dn.phys().endian)?)
    }

    fn list(&mut self, object: u64, depth: usize) -> Result<()> {
        if object == 0 {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(zfs_zio::Error::corrupt("block pointer lists that hold each other"));
        }
        self.add(object);
        let list = Bpobj::open(&self.mos, object)?;
        self.add(list.phys().subobjs);
        for sub in list.subobjs()? {
            self.list(sub, depth + 1)?;
        }
        Ok(())
    }

    fn deadlist(&mut self, object: u64) -> Result<()> {
        if object == 0 {
            return Ok(());
        }
        if self.mos.dnode(object)?.phys().object_type == DmuObjectType::BPOBJ {
            return if object == self.empty { Ok(()) } else { self.list(object, 0) };
        }
        self.add(object);
        for (_, list) in deadlist_entries(&self.mos, object)? {
            if list != self.empty {
                self.list(list, 0)?;
            }
        }
        Ok(())
    }

    /// A number in an object that may have become a table.
    fn named(&self, object: u64, name: &str) -> Result<u64> {
        let kind = self.mos.dnode(object)?.phys().object_type;
        // Directories and datasets of old pools have no room for names.
        if kind == DmuObjectType::DSL_DIR || kind == DmuObjectType::DSL_DATASET {
            return Ok(0);
        }
        Ok(Zap::open(&self.mos, object)?.lookup_u64(name.as_bytes())?.unwrap_or(0))
    }

    fn dir(&mut self, object: u64) -> Result<DslDirPhys> {
        let phys = self.bonus(object, DslDirPhys::decode)?;
        for object in [object, phys.child_dir_zapobj, phys.props_zapobj, phys.clones] {
            self.add(object);
        }
        self.table(phys.deleg_zapobj)?;
        self.add(self.named(object, field::CRYPTO_KEY_OBJ)?);
        Ok(phys)
    }

    fn dataset(&mut self, object: u64) -> Result<DslDatasetPhys> {
        let phys = self.bonus(object, DslDatasetPhys::decode)?;
        for object in [object, phys.next_clones_obj, phys.props_obj, phys.userrefs_obj, phys.snapnames_zapobj] {
            self.add(object);
        }
        self.deadlist(phys.deadlist_obj)?;
        let (marks, remaps) = (self.named(object, field::BOOKMARK_NAMES)?, self.named(object, field::REMAP_DEADLIST)?);
        self.add(marks);
        self.deadlist(remaps)?;
        if !phys.is_snapshot() {
            self.dir(phys.dir_obj)?;
            let livelist = self.named(phys.dir_obj, field::LIVELIST)?;
            self.deadlist(livelist)?;
        }
        Ok(phys)
    }

    /// The directories without file systems, and the snapshot that every file system begins as a clone of.
    fn hidden(&mut self) -> Result<()> {
        let root = self.pool.directory().lookup_u64(b"root_dataset")?.unwrap_or(0);
        let children = Zap::open(&self.mos, self.bonus(root, DslDirPhys::decode)?.child_dir_zapobj)?;
        for name in HIDDEN {
            if let Some(object) = children.lookup_u64(name)? {
                self.dir(object)?;
            }
        }
        if let Some(object) = children.lookup_u64(b"$ORIGIN")? {
            let head = self.bonus(object, DslDirPhys::decode)?.head_dataset_obj;
            let snapshot = self.dataset(head)?.prev_snap_obj;
            if snapshot != 0 {
                self.dataset(snapshot)?;
            }
        }
        Ok(())
    }

    fn datasets(&mut self, c: &mut Ctx<'_>) -> Result<()> {
        let pool = self.pool.clone();
        let mut result = Ok(());
        datasets::each(c, pool.dsl()?.root_dir(), &mut |_, ds| {
            let one = self.dataset(ds.object).and_then(|_| {
                if !ds.is_snapshot() {
                    ds.bookmarks()?.iter().for_each(|m| self.add(m.phys.redaction_obj));
                }
                Ok(())
            });
            if result.is_ok() {
                result = one;
            }
        })?;
        result
    }

    fn vdev(&mut self, vdev: &Vdev) -> Result<()> {
        let VdevConfig { dtl, indirect_births, top_zap, leaf_zap, root_zap, .. } = vdev.config;
        for object in [dtl, indirect_births, leaf_zap, root_zap, top_zap] {
            self.add(object.unwrap_or(0));
        }
        self.add(vdev.config.metaslab_array);
        self.mapping(vdev.config.indirect_object.unwrap_or(0))?;
        if let Some(zap) = top_zap.filter(|z| *z != 0) {
            let zap = Zap::open(&self.mos, zap)?;
            let names: [&[u8]; 3] = [
                b"com.delphix:ms_unflushed_phys_txgs",
                b"com.delphix:pool_checkpoint_sm",
                b"com.delphix:indirect_obsolete_sm",
            ];
            for name in names {
                self.add(zap.lookup_u64(name)?.unwrap_or(0));
            }
        }
        vdev.children.iter().try_for_each(|child| self.vdev(child))
    }

    fn mapping(&mut self, object: u64) -> Result<()> {
        if object == 0 {
            return Ok(());
        }
        self.add(object);
        let counts = self.bonus(object, IndirectMappingPhys::decode)?.counts_object;
        self.add(counts);
        Ok(())
    }

    /// The space maps.
    fn space(&mut self) -> Result<()> {
        let pool = self.pool.clone();
        let layout = Layout::load(&self.mos, pool.zio().vdevs(), false, &|_| ())?;
        for vdev in layout.vdevs.values() {
            vdev.metaslabs.iter().for_each(|m| self.add(m.object));
        }
        Ok(())
    }

    /// Tables of blocks that several files share.
    fn shared(&mut self) -> Result<()> {
        let pool = self.pool.clone();
        for entry in pool.directory().iter() {
            let entry = entry?;
            let name = entry.name();
            if name.starts_with(b"DDT-") || name.starts_with(BRT_OBJECT_VDEV_PREFIX.as_bytes()) {
                self.add(entry.value.first());
            }
        }
        for table in DdtTable::all(pool.mos())? {
            table.objects.iter().for_each(|o| self.add(o.object));
            table.logs.iter().for_each(|l| self.add(l.object));
        }
        pool.clones()?.vdevs.values().for_each(|v| self.add(v.mos_entries));
        Ok(())
    }
}
