//! Looks after the devices of all pools now and then, as `zed` does where OpenZFS is in the kernel.

use super::Engine;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use zfs_env::{BlockDevice, FileDevice};
use zfs_phys::NvList;
use zfs_spa::labels::{DeviceLabels, state};
use zfs_spa::sync::Watch;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// The device of a hot spare, when it is there and its label says so: one that another pool shares may be in use there.
fn spare(list: &NvList) -> Option<Arc<dyn BlockDevice>> {
    let path = list.str("path")?;
    let found = FileDevice::open_read_only(path).ok()?;
    let is_it = |l: &NvList| l.u64("guid") == list.u64("guid") && l.u64("state") == Some(state::SPARE);
    let right = DeviceLabels::read(&found).best().is_some_and(is_it);
    drop(found);
    let opened = FileDevice::open_read_write(path).inspect_err(|e| tracing::warn!("{path}: {e}"));
    Some(Arc::new(opened.ok().filter(|_| right)?))
}

/// Runs for as long as the engine is there.
pub(super) fn run(engine: &Weak<Engine>) {
    let mut seen: BTreeMap<u64, Watch> = BTreeMap::new();
    loop {
        zfs_env::pool::pause(INTERVAL);
        let Some(engine) = engine.upgrade() else { return };
        if engine.stopping() {
            return;
        }
        // Held, so that no pool outlives its export here, with its devices.
        let pools = engine.pools.read();
        seen.retain(|load, _| pools.values().any(|p| p.pool.load_guid() == *load));
        for imported in pools.values() {
            let Some(spa) = &imported.spa else { continue };
            if let Err(e) = spa.watch(seen.entry(imported.pool.load_guid()).or_default(), &spare) {
                tracing::warn!("{}: {e}", imported.pool.name());
            }
        }
    }
}
