//! Is another host using the pool? Foreign host numbers and the multihost activity check.
//!
//! A pool that was exported is free. One that was not is refused when another host used it last, unless forced. When
//! multihost is on, force is not enough: the roots are watched for as long as the other host could stay silent, and any
//! change among them means that it is alive.

use crate::discover::PoolCandidate;
use crate::import::{ImportError, ImportOptions, ImportProblem};
use crate::labels::{DeviceLabels, state};
use std::time::Duration;
use zfs_phys::uberblock::Uberblock;
use zfs_zio::ErrorKind;

/// Intervals to wait when the writer may stay silent for ever (`zfs_multihost_import_intervals`).
const IMPORT_INTERVALS: u64 = 20;
/// Safety factor on the time after which a silent writer suspends, percent (`MMP_FAIL_INTVS_SAFETY_FACTOR`).
const FAIL_SAFETY_PERCENT: u64 = 200;
/// Shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(1000);

/// Refuses a pool that another host uses or may be using.
pub(crate) fn check_hosts(candidate: &PoolCandidate, options: &ImportOptions) -> Result<(), ImportError> {
    let Some(ub) = candidate.best_uberblock() else { return Ok(()) };
    let ours = u64::from(options.hostid);
    let active = candidate.state == state::ACTIVE;
    let multihost = ub.mmp_valid() && ub.mmp_delay != 0;
    if active && multihost {
        if ours == 0 {
            let text = "the pool has multihost on and this host has no hostid";
            return Err(ImportError::new(ImportProblem::NoHostid, ErrorKind::Invalid, text));
        }
        if candidate.hostid != ours && is_written_to(candidate, options, &ub) {
            let hostname = candidate.hostname.clone();
            let problem = ImportProblem::ActiveHost { hostid: candidate.hostid, hostname };
            return Err(ImportError::new(problem, ErrorKind::ActiveHost, "the pool is in use by another host"));
        }
    }
    if active && candidate.hostid != 0 && candidate.hostid != ours && !options.force {
        let problem = ImportProblem::ForeignHost {
            hostid: candidate.hostid,
            hostname: candidate.hostname.clone(),
            timestamp: ub.timestamp,
        };
        return Err(ImportError::new(problem, ErrorKind::ForeignHost, "the pool was last used by another host"));
    }
    Ok(())
}

/// How long a living writer could stay silent.
fn watch_time(ub: &Uberblock) -> Duration {
    let interval = ub.mmp_interval_ms().unwrap_or(1000).max(100);
    let ms = match ub.mmp_fail_intervals() {
        Some(n) if n > 0 => u64::from(n) * interval * FAIL_SAFETY_PERCENT / 100,
        _ => (interval + ub.mmp_delay / 1_000_000) * IMPORT_INTERVALS,
    };
    Duration::from_millis(ms.min(10 * 60 * 1000))
}

fn is_written_to(candidate: &PoolCandidate, options: &ImportOptions, first: &Uberblock) -> bool {
    let end = options.clock.now() + watch_time(first);
    loop {
        let newest = candidate
            .devices
            .values()
            .flat_map(|d| DeviceLabels::read(&*d.device).uberblocks)
            .map(|u| u.ub.rank())
            .max();
        if newest != Some(first.rank()) {
            return true;
        }
        if options.clock.now() >= end {
            return false;
        }
        options.clock.sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zfs_phys::BlkPtr;
    use zfs_phys::read::Endian;

    #[test]
    fn the_watch_lasts_longer_than_the_writer_may_be_silent() {
        let mut ub = Uberblock {
            endian: Endian::Little,
            version: 5000,
            txg: 9,
            guid_sum: 0,
            timestamp: 0,
            rootbp: BlkPtr::default(),
            software_version: 5000,
            mmp_magic: zfs_phys::uberblock::MMP_MAGIC,
            mmp_delay: 1_000_000_000,
            mmp_config: 7 | (500 << 8) | (10 << 48),
            checkpoint_txg: 0,
            raidz_reflow_info: 0,
        };
        assert_eq!(watch_time(&ub), Duration::from_millis(10_000));
        ub.mmp_config = 3 | (500 << 8);
        assert_eq!(watch_time(&ub), Duration::from_millis(30_000));
    }
}
