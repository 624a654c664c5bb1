//! Dnodes: the descriptors of objects (`dnode_phys_t`, include/sys/dnode.h), 1 to 32 slots of 512 bytes.

use crate::blkptr::{BLKPTR_SIZE, BlkPtr};
use crate::enums::DmuObjectType;
use crate::error::Result;
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Bytes of one dnode slot.
pub const DNODE_SIZE: usize = 512;
/// Bytes before the first block pointer.
pub const DNODE_CORE_SIZE: usize = 64;
/// Most slots one dnode may take.
pub const DNODE_MAX_SLOTS: usize = 32;
/// `dn_used` counts bytes rather than sectors.
pub const DNODE_FLAG_USED_BYTES: u8 = 1;
/// The space is counted in the user and group accounting.
pub const DNODE_FLAG_USERUSED_ACCOUNTED: u8 = 2;
/// A spill block pointer ends the last slot.
pub const DNODE_FLAG_SPILL_BLKPTR: u8 = 4;
/// The object is counted in the user and group accounting.
pub const DNODE_FLAG_USEROBJUSED_ACCOUNTED: u8 = 8;
/// Most levels an object can have.
pub const DN_MAX_LEVELS: u8 = 12;

/// A dnode, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnodePhys {
    /// Byte order it was written in; bonus contents share it.
    pub endian: Endian,
    /// Type of the object's data.
    pub object_type: DmuObjectType,
    /// log2 of the indirect block size.
    pub indblkshift: u8,
    /// Levels: 1 when the block pointers address data.
    pub nlevels: u8,
    /// Block pointers in use, 1 to 3.
    pub nblkptr: u8,
    /// Type of the bonus buffer.
    pub bonustype: DmuObjectType,
    /// Checksum kind for new blocks (raw).
    pub checksum: u8,
    /// Compression for new blocks (raw).
    pub compress: u8,
    /// `DNODE_FLAG_*`.
    pub flags: u8,
    /// Data block size in 512-byte sectors.
    pub datablkszsec: u16,
    /// Slots beyond the first.
    pub extra_slots: u8,
    /// Largest block id that was ever allocated.
    pub maxblkid: u64,
    /// Space used: see [`DnodePhys::used_bytes`].
    pub used: u64,
    /// The block pointers (`nblkptr` of them are meaningful).
    pub blkptr: [BlkPtr; 3],
    /// Bonus bytes (`bonuslen` of them).
    pub bonus: Vec<u8>,
    /// The spill block, if any.
    pub spill: Option<BlkPtr>,
}

impl DnodePhys {
    /// Decodes the dnode whose first slot starts `buf`; `buf` must hold all its slots. An unallocated slot gives `None`.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Option<Self>> {
        let mut r = Reader::new(buf, endian, "dnode");
        let object_type = DmuObjectType(r.u8()?);
        if object_type == DmuObjectType::NONE {
            return Ok(None);
        }
        let [indblkshift, nlevels, nblkptr, bonustype, checksum, compress, flags] = r.array()?;
        let (datablkszsec, bonuslen) = (r.u16()?, usize::from(r.u16()?));
        let extra_slots = r.u8()?;
        r.skip(3)?;
        let (maxblkid, used) = (r.u64()?, r.u64()?);
        r.skip(32)?;
        if !(1..=3).contains(&nblkptr) {
            return Err(r.err(format!("{nblkptr} block pointers")));
        }
        if nlevels == 0 || nlevels > DN_MAX_LEVELS {
            return Err(r.err(format!("{nlevels} levels")));
        }
        let plausible = (12..=17).contains(&indblkshift) || (nlevels == 1 && indblkshift < 64);
        if !plausible {
            return Err(r.err(format!("indirect block shift {indblkshift}")));
        }
        let size = (usize::from(extra_slots) + 1) * DNODE_SIZE;
        if usize::from(extra_slots) >= DNODE_MAX_SLOTS || size > buf.len() {
            return Err(r.err(format!("{} slots do not fit their block", usize::from(extra_slots) + 1)));
        }
        let mut blkptr = [BlkPtr::default(); 3];
        for bp in blkptr.iter_mut().take(usize::from(nblkptr)) {
            *bp = BlkPtr::read(&mut r)?;
        }
        let has_spill = flags & DNODE_FLAG_SPILL_BLKPTR != 0;
        let tail = if has_spill { BLKPTR_SIZE } else { 0 };
        let room = size.saturating_sub(r.pos()).saturating_sub(tail);
        if bonuslen > room {
            return Err(r.err(format!("bonus of {bonuslen} bytes in a room of {room}")));
        }
        let bonus = r.bytes(bonuslen)?.to_vec();
        let spill = if has_spill {
            r.seek(size - BLKPTR_SIZE)?;
            Some(BlkPtr::read(&mut r)?)
        } else {
            None
        };
        Ok(Some(Self {
            endian,
            object_type,
            indblkshift,
            nlevels,
            nblkptr,
            bonustype: DmuObjectType(bonustype),
            checksum,
            compress,
            flags,
            datablkszsec,
            extra_slots,
            maxblkid,
            used,
            blkptr,
            bonus,
            spill,
        }))
    }

    /// Encodes the dnode in its own byte order into all its slots. An error when its parts do not fit them: the same
    /// combinations that [`Self::decode`] refuses.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let size = self.slots() * DNODE_SIZE;
        let mut w = Writer::new(self.endian, "dnode", size);
        let bonuslen = u16::try_from(self.bonus.len()).map_err(|_| w.err("bonus of more than 65535 bytes"))?;
        if !(1..=3).contains(&self.nblkptr) || !(1..=DN_MAX_LEVELS).contains(&self.nlevels) {
            return Err(w.err(format!("{} block pointers, {} levels", self.nblkptr, self.nlevels)));
        }
        if (self.flags & DNODE_FLAG_SPILL_BLKPTR != 0) != self.spill.is_some() {
            return Err(w.err("the flag for a spill block does not say whether there is one"));
        }
        w.u8(self.object_type.0).u8(self.indblkshift).u8(self.nlevels).u8(self.nblkptr);
        w.u8(self.bonustype.0).u8(self.checksum).u8(self.compress).u8(self.flags);
        w.u16(self.datablkszsec).u16(bonuslen).u8(self.extra_slots).zeros(3);
        w.u64(self.maxblkid).u64(self.used).zeros(32);
        for bp in self.blkptrs() {
            w.bp(bp);
        }
        w.bytes(&self.bonus);
        match &self.spill {
            Some(bp) => w.pad_to(size - BLKPTR_SIZE)?.bp(bp),
            None => w.pad_to(size)?,
        };
        Ok(w.finish())
    }

    /// Data block size, bytes.
    pub fn datablksz(&self) -> u64 {
        u64::from(self.datablkszsec) << 9
    }

    /// 512-byte slots taken.
    pub fn slots(&self) -> usize {
        usize::from(self.extra_slots) + 1
    }

    /// Space used on disk, bytes.
    pub fn used_bytes(&self) -> u64 {
        if self.flags & DNODE_FLAG_USED_BYTES != 0 { self.used } else { self.used.saturating_mul(512) }
    }

    /// Bytes the bonus may have: what pointers and spill pointer leave of the slots.
    pub fn max_bonus(&self) -> usize {
        let pointers = usize::from(self.nblkptr) + usize::from(self.spill.is_some());
        (self.slots() * DNODE_SIZE).saturating_sub(DNODE_CORE_SIZE + pointers * BLKPTR_SIZE)
    }

    /// The block pointers in use.
    pub fn blkptrs(&self) -> impl Iterator<Item = &BlkPtr> {
        self.blkptr.iter().take(usize::from(self.nblkptr))
    }
}

