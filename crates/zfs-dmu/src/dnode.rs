//! An object: its descriptor, its contents, and the overlay of what was changed and is not on disk.
//!
//! An object of a read-only object set never changes: its [`Tree`] is fixed, and reading takes no lock. One of a
//! writable object set is *live*: there is one [`Dnode`] per object, reads see changes first ([`crate::live`]) and then
//! the tree of the newest sync.

use crate::ctx::Ctx;
use crate::live::Live;
use crate::prefetch::Zfetch;
use crate::tree::Tree;
use parking_lot::Mutex;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use zfs_phys::BlkPtr;
use zfs_phys::Endian;
use zfs_phys::dnode::DnodePhys;
use zfs_zio::{Buf, Error, ErrorKind, Result, Zbookmark};

/// Block id under which spill blocks are named (`DMU_SPILL_BLKID`).
pub const SPILL_BLKID: u64 = u64::MAX - 1;
/// Longest single read into a fresh buffer, bytes.
const MAX_READ: usize = 1 << 30;

/// What [`Dnode::next_offset`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is stored.
    Data,
    /// The next byte that is not.
    Hole,
}

/// A descriptor as it was when it was asked for.
#[derive(Debug)]
pub enum PhysRef<'a> {
    /// That of an object which never changes.
    Fixed(&'a DnodePhys),
    /// That of a live one, which may have changed since.
    Live(Arc<DnodePhys>),
}

impl Deref for PhysRef<'_> {
    type Target = DnodePhys;

    fn deref(&self) -> &DnodePhys {
        match self {
            Self::Fixed(phys) => phys,
            Self::Live(phys) => phys,
        }
    }
}

/// A bonus buffer as it was when it was asked for.
#[derive(Debug)]
pub struct Bonus<'a>(PhysRef<'a>);

impl Bonus<'_> {
    /// The descriptor that the buffer is part of.
    pub fn phys(&self) -> &DnodePhys {
        &self.0
    }
}

impl Deref for Bonus<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bonus
    }
}

/// The tree to read from.
pub(crate) enum TreeRef<'a> {
    Fixed(&'a Tree),
    Live(Arc<Tree>),
}

impl Deref for TreeRef<'_> {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        match self {
            Self::Fixed(tree) => tree,
            Self::Live(tree) => tree,
        }
    }
}

// Objects of read-only object sets are many, and one more hop each for them is not worth a smaller live one.
#[allow(clippy::large_enum_variant)]
enum Kind {
    Fixed(Tree),
    Live(Box<Live>),
}

/// An object of an object set.
pub struct Dnode {
    pub(crate) ctx: Arc<Ctx>,
    object: u64,
    kind: Kind,
    zfetch: Mutex<Zfetch>,
}

impl std::fmt::Debug for Dnode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dnode({}:{})", self.ctx.objset, self.object)
    }
}

impl Dnode {
    pub(crate) fn new(ctx: Arc<Ctx>, object: u64, phys: DnodePhys) -> Self {
        let kind = Kind::Fixed(Tree { ctx: ctx.clone(), object, phys, epoch: 0 });
        Self { ctx, object, kind, zfetch: Mutex::default() }
    }

    /// A live object; `make` is given the way back to it.
    pub(crate) fn new_live(ctx: Arc<Ctx>, object: u64, make: impl FnOnce(Weak<Self>) -> Live) -> Arc<Self> {
        Arc::new_cyclic(|me| {
            let kind = Kind::Live(Box::new(make(me.clone())));
            Self { ctx, object, kind, zfetch: Mutex::default() }
        })
    }

    /// The changing half of a live object.
    pub(crate) fn live(&self) -> Option<&Live> {
        match &self.kind {
            Kind::Fixed(_) => None,
            Kind::Live(live) => Some(live),
        }
    }

