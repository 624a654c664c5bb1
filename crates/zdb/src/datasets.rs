//! `zdb -d`: datasets, their lists of dead blocks, bookmarks and objects.

use crate::ctx::{Ctx, nice};
use crate::object::{self, select};
use crate::znode::Files;
use crate::{bp, il, p};
use std::sync::Arc;
use zfs_dmu::bpobj::Bpobj;
use zfs_dmu::objset::{GROUPUSED_OBJECT, MAX_OBJECT, PROJECTUSED_OBJECT, USERUSED_OBJECT};
use zfs_dmu::{Objset, Zap};
use zfs_phys::dsl::{DeadlistPhys, DslDatasetPhys, DslDirPhys, RedactionListPhys};
use zfs_phys::enums::{CompressKind, DmuObjectType, ObjsetType};
use zfs_phys::feature::Feature;
use zfs_spa::Result;
use zfs_spa::dsl::figures::deadlist_entries;
use zfs_spa::dsl::{Dataset, Dir, PropValue};
use zfs_spa::keys::CryptInfo as KeyInfo;

/// Objects to dump, from a command line argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    start: u64,
    end: u64,
    flags: u64,
}

/// Negative numbers name the objects that account for space; 0 and up are what they are.
fn map_object(n: u64) -> u64 {
    n
}

impl Range {
    /// Parses `start[:end[:flags]]`.
    pub fn parse(s: &str) -> std::result::Result<Self, &'static str> {
        let number = |s: &str| match s.strip_prefix('-') {
            Some(n) => crate::opts::number(n).map(|n| n.wrapping_neg()),
            None => crate::opts::number(s),
        };
        if !s.contains(':') {
            let n = number(s).ok_or("Invalid characters in object ID")?;
            return Ok(Self { start: map_object(n), end: map_object(n), flags: 0 });
        }
        if s.starts_with(':') {
            return Err("Invalid leading colon");
        }
        if s.ends_with(':') {
            return Err("Invalid trailing colon");
        }
        let mut parts = s.split(':').filter(|p| !p.is_empty());
        let start = parts.next().and_then(number).ok_or("Invalid characters in start object ID")?;
        let end = parts.next().and_then(number).ok_or("Invalid characters in end object ID")?;
        if start > end {
            return Err("Start object ID may not exceed end object ID");
        }
        let flags = parts.next();
        if parts.next().is_some() {
            return Err("Invalid colon-delimited field after flags");
        }
        let flags = flags.map_or(Ok(select::ALL), parse_flags)?;
        Ok(Self { start: map_object(start), end: map_object(end), flags })
    }
}

fn parse_flags(s: &str) -> std::result::Result<u64, &'static str> {
    let (mut flags, mut negate) = (0u64, false);
    for ch in s.chars() {
        let bit = match ch {
            '-' => {
                negate = true;
                continue;
            }
            'A' => select::ALL,
            'd' => select::DIRECTORY,
            'f' => select::PLAIN_FILE,
            'm' => select::SPACE_MAP,
            'z' => select::ZAP,
            _ => return Err("Invalid flag"),
        };
        if negate {
            flags &= !bit;
        } else {
            flags |= bit;
        }
        negate = false;
    }
    if negate { Err("Invalid trailing negation operator") } else { Ok(flags) }
}

impl Ctx<'_> {
    /// Name of the compression that new blocks of a dataset get.
    pub fn compression_of(&self, os: &Objset) -> String {
        if os.id() == 0 {
            return "on".into();
        }
        let value = || {
            let ds = self.pool.dsl().ok()?.by_object(os.id()).ok()??;
            if ds.is_snapshot() {
                return Some(0);
            }
            match ds.prop("compression", true).ok()?? {
                (PropValue::Number(n), _) => Some(n),
                _ => None,
            }
        };
        let n = value().unwrap_or(1);
        let zstd_level = |l| if l > 100 { format!("zstd-fast-{}", l - 100) } else { format!("zstd-{l}") };
        match CompressKind::from_raw((n & 0x7f) as u8) {
            Some(CompressKind::Zstd) if n >> 7 == 0 => "zstd".into(),
            Some(CompressKind::Zstd) => zstd_level((n >> 7) & 0xff),
            Some(CompressKind::On) if self.pool.features().is_active(Feature::Lz4Compress) => "lz4".into(),
            Some(CompressKind::On) => "lzjb".into(),
            Some(k) => k.name().into(),
            None => "unknown".into(),
        }
    }
}

