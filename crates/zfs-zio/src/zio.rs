//! Reading blocks: from block pointer to verified, decrypted, decompressed bytes.
//!
//! Order of things: embedded payloads and holes need no I/O; then the cache; then every address of the pointer in
//! turn until one gives bytes that match the checksum; then decryption or authentication; then decompression. A block
//! whose checksum does not match is never returned.
//!
//! Invariants: a [`Zio`] belongs to one opening of one pool, and its cache entries are dropped with it, so a pool that
//! was changed elsewhere and opened again cannot see old blocks. Reading takes no lock that all readers share.

use crate::arc::{ArcCache, ArcStats, CacheKey, Loaded};
use crate::blkverify;
use crate::bookmark::Zbookmark;
use crate::buf::{Buf, recycle, scratch};
use crate::codec::{self, ChecksumContext, DatasetKey};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::ErrorSink;
use crate::vdev::{ReadIo, VdevError, VdevTree};
use crate::write::Writer;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use zfs_env::TaskPool;
use zfs_phys::blkptr::SPA_MAXBLOCKSIZE;
use zfs_phys::enums::CompressKind;
use zfs_phys::indirect::IndirectMappingEntry;
use zfs_phys::{BlkPtr, Dva};

static NEXT_INSTANCE: AtomicU64 = AtomicU64::new(1);

/// How to read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// Read and judge every copy.
    pub(crate) all_copies: bool,
    /// Do not count or note failures.
    pub(crate) speculative: bool,
}

impl How {
    /// Nobody can tell beforehand whether a block of an intent log was ever written.
    fn of(bm: &Zbookmark) -> Self {
        Self { all_copies: false, speculative: bm.level == Zbookmark::ZIL_LEVEL }
    }
}

/// The tree of a pool and, after changes of its configuration, the later ones. Old ones are kept, because somebody may be
/// using them: changes are few, and reading must not take a lock for their sake.
struct Trees {
    tree: VdevTree,
    next: OnceLock<Box<Trees>>,
}

impl Trees {
    fn last(&self) -> &VdevTree {
        let mut at = self;
        while let Some(next) = at.next.get() {
            at = next;
        }
        &at.tree
    }
}

/// An opened pool as far as blocks go. Writing is in [`crate::write`].
pub struct Zio {
    pool: Arc<str>,
    instance: u64,
    trees: Trees,
    arc: Arc<ArcCache>,
    tasks: Option<Arc<TaskPool>>,
    checksums: RwLock<ChecksumContext>,
    errors: ErrorSink,
    pub(crate) writer: OnceLock<Writer>,
    /// Bytes that were put right on disk.
    pub(crate) repaired: AtomicU64,
}

impl Zio {
    /// Joins a vdev tree with a cache that other pools may share. `tasks` serves prefetching; without it prefetches do
    /// nothing.
    pub fn new(pool: &str, tree: VdevTree, arc: Arc<ArcCache>, tasks: Option<Arc<TaskPool>>) -> Arc<Self> {
        Arc::new(Self {
            pool: pool.into(),
            instance: NEXT_INSTANCE.fetch_add(1, Ordering::Relaxed),
            trees: Trees { tree, next: OnceLock::new() },
            arc,
            tasks,
            checksums: RwLock::new(ChecksumContext::default()),
            errors: ErrorSink::default(),
            writer: OnceLock::new(),
            repaired: AtomicU64::new(0),
        })
    }

    /// Name of the pool.
    pub fn pool_name(&self) -> &Arc<str> {
        &self.pool
    }

    /// Vdevs with their states and counters.
    pub fn vdevs(&self) -> &VdevTree {
        self.trees.last()
    }

    /// Puts a tree made by [`VdevTree::changed`] in the place of the present one. Whoever works with the old one may go
    /// on: both share their leaves. To be called by one thread at a time.
    pub fn set_vdevs(&self, tree: VdevTree) {
        let mut new = Box::new(Trees { tree, next: OnceLock::new() });
        let mut at = &self.trees;
        loop {
            match at.next.set(new) {
                Ok(()) => return,
                Err(back) => new = back,
            }
            if let Some(next) = at.next.get() {
                at = next;
            }
        }
    }

