//! NFSv4 access control lists in their three stored forms (include/sys/zfs_acl.h): entries of 12 bytes (ACL version 0,
//! ZPL 1 and 2, and intent log records), entries of 8, 16 or 48 bytes with FUIDs (version 1), and the part of an old
//! znode that holds the first entries or the number of the object that holds them all.

use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// Version of ACLs with entries of fixed size.
pub const ZFS_ACL_VERSION_INITIAL: u16 = 0;
/// Version of ACLs with FUIDs.
pub const ZFS_ACL_VERSION_FUID: u16 = 1;
/// Bytes of the ACL in an old znode.
pub const ZNODE_ACL_SIZE: usize = 88;
/// Bytes of entries embedded in an old znode.
pub const ZFS_ACE_SPACE: usize = 72;
/// Bytes of an entry of version 0.
pub const OLD_ACE_SIZE: usize = 12;
/// Most bytes of entries that are decoded: far above any ACL (1024 entries).
pub const MAX_ACL_BYTES: usize = 1 << 20;

/// Entry flag: inherited by files.
pub const ACE_FILE_INHERIT_ACE: u16 = 0x1;
/// Entry flag: inherited by directories.
pub const ACE_DIRECTORY_INHERIT_ACE: u16 = 0x2;
/// Entry flag: inherited one level deep.
pub const ACE_NO_PROPAGATE_INHERIT_ACE: u16 = 0x4;
/// Entry flag: only for inheritance.
pub const ACE_INHERIT_ONLY_ACE: u16 = 0x8;
/// Entry flag: the id is a group.
pub const ACE_IDENTIFIER_GROUP: u16 = 0x40;
/// Entry flag: was inherited.
pub const ACE_INHERITED_ACE: u16 = 0x80;
/// Entry flag: for the owner.
pub const ACE_OWNER: u16 = 0x1000;
/// Entry flag: for the owning group.
pub const ACE_GROUP: u16 = 0x2000;
/// Entry flag: for everyone.
pub const ACE_EVERYONE: u16 = 0x4000;
/// The flags that tell whom an entry is for.
pub const ACE_TYPE_FLAGS: u16 = ACE_OWNER | ACE_GROUP | ACE_EVERYONE | ACE_IDENTIFIER_GROUP;

/// Entry type: allow.
pub const ACE_ACCESS_ALLOWED: u16 = 0;
/// Entry type: deny.
pub const ACE_ACCESS_DENIED: u16 = 1;
/// Entry type: audit.
pub const ACE_SYSTEM_AUDIT: u16 = 2;
/// Entry type: alarm.
pub const ACE_SYSTEM_ALARM: u16 = 3;
/// First of the four entry types that carry two object GUIDs.
pub const ACE_FIRST_OBJECT_TYPE: u16 = 5;
/// Last of them.
pub const ACE_LAST_OBJECT_TYPE: u16 = 8;

/// Whom an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AceWho {
    /// The file's owner.
    Owner,
    /// The file's group.
    OwningGroup,
    /// Everyone.
    Everyone,
    /// A user, by FUID.
    User(u64),
    /// A group, by FUID.
    Group(u64),
}

/// One access control entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ace {
    /// `ACE_ACCESS_ALLOWED` etc.
    pub ace_type: u16,
    /// Inheritance and kind flags, as stored.
    pub flags: u16,
    /// Permissions.
    pub access_mask: u32,
    /// Whom it is for.
    pub who: AceWho,
    /// Object type and inherited object type of object entries.
    pub object_guids: Option<([u8; 16], [u8; 16])>,
}

fn who(flags: u16, id: u64) -> AceWho {
    match flags & ACE_TYPE_FLAGS {
        ACE_OWNER => AceWho::Owner,
        f if f == ACE_GROUP | ACE_IDENTIFIER_GROUP => AceWho::OwningGroup,
        ACE_EVERYONE => AceWho::Everyone,
        f if f & ACE_IDENTIFIER_GROUP != 0 => AceWho::Group(id),
        _ => AceWho::User(id),
    }
}

/// Decodes `count` entries of version 0 (`zfs_oldace_t`; `ace_t` of log records has the same layout).
pub fn decode_old_aces(buf: &[u8], endian: Endian, count: usize) -> Result<Vec<Ace>> {
    let mut r = Reader::new(buf, endian, "old acl");
    if count > buf.len() / OLD_ACE_SIZE {
        return Err(r.err(format!("{count} entries in {} bytes", buf.len())));
    }
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, access_mask, flags, ace_type) = (r.u32()?, r.u32()?, r.u16()?, r.u16()?);
        out.push(Ace { ace_type, flags, access_mask, who: who(flags, u64::from(id)), object_guids: None });
    }
    Ok(out)
}

