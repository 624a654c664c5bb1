//! Writing blocks: from logical bytes to a block pointer and bytes on disks.
//!
//! Order of things in [`Zio::write`]: zeros become a hole; compression, which must save an eighth and whole sectors to be
//! worth it ([`pack`]); what is small enough goes into the pointer; the checksum; is it what was there before?; space for
//! every copy, or a gang block ([`gang`]) where no single range is large enough; the bytes to every copy.
//!
//! A write is done when its bytes have been given to the devices; they are durable after [`Zio::flush`]. Failing devices
//! are no errors here as long as one copy of every block can be read back. When that cannot be had any more the pool
//! is suspended ([`gate`]): every later write waits or fails until [`Zio::resume`], nothing on disk changes, and so the last
//! synced state stays as it is. A broken invariant of the allocator ends all writing.
//!
//! Locks: none of its own; many threads write at the same time.

mod gang;
mod gate;
mod log;
mod pack;
mod repair;

use crate::VdevKind;
use crate::alloc::{Allocator, AsideDelta, Ask, Class, Loader, MetaslabDelta, SpaceFigures, TopSeed};
use crate::arc::CacheKey;
use crate::bookmark::Zbookmark;
use crate::buf::Buf;
use crate::error::{Error, ErrorKind, Result};
use crate::vdev::labels::LeafConfig;
use crate::vdev::{VdevError, WriteIo};
use crate::zio::Zio;
use gate::{Bytes, Gate};
use pack::Packed;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use zfs_codec::checksum;
use zfs_phys::blkptr::SPA_MAXBLOCKSIZE;
use zfs_phys::enums::{ChecksumKind, CompressKind, DmuObjectType};
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{BlkPtr, Dva, Endian};

pub use gate::FailMode;

/// Passes of one txg's sync from which on blocks written in it before are rewritten in place
/// (`zfs_sync_pass_rewrite`).
pub const SYNC_PASS_REWRITE: u32 = 2;
/// Pass from which on nothing is compressed, so that sizes stop changing (`zfs_sync_pass_dont_compress`).
pub const SYNC_PASS_DONT_COMPRESS: u32 = 8;

/// How a pool is written.
#[derive(Debug, Clone)]
pub struct WriteConfig {
    /// Holes record their birth (`com.delphix:hole_birth` is active), from the beginning; see
    /// [`Zio::let_holes_have_births`].
    pub hole_birth: bool,
    /// Bytes allocated on one top-level vdev before the next has its turn; vdevs of several data disks get that for
    /// each.
    pub aliquot: u64,
    /// Independent streams of allocation; each uses metaslabs of its own.
    pub allocators: usize,
}

impl Default for WriteConfig {
    fn default() -> Self {
        Self { hole_birth: true, aliquot: 2 << 20, allocators: 4 }
    }
}

/// How a block is written.
#[derive(Clone)]
pub struct WriteProps {
    /// Type of the object it belongs to.
    pub object_type: DmuObjectType,
    /// Level: 0 for data.
    pub level: u8,
    /// Checksum; a definite one, not `inherit` or `on`.
    pub checksum: ChecksumKind,
    /// Compression; a definite one.
    pub compress: CompressKind,
    /// Level of zstd, in ZFS's numbers; 255 for its default.
    pub complevel: u8,
    /// Copies on different places, 1 to 3.
    pub copies: u8,
    /// Where it should go; special and dedup spill over into normal.
    pub class: Class,
    /// Whether it may be kept in the pointer.
    pub embed: bool,
    /// Whether a block equal to the one it replaces need not be written.
    pub nopwrite: bool,
    /// The header of an encrypted object set: it carries its own MACs, so that no key is needed to write it, and its
    /// pointer says so. Not to be compressed.
    pub authenticated: bool,
}

impl WriteProps {
    /// Plain properties: fletcher4, lz4, one copy, normal class, may embed contents.
    pub fn new(object_type: DmuObjectType, level: u8) -> Self {
        Self {
            object_type,
            level,
            checksum: ChecksumKind::Fletcher4,
            compress: CompressKind::Lz4,
            complevel: u8::MAX,
            copies: 1,
            class: Class::Normal,
            embed: level == 0,
            nopwrite: false,
            authenticated: false,
        }
    }
}

