//! Scrubs and resilvers: every block of the pool is visited; a scrub reads all copies and repairs bad ones, a resilver
//! writes to devices what they missed.
//!
//! Life cycle: [`Spa::scan`] stores the scan's state (`dsl_scan_phys_t`, so that OpenZFS goes on with it or tells of it)
//! and starts a thread, which visits the meta object set and then all datasets, the oldest first. The end is a task in
//! the sync of a txg again: devices that took everything have their dirty time logs emptied. A pool that was imported in
//! the middle of a scan begins it anew.
//!
//! The pool changes meanwhile. Each object set is visited as of one txg, and as long as that takes nothing that is freed is
//! overwritten ([`Zio::hold_freed`]); when space gets too scarce for that, the object set is visited again. Blocks born
//! after the beginning need no visit: every device that is there gets them as they are written. A dataset's blocks that are
//! older than its previous snapshot are visited with that snapshot. As older datasets come first, a block always belongs to
//! one that is still to be visited, whatever is destroyed, cloned or promoted meanwhile.
//!
//! Lock order: `scan` is a leaf.

use super::{Spa, SyncCtx};
use crate::config::POOL_DIRECTORY;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use zfs_dmu::traverse::{Options, Visit, traverse};
use zfs_dmu::{Error, ErrorKind, Objset, Result, Zap};
use zfs_env::JoinHandle;
use zfs_phys::BlkPtr;
use zfs_phys::dsl::DslDatasetPhys;
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::scan::ScanPhys;
use zfs_zio::{Zbookmark, Zio};

/// Function of a scan (`pool_scan_func_t`).
const SCRUB: u64 = 1;
const RESILVER: u64 = 2;
/// State of a scan (`dsl_scan_state_t`).
const SCANNING: u64 = 1;
const FINISHED: u64 = 2;
const CANCELED: u64 = 3;
/// Flag of a scrub that waits for its continuation (`DSF_SCRUB_PAUSED`).
const PAUSED: u64 = 2;
/// Times an object set is visited again because blocks were overwritten meanwhile.
const TRIES: u32 = 8;
/// Entry of the pool directory that holds the state.
const ENTRY: &[u8] = b"scan";

/// What to do about a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanRequest {
    /// Start a scrub, or go on with the one that is paused.
    Scrub,
    /// Start a resilver, anew when one is running.
    Resilver,
    /// Pause the scrub.
    Pause,
    /// Stop the scrub.
    Stop,
}

/// A scan as people are shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanProgress {
    /// What is stored, with the counts of now.
    pub phys: ScanPhys,
    /// When this pass began, seconds since 1970: a pass ends with a pause or an export.
    pub pass_start: u64,
    /// When it was paused; 0 when it is not.
    pub paused_at: u64,
    /// Bytes examined in this pass.
    pub pass_examined: u64,
}

#[derive(Default)]
struct Counters {
    examined: AtomicU64,
    processed: AtomicU64,
    errors: AtomicU64,
    /// A device refused what was to be written to it.
    refused: AtomicBool,
    stop: AtomicBool,
}

/// The scan of a pool.
#[derive(Default)]
pub(super) struct Scan {
    phys: ScanPhys,
    pass_start: u64,
    paused_at: u64,
    /// Bytes examined before this pass.
    before: u64,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
    /// Threads that do what is due after a resilver. They take `changing`, so whoever holds it cannot wait for them.
    settling: Vec<JoinHandle<()>>,
    /// Object sets that were visited.
    done: Arc<Mutex<HashSet<u64>>>,
}

impl Scan {
    fn phys_now(&self) -> ScanPhys {
        let c = &self.counters;
        let examined = self.before + c.examined.load(Relaxed);
        let (processed, errors) = (c.processed.load(Relaxed), c.errors.load(Relaxed));
        if self.phys.state != SCANNING {
            return self.phys;
        }
        ScanPhys { examined, processed, errors, ..self.phys }
    }
}

fn store(ctx: &SyncCtx<'_>, phys: &ScanPhys) -> Result<()> {
    Zap::open(ctx.mos(), POOL_DIRECTORY)?.update(ctx.tx, ENTRY, &phys.to_words())
}

/// First and last txg that a device which is there lacks something of.
fn missing(zio: &Zio) -> Option<(u64, u64)> {
    let leaves = zio.vdevs().leaves().into_iter().filter(|l| l.state().is_readable());
    let ranges: Vec<_> = leaves.flat_map(|l| l.dtl()).collect();
    let first = ranges.iter().map(|r| r.start).min()?;
    Some((first, ranges.iter().map(|r| r.end).max()?.saturating_sub(1)))
}

