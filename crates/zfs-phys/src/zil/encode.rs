//! The write half of the intent log: records and the blocks they are packed into.

use super::record::{Attrs, Create, Record, RecordBody, Rename, SetAttr, Whiteout, Write};
use super::{LR_SIZE, TX_CI, ZIL_CHAIN_SIZE, ZIL_ZC_SEQ};
use crate::acl::{encode_aces, encode_old_aces};
use crate::blkptr::BlkPtr;
use crate::error::Result;
use crate::read::Endian;
use crate::write::Writer;

/// Bytes of a write record's fields, which its data follows (`lr_write_t`).
pub const LR_WRITE_SIZE: usize = LR_SIZE + 32 + crate::blkptr::BLKPTR_SIZE;

impl Record<'_> {
    /// Encodes the record, padded to a multiple of 8 bytes. Its length is that of the encoding; `reclen` is ignored. The
    /// optional parts of a create must be those that its `TX_*` number names. An error when an object number or ACL
    /// does not fit its fields.
    pub fn encode(&self, endian: Endian) -> Result<Vec<u8>> {
        let mut w = Writer::new(endian, "intent log record", 256);
        let txtype = self.txtype | if self.ignore_case { TX_CI } else { 0 };
        w.u64s(&[txtype, 0, self.txg, self.seq]);
        put_body(&mut w, self.txtype, &self.body)?;
        w.align(8);
        let mut out = w.finish();
        let len = endian.put_u64(out.len() as u64);
        crate::write::put(&mut out, 8, &len);
        Ok(out)
    }
}

fn put_body(w: &mut Writer, txtype: u64, body: &RecordBody<'_>) -> Result<()> {
    match body {
        RecordBody::Commit => {}
        RecordBody::Create(c) => create(w, txtype, c)?,
        RecordBody::Remove { dir, name } => cstr(w.u64(*dir), name)?,
        RecordBody::Link { dir, object, name } => cstr(w.u64(*dir).u64(*object), name)?,
        RecordBody::Rename(r) => {
            w.u64(r.src_dir).u64(r.dst_dir);
            names(w, r)?;
        }
        RecordBody::RenameWhiteout(r, wh) => {
            w.u64(r.src_dir).u64(r.dst_dir);
            whiteout(w, wh)?;
            names(w, r)?;
        }
        RecordBody::Write(x) => write(w, x),
        RecordBody::Truncate { object, offset, length } => {
            w.u64s(&[*object, *offset, *length]);
        }
        RecordBody::SetAttr(s) => setattr(w, s),
        RecordBody::AclV0 { object, aces } => {
            let bytes = encode_old_aces(aces, w.endian())?;
            w.u64(*object).u64(aces.len() as u64).bytes(&bytes);
        }
        RecordBody::Acl { object, flags, aces, fuids, domains } => {
            let bytes = encode_aces(aces, w.endian());
            w.u64(*object).u64s(&[aces.len() as u64, domains.len() as u64, fuids.len() as u64]);
            w.u64(bytes.len() as u64).u64(*flags).bytes(&bytes).align(8);
            identities(w, fuids, domains)?;
        }
        RecordBody::SetSaXattr { object, name, value } => {
            cstr(w.u64(*object).u64(value.len() as u64), name)?;
            w.bytes(value);
        }
        RecordBody::CloneRange { object, offset, length, blksz, blkptrs } => {
            w.u64s(&[*object, *offset, *length, *blksz, blkptrs.len() as u64]);
            blkptrs.iter().for_each(|bp| {
                w.bp(bp);
            });
        }
        RecordBody::Unknown(bytes, _) => {
            w.bytes(bytes);
        }
    }
    Ok(())
}

fn cstr(w: &mut Writer, s: &[u8]) -> Result<()> {
    if s.contains(&0) {
        return Err(w.err("a name with a zero byte"));
    }
    w.bytes(s).u8(0);
    Ok(())
}

fn names(w: &mut Writer, r: &Rename<'_>) -> Result<()> {
    cstr(w, r.src)?;
    cstr(w, r.dst)
}

fn foid(w: &mut Writer, object: u64, slots: u8) -> Result<()> {
    if object >> 48 != 0 || !(1..=32).contains(&slots) {
        return Err(w.err(format!("object {object} of {slots} slots")));
    }
    w.u64(object | u64::from(slots - 1) << 56);
    Ok(())
}

fn attrs(w: &mut Writer, a: &Attrs) {
    w.u32(a.mask.len() as u32);
    a.mask.iter().for_each(|m| {
        w.u32(*m);
    });
    w.u64(a.attrs).u64s(&a.crtime).bytes(&a.scanstamp);
}

