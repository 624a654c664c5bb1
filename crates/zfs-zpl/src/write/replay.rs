//! Doing again what an intent log says (module/zfs/zfs_replay.c).
//!
//! A file that is made again gets the number, generation and times it had; everything else is an ordinary change, made
//! by the file system's own functions, so that there is one way to change a thing. Records of contents may come after
//! their file is gone, since each file's notes reach the log when somebody asks for that file: those are left out.

use super::log::{FLAG_BITS, Given, HAS_PROJID, set, tx};
use super::{Allocate, Attrs, NewFile, RenameFlags, SetAttr, XattrMode, stamp, word};
use crate::attr::Time;
use crate::zfs::Zfs;
use zfs_dmu::sa::ZplAttr as A;
use zfs_dmu::txg::Tx;
use zfs_phys::Endian;
use zfs_phys::acl::{Ace, encode_aces};
use zfs_phys::zil::{Attrs as Optional, Create, Record, RecordBody, SetAttr as SetAttrRecord, Whiteout, Write};
use zfs_phys::znode::ZFS_ACL_TRIVIAL;
use zfs_zio::{Error, ErrorKind, Result};

/// Calls that note, with the transaction they are given, that a record is replayed.
type Mark<'a> = &'a dyn Fn(&Tx);

fn small(id: u64) -> Result<u32> {
    u32::try_from(id).map_err(|_| Error::unsupported("replaying a change with the identity of a Windows domain"))
}

fn no_domains(domains: &[&[u8]], fuids: &[u64]) -> Result<()> {
    match domains.is_empty() && fuids.is_empty() {
        true => Ok(()),
        false => Err(Error::unsupported("replaying an access control list with identities of Windows domains")),
    }
}

fn time([sec, nsec]: [u64; 2]) -> Time {
    Time { sec: sec as i64, nsec: u32::try_from(nsec).ok().filter(|n| *n < 1_000_000_000).unwrap_or(0) }
}

/// Linux's device number, as it is stored.
fn device(rdev: u64) -> (u32, u32) {
    ((rdev >> 20) as u32, (rdev & 0xf_ffff) as u32)
}

fn given(new: &Whiteout) -> Given {
    let (object, slots, generation) = (new.object, new.slots, new.gen_);
    Given { object, slots, mode: new.mode as u32, generation, time: time(new.crtime) }
}

impl Zfs {
    /// Replays the log that an import claimed, if there is one, and has it ready for use.
    ///
    /// # Errors
    /// `Unsupported` for records of a kind that is not replayed yet; what a change meets. The log stays then.
    pub(crate) fn replay_log(&self) -> Result<()> {
        let Some(log) = self.writer()?.log.clone() else { return Ok(()) };
        let mut done = 0u64;
        let summary = log.replay(&mut |record, mark| {
            done += 1;
            let replayed = self.replay(record, mark);
            self.writer()?.given.lock().take();
            replayed
        })?;
        if summary.records > 0 {
            tracing::info!(objset = self.objset().id(), records = summary.records, done, "intent log replayed");
        }
        self.reap_orphans()
    }

    fn replay(&self, record: &Record<'_>, mark: Mark<'_>) -> Result<()> {
        match &record.body {
            RecordBody::Commit => Ok(()),
            RecordBody::Create(create) => self.replay_create(record.txtype, create),
            RecordBody::Remove { dir, name } => {
                self.remove(*dir, name, record.txtype == tx::RMDIR)?;
                self.reap_orphans()
            }
            RecordBody::Link { dir, object, name } => self.link(*object, *dir, name),
            RecordBody::Rename(r) => {
                let how = if record.txtype == tx::EXCHANGE { RenameFlags::Exchange } else { RenameFlags::Replace };
                self.rename(r.src_dir, r.src, r.dst_dir, r.dst, how)?;
                self.reap_orphans()
            }
            RecordBody::RenameWhiteout(r, left) => {
                *self.writer()?.given.lock() = Some(given(left));
                let how = RenameFlags::Whiteout { uid: small(left.uid)?, gid: small(left.gid)? };
                self.rename(r.src_dir, r.src, r.dst_dir, r.dst, how)?;
                self.reap_orphans()
            }
            RecordBody::CloneRange { .. } => Err(Error::unsupported("replaying a clone of blocks (TX_CLONE_RANGE)")),
            RecordBody::Unknown(_, Some(e)) => Err(Error::from(e.clone())),
            RecordBody::Unknown(..) => Err(Error::unsupported(format!("replaying a record of type {}", record.txtype))),
            contents => self.replay_contents(record.txtype, contents, mark),
        }
    }

