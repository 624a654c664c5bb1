//! A mounted dataset: every operation is one request to the daemon.

use crate::api::{
    Capabilities, CaseFormat, Context, FsError, FsKitCode, FsResult, Host, ItemAttributes, ItemType, PARENT_OF_ROOT_ID,
    PackedEntry, Packer, PathConf, ROOT_ID, SHORT_NAME, SeekRegion, SetAttributes, SetXattrPolicy, Statistics,
    SyncFlags, System, VolumeOperations, XattrNames,
};
use crate::convert;
use crate::items::Items;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use uzfs_fsproto::wire::{Blob, List, MAX_IO};
use uzfs_fsproto::{self as proto, Caller, Client, Code, Endpoint, Operation, Token, VolumeInfo, volume};

/// Bytes of a listing asked for at a time.
const LISTING: u32 = 256 << 10;
/// Object number in a node.
const OBJECT: u64 = (1 << 48) - 1;
/// Numbers that `.zfs` lists snapshots with are above this.
const LISTED_SNAPSHOTS: u64 = 0xFFFF_0000_0000;
/// Namespace that macOS's attributes have on Linux.
const USER: &[u8] = b"user.";

/// A volume.
pub struct Volume<H: Host> {
    host: Arc<H>,
    client: Client,
    id: [u8; 16],
    info: VolumeInfo,
    items: Items<H>,
    notices: Mutex<Option<Arc<Client>>>,
}

impl<H: Host> Volume<H> {
    /// The volume behind a connection. Its root must be readable: loading may fail, activating should not.
    pub(crate) fn open(
        host: Arc<H>,
        client: Client,
        id: [u8; 16],
        endpoints: &[Endpoint],
        token: Token,
    ) -> FsResult<Arc<Self>> {
        let info = client.volume().clone();
        client.call(&Caller::default(), proto::GetAttr { node: info.root })?;
        let items = Items::new(host.clone());
        let volume = Arc::new(Self { host, client, id, info, items, notices: Mutex::new(None) });
        volume.listen(endpoints, token);
        Ok(volume)
    }

    /// Hears of changes behind the kernel's back on a connection of its own. Without it the mount works, and shows
    /// what the kernel remembers.
    fn listen(self: &Arc<Self>, endpoints: &[Endpoint], token: Token) {
        let Ok(second) = Client::connect(endpoints, token).map(Arc::new) else { return };
        *self.notices.lock() = Some(second.clone());
        let volume: Weak<Self> = Arc::downgrade(self);
        let hear = move || {
            let told = second.listen(|notice| {
                if let Some(v) = volume.upgrade() {
                    v.changed(notice.node);
                }
            });
            if let (Err(_), Some(v)) = (told, volume.upgrade()) {
                v.host.log("the daemon is gone; everything fails from now on");
                v.client.close();
            }
        };
        if std::thread::Builder::new().name("notices".into()).spawn(hear).is_err() {
            self.host.log("no thread for notices");
        }
    }

    /// What changed behind the kernel's back: one file, or (0) all that FSKit knows.
    fn changed(&self, node: u64) {
        let items = match node {
            0 => self.items.children_first(),
            node => self.items.find(node).into_iter().collect(),
        };
        if !items.is_empty() {
            self.host.forget_cached(&items);
        }
    }

    /// Ends both connections.
    pub(crate) fn close(&self) {
        if let Some(second) = self.notices.lock().take() {
            second.close();
        }
        self.client.close();
    }

    fn call<O: Operation>(&self, request: O) -> FsResult<O::Reply> {
        Ok(self.client.call(&Caller::default(), request)?)
    }

    fn node(&self, item: &H::Item) -> FsResult<u64> {
        self.host.key_of(item).map(|k| k.node).ok_or(FsError::Posix(libc::ESTALE))
    }

    /// FSKit's number of a file. The root's is always 2, which a file may have in ZFS: that file gets the root's number,
    /// which nobody else has. Below `.zfs` inode numbers repeat, so files are told by their nodes; snapshots'
    /// directories keep the numbers that `.zfs` lists them with.
    fn file_id(&self, node: u64, ino: u64) -> u64 {
        match (node >> 48, ino) {
            _ if node == self.info.root => ROOT_ID,
            (0, ROOT_ID) => self.info.root,
            (0, ino) => ino,
            (_, ino) if ino >= LISTED_SNAPSHOTS => ino,
            _ => node,
        }
    }

    fn parent_id(&self, node: u64, parent: Option<u64>) -> u64 {
        match parent {
            _ if node == self.info.root => PARENT_OF_ROOT_ID,
            Some(p) => self.items.id(p).unwrap_or_else(|| self.file_id(p, p & OBJECT)),
            None => ROOT_ID,
        }
    }

