//! The access control list that says no more than a mode: every file stores one, also where POSIX lists rule
//! (include/sys/zfs_acl.h; the permissions are those of RFC 7530).

use zfs_phys::acl::{ACE_ACCESS_ALLOWED, ACE_ACCESS_DENIED, ACE_EVERYONE, ACE_GROUP, ACE_IDENTIFIER_GROUP, ACE_OWNER};

const READ_DATA: u32 = 0x1;
const WRITE_DATA: u32 = 0x2;
const APPEND_DATA: u32 = 0x4;
const READ_NAMED_ATTRS: u32 = 0x8;
const WRITE_NAMED_ATTRS: u32 = 0x10;
const EXECUTE: u32 = 0x20;
const DELETE_CHILD: u32 = 0x40;
const READ_ATTRIBUTES: u32 = 0x80;
const WRITE_ATTRIBUTES: u32 = 0x100;
const READ_ACL: u32 = 0x2_0000;
const WRITE_ACL: u32 = 0x4_0000;
const WRITE_OWNER: u32 = 0x8_0000;
const SYNCHRONIZE: u32 = 0x10_0000;

const EVERYBODY: u32 = READ_ACL | READ_ATTRIBUTES | READ_NAMED_ATTRS | SYNCHRONIZE;
const ONLY_OWNER: u32 = WRITE_ATTRIBUTES | WRITE_OWNER | WRITE_ACL | WRITE_NAMED_ATTRS;
const OWNING_GROUP: u16 = ACE_GROUP | ACE_IDENTIFIER_GROUP;

/// A list as it is stored: number of entries, and their bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredAcl {
    pub(crate) count: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Permissions that the three bits of one class stand for.
fn permissions(bits: u32, dir: bool) -> u32 {
    let write = WRITE_DATA | APPEND_DATA | if dir { DELETE_CHILD } else { 0 };
    (if bits & 4 != 0 { READ_DATA } else { 0 })
        | (if bits & 2 != 0 { write } else { 0 })
        | (if bits & 1 != 0 { EXECUTE } else { 0 })
}

/// The list that is equal to `mode`. What a class lacks and a later one has must be denied first; what the owner has
/// and only the group lacks must be allowed before that.
pub(crate) fn trivial(mode: u32, dir: bool) -> StoredAcl {
    let (user, group, other) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
    let mut out = StoredAcl { count: 0, bytes: Vec::with_capacity(48) };
    let mut ace = |kind: u16, flags: u16, mask: u32| {
        out.count += 1;
        out.bytes.extend_from_slice(&kind.to_le_bytes());
        out.bytes.extend_from_slice(&flags.to_le_bytes());
        out.bytes.extend_from_slice(&mask.to_le_bytes());
    };
    let early = [
        (ACE_ACCESS_ALLOWED, ACE_OWNER, user & !group & other),
        (ACE_ACCESS_DENIED, ACE_OWNER, !user & (group | other) & 7),
        (ACE_ACCESS_DENIED, OWNING_GROUP, !group & other & 7),
    ];
    for (kind, flags, bits) in early.into_iter().filter(|(_, _, bits)| *bits != 0) {
        ace(kind, flags, permissions(bits, dir));
    }
    ace(ACE_ACCESS_ALLOWED, ACE_OWNER, EVERYBODY | ONLY_OWNER | permissions(user, dir));
    ace(ACE_ACCESS_ALLOWED, OWNING_GROUP, EVERYBODY | permissions(group, dir));
    ace(ACE_ACCESS_ALLOWED, ACE_EVERYONE, EVERYBODY | permissions(other, dir));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use zfs_phys::Endian;
    use zfs_phys::acl::decode_aces;

    fn masks(mode: u32, dir: bool) -> Vec<(u16, u16, u32)> {
        let acl = trivial(mode, dir);
        let aces = decode_aces(&acl.bytes, Endian::Little, acl.count as usize).unwrap();
        aces.iter().map(|a| (a.ace_type, a.flags, a.access_mask)).collect()
    }

    #[test]
    fn common_modes() {
        assert_eq!(masks(0o644, false), [(0, 0x1000, 0x1e01bf & !0x20), (0, 0x2040, 0x120089), (0, 0x4000, 0x120089)]);
        let dir = masks(0o755, true);
        assert_eq!(dir[0].2, 0x1e01ff);
        assert_eq!((dir[1].2, dir[2].2), (0x1200a9, 0x1200a9));
        // 0607: the group must not get what others have, the owner must.
        let odd = masks(0o607, false);
        assert_eq!(odd.len(), 6);
        assert_eq!(odd[0], (0, 0x1000, 0x7));
        assert_eq!(odd[1], (1, 0x1000, 0x20));
        assert_eq!(odd[2], (1, 0x2040, 0x27));
    }
}
