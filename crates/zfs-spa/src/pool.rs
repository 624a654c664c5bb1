//! An imported pool: what was loaded, and the way to everything else.
//!
//! Nothing here changes after the import: the root is fixed, so whatever is decoded may be kept. What is expensive is
//! made on first use and kept in a `OnceLock`; the only lock is the one of the loaded keys.

use crate::dedup::{Clones, Dedup};
use crate::discover::PoolCandidate;
use crate::dsl::Dsl;
use crate::features::Features;
use crate::keys::KeyStore;
use crate::space::PoolSpace;
use crate::sync::Metaslabs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use zfs_dmu::traverse::{Options as WalkOptions, traverse};
use zfs_dmu::{Error, Objset, Result, Zap};
use zfs_phys::NvList;
use zfs_phys::uberblock::Uberblock;
use zfs_zio::Zio;

pub(crate) struct PoolParts {
    pub name: Arc<str>,
    pub stored_name: Arc<str>,
    pub config: NvList,
    pub uberblock: Uberblock,
    pub zio: Arc<Zio>,
    pub mos: Arc<Objset>,
    pub directory: Zap,
    pub features: Features,
    pub spares: Vec<NvList>,
    pub l2cache: Vec<NvList>,
    pub altroot: Option<String>,
    pub candidate: PoolCandidate,
    pub imported_at: Duration,
}

/// An imported pool.
pub struct Pool {
    parts: PoolParts,
    dsl: OnceLock<Arc<Dsl>>,
    space: OnceLock<Arc<PoolSpace>>,
    dedup: OnceLock<Arc<Dedup>>,
    clones: OnceLock<Arc<Clones>>,
    /// One for all views of a pool that changes.
    keys: Arc<KeyStore>,
    /// What a pool that is written has in memory of its space maps.
    metaslabs: Option<Arc<Metaslabs>>,
}

/// Gives what is there already, or makes it; when two make it at once, one is kept.
fn once<T>(slot: &OnceLock<Arc<T>>, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    match slot.get() {
        Some(made) => Ok(made.clone()),
        None => {
            let made = Arc::new(make()?);
            Ok(slot.get_or_init(|| made).clone())
        }
    }
}

/// Configurations, those that were there at import with the paths of then.
fn as_found(now: Vec<NvList>, then: &[NvList]) -> Vec<NvList> {
    let found = |nv: &NvList| then.iter().find(|t| t.u64("guid") == nv.u64("guid")).cloned();
    now.into_iter().map(|nv| found(&nv).unwrap_or(nv)).collect()
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({}, txg {})", self.parts.name, self.parts.uberblock.txg)
    }
}

impl Pool {
    pub(crate) fn new(parts: PoolParts) -> Arc<Self> {
        Self::with(parts, Arc::default(), None)
    }

    fn with(parts: PoolParts, keys: Arc<KeyStore>, metaslabs: Option<Arc<Metaslabs>>) -> Arc<Self> {
        Arc::new(Self {
            parts,
            dsl: OnceLock::new(),
            space: OnceLock::new(),
            dedup: OnceLock::new(),
            clones: OnceLock::new(),
            keys,
            metaslabs,
        })
    }

    /// What is in memory of the space maps, when it is written.
    pub(crate) fn metaslabs(&self) -> Option<&Arc<Metaslabs>> {
        self.metaslabs.as_ref()
    }

    /// The same pool as a later root left it, read through a live meta object set.
    pub(crate) fn as_of(
        &self,
        mos: &Arc<Objset>,
        metaslabs: &Arc<Metaslabs>,
        uberblock: Uberblock,
        config: NvList,
    ) -> Result<Arc<Self>> {
        let directory = Zap::open(mos, crate::config::POOL_DIRECTORY)?;
        let features = Features::load(mos, &directory)?;
        let p = &self.parts;
        let spares = crate::config::auxiliary(mos, &directory, "spares")?;
        let l2cache = crate::config::auxiliary(mos, &directory, "l2cache")?;
        let parts = PoolParts {
            name: p.name.clone(),
            stored_name: p.stored_name.clone(),
            config,
            uberblock,
            zio: p.zio.clone(),
            mos: mos.clone(),
            directory,
            features,
            spares: as_found(spares, &p.spares),
            l2cache: as_found(l2cache, &p.l2cache),
            altroot: p.altroot.clone(),
            candidate: p.candidate.clone(),
            imported_at: p.imported_at,
        };
        Ok(Self::with(parts, self.keys.clone(), Some(metaslabs.clone())))
    }

