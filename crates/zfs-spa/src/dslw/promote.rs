//! Promoting a clone: it and the dataset it was cloned from change places, so that the snapshots up to the one between
//! them belong to the clone and the other becomes a clone of it.
//!
//! No block moves. What moves are the snapshots' names, directories and space: all that the shared snapshots brought
//! into being, `(used by the last) + (what died before each)`, less what came from the origin's own origin.

use super::deadlist::hex;
use super::{DatasetState, DirState, DslPool, Sums, UsedBy, mosw};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Result, Zap};
use zfs_phys::dsl::{DD_FLAG_USED_BREAKDOWN, DS_FLAG_NOPROMOTE, field};
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_zio::{Error, ErrorKind};

type Chain = Vec<Arc<DatasetState>>;

/// The datasets that a promotion is about.
struct Parts {
    clone: Arc<DatasetState>,
    /// Snapshots that move, newest (the origin) first.
    shared: Chain,
    /// The clone and its snapshots, newest first.
    of_clone: Chain,
    /// What the origin's dataset keeps, newest (the head) first.
    of_origin: Chain,
    /// What the origin's dataset was cloned from.
    origin_origin: Option<Arc<DatasetState>>,
}

impl Parts {
    fn origin(&self) -> Result<&Arc<DatasetState>> {
        self.shared.first().ok_or_else(|| Error::corrupt("a clone without an origin"))
    }

    fn origin_head(&self) -> Result<&Arc<DatasetState>> {
        self.of_origin.first().ok_or_else(|| Error::corrupt("an origin without a head"))
    }

    /// The oldest dataset of the clone, which follows the origin.
    fn oldest_of_clone(&self) -> Result<&Arc<DatasetState>> {
        self.of_clone.last().ok_or_else(|| Error::corrupt("a clone without datasets"))
    }
}

/// Space that a promotion moves.
struct Moved {
    sums: Sums,
    /// What only the origin references afterwards.
    unique: i64,
    /// What the snapshots of the clone use afterwards, and those of the other.
    snap_of_clone: i64,
    snap_of_origin: i64,
}

impl DslPool {
    /// Whether a directory is that of a clone.
    pub fn is_clone(&self, dir: &DirState) -> bool {
        let origin = dir.phys().origin_obj;
        origin != 0 && origin != *self.origin_snap.lock()
    }

    /// Makes a clone independent of its origin.
    ///
    /// # Errors
    /// `Invalid` for what is no clone, `Exists` (naming them) when snapshots or bookmarks of both have the same names,
    /// `NoSpace` when the quota of the clone does not allow it.
    pub fn promote(&self, tx: &Tx, clone: &Arc<DatasetState>, path: &str) -> Result<()> {
        let parts = self.promote_parts(clone)?;
        let names = self.promote_check(&parts)?;
        let moved = self.promote_space(&parts)?;
        self.room_for(&clone.dir(), &parts.origin()?.dir(), moved.sums.used)?;
        self.promote_links(tx, &parts)?;
        let (origin, origin_head) = (parts.origin()?, parts.origin_head()?);
        self.move_marks(tx, origin_head, clone, origin.phys().creation_txg)?;
        self.marks_next_changed(tx, clone, origin)?;
        let (dd, odd) = (clone.dir(), origin.dir());
        let oldnext = parts.of_origin.last().map_or(0, |ds| ds.object);
        for (snap, name) in parts.shared.iter().zip(&names) {
            mosw::zap_remove(&self.mos, tx, origin_head.phys().snapnames_zapobj, name)?;
            self.adjust_count(tx, &odd, field::SNAPSHOT_COUNT, -1)?;
            mosw::zap_add(&self.mos, tx, clone.phys().snapnames_zapobj, name, snap.object)?;
            self.adjust_count(tx, &dd, field::SNAPSHOT_COUNT, 1)?;
            snap.update(|p| p.dir_obj = dd.object);
            *snap.home.lock() = dd.clone();
            self.move_clones(tx, snap, &odd, &dd, oldnext)?;
        }
        self.promote_account(&moved, &dd, &odd)?;
        origin.update(|p| p.unique_bytes = moved.unique.max(0) as u64);
        self.remove_livelist(tx, &dd)?;
        self.remove_livelist(tx, &odd)?;
        self.reload_policies()?;
        self.ops.log(tx, "promote", Some((&self.full_name(path), clone.object)), " ")
    }

