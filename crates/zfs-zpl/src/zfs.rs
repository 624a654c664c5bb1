//! One mounted dataset or snapshot: names to objects, objects to attributes and contents.
//!
//! Objects are addressed by their number in the dataset; trees and `.zfs` are the business of [`crate::Vfs`].
//! Everything from disk is checked before use: an object is a file only if it has attributes, a directory only if its
//! mode says so, and no size or name is believed beyond what its object can hold.

use crate::attr::{AclType, Attr, CaseMode, FileKind, MountOptions};
use crate::cache::ZnodeCache;
use crate::vfs::INO_SNAPDIRS;
use crate::write::Writer;
use crate::znode::Znode;
use std::sync::Arc;
use zfs_dmu::sa::SaRegistry;
use zfs_dmu::zap::{MatchMode, Zap, ZapValue};
use zfs_dmu::{Objset, Seek};
use zfs_phys::zap::{NORM_TOUPPER, ZAP_MAXNAMELEN_NEW};
use zfs_phys::znode::{Dirent, MASTER_NODE_OBJ, ZFS_XATTR};
use zfs_zio::{Buf, Error, ErrorKind, Result};

/// Newest ZPL version known.
pub(crate) const ZPL_VERSION: u64 = 5;
/// Most bytes that one read gives.
const MAX_READ: usize = 64 << 20;
/// Deepest path that [`Zfs::path_of`] follows.
const MAX_DEPTH: usize = 4096;
/// Longest name that any dataset can hold, bytes.
const MAX_NAME: usize = ZAP_MAXNAMELEN_NEW - 1;

/// Whether the dataset folds case (`casesensitivity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseSensitivity {
    /// Names that differ in case are different.
    Sensitive,
    /// They are the same.
    Insensitive,
    /// They are different, but can be asked for without regard to case.
    Mixed,
}

/// A piece of a file: part of a cached block, or zeros where the file has a hole.
#[derive(Debug, Clone)]
pub struct Slice {
    buf: Buf,
    start: usize,
    len: usize,
}

impl Slice {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.buf.get(self.start..self.start + self.len).unwrap_or_default()
    }
}

impl std::ops::Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// An entry as a directory stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Object number of the file.
    pub object: u64,
    /// Its kind, if the entry tells.
    pub kind: Option<FileKind>,
    /// Cookie at which reading continues behind this entry.
    pub next: u64,
}

/// What the master node says.
#[derive(Debug, Clone)]
struct Master {
    root: u64,
    case: CaseSensitivity,
    normflags: u64,
    utf8only: bool,
    unlinked_set: u64,
}

/// A mounted dataset or snapshot. See the module's description.
pub struct Zfs {
    objset: Arc<Objset>,
    options: MountOptions,
    master: Master,
    registry: Arc<SaRegistry>,
    pub(crate) cache: ZnodeCache,
    zeros: Buf,
    pub(crate) writer: Option<Writer>,
}

impl std::fmt::Debug for Zfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Zfs(objset {})", self.objset.id())
    }
}

impl Master {
    fn load(objset: &Arc<Objset>) -> Result<Self> {
        let zap = Zap::open(objset, MASTER_NODE_OBJ)?;
        let number = |name: &str, default: u64| Ok::<_, Error>(zap.lookup_u64(name.as_bytes())?.unwrap_or(default));
        let root = number("ROOT", 0)?;
        if root == 0 {
            return Err(Error::corrupt("the master node names no root"));
        }
        let version = number("VERSION", 1)?;
        if version == 0 || version > ZPL_VERSION {
            return Err(Error::unsupported(format!("file system version {version}")));
        }
        let case = match number("casesensitivity", 0)? {
            0 => CaseSensitivity::Sensitive,
            1 => CaseSensitivity::Insensitive,
            2 => CaseSensitivity::Mixed,
            n => return Err(Error::unsupported(format!("case sensitivity {n}"))),
        };
        let mut normflags = number("normalization", 0)?;
        if case != CaseSensitivity::Sensitive {
            normflags |= NORM_TOUPPER;
        }
        Ok(Self {
            root,
            case,
            normflags,
            utf8only: number("utf8only", 0)? != 0,
            unlinked_set: number("DELETE_QUEUE", 0)?,
        })
    }
}

