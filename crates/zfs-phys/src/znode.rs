//! Files as the ZPL stores them: the old znode of ZPL versions 1 to 4 (`znode_phys_t`, include/sys/zfs_sa.h), the
//! flags of every version (include/sys/zfs_znode.h), directory entries and FUIDs.

use crate::acl::ZnodeAcl;
use crate::error::Result;
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Bytes of an old znode; symlink targets and scan stamps follow it in the bonus buffer.
pub const ZNODE_PHYS_SIZE: usize = 264;
/// Object number of the master node of every file system.
pub const MASTER_NODE_OBJ: u64 = 1;
/// Bytes of an anti-virus scan stamp.
pub const SCANSTAMP_SIZE: usize = 32;

/// The file is an extended attribute or its directory.
pub const ZFS_XATTR: u64 = 0x1;
/// The ACL has inheritable entries.
pub const ZFS_INHERIT_ACE: u64 = 0x2;
/// The ACL says no more than the mode.
pub const ZFS_ACL_TRIVIAL: u64 = 0x4;
/// The ACL has object entries.
pub const ZFS_ACL_OBJ_ACE: u64 = 0x8;
/// The ACL does not inherit.
pub const ZFS_ACL_PROTECTED: u64 = 0x10;
/// The ACL was given by default.
pub const ZFS_ACL_DEFAULTED: u64 = 0x20;
/// The ACL is inherited.
pub const ZFS_ACL_AUTO_INHERIT: u64 = 0x40;
/// A scan stamp follows the old znode.
pub const ZFS_BONUS_SCANSTAMP: u64 = 0x80;
/// Everyone may execute.
pub const ZFS_NO_EXECS_DENIED: u64 = 0x100;
/// DOS read-only.
pub const ZFS_READONLY: u64 = 0x1_0000_0000;
/// DOS hidden.
pub const ZFS_HIDDEN: u64 = 0x2_0000_0000;
/// DOS system.
pub const ZFS_SYSTEM: u64 = 0x4_0000_0000;
/// DOS archive.
pub const ZFS_ARCHIVE: u64 = 0x8_0000_0000;
/// May not change.
pub const ZFS_IMMUTABLE: u64 = 0x10_0000_0000;
/// May not be removed.
pub const ZFS_NOUNLINK: u64 = 0x20_0000_0000;
/// May only grow.
pub const ZFS_APPENDONLY: u64 = 0x40_0000_0000;
/// Not to be dumped.
pub const ZFS_NODUMP: u64 = 0x80_0000_0000;
/// Opaque for union mounts.
pub const ZFS_OPAQUE: u64 = 0x100_0000_0000;
/// Put into quarantine by a virus scanner.
pub const ZFS_AV_QUARANTINED: u64 = 0x200_0000_0000;
/// Changed since the last virus scan.
pub const ZFS_AV_MODIFIED: u64 = 0x400_0000_0000;
/// A reparse point.
pub const ZFS_REPARSE: u64 = 0x800_0000_0000;
/// Offline.
pub const ZFS_OFFLINE: u64 = 0x1000_0000_0000;
/// Sparse.
pub const ZFS_SPARSE: u64 = 0x2000_0000_0000;
/// New children inherit the project id.
pub const ZFS_PROJINHERIT: u64 = 0x4000_0000_0000;
/// A project id is stored.
pub const ZFS_PROJID: u64 = 0x8000_0000_0000;

/// A time: seconds and nanoseconds since 1970, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZfsTime {
    /// Seconds; negative before 1970.
    pub sec: i64,
    /// Nanoseconds.
    pub nsec: u64,
}

impl ZfsTime {
    /// Decodes two words.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { sec: r.u64()? as i64, nsec: r.u64()? })
    }

    /// The two words.
    pub const fn words(self) -> [u64; 2] {
        [self.sec as u64, self.nsec]
    }
}

/// An old znode, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZnodePhys {
    /// Last access.
    pub atime: ZfsTime,
    /// Last change of contents.
    pub mtime: ZfsTime,
    /// Last change of attributes.
    pub ctime: ZfsTime,
    /// Creation.
    pub crtime: ZfsTime,
    /// Generation: the txg of creation.
    pub gen_: u64,
    /// Type and permission bits.
    pub mode: u64,
    /// Bytes; entries plus two for a directory.
    pub size: u64,
    /// Object number of the parent directory.
    pub parent: u64,
    /// Hard links.
    pub links: u64,
    /// Object number of the extended attribute directory, or 0.
    pub xattr: u64,
    /// Device number of device nodes.
    pub rdev: u64,
    /// `ZFS_*` flags.
    pub flags: u64,
    /// Owner (a FUID).
    pub uid: u64,
    /// Group (a FUID).
    pub gid: u64,
    /// Object with more attributes; never used.
    pub zap: u64,
    /// The ACL or where it is.
    pub acl: ZnodeAcl,
}