    pub(crate) fn tree(&self) -> TreeRef<'_> {
        match &self.kind {
            Kind::Fixed(tree) => TreeRef::Fixed(tree),
            Kind::Live(live) => TreeRef::Live(live.tree()),
        }
    }

    /// Object number.
    pub fn object(&self) -> u64 {
        self.object
    }

    /// Number of the object set it belongs to.
    pub fn objset_id(&self) -> u64 {
        self.ctx.objset
    }

    /// The descriptor, with all changes; of a live object the block pointers are those of the newest sync. Its bonus
    /// bytes are ciphertext when the dataset's key is missing: see [`Dnode::bonus`].
    pub fn phys(&self) -> PhysRef<'_> {
        match &self.kind {
            Kind::Fixed(tree) => PhysRef::Fixed(&tree.phys),
            Kind::Live(live) => PhysRef::Live(live.phys()),
        }
    }

    /// The bonus buffer; its byte order is `phys().endian`. Fails with [`ErrorKind::KeyUnavailable`] when it is
    /// encrypted and the key is missing.
    pub fn bonus(&self) -> Result<Bonus<'_>> {
        let phys = self.phys();
        if self.ctx.is_locked() && phys.bonustype.is_encrypted() {
            let e = Error::new(ErrorKind::KeyUnavailable, "reading a bonus buffer");
            return Err(e.at(&self.ctx.bookmark(self.object, 0, 0)));
        }
        Ok(Bonus(phys))
    }

    /// Data block size, bytes.
    pub fn datablksz(&self) -> u64 {
        self.phys().datablksz()
    }

    /// Levels of the tree on disk: 1 when the dnode's own pointers address data.
    pub fn nlevels(&self) -> u8 {
        self.tree().phys.nlevels
    }

    /// log2 of the number of pointers in an indirect block.
    pub(crate) fn epbs(&self) -> u32 {
        self.tree().epbs()
    }

    fn corrupt(&self, level: u8, blkid: u64, what: &'static str) -> Error {
        Error::corrupt(what).at(&self.ctx.bookmark(self.object, level, blkid))
    }

    /// The pointer to block `blkid` of `level` on disk; nothing where the tree has no such block (a hole).
    pub fn blkptr_of(&self, level: u8, blkid: u64) -> Result<Option<BlkPtr>> {
        self.tree().blkptr_of(level, blkid)
    }

    /// Block `blkid` of data; nothing for a hole. Notices sequential reads and fetches ahead.
    pub fn read_block(&self, blkid: u64) -> Result<Option<Buf>> {
        Ok(self.read_block_endian(blkid)?.map(|(buf, _)| buf))
    }

    /// [`Dnode::read_block`] together with the block's byte order.
    pub fn read_block_endian(&self, blkid: u64) -> Result<Option<(Buf, Endian)>> {
        self.note_access(blkid, 1);
        self.read_block_only(blkid)
    }

    /// Block `blkid` of a range that was announced with [`Dnode::expect`]; nothing for a hole.
    pub fn read_expected(&self, blkid: u64) -> Result<Option<Buf>> {
        Ok(self.read_block_only(blkid)?.map(|(buf, _)| buf))
    }

    /// Announces that a range of bytes is about to be read with [`Dnode::read_expected`]: notices sequential reads,
    /// and has all of the range fetched at once.
    pub fn expect(&self, offset: u64, len: u64) {
        let blksz = self.datablksz();
        if blksz == 0 || len == 0 {
            return;
        }
        let (first, last) = (offset / blksz, offset.saturating_add(len - 1) / blksz);
        if last > first {
            // The reader fetches the first one itself.
            self.prefetch_blocks(first + 1, last + 1);
        }
        self.note_access(first, last - first + 1);
    }

    /// Lets the cache drop a block that its reader keeps in a cache of its own.
    pub fn release_block(&self, blkid: u64) {
        if let Ok(Some(bp)) = self.blkptr_of(0, blkid) {
            self.ctx.zio.release(&bp, self.ctx.key.as_ref());
        }
    }

    /// What was changed, else what is on disk. The order matters: a change leaves the overlay only after the tree
    /// that has it is in place.
    fn read_block_only(&self, blkid: u64) -> Result<Option<(Buf, Endian)>> {
        if let Some(changed) = self.live().and_then(|live| live.changed_block(blkid)) {
            return Ok(changed.map(|buf| (buf, Endian::NATIVE)));
        }
        self.tree().read_block(blkid)
    }

    /// Tells the read-ahead that blocks are about to be read. Never waits for another thread doing the same.
    fn note_access(&self, first: u64, count: u64) {
        if self.tree().phys.maxblkid == 0 {
            return;
        }
        let Some(mut zfetch) = self.zfetch.try_lock() else { return };
        let ahead = zfetch.access(first, count, self.datablksz());
        drop(zfetch);
        if !ahead.is_empty() {
            self.prefetch_blocks(ahead.start, ahead.end);
        }
    }

    fn prefetch_blocks(&self, start: u64, end: u64) {
        let tree = self.tree();
        let end = end.min(tree.phys.maxblkid.saturating_add(1));
        for blkid in start..end {
            match tree.blkptr_of(0, blkid) {
                Ok(Some(bp)) => {
                    self.ctx.zio.prefetch(&bp, &self.ctx.bookmark(self.object, 0, blkid), self.ctx.key.as_ref());
                }
                Ok(None) => {}
                // Whoever really reads the block will meet and report the error.
                Err(_) => return,
            }
        }
        let epbs = tree.epbs();
        if tree.phys.nlevels > 1 && end <= tree.phys.maxblkid && (end >> epbs) != (start >> epbs) {
            // The stream enters the next indirect block: have the one after it on its way too.
            let next = (end >> epbs) + 1;
            if let Ok(Some(bp)) = tree.blkptr_of(1, next) {
                self.ctx.zio.prefetch(&bp, &self.ctx.bookmark(self.object, 1, next), self.ctx.key.as_ref());
            }
        }
    }

    /// Asks for a range of bytes to be fetched in the background; best effort, bounded to 32 MiB.
    pub fn prefetch(&self, offset: u64, len: u64) {
        let blksz = self.datablksz().max(1);
        let end = offset.saturating_add(len.min(32 << 20));
        self.prefetch_blocks(offset / blksz, end.div_ceil(blksz).min((offset / blksz).saturating_add(4096)));
    }

    /// Fills `buf` from byte `offset`. Holes and everything behind the last block read as zeros.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let blksz = self.datablksz();
        if buf.is_empty() {
            return Ok(());
        }
        if blksz == 0 {
            return Err(self.corrupt(0, 0, "object with blocks of no size"));
        }
        let first = offset / blksz;
        self.expect(offset, buf.len() as u64);
        let mut skip = (offset - first * blksz) as usize;
        let mut rest = buf;
        let mut blkid = first;
        while !rest.is_empty() {
            let n = rest.len().min(blksz as usize - skip);
            let (piece, tail) = rest.split_at_mut(n);
            match self.read_block_only(blkid)? {
                Some((block, _)) => copy_padded(block.get(skip..).unwrap_or_default(), piece),
                None => piece.fill(0),
            }
            rest = tail;
            skip = 0;
            blkid += 1;
        }
        Ok(())
    }

    /// Reads `len` bytes from `offset` into a fresh buffer. Fails with [`ErrorKind::Invalid`] above 1 GiB.
    pub fn read_vec(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        if len > MAX_READ {
            return Err(Error::invalid("reading more than 1 GiB at once"));
        }
        let mut out = vec![0; len];
        self.read_at(offset, &mut out)?;
        Ok(out)
    }

    /// The spill block with its byte order; nothing when there is none.
    pub fn spill(&self) -> Result<Option<(Buf, Endian)>> {
        if let Some(changed) = self.live().and_then(Live::changed_spill) {
            return Ok(changed.map(|buf| (buf, Endian::NATIVE)));
        }
        let Some(bp) = self.tree().phys.spill.filter(|bp| !bp.is_hole()) else { return Ok(None) };
        let bm = Zbookmark::new(self.ctx.objset, self.object, 0, SPILL_BLKID);
        Ok(Some((self.ctx.read(&bp, &bm)?, bp.endian())))
    }
}

/// Copies what is there and zeroes the rest.
pub(crate) fn copy_padded(from: &[u8], to: &mut [u8]) {
    let n = from.len().min(to.len());
    let (head, tail) = to.split_at_mut(n);
    if let Some(from) = from.get(..n) {
        head.copy_from_slice(from);
    }
    tail.fill(0);
}