impl Zfs {
    /// Mounts an objset. Fails with [`ErrorKind::Unsupported`] on a newer file system version, and with
    /// [`ErrorKind::KeyUnavailable`] when the dataset is encrypted and was opened without its key.
    pub fn mount(objset: Arc<Objset>, options: MountOptions) -> Result<Arc<Self>> {
        Self::mount_with(objset, options, None)
    }

    /// Mounts an objset that was opened for writing, so that files can be changed. Fails as [`Zfs::mount`] does.
    pub fn mount_writable(objset: Arc<Objset>, options: MountOptions, writer: Writer) -> Result<Arc<Self>> {
        let zfs = Self::mount_with(objset, options, Some(writer))?;
        crate::write::owner::account(&zfs.objset, zfs.objset.phys().flags)?;
        zfs.replay_log()?;
        Ok(zfs)
    }

    fn mount_with(objset: Arc<Objset>, options: MountOptions, writer: Option<Writer>) -> Result<Arc<Self>> {
        let master = Master::load(&objset).map_err(|e| e.context("mounting"))?;
        let registry = Arc::new(SaRegistry::load(&objset).map_err(|e| e.context("mounting"))?);
        let cache = ZnodeCache::new(options.cached_files);
        let zfs = Self { objset, options, master, registry, cache, zeros: Buf::zeroed(128 << 10), writer };
        let root = zfs.znode(zfs.root()).map_err(|e| e.context("reading the root directory"))?;
        root.require_dir()?;
        Ok(Arc::new(zfs))
    }

    /// A file system that is being made: it has no root yet.
    pub(crate) fn unfinished(
        objset: Arc<Objset>,
        registry: Arc<SaRegistry>,
        normflags: u64,
        options: MountOptions,
        writer: Writer,
    ) -> Self {
        let case = CaseSensitivity::Sensitive;
        let master = Master { root: 0, case, normflags, utf8only: false, unlinked_set: 0 };
        let cache = ZnodeCache::new(options.cached_files);
        Self { objset, options, master, registry, cache, zeros: Buf::zeroed(512), writer: Some(writer) }
    }

    /// Object number of the root directory.
    pub fn root(&self) -> u64 {
        self.master.root
    }

    /// Number of the objset.
    pub fn objset_id(&self) -> u64 {
        self.objset.id()
    }

    /// The objset.
    pub fn objset(&self) -> &Arc<Objset> {
        &self.objset
    }

    /// How it was mounted.
    pub fn options(&self) -> &MountOptions {
        &self.options
    }

    /// File system version, 1 to 5.
    pub fn version(&self) -> u64 {
        self.registry.version()
    }

    /// How case is treated.
    pub fn case(&self) -> CaseSensitivity {
        self.master.case
    }

    /// Normalization flags of names (`zfs_phys::zap::NORM_*`), case folding included.
    pub fn normflags(&self) -> u64 {
        self.master.normflags
    }

    /// Whether names are UTF-8 only.
    pub fn utf8only(&self) -> bool {
        self.master.utf8only
    }

    /// Object number of the set of removed files that were open at the last crash; 0 when there is none.
    pub fn unlinked_set(&self) -> u64 {
        self.master.unlinked_set
    }

    /// The attributes that files of the dataset can have.
    pub fn registry(&self) -> &Arc<SaRegistry> {
        &self.registry
    }

    /// A file, decoded. Fails with [`ErrorKind::NotFound`] when there is no such object, [`ErrorKind::Invalid`] when it is
    /// no file.
    pub fn znode(&self, object: u64) -> Result<Arc<Znode>> {
        if let Some(hit) = self.cache.get(object) {
            return Ok(hit);
        }
        let changes = self.cache.changes(object);
        let dnode = self.objset.dnode(object)?;
        let znode = Arc::new(Znode::load(dnode, &self.registry)?);
        Ok(self.cache.put(object, znode, changes))
    }

    /// The inode number under which an object is shown.
    pub fn shown_ino(&self, object: u64) -> u64 {
        if self.options.snapshot && object == self.root() {
            INO_SNAPDIRS.wrapping_sub(self.objset.id())
        } else {
            object
        }
    }

