//! Object set headers (`objset_phys_t`, include/sys/dmu_objset.h): 1024, 2048 or 4096 bytes, growing with the pool version.

use crate::blkptr::BlkPtr;
use crate::dnode::{DNODE_SIZE, DnodePhys};
use crate::enums::ObjsetType;
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Bytes of a MAC in the header.
pub const OBJSET_MAC_SIZE: usize = 32;
/// Offset of the intent log header.
pub const ZIL_HEADER_OFFSET: usize = DNODE_SIZE;
/// Offset of the portable MAC (the local one follows it).
pub const PORTABLE_MAC_OFFSET: usize = 720;

/// Bytes of a header without accounting objects.
pub const OBJSET_SIZE_V1: usize = 1024;
/// Bytes of a header with user and group accounting.
pub const OBJSET_SIZE_V2: usize = 2048;
/// Bytes of a header with project accounting.
pub const OBJSET_SIZE_V3: usize = 4096;
/// Object set flag: user and group space is accounted.
pub const OBJSET_FLAG_USERACCOUNTING_COMPLETE: u64 = 1;
/// Object set flag: user and group objects are accounted.
pub const OBJSET_FLAG_USEROBJACCOUNTING_COMPLETE: u64 = 2;
/// Object set flag: projects are accounted.
pub const OBJSET_FLAG_PROJECTQUOTA_COMPLETE: u64 = 4;

/// Header of an intent log (`zil_header_t`, include/sys/zil.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZilHeader {
    /// Txg in which the log was claimed; 0 before.
    pub claim_txg: u64,
    /// Highest sequence number already replayed.
    pub replay_seq: u64,
    /// First block of the chain.
    pub log: BlkPtr,
    /// Highest block sequence number claimed.
    pub claim_blk_seq: u64,
    /// Bit 0: replay needed; bit 1: `claim_lr_seq` is valid.
    pub flags: u64,
    /// Highest record sequence number claimed.
    pub claim_lr_seq: u64,
}

/// An object set header, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjsetPhys {
    /// Byte order it was written in.
    pub endian: Endian,
    /// The object that holds all dnodes.
    pub meta_dnode: DnodePhys,
    /// The intent log.
    pub zil_header: ZilHeader,
    /// What the object set holds.
    pub os_type: ObjsetType,
    /// `OBJSET_FLAG_*`.
    pub flags: u64,
    /// MAC over the parts that survive raw send.
    pub portable_mac: [u8; OBJSET_MAC_SIZE],
    /// MAC over the accounting parts.
    pub local_mac: [u8; OBJSET_MAC_SIZE],
    /// Space used by each user, when kept.
    pub userused_dnode: Option<DnodePhys>,
    /// Space used by each group, when kept.
    pub groupused_dnode: Option<DnodePhys>,
    /// Space used by each project, when kept.
    pub projectused_dnode: Option<DnodePhys>,
}

impl ZilHeader {
    fn write(&self, w: &mut Writer) {
        w.u64(self.claim_txg).u64(self.replay_seq).bp(&self.log);
        w.u64(self.claim_blk_seq).u64(self.flags).u64(self.claim_lr_seq).zeros(24);
    }
}

impl ObjsetPhys {
    /// Encodes a header of `size` bytes (`OBJSET_SIZE_*`) in its own byte order. An error when it has parts that the
    /// size has no room for.
    pub fn encode(&self, size: usize) -> Result<Vec<u8>> {
        let mut w = Writer::new(self.endian, "objset", size);
        w.bytes(&self.meta_dnode.encode()?).pad_to(ZIL_HEADER_OFFSET)?;
        self.zil_header.write(&mut w);
        w.u64(self.os_type as u64).u64(self.flags).bytes(&self.portable_mac).bytes(&self.local_mac);
        for (at, dnode) in
            [(1024, &self.userused_dnode), (1536, &self.groupused_dnode), (2048, &self.projectused_dnode)]
        {
            if let Some(d) = dnode {
                w.pad_to(at)?.bytes(&d.encode()?).pad_to(at + DNODE_SIZE)?;
            }
        }
        w.pad_to(size)?;
        Ok(w.finish())
    }

    /// Decodes a header.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let slot = |off: usize| match buf.get(off..off + DNODE_SIZE) {
            Some(s) => DnodePhys::decode(s, endian),
            None => Ok(None),
        };
        let meta_dnode = slot(0)?.ok_or_else(|| DecodeError::new("objset", 0, "the meta dnode is missing"))?;
        let mut r = Reader::new(buf, endian, "objset");
        r.seek(ZIL_HEADER_OFFSET)?;
        let zil_header = ZilHeader {
            claim_txg: r.u64()?,
            replay_seq: r.u64()?,
            log: BlkPtr::read(&mut r)?,
            claim_blk_seq: r.u64()?,
            flags: r.u64()?,
            claim_lr_seq: r.u64()?,
        };
        r.skip(24)?;
        let raw = r.u64()?;
        let os_type =
            u8::try_from(raw).ok().and_then(ObjsetType::from_raw).ok_or_else(|| r.err(format!("type {raw}")))?;
        Ok(Self {
            endian,
            meta_dnode,
            zil_header,
            os_type,
            flags: r.u64()?,
            portable_mac: r.array()?,
            local_mac: r.array()?,
            userused_dnode: slot(1024)?,
            groupused_dnode: slot(1536)?,
            projectused_dnode: slot(2048)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enums::DmuObjectType;

    #[test]
    fn headers_survive_in_every_size() {
        for endian in [Endian::Little, Endian::Big] {
            let dnode = |t| DnodePhys {
                endian,
                object_type: t,
                indblkshift: 17,
                nlevels: 2,
                nblkptr: 3,
                bonustype: DmuObjectType::NONE,
                checksum: 0,
                compress: 0,
                flags: 1,
                datablkszsec: 32,
                extra_slots: 0,
                maxblkid: 9,
                used: 4096,
                blkptr: [BlkPtr { word: [5; 16] }; 3],
                bonus: Vec::new(),
                spill: None,
            };
            let used = DmuObjectType::USERGROUP_USED;
            let zil_header = ZilHeader { claim_txg: 4, replay_seq: 5, claim_lr_seq: 9, ..Default::default() };
            let mut o = ObjsetPhys {
                endian,
                meta_dnode: dnode(DmuObjectType::DNODE),
                zil_header,
                os_type: ObjsetType::Zfs,
                flags: 7,
                portable_mac: [1; 32],
                local_mac: [2; 32],
                userused_dnode: Some(dnode(used)),
                groupused_dnode: Some(dnode(used)),
                projectused_dnode: Some(dnode(used)),
            };
            assert!(o.encode(OBJSET_SIZE_V2).is_err());
            for size in [OBJSET_SIZE_V3, OBJSET_SIZE_V2, OBJSET_SIZE_V1] {
                let b = o.encode(size).unwrap();
                assert_eq!((b.len(), ObjsetPhys::decode(&b, endian).unwrap()), (size, o.clone()));
                if size == OBJSET_SIZE_V3 {
                    o.projectused_dnode = None;
                } else {
                    (o.userused_dnode, o.groupused_dnode) = (None, None);
                }
            }
        }
    }
}