    fn promote_parts(&self, clone: &Arc<DatasetState>) -> Result<Parts> {
        let dd = clone.dir();
        if clone.phys().is_snapshot() || !self.is_clone(&dd) {
            return Err(Error::invalid("promoting what is no clone"));
        }
        if clone.phys().flags & DS_FLAG_NOPROMOTE != 0 {
            return Err(Error::new(ErrorKind::CrossDevice, "promoting a clone that must not be"));
        }
        let origin = dd.phys().origin_obj;
        let odd = self.dataset(origin)?.dir();
        for dir in [&dd, &odd] {
            let is_table = self.mos.dnode(dir.object)?.phys().object_type.is_zap();
            if is_table && mosw::zap_has(&self.mos, dir.object, field::CRYPTO_KEY_OBJ)? {
                return Err(Error::unsupported("promoting encrypted datasets is not supported yet by uzfs"));
            }
        }
        let above = odd.phys().origin_obj;
        Ok(Parts {
            clone: clone.clone(),
            shared: self.chain(origin, above)?,
            of_clone: self.chain(clone.object, origin)?,
            of_origin: self.chain(odd.phys().head_dataset_obj, origin)?,
            origin_origin: if above == 0 { None } else { Some(self.dataset(above)?) },
        })
    }

    /// A dataset and those before it, down to (without) `until`.
    fn chain(&self, from: u64, until: u64) -> Result<Chain> {
        let mut out = Chain::new();
        let (mut at, mut birth) = (from, u64::MAX);
        while at != until && at != 0 {
            let ds = self.dataset(at)?;
            let phys = ds.phys();
            if phys.is_snapshot() && phys.creation_txg >= birth {
                return Err(Error::corrupt("snapshots out of order"));
            }
            if phys.is_snapshot() {
                birth = phys.creation_txg;
            }
            at = phys.prev_snap_obj;
            out.push(ds);
        }
        Ok(out)
    }

    /// Names of the snapshots that move, in their order.
    fn promote_check(&self, parts: &Parts) -> Result<Vec<String>> {
        let (origin, origin_head) = (parts.origin()?, parts.origin_head()?);
        let there = parts.clone.phys().snapnames_zapobj;
        let (mut names, mut conflicts) = (Vec::new(), Vec::new());
        for snap in &parts.shared {
            let name = self.snap_name(origin_head, snap.object)?;
            if mosw::zap_has(&self.mos, there, &name)? {
                conflicts.push(name.clone());
            }
            names.push(name);
        }
        conflicts.extend(self.marks_in_conflict(origin_head, &parts.clone, origin.phys().creation_txg));
        match conflicts.is_empty() {
            true => Ok(names),
            false => Err(Error::new(ErrorKind::Exists, conflicts.join("\n"))),
        }
    }

    /// The short name of a snapshot of a head.
    pub(super) fn snap_name(&self, head: &DatasetState, object: u64) -> Result<String> {
        for entry in Zap::open(&self.mos, head.phys().snapnames_zapobj)?.iter() {
            let entry = entry?;
            if entry.value.first() == object {
                return Ok(String::from_utf8_lossy(entry.name()).into_owned());
            }
        }
        Err(Error::corrupt("a snapshot without a name"))
    }