    /// Attributes.
    pub fn getattr(&self, object: u64) -> Result<Attr> {
        let znode = self.znode(object)?;
        let mut attr = znode.attr().clone();
        if self.is_writable() {
            attr.blocks = znode.blocks_now();
        }
        attr.ino = self.shown_ino(object);
        if attr.blksize == 0 {
            attr.blksize = self.options.recordsize;
        }
        Ok(attr)
    }

    /// How names of this dataset are looked up; nothing when they are compared byte by byte.
    pub(crate) fn norm_mode(&self, case: CaseMode) -> Option<MatchMode> {
        if self.master.normflags == 0 {
            return None;
        }
        let exact = match self.master.case {
            CaseSensitivity::Insensitive => case == CaseMode::Exact,
            CaseSensitivity::Mixed => case != CaseMode::Ignore,
            CaseSensitivity::Sensitive => false,
        };
        Some(if exact { MatchMode::NormalizeMatchCase } else { MatchMode::Normalize })
    }

    /// Finds `name` in a directory; gives the object number.
    pub fn lookup(&self, dir: u64, name: &[u8], case: CaseMode) -> Result<u64> {
        let _unchanged = self.lock_shared(dir);
        self.lookup_locked(dir, name, case)
    }

    /// [`Zfs::lookup`] for who holds a lock of the directory.
    pub(crate) fn lookup_locked(&self, dir: u64, name: &[u8], case: CaseMode) -> Result<u64> {
        let znode = self.znode(dir)?;
        znode.require_dir()?;
        match name {
            b"" => return Err(Error::invalid("looking up an empty name")),
            b"." => return Ok(dir),
            b".." => return Ok(if dir == self.root() { dir } else { znode.parent() }),
            _ => {}
        }
        if name.len() > MAX_NAME {
            return Err(Error::new(ErrorKind::NameTooLong, "looking up a name"));
        }
        let zap = Zap::open_dnode(&self.objset, znode.dnode().clone())?;
        // More than one integer is allowed; the first is the entry.
        let found = match self.norm_mode(case) {
            Some(mode) => zap.lookup_norm(name, mode)?.map(|m| m.value),
            None => zap.lookup(name)?,
        };
        let value = found.filter(is_dirent).ok_or_else(|| match name.len() > 255 && !self.options.longname {
            // Long names that were made while they were allowed are found; none can be made now.
            true => Error::new(ErrorKind::NameTooLong, "looking up a name"),
            false => Error::not_found("looking up a name"),
        })?;
        Ok(Dirent::decode(value.first()).object)
    }

