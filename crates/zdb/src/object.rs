//! One object: its descriptor, what it holds, its tree of blocks, its data segments.

use crate::blocks::errno;
use crate::ctx::{Ctx, nice};
use crate::{bp, p, view};
use std::sync::Arc;
use zfs_codec::compress::zstd_header;
use zfs_dmu::objset::META_DNODE_OBJECT;
use zfs_dmu::{Dnode, Objset, Seek};
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};
use zfs_phys::{BlkPtr, dnode};
use zfs_spa::Result;
use zfs_zio::Zbookmark;

/// Which object types a range asks for (`A d f m z`).
pub mod select {
    /// Directories.
    pub const DIRECTORY: u64 = 1;
    /// Plain files.
    pub const PLAIN_FILE: u64 = 2;
    /// Space maps.
    pub const SPACE_MAP: u64 = 4;
    /// ZAPs.
    pub const ZAP: u64 = 8;
    /// All.
    pub const ALL: u64 = u64::MAX;
}

fn matches(t: DmuObjectType, flags: u64) -> bool {
    match t {
        DmuObjectType::DIRECTORY_CONTENTS => flags & select::DIRECTORY != 0,
        DmuObjectType::PLAIN_FILE_CONTENTS => flags & select::PLAIN_FILE != 0,
        DmuObjectType::SPACE_MAP => flags & select::SPACE_MAP != 0,
        t if view::type_name(t) == "zap" => flags & select::ZAP != 0,
        _ => flags | 15 == select::ALL,
    }
}

fn aux(c: &Ctx<'_>, dn: &Dnode, os: &Objset) -> String {
    let level = c.opts.lvl('d');
    let ph = dn.phys();
    let mut s = String::new();
    if ph.checksum != 0 || level >= 6 {
        let name = ChecksumKind::from_raw(ph.checksum).map_or("UNKNOWN", ChecksumKind::name);
        s.push_str(&format!(" (K={name})"));
    }
    if ph.compress == 0 {
        if level >= 6 {
            s.push_str(&format!(" (Z=inherit={})", c.compression_of(os)));
        }
    } else {
        let name = CompressKind::from_raw(ph.compress).map_or("UNKNOWN", CompressKind::name);
        s.push_str(&format!(" (Z={name})"));
    }
    s
}

/// Prints one object; gives its slots.
pub fn dump(c: &mut Ctx<'_>, os: &Arc<Objset>, object: u64, header: &mut bool, flags: u64) -> Result<u64> {
    let dn = os.dnode(object)?;
    if *header {
        let (o, l, i, d, z) = ("Object", "lvl", "iblk", "dblk", "dsize");
        p!(c.o, "\n{o:>10}  {l:>3}  {i:>5}  {d:>5}  {z:>5}  {:>6}  {:>5}  {:>6}  type\n", "dnsize", "lsize", "%full");
        *header = false;
    }
    let ph = dn.phys();
    if flags != 0 && flags != select::ALL && !matches(ph.object_type, flags) {
        return Ok(ph.slots() as u64);
    }
    let level = c.opts.lvl('d');
    let max = view::max_offset(&dn);
    let fill: u64 = ph.blkptrs().filter(|b| !b.is_hole()).map(BlkPtr::fill).fold(0, u64::saturating_add);
    let per_block = if object == META_DNODE_OBJECT { 32.0 } else { 1.0 };
    let full = 100.0 * fill as f64 * dn.datablksz() as f64 / per_block / max as f64;
    let n = |v| nice(c.opts, v);
    let asize = (ph.used_bytes().saturating_add(256) >> 9) << 9;
    let iblk = if ph.indblkshift == 0 { 0 } else { 1u64 << ph.indblkshift.min(63) };
    let shown = object as i64;
    p!(c.o, "{shown:10}  {:3}  {:>5}  {:>5}  {:>5}  ", ph.nlevels, n(iblk), n(dn.datablksz()), n(asize));
    let kind = view::type_name(ph.object_type);
    p!(c.o, "{:>6}  {:>5}  {full:6.2}  {kind}{}\n", n((ph.slots() as u64) << 9), n(max), aux(c, &dn, os));
    if ph.bonustype != DmuObjectType::NONE && level > 3 {
        let len = n(ph.bonus.len() as u64);
        p!(c.o, "{:45}{len:>5}   bonus  {}\n", "", view::type_name(ph.bonustype));
    }
    if level >= 4 {
        details(c, os, &dn);
        *header = true;
    }
    if level >= 5 {
        if let Some(spill) = &ph.spill {
            p!(c.o, "\nSpill block: {}\n", bp::compact(spill, false, level, c.opts.lvl('b')));
        }
        p!(c.o, "Indirect blocks:\n");
        for (i, b) in (0u64..).zip(ph.blkptrs()) {
            let bm = Zbookmark::new(os.id(), object, i64::from(ph.nlevels) - 1, i);
            let walked = indirect(c, &dn, b, &bm);
            c.complain(walked);
        }
        p!(c.o, "\n");
        let listed = segments(c, &dn, os);
        c.complain(listed);
    }
    Ok(ph.slots() as u64)
}

