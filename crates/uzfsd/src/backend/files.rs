//! From a dataset's name to a served mount: properties become mount options, snapshots become `.zfs`.

use super::mounts::Request;
use super::{Engine, Imported, failure};
use std::path::PathBuf;
use std::sync::Arc;
use uzfs_fuse::{MountConfig, Vfs};
use uzfs_proto::{Empty, Failure, FailureCode, ItemResult, ItemResults, MountArgs, MountItem, UnmountArgs};
use zfs_spa::{Dataset, DatasetKind};
use zfs_zpl::write::{Writer, open_log};
use zfs_zpl::{AclType, Atime, ControlDir, MountOptions, SnapshotEntry, SpaceFigures, Time, Zfs};

/// Mount options that stand for a property's value, in both spellings.
const OPTIONS: [(&str, &str, u64); 18] = [
    ("ro", "readonly", 1),
    ("rw", "readonly", 0),
    ("devices", "devices", 1),
    ("dev", "devices", 1),
    ("nodevices", "devices", 0),
    ("nodev", "devices", 0),
    ("setuid", "setuid", 1),
    ("suid", "setuid", 1),
    ("nosetuid", "setuid", 0),
    ("nosuid", "setuid", 0),
    ("exec", "exec", 1),
    ("noexec", "exec", 0),
    ("xattr", "xattr", 2),
    ("noxattr", "xattr", 0),
    ("atime", "atime", 1),
    ("noatime", "atime", 0),
    ("relatime", "relatime", 1),
    ("norelatime", "relatime", 0),
];

/// What a mount serves otherwise than the dataset's properties say, or as they say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    xattr: u64,
    atime: Atime,
}

impl Chosen {
    /// From values of `xattr`, `atime` and `relatime`.
    pub(super) fn new(xattr: u64, atime: u64, relatime: u64) -> Self {
        let atime = match (atime, relatime) {
            (0, _) => Atime::Off,
            (_, 0) => Atime::On,
            _ => Atime::Relative,
        };
        Self { xattr, atime }
    }

    /// As the properties say.
    pub(super) fn stored(dataset: &Dataset) -> Result<Self, Failure> {
        Ok(Self::new(number(dataset, "xattr", 2)?, number(dataset, "atime", 1)?, number(dataset, "relatime", 1)?))
    }
}

/// A dataset as it is now, where the pool is written.
trait Now {
    /// The same dataset in the newest view; itself where nothing changes.
    fn now(&self, imported: &Imported) -> zfs_spa::Result<Arc<Dataset>>;
}

impl Now for Arc<Dataset> {
    fn now(&self, imported: &Imported) -> zfs_spa::Result<Arc<Dataset>> {
        if imported.spa.is_none() {
            return Ok(self.clone());
        }
        let gone = || zfs_spa::Error::new(zfs_spa::ErrorKind::Stale, "looking at a dataset that is gone");
        imported.view().dsl()?.by_object(self.object)?.ok_or_else(gone)
    }
}

pub(super) fn number(dataset: &Dataset, name: &str, default: u64) -> Result<u64, Failure> {
    let found = dataset.prop(name, true).map_err(|e| failure::engine(&e))?;
    Ok(found.and_then(|(v, _)| v.number()).unwrap_or(default))
}

impl Engine {
    fn zfs_options(
        &self,
        imported: &Arc<Imported>,
        dataset: &Arc<Dataset>,
        chosen: Chosen,
    ) -> Result<MountOptions, Failure> {
        let (engine, of) = (self.space_of(imported), dataset.clone());
        Ok(MountOptions {
            snapdir_visible: number(dataset, "snapdir", 0)? == 1,
            acltype: match number(dataset, "acltype", 0)? {
                1 => AclType::Posix,
                2 => AclType::Nfs4,
                _ => AclType::Off,
            },
            atime: chosen.atime,
            xattr: chosen.xattr != 0,
            xattr_sa: chosen.xattr == 2,
            recordsize: u32::try_from(number(dataset, "recordsize", 128 << 10)?).unwrap_or(128 << 10),
            longname: number(dataset, "longname", 0)? != 0,
            snapshot: dataset.is_snapshot(),
            space: Arc::new(move || engine(&of)),
            ..MountOptions::default()
        })
    }

