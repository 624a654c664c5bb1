//! Records of the intent log: every type, decoded into plain values.

use super::{LR_SIZE, TX_CI};
use crate::acl::{Ace, decode_aces, decode_old_aces};
use crate::blkptr::{BLKPTR_SIZE, BlkPtr};
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};

/// The name that OpenZFS's `zdb` prints for a record type, without the flag for ignored case.
pub const fn tx_name(txtype: u64) -> &'static str {
    match txtype {
        0 => "Total",
        1 => "TX_CREATE",
        2 => "TX_MKDIR",
        3 => "TX_MKXATTR",
        4 => "TX_SYMLINK",
        5 => "TX_REMOVE",
        6 => "TX_RMDIR",
        7 => "TX_LINK",
        8 => "TX_RENAME",
        9 => "TX_WRITE",
        10 => "TX_TRUNCATE",
        11 => "TX_SETATTR",
        12 => "TX_ACL_V0",
        13 => "TX_ACL_ACL",
        14 => "TX_CREATE_ACL",
        15 => "TX_CREATE_ATTR",
        16 => "TX_CREATE_ACL_ATTR",
        17 => "TX_MKDIR_ACL",
        18 => "TX_MKDIR_ATTR",
        19 => "TX_MKDIR_ACL_ATTR",
        20 => "TX_WRITE2",
        21 => "TX_SETSAXATTR",
        22 => "TX_RENAME_EXCHANGE",
        23 => "TX_RENAME_WHITEOUT",
        24 => "TX_CLONE_RANGE",
        _ => "TX_UNKNOWN",
    }
}

/// A record (`lr_t` and what follows it).
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// `TX_*` number without the flag for ignored case.
    pub txtype: u64,
    /// The request ignored case.
    pub ignore_case: bool,
    /// Length of the record, bytes.
    pub reclen: u64,
    /// Txg of the operation.
    pub txg: u64,
    /// Sequence number.
    pub seq: u64,
    /// The operation.
    pub body: RecordBody<'a>,
}

/// Optional attributes of a create or setattr record (`lr_attr_t`, `lr_attr_end_t`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attrs {
    /// Which attributes are set (`XAT_*` bits).
    pub mask: Vec<u32>,
    /// Their on/off values (`XAT0_*` bits).
    pub attrs: u64,
    /// Creation time: seconds, nanoseconds.
    pub crtime: [u64; 2],
    /// Scan stamp; its first word is the project id when that is set.
    pub scanstamp: [u8; 32],
}

/// Creation of a file, directory, symlink or attribute directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Create<'a> {
    /// Directory.
    pub dir: u64,
    /// New object.
    pub object: u64,
    /// Dnode slots of the new object.
    pub slots: u8,
    /// Mode.
    pub mode: u64,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Generation.
    pub gen_: u64,
    /// Creation time.
    pub crtime: [u64; 2],
    /// Device number.
    pub rdev: u64,
    /// Optional attributes.
    pub attrs: Option<Attrs>,
    /// Access control entries, when given.
    pub aces: Option<Vec<Ace>>,
    /// Flags of the ACL.
    pub acl_flags: u64,
    /// FUIDs that index `domains`.
    pub fuids: Vec<u64>,
    /// Domains of those FUIDs.
    pub domains: Vec<&'a [u8]>,
    /// Name.
    pub name: &'a [u8],
    /// Target of a symlink.
    pub target: Option<&'a [u8]>,
}

/// A rename in one of its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename<'a> {
    /// Source directory.
    pub src_dir: u64,
    /// Target directory.
    pub dst_dir: u64,
    /// Source name.
    pub src: &'a [u8],
    /// Target name.
    pub dst: &'a [u8],
}

/// The file left in place of the source by a rename with whiteout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whiteout {
    /// Object.
    pub object: u64,
    /// Dnode slots.
    pub slots: u8,
    /// Mode.
    pub mode: u64,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Generation.
    pub gen_: u64,
    /// Creation time.
    pub crtime: [u64; 2],
    /// Device number.
    pub rdev: u64,
}

/// A write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write<'a> {
    /// Object.
    pub object: u64,
    /// Byte offset in the object.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Block written ahead; a hole when the data is in the record.
    pub blkptr: BlkPtr,
    /// Data in the record.
    pub data: &'a [u8],
}