    /// Lists the entries that a directory stores, from `cookie`: 3 for the start, else as handed out. Names that no
    /// operating system can show are left out.
    pub fn readdir(&self, dir: u64, cookie: u64, emit: &mut dyn FnMut(&StoredEntry<'_>) -> bool) -> Result<()> {
        let _unchanged = self.lock_shared(dir);
        let znode = self.znode(dir)?;
        znode.require_dir()?;
        let zap = Zap::open_dnode(&self.objset, znode.dnode().clone())?;
        let mut cursor = zap.cursor(if cookie <= 3 { 0 } else { cookie });
        while let Some(entry) = cursor.next_entry()? {
            let name = entry.name();
            if !is_dirent(&entry.value)
                || name.is_empty()
                || name == b"."
                || name == b".."
                || name.contains(&b'/')
                || name.contains(&0)
            {
                tracing::warn!(objset = self.objset.id(), dir, "directory entry that cannot be shown");
                continue;
            }
            let d = Dirent::decode(entry.value.first());
            let kind = FileKind::of_dirent(d.dtype);
            if !emit(&StoredEntry { name, object: d.object, kind, next: entry.next_cookie }) {
                break;
            }
        }
        Ok(())
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, object: u64) -> Result<Vec<u8>> {
        self.znode(object)?.symlink(&self.registry)
    }

    /// Reads up to `len` bytes (at most 64 MiB) as slices of cached blocks. With `once` the caller caches what it
    /// reads: blocks that it has read to their end are dropped here.
    pub(crate) fn read(&self, znode: &Znode, offset: u64, len: usize, once: bool) -> Result<Vec<Slice>> {
        let left = znode.size().saturating_sub(offset);
        let len = len.min(MAX_READ).min(usize::try_from(left).unwrap_or(usize::MAX));
        let dnode = znode.dnode();
        let blksz = dnode.datablksz();
        if blksz == 0 {
            return Err(Error::corrupt(format!("file {} has blocks of no size", dnode.object())));
        }
        let mut out = Vec::with_capacity(len / blksz as usize + 2);
        let (mut at, mut rest) = (offset, len);
        dnode.expect(offset, len as u64);
        while rest > 0 {
            let skip = (at % blksz) as usize;
            let n = rest.min(blksz as usize - skip);
            let blkid = at / blksz;
            match dnode.read_expected(blkid)? {
                Some(buf) if buf.len() >= skip + n => out.push(Slice { buf, start: skip, len: n }),
                Some(buf) => {
                    let mut padded = buf.get(skip..).unwrap_or_default().to_vec();
                    padded.resize(n, 0);
                    out.push(Slice { buf: Buf::from(padded), start: 0, len: n });
                }
                None => self.push_zeros(&mut out, n),
            }
            at += n as u64;
            rest -= n;
            if once && (at % blksz == 0 || at == znode.size()) {
                dnode.release_block(blkid);
            }
        }
        Ok(out)
    }

    fn push_zeros(&self, out: &mut Vec<Slice>, mut n: usize) {
        while n > 0 {
            let piece = n.min(self.zeros.len());
            out.push(Slice { buf: self.zeros.clone(), start: 0, len: piece });
            n -= piece;
        }
    }

    /// Reads into the caller's memory.
    pub(crate) fn read_into(&self, znode: &Znode, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let left = usize::try_from(znode.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let Some(buf) = buf.get_mut(..len) else { return Ok(0) };
        znode.dnode().read_at(offset, buf)?;
        Ok(len)
    }

    /// The next data or hole. See [`crate::Vfs::seek`].
    pub(crate) fn seek(&self, znode: &Znode, offset: u64, what: Seek) -> Result<u64> {
        let size = znode.size();
        let no_data = || Error::new(ErrorKind::NoData, "seeking");
        if offset >= size {
            return Err(no_data());
        }
        match znode.dnode().next_offset(offset, what)? {
            Some(at) if at < size => Ok(at.max(offset)),
            // A block at the end is stored whole; the file ends with a hole nevertheless.
            _ if what == Seek::Hole => Ok(size),
            _ => Err(no_data()),
        }
    }

    /// Whether POSIX ACLs are shown.
    pub fn posix_acls(&self) -> bool {
        self.options.acltype == AclType::Posix
    }

    /// The path of an object from the root, beginning with `/`, as reports of damaged files name it. Hard links give
    /// the name in the last directory it was linked or moved into.
    pub fn path_of(&self, object: u64) -> Result<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = object;
        while at != self.root() {
            if parts.len() >= MAX_DEPTH {
                return Err(Error::new(ErrorKind::Loop, "following parents"));
            }
            let znode = self.znode(at)?;
            let parent = znode.parent();
            if znode.flags() & ZFS_XATTR != 0 && znode.require_dir().is_ok() {
                parts.push(b"<xattrdir>".to_vec());
            } else {
                parts.push(self.name_in(parent, at)?);
            }
            at = parent;
        }
        let mut path = Vec::new();
        for part in parts.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        Ok(if path.is_empty() { b"/".to_vec() } else { path })
    }

    fn name_in(&self, dir: u64, object: u64) -> Result<Vec<u8>> {
        let mut found = None;
        self.readdir(dir, 3, &mut |e| {
            if e.object == object {
                found = Some(e.name.to_vec());
            }
            found.is_none()
        })?;
        found.ok_or_else(|| Error::not_found("finding an object's name in its directory"))
    }
}

/// Whether a value can be a directory entry.
fn is_dirent(value: &ZapValue) -> bool {
    value.integer_length == 8 && value.count > 0
}
