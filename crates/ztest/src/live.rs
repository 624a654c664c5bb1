//! A pool that is open for writing, with its file systems mounted, and how operations are done to it.

use crate::machine::{HOST, Machine};
use crate::model::{Fsync, Mark, Model};
use crate::ops::{self, Op};
use crate::{Outcome, during};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zfs_dmu::txg::Txgs;
use zfs_phys::enums::ObjsetType;
use zfs_spa::dslw::NewObjset;
use zfs_spa::{Error, Spa};
use zfs_zpl::write::{NewFilesystem, Writer, create_fs, open_log};
use zfs_zpl::{Allocate, CaseMode, MountOptions, NewFile, NodeId, RenameFlags, SetAttr, Vfs, XattrMode, Zfs};

/// The extended attribute that operations set.
pub const XATTR: &[u8] = b"user.test";

/// An open pool.
pub struct Live {
    /// The pool.
    pub spa: Arc<Spa>,
    mounts: BTreeMap<String, Arc<Vfs>>,
    /// For each operation, a txg with which it is on disk for certain.
    txgs: Vec<u64>,
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The node of a path.
pub fn walk(vfs: &Vfs, path: &str) -> zfs_spa::Result<NodeId> {
    path.split('/')
        .filter(|p| !p.is_empty())
        .try_fold(vfs.root(), |dir, name| vfs.lookup(dir, name.as_bytes(), CaseMode::Dataset))
}

fn gone() -> Error {
    Error::not_found("looking for a dataset")
}

impl Live {
    /// Imports the machine's pool for writing and mounts everything.
    ///
    /// # Errors
    /// When anything of that fails.
    pub fn open(machine: &Machine) -> Outcome<Self> {
        let pool = machine.import(true)?;
        let spa = Spa::open(&pool, HOST, machine.sim.clock()).map_err(during("opening for writing"))?;
        // Real time decides nothing here.
        spa.txgs().set_timeout(Duration::from_secs(86_400));
        // A resilver beside what the test does would make every run another.
        spa.wait_scan();
        let mut live = Self { spa, mounts: BTreeMap::new(), txgs: Vec::new() };
        let datasets = pool.dsl().and_then(|d| d.filesystems()).map_err(during("listing file systems"))?;
        for dataset in datasets.iter().filter(|d| !d.is_snapshot()) {
            let name = dataset.name.split_once('/').map_or("", |(_, rest)| rest);
            live.mount(machine, name).map_err(during(format!("mounting '{name}'")))?;
        }
        Ok(live)
    }

    /// The mounts by name.
    pub fn mounts(&self) -> &BTreeMap<String, Arc<Vfs>> {
        &self.mounts
    }

    fn mount(&mut self, machine: &Machine, name: &str) -> zfs_spa::Result<()> {
        let state = self.spa.dsl().find(name)?.ok_or_else(gone)?;
        let objset = self.spa.dsl().open_objset(&state)?;
        let log = open_log(&objset, self.spa.txgs())?;
        let writer = Writer::new(self.spa.txgs().clone(), machine.sim.clock()).with_log(log);
        let zfs = Zfs::mount_writable(objset, MountOptions::default(), writer)?;
        zfs.drain_unlinked()?;
        self.mounts.insert(name.to_owned(), Arc::new(Vfs::new(zfs, None)));
        Ok(())
    }

    /// Unmounts what is going to be destroyed or rolled back.
    fn unmount(&mut self, name: &str) -> zfs_spa::Result<()> {
        self.mounts.remove(name);
        let state = self.spa.dsl().find(name)?.ok_or_else(gone)?;
        self.spa.dsl().abandon_log(&state)
    }

    /// Does one operation, and tells the model of it.
    ///
    /// # Errors
    /// What the operation failed with.
    pub fn run(&mut self, machine: &Machine, model: &mut Model, op: &Op) -> Outcome<()> {
        let number = model.ops();
        // The state comes before the mark that allows it.
        let next = ops::apply(model.now(), op, model.next_file);
        let id = if let Op::Fsync { fs, path } = op { next.heads[fs].file(path) } else { None };
        model.states.push(Arc::new(next));
        model.next_file += 1;
        self.mark(machine, model);
        self.perform(machine, op).map_err(during(format!("operation {number}, {op:?}")))?;
        self.txgs.push(self.spa.txgs().open_txg());
        if let (Op::Fsync { fs, .. }, Some(id)) = (op, id) {
            model.fsyncs.push(Fsync { events: machine.sim.events(), op: number + 1, fs: fs.clone(), id });
        }
        self.mark(machine, model);
        Ok(())
    }

