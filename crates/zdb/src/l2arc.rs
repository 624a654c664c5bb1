//! The header and log blocks of a cache device, as `zdb -l` shows them (include/sys/arc_impl.h).
//!
//! The header lies behind the front labels; it points at the two newest log blocks, each of which points at the one
//! two before it. Only what can be verified is followed, and the walk ends at the first block that fails.

use crate::opts::Opts;
use crate::out::Out;
use crate::p;
use std::fs::File;
use std::os::unix::fs::FileExt;
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_phys::label::VDEV_LABEL_START_SIZE;
use zfs_phys::{Endian, Reader};

/// Pool state of a cache device's label.
pub const POOL_STATE_L2CACHE: u64 = 4;
const MAGIC: u64 = 0x5a46_5343_4143_4845;

const LOG_MAGIC: u64 = 0x4c4f_4742_4c4b_4844;
/// Bytes of a log block before compression.
const LOG_SIZE: usize = 64 << 10;
/// Bytes of a log block in front of its entries.
const LOG_HEAD: usize = 128;

/// Pointer to a log block.
#[derive(Clone, Copy, Default)]
struct LogPtr {
    /// Byte offset on the device.
    at: u64,
    payload_asize: u64,
    payload_start: u64,
    prop: u64,
    checksum: [u64; 4],
}

impl LogPtr {
    fn read(r: &mut Reader<'_>) -> zfs_phys::Result<Self> {
        let [at, payload_asize, payload_start, prop] = r.u64s()?;
        Ok(Self { at, payload_asize, payload_start, prop, checksum: r.u64s()? })
    }

    /// Bytes on the device.
    fn asize(&self) -> u64 {
        ((self.prop >> 16 & 0xffff) + 1) << 9
    }

    /// Bytes before compression.
    fn lsize(&self) -> u64 {
        ((self.prop & 0xffff) + 1) << 9
    }
}

struct Header {
    version: u64,
    guid: u64,
    flags: u64,
    entries: u64,
    start: u64,
    end: u64,
    evict: u64,
    first: [LogPtr; 2],
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
    let first = [LogPtr::read(r)?, LogPtr::read(r)?];
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
        let (count, asize) = logs(o, opts, file, &h);
        return h.count <= count && h.asize <= asize;
    }
    let line = "------------------------------------";
    p!(o, "{line}\nL2ARC device header\n{line}\n");
    p!(o, "    magic: {MAGIC}\n    version: {}\n    pool_guid: {}\n    flags: {}\n", h.version, h.guid, h.flags);
    p!(o, "    start_lbps[0]: {}\n    start_lbps[1]: {}\n", h.first[0].at, h.first[1].at);
    p!(o, "    log_blk_ent: {}\n    start: {}\n    end: {}\n    evict: {}\n", h.entries, h.start, h.end, h.evict);
    p!(o, "    lb_asize_refcount: {}\n    lb_count_refcount: {}\n", h.asize, h.count);
    p!(o, "    trim_action_time: {}\n    trim_state: {}\n\n", h.trim_time, h.trim_state);
    p!(o, "{line}\nL2ARC device log blocks\n{line}\n");
    let (count, asize) = logs(o, opts, file, &h);
    // The header may know of fewer than there are, never of more.
    h.count <= count && h.asize <= asize
}

fn pointer(o: &mut Out, p: &LogPtr) {
    p!(o, "|\t\tdaddr: {}\n|\t\tpayload_asize: {}\n", p.at, p.payload_asize);
    p!(o, "|\t\tpayload_start: {}\n|\t\tlsize: {}\n|\t\tasize: {}\n", p.payload_start, p.lsize(), p.asize());
    p!(o, "|\t\tcompralgo: {}\n|\t\tcksumalgo: {}\n|\n\n", p.prop >> 32 & 0x7f, p.prop >> 40 & 0xff);
}

