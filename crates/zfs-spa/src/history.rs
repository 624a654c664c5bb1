//! The pool's history: every command and every change, oldest first.

use crate::pool::Pool;
use zfs_dmu::{Error, Result};
use zfs_phys::NvList;
use zfs_phys::history::{HistoryPhys, records};

/// Largest ring accepted; OpenZFS makes at most 1 GiB.
const MAX_RING: u64 = 1 << 30;

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
        let phys = HistoryPhys::decode(dnode.bonus()?, dnode.phys().endian)?;
        let len = phys.eof.checked_sub(phys.bof).filter(|l| *l <= MAX_RING && phys.phys_max_off <= MAX_RING);
        let len = len.ok_or_else(|| Error::corrupt("history"))?;
        let read = |from: u64, len: u64| -> Result<Vec<u8>> {
            let mut out = Vec::new();
            let (mut at, end) = (from, from + len);
            while at < end {
                let place = phys.physical(at);
                // Up to the end of the ring, or of the part in front of it that is kept.
                let edge = if place < phys.pool_create_len { phys.pool_create_len } else { phys.phys_max_off };
                let n = (end - at).min(edge.saturating_sub(place)).max(1);
                out.extend(dnode.read_vec(place, n as usize)?);
                at += n;
            }
            Ok(out)
        };
        let mut all = Vec::new();
        if phys.bof >= phys.pool_create_len {
            // The records of the pool's creation outlive the ring, which starts behind them.
            all = records(&read(0, phys.pool_create_len)?);
        }
        all.extend(records(&read(phys.bof, len)?));
        Ok(History { records: all, lost: phys.records_lost })
    }
}
