//! Changing datasets: each request is one task in the sync of one txg, answered when that is on disk.

use super::import::pool_of;
use super::{Engine, Imported, failure};
use std::collections::BTreeMap;
use std::sync::Arc;
use uzfs_proto::{
    CloneSnapshotArgs, CreateDatasetArgs, CreateSnapshotsArgs, DatasetKind, DestroyDatasetsArgs, Empty, Failure,
    FailureCode, Raw, RenameDatasetArgs, RollbackArgs, SetPropertiesArgs,
};
use zfs_phys::dsl::DS_FLAG_CI_DATASET;
use zfs_phys::enums::ObjsetType;
use zfs_spa::dslw::{DatasetState, DslPool, NewObjset, NewValue};
use zfs_spa::sync::SyncCtx;
use zfs_spa::{Error, ErrorKind, Result as EngineResult, Spa};
use zfs_zpl::write::{NewFilesystem, Writer, create_fs};

/// Properties that are stored in the file system itself, not in the dataset's table.
const OF_FILESYSTEM: [&str; 4] = ["normalization", "casesensitivity", "utf8only", "version"];

/// The part of a name behind the pool's.
fn path_of(name: &str) -> String {
    let rest = name.strip_prefix(pool_of(name)).unwrap_or(name);
    rest.strip_prefix('/').unwrap_or(rest).to_owned()
}

fn short(name: &str) -> String {
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

pub(super) type Values = Vec<(String, NewValue)>;

pub(super) fn set_all(ctx: &SyncCtx<'_>, ds: &Arc<DatasetState>, values: &Values) -> EngineResult<()> {
    values.iter().try_for_each(|(name, value)| ctx.dsl().set_prop(ctx.tx, ds, name, value))
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
        ..NewFilesystem::default()
    }
}

fn number(values: &BTreeMap<String, Raw>, name: &str) -> u64 {
    values.get(name).and_then(Raw::as_u64).unwrap_or(0)
}