    /// Blocks that could not be read, and damage found on the way.
    pub fn errors(&self) -> &ErrorSink {
        &self.errors
    }

    /// The threads that serve it, for work of the layers above.
    pub fn tasks(&self) -> Option<&Arc<TaskPool>> {
        self.tasks.as_ref()
    }

    /// The cache.
    pub fn arc(&self) -> &ArcCache {
        &self.arc
    }

    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// Figures of the cache (shared by all pools that use it).
    pub fn arc_stats(&self) -> ArcStats {
        self.arc.stats()
    }

    /// Sets the salt that skein, edonr and blake3 checksums of this pool use (`org.illumos:checksum_salt` in the MOS).
    pub fn set_checksum_salt(&self, salt: [u8; 32]) {
        self.checksums.write().salt = Some(salt);
    }

    /// Tells where the contents of removed top-level vdev `id` are now.
    pub fn set_indirect_mapping(&self, id: u64, entries: Vec<IndirectMappingEntry>) -> Result<()> {
        self.vdevs().set_indirect_mapping(id, entries).map_err(|e| e.pool(&self.pool))
    }

    /// Forgets decrypted blocks; called when a key of the pool is unloaded.
    pub fn purge_decrypted(&self) {
        self.arc.purge_decrypted(self.instance);
    }

    /// Reads the logical bytes of a block: verified, decrypted, decompressed, `bp.lsize()` long, in the byte order
    /// they were written in. Holes give zeros.
    ///
    /// Fails with `Checksum`, `Io` or `NoDevice` when no copy is good (and notes the bookmark for `zpool status -v`),
    /// `Corrupt` for nonsensical pointers, `KeyUnavailable` for encrypted blocks without `crypt`, `Auth` when a MAC
    /// does not match. MACs of blocks that are only authenticated are checked when there is a key.
    pub fn read(&self, bp: &BlkPtr, bm: &Zbookmark, crypt: Option<&Arc<DatasetKey>>) -> Result<Buf> {
        self.read_how(bp, bm, crypt, How::default())
    }

    /// Like [`Zio::read`] for blocks that may well not be there, as behind the end of an intent log: failures are
    /// neither counted nor noted.
    pub fn read_speculative(&self, bp: &BlkPtr, bm: &Zbookmark, crypt: Option<&Arc<DatasetKey>>) -> Result<Buf> {
        self.read_how(bp, bm, crypt, How { speculative: true, ..How::default() })
    }

    fn read_how(&self, bp: &BlkPtr, bm: &Zbookmark, crypt: Option<&Arc<DatasetKey>>, how: How) -> Result<Buf> {
        let result = if bp.is_hole() || bp.is_embedded() {
            self.read_without_io(bp)
        } else if bp.is_encrypted() && crypt.is_none() {
            Err(Error::new(ErrorKind::KeyUnavailable, "reading an encrypted block"))
        } else {
            let key = CacheKey::new(self.instance, bp, crypt.is_some());
            let (metadata, speculative) = (bp.is_metadata(), how.speculative);
            loop {
                let since = self.resumptions();
                let got = self.arc.get_or_load(key, metadata, speculative, || self.load(bp, bm, crypt, how));
                if speculative || !got.as_ref().is_err_and(|e| self.read_again(since, bp, e)) {
                    break got;
                }
            }
        };
        result.map_err(|e| e.pool(&self.pool).at(bm))
    }

    /// Reads a block from disk and turns it into logical bytes.
    fn load(&self, bp: &BlkPtr, bm: &Zbookmark, crypt: Option<&Arc<DatasetKey>>, how: How) -> Result<Loaded> {
        blkverify::verify(self.vdevs(), bp)?;
        let stored = self.read_physical(bp, bm, how)?;
        let loaded = unpack(bp, stored, crypt.map(|k| &**k));
        if let (Err(e), false) = (&loaded, how.speculative) {
            self.note_unreadable(bp, bm, e.kind());
        }
        loaded
    }

