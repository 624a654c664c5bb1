//! Intent logs: their header, blocks and records.

use crate::ctx::Ctx;
use crate::{bp, p, text};
use std::sync::Arc;
use zfs_dmu::{Objset, zil};
use zfs_phys::zil::{Create, Record, RecordBody, Rename, SetAttr, tx_name};
use zfs_phys::{BlkPtr, acl};

const TAB: &str = "\t\t\t";
const TYPES: usize = 25;
/// Bits of the attribute mask (include/os/linux/spl/sys/vnode.h).
const AT: [(u64, &str); 6] =
    [(0x2, "AT_MODE"), (0x4, "AT_UID"), (0x8, "AT_GID"), (0x80, "AT_SIZE"), (0x100, "AT_ATIME"), (0x200, "AT_MTIME")];

fn name(c: &mut Ctx<'_>, n: &[u8]) {
    c.o.bytes(n);
}

/// Prints the intent log of an object set.
pub fn dump(c: &mut Ctx<'_>, os: &Arc<Objset>) {
    let h = &os.phys().zil_header;
    let level = c.opts.lvl('d').max(c.opts.lvl('i'));
    if h.log.is_hole() || level < 1 {
        return;
    }
    p!(c.o, "\n    ZIL header: claim_txg {}, claim_blk_seq {}, ", h.claim_txg, h.claim_blk_seq);
    p!(c.o, "claim_lr_seq {} replay_seq {}, flags 0x{:x}\n", h.claim_lr_seq, h.replay_seq, h.flags);
    let checkpoint = c.pool.uberblock().checkpoint_txg;
    if level < 2 || (checkpoint != 0 && h.claim_txg == 0) {
        return;
    }
    p!(c.o, "\n");
    let min_claim = if checkpoint != 0 { checkpoint } else { c.pool.uberblock().txg } + 1;
    let mut counts = [0u64; TYPES];
    let locked = os.is_encrypted();
    {
        let c = std::cell::RefCell::new(&mut *c);
        let on_block = |b: &BlkPtr, _: &zfs_zio::Zbookmark| {
            block(&mut c.borrow_mut(), b, h.claim_txg, min_claim, level);
            Ok(())
        };
        let walked = zil::walk(os, on_block, |r| {
            let i = usize::try_from(r.txtype).unwrap_or(TYPES).min(TYPES - 1);
            for n in [i, 0] {
                counts.iter_mut().skip(n).take(1).for_each(|v| *v += 1);
            }
            record(&mut c.borrow_mut(), r, level, locked, min_claim);
            Ok(())
        });
        if let Err(e) = walked {
            c.borrow_mut().complain(Err(e));
        }
    }
    stats(c, &counts, level);
}

fn block(c: &mut Ctx<'_>, b: &BlkPtr, claim_txg: u64, min_claim: u64, level: u32) {
    if level <= 3 {
        return;
    }
    let claim = match claim_txg {
        0 if b.birth() >= min_claim => "will claim",
        0 => "won't claim",
        _ => "already claimed",
    };
    let seq = b.checksum()[zfs_phys::zil::ZIL_ZC_SEQ];
    let ptr = if level >= 5 { format!(", {}", bp::long(b)) } else { String::new() };
    p!(c.o, "\tBlock seqno {seq}, {claim}{ptr}\n");
}

fn stats(c: &mut Ctx<'_>, counts: &[u64; TYPES], level: u32) {
    if level > 3 {
        p!(c.o, "\n");
    }
    if counts[0] == 0 {
        return;
    }
    let w = counts[0].to_string().len();
    for (i, n) in counts.iter().enumerate() {
        if *n != 0 || level >= 3 {
            p!(c.o, "\t\t{:<19} {n:w$}\n", tx_name(i as u64));
        }
    }
    p!(c.o, "\n");
}

fn record(c: &mut Ctx<'_>, r: &Record<'_>, level: u32, locked: bool, min_claim: u64) {
    let ci = if r.ignore_case { "CI-" } else { "" };
    p!(c.o, "\t\t{ci}{:<19} len {:6}, txg {}, seq {}\n", tx_name(r.txtype), r.reclen, r.txg, r.seq);
    if level < 3 {
        return;
    }
    match &r.body {
        RecordBody::Write(w) if locked => {
            p!(c.o, "{TAB}(encrypted)\n");
            if level >= 4 && r.reclen == 192 {
                write_ptr(c, &w.blkptr, min_claim);
            }
        }
        _ if locked => p!(c.o, "{TAB}(encrypted)\n"),
        body => plain(c, r, body, level, min_claim),
    }
}

fn write_ptr(c: &mut Ctx<'_>, b: &BlkPtr, min_claim: u64) {
    let will = if !b.is_hole() && b.birth() >= min_claim { "will claim" } else { "won't claim" };
    p!(c.o, "{TAB}has blkptr, {will}\n{TAB}{}\n", bp::long(b));
}

