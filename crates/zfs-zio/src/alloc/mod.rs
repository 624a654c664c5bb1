//! Deciding where new blocks go, in memory: classes, top-level vdevs, metaslabs.
//!
//! A class is a set of top-level vdevs (or of metaslabs on them) for one purpose. Within it, each stream of allocation
//! has a rotor that stays on one vdev for an aliquot of bytes — more where there is more free space — and then moves
//! on; copies of a block go to the vdevs that follow. On the vdev, [`group`] chooses the metaslab, and [`metaslab`] the
//! range.
//!
//! Nothing here touches a disk. Space maps are read by a [`Loader`] and written from [`MetaslabDelta`]s, both by the
//! layer above, which has objects; that cuts the cycle between allocating blocks and writing down which are allocated.
//!
//! No lock is shared by all writers: rotors are atomics, metaslabs have a lock each.

mod aside;
mod group;
mod metaslab;
mod range_tree;

#[cfg(test)]
mod tests;

pub use aside::{Aside, AsideDelta};
pub use range_tree::{BUCKETS, RangeConflict, RangeTree};

use crate::config::VdevKind;
use crate::error::{Error, ErrorKind, Result};
use crate::vdev::indirect::Piece;
use crate::vdev::{VdevError, VdevTree};
use aside::SetAside;
use group::{Group, MAX_COPIES, Request, Top};
use metaslab::Metaslab;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use zfs_phys::Dva;

/// What a top-level vdev, or a metaslab of it, is reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Everything that has no better place.
    Normal,
    /// Intent logs, on vdevs of their own.
    Log,
    /// Intent logs, on metaslabs of normal vdevs set aside for them. Chosen here, never named in a [`TopSeed`].
    EmbeddedLog,
    /// Metadata and small blocks.
    Special,
    /// Deduplication tables.
    Dedup,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 5] = [Self::Normal, Self::Log, Self::EmbeddedLog, Self::Special, Self::Dedup];
}

/// What is known of a metaslab before its space map is read. It covers `1 << metaslab_shift` bytes from
/// `index << metaslab_shift`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaslabSeed {
    /// Number within its vdev.
    pub index: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Free ranges by size, as its space map stores them: bucket `i` counts those of `2^(i + ashift)` bytes and more.
    pub histogram: Option<[u64; 32]>,
}

/// A top-level vdev that takes new blocks. Indirect vdevs, holes and vdevs being removed are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopSeed {
    /// Its number.
    pub vdev: u64,
    /// What it is for.
    pub class: Class,
    /// All metaslabs, in order of index, without gaps.
    pub metaslabs: Vec<MetaslabSeed>,
}

/// Reads the space map of a metaslab as it is in the last synced state (plus what was appended to it since) and gives
/// the free ranges, in bytes of the vdev's allocatable area. Called with (vdev, metaslab), at most once for each, with
/// that metaslab locked, by whichever thread writes: it may read blocks, must not allocate or free any, and must not
/// wait for a lock that somebody holds who writes blocks.
pub type Loader = Arc<dyn Fn(u64, u64) -> Result<RangeTree> + Send + Sync>;

/// What one metaslab allocated and freed in a txg: to be appended to its space map, allocations before frees.
#[derive(Debug, Clone)]
pub struct MetaslabDelta {
    /// Top-level vdev.
    pub vdev: u64,
    /// Metaslab.
    pub ms: u64,
    /// Ranges allocated.
    pub alloc: RangeTree,
    /// Ranges freed; some may have been allocated in the same txg.
    pub free: RangeTree,
    /// Histogram for the space map's header, when the metaslab is loaded: all free ranges, those that wait to become
    /// allocatable included. Otherwise add `free` to what is stored.
    pub histogram: Option<[u64; 32]>,
}

/// Figures of a class or vdev, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceFigures {
    /// Allocated, as of the last finished txg.
    pub alloc: u64,
    /// Freed but not yet allocatable again.
    pub deferred: u64,
    /// Size.
    pub space: u64,
    /// Size as users count it: parity taken off.
    pub dspace: u64,
}

/// A vdev has a metaslab set aside for intent logs when it has more than this many (`zfs_embedded_slog_min_ms`).
const EMBEDDED_LOG_MIN_METASLABS: usize = 64;