fn details(c: &mut Ctx<'_>, os: &Arc<Objset>, dn: &Arc<Dnode>) {
    let ph = dn.phys();
    let flag = |bit: u8, name: &'static str| if ph.flags & bit != 0 { name } else { "" };
    p!(
        c.o,
        "\tdnode flags: {}{}{}{}\n\tdnode maxblkid: {}\n",
        flag(dnode::DNODE_FLAG_USED_BYTES, "USED_BYTES "),
        flag(dnode::DNODE_FLAG_USERUSED_ACCOUNTED, "USERUSED_ACCOUNTED "),
        flag(dnode::DNODE_FLAG_USEROBJUSED_ACCOUNTED, "USEROBJUSED_ACCOUNTED "),
        flag(dnode::DNODE_FLAG_SPILL_BLKPTR, "SPILL_BLKPTR"),
        ph.maxblkid
    );
    let locked = os.is_encrypted() && os.key().is_none();
    if locked && ph.bonustype.is_encrypted() {
        p!(c.o, "\t\t(bonus encrypted)\n");
    } else {
        view::bonus(c, os, dn);
    }
    if locked && ph.object_type.is_encrypted() {
        p!(c.o, "\t\t(object encrypted)\n");
    } else {
        view::contents(c, os, dn);
    }
}

fn line(c: &mut Ctx<'_>, dn: &Dnode, b: &BlkPtr, bm: &Zbookmark) {
    let ph = dn.phys();
    let shift = (bm.level as u32).saturating_mul(u32::from(ph.indblkshift.saturating_sub(7)));
    let offset = bm.blkid.checked_shl(shift).unwrap_or(0).wrapping_mul(dn.datablksz());
    p!(c.o, "{offset:16x} ");
    for l in (-1..i64::from(ph.nlevels)).rev() {
        if l == bm.level {
            p!(c.o, "L{l:x}");
        } else {
            p!(c.o, " ");
        }
    }
    p!(c.o, "{}", bp::compact(b, false, c.opts.lvl('d'), c.opts.lvl('b')));
    if c.opts.has('Z') {
        zstd(c, b, bm);
    }
    if !b.is_embedded() {
        if b.object_type() != ph.object_type {
            let (t, want) = (b.object_type().0, ph.object_type.0);
            p!(c.o, " (ERROR: Block pointer type ({t}) does not match dnode type ({want}))");
            c.corrupt = true;
        }
        if i64::from(b.level()) != bm.level {
            let l = b.level();
            p!(c.o, " (ERROR: Block pointer level ({l}) does not match bookmark level ({}))", bm.level);
            c.corrupt = true;
        }
    }
    p!(c.o, "\n");
}

/// What a zstd block says of itself: compressed size, version of the library, level.
fn zstd(c: &mut Ctx<'_>, b: &BlkPtr, bm: &Zbookmark) {
    // The header of an encrypted block is encrypted too.
    if b.is_hole() || b.compress() != Some(CompressKind::Zstd) || b.is_encrypted() {
        return;
    }
    let (bytes, place) = if b.is_embedded() {
        (Ok(b.embedded_payload()), "EMBEDDED")
    } else {
        (c.pool.zio().read_raw(b, bm).map(|raw| raw.to_vec()), "NORMAL")
    };
    match bytes {
        Ok(bytes) => {
            if let Some(h) = zstd_header(&bytes) {
                p!(c.o, " ZSTD:size={}:version={}:level={}:{place}", h.len, h.version, h.level);
            }
        }
        Err(e) => {
            c.o.flush();
            eprintln!("read failed: {}", errno(e.kind()));
        }
    }
}

fn indirect(c: &mut Ctx<'_>, dn: &Dnode, b: &BlkPtr, bm: &Zbookmark) -> Result<()> {
    if b.birth() == 0 {
        return Ok(());
    }
    line(c, dn, b, bm);
    if b.level() == 0 || b.is_hole() || bm.level <= 0 || i64::from(b.level()) != bm.level || c.o.is_broken() {
        return Ok(());
    }
    let buf = c.pool.zio().clone().read(b, bm, None)?;
    let count = (buf.len() / 128) as u64;
    let mut fill = 0u64;
    for (i, raw) in (0u64..).zip(buf.chunks_exact(128)) {
        let child = BlkPtr::decode(raw, b.endian())?;
        let below = Zbookmark::new(bm.objset, bm.object, bm.level - 1, bm.blkid.wrapping_mul(count).wrapping_add(i));
        indirect(c, dn, &child, &below)?;
        fill = fill.wrapping_add(child.fill());
    }
    if fill != b.fill() {
        let have = b.fill();
        p!(c.o, "{:16x}: Block pointer fill ({have}) does not match calculated value ({fill})\n", 0);
        c.corrupt = true;
    }
    Ok(())
}

fn segment(c: &mut Ctx<'_>, start: u64, end: u64) {
    let size = nice(c.opts, end - start);
    p!(c.o, "\t\tsegment [{start:016x}, {end:016x}) size {size:>5}\n");
}

fn segments(c: &mut Ctx<'_>, dn: &Dnode, os: &Objset) -> Result<()> {
    if dn.phys().object_type == DmuObjectType::DNODE {
        // Of the array of dnodes, the slots that are in use.
        let mut open: Option<(u64, u64)> = None;
        for entry in os.objects() {
            let (object, d) = entry?;
            let (from, to) = (object << 9, (object + d.slots() as u64) << 9);
            match &mut open {
                Some(run) if run.1 == from => run.1 = to,
                _ => {
                    if let Some((a, b)) = open.replace((from, to)) {
                        segment(c, a, b);
                    }
                }
            }
        }
        if let Some((a, b)) = open {
            segment(c, a, b);
        }
        return Ok(());
    }
    // A single block whose size is no power of two counts as data, whether there is any or not, as in OpenZFS.
    let blksz = dn.datablksz();
    if !blksz.is_power_of_two() && blksz > 0 {
        segment(c, 0, blksz);
        return Ok(());
    }
    let mut at = 0;
    while let Some(start) = dn.next_offset(at, Seek::Data)? {
        let end = dn.next_offset(start, Seek::Hole)?.unwrap_or(u64::MAX);
        if end <= start {
            break;
        }
        segment(c, start, end);
        at = end;
    }
    Ok(())
}