    fn mark(&self, machine: &Machine, model: &mut Model) {
        let on_disk = self.spa.txgs().synced_txg();
        let synced = self.txgs.iter().take_while(|t| **t <= on_disk).count();
        // Read last: what is on disk was so when there were at most as many events.
        let events = machine.sim.events();
        model.marks.push(Mark { events, begun: model.ops(), synced });
    }

    fn perform(&mut self, machine: &Machine, op: &Op) -> zfs_spa::Result<()> {
        match op {
            Op::Kick => {
                self.spa.txgs().kick();
                Ok(())
            }
            Op::Sync => self.spa.txgs().wait_synced(0),
            Op::NewFs { name } => {
                self.new_fs(machine, name)?;
                self.mount(machine, name)
            }
            Op::Snapshot { fs, snap } => {
                let (fs, snap) = (fs.clone(), snap.clone());
                self.spa.sync_task("snapshot", move |ctx| {
                    let head = ctx.dsl().find(&fs)?.ok_or_else(gone)?;
                    ctx.dsl().snapshot(ctx.tx, &head, &snap, ctx.spa.ops().now().0).map(drop)
                })
            }
            Op::DestroySnap { fs, snap } => {
                let (full, snap) = (format!("{fs}@{snap}"), snap.clone());
                self.spa.sync_task("destroy", move |ctx| {
                    let found = ctx.dsl().find(&full)?.ok_or_else(gone)?;
                    ctx.dsl().destroy_snapshot(ctx.tx, &found, &snap, false)
                })
            }
            Op::Clone { name, origin } => {
                let (path, origin) = (name.clone(), origin.clone());
                self.spa.sync_task("clone", move |ctx| ctx.dsl().clone_of(ctx.tx, &path, &origin).map(drop))?;
                self.mount(machine, name)
            }
            Op::Rollback { fs } => {
                self.unmount(fs)?;
                self.spa.txgs().wait_synced(0)?;
                let path = fs.clone();
                self.spa.sync_task("rollback", move |ctx| {
                    let head = ctx.dsl().find(&path)?.ok_or_else(gone)?;
                    ctx.dsl().rollback(ctx.tx, &head)
                })?;
                self.mount(machine, fs)
            }
            Op::DestroyFs { name } => {
                self.unmount(name)?;
                self.spa.txgs().wait_synced(0)?;
                let path = name.clone();
                self.spa.sync_task("destroy", move |ctx| {
                    let head = ctx.dsl().find(&path)?.ok_or_else(gone)?;
                    ctx.dsl().destroy_head(ctx.tx, &head, &path)
                })
            }
            _ => self.perform_on_files(op),
        }
    }

    fn new_fs(&self, machine: &Machine, name: &str) -> zfs_spa::Result<()> {
        let (path, txgs): (String, Arc<Txgs>) = (name.to_owned(), self.spa.txgs().clone());
        let clock = machine.sim.clock();
        self.spa.sync_task("create", move |ctx| {
            let new = NewFilesystem { sums: ctx.dsl().new_sums(), ..NewFilesystem::default() };
            let mut init =
                |objset: &Arc<_>, tx: &_| create_fs(objset, tx, Writer::new(txgs.clone(), clock.clone()), &new);
            let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
            ctx.dsl().create(ctx.tx, &path, new).map(drop)
        })
    }

