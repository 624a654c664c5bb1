//! Log space maps: one object for each txg that holds what all metaslabs allocated and freed in it.
//!
//! A txg that touches many metaslabs then appends to one object instead of to each metaslab's own. What a metaslab's own
//! map lacks is kept in memory ([`super::metaslabs`]); a few metaslabs a txg are *flushed*: their changes go to their own
//! map, and from then on logs before that txg say nothing about them. A log that is older than every metaslab's last
//! flush is destroyed.
//!
//! How many are flushed follows OpenZFS: logs may have four blocks for each metaslab that has something to flush, but at
//! least a thousand, and there may be a thousand of them; the rate of the last txgs is projected to where that would be
//! exceeded, and as many are flushed in each txg as it takes not to get there. OpenZFS sums logs up in ten rows to make
//! that cheap; here each log is a row of its own, at most a thousand numbers a txg.
//!
//! On disk (`include/sys/dmu.h`, `vdev_impl.h`): the pool directory's `com.delphix:log_spacemap_zap` lists the logs by
//! txg; `com.delphix:ms_unflushed_phys_txgs` in a top-level vdev's table names an array with the txg of each metaslab's
//! last flush, 0 while none of its changes ever was in a log. An export flushes all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Block size of log space maps (`zfs_log_sm_blksz`).
pub(super) const LOG_BLOCK: u32 = 1 << 17;
/// Entry of the pool directory that lists log space maps.
pub(super) const LOG_ZAP: &[u8] = b"com.delphix:log_spacemap_zap";
/// Entry of a top-level vdev's table: since which txg logs count, for each metaslab.
pub(super) const UNFLUSHED: &[u8] = b"com.delphix:ms_unflushed_phys_txgs";
/// Blocks that logs may have for each metaslab with changes (`zfs_unflushed_log_block_pct`).
const BLOCKS_PER_METASLAB: u64 = 4;
/// Least and most blocks that logs may have (`zfs_unflushed_log_block_min`, `_max`).
const BLOCKS: std::ops::RangeInclusive<u64> = 1000..=1 << 17;
/// Most logs (`zfs_unflushed_log_txg_max`).
const MAX_LOGS: i64 = 1000;
/// Txgs whose rate is projected (`zfs_max_log_walking`).
const RATE_TXGS: usize = 5;
/// Fewest metaslabs flushed in a txg (`zfs_min_metaslabs_to_flush`).
const MIN_FLUSHES: u64 = 1;

/// A metaslab: number of its vdev and its own.
pub(super) type MsId = (u64, u64);

/// One log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) object: u64,
    /// Blocks it has.
    pub(super) blocks: u64,
}

/// When a metaslab was flushed last, and whether anything changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flushed {
    pub(super) txg: u64,
    pub(super) dirty: bool,
}

/// The logs of a pool and who needs them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Object that lists the logs; 0 none.
    pub(super) table: u64,
    pub(super) logs: BTreeMap<u64, Log>,
    metaslabs: HashMap<MsId, Flushed>,
    /// The same by txg, oldest first.
    order: BTreeSet<(u64, MsId)>,
}

impl Ledger {
    /// Sets when a metaslab was flushed.
    pub(super) fn set(&mut self, ms: MsId, txg: u64, dirty: bool) {
        if let Some(old) = self.metaslabs.insert(ms, Flushed { txg, dirty }) {
            self.order.remove(&(old.txg, ms));
        }
        self.order.insert((txg, ms));
    }

    /// When a metaslab was flushed, unless logs never told anything of it.
    pub(super) fn flushed(&self, ms: MsId) -> Option<Flushed> {
        self.metaslabs.get(&ms).copied()
    }

    /// Metaslabs that were flushed before `txg`, oldest first.
    pub(super) fn older_than(&self, txg: u64) -> Vec<MsId> {
        self.order.range(..(txg, (0, 0))).map(|(_, ms)| *ms).collect()
    }

    /// Takes out the logs that nobody needs any more.
    pub(super) fn obsolete(&mut self) -> Vec<(u64, Log)> {
        let Some((oldest, _)) = self.order.first().copied() else { return Vec::new() };
        let kept = self.logs.split_off(&oldest);
        std::mem::replace(&mut self.logs, kept).into_iter().collect()
    }