    fn read_without_io(&self, bp: &BlkPtr) -> Result<Buf> {
        let lsize = bp.lsize();
        if lsize > SPA_MAXBLOCKSIZE {
            return Err(Error::corrupt("block pointer with invalid logical size"));
        }
        if bp.is_hole() {
            return Ok(Buf::zeroed(lsize as usize));
        }
        if bp.is_redacted() {
            return Err(Error::new(ErrorKind::Io, "reading a redacted block"));
        }
        blkverify::verify(self.vdevs(), bp)?;
        let compress = bp.compress().ok_or_else(|| Error::corrupt("embedded block with unknown compression"))?;
        codec::decompress(compress, &bp.embedded_payload(), lsize as usize).map(Buf::from)
    }

    /// Reads the bytes as stored: verified, but still compressed and encrypted, `bp.psize()` long.
    pub fn read_raw(&self, bp: &BlkPtr, bm: &Zbookmark) -> Result<Buf> {
        if bp.is_embedded() {
            return Ok(Buf::from(bp.embedded_payload()));
        }
        if bp.is_hole() {
            return self.read_without_io(bp);
        }
        blkverify::verify(self.vdevs(), bp)
            .and_then(|()| self.read_physical(bp, bm, How::of(bm)))
            .map(Buf::from)
            .map_err(|e| e.pool(&self.pool).at(bm))
    }

    /// Reads the block from disk past the cache and checks it; with `all_copies` every copy, mirror side and parity
    /// column of it, so that the counters and the damage list are complete. Blocks of intent logs are not counted when
    /// they fail: the one behind the end of a log was never written.
    pub fn verify(&self, bp: &BlkPtr, bm: &Zbookmark, all_copies: bool) -> Result<()> {
        if bp.is_embedded() || bp.is_hole() {
            return Ok(());
        }
        blkverify::verify(self.vdevs(), bp)
            .and_then(|()| self.read_physical(bp, bm, How { all_copies, ..How::of(bm) }))
            .map(recycle)
            .map_err(|e| e.pool(&self.pool).at(bm))
    }

    /// Reads every copy of a block and repairs those that are wrong. Gives the bytes repaired.
    ///
    /// # Errors
    /// As [`Zio::verify`].
    pub fn scrub(&self, bp: &BlkPtr, bm: &Zbookmark) -> Result<u64> {
        let before = self.repaired.load(Ordering::Relaxed);
        self.verify(bp, bm, true)?;
        Ok(self.repaired.load(Ordering::Relaxed) - before)
    }

    /// Asks for a block to be in the cache soon. Best effort: does nothing when it is there already, when the pool has
    /// no task pool or that has too much to do. Failures are not counted; a real read will find them.
    pub fn prefetch(self: &Arc<Self>, bp: &BlkPtr, bm: &Zbookmark, crypt: Option<&Arc<DatasetKey>>) {
        let Some(tasks) = &self.tasks else { return };
        if bp.is_hole() || bp.is_embedded() {
            return;
        }
        let key = CacheKey::new(self.instance, bp, crypt.is_some());
        if !self.arc.announce(key) {
            return;
        }
        let (zio, bp, bm, crypt) = (self.clone(), *bp, *bm, crypt.cloned());
        let queued = tasks.try_spawn(move || {
            if zio.arc.take_announced(key) {
                drop(zio.read_speculative(&bp, &bm, crypt.as_ref()));
            }
        });
        if !queued {
            self.arc.take_announced(key);
        }
    }

    /// Lets the cache drop a block that its reader keeps in a cache of its own, such as the kernel's.
    pub fn release(&self, bp: &BlkPtr, crypt: Option<&Arc<DatasetKey>>) {
        if !bp.is_hole() && !bp.is_embedded() {
            self.arc.release(CacheKey::new(self.instance, bp, crypt.is_some()));
        }
    }

    pub(crate) fn checksum_context(&self) -> ChecksumContext {
        *self.checksums.read()
    }

