//! Files: the attributes of a znode, its path, its short extended attributes.

use crate::ctx::Ctx;
use crate::{p, text};
use std::sync::Arc;
use zfs_dmu::sa::{SaHandle, SaRegistry, ZplAttr};
use zfs_dmu::{Dnode, Objset, Zap};
use zfs_phys::read::u64_at;
use zfs_phys::znode::{MASTER_NODE_OBJ, ZFS_PROJID, ZFS_XATTR};
use zfs_phys::{NvList, NvValue};
use zfs_spa::Result;

/// Longest chain of parents followed.
const MAX_DEPTH: usize = 4096;
const S_IFMT: u64 = 0o170_000;
const S_IFLNK: u64 = 0o120_000;
const S_IFDIR: u64 = 0o040_000;

/// What is kept of a file system while its objects are shown.
pub struct Files {
    registry: Arc<SaRegistry>,
    unlinked: Option<Zap>,
    domains: Vec<String>,
}

impl Files {
    /// Loads the attribute registry; nothing when the object set is no file system.
    pub fn of(os: &Arc<Objset>) -> Option<Self> {
        let master = Zap::open(os, MASTER_NODE_OBJ).ok()?;
        let registry = Arc::new(SaRegistry::load(os).ok()?);
        let object = |name: &[u8]| master.lookup_u64(name).ok().flatten().filter(|o| *o != 0);
        let unlinked = object(b"DELETE_QUEUE").and_then(|o| Zap::open(os, o).ok());
        let domains = object(b"FUID").and_then(|o| domains(os, o).ok()).unwrap_or_default();
        Some(Self { registry, unlinked, domains })
    }
}

fn domains(os: &Arc<Objset>, object: u64) -> Result<Vec<String>> {
    let dn = os.dnode(object)?;
    let size = u64_at(&dn.bonus()?, 0, dn.phys().endian).unwrap_or(0).min(crate::view::max_offset(&dn));
    let list = NvList::decode(&dn.read_vec(0, size as usize)?)?;
    let mut out = Vec::new();
    for l in list.lists("fuid_nvlist") {
        let idx = l.u64("fuid_idx").unwrap_or(0).min(65_536) as usize;
        if out.len() <= idx {
            out.resize(idx + 1, String::new());
        }
        if let Some(slot) = out.get_mut(idx) {
            *slot = l.str("fuid_domain").unwrap_or_default().to_owned();
        }
    }
    Ok(out)
}

fn name_in(os: &Arc<Objset>, dir: u64, object: u64) -> Option<Vec<u8>> {
    let zap = Zap::open(os, dir).ok()?;
    zap.iter().flatten().find(|e| e.value.first() & ((1 << 48) - 1) == object).map(|e| e.name().to_vec())
}

/// The path from the root of the file system; nothing when it cannot be told.
fn path(os: &Arc<Objset>, files: &Files, object: u64) -> Option<Vec<u8>> {
    let root = Zap::open(os, MASTER_NODE_OBJ).ok()?.lookup_u64(b"ROOT").ok()??;
    let mut out: Vec<u8> = Vec::new();
    let mut at = object;
    for _ in 0..MAX_DEPTH {
        let h = SaHandle::open(&files.registry, &os.dnode(at).ok()?).ok()?;
        let get = |a| h.get_u64(a).ok().flatten();
        let parent = get(ZplAttr::Parent)?;
        if at == root || parent == at {
            return Some(if out.is_empty() { b"/".to_vec() } else { out });
        }
        let is_dir = get(ZplAttr::Mode)? & S_IFMT == S_IFDIR;
        let mut part = b"/".to_vec();
        if get(ZplAttr::Flags)? & ZFS_XATTR != 0 && is_dir {
            part.extend_from_slice(b"<xattrdir>");
        } else {
            part.extend(name_in(os, parent, at)?);
        }
        part.append(&mut out);
        out = part;
        at = parent;
    }
    None
}

fn id(c: &mut Ctx<'_>, files: &Files, kind: &str, id: u64) {
    match (id >> 32) as usize {
        0 => p!(c.o, "\t{kind}     {id}\n"),
        idx => {
            let domain = files.domains.get(idx).map_or("", String::as_str);
            p!(c.o, "\t{kind}     {id:x} [{domain}-{}]\n", id as u32);
        }
    }
}

