//! Condensing of livelists: neighbouring lists of a clone that is overwritten again and again are made one that has only
//! what is still alive, so that what a livelist takes is bounded by what its clone has.
//!
//! Life cycle: after every txg of a clone [`DslPool::seek_condense`] looks for neighbours that together have few blocks
//! alive, not the newest list, which grows. [`DslPool::condensing_due`] hands them out as [`Condensing`], which finds
//! out, outside of any sync, what of them is alive; [`DslPool::condense`] replaces them in one sync, with whatever died in
//! them meanwhile. Until that sync nothing is changed, so a crash, or anything that goes wrong before, costs nothing but
//! the work: the lists are found again.
//!
//! Invariants: one row of lists at a time in a pool. What was found out belongs to one livelist, object by object; when that
//! was given up meanwhile it is thrown away, and nobody reads a list when its blocks are freed ([`DslPool::quit_condensing`]).
//!
//! Lock order: a dataset's livelist, then the stage; `reading` is taken with neither held.

use super::livelist::{Livelist, alive};
use super::{DatasetState, DslPool};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::txg::Tx;
use zfs_dmu::{ErrorKind, Result};
use zfs_phys::BlkPtr;
use zfs_zio::Error;

/// Most lists that are made one at once; OpenZFS takes two.
const MOST: usize = 16;

/// A list: key, object and length.
type List = (u64, u64, u64);

/// Neighbouring lists of a livelist, and how long they were when they were chosen.
#[derive(Debug, Clone)]
struct Row {
    dataset: u64,
    /// Stands for the livelist as long as that is open.
    token: Arc<()>,
    /// Two or more, oldest first.
    lists: Vec<List>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Found(Row),
    /// Somebody reads, until that is set.
    Working(Arc<AtomicBool>),
    Ready(Row, Vec<BlkPtr>),
    /// The pool is closed.
    Over,
}

/// How far condensing got.
#[derive(Debug, Default)]
pub(super) struct Condense {
    stage: Mutex<Stage>,
    /// Held while lists are read.
    reading: Mutex<()>,
}

/// Lists to be looked through outside of the sync.
pub struct Condensing {
    pool: Arc<DslPool>,
    row: Row,
    quit: Arc<AtomicBool>,
}

impl Condensing {
    /// Finds out what is alive. Gives whether the next sync has something to replace.
    pub fn run(self) -> bool {
        let Self { pool, row, quit } = self;
        let reading = pool.condense.reading.lock();
        let found = pool.alive_of(&row, &quit);
        drop(reading);
        let mut stage = pool.condense.stage.lock();
        if !matches!(&*stage, Stage::Working(of) if Arc::ptr_eq(of, &quit)) {
            return false;
        }
        *stage = match found {
            Ok(keep) => Stage::Ready(row, keep),
            Err(error) => {
                tracing::debug!(%error, "a livelist is not condensed now");
                Stage::Idle
            }
        };
        matches!(*stage, Stage::Ready(..))
    }
}

impl DslPool {
    /// What was born in those lists and did not die there, as far as they went when they were chosen.
    fn alive_of(&self, row: &Row, quit: &AtomicBool) -> Result<Vec<BlkPtr>> {
        let go_on = || match quit.load(Relaxed) {
            true => Err(Error::new(ErrorKind::Interrupted, "condensing a livelist")),
            false => Ok(()),
        };
        let mut keep = Vec::new();
        for &(_, object, length) in &row.lists {
            go_on()?;
            alive(&Bpobj::open(&self.mos, object)?, length, &mut keep, &go_on)?;
        }
        Ok(keep)
    }

    /// Looks for lists of a clone that are worth being made one.
    pub(super) fn seek_condense(&self, ds: &DatasetState, live: &mut Livelist) -> Result<()> {
        let mut stage = self.condense.stage.lock();
        if !matches!(*stage, Stage::Idle) {
            return Ok(());
        }
        let most = self.livelist.entries.load(Relaxed);
        let (mut row, mut alive): (Vec<List>, u64) = (Vec::new(), 0);
        // The newest is still being written to.
        let mut lists = live.list.lists(self)?;
        lists.pop();
        for (key, object) in lists {
            let p = *Bpobj::open(&self.mos, object)?.phys();
            let living = p.num_blkptrs.saturating_sub(p.num_freed.saturating_mul(2));
            if alive.saturating_add(living) >= most || row.len() == MOST {
                if row.len() > 1 {
                    break;
                }
                (row, alive) = (Vec::new(), 0);
            }
            row.push((key, object, p.num_blkptrs));
            alive = alive.saturating_add(living);
        }
        if row.len() > 1 {
            *stage = Stage::Found(Row { dataset: ds.object, token: live.token.clone(), lists: row });
        }
        Ok(())
    }

    /// Work that condensing has for a thread of its own, once; the sync after it is to run [`Self::condense`].
    pub fn condensing_due(&self) -> Option<Condensing> {
        let pool = self.me.upgrade()?;
        let mut stage = self.condense.stage.lock();
        match std::mem::take(&mut *stage) {
            Stage::Found(row) => {
                let quit = Arc::new(AtomicBool::new(false));
                *stage = Stage::Working(quit.clone());
                Some(Condensing { pool, row, quit })
            }
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Replaces lists by what is alive of them. Once in a txg, in its first pass.
    ///
    /// # Errors
    /// Whatever reading and changing the lists meets.
    pub fn condense(&self, tx: &Tx) -> Result<()> {
        let (row, keep) = {
            let mut stage = self.condense.stage.lock();
            match std::mem::take(&mut *stage) {
                Stage::Ready(row, keep) => (row, keep),
                other => {
                    *stage = other;
                    return Ok(());
                }
            }
        };
        let ds = self.dataset(row.dataset)?;
        let mut slot = ds.livelist.lock();
        let Some(live) = slot.as_mut().filter(|live| Arc::ptr_eq(&live.token, &row.token)) else { return Ok(()) };
        let (mut born, mut died) = (keep, Vec::new());
        for &(_, object, length) in &row.lists {
            // What came after they were chosen.
            Bpobj::open(&self.mos, object)?.iterate_part(length..u64::MAX, |bp, freed| {
                if freed {
                    died.push(*bp)
                } else {
                    born.push(*bp)
                }
                Ok(())
            })?;
        }
        row.lists.iter().try_for_each(|(key, ..)| live.list.drop_key(self, tx, *key))?;
        let Some((first, ..)) = row.lists.first() else { return Ok(()) };
        live.list.add_key(self, tx, *first)?;
        live.list.insert_marked(self, tx, &born, false)?;
        live.list.insert_marked(self, tx, &died, true)?;
        self.seek_condense(&ds, live)
    }

    /// Nobody reads the lists of that livelist any more once this returns.
    pub(super) fn quit_condensing(&self, live: &Livelist) {
        let is_it = |row: &Row| Arc::ptr_eq(&row.token, &live.token);
        let mut stage = self.condense.stage.lock();
        match &*stage {
            Stage::Found(row) | Stage::Ready(row, _) if is_it(row) => *stage = Stage::Idle,
            Stage::Working(quit) => {
                // Whosever lists are looked through: they are found again.
                quit.store(true, Relaxed);
                *stage = Stage::Idle;
            }
            _ => {}
        }
        drop(stage);
        drop(self.condense.reading.lock());
    }

    /// Ends what [`Condensing::run`] does, and begins nothing any more, since the pool is closed.
    pub fn end_condensing(&self) {
        let mut stage = self.condense.stage.lock();
        if let Stage::Working(quit) = &*stage {
            quit.store(true, Relaxed);
        }
        *stage = Stage::Over;
    }
}
