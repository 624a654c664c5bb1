//! Making, destroying and changing pools.

use super::change::{found, new_filesystem, set_all, values_of};
use super::import::pool_of;
use super::poolprops::{self, When};
use super::{Engine, Imported, failure};
use std::path::Path;
use std::sync::Arc;
use uzfs_proto::{
    ChangeGuidArgs, ClearLabelArgs, CreatePoolArgs, DestroyPoolArgs, Empty, Failure, FailureCode,
    SetPoolPropertiesArgs, SyncPoolsArgs, UpgradePoolArgs, UpgradePoolReply, VdevSpec,
};
use zfs_dmu::txg::Txgs;
use zfs_env::{FileDevice, Rng, SystemRng};
use zfs_phys::NvList;
use zfs_phys::feature::Feature;
use zfs_spa::dslw::sums_with;
use zfs_spa::labels::{self, DeviceLabels};
use zfs_spa::{Auxiliaries, CreateOptions, NewVdev, PoolValue};
use zfs_zio::alloc::Class;
use zfs_zpl::write::{NewFilesystem, Writer, create_fs};

/// Vdevs asked for, with their devices open.
#[derive(Default)]
pub(super) struct NewVdevs {
    pub(super) vdevs: Vec<(Class, NewVdev)>,
    pub(super) auxiliaries: Auxiliaries,
    pub(super) paths: Vec<String>,
}

/// What is said of devices that are in use already.
const TWICE: &str = "one or more vdevs refer to the same device, or one of\n\
                     the devices is part of an active md or lvm device";

fn wrong(text: impl Into<String>) -> Failure {
    Failure::new(FailureCode::BadDevice, text.into())
}

/// The numbers of `draid2:4d:9c:1s`: parity, data, spares.
fn draid(kind: &str) -> Option<(u64, u64, u64)> {
    let mut parts = kind.strip_prefix("draid")?.split(':');
    let nparity = parts.next()?.parse().ok()?;
    let (mut ndata, mut nspares) = (None, 0);
    for part in parts {
        let (number, unit) = part.split_at_checked(part.len().checked_sub(1)?)?;
        let number: u64 = number.parse().ok()?;
        match unit {
            "d" => ndata = Some(number),
            "s" => nspares = number,
            _ => {}
        }
    }
    Some((nparity, ndata?, nspares))
}

impl NewVdevs {
    /// Opens all devices for writing.
    pub(super) fn open(specs: &[VdevSpec]) -> Result<Self, Failure> {
        let mut out = Self::default();
        for spec in specs {
            if spec.kind == "dspare" || spec.children.iter().any(|c| c.kind == "dspare") {
                return Err(wrong(TWICE));
            }
            let vdev = out.vdev(spec)?;
            match spec.class.as_str() {
                "" => out.vdevs.push((Class::Normal, vdev)),
                "log" => out.vdevs.push((Class::Log, vdev)),
                "special" => out.vdevs.push((Class::Special, vdev)),
                "dedup" => out.vdevs.push((Class::Dedup, vdev)),
                "spare" => out.auxiliaries.spares.push(vdev),
                "cache" => out.auxiliaries.caches.push(vdev),
                other => return Err(wrong(format!("no devices are for '{other}'"))),
            }
        }
        Ok(out)
    }

    pub(super) fn vdev(&mut self, spec: &VdevSpec) -> Result<NewVdev, Failure> {
        if let "file" | "disk" = spec.kind.as_str() {
            let path = spec.path.clone().ok_or_else(|| wrong("a device without a path"))?;
            if self.paths.contains(&path) {
                return Err(wrong(TWICE));
            }
            let device = FileDevice::open_read_write(&path).map_err(|e| wrong(format!("{path}: {e}")))?;
            self.paths.push(path.clone());
            return Ok(NewVdev::Leaf { path, device: Arc::new(device), disk: spec.kind == "disk" });
        }
        if spec.kind == "dspare" {
            let name = spec.path.clone().ok_or_else(|| wrong("a distributed spare without a name"))?;
            return Ok(NewVdev::DistributedSpare(name));
        }
        let children = spec.children.iter().map(|c| self.vdev(c)).collect::<Result<Vec<_>, _>>()?;
        match spec.kind.as_str() {
            "mirror" => Ok(NewVdev::Mirror(children)),
            "raidz1" => Ok(NewVdev::Raidz { nparity: 1, children }),
            "raidz2" => Ok(NewVdev::Raidz { nparity: 2, children }),
            "raidz3" => Ok(NewVdev::Raidz { nparity: 3, children }),
            other => match draid(other) {
                Some((nparity, ndata, nspares)) => Ok(NewVdev::Draid { nparity, ndata, nspares, children }),
                None => Err(wrong(format!("no vdev is a '{other}'"))),
            },
        }
    }
}