fn identities(w: &mut Writer, fuids: &[u64], domains: &[&[u8]]) -> Result<()> {
    w.u64s(fuids);
    domains.iter().try_for_each(|d| cstr(w, d))
}

fn create(w: &mut Writer, txtype: u64, c: &Create<'_>) -> Result<()> {
    w.u64(c.dir);
    foid(w, c.object, c.slots)?;
    w.u64s(&[c.mode, c.uid, c.gid, c.gen_]).u64s(&c.crtime).u64(c.rdev);
    let (with_acl, with_attrs) = (matches!(txtype, 14 | 16 | 17 | 19), matches!(txtype, 15 | 16 | 18 | 19));
    if with_acl != c.aces.is_some() || with_attrs != c.attrs.is_some() || (txtype == 4) != c.target.is_some() {
        return Err(w.err(format!("a create of type {txtype} with other parts than its own")));
    }
    let aces = c.aces.as_ref().map(|a| (a.len(), encode_aces(a, w.endian())));
    if let Some((count, bytes)) = &aces {
        w.u64s(&[*count as u64, c.domains.len() as u64, c.fuids.len() as u64, bytes.len() as u64, c.acl_flags]);
    }
    if let Some(a) = &c.attrs {
        attrs(w, a);
    }
    match &aces {
        Some((_, bytes)) => {
            w.bytes(bytes).align(8);
            identities(w, &c.fuids, &c.domains)?;
        }
        None => c.domains.iter().try_for_each(|d| cstr(w, d))?,
    }
    cstr(w, c.name)?;
    c.target.map_or(Ok(()), |t| cstr(w, t))
}

fn whiteout(w: &mut Writer, x: &Whiteout) -> Result<()> {
    foid(w, x.object, x.slots)?;
    w.u64s(&[x.mode, x.uid, x.gid, x.gen_]).u64s(&x.crtime).u64(x.rdev);
    Ok(())
}

fn write(w: &mut Writer, x: &Write<'_>) {
    w.u64s(&[x.object, x.offset, x.length, 0]).bp(&x.blkptr).bytes(x.data);
}

fn setattr(w: &mut Writer, s: &SetAttr) {
    w.u64s(&[s.object, s.mask, s.mode, s.uid, s.gid, s.size]).u64s(&s.atime).u64s(&s.mtime);
    if let Some(a) = &s.attrs {
        attrs(w, a);
    }
}

/// The checksum words of the pointer that follows one with `sum` in a chain.
pub fn next_sum(mut sum: [u64; 4]) -> [u64; 4] {
    if let Some(seq) = sum.get_mut(ZIL_ZC_SEQ) {
        *seq = seq.wrapping_add(1);
    }
    sum
}