fn plain(c: &mut Ctx<'_>, r: &Record<'_>, body: &RecordBody<'_>, level: u32, min_claim: u64) {
    match body {
        RecordBody::Create(x) => create(c, r.txtype, x),
        RecordBody::Remove { dir, name: n } => {
            p!(c.o, "{TAB}doid {dir}, name ");
            name(c, n);
            p!(c.o, "\n");
        }
        RecordBody::Link { dir, object, name: n } => {
            p!(c.o, "{TAB}doid {dir}, link_obj {object}, name ");
            name(c, n);
            p!(c.o, "\n");
        }
        RecordBody::Rename(x) => rename(c, r.txtype, x),
        RecordBody::RenameWhiteout(x, _) => rename(c, r.txtype, x),
        RecordBody::Write(w) => {
            p!(c.o, "{TAB}foid {}, offset {:x}, length {:x}\n", w.object, w.offset, w.length);
            if r.txtype == 20 || level < 4 {
                return;
            }
            if r.reclen == 192 {
                return write_ptr(c, &w.blkptr, min_claim);
            }
            if level < 5 {
                return;
            }
            let most = if level < 6 { 20 } else { w.data.len() };
            p!(c.o, "{TAB}");
            for b in w.data.iter().take(most) {
                if (0x20..0x7f).contains(b) {
                    p!(c.o, "{} ", char::from(*b));
                } else {
                    p!(c.o, "{b:2X}");
                }
            }
            p!(c.o, "\n");
        }
        RecordBody::Truncate { object, offset, length } => {
            p!(c.o, "{TAB}foid {object}, offset 0x{offset:x}, length 0x{length:x}\n");
        }
        RecordBody::SetAttr(x) => setattr(c, x),
        RecordBody::Acl { object, aces, .. } | RecordBody::AclV0 { object, aces } => {
            let _: &[acl::Ace] = aces;
            p!(c.o, "{TAB}foid {object}, aclcnt {}\n", aces.len());
        }
        RecordBody::SetSaXattr { object, name: n, value } => {
            p!(c.o, "{TAB}foid {object}\n{TAB}XAT_NAME  ");
            name(c, n);
            p!(c.o, "\n{TAB}XAT_VALUE  ");
            if value.is_empty() {
                p!(c.o, "NULL\n");
            } else {
                c.o.bytes(value);
            }
        }
        RecordBody::CloneRange { object, offset, length, blksz, blkptrs } => {
            p!(c.o, "{TAB}foid {object}, offset {offset:x}, length {length:x}, blksize {blksz:x}\n");
            if level >= 4 {
                for (i, b) in blkptrs.iter().enumerate() {
                    p!(c.o, "{TAB}[{}/{}] {}\n", i + 1, blkptrs.len(), bp::long(b));
                }
            }
        }
        RecordBody::Unknown(_, Some(why)) => p!(c.o, "{TAB}(not decodable: {why})\n"),
        RecordBody::Unknown(_, None) | RecordBody::Commit => {}
    }
}

fn create(c: &mut Ctx<'_>, txtype: u64, x: &Create<'_>) {
    if txtype != 3 {
        p!(c.o, "{TAB}");
        name(c, x.name);
        if let Some(target) = x.target {
            p!(c.o, " -> ");
            name(c, target);
        }
        p!(c.o, "\n");
    }
    p!(c.o, "{TAB}{}\n", text::ctime(x.crtime[0]));
    p!(c.o, "{TAB}doid {}, foid {}, slots {}, mode {:o}\n", x.dir, x.object, x.slots, x.mode);
    p!(c.o, "{TAB}uid {}, gid {}, gen {}, rdev 0x{:x}\n", x.uid, x.gid, x.gen_, x.rdev);
}

fn rename(c: &mut Ctx<'_>, txtype: u64, x: &Rename<'_>) {
    p!(c.o, "{TAB}sdoid {}, tdoid {}\n{TAB}src ", x.src_dir, x.dst_dir);
    name(c, x.src);
    p!(c.o, " tgt ");
    name(c, x.dst);
    p!(c.o, "\n");
    match txtype {
        22 => p!(c.o, "{TAB}flags RENAME_EXCHANGE\n"),
        23 => p!(c.o, "{TAB}flags RENAME_WHITEOUT\n"),
        _ => {}
    }
}

fn setattr(c: &mut Ctx<'_>, x: &SetAttr) {
    p!(c.o, "{TAB}foid {}, mask 0x{:x}\n", x.object, x.mask);
    for (bit, title) in AT.iter().filter(|(bit, _)| x.mask & bit != 0) {
        let time = |t: [u64; 2]| format!("{}.{:09} {}", t[0], t[1], text::ctime(t[0]));
        let value = match bit {
            0x2 => format!("{:o}", x.mode),
            0x4 => x.uid.to_string(),
            0x8 => x.gid.to_string(),
            0x80 => x.size.to_string(),
            0x100 => time(x.atime),
            _ => time(x.mtime),
        };
        p!(c.o, "{TAB}{title:<8} {value}\n");
    }
}