/// Whom a device belongs to.
pub(super) struct Owner {
    /// `active`, `exported`, `potentially active`, or nothing for spares and caches of an imported pool.
    state: &'static str,
    pool: String,
}

impl Engine {
    /// Whom a device belongs to by its labels; nothing for free ones and those of destroyed pools.
    fn owner(&self, path: &str) -> Option<Owner> {
        let device = FileDevice::open_read_only(path).ok()?;
        let labels = DeviceLabels::read(&device);
        let label: &NvList = labels.best()?;
        let state = label.u64("state")?;
        if matches!(state, labels::state::SPARE | labels::state::L2CACHE) {
            let guid = label.u64("guid");
            let has = |lists: &[NvList]| lists.iter().any(|l| l.u64("guid") == guid);
            let pools = self.pools.read();
            let used = pools.values().find(|p| {
                let view = p.view();
                has(view.spares()) || has(view.l2cache())
            });
            return used.map(|p| Owner { state: "", pool: p.pool.name().to_string() });
        }
        let (pool, guid) = (label.str("name")?.to_owned(), label.u64("pool_guid")?);
        // A device that is only being added has a label of txg 0.
        if label.u64("txg").unwrap_or(0) == 0 {
            return None;
        }
        let active = self.pools.read().values().any(|p| p.view().guid() == guid);
        let state = match state {
            labels::state::DESTROYED => return None,
            _ if active => "active",
            labels::state::EXPORTED => "exported",
            _ => "potentially active",
        };
        Some(Owner { state, pool })
    }

    /// Refuses devices that belong to a pool; with `force` only those of an imported one. The details of the failure are
    /// the sentences about each.
    pub(super) fn check_in_use(&self, specs: &[VdevSpec], force: bool) -> Result<(), Failure> {
        let mut sentences = Vec::new();
        let leaves = specs.iter().flat_map(|s| std::iter::once(s).chain(&s.children).map(move |l| (s, l)));
        for (top, path) in leaves.filter_map(|(top, leaf)| Some((top, leaf.path.as_ref()?))) {
            let Some(owner) = self.owner(path) else { continue };
            match owner.state {
                // Hot spares may be shared between pools.
                "" if top.class == "spare" => {}
                "" => sentences.push(format!("{path} is reserved as a hot spare for pool {}", owner.pool)),
                "active" => sentences.push(format!("{path} is part of active pool '{}'", owner.pool)),
                state if !force => sentences.push(format!("{path} is part of {state} pool '{}'", owner.pool)),
                _ => {}
            }
        }
        if sentences.is_empty() {
            return Ok(());
        }
        Err(Failure::new(FailureCode::DeviceInUse, "one or more devices are already in use").with_details(sentences))
    }