/// Encodes a log block of `size` bytes with the chain structure at its front (`front`, checksum zilog2) or its end
/// (zilog), whose embedded checksum is left zero for the caller to seal. `next` must carry the checksum words of
/// [`next_sum`]. An error when the records do not fit.
pub fn encode_block(records: &[u8], next: &BlkPtr, size: usize, front: bool, endian: Endian) -> Result<Vec<u8>> {
    let used = if front { ZIL_CHAIN_SIZE.saturating_add(records.len()) } else { records.len() };
    let chain = |w: &mut Writer| {
        w.u64(0).bp(next).u64(used as u64).zeros(40);
    };
    let mut w = Writer::new(endian, "intent log block", size);
    if front {
        chain(&mut w);
        w.bytes(records).pad_to(size)?;
    } else {
        w.bytes(records).pad_to(size.saturating_sub(ZIL_CHAIN_SIZE))?;
        chain(&mut w);
    }
    Ok(w.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{Ace, AceWho};
    use crate::zil::ZilBlock;

    fn attributes() -> Attrs {
        Attrs { mask: vec![1, 2, 3], attrs: 5, crtime: [6, 7], scanstamp: [8; 32] }
    }

    fn creates() -> Vec<(u64, RecordBody<'static>)> {
        let ace = |who| Ace {
            ace_type: 0,
            flags: if who == AceWho::Owner { 0x1000 } else { 0 },
            access_mask: 7,
            who,
            object_guids: None,
        };
        let base = Create {
            dir: 2,
            object: 77,
            slots: 2,
            mode: 0o100644,
            uid: 1,
            gid: 2,
            gen_: 3,
            crtime: [4, 5],
            rdev: 6,
            attrs: None,
            aces: None,
            acl_flags: 0,
            fuids: Vec::new(),
            domains: Vec::new(),
            name: b"a name",
            target: None,
        };
        let mut out = Vec::new();
        for tx in [1, 2, 3, 4, 14, 15, 16, 17, 18, 19] {
            let mut c = base.clone();
            if matches!(tx, 14 | 16 | 17 | 19) {
                c.aces = Some(vec![ace(AceWho::Owner), ace(AceWho::User(9)), ace(AceWho::Owner)]);
                (c.acl_flags, c.fuids, c.domains) = (3, vec![1 << 32 | 5], vec![b"S-1-5".as_slice()]);
            }
            c.attrs = matches!(tx, 15 | 16 | 18 | 19).then(attributes);
            c.target = (tx == 4).then_some(b"to".as_slice());
            out.push((tx, RecordBody::Create(Box::new(c))));
        }
        out
    }

    fn all() -> Vec<(u64, RecordBody<'static>)> {
        let rename = Rename { src_dir: 3, dst_dir: 4, src: b"from", dst: b"to" };
        let white = Whiteout { object: 8, slots: 1, mode: 2, uid: 3, gid: 4, gen_: 5, crtime: [6, 7], rdev: 8 };
        let set = |attrs| SetAttr {
            object: 1,
            mask: 2,
            mode: 3,
            uid: 4,
            gid: 5,
            size: 6,
            atime: [7, 8],
            mtime: [9, 10],
            attrs,
        };
        let everyone = Ace { ace_type: 1, flags: 0x4003, access_mask: 9, who: AceWho::Everyone, object_guids: None };
        let data = Write { object: 5, offset: 4096, length: 3, blkptr: BlkPtr::default(), data: b"abc" };
        let acl = RecordBody::Acl { object: 4, flags: 1, aces: vec![everyone], fuids: vec![5], domains: vec![b"D"] };
        let bps = vec![BlkPtr { word: [9; 16] }; 2];
        let mut out = creates();
        out.extend([
            (5, RecordBody::Remove { dir: 3, name: b"d" }),
            (6, RecordBody::Remove { dir: 3, name: b"directory" }),
            (7, RecordBody::Link { dir: 3, object: 4, name: b"l" }),
            (8, RecordBody::Rename(rename.clone())),
            (9, RecordBody::Write(Box::new(data.clone()))),
            (20, RecordBody::Write(Box::new(Write { blkptr: BlkPtr { word: [3; 16] }, data: b"", ..data }))),
            (10, RecordBody::Truncate { object: 77, offset: 100, length: 50 }),
            (11, RecordBody::SetAttr(Box::new(set(None)))),
            (11, RecordBody::SetAttr(Box::new(set(Some(attributes()))))),
            (12, RecordBody::AclV0 { object: 4, aces: vec![everyone, everyone] }),
            (13, acl),
            (21, RecordBody::SetSaXattr { object: 3, name: b"user.a", value: b"xyz" }),
            (22, RecordBody::Rename(rename.clone())),
            (23, RecordBody::RenameWhiteout(rename, white)),
            (24, RecordBody::CloneRange { object: 5, offset: 0, length: 2, blksz: 1, blkptrs: bps }),
        ]);
        out
    }

    #[test]
    fn every_record_survives() {
        for e in [Endian::Little, Endian::Big] {
            for (txtype, body) in all() {
                let r = Record { txtype, ignore_case: txtype == 8, reclen: 0, txg: 9, seq: 4, body };
                let b = r.encode(e).unwrap();
                let (got, tail) = Record::split(&b, e).unwrap();
                assert!(tail.is_empty() && b.len().is_multiple_of(8));
                assert_eq!(got, Record { reclen: b.len() as u64, ..r });
                assert_eq!(got.encode(e).unwrap(), b);
            }
        }
    }

    #[test]
    fn blocks_survive_with_the_chain_at_either_end() {
        for e in [Endian::Little, Endian::Big] {
            for front in [false, true] {
                let mut bp = BlkPtr::default();
                bp.set_checksum_kind(if front {
                    crate::enums::ChecksumKind::Zilog2
                } else {
                    crate::enums::ChecksumKind::Zilog
                });
                bp.set_endian(e);
                bp.set_checksum([11, 12, 51, 1]);
                let mut next = bp;
                next.set_checksum(next_sum(bp.checksum()));
                let body = RecordBody::Remove { dir: 3, name: b"d" };
                let r = Record { txtype: 5, ignore_case: false, reclen: 48, txg: 1, seq: 1, body };
                let records = [r.encode(e).unwrap(), r.encode(e).unwrap()].concat();
                let block = encode_block(&records, &next, 4096, front, e).unwrap();
                let got = ZilBlock::decode(&block, &bp).unwrap();
                assert_eq!((block.len(), got.records, got.next), (4096, &records[..], next));
                assert!(got.iter().all(|x| x.unwrap() == r));
                assert!(encode_block(&[0; 4000], &next, 4096, front, e).is_err());
            }
        }
    }
}
