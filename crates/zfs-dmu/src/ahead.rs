//! Blocks written before the txg they belong to is: an intent log that has to make a large write durable writes its
//! blocks to where they will stay, and holds pointers instead of data (`dmu_sync`, module/zfs/dmu.c).
//!
//! Invariants: the pointer is kept beside the changed block and used by the sync of its txg instead of writing again; a
//! block that is changed after all is written anew, and the first place is freed by that same sync. Only the open txg,
//! held by the caller, has its blocks written ahead: its sync cannot have begun.

use crate::dnode::Dnode;
use crate::owner::BlockKind;
use crate::txg::Tx;
use zfs_phys::BlkPtr;
use zfs_zio::Result;

impl Dnode {
    /// Writes a block that was changed in the txg of `tx`. Gives its pointer, or nothing when the block was not changed
    /// in it, or needs no place of its own; durable after the next flush. Second comes a block that the caller has to
    /// free with that txg: the contents changed while it was written.
    pub(crate) fn write_ahead(&self, tx: &Tx, blkid: u64) -> Result<(Option<BlkPtr>, Option<BlkPtr>)> {
        let live = self.writable()?;
        let txg = tx.txg();
        let Some((buf, done)) = live.with_block(txg, blkid, |block| (block.buf.clone(), block.ahead)) else {
            return Ok((None, None));
        };
        if done.is_some() {
            return Ok((done, None));
        }
        let phys = self.phys();
        let kind = BlockKind {
            object: self.object(),
            object_type: phys.object_type,
            level: 0,
            spill: false,
            checksum: phys.checksum,
            compress: phys.compress,
            lsize: buf.len() as u64,
        };
        let bm = self.ctx.bookmark(self.object(), 0, blkid);
        let mut bp = self.ctx.zio.write(txg, &buf, &live.shared.owner.write_props(&kind), &bm, None, 1)?;
        if bp.is_hole() || bp.is_embedded() {
            return Ok((None, None));
        }
        bp.set_fill(1);
        let kept = live.with_block(txg, blkid, |block| {
            let same = block.ahead.is_none() && block.buf.as_ptr() == buf.as_ptr();
            if same {
                block.ahead = Some(bp);
            }
            same
        });
        Ok((Some(bp), (kept != Some(true)).then_some(bp)))
    }
}
