//! A simulated machine with a pool: layouts, making, finding, importing.

use crate::{Outcome, during};
use std::path::PathBuf;
use std::sync::Arc;
use zfs_dmu::txg::Txgs;
use zfs_env::{BlockDevice, Sim, SimDisk};
use zfs_spa::dslw::sums_with;
use zfs_spa::{CreateOptions, ImportOptions, NewVdev, Pool, PoolCandidate, create, import};
use zfs_zio::alloc::Class;
use zfs_zio::arc::ArcCache;
use zfs_zpl::write::{NewFilesystem, Writer, create_fs};

/// Name of every pool made here.
pub const POOL: &str = "t";
/// Bytes of a disk: the least a pool can have.
const DISK: u64 = 64 << 20;
/// Bytes of the cache: enough for everything, for which blocks leave it is chance, and with them which reads meet faults.
const CACHE: u64 = 256 << 20;
/// Number of the simulated host.
pub const HOST: u32 = 0x1234;

/// Which vdevs a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One disk.
    Single,
    /// Two disks beside each other.
    Stripe,
    /// Two disks that hold the same.
    Mirror,
    /// Three disks with one parity.
    Raidz1,
    /// Five disks with two parities.
    Raidz2,
    /// One disk, and another for the intent log.
    Slog,
    /// Three disks with one parity, two mirrored for metadata, one for the intent log.
    Classes,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Single, Self::Stripe, Self::Mirror, Self::Raidz1, Self::Raidz2, Self::Slog, Self::Classes];

    /// By the name that [`Debug`](std::fmt::Debug) prints, whatever the case.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| format!("{l:?}").eq_ignore_ascii_case(name))
    }

    /// Groups of disks: what for, how many, how many of them may fail.
    fn groups(self) -> &'static [(Class, usize, usize)] {
        match self {
            Self::Single => &[(Class::Normal, 1, 0)],
            Self::Stripe => &[(Class::Normal, 1, 0), (Class::Normal, 1, 0)],
            Self::Mirror => &[(Class::Normal, 2, 1)],
            Self::Raidz1 => &[(Class::Normal, 3, 1)],
            Self::Raidz2 => &[(Class::Normal, 5, 2)],
            Self::Slog => &[(Class::Normal, 1, 0), (Class::Log, 1, 0)],
            Self::Classes => &[(Class::Normal, 3, 1), (Class::Special, 2, 1), (Class::Log, 1, 0)],
        }
    }

    /// Disks of all groups.
    pub fn disks(self) -> usize {
        self.groups().iter().map(|g| g.1).sum()
    }

    /// Ranges of disks that back each other up, with how many of each may fail at the same time.
    pub fn redundant(self) -> Vec<(std::ops::Range<usize>, usize)> {
        let mut at = 0;
        let mut out = Vec::new();
        for (_, disks, failing) in self.groups() {
            if *failing > 0 {
                out.push((at..at + disks, *failing));
            }
            at += disks;
        }
        out
    }

    fn vdevs(self, disks: &[Arc<SimDisk>]) -> Vec<(Class, NewVdev)> {
        let mut rest = disks.iter();
        let mut out = Vec::new();
        for (class, count, failing) in self.groups() {
            let leaf = |d: &Arc<SimDisk>| NewVdev::Leaf { path: d.path(), device: d.clone(), disk: false };
            let mut leaves: Vec<NewVdev> = rest.by_ref().take(*count).map(leaf).collect();
            let vdev = match count {
                1 => leaves.remove(0),
                2 => NewVdev::Mirror(leaves),
                _ => NewVdev::Raidz { nparity: *failing as u64, children: leaves },
            };
            out.push((*class, vdev));
        }
        out
    }
}

/// A machine whose disks hold a pool.
pub struct Machine {
    /// The simulation.
    pub sim: Arc<Sim>,
    /// The disks, in the order of the layout.
    pub disks: Vec<Arc<SimDisk>>,
    /// Which vdevs the pool has.
    pub layout: Layout,
}

impl Machine {
    /// A machine with a fresh pool.
    ///
    /// # Errors
    /// When making the pool fails.
    pub fn new(layout: Layout, seed: u64) -> Outcome<Self> {
        let sim = Sim::new(seed);
        let sector = if seed.is_multiple_of(2) { 4096 } else { 512 };
        let disks: Vec<_> = (0..layout.disks()).map(|i| sim.add_disk(&format!("/sim/d{i}"), DISK, sector)).collect();
        let mut options = CreateOptions::new(POOL, layout.vdevs(&disks), Arc::new(ArcCache::new(CACHE)));
        options.clock = sim.clock();
        options.hostid = HOST;
        let features = zfs_spa::sync::create::usual_features();
        let filesystem = NewFilesystem { sums: sums_with(|f| features.contains(&f)), ..NewFilesystem::default() };
        let (txgs, clock) = (Txgs::new(1), sim.clock());
        let mut init =
            |objset: &Arc<_>, tx: &_| create_fs(objset, tx, Writer::new(txgs.clone(), clock.clone()), &filesystem);
        create(&options, &mut init).map_err(during("making the pool"))?;
        Ok(Self { sim, disks, layout })
    }

    /// The pool, as its labels tell.
    ///
    /// # Errors
    /// When no label can be read.
    pub fn candidate(&self) -> Outcome<PoolCandidate> {
        let devices = self.disks.iter().map(|d| (PathBuf::from(d.path()), d.clone() as Arc<dyn BlockDevice>));
        let found = PoolCandidate::from_devices(devices);
        found.into_iter().find(|p| p.name == POOL).ok_or_else(|| "no device shows the pool".into())
    }

    /// Imports the pool with an empty cache.
    ///
    /// # Errors
    /// When that fails.
    pub fn import(&self, for_write: bool) -> Outcome<Arc<Pool>> {
        let mut options = ImportOptions::new(Arc::new(ArcCache::new(CACHE)), None);
        (options.force, options.for_write, options.skip_host_checks, options.hostid) = (true, for_write, true, HOST);
        options.clock = self.sim.clock();
        import(&self.candidate()?, &options).map_err(|e| format!("importing: {e} ({:?})", e.problem))
    }
}
