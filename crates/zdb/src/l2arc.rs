//! The header and log blocks of a cache device, as `zdb -l` shows them (include/sys/arc_impl.h).
//!
//! The header lies behind the front labels; it points at the two newest log blocks, each of which points at the one
//! two before it. Only what can be verified is followed, and the walk ends at the first block that fails.

use crate::opts::Opts;
use crate::out::Out;
use crate::p;
use std::fs::File;
use std::os::unix::fs::FileExt;
use zfs_phys::label::VDEV_LABEL_START_SIZE;
use zfs_phys::{Endian, Reader};

/// Pool state of a cache device's label.
pub const POOL_STATE_L2CACHE: u64 = 4;
const MAGIC: u64 = 0x5a46_5343_4143_4845;

struct Header {
    version: u64,
    guid: u64,
    flags: u64,
    entries: u64,
    start: u64,
    end: u64,
    evict: u64,
    first: [u64; 2],
    asize: u64,
    count: u64,
    trim_time: u64,
    trim_state: u64,
}

fn decode(buf: &[u8]) -> zfs_phys::Result<Option<Header>> {
    let endian = match Reader::new(buf, Endian::Little, "cache header").u64()? {
        MAGIC => Endian::Little,
        m if m.swap_bytes() == MAGIC => Endian::Big,
        _ => return Ok(None),
    };
    let r = &mut Reader::new(buf, endian, "cache header");
    r.skip(8)?;
    let [version, guid, _vdev_guid, entries, evict, flags, start, end] = r.u64s()?;
    let mut first = [0u64; 2];
    for f in &mut first {
        *f = r.u64()?;
        r.skip(56)?;
    }
    let [asize, count, trim_time, trim_state] = r.u64s()?;
    Ok(Some(Header { version, guid, flags, entries, start, end, evict, first, asize, count, trim_time, trim_state }))
}

/// Prints the header; false when it is worse than absent.
pub fn dump(o: &mut Out, opts: &Opts, file: &File) -> bool {
    let mut buf = vec![0u8; 512];
    let header = match file.read_exact_at(&mut buf, VDEV_LABEL_START_SIZE) {
        Ok(()) => decode(&buf).ok().flatten(),
        Err(_) => None,
    };
    let Some(h) = header else {
        p!(o, "L2ARC device header not found\n\n");
        return true;
    };
    if opts.has('q') {
        return true;
    }
    let line = "------------------------------------";
    p!(o, "{line}\nL2ARC device header\n{line}\n");
    p!(o, "    magic: {MAGIC}\n    version: {}\n    pool_guid: {}\n    flags: {}\n", h.version, h.guid, h.flags);
    p!(o, "    start_lbps[0]: {}\n    start_lbps[1]: {}\n", h.first[0], h.first[1]);
    p!(o, "    log_blk_ent: {}\n    start: {}\n    end: {}\n    evict: {}\n", h.entries, h.start, h.end, h.evict);
    p!(o, "    lb_asize_refcount: {}\n    lb_count_refcount: {}\n", h.asize, h.count);
    p!(o, "    trim_action_time: {}\n    trim_state: {}\n\n", h.trim_time, h.trim_state);
    true
}