    pub(super) fn create_pool(&self, args: CreatePoolArgs) -> Result<Empty, Failure> {
        let about = |f: Failure| f.about(&args.name);
        let _one = self.importing.lock();
        let now = args.temporary_name.as_ref().unwrap_or(&args.name);
        self.check_in_use(&args.vdevs, args.force).map_err(about)?;
        if self.pools.read().contains_key(now) {
            return Err(about(Failure::new(FailureCode::PoolExists, "pool already exists")));
        }
        let props = poolprops::parse(&args.properties, When::Create).map_err(about)?;
        let new = NewVdevs::open(&args.vdevs).map_err(about)?;
        let mut options = CreateOptions::new(&args.name, new.vdevs, self.arc.clone());
        options.auxiliaries = new.auxiliaries;
        options.tasks = Some(self.tasks.clone());
        options.force = true;
        options.ashift = props.stored.iter().find_map(|(name, value)| match value {
            PoolValue::Number(n) if name == "ashift" => Some(*n),
            _ => None,
        });
        options.properties.clone_from(&props.stored);
        options.features = poolprops::wanted_features(&props.features, args.no_features);
        let plain = || format!("zpool create {}", args.name);
        options.command = Some(args.command.clone().unwrap_or_else(plain));
        let (txgs, clock) = (Txgs::new(1), Arc::new(zfs_env::SystemClock));
        let wanted = options.features.clone().unwrap_or_else(zfs_spa::sync::create::usual_features);
        let sums = sums_with(|feature| wanted.contains(&feature));
        let filesystem = NewFilesystem { sums, ..new_filesystem(&args.dataset_properties) };
        let mut init =
            |objset: &Arc<_>, tx: &_| create_fs(objset, tx, Writer::new(txgs.clone(), clock.clone()), &filesystem);
        zfs_spa::create(&options, &mut init).map_err(|e| about(failure::create(&e)))?;
        // The devices are closed and opened again by the same way that any pool is imported.
        drop(options);
        self.open_new(&args, props.altroot, new.paths).map_err(about)?;
        self.set_cachefile(&self.pool(now)?, props.cachefile);
        Ok(Empty {})
    }

    /// Imports a pool that was just made, and gives its file system the properties asked for.
    fn open_new(&self, args: &CreatePoolArgs, altroot: Option<String>, paths: Vec<String>) -> Result<(), Failure> {
        let search = uzfs_proto::Search { paths, ..uzfs_proto::Search::default() };
        let made = self.find(&search)?.into_iter().find(|c| c.name == args.name);
        let candidate = made.ok_or_else(|| failure::no_pool(&args.name))?;
        let options = zfs_spa::ImportOptions {
            name: args.temporary_name.clone(),
            temporary_name: args.temporary_name.is_some(),
            altroot: args.altroot.clone().or(altroot),
            for_write: true,
            ..zfs_spa::ImportOptions::new(self.arc.clone(), Some(self.tasks.clone()))
        };
        let pool = zfs_spa::import(&candidate, &options).map_err(|e| failure::import(&args.name, &e))?;
        let spa = self.open_for_writing(&args.name, &pool)?;
        let imported = Arc::new(Imported::new(pool.clone(), Some(spa)));
        let values = values_of(&args.dataset_properties);
        if !values.is_empty() {
            imported.task(&args.name, "create", move |ctx| set_all(ctx, &found(ctx.dsl(), "")?, &values))?;
        }
        self.pools.write().insert(pool.name().to_string(), imported);
        self.events.pool(&pool, "sysevent.fs.zfs.pool_create");
        Ok(())
    }

    pub(super) fn destroy_pool(&self, args: DestroyPoolArgs) -> Result<Empty, Failure> {
        let imported = self.pool(&args.pool)?;
        let spa = imported.writer()?.clone();
        if imported.pool.zio().is_suspended() {
            // Nothing could be told to the devices. It is exported, and destroyed after the next import.
            return Err(Failure::new(FailureCode::PoolSuspended, "pool I/O is currently suspended").about(&args.pool));
        }
        self.mounts.remove_all(args.force, |m| pool_of(&m.dataset) == args.pool)?;
        self.withdraw(args.force, |dataset| pool_of(dataset) == args.pool)?;
        self.pools.write().remove(&args.pool);
        imported.cachefile().into_iter().for_each(|f| self.write_cachefile(&f));
        spa.close(true).map_err(|e| failure::engine(&e).about(&args.pool))?;
        self.events.pool(&imported.pool, "sysevent.fs.zfs.pool_destroy");
        Ok(Empty {})
    }

    pub(super) fn sync_pools(&self, args: SyncPoolsArgs) -> Result<Empty, Failure> {
        let names: Vec<String> = match args.pools.is_empty() {
            true => self.pools.read().keys().cloned().collect(),
            false => args.pools,
        };
        for name in names {
            let imported = self.pool(&name).map_err(|f| f.about(&name))?;
            if let Some(spa) = &imported.spa {
                spa.txgs().wait_synced(0).map_err(|e| failure::engine(&e).about(&name))?;
            }
        }
        Ok(Empty {})
    }