/// Where a stream of allocation is in a class.
#[derive(Default)]
struct Rotor {
    group: AtomicUsize,
    used: AtomicU64,
}

/// The vdevs of a class, as (top, group) positions in [`Allocator::tops`], and a rotor for each stream.
struct Members {
    groups: Vec<(usize, usize)>,
    rotors: Vec<Rotor>,
}

/// What to allocate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) class: Class,
    /// Bytes of data.
    pub(crate) psize: u64,
    pub(crate) copies: usize,
    pub(crate) txg: u64,
    /// Allocations with equal hashes come from one stream.
    pub(crate) stream: u64,
    /// The addresses are those of a gang header.
    pub(crate) gang: bool,
}

/// Whether space that was freed is kept from being used again.
#[derive(Default)]
struct Hold {
    on: AtomicBool,
    broken: AtomicBool,
}

impl Hold {
    fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst) && !self.broken.load(Ordering::SeqCst)
    }
}

/// All space of a writable pool.
pub(crate) struct Allocator {
    tops: Vec<Arc<Top>>,
    classes: Vec<Members>,
    loader: Loader,
    streams: usize,
    aliquot: u64,
    /// Space that is freed is not to be used again for now.
    hold: Arc<Hold>,
    aside: Arc<SetAside>,
    /// Smallest allocation on normal vdevs and the unit that sizes are rounded to (`spa_min_alloc`, `spa_gcd_alloc`).
    pub(crate) min_alloc: u64,
    pub(crate) gcd_alloc: u64,
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Allocator {
    pub(crate) fn new(
        tree: &VdevTree,
        seeds: Vec<TopSeed>,
        loader: Loader,
        streams: usize,
        aliquot: u64,
    ) -> Result<Self> {
        let shared = (Arc::default(), Arc::default());
        Self::with(tree, Vec::new(), seeds, loader, (streams.clamp(1, 64), aliquot.max(1 << 17)), shared)
    }

    /// The same space and that of more vdevs, all of them on `tree`. What is there already is shared with the present one.
    pub(crate) fn extended(&self, tree: &VdevTree, seeds: Vec<TopSeed>) -> Result<Self> {
        let shape = (self.streams, self.aliquot);
        let shared = (self.hold.clone(), self.aside.clone());
        Self::with(tree, self.tops.clone(), seeds, self.loader.clone(), shape, shared)
    }

    fn with(
        tree: &VdevTree,
        mut tops: Vec<Arc<Top>>,
        seeds: Vec<TopSeed>,
        loader: Loader,
        (streams, aliquot): (usize, u64),
        (hold, aside): (Arc<Hold>, Arc<SetAside>),
    ) -> Result<Self> {
        for seed in seeds {
            tops.push(Arc::new(build_top(tree, &seed, streams)?));
        }
        let (mut min_alloc, mut gcd_alloc) = (u64::MAX, 0);
        for top in tops.iter().filter(|t| t.groups.iter().any(|g| g.class == Class::Normal)) {
            let device = tree.top(top.vdev).ok_or_else(|| Error::invalid("no such vdev"))?;
            min_alloc = min_alloc.min(device.min_alloc());
            gcd_alloc = gcd(gcd_alloc, device.min_alloc());
        }
        if gcd_alloc == 0 {
            return Err(Error::invalid("no vdev to allocate on"));
        }
        let classes = Class::ALL.map(|class| {
            let of_class = |(t, top): (usize, &Arc<Top>)| {
                top.groups
                    .iter()
                    .position(|g| g.class == class)
                    .map(|g| (t, g))
                    .filter(|_| tree.top(top.vdev).is_some_and(|v| !v.config.non_allocating && !v.config.removing))
            };
            let groups: Vec<_> = tops.iter().enumerate().filter_map(of_class).collect();
            let start = |s: usize| Rotor { group: AtomicUsize::new(s), ..Rotor::default() };
            Members { groups, rotors: (0..streams).map(start).collect() }
        });
        Ok(Self { tops, classes: classes.into(), loader, streams, aliquot, hold, aside, min_alloc, gcd_alloc })
    }

    fn members(&self, class: Class) -> &Members {
        &self.classes[Class::ALL.iter().position(|c| *c == class).unwrap_or(0)]
    }

    /// Rounds the size of a compressed block up to what will be allocated for it anyway (`zio_roundup_alloc_size`).
    pub(crate) fn round_up(&self, psize: u64) -> u64 {
        if psize > self.min_alloc { psize.next_multiple_of(self.gcd_alloc) } else { self.min_alloc }
    }

    /// Allocates all copies of a block, or none: nothing when the class has no room.
    pub(crate) fn alloc(&self, tree: &VdevTree, ask: &Ask) -> Result<Option<Vec<Dva>>> {
        let mut dvas: Vec<Dva> = Vec::with_capacity(ask.copies);
        for _ in 0..ask.copies.clamp(1, MAX_COPIES) {
            let found = self.alloc_copy(tree, ask, &dvas);
            if let Ok(Some(dva)) = found {
                dvas.push(dva);
                continue;
            }
            for dva in &dvas {
                self.unalloc(tree, dva, ask.txg)?;
            }
            return found.map(|_| None);
        }
        Ok(Some(dvas))
    }

    fn alloc_copy(&self, tree: &VdevTree, ask: &Ask, others: &[Dva]) -> Result<Option<Dva>> {
        let members = self.members(ask.class);
        let n = members.groups.len();
        if n == 0 {
            return Ok(None);
        }
        let rotor = &members.rotors[(ask.stream % members.rotors.len() as u64) as usize];
        let after = |dva: &Dva| members.groups.iter().position(|(t, _)| self.tops[*t].vdev == dva.vdev());
        let first = match others.last().and_then(after) {
            Some(position) => position + 1,
            None => rotor.group.load(Ordering::Relaxed),
        };
        let mut failed = None;
        for hard in [false, true] {
            for i in 0..n {
                let (t, g) = members.groups[(first + i) % n];
                let (top, group) = (&self.tops[t], &self.tops[t].groups[g]);
                let Some(device) = tree.top(top.vdev).filter(|v| v.state().is_readable()) else { continue };
                // Other copies' vdevs are for when nothing else is left, and so are disks that are not well.
                let shared = others.iter().any(|d| d.vdev() == top.vdev) && n > others.len();
                let unwell = device.children.is_empty() && device.state() != crate::vdev::VdevState::Healthy;
                if !hard && (shared || unwell) {
                    continue;
                }
                let near: Vec<u64> = others.iter().filter(|d| d.vdev() == top.vdev).map(Dva::offset).collect();
                let asize = device.psize_to_asize(ask.psize, ask.txg);
                let request = Request {
                    asize,
                    txg: ask.txg,
                    stream: ask.stream as usize,
                    copy: others.len(),
                    others: &near,
                    hard,
                    loader: &self.loader,
                };
                match top.alloc(group, &request) {
                    Ok(Some(at)) => {
                        if others.is_empty() {
                            self.advance(members, rotor, (first + i) % n, device, ask.psize);
                        }
                        return Ok(Some(Dva::new(top.vdev as u32, at, asize, ask.gang)));
                    }
                    Ok(None) => {}
                    Err(e) if e.kind() == ErrorKind::Bug => return Err(e),
                    Err(e) => failed = Some(e),
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Counts an allocation, and moves the rotor on when the vdev at `position` has had its share.
    fn advance(&self, members: &Members, rotor: &Rotor, position: usize, device: &crate::vdev::Vdev, psize: u64) {
        let n = members.groups.len();
        if n == 1 {
            return;
        }
        let used = rotor.used.fetch_add(psize, Ordering::Relaxed) + psize;
        let columns = match device.config.kind {
            VdevKind::Raidz { nparity } => (device.children.len() as u64).saturating_sub(nparity),
            VdevKind::Draid { ndata, .. } => ndata,
            _ => 1,
        };
        // Emptier vdevs get more, within bounds, so that they all fill up together.
        let free = |(t, g): &(usize, usize)| self.tops[*t].free_of(&self.tops[*t].groups[*g]);
        let mine = free(&members.groups[position]);
        let mean = members.groups.iter().map(free).sum::<u64>() / n as u64;
        let aliquot = self.aliquot * columns.max(1);
        let share = u128::from(aliquot) * u128::from(mine) / u128::from(mean.max(1));
        let share = (share as u64).clamp(aliquot / 4, aliquot * 4);
        let moved = rotor.group.load(Ordering::Relaxed) % n != position;
        if used >= share {
            rotor.used.store(0, Ordering::Relaxed);
            rotor.group.store((position + 1) % n, Ordering::Relaxed);
        } else if moved {
            rotor.group.store(position, Ordering::Relaxed);
        }
    }

    fn top(&self, vdev: u64) -> Result<&Top> {
        let found = self.tops.iter().find(|t| t.vdev == vdev);
        found.map(|t| &**t).ok_or_else(|| Error::unsupported("changing the space of a vdev that takes no blocks"))
    }

    /// Where an address that may be on a removed vdev is. `through` is told of what it occupies on removed ones.
    fn places<'t>(tree: &'t VdevTree, dva: &Dva, through: &mut dyn FnMut(u64, u64, u64)) -> Result<Vec<Piece<'t>>> {
        let size = usize::try_from(Self::size(tree, dva)).unwrap_or(usize::MAX);
        let places = tree.places(dva.vdev(), dva.offset(), size, through);
        places.map_err(|e| match e {
            VdevError::NoDevice => Error::unsupported("changing the space of a vdev that takes no blocks"),
            _ => Error::corrupt("address on a removed vdev that leads nowhere").offset(dva.offset()),
        })
    }

    /// Bytes that an address occupies itself: of a gang block, only the header.
    fn size(tree: &VdevTree, dva: &Dva) -> u64 {
        match tree.top(dva.vdev()) {
            Some(top) if dva.is_gang() => top.psize_to_asize(zfs_phys::gang::GANG_HEADER_SIZE as u64, 0),
            _ => dva.asize(),
        }
    }

    /// Frees an address of a block born in `birth`.
    pub(crate) fn free(&self, tree: &VdevTree, dva: &Dva, birth: u64, txg: u64) -> Result<()> {
        if let Ok(top) = self.top(dva.vdev()) {
            return self.free_range(top, dva.offset(), Self::size(tree, dva), birth, txg);
        }
        let mut obsolete = Ok(());
        let places = Self::places(tree, dva, &mut |vdev, start, size| {
            if obsolete.is_ok() {
                obsolete = self.aside.add(vdev, Aside::Obsolete, start, size);
            }
        })?;
        obsolete?;
        places.iter().try_for_each(|p| self.free_range(self.top(p.vdev.config.id)?, p.offset, p.len as u64, birth, txg))
    }

    fn free_range(&self, top: &Top, start: u64, size: u64, birth: u64, txg: u64) -> Result<()> {
        if !self.aside.is_checkpointed(birth, txg) {
            return top.free(start, size, txg);
        }
        top.expect_allocated(start, size, txg)?;
        self.aside.add(top.vdev, Aside::Checkpointed, start, size)
    }

    /// Notes an address on a removed vdev as obsolete.
    pub(crate) fn note_obsolete(&self, dva: &Dva) -> Result<()> {
        self.aside.add(dva.vdev(), Aside::Obsolete, dva.offset(), dva.asize())
    }

    /// Takes an allocation of the same txg back.
    pub(crate) fn unalloc(&self, tree: &VdevTree, dva: &Dva, txg: u64) -> Result<()> {
        self.top(dva.vdev())?.unalloc(dva.offset(), Self::size(tree, dva), txg)
    }

    pub(crate) fn claim(&self, tree: &VdevTree, dva: &Dva, txg: u64) -> Result<()> {
        self.top(dva.vdev())?.claim(dva.offset(), Self::size(tree, dva), txg, &self.loader)
    }

    /// From now on blocks born up to the txg of a checkpoint do not become free.
    pub(crate) fn set_checkpoint(&self, txg: u64) {
        self.aside.set_checkpoint(txg);
    }

    /// What was freed since the last call and did not become free.
    pub(crate) fn take_aside(&self) -> Vec<AsideDelta> {
        self.aside.take()
    }

    /// Loads the metaslabs that will be allocated from first.
    pub(crate) fn preload(&self) {
        self.tops.iter().for_each(|t| t.preload(&self.loader));
    }

    /// Whether another block than the one born there in `birth` may be at an address by now, so that a pointer from an
    /// older txg may lead to what is not its own any more.
    pub(crate) fn may_be_reused(&self, tree: &VdevTree, dva: &Dva, birth: u64) -> bool {
        let reused = |p: &Piece<'_>| {
            self.top(p.vdev.config.id).map_or(true, |top| top.may_be_reused(p.offset, p.len as u64, birth))
        };
        Self::places(tree, dva, &mut |_, _, _| ()).map_or(true, |places| places.iter().any(reused))
    }

    pub(crate) fn take_deltas(&self, txg: u64) -> Result<Vec<MetaslabDelta>> {
        let mut out = Vec::new();
        self.tops.iter().try_for_each(|t| t.take_deltas(txg, &mut out))?;
        Ok(out)
    }

    pub(crate) fn sync_done(&self, txg: u64) -> Result<()> {
        let figures = self.sum(|_, _| true);
        // Writers come first: when much of what is free is held back, it is let go.
        if figures.deferred.saturating_mul(4) > figures.space.saturating_sub(figures.alloc) {
            self.hold.broken.store(true, Ordering::SeqCst);
        }
        let held = self.hold.is_on();
        self.tops.iter().try_for_each(|t| t.sync_done(txg, held))
    }

    /// From now on space that is freed is not used again, until the hold is let go.
    pub(crate) fn hold(&self) {
        self.hold.broken.store(false, Ordering::SeqCst);
        self.hold.on.store(true, Ordering::SeqCst);
    }

    /// Ends a hold. False when it was broken meanwhile.
    pub(crate) fn let_go(&self) -> bool {
        self.hold.on.store(false, Ordering::SeqCst);
        !self.hold.broken.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn figures(&self, class: Class) -> SpaceFigures {
        self.sum(|top, group| group.class == class && top.vdev == group.vdev)
    }

    pub(crate) fn vdev_figures(&self, vdev: u64) -> SpaceFigures {
        self.sum(|top, _| top.vdev == vdev)
    }

    fn sum(&self, which: impl Fn(&Top, &Group) -> bool) -> SpaceFigures {
        let groups = self.tops.iter().flat_map(|t| t.groups.iter().map(move |g| (t, g)));
        groups.filter(|(t, g)| which(t, g)).fold(SpaceFigures::default(), |sum, (t, g)| {
            let f = t.figures(g);
            SpaceFigures {
                alloc: sum.alloc + f.alloc,
                deferred: sum.deferred + f.deferred,
                space: sum.space + f.space,
                dspace: sum.dspace + f.dspace,
            }
        })
    }
}

/// Metaslabs and groups of one top-level vdev.
fn build_top(tree: &VdevTree, seed: &TopSeed, streams: usize) -> Result<Top> {
    let device = tree.top(seed.vdev).ok_or_else(|| Error::invalid("no such vdev"))?;
    let shift = device.config.metaslab_shift;
    if !device.config.kind.is_concrete() || !(20..60).contains(&shift) {
        return Err(Error::corrupt(format!("vdev {} with metaslabs of 2^{shift} bytes", seed.vdev)));
    }
    let count = device.config.asize >> shift;
    if seed.metaslabs.len() as u64 > count || seed.metaslabs.iter().zip(0..).any(|(m, i)| m.index != i) {
        return Err(Error::corrupt(format!("vdev {} has {count} metaslabs, not those given", seed.vdev)));
    }
    let metaslabs: Vec<Metaslab> = seed
        .metaslabs
        .iter()
        .map(|m| {
            let (start, end) = device.metaslab_range(m.index);
            Metaslab::new(m, start, end, device.ashift)
        })
        .collect();
    let mut members: Vec<u32> = (0..metaslabs.len() as u32).collect();
    let mut groups = Vec::new();
    let embeds = matches!(seed.class, Class::Normal | Class::Special);
    if embeds && metaslabs.len() > EMBEDDED_LOG_MIN_METASLABS {
        let allocated = |m: &u32| seed.metaslabs[*m as usize].allocated;
        if let Some(emptiest) = members.iter().copied().min_by_key(allocated) {
            members.retain(|m| *m != emptiest);
            groups.push(Group::new(seed.vdev, Class::EmbeddedLog, vec![emptiest], &metaslabs, streams));
        }
    }
    groups.insert(0, Group::new(seed.vdev, seed.class, members, &metaslabs, streams));
    Ok(Top::new(seed.vdev, metaslabs, groups, device))
}