/// Decodes `count` entries of version 1 (`zfs_ace_hdr_t`, `zfs_ace_t`, `zfs_object_ace_t`).
pub fn decode_aces(buf: &[u8], endian: Endian, count: usize) -> Result<Vec<Ace>> {
    let mut r = Reader::new(buf, endian, "acl");
    if count > buf.len() / 8 || buf.len() > MAX_ACL_BYTES {
        return Err(r.err(format!("{count} entries in {} bytes", buf.len())));
    }
    let mut out = Vec::with_capacity(count);
    for _ in 0..count {
        let (ace_type, flags, access_mask) = (r.u16()?, r.u16()?, r.u32()?);
        let special = matches!(who(flags, 0), AceWho::Owner | AceWho::OwningGroup | AceWho::Everyone);
        let object = (ACE_FIRST_OBJECT_TYPE..=ACE_LAST_OBJECT_TYPE).contains(&ace_type);
        let short = special && matches!(ace_type, ACE_ACCESS_ALLOWED | ACE_ACCESS_DENIED);
        let id = if short { 0 } else { r.u64()? };
        let object_guids = if object { Some((r.array()?, r.array()?)) } else { None };
        out.push(Ace { ace_type, flags, access_mask, who: who(flags, id), object_guids });
    }
    Ok(out)
}

impl Ace {
    /// Whether the entry needs no id: the short form of version 1.
    fn is_short(&self) -> bool {
        let special = matches!(self.who, AceWho::Owner | AceWho::OwningGroup | AceWho::Everyone);
        special && matches!(self.ace_type, ACE_ACCESS_ALLOWED | ACE_ACCESS_DENIED)
    }

    fn id(&self) -> u64 {
        match self.who {
            AceWho::User(id) | AceWho::Group(id) => id,
            AceWho::Owner | AceWho::OwningGroup | AceWho::Everyone => 0,
        }
    }

    /// Bytes of the entry in version 1.
    pub fn size(&self) -> usize {
        8 + if self.is_short() { 0 } else { 8 } + if self.object_guids.is_some() { 32 } else { 0 }
    }

    /// The entry's flags with those that tell whom it is for put right.
    fn stored_flags(&self) -> u16 {
        let whom = match self.who {
            AceWho::Owner => ACE_OWNER,
            AceWho::OwningGroup => ACE_GROUP | ACE_IDENTIFIER_GROUP,
            AceWho::Everyone => ACE_EVERYONE,
            AceWho::Group(_) => ACE_IDENTIFIER_GROUP,
            AceWho::User(_) => 0,
        };
        // Flags that were read already say so, perhaps in a combination that nothing writes any more.
        if who(self.flags, self.id()) == self.who { self.flags } else { self.flags & !ACE_TYPE_FLAGS | whom }
    }
}

/// Encodes entries of version 0. An error when an id does not fit 32 bits.
pub fn encode_old_aces(aces: &[Ace], endian: Endian) -> Result<Vec<u8>> {
    let mut w = Writer::new(endian, "old acl", aces.len() * OLD_ACE_SIZE);
    for a in aces {
        let id = u32::try_from(a.id()).map_err(|_| w.err(format!("id {:#x} in an old entry", a.id())))?;
        w.u32(id).u32(a.access_mask).u16(a.stored_flags()).u16(a.ace_type);
    }
    Ok(w.finish())
}

/// Encodes entries of version 1.
pub fn encode_aces(aces: &[Ace], endian: Endian) -> Vec<u8> {
    let mut w = Writer::new(endian, "acl", aces.iter().map(Ace::size).sum());
    for a in aces {
        w.u16(a.ace_type).u16(a.stored_flags()).u32(a.access_mask);
        if !a.is_short() {
            w.u64(a.id());
        }
        if let Some((object, inherited)) = &a.object_guids {
            w.bytes(object).bytes(inherited);
        }
    }
    w.finish()
}

/// The ACL of an old znode (`zfs_acl_phys_t`, `zfs_acl_phys_v0_t`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZnodeAcl {
    /// Object with the entries; 0 when they are embedded.
    pub extern_obj: u64,
    /// Bytes of entries.
    pub size: u32,
    /// `ZFS_ACL_VERSION_*`.
    pub version: u16,
    /// Number of entries.
    pub count: u32,
    /// The embedded bytes.
    pub data: [u8; ZFS_ACE_SPACE],
    /// Byte order of `data`.
    pub endian: Endian,
}

