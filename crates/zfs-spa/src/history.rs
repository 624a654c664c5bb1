//! The pool's history: every command and every change, oldest first.

use crate::pool::Pool;
use zfs_dmu::{Dnode, Error, Result};
use zfs_phys::NvList;
use zfs_phys::history::{HistoryPhys, records};
use zfs_phys::read::{Endian, u64_at};

/// Largest ring accepted; OpenZFS makes at most 1 GiB.
const MAX_RING: u64 = 1 << 30;
/// Bytes read at once.
const PIECE: u64 = 1 << 20;
/// Largest record accepted; OpenZFS cuts arguments of ioctls off far below.
const MAX_RECORD: u64 = 16 << 20;

/// The history of a pool.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Records, oldest first. Names of values are OpenZFS's: `history command`, `history time`, `history internal str`,
    /// `history txg` and so on.
    pub records: Vec<NvList>,
    /// Records that were overwritten.
    pub lost: u64,
}

impl Pool {
    /// Reads the history.
    pub fn history(&self) -> Result<History> {
        let Some(object) = self.directory().lookup_u64(b"history")? else { return Ok(History::default()) };
        let dnode = self.mos().dnode(object)?;
        let phys = HistoryPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
        let len = phys.eof.checked_sub(phys.bof).filter(|l| *l <= MAX_RING && phys.phys_max_off <= MAX_RING);
        let len = len.ok_or_else(|| Error::corrupt("history"))?;
        let mut all = Vec::new();
        if phys.bof >= phys.pool_create_len {
            // The records of the pool's creation outlive the ring, which starts behind them.
            read_records(&dnode, &phys, 0, phys.pool_create_len, &mut all)?;
        }
        read_records(&dnode, &phys, phys.bof, len, &mut all)?;
        Ok(History { records: all, lost: phys.records_lost })
    }
}

/// Reads the records in `len` bytes at the logical offset `from`, a piece at a time: the length that is recorded may
/// be far more than what is there.
fn read_records(dnode: &Dnode, phys: &HistoryPhys, from: u64, len: u64, out: &mut Vec<NvList>) -> Result<()> {
    let (mut at, end) = (from, from.saturating_add(len));
    let mut pending: Vec<u8> = Vec::new();
    while at < end {
        let place = phys.physical(at);
        // Up to the end of the ring, or of the part in front of it that is kept.
        let edge = if place < phys.pool_create_len { phys.pool_create_len } else { phys.phys_max_off };
        let n = (end - at).min(edge.saturating_sub(place)).clamp(1, PIECE);
        pending.extend(dnode.read_vec(place, n as usize)?);
        at += n;
        let used = whole_records(&pending);
        out.extend(records(pending.get(..used).unwrap_or_default()));
        pending.drain(..used);
        if u64_at(&pending, 0, Endian::Little).is_some_and(|next| next == 0 || next > MAX_RECORD) {
            break;
        }
    }
    Ok(())
}

/// Bytes of the whole records that `buf` starts with.
fn whole_records(buf: &[u8]) -> usize {
    let mut used = 0usize;
    while let Some(len) = u64_at(buf, used, Endian::Little).filter(|l| (1..=MAX_RECORD).contains(l)) {
        let next = used.saturating_add(8).saturating_add(len as usize);
        if next > buf.len() {
            break;
        }
        used = next;
    }
    used
}
