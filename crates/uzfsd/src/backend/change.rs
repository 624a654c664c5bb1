//! Changing datasets: each request is one task in the sync of one txg, answered when that is on disk.

use super::import::pool_of;
use super::{Engine, Imported, failure};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uzfs_proto::{
    Caller, CloneSnapshotArgs, CreateDatasetArgs, CreateSnapshotsArgs, DatasetKind, DestroyDatasetsArgs, Empty,
    Failure, FailureCode, Raw, RenameDatasetArgs, RollbackArgs, SetPropertiesArgs,
};
use zfs_phys::dsl::DS_FLAG_CI_DATASET;
use zfs_phys::enums::ObjsetType;
use zfs_spa::dslw::{DatasetState, DslPool, Limit, NewObjset, NewValue};
use zfs_spa::sync::SyncCtx;
use zfs_spa::{Error, ErrorKind, Result as EngineResult, Spa};
use zfs_zpl::write::{NewFilesystem, Writer, create_fs, set_version};

/// How often a rollback waits for what its mount wrote at the very end.
const ROLLBACK_TRIES: u32 = 8;
/// Most snapshots destroyed in one txg.
const SNAPSHOTS_PER_TXG: usize = 200;
/// Version of the file systems that are made (`ZPL_VERSION`).
const ZPL_VERSION: u64 = 5;
/// Version from which on names have a form and may fold case (`ZPL_VERSION_NORMALIZATION`).
const ZPL_VERSION_NORMALIZATION: u64 = 3;
/// Version that a pool has to have for file systems of each version, from the first (`zfs_spa_version_map`).
const POOL_VERSIONS: [u64; 5] = [1, 1, 9, 15, 24];
/// What is said of pools that are too old.
const OUTDATED: &str = "pool and or dataset must be upgraded to set this property or value";
/// Properties that are stored in the file system itself, not in the dataset's table.
const OF_FILESYSTEM: [&str; 4] = ["normalization", "casesensitivity", "utf8only", "version"];

/// The part of a name behind the pool's.
pub(super) fn path_of(name: &str) -> String {
    let rest = name.strip_prefix(pool_of(name)).unwrap_or(name);
    rest.strip_prefix('/').unwrap_or(rest).to_owned()
}

pub(super) fn short(name: &str) -> String {
    name.rsplit('@').next().unwrap_or(name).to_owned()
}

fn value_of(raw: &Raw) -> NewValue {
    match (&raw.number, &raw.text) {
        (Some(n), _) => NewValue::Number(n.0),
        (None, Some(text)) => NewValue::Text(text.clone()),
        (None, None) => NewValue::Inherit,
    }
}

pub(super) fn found(dsl: &DslPool, path: &str) -> EngineResult<Arc<DatasetState>> {
    dsl.find(path)?.ok_or_else(|| Error::not_found("looking for a dataset"))
}

/// Whether limits on the number of datasets are for somebody: for everybody but root, who may lift them.
pub(super) fn is_limited(caller: &Caller) -> bool {
    caller.uid != 0
}

/// Fails when limits forbid `limited` callers another file system at `path`.
pub(super) fn check_limits(ctx: &SyncCtx<'_>, limited: bool, path: &str) -> EngineResult<()> {
    let parent = path.rsplit_once('/').map_or("", |(above, _)| above);
    if limited { ctx.dsl().check_limits(Limit::Filesystems, &[(parent, 1)]) } else { Ok(()) }
}

pub(super) type Values = Vec<(String, NewValue)>;

pub(super) fn set_all(ctx: &SyncCtx<'_>, ds: &Arc<DatasetState>, values: &Values) -> EngineResult<()> {
    ctx.dsl().check_values(values)?;
    values.iter().try_for_each(|(name, value)| ctx.dsl().set_prop(ctx.tx, ds, name, value))
}