    fn promote_space(&self, parts: &Parts) -> Result<Moved> {
        let origin = parts.origin()?;
        let from = origin.phys();
        let referenced = |ds: &DatasetState| {
            let p = ds.phys();
            Sums {
                used: p.referenced_bytes as i64,
                comp: p.compressed_bytes as i64,
                uncomp: p.uncompressed_bytes as i64,
            }
        };
        let mut sums = referenced(origin);
        for snap in parts.shared.iter().filter(|s| s.phys().prev_snap_obj != 0) {
            sums = sums.plus(snap.deadlist.lock().sums());
        }
        if let Some(above) = &parts.origin_origin {
            sums = sums.plus(referenced(above).minus());
        }
        let after = |chain: &Chain, txg: u64| {
            chain
                .iter()
                .try_fold(0i64, |n, ds| Ok::<_, Error>(n + ds.deadlist.lock().sums_between(self, txg, u64::MAX)?.used))
        };
        let odd = origin.dir();
        let born = odd.origin_txg.load(Relaxed);
        let kept = |dir: &DirState| dir.phys().flags & DD_FLAG_USED_BREAKDOWN != 0;
        let unique = parts.oldest_of_clone()?.deadlist.lock().sums_between(self, from.prev_snap_txg, u64::MAX)?.used;
        Ok(Moved {
            sums,
            unique,
            snap_of_clone: if kept(&parts.clone.dir()) {
                after(&parts.shared, born)? + after(&parts.of_clone, born)?
            } else {
                0
            },
            snap_of_origin: if kept(&odd) { after(&parts.of_origin, from.creation_txg)? } else { 0 },
        })
    }

    /// The links between the origin, what follows it, and the directories' origins and clones.
    fn promote_links(&self, tx: &Tx, parts: &Parts) -> Result<()> {
        let (clone, origin, head) = (&parts.clone, parts.origin()?, parts.origin_head()?);
        let (dd, odd) = (clone.dir(), origin.dir());
        let next = parts.oldest_of_clone()?.object;
        let phys = origin.phys();
        if phys.next_clones_obj != 0 {
            mosw::zap_remove(&self.mos, tx, phys.next_clones_obj, &hex(next))?;
            mosw::zap_add(&self.mos, tx, phys.next_clones_obj, &hex(phys.next_snap_obj), phys.next_snap_obj)?;
        }
        origin.update(|p| p.next_snap_obj = next);

        let (above, above_txg) = (odd.phys().origin_obj, odd.origin_txg.load(Relaxed));
        dd.update(|p| p.origin_obj = above);
        dd.origin_txg.store(above_txg, Relaxed);
        odd.update(|p| p.origin_obj = origin.object);
        odd.origin_txg.store(phys.creation_txg, Relaxed);

        mosw::zap_remove(&self.mos, tx, odd.phys().clones, &hex(clone.object))?;
        if let Some(above) = &parts.origin_origin {
            let clones = above.dir().phys().clones;
            mosw::zap_add(&self.mos, tx, clones, &hex(clone.object), clone.object)?;
            mosw::zap_remove(&self.mos, tx, clones, &hex(head.object))?;
        }
        if dd.phys().clones == 0 {
            let clones = mosw::zap_create(&self.mos, tx, Ot::DSL_CLONES)?;
            dd.update(|p| p.clones = clones);
        }
        mosw::zap_add(&self.mos, tx, dd.phys().clones, &hex(head.object), head.object)
    }

    /// Other clones of a snapshot that moves belong to its new directory.
    fn move_clones(&self, tx: &Tx, snap: &DatasetState, from: &DirState, to: &DirState, oldnext: u64) -> Result<()> {
        let zap = snap.phys().next_clones_obj;
        if zap == 0 {
            return Ok(());
        }
        let clones: Vec<u64> =
            Zap::open(&self.mos, zap)?.iter().map(|e| e.map(|e| e.value.first())).collect::<Result<_>>()?;
        for clone in clones.into_iter().filter(|c| *c != oldnext) {
            let head = self.dataset(clone)?.dir().phys().head_dataset_obj;
            mosw::zap_remove(&self.mos, tx, from.phys().clones, &hex(head))?;
            mosw::zap_add(&self.mos, tx, to.phys().clones, &hex(head), head)?;
        }
        Ok(())
    }

    fn promote_account(&self, moved: &Moved, dd: &DirState, odd: &DirState) -> Result<()> {
        let only = |used| Sums { used, ..Sums::default() };
        let s = moved.sums;
        let more = moved.snap_of_clone - dd.phys().breakdown.snap as i64;
        dd.diduse(UsedBy::Snap, only(more))?;
        dd.diduse(UsedBy::Head, Sums { used: s.used - more, ..s })?;
        let less = moved.snap_of_origin - odd.phys().breakdown.snap as i64;
        odd.diduse(UsedBy::Snap, only(less))?;
        odd.diduse(UsedBy::Head, Sums { used: -s.used - less, ..s.minus() })
    }
}
