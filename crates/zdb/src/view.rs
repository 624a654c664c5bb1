//! What an object holds, by its type: tables, lists, descriptors of the dataset layer, name-value lists.

use crate::ctx::{Ctx, nice};
use crate::{bp, nvprint, p, text};
use std::sync::Arc;
use zfs_dmu::{Dnode, Objset, Zap};
use zfs_phys::bpobj::BpobjPhys;
use zfs_phys::dsl::{DslDatasetPhys, DslDirPhys};
use zfs_phys::enums::{ByteswapKind, DmuObjectType};
use zfs_phys::history::HistoryPhys;
use zfs_phys::read::u64_at;
use zfs_phys::sa::{SaAttr, SaSwap};
use zfs_phys::zap::Leaf;
use zfs_phys::zap::leaf::ARRAY_BYTES;
use zfs_phys::{BlkPtr, NvList};
use zfs_spa::Result;

/// Buckets of the histograms of fat ZAPs.
const BUCKETS: usize = 10;
/// Most bytes of an array that are shown.
const ARRAY_MAX: u64 = 1 << 20;
/// Entries whose bytes are shown in hexadecimal.
const HEX_NAMES: [&[u8]; 5] = [
    b"DSL_CRYPTO_MASTER_KEY_1",
    b"DSL_CRYPTO_HMAC_KEY_1",
    b"DSL_CRYPTO_IV",
    b"DSL_CRYPTO_MAC",
    b"org.illumos:checksum_salt",
];
const FILE_TYPES: [&str; 16] = [
    "not specified",
    "FIFO",
    "Character Device",
    "3 (invalid)",
    "Directory",
    "5 (invalid)",
    "Block Device",
    "7 (invalid)",
    "Regular File",
    "9 (invalid)",
    "Symbolic Link",
    "11 (invalid)",
    "Socket",
    "Door",
    "Event Port",
    "15 (invalid)",
];

/// Name of an object type in listings: new types go by their layout.
pub fn type_name(t: DmuObjectType) -> String {
    if t.0 & 0x80 == 0 || !t.is_valid() {
        return t.name();
    }
    t.name().split(' ').nth(1).unwrap_or("UNKNOWN").to_owned()
}

/// The enumerated type whose viewer serves a type.
fn viewer(t: DmuObjectType) -> DmuObjectType {
    if t.0 & 0x80 == 0 {
        return t;
    }
    match t.byteswap() {
        ByteswapKind::Zap => DmuObjectType::ZAP_OTHER,
        ByteswapKind::Uint64 => DmuObjectType::UINT64_OTHER,
        _ => DmuObjectType(54),
    }
}

/// Shows the bonus buffer.
pub fn bonus(c: &mut Ctx<'_>, os: &Arc<Objset>, dn: &Arc<Dnode>) {
    use DmuObjectType as T;
    let t = viewer(dn.phys().bonustype);
    let shown = match t {
        T::NONE => Ok(()),
        T::PACKED_NVLIST_SIZE | T::FUID_SIZE => packed_nvlist(c, dn),
        T::BPOBJ_HDR => bpobj(c, dn),
        T::DSL_DIR => dsl_dir(c, dn),
        T::DSL_DATASET => dsl_dataset(c, dn),
        T::SPA_HISTORY_OFFSETS => history_offsets(c, dn),
        T::ZNODE | T::SA => crate::znode::dump(c, os, dn),
        T::UINT64_OTHER | T::OBJECT_ARRAY => uint64_bonus(c, dn),
        T(n) if n >= 54 => {
            p!(c.o, "\tUNKNOWN OBJECT TYPE\n");
            Ok(())
        }
        _ => Ok(()),
    };
    c.complain(shown);
}