    /// Reads the stored bytes of a verified pointer.
    fn read_physical(&self, bp: &BlkPtr, bm: &Zbookmark, how: How) -> Result<Vec<u8>> {
        let result = if bp.is_gang() { self.read_gang(bp, bm, how) } else { self.read_plain(bp, bm, how) };
        if let (Err(e), false) = (&result, how.speculative) {
            self.note_unreadable(bp, bm, e.kind());
        }
        result
    }

    /// Reads the stored bytes of a pointer that leads straight to them.
    pub(crate) fn read_plain(&self, bp: &BlkPtr, bm: &Zbookmark, how: How) -> Result<Vec<u8>> {
        let ctx = self.checksum_context();
        codec::checksum_known(&ctx, bp)?;
        self.read_dvas(bp, bp.psize() as usize, bm, how, &|data| codec::checksum_matches(&ctx, bp, data))
    }

    /// Tries the addresses of a pointer in turn until `good` accepts what is there.
    pub(crate) fn read_dvas(
        &self,
        bp: &BlkPtr,
        size: usize,
        bm: &Zbookmark,
        how: How,
        good: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let mut buf = scratch(size);
        let mut found: Option<Vec<u8>> = None;
        let mut worst: Option<VdevError> = None;
        let mut wounds = Vec::new();
        for dva in self.dva_order(bp) {
            let Some(top) = self.vdevs().top(dva.vdev()) else { continue };
            let mut io = ReadIo::new(bp.physical_birth(), good);
            (io.all_copies, io.speculative) = (how.all_copies, how.speculative);
            io.tasks = self.tasks.as_deref();
            io.tops = Some(&self.vdevs().root().children);
            let result = top.read(&mut io, dva.offset(), &mut buf);
            self.errors.damaged(bm, &io.damage);
            if !io.damage.is_empty() {
                wounds.push((dva, io.damage));
            }
            match result {
                Ok(()) if !how.all_copies => {
                    self.repair(bp.physical_birth(), &wounds, &buf);
                    return Ok(buf);
                }
                Ok(()) => {
                    found.get_or_insert_with(|| buf.clone());
                }
                Err(e) => worst = Some(worst.map_or(e, |w| w.min(e))),
            }
        }
        if let Some(good) = &found {
            self.repair(bp.physical_birth(), &wounds, good);
        }
        found.ok_or_else(|| {
            let kind = match worst.unwrap_or(VdevError::NoDevice) {
                VdevError::Checksum => ErrorKind::Checksum,
                VdevError::Io => ErrorKind::Io,
                VdevError::NoDevice => ErrorKind::NoDevice,
                VdevError::Invalid => ErrorKind::Corrupt,
            };
            Error::new(kind, "reading a block").offset(bp.dva(0).offset()).txg(bp.physical_birth())
        })
    }

    /// Addresses in the order to try them: readable vdevs first.
    fn dva_order(&self, bp: &BlkPtr) -> Vec<Dva> {
        let mut dvas: Vec<Dva> = bp.dvas().collect();
        if dvas.len() > 1 {
            dvas.sort_by_key(|d| !self.vdevs().top(d.vdev()).is_some_and(|t| t.state().is_readable()));
        }
        dvas
    }
}

/// Decrypts, authenticates and decompresses stored bytes.
fn unpack(bp: &BlkPtr, stored: Vec<u8>, key: Option<&DatasetKey>) -> Result<Loaded> {
    let compress = bp.compress().ok_or_else(|| Error::corrupt("block pointer with unknown compression"))?;
    let opened = codec::open(bp, stored, key)?;
    let lsize = bp.lsize() as usize;
    let loaded = if compress == CompressKind::Off && opened.len() == lsize {
        Loaded { plain: opened.into(), packed: None }
    } else {
        let plain = codec::decompress(compress, &opened, lsize)?;
        Loaded { plain: plain.into(), packed: Some((opened.into(), compress)) }
    };
    codec::check_logical(bp, &loaded.plain, key)?;
    Ok(loaded)
}

impl std::fmt::Debug for Zio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Zio({})", self.pool)
    }
}

impl Drop for Zio {
    fn drop(&mut self) {
        self.arc.purge(self.instance);
    }
}