    pub(crate) fn set_candidate(&mut self, candidate: PoolCandidate) {
        self.parts.candidate = candidate;
    }

    /// Name that labels have: not the one it was imported under if that is a temporary one.
    pub fn stored_name(&self) -> &str {
        &self.parts.stored_name
    }

    /// Name it was imported under.
    pub fn name(&self) -> &Arc<str> {
        &self.parts.name
    }

    /// Identity.
    pub fn guid(&self) -> u64 {
        self.parts.config.u64("pool_guid").unwrap_or(self.parts.candidate.guid)
    }

    /// The root it was loaded from.
    pub fn uberblock(&self) -> &Uberblock {
        &self.parts.uberblock
    }

    /// On-disk version.
    pub fn version(&self) -> u64 {
        self.parts.uberblock.version
    }

    /// The configuration in the meta object set.
    pub fn config(&self) -> &NvList {
        &self.parts.config
    }

    /// The way to blocks; its tree has the states and counters of the vdevs.
    pub fn zio(&self) -> &Arc<Zio> {
        &self.parts.zio
    }

    /// The meta object set.
    pub fn mos(&self) -> &Arc<Objset> {
        &self.parts.mos
    }

    /// The pool directory: object 1 of the meta object set.
    pub fn directory(&self) -> &Zap {
        &self.parts.directory
    }

    /// Features.
    pub fn features(&self) -> &Features {
        &self.parts.features
    }

    /// Configurations of hot spares, with paths where they were found.
    pub fn spares(&self) -> &[NvList] {
        &self.parts.spares
    }

    /// Configurations of cache devices, with paths where they were found.
    pub fn l2cache(&self) -> &[NvList] {
        &self.parts.l2cache
    }

    /// Directory in front of all mountpoints.
    pub fn altroot(&self) -> Option<&str> {
        self.parts.altroot.as_deref()
    }

    /// Keys that are loaded.
    pub fn keys(&self) -> &KeyStore {
        &self.keys
    }

    /// What it was imported from.
    pub fn candidate(&self) -> &PoolCandidate {
        &self.parts.candidate
    }

    /// When it was imported, since 1970.
    pub fn imported_at(&self) -> Duration {
        self.parts.imported_at
    }

    /// Datasets.
    ///
    /// # Errors
    /// When the root of the dataset tree cannot be read.
    pub fn dsl(&self) -> Result<Arc<Dsl>> {
        once(&self.dsl, || Dsl::load(&self.parts.name, &self.parts.mos, &self.parts.directory))
    }

    pub(crate) fn space_once(&self, make: impl FnOnce() -> Result<PoolSpace>) -> Result<Arc<PoolSpace>> {
        once(&self.space, make)
    }

    pub(crate) fn dedup_once(&self, make: impl FnOnce() -> Result<Dedup>) -> Result<Arc<Dedup>> {
        once(&self.dedup, make)
    }

    pub(crate) fn clones_once(&self, make: impl FnOnce() -> Result<Clones>) -> Result<Arc<Clones>> {
        once(&self.clones, make)
    }

    /// Reads all of the meta object set; fails at the first block that cannot be read.
    pub fn verify_metadata(&self) -> Result<()> {
        let options = WalkOptions { zil: false, ..WalkOptions::default() };
        let zio = &self.parts.zio;
        traverse(&self.parts.mos, &options, &|v| zio.verify(v.bp, &v.bookmark, false), &|_, e: Error| Err(e)).map(drop)
    }
}