    /// Records about one file, which may be gone.
    fn replay_contents(&self, txtype: u64, body: &RecordBody<'_>, mark: Mark<'_>) -> Result<()> {
        let object = match body {
            RecordBody::Write(w) => w.object,
            RecordBody::Truncate { object, .. }
            | RecordBody::AclV0 { object, .. }
            | RecordBody::Acl { object, .. }
            | RecordBody::SetSaXattr { object, .. } => *object,
            RecordBody::SetAttr(s) => s.object,
            _ => return Ok(()),
        };
        match self.objset().dnode(object) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => drop(other?),
        }
        match body {
            RecordBody::Write(w) if txtype == tx::WRITE2 => self.replay_size(w.object, w.offset + w.length, mark),
            RecordBody::Write(w) => self.replay_write(w, mark),
            RecordBody::Truncate { offset, length, .. } => self.replay_truncate(object, *offset, *length),
            RecordBody::SetAttr(s) => self.replay_setattr(s),
            RecordBody::AclV0 { aces, .. } => self.replay_acl(object, aces, 0, mark),
            RecordBody::Acl { flags, aces, fuids, domains, .. } => {
                no_domains(domains, fuids)?;
                self.replay_acl(object, aces, *flags, mark)
            }
            RecordBody::SetSaXattr { name, value, .. } => {
                let value = (!value.is_empty()).then_some(*value);
                match self.set_stored_xattr(object, name, value, XattrMode::Any) {
                    Err(e) if e.kind() == ErrorKind::NoData => Ok(()),
                    other => other,
                }
            }
            _ => Ok(()),
        }
    }

    fn replay_create(&self, txtype: u64, c: &Create<'_>) -> Result<()> {
        no_domains(&c.domains, &c.fuids)?;
        let of_file = Whiteout {
            object: c.object,
            slots: c.slots,
            mode: c.mode,
            uid: c.uid,
            gid: c.gid,
            gen_: c.gen_,
            crtime: c.crtime,
            rdev: c.rdev,
        };
        *self.writer()?.given.lock() = Some(given(&of_file));
        let new = NewFile {
            mode: c.mode as u32,
            uid: small(c.uid)?,
            gid: small(c.gid)?,
            rdev: device(c.rdev),
            target: c.target.unwrap_or_default(),
            umask: 0,
        };
        if txtype == tx::MKXATTR {
            return self.make_attribute_dir(c.dir);
        }
        let object = self.create(c.dir, c.name, &new)?;
        if let Some(optional) = &c.attrs {
            let set = with_optional(SetAttr::default(), optional);
            self.setattr(object, &set)?;
        }
        match &c.aces {
            Some(aces) => self.replay_acl(object, aces, c.acl_flags, &|_| ()),
            None => Ok(()),
        }
    }

    /// A write, as one change. The data of a block written ahead is the whole block's, of which the file may have less.
    fn replay_write(&self, w: &Write<'_>, mark: Mark<'_>) -> Result<()> {
        let _locked = self.lock(&[w.object])?;
        let znode = self.znode(w.object)?;
        let wrong = || Error::corrupt("a write record that is longer than its data");
        let end = w.offset.checked_add(w.length).ok_or_else(wrong)?;
        let (mut at, mut data) = (w.offset, w.data);
        let block = w.blkptr.lsize();
        if !w.blkptr.is_hole() && block > 0 && w.length < block {
            at -= at % block;
        } else {
            data = data.get(..usize::try_from(w.length).map_err(|_| wrong())?).ok_or_else(wrong)?;
        }
        let size = end.max(znode.size());
        let left = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
        let data = data.get(..data.len().min(left)).unwrap_or_default();
        let tx = self.begin()?;
        self.grow_block(&tx, &znode, at + data.len() as u64)?;
        znode.dnode().write_at(&tx, at, data)?;
        let now = stamp(self.now()?);
        let attrs: Attrs = vec![(A::Mtime, now.clone()), (A::Ctime, now), (A::Size, word(size))];
        self.set_attrs(&tx, znode.dnode(), &attrs)?;
        mark(&tx);
        Ok(())
    }

    fn replay_size(&self, object: u64, end: u64, mark: Mark<'_>) -> Result<()> {
        let _locked = self.lock(&[object])?;
        let znode = self.znode(object)?;
        if end <= znode.size() {
            return Ok(());
        }
        let tx = self.begin()?;
        self.set_attrs(&tx, znode.dnode(), &vec![(A::Size, word(end))])?;
        mark(&tx);
        Ok(())
    }

    fn replay_truncate(&self, object: u64, offset: u64, length: u64) -> Result<()> {
        match length {
            0 => self.truncate(object, offset),
            _ => self.allocate(object, offset, length, Allocate::ZeroRange),
        }
    }

    fn replay_setattr(&self, s: &SetAttrRecord) -> Result<()> {
        let has = |bit: u64| s.mask & bit != 0;
        let id = |bit: u64, id: u64| if has(bit) { small(id).map(Some) } else { Ok(None) };
        let plain = SetAttr {
            mode: has(set::MODE).then_some(s.mode as u32),
            uid: id(set::UID, s.uid)?,
            gid: id(set::GID, s.gid)?,
            size: has(set::SIZE).then_some(s.size),
            atime: has(set::ATIME).then(|| time(s.atime)),
            mtime: has(set::MTIME).then(|| time(s.mtime)),
            ..SetAttr::default()
        };
        let all = match &s.attrs {
            Some(optional) if has(set::XVATTR) => with_optional(plain, optional),
            _ => plain,
        };
        self.setattr(s.object, &all)
    }

    fn replay_acl(&self, object: u64, aces: &[Ace], flags: u64, mark: Mark<'_>) -> Result<()> {
        let _locked = self.lock(&[object])?;
        let znode = self.znode(object)?;
        let tx = self.begin()?;
        // The flags of a list are the low bits of the file's own.
        let flags = (znode.flags() & !(0x7e | ZFS_ACL_TRIVIAL)) | (flags & 0x7a);
        let attrs: Attrs = vec![
            (A::DaclCount, word(aces.len() as u64)),
            (A::DaclAces, encode_aces(aces, Endian::NATIVE)),
            (A::Flags, word(flags)),
            (A::Ctime, stamp(self.now()?)),
        ];
        self.set_attrs(&tx, znode.dnode(), &attrs)?;
        mark(&tx);
        Ok(())
    }
}

/// A change of attributes with the optional ones of a record.
fn with_optional(plain: SetAttr, optional: &Optional) -> SetAttr {
    let asked = optional.mask.first().copied().unwrap_or(0);
    let (mut on, mut off) = (0, 0);
    for (flag, bit) in FLAG_BITS.into_iter().filter(|(_, bit)| asked & bit != 0) {
        match optional.attrs & u64::from(bit) {
            0 => off |= flag,
            _ => on |= flag,
        }
    }
    let projid = optional.scanstamp.first_chunk().map(|b| u64::from_ne_bytes(*b));
    SetAttr { flags: (on | off != 0).then_some((on, off)), projid: projid.filter(|_| asked & HAS_PROJID != 0), ..plain }
}