impl Imported {
    /// Gives up the intent log of a dataset that goes, or becomes what it was.
    fn abandon_log(&self, name: &str) -> Result<(), Failure> {
        let dsl = self.writer()?.dsl();
        let given_up = dsl.find(&path_of(name)).and_then(|ds| ds.map_or(Ok(()), |ds| dsl.abandon_log(&ds)));
        given_up.map_err(|e| failure::engine(&e).about(name))
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
    fn writable(&self, name: &str) -> Result<Arc<Imported>, Failure> {
        let imported = self.pool(pool_of(name)).map_err(|_| failure::no_dataset(name))?;
        imported.writer()?;
        Ok(imported)
    }

    pub(super) fn create_dataset(&self, args: CreateDatasetArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.name)?;
        if args.kind != DatasetKind::Filesystem {
            let text = "making volumes is not supported yet by uzfs";
            return Err(Failure::new(FailureCode::NotSupported, text).about(args.name));
        }
        if number(&args.properties, "encryption") > 2 || number(&args.properties, "encryption") == 1 {
            let text = "making encrypted datasets is not supported yet by uzfs";
            return Err(Failure::new(FailureCode::NotSupported, text).about(args.name));
        }
        let txgs = imported.writer()?.txgs().clone();
        let filesystem = new_filesystem(&args.properties);
        let values = values_of(&args.properties);
        let path = path_of(&args.name);
        imported.task(&args.name.clone(), "create", move |ctx| {
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

    pub(super) fn clone_snapshot(&self, args: CloneSnapshotArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.name)?;
        if pool_of(&args.origin) != pool_of(&args.name) {
            let text = "source and target pools differ";
            return Err(Failure::new(FailureCode::InvalidArgument, text).about(args.name));
        }
        let (path, origin) = (path_of(&args.name), path_of(&args.origin));
        let values: Values = args.properties.iter().map(|(name, raw)| (name.clone(), value_of(raw))).collect();
        imported.task(&args.name, "clone", move |ctx| {
            let ds = ctx.dsl().clone_of(ctx.tx, &path, &origin)?;
            set_all(ctx, &ds, &values)
        })?;
        Ok(Empty {})
    }

    pub(super) fn destroy_datasets(&self, args: DestroyDatasetsArgs) -> Result<Empty, Failure> {
        for name in &args.names {
            let imported = self.writable(name)?;
            self.mounts.remove_all(args.force, |m| m.dataset == *name)?;
            let (path, defer) = (path_of(name), args.defer);
            let snapshot = name.contains('@').then(|| short(name));
            imported.abandon_log(name)?;
            imported.task(name, "destroy", move |ctx| {
                let ds = found(ctx.dsl(), &path)?;
                match snapshot {
                    Some(short) => ctx.dsl().destroy_snapshot(ctx.tx, &ds, &short, defer),
                    None => ctx.dsl().destroy_head(ctx.tx, &ds, &path),
                }
            })?;
        }
        Ok(Empty {})
    }

    pub(super) fn create_snapshots(&self, args: CreateSnapshotsArgs) -> Result<Empty, Failure> {
        let Some(first) = args.names.first().cloned() else { return Ok(Empty {}) };
        let imported = self.writable(&first)?;
        if let Some(other) = args.names.iter().find(|n| pool_of(n) != pool_of(&first)) {
            let text = "snapshots of one request belong to one pool";
            return Err(Failure::new(FailureCode::InvalidArgument, text).about(other));
        }
        let paths: Vec<String> = args.names.iter().map(|n| path_of(n)).collect();
        let values: Values = args.properties.into_iter().map(|(name, text)| (name, NewValue::Text(text))).collect();
        imported.task(&first, "snapshot", move |ctx| {
            // All are checked before the first is taken: a task that fails must not have changed anything.
            let mut heads = Vec::new();
            for path in &paths {
                let (head, _) = path.split_once('@').ok_or_else(|| Error::invalid("a snapshot without a name"))?;
                if ctx.dsl().find(path)?.is_some() {
                    return Err(Error::new(ErrorKind::Exists, "taking a snapshot"));
                }
                heads.push((found(ctx.dsl(), head)?, short(path)));
            }
            let time = ctx.spa.ops().now().0;
            for (head, name) in heads {
                let snap = ctx.dsl().snapshot(ctx.tx, &head, &name, time)?;
                set_all(ctx, &snap, &values)?;
            }
            Ok(())
        })?;
        Ok(Empty {})
    }

    pub(super) fn set_properties(&self, args: SetPropertiesArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.name)?;
        let mut values: Values = args.properties.iter().map(|(name, raw)| (name.clone(), value_of(raw))).collect();
        values.extend(args.inherit.into_iter().map(|name| (name, NewValue::Inherit)));
        let path = path_of(&args.name);
        imported.task(&args.name, "set", move |ctx| {
            let ds = found(ctx.dsl(), &path)?;
            set_all(ctx, &ds, &values)
        })?;
        Ok(Empty {})
    }

    pub(super) fn rollback(self: &Arc<Self>, args: RollbackArgs) -> Result<Empty, Failure> {
        let imported = self.writable(&args.snapshot)?;
        let head = args.snapshot.split('@').next().unwrap_or_default().to_owned();
        let mounted = self.mounts.of(&head);
        if let Some(m) = &mounted {
            self.mounts.remove(&m.dataset, args.force)?;
        }
        imported.abandon_log(&head)?;
        // What the mount wrote last must not be in a txg that syncs after the task.
        let spa: &Arc<Spa> = imported.writer()?;
        spa.txgs().wait_synced(0).map_err(|e| failure::engine(&e).about(&head))?;
        let path = path_of(&head);
        imported.task(&args.snapshot, "rollback", move |ctx| {
            let ds = found(ctx.dsl(), &path)?;
            ctx.dsl().rollback(ctx.tx, &ds)
        })?;
        if let Some(m) = mounted {
            let item = uzfs_proto::MountItem {
                dataset: m.dataset.clone(),
                mountpoint: m.at.to_string_lossy().into_owned(),
                options: m.options.clone(),
                overlay: true,
            };
            let reply = self.mount_all(&uzfs_proto::MountArgs { items: vec![item], create: false });
            if let Some(failure) = reply.results.into_iter().find_map(|r| r.failure) {
                return Err(failure);
            }
        }
        Ok(Empty {})
    }

    pub(super) fn rename_dataset(&self, args: RenameDatasetArgs) -> Result<Empty, Failure> {
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
            imported.task(&args.from, "rename", move |ctx| {
                let snap = found(ctx.dsl(), &from)?;
                ctx.dsl().rename_snapshot(ctx.tx, &snap, &short(&from), &short(&to))
            })?;
            return Ok(Empty {});
        }
        let below = format!("{}/", args.from);
        self.mounts.remove_all(args.force, |m| m.dataset == args.from || m.dataset.starts_with(&below))?;
        imported.task(&args.from, "rename", move |ctx| {
            let missing = || Error::not_found("looking for a dataset");
            let dir = ctx.dsl().find_dir(&from)?.ok_or_else(missing)?;
            ctx.dsl().rename(ctx.tx, &dir, &from, &to)
        })?;
        Ok(Empty {})
    }
}