/// Whether a value lies in the object set, where others may be writing at the same time.
fn is_inside(name: &str) -> bool {
    name == "volsize" || name.split_once('@').is_some_and(|(what, _)| what.ends_with("quota"))
}

/// Sets such a value, in a transaction like that of any other writer.
fn set_inside(spa: &Spa, path: &str, name: &str, value: &NewValue) -> EngineResult<()> {
    let NewValue::Number(number) = *value else { return Err(Error::invalid("inheriting what is not inherited")) };
    let ds = found(spa.dsl(), path)?;
    let tx = spa.txgs().assign()?;
    match name.split_once('@') {
        Some((what, who)) => spa.dsl().set_quota_of(&tx, &ds, what, who, number)?,
        None => zfs_zvol::set_size(&spa.dsl().open_objset(&ds)?, &tx, number)?,
    }
    let txg = tx.txg();
    drop(tx);
    spa.txgs().wait_synced(txg)
}

/// What goes into the dataset's table.
pub(super) fn values_of(properties: &BTreeMap<String, Raw>) -> Values {
    let stored = properties.iter().filter(|(name, _)| !OF_FILESYSTEM.contains(&name.as_str()));
    stored.map(|(name, raw)| (name.clone(), value_of(raw))).collect()
}

/// What goes into the file system itself.
pub(super) fn new_filesystem(properties: &BTreeMap<String, Raw>) -> NewFilesystem {
    NewFilesystem {
        utf8only: number(properties, "utf8only") != 0 || number(properties, "normalization") != 0,
        normalization: number(properties, "normalization"),
        case: number(properties, "casesensitivity"),
        // Root's, or that of the user whose own daemon this is and who could not write there otherwise.
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        sums: 0,
        version: number(properties, "version"),
    }
}

fn number(values: &BTreeMap<String, Raw>, name: &str) -> u64 {
    values.get(name).and_then(Raw::as_u64).unwrap_or(0)
}

/// Takes snapshots, all or none.
fn take_snapshots(ctx: &SyncCtx<'_>, paths: &[String], values: &Values, limited: bool) -> EngineResult<()> {
    // All are checked before the first is taken: a task that fails must not have changed anything.
    ctx.dsl().check_values(values)?;
    let mut heads = Vec::new();
    for path in paths {
        let (head, name) = path.split_once('@').ok_or_else(|| Error::invalid("a snapshot without a name"))?;
        let head = found(ctx.dsl(), head)?;
        ctx.dsl().check_snapshot(ctx.tx, &head, name)?;
        heads.push((head, name));
    }
    if limited {
        let more: Vec<(&str, u64)> = paths.iter().map(|p| (p.split('@').next().unwrap_or(p), 1)).collect();
        ctx.dsl().check_limits(Limit::Snapshots, &more)?;
    }
    let time = ctx.spa.ops().now().0;
    for (head, name) in heads {
        let snap = ctx.dsl().snapshot(ctx.tx, &head, name, time)?;
        set_all(ctx, &snap, values)?;
    }
    Ok(())
}

impl Imported {
    /// Gives up the intent log of a dataset that goes, or becomes what it was.
    fn abandon_log(&self, name: &str) -> Result<(), Failure> {
        let dsl = self.writer()?.dsl();
        let given_up = dsl.find(&path_of(name)).and_then(|ds| ds.map_or(Ok(()), |ds| dsl.abandon_log(&ds)));
        given_up.map_err(|e| failure::engine(&e).about(name))
    }

