//! Changing old znodes (ZPL versions 1 to 4).
//!
//! In a file system that has no system attributes the fields are changed where they are; what such files cannot have is
//! refused. In one that was upgraded, a file gets system attributes with its first change, as in OpenZFS
//! (`zfs_sa_upgrade`), all but symbolic links, whose targets stay where they are.

use super::{SaHandle, SaRegistry, ZplAttr};
use crate::liveset::ObjectSpec;
use crate::objset::Objset;
use crate::txg::Tx;
use std::sync::Arc;
use zfs_phys::Endian;
use zfs_phys::acl::{
    ZFS_ACE_SPACE, ZFS_ACL_VERSION_FUID, ZFS_ACL_VERSION_INITIAL, ZnodeAcl, decode_aces, encode_aces, encode_old_aces,
};
use zfs_phys::enums::DmuObjectType;
use zfs_phys::read::u64_at;
use zfs_phys::znode::{SCANSTAMP_SIZE, ZFS_BONUS_SCANSTAMP, ZNODE_PHYS_SIZE, ZfsTime, ZnodePhys};
use zfs_zio::{Error, Result};

/// Version of the file system from which on access lists hold FUIDs (`ZPL_VERSION_FUID`).
const FUIDS: u64 = 3;
/// Longest list that a file may have outside of its znode, bytes (`MAX_ACL_ENTRIES` of the longest form).
const MAX_ACL: usize = 1 << 20;
/// Room for attributes of an object outside of the file that has a list (`DN_OLD_MAX_BONUSLEN`).
const ACL_BONUS: usize = 320;

/// Attributes in the order in which they are stored.
type Attrs = Vec<(ZplAttr, Vec<u8>)>;

const TYPE_MASK: u64 = 0o170_000;
const SYMLINK: u64 = 0o120_000;
const BLOCK_DEVICE: u64 = 0o060_000;
const CHAR_DEVICE: u64 = 0o020_000;

impl SaRegistry {
    /// Whether new files of this file system are old znodes.
    pub fn is_legacy(&self) -> bool {
        self.master() == 0
    }
}

impl SaHandle {
    fn znode(&self) -> Result<ZnodePhys> {
        if !self.bonus.bytes.is_empty() {
            return Ok(ZnodePhys::decode(&self.bonus.bytes, self.bonus.endian)?);
        }
        let mut fresh = ZnodePhys::decode(&[0; ZNODE_PHYS_SIZE], Endian::NATIVE)?;
        fresh.acl.version = self.acl_version();
        Ok(fresh)
    }