/// Prints the attributes.
pub fn dump(c: &mut Ctx<'_>, os: &Arc<Objset>, dn: &Arc<Dnode>) -> Result<()> {
    let Some(files) = c.files.take() else {
        p!(c.o, "Failed to get handle for SA znode\n");
        return Ok(());
    };
    let shown = match SaHandle::open(&files.registry, dn) {
        Ok(h) => attributes(c, os, &files, &h),
        Err(_) => {
            p!(c.o, "Failed to get handle for SA znode\n");
            Ok(())
        }
    };
    c.files = Some(files);
    shown
}

fn attributes(c: &mut Ctx<'_>, os: &Arc<Objset>, files: &Files, h: &SaHandle) -> Result<()> {
    use ZplAttr as A;
    let word = |a| h.get_u64(a);
    let time = |a| h.get_time(a);
    let all = (
        word(A::Uid)?,
        word(A::Gid)?,
        word(A::Links)?,
        word(A::Gen)?,
        word(A::Mode)?,
        word(A::Parent)?,
        word(A::Size)?,
    );
    let (Some(uid), Some(gid), Some(links), Some(gen_), Some(mode), Some(parent), Some(size)) = all else {
        return Ok(());
    };
    let Some(flags) = word(A::Flags)? else { return Ok(()) };
    if c.opts.lvl('d') > 4 {
        let object = h.dnode().object();
        let queued = files
            .unlinked
            .as_ref()
            .is_some_and(|q| q.lookup(format!("{object:x}").as_bytes()).ok().flatten().is_some());
        p!(c.o, "\tpath\t");
        match path(os, files, object) {
            _ if queued => p!(c.o, "on delete queue"),
            Some(path) => c.o.bytes(&path),
            None => {
                c.leaked_objects += 1;
                p!(c.o, "path not found, possibly leaked");
            }
        }
        p!(c.o, "\n");
    }
    if mode & S_IFMT == S_IFLNK
        && let Some((target, _)) = h.get(A::Symlink)?.filter(|(t, _)| !t.is_empty())
    {
        p!(c.o, "\ttarget\t");
        c.o.bytes(target.split(|b| *b == 0).next().unwrap_or_default());
        p!(c.o, "\n");
    }
    id(c, files, "uid", uid);
    id(c, files, "gid", gid);
    for (title, attr) in [("atime", A::Atime), ("mtime", A::Mtime), ("ctime", A::Ctime), ("crtime", A::Crtime)] {
        let secs = time(attr)?.map_or(0, |(s, _)| s);
        p!(c.o, "\t{title}\t{}\n", text::ctime(secs as u64));
    }
    p!(c.o, "\tgen\t{gen_}\n\tmode\t{mode:o}\n\tsize\t{size}\n\tparent\t{parent}\n\tlinks\t{links}\n");
    p!(c.o, "\tpflags\t{flags:x}\n");
    if flags & ZFS_PROJID != 0
        && os.phys().projectused_dnode.is_some()
        && let Some(v) = word(A::Projid)?
    {
        p!(c.o, "\tprojid\t{v}\n");
    }
    if let Some(v) = word(A::Xattr)? {
        p!(c.o, "\txattr\t{v}\n");
    }
    if let Some(v) = word(A::Rdev)? {
        p!(c.o, "\trdev\t0x{v:016x}\n");
    }
    xattrs(c, h)
}

fn xattrs(c: &mut Ctx<'_>, h: &SaHandle) -> Result<()> {
    let Some((packed, _)) = h.get(ZplAttr::Dxattr)?.filter(|(b, _)| !b.is_empty()) else { return Ok(()) };
    let Ok(list) = NvList::decode(packed) else { return Ok(()) };
    p!(c.o, "\tSA xattrs: {} bytes, {} entries\n\n", packed.len(), list.pairs.len());
    for (name, value) in &list.pairs {
        let NvValue::ByteArray(bytes) = value else { continue };
        p!(c.o, "\t\t{name} = ");
        if !c.opts.has('P') && bytes.iter().all(|b| (0x20..0x7f).contains(b)) {
            c.o.bytes(bytes);
        } else {
            bytes.iter().for_each(|b| p!(c.o, "\\{b:03o}"));
        }
        p!(c.o, "\n");
    }
    Ok(())
}