    /// Refuses what a dataset cannot be given, and drops what it has already. Gives the version that a file system is to
    /// get, if it is another.
    fn check_settable(&self, name: &str, values: &mut Values) -> Result<Option<u64>, Failure> {
        let mut version = None;
        let wrong = |text: String| Err(Failure::new(FailureCode::InvalidArgument, text).about(name));
        for (property, value) in &*values {
            match (property.as_str(), value) {
                ("version", NewValue::Number(new)) => {
                    let now = self.number_of(name, "version").unwrap_or(ZPL_VERSION);
                    if *new < now {
                        return wrong(format!("Can not downgrade; already at version {now}"));
                    }
                    if !self.can_have(*new)? {
                        return Err(Failure::new(FailureCode::NotSupported, OUTDATED).about(name));
                    }
                    version = Some(*new).filter(|new| *new > now);
                }
                ("keylocation", NewValue::Text(place)) if place != "none" => {
                    // Off is stored as 2; nothing is stored where nothing was ever encrypted.
                    if matches!(self.number_of(name, "encryption"), None | Some(0 | 2)) {
                        return wrong("keylocation must be 'none' for unencrypted datasets".into());
                    }
                }
                _ => {}
            }
        }
        values.retain(|(property, _)| property != "version");
        Ok(version)
    }

    /// Whether the pool is new enough for file systems of that version.
    fn can_have(&self, version: u64) -> Result<bool, Failure> {
        let needed = usize::try_from(version).ok().and_then(|v| POOL_VERSIONS.get(v.wrapping_sub(1)));
        let has = self.writer()?.uberblock().version;
        Ok(needed.is_some_and(|needed| *needed <= has))
    }

    /// Gives a file system a newer version, mounted or not.
    fn upgrade(&self, name: &str, version: u64) -> Result<(), Failure> {
        let about = |e: Error| failure::engine(&e).about(name);
        let spa = self.writer()?;
        let path = path_of(name);
        let objset = found(spa.dsl(), &path).and_then(|ds| spa.dsl().open_objset(&ds)).map_err(about)?;
        let tx = spa.txgs().assign().map_err(about)?;
        let old = set_version(&objset, &tx, version).map_err(about)?;
        let txg = tx.txg();
        drop(tx);
        spa.txgs().wait_synced(txg).map_err(about)?;
        self.task(name, "upgrade", move |ctx| {
            let text = format!("from {old} to {version}");
            ctx.dsl().log_of(ctx.tx, "upgrade", &*found(ctx.dsl(), &path)?, &text)
        })
    }

    /// Runs a task and waits for it.
    pub(super) fn task<T: Send + 'static>(
        &self,
        about: &str,
        name: &'static str,
        task: impl FnOnce(&SyncCtx<'_>) -> EngineResult<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let spa = self.writer()?;
        spa.sync_task(name, task).map_err(|e| failure::engine(&e).about(about))
    }
}

impl Engine {
    pub(super) fn writable(&self, name: &str) -> Result<Arc<Imported>, Failure> {
        let imported = self.pool(pool_of(name)).map_err(|_| failure::no_dataset(name))?;
        imported.writer()?;
        Ok(imported)
    }

