//! The metaslabs of a top-level vdev, and choosing among them.
//!
//! Allocations come in streams that hardly meet: each stream works on a metaslab of its own in every class, for first,
//! second and third copies, until that has become too fragmented, so writers contend for a lock only when they belong
//! to one stream. A new metaslab is chosen by weight among those nobody works on; only when none of them has room is
//! a stream let into another's.
//!
//! Lock order: a metaslab's lock is a leaf lock but for the loader, which reads blocks. Lists of dirty metaslabs have
//! leaf locks of their own.

use super::metaslab::{Metaslab, Settled, TXG_SIZE, slot};
use super::{Class, Loader, MetaslabDelta, SpaceFigures};
use crate::error::{Error, ErrorKind, Result};
use crate::vdev::Vdev;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// Copies of a block, at most.
pub(super) const MAX_COPIES: usize = 3;
/// A stream looks for another metaslab when the largest range of its own has lost that many powers of two
/// (`zfs_metaslab_switch_threshold`).
const WORN: u32 = 2;
/// Copies on one vdev keep a distance of its size shifted right by this (`ditto_same_vdev_distance_shift`).
const DISTANCE_SHIFT: u32 = 3;
/// No metaslab.
const NONE: u32 = u32::MAX;

/// Figures of the metaslabs of one class on one vdev.
#[derive(Default)]
pub(super) struct Figures {
    alloc: AtomicI64,
    deferred: AtomicI64,
    space: u64,
}

impl Figures {
    fn get(&self, deflate: u64) -> SpaceFigures {
        let load = |n: &AtomicI64| n.load(Ordering::Relaxed).max(0) as u64;
        SpaceFigures {
            alloc: load(&self.alloc),
            deferred: load(&self.deferred),
            space: self.space,
            dspace: (self.space >> 9) * deflate,
        }
    }
}

/// What a stream works on.
struct Place {
    metaslab: AtomicU32,
    /// Weight of the metaslab when it was chosen.
    weight: AtomicU32,
}

/// Metaslabs of one class on one vdev.
pub(super) struct Group {
    pub(super) vdev: u64,
    pub(super) class: Class,
    members: Vec<u32>,
    places: Vec<[Place; MAX_COPIES]>,
    figures: Figures,
}

/// A top-level vdev's metaslabs.
pub(super) struct Top {
    pub(super) vdev: u64,
    pub(super) metaslabs: Vec<Metaslab>,
    shift: u32,
    deflate: u64,
    pub(super) groups: Vec<Group>,
    dirty: [Mutex<BTreeSet<u32>>; TXG_SIZE],
    waiting: Mutex<BTreeSet<u32>>,
}

/// One request for space.
pub(super) struct Request<'a> {
    pub(super) asize: u64,
    pub(super) txg: u64,
    pub(super) stream: usize,
    /// Which copy it is for.
    pub(super) copy: usize,
    /// Offsets on this vdev that other copies have.
    pub(super) others: &'a [u64],
    /// Take any metaslab that has room, also near other copies.
    pub(super) hard: bool,
    pub(super) loader: &'a Loader,
}

impl Group {
    pub(super) fn new(vdev: u64, class: Class, members: Vec<u32>, tops: &[Metaslab], streams: usize) -> Self {
        let place = || Place { metaslab: AtomicU32::new(NONE), weight: AtomicU32::new(0) };
        let sizes = members.iter().map(|m| &tops[*m as usize]);
        let (space, free) = sizes.fold((0, 0), |(s, f), m| (s + m.end - m.start, f + m.free()));
        let figures = Figures { alloc: AtomicI64::new((space - free) as i64), space, ..Figures::default() };
        // Streams in excess would fight for the metaslabs that there are.
        let streams = streams.min(members.len() / 4).max(1);
        let places = (0..streams).map(|_| [place(), place(), place()]).collect();
        Self { vdev, class, members, places, figures }
    }
}

