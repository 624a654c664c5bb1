//! Opening a pool: choosing a root, reading the meta object set, trusting its configuration.
//!
//! Life cycle: a [`PoolCandidate`] is checked for use by other hosts, then loaded from one of its roots. Loading
//! happens twice: first with the tree that labels tell, only to read the configuration in the meta object set; then
//! with that configuration, which is the truth, the labels lending nothing but the places where devices are. With
//! rewinding, older roots are tried one after the other.
//!
//! Invariant: nothing is written, so an import never changes a pool, and the loaded state never changes either.

use crate::config::{self, POOL_DIRECTORY};
use crate::discover::{PoolCandidate, relocate};
use crate::features::{Features, UnknownFeature, unknown_in_label};
use crate::labels::state;
use crate::pool::{Pool, PoolParts};
use crate::{indirect, mmp};
use std::fmt;
use std::sync::Arc;
use zfs_dmu::{Objset, Zap};
use zfs_env::{Clock, FileDevice, SystemClock, TaskPool, host};
use zfs_phys::feature::Feature;
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{NvList, checkpoint};
use zfs_zio::arc::ArcCache;
use zfs_zio::{Error, ErrorKind, Vdev, VdevAux, VdevConfig, VdevKind, VdevState, VdevTree, Zio};

/// Txgs behind the newest whose blocks are not reused yet (`TXG_DEFER_SIZE`): rewinding that far is safe.
const SAFE_REWIND: u64 = 2;

/// Which root to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rewind {
    /// The newest; fail when it is damaged.
    #[default]
    None,
    /// The newest that is whole, going back a few txgs (`-F`).
    Recover,
    /// The newest that is whole, going back as far as there are roots (`-FX`).
    Extreme,
    /// The newest not after this txg (`-T`).
    To(u64),
    /// The checkpoint (`--rewind-to-checkpoint`).
    Checkpoint,
}

/// How to import.
#[derive(Clone)]
pub struct ImportOptions {
    /// Name to use instead of the pool's own.
    pub name: Option<String>,
    /// The name is for this import only: what is written keeps the pool's own (`-t`).
    pub temporary_name: bool,
    /// Directory in front of all mountpoints.
    pub altroot: Option<String>,
    /// Import although another host seems to use it, or it was destroyed (`-f`, `-D`).
    pub force: bool,
    /// Import although log devices are missing (`-m`).
    pub allow_missing_logs: bool,
    /// The pool is to be opened for writing later: unknown features that only matter for writing then refuse it.
    pub for_write: bool,
    /// Which root to load.
    pub rewind: Rewind,
    /// Skip all checks for other hosts; for examining tools.
    pub skip_host_checks: bool,
    /// This host's number.
    pub hostid: u32,
    /// The cache blocks go through.
    pub arc: Arc<ArcCache>,
    /// Threads for reading ahead.
    pub tasks: Option<Arc<TaskPool>>,
    /// The clock the multihost check waits by.
    pub clock: Arc<dyn Clock>,
}

impl ImportOptions {
    /// Defaults: this host, no rewinding, nothing forced.
    pub fn new(arc: Arc<ArcCache>, tasks: Option<Arc<TaskPool>>) -> Self {
        Self {
            name: None,
            temporary_name: false,
            altroot: None,
            force: false,
            allow_missing_logs: false,
            for_write: false,
            rewind: Rewind::None,
            skip_host_checks: false,
            hostid: host::hostid(),
            arc,
            tasks,
            clock: Arc::new(SystemClock),
        }
    }
}

/// A device that is needed and not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingDevice {
    /// Guid of the leaf; of the top-level vdev when no label told its leaves.
    pub guid: u64,
    /// Where it was; nothing when no label told.
    pub path: Option<String>,
    /// Id of the top-level vdev it belongs to.
    pub top: u64,
    /// Whether it is a log device.
    pub is_log: bool,
}