    pub(super) fn create_dataset(&self, caller: &Caller, args: CreateDatasetArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.name)?;
        if number(&args.properties, "encryption") > 2 || number(&args.properties, "encryption") == 1 {
            let text = "making encrypted datasets is not supported yet by uzfs";
            return Err(Failure::new(FailureCode::NotSupported, text).about(args.name));
        }
        if args.kind == DatasetKind::Volume {
            return self.create_volume(caller, &args);
        }
        let filesystem = new_filesystem(&args.properties);
        let version = if filesystem.version == 0 { ZPL_VERSION } else { filesystem.version };
        let named = filesystem.utf8only || filesystem.case != 0;
        if !imported.can_have(version)? || (version < ZPL_VERSION_NORMALIZATION && named) {
            let text = "pool must be upgraded to set this property or value";
            return Err(Failure::new(FailureCode::NotSupported, text).about(args.name));
        }
        let txgs = imported.writer()?.txgs().clone();
        let values = values_of(&args.properties);
        let path = path_of(&args.name);
        let limited = is_limited(caller);
        imported.task(&args.name.clone(), "create", move |ctx| {
            ctx.dsl().check_values(&values)?;
            check_limits(ctx, limited, &path)?;
            let clock = Arc::new(zfs_env::SystemClock);
            let filesystem = NewFilesystem { sums: ctx.dsl().new_sums(), ..filesystem };
            let mut init =
                |objset: &Arc<_>, tx: &_| create_fs(objset, tx, Writer::new(txgs.clone(), clock.clone()), &filesystem);
            let flags = if filesystem.case == 1 { DS_FLAG_CI_DATASET } else { 0 };
            let new = NewObjset { kind: ObjsetType::Zfs, flags, init: &mut init };
            let ds = ctx.dsl().create(ctx.tx, &path, new)?;
            set_all(ctx, &ds, &values)
        })?;
        Ok(Empty {})
    }

    pub(super) fn clone_snapshot(&self, caller: &Caller, args: CloneSnapshotArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.name)?;
        if pool_of(&args.origin) != pool_of(&args.name) {
            let text = "source and target pools differ";
            return Err(Failure::new(FailureCode::InvalidArgument, text).about(args.name));
        }
        let (path, origin) = (path_of(&args.name), path_of(&args.origin));
        let values: Values = args.properties.iter().map(|(name, raw)| (name.clone(), value_of(raw))).collect();
        let limited = is_limited(caller);
        imported.task(&args.name, "clone", move |ctx| {
            ctx.dsl().check_values(&values)?;
            check_limits(ctx, limited, &path)?;
            let ds = ctx.dsl().clone_of(ctx.tx, &path, &origin)?;
            set_all(ctx, &ds, &values)
        })?;
        Ok(Empty {})
    }

    pub(super) fn destroy_datasets(&self, args: DestroyDatasetsArgs) -> Result<Empty, Failure> {
        let mut rest = args.names.as_slice();
        while let Some(name) = rest.first() {
            let imported = self.writable(name)?;
            // Snapshots in a row share a txg.
            let alike = |n: &&String| n.contains('@') && pool_of(n) == pool_of(name);
            let row = rest.iter().take_while(alike).count().clamp(1, SNAPSHOTS_PER_TXG);
            let (now, later) = rest.split_at(row);
            rest = later;
            if name.contains('@') {
                self.destroy_snapshots(&imported, now, &args)?;
            } else {
                self.destroy_one(&imported, name, args.force)?;
            }
        }
        Ok(Empty {})
    }

    fn destroy_snapshots(
        &self,
        imported: &Imported,
        names: &[String],
        args: &DestroyDatasetsArgs,
    ) -> Result<(), Failure> {
        for name in names {
            self.mounts.remove_all(args.force, |m| m.dataset == *name)?;
            self.withdraw(args.force, |served| served == name)?;
        }
        let (paths, defer) = (names.iter().map(|n| path_of(n)).collect::<Vec<_>>(), args.defer);
        // Each is destroyed or refused by itself, so that a refusal ends the row but not the task.
        let refused = imported.task(names.first().map_or("", String::as_str), "destroy", move |ctx| {
            use ErrorKind as K;
            for (at, path) in paths.iter().enumerate() {
                let done =
                    found(ctx.dsl(), path).and_then(|ds| ctx.dsl().destroy_snapshot(ctx.tx, &ds, &short(path), defer));
                match done {
                    Err(e) if matches!(e.kind(), K::NotFound | K::Busy | K::Exists) => return Ok(Some((at, e))),
                    other => other?,
                }
            }
            Ok(None)
        })?;
        match refused {
            Some((at, e)) => Err(failure::engine(&e).about(names.get(at).cloned().unwrap_or_default())),
            None => Ok(()),
        }
    }

    fn destroy_one(&self, imported: &Imported, name: &str, force: bool) -> Result<(), Failure> {
        let path = path_of(name);
        if let Some((head, mark)) = path.split_once('#').map(|(h, m)| (h.to_owned(), m.to_owned())) {
            return imported.task(name, "destroy", move |ctx| {
                ctx.dsl().destroy_bookmark(ctx.tx, &found(ctx.dsl(), &head)?, &head, &mark)
            });
        }
        self.mounts.remove_all(force, |m| m.dataset == name)?;
        self.withdraw(force, |served| served == name)?;
        imported.abandon_log(name)?;
        imported.task(name, "destroy", move |ctx| ctx.dsl().destroy_head(ctx.tx, &found(ctx.dsl(), &path)?, &path))
    }

    pub(super) fn create_snapshots(&self, caller: &Caller, args: CreateSnapshotsArgs) -> Result<Empty, Failure> {
        let Some(first) = args.names.first().cloned() else { return Ok(Empty {}) };
        let imported = self.writable(&first)?;
        if let Some(other) = args.names.iter().find(|n| pool_of(n) != pool_of(&first)) {
            let text = "snapshots of one request belong to one pool";
            return Err(Failure::new(FailureCode::InvalidArgument, text).about(other));
        }
        let heads: BTreeSet<&str> = args.names.iter().filter_map(|n| n.split('@').next()).collect();
        if heads.len() != args.names.len() {
            let text = "multiple snapshots of same fs not allowed";
            return Err(Failure::new(FailureCode::InvalidArgument, text).about(first));
        }
        let paths: Vec<String> = args.names.iter().map(|n| path_of(n)).collect();
        let values: Values = args.properties.into_iter().map(|(name, text)| (name, NewValue::Text(text))).collect();
        let wanted = Arc::new((paths, values));
        let limited = is_limited(caller);
        loop {
            let wanted = wanted.clone();
            let done = imported.task(&first, "snapshot", move |ctx| take_snapshots(ctx, &wanted.0, &wanted.1, limited));
            match done {
                // Another snapshot of one of them is of the same txg; there is one more after it.
                Err(f) if f.code == FailureCode::Busy => {}
                done => return done.map(|()| Empty {}),
            }
        }
    }

    pub(super) fn set_properties(&self, args: SetPropertiesArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.name)?;
        let mut values: Values = args.properties.iter().map(|(name, raw)| (name.clone(), value_of(raw))).collect();
        let gone = if args.to_received { NewValue::Received } else { NewValue::Inherit };
        values.extend(args.inherit.into_iter().map(|name| (name, gone.clone())));
        let version = imported.check_settable(&args.name, &mut values)?;
        self.check_space(&imported, &args.name, &mut values)?;
        let path = path_of(&args.name);
        let (inside, values): (Values, Values) = values.into_iter().partition(|(name, _)| is_inside(name));
        let spa = imported.writer()?;
        for (name, value) in &inside {
            set_inside(spa, &path, name, value).map_err(|e| failure::engine(&e).about(&args.name))?;
        }
        if let Some(version) = version {
            imported.upgrade(&args.name, version)?;
        }
        if values.is_empty() {
            return Ok(Empty {});
        }
        imported.task(&args.name, "set", move |ctx| {
            let ds = found(ctx.dsl(), &path)?;
            set_all(ctx, &ds, &values)
        })?;
        Ok(Empty {})
    }

    pub(super) fn rollback(self: &Arc<Self>, args: RollbackArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.snapshot)?;
        let head = args.snapshot.split('@').next().unwrap_or_default().to_owned();
        // What is mounted inside goes as well, and comes back whatever happens.
        let inside: Vec<_> = match self.mounts.of(&head) {
            Some(top) => self.mounts.list().into_iter().filter(|m| m.at.starts_with(&top.at)).collect(),
            None => Vec::new(),
        };
        let done = self
            .mounts
            .remove_all(args.force, |m| inside.iter().any(|i| i.dataset == m.dataset))
            .and_then(|()| self.behind_front_ends(&head, || self.roll_back(&imported, &head)));
        let back = self.bring_back(&inside);
        done?;
        back.map(|()| Empty {})
    }

    /// Mounts again what was mounted and is not any more.
    fn bring_back(self: &Arc<Self>, were: &[Arc<super::mounts::Mounted>]) -> Result<(), Failure> {
        let gone = were.iter().filter(|m| self.mounts.of(&m.dataset).is_none());
        let item = |m: &Arc<super::mounts::Mounted>| uzfs_proto::MountItem {
            dataset: m.dataset.clone(),
            mountpoint: m.at.to_string_lossy().into_owned(),
            options: m.options.clone(),
            overlay: true,
        };
        let items: Vec<_> = gone.map(item).collect();
        let reply = self.mount_all(&uzfs_proto::MountArgs { items, create: false });
        reply.results.into_iter().find_map(|r| r.failure).map_or(Ok(()), Err)
    }

    fn roll_back(&self, imported: &Imported, head: &str) -> Result<(), Failure> {
        imported.abandon_log(head)?;
        let spa: &Arc<Spa> = imported.writer()?;
        let mut left = ROLLBACK_TRIES;
        loop {
            // What the mount wrote last must not be in a txg that syncs after the task.
            spa.txgs().wait_synced(0).map_err(|e| failure::engine(&e).about(head))?;
            let path = path_of(head);
            let done = imported.task(head, "rollback", move |ctx| {
                let ds = found(ctx.dsl(), &path)?;
                ctx.dsl().rollback(ctx.tx, &ds)
            });
            left -= 1;
            match done {
                Err(f) if f.code == FailureCode::Busy && left > 0 => {}
                done => return done,
            }
        }
    }

    pub(super) fn rename_dataset(self: &Arc<Self>, caller: &Caller, args: RenameDatasetArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.from)?;
        if pool_of(&args.from) != pool_of(&args.to) {
            let text = "datasets must be within same pool";
            return Err(Failure::new(FailureCode::InvalidArgument, text).about(args.from));
        }
        let (from, to) = (path_of(&args.from), path_of(&args.to));
        if args.from.contains('@') {
            if args.from.split('@').next() != args.to.split('@').next() {
                let text = "snapshots must be part of same dataset";
                return Err(Failure::new(FailureCode::InvalidArgument, text).about(args.from));
            }
            let recursive = args.recursive;
            self.withdraw(args.force, |served| served == args.from)?;
            imported.task(&args.from, "rename", move |ctx| {
                let (of, from, to) = (from.split('@').next().unwrap_or(""), short(&from), short(&to));
                ctx.dsl().rename_snapshots(ctx.tx, of, &from, &to, recursive)
            })?;
            return Ok(Empty {});
        }
        let below = format!("{}/", args.from);
        let moves = |dataset: &str| dataset == args.from || dataset.starts_with(&below);
        let were: Vec<_> = self.mounts.list().into_iter().filter(|m| moves(&m.dataset)).collect();
        let limited = is_limited(caller);
        let done = self
            .mounts
            .remove_all(args.force, |m| moves(&m.dataset))
            .and_then(|()| self.withdraw(args.force, |s| moves(s.split('@').next().unwrap_or(s))))
            .and_then(|()| {
                imported.task(&args.from, "rename", move |ctx| {
                    if limited {
                        ctx.dsl().check_limits_of_move(&from, &to)?;
                    }
                    let missing = || Error::not_found("looking for a dataset");
                    let dir = ctx.dsl().find_dir(&from)?.ok_or_else(missing)?;
                    ctx.dsl().rename(ctx.tx, &dir, &from, &to)
                })
            });
        let done = done.map_err(|f| match f.code {
            FailureCode::PermissionDenied => {
                let text = "cannot move encrypted child outside of its encryption root";
                Failure::new(FailureCode::InvalidArgument, text).about(args.from.clone())
            }
            _ => f,
        });
        // A refused rename leaves everything mounted where it was; else the tools mount it in its new place.
        if done.is_err() {
            self.bring_back(&were)?;
        }
        done.map(|()| Empty {})
    }
}
