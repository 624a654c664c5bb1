//! Visits every block pointer of an object set, on all cores, with bounded memory.
//!
//! The walk is a stack of subtrees that threads take from and push to. Taking the newest first makes it go depth
//! first, so the stack holds at most the siblings along one path for each thread, whatever the size of the object
//! set. Pointers to data, which have nothing below, are handed out in small batches so that a visitor that reads the
//! blocks has work for every thread even when there is one file.
//!
//! The order of visits is unspecified. Holes are not visited. Blocks born at or before `min_txg`, and everything below
//! them, are skipped: nothing below can be younger.
//!
//! Lock order: the stack's lock is a leaf; it is not held while a block is read or the visitor runs.

use crate::dnode::SPILL_BLKID;
use crate::objset::{META_DNODE_OBJECT, Objset, slots};
use crate::zil;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zfs_phys::blkptr::BLKPTR_SIZE;
use zfs_phys::dnode::{DNODE_SIZE, DnodePhys};
use zfs_phys::zil::RecordBody;
use zfs_phys::{BlkPtr, Endian};
use zfs_zio::{Buf, Error, Result, Zbookmark};

/// Pointers to data handed to a thread at once.
const BATCH: usize = 32;
/// Subtrees fetched ahead when they are pushed.
const AHEAD: usize = 32;

/// How to walk.
#[derive(Debug, Clone)]
pub struct Options {
    /// Visit only blocks born after this txg.
    pub min_txg: u64,
    /// Threads; at least one.
    pub threads: usize,
    /// Visit the blocks of the intent log and those its records point to.
    pub zil: bool,
    /// Fetch indirect blocks and dnodes ahead; worth it on devices that wait.
    pub prefetch: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { min_txg: 0, threads: zfs_env::pool::cpus(), zil: true, prefetch: false }
    }
}

/// A block pointer met on the walk.
pub struct Visit<'a> {
    /// Name of the block.
    pub bookmark: Zbookmark,
    /// The pointer.
    pub bp: &'a BlkPtr,
    /// The object it belongs to; nothing for the header of the object set and the intent log.
    pub dnode: Option<&'a DnodePhys>,
}

/// What a walk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Pointers visited.
    pub blocks: u64,
    /// Objects met, besides the dnode array itself.
    pub objects: u64,
    /// Blocks that could not be read or decoded; what is below them was not visited.
    pub errors: u64,
}

/// The object a subtree belongs to.
struct Owner {
    object: u64,
    phys: DnodePhys,
}

enum Task {
    /// One pointer that has something below it.
    Tree { owner: Arc<Owner>, level: u8, blkid: u64, bp: BlkPtr },
    /// Pointers to data, `from..to` of an indirect block whose first is block `first` of the object.
    Leaves { owner: Arc<Owner>, buf: Buf, endian: Endian, first: u64, from: usize, to: usize },
}

struct Stack {
    tasks: Vec<Task>,
    running: usize,
    stop: Option<Error>,
}

struct Walk<'a> {
    objset: &'a Objset,
    options: &'a Options,
    visit: &'a (dyn Fn(&Visit<'_>) -> Result<()> + Sync),
    on_error: &'a (dyn Fn(&Zbookmark, Error) -> Result<()> + Sync),
    stack: Mutex<Stack>,
    changed: Condvar,
    blocks: AtomicU64,
    objects: AtomicU64,
    errors: AtomicU64,
    /// Blocks read so far, against `Ctx::block_limit`.
    reads: AtomicU64,
}

