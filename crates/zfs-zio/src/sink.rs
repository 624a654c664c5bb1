//! What went wrong while reading, kept within bounds: blocks lost, and damage that a writable pool would repair.
//!
//! Both lists are bounded; what does not fit is counted. Lock order: each list has a leaf lock of its own.

use crate::bookmark::Zbookmark;
use crate::error::ErrorKind;
use crate::vdev::Damage;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const MOST_LOST: usize = 65_536;
const MOST_DAMAGE: usize = 16_384;

/// A block that could not be read.
#[derive(Debug, Clone, Copy)]
struct Lost {
    kind: ErrorKind,
    /// Txg it was written in.
    birth: u64,
    /// Whether the pool's error log has it.
    stored: bool,
    /// Scrub that met it last, as a number that grows.
    scrub: u64,
}

/// Errors of one opened pool.
#[derive(Debug, Default)]
pub struct ErrorSink {
    lost: Mutex<BTreeMap<Zbookmark, Lost>>,
    /// Scrubs begun so far.
    scrubs: AtomicU64,
    damage: Mutex<VecDeque<(Zbookmark, Damage)>>,
    left_out: AtomicU64,
    damage_seen: AtomicU64,
    listener: Listener,
}

type OnDamage = Box<dyn Fn(&Zbookmark, &Damage) + Send + Sync>;

/// Who is told of damage.
#[derive(Default)]
struct Listener(OnceLock<OnDamage>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({})", self.0.get().is_some())
    }
}

impl ErrorSink {
    /// Notes a block, written in `birth`, that no copy could give.
    pub fn unreadable(&self, bm: &Zbookmark, birth: u64, kind: ErrorKind) {
        let scrub = self.scrubs.load(Ordering::Relaxed);
        let mut lost = self.lost.lock();
        if let Some(known) = lost.get_mut(bm) {
            // What a scrub meets again goes to the log of that scrub.
            known.stored &= known.scrub == scrub && known.birth == birth;
            (known.kind, known.birth, known.scrub) = (kind, birth, scrub);
        } else if lost.len() < MOST_LOST {
            lost.insert(*bm, Lost { kind, birth, stored: false, scrub });
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Blocks that the pool's error log lacks, with the txgs they were written in; from now on they count as stored.
    pub fn take_unstored(&self) -> Vec<(Zbookmark, u64)> {
        let mut lost = self.lost.lock();
        let fresh = lost.iter_mut().filter_map(|(bm, l)| {
            let stored = std::mem::replace(&mut l.stored, true);
            (!stored).then_some((*bm, l.birth))
        });
        fresh.collect()
    }

    /// A scrub begins.
    pub fn scrub_begins(&self) {
        self.scrubs.fetch_add(1, Ordering::Relaxed);
    }

    /// A scrub has visited everything: what it did not meet is not lost any more.
    pub fn scrub_ended(&self) {
        let scrub = self.scrubs.load(Ordering::Relaxed);
        self.lost.lock().retain(|_, l| l.scrub == scrub);
    }

    /// Has damage told as it is found; the first who asks is heard. What is found is told by the thread that reads.
    pub fn on_damage(&self, listener: impl Fn(&Zbookmark, &Damage) + Send + Sync + 'static) {
        let _ = self.listener.0.set(Box::new(listener));
    }

    /// Notes damage found in a block; old entries make room for new ones.
    pub fn damaged(&self, bm: &Zbookmark, found: &[Damage]) {
        if found.is_empty() {
            return;
        }
        self.damage_seen.fetch_add(found.len() as u64, Ordering::Relaxed);
        if let Some(tell) = self.listener.0.get() {
            found.iter().for_each(|d| tell(bm, d));
        }
        let mut damage = self.damage.lock();
        for d in found {
            if damage.len() >= MOST_DAMAGE {
                damage.pop_front();
            }
            damage.push_back((*bm, *d));
        }
    }

    /// Blocks that could not be read, in order of bookmark.
    pub fn lost(&self) -> Vec<(Zbookmark, ErrorKind)> {
        self.lost.lock().iter().map(|(b, l)| (*b, l.kind)).collect()
    }

    /// Damage found most recently.
    pub fn damage(&self) -> Vec<(Zbookmark, Damage)> {
        self.damage.lock().iter().copied().collect()
    }

    /// Pieces of damage found so far.
    pub fn damage_count(&self) -> u64 {
        self.damage_seen.load(Ordering::Relaxed)
    }

    /// Lost blocks that found no room in the list.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Forgets everything (`zpool clear`).
    pub fn clear(&self) {
        self.lost.lock().clear();
        self.damage.lock().clear();
        self.left_out.store(0, Ordering::Relaxed);
        self.damage_seen.store(0, Ordering::Relaxed);
    }
}
