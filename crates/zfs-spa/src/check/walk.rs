//! The walk itself: counts, claims and verifies each block of the pool once.

use super::layout::Layout;
use super::refs::{Clones, Dedup, Shared};
use super::space::{ClaimError, Segment};
use super::stats::{SharedStats, TYPE_OTHER, TYPES_OLD};
use super::{CheckOptions, CheckReport, Figures, MOST_KEPT, Problem, Progress, Verify, pending};
use crate::pool::Pool;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zfs_dmu::Objset;
use zfs_dmu::traverse::{Options, Visit, traverse};
use zfs_phys::BlkPtr;
use zfs_phys::dsl::DslDatasetPhys;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};
use zfs_phys::zil::{RecordBody, ZIL_CLAIM_LR_SEQ_VALID, ZIL_ZC_SEQ, ZilBlock};
use zfs_zio::{Buf, Error, ErrorKind, Result, Zbookmark};

/// Blocks between two calls of the progress function.
const TICK: u64 = 256;
/// Bytes of a gang header.
const GANG_HEADER: u64 = 512;
/// Gang headers below gang headers, at most.
const MAX_GANG_DEPTH: usize = 32;

#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    count: u64,
    errors: HashMap<ErrorKind, u64>,
}

/// A check that is running.
pub struct Walk<'a> {
    pub(super) pool: &'a Pool,
    pub(super) options: &'a CheckOptions<'a>,
    pub(super) layout: Layout,
    pub(super) threads: usize,
    progress: &'a (dyn Fn(&Progress) -> bool + Sync),
    stats: SharedStats,
    dedup: Dedup,
    clones: Clones,
    found: Mutex<Found>,
    dedup_asize: AtomicU64,
    dedup_blocks: AtomicU64,
    clone_asize: AtomicU64,
    clone_blocks: AtomicU64,
    removing: AtomicU64,
    bytes: AtomicU64,
    blocks: AtomicU64,
    total: u64,
    stopped: AtomicBool,
}

fn note(found: &Mutex<Found>, p: Problem) {
    let mut f = found.lock();
    f.count += 1;
    let kind = match &p {
        Problem::Block { error, .. } => Some(error.kind()),
        Problem::Claim { why: ClaimError::Outside, .. } => Some(ErrorKind::NoDevice),
        Problem::Claim { .. } => Some(ErrorKind::NotFound),
        _ => None,
    };
    if let Some(kind) = kind {
        *f.errors.entry(kind).or_default() += 1;
    }
    if f.problems.len() < MOST_KEPT {
        f.problems.push(p);
    }
}

impl<'a> Walk<'a> {
    /// Loads what is needed before the first block is visited.
    pub fn prepare(
        pool: &'a Pool,
        options: &'a CheckOptions<'a>,
        progress: &'a (dyn Fn(&Progress) -> bool + Sync),
    ) -> Self {
        let found = Mutex::new(Found::default());
        let report = |p: Problem| note(&found, p);
        let table = |what: &'static str, error: Error| note(&found, Problem::Table { what, error });
        let layout = Layout::load(pool.mos(), pool.zio().vdevs(), options.leaks, &report).unwrap_or_else(|e| {
            table("space of the vdevs", e);
            Layout { vdevs: BTreeMap::new(), unflushed: 0, checkpoint: 0 }
        });
        let dedup = Dedup::load(pool.mos()).unwrap_or_else(|e| {
            table("deduplication tables", e);
            Dedup::default()
        });
        let clones = Clones::load(pool.mos(), layout.vdevs.keys().copied()).unwrap_or_else(|e| {
            table("clone tables", e);
            Clones::default()
        });
        let threads = match options.threads {
            0 => zfs_env::pool::cpus() * 2,
            n => n,
        };
        let total = layout.classes().values().map(|c| c.alloc).fold(0, u64::saturating_add);
        let stats = SharedStats::new(options.histograms);
        let zero = || AtomicU64::new(0);
        Self {
            pool,
            options,
            layout,
            threads,
            progress,
            stats,
            dedup,
            clones,
            found,
            dedup_asize: zero(),
            dedup_blocks: zero(),
            clone_asize: zero(),
            clone_blocks: zero(),
            removing: zero(),
            bytes: zero(),
            blocks: zero(),
            total,
            stopped: AtomicBool::new(false),
        }
    }