    /// The object that an old znode's access list is in, if it is outside.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub fn external_acl(&self) -> Result<Option<u64>> {
        if !self.legacy {
            return Ok(None);
        }
        Ok(Some(self.znode()?.acl.extern_obj).filter(|object| *object != 0))
    }

    fn acl_version(&self) -> u16 {
        if self.registry.version() < FUIDS { ZFS_ACL_VERSION_INITIAL } else { ZFS_ACL_VERSION_FUID }
    }

    /// Whether the next change leaves an old znode an old znode.
    pub(super) fn stays_legacy(&self) -> Result<bool> {
        Ok(self.legacy && (self.registry.is_legacy() || self.znode()?.mode & TYPE_MASK == SYMLINK))
    }

    /// Sets attributes of an old znode that stays one.
    pub(super) fn update_legacy(&self, tx: &Tx, objset: &Arc<Objset>, attrs: &[(ZplAttr, Vec<u8>)]) -> Result<()> {
        use ZplAttr as A;
        let mut z = self.znode()?;
        let mut tail = self.bonus.bytes.get(ZNODE_PHYS_SIZE..).unwrap_or_default().to_vec();
        if self.bonus.endian != Endian::NATIVE && z.acl.extern_obj == 0 {
            let aces = z.acl.aces(None)?;
            self.embed(&mut z.acl, &aces)?;
        }
        for (attr, data) in attrs {
            let word = |n: usize| u64_at(data, n * 8, Endian::NATIVE).ok_or_else(|| self.invalid("a short attribute"));
            let time = || Ok::<_, Error>(ZfsTime { sec: word(0)? as i64, nsec: word(1)? });
            match attr {
                A::Atime => z.atime = time()?,
                A::Mtime => z.mtime = time()?,
                A::Ctime => z.ctime = time()?,
                A::Crtime => z.crtime = time()?,
                A::Gen => z.gen_ = word(0)?,
                A::Mode => z.mode = word(0)?,
                A::Size => z.size = word(0)?,
                A::Parent => z.parent = word(0)?,
                A::Links => z.links = word(0)?,
                A::Xattr => z.xattr = word(0)?,
                A::Rdev => z.rdev = word(0)?,
                A::Flags => z.flags = word(0)?,
                A::Uid => z.uid = word(0)?,
                A::Gid => z.gid = word(0)?,
                // Comes with the entries.
                A::DaclCount => {}
                A::DaclAces => self.put_acl(tx, objset, &mut z.acl, attrs, data)?,
                A::Symlink => tail = self.put_target(tx, data)?,
                _ => {
                    let text = format!("{} in a file system of version {}", attr.name(), self.registry.version());
                    return Err(Error::unsupported(text));
                }
            }
        }
        let mut bytes = z.encode(Endian::NATIVE)?;
        bytes.extend_from_slice(&tail);
        self.dnode.set_bonus(tx, DmuObjectType::ZNODE, &bytes)
    }

    /// The target of a symbolic link behind the znode, or else in the object's one block.
    fn put_target(&self, tx: &Tx, target: &[u8]) -> Result<Vec<u8>> {
        if ZNODE_PHYS_SIZE + target.len() <= self.dnode.phys().max_bonus() {
            return Ok(target.to_vec());
        }
        let size = u32::try_from(target.len().next_multiple_of(512)).map_err(|_| self.invalid("an endless target"))?;
        self.dnode.set_blocksize(tx, size)?;
        self.dnode.write_at(tx, 0, target)?;
        Ok(Vec::new())
    }

    /// Stores an access list, in the znode when it fits there.
    fn put_acl(
        &self,
        tx: &Tx,
        objset: &Arc<Objset>,
        acl: &mut ZnodeAcl,
        attrs: &[(ZplAttr, Vec<u8>)],
        bytes: &[u8],
    ) -> Result<()> {
        let count = attrs.iter().find(|(attr, _)| *attr == ZplAttr::DaclCount);
        let count = count.and_then(|(_, data)| u64_at(data, 0, Endian::NATIVE)).unwrap_or(0);
        let aces = decode_aces(bytes, Endian::NATIVE, count as usize)?;
        if acl.extern_obj != 0 {
            objset.free_object(tx, acl.extern_obj)?;
            acl.extern_obj = 0;
        }
        acl.version = self.acl_version();
        let bytes = self.embed(acl, &aces)?;
        if bytes.len() > ZFS_ACE_SPACE {
            let old = acl.version == ZFS_ACL_VERSION_INITIAL;
            let spec = ObjectSpec {
                object_type: if old { DmuObjectType::OLDACL } else { DmuObjectType::ACL },
                block_size: u32::try_from(bytes.len().next_multiple_of(512)).unwrap_or(u32::MAX),
                bonus_type: if old { DmuObjectType::NONE } else { DmuObjectType::SYSACL },
                bonus_len: if old { 0 } else { ACL_BONUS },
                ..ObjectSpec::default()
            };
            let outside = objset.allocate(tx, &spec)?;
            outside.write_at(tx, 0, &bytes)?;
            acl.extern_obj = outside.object();
        }
        Ok(())
    }

    /// Puts entries into the znode as far as they fit. Gives them as they are stored.
    fn embed(&self, acl: &mut ZnodeAcl, aces: &[zfs_phys::acl::Ace]) -> Result<Vec<u8>> {
        let bytes = match acl.version {
            ZFS_ACL_VERSION_INITIAL => encode_old_aces(aces, Endian::NATIVE)?,
            _ => encode_aces(aces, Endian::NATIVE),
        };
        acl.endian = Endian::NATIVE;
        acl.size = u32::try_from(bytes.len()).map_err(|_| self.invalid("an endless access list"))?;
        acl.count = u32::try_from(aces.len()).map_err(|_| self.invalid("an endless access list"))?;
        acl.data = [0; ZFS_ACE_SPACE];
        if let Some(room) = acl.data.get_mut(..bytes.len()) {
            room.copy_from_slice(&bytes);
        }
        Ok(bytes)
    }

    /// What an old znode says, as system attributes in the order in which new files have them, and the object that its
    /// access list was in, if it was outside.
    pub(super) fn converted(&self, objset: &Arc<Objset>) -> Result<(Attrs, Option<u64>)> {
        use ZplAttr as A;
        let z = self.znode()?;
        let word = |value: u64| Endian::NATIVE.put_u64(value).to_vec();
        let time = |time: ZfsTime| time.words().into_iter().flat_map(|w| Endian::NATIVE.put_u64(w)).collect();
        let outside = Some(z.acl.extern_obj).filter(|object| *object != 0);
        let aces = match outside {
            None => z.acl.aces(None)?,
            Some(object) => {
                let dnode = objset.dnode(object)?;
                let size = (z.acl.size as usize).min(MAX_ACL);
                let endian = dnode.read_block_endian(0)?.map_or(Endian::NATIVE, |(_, endian)| endian);
                z.acl.aces(Some((&dnode.read_vec(0, size)?, endian)))?
            }
        };
        let mut out = vec![
            (A::Mode, word(z.mode)),
            (A::Size, word(z.size)),
            (A::Gen, word(z.gen_)),
            (A::Uid, word(z.uid)),
            (A::Gid, word(z.gid)),
            (A::Parent, word(z.parent)),
            (A::Flags, word(z.flags & !ZFS_BONUS_SCANSTAMP)),
            (A::Atime, time(z.atime)),
            (A::Mtime, time(z.mtime)),
            (A::Ctime, time(z.ctime)),
            (A::Crtime, time(z.crtime)),
            (A::Links, word(z.links)),
        ];
        if matches!(z.mode & TYPE_MASK, BLOCK_DEVICE | CHAR_DEVICE) {
            out.push((A::Rdev, word(z.rdev)));
        }
        out.push((A::DaclCount, word(aces.len() as u64)));
        out.push((A::DaclAces, encode_aces(&aces, Endian::NATIVE)));
        if z.xattr != 0 {
            out.push((A::Xattr, word(z.xattr)));
        }
        let stamp = self.bonus.bytes.get(ZNODE_PHYS_SIZE..ZNODE_PHYS_SIZE + SCANSTAMP_SIZE);
        if let Some(stamp) = stamp.filter(|_| z.flags & ZFS_BONUS_SCANSTAMP != 0) {
            out.push((A::Scanstamp, stamp.to_vec()));
        }
        Ok((out, outside))
    }
}
