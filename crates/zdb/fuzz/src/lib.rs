//! Whole images: takes a pool that OpenZFS made, changes bytes deep in its tree and repairs every checksum on the way
//! up, so that nothing but the decoders stands between the change and the engine; then imports the pool, dumps all of
//! it and checks it. The property: no panic, no hang, bounded memory.
//!
//! A path is walked from the uberblock down. In each block, what looks like block pointers are the ways on; at some
//! block the walk stops and its bytes are changed. On the way back each block is compressed again (when it no longer
//! fits, the attempt is dropped), its checksum computed and stored in the pointer above, in all copies; last, the
//! uberblock is sealed into every label. The image itself is never written: changes lie in an overlay of sectors.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zdb::opts::Opts;
use zdb::out::Out;
use zfs_codec::checksum::{compute, label_verifier, seal_embedded};
use zfs_codec::compress::{compress, decompress};
use zfs_env::BlockDevice;
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_phys::label::{VDEV_LABEL_START_SIZE, VDEV_UBERBLOCK_RING_OFFSET, label_offset, uberblock_shift};
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{BlkPtr, Endian};
use zfs_spa::{ImportOptions, PoolCandidate, import};
use zfs_zio::ArcCache;

/// Longest time one image may take.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Pointers followed on one path.
const MAX_DEPTH: usize = 24;

/// An image and the sectors that were changed.
pub struct Overlay {
    base: Arc<Vec<u8>>,
    sectors: HashMap<u64, [u8; 512]>,
}

impl Overlay {
    /// Nothing changed yet.
    pub fn new(base: Arc<Vec<u8>>) -> Self {
        Self { base, sectors: HashMap::new() }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<()> {
        for (i, chunk) in data.chunks(512).enumerate() {
            let at = offset.checked_add(i as u64 * 512)?;
            let mut sector = [0u8; 512];
            self.read_at(at, &mut sector).ok()?;
            sector[..chunk.len()].copy_from_slice(chunk);
            self.sectors.insert(at / 512, sector);
        }
        Some(())
    }
}

impl BlockDevice for Overlay {
    fn size(&self) -> u64 {
        self.base.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = from.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.base.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        let (first, last) = (offset / 512, (offset + buf.len() as u64).div_ceil(512));
        for n in first..last {
            if let Some(sector) = self.sectors.get(&n) {
                let (lo, hi) = ((n * 512).max(offset), (n * 512 + 512).min(offset + buf.len() as u64));
                let (a, b) = ((lo - offset) as usize, (hi - offset) as usize);
                buf[a..b].copy_from_slice(&sector[(lo - n * 512) as usize..(hi - n * 512) as usize]);
            }
        }
        Ok(())
    }

    fn path(&self) -> String {
        "fuzzed image".into()
    }
}

/// Where decisions come from: the fuzzer's bytes, then a generator seeded by them.
pub struct Choices<'a> {
    data: &'a [u8],
    state: u64,
}

impl<'a> Choices<'a> {
    /// Decisions from bytes.
    pub fn new(data: &'a [u8]) -> Self {
        let state =
            data.iter().fold(0x9E37_79B9_7F4A_7C15u64, |s, b| (s ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3));
        Self { data, state }
    }