/// Shows the contents.
pub fn contents(c: &mut Ctx<'_>, os: &Arc<Objset>, dn: &Arc<Dnode>) {
    use DmuObjectType as T;
    let t = viewer(dn.phys().object_type);
    let shown = match t {
        T::DIRECTORY_CONTENTS => directory(c, os, dn),
        T::SA_ATTR_REGISTRATION => sa_attrs(c, os, dn),
        T::SA_ATTR_LAYOUTS => sa_layouts(c, os, dn),
        T::DDT_ZAP => Zap::open_dnode(os, dn.clone()).map(|z| zap_stats(c, &z)),
        T::OBJECT_ARRAY | T::UINT64_OTHER => uint64(c, dn),
        T::BPOBJ_SUBOBJ => subobjs(c, dn),
        T::ZNODE | T::SA => crate::znode::dump(c, os, dn),
        T(n) if n >= 54 => {
            p!(c.o, "\tUNKNOWN OBJECT TYPE\n");
            Ok(())
        }
        T(n) if T(n).is_zap() => zap(c, os, dn),
        _ => Ok(()),
    };
    c.complain(shown);
}

fn uint64_words(c: &mut Ctx<'_>, words: &[u64], more: bool) {
    let Some((first, rest)) = words.split_first() else {
        p!(c.o, "\t\t[]\n");
        return;
    };
    p!(c.o, "\t\t[{first:x}");
    for (i, w) in rest.iter().enumerate() {
        let sep = if (i + 1) % 4 == 0 { ",\n\t\t" } else { ", " };
        p!(c.o, "{sep}{w:x}");
    }
    p!(c.o, "{}]\n", if more { ", ... " } else { "" });
}

fn uint64_bonus(c: &mut Ctx<'_>, dn: &Dnode) -> Result<()> {
    if c.opts.lvl('d') >= 6 {
        let b = dn.bonus()?;
        let words: Vec<u64> = (0..b.len() / 8).filter_map(|i| u64_at(&b, i * 8, dn.phys().endian)).collect();
        uint64_words(c, &words, false);
    }
    Ok(())
}

fn object_words(dn: &Dnode, bytes: u64) -> Result<Vec<u64>> {
    let raw = dn.read_vec(0, bytes as usize)?;
    Ok((0..raw.len() / 8).filter_map(|i| u64_at(&raw, i * 8, dn.phys().endian)).collect())
}

/// Bytes up to the end of the last block.
pub fn max_offset(dn: &Dnode) -> u64 {
    dn.phys().maxblkid.saturating_add(1).saturating_mul(dn.datablksz())
}

fn uint64(c: &mut Ctx<'_>, dn: &Dnode) -> Result<()> {
    if c.opts.lvl('d') < 6 {
        return Ok(());
    }
    let size = max_offset(dn);
    let words = object_words(dn, size.min(ARRAY_MAX))?;
    uint64_words(c, &words, size > ARRAY_MAX);
    Ok(())
}

fn subobjs(c: &mut Ctx<'_>, dn: &Dnode) -> Result<()> {
    let words = object_words(dn, max_offset(dn).min(64 << 20))?;
    let used = words.iter().rposition(|w| *w != 0).map_or(0, |n| n + 1);
    words.iter().take(used).for_each(|w| p!(c.o, "\t{w}\n"));
    Ok(())
}

fn packed_nvlist(c: &mut Ctx<'_>, dn: &Dnode) -> Result<()> {
    let size = u64_at(&dn.bonus()?, 0, dn.phys().endian).unwrap_or(0).min(max_offset(dn));
    let raw = dn.read_vec(0, size as usize)?;
    match NvList::decode(&raw) {
        Ok(list) => nvprint::dump(c.o, &list, 8),
        Err(_) => p!(c.o, "got error 22 from nvlist_unpack\n"),
    }
    Ok(())
}

fn history_offsets(c: &mut Ctx<'_>, dn: &Dnode) -> Result<()> {
    let h = HistoryPhys::decode(&dn.bonus()?, dn.phys().endian)?;
    p!(c.o, "\t\tpool_create_len = {}\n\t\tphys_max_off = {}\n", h.pool_create_len, h.phys_max_off);
    p!(c.o, "\t\tbof = {}\n\t\teof = {}\n\t\trecords_lost = {}\n", h.bof, h.eof, h.records_lost);
    Ok(())
}

