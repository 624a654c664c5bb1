//! System attributes: the registry of an object set and access to the attributes of an object, in its bonus buffer
//! and spill block, or in the old znode of ZPL versions 1 to 4.

use crate::dnode::Dnode;
use crate::objset::Objset;
use crate::zap::Zap;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType;
use zfs_phys::read::u64_at;
use zfs_phys::sa::{
    SA_LAYOUTS, SA_LEGACY_ATTRS, SA_REGISTRY, SaAttr, SaHeader, SaPlace, ZPL_ATTRS, legacy_places, places,
};
use zfs_phys::znode::{MASTER_NODE_OBJ, SCANSTAMP_SIZE, ZFS_BONUS_SCANSTAMP, ZNODE_PHYS_SIZE};
use zfs_zio::{Buf, Error, ErrorKind, Result};

mod legacy;
mod write;

use write::Added;

/// An attribute that the ZPL knows; the order is that of [`ZPL_ATTRS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ZplAttr {
    Atime,
    Mtime,
    Ctime,
    Crtime,
    Gen,
    Mode,
    Size,
    Parent,
    Links,
    Xattr,
    Rdev,
    Flags,
    Uid,
    Gid,
    Pad,
    ZnodeAcl,
    DaclCount,
    Symlink,
    Scanstamp,
    DaclAces,
    Dxattr,
    Projid,
    Seq,
}

impl ZplAttr {
    /// Name under which it is registered.
    pub fn name(self) -> &'static str {
        ZPL_ATTRS.get(self as usize).map_or("", |a| a.0)
    }
}

/// What files of an object set are like; changes when the file system is upgraded.
#[derive(Debug, Default)]
pub(crate) struct FileForm {
    /// Object number of the SA master node; 0 before ZPL version 5.
    master: AtomicU64,
    /// Version of the file system.
    version: AtomicU64,
}

impl FileForm {
    fn store(&self, version: u64, master: u64) {
        self.version.store(version, Relaxed);
        self.master.store(master, Relaxed);
    }
}

impl Objset {
    /// The file system was upgraded to `version`, and has the SA master node `master` if that is not 0.
    pub fn upgraded(&self, version: u64, master: u64) {
        if let Some(live) = &self.live {
            live.form.store(version, master);
        }
    }
}

/// The attributes and layouts of an object set.
#[derive(Debug)]
pub struct SaRegistry {
    form: Arc<FileForm>,
    attrs: HashMap<u16, SaAttr>,
    names: HashMap<u16, String>,
    zpl: [Option<u16>; ZPL_ATTRS.len()],
    layouts: HashMap<u16, Vec<u16>>,
    /// What was registered since it was loaded.
    added: RwLock<Added>,
}

impl SaRegistry {
    /// Loads the registry of a file system's object set.
    pub fn load(objset: &Arc<Objset>) -> Result<Self> {
        let node = Zap::open(objset, MASTER_NODE_OBJ)?;
        let (master, version) = (node.lookup_u64(b"SA_ATTRS")?.unwrap_or(0), node.lookup_u64(b"VERSION")?.unwrap_or(1));
        Self::load_from(objset, master, version)
    }

    /// Loads the registry whose master node is object `master`; 0 for a file system that has none. `version` is that of
    /// the file system.
    pub fn load_from(objset: &Arc<Objset>, master: u64, version: u64) -> Result<Self> {
        // All who have a writable object set open learn of an upgrade.
        let form = objset.live.as_ref().map_or_else(Arc::default, |live| live.form.clone());
        form.store(version, master);
        let mut out = Self {
            form,
            attrs: HashMap::new(),
            names: HashMap::new(),
            zpl: [None; ZPL_ATTRS.len()],
            layouts: HashMap::new(),
            added: RwLock::default(),
        };
        if master != 0 {
            let zap = Zap::open(objset, master)?;
            if let Some(obj) = zap.lookup_u64(SA_REGISTRY.as_bytes())? {
                out.load_attrs(&Zap::open(objset, obj)?)?;
            }
            if let Some(obj) = zap.lookup_u64(SA_LAYOUTS.as_bytes())? {
                out.load_layouts(&Zap::open(objset, obj)?)?;
            }
        }
        // The fields of the old znode have fixed numbers, registered or not.
        for (num, (name, length, swap)) in (0u16..).zip(ZPL_ATTRS).take(SA_LEGACY_ATTRS) {
            out.attrs.entry(num).or_insert(SaAttr { num, length, swap });
            out.names.entry(num).or_insert_with(|| name.to_owned());
        }
        for (slot, (num, (name, _, _))) in out.zpl.iter_mut().zip((0u16..).zip(ZPL_ATTRS)) {
            let by_name = out.names.iter().find(|(_, n)| *n == name).map(|(num, _)| *num);
            *slot = if usize::from(num) < SA_LEGACY_ATTRS { Some(num) } else { by_name };
        }
        // Layout 1 is the empty one, and what a header without layout stands for.
        out.layouts.entry(1).or_default();
        Ok(out)
    }