/// A change of attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAttr {
    /// Object.
    pub object: u64,
    /// Which of the fields apply.
    pub mask: u64,
    /// Mode.
    pub mode: u64,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Size.
    pub size: u64,
    /// Access time.
    pub atime: [u64; 2],
    /// Modification time.
    pub mtime: [u64; 2],
    /// Optional attributes.
    pub attrs: Option<Attrs>,
}

/// The operation of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordBody<'a> {
    /// Marks a commit; never on disk.
    Commit,
    /// Create, mkdir, mkxattr, symlink and their variants.
    Create(Box<Create<'a>>),
    /// Remove or rmdir.
    Remove {
        /// Directory.
        dir: u64,
        /// Name.
        name: &'a [u8],
    },
    /// Hard link.
    Link {
        /// Directory.
        dir: u64,
        /// Object linked.
        object: u64,
        /// New name.
        name: &'a [u8],
    },
    /// Rename, plain or exchanging.
    Rename(Rename<'a>),
    /// Rename that leaves a whiteout.
    RenameWhiteout(Rename<'a>, Whiteout),
    /// Write (`TX_WRITE`, `TX_WRITE2`).
    Write(Box<Write<'a>>),
    /// Truncate.
    Truncate {
        /// Object.
        object: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes; 0 for all to the end.
        length: u64,
    },
    /// Change of attributes.
    SetAttr(Box<SetAttr>),
    /// Change of an ACL in the form of version 0.
    AclV0 {
        /// Object.
        object: u64,
        /// Entries.
        aces: Vec<Ace>,
    },
    /// Change of an ACL.
    Acl {
        /// Object.
        object: u64,
        /// Flags of the ACL.
        flags: u64,
        /// Entries.
        aces: Vec<Ace>,
        /// FUIDs that index `domains`.
        fuids: Vec<u64>,
        /// Domains of those FUIDs.
        domains: Vec<&'a [u8]>,
    },
    /// Change of an extended attribute kept as system attribute.
    SetSaXattr {
        /// Object.
        object: u64,
        /// Name.
        name: &'a [u8],
        /// Value; empty removes it.
        value: &'a [u8],
    },
    /// Clone of a range of blocks.
    CloneRange {
        /// Object cloned into.
        object: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The file's block size.
        blksz: u64,
        /// The blocks.
        blkptrs: Vec<BlkPtr>,
    },
    /// A type this version does not know, or contents that make no sense (with the reason).
    Unknown(&'a [u8], Option<DecodeError>),
}

impl<'a> Record<'a> {
    /// Splits the first record off a run of records. An error tells that the framing does not hold; a body that does
    /// not decode is [`RecordBody::Unknown`].
    pub fn split(buf: &'a [u8], endian: Endian) -> Result<(Record<'a>, &'a [u8])> {
        let mut r = Reader::new(buf, endian, "intent log record");
        let [raw, reclen, txg, seq] = r.u64s()?;
        let len = usize::try_from(reclen).ok().filter(|&l| l >= LR_SIZE && l <= buf.len());
        let Some((record, tail)) = len.and_then(|l| buf.split_at_checked(l)) else {
            return Err(r.err(format!("length {reclen}, {} left", buf.len())));
        };
        let txtype = raw & !TX_CI;
        let body = record.get(LR_SIZE..).unwrap_or_default();
        let body = match decode_body(txtype, body, endian) {
            Ok(b) => b,
            Err(e) => RecordBody::Unknown(body, Some(e)),
        };
        Ok((Self { txtype, ignore_case: raw & TX_CI != 0, reclen, txg, seq, body }, tail))
    }

    /// Block pointers the record refers to: blocks that are allocated though no object has them yet.
    pub fn blkptrs(&self) -> &[BlkPtr] {
        match &self.body {
            RecordBody::Write(w) if !w.blkptr.is_hole() => std::slice::from_ref(&w.blkptr),
            RecordBody::CloneRange { blkptrs, .. } => blkptrs,
            _ => &[],
        }
    }
}

fn decode_body(txtype: u64, buf: &[u8], endian: Endian) -> Result<RecordBody<'_>> {
    let mut r = Reader::new(buf, endian, "intent log record");
    Ok(match txtype {
        0 => RecordBody::Commit,
        1..=4 | 14..=19 => RecordBody::Create(Box::new(create(&mut r, txtype)?)),
        5 | 6 => RecordBody::Remove { dir: r.u64()?, name: cstr(&mut r)? },
        7 => RecordBody::Link { dir: r.u64()?, object: r.u64()?, name: cstr(&mut r)? },
        8 | 22 => {
            let (src_dir, dst_dir) = (r.u64()?, r.u64()?);
            RecordBody::Rename(Rename { src_dir, dst_dir, src: cstr(&mut r)?, dst: cstr(&mut r)? })
        }
        23 => rename_whiteout(&mut r)?,
        9 | 20 => RecordBody::Write(Box::new(write(&mut r)?)),
        10 => RecordBody::Truncate { object: r.u64()?, offset: r.u64()?, length: r.u64()? },
        11 => RecordBody::SetAttr(Box::new(setattr(&mut r)?)),
        12 => {
            let (object, count) = (r.u64()?, r.u64()?);
            RecordBody::AclV0 { object, aces: decode_old_aces(rest(&mut r)?, endian, to_usize(&r, count)?)? }
        }
        13 => acl(&mut r)?,
        21 => {
            let (object, size) = (r.u64()?, r.u64()?);
            let name = cstr(&mut r)?;
            let size = to_usize(&r, size)?;
            RecordBody::SetSaXattr { object, name, value: r.bytes(size)? }
        }
        24 => clone_range(&mut r)?,
        _ => RecordBody::Unknown(buf, None),
    })
}

fn to_usize(r: &Reader<'_>, v: u64) -> Result<usize> {
    usize::try_from(v).map_err(|_| r.err(format!("{v} does not fit")))
}

fn rest<'a>(r: &mut Reader<'a>) -> Result<&'a [u8]> {
    r.bytes(r.remaining())
}

/// A zero-terminated string; records are padded, so the rest may be longer.
fn cstr<'a>(r: &mut Reader<'a>) -> Result<&'a [u8]> {
    let mut probe = r.clone();
    let tail = rest(&mut probe)?;
    let n = tail.iter().position(|&b| b == 0).ok_or_else(|| r.err("a name without end"))?;
    let s = r.bytes(n)?;
    r.skip(1)?;
    Ok(s)
}