    /// A closure that tells `statfs` figures of datasets of a pool.
    fn space_of(&self, imported: &Arc<Imported>) -> impl Fn(&Arc<Dataset>) -> SpaceFigures + Send + Sync + use<> {
        let imported = imported.clone();
        move |dataset: &Arc<Dataset>| {
            let now = dataset.now(&imported);
            now.and_then(|dataset| imported.space(&dataset)).unwrap_or_default()
        }
    }

    /// Opens a file system or snapshot; for changing when `writable` is set, the pool is written and nothing about the
    /// dataset forbids it.
    fn open_zfs(
        &self,
        imported: &Arc<Imported>,
        dataset: &Arc<Dataset>,
        chosen: Chosen,
        writable: bool,
    ) -> Result<Arc<Zfs>, Failure> {
        let about = |f: Failure| f.about(dataset.name.clone());
        let locked = dataset.is_encrypted().map_err(|e| about(failure::engine(&e)))?;
        if let (Some(spa), true, false) = (&imported.spa, writable && !dataset.is_snapshot(), locked) {
            let wrong = |e: zfs_spa::Error| about(failure::engine(&e));
            let state = spa.dsl().dataset(dataset.object).map_err(wrong)?;
            let objset = spa.dsl().open_objset(&state).map_err(wrong)?;
            let options = self.zfs_options(imported, dataset, chosen)?;
            let log = open_log(&objset, spa.txgs()).map_err(wrong)?;
            let writer = Writer::new(spa.txgs().clone(), Arc::new(zfs_env::SystemClock)).with_log(log);
            let zfs = Zfs::mount_writable(objset, options, writer).map_err(wrong)?;
            zfs.drain_unlinked().map_err(wrong)?;
            return Ok(zfs);
        }
        let key = imported.key_of(dataset).map_err(about)?;
        let objset = dataset.open_objset(key).map_err(|e| about(failure::engine(&e)))?;
        let options = self.zfs_options(imported, dataset, chosen)?;
        Zfs::mount(objset, options).map_err(|e| about(failure::engine(&e)))
    }

    fn control_dir(self: &Arc<Self>, imported: &Arc<Imported>, dataset: &Arc<Dataset>, chosen: Chosen) -> ControlDir {
        let (engine, pool, head) = (Arc::downgrade(self), imported.clone(), dataset.clone());
        let (listed, lister) = (dataset.clone(), imported.clone());
        let changed = dataset.phys.creation_time;
        ControlDir {
            list: Box::new(move || {
                let all = listed.now(&lister)?.snapshot_objects()?;
                Ok(all.into_iter().map(|(name, objset)| SnapshotEntry { name, objset }).collect())
            }),
            open: Box::new(move |entry| {
                let gone = || zfs_spa::Error::new(zfs_spa::ErrorKind::Stale, "opening a snapshot");
                let engine = engine.upgrade().ok_or_else(gone)?;
                let snapshot = head.now(&pool)?.snapshot(&entry.name)?.ok_or_else(gone)?;
                engine
                    .open_zfs(&pool, &snapshot, chosen, false)
                    .map_err(|f| zfs_spa::Error::new(zfs_spa::ErrorKind::Io, format!("opening {}: {f}", snapshot.name)))
            }),
            on_enter: None,
            changed: Time { sec: i64::try_from(changed).unwrap_or(0), nsec: 0 },
        }
    }

    /// A served tree of a file system or snapshot.
    pub(super) fn vfs(
        self: &Arc<Self>,
        imported: &Arc<Imported>,
        dataset: &Arc<Dataset>,
        chosen: Chosen,
        writable: bool,
    ) -> Result<Arc<Vfs>, Failure> {
        let root = self.open_zfs(imported, dataset, chosen, writable)?;
        // `snapdir=disabled` leaves no way into the snapshots.
        let control = !dataset.is_snapshot() && number(dataset, "snapdir", 0)? != 2;
        Ok(Arc::new(Vfs::new(root, control.then(|| self.control_dir(imported, dataset, chosen)))))
    }