/// Largest bonus of a new dnode of `slots` slots: all but the head and one block pointer.
pub const fn max_bonus_of_slots(slots: usize) -> usize {
    (slots * DNODE_SIZE).saturating_sub(DNODE_CORE_SIZE + BLKPTR_SIZE)
}

/// Block pointers of a new dnode: one beside system attributes, which may grow, else as many as a bonus of `bonuslen`
/// bytes leaves room for.
pub fn nblkptr_for(bonustype: DmuObjectType, bonuslen: usize, slots: usize) -> u8 {
    if bonustype == DmuObjectType::SA {
        return 1;
    }
    (1 + max_bonus_of_slots(slots).saturating_sub(bonuslen) / BLKPTR_SIZE).min(3) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn room_for_pointers() {
        let t = DmuObjectType::ZAP_OTHER;
        assert_eq!(
            (nblkptr_for(t, 0, 1), nblkptr_for(t, 64, 1), nblkptr_for(t, 65, 1), nblkptr_for(t, 320, 1)),
            (3, 3, 2, 1)
        );
        assert_eq!((nblkptr_for(DmuObjectType::SA, 0, 2), max_bonus_of_slots(2)), (1, 832));
    }

    proptest! {
        #[test]
        fn dnodes_survive(
            n in 1u8..=3, extra in 0u8..4, bonus in proptest::collection::vec(any::<u8>(), 0..100), spill: bool, words: [u64; 16],
            big: bool, used: u64, maxblkid: u64,
        ) {
            let bp = BlkPtr { word: words };
            let mut blkptr = [BlkPtr::default(); 3];
            blkptr.iter_mut().take(n.into()).for_each(|b| *b = bp);
            let d = DnodePhys {
                endian: if big { Endian::Big } else { Endian::Little },
                object_type: DmuObjectType::PLAIN_FILE_CONTENTS, indblkshift: 17, nlevels: 2, nblkptr: n,
                bonustype: DmuObjectType::SA, checksum: 7, compress: 15,
                flags: 3 | if spill { DNODE_FLAG_SPILL_BLKPTR } else { 0 },
                datablkszsec: 256, extra_slots: extra, maxblkid, used, blkptr, bonus, spill: spill.then_some(bp),
            };
            match d.encode() {
                Ok(b) => {
                    prop_assert_eq!(b.len(), d.slots() * DNODE_SIZE);
                    prop_assert!(d.bonus.len() <= d.max_bonus());
                    prop_assert_eq!(DnodePhys::decode(&b, d.endian).unwrap().unwrap(), d);
                }
                Err(_) => prop_assert!(d.bonus.len() > d.max_bonus() || (n == 3 && spill && extra == 0)),
            }
        }

        #[test]
        fn no_input_panics(buf in proptest::collection::vec(any::<u8>(), 0..2048)) {
            for e in [Endian::Little, Endian::Big] {
                let _ = DnodePhys::decode(&buf, e);
            }
        }
    }

    #[test]
    fn an_empty_slot_is_unallocated() {
        assert_eq!(DnodePhys::decode(&[0; 512], Endian::Little), Ok(None));
    }
}
