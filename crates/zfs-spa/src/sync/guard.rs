//! What a pool must not have in use to be written: things whose records this software cannot keep yet.

use super::aside;
use crate::pool::Pool;
use zfs_dmu::Zap;
use zfs_phys::feature::Feature;
use zfs_phys::read::Endian;
use zfs_zio::{Error, Result};

/// Features that may be enabled but not in use.
const IN_USE: [(Feature, &str); 2] =
    [(Feature::BlockCloning, "blocks are cloned"), (Feature::BlockCloningEndian, "blocks are cloned")];
/// The oldest version that is written (`SPA_VERSION_DEADLISTS`): those before keep what snapshots share in another way.
const OLDEST: u64 = 26;

pub(super) fn refuse(why: impl std::fmt::Display) -> Error {
    Error::unsupported(format!("importing read-write: {why}"))
}

/// Fails with `Unsupported`, naming the first reason, when the pool cannot be written.
pub(super) fn check(pool: &Pool) -> Result<()> {
    if pool.version() < OLDEST {
        return Err(refuse(format!("the pool has version {}; the oldest that is written is {OLDEST}", pool.version())));
    }
    if pool.uberblock().endian != Endian::NATIVE {
        return Err(refuse("the pool was written on a machine of the other byte order"));
    }
    if pool.uberblock().checkpoint_txg != 0 {
        return Err(refuse("the pool is rewound to a checkpoint"));
    }
    for (feature, why) in IN_USE {
        if pool.features().is_active(feature) {
            return Err(refuse(format!("{why} (feature {})", feature.name())));
        }
    }
    if pool.dedup()?.total.ref_dsize > 0 {
        return Err(refuse("the pool has deduplicated blocks (feature dedup)"));
    }
    aside::check_checkpoint(pool)?;
    aside::check_removed(pool)?;
    check_properties(pool)?;
    check_vdevs(pool)
}

fn check_properties(pool: &Pool) -> Result<()> {
    if let Some(object) = pool.directory().lookup_u64(b"pool_props")?
        && Zap::open(pool.mos(), object)?.lookup_u64(b"multihost")?.unwrap_or(0) != 0
    {
        return Err(refuse("property multihost is on"));
    }
    Ok(())
}

fn check_vdevs(pool: &Pool) -> Result<()> {
    for top in &pool.zio().vdevs().root().children {
        if top.config.removing {
            return Err(refuse("a device is being removed"));
        }
        if top.config.raidz_expanding {
            return Err(refuse("a RAID-Z vdev is being expanded"));
        }
    }
    Ok(())
}
