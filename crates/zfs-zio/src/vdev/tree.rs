//! Building the tree, its states and its counters.

use super::raidz::draid::DraidGeometry;
use super::raidz::map::{RaidzGeometry, Reflow};
use super::state::{VdevAux, VdevState};
use super::{ReadIo, VdevError};
use crate::config::{VdevConfig, VdevKind};
use crate::error::{Error, ErrorKind, Result};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use zfs_env::BlockDevice;
use zfs_phys::indirect::IndirectMappingEntry;
use zfs_phys::label::{SPA_MINDEVSIZE, VDEV_LABEL_END_SIZE, VDEV_LABEL_SIZE, VDEV_LABEL_START_SIZE};

/// Counters of one vdev since the pool was opened.
#[derive(Debug, Default)]
pub struct VdevStats {
    reads: AtomicU64,
    bytes: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    checksum_errors: AtomicU64,
}

impl VdevStats {
    pub(crate) fn count_read(&self, bytes: u64) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_read_error(&self) {
        self.read_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_checksum_error(&self) {
        self.checksum_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads that succeeded.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads the device refused.
    pub fn read_errors(&self) -> u64 {
        self.read_errors.load(Ordering::Relaxed)
    }

    pub(crate) fn count_write(&self, bytes: u64) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_write_error(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes that succeeded.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Bytes written.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// Writes and flushes the device refused.
    pub fn write_errors(&self) -> u64 {
        self.write_errors.load(Ordering::Relaxed)
    }

    /// Reads that gave wrong bytes.
    pub fn checksum_errors(&self) -> u64 {
        self.checksum_errors.load(Ordering::Relaxed)
    }

    /// Sets all error counters to zero (`zpool clear`).
    pub fn clear_errors(&self) {
        self.read_errors.store(0, Ordering::Relaxed);
        self.write_errors.store(0, Ordering::Relaxed);
        self.checksum_errors.store(0, Ordering::Relaxed);
    }
}

/// Largest top-level vdev believed in; keeps all arithmetic on offsets far from overflow.
const MAX_ASIZE: u64 = 1 << 60;

/// Ranges of txgs a vdev is known to lack, sorted; behind a lock of its own.
type Dtl = RwLock<Vec<std::ops::Range<u64>>>;

/// How a vdev deals blocks over its children.
#[derive(Debug)]
pub(super) enum Geometry {
    None,
    Raidz(RaidzGeometry),
    Draid(DraidGeometry),
}

/// One vdev of an opened pool.
pub struct Vdev {
    /// Its configuration (the children's are in [`Vdev::children`]).
    pub config: VdevConfig,
    /// Vdevs below.
    pub children: Vec<Vdev>,
    /// Counters.
    pub stats: Arc<VdevStats>,
    pub(crate) ashift: u32,
    pub(super) geometry: Geometry,
    /// Progress of a RAID-Z expansion, when one is under way.
    reflow: RwLock<Option<Reflow>>,
    /// Where the contents of a removed vdev are, sorted by source.
    pub(super) mapping: RwLock<Option<Arc<[IndirectMappingEntry]>>>,
    device: Arc<RwLock<Option<Arc<dyn BlockDevice>>>>,
    asize: Arc<AtomicU64>,
    min_asize: u64,
    state: Arc<AtomicU8>,
    aux: Arc<AtomicU8>,
    dtl: Arc<Dtl>,
    /// The same as of the last flush of the pool.
    dtl_flushed: Arc<Dtl>,
    pub(super) unflushed: Arc<super::flush::Unflushed>,
    /// Txg of the newest uberblock that a leaf was given; `u64::MAX` while it was given all that the pool wrote.
    uberblock: Arc<AtomicU64>,
}

impl std::fmt::Debug for Vdev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vdev")
            .field("type", &self.config.kind.type_name())
            .field("guid", &self.config.guid)
            .field("state", &self.state())
            .field("children", &self.children)
            .finish()
    }
}

/// Opens a leaf: gives its device, or why there is none.
pub type OpenLeaf<'a> = &'a mut dyn FnMut(&VdevConfig) -> std::result::Result<Arc<dyn BlockDevice>, VdevAux>;

impl Vdev {
    /// Unique number.
    pub fn guid(&self) -> u64 {
        self.config.guid
    }