impl Top {
    pub(super) fn new(vdev: u64, metaslabs: Vec<Metaslab>, groups: Vec<Group>, device: &Vdev) -> Self {
        Self {
            vdev,
            metaslabs,
            shift: device.config.metaslab_shift as u32,
            deflate: device.deflate_ratio(),
            groups,
            dirty: Default::default(),
            waiting: Mutex::default(),
        }
    }

    pub(super) fn figures(&self, group: &Group) -> SpaceFigures {
        group.figures.get(self.deflate)
    }

    /// Bytes a class may still allocate here, about.
    pub(super) fn free_of(&self, group: &Group) -> u64 {
        let figures = self.figures(group);
        figures.space.saturating_sub(figures.alloc)
    }

    /// Allocates in `group`; nothing when no metaslab has room.
    pub(super) fn alloc(&self, group: &Group, ask: &Request<'_>) -> Result<Option<u64>> {
        let stream = ask.stream % group.places.len();
        let place = &group.places[stream][ask.copy.min(MAX_COPIES - 1)];
        let mut failed = None;
        if let Some(m) = self.metaslabs.get(place.metaslab.load(Ordering::Relaxed) as usize) {
            let worn = m.weight() + WORN <= place.weight.load(Ordering::Relaxed);
            if !worn && m.largest() >= ask.asize && !self.too_near(m, ask) {
                match self.alloc_in(m, ask) {
                    Ok(Some(at)) => return Ok(Some(at)),
                    Ok(None) => {}
                    Err(e) => failed = Some(e),
                }
            }
        }
        let mut tried = BTreeSet::new();
        while let Some(m) = self.choose(group, ask, &tried) {
            tried.insert(m.index as u32);
            match self.alloc_in(m, ask) {
                Ok(Some(at)) => {
                    self.settle_on(place, m, (stream * MAX_COPIES + ask.copy) as u32 + 1);
                    return Ok(Some(at));
                }
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::Bug => return Err(e),
                Err(e) => {
                    tracing::warn!(vdev = self.vdev, metaslab = m.index, error = %e, "metaslab cannot be used");
                    failed = Some(e);
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Loads the metaslabs that each stream will choose first.
    pub(super) fn preload(&self, loader: &Loader) {
        for group in &self.groups {
            let mut best: Vec<&Metaslab> = group.members.iter().map(|m| &self.metaslabs[*m as usize]).collect();
            best.sort_by_key(|m| (std::cmp::Reverse(m.weight()), m.index));
            for m in best.into_iter().take(group.places.len() + 1).filter(|m| !m.is_loaded()) {
                if let Err(error) = m.load(self.vdev, loader) {
                    tracing::warn!(vdev = self.vdev, metaslab = m.index, %error, "metaslab cannot be used");
                }
            }
        }
    }

    fn alloc_in(&self, m: &Metaslab, ask: &Request<'_>) -> Result<Option<u64>> {
        let at = m.alloc(self.vdev, ask.asize, ask.txg, ask.loader)?;
        if at.is_some() {
            self.mark_dirty(m, ask.txg);
        }
        Ok(at)
    }

    fn mark_dirty(&self, m: &Metaslab, txg: u64) {
        self.dirty[slot(txg)].lock().insert(m.index as u32);
    }

    /// Makes `m` the metaslab that a stream works on.
    fn settle_on(&self, place: &Place, m: &Metaslab, owner: u32) {
        let before = place.metaslab.swap(m.index as u32, Ordering::Relaxed);
        if let Some(old) = self.metaslabs.get(before as usize).filter(|old| old.index != m.index) {
            // Another may have taken it over meanwhile; then it is not ours to give up.
            let _ = old.owner.compare_exchange(owner, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        let _ = m.owner.compare_exchange(0, owner, Ordering::Relaxed, Ordering::Relaxed);
        place.weight.store(m.weight(), Ordering::Relaxed);
    }

    /// The best metaslab that may have room: unowned before owned, then by weight, those loaded before others, and then
    /// the lowest.
    fn choose(&self, group: &Group, ask: &Request<'_>, tried: &BTreeSet<u32>) -> Option<&Metaslab> {
        let all = group.members.iter().filter(|m| !tried.contains(m)).map(|m| &self.metaslabs[*m as usize]);
        let fit = all.filter(|m| m.largest() >= ask.asize && !self.too_near(m, ask));
        fit.max_by_key(|m| {
            (m.owner.load(Ordering::Relaxed) == 0, m.weight(), m.is_loaded(), std::cmp::Reverse(m.index))
        })
    }

    fn too_near(&self, m: &Metaslab, ask: &Request<'_>) -> bool {
        let distance = (self.metaslabs.len() as u64) >> DISTANCE_SHIFT;
        !ask.hard && ask.others.iter().any(|at| (at >> self.shift).abs_diff(m.index) < distance.max(1))
    }

    fn holding(&self, start: u64, size: u64) -> Result<&Metaslab> {
        let outside = || Error::corrupt("address outside all metaslabs").offset(start);
        let m = self.metaslabs.get(usize::try_from(start >> self.shift).map_err(|_| outside())?).ok_or_else(outside)?;
        let end = start.checked_add(size).filter(|end| start >= m.start && *end <= m.end && size > 0);
        end.map(|_| m).ok_or_else(outside)
    }

    pub(super) fn free(&self, start: u64, size: u64, txg: u64) -> Result<()> {
        let m = self.holding(start, size)?;
        m.free_range(start, start + size, txg)?;
        self.mark_dirty(m, txg);
        Ok(())
    }

    /// Fails when some of a range is free.
    pub(super) fn expect_allocated(&self, start: u64, size: u64, txg: u64) -> Result<()> {
        self.holding(start, size)?.expect_allocated(start, start + size, txg)
    }

    pub(super) fn unalloc(&self, start: u64, size: u64, txg: u64) -> Result<()> {
        let m = self.holding(start, size)?;
        m.unalloc(start, start + size, txg)?;
        self.mark_dirty(m, txg);
        Ok(())
    }

    pub(super) fn claim(&self, start: u64, size: u64, txg: u64, loader: &Loader) -> Result<()> {
        let m = self.holding(start, size)?;
        m.claim(self.vdev, start, start + size, txg, loader)?;
        self.mark_dirty(m, txg);
        Ok(())
    }

    pub(super) fn may_be_reused(&self, start: u64, size: u64, birth: u64) -> bool {
        self.holding(start, size).map_or(true, |m| m.may_be_reused(start, start + size, birth))
    }

    pub(super) fn take_deltas(&self, txg: u64, out: &mut Vec<MetaslabDelta>) -> Result<()> {
        let dirty = std::mem::take(&mut *self.dirty[slot(txg)].lock());
        // They stay on the list of those to settle when the txg is done.
        self.waiting.lock().extend(dirty.iter().copied());
        for index in dirty {
            let m = &self.metaslabs[index as usize];
            if let Some((alloc, free, histogram)) = m.take_delta(txg)? {
                out.push(MetaslabDelta { vdev: self.vdev, ms: m.index, alloc, free, histogram });
            }
        }
        Ok(())
    }

    pub(super) fn sync_done(&self, txg: u64, held: bool) -> Result<()> {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for index in waiting {
            let m = &self.metaslabs[index as usize];
            let Settled { alloc, deferred, waits } = m.sync_done(txg, held)?;
            if let Some(group) = self.groups.iter().find(|g| g.members.binary_search(&index).is_ok()) {
                group.figures.alloc.fetch_add(alloc, Ordering::Relaxed);
                group.figures.deferred.fetch_add(deferred, Ordering::Relaxed);
            }
            if waits {
                self.waiting.lock().insert(index);
            }
        }
        Ok(())
    }
}