/// Calls `f` for every dataset in OpenZFS's order: what lies below, then snapshots, then the dataset itself.
pub fn each(c: &mut Ctx<'_>, dir: &Arc<Dir>, f: &mut dyn FnMut(&mut Ctx<'_>, &Arc<Dataset>)) -> Result<()> {
    let (pool, mos) = (c.pool.clone(), c.pool.mos().clone());
    let dsl = pool.dsl()?;
    if dir.phys.child_dir_zapobj != 0 {
        for e in Zap::open(&mos, dir.phys.child_dir_zapobj)?.iter() {
            let e = e?;
            if e.name().first() == Some(&b'$') {
                continue;
            }
            if let Some(child) = dsl.dir_by_object(e.value.first())? {
                each(c, &child, f)?;
            }
        }
    }
    let Some(head) = dsl.head(dir)? else { return Ok(()) };
    if head.phys.snapnames_zapobj != 0 {
        for e in Zap::open(&mos, head.phys.snapnames_zapobj)?.iter() {
            let name = String::from_utf8_lossy(e?.name()).into_owned();
            if let Some(snap) = head.snapshot(&name)? {
                f(c, &snap);
            }
        }
    }
    f(c, &head);
    Ok(())
}

/// Opens a dataset's object set with the key of `-K`, or without.
pub fn open(c: &Ctx<'_>, ds: &Dataset) -> Result<Arc<Objset>> {
    if let Some(key) = &c.opts.key
        && ds.is_encrypted()?
    {
        let dsl = c.pool.dsl()?;
        let root = match KeyInfo::of(&c.pool, &ds.dir)? {
            Some(info) => c.pool.encryption_root_name(&dsl, &info)?,
            None => None,
        };
        c.pool.load_key(root.as_deref().unwrap_or(ds.head_name()), key.as_bytes())?;
        return ds.open_objset(c.pool.key_of(ds)?);
    }
    ds.open_without_key()
}

fn type_text(t: ObjsetType) -> &'static str {
    t.name()
}

/// Prints the meta object set.
pub fn mos(c: &mut Ctx<'_>, ranges: &[Range]) {
    let mos = c.pool.mos().clone();
    let used = || {
        let dsl = c.pool.dsl().ok()?;
        let dir = dsl.root_dir().children().ok()?.get("$MOS").copied()?;
        dsl.dir_by_object(dir).ok()?.map(|d| d.phys.used_bytes)
    };
    let used = used().unwrap_or(0);
    head_line(c, "mos", "META", 0, 4, used, &mos, false);
    body(c, &mos, None, ranges);
}

#[allow(clippy::too_many_arguments, reason = "the fields of one line")]
fn head_line(c: &mut Ctx<'_>, name: &str, kind: &str, id: u64, txg: u64, used: u64, os: &Objset, inconsistent: bool) {
    let rootbp = if c.opts.lvl('d') >= 4 { format!(", rootbp {}", bp::long(&os.root_bp())) } else { String::new() };
    let mark = if inconsistent { " (inconsistent)" } else { "" };
    let (size, objects) = (nice(c.opts, used), os.root_bp().fill());
    p!(c.o, "Dataset {name} [{kind}], ID {id}, cr_txg {txg}, {size}, {objects} objects{rootbp}{mark}\n");
}