    fn load_attrs(&mut self, zap: &Zap) -> Result<()> {
        for e in zap.iter() {
            let e = e?;
            let attr = SaAttr::decode(e.value.first());
            self.names.insert(attr.num, String::from_utf8_lossy(e.name()).into_owned());
            self.attrs.insert(attr.num, attr);
        }
        Ok(())
    }

    fn load_layouts(&mut self, zap: &Zap) -> Result<()> {
        for e in zap.iter() {
            let e = e?;
            let num = std::str::from_utf8(e.name()).ok().and_then(|n| n.parse::<u16>().ok());
            let num = num.ok_or_else(|| Error::corrupt("an SA layout without number"))?;
            let attrs = e.value.u64s().into_iter().map(|a| a as u16).collect();
            self.layouts.insert(num, attrs);
        }
        Ok(())
    }

    /// Object number of the SA master node; 0 before ZPL version 5.
    pub fn master(&self) -> u64 {
        self.form.master.load(Relaxed)
    }

    /// Version of the file system.
    pub fn version(&self) -> u64 {
        self.form.version.load(Relaxed)
    }

    /// Number of an attribute in this object set, if any object can have it.
    pub fn number(&self, attr: ZplAttr) -> Option<u16> {
        let known = self.zpl.get(attr as usize).copied().flatten();
        known.or_else(|| self.added.read().zpl.get(&(attr as usize)).copied())
    }

    /// Name of an attribute number.
    pub fn name(&self, num: u16) -> Option<&str> {
        self.names.get(&num).map(String::as_str)
    }

    /// The registered attributes.
    pub fn attrs(&self) -> impl Iterator<Item = &SaAttr> {
        self.attrs.values()
    }

    /// The layouts by number.
    pub fn layouts(&self) -> &HashMap<u16, Vec<u16>> {
        &self.layouts
    }

    fn places(&self, buf: &[u8], hint: Endian) -> Result<(Vec<SaPlace>, Endian)> {
        if buf.is_empty() {
            return Ok((Vec::new(), hint));
        }
        let header = SaHeader::decode(buf, hint)?;
        let added = self.added.read();
        let number = header.layout.max(1);
        let layout = self.layouts.get(&number).or_else(|| added.layouts.get(&number));
        let layout = layout.ok_or_else(|| Error::corrupt(format!("SA layout {} is not known", header.layout)))?;
        let length = |n: u16| self.attrs.get(&n).or_else(|| added.attrs.get(&n)).map(|a| a.length);
        Ok((places(buf, header.endian, layout, length)?, header.endian))
    }
}

/// A buffer of attributes.
struct Part<B> {
    bytes: B,
    endian: Endian,
    places: Vec<SaPlace>,
}

impl<B: AsRef<[u8]>> Part<B> {
    fn get(&self, num: u16) -> Option<(&[u8], Endian)> {
        let p = self.places.iter().find(|p| p.num == num)?;
        Some((self.bytes.as_ref().get(p.offset..p.offset.checked_add(p.len)?)?, self.endian))
    }
}

/// The attributes of one object. The spill block is read when an attribute is not found in the bonus buffer.
pub struct SaHandle {
    registry: Arc<SaRegistry>,
    dnode: Arc<Dnode>,
    bonus: Part<Vec<u8>>,
    legacy: bool,
    spill: OnceLock<Option<Part<Buf>>>,
}

impl SaHandle {
    /// Opens the attributes of an object. Fails with [`ErrorKind::Invalid`] when its bonus buffer has none.
    pub fn open(registry: &Arc<SaRegistry>, dnode: &Arc<Dnode>) -> Result<Self> {
        let bytes = dnode.bonus()?;
        let endian = bytes.phys().endian;
        let fail = |e: Error| e.at(&dnode.ctx.bookmark(dnode.object(), 0, 0));
        let (places, endian, legacy) = match bytes.phys().bonustype {
            DmuObjectType::SA => {
                let (places, endian) = registry.places(&bytes, endian).map_err(fail)?;
                (places, endian, false)
            }
            DmuObjectType::ZNODE => (legacy_places(&bytes), endian, true),
            _ => return Err(fail(Error::invalid("opening the attributes of an object that has none"))),
        };
        let bonus = Part { bytes: bytes.to_vec(), endian, places };
        Ok(Self { registry: registry.clone(), dnode: dnode.clone(), bonus, legacy, spill: OnceLock::new() })
    }