    /// Health.
    pub fn state(&self) -> VdevState {
        match self.state.load(Ordering::Relaxed) {
            1 => VdevState::Closed,
            2 => VdevState::Offline,
            3 => VdevState::Removed,
            4 => VdevState::CantOpen,
            5 => VdevState::Faulted,
            6 => VdevState::Degraded,
            7 => VdevState::Healthy,
            _ => VdevState::Unknown,
        }
    }

    /// Why it is in that state.
    pub fn aux(&self) -> VdevAux {
        use VdevAux as A;
        const ALL: [VdevAux; 21] = [
            A::None,
            A::OpenFailed,
            A::CorruptData,
            A::NoReplicas,
            A::BadGuidSum,
            A::TooSmall,
            A::BadLabel,
            A::VersionNewer,
            A::VersionOlder,
            A::UnsupFeat,
            A::Spared,
            A::ErrExceeded,
            A::IoFailure,
            A::BadLog,
            A::External,
            A::SplitPool,
            A::BadAshift,
            A::ExternalPersist,
            A::Active,
            A::ChildrenOffline,
            A::AshiftTooBig,
        ];
        ALL.get(usize::from(self.aux.load(Ordering::Relaxed))).copied().unwrap_or(A::None)
    }

    pub(super) fn set_state(&self, state: VdevState, aux: VdevAux) {
        self.state.store(state as u8, Ordering::Relaxed);
        self.aux.store(aux as u8, Ordering::Relaxed);
    }

    /// The opened device of a leaf.
    pub fn device(&self) -> Option<Arc<dyn BlockDevice>> {
        self.device.read().clone()
    }

    /// Whether a leaf can be written to: it has a device, or is a distributed spare, which needs none of its own.
    pub fn takes_writes(&self) -> bool {
        self.state().is_readable()
            && (self.device().is_some() || matches!(self.config.kind, VdevKind::DraidSpare { .. }))
    }

    /// Takes a distributed spare back into use after [`Vdev::close`]. [`VdevTree::reevaluate`] must follow.
    pub fn reopen_spare(&self) {
        if matches!(self.config.kind, VdevKind::DraidSpare { .. }) {
            self.set_state(VdevState::Healthy, VdevAux::None);
        }
    }

    /// Opens a leaf that was away or offline again, on `device`. What it missed is in its dirty time log. Fails with why
    /// it cannot be used; it stays as it was then. [`VdevTree::reevaluate`] must follow.
    pub fn reopen(&self, device: Arc<dyn BlockDevice>) -> std::result::Result<(), VdevAux> {
        let psize = device.size() - device.size() % VDEV_LABEL_SIZE;
        let usable = psize.checked_sub(VDEV_LABEL_START_SIZE + VDEV_LABEL_END_SIZE).filter(|_| psize >= SPA_MINDEVSIZE);
        let asize = usable.ok_or(VdevAux::TooSmall)?;
        if asize < self.min_asize.max(self.leaf_asize()) {
            return Err(VdevAux::BadLabel);
        }
        self.asize.store(asize, Ordering::Relaxed);
        *self.device.write() = Some(device);
        self.unflushed.renew();
        self.set_state(VdevState::Healthy, VdevAux::None);
        Ok(())
    }

    /// Takes a leaf out of use and closes its device; its parents' states are not touched. From now on it lacks what is
    /// written, and notes so itself. [`VdevTree::reevaluate`] must follow.
    pub fn close(&self, state: VdevState, aux: VdevAux) {
        self.set_state(state, aux);
        *self.device.write() = None;
    }

    /// Calls a leaf that works degraded, because it had too many errors.
    pub fn degrade(&self) {
        self.set_state(VdevState::Degraded, VdevAux::ErrExceeded);
    }

    /// Allocatable bytes of an opened leaf.
    pub fn leaf_asize(&self) -> u64 {
        self.asize.load(Ordering::Relaxed)
    }

    /// Fewest allocatable bytes that a device in the place of this leaf must have.
    pub fn min_asize(&self) -> u64 {
        self.min_asize
    }

    /// Smallest allocation on a top-level vdev, bytes.
    pub fn min_alloc(&self) -> u64 {
        match &self.geometry {
            Geometry::Draid(draid) => draid.min_alloc(),
            _ => 1 << self.ashift,
        }
    }

    /// Bytes that a block of `psize` bytes written in `txg` occupies on this vdev, parity and padding included. An inner
    /// vdev takes what the most demanding of its children takes.
    pub fn psize_to_asize(&self, psize: u64, txg: u64) -> u64 {
        match &self.geometry {
            Geometry::Raidz(raidz) => raidz.asize(psize, txg),
            Geometry::Draid(draid) => draid.asize(psize),
            Geometry::None => {
                let own = psize.next_multiple_of(1 << self.ashift);
                self.children.iter().map(|c| c.psize_to_asize(psize, txg)).fold(own, u64::max)
            }
        }
    }