/// Prints a dataset.
pub fn dataset(c: &mut Ctx<'_>, ds: &Arc<Dataset>, ranges: &[Range]) {
    let os = match open(c, ds) {
        Ok(os) => os,
        Err(e) => {
            let name = &ds.name;
            c.o.flush();
            eprintln!("failed to hold dataset '{name}': {e}");
            return;
        }
    };
    let kind = type_text(os.phys().os_type);
    c.files = if os.phys().os_type == ObjsetType::Zfs { Files::of(&os) } else { None };
    let ph = &ds.phys;
    let (name, txg, used) = (ds.name.clone(), ph.creation_txg, ph.referenced_bytes);
    head_line(c, &name, kind, ds.object, txg, used, &os, ds.is_inconsistent());
    body(c, &os, Some(ds), ranges);
    c.files = None;
}

fn body(c: &mut Ctx<'_>, os: &Arc<Objset>, ds: Option<&Arc<Dataset>>, ranges: &[Range]) {
    let mut header = true;
    if !ranges.is_empty() {
        ranges.iter().for_each(|r| range(c, os, r, &mut header));
        p!(c.o, "\n");
        return;
    }
    if (c.opts.has('i') || c.opts.lvl('d') >= 2) && !ds.is_some_and(|d| d.is_snapshot()) {
        il::dump(c, os);
    }
    if let Some(ds) = ds {
        let listed = lists(c, ds);
        c.complain(listed);
    }
    if c.opts.lvl('d') >= 2 {
        objects(c, os, &mut header);
    }
}

fn range(c: &mut Ctx<'_>, os: &Arc<Objset>, r: &Range, header: &mut bool) {
    if r.start == 0 || r.start == r.end {
        if let Err(e) = object::dump(c, os, r.start, header, r.flags) {
            c.o.flush();
            eprintln!("zdb: dmu_object_info() failed, errno {}: {e}", crate::blocks::errno(e.kind()));
            c.corrupt = true;
        }
        if r.start == r.end {
            return;
        }
    }
    let mut at = r.start.saturating_sub(1);
    while let Ok(Some(object)) = os.next_object(at) {
        if object > r.end || c.o.is_broken() {
            return;
        }
        let shown = object::dump(c, os, object, header, r.flags).map(drop);
        c.complain(shown);
        at = object;
    }
}

fn objects(c: &mut Ctx<'_>, os: &Arc<Objset>, header: &mut bool) {
    let shown = object::dump(c, os, 0, header, 0).map(drop);
    c.complain(shown);
    for special in [USERUSED_OBJECT, GROUPUSED_OBJECT, PROJECTUSED_OBJECT] {
        if os.accounting_dnodes().any(|(n, _)| n == special) {
            let shown = object::dump(c, os, special, header, 0).map(drop);
            c.complain(shown);
        }
    }
    let (mut slots, mut last, mut at) = (0u64, 0u64, 0u64);
    loop {
        let object = match os.next_object(at) {
            Ok(Some(o)) if o < MAX_OBJECT && !c.o.is_broken() => o,
            Ok(_) => break,
            Err(e) => {
                c.complain(Err(e));
                break;
            }
        };
        let n = match object::dump(c, os, object, header, 0) {
            Ok(n) => n,
            Err(e) => {
                c.complain(Err(e));
                1
            }
        };
        slots += n;
        last = object + n - 1;
        at = object;
    }
    let empty = (last.saturating_sub(slots)) as f64 * 100.0 / last as f64;
    p!(c.o, "\n    Dnode slots:\n\tTotal used:    {slots:10}\n\tMax used:      {last:10}\n");
    p!(c.o, "\tPercent empty: {empty:10.6}\n\n");
    if c.leaked_objects != 0 {
        p!(c.o, "{} potentially leaked objects detected\n", c.leaked_objects);
        c.leaked_objects = 0;
    }
}

fn lists(c: &mut Ctx<'_>, ds: &Arc<Dataset>) -> Result<()> {
    let remaps = ds.field(zfs_phys::dsl::field::REMAP_DEADLIST)?.filter(|o| *o != 0);
    if c.opts.lvl('d') < 3 {
        if remaps.is_some() {
            p!(c.o, "ds_remap_deadlist:\n");
        }
        return Ok(());
    }
    deadlist(c, ds.phys.deadlist_obj, "Deadlist")?;
    if !ds.is_snapshot()
        && let Some(object) = ds.dir.field(zfs_phys::dsl::field::LIVELIST)?.filter(|o| *o != 0)
    {
        deadlist(c, object, "Livelist")?;
    }
    if let Some(object) = remaps {
        p!(c.o, "ds_remap_deadlist:\n");
        deadlist(c, object, "Deadlist")?;
    }
    bookmarks(c, ds)
}