impl ZnodePhys {
    /// Decodes a bonus buffer of type "ZFS znode".
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "znode");
        let (atime, mtime) = (ZfsTime::read(&mut r)?, ZfsTime::read(&mut r)?);
        let (ctime, crtime) = (ZfsTime::read(&mut r)?, ZfsTime::read(&mut r)?);
        let [gen_, mode, size, parent, links, xattr, rdev, flags, uid, gid, zap] = r.u64s()?;
        r.skip(24)?;
        let acl = ZnodeAcl::decode(r.bytes(crate::acl::ZNODE_ACL_SIZE)?, endian)?;
        Ok(Self {
            atime,
            mtime,
            ctime,
            crtime,
            gen_,
            mode,
            size,
            parent,
            links,
            xattr,
            rdev,
            flags,
            uid,
            gid,
            zap,
            acl,
        })
    }
}

impl ZnodePhys {
    /// Encodes the 264 bytes.
    pub fn encode(&self, endian: Endian) -> Result<Vec<u8>> {
        let mut w = Writer::new(endian, "znode", ZNODE_PHYS_SIZE);
        for t in [self.atime, self.mtime, self.ctime, self.crtime] {
            w.u64s(&t.words());
        }
        w.u64s(&[self.gen_, self.mode, self.size, self.parent, self.links, self.xattr, self.rdev, self.flags]);
        w.u64s(&[self.uid, self.gid, self.zap]).zeros(24).bytes(&self.acl.encode(endian)?);
        Ok(w.finish())
    }
}

/// A directory entry's value: object number and type in one word (`ZFS_DIRENT_OBJ`, `ZFS_DIRENT_TYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent {
    /// Object number.
    pub object: u64,
    /// `DT_*` type as in readdir: file type bits of the mode shifted right by 12; 0 when unknown.
    pub dtype: u8,
}

impl Dirent {
    /// Splits the value of a directory's ZAP entry.
    pub const fn decode(value: u64) -> Self {
        Self { object: value & ((1 << 48) - 1), dtype: (value >> 60) as u8 }
    }
}

impl Dirent {
    /// The value of a directory's ZAP entry (`ZFS_DIRENT_MAKE`).
    pub const fn encode(self) -> u64 {
        (self.object & ((1 << 48) - 1)) | (self.dtype as u64) << 60
    }
}

/// An identity: index into the table of domains (0: POSIX) and id in that domain (`FUID_INDEX`, `FUID_RID`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fuid {
    /// Domain index, 0 for plain POSIX ids.
    pub domain: u32,
    /// Id in the domain.
    pub rid: u32,
}

impl Fuid {
    /// Splits a stored FUID.
    pub const fn decode(raw: u64) -> Self {
        Self { domain: (raw >> 32) as u32, rid: raw as u32 }
    }
}

impl Fuid {
    /// The stored form (`FUID_ENCODE`).
    pub const fn encode(self) -> u64 {
        (self.domain as u64) << 32 | self.rid as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_at_their_offsets(buf in proptest::collection::vec(any::<u8>(), 0..320)) {
            for e in [Endian::Little, Endian::Big] {
                match ZnodePhys::decode(&buf, e) {
                    Ok(z) => {
                        let at = |o: usize| e.u64(buf[o..o + 8].try_into().unwrap());
                        prop_assert_eq!((z.gen_, z.mode, z.flags, z.gid), (at(64), at(72), at(120), at(136)));
                        prop_assert_eq!(z.acl.extern_obj, at(176));
                        if let Ok(back) = z.encode(e) {
                            prop_assert_eq!(back.len(), ZNODE_PHYS_SIZE);
                            prop_assert_eq!((&back[..152], &back[192..]), (&buf[..152], &buf[192..ZNODE_PHYS_SIZE]));
                            prop_assert_eq!(ZnodePhys::decode(&back, e).unwrap(), z);
                        }
                    }
                    Err(_) => prop_assert!(buf.len() < ZNODE_PHYS_SIZE),
                }
            }
        }
    }

    #[test]
    fn directory_entries_and_fuids() {
        assert_eq!(Dirent::decode((4 << 60) | (0xfff << 48) | 77), Dirent { object: 77, dtype: 4 });
        assert_eq!(
            (Dirent { object: 77, dtype: 4 }.encode(), Fuid { domain: 3, rid: 9 }.encode()),
            (4 << 60 | 77, 3 << 32 | 9)
        );
        assert_eq!(Fuid::decode((3 << 32) | 1001), Fuid { domain: 3, rid: 1001 });
    }
}
