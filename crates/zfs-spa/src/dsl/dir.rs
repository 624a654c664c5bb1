//! Directories of the dataset tree. Each holds a head dataset, children, and the properties set on it.

use super::props::PropMap;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use zfs_dmu::{Objset, Result, Zap};
use zfs_phys::dsl::{DslDirPhys, field};
use zfs_zio::Error;

/// A directory.
pub struct Dir {
    /// Full name, the pool's first.
    pub name: String,
    /// Object number.
    pub object: u64,
    /// What is stored.
    pub phys: DslDirPhys,
    /// The directory above; nothing for the pool's own.
    pub parent: Option<Arc<Dir>>,
    /// Extensible fields, if the object has them.
    fields: Option<Zap>,
    mos: Arc<Objset>,
    props: OnceLock<Arc<PropMap>>,
}

impl Dir {
    pub(super) fn open(mos: &Arc<Objset>, object: u64, name: String, parent: Option<Arc<Dir>>) -> Result<Arc<Self>> {
        let dnode = mos.dnode(object)?;
        let phys = DslDirPhys::decode(&dnode.bonus()?, dnode.phys().endian)
            .map_err(|e| Error::from(e).context(format!("directory of {name}")))?;
        let fields = if dnode.phys().object_type.is_zap() { Some(Zap::open_dnode(mos, dnode.clone())?) } else { None };
        Ok(Arc::new(Self { name, object, phys, parent, fields, mos: mos.clone(), props: OnceLock::new() }))
    }

    /// An extensible field (`zfs_phys::dsl::field`) of one word.
    pub fn field(&self, name: &str) -> Result<Option<u64>> {
        match &self.fields {
            Some(zap) => zap.lookup_u64(name.as_bytes()),
            None => Ok(None),
        }
    }

    /// An extensible field of several words.
    pub fn field_words(&self, name: &str) -> Result<Option<Vec<u64>>> {
        match &self.fields {
            Some(zap) => Ok(zap.lookup(name.as_bytes())?.map(|v| v.u64s())),
            None => Ok(None),
        }
    }

    /// Object of the wrapped key, when the directory is encrypted.
    pub fn crypto_key_object(&self) -> Result<Option<u64>> {
        self.field(field::CRYPTO_KEY_OBJ)
    }

    /// Names and objects of the children, internal ones included.
    pub fn children(&self) -> Result<BTreeMap<String, u64>> {
        if self.phys.child_dir_zapobj == 0 {
            return Ok(BTreeMap::new());
        }
        let mut out = BTreeMap::new();
        for entry in Zap::open(&self.mos, self.phys.child_dir_zapobj)?.iter() {
            let entry = entry?;
            out.insert(String::from_utf8_lossy(entry.name()).into_owned(), entry.value.first());
        }
        Ok(out)
    }

    /// Properties stored here: local, received and marks of explicit inheritance.
    pub fn props(&self) -> Result<Arc<PropMap>> {
        if let Some(props) = self.props.get() {
            return Ok(props.clone());
        }
        let props = Arc::new(PropMap::load(&self.mos, self.phys.props_zapobj)?);
        Ok(self.props.get_or_init(|| props).clone())
    }
}

impl std::fmt::Debug for Dir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dir({}, {})", self.name, self.object)
    }
}