impl ZnodeAcl {
    /// Decodes the 88 bytes.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "znode acl");
        let (extern_obj, first, version, second) = (r.u64()?, r.u32()?, r.u16()?, r.u16()?);
        // Version 0 has a 32-bit count where later ones have the size in bytes and then a 16-bit count.
        let (size, count) = if version == ZFS_ACL_VERSION_INITIAL {
            (first.saturating_mul(OLD_ACE_SIZE as u32), first)
        } else {
            (first, u32::from(second))
        };
        Ok(Self { extern_obj, size, version, count, data: r.array()?, endian })
    }

    /// Encodes the 88 bytes. An error when the count does not fit.
    pub fn encode(&self, endian: Endian) -> Result<Vec<u8>> {
        let mut w = Writer::new(endian, "znode acl", ZNODE_ACL_SIZE);
        w.u64(self.extern_obj);
        if self.version == ZFS_ACL_VERSION_INITIAL {
            w.u32(self.count).u16(self.version).u16(0);
        } else {
            let count = u16::try_from(self.count).map_err(|_| w.err(format!("{} entries", self.count)))?;
            w.u32(self.size).u16(self.version).u16(count);
        }
        w.bytes(&self.data);
        Ok(w.finish())
    }

    /// Decodes entries from the embedded bytes, or from the contents of the external object when given.
    pub fn aces(&self, external: Option<(&[u8], Endian)>) -> Result<Vec<Ace>> {
        let (buf, endian) = external.unwrap_or((&self.data, self.endian));
        let size = self.size as usize;
        let buf = buf
            .get(..size)
            .ok_or_else(|| DecodeError::new("znode acl", 8, format!("{size} bytes of entries, {} there", buf.len())))?;
        match self.version {
            ZFS_ACL_VERSION_INITIAL => decode_old_aces(buf, endian, self.count as usize),
            _ => decode_aces(buf, endian, self.count as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_of_entries() {
        let mut b = Vec::new();
        for (t, f, id) in
            [(0u16, ACE_OWNER, None), (1, ACE_GROUP | 0x40, None), (0, 0x40, Some(5u64)), (0, 0, Some(1001))]
        {
            b.extend(t.to_le_bytes());
            b.extend(f.to_le_bytes());
            b.extend(0x1ffu32.to_le_bytes());
            b.extend(id.map(u64::to_le_bytes).into_iter().flatten());
        }
        let got = decode_aces(&b, Endian::Little, 4).unwrap();
        let whos: Vec<_> = got.iter().map(|a| a.who).collect();
        assert_eq!(whos, [AceWho::Owner, AceWho::OwningGroup, AceWho::Group(5), AceWho::User(1001)]);
        assert!(decode_aces(&b, Endian::Little, 5).is_err());
        assert_eq!(encode_aces(&got, Endian::Little), b);
        assert_eq!(got.iter().map(Ace::size).sum::<usize>(), b.len());
        let old = encode_old_aces(&got, Endian::Big).unwrap();
        assert_eq!(decode_old_aces(&old, Endian::Big, 4).unwrap(), got);
        let new = Ace { flags: 0x3, ..got[1] };
        assert_eq!(decode_aces(&encode_aces(&[new], Endian::Big), Endian::Big, 1).unwrap()[0].who, AceWho::OwningGroup);
    }

    #[test]
    fn embedded_version_0() {
        let mut b = vec![0u8; ZNODE_ACL_SIZE];
        b[8..12].copy_from_slice(&1u32.to_be_bytes());
        b[16..20].copy_from_slice(&42u32.to_be_bytes());
        b[20..24].copy_from_slice(&7u32.to_be_bytes());
        let a = ZnodeAcl::decode(&b, Endian::Big).unwrap();
        let aces = a.aces(None).unwrap();
        assert_eq!((aces.len(), aces[0].who, aces[0].access_mask), (1, AceWho::User(42), 7));
    }

    proptest! {
        #[test]
        fn no_input_panics(buf in proptest::collection::vec(any::<u8>(), 0..200), n in 0usize..40) {
            for e in [Endian::Little, Endian::Big] {
                let _ = decode_old_aces(&buf, e, n);
                if let Ok(aces) = decode_aces(&buf, e, n) {
                    prop_assert_eq!(decode_aces(&encode_aces(&aces, e), e, n).unwrap(), aces);
                }
                if let Ok(a) = ZnodeAcl::decode(&buf, e) {
                    let _ = (a.aces(None), a.aces(Some((&buf, e))));
                }
            }
        }
    }
}
