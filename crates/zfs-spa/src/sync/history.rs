//! Appending to the pool's history: a ring whose first record, of the pool's creation, is kept for ever.

use super::ops::Ops;
use crate::config::POOL_DIRECTORY;
use zfs_dmu::txg::Tx;
use zfs_dmu::{Dnode, Error, ObjectSpec, Result, Zap};
use zfs_env::host;
use zfs_phys::enums::DmuObjectType as Ot;
use zfs_phys::history::{HistoryPhys, encode_record};
use zfs_phys::read::Endian;
use zfs_phys::{NvList, read::u64_at};

/// Block size of the ring.
const BLOCK: u32 = 128 << 10;
/// Smallest and largest ring; in between it is a hundredth of the pool.
const RING: (u64, u64) = (128 << 10, 1 << 30);

/// What is said of versions when a pool is made or opened.
pub(super) fn versions(pool: u64) -> String {
    use std::env::consts::{ARCH, OS};
    let software = concat!("uzfs-", env!("CARGO_PKG_VERSION"));
    format!("pool version {pool}; software version {software}; uts {} {OS} {ARCH}", host::hostname())
}

impl Ops {
    /// Makes the history object of a new pool with `dspace` usable bytes. Gives its number.
    pub(super) fn create_history(&self, tx: &Tx, dspace: u64) -> Result<u64> {
        let mos = self.mos()?;
        let spec = ObjectSpec {
            object_type: Ot::SPA_HISTORY,
            block_size: BLOCK,
            bonus_type: Ot::SPA_HISTORY_OFFSETS,
            bonus_len: 40,
            ..ObjectSpec::default()
        };
        let dnode = mos.allocate(tx, &spec)?;
        let phys_max_off = (dspace / 100).clamp(RING.0, RING.1);
        let phys = HistoryPhys { pool_create_len: 0, phys_max_off, bof: 0, eof: 0, records_lost: 0 };
        dnode.set_bonus(tx, Ot::SPA_HISTORY_OFFSETS, &phys.encode(Endian::NATIVE))?;
        Zap::open(&mos, POOL_DIRECTORY)?.update(tx, b"history", &[dnode.object()])?;
        Ok(dnode.object())
    }

    /// Appends a record, with time and host added.
    pub(super) fn append_history(&self, tx: &Tx, mut record: NvList) -> Result<()> {
        let _one = self.history.lock();
        record.put("history time", self.seconds());
        record.put("history hostname", host::hostname());
        if let Some(hear) = self.heard.get() {
            hear(&record);
        }
        let mos = self.mos()?;
        let Some(object) = Zap::open(&mos, POOL_DIRECTORY)?.lookup_u64(b"history")? else { return Ok(()) };
        let dnode = mos.dnode(object)?;
        let mut phys = HistoryPhys::decode(&dnode.bonus()?, dnode.phys().endian)?;
        let bytes = encode_record(&record);
        let len = bytes.len() as u64;
        let ring = phys.phys_max_off.saturating_sub(phys.pool_create_len);
        if len >= ring {
            return Ok(());
        }
        while ring.saturating_sub(phys.eof.saturating_sub(phys.bof)) <= len {
            drop_oldest(&dnode, &mut phys)?;
        }
        let at = phys.physical(phys.eof);
        let first = len.min(phys.phys_max_off.saturating_sub(at)) as usize;
        let (head, tail) = bytes.split_at(first);
        dnode.write_at(tx, at, head)?;
        if !tail.is_empty() {
            dnode.write_at(tx, phys.pool_create_len, tail)?;
        }
        phys.eof += len;
        if phys.pool_create_len == 0 {
            (phys.pool_create_len, phys.bof) = (phys.eof, phys.eof);
        }
        dnode.set_bonus(tx, Ot::SPA_HISTORY_OFFSETS, &phys.encode(Endian::NATIVE))
    }
}

/// Makes room by forgetting the oldest record.
fn drop_oldest(dnode: &Dnode, phys: &mut HistoryPhys) -> Result<()> {
    let mut word = [0u8; 8];
    for (byte, at) in word.iter_mut().zip(phys.bof..) {
        let mut one = [0u8];
        dnode.read_at(phys.physical(at), &mut one)?;
        *byte = one[0];
    }
    let len = u64_at(&word, 0, Endian::Little).unwrap_or(0).saturating_add(8);
    let end = phys.bof.saturating_add(len);
    if end > phys.eof {
        return Err(Error::corrupt("a record of the history that is longer than all of it"));
    }
    phys.bof = end;
    phys.records_lost += 1;
    Ok(())
}