/// Prints the lists that belong to no dataset with a name: those of destroyed clones, and of the empty snapshot that
/// every file system begins as a clone of.
pub fn unowned(c: &mut Ctx<'_>) -> Result<()> {
    if c.opts.lvl('d') < 3 {
        return Ok(());
    }
    let mos = c.pool.mos().clone();
    if let Some(table) = c.pool.directory().lookup_u64(b"com.delphix:deleted_clones")? {
        let lists = Zap::open(&mos, table)?.iter().map(|e| Ok(e?.value.first())).collect::<Result<Vec<u64>>>()?;
        for object in lists {
            deadlist(c, object, "Deleted Livelist")?;
        }
    }
    let bonus = |object: u64| {
        let dn = mos.dnode(object)?;
        Ok::<_, zfs_zio::Error>((dn.bonus()?.to_vec(), dn.phys().endian))
    };
    let dir = |object: u64| bonus(object).and_then(|(b, e)| Ok(DslDirPhys::decode(&b, e)?));
    let Some(root) = c.pool.directory().lookup_u64(b"root_dataset")? else { return Ok(()) };
    let children = dir(root)?.child_dir_zapobj;
    let Some(origin) = Zap::open(&mos, children)?.lookup_u64(b"$ORIGIN")? else { return Ok(()) };
    let dataset = |object: u64| bonus(object).and_then(|(b, e)| Ok(DslDatasetPhys::decode(&b, e)?));
    let head = dataset(dir(origin)?.head_dataset_obj)?;
    deadlist(c, head.deadlist_obj, "Deadlist")?;
    if head.prev_snap_obj != 0 {
        deadlist(c, dataset(head.prev_snap_obj)?.deadlist_obj, "Deadlist")?;
    }
    Ok(())
}

fn deadlist(c: &mut Ctx<'_>, object: u64, name: &str) -> Result<()> {
    if object == 0 {
        return Ok(());
    }
    let mos = c.pool.mos().clone();
    let dn = mos.dnode(object)?;
    if dn.phys().object_type == DmuObjectType::BPOBJ {
        return bpobj(c, object, "old-format deadlist", 0);
    }
    let d = DeadlistPhys::decode(&dn.bonus()?, dn.phys().endian)?;
    let entries = deadlist_entries(&mos, object)?;
    let n = |v| nice(c.opts, v);
    let count = n(entries.len() as u64);
    p!(c.o, "\n    {name}: {} ({}/{} comp), {count} entries\n", n(d.used), n(d.comp), n(d.uncomp));
    if c.opts.lvl('d') < 4 {
        return Ok(());
    }
    p!(c.o, "\n");
    for (txg, list) in entries {
        let title = format!("mintxg {txg} -> obj {list}");
        if c.opts.lvl('d') >= 5 {
            bpobj(c, list, &title, 0)?;
        } else {
            p!(c.o, "{title}\n");
        }
    }
    Ok(())
}