    pub(super) fn set_pool_properties(&self, args: SetPoolPropertiesArgs) -> Result<Empty, Failure> {
        let imported = self.pool(&args.pool)?;
        let about = |f: Failure| f.about(&args.pool);
        let mut props = poolprops::parse(&args.properties, When::Set).map_err(about)?;
        let spa = imported.writer().map_err(about)?;
        if let Some(name) = &props.bootfs {
            let object = match name.as_str() {
                "" => 0,
                name if pool_of(name) != args.pool => {
                    let text = format!("'{name}' is an invalid name");
                    return Err(about(Failure::new(FailureCode::InvalidProperty, text)));
                }
                name => {
                    let path = name.strip_prefix(&args.pool).unwrap_or("").trim_start_matches('/').to_owned();
                    spa.dataset_object(&path).map_err(|e| failure::engine(&e).about(name))?
                }
            };
            props.stored.push(("bootfs".into(), PoolValue::Number(object)));
        }
        let enable = props.features.0.clone();
        let stored = std::mem::take(&mut props.stored);
        imported.task(&args.pool, "set", move |ctx| {
            stored.iter().try_for_each(|(name, value)| ctx.set_pool_property(name, value))?;
            enable.iter().try_for_each(|f| ctx.enable_feature(*f))
        })?;
        if props.cachefile.is_some() {
            self.set_cachefile(&imported, props.cachefile);
        }
        Ok(Empty {})
    }

    pub(super) fn upgrade_pool(&self, args: UpgradePoolArgs) -> Result<UpgradePoolReply, Failure> {
        let imported = self.pool(&args.pool)?;
        let view = imported.view();
        let asked = |f: &Feature| args.features.as_ref().is_none_or(|names| names.iter().any(|n| n == f.name()));
        let usual = zfs_spa::sync::create::usual_features();
        let new: Vec<Feature> = usual.into_iter().filter(|f| !view.features().is_enabled(*f)).filter(asked).collect();
        let enable = new.clone();
        imported.task(&args.pool, "upgrade", move |ctx| enable.iter().try_for_each(|f| ctx.enable_feature(*f)))?;
        Ok(UpgradePoolReply { features: new.into_iter().map(|f| f.name().to_owned()).collect() })
    }

    pub(super) fn change_guid(&self, args: ChangeGuidArgs) -> Result<Empty, Failure> {
        let imported = self.pool(&args.pool)?;
        let drawn = || SystemRng::new().map(|r| r.guid()).unwrap_or(0);
        let guid = args.guid.map_or_else(drawn, |g| g.0);
        if guid == 0 || self.pools.read().values().any(|p| p.view().guid() == guid) {
            let text = format!("guid {guid} is in use or no identity");
            return Err(Failure::new(FailureCode::InvalidArgument, text).about(args.pool));
        }
        imported.task(&args.pool, "reguid", move |ctx| ctx.set_guid(guid))?;
        self.events.pool(&imported.pool, "sysevent.fs.zfs.pool_reguid");
        Ok(Empty {})
    }

    pub(super) fn clear_label(&self, args: ClearLabelArgs) -> Result<Empty, Failure> {
        let path = &args.path;
        let no_label = || Failure::new(FailureCode::InvalidArgument, format!("failed to read label from {path}"));
        if !Path::new(path).exists() {
            return Err(Failure::new(FailureCode::NoSuchDevice, format!("failed to find device {path}")));
        }
        let device = FileDevice::open_read_only(path).map_err(|_| no_label())?;
        DeviceLabels::read(&device).best().ok_or_else(no_label)?;
        drop(device);
        if let Some(owner) = self.owner(path) {
            let member = format!("{path} is a member of {} pool \"{}\"", owner.state, owner.pool);
            match owner.state {
                "active" | "" => {
                    let text = format!("{path} is a member (ACTIVE) of pool \"{}\"", owner.pool);
                    return Err(Failure::new(FailureCode::Busy, text));
                }
                _ if !args.force => {
                    let text = format!("use '-f' to override the following error:\n{member}");
                    return Err(Failure::new(FailureCode::DeviceInUse, text));
                }
                _ => {}
            }
        }
        let failed =
            |e: std::io::Error| Failure::new(FailureCode::Io, format!("failed to clear label for {path}: {e}"));
        let device = FileDevice::open_read_write(path).map_err(failed)?;
        labels::clear(&device).map_err(failed)?;
        Ok(Empty {})
    }
}