fn bpobj(c: &mut Ctx<'_>, dn: &Dnode) -> Result<()> {
    let h = BpobjPhys::decode(&dn.bonus()?, dn.phys().endian)?;
    let n = |v| nice(c.opts, v);
    p!(c.o, "\t\tnum_blkptrs = {}\n\t\tbytes = {}\n", h.num_blkptrs, n(h.bytes));
    // Fields behind the end of an old bonus buffer read as zeros, and are shown all the same.
    p!(c.o, "\t\tcomp = {}\n\t\tuncomp = {}\n", n(h.comp), n(h.uncomp));
    p!(c.o, "\t\tsubobjs = {}\n\t\tnum_subobjs = {}\n", h.subobjs, h.num_subobjs);
    p!(c.o, "\t\tnum_freed = {}\n", h.num_freed);
    if c.opts.lvl('d') < 5 {
        return Ok(());
    }
    for i in 0..h.num_blkptrs.min(max_offset(dn) / 128) {
        let raw = dn.read_vec(i * 128, 128)?;
        let bp = BlkPtr::decode(&raw, dn.phys().endian)?;
        let line = bp::compact(&bp, bp.word[11] & 1 != 0, c.opts.lvl('d'), c.opts.lvl('b'));
        p!(c.o, "\t{line}\n");
    }
    Ok(())
}

fn dsl_dir(c: &mut Ctx<'_>, dn: &Dnode) -> Result<()> {
    let d = DslDirPhys::decode(&dn.bonus()?, dn.phys().endian)?;
    let n = |v| nice(c.opts, v);
    p!(c.o, "\t\tcreation_time = {}\n", text::ctime(d.creation_time));
    p!(c.o, "\t\thead_dataset_obj = {}\n\t\tparent_dir_obj = {}\n", d.head_dataset_obj, d.parent_obj);
    p!(c.o, "\t\torigin_obj = {}\n\t\tchild_dir_zapobj = {}\n", d.origin_obj, d.child_dir_zapobj);
    p!(c.o, "\t\tused_bytes = {}\n\t\tcompressed_bytes = {}\n", n(d.used_bytes), n(d.compressed_bytes));
    p!(c.o, "\t\tuncompressed_bytes = {}\n\t\tquota = {}\n", n(d.uncompressed_bytes), n(d.quota));
    p!(c.o, "\t\treserved = {}\n\t\tprops_zapobj = {}\n", n(d.reserved), d.props_zapobj);
    p!(c.o, "\t\tdeleg_zapobj = {}\n\t\tflags = {:x}\n", d.deleg_zapobj, d.flags);
    let u = &d.breakdown;
    let parts = [
        ("HEAD", u.head),
        ("SNAP", u.snap),
        ("CHILD", u.child),
        ("CHILD_RSRV", u.child_reserved),
        ("REFRSRV", u.ref_reserved),
    ];
    parts.iter().for_each(|(name, v)| p!(c.o, "\t\tused_breakdown[{name}] = {}\n", nice(c.opts, *v)));
    p!(c.o, "\t\tclones = {}\n", d.clones);
    Ok(())
}

fn dsl_dataset(c: &mut Ctx<'_>, dn: &Dnode) -> Result<()> {
    let d = DslDatasetPhys::decode(&dn.bonus()?, dn.phys().endian)?;
    let n = |v| nice(c.opts, v);
    p!(c.o, "\t\tdir_obj = {}\n\t\tprev_snap_obj = {}\n", d.dir_obj, d.prev_snap_obj);
    p!(c.o, "\t\tprev_snap_txg = {}\n\t\tnext_snap_obj = {}\n", d.prev_snap_txg, d.next_snap_obj);
    p!(c.o, "\t\tsnapnames_zapobj = {}\n\t\tnum_children = {}\n", d.snapnames_zapobj, d.num_children);
    p!(c.o, "\t\tuserrefs_obj = {}\n\t\tcreation_time = {}\n", d.userrefs_obj, text::ctime(d.creation_time));
    p!(c.o, "\t\tcreation_txg = {}\n\t\tdeadlist_obj = {}\n", d.creation_txg, d.deadlist_obj);
    p!(c.o, "\t\tused_bytes = {}\n\t\tcompressed_bytes = {}\n", n(d.referenced_bytes), n(d.compressed_bytes));
    p!(c.o, "\t\tuncompressed_bytes = {}\n\t\tunique = {}\n", n(d.uncompressed_bytes), n(d.unique_bytes));
    p!(c.o, "\t\tfsid_guid = {}\n\t\tguid = {}\n\t\tflags = {:x}\n", d.fsid_guid, d.guid, d.flags);
    p!(c.o, "\t\tnext_clones_obj = {}\n\t\tprops_obj = {}\n", d.next_clones_obj, d.props_obj);
    p!(c.o, "\t\tbp = {}\n", bp::long(&d.bp));
    Ok(())
}

