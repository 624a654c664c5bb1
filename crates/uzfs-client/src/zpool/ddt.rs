//! The deduplication table in `zpool status -D`.

use crate::nicenum::{nicebytes, nicenum};
use std::fmt::Write;
use uzfs_proto::{DedupBucket, Pool};

/// The lines behind the errors.
pub fn lines(pool: &Pool, exact: bool) -> String {
    let Some(dedup) = &pool.dedup else { return String::new() };
    let mut out = String::from("\n dedup: ");
    if dedup.entries == 0 {
        out.push_str("no DDT entries\n");
        return out;
    }
    let size = |n: u64| if exact { n.to_string() } else { nicenum(n) };
    let cached = dedup.cached_size.min(dedup.core_size);
    let part = 100.0 * cached as f64 / dedup.core_size.max(1) as f64;
    let _ = writeln!(
        out,
        "DDT entries {}, size {} on disk, {} in core, {} cached ({part:.2}%)",
        dedup.entries,
        size(dedup.disk_size),
        size(dedup.core_size),
        size(cached)
    );
    out.push_str("\nbucket              allocated                       referenced          \n");
    out.push_str("______   ______________________________   ______________________________\n");
    out.push_str("refcnt   blocks   LSIZE   PSIZE   DSIZE   blocks   LSIZE   PSIZE   DSIZE\n");
    out.push_str("------   ------   -----   -----   -----   ------   -----   -----   -----\n");
    let mut total = [0u64; 8];
    for (power, bucket) in dedup.histogram.iter().enumerate() {
        let columns = figures(bucket);
        if columns.iter().all(|n| *n == 0) {
            continue;
        }
        for (sum, n) in total.iter_mut().zip(columns) {
            *sum = sum.saturating_add(n);
        }
        let count = u32::try_from(power).ok().and_then(|p| 1u64.checked_shl(p)).unwrap_or(0);
        row(&mut out, &size(count), columns, &size, exact);
    }
    row(&mut out, "Total", total, &size, exact);
    out.push('\n');
    out
}

fn figures(b: &DedupBucket) -> [u64; 8] {
    [b.blocks, b.lsize, b.psize, b.dsize, b.ref_blocks, b.ref_lsize, b.ref_psize, b.ref_dsize]
}

fn row(out: &mut String, title: &str, columns: [u64; 8], size: &dyn Fn(u64) -> String, exact: bool) {
    let bytes = |n: u64| if exact { n.to_string() } else { nicebytes(n) };
    let _ = write!(out, "{title:>6}");
    for (i, n) in columns.into_iter().enumerate() {
        let _ = match i % 4 {
            0 => write!(out, "   {:>6}", size(n)),
            _ => write!(out, "   {:>5}", bytes(n)),
        };
    }
    out.push('\n');
}