impl std::fmt::Debug for WriteProps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteProps")
            .field("type", &self.object_type.0)
            .field("level", &self.level)
            .field("checksum", &self.checksum)
            .field("compress", &self.compress)
            .field("copies", &self.copies)
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

/// The writing half of an opened pool.
pub(crate) struct Writer {
    alloc: RwLock<Arc<Allocator>>,
    hole_birth: AtomicBool,
    gate: Gate,
}

impl Writer {
    /// All space; a new one after vdevs were added, which shares what was there.
    pub(crate) fn alloc(&self) -> Arc<Allocator> {
        self.alloc.read().clone()
    }
}

impl Zio {
    /// Lets blocks be allocated on more vdevs, which are in the tree already.
    ///
    /// # Errors
    /// `Corrupt` when the metaslabs do not fit their vdevs.
    pub fn add_tops(&self, tops: Vec<TopSeed>) -> Result<()> {
        let writer = self.writer()?;
        let mut alloc = writer.alloc.write();
        let extended = alloc.extended(self.vdevs(), tops).map_err(|e| e.pool(self.pool_name()))?;
        *alloc = Arc::new(extended);
        Ok(())
    }

    /// From now on nothing that is freed is overwritten, so that whoever walks the pool finds what its pointers lead to,
    /// until [`Zio::let_go`].
    pub fn hold_freed(&self) {
        if let Some(w) = self.writer.get() {
            w.alloc().hold();
        }
    }

    /// Ends what [`Zio::hold_freed`] began. False when space was so scarce that it ended before.
    pub fn let_go(&self) -> bool {
        self.writer.get().is_none_or(|w| w.alloc().let_go())
    }

    /// Makes the pool writable: from now on blocks may be allocated on `tops`. `loader` is kept as long as the pool: it
    /// must not hold the pool in turn. Fails when done twice, or with `Corrupt` when the metaslabs do not fit their
    /// vdevs.
    pub fn enable_writes(&self, tops: Vec<TopSeed>, loader: Loader, config: WriteConfig) -> Result<()> {
        let alloc = Allocator::new(self.vdevs(), tops, loader, config.allocators, config.aliquot)
            .map_err(|e| e.pool(self.pool_name()))?;
        let hole_birth = AtomicBool::new(config.hole_birth);
        let writer = Writer { alloc: RwLock::new(Arc::new(alloc)), hole_birth, gate: Gate::default() };
        self.writer.set(writer).map_err(|_| Error::invalid("the pool is writable already").pool(self.pool_name()))
    }

    /// Holes record their birth from now on: the feature was enabled.
    pub fn let_holes_have_births(&self) {
        if let Some(w) = self.writer.get() {
            w.hole_birth.store(true, Relaxed);
        }
    }

    /// Whether holes record their birth. Software older than that takes whatever has a birth for data.
    pub fn holes_have_births(&self) -> bool {
        self.writer.get().is_some_and(|w| w.hole_birth.load(Relaxed))
    }

    fn writer(&self) -> Result<&Writer> {
        let writer = self.writer.get().ok_or_else(|| {
            Error::new(ErrorKind::ReadOnly, "writing to a pool that is not open for writing").pool(self.pool_name())
        })?;
        writer.passed().map_err(|e| e.pool(self.pool_name()))
    }

    /// Passes on the result of what was begun after as many [`Zio::resumptions`], suspending the pool when it says that an
    /// invariant is broken or too much has failed.
    fn judge<T>(&self, since: u64, result: Result<T>) -> Result<T> {
        result.map_err(|e| {
            match e.kind() {
                ErrorKind::Bug => self.break_down(&e),
                ErrorKind::Io if !self.is_suspended() => _ = self.suspend_since(since, &e),
                _ => {}
            }
            e.pool(self.pool_name())
        })
    }