#[derive(Default)]
struct LeafStats {
    pointers: [u64; BUCKETS],
    fives: [u64; BUCKETS],
    tenths: [u64; BUCKETS],
    chunks: [u64; BUCKETS],
    buckets: [u64; BUCKETS],
}

fn bump(h: &mut [u64; BUCKETS], n: usize) {
    if let Some(v) = h.get_mut(n.min(BUCKETS - 1)) {
        *v += 1;
    }
}

impl LeafStats {
    fn add(&mut self, leaf: &Leaf<'_>, block_shift: u32, table_shift: u32) {
        let size = 1usize << block_shift;
        bump(&mut self.pointers, table_shift.saturating_sub(leaf.prefix_len) as usize);
        bump(&mut self.fives, usize::from(leaf.nentries) / 5);
        bump(&mut self.tenths, size.saturating_sub(usize::from(leaf.nfree) * (ARRAY_BYTES + 1)) * 10 / size);
        let hash_shift = block_shift.saturating_sub(5);
        let mut per_bucket = vec![0usize; 1 << hash_shift];
        for e in leaf.sorted().unwrap_or_default() {
            let name = usize::from(e.name_numints).div_ceil(ARRAY_BYTES);
            let value = (usize::from(e.value_numints) * usize::from(e.value_intlen)).div_ceil(ARRAY_BYTES);
            bump(&mut self.chunks, 1 + name + value);
            let down = 64u32.saturating_sub(hash_shift + leaf.prefix_len);
            let at = (e.hash.checked_shr(down).unwrap_or(0) as usize) & ((1 << hash_shift) - 1);
            per_bucket.iter_mut().skip(at).take(1).for_each(|n| *n += 1);
        }
        per_bucket.into_iter().for_each(|n| bump(&mut self.buckets, n));
    }
}

fn zap_stats(c: &mut Ctx<'_>, zap: &Zap) {
    let dn = zap.dnode();
    let Some(h) = zap.fat_header() else {
        p!(c.o, "\tmicrozap: {} bytes, {} entries\n", dn.datablksz(), zap.count());
        return;
    };
    let mut s = LeafStats::default();
    for blkid in 1..h.freeblk.min(dn.phys().maxblkid.saturating_add(1)) {
        if let Ok(Some((buf, endian))) = dn.read_block_endian(blkid)
            && let Ok(leaf) = Leaf::decode(&buf, endian)
        {
            s.add(&leaf, h.block_shift, h.ptrtbl.shift);
        }
    }
    let t = &h.ptrtbl;
    p!(c.o, "\tFat ZAP stats:\n\t\tPointer table:\n\t\t\t{} elements\n", 1u64.checked_shl(t.shift).unwrap_or(0));
    p!(c.o, "\t\t\tzt_blk: {}\n\t\t\tzt_numblks: {}\n\t\t\tzt_shift: {}\n", t.blk, t.numblks, t.shift);
    p!(c.o, "\t\t\tzt_blks_copied: {}\n\t\t\tzt_nextblk: {}\n", t.blks_copied, t.nextblk);
    p!(c.o, "\t\tZAP entries: {}\n\t\tLeaf blocks: {}\n", h.num_entries, h.num_leafs);
    p!(c.o, "\t\tTotal blocks: {}\n\t\tzap_block_type: 0x{:x}\n", h.freeblk, zfs_phys::zap::ZBT_HEADER);
    p!(c.o, "\t\tzap_magic: 0x{:x}\n\t\tzap_salt: 0x{:x}\n", zfs_phys::zap::ZAP_MAGIC, h.salt);
    let tables: [(&str, &[u64]); 5] = [
        ("Leafs with 2^n pointers:", &s.pointers),
        ("Blocks with n*5 entries:", &s.fives),
        ("Blocks n/10 full:", &s.tenths),
        ("Entries with n chunks:", &s.chunks),
        ("Buckets with n entries:", &s.buckets),
    ];
    for (title, values) in tables {
        p!(c.o, "\t\t{title}\n");
        text::histogram(c.o, values, 0);
    }
}

