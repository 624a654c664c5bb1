//! Contents of files: writing, truncating, punching.

use super::{Attrs, stamp, word};
use crate::zfs::Zfs;
use crate::znode::Znode;
use std::sync::Arc;
use zfs_dmu::sa::ZplAttr as A;
use zfs_dmu::txg::Tx;
use zfs_zio::{Error, ErrorKind, Result};

/// Largest file, bytes.
const MAX_SIZE: u64 = i64::MAX as u64;
/// Most bytes that go into one transaction: bounds what a txg has to take in when it is about to close.
const PIECE: usize = 1 << 20;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o010;

/// What to do with a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// Nothing is reserved on a file system that never overwrites; the file may become longer.
    Extend,
    /// The size stays as it is.
    KeepSize,
    /// The range becomes a hole.
    PunchHole,
    /// The range becomes zeros; the file may become longer.
    ZeroRange,
}

impl Zfs {
    /// Writes bytes; `append` writes at the end whatever `offset` says. `privileged` keeps set-id bits. Gives the
    /// offset behind the last byte.
    ///
    /// # Errors
    /// `NoSpace`, `Quota`, `TooBig`, and what flags forbid. What was written before an error stays.
    pub fn write(&self, object: u64, offset: u64, data: &[u8], append: bool, privileged: bool) -> Result<u64> {
        let _locked = self.lock(&[object])?;
        let znode = self.znode(object)?;
        znode.require_data()?;
        let mut at = if append { znode.size() } else { offset };
        self.check_flags(&znode, at >= znode.size())?;
        if at.checked_add(data.len() as u64).is_none_or(|end| end > MAX_SIZE) {
            return Err(Error::new(ErrorKind::TooBig, "writing"));
        }
        let mut first = true;
        let mut rest = data;
        while !rest.is_empty() {
            let znode = self.znode(object)?;
            // Pieces end at block boundaries, so that no block is written in two txgs for nothing.
            let boundary = PIECE - (at as usize & (PIECE - 1));
            let (piece, tail) = rest.split_at(rest.len().min(boundary));
            let a = znode.attr();
            self.within_quotas((a.uid, a.gid, a.projid), false)?;
            let tx = self.begin_for(piece.len() as u64)?;
            self.write_piece(&tx, &znode, at, piece, first && !privileged)?;
            first = false;
            at += piece.len() as u64;
            rest = tail;
        }
        Ok(at)
    }

    fn write_piece(&self, tx: &Tx, znode: &Arc<Znode>, at: u64, piece: &[u8], clear_ids: bool) -> Result<()> {
        let end = at + piece.len() as u64;
        self.grow_block(tx, znode, end)?;
        znode.dnode().write_at(tx, at, piece)?;
        let now = stamp(self.now()?);
        let mut attrs: Attrs = vec![(A::Mtime, now.clone()), (A::Ctime, now)];
        if end > znode.size() {
            attrs.push((A::Size, word(end)));
        }
        if let Some(mode) = clear_ids.then(|| without_ids(znode.attr().mode)).flatten() {
            attrs.push((A::Mode, word(u64::from(mode))));
        }
        self.log_write(tx, znode, at, piece.len() as u64);
        self.set_attrs(tx, znode.dnode(), &attrs)
    }

    /// A file of one block has a block of its own size, up to the record size.
    pub(super) fn grow_block(&self, tx: &Tx, znode: &Znode, end: u64) -> Result<()> {
        let dnode = znode.dnode();
        let (size, largest) = (dnode.datablksz(), u64::from(self.options().recordsize));
        if end <= size || (size.is_power_of_two() && size >= largest) || dnode.phys().maxblkid > 0 {
            return Ok(());
        }
        // A file from a time of larger records keeps its own measure.
        let largest = if size > largest { size.next_power_of_two() } else { largest };
        let wanted = end.min(largest).next_multiple_of(512);
        dnode.set_blocksize(tx, u32::try_from(wanted).map_err(|_| Error::invalid("growing a block"))?)
    }