impl Spa {
    /// Starts, pauses, goes on with or stops a scan.
    ///
    /// # Errors
    /// `Busy` when one is running, `NotFound` when there is none to stop, `Exists` when it is paused already.
    pub fn scan(self: &Arc<Self>, request: ScanRequest) -> Result<()> {
        let _one = self.changing.lock();
        let phys = self.scan.lock().phys;
        let (running, paused) = (phys.state == SCANNING, phys.flags & PAUSED != 0);
        let no_scrub = || Error::not_found("there is no active scrub");
        match request {
            ScanRequest::Scrub if running && paused => self.resume(),
            ScanRequest::Scrub if running => {
                let text = if phys.func == RESILVER { "currently resilvering" } else { "currently scrubbing" };
                Err(Error::new(ErrorKind::Busy, text))
            }
            ScanRequest::Scrub => self.begin(SCRUB),
            ScanRequest::Resilver => self.begin(RESILVER),
            ScanRequest::Pause if !running || phys.func != SCRUB => Err(no_scrub()),
            ScanRequest::Pause if paused => Err(Error::new(ErrorKind::Exists, "scrub is already paused")),
            ScanRequest::Pause => self.pause(),
            ScanRequest::Stop if !running || phys.func != SCRUB => Err(no_scrub()),
            ScanRequest::Stop => {
                self.halt_scan();
                self.sync_task("scan cancel", |ctx| ctx.spa.scan_over(ctx, false))
            }
        }
    }

    /// Whether a scrub is under way or paused.
    pub(super) fn is_scrubbing(&self) -> bool {
        let phys = self.scan.lock().phys;
        (phys.state, phys.func) == (SCANNING, SCRUB)
    }

    /// The last or running scan; nothing when there never was one.
    pub fn scan_progress(&self) -> Option<ScanProgress> {
        let scan = self.scan.lock();
        let (pass_start, paused_at) = (scan.pass_start, scan.paused_at);
        let pass_examined = scan.counters.examined.load(Relaxed);
        let shown = ScanProgress { phys: scan.phys_now(), pass_start, paused_at, pass_examined };
        (scan.phys.func != 0).then_some(shown)
    }

    /// Takes note of the scan that the pool tells of, and goes on with it; without one, starts a resilver when a device
    /// that is there lacks something.
    pub(super) fn load_scan(self: &Arc<Self>) -> Result<()> {
        let words = Zap::open(&self.mos, POOL_DIRECTORY)?.lookup(ENTRY)?.map(|v| v.u64s()).unwrap_or_default();
        let phys = ScanPhys::from_words(&words);
        {
            let mut scan = self.scan.lock();
            scan.phys = phys;
            scan.paused_at = if phys.flags & PAUSED != 0 { self.ops.seconds() } else { 0 };
            scan.before = if phys.state == SCANNING { phys.examined } else { 0 };
            scan.pass_start = self.ops.seconds();
        }
        let _one = self.changing.lock();
        match (phys.state, phys.func) {
            (SCANNING, RESILVER) => self.begin(RESILVER),
            (SCANNING, SCRUB) if phys.flags & PAUSED != 0 => Ok(()),
            (SCANNING, SCRUB) => self.begin(SCRUB),
            _ => self.resilver_if_needed(),
        }
    }

    /// Starts a resilver when a device that is there lacks something.
    pub(super) fn resilver_if_needed(self: &Arc<Self>) -> Result<()> {
        if missing(&self.zio).is_some() {
            return self.begin(RESILVER);
        }
        let phys = self.scan.lock().phys;
        // One that was halted for a change goes on.
        if phys.state == SCANNING && phys.flags & PAUSED == 0 { self.begin(phys.func) } else { Ok(()) }
    }

    /// Begins a scan from the start.
    fn begin(self: &Arc<Self>, func: u64) -> Result<()> {
        self.halt_scan();
        self.sync_task("scan setup", move |ctx| ctx.spa.scan_setup(ctx, func))?;
        let max_txg = {
            let scan = self.scan.lock();
            scan.done.lock().clear();
            scan.phys.max_txg
        };
        // All that may be missing is in what is on disk then.
        self.txgs.wait_synced(max_txg)?;
        self.run_scan()
    }