    /// Whether it is an old znode (ZPL versions 1 to 4).
    pub fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// The object.
    pub fn dnode(&self) -> &Arc<Dnode> {
        &self.dnode
    }

    fn spill(&self) -> Result<Option<&Part<Buf>>> {
        if self.legacy || self.dnode.phys().spill.is_none() {
            return Ok(None);
        }
        if let Some(s) = self.spill.get() {
            return Ok(s.as_ref());
        }
        let part = match self.dnode.spill()? {
            Some((bytes, hint)) => {
                let bm = self.dnode.ctx.bookmark(self.dnode.object(), 0, crate::dnode::SPILL_BLKID);
                let (places, endian) = self.registry.places(&bytes, hint).map_err(|e| e.at(&bm))?;
                Some(Part { bytes, endian, places })
            }
            None => None,
        };
        Ok(self.spill.get_or_init(|| part).as_ref())
    }

    /// The bytes of an attribute with their byte order; nothing when the object does not have it.
    pub fn get(&self, attr: ZplAttr) -> Result<Option<(&[u8], Endian)>> {
        if self.legacy && matches!(attr, ZplAttr::Symlink | ZplAttr::Scanstamp) {
            return Ok(self.legacy_tail(attr).map(|b| (b, self.bonus.endian)));
        }
        let Some(num) = self.registry.number(attr) else { return Ok(None) };
        self.get_num(num)
    }

    /// [`SaHandle::get`] by attribute number.
    pub fn get_num(&self, num: u16) -> Result<Option<(&[u8], Endian)>> {
        if let Some(hit) = self.bonus.get(num) {
            return Ok(Some(hit));
        }
        Ok(self.spill()?.and_then(|s| s.get(num)))
    }

    /// What lies behind an old znode in the bonus buffer: the target of a short symlink, or a scan stamp.
    fn legacy_tail(&self, attr: ZplAttr) -> Option<&[u8]> {
        let tail = self.bonus.bytes.get(ZNODE_PHYS_SIZE..)?;
        let field = |a: ZplAttr| self.bonus.get(a as u16).and_then(|(b, e)| u64_at(b, 0, e));
        let is_link = field(ZplAttr::Mode)? & 0o170_000 == 0o120_000;
        match attr {
            ZplAttr::Symlink if is_link => tail.get(..usize::try_from(field(ZplAttr::Size)?).ok()?),
            ZplAttr::Scanstamp if field(ZplAttr::Flags)? & ZFS_BONUS_SCANSTAMP != 0 => tail.get(..SCANSTAMP_SIZE),
            _ => None,
        }
    }

    /// Word `index` of an attribute.
    pub fn get_word(&self, attr: ZplAttr, index: usize) -> Result<Option<u64>> {
        Ok(self.get(attr)?.and_then(|(b, e)| u64_at(b, index * 8, e)))
    }

    /// An attribute of one word.
    pub fn get_u64(&self, attr: ZplAttr) -> Result<Option<u64>> {
        self.get_word(attr, 0)
    }

    /// An attribute of one word that every object must have.
    pub fn require_u64(&self, attr: ZplAttr) -> Result<u64> {
        self.get_u64(attr)?.ok_or_else(|| {
            let e = Error::new(ErrorKind::Corrupt, format!("an object without attribute {}", attr.name()));
            e.at(&self.dnode.ctx.bookmark(self.dnode.object(), 0, 0))
        })
    }

    /// A time: seconds and nanoseconds.
    pub fn get_time(&self, attr: ZplAttr) -> Result<Option<(i64, u64)>> {
        let Some((b, e)) = self.get(attr)? else { return Ok(None) };
        Ok(u64_at(b, 0, e).zip(u64_at(b, 8, e)).map(|(sec, nsec)| (sec as i64, nsec)))
    }

    /// Attribute numbers that the object has, those of the bonus buffer first.
    pub fn numbers(&self) -> Result<Vec<u16>> {
        let mut out: Vec<u16> = self.bonus.places.iter().map(|p| p.num).collect();
        if let Some(s) = self.spill()? {
            out.extend(s.places.iter().map(|p| p.num));
        }
        Ok(out)
    }

    /// The attributes of a fresh object, which has none.
    pub fn create(registry: &Arc<SaRegistry>, dnode: &Arc<Dnode>) -> Result<Self> {
        let bonus = Part { bytes: Vec::new(), endian: Endian::NATIVE, places: Vec::new() };
        let (registry, dnode, legacy) = (registry.clone(), dnode.clone(), registry.is_legacy());
        Ok(Self { registry, dnode, bonus, legacy, spill: OnceLock::new() })
    }
}
