//! Datasets that front ends of their own serve: tickets, tokens, and who gets in with them.
//!
//! Publishing writes a ticket, a file that only its reader can read, and remembers the token in it. A dataset is opened
//! when its token is first shown, so a dataset whose key is not loaded can be published and is refused with
//! `KeyNeeded` until then. Withdrawing forgets the token, removes the ticket and ends the connections.
//!
//! A dataset that can be changed is served by one at a time: a second view of it would go stale, and two that change it
//! would destroy it. So it is refused to a front end while it is mounted or another front end has it, and to a mount
//! while a front end has it. `opening` makes each of these checks one with what follows it.
//!
//! Lock order: `opening`, then `table` or `servers`, which are leaves; a dataset is opened without those.

use super::files::{Chosen, number};
use super::{Engine, Imported, failure};
use crate::fsserver::VfsService;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use uzfs_fsproto::{
    Claimed, Code, Endpoint, Gate, Notice, Server, Service as FsService, Ticket, TicketKind, Token, VolumeInfo, volume,
};
use uzfs_fuse::Vfs;
use uzfs_proto::{
    Caller, Empty, Failure, FailureCode, ImportPoolArgs, MountEntry, PublishArgs, PublishReply, U64, UnpublishArgs,
};
use zfs_env::{Rng, SystemRng};
use zfs_spa::Dataset;

/// Name of the daemon's own ticket.
const DAEMON: &str = "daemon.uzfs";
/// Name of the socket; short, because a path of a socket has 103 bytes at most on macOS.
const SOCKET: &str = "fs";

/// Where front ends find the daemon.
pub struct FrontDoor {
    /// Folder of tickets and socket.
    pub dir: PathBuf,
    /// Also listen on a port of this machine.
    pub tcp: bool,
}

/// A published dataset.
struct Entry {
    dataset: String,
    ticket: PathBuf,
    info: VolumeInfo,
    /// Where whoever asked for it said that he mounts it.
    place: Option<String>,
    open: Option<Arc<VfsService>>,
}

/// What is published.
#[derive(Default)]
pub struct Published {
    table: Mutex<HashMap<Token, Entry>>,
    servers: Mutex<Vec<Server>>,
    dir: Mutex<Option<PathBuf>>,
    secret: Mutex<Option<Token>>,
    /// The user whose folder it is.
    owner: Mutex<Option<u32>>,
    opening: Mutex<()>,
}

/// Lets in whoever has a token.
struct Keeper(Weak<Engine>);

impl Gate for Keeper {
    fn open(&self, token: &Token) -> Result<Arc<dyn FsService>, Code> {
        let engine = self.0.upgrade().ok_or(Code::Io)?;
        engine.open_published(token).map(|s| s as Arc<dyn FsService>)
    }

    fn claim(&self, secret: &Token, pool: u64) -> Result<Claimed, Code> {
        let engine = self.0.upgrade().ok_or(Code::Io)?;
        if !engine.published.secret.lock().as_ref().is_some_and(|s| same(s, secret)) {
            return Err(Code::Access);
        }
        engine.claim(pool)
    }
}

/// Compares secrets without telling by the time it takes how much of them is right.
fn same(a: &Token, b: &Token) -> bool {
    a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn random() -> io::Result<Token> {
    let mut token = [0; 32];
    SystemRng::new()?.fill(&mut token);
    Ok(token)
}

/// Writes a file that only `uid` can read, in one step.
fn write_secret(path: &Path, text: &str, uid: Option<u32>) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    std::os::unix::fs::fchown(&file, uid, None)?;
    fs::rename(fresh, path)
}

/// What a failure of the contract is on the wire.
fn wire_code(f: &Failure) -> Code {
    match f.code {
        FailureCode::KeyNotLoaded => Code::KeyNeeded,
        FailureCode::NoSuchPool | FailureCode::NoSuchDataset => Code::NotFound,
        FailureCode::NotSupported | FailureCode::UnsupportedFeatures | FailureCode::UnsupportedVersion => {
            Code::Unsupported
        }
        _ => Code::Io,
    }
}

impl Engine {
    /// Begins to serve front ends. Without it everything else works, so a failure is only told.
    pub fn open_front_door(self: &Arc<Self>, door: &FrontDoor) {
        if let Err(e) = self.try_open_front_door(door) {
            tracing::warn!("front ends cannot be served from {}: {e}", door.dir.display());
        }
    }