    fn resume(self: &Arc<Self>) -> Result<()> {
        {
            let mut scan = self.scan.lock();
            scan.phys = scan.phys_now();
            scan.phys.flags &= !PAUSED;
            (scan.paused_at, scan.before) = (0, scan.phys.examined);
            scan.counters = Arc::default();
            scan.counters.processed.store(scan.phys.processed, Relaxed);
            scan.counters.errors.store(scan.phys.errors, Relaxed);
        }
        self.sync_task("scan resume", |ctx| {
            ctx.spa.tell_scan("sysevent.fs.zfs.scrub_resume", false);
            let phys = ctx.spa.scan.lock().phys;
            store(ctx, &phys)
        })?;
        self.run_scan()
    }

    fn pause(&self) -> Result<()> {
        self.halt_scan();
        self.sync_task("scan pause", |ctx| {
            ctx.spa.tell_scan("sysevent.fs.zfs.scrub_paused", false);
            let phys = {
                let mut scan = ctx.spa.scan.lock();
                scan.phys = scan.phys_now();
                scan.phys.flags |= PAUSED;
                scan.paused_at = ctx.spa.ops.seconds();
                scan.phys
            };
            store(ctx, &phys)
        })
    }

    /// Waits until no scan is being made, nor another that is due after it: everything was visited, or could not be.
    pub fn wait_scan(&self) {
        let busy = || {
            let scan = self.scan.lock();
            scan.thread.iter().chain(&scan.settling).any(|t| !t.is_finished())
        };
        while busy() {
            zfs_env::pool::pause(Duration::from_millis(1));
        }
    }

    /// Ends the thread, if one runs; the scan itself goes on being what it is.
    pub(super) fn halt_scan(&self) {
        let thread = {
            let mut scan = self.scan.lock();
            scan.counters.stop.store(true, Relaxed);
            scan.thread.take()
        };
        self.await_ended(thread);
    }

    /// Ends a scan and what is due after it, which may be another scan. The caller does not hold `changing`.
    pub(super) fn end_scans(&self) {
        for _ in 0..2 {
            self.halt_scan();
            let settling = std::mem::take(&mut self.scan.lock().settling);
            self.await_ended(settling);
        }
    }