    /// Writes the logical bytes of a block and gives the pointer to them; its fill count is the caller's to set.
    ///
    /// Depending on `props`: all zeros become a hole, little becomes an embedded pointer, what equals `prev` may be left
    /// alone (the result equals `prev` then). `prev` is the pointer that is replaced; the caller frees it, unless the
    /// result has the same first address: in pass 2 and later of a txg's sync, a block that was written in the same
    /// txg is rewritten where it is. From pass 8 on, such blocks are not compressed.
    ///
    /// Fails with `NoSpace`, `Io` when too many devices failed (the pool is suspended then), `ReadOnly`.
    pub fn write(
        &self,
        txg: u64,
        data: &Buf,
        props: &WriteProps,
        bm: &Zbookmark,
        prev: Option<&BlkPtr>,
        pass: u32,
    ) -> Result<BlkPtr> {
        let writer = self.writer()?;
        loop {
            let since = self.resumptions();
            let result = self.write_block(writer, txg, data, props, bm, prev, pass);
            if !result.as_ref().is_err_and(|e| self.allocate_again(since, e)) {
                return self.judge(since, result.map_err(|e| e.at(bm)));
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "those of the public function")]
    fn write_block(
        &self,
        writer: &Writer,
        txg: u64,
        data: &Buf,
        props: &WriteProps,
        bm: &Zbookmark,
        prev: Option<&BlkPtr>,
        pass: u32,
    ) -> Result<BlkPtr> {
        check_props(data, props)?;
        let again = prev.filter(|p| !p.is_hole() && p.logical_birth() == txg);
        let compress = again.is_none() || pass < SYNC_PASS_DONT_COMPRESS;
        let (bytes, kind) = match pack::pack(writer, data, props, compress) {
            Packed::Hole => {
                let born = writer.hole_birth.load(Relaxed) && prev.is_some_and(|p| p.logical_birth() != 0);
                let birth = if born { txg } else { 0 };
                return Ok(BlkPtr::hole(data.len() as u64, props.object_type, props.level, birth));
            }
            Packed::Embedded(mut bp) => {
                bp.set_birth(txg, txg);
                return Ok(bp);
            }
            Packed::Stored(bytes, kind) => (bytes, kind),
        };
        let bytes = &bytes.map_or_else(|| data.clone(), Buf::from);
        let mut bp = BlkPtr::default();
        bp.set_lsize(data.len() as u64);
        bp.set_psize(bytes.len() as u64);
        bp.set_compress(kind);
        bp.set_checksum_kind(props.checksum);
        bp.set_object_type(props.object_type);
        bp.set_level(props.level);
        bp.set_endian(Endian::NATIVE);
        bp.set_crypt(props.authenticated);
        bp.set_birth(txg, txg);
        bp.set_checksum(self.sum(props.checksum, bytes)?);
        if let Some(prev) = prev.filter(|p| props.nopwrite && unchanged(p, &bp, props)) {
            return Ok(*prev);
        }
        let ask = Ask {
            class: props.class,
            psize: bytes.len() as u64,
            copies: usize::from(props.copies),
            txg,
            stream: stream(bm),
            gang: false,
        };
        let in_place = again.filter(|p| {
            pass >= SYNC_PASS_REWRITE && !p.is_embedded() && p.psize() == bp.psize() && p.ndvas() >= ask.copies
        });
        if let Some(prev) = in_place {
            return self.rewrite(prev, bp, bytes, bm);
        }
        self.place(writer, &mut bp, bytes, &ask)?;
        Ok(bp)
    }

    /// Writes over a block of the same txg and size.
    fn rewrite(&self, prev: &BlkPtr, mut bp: BlkPtr, bytes: &Buf, bm: &Zbookmark) -> Result<BlkPtr> {
        (0..3).for_each(|d| bp.set_dva(d, prev.dva(d)));
        if prev.is_gang() {
            self.rewrite_gang(&bp, bytes, bm, 0)?;
        } else {
            self.write_copies(&bp, Bytes::Shared(bytes))?;
        }
        Ok(bp)
    }

    /// Finds space for a block whose pointer lacks nothing but addresses, and writes it there.
    fn place(&self, writer: &Writer, bp: &mut BlkPtr, bytes: &Buf, ask: &Ask) -> Result<()> {
        let mut class = ask.class;
        loop {
            let ask = Ask { class, ..*ask };
            if let Some(dvas) = writer.alloc().alloc(self.vdevs(), &ask)? {
                dvas.iter().enumerate().for_each(|(d, dva)| bp.set_dva(d, *dva));
                return self.write_copies(bp, Bytes::Shared(bytes));
            }
            class = match class {
                Class::Dedup => Class::Special,
                Class::Special => Class::Normal,
                _ => break,
            };
        }
        self.write_gang(writer, bp, bytes, &Ask { class, ..*ask }, 0)
    }

    /// The checksum words of `bytes`.
    fn sum(&self, kind: ChecksumKind, bytes: &[u8]) -> Result<[u64; 4]> {
        let salt = self.checksum_context().salt;
        checksum::compute(kind, bytes, Endian::NATIVE, salt.as_ref())
            .ok_or_else(|| Error::unsupported("checksum whose salt is not known yet"))
    }

    /// Writes `bytes` to every address of `bp`; one that takes them is enough.
    fn write_copies_once(&self, bp: &BlkPtr, bytes: &[u8]) -> Result<()> {
        // Another block may have been here in the same txg, and may have been read.
        self.forget(bp);
        let io = WriteIo::new(bp.physical_birth());
        let mut good = false;
        let mut worst = VdevError::NoDevice;
        for dva in bp.dvas() {
            let written = self.vdevs().top(dva.vdev()).ok_or(VdevError::NoDevice);
            match written.and_then(|top| top.write(io, dva.offset(), bytes)) {
                Ok(()) => good = true,
                Err(e) => worst = worst.min(e),
            }
        }
        if good {
            return Ok(());
        }
        let kind = if worst == VdevError::Invalid { ErrorKind::Bug } else { ErrorKind::Io };
        Err(Error::new(kind, "writing a block").offset(bp.dva(0).offset()).txg(bp.physical_birth()))
    }

    /// Drops the block from the cache.
    fn forget(&self, bp: &BlkPtr) {
        self.arc().forget(CacheKey::new(self.instance(), bp, false));
    }

    /// Frees what a pointer occupies, all pieces of a gang block included. Space becomes allocatable again two txgs
    /// after `txg`, which must be the one syncing. Nothing happens for holes and embedded blocks.
    ///
    /// Fails with `Bug` when it is free already, which suspends the pool.
    pub fn free(&self, txg: u64, bp: &BlkPtr) -> Result<()> {
        let (writer, since) = (self.writer()?, self.resumptions());
        let result = self.each_address(bp, &mut |dva, birth| writer.alloc().free(self.vdevs(), dva, birth, txg));
        self.judge(since, result.map_err(|e| e.txg(txg)))
    }

    /// Notes that nothing refers to an address on a removed vdev any more, while the block there lives on under the
    /// address it was moved to. Fails with `Corrupt` for an address elsewhere.
    pub fn note_obsolete(&self, dva: &Dva) -> Result<()> {
        let since = self.resumptions();
        let known = self.vdevs().top(dva.vdev()).is_some_and(|top| top.config.kind == VdevKind::Indirect);
        let noted = match known {
            true => self.writer()?.alloc().note_obsolete(dva),
            false => Err(Error::corrupt("a list of obsolete blocks with one that is on no removed device")),
        };
        self.judge(since, noted.map_err(|e| e.offset(dva.offset())))
    }

    /// Marks what a pointer occupies as allocated: blocks of intent logs are found to be in use only at import. Fails
    /// with `Corrupt` when some of it is allocated already.
    pub fn claim(&self, txg: u64, bp: &BlkPtr) -> Result<()> {
        let (writer, since) = (self.writer()?, self.resumptions());
        let result = self.each_address(bp, &mut |dva, _| writer.alloc().claim(self.vdevs(), dva, txg));
        self.judge(since, result.map_err(|e| e.txg(txg)))
    }

    /// Calls `act` for every address that a pointer occupies, and the txg in which the block there was written.
    fn each_address(&self, bp: &BlkPtr, act: &mut dyn FnMut(&Dva, u64) -> Result<()>) -> Result<()> {
        if bp.is_hole() || bp.is_embedded() {
            return Ok(());
        }
        let mut all = |bp: &BlkPtr| bp.dvas().try_for_each(|dva| act(&dva, bp.physical_birth()));
        if bp.is_gang() {
            self.each_piece(bp, &mut all, 0)?;
        }
        all(bp)
    }

    /// Blocks born up to `txg` are referred to by a checkpoint: they do not become free.
    pub fn set_checkpoint(&self, txg: u64) -> Result<()> {
        self.writer()?.alloc().set_checkpoint(txg);
        Ok(())
    }

    /// What was freed since the last call and did not become free, to be written down. Call it again in later passes
    /// until it is empty.
    pub fn take_aside(&self) -> Result<Vec<AsideDelta>> {
        Ok(self.writer()?.alloc().take_aside())
    }

    /// Makes everything written so far durable. Fails when so many devices fail to flush that data may be lost; the
    /// pool is suspended then.
    pub fn flush(&self) -> Result<()> {
        self.judge(self.resumptions(), self.flushing(&|| self.vdevs().flush(self.tasks().map(|t| &**t))))
    }

    /// Makes `ub` the root of the pool: flushes what it leads to, and writes uberblock and labels in the order that
    /// survives a crash (see [`crate::vdev::labels`]). `config` is given when the configuration changed.
    ///
    /// When it fails the pool is suspended: only the next import will tell whether it is at the old or the new root.
    pub fn commit(&self, ub: &Uberblock, multihost: bool, config: Option<LeafConfig<'_>>) -> Result<()> {
        let since = self.resumptions();
        let result = self.flushing(&|| self.vdevs().commit(ub, multihost, config, self.tasks().map(|t| &**t)));
        self.judge(since, result.inspect_err(|e| self.suspend(e)))
    }

    /// Loads the best metaslabs of every vdev, so that first writes need not wait for space maps. Those that cannot be
    /// read are left out of use.
    pub fn preload_metaslabs(&self) -> Result<()> {
        self.writer()?.alloc().preload();
        Ok(())
    }

    /// What was allocated and freed in `txg` since the last call, for the space maps. Call it again in later passes
    /// until it is empty. Fails with `Bug` when the sets contradict each other; the pool is suspended then.
    pub fn take_sync_delta(&self, txg: u64) -> Result<Vec<MetaslabDelta>> {
        let (writer, since) = (self.writer()?, self.resumptions());
        self.judge(since, writer.alloc().take_deltas(txg))
    }

    /// `txg` is on stable storage: what was freed two txgs ago becomes allocatable.
    pub fn metaslab_sync_done(&self, txg: u64) -> Result<()> {
        let (writer, since) = (self.writer()?, self.resumptions());
        self.judge(since, writer.alloc().sync_done(txg))
    }

    /// Figures of a class.
    pub fn space(&self, class: Class) -> SpaceFigures {
        self.writer.get().map_or_else(SpaceFigures::default, |w| w.alloc().figures(class))
    }

    /// Figures of a top-level vdev.
    pub fn vdev_space(&self, vdev: u64) -> SpaceFigures {
        self.writer.get().map_or_else(SpaceFigures::default, |w| w.alloc().vdev_figures(vdev))
    }
}

/// Refuses what no pointer can say.
fn check_props(data: &Buf, props: &WriteProps) -> Result<()> {
    if props.authenticated && (props.object_type != DmuObjectType::OBJSET || props.compress != CompressKind::Off) {
        return Err(Error::unsupported("writing encrypted blocks"));
    }
    let size = data.len() as u64;
    if size == 0 || !size.is_multiple_of(512) || size > SPA_MAXBLOCKSIZE || !(1..=3).contains(&props.copies) {
        return Err(Error::invalid(format!("writing a block of {size} bytes in {} copies", props.copies)));
    }
    if matches!(props.checksum, ChecksumKind::Inherit | ChecksumKind::On) || checksum::is_embedded(props.checksum) {
        return Err(Error::invalid("writing a block with an indefinite checksum"));
    }
    Ok(())
}

/// Whether `new` stands for the same bytes as `prev`, so that it need not be written (`zio_nop_write`).
fn unchanged(prev: &BlkPtr, new: &BlkPtr, props: &WriteProps) -> bool {
    !prev.is_hole()
        && !prev.is_embedded()
        && !prev.is_encrypted()
        && (checksum::is_dedup_grade(props.checksum) || props.checksum == ChecksumKind::Edonr)
        && props.compress != CompressKind::Off
        && prev.word[6] == new.word[6]
        && prev.ndvas() == usize::from(props.copies)
        && prev.checksum() == new.checksum()
}

/// Which stream of allocation a block belongs to: neighbours in a file share one, so that they lie together.
fn stream(bm: &Zbookmark) -> u64 {
    let words = [bm.objset, bm.object, bm.level as u64, bm.blkid >> 10];
    words
        .into_iter()
        .fold(0x9e37_79b9_7f4a_7c15, |h: u64, w| (h ^ w).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29))
}