/// Object number and slot count that share a word (`LR_FOID_GET_OBJ`, `LR_FOID_GET_SLOTS`).
const fn foid(raw: u64) -> (u64, u8) {
    (raw & ((1 << 48) - 1), ((raw >> 56) as u8).saturating_add(1))
}

fn attrs(r: &mut Reader<'_>) -> Result<Attrs> {
    let n = r.u32()? as usize;
    if n > r.remaining() / 4 {
        return Err(r.err(format!("attribute mask of {n} words")));
    }
    let mut mask = Vec::with_capacity(n);
    for _ in 0..n {
        mask.push(r.u32()?);
    }
    Ok(Attrs { mask, attrs: r.u64()?, crtime: r.u64s()?, scanstamp: r.array()? })
}

fn fuids<'a>(r: &mut Reader<'a>, fuidcnt: u64, domcnt: u64) -> Result<(Vec<u64>, Vec<&'a [u8]>)> {
    let left = r.remaining() as u64;
    if fuidcnt > left / 8 || domcnt > left {
        return Err(r.err(format!("{fuidcnt} FUIDs of {domcnt} domains")));
    }
    let ids = (0..fuidcnt).map(|_| r.u64()).collect::<Result<_>>()?;
    let domains = (0..domcnt).map(|_| cstr(r)).collect::<Result<_>>()?;
    Ok((ids, domains))
}

fn aces(r: &mut Reader<'_>, count: u64, bytes: u64) -> Result<Vec<Ace>> {
    let bytes = to_usize(r, bytes)?;
    let data = r.bytes(bytes)?;
    let pad = bytes.next_multiple_of(8) - bytes;
    r.skip(pad.min(r.remaining()))?;
    decode_aces(data, r.endian(), to_usize(r, count)?)
}