/// Reads one log block; nothing when it does not verify.
fn log_block(file: &File, p: &LogPtr) -> Option<Vec<u8>> {
    let mut raw = vec![0u8; p.asize().min(LOG_SIZE as u64) as usize];
    file.read_exact_at(&mut raw, p.at).ok()?;
    let sum = zfs_codec::checksum::compute(ChecksumKind::Fletcher4, &raw, Endian::NATIVE, None)?;
    if sum != p.checksum {
        return None;
    }
    let kind = CompressKind::from_raw((p.prop >> 32 & 0x7f) as u8)?;
    let mut plain = vec![0u8; LOG_SIZE];
    match kind {
        CompressKind::Off => plain.iter_mut().zip(&raw).for_each(|(a, b)| *a = *b),
        _ => zfs_codec::compress::decompress(kind, &raw, &mut plain).ok()?,
    }
    Some(plain)
}

/// Follows the log blocks from the newest to the oldest; their number and allocated size.
fn logs(o: &mut Out, opts: &Opts, file: &File, h: &Header) -> (u64, u64) {
    let quiet = opts.has('q');
    let (mut count, mut asize, mut failed) = (0u64, 0u64, 0u64);
    if h.first[0].at == 0 {
        if !quiet {
            p!(o, "No log blocks to read\n\n");
        }
        return (0, 0);
    }
    let [mut at, mut next] = h.first;
    let most = h.end.saturating_sub(h.start) / 512;
    while count < most && at.at >= h.start && at.at.saturating_add(at.asize()) <= h.end && at.lsize() == LOG_SIZE as u64
    {
        let Some(block) = log_block(file, &at) else {
            failed += 1;
            if !quiet {
                p!(o, "Invalid cksum\n");
                pointer(o, &at);
            }
            break;
        };
        let endian = match Reader::new(&block, Endian::Little, "cache log").u64() {
            Ok(LOG_MAGIC) => Endian::Little,
            Ok(m) if m.swap_bytes() == LOG_MAGIC => Endian::Big,
            _ => {
                p!(o, "Invalid log block magic\n\n");
                break;
            }
        };
        count += 1;
        asize += at.asize();
        if opts.lvl('l') > 1 && !quiet {
            p!(o, "lb[{count:4}]\tmagic: {LOG_MAGIC}\n");
            pointer(o, &at);
        }
        if opts.lvl('l') > 2 && !quiet {
            let _ = entries(o, &block, endian, count, h.entries);
        }
        let mut r = Reader::new(&block, endian, "cache log");
        let Ok(older) = r.skip(8).and_then(|()| LogPtr::read(&mut r)) else { break };
        (at, next) = (next, older);
    }
    if !quiet {
        p!(o, "log_blk_count:\t {count} with valid cksum\n\t\t {failed} with invalid cksum\n");
        p!(o, "log_blk_asize:\t {asize}\n\n");
    }
    (count, asize)
}

fn entries(o: &mut Out, block: &[u8], endian: Endian, log: u64, count: u64) -> zfs_phys::Result<()> {
    let mut r = Reader::new(block, endian, "cache log entry");
    r.skip(LOG_HEAD)?;
    for i in 1..=count.min(((LOG_SIZE - LOG_HEAD) / 64) as u64) {
        let [d0, d1, birth, prop, daddr, level, _, _] = r.u64s()?;
        let d = zfs_phys::Dva { word: [d0, d1] };
        p!(o, "lb[{log:4}]\tle[{i:4}]\tDVA asize: {}, vdev: {}, offset: {}\n", d.asize(), d.vdev(), d.offset());
        let tab = "|\t\t\t\t";
        let size = |shift: u32| ((prop >> shift & 0xffff) + 1) << 9;
        p!(o, "{tab}birth: {birth}\n{tab}lsize: {}\n{tab}psize: {}\n", size(0), size(16));
        p!(o, "{tab}compr: {}\n{tab}complevel: {}\n", prop >> 32 & 0x7f, level as u8);
        p!(o, "{tab}type: {}\n{tab}protected: {}\n", (prop >> 48 & 0xff).wrapping_sub(1), prop >> 56 & 1);
        p!(o, "{tab}prefetch: {}\n{tab}address: {daddr}\n{tab}ARC state: {}\n|\n", prop >> 39 & 1, prop >> 57 & 0xf);
    }
    p!(o, "\n");
    Ok(())
}