    fn next(&mut self) -> u64 {
        if let Some((word, rest)) = self.data.split_first_chunk::<4>() {
            self.data = rest;
            return u64::from(u32::from_le_bytes(*word));
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn looks_real(b: &BlkPtr, size: u64) -> bool {
    let d = b.dva(0);
    !b.is_hole()
        && !b.is_embedded()
        && !b.is_gang()
        && !b.is_encrypted()
        && b.object_type().is_valid()
        && b.birth() > 0
        && b.birth() < 1 << 32
        && d.vdev() == 0
        && d.offset().saturating_add(d.asize()) < size.saturating_sub(VDEV_LABEL_START_SIZE)
        && b.psize() <= d.asize()
        && b.compress().is_some()
        && matches!(b.checksum_kind(), Some(ChecksumKind::Fletcher4 | ChecksumKind::Fletcher2 | ChecksumKind::Sha256))
}

fn change(block: &mut [u8], c: &mut Choices<'_>) {
    const EDGES: [u64; 10] = [0, 1, 2, 0xff, 0x7fff_ffff, u32::MAX as u64, 1 << 48, 1 << 62, u64::MAX - 1, u64::MAX];
    for _ in 0..=c.below(6) {
        // Interesting bytes lie at the front of blocks, and in those that are not zero.
        let span = if c.below(2) == 0 { block.len().min(512) } else { block.len() };
        let at = c.below(span);
        match c.below(4) {
            0 => block[at] ^= 1 << c.below(8),
            1 => block[at] = c.next() as u8,
            2 => {
                let word = EDGES[c.below(EDGES.len())].to_le_bytes();
                let at = at & !7;
                block.iter_mut().skip(at).zip(word).for_each(|(b, w)| *b = w);
            }
            _ => {
                let (from, len) = (c.below(block.len()), c.below(64));
                let copy: Vec<u8> = block.iter().skip(from).take(len).copied().collect();
                block.iter_mut().skip(at).zip(copy).for_each(|(b, w)| *b = w);
            }
        }
    }
}

/// Changes something below `bp`; gives the pointer that fits the changed tree.
fn mutate(disk: &mut Overlay, bp: &BlkPtr, c: &mut Choices<'_>, depth: usize) -> Option<BlkPtr> {
    let mut stored = vec![0u8; bp.psize() as usize];
    if !looks_real(bp, disk.size()) {
        return None;
    }
    disk.read_at(bp.dva(0).offset() + VDEV_LABEL_START_SIZE, &mut stored).ok()?;
    let kind = bp.compress()?;
    let mut plain = vec![0u8; bp.lsize() as usize];
    decompress(kind, &stored, &mut plain).ok()?;
    let size = disk.size();
    let real = |raw: &[u8]| BlkPtr::decode(raw, bp.endian()).ok().filter(|b| looks_real(b, size));
    let places: Vec<usize> =
        (0..plain.len().saturating_sub(127)).step_by(64).filter(|at| real(&plain[*at..*at + 128]).is_some()).collect();
    if places.is_empty() || depth >= MAX_DEPTH || c.below(8) == 0 {
        change(&mut plain, c);
    } else {
        let at = places[c.below(places.len())];
        let below = mutate(disk, &real(&plain[at..at + 128])?, c, depth + 1)?;
        plain[at..at + 128].copy_from_slice(&below.encode(bp.endian()));
    }
    let room = stored.len();
    let mut packed = match kind {
        CompressKind::Off => plain,
        _ => compress(kind, u8::MAX, &plain, room)?,
    };
    packed.resize(room, 0);
    let sum = compute(bp.checksum_kind()?, &packed, bp.endian(), None)?;
    for d in bp.dvas() {
        disk.write(d.offset().checked_add(VDEV_LABEL_START_SIZE)?, &packed)?;
    }
    let mut out = *bp;
    out.word[12..].copy_from_slice(&sum);
    Some(out)
}

/// The offset of the newest root in a label, and the root.
fn newest(disk: &Overlay, ashift: u64) -> Option<(u64, Uberblock)> {
    let slot = 1u64 << uberblock_shift(ashift);
    let mut best: Option<(u64, Uberblock)> = None;
    for i in 0..(128 << 10) / slot {
        let mut raw = vec![0u8; slot as usize];
        disk.read_at(VDEV_UBERBLOCK_RING_OFFSET + i * slot, &mut raw).ok()?;
        if let Ok(ub) = Uberblock::decode(&raw)
            && best.as_ref().is_none_or(|(_, b)| ub.rank() > b.rank())
        {
            best = Some((VDEV_UBERBLOCK_RING_OFFSET + i * slot, ub));
        }
    }
    best
}

/// Makes one damaged image; nothing when the change did not fit.
pub fn damage(base: &Arc<Vec<u8>>, ashift: u64, data: &[u8]) -> Option<Overlay> {
    let mut disk = Overlay::new(base.clone());
    let mut c = Choices::new(data);
    let (place, ub) = newest(&disk, ashift)?;
    let mut root = ub.rootbp;
    for _ in 0..=c.below(3) {
        root = mutate(&mut disk, &root, &mut c, 0)?;
    }
    let slot = 1usize << uberblock_shift(ashift);
    let mut raw = vec![0u8; slot];
    disk.read_at(place, &mut raw).ok()?;
    raw[40..168].copy_from_slice(&root.encode(Endian::Little));
    for l in 0..4 {
        let at = label_offset(disk.size(), l)? + place;
        let mut sealed = raw.clone();
        seal_embedded(ChecksumKind::Label, &mut sealed, label_verifier(at), Endian::Little, None).ok()?;
        disk.write(at, &sealed)?;
    }
    Some(disk)
}

/// Imports an image, dumps everything, and checks every block. The result only tells that it got that far.
pub fn examine(disk: Overlay) -> bool {
    let device: Arc<dyn BlockDevice> = Arc::new(disk);
    let found = PoolCandidate::from_devices([(PathBuf::from("image"), device)]);
    let Some(candidate) = found.first() else { return false };
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(64 << 20)), None);
    options.force = true;
    options.skip_host_checks = true;
    let Ok(pool) = import(candidate, &options) else { return false };
    let args = ["-bbbcc", "-dddddd", "-mmmm", "-DDDDD", "-TTTT", "-hh", "-C", "-uuuu", "-iiiiii", "-M"];
    let Ok(opts) = Opts::parse(args.map(str::to_owned)) else { return false };
    let mut sink = Out::to(Box::new(io::sink()));
    zdb::dump_opened(&mut sink, &opts, pool);
    true
}

/// One execution: damage by `data`, then examine. A walk that does not end is a failure, and is left behind.
pub fn run(base: &Arc<Vec<u8>>, ashift: u64, data: &[u8]) -> bool {
    let Some(disk) = damage(base, ashift, data) else { return false };
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(examine(disk)));
    match wait.recv_timeout(LIMIT) {
        Ok(walked) => walked,
        Err(why) => panic!("examining a damaged image ended badly: {why}"),
    }
}