    fn shown(&self, attr: &proto::Attr, parent: Option<u64>) -> ItemAttributes {
        let parent = parent.or_else(|| self.items.parent(attr.node));
        convert::attributes(attr, self.file_id(attr.node, attr.ino), self.parent_id(attr.node, parent))
    }

    fn found(&self, entry: proto::Entry, dir: u64) -> (H::Item, Vec<u8>) {
        let id = self.file_id(entry.attr.node, entry.attr.ino);
        (self.items.give(entry.attr.node, dir, id), entry.name)
    }

    fn xattr_name(&self, name: &[u8]) -> Vec<u8> {
        match self.host.xattr_names() {
            XattrNames::Linux => name.to_vec(),
            XattrNames::Mac => [USER, name].concat(),
        }
    }

    fn privileged(&self) -> bool {
        self.host.xattr_names() == XattrNames::Linux
    }

    /// One page of a listing into the packer; gives the verifier and where to go on, unless there is no more room or
    /// nothing follows.
    fn page(
        &self,
        dir: u64,
        at: (u64, u64),
        attrs: bool,
        packer: &mut dyn FnMut(&PackedEntry<'_>) -> bool,
    ) -> FsResult<(u64, Option<u64>)> {
        let request = proto::ReadDir { dir, cookie: at.0, verifier: at.1, room: LISTING, attrs };
        let listing = match self.call(request) {
            Err(e) if e == FsError::from(Code::Invalid) && at.0 != 0 => {
                return Err(FsError::FsKit(FsKitCode::InvalidDirectoryCookie));
            }
            other => other?,
        };
        // macOS 27 wants `.` and `..` from a listing without attributes; before, the kernel adds them itself.
        let dots = !attrs && self.host.system() >= System::V27;
        let mut last = at.0;
        for e in &listing.entries.0 {
            last = e.next;
            if !dots && (e.name == b"." || e.name == b"..") {
                continue;
            }
            let shown = e.attr.as_ref().map(|a| self.shown(a, Some(dir)));
            // A file whose attributes cannot be read is left out of a listing with attributes: looking at it tells why.
            if attrs && shown.is_none() {
                continue;
            }
            let packed = PackedEntry {
                name: &e.name,
                kind: convert::item_type(u32::from(e.kind)),
                id: self.file_id(e.node, e.ino),
                next_cookie: e.next,
                attributes: shown,
            };
            if !packer(&packed) {
                return Ok((listing.verifier, None));
            }
        }
        let more = !listing.end && last != at.0;
        Ok((listing.verifier, more.then_some(last)))
    }
}

impl<H: Host> VolumeOperations<H> for Volume<H> {
    fn volume_id(&self) -> [u8; 16] {
        self.id
    }

    fn volume_name(&self) -> String {
        let name = String::from_utf8_lossy(&self.info.name).into_owned();
        // The last part is what users call the volume.
        name.rsplit('/').next().unwrap_or_default().to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        let folds = self.info.flags & volume::CASE_INSENSITIVE != 0;
        Capabilities {
            case: if folds { CaseFormat::InsensitivePreserving } else { CaseFormat::Sensitive },
            hard_links: true,
            symbolic_links: true,
            persistent_ids: true,
            wide_ids: true,
            sparse_files: true,
            large_files: true,
            shared_space: true,
            fast_statfs: true,
        }
    }

    fn path_conf(&self) -> PathConf {
        let long = self.info.flags & volume::LONG_NAMES != 0;
        PathConf {
            max_links: -1,
            max_name: if long { 1023 } else { 255 },
            restricts_ownership: true,
            truncates_names: false,
            file_size_bits: Some(64),
            xattr_size_bits: Some(21),
        }
    }

    fn statistics(&self) -> Statistics {
        // There is no way to fail: a dead daemon has no space.
        let s = self.call(proto::StatFs { node: self.info.root }).unwrap_or_default();
        let bsize = u64::from(s.bsize.max(512));
        Statistics {
            type_name: SHORT_NAME.to_owned(),
            block_size: bsize,
            io_size: bsize.clamp(4096, MAX_IO as u64),
            total_blocks: s.blocks,
            free_blocks: s.bfree,
            total_files: s.files,
            free_files: s.ffree,
        }
    }

    fn is_readonly(&self) -> bool {
        self.info.flags & volume::READONLY != 0
    }

    fn activate(&self, _: &[String]) -> FsResult<H::Item> {
        Ok(self.items.give(self.info.root, self.info.root, ROOT_ID))
    }

    fn deactivate(&self, _: bool) -> FsResult<()> {
        let left = self.items.len();
        if left > 0 {
            self.host.log(&format!("{left} items were never reclaimed"));
        }
        self.items.clear();
        Ok(())
    }