/// Why a pool was not imported.
#[derive(Debug, Clone)]
pub enum ImportProblem {
    /// The version is neither 1 to 28 nor 5000.
    Version(u64),
    /// It uses features that this software does not know.
    UnknownFeatures {
        /// Those.
        features: Vec<UnknownFeature>,
        /// They only matter for writing.
        can_readonly: bool,
    },
    /// Devices without which it cannot be read.
    MissingDevices(Vec<MissingDevice>),
    /// Only log devices are missing.
    MissingLogs(Vec<MissingDevice>),
    /// Another host used it last and did not export it.
    ForeignHost {
        /// Its number.
        hostid: u64,
        /// Its name.
        hostname: Option<String>,
        /// When it last wrote, seconds since 1970.
        timestamp: u64,
    },
    /// Another host is using it right now.
    ActiveHost {
        /// Its number.
        hostid: u64,
        /// Its name.
        hostname: Option<String>,
    },
    /// The pool has multihost on, and this host has no number.
    NoHostid,
    /// It was destroyed.
    Destroyed,
    /// No device has a valid root (of the txg asked for).
    NoUberblock,
    /// There is no checkpoint.
    NoCheckpoint,
    /// Something cannot be read. `rewind` is the newest root that `-F` would load, if there is one.
    Damaged {
        /// A root that could be loaded instead: txg and time.
        rewind: Option<(u64, u64)>,
    },
}

/// A failed import.
#[derive(Debug, Clone)]
pub struct ImportError {
    /// Why.
    pub problem: ImportProblem,
    /// The engine's error, with context.
    pub error: Error,
}