    /// Visits everything.
    pub fn run(self) -> Result<CheckReport> {
        pending::visit(&self);
        self.objset(self.pool.mos(), 0)?;
        let mos = self.pool.mos().clone();
        for entry in mos.objects() {
            let (object, dnode) = match entry {
                Ok(v) => v,
                Err(error) => {
                    self.problem(Problem::Table { what: "objects of the pool", error });
                    continue;
                }
            };
            if dnode.bonustype == DmuObjectType::DSL_DATASET {
                self.dataset(object, &dnode)?;
            }
        }
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "checking the pool"));
        }
        self.finish()
    }

    fn dataset(&self, object: u64, dnode: &zfs_phys::dnode::DnodePhys) -> Result<()> {
        let bm = Zbookmark::root(object);
        let phys = match DslDatasetPhys::decode(&dnode.bonus, dnode.endian) {
            Ok(p) => p,
            Err(e) => return self.unreadable(&bm, None, e.into()),
        };
        // An intent log may be younger than the last snapshot although the object set is not.
        if phys.bp.is_hole() {
            return Ok(());
        }
        match Objset::open(self.pool.zio(), &phys.bp, object, None) {
            Ok(os) => {
                if !phys.is_snapshot() {
                    self.intent_log(&os)?;
                }
                self.objset(&os, phys.prev_snap_txg)
            }
            Err(e) => {
                self.count(&phys.bp, row(&phys.bp), Some(&bm))?;
                self.unreadable(&bm, Some(&phys.bp), e)
            }
        }
    }

    fn objset(&self, os: &Objset, min_txg: u64) -> Result<()> {
        let options = Options { min_txg, threads: self.threads, zil: false, prefetch: false };
        let visit = |v: &Visit<'_>| self.visit(&v.bookmark, v.bp, v.dnode);
        traverse(os, &options, &visit, &|bm, e| self.below_unreadable(bm, e)).map(drop)
    }

    fn visit(&self, bm: &Zbookmark, bp: &BlkPtr, dnode: Option<&zfs_phys::dnode::DnodePhys>) -> Result<()> {
        if let Some(f) = self.options.on_block {
            f(Some(bm), bp, dnode);
        }
        if bp.is_hole() || bp.is_redacted() {
            return Ok(());
        }
        self.count(bp, row(bp), Some(bm))?;
        let wanted = match self.options.verify {
            Verify::Nothing => false,
            Verify::Metadata => bp.is_metadata(),
            Verify::Everything => true,
        };
        if !wanted || bp.is_embedded() {
            return Ok(());
        }
        match self.pool.zio().verify(bp, bm, true) {
            Err(e) if bm.level != Zbookmark::ZIL_LEVEL => self.unreadable(bm, Some(bp), e),
            _ => Ok(()),
        }
    }

    /// Notes a block that could not be read on the way to those below it, unless verifying it has done so.
    fn below_unreadable(&self, bm: &Zbookmark, e: Error) -> Result<()> {
        let told = self.options.verify != Verify::Nothing
            && matches!(e.kind(), ErrorKind::Io | ErrorKind::Checksum | ErrorKind::NoDevice);
        if told { Ok(()) } else { self.unreadable(bm, None, e) }
    }

    /// Notes a block that cannot be read.
    pub(super) fn unreadable(&self, bm: &Zbookmark, bp: Option<&BlkPtr>, error: Error) -> Result<()> {
        self.problem(Problem::Block { bookmark: *bm, bp: bp.map(|b| Box::new(*b)), error });
        Ok(())
    }

    /// Notes a problem.
    pub(super) fn problem(&self, p: Problem) {
        note(&self.found, p);
    }

    pub(super) fn add_removing(&self, bytes: u64) {
        self.removing.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a block that is to be freed.
    pub(super) fn pending(&self, bp: &BlkPtr) -> Result<()> {
        if let Some(f) = self.options.on_block {
            f(None, bp, None);
        }
        self.count(bp, pending::ROW, None)
    }

    /// Counts a block and claims its space, unless an earlier reference has.
    fn count(&self, bp: &BlkPtr, kind: usize, bm: Option<&Zbookmark>) -> Result<()> {
        self.tick(bp.asize())?;
        let mut bp = *bp;
        let mut claimed = false;
        if bp.is_dedup() {
            match self.dedup.reference(&bp) {
                Shared::Claims(full) => bp = full,
                Shared::Again(full) => {
                    bp = full;
                    self.dedup_asize.fetch_add(bp.asize(), Ordering::Relaxed);
                    self.dedup_blocks.fetch_add(1, Ordering::Relaxed);
                    claimed = true;
                }
            }
        }
        if !claimed && !bp.is_embedded() && self.clones.reference(&bp) {
            self.clone_asize.fetch_add(bp.asize(), Ordering::Relaxed);
            self.clone_blocks.fetch_add(1, Ordering::Relaxed);
            claimed = true;
        }
        self.stats.with(|s| s.count(&bp, kind, |v, a, b| self.layout.same_metaslab(v, a, b)));
        if !claimed && self.options.leaks {
            self.claim(&bp, bm, 0);
        }
        Ok(())
    }

    fn tick(&self, bytes: u64) -> Result<()> {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        if self.blocks.fetch_add(1, Ordering::Relaxed).is_multiple_of(TICK)
            && !(self.progress)(&Progress { bytes, total: self.total })
        {
            self.stopped.store(true, Ordering::Relaxed);
        }
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "checking the pool"));
        }
        Ok(())
    }

    fn claim(&self, bp: &BlkPtr, bm: Option<&Zbookmark>, depth: usize) {
        for d in bp.dvas() {
            let size = if d.is_gang() {
                self.pool.zio().vdevs().top(d.vdev()).map_or(GANG_HEADER, |v| v.psize_to_asize(GANG_HEADER, 0))
            } else {
                d.asize()
            };
            if let Err((why, segment)) = self.layout.claim(d.vdev(), d.offset(), size) {
                let bp = Box::new(*bp);
                self.problem(Problem::Claim { bookmark: bm.copied(), bp, segment, why });
            }
        }
        if !bp.is_gang() {
            return;
        }
        let place = bm.copied().unwrap_or_default();
        let members = match self.pool.zio().gang_pieces(bp, &place) {
            Ok(m) if depth < MAX_GANG_DEPTH => m,
            Ok(_) => {
                let error = Error::corrupt("gang blocks nested too deeply");
                return self.problem(Problem::Block { bookmark: place, bp: Some(Box::new(*bp)), error });
            }
            Err(error) => return self.problem(Problem::Block { bookmark: place, bp: Some(Box::new(*bp)), error }),
        };
        members.iter().filter(|m| !m.is_hole()).for_each(|m| self.claim(m, bm, depth + 1));
    }

    /// Reads a block of an intent log: as stored when it is encrypted, whose framing and pointers stay readable.
    fn log_block(&self, bp: &BlkPtr, bm: &Zbookmark) -> Result<Buf> {
        if bp.is_encrypted() && bp.compress() == Some(CompressKind::Off) {
            return self.pool.zio().read_raw(bp, bm);
        }
        self.pool.zio().read_speculative(bp, bm, None)
    }

    /// The blocks of an intent log and those its records point to, as far as they are allocated: of an unclaimed log
    /// only what was allocated before the root was written.
    fn intent_log(&self, os: &Objset) -> Result<()> {
        let header = &os.phys().zil_header;
        let ub = self.pool.uberblock();
        let base = if ub.checkpoint_txg != 0 { ub.checkpoint_txg } else { ub.txg };
        let min_claim = base.saturating_add(1);
        let claimed = header.claim_txg != 0;
        let last_block = if claimed { header.claim_blk_seq } else { u64::MAX };
        let has_record = claimed && header.flags & ZIL_CLAIM_LR_SEQ_VALID != 0;
        let last_record = if has_record { header.claim_lr_seq } else { u64::MAX };
        let seq = |bp: &BlkPtr| bp.checksum().get(ZIL_ZC_SEQ).copied().unwrap_or(0);
        let mut seen = HashSet::new();
        let mut bp = header.log;
        let mut newest = 0;
        while !bp.is_hole() && seq(&bp) <= last_block {
            if (!claimed && bp.birth() >= min_claim) || !seen.insert(bp.dva(0)) {
                break;
            }
            let bm = Zbookmark::new(os.id(), 0, Zbookmark::ZIL_LEVEL, seq(&bp));
            self.visit(&bm, &bp, None)?;
            if claimed && seq(&bp) == last_block && newest == last_record {
                break;
            }
            let Ok(buf) = self.log_block(&bp, &bm) else { break };
            let Ok(block) = ZilBlock::decode(&buf, &bp) else { break };
            for record in block.iter().map_while(std::result::Result::ok).take_while(|r| r.seq <= last_record) {
                newest = record.seq;
                let RecordBody::Write(write) = &record.body else { continue };
                let b = &write.blkptr;
                if record.txtype == 9
                    && claimed
                    && !b.is_hole()
                    && b.birth() >= header.claim_txg
                    && seen.insert(b.dva(0))
                {
                    let blkid = write.offset.checked_div(b.lsize()).unwrap_or(0);
                    self.visit(&Zbookmark::new(os.id(), write.object, Zbookmark::ZIL_LEVEL, blkid), b, None)?;
                }
            }
            bp = block.next;
        }
        Ok(())
    }

    fn finish(self) -> Result<CheckReport> {
        let stats = self.stats.total();
        let mut figures = Figures::of(&self.layout, &stats, self.options.leaks);
        figures.dedup_asize = self.dedup_asize.load(Ordering::Relaxed);
        figures.dedup_blocks = self.dedup_blocks.load(Ordering::Relaxed);
        figures.clone_asize = self.clone_asize.load(Ordering::Relaxed);
        figures.clone_blocks = self.clone_blocks.load(Ordering::Relaxed);
        figures.removing = self.removing.load(Ordering::Relaxed);
        let (mut leaks, mut leaked_bytes) = (Vec::new(), 0u64);
        if self.options.leaks {
            self.clones.left_over(|vdev, offset, refs| self.problem(Problem::CloneLeak { vdev, offset, refs }));
            self.dedup.left_over(|kind, key, phys, refs| {
                let kind = ChecksumKind::from_raw(kind).unwrap_or(ChecksumKind::Off);
                self.problem(Problem::DedupLeak { refs, bp: Box::new(phys.block_pointer(key, kind)) });
            });
            if let Err(error) = pending::obsolete(&self) {
                self.problem(Problem::Table { what: "obsolete counts", error });
            }
            // What is left of a mapping is a part that nothing references any more: no leak.
            for v in self.layout.vdevs.values().filter(|v| !v.is_indirect()) {
                v.space.leaks(|s: Segment| {
                    leaked_bytes = leaked_bytes.saturating_add(s.size);
                    if leaks.len() < MOST_KEPT {
                        leaks.push(s);
                    }
                });
            }
        }
        let f = self.found.into_inner();
        let (mut problems, problem_count, errors) = (f.problems, f.count, f.errors);
        // Threads find them in any order; people compare one check with the next.
        problems.sort_by_key(|p| match p {
            Problem::Block { bookmark, .. } => (1, Some(*bookmark)),
            Problem::Claim { bookmark, .. } => (2, *bookmark),
            _ => (0, None),
        });
        Ok(CheckReport { stats, figures, problems, problem_count, errors, leaks, leaked_bytes })
    }
}

/// The row of the statistics a block is counted in.
fn row(bp: &BlkPtr) -> usize {
    let t = usize::from(bp.object_type().0);
    if t < TYPES_OLD { t } else { TYPE_OTHER }
}