    /// Usable bytes for each 512 allocated, as space is shown to users: fixed by what a block of 128 KiB took when the
    /// vdev was new (`vdev_set_deflate_ratio`).
    pub fn deflate_ratio(&self) -> u64 {
        (1 << 17) / (self.psize_to_asize(1 << 17, 0) >> 9).max(1)
    }

    /// Bytes that metaslab `index` of a top-level vdev covers, as (start, end): on dRAID only whole stripes.
    pub fn metaslab_range(&self, index: u64) -> (u64, u64) {
        let (start, end) = (index << self.config.metaslab_shift, (index + 1) << self.config.metaslab_shift);
        match &self.geometry {
            Geometry::Draid(draid) => {
                let (unit, first) = (draid.stripe(), start.next_multiple_of(draid.stripe()));
                (first, first + end.saturating_sub(first) / unit * unit)
            }
            _ => (start, end),
        }
    }

    /// Tells which txgs a leaf lacks (its dirty time log), so that reads prefer others.
    pub fn set_dtl(&self, mut missing: Vec<std::ops::Range<u64>>) {
        missing.retain(|r| r.start < r.end);
        missing.sort_by_key(|r| r.start);
        self.dtl_flushed.write().clone_from(&missing);
        *self.dtl.write() = missing;
    }

    /// Notes whether the uberblock of a txg reached a leaf.
    pub(super) fn was_given_uberblock(&self, txg: u64, written: bool) {
        let before = self.uberblock.load(Ordering::Relaxed);
        let now = if written {
            txg
        } else if before == u64::MAX {
            0
        } else {
            before
        };
        self.uberblock.store(now, Ordering::Relaxed);
    }

    /// Txg of the newest uberblock that must be on a leaf when that of `synced` is the pool's; 0 when nothing is known.
    pub fn uberblock_txg(&self, synced: u64) -> u64 {
        self.uberblock.load(Ordering::Relaxed).min(synced)
    }

    /// Notes that a leaf lacks everything of these txgs, for good.
    pub fn lacks(&self, txgs: std::ops::Range<u64>) {
        txgs.for_each(|txg| self.dtl_add(txg));
        self.confirm_dtl();
    }

    /// Everything written before is durable, here or elsewhere: what the leaf lacks now it will not get by being written
    /// once more.
    pub(crate) fn confirm_dtl(&self) {
        let dtl = self.dtl.read();
        if *dtl != *self.dtl_flushed.read() {
            self.dtl_flushed.write().clone_from(&dtl);
        }
    }

    /// Forgets what the leaf lacks since the last flush: all of that is going to be written once more.
    pub(crate) fn forget_unflushed_dtl(&self) {
        let flushed = self.dtl_flushed.read().clone();
        *self.dtl.write() = flushed;
    }

