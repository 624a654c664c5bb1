#![allow(dead_code, missing_docs)]
//! A file system that answers without an engine, for tests of the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use uzfs_fsproto::wire::List;
use uzfs_fsproto::*;

pub const TOKEN: Token = [0x5a; 32];
pub const SECRET: Token = [0xc3; 32];
/// Reading this file never ends until the test is over.
pub const HANGS: u64 = 666;

#[derive(Default)]
pub struct Fake {
    pub stop: AtomicBool,
    pub running: AtomicU32,
    pub most: AtomicU32,
    pub data: Vec<u8>,
}

impl Fake {
    fn enter(&self) {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }
}

pub fn attr(node: u64) -> Attr {
    Attr { node, ino: node, mode: 0o100_644, nlink: 1, ..Attr::default() }
}

struct Shared(Arc<Vec<u8>>);
impl std::ops::Deref for Shared {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

macro_rules! read_only {
    ($($f:ident($t:ty) -> $r:ty;)*) => {$(
        fn $f(&self, _: &Caller, _: $t) -> Result<$r, Code> { Err(Code::ReadOnly) }
    )*};
}

impl Service for Fake {
    fn volume(&self) -> VolumeInfo {
        VolumeInfo { pool_guid: 1, dataset_guid: 2, root: 34, flags: volume::READONLY, name: b"tank".to_vec() }
    }
    fn ping(&self, _: &Caller, _: Ping) -> Result<(), Code> {
        Ok(())
    }
    fn mounted(&self, _: &Caller, _: Mounted) -> Result<(), Code> {
        Ok(())
    }
    fn lookup(&self, _: &Caller, r: Lookup) -> Result<Entry, Code> {
        if r.name == b"no" { Err(Code::NotFound) } else { Ok(Entry { attr: attr(r.dir + 1), name: r.name }) }
    }
    fn getattr(&self, _: &Caller, r: GetAttr) -> Result<Attr, Code> {
        self.enter();
        if r.node == HANGS {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(attr(r.node))
    }
    fn readdir(&self, _: &Caller, _: ReadDir) -> Result<Listing, Code> {
        Ok(Listing { verifier: 1, end: true, entries: List::default() })
    }
    fn readlink(&self, _: &Caller, _: ReadLink) -> Result<Vec<u8>, Code> {
        Ok(b"target".to_vec())
    }
    fn read(&self, _: &Caller, r: Read) -> Result<Blob, Code> {
        while r.node == HANGS && !self.stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let len = (r.len as usize).min(wire::MAX_IO);
        if r.node == 7 {
            // Two pieces that somebody else keeps.
            let half: Piece = Box::new(Shared(Arc::new(vec![1; len / 2])));
            let rest: Piece = Box::new(Shared(Arc::new(vec![2; len - len / 2])));
            return Ok(Blob::of(vec![half, rest]));
        }
        Ok((0..len).map(|i| (i as u64 + r.offset) as u8).collect::<Vec<_>>().into())
    }
    fn write(&self, caller: &Caller, r: Write) -> Result<u32, Code> {
        assert_eq!(caller.uid, 501);
        assert!(r.data.bytes().iter().all(|b| *b == 9));
        Ok(r.data.len() as u32)
    }
    fn statfs(&self, _: &Caller, _: StatFs) -> Result<Statfs, Code> {
        Ok(Statfs::default())
    }
    fn listxattr(&self, _: &Caller, _: ListXattr) -> Result<List<Vec<u8>>, Code> {
        Ok(List(vec![b"user.a".to_vec()]))
    }
    fn getxattr(&self, _: &Caller, _: GetXattr) -> Result<Blob, Code> {
        Err(Code::NoAttribute)
    }
    fn seek(&self, _: &Caller, r: Seek) -> Result<u64, Code> {
        Ok(r.offset)
    }
    fn access(&self, _: &Caller, _: Access) -> Result<(), Code> {
        Ok(())
    }
    fn fid(&self, _: &Caller, r: GetFid) -> Result<Fid, Code> {
        Ok(Fid { objset: 0, object: r.node, generation: 1 })
    }
    fn by_fid(&self, _: &Caller, r: ByFid) -> Result<u64, Code> {
        Ok(r.fid.object)
    }
    read_only! {
        setattr(SetAttr) -> SetDone;
        create(Create) -> Entry;
        symlink(Symlink) -> Entry;
        link(Link) -> Entry;
        remove(Remove) -> ();
        rename(Rename) -> ();
        setxattr(SetXattr) -> ();
        removexattr(RemoveXattr) -> ();
        sync(SyncAll) -> ();
        fsync(Fsync) -> ();
        reclaim(Reclaim) -> ();
        clone_range(CloneRange) -> u64;
        allocate(Allocate) -> ();
    }
}

pub struct Door(pub Arc<Fake>);

impl Gate for Door {
    fn open(&self, token: &Token) -> Result<Arc<dyn Service>, Code> {
        if *token == TOKEN { Ok(self.0.clone()) } else { Err(Code::Access) }
    }
    fn claim(&self, secret: &Token, pool: u64) -> Result<Claimed, Code> {
        match (*secret == SECRET, pool) {
            (true, 1) => Ok(Claimed { token: TOKEN, volume: self.0.volume() }),
            (true, _) => Err(Code::NotFound),
            _ => Err(Code::Access),
        }
    }
}

pub fn serve(fake: &Arc<Fake>) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let at = Endpoint::Unix(dir.path().join("s"));
    let server = Server::start(Arc::new(Door(fake.clone())), &at).unwrap();
    (dir, server)
}
