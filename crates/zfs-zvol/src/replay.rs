//! Doing again what the intent log of a volume says (`zvol_replay_vector`, module/zfs/zvol.c).

use crate::DATA_OBJ;
use std::sync::Arc;
use zfs_dmu::Objset;
use zfs_dmu::txg::Txgs;
use zfs_dmu::zil::Zil;
use zfs_phys::zil::{RecordBody, Write, tx_name};
use zfs_zio::{Error, Result};

/// Replays the log of a volume that an import claimed; gives how many records it had. Returns when everything is on disk
/// and the log is gone.
///
/// # Errors
/// `Unsupported` for records that are no volume's, or clones; what writing meets. The log stays then.
pub fn replay(objset: &Arc<Objset>, txgs: &Arc<Txgs>, guid: [u64; 2]) -> Result<u64> {
    let log = Zil::open(objset, txgs, guid)?;
    let data = objset.dnode(DATA_OBJ)?;
    let summary = log.replay(&mut |record, mark| {
        let tx = txgs.assign()?;
        match &record.body {
            RecordBody::Write(w) => {
                let (at, bytes) = place(w)?;
                data.write_at(&tx, at, bytes)?;
            }
            RecordBody::Truncate { offset, length, .. } => data.free_range(&tx, *offset, *length)?,
            _ => return Err(Error::unsupported(format!("replaying {} on a volume", tx_name(record.txtype)))),
        }
        mark(&tx);
        Ok(())
    })?;
    Ok(summary.records)
}

/// Where the bytes of a write belong: those of a block written ahead are the whole block's.
fn place<'a>(w: &Write<'a>) -> Result<(u64, &'a [u8])> {
    let block = w.blkptr.lsize();
    if !w.blkptr.is_hole() && block > 0 && w.length < block {
        return Ok((w.offset - w.offset % block, w.data));
    }
    let bytes = usize::try_from(w.length).ok().and_then(|n| w.data.get(..n));
    Ok((w.offset, bytes.ok_or_else(|| Error::corrupt("a write record that is longer than its data"))?))
}
