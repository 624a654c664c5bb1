//! Adding, replacing and removing devices of pools in use, and scans.

use super::poolw::NewVdevs;
use super::{Engine, Imported, failure, vdevs};
use std::sync::Arc;
use uzfs_proto::{
    AddDevicesArgs, AttachDeviceArgs, ClearErrorsArgs, DetachDeviceArgs, Empty, Failure, FailureCode, ScanAction,
    ScanPoolArgs, SetDeviceStateArgs, VdevNode, VdevSpec,
};
use zfs_env::{BlockDevice, FileDevice};
use zfs_phys::NvList;
use zfs_spa::labels::DeviceLabels;
use zfs_spa::sync::{ScanRequest, Spa};
use zfs_spa::{Error, ErrorKind};
use zfs_zio::Vdev;

/// A vdev of a pool by path, last part of the path, guid, or kind and number.
fn named(vdev: &Vdev, name: &str) -> Option<u64> {
    let path = vdev.config.path.as_deref();
    let by_path = path.is_some_and(|p| p == name || p.rsplit('/').next() == Some(name));
    let by_kind = format!("{}-{}", vdev.config.kind.type_name(), vdev.config.id) == name;
    if by_path || by_kind || vdev.guid().to_string() == name {
        return Some(vdev.guid());
    }
    vdev.children.iter().find_map(|c| named(c, name))
}

fn device(imported: &Imported, spa: &Spa, name: &str) -> Result<u64, Failure> {
    let found = spa.zio().vdevs().root().children.iter().find_map(|top| named(top, name));
    found.ok_or_else(|| {
        let is_it = |s: &NvList| {
            let path = s.str("path").unwrap_or("");
            path == name
                || path.rsplit('/').next() == Some(name)
                || s.u64("guid").is_some_and(|g| g.to_string() == name)
        };
        let failure = match imported.view().spares().iter().any(is_it) {
            true => Failure::new(FailureCode::BadDevice, "device is reserved as a hot spare"),
            false => Failure::new(FailureCode::NoSuchDevice, "no such device in pool"),
        };
        failure.about(name)
    })
}

fn told(error: &Error) -> Failure {
    let text = error.to_string();
    let plain = text.split(": ").next().unwrap_or(&text).to_owned();
    match error.kind() {
        ErrorKind::NotFound => Failure::new(FailureCode::NoSuchDevice, plain),
        ErrorKind::Busy => Failure::new(FailureCode::Busy, plain),
        ErrorKind::Exists => Failure::new(FailureCode::Busy, plain),
        ErrorKind::Invalid => Failure::new(FailureCode::BadDevice, plain),
        _ => failure::create(error),
    }
}

/// The device of a leaf that was away, open for writing, when it is the right one.
fn open_again(spa: &Spa, guid: u64) -> Option<Arc<dyn BlockDevice>> {
    let leaf = spa.zio().vdevs().find(guid)?;
    let path = leaf.config.path.as_ref()?;
    let found = FileDevice::open_read_only(path).ok()?;
    let right = DeviceLabels::read(&found).best().and_then(|l| l.u64("guid")) == Some(guid);
    drop(found);
    let opened = FileDevice::open_read_write(path).inspect_err(|e| tracing::warn!("{path}: {e}"));
    Some(Arc::new(opened.ok().filter(|_| right)?))
}

/// The guid of the hot spare of a pool, in use or not, that a device is.
fn spare_of(imported: &Imported, new: &VdevSpec) -> Option<u64> {
    let device = FileDevice::open_read_only(new.path.as_ref()?).ok()?;
    let guid = DeviceLabels::read(&device).best().and_then(|l| l.u64("guid"))?;
    imported.view().spares().iter().any(|s| s.u64("guid") == Some(guid)).then_some(guid)
}

impl Engine {
    fn to_change(&self, pool: &str) -> Result<(Arc<Imported>, Arc<Spa>), Failure> {
        let imported = self.pool(pool)?;
        let spa = imported.writer().map_err(|f| f.about(pool))?.clone();
        Ok((imported, spa))
    }

    pub(super) fn add_devices(&self, args: AddDevicesArgs) -> Result<Empty, Failure> {
        let (imported, spa) = self.to_change(&args.pool)?;
        let _one = self.importing.lock();
        self.check_in_use(&args.vdevs, args.force)?;
        let new = NewVdevs::open(&args.vdevs)?;
        spa.add(&new.vdevs, &new.auxiliaries, args.ashift).map_err(|e| told(&e).about(&args.pool))?;
        imported.cachefile().into_iter().for_each(|f| self.write_cachefile(&f));
        self.events.pool(&imported.pool, "sysevent.fs.zfs.vdev_add");
        Ok(Empty {})
    }