    /// Sets the size.
    ///
    /// # Errors
    /// As [`Zfs::write`].
    pub fn truncate(&self, object: u64, size: u64) -> Result<()> {
        let _locked = self.lock(&[object])?;
        let znode = self.znode(object)?;
        znode.require_data()?;
        self.check_flags(&znode, false)?;
        let tx = self.begin_to_resize(&znode, size)?;
        self.resize(&tx, &znode, size)?;
        self.log_truncate(&tx, &znode, size, 0);
        let now = stamp(self.now()?);
        let mut attrs: Attrs = vec![(A::Mtime, now.clone()), (A::Ctime, now)];
        if let Some(mode) = without_ids(znode.attr().mode) {
            attrs.push((A::Mode, word(u64::from(mode))));
        }
        self.set_attrs(&tx, znode.dnode(), &attrs)
    }

    /// Changes the size and frees what is behind it; times are the caller's business.
    pub(super) fn resize(&self, tx: &Tx, znode: &Arc<Znode>, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(Error::new(ErrorKind::TooBig, "setting the size of a file"));
        }
        if size > znode.size() {
            self.grow_block(tx, znode, size)?;
        } else if size < znode.size() {
            znode.dnode().free_range(tx, size, u64::MAX - size)?;
        }
        self.set_attrs(tx, znode.dnode(), &vec![(A::Size, word(size))])
    }

    /// Starts a transaction that sets the size: a smaller file frees space.
    pub(super) fn begin_to_resize(&self, znode: &Znode, size: u64) -> Result<Tx> {
        if size < znode.size() { self.begin_freeing() } else { self.begin() }
    }

    /// Fills a fresh file, whose size is set with it.
    pub(super) fn put_contents(&self, tx: &Tx, znode: &Arc<Znode>, data: &[u8]) -> Result<()> {
        self.write_piece(tx, znode, 0, data, false)
    }

    /// Returns once what was changed before of a file is on stable storage, and all names.
    ///
    /// # Errors
    /// When the pool stopped writing.
    pub fn sync(&self, object: u64) -> Result<()> {
        self.commit(Some(object))
    }

    /// `fallocate`.
    ///
    /// # Errors
    /// As [`Zfs::write`].
    pub fn allocate(&self, object: u64, offset: u64, len: u64, how: Allocate) -> Result<()> {
        let _locked = self.lock(&[object])?;
        let znode = self.znode(object)?;
        znode.require_data()?;
        let end = offset.checked_add(len).filter(|end| *end <= MAX_SIZE && len > 0);
        let end = end.ok_or_else(|| Error::new(ErrorKind::TooBig, "allocating a range"))?;
        self.check_flags(&znode, false)?;
        let punches = how == Allocate::PunchHole;
        let tx = if punches { self.begin_freeing()? } else { self.begin()? };
        let now = stamp(self.now()?);
        if matches!(how, Allocate::PunchHole | Allocate::ZeroRange) {
            let stop = end.min(znode.size());
            if offset < stop {
                znode.dnode().free_range(&tx, offset, stop - offset)?;
                self.log_truncate(&tx, &znode, offset, stop - offset);
            }
        }
        if matches!(how, Allocate::Extend | Allocate::ZeroRange) && end > znode.size() {
            self.resize(&tx, &znode, end)?;
            self.log_truncate(&tx, &znode, end, 0);
        }
        self.set_attrs(&tx, znode.dnode(), &vec![(A::Mtime, now.clone()), (A::Ctime, now)])
    }
}

/// The mode without set-id bits; nothing when it has none.
fn without_ids(mode: u32) -> Option<u32> {
    let mut new = mode & !S_ISUID;
    // Without group execution the bit is a mark for mandatory locks.
    if mode & S_IXGRP != 0 {
        new &= !S_ISGID;
    }
    (new != mode).then_some(new)
}