impl ImportError {
    pub(crate) fn new(
        problem: ImportProblem,
        kind: ErrorKind,
        text: impl Into<std::borrow::Cow<'static, str>>,
    ) -> Self {
        Self { problem, error: Error::new(kind, text) }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for ImportError {}

impl From<Error> for ImportError {
    fn from(error: Error) -> Self {
        Self { problem: ImportProblem::Damaged { rewind: None }, error }
    }
}

type Attempt<T> = std::result::Result<T, ImportError>;

/// Imports `candidate` for reading.
///
/// # Errors
/// [`ImportError::problem`] says what a person can do about it.
pub fn import(candidate: &PoolCandidate, options: &ImportOptions) -> Attempt<Arc<Pool>> {
    if options.for_write {
        let mut pool = import_from(&for_writing(candidate)?, options)?;
        // Devices opened for writing belong to the vdevs alone, so that one that leaves the pool is closed.
        if let Some(pool) = Arc::get_mut(&mut pool) {
            pool.set_candidate(candidate.clone());
        }
        return Ok(pool);
    }
    import_from(candidate, options)
}

/// The candidate with its devices open for writing, which keeps everybody else out of them.
fn for_writing(candidate: &PoolCandidate) -> Attempt<PoolCandidate> {
    let mut out = candidate.clone();
    for found in out.devices.values_mut().filter(|d| d.device.is_read_only()) {
        let device = FileDevice::open_read_write(&found.path)
            .map_err(|e| Error::from(e).context(format!("opening {} for writing", found.path.display())))?;
        found.device = Arc::new(device);
    }
    Ok(out)
}

fn import_from(candidate: &PoolCandidate, options: &ImportOptions) -> Attempt<Arc<Pool>> {
    if candidate.state == state::DESTROYED && !options.force {
        return Err(ImportError::new(ImportProblem::Destroyed, ErrorKind::Invalid, "the pool was destroyed"));
    }
    if !options.skip_host_checks {
        mmp::check_hosts(candidate, options)?;
    }
    let all = candidate.uberblocks();
    let none = || ImportError::new(ImportProblem::NoUberblock, ErrorKind::Corrupt, "no device has a valid uberblock");
    let newest = *all.first().ok_or_else(none)?;
    match options.rewind {
        Rewind::None => load(candidate, options, &newest).map_err(|mut failed| {
            if let ImportProblem::Damaged { rewind } = &mut failed.problem {
                *rewind = find_rewind(candidate, options, false);
            }
            failed
        }),
        Rewind::To(txg) => {
            let ub = all.iter().find(|u| u.txg <= txg).ok_or_else(none)?;
            load(candidate, options, ub)
        }
        Rewind::Checkpoint => {
            let pool = load(candidate, options, &newest)?;
            let ub = pool.checkpoint_uberblock()?.ok_or_else(|| {
                ImportError::new(ImportProblem::NoCheckpoint, ErrorKind::NotFound, "the pool has no checkpoint")
            })?;
            drop(pool);
            load(candidate, options, &ub)
        }
        Rewind::Recover | Rewind::Extreme => {
            let oldest = match options.rewind {
                Rewind::Recover => newest.txg.saturating_sub(SAFE_REWIND),
                _ => 0,
            };
            let mut first_error = None;
            for ub in all.iter().filter(|u| u.txg >= oldest) {
                match load(candidate, options, ub).and_then(|p| p.verify_metadata().map(|()| p).map_err(Into::into)) {
                    Ok(pool) => return Ok(pool),
                    Err(e) if !matches!(e.problem, ImportProblem::Damaged { .. }) => return Err(e),
                    Err(e) => drop(first_error.get_or_insert(e)),
                }
            }
            Err(first_error.unwrap_or_else(none))
        }
    }
}

/// The newest root that loads whole (`zpool import -nF`): its txg and time.
pub fn find_rewind(candidate: &PoolCandidate, options: &ImportOptions, extreme: bool) -> Option<(u64, u64)> {
    let rewind = if extreme { Rewind::Extreme } else { Rewind::Recover };
    let pool = import(candidate, &ImportOptions { rewind, ..options.clone() }).ok()?;
    Some((pool.uberblock().txg, pool.uberblock().timestamp))
}

fn load(candidate: &PoolCandidate, options: &ImportOptions, ub: &Uberblock) -> Attempt<Arc<Pool>> {
    if !matches!(ub.version, 1..=28 | 5000) {
        let text = format!("version {} is not supported", ub.version);
        return Err(ImportError::new(ImportProblem::Version(ub.version), ErrorKind::Unsupported, text));
    }
    refuse_unknown(unknown_in_label(&candidate.label), false)?;
    let name = options.name.as_deref().unwrap_or(&candidate.name);
    let first = VdevConfig::from_nvlist(&candidate.tree)?;
    let (_, mos, directory) = open_mos(name, first, candidate, options, ub).map_err(|e| explain(e, candidate))?;
    let config = config::trusted_config(&mos, &directory).map_err(|e| explain(e.into(), candidate))?;
    let tree = config.list("vdev_tree").ok_or_else(|| Error::corrupt("the configuration has no vdev tree"))?;
    let trusted = VdevConfig::from_nvlist(&relocate(tree, &candidate.devices))?;
    let (zio, mos, directory) = open_mos(name, trusted, candidate, options, ub)?;
    check_missing(zio.vdevs(), options)?;
    let features = Features::load(&mos, &directory)?;
    refuse_unknown(features.unknown_for_read.clone(), false)?;
    if options.for_write {
        refuse_unknown(features.unknown_for_write.clone(), true)?;
    }
    finish(candidate, options, ub, Loaded { name, config, zio, mos, directory, features })
}

struct Loaded<'a> {
    name: &'a str,
    config: NvList,
    zio: Arc<Zio>,
    mos: Arc<Objset>,
    directory: Zap,
    features: Features,
}

fn finish(candidate: &PoolCandidate, options: &ImportOptions, ub: &Uberblock, l: Loaded<'_>) -> Attempt<Arc<Pool>> {
    if let Some(salt) = l.directory.lookup(b"org.illumos:checksum_salt")?
        && let Ok(salt) = <[u8; 32]>::try_from(salt.bytes())
    {
        l.zio.set_checksum_salt(salt);
    }
    indirect::load_mappings(&l.zio, &l.mos, &l.directory)?;
    indirect::load_dtls(&l.zio, &l.mos)?;
    let spares = config::auxiliary(&l.mos, &l.directory, "spares")?;
    let l2cache = config::auxiliary(&l.mos, &l.directory, "l2cache")?;
    let locate = |list: Vec<NvList>| list.iter().map(|nv| relocate(nv, &candidate.auxiliary)).collect();
    let stored_name = if options.temporary_name { candidate.name.as_str() } else { l.name };
    Ok(Pool::new(PoolParts {
        name: l.name.into(),
        stored_name: stored_name.into(),
        config: l.config,
        uberblock: *ub,
        zio: l.zio,
        mos: l.mos,
        directory: l.directory,
        features: l.features,
        spares: locate(spares),
        l2cache: locate(l2cache),
        altroot: options.altroot.clone(),
        candidate: candidate.clone(),
        imported_at: options.clock.now(),
    }))
}

fn refuse_unknown(features: Vec<UnknownFeature>, can_readonly: bool) -> Attempt<()> {
    if features.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = features.iter().map(|f| f.guid.as_str()).collect();
    let text = format!("the pool uses features that are not supported: {}", names.join(", "));
    Err(ImportError::new(ImportProblem::UnknownFeatures { features, can_readonly }, ErrorKind::Unsupported, text))
}

pub(crate) fn open_mos(
    name: &str,
    config: VdevConfig,
    candidate: &PoolCandidate,
    options: &ImportOptions,
    ub: &Uberblock,
) -> Attempt<(Arc<Zio>, Arc<Objset>, Zap)> {
    let mut open = |leaf: &VdevConfig| {
        let found = candidate.devices.get(&leaf.guid).or_else(|| candidate.auxiliary.get(&leaf.guid));
        found.map(|d| d.device.clone()).ok_or(VdevAux::OpenFailed)
    };
    let tree = VdevTree::build(config, &mut open)?;
    let zio = Zio::new(name, tree, options.arc.clone(), options.tasks.clone());
    indirect::set_reflow(&zio, ub);
    let mos = Objset::open(&zio, &ub.rootbp, 0, None).map_err(|e| e.context("opening the meta object set"))?;
    let directory = Zap::open(&mos, POOL_DIRECTORY).map_err(|e| e.context("opening the pool directory"))?;
    Ok((zio, mos, directory))
}

/// When the meta object set cannot be read, missing devices are the likelier cause than damage: name them.
fn explain(error: ImportError, candidate: &PoolCandidate) -> ImportError {
    let mut missing = Vec::new();
    for top in candidate.tree.lists("children") {
        collect_absent(top, candidate, top.u64("id").unwrap_or(0), &mut missing);
    }
    missing.retain(|m| !m.is_log);
    if missing.is_empty() || !matches!(error.problem, ImportProblem::Damaged { .. }) {
        return error;
    }
    ImportError {
        problem: ImportProblem::MissingDevices(missing),
        error: error.error.with_kind(ErrorKind::TooManyMissing).context("devices are missing"),
    }
}

fn collect_absent(nv: &NvList, candidate: &PoolCandidate, top: u64, out: &mut Vec<MissingDevice>) {
    let guid = nv.u64("guid").unwrap_or(0);
    let leaf = nv.lists("children").is_empty();
    let absent = match nv.str("type") {
        Some("missing") => true,
        Some("disk" | "file") => !candidate.devices.contains_key(&guid),
        _ => false,
    };
    if leaf && absent {
        let is_log = nv.u64("is_log") == Some(1);
        out.push(MissingDevice { guid, path: nv.str("path").map(str::to_owned), top, is_log });
    }
    nv.lists("children").iter().for_each(|c| collect_absent(c, candidate, top, out));
}

/// Fails when a top-level vdev lacks more than its redundancy covers.
fn check_missing(tree: &VdevTree, options: &ImportOptions) -> Attempt<()> {
    let (mut data, mut logs) = (Vec::new(), Vec::new());
    for (id, top) in tree.root().children.iter().enumerate() {
        let concrete = top.config.kind.is_concrete() || top.config.kind == VdevKind::Missing;
        if !concrete || usable(top) {
            continue;
        }
        let into = if top.config.is_log { &mut logs } else { &mut data };
        for leaf in top.leaves().into_iter().filter(|l| !usable(l)) {
            into.push(MissingDevice {
                guid: leaf.guid(),
                path: leaf.config.path.clone(),
                top: id as u64,
                is_log: top.config.is_log,
            });
        }
    }
    if !data.is_empty() {
        let text = "one or more top-level vdevs are unavailable";
        return Err(ImportError::new(ImportProblem::MissingDevices(data), ErrorKind::TooManyMissing, text));
    }
    if !logs.is_empty() && !options.allow_missing_logs {
        let text = "log devices are unavailable";
        return Err(ImportError::new(ImportProblem::MissingLogs(logs), ErrorKind::TooManyMissing, text));
    }
    Ok(())
}

fn usable(vdev: &Vdev) -> bool {
    matches!(vdev.state(), VdevState::Healthy | VdevState::Degraded)
}

impl Pool {
    /// The root that the checkpoint keeps.
    pub fn checkpoint_uberblock(&self) -> zfs_zio::Result<Option<Uberblock>> {
        if !self.features().is_active(Feature::ZpoolCheckpoint) {
            return Ok(None);
        }
        match self.directory().lookup(b"com.delphix:zpool_checkpoint")? {
            Some(value) => Ok(Some(checkpoint::uberblock_from_words(&value.u64s())?)),
            None => Ok(None),
        }
    }
}