/// Walks `objset`. `visit` is called for every pointer, from many threads; `on_error` for every block that had to be
/// read and could not be. An error that either returns ends the walk and is returned.
pub fn traverse(
    objset: &Objset,
    options: &Options,
    visit: &(dyn Fn(&Visit<'_>) -> Result<()> + Sync),
    on_error: &(dyn Fn(&Zbookmark, Error) -> Result<()> + Sync),
) -> Result<Summary> {
    let walk = Walk {
        objset,
        options,
        visit,
        on_error,
        stack: Mutex::new(Stack { tasks: Vec::new(), running: 0, stop: None }),
        changed: Condvar::new(),
        blocks: AtomicU64::new(0),
        objects: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        reads: AtomicU64::new(0),
    };
    walk.start()?;
    zfs_env::pool::run_scoped("traverse", options.threads, |_| walk.work());
    let Walk { stack, blocks, objects, errors, .. } = walk;
    match stack.into_inner().stop {
        Some(e) => Err(e),
        None => Ok(Summary { blocks: blocks.into_inner(), objects: objects.into_inner(), errors: errors.into_inner() }),
    }
}

impl Walk<'_> {
    /// Visits what hangs on the header itself and fills the stack.
    fn start(&self) -> Result<()> {
        let root = self.objset.root_bp();
        if !self.is_wanted(&root) {
            return Ok(());
        }
        self.visit(&Zbookmark::root(self.objset.id()), &root, None)?;
        if self.options.zil {
            self.intent_log()?;
        }
        let mut tasks = Vec::new();
        for (object, phys) in self.objset.accounting_dnodes() {
            self.object(object, phys, &mut tasks)?;
        }
        self.object(META_DNODE_OBJECT, self.objset.phys().meta_dnode.clone(), &mut tasks)?;
        self.stack.lock().tasks = tasks;
        Ok(())
    }

    fn is_wanted(&self, bp: &BlkPtr) -> bool {
        !bp.is_hole() && bp.birth() > self.options.min_txg
    }

    fn visit(&self, bookmark: &Zbookmark, bp: &BlkPtr, dnode: Option<&DnodePhys>) -> Result<()> {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        (self.visit)(&Visit { bookmark: *bookmark, bp, dnode })
    }

    fn fail(&self, bookmark: &Zbookmark, e: Error) -> Result<()> {
        self.errors.fetch_add(1, Ordering::Relaxed);
        (self.on_error)(bookmark, e)
    }

    fn bookmark(&self, object: u64, level: u8, blkid: u64) -> Zbookmark {
        self.objset.ctx.bookmark(object, level, blkid)
    }

    fn intent_log(&self) -> Result<()> {
        let claim_txg = self.objset.phys().zil_header.claim_txg;
        let on_block = |bp: &BlkPtr, bm: &Zbookmark| self.visit(bm, bp, None);
        let summary = zil::walk(self.objset, on_block, |record| {
            // Blocks that records point to are allocated for the log only once it was claimed; before that, and
            // when they are older, they belong to the file or are free again.
            for bp in record.blkptrs() {
                let (object, offset) = match &record.body {
                    RecordBody::Write(w) => (w.object, w.offset),
                    _ => continue,
                };
                if claim_txg != 0 && bp.birth() >= claim_txg && self.is_wanted(bp) {
                    let blkid = offset.checked_div(bp.lsize()).unwrap_or(0);
                    let bm = Zbookmark::new(self.objset.id(), object, Zbookmark::ZIL_LEVEL, blkid);
                    self.visit(&bm, bp, None)?;
                }
            }
            Ok(())
        })?;
        match summary.end {
            zil::ZilEnd::Unreadable(e) if claim_txg != 0 => {
                let bm = e.bookmark().unwrap_or(Zbookmark::root(self.objset.id()));
                self.fail(&bm, e)
            }
            _ => Ok(()),
        }
    }

    /// Takes tasks until none is left and nobody can make new ones.
    fn work(&self) {
        let mut pushed = Vec::new();
        let mut stack = self.stack.lock();
        loop {
            if stack.stop.is_some() {
                return;
            }
            let Some(task) = stack.tasks.pop() else {
                if stack.running == 0 {
                    self.changed.notify_all();
                    return;
                }
                self.changed.wait(&mut stack);
                continue;
            };
            stack.running += 1;
            drop(stack);
            let done = self.run(task, &mut pushed);
            if self.options.prefetch {
                self.fetch_ahead(&pushed);
            }
            stack = self.stack.lock();
            stack.running -= 1;
            if let Err(e) = done {
                stack.stop.get_or_insert(e);
            }
            stack.tasks.append(&mut pushed);
            self.changed.notify_all();
        }
    }

    fn fetch_ahead(&self, pushed: &[Task]) {
        for task in pushed.iter().rev().take(AHEAD) {
            if let Task::Tree { owner, level, blkid, bp } = task {
                let bm = self.bookmark(owner.object, *level, *blkid);
                self.objset.zio().prefetch(bp, &bm, self.objset.key());
            }
        }
    }

    fn run(&self, task: Task, pushed: &mut Vec<Task>) -> Result<()> {
        match task {
            Task::Leaves { owner, buf, endian, first, from, to } => {
                let raws = buf.chunks_exact(BLKPTR_SIZE).enumerate().take(to).skip(from);
                for (i, raw) in raws {
                    let bp = BlkPtr::decode(raw, endian)?;
                    if self.is_wanted(&bp) {
                        let bm = self.bookmark(owner.object, 0, first + i as u64);
                        self.visit(&bm, &bp, Some(&owner.phys))?;
                    }
                }
                Ok(())
            }
            Task::Tree { owner, level, blkid, bp } => {
                let bm = self.bookmark(owner.object, level, blkid);
                self.visit(&bm, &bp, Some(&owner.phys))?;
                if self.reads.fetch_add(1, Ordering::Relaxed) > self.objset.ctx.block_limit {
                    return Err(Error::corrupt("a tree of more blocks than the pool can hold").at(&bm));
                }
                match self.objset.ctx.read(&bp, &bm) {
                    Ok(buf) if level == 0 => self.dnodes(&buf, bp.endian(), blkid, pushed),
                    Ok(buf) => self.children(&owner, &buf, bp.endian(), level, blkid, pushed),
                    Err(e) => self.fail(&bm, e),
                }
            }
        }
    }

    /// The pointers of an indirect block.
    fn children(
        &self,
        owner: &Arc<Owner>,
        buf: &Buf,
        endian: Endian,
        level: u8,
        blkid: u64,
        pushed: &mut Vec<Task>,
    ) -> Result<()> {
        let count = buf.len() / BLKPTR_SIZE;
        let first = blkid.saturating_mul(count as u64);
        if level == 1 && owner.object != META_DNODE_OBJECT {
            for from in (0..count).step_by(BATCH).rev() {
                let (owner, buf, to) = (owner.clone(), buf.clone(), (from + BATCH).min(count));
                pushed.push(Task::Leaves { owner, buf, endian, first, from, to });
            }
            return Ok(());
        }
        for (i, raw) in buf.chunks_exact(BLKPTR_SIZE).enumerate().rev() {
            let bp = BlkPtr::decode(raw, endian)?;
            let (level, blkid) = (level - 1, first.saturating_add(i as u64));
            if !self.is_wanted(&bp) {
                continue;
            }
            if bp.level() != level {
                self.fail(
                    &self.bookmark(owner.object, level, blkid),
                    Error::corrupt("block pointer of the wrong level"),
                )?;
                continue;
            }
            pushed.push(Task::Tree { owner: owner.clone(), level, blkid, bp });
        }
        Ok(())
    }

    /// The objects of a block of dnodes.
    fn dnodes(&self, buf: &Buf, endian: Endian, blkid: u64, pushed: &mut Vec<Task>) -> Result<()> {
        let first = blkid.saturating_mul((buf.len() / DNODE_SIZE) as u64);
        for (slot, raw) in slots(buf, 0) {
            let object = first.saturating_add(slot as u64);
            match DnodePhys::decode(raw, endian) {
                Ok(Some(phys)) => self.object(object, phys, pushed)?,
                Ok(None) => {}
                Err(e) => self.fail(&self.bookmark(object, 0, 0), e.into())?,
            }
        }
        Ok(())
    }

    /// The pointers in a dnode.
    fn object(&self, object: u64, phys: DnodePhys, pushed: &mut Vec<Task>) -> Result<()> {
        self.objects.fetch_add(u64::from(object != META_DNODE_OBJECT), Ordering::Relaxed);
        let top = phys.nlevels.saturating_sub(1);
        if let Some(bp) = phys.spill.as_ref().filter(|bp| self.is_wanted(bp)) {
            self.visit(&self.bookmark(object, 0, SPILL_BLKID), bp, Some(&phys))?;
        }
        let has_more_below = top > 0 || object == META_DNODE_OBJECT;
        if !has_more_below {
            for (blkid, bp) in (0u64..).zip(phys.blkptrs()).filter(|(_, bp)| self.is_wanted(bp)) {
                self.visit(&self.bookmark(object, 0, blkid), bp, Some(&phys))?;
            }
            return Ok(());
        }
        let owner = Arc::new(Owner { object, phys });
        for (blkid, bp) in (0u64..).zip(owner.phys.blkptrs()).filter(|(_, bp)| self.is_wanted(bp)) {
            if bp.level() != top && !bp.is_embedded() {
                self.fail(&self.bookmark(object, top, blkid), Error::corrupt("block pointer of the wrong level"))?;
                continue;
            }
            pushed.push(Task::Tree { owner: owner.clone(), level: top, blkid, bp: *bp });
        }
        Ok(())
    }
}