    fn await_ended(&self, threads: impl IntoIterator<Item = JoinHandle<()>>) {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(pool = &**self.zio.pool_name(), "the scan died");
            }
        }
    }

    fn scan_setup(&self, ctx: &SyncCtx<'_>, func: u64) -> Result<()> {
        let old = self.scan.lock().phys;
        if old.state == SCANNING && old.queue_obj != 0 {
            ctx.mos().free_object(ctx.tx, old.queue_obj)?;
        }
        let needed = missing(&self.zio);
        let (func, min_txg, max_txg) = match needed {
            Some((first, last)) => (RESILVER, first.saturating_sub(1), last.max(1)),
            None => (func, 0, ctx.tx.txg()),
        };
        let to_examine =
            zfs_zio::alloc::Class::ALL.iter().map(|c| self.zio.space(*c).alloc).fold(0, u64::saturating_add);
        let phys = ScanPhys {
            func,
            state: SCANNING,
            // A queue of datasets that OpenZFS would go on with; an empty one means from the start.
            queue_obj: Zap::create(ctx.mos(), ctx.tx, Ot::SCAN_QUEUE, 0)?,
            min_txg,
            max_txg,
            start_time: self.ops.seconds(),
            to_examine,
            ..ScanPhys::default()
        };
        store(ctx, &phys)?;
        if func == SCRUB {
            self.zio.errors().scrub_begins();
        }
        let class = if func == RESILVER { "sysevent.fs.zfs.resilver_start" } else { "sysevent.fs.zfs.scrub_start" };
        self.tell_scan(class, func == RESILVER);
        ctx.log("scan setup", &format!("func={func} mintxg={min_txg} maxtxg={max_txg}"))?;
        let mut scan = self.scan.lock();
        (scan.phys, scan.pass_start, scan.paused_at, scan.before) = (phys, self.ops.seconds(), 0, 0);
        scan.counters = Arc::default();
        Ok(())
    }

    /// The end of a scan: its state is stored, and devices that took everything lack nothing any more.
    fn scan_over(&self, ctx: &SyncCtx<'_>, complete: bool) -> Result<()> {
        let (mut phys, refused) = {
            let scan = self.scan.lock();
            (scan.phys_now(), scan.counters.refused.load(Relaxed))
        };
        if phys.state != SCANNING {
            return Ok(());
        }
        if phys.queue_obj != 0 {
            ctx.mos().free_object(ctx.tx, phys.queue_obj)?;
        }
        (phys.queue_obj, phys.flags) = (0, phys.flags & !PAUSED);
        phys.state = if complete { FINISHED } else { CANCELED };
        phys.end_time = self.ops.seconds();
        if complete && !refused {
            let leaves = self.zio.vdevs().leaves();
            leaves.iter().filter(|l| l.state().is_readable()).for_each(|l| l.dtl_remove_before(phys.max_txg + 1));
        }
        store(ctx, &phys)?;
        ctx.log(if complete { "scan done" } else { "scan cancelled" }, &format!("errors={}", phys.errors))?;
        if complete && phys.func == SCRUB {
            self.rotate_errors(ctx.tx)?;
            Zap::open(ctx.mos(), POOL_DIRECTORY)?.update(ctx.tx, b"last_scrubbed_txg", &[phys.max_txg])?;
        }
        self.scan.lock().phys = phys;
        match (complete, phys.func == RESILVER) {
            (true, true) => self.tell_scan("sysevent.fs.zfs.resilver_finish", true),
            (true, false) => self.tell_scan("sysevent.fs.zfs.scrub_finish", false),
            (false, false) => self.tell_scan("sysevent.fs.zfs.scrub_abort", false),
            (false, true) => {}
        }
        Ok(())
    }

    /// What is due when a resilver has ended: devices that took the place of others let go of them. What a device failed to
    /// take meanwhile waits for the next scrub or import; going on at once would never end with one that fails now and then.
    fn scan_ended(self: &Arc<Self>) {
        let (refused, func) = {
            let scan = self.scan.lock();
            (scan.counters.refused.load(Relaxed), scan.phys.func)
        };
        if refused || func != RESILVER {
            return;
        }
        let me = Arc::downgrade(self);
        let again = move || {
            let Some(spa) = me.upgrade() else { return };
            let _one = spa.changing.lock();
            if let Err(e) = spa.finish_replacing().and_then(|()| spa.finish_sparing()) {
                tracing::error!(error = %e, "what was replaced could not be let go of");
            }
        };
        // Not on this thread: whoever starts a scan waits for the end of the last.
        match zfs_env::spawn("replaced", again) {
            Ok(thread) => {
                let mut scan = self.scan.lock();
                scan.settling.retain(|t| !t.is_finished());
                scan.settling.push(thread);
            }
            Err(e) => tracing::error!(error = %e, "what was replaced could not be let go of"),
        }
    }

    fn run_scan(self: &Arc<Self>) -> Result<()> {
        let (visitor, me) = {
            let scan = self.scan.lock();
            let visitor = Visitor {
                zio: self.zio.clone(),
                phys: scan.phys,
                counters: scan.counters.clone(),
                done: scan.done.clone(),
            };
            (visitor, Arc::downgrade(self))
        };
        let thread = zfs_env::spawn("scan", move || visitor.run(&me)).map_err(Error::from)?;
        self.scan.lock().thread = Some(thread);
        Ok(())
    }
}

/// Time between two looks at whether a suspended pool goes on.
const SUSPENDED_PAUSE: Duration = Duration::from_millis(20);

/// The thread's part.
struct Visitor {
    zio: Arc<Zio>,
    phys: ScanPhys,
    counters: Arc<Counters>,
    done: Arc<Mutex<HashSet<u64>>>,
}

impl Visitor {
    fn stopped(&self) -> bool {
        self.counters.stop.load(Relaxed)
    }

    fn run(&self, spa: &Weak<Spa>) {
        loop {
            let Some(spa) = spa.upgrade() else { return };
            match self.next(&spa) {
                Ok(Some(object)) => {
                    let visited = self.object_set(&spa, object);
                    if self.stopped() {
                        return;
                    }
                    match visited {
                        Ok(()) => drop(self.done.lock().insert(object)),
                        Err(e) => return tracing::error!(object, error = %e, "the scan of an object set failed"),
                    }
                }
                Ok(None) => {
                    if let Err(e) = spa.sync_task("scan done", |ctx| ctx.spa.scan_over(ctx, true)) {
                        tracing::error!(error = %e, "the scan could not be ended");
                    }
                    return spa.scan_ended();
                }
                Err(e) => return tracing::error!(error = %e, "the scan does not find the datasets"),
            }
        }
    }

