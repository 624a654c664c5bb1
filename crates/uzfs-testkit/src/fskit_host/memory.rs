//! A small file system behind the protocol that needs no pool: for tests of the rules.
//!
//! The root holds `file.txt`, a directory `dir` of a few files, a symbolic link and a second name of `file.txt`. It can
//! only be read.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uzfs_fsproto::wire::List;
use uzfs_fsproto::*;

/// Number of the root.
pub const ROOT: u64 = 34;
/// Its only token.
pub const TOKEN: Token = [0x42; 32];
/// What `file.txt` says.
pub const HELLO: &[u8] = b"HelloWorld\n";
const DIR: u64 = 40;
const GUIDS: (u64, u64) = (0x1111_2222_3333_4444, 0x5555_6666_7777_8888);

/// The file system.
#[derive(Default)]
pub struct Memory {
    /// Its key is not loaded.
    pub locked: AtomicBool,
}

fn entries(dir: u64) -> Option<Vec<(Vec<u8>, u64)>> {
    let dots = |up| vec![(b".".to_vec(), dir), (b"..".to_vec(), up)];
    let mut all = match dir {
        ROOT => dots(ROOT),
        DIR => dots(ROOT),
        _ => return None,
    };
    if dir == ROOT {
        // As in a real pool, a file has number 2, which is FSKit's number of the root.
        for (name, node) in [("file.txt", 2), ("dir", DIR), ("link", 41), ("same.txt", 2)] {
            all.push((name.into(), node));
        }
    } else {
        all.extend((0..100u64).map(|i| (format!("f{i}").into_bytes(), 100 + i)));
    }
    Some(all)
}

fn mode(node: u64) -> u32 {
    match node {
        ROOT | DIR => 0o040_755,
        41 => 0o120_777,
        _ => 0o100_644,
    }
}

fn attr(node: u64) -> Result<Attr, Code> {
    if !matches!(node, 2 | ROOT | DIR | 41 | 100..200) {
        return Err(Code::NotFound);
    }
    let t = Time { sec: 1_700_000_000, nsec: 5 };
    let size = if mode(node) & 0o170_000 == 0o100_000 { content(node).len() as u64 } else { 3 };
    Ok(Attr {
        node,
        ino: node,
        mode: mode(node),
        nlink: if node == 2 { 2 } else { 1 },
        size,
        blocks: 1,
        atime: t,
        mtime: t,
        ctime: t,
        btime: t,
        valid: attr_valid::BTIME,
        ..Attr::default()
    })
}

fn content(node: u64) -> Vec<u8> {
    if node == 2 { HELLO.to_vec() } else { vec![node as u8; 10_000] }
}

macro_rules! read_only {
    ($($f:ident($t:ty) -> $r:ty;)*) => {$(
        fn $f(&self, _: &Caller, _: $t) -> Result<$r, Code> {
            Err(Code::ReadOnly)
        }
    )*};
}