    fn mount_one(self: &Arc<Self>, item: &MountItem, args: &MountArgs) -> Result<(), Failure> {
        let (imported, dataset) = self.dataset(&item.dataset)?;
        let volume = zfs_phys::enums::ObjsetType::Zvol;
        let is_volume = dataset.objset_type().map_err(|e| failure::engine(&e))? == volume;
        if is_volume || dataset.kind().map_err(|e| failure::engine(&e))? == DatasetKind::Volume {
            let text = "operation not applicable to datasets of this type";
            return Err(Failure::new(FailureCode::WrongKind, text).about(item.dataset.clone()));
        }
        let option = |name: &str| {
            let found = item.options.iter().rev().find_map(|o| OPTIONS.iter().find(|w| w.0 == o && w.1 == name));
            found.map(|w| (w.1, w.2))
        };
        let mut temporary: Vec<(&'static str, u64)> = Vec::new();
        let mut in_force = |name: &'static str, default: u64| {
            let stored = number(&dataset, name, default)?;
            Ok::<_, Failure>(match option(name) {
                Some((_, v)) => {
                    if (v != 0) != (stored != 0) {
                        temporary.push((name, v));
                    }
                    v
                }
                None => stored,
            })
        };
        let mut config = MountConfig::new(item.dataset.clone());
        config.spec.devices &= in_force("devices", 1)? != 0;
        config.spec.setuid &= in_force("setuid", 1)? != 0;
        config.spec.exec &= in_force("exec", 1)? != 0;
        let chosen = Chosen::new(in_force("xattr", 2)?, in_force("atime", 1)?, in_force("relatime", 1)?);
        let asked = in_force("readonly", 0)? != 0;
        let encrypted = dataset.is_encrypted().map_err(|e| failure::engine(&e))?;
        let writable = imported.spa.is_some() && !asked && !encrypted && !dataset.is_snapshot();
        if !writable && !asked {
            // The pool is read-only, or the dataset cannot be changed yet.
            temporary.retain(|t| t.0 != "readonly");
            temporary.push(("readonly", 1));
        }
        let spec = &config.spec;
        let shown = [
            ("nodev", !spec.devices),
            ("nosuid", !spec.setuid),
            ("noexec", !spec.exec),
            ("noxattr", chosen.xattr == 0),
        ];
        let options = [if writable { "rw" } else { "ro" }]
            .into_iter()
            .chain(shown.into_iter().filter(|o| o.1).map(|o| o.0))
            .map(str::to_owned)
            .collect();
        let request = Request {
            dataset: item.dataset.clone(),
            at: PathBuf::from(&item.mountpoint),
            options,
            temporary,
            config,
            overlay: item.overlay,
            create: args.create,
        };
        let add = || self.mounts.add(request, || self.vfs(&imported, &dataset, chosen, writable));
        if writable { self.unless_served(&item.dataset, add) } else { add() }
    }

    pub(super) fn mount_all(self: &Arc<Self>, args: &MountArgs) -> ItemResults {
        let one = |item: &MountItem| {
            let failure = self.mount_one(item, args).err();
            ItemResult { subject: item.dataset.clone(), failure }
        };
        ItemResults { results: args.items.iter().map(one).collect() }
    }

    /// Gives back the intent log of a dataset that was unmounted. One that stays is closed with the pool.
    pub(super) fn close_log(&self, name: &str) {
        let Ok((imported, dataset)) = self.dataset(name) else { return };
        if let Some(spa) = imported.spa.as_ref().filter(|_| !dataset.is_snapshot()) {
            let closed = spa.dsl().dataset(dataset.object).and_then(|ds| spa.dsl().close_log(&ds));
            if let Err(e) = closed {
                tracing::warn!("closing the intent log of {name}: {e}");
            }
        }
    }

    pub(super) fn unmount_all(&self, args: &UnmountArgs) -> ItemResults {
        let one = |target: &String| {
            let done =
                self.mounts.remove(target, args.force).inspect(|dataset| self.close_log(dataset)).and_then(|dataset| {
                    if args.unload_keys { self.unload_after_unmount(&dataset) } else { Ok(Empty {}) }
                });
            ItemResult { subject: target.clone(), failure: done.err() }
        };
        ItemResults { results: args.targets.iter().map(one).collect() }
    }
}