fn zap(c: &mut Ctx<'_>, os: &Arc<Objset>, dn: &Arc<Dnode>) -> Result<()> {
    let zap = Zap::open_dnode(os, dn.clone())?;
    zap_stats(c, &zap);
    p!(c.o, "\n");
    let words = zap.has_word_keys();
    for e in zap.iter() {
        let e = e?;
        match e.words().first() {
            Some(w) => p!(c.o, "\t\t0x{w:010}x = "),
            None => {
                p!(c.o, "\t\t");
                c.o.bytes(e.name());
                p!(c.o, " = ");
            }
        }
        let v = &e.value;
        if v.integer_length == 1 && !words {
            if HEX_NAMES.contains(&e.name()) {
                v.bytes().iter().for_each(|b| p!(c.o, "{b:02x}"));
            } else {
                c.o.bytes(&v.string());
            }
        } else if v.integer_length == 8 {
            v.u64s().iter().for_each(|w| p!(c.o, "{} ", *w as i64));
        } else if v.integer_length == 1 {
            v.bytes().iter().for_each(|w| p!(c.o, "{w} "));
        } else {
            v.u64s().iter().for_each(|w| p!(c.o, "{w} "));
        }
        p!(c.o, "\n");
    }
    Ok(())
}

fn directory(c: &mut Ctx<'_>, os: &Arc<Objset>, dn: &Arc<Dnode>) -> Result<()> {
    let zap = Zap::open_dnode(os, dn.clone())?;
    zap_stats(c, &zap);
    p!(c.o, "\n");
    for e in zap.iter() {
        let e = e?;
        let v = e.value.first();
        p!(c.o, "\t\t");
        c.o.bytes(e.name());
        let kind = FILE_TYPES.get((v >> 60) as usize).copied().unwrap_or_default();
        p!(c.o, " = {} (type: {kind})\n", v & ((1 << 48) - 1));
    }
    Ok(())
}

fn sa_attrs(c: &mut Ctx<'_>, os: &Arc<Objset>, dn: &Arc<Dnode>) -> Result<()> {
    let zap = Zap::open_dnode(os, dn.clone())?;
    zap_stats(c, &zap);
    p!(c.o, "\n");
    for e in zap.iter() {
        let e = e?;
        let raw = e.value.first();
        let a = SaAttr::decode(raw);
        let swap = match a.swap {
            SaSwap::U64 => 0,
            SaSwap::U32 => 1,
            SaSwap::U16 => 2,
            SaSwap::U8 => 3,
            SaSwap::Acl => 4,
            SaSwap::Unknown(n) => n,
        };
        p!(c.o, "\t\t");
        c.o.bytes(e.name());
        p!(c.o, " =  {raw:x} : [{}:{swap}:{}]\n", a.length, a.num);
    }
    Ok(())
}

fn sa_layouts(c: &mut Ctx<'_>, os: &Arc<Objset>, dn: &Arc<Dnode>) -> Result<()> {
    let zap = Zap::open_dnode(os, dn.clone())?;
    zap_stats(c, &zap);
    p!(c.o, "\n");
    for e in zap.iter() {
        let e = e?;
        p!(c.o, "\t\t");
        c.o.bytes(e.name());
        p!(c.o, " = [");
        e.value.u64s().iter().for_each(|n| p!(c.o, " {n} "));
        p!(c.o, "]\n");
    }
    Ok(())
}