    /// How many metaslabs to flush in `txg`.
    pub(super) fn want(&self, txg: u64) -> u64 {
        let mut dirty: HashMap<u64, u64> = HashMap::new();
        for flushed in self.metaslabs.values().filter(|f| f.dirty) {
            *dirty.entry(flushed.txg).or_default() += 1;
        }
        let rows = self.logs.iter().map(|(txg, log)| (log.blocks, dirty.get(txg).copied().unwrap_or(0)));
        let limit = (dirty.values().sum::<u64>() * BLOCKS_PER_METASLAB).clamp(*BLOCKS.start(), *BLOCKS.end());
        let last: Vec<u64> = self.logs.range(..txg).rev().take(RATE_TXGS).map(|(_, l)| l.blocks).collect();
        let incoming = last.iter().sum::<u64>().div_ceil(last.len().max(1) as u64);
        estimate(&rows.collect::<Vec<_>>(), limit, incoming)
    }
}

/// How many metaslabs to flush a txg so that logs stay below `limit` blocks when each txg adds `incoming`: `rows` tells,
/// from the oldest log on, its blocks and how many metaslabs need it.
fn estimate(rows: &[(u64, u64)], limit: u64, incoming: u64) -> u64 {
    let incoming = i64::try_from(incoming).unwrap_or(i64::MAX / 4);
    let held: i64 = rows.iter().map(|(blocks, _)| *blocks as i64).sum();
    let mut blocks = limit as i64 - held - incoming;
    let mut logs = MAX_LOGS - rows.len() as i64;
    let (mut txgs, mut flushes, mut most) = (1u64, 0u64, MIN_FLUSHES);
    for (gone, metaslabs) in rows {
        // Txgs that pass before the limit is exceeded.
        if blocks >= 0 && logs >= 0 {
            let pass = if incoming == 0 { logs + 1 } else { (logs + 1).min(blocks / incoming + 1) };
            blocks -= pass * incoming;
            logs -= pass;
            txgs += pass.unsigned_abs();
        }
        blocks += *gone as i64;
        logs += 1;
        flushes += metaslabs;
        most = most.max(flushes.div_ceil(txgs));
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_go_when_nobody_needs_them() {
        let mut ledger = Ledger::default();
        for txg in 5..9 {
            ledger.logs.insert(txg, Log { object: txg * 10, blocks: 1 });
        }
        ledger.set((0, 1), 5, true);
        ledger.set((0, 2), 7, true);
        assert_eq!(ledger.obsolete(), []);
        assert_eq!(ledger.older_than(8), [(0, 1), (0, 2)]);
        ledger.set((0, 1), 8, false);
        let gone: Vec<u64> = ledger.obsolete().iter().map(|(txg, _)| *txg).collect();
        assert_eq!(gone, [5, 6]);
        assert_eq!(ledger.flushed((0, 1)), Some(Flushed { txg: 8, dirty: false }));
        assert_eq!(ledger.older_than(8), [(0, 2)]);
    }

    /// Runs txgs that add `incoming` blocks and change `touched` of `count` metaslabs; gives the most blocks and logs
    /// there were and the most flushes in a txg after a time.
    fn run(count: u64, touched: u64, incoming: u64, txgs: u64) -> (u64, usize, usize) {
        let mut ledger = Ledger::default();
        let (mut blocks, mut logs, mut flushes) = (0, 0, 0);
        for txg in 1..=txgs {
            let want = ledger.want(txg);
            ledger.logs.insert(txg, Log { object: txg, blocks: 0 });
            let mut left = want;
            let mut done = 0;
            for ms in ledger.older_than(txg) {
                if left == 0 {
                    break;
                }
                if ledger.flushed(ms).is_some_and(|f| f.dirty) {
                    left -= 1;
                    done += 1;
                }
                ledger.set(ms, txg, false);
            }
            ledger.obsolete();
            for i in 0..touched {
                let ms = (0, (txg * touched + i) % count);
                match ledger.flushed(ms) {
                    Some(f) if f.dirty => {}
                    _ => ledger.set(ms, txg, true),
                }
            }
            ledger.logs.insert(txg, Log { object: txg, blocks: incoming });
            if txg > txgs / 2 {
                blocks = blocks.max(ledger.logs.values().map(|l| l.blocks).sum());
                logs = logs.max(ledger.logs.len());
                flushes = flushes.max(done);
            }
        }
        (blocks, logs, flushes)
    }

    #[test]
    fn logs_stay_within_their_limits() {
        // Few changes: the number of logs is what bounds, and the flushes are spread over txgs.
        let (blocks, logs, flushes) = run(200, 3, 1, 4000);
        assert!(blocks <= 1010 && logs <= 1010 && flushes <= 8, "{blocks} blocks, {logs} logs, {flushes} flushes");
        // Many changes: blocks bound, at four for each metaslab.
        let (blocks, _, flushes) = run(1000, 400, 100, 400);
        assert!(blocks <= 4200 && flushes < 60, "{blocks} blocks, {flushes} flushes");
        // A small pool with much to tell.
        let (blocks, _, _) = run(10, 10, 50, 400);
        assert!(blocks <= 1100, "{blocks} blocks");
    }
}