/// Prints a list of block pointers and, with enough verbosity, all it holds.
pub fn bpobj(c: &mut Ctx<'_>, object: u64, name: &str, indent: usize) -> Result<()> {
    let level = c.opts.lvl('d');
    if level < 3 || indent > 16 {
        return Ok(());
    }
    let list = Bpobj::open(c.pool.mos(), object)?;
    let h = *list.phys();
    let len = list.dnode().bonus()?.len();
    let n = |v| nice(c.opts, v);
    let width = indent * 8;
    let freed = if len >= 56 { format!("{} freed, ", h.num_freed) } else { String::new() };
    if len >= 48 && h.subobjs != 0 {
        let sizes = format!("{} ({}/{} comp)", n(h.bytes), n(h.comp), n(h.uncomp));
        p!(c.o, "    {name:>width$}: object {object}, {} local blkptrs, {freed}", h.num_blkptrs);
        p!(c.o, "{} subobjs in object {}, {sizes}\n", h.num_subobjs, h.subobjs);
        for sub in list.subobjs()? {
            bpobj(c, sub, "subobj", indent + 1)?;
        }
    } else {
        p!(c.o, "    {name:>width$}: object {object}, {} blkptrs, {freed}{}\n", h.num_blkptrs, n(h.bytes));
    }
    if level >= 5 && indent == 0 {
        newest_first(c, &list, 0)?;
        p!(c.o, "\n");
    }
    Ok(())
}

/// Prints all pointers of a list in the order in which they would be freed: its own from the end, then its lists'.
fn newest_first(c: &mut Ctx<'_>, list: &Bpobj, depth: usize) -> Result<()> {
    let (d, b) = (c.opts.lvl('d'), c.opts.lvl('b'));
    let mut lines = Vec::new();
    list.iterate_own(|ptr, freed| {
        lines.push(bp::compact(ptr, freed, d, b));
        Ok(())
    })?;
    lines.iter().rev().for_each(|l| p!(c.o, "\t{l}\n"));
    if depth < zfs_phys::bpobj::MAX_DEPTH {
        for sub in list.subobjs()?.into_iter().rev() {
            newest_first(c, &Bpobj::open(c.pool.mos(), sub)?, depth + 1)?;
        }
    }
    Ok(())
}

fn bookmarks(c: &mut Ctx<'_>, ds: &Arc<Dataset>) -> Result<()> {
    if c.opts.lvl('d') < 4 || ds.is_snapshot() {
        return Ok(());
    }
    for mark in ds.bookmarks()? {
        bookmark(c, &mark, c.opts.lvl('d') >= 5)?;
    }
    Ok(())
}

/// Prints a bookmark.
pub fn bookmark(c: &mut Ctx<'_>, mark: &zfs_spa::dsl::Bookmark, redaction: bool) -> Result<()> {
    let m = &mark.phys;
    let short = mark.name.rsplit('#').next().unwrap_or(&mark.name);
    p!(c.o, "\t#{short}: {{guid: {:x} creation_txg: {} ", m.guid, m.creation_txg);
    p!(c.o, "creation_time: {} redaction_obj: {}}}\n", m.creation_time, m.redaction_obj);
    if !redaction || m.redaction_obj == 0 {
        return Ok(());
    }
    let dn = c.pool.mos().dnode(m.redaction_obj)?;
    let r = RedactionListPhys::decode(&dn.bonus()?, dn.phys().endian)?;
    p!(c.o, "\tRedacted:\n\t\tProgress: ");
    if r.last_object == u64::MAX && r.last_blkid == u64::MAX {
        p!(c.o, "complete\n");
    } else {
        p!(c.o, "{} {} (incomplete)\n", r.last_object, r.last_blkid);
    }
    let snaps: Vec<String> = r.snaps.iter().map(u64::to_string).collect();
    p!(c.o, "\t\tSnapshots: [{}]\n\t\tLength: {}\n", snaps.join(", "), r.num_entries);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let all = select::ALL;
        assert_eq!(Range::parse("7"), Ok(Range { start: 7, end: 7, flags: 0 }));
        assert_eq!(Range::parse("-2").map(|r| r.start), Ok(u64::MAX - 1));
        assert_eq!(Range::parse("0:-1"), Ok(Range { start: 0, end: u64::MAX, flags: all }));
        assert_eq!(Range::parse("0:9:fd").map(|r| r.flags), Ok(3));
        assert_eq!(Range::parse("0:9:A-f").map(|r| r.flags), Ok(all & !select::PLAIN_FILE));
        for (bad, why) in
            [("x", "Invalid characters in object ID"), ("9:1", "Start object ID may not exceed end object ID")]
        {
            assert_eq!(Range::parse(bad), Err(why));
        }
    }
}