    fn try_open_front_door(self: &Arc<Self>, door: &FrontDoor) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&door.dir)?;
        let dir = door.dir.canonicalize()?;
        // Tickets of a daemon that is gone open nothing any more.
        for old in fs::read_dir(&dir)?.flatten().filter(|f| f.path().extension().is_some_and(|e| e == "uzfs")) {
            let _ = fs::remove_file(old.path());
        }
        let gate: Arc<dyn Gate> = Arc::new(Keeper(Arc::downgrade(self)));
        let at = dir.join(SOCKET);
        let mut servers = vec![Server::start(gate.clone(), &Endpoint::Unix(at.clone()))?];
        if uzfs_fuse::is_root() {
            // Who may do what is decided by tokens; front ends run as the users who mount.
            fs::set_permissions(&at, fs::Permissions::from_mode(0o666))?;
        }
        if door.tcp {
            servers.push(Server::start(gate, &Endpoint::Tcp((std::net::Ipv4Addr::LOCALHOST, 0).into()))?);
        }
        let secret = random()?;
        let endpoints = servers.iter().map(|s| s.endpoint().clone()).collect();
        let ticket = Ticket { kind: TicketKind::Daemon, endpoints, token: secret };
        // Whose folder it is (a user's container on macOS), may offer devices.
        let uid = fs::metadata(&dir)?.uid();
        write_secret(&dir.join(DAEMON), &ticket.to_text(), uzfs_fuse::is_root().then_some(uid))?;
        *self.published.owner.lock() = Some(uid);
        *self.published.servers.lock() = servers;
        *self.published.secret.lock() = Some(secret);
        *self.published.dir.lock() = Some(dir);
        Ok(())
    }

    /// Refuses callers that may neither change anything nor own the folder of the tickets.
    pub(super) fn require_front(&self, caller: &Caller) -> Result<(), Failure> {
        if caller.owner || *self.published.owner.lock() == Some(caller.uid) {
            return Ok(());
        }
        Err(Failure::new(FailureCode::PermissionDenied, "permission denied"))
    }

    /// Publishes a dataset; one that is published already gets its ticket again.
    pub(super) fn publish(self: &Arc<Self>, caller: &Caller, args: PublishArgs) -> Result<PublishReply, Failure> {
        self.require_front(caller)?;
        let fail = |code, text: &str| Failure::new(code, text).about(args.dataset.clone());
        let uid = match args.uid {
            Some(uid) => u32::try_from(uid).map_err(|_| fail(FailureCode::InvalidArgument, "no such user"))?,
            None => caller.uid,
        };
        if uid != caller.uid && !caller.owner {
            return Err(fail(FailureCode::PermissionDenied, "permission denied"));
        }
        Ok(PublishReply { ticket: self.publish_at(&args.dataset, uid, args.mountpoint)? })
    }

    /// Publishes a dataset for a user who mounts it at `place`; gives the path of the ticket.
    pub(super) fn publish_at(self: &Arc<Self>, name: &str, uid: u32, place: Option<String>) -> Result<String, Failure> {
        // Only root's daemon can give a file to somebody else.
        let (token, path) = self.publish_dataset(name, uzfs_fuse::is_root().then_some(uid), true)?;
        if let Some(entry) = self.published.table.lock().get_mut(&token).filter(|_| place.is_some()) {
            entry.place = place;
        }
        Ok(path.to_string_lossy().into_owned())
    }

    /// What front ends have mounted, where it is known.
    pub(super) fn served_mounts(&self) -> Vec<MountEntry> {
        let servers = self.published.servers.lock();
        let table = self.published.table.lock();
        let living = |token: &Token| servers.iter().any(|s| s.connections(token) > 0);
        let mut all: Vec<MountEntry> = table
            .iter()
            .filter(|(token, e)| e.open.as_ref().is_some_and(|o| o.is_mounted()) && living(token))
            .filter_map(|(_, e)| {
                let readonly = e.open.as_ref().is_some_and(|o| o.volume().flags & volume::READONLY != 0);
                let options = vec![if readonly { "ro" } else { "rw" }.to_owned()];
                let (dataset, mountpoint) = (e.dataset.clone(), e.place.clone()?);
                Some(MountEntry { dataset, mountpoint, options, frontend: true })
            })
            .collect();
        all.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        all
    }

    /// Whether a front end has a dataset mounted.
    pub(super) fn is_served(&self, name: &str) -> bool {
        let servers = self.published.servers.lock();
        let table = self.published.table.lock();
        let living = |token: &Token| servers.iter().any(|s| s.connections(token) > 0);
        table.iter().any(|(t, e)| e.dataset == name && e.open.as_ref().is_some_and(|o| o.is_mounted()) && living(t))
    }

    /// Publishes a dataset. `named` uses its own guid, else 0, which stands for a pool's root dataset.
    fn publish_dataset(
        self: &Arc<Self>,
        name: &str,
        uid: Option<u32>,
        named: bool,
    ) -> Result<(Token, PathBuf), Failure> {
        let fail = |code, text: String| Failure::new(code, text).about(name);
        let (imported, dataset) = self.dataset(name)?;
        let kind = dataset.kind().map_err(|e| failure::engine(&e))?;
        let is_volume = dataset.objset_type().map_err(|e| failure::engine(&e))? == zfs_phys::enums::ObjsetType::Zvol;
        if is_volume || kind == zfs_spa::DatasetKind::Volume {
            return Err(fail(FailureCode::WrongKind, "operation not applicable to datasets of this type".into()));
        }
        let dir = self.published.dir.lock().clone();
        let dir = dir.ok_or_else(|| fail(FailureCode::NotSupported, "front ends are not served".into()))?;
        let info = VolumeInfo {
            pool_guid: imported.pool.guid(),
            dataset_guid: if named { dataset.phys.guid } else { 0 },
            root: 0,
            flags: volume::READONLY | if dataset.is_snapshot() { volume::SNAPSHOT } else { 0 },
            name: name.as_bytes().to_vec(),
        };
        let endpoints: Vec<Endpoint> = self.published.servers.lock().iter().map(|s| s.endpoint().clone()).collect();
        let mut table = self.published.table.lock();
        let is_it = |e: &Entry| e.dataset == name && e.info.dataset_guid == info.dataset_guid;
        if let Some((token, entry)) = table.iter().find(|(_, e)| is_it(e)) {
            // The one who asks now is the one who mounts next.
            if let Some(uid) = uid {
                let io = |e: io::Error| fail(FailureCode::Io, format!("{}: {e}", entry.ticket.display()));
                std::os::unix::fs::chown(&entry.ticket, Some(uid), None).map_err(io)?;
            }
            return Ok((*token, entry.ticket.clone()));
        }
        let io = |e: io::Error| fail(FailureCode::Io, format!("{}: {e}", dir.display()));
        let token = random().map_err(io)?;
        let file = name.replace('/', "%") + if named { ".uzfs" } else { "%.uzfs" };
        let ticket = dir.join(file);
        let text = Ticket { kind: TicketKind::Volume(info.clone()), endpoints, token }.to_text();
        write_secret(&ticket, &text, uid).map_err(io)?;
        table.insert(token, Entry { dataset: name.to_owned(), ticket: ticket.clone(), info, place: None, open: None });
        Ok((token, ticket))
    }

    fn open_published(self: &Arc<Self>, token: &Token) -> Result<Arc<VfsService>, Code> {
        let _one = self.published.opening.lock();
        let (name, info) = {
            let table = self.published.table.lock();
            let entry = table.iter().find(|(t, _)| same(t, token)).map(|(_, e)| e).ok_or(Code::Access)?;
            if let Some(open) = &entry.open {
                return Ok(open.clone());
            }
            (entry.dataset.clone(), entry.info.clone())
        };
        let (imported, dataset) = self.dataset(&name).map_err(|f| wire_code(&f))?;
        if imported.spa.is_some() && !dataset.is_snapshot() {
            if self.mounts.of(&name).is_some() {
                return Err(Code::Busy);
            }
            self.let_go_of(&name)?;
        }
        let vfs = self.tree(&imported, &dataset).map_err(|f| wire_code(&f))?;
        let service = Arc::new(VfsService::new(vfs, info));
        let mut table = self.published.table.lock();
        let entry = table.get_mut(token).ok_or(Code::Access)?;
        Ok(entry.open.get_or_insert(service).clone())
    }

    /// A dataset for front ends.
    fn tree(self: &Arc<Self>, imported: &Arc<Imported>, dataset: &Arc<Dataset>) -> Result<Arc<Vfs>, Failure> {
        let writable = imported.spa.is_some() && !dataset.is_snapshot();
        let readonly = number(dataset, "readonly", 0)?;
        self.vfs(imported, dataset, Chosen::stored(dataset)?, writable && readonly == 0)
    }

    /// Runs what changes a whole dataset behind the backs of the front ends that serve it. They wait meanwhile, go on with
    /// the dataset as it is then, and are told to forget what they cached of it.
    pub(super) fn behind_front_ends(
        self: &Arc<Self>,
        name: &str,
        change: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let _one = self.published.opening.lock();
        let open: Vec<(Token, Arc<VfsService>)> = {
            let table = self.published.table.lock();
            let of_it = table.iter().filter(|(_, e)| e.dataset == name);
            of_it.filter_map(|(token, e)| Some((*token, e.open.clone()?))).collect()
        };
        let waiting: Vec<_> = open.iter().map(|(_, service)| service.suspend()).collect();
        let done = change();
        let mut lost = None;
        for suspended in waiting {
            match self.dataset(name).and_then(|(imported, dataset)| self.tree(&imported, &dataset)) {
                Ok(tree) => suspended.resume(tree),
                Err(failure) => lost = Some(failure),
            }
        }
        if let Some(failure) = lost {
            // What cannot be opened again is not served any more; whoever asks gets a new ticket.
            self.withdraw(true, |served| served == name)?;
            return done.and(Err(failure));
        }
        let servers = self.published.servers.lock();
        for (token, _) in &open {
            let told: usize = servers.iter().map(|s| s.notify(token, &Notice { node: 0 })).sum();
            tracing::debug!("{name} changed from outside; {told} front ends were told");
        }
        done
    }

    /// Closes what a front end had open of a dataset. Fails with `Busy` while one has it mounted.
    fn let_go_of(&self, name: &str) -> Result<(), Code> {
        let servers = self.published.servers.lock();
        let mut table = self.published.table.lock();
        let mut closed = false;
        for (token, entry) in table.iter_mut().filter(|(_, e)| e.dataset == name) {
            let Some(open) = &entry.open else { continue };
            let connected = servers.iter().any(|s| s.connections(token) > 0);
            if connected && open.is_mounted() {
                return Err(Code::Busy);
            }
            open.forget_mount();
            servers.iter().for_each(|s| s.disconnect(token));
            (entry.open, closed) = (None, true);
        }
        drop((table, servers));
        if closed {
            self.close_log(name);
        }
        Ok(())
    }

    /// Closes what front ends had open of the datasets that `which` chooses. Fails with `Busy` while one has one mounted.
    pub(super) fn close_idle(&self, which: impl Fn(&str) -> bool) -> Result<(), Code> {
        let _one = self.published.opening.lock();
        let mut names: Vec<String> = self.published.table.lock().values().map(|e| e.dataset.clone()).collect();
        names.retain(|n| which(n));
        names.iter().try_for_each(|name| self.let_go_of(name))
    }

    /// Calls `mount` when no front end has the dataset; nobody gets it meanwhile.
    pub(super) fn unless_served(&self, name: &str, mount: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let _one = self.published.opening.lock();
        self.let_go_of(name).map_err(|_| Failure::new(FailureCode::Busy, "mounted by a front end").about(name))?;
        mount()
    }

    /// Opens the pool with this guid, if it is not open, and publishes its root dataset.
    fn claim(self: &Arc<Self>, guid: u64) -> Result<Claimed, Code> {
        let find = || {
            let pools = self.pools.read();
            pools.iter().find(|(_, p)| p.pool.guid() == guid).map(|(name, _)| name.clone())
        };
        let name = match find() {
            Some(name) => name,
            None => {
                let args = ImportPoolArgs { guid: U64(guid), ..ImportPoolArgs::default() };
                match self.import(&args) {
                    Ok(reply) => reply.name,
                    // Another member of the pool was faster.
                    Err(f) if f.code == FailureCode::PoolExists => find().ok_or(Code::Io)?,
                    Err(f) => {
                        tracing::warn!("a device of pool {guid} was offered: {f}");
                        return Err(wire_code(&f));
                    }
                }
            }
        };
        let (token, _) = self.publish_dataset(&name, None, false).map_err(|f| wire_code(&f))?;
        let service = self.open_published(&token)?;
        Ok(Claimed { token, volume: service.volume() })
    }

    pub(super) fn unpublish(&self, args: &UnpublishArgs) -> Result<Empty, Failure> {
        if !self.published.table.lock().values().any(|e| e.dataset == args.dataset) {
            return Err(Failure::new(FailureCode::NotMounted, "not published").about(args.dataset.clone()));
        }
        self.withdraw(args.force, |dataset| dataset == args.dataset)?;
        Ok(Empty {})
    }

    /// Takes back everything that `which` chooses; nothing if a front end has some of it mounted, unless forced.
    pub(super) fn withdraw(&self, force: bool, which: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let servers = self.published.servers.lock();
        let connected = |token: &Token| servers.iter().any(|s| s.connections(token) > 0);
        let mut table = self.published.table.lock();
        let chosen: Vec<Token> = table.iter().filter(|(_, e)| which(&e.dataset)).map(|(t, _)| *t).collect();
        for token in &chosen {
            let Some(entry) = table.get(token) else { continue };
            let Some(open) = &entry.open else { continue };
            if !connected(token) {
                // A front end that died did not say goodbye.
                open.forget_mount();
            }
            if open.is_mounted() && !force {
                return Err(Failure::new(FailureCode::Busy, "mounted by a front end").about(entry.dataset.clone()));
            }
        }
        let mut closed = Vec::new();
        for token in chosen {
            let mut gone = table.remove(&token);
            if let Some(entry) = &mut gone {
                // It may have been removed by hand.
                let _ = fs::remove_file(&entry.ticket);
                entry.open.iter().for_each(|open| open.forget_mount());
            }
            servers.iter().for_each(|s| s.disconnect(&token));
            if let Some(entry) = gone.filter(|e| e.open.is_some()) {
                closed.push(entry.dataset);
            }
        }
        drop((table, servers));
        closed.iter().for_each(|dataset| self.close_log(dataset));
        Ok(())
    }
}
