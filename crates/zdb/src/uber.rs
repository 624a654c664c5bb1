//! Uberblocks as text.

use crate::out::Out;
use crate::{bp, p, text};
use zfs_phys::uberblock::{UBERBLOCK_MAGIC, Uberblock};

/// Prints the fields of an uberblock between `header` and `footer`; `level` is that of `-u`.
pub fn dump(o: &mut Out, ub: &Uberblock, header: &str, footer: &str, level: u32) {
    p!(o, "{header}\tmagic = {UBERBLOCK_MAGIC:016x}\n\tversion = {}\n\ttxg = {}\n", ub.version, ub.txg);
    p!(o, "\tguid_sum = {}\n", ub.guid_sum);
    p!(o, "\ttimestamp = {} UTC = {}\n", ub.timestamp, text::ctime(ub.timestamp));
    p!(o, "\tbp = {}\n", bp::long(&ub.rootbp));
    p!(o, "\tmmp_magic = {:016x}\n", ub.mmp_magic);
    if ub.mmp_valid() {
        p!(o, "\tmmp_delay = {}\n", ub.mmp_delay);
        if let Some(v) = ub.mmp_seq() {
            p!(o, "\tmmp_seq = {v}\n");
        }
        if let Some(v) = ub.mmp_fail_intervals() {
            p!(o, "\tmmp_fail = {v}\n");
        }
        if let Some(v) = ub.mmp_interval_ms() {
            p!(o, "\tmmp_write = {v}\n");
        }
        p!(o, "\tmmp_valid = {:x}\n", ub.mmp_config & 0xff);
    }
    if level >= 4 {
        p!(o, "\trootbp = {}\n", bp::long(&ub.rootbp));
    }
    p!(o, "\tcheckpoint_txg = {}\n", ub.checkpoint_txg);
    p!(o, "\traidz_reflow state={} off={}\n{footer}", ub.reflow_scratch_state(), ub.reflow_offset());
}
