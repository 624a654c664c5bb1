//! POSIX access control lists in Linux's extended attribute form, and the check of a caller against them.
//!
//! The kernel checks for itself on FUSE mounts; front ends without a kernel behind them (NFS, SMB, FSKit) use
//! [`permits`]. The form is version 2 of Linux's include/uapi/linux/posix_acl_xattr.h, little-endian everywhere.

use zfs_zio::{Error, Result};

/// Name of the attribute that holds the list of a file.
pub const ACCESS: &str = "system.posix_acl_access";
/// Name of the attribute that holds the list new files of a directory start with.
pub const DEFAULT: &str = "system.posix_acl_default";
/// Most entries accepted.
const MAX_ENTRIES: usize = 8192;

/// Whom an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The owner.
    Owner,
    /// A user.
    User(u32),
    /// The owning group.
    OwningGroup,
    /// A group.
    Group(u32),
    /// What users, groups and the owning group get at most.
    Mask,
    /// Everybody else.
    Other,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Whom it is for.
    pub who: Who,
    /// Permissions: 4 read, 2 write, 1 execute.
    pub perm: u16,
}

/// Decodes the value of [`ACCESS`] or [`DEFAULT`].
pub fn decode(value: &[u8]) -> Result<Vec<Entry>> {
    let bad = || Error::corrupt("decoding a POSIX ACL");
    let (head, body) = value.split_at_checked(4).ok_or_else(bad)?;
    if head != [2, 0, 0, 0] || !body.len().is_multiple_of(8) || body.len() / 8 > MAX_ENTRIES {
        return Err(bad());
    }
    body.chunks_exact(8)
        .map(|e| {
            let &[t0, t1, p0, p1, i0, i1, i2, i3] = e else { return Err(bad()) };
            let id = u32::from_le_bytes([i0, i1, i2, i3]);
            let who = match u16::from_le_bytes([t0, t1]) {
                0x01 => Who::Owner,
                0x02 => Who::User(id),
                0x04 => Who::OwningGroup,
                0x08 => Who::Group(id),
                0x10 => Who::Mask,
                0x20 => Who::Other,
                _ => return Err(bad()),
            };
            Ok(Entry { who, perm: u16::from_le_bytes([p0, p1]) & 7 })
        })
        .collect()
}

/// The mode of a file with that list: owner's and others' bits, and for the group the mask where there is one.
pub(crate) fn mode_of(acl: &[Entry], mode: u32) -> u32 {
    let perm = |who: Who| acl.iter().find(|e| e.who == who).map(|e| u32::from(e.perm));
    let user = perm(Who::Owner).unwrap_or(mode >> 6 & 7);
    let group = perm(Who::Mask).or(perm(Who::OwningGroup)).unwrap_or(mode >> 3 & 7);
    let other = perm(Who::Other).unwrap_or(mode & 7);
    (mode & !0o777) | user << 6 | group << 3 | other
}

/// Encodes a list as [`decode`] reads it.
pub(crate) fn encode(list: &[Entry]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0];
    for entry in list {
        let (tag, id) = match entry.who {
            Who::Owner => (0x01u16, u32::MAX),
            Who::User(id) => (0x02, id),
            Who::OwningGroup => (0x04, u32::MAX),
            Who::Group(id) => (0x08, id),
            Who::Mask => (0x10, u32::MAX),
            Who::Other => (0x20, u32::MAX),
        };
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&entry.perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    out
}

/// Which bits of a mode an entry goes with: those of the owner, of others, and the group's, which a mask takes over.
fn shift_of(who: Who, masked: bool) -> Option<u32> {
    match who {
        Who::Owner => Some(6),
        Who::Mask => Some(3),
        Who::OwningGroup if !masked => Some(3),
        Who::Other => Some(0),
        _ => None,
    }
}

fn is_masked(list: &[Entry]) -> bool {
    list.iter().any(|e| e.who == Who::Mask)
}

/// The list of a new file in a directory with default list `default`: nobody gets more than `mode` has, and `mode` keeps
/// what the list has (POSIX.1e 23.1.5).
pub(crate) fn inherited(default: &[Entry], mode: &mut u32) -> Vec<Entry> {
    let masked = is_masked(default);
    let mut list = default.to_vec();
    for entry in &mut list {
        let Some(shift) = shift_of(entry.who, masked) else { continue };
        entry.perm &= (*mode >> shift) as u16 & 7;
        *mode = (*mode & !(7 << shift)) | u32::from(entry.perm) << shift;
    }
    list
}