    pub(super) fn clear_errors(&self, args: ClearErrorsArgs) -> Result<Empty, Failure> {
        let (imported, spa) = self.to_change(&args.pool)?;
        let guid = args.device.as_ref().map(|name| device(&imported, &spa, name)).transpose()?;
        if spa.zio().is_suspended() {
            let resumed = spa.resume_io(&|leaf| open_again(&spa, leaf.guid()));
            let opened = resumed.map_err(|e| failure::engine(&e).about(&args.pool))?;
            spa.after_resuming(&opened);
        }
        spa.clear_errors(guid).map_err(|e| told(&e))?;
        let away = |v: &&Vdev| !v.state().is_readable() && v.state() != zfs_zio::VdevState::Offline;
        let concerned = |v: &&Vdev| guid.is_none_or(|g| g == v.guid());
        let leaves: Vec<u64> =
            spa.zio().vdevs().leaves().into_iter().filter(away).filter(concerned).map(Vdev::guid).collect();
        for leaf in leaves {
            let device = open_again(&spa, leaf);
            let distributed = spa.zio().vdevs().find(leaf).is_some_and(|v| v.config.kind.type_name() == "dspare");
            if device.is_some() || distributed {
                spa.online(leaf, device).map_err(|e| told(&e))?;
            }
        }
        Ok(Empty {})
    }

    pub(super) fn set_device_state(&self, args: SetDeviceStateArgs) -> Result<VdevNode, Failure> {
        let (imported, spa) = self.to_change(&args.pool)?;
        let guid = device(&imported, &spa, &args.device)?;
        let changed = match args.online {
            true => spa.online(guid, open_again(&spa, guid)),
            false => spa.offline(guid, args.temporary, args.fault),
        };
        changed.map_err(|e| told(&e).about(&args.device))?;
        let gone = || Failure::new(FailureCode::NoSuchDevice, "no such device in pool");
        spa.zio().vdevs().find(guid).map(|v| vdevs::live(v, 2)).ok_or_else(gone)
    }

    pub(super) fn scan_pool(&self, args: ScanPoolArgs) -> Result<Empty, Failure> {
        let (_, spa) = self.to_change(&args.pool)?;
        let request = match args.action {
            ScanAction::Scrub => ScanRequest::Scrub,
            ScanAction::Resilver => ScanRequest::Resilver,
            ScanAction::Pause => ScanRequest::Pause,
            ScanAction::Stop => ScanRequest::Stop,
        };
        spa.scan(request).map_err(|e| told(&e).about(&args.pool))?;
        Ok(Empty {})
    }

    pub(super) fn attach_device(&self, args: AttachDeviceArgs) -> Result<Empty, Failure> {
        let (imported, spa) = self.to_change(&args.pool)?;
        let _one = self.importing.lock();
        let guid = device(&imported, &spa, &args.device);
        let old = guid.as_ref().ok().and_then(|guid| spa.zio().vdevs().find(*guid));
        let same = old.is_some_and(|v| v.config.path == args.new.path);
        match spare_of(&imported, &args.new).filter(|_| args.replace) {
            Some(spare) if spa.zio().vdevs().find(spare).is_some() => {
                let path = args.new.path.as_deref().unwrap_or_default();
                return Err(Failure::new(FailureCode::Busy, format!("{path} is busy")).about(&args.device));
            }
            Some(_) => {}
            None => self.check_in_use(std::slice::from_ref(&args.new), args.force || (args.replace && same))?,
        }
        let guid = guid?;
        let mut devices = NewVdevs::default();
        let new = devices.vdev(&args.new)?;
        spa.attach(guid, &new, args.replace, args.ashift).map_err(|e| told(&e).about(&args.device))?;
        imported.cachefile().into_iter().for_each(|f| self.write_cachefile(&f));
        Ok(Empty {})
    }

    pub(super) fn detach_device(&self, args: DetachDeviceArgs) -> Result<Empty, Failure> {
        let (imported, spa) = self.to_change(&args.pool)?;
        let guid = device(&imported, &spa, &args.device)?;
        spa.detach(guid).map_err(|e| told(&e).about(&args.device))?;
        imported.cachefile().into_iter().for_each(|f| self.write_cachefile(&f));
        Ok(Empty {})
    }
}