    fn mount(&self, _: &[String]) -> FsResult<()> {
        self.call(proto::Mounted { on: true })
    }

    fn unmount(&self) {
        let synced = self.call(proto::SyncAll { mode: proto::SyncMode::Durable });
        let told = self.call(proto::Mounted { on: false });
        if let Err(e) = synced.and(told) {
            self.host.log(&format!("unmounting: {e}"));
        }
    }

    fn synchronize(&self, flags: SyncFlags) -> FsResult<()> {
        let mode = match flags {
            SyncFlags::Wait => proto::SyncMode::Wait,
            SyncFlags::NoWait => proto::SyncMode::NoWait,
            SyncFlags::DWait => proto::SyncMode::Durable,
        };
        self.call(proto::SyncAll { mode })
    }

    fn get_attributes(&self, item: &H::Item) -> FsResult<ItemAttributes> {
        let attr = self.call(proto::GetAttr { node: self.node(item)? })?;
        Ok(self.shown(&attr, None))
    }

    fn set_attributes(&self, request: &mut SetAttributes, item: &H::Item) -> FsResult<ItemAttributes> {
        let node = self.node(item)?;
        // What FSKit means by a size depends on the type.
        let kind = match request.wanted.size {
            Some(_) => self.get_attributes(item)?.kind,
            None => None,
        };
        let (attrs, _) = convert::to_set(request, kind)?;
        let done = self.call(proto::SetAttr { node, attrs })?;
        request.consumed = convert::consumed(done.consumed);
        Ok(self.shown(&done.attr, None))
    }

    fn lookup(&self, name: &[u8], dir: &H::Item) -> FsResult<(H::Item, Vec<u8>)> {
        let dir = self.node(dir)?;
        let entry = self.call(proto::Lookup { dir, name: name.to_vec() })?;
        Ok(self.found(entry, dir))
    }

    fn reclaim(&self, item: &H::Item) -> FsResult<()> {
        let key = self.host.key_of(item).ok_or(FsError::Posix(libc::ESTALE))?;
        if !self.items.reclaim(key) {
            // Somebody else's, or given back before: taking another item away for it would lose a live file.
            return Err(FsError::Posix(libc::ESTALE));
        }
        // Where nothing can be unlinked, nothing waits for this; the kernel forgets files by the thousand.
        if self.is_readonly() { Ok(()) } else { self.call(proto::Reclaim { node: key.node }) }
    }

    fn read_link(&self, item: &H::Item) -> FsResult<Vec<u8>> {
        self.call(proto::ReadLink { node: self.node(item)? })
    }

    fn create(
        &self,
        name: &[u8],
        kind: ItemType,
        dir: &H::Item,
        attrs: &mut SetAttributes,
    ) -> FsResult<(H::Item, Vec<u8>)> {
        let bits = match kind {
            ItemType::File => 0o100_000,
            ItemType::Directory => 0o040_000,
            _ => return Err(FsError::Posix(libc::EINVAL)),
        };
        let dir = self.node(dir)?;
        let (mut set, used) = convert::to_set(attrs, Some(kind))?;
        set.mask |= proto::set::MODE;
        set.mode = (set.mode & 0o7777) | bits;
        let entry = self.call(proto::Create { dir, name: name.to_vec(), attrs: set, rdev: 0 })?;
        attrs.consumed = used;
        Ok(self.found(entry, dir))
    }

    fn create_symlink(
        &self,
        name: &[u8],
        dir: &H::Item,
        attrs: &mut SetAttributes,
        target: &[u8],
    ) -> FsResult<(H::Item, Vec<u8>)> {
        let dir = self.node(dir)?;
        let (set, used) = convert::to_set(attrs, Some(ItemType::Symlink))?;
        let request = proto::Symlink { dir, name: name.to_vec(), target: target.to_vec(), attrs: set };
        let entry = self.call(request)?;
        attrs.consumed = used;
        Ok(self.found(entry, dir))
    }

    fn create_link(&self, item: &H::Item, name: &[u8], dir: &H::Item) -> FsResult<Vec<u8>> {
        let request = proto::Link { node: self.node(item)?, dir: self.node(dir)?, name: name.to_vec() };
        Ok(self.call(request)?.name)
    }

    fn remove(&self, item: &H::Item, name: &[u8], dir: &H::Item) -> FsResult<()> {
        let node = self.node(item)?;
        let directory = self.get_attributes(item)?.kind == Some(ItemType::Directory);
        self.call(proto::Remove { dir: self.node(dir)?, name: name.to_vec(), node, directory })
    }