    /// Notes that a leaf lacks what was written in `txg`.
    pub fn dtl_add(&self, txg: u64) {
        if txg == 0 || self.dtl.read().iter().any(|r| r.contains(&txg)) {
            return;
        }
        let mut dtl = self.dtl.write();
        dtl.push(txg..txg + 1);
        dtl.sort_by_key(|r| r.start);
        dtl.dedup_by(|next, last| {
            let joins = next.start <= last.end;
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
    }

    /// Notes that a leaf has everything that was written before txg `end`: it was resilvered.
    pub fn dtl_remove_before(&self, end: u64) {
        for dtl in [&self.dtl, &self.dtl_flushed] {
            dtl.write().retain_mut(|r| {
                r.start = r.start.max(end);
                r.start < r.end
            });
        }
    }

    /// Txgs a leaf lacks something of, ascending.
    pub fn dtl(&self) -> Vec<std::ops::Range<u64>> {
        self.dtl.read().clone()
    }

    pub(super) fn reflow(&self) -> Option<Reflow> {
        *self.reflow.read()
    }

    /// Whether the vdev is known to lack something written in `birth`; a mirror of whatever kind lacks what all its
    /// sides lack.
    pub fn is_stale(&self, birth: u64) -> bool {
        let mirror = matches!(self.config.kind, VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare);
        self.dtl.read().iter().any(|r| r.contains(&birth))
            || (mirror && self.children.iter().all(|c| !c.state().is_readable() || c.is_stale(birth)))
    }

    /// Reads `buf.len()` bytes at `offset` of the vdev's allocatable area until [`ReadIo::good`] accepts them.
    pub fn read(&self, io: &mut ReadIo<'_>, offset: u64, buf: &mut [u8]) -> std::result::Result<(), VdevError> {
        match self.config.kind {
            VdevKind::Disk | VdevKind::File => self.read_leaf(io, offset, buf),
            VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare => self.read_mirror(io, offset, buf),
            VdevKind::Raidz { .. } | VdevKind::Draid { .. } => self.read_raid(io, offset, buf),
            VdevKind::DraidSpare { .. } => self.read_spare(io, offset, buf),
            VdevKind::Indirect => self.read_indirect(io, offset, buf),
            VdevKind::Root | VdevKind::Hole | VdevKind::Missing => Err(VdevError::NoDevice),
        }
    }

    /// All leaves below, left to right.
    pub fn leaves(&self) -> Vec<&Vdev> {
        if self.config.kind.is_leaf() { vec![self] } else { self.children.iter().flat_map(Vdev::leaves).collect() }
    }

    /// The vdev of that guid.
    pub fn find(&self, guid: u64) -> Option<&Vdev> {
        if self.config.guid == guid { Some(self) } else { self.children.iter().find_map(|c| c.find(guid)) }
    }

    fn build(mut config: VdevConfig, ashift: u32, min_asize: u64, open: OpenLeaf<'_>) -> Vdev {
        let geometry = geometry_of(&config, ashift);
        let below = min_asize_below(&config, &geometry, min_asize);
        let children: Vec<Vdev> =
            std::mem::take(&mut config.children).into_iter().map(|c| Vdev::build(c, ashift, below, open)).collect();
        let mut vdev = Vdev {
            asize: Arc::new(AtomicU64::new(config.asize)),
            min_asize,
            config,
            children,
            stats: Arc::default(),
            ashift,
            geometry,
            reflow: RwLock::new(None),
            mapping: RwLock::new(None),
            device: Arc::default(),
            state: Arc::default(),
            aux: Arc::default(),
            dtl: Arc::default(),
            dtl_flushed: Arc::default(),
            unflushed: Arc::default(),
            uberblock: Arc::new(AtomicU64::new(u64::MAX)),
        };
        match vdev.config.kind {
            VdevKind::Disk | VdevKind::File | VdevKind::DraidSpare { .. } if vdev.stays_away() => {}
            VdevKind::Disk | VdevKind::File => vdev.open_leaf(min_asize, open),
            VdevKind::Hole | VdevKind::Missing | VdevKind::Indirect | VdevKind::DraidSpare { .. } => {
                vdev.set_state(VdevState::Healthy, VdevAux::None);
            }
            _ => vdev.evaluate(),
        }
        vdev
    }

    /// Whether a leaf was taken out of use before, and still is: it is not even looked for.
    fn stays_away(&self) -> bool {
        let config = &self.config;
        if config.faulted && !config.removed {
            let external = config.aux_state.as_deref() == Some("external");
            self.set_state(VdevState::Faulted, if external { VdevAux::External } else { VdevAux::ErrExceeded });
        } else if config.offline {
            self.set_state(VdevState::Offline, VdevAux::None);
        }
        (config.faulted && !config.removed) || config.offline
    }

    fn open_leaf(&mut self, min_asize: u64, open: OpenLeaf<'_>) {
        let device = match open(&self.config) {
            Ok(device) => device,
            Err(VdevAux::OpenFailed) if self.config.removed => {
                return self.set_state(VdevState::Removed, VdevAux::None);
            }
            Err(aux) => return self.set_state(VdevState::CantOpen, aux),
        };
        let psize = device.size() - device.size() % VDEV_LABEL_SIZE;
        if psize < SPA_MINDEVSIZE {
            return self.set_state(VdevState::CantOpen, VdevAux::TooSmall);
        }
        let asize = psize - VDEV_LABEL_START_SIZE - VDEV_LABEL_END_SIZE;
        self.asize.store(asize, Ordering::Relaxed);
        if asize < min_asize {
            return self.set_state(VdevState::CantOpen, VdevAux::BadLabel);
        }
        *self.device.write() = Some(device);
        match self.config.degraded {
            true => self.set_state(VdevState::Degraded, VdevAux::ErrExceeded),
            false => self.set_state(VdevState::Healthy, VdevAux::None),
        }
    }

    /// Takes over what the vdevs of the same guids have in another tree.
    fn adopt(&mut self, from: &VdevTree) {
        if let Some(old) = from.find(self.config.guid) {
            (self.stats, self.device) = (old.stats.clone(), old.device.clone());
            if self.config.kind.is_leaf() {
                self.asize = old.asize.clone();
            }
            (self.dtl, self.unflushed) = (old.dtl.clone(), old.unflushed.clone());
            self.uberblock = old.uberblock.clone();
            self.dtl_flushed = old.dtl_flushed.clone();
            (self.state, self.aux) = (old.state.clone(), old.aux.clone());
            *self.reflow.write() = *old.reflow.read();
            self.mapping.write().clone_from(&old.mapping.read());
        } else {
            // One that joins now was given none.
            self.uberblock.store(0, Ordering::Relaxed);
        }
        self.children.iter_mut().for_each(|c| c.adopt(from));
    }

    /// Derives the states of this vdev and all inner ones below anew, after a leaf's state has changed.
    pub(super) fn reevaluate(&self) {
        self.children.iter().for_each(Vdev::reevaluate);
        let inner = !self.config.kind.is_leaf() && self.config.kind != VdevKind::Indirect;
        if inner {
            self.evaluate();
        }
    }

    /// Derives the state of an inner vdev from its children's.
    fn evaluate(&self) {
        let (mut faulted, mut degraded, mut corrupted) = (0u64, 0u64, false);
        let is_root = self.config.kind == VdevKind::Root;
        for child in self.children.iter().filter(|c| c.config.kind.is_concrete()) {
            let state = child.state();
            if !state.is_readable() {
                if is_root && child.config.is_log { degraded += 1 } else { faulted += 1 }
            } else if state <= VdevState::Degraded {
                degraded += 1;
            }
            corrupted |= child.aux() == VdevAux::CorruptData;
        }
        // Top-level vdevs that nobody knows make the pool unusable too.
        if is_root {
            faulted += self.children.iter().filter(|c| c.config.kind == VdevKind::Missing).count() as u64;
        }
        let children = self.children.len() as u64;
        let dead = match self.config.kind {
            VdevKind::Root => faulted > 0,
            VdevKind::Raidz { nparity } => faulted > nparity,
            VdevKind::Draid { nparity, nchildren, .. } => {
                faulted > nparity.saturating_mul(children / nchildren.unwrap_or(children).max(1))
            }
            _ => faulted == children,
        };
        if dead {
            let all_offline = !is_root && children > 0 && self.children.iter().all(|c| c.state() == VdevState::Offline);
            match () {
                () if all_offline && !matches!(self.config.kind, VdevKind::Draid { .. } | VdevKind::Raidz { .. }) => {
                    self.set_state(VdevState::Offline, VdevAux::ChildrenOffline);
                }
                () if is_root && corrupted => self.set_state(VdevState::CantOpen, VdevAux::CorruptData),
                () => self.set_state(VdevState::CantOpen, VdevAux::NoReplicas),
            }
        } else if degraded + faulted != 0 {
            self.set_state(VdevState::Degraded, VdevAux::None);
        } else {
            self.set_state(VdevState::Healthy, VdevAux::None);
        }
    }
}

fn geometry_of(config: &VdevConfig, ashift: u32) -> Geometry {
    let width = config.children.len();
    let geometry = match config.kind {
        VdevKind::Raidz { nparity } => {
            let (txgs, expanding) = (&config.raidz_expand_txgs, config.raidz_expanding);
            RaidzGeometry::new(ashift, width, nparity as usize, txgs, expanding).map(Geometry::Raidz)
        }
        VdevKind::Draid { nparity, ndata, nspares, ngroups, nchildren } => {
            let numbers = (ndata, nparity, nspares, ngroups);
            DraidGeometry::new(ashift, width as u64, nchildren, numbers).map(Geometry::Draid)
        }
        _ => None,
    };
    geometry.unwrap_or(Geometry::None)
}

/// Smallest acceptable size of a child.
fn min_asize_below(config: &VdevConfig, geometry: &Geometry, min_asize: u64) -> u64 {
    let children = config.children.len().max(1) as u64;
    match (&config.kind, geometry) {
        (VdevKind::Raidz { .. }, _) => min_asize.div_ceil(children),
        (_, Geometry::Draid(draid)) => draid.min_child_asize(min_asize),
        (VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare, _) => min_asize,
        _ => 0,
    }
}

/// All vdevs of a pool.
#[derive(Debug)]
pub struct VdevTree {
    root: Vdev,
}

impl VdevTree {
    /// Builds the tree from the configuration of the root vdev, opening leaves with `open`. Missing devices do not
    /// fail it: they show in the states. Fails when the configuration is not one of a pool.
    pub fn build(config: VdevConfig, open: OpenLeaf<'_>) -> Result<Self> {
        if config.kind != VdevKind::Root {
            return Err(Error::invalid("the vdev tree does not start with a root"));
        }
        let mut config = config;
        let tops = std::mem::take(&mut config.children);
        let mut children = Vec::with_capacity(tops.len());
        for (i, top) in tops.into_iter().enumerate() {
            if top.id != i as u64 {
                return Err(Error::corrupt(format!("top-level vdev {i} says it is number {}", top.id)));
            }
            if top.kind.is_concrete() && !(9..=16).contains(&top.ashift) {
                return Err(Error::corrupt(format!("top-level vdev {i} has an ashift of {}", top.ashift)));
            }
            if top.asize > MAX_ASIZE {
                return Err(Error::corrupt(format!("top-level vdev {i} claims a size of {:#x}", top.asize)));
            }
            let mask = 1u64.checked_shl(top.metaslab_shift as u32).map_or(0, |m| m - 1);
            let (ashift, min) = (top.ashift as u32, top.asize & !mask);
            children.push(Vdev::build(top, ashift, min, open));
        }
        let mut root = Vdev::build(config, 0, 0, open);
        root.children = children;
        root.evaluate();
        Ok(Self { root })
    }

    /// The tree as `config` has it, after a change of the pool's configuration: vdevs that were there before go on with
    /// their devices, states and counters, shared with this tree; others are opened with `open`.
    ///
    /// # Errors
    /// As [`VdevTree::build`].
    pub fn changed(&self, config: VdevConfig, open: OpenLeaf<'_>) -> Result<Self> {
        // Leaves that are there already must not be opened a second time, which would fail.
        let mut only_new = |leaf: &VdevConfig| match self.find(leaf.guid) {
            Some(_) => Err(VdevAux::OpenFailed),
            None => open(leaf),
        };
        let mut tree = Self::build(config, &mut only_new)?;
        tree.root.adopt(self);
        tree.reevaluate();
        Ok(tree)
    }

    /// Derives the states of all inner vdevs anew, after leaves were opened or closed.
    pub fn reevaluate(&self) {
        self.root.reevaluate();
    }

    /// The root vdev; its children are the top-level vdevs, in the order DVAs number them.
    pub fn root(&self) -> &Vdev {
        &self.root
    }

    /// Top-level vdev `id`.
    pub fn top(&self, id: u64) -> Option<&Vdev> {
        self.root.children.get(usize::try_from(id).ok()?)
    }

    /// The vdev of that guid.
    pub fn find(&self, guid: u64) -> Option<&Vdev> {
        self.root.find(guid)
    }

    /// Tells how far a RAID-Z expansion has come, from the uberblock (`ub_raidz_reflow_info`): bytes moved, and
    /// whether the scratch area holds the truth about them. Only the vdev that is expanding takes notice.
    pub fn set_reflow(&self, offset: u64, scratch: bool) {
        for top in self.root.children.iter().filter(|t| t.config.raidz_expanding) {
            *top.reflow.write() = Some(Reflow { offset, scratch });
        }
    }

    /// Tells where the contents of removed top-level vdev `id` are now (its `com.delphix:indirect_object`).
    pub fn set_indirect_mapping(&self, id: u64, mut entries: Vec<IndirectMappingEntry>) -> Result<()> {
        let vdev = self.top(id).filter(|v| v.config.kind == VdevKind::Indirect);
        let vdev = vdev.ok_or_else(|| Error::invalid(format!("vdev {id} is not a removed one")))?;
        entries.sort_by_key(|e| e.src);
        *vdev.mapping.write() = Some(entries.into());
        Ok(())
    }

    /// All leaves.
    pub fn leaves(&self) -> Vec<&Vdev> {
        self.root.leaves()
    }

    /// Fails when too much is missing to read the pool.
    pub fn check_readable(&self) -> Result<()> {
        match self.root.state() {
            VdevState::CantOpen => {
                Err(Error::new(ErrorKind::TooManyMissing, "one or more top-level vdevs are unavailable"))
            }
            _ => Ok(()),
        }
    }
}
