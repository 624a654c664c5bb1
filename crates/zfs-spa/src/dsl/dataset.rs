//! Datasets: file systems, volumes and snapshots.

use super::dir::Dir;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use zfs_dmu::{Error, ErrorKind, Key, Objset, Result, Zap};
use zfs_phys::dsl::{DS_FLAG_DEFER_DESTROY, DS_FLAG_INCONSISTENT, DslDatasetPhys, field};
use zfs_phys::enums::ObjsetType;

/// What a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatasetKind {
    /// A file system.
    Filesystem,
    /// A volume.
    Volume,
    /// A snapshot of either.
    Snapshot,
}

impl DatasetKind {
    /// As the `type` property prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A file system, a volume or a snapshot.
pub struct Dataset {
    /// Full name.
    pub name: String,
    /// Object number; also the id of its object set.
    pub object: u64,
    /// What is stored.
    pub phys: DslDatasetPhys,
    /// Directory it belongs to.
    pub dir: Arc<Dir>,
    fields: Option<Zap>,
    mos: Arc<Objset>,
    plain: OnceLock<Arc<Objset>>,
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dataset({}, {})", self.name, self.object)
    }
}

impl Dataset {
    pub(super) fn open(mos: &Arc<Objset>, object: u64, name: String, dir: &Arc<Dir>) -> Result<Arc<Self>> {
        let dnode = mos.dnode(object)?;
        let phys = DslDatasetPhys::decode(&dnode.bonus()?, dnode.phys().endian)
            .map_err(|e| Error::from(e).context(format!("dataset {name}")))?;
        let fields = if dnode.phys().object_type.is_zap() { Some(Zap::open_dnode(mos, dnode.clone())?) } else { None };
        let (dir, mos) = (dir.clone(), mos.clone());
        Ok(Arc::new(Self { name, object, phys, dir, fields, mos, plain: OnceLock::new() }))
    }

    /// Whether it is a snapshot.
    pub fn is_snapshot(&self) -> bool {
        self.phys.is_snapshot()
    }

    /// Whether a receive into it did not end.
    pub fn is_inconsistent(&self) -> bool {
        self.phys.flags & DS_FLAG_INCONSISTENT != 0
    }

    /// Whether it goes when its last hold or clone does.
    pub fn is_deferred_destroy(&self) -> bool {
        self.phys.flags & DS_FLAG_DEFER_DESTROY != 0
    }

    /// Name of the file system or volume, without a snapshot's part.
    pub fn head_name(&self) -> &str {
        self.name.split('@').next().unwrap_or(&self.name)
    }

    /// What its object set holds.
    pub fn objset_type(&self) -> Result<ObjsetType> {
        Ok(self.open_without_key()?.phys().os_type)
    }

    /// What it is.
    pub fn kind(&self) -> Result<DatasetKind> {
        if self.is_snapshot() {
            return Ok(DatasetKind::Snapshot);
        }
        Ok(match self.objset_type()? {
            ObjsetType::Zvol => DatasetKind::Volume,
            _ => DatasetKind::Filesystem,
        })
    }

    /// Whether its contents are encrypted.
    pub fn is_encrypted(&self) -> Result<bool> {
        Ok(self.dir.crypto_key_object()?.is_some())
    }

    /// Its object set, for walking blocks: what is encrypted cannot be read through it.
    pub fn open_without_key(&self) -> Result<Arc<Objset>> {
        if let Some(os) = self.plain.get() {
            return Ok(os.clone());
        }
        let os = Objset::open(self.mos.zio(), &self.phys.bp, self.object, None).map_err(|e| self.named(e))?;
        Ok(self.plain.get_or_init(|| os).clone())
    }

    /// Its object set. `key` is what [`crate::keys::KeyStore::key_of`] gives for it.
    ///
    /// # Errors
    /// [`ErrorKind::KeyUnavailable`] for an encrypted dataset without a key.
    pub fn open_objset(&self, key: Option<Arc<Key>>) -> Result<Arc<Objset>> {
        if !self.is_encrypted()? {
            return self.open_without_key();
        }
        match key {
            Some(key) => Objset::open(self.mos.zio(), &self.phys.bp, self.object, Some(key)).map_err(|e| self.named(e)),
            None => Err(self.named(Error::new(ErrorKind::KeyUnavailable, "opening an encrypted dataset"))),
        }
    }

    fn named(&self, e: Error) -> Error {
        e.context(&self.name)
    }

    /// An extensible field (`zfs_phys::dsl::field`) of one word.
    pub fn field(&self, name: &str) -> Result<Option<u64>> {
        match &self.fields {
            Some(zap) => zap.lookup_u64(name.as_bytes()),
            None => Ok(None),
        }
    }

    /// An extensible field as words.
    pub fn field_words(&self, name: &str) -> Result<Option<Vec<u64>>> {
        match &self.fields {
            Some(zap) => Ok(zap.lookup(name.as_bytes())?.map(|v| v.u64s())),
            None => Ok(None),
        }
    }

    /// An extensible field as text.
    pub fn field_text(&self, name: &str) -> Result<Option<String>> {
        match &self.fields {
            Some(zap) => Ok(zap.lookup(name.as_bytes())?.map(|v| String::from_utf8_lossy(&v.string()).into_owned())),
            None => Ok(None),
        }
    }

    /// Guids of the snapshots it was redacted against; nothing when it is not redacted.
    pub fn redacted_against(&self) -> Result<Option<Vec<u64>>> {
        self.field_words(field::REDACTED_DATASETS)
    }

    /// Names and objects of its snapshots.
    pub fn snapshot_objects(&self) -> Result<BTreeMap<String, u64>> {
        if self.phys.snapnames_zapobj == 0 {
            return Ok(BTreeMap::new());
        }
        let mut out = BTreeMap::new();
        for entry in Zap::open(&self.mos, self.phys.snapnames_zapobj)?.iter() {
            let entry = entry?;
            out.insert(String::from_utf8_lossy(entry.name()).into_owned(), entry.value.first());
        }
        Ok(out)
    }

    /// Its snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Arc<Dataset>>> {
        let mut out = Vec::new();
        for (short, object) in self.snapshot_objects()? {
            out.push(Dataset::open(&self.mos, object, format!("{}@{short}", self.name), &self.dir)?);
        }
        out.sort_by_key(|s| s.phys.creation_txg);
        Ok(out)
    }

    /// One of its snapshots by short name.
    pub fn snapshot(&self, short: &str) -> Result<Option<Arc<Dataset>>> {
        if self.phys.snapnames_zapobj == 0 {
            return Ok(None);
        }
        match Zap::open(&self.mos, self.phys.snapnames_zapobj)?.lookup_u64(short.as_bytes())? {
            Some(object) => Ok(Some(Dataset::open(&self.mos, object, format!("{}@{short}", self.name), &self.dir)?)),
            None => Ok(None),
        }
    }

    /// Holds on a snapshot: tag and time (seconds since 1970).
    pub fn holds(&self) -> Result<Vec<(String, u64)>> {
        if !self.is_snapshot() || self.phys.userrefs_obj == 0 {
            return Ok(Vec::new());
        }
        let mut out = Vec::new();
        for entry in Zap::open(&self.mos, self.phys.userrefs_obj)?.iter() {
            let entry = entry?;
            out.push((String::from_utf8_lossy(entry.name()).into_owned(), entry.value.first()));
        }
        out.sort();
        Ok(out)
    }

    /// The meta object set.
    pub fn mos(&self) -> &Arc<Objset> {
        &self.mos
    }
}
