//! Object set headers (`objset_phys_t`, include/sys/dmu_objset.h): 1024, 2048 or 4096 bytes, growing with the pool version.

use crate::blkptr::BlkPtr;
use crate::dnode::{DNODE_SIZE, DnodePhys};
use crate::enums::ObjsetType;
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};

/// Bytes of a MAC in the header.
pub const OBJSET_MAC_SIZE: usize = 32;
/// Offset of the intent log header.
pub const ZIL_HEADER_OFFSET: usize = DNODE_SIZE;
/// Offset of the portable MAC (the local one follows it).
pub const PORTABLE_MAC_OFFSET: usize = 720;

/// Header of an intent log (`zil_header_t`, include/sys/zil.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl ObjsetPhys {
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