    fn rename(
        &self,
        item: &H::Item,
        from: (&H::Item, &[u8]),
        to: (&H::Item, &[u8]),
        _: Option<&H::Item>,
    ) -> FsResult<Vec<u8>> {
        let (node, to_dir) = (self.node(item)?, self.node(to.0)?);
        self.call(proto::Rename {
            from: self.node(from.0)?,
            old: from.1.to_vec(),
            to: to_dir,
            new: to.1.to_vec(),
            flags: 0,
        })?;
        self.items.moved(node, to_dir);
        Ok(to.1.to_vec())
    }

    fn enumerate(
        &self,
        dir: &H::Item,
        cookie: u64,
        verifier: u64,
        attributes: bool,
        packer: Packer<'_>,
    ) -> FsResult<u64> {
        let dir = self.node(dir)?;
        let mut at = (cookie, verifier);
        loop {
            let (verifier, more) = self.page(dir, at, attributes, packer)?;
            match more {
                Some(next) => at = (next, verifier),
                None => return Ok(verifier),
            }
        }
    }

    fn read(&self, item: &H::Item, offset: i64, buf: &mut [u8]) -> FsResult<usize> {
        let node = self.node(item)?;
        let mut at = u64::try_from(offset).map_err(|_| FsError::Posix(libc::EINVAL))?;
        let mut done = 0;
        for part in buf.chunks_mut(MAX_IO) {
            let data = self.call(proto::Read { node, offset: at, len: part.len() as u32 })?;
            let bytes = data.bytes().get(..part.len()).unwrap_or(data.bytes());
            if let Some(room) = part.get_mut(..bytes.len()) {
                room.copy_from_slice(bytes);
            }
            done += bytes.len();
            at = at.saturating_add(bytes.len() as u64);
            if bytes.len() < part.len() {
                break;
            }
        }
        Ok(done)
    }

    fn write(&self, data: &[u8], item: &H::Item, offset: i64) -> FsResult<usize> {
        let node = self.node(item)?;
        let mut at = u64::try_from(offset).map_err(|_| FsError::Posix(libc::EINVAL))?;
        let mut done = 0;
        for part in data.chunks(MAX_IO) {
            let n = match self.client.write(&Caller::default(), node, at, part) {
                // What is written is written; the error comes with the next call.
                Err(_) if done > 0 => return Ok(done),
                n => (n? as usize).min(part.len()),
            };
            done += n;
            at = at.saturating_add(n as u64);
            if n < part.len() {
                break;
            }
        }
        Ok(done)
    }

    fn get_xattr(&self, name: &[u8], item: &H::Item) -> FsResult<Vec<u8>> {
        let request =
            proto::GetXattr { node: self.node(item)?, name: self.xattr_name(name), privileged: self.privileged() };
        Ok(self.call(request)?.into_vec())
    }

    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, item: &H::Item, policy: SetXattrPolicy) -> FsResult<()> {
        let (node, name) = (self.node(item)?, self.xattr_name(name));
        let policy = match policy {
            SetXattrPolicy::Delete => return self.call(proto::RemoveXattr { node, name }),
            SetXattrPolicy::Always => proto::XattrPolicy::Always,
            SetXattrPolicy::MustCreate => proto::XattrPolicy::Create,
            SetXattrPolicy::MustReplace => proto::XattrPolicy::Replace,
        };
        let value = Blob::from(value.unwrap_or_default().to_vec());
        self.call(proto::SetXattr { node, name, policy, value })
    }

    fn list_xattrs(&self, item: &H::Item) -> FsResult<Vec<Vec<u8>>> {
        let List(names) = self.call(proto::ListXattr { node: self.node(item)?, privileged: self.privileged() })?;
        Ok(match self.host.xattr_names() {
            XattrNames::Linux => names,
            XattrNames::Mac => names.iter().filter_map(|n| n.strip_prefix(USER)).map(<[u8]>::to_vec).collect(),
        })
    }

    fn seek(&self, item: &H::Item, offset: i64, region: SeekRegion) -> FsResult<i64> {
        let what = match region {
            SeekRegion::Hole => proto::SeekTo::Hole,
            SeekRegion::Data => proto::SeekTo::Data,
        };
        let offset = u64::try_from(offset).map_err(|_| FsError::Posix(libc::EINVAL))?;
        let found = self.call(proto::Seek { node: self.node(item)?, offset, what })?;
        i64::try_from(found).map_err(|_| FsError::Posix(libc::EOVERFLOW))
    }

    fn check_access(&self, item: &H::Item, want: u32, who: Context) -> FsResult<bool> {
        let request = proto::Access { node: self.node(item)?, uid: who.uid, groups: List(self.host.groups(who)), want };
        match self.call(request) {
            Ok(()) => Ok(true),
            Err(e) if [Code::Access, Code::NotPermitted, Code::ReadOnly].map(FsError::from).contains(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn live_items(&self) -> usize {
        self.items.len()
    }
}