/// Changes a list as a new mode demands.
pub(crate) fn follow_mode(list: &mut [Entry], mode: u32) {
    let masked = is_masked(list);
    for entry in list {
        if let Some(shift) = shift_of(entry.who, masked) {
            entry.perm = (mode >> shift) as u16 & 7;
        }
    }
}

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cred {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

impl Cred {
    /// Whether the caller belongs to `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// Whether `cred` may do `want` (4 read, 2 write, 1 execute, together) with a file of this owner, group, mode and list.
pub fn permits(cred: &Cred, want: u16, uid: u32, gid: u32, mode: u32, acl: Option<&[Entry]>) -> bool {
    let directory = mode & 0o170_000 == 0o040_000;
    if cred.uid == 0 {
        return directory || want & 1 == 0 || mode & 0o111 != 0;
    }
    let bits = |shift: u32| (mode >> shift) as u16 & 7;
    let grants = |perm: u16| perm & want == want;
    if cred.uid == uid {
        return grants(bits(6));
    }
    let Some(acl) = acl else {
        return grants(if cred.in_group(gid) { bits(3) } else { bits(0) });
    };
    let mask = acl.iter().find(|e| e.who == Who::Mask).map_or(7, |e| e.perm);
    if let Some(e) = acl.iter().find(|e| e.who == Who::User(cred.uid)) {
        return grants(e.perm & mask);
    }
    let mut in_some_group = false;
    for e in acl {
        let member = match e.who {
            Who::OwningGroup => cred.in_group(gid),
            Who::Group(g) => cred.in_group(g),
            _ => false,
        };
        in_some_group |= member;
        if member && grants(e.perm & mask) {
            return true;
        }
    }
    !in_some_group && grants(bits(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: u16, perm: u16, id: u32) -> Vec<u8> {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    }

    fn list() -> Vec<u8> {
        let none = u32::MAX;
        let mut v = vec![2, 0, 0, 0];
        for (tag, perm, id) in [(1, 6, none), (2, 6, 1234), (4, 4, none), (8, 7, 77), (0x10, 4, none), (0x20, 0, none)]
        {
            v.extend(entry(tag, perm, id));
        }
        v
    }

    #[test]
    fn decodes_and_refuses() {
        let l = decode(&list()).unwrap();
        assert_eq!(l[1], Entry { who: Who::User(1234), perm: 6 });
        assert_eq!(l[5], Entry { who: Who::Other, perm: 0 });
        assert!(decode(&list()[..21]).is_err());
        assert!(decode(&[1, 0, 0, 0]).is_err());
        assert!(decode(&[]).is_err());
    }

    #[test]
    fn new_files_and_modes_change_lists() {
        let l = decode(&list()).unwrap();
        assert_eq!(encode(&l), list());
        let mut mode = 0o100_666;
        let own = inherited(&l, &mut mode);
        assert_eq!(mode, 0o100_640);
        assert_eq!((own[0].perm, own[2].perm, own[4].perm, own[5].perm), (6, 4, 4, 0));
        let mut changed = l.clone();
        follow_mode(&mut changed, 0o427);
        assert_eq!(changed.iter().map(|e| e.perm).collect::<Vec<_>>(), [4, 6, 4, 7, 2, 7]);
        let bare: Vec<_> =
            l.iter().copied().filter(|e| matches!(e.who, Who::Owner | Who::OwningGroup | Who::Other)).collect();
        let mut mode = 0o040_777;
        inherited(&bare, &mut mode);
        assert_eq!(mode, 0o040_640);
    }

    #[test]
    fn the_mask_limits_named_entries() {
        let l = decode(&list()).unwrap();
        let who = |uid: u32, gid: u32| Cred { uid, gid, groups: vec![] };
        let may = |c: Cred, want| permits(&c, want, 10, 20, 0o100_640, Some(&l));
        assert!(may(who(10, 1), 6));
        assert!(may(who(1234, 1), 4) && !may(who(1234, 1), 2));
        assert!(may(who(9, 77), 4) && !may(who(9, 77), 1));
        assert!(may(who(9, 20), 4));
        assert!(!may(who(9, 9), 4));
        assert!(may(who(0, 0), 6) && !may(who(0, 0), 1));
    }

    #[test]
    fn without_a_list_the_mode_decides() {
        let c = Cred { uid: 5, gid: 6, groups: vec![20] };
        assert!(permits(&c, 4, 10, 20, 0o100_640, None));
        assert!(!permits(&c, 4, 10, 21, 0o100_640, None));
        assert!(!permits(&c, 4, 5, 20, 0o100_040, None));
    }
}
