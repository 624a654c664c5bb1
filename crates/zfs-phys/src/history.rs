//! The log of commands and changes (module/zfs/spa_history.c): a ring of packed nvlists, each behind its length as a
//! little-endian 64-bit integer. The first `pool_create_len` bytes are never overwritten.

use crate::error::Result;
use crate::nvlist::NvList;
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Events of pools before feature flags, by number (`zfs_history_event_names`).
pub const LEGACY_EVENTS: [&str; 41] = [
    "invalid event",
    "pool create",
    "vdev add",
    "pool remove",
    "pool destroy",
    "pool export",
    "pool import",
    "vdev attach",
    "vdev replace",
    "vdev detach",
    "vdev online",
    "vdev offline",
    "vdev upgrade",
    "pool clear",
    "pool scrub",
    "pool property set",
    "create",
    "clone",
    "destroy",
    "destroy_begin_sync",
    "inherit",
    "property set",
    "quota set",
    "permission update",
    "permission remove",
    "permission who remove",
    "promote",
    "receive",
    "rename",
    "reservation set",
    "replay_inc_sync",
    "replay_full_sync",
    "rollback",
    "snapshot",
    "filesystem version upgrade",
    "refquota set",
    "refreservation set",
    "pool scrub done",
    "user hold",
    "user release",
    "pool split",
];

/// Bonus of the history object (`spa_history_phys_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryPhys {
    /// Bytes at the front that are kept for ever (the record of the pool's creation).
    pub pool_create_len: u64,
    /// Bytes of the whole ring.
    pub phys_max_off: u64,
    /// Logical offset of the oldest record.
    pub bof: u64,
    /// Logical offset behind the newest record.
    pub eof: u64,
    /// Records that were overwritten.
    pub records_lost: u64,
}

impl HistoryPhys {
    /// Decodes the bonus.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "history");
        let [pool_create_len, phys_max_off, bof, eof, records_lost] = r.u64s()?;
        Ok(Self { pool_create_len, phys_max_off, bof, eof, records_lost })
    }

    /// Encodes the bonus (40 bytes).
    pub fn encode(&self, endian: Endian) -> Vec<u8> {
        let mut w = Writer::new(endian, "history", 40);
        w.u64s(&[self.pool_create_len, self.phys_max_off, self.bof, self.eof, self.records_lost]);
        w.finish()
    }

    /// Where in the object a logical offset lies.
    pub fn physical(&self, logical: u64) -> u64 {
        let ring = self.phys_max_off.saturating_sub(self.pool_create_len);
        match logical.checked_sub(self.pool_create_len) {
            Some(over) if ring > 0 => over % ring + self.pool_create_len,
            _ => logical,
        }
    }
}

/// Encodes one record: the length and the list, natively packed.
pub fn encode_record(list: &NvList) -> Vec<u8> {
    let body = list.encode_native(Endian::NATIVE);
    [&(body.len() as u64).to_le_bytes()[..], &body].concat()
}

/// Decodes all records in `buf`; stops at the first that is cut off or broken.
pub fn records(buf: &[u8]) -> Vec<NvList> {
    let mut out = Vec::new();
    let mut r = Reader::new(buf, Endian::Little, "history record");
    while r.remaining() > 8 {
        let Ok(len) = r.u64() else { break };
        let Ok(body) = r.bytes(usize::try_from(len).unwrap_or(usize::MAX)) else { break };
        match NvList::decode(body) {
            Ok(list) => out.push(list),
            Err(_) => break,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvlist::NvValue;

    #[test]
    fn records_one_after_the_other() {
        let mut list = NvList::new();
        list.set("history command", NvValue::String("zpool create".into()));
        let one = list.encode_xdr();
        let mut buf = Vec::new();
        for _ in 0..3 {
            buf.extend((one.len() as u64).to_le_bytes());
            buf.extend(&one);
        }
        assert_eq!(records(&buf), vec![list.clone(), list.clone(), list.clone()]);
        assert_eq!(records(&encode_record(&list)), [list]);
        assert_eq!(records(&buf[..buf.len() - 1]).len(), 2);
    }

    #[test]
    fn offsets_wrap_behind_the_creation_record() {
        let h = HistoryPhys { pool_create_len: 100, phys_max_off: 1100, ..Default::default() };
        assert_eq!((h.physical(50), h.physical(1099), h.physical(1100), h.physical(2150)), (50, 1099, 100, 150));
        assert_eq!(HistoryPhys::default().physical(7), 7);
        assert_eq!(HistoryPhys::decode(&h.encode(Endian::Big), Endian::Big).unwrap(), h);
    }
}