fn create<'a>(r: &mut Reader<'a>, txtype: u64) -> Result<Create<'a>> {
    let (dir, (object, slots)) = (r.u64()?, foid(r.u64()?));
    let [mode, uid, gid, gen_] = r.u64s()?;
    let (crtime, rdev) = (r.u64s()?, r.u64()?);
    let mut c = Create {
        dir,
        object,
        slots,
        mode,
        uid,
        gid,
        gen_,
        crtime,
        rdev,
        attrs: None,
        aces: None,
        acl_flags: 0,
        fuids: Vec::new(),
        domains: Vec::new(),
        name: &[],
        target: None,
    };
    let with_acl = matches!(txtype, 14 | 16 | 17 | 19);
    let with_attrs = matches!(txtype, 15 | 16 | 18 | 19);
    let [aclcnt, domcnt, fuidcnt, acl_bytes, acl_flags] = if with_acl { r.u64s()? } else { [0; 5] };
    if with_attrs {
        c.attrs = Some(attrs(r)?);
    }
    if with_acl {
        c.aces = Some(aces(r, aclcnt, acl_bytes)?);
        c.acl_flags = acl_flags;
        (c.fuids, c.domains) = fuids(r, fuidcnt, domcnt)?;
    }
    // A plain create whose owner needs a domain has the domain strings before the name, uncounted, so the name
    // is the last string there is. A symlink has exactly name and target.
    let mut strings = Vec::new();
    while strings.len() < 4 && r.remaining() > 0 {
        match cstr(r) {
            Ok(s) if !s.is_empty() || strings.is_empty() => strings.push(s),
            _ => break,
        }
    }
    if txtype == 4 {
        c.target = strings.pop();
    }
    c.name = strings.pop().ok_or_else(|| r.err("no name"))?;
    if !with_acl {
        c.domains = strings;
    }
    Ok(c)
}

fn rename_whiteout<'a>(r: &mut Reader<'a>) -> Result<RecordBody<'a>> {
    let (src_dir, dst_dir) = (r.u64()?, r.u64()?);
    let (object, slots) = foid(r.u64()?);
    let [mode, uid, gid, gen_] = r.u64s()?;
    let w = Whiteout { object, slots, mode, uid, gid, gen_, crtime: r.u64s()?, rdev: r.u64()? };
    Ok(RecordBody::RenameWhiteout(Rename { src_dir, dst_dir, src: cstr(r)?, dst: cstr(r)? }, w))
}

fn write<'a>(r: &mut Reader<'a>) -> Result<Write<'a>> {
    let [object, offset, length, _blkoff] = r.u64s()?;
    let blkptr = BlkPtr::read(r)?;
    let data = rest(r)?;
    // Data is padded to a multiple of 8 bytes.
    let data = usize::try_from(length).ok().and_then(|l| data.get(..l)).unwrap_or(data);
    Ok(Write { object, offset, length, blkptr, data })
}

fn setattr(r: &mut Reader<'_>) -> Result<SetAttr> {
    let [object, mask, mode, uid, gid, size] = r.u64s()?;
    let (atime, mtime) = (r.u64s()?, r.u64s()?);
    let attrs = if r.remaining() >= 64 { attrs(r).ok() } else { None };
    Ok(SetAttr { object, mask, mode, uid, gid, size, atime, mtime, attrs })
}

fn acl<'a>(r: &mut Reader<'a>) -> Result<RecordBody<'a>> {
    let object = r.u64()?;
    let [aclcnt, domcnt, fuidcnt, bytes, flags] = r.u64s()?;
    let aces = aces(r, aclcnt, bytes)?;
    let (fuids, domains) = fuids(r, fuidcnt, domcnt)?;
    Ok(RecordBody::Acl { object, flags, aces, fuids, domains })
}