    /// The oldest object set that is still to be visited: 0 is the meta object set.
    fn next(&self, spa: &Spa) -> Result<Option<u64>> {
        let done = self.done.lock();
        if !done.contains(&0) {
            return Ok(Some(0));
        }
        let mut oldest: Option<(u64, u64)> = None;
        for entry in spa.mos.objects() {
            let (object, dnode) = entry?;
            if dnode.bonustype != Ot::DSL_DATASET || done.contains(&object) {
                continue;
            }
            let phys = DslDatasetPhys::decode(&dnode.bonus, dnode.endian)?;
            // Heads come after all snapshots.
            let rank = if phys.is_snapshot() { phys.creation_txg } else { u64::MAX };
            if phys.bp.birth() > self.phys.min_txg && oldest.is_none_or(|(r, _)| rank < r) {
                oldest = Some((rank, object));
            }
        }
        Ok(oldest.map(|(_, object)| object))
    }

    fn object_set(&self, spa: &Spa, object: u64) -> Result<()> {
        let before = self.counters.errors.load(Relaxed);
        for _ in 0..TRIES {
            self.zio.hold_freed();
            let visited = self.object_set_once(spa, object);
            if self.zio.let_go() || self.stopped() {
                return visited;
            }
            // What looked like damage may have been overwritten by others.
            self.counters.errors.store(before, Relaxed);
        }
        self.object_set_once(spa, object)
    }

    fn object_set_once(&self, spa: &Spa, object: u64) -> Result<()> {
        let mut min_txg = self.phys.min_txg;
        let bp = if object == 0 {
            spa.uberblock().rootbp
        } else {
            // As of the newest txg on disk: what is being changed is born later than what is looked for.
            let mos = Objset::open(&self.zio, &spa.uberblock().rootbp, 0, None)?;
            let dnode = match mos.dnode(object) {
                Ok(dnode) if dnode.phys().bonustype == Ot::DSL_DATASET => dnode,
                // Destroyed meanwhile, or made after the beginning.
                _ => return Ok(()),
            };
            let phys = DslDatasetPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
            min_txg = min_txg.max(phys.prev_snap_txg);
            phys.bp
        };
        if bp.is_hole() || bp.birth() <= min_txg {
            return Ok(());
        }
        let id = object;
        let objset = match Objset::open(&self.zio, &bp, id, None) {
            Ok(objset) => objset,
            Err(_) => {
                self.block(&bp, &Zbookmark::root(id));
                return Ok(());
            }
        };
        // A pool without threads of its own, as in simulations, is visited in one order.
        let threads = spa.zio.tasks().map_or(1, |t| t.threads());
        let options = Options { min_txg, threads, zil: false, ..Options::default() };
        let visit = |v: &Visit<'_>| {
            if self.stopped() {
                return Err(Error::new(ErrorKind::Interrupted, "scanning"));
            }
            self.block(v.bp, &v.bookmark);
            Ok(())
        };
        // Blocks that cannot be read on the way were visited, and counted, before.
        let passed = traverse(&objset, &options, &visit, &|_, _| Ok(()));
        passed.map(drop)
    }

    /// Nothing can be said about a block while devices are away.
    fn await_devices(&self, bp: &BlkPtr, bm: &Zbookmark) {
        while self.zio.is_suspended() && !self.stopped() {
            zfs_env::pool::pause(SUSPENDED_PAUSE);
        }
        if !self.stopped() {
            self.block(bp, bm);
        }
    }

    fn block(&self, bp: &BlkPtr, bm: &Zbookmark) {
        if bp.is_hole() || bp.is_embedded() || bp.physical_birth() > self.phys.max_txg {
            return;
        }
        if self.zio.is_suspended() {
            return self.await_devices(bp, bm);
        }
        let asize: u64 = bp.dvas().map(|d| d.asize()).sum();
        self.counters.examined.fetch_add(asize, Relaxed);
        if self.phys.func == RESILVER {
            match self.zio.resilver(bp, bm) {
                Ok(bytes) => {
                    self.counters.processed.fetch_add(bytes, Relaxed);
                }
                Err(e) if e.kind() == ErrorKind::Io => self.counters.refused.store(true, Relaxed),
                Err(_) => {
                    self.counters.errors.fetch_add(1, Relaxed);
                }
            }
            return;
        }
        match self.zio.scrub(bp, bm) {
            Ok(repaired) => {
                self.counters.processed.fetch_add(repaired, Relaxed);
            }
            Err(_) => {
                self.counters.errors.fetch_add(1, Relaxed);
            }
        }
    }
}