impl Service for Memory {
    fn volume(&self) -> VolumeInfo {
        VolumeInfo {
            pool_guid: GUIDS.0,
            dataset_guid: GUIDS.1,
            root: ROOT,
            flags: volume::READONLY,
            name: b"mem/ory".to_vec(),
        }
    }
    fn ping(&self, _: &Caller, _: Ping) -> Result<(), Code> {
        Ok(())
    }
    fn mounted(&self, _: &Caller, _: Mounted) -> Result<(), Code> {
        Ok(())
    }
    fn lookup(&self, _: &Caller, r: Lookup) -> Result<Entry, Code> {
        let found = entries(r.dir).ok_or(Code::NotDir)?.into_iter().find(|(name, _)| *name == r.name);
        Ok(Entry { attr: attr(found.ok_or(Code::NotFound)?.1)?, name: r.name })
    }
    fn getattr(&self, _: &Caller, r: GetAttr) -> Result<Attr, Code> {
        attr(r.node)
    }
    fn readdir(&self, _: &Caller, r: ReadDir) -> Result<Listing, Code> {
        let all = entries(r.dir).ok_or(Code::NotDir)?;
        if r.cookie != 0 && r.verifier != r.dir {
            return Err(Code::Invalid);
        }
        // Few at a time, so that listing takes several pages.
        let (from, most) = (r.cookie as usize, 17);
        let end = from + most >= all.len();
        let page = all.iter().enumerate().skip(from).take(most).map(|(i, (name, node))| Listed {
            node: *node,
            ino: *node,
            kind: (mode(*node) >> 12) as u8,
            next: i as u64 + 1,
            name: name.clone(),
            attr: r.attrs.then(|| attr(*node).unwrap_or_default()),
        });
        Ok(Listing { verifier: r.dir, end, entries: List(page.collect()) })
    }
    fn readlink(&self, _: &Caller, r: ReadLink) -> Result<Vec<u8>, Code> {
        if r.node == 41 { Ok(b"file.txt".to_vec()) } else { Err(Code::Invalid) }
    }
    fn read(&self, _: &Caller, r: Read) -> Result<Blob, Code> {
        let all = content(r.node);
        let from = (r.offset as usize).min(all.len());
        let to = from.saturating_add(r.len as usize).min(all.len());
        Ok(all[from..to].to_vec().into())
    }
    fn statfs(&self, _: &Caller, _: StatFs) -> Result<Statfs, Code> {
        Ok(Statfs { bsize: 131_072, blocks: 100, bfree: 50, files: 9, ffree: 5, namelen: 255, fsid: 1 })
    }
    fn listxattr(&self, _: &Caller, r: ListXattr) -> Result<List<Vec<u8>>, Code> {
        Ok(List(if r.node == 2 { vec![b"user.colour".to_vec(), b"security.x".to_vec()] } else { Vec::new() }))
    }
    fn getxattr(&self, _: &Caller, r: GetXattr) -> Result<Blob, Code> {
        let values: BTreeMap<&[u8], &[u8]> = [(&b"user.colour"[..], &b"blue"[..])].into();
        values.get(r.name.as_slice()).filter(|_| r.node == 2).map(|v| v.to_vec().into()).ok_or(Code::NoAttribute)
    }
    fn seek(&self, _: &Caller, r: Seek) -> Result<u64, Code> {
        let size = content(r.node).len() as u64;
        match r.what {
            _ if r.offset >= size => Err(Code::NoData),
            SeekTo::Data => Ok(r.offset),
            SeekTo::Hole => Ok(size),
        }
    }
    fn sync(&self, _: &Caller, _: SyncAll) -> Result<(), Code> {
        Ok(())
    }
    fn fsync(&self, _: &Caller, _: Fsync) -> Result<(), Code> {
        Ok(())
    }
    fn access(&self, _: &Caller, r: Access) -> Result<(), Code> {
        if r.want & 2 == 0 { Ok(()) } else { Err(Code::ReadOnly) }
    }
    fn reclaim(&self, _: &Caller, _: Reclaim) -> Result<(), Code> {
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
        write(Write) -> u32;
        create(Create) -> Entry;
        symlink(Symlink) -> Entry;
        link(Link) -> Entry;
        remove(Remove) -> ();
        rename(Rename) -> ();
        setxattr(SetXattr) -> ();
        removexattr(RemoveXattr) -> ();
        clone_range(CloneRange) -> u64;
        allocate(Allocate) -> ();
    }
}

struct Door(Arc<Memory>);

impl Gate for Door {
    fn open(&self, token: &Token) -> Result<Arc<dyn Service>, Code> {
        match (*token == TOKEN, self.0.locked.load(Ordering::SeqCst)) {
            (true, false) => Ok(self.0.clone()),
            (true, true) => Err(Code::KeyNeeded),
            _ => Err(Code::Access),
        }
    }

    fn claim(&self, secret: &Token, pool: u64) -> Result<Claimed, Code> {
        match (*secret == TOKEN, pool == GUIDS.0) {
            (true, true) => Ok(Claimed { token: TOKEN, volume: self.0.volume() }),
            (true, false) => Err(Code::NotFound),
            _ => Err(Code::Access),
        }
    }
}

/// Serves it in `dir`, and writes the ticket `volume.uzfs` there.
pub fn serve(memory: &Arc<Memory>, dir: &Path) -> std::io::Result<Server> {
    let server = Server::start(Arc::new(Door(memory.clone())), &Endpoint::Unix(dir.join("fs")))?;
    let (kind, endpoints) = (TicketKind::Volume(memory.volume()), vec![server.endpoint().clone()]);
    let ticket = Ticket { kind, endpoints: endpoints.clone(), token: TOKEN };
    std::fs::write(dir.join("volume.uzfs"), ticket.to_text())?;
    let daemon = Ticket { kind: TicketKind::Daemon, endpoints, token: TOKEN };
    std::fs::write(dir.join("daemon.uzfs"), daemon.to_text())?;
    Ok(server)
}