fn clone_range<'a>(r: &mut Reader<'a>) -> Result<RecordBody<'a>> {
    let [object, offset, length, blksz, n] = r.u64s()?;
    if n > (r.remaining() / BLKPTR_SIZE) as u64 {
        return Err(r.err(format!("{n} block pointers")));
    }
    let blkptrs = (0..n).map(|_| BlkPtr::read(r)).collect::<Result<_>>()?;
    Ok(RecordBody::CloneRange { object, offset, length, blksz, blkptrs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rec(e: Endian, tx: u64, words: &[u64], tail: &[u8]) -> Vec<u8> {
        let len = (LR_SIZE + words.len() * 8 + tail.len()).next_multiple_of(8);
        let mut b: Vec<u8> = [tx, len as u64, 5, 9].iter().chain(words).flat_map(|w| e.put_u64(*w)).collect();
        b.extend(tail);
        b.resize(len, 0);
        b
    }

    fn body(b: &[u8], e: Endian) -> RecordBody<'_> {
        Record::split(b, e).unwrap().0.body
    }

    #[test]
    fn names() {
        for e in [Endian::Little, Endian::Big] {
            let b = rec(e, 8 | TX_CI, &[3, 4], b"from\0to\0");
            let (r, tail) = Record::split(&b, e).unwrap();
            assert!(tail.is_empty() && r.ignore_case);
            assert_eq!((r.txtype, r.txg, r.seq), (8, 5, 9));
            let want = Rename { src_dir: 3, dst_dir: 4, src: b"from", dst: b"to" };
            assert_eq!(r.body, RecordBody::Rename(want.clone()));
            let b = rec(e, 23, &[3, 4, (1 << 56) | 8, 1, 2, 3, 4, 5, 6, 7], b"from\0to\0");
            let RecordBody::RenameWhiteout(r, w) = body(&b, e) else { panic!() };
            assert_eq!((r, w.object, w.slots, w.rdev), (want, 8, 2, 7));
            assert_eq!(body(&rec(e, 6, &[3], b"d\0"), e), RecordBody::Remove { dir: 3, name: b"d" });
            let v = RecordBody::SetSaXattr { object: 3, name: b"user.a", value: b"xyz" };
            assert_eq!(body(&rec(e, 21, &[3, 3], b"user.a\0xyz"), e), v);
        }
    }

    #[test]
    fn creates() {
        let e = Endian::Little;
        let common = [2u64, 7, 0o120777, 10, 20, 30, 40, 41, 0];
        let b = rec(e, 4, &common, b"name\0target\0");
        let RecordBody::Create(c) = body(&b, e) else { panic!() };
        assert_eq!((c.dir, c.object, c.slots, c.name, c.target), (2, 7, 1, &b"name"[..], Some(&b"target"[..])));

        let mut words = common.to_vec();
        words.extend([1, 1, 1, 8, 3]); // one ACE, one domain, one FUID, 8 bytes of ACL
        let mut tail = Vec::new();
        tail.extend(3u32.to_le_bytes()); // attributes: three mask words
        tail.extend([0; 12]);
        tail.extend([0; 56]);
        tail.extend([0, 0, 0, 0x10, 0xff, 1, 0, 0]); // allow owner@
        tail.extend(77u64.to_le_bytes());
        tail.extend(b"S-1-5\0name\0");
        let b = rec(e, 16, &words, &tail);
        let RecordBody::Create(c) = body(&b, e) else { panic!() };
        assert_eq!((c.name, c.fuids.as_slice(), c.domains.as_slice()), (&b"name"[..], &[77][..], &[&b"S-1-5"[..]][..]));
        assert_eq!((c.aces.unwrap().len(), c.acl_flags, c.attrs.unwrap().mask.len()), (1, 3, 3));
    }

    #[test]
    fn writes_and_clones() {
        for e in [Endian::Little, Endian::Big] {
            let mut words = vec![5u64, 4096, 3, 0];
            words.extend([0; 16]);
            let b = rec(e, 9, &words, b"abc");
            let RecordBody::Write(w) = body(&b, e) else { panic!() };
            assert_eq!((w.object, w.offset, w.data), (5, 4096, &b"abc"[..]));
            let mut words = vec![5u64, 0, 131072, 131072, 1];
            words.extend([9; 16]);
            let b = rec(e, 24, &words, b"");
            assert_eq!(Record::split(&b, e).unwrap().0.blkptrs(), [BlkPtr { word: [9; 16] }]);
        }
    }

    #[test]
    fn nonsense_is_kept_with_its_reason() {
        let e = Endian::Little;
        let b = rec(e, 24, &[5, 0, 1, 1, 1000], b"");
        assert!(matches!(body(&b, e), RecordBody::Unknown(_, Some(_))));
        assert!(matches!(body(&rec(e, 99, &[], b""), e), RecordBody::Unknown(_, None)));
        assert!(Record::split(&[0; 32], e).is_err());
    }
}