    fn perform_on_files(&self, op: &Op) -> zfs_spa::Result<()> {
        let make = |fs: &str, path: &str, mode: u32, target: &str| {
            let vfs = self.mounted(fs)?;
            let (dir, name) = split(path);
            let new = NewFile { mode, target: target.as_bytes(), ..NewFile::default() };
            vfs.create(walk(vfs, dir)?, name.as_bytes(), &new).map(drop)
        };
        let at = |fs: &str, path: &str| {
            let vfs = self.mounted(fs)?;
            Ok::<_, Error>((vfs, walk(vfs, path)?))
        };
        let above = |fs: &str, path: &str| at(fs, split(path).0);
        match op {
            Op::Create { fs, path } => make(fs, path, 0o100_644, ""),
            Op::Mkdir { fs, path } => make(fs, path, 0o040_755, ""),
            Op::Symlink { fs, path, target } => make(fs, path, 0o120_777, target),
            Op::Link { fs, from, to } => {
                let ((vfs, node), (_, dir)) = (at(fs, from)?, above(fs, to)?);
                vfs.link(node, dir, split(to).1.as_bytes())
            }
            Op::Write { fs, path, offset, len, seed } => {
                let (vfs, node) = at(fs, path)?;
                vfs.write(node, *offset, &ops::contents(*seed, *len), false, true).map(drop)
            }
            Op::Truncate { fs, path, size } => {
                let (vfs, node) = at(fs, path)?;
                vfs.setattr(node, &SetAttr { size: Some(*size), ..SetAttr::default() })
            }
            Op::Punch { fs, path, offset, len } => {
                let (vfs, node) = at(fs, path)?;
                vfs.allocate(node, *offset, *len, Allocate::PunchHole)
            }
            Op::Chmod { fs, path, mode } => {
                let (vfs, node) = at(fs, path)?;
                vfs.setattr(node, &SetAttr { mode: Some(*mode), ..SetAttr::default() })
            }
            Op::Xattr { fs, path, value } => {
                let (vfs, node) = at(fs, path)?;
                match vfs.setxattr(node, XATTR, value.as_deref(), XattrMode::Any, true) {
                    // It had none.
                    Err(e) if value.is_none() && e.kind() == zfs_spa::ErrorKind::NoData => Ok(()),
                    other => other,
                }
            }
            Op::Rename { fs, from, to } => {
                let ((vfs, old), (_, new)) = (above(fs, from)?, above(fs, to)?);
                vfs.rename(old, split(from).1.as_bytes(), new, split(to).1.as_bytes(), RenameFlags::Replace)
            }
            Op::Remove { fs, path } | Op::Rmdir { fs, path } => {
                let (vfs, dir) = above(fs, path)?;
                vfs.remove(dir, split(path).1.as_bytes(), matches!(op, Op::Rmdir { .. }))
            }
            Op::Fsync { fs, path } => {
                let (vfs, node) = at(fs, path)?;
                vfs.sync(node)
            }
            _ => Ok(()),
        }
    }

    fn mounted(&self, fs: &str) -> zfs_spa::Result<&Arc<Vfs>> {
        self.mounts.get(fs).ok_or_else(gone)
    }

    /// Waits for txgs that are on their way: freeing what was destroyed closes txgs by itself.
    pub fn settle(&self) {
        let txgs = self.spa.txgs();
        while txgs.synced_txg() + 1 < txgs.open_txg() {
            // An error is found by the next operation.
            if txgs.wait_synced(txgs.open_txg() - 1).is_err() {
                return;
            }
        }
    }

    /// Brings everything to disk and exports the pool.
    ///
    /// # Errors
    /// When something did not get there.
    pub fn close(mut self) -> Outcome<()> {
        self.mounts.clear();
        let closed = self.spa.close(false).map_err(during("exporting"));
        self.wait_gone().and(closed)
    }

    /// Lets go of a pool whose machine has no power, and waits until nothing of it can reach the disks any more.
    ///
    /// # Errors
    /// When something holds on to it.
    pub fn abandon(mut self) -> Outcome<()> {
        self.mounts.clear();
        self.wait_gone()
    }

    /// The sync thread uses the pool only while it holds it; when nobody does, nothing can reach the disks any more.
    fn wait_gone(self) -> Outcome<()> {
        let spa = Arc::downgrade(&self.spa);
        drop(self);
        let deadline = Instant::now() + Duration::from_secs(60);
        while spa.strong_count() > 0 {
            if Instant::now() > deadline {
                return Err(format!("the pool is still held by {}", spa.strong_count()));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}
