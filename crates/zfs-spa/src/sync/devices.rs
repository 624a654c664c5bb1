//! Devices that go and come back, and those that join and leave a pool in use.
//!
//! What is in the configuration changes in the sync of a txg, and the labels with it. A device that is away notes what it
//! misses; when it is back, or a new one takes its place, a resilver fills it.
//!
//! Lock order: `changing` first, before any other; one change of the configuration at a time.

use super::plan::{Auxiliaries, NewVdev, Planned, Planner, init_labels, label_auxiliaries};
use super::{Spa, SyncCtx, create};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::{Error, ErrorKind, Result};
use zfs_env::{BlockDevice, SystemRng};
use zfs_phys::{NvList, NvValue};
use zfs_zio::alloc::Class;
use zfs_zio::{Vdev, VdevAux, VdevConfig, VdevKind, VdevState};

/// Runs `act` on the vdev of that guid in a configuration.
pub(super) fn edit(tree: &mut NvList, guid: u64, act: &mut dyn FnMut(&mut NvList)) -> bool {
    if tree.u64("guid") == Some(guid) {
        act(tree);
        return true;
    }
    if !tree.contains("children") {
        return false;
    }
    let mut children = tree.lists("children").to_vec();
    let found = children.iter_mut().any(|c| edit(c, guid, act));
    tree.set("children", NvValue::NvListArray(children));
    found
}

/// Whether a vdev has lost something for good when the leaves that `lacking` names are without it.
pub(super) fn outage(vdev: &Vdev, lacking: &dyn Fn(&Vdev) -> bool) -> bool {
    match vdev.config.kind {
        VdevKind::Raidz { nparity } | VdevKind::Draid { nparity, .. } => {
            vdev.children.iter().filter(|c| outage(c, lacking)).count() as u64 > nparity
        }
        _ if vdev.config.kind.is_leaf() => lacking(vdev),
        _ => vdev.children.iter().all(|c| outage(c, lacking)),
    }
}

/// Whether a leaf is away or does not have everything.
pub(super) fn is_lacking(leaf: &Vdev) -> bool {
    !leaf.state().is_readable() || !leaf.dtl().is_empty()
}

fn no_device() -> Error {
    Error::not_found("no such device in pool")
}

impl Spa {
    /// The leaf of that guid.
    fn leaf(&self, guid: u64) -> Result<&Vdev> {
        self.zio.vdevs().find(guid).filter(|v| v.config.kind.is_leaf()).ok_or_else(no_device)
    }

    /// Has the changed configuration stored and the labels written with the next txg.
    fn store_changes(&self, name: &'static str, log: &'static str, text: String) -> Result<()> {
        self.sync_task(name, move |ctx| {
            ctx.spa.store_config(ctx.tx)?;
            ctx.spa.labels_now.store(true, Relaxed);
            ctx.log(log, &text)
        })
    }

    /// Takes a leaf offline, until the next import only when `temporary`; `fault` calls it faulted.
    ///
    /// # Errors
    /// `NotFound` for no device of the pool, `Busy` when the pool cannot do without it.
    pub fn offline(&self, guid: u64, temporary: bool, fault: bool) -> Result<()> {
        if fault && matches!(self.leaf(guid)?.config.kind, VdevKind::DraidSpare { .. }) {
            return Err(Error::invalid("device is reserved as a hot spare"));
        }
        let (state, aux) =
            if fault { (VdevState::Faulted, VdevAux::External) } else { (VdevState::Offline, VdevAux::None) };
        self.take_away(guid, state, aux, temporary)
    }

    /// Takes a leaf out of use.
    pub(super) fn take_away(&self, guid: u64, state: VdevState, aux: VdevAux, temporary: bool) -> Result<()> {
        let _one = self.changing.lock();
        let leaf = self.leaf(guid)?;
        // Everything the others are to have in its place must be on them.
        self.txgs.wait_synced(0)?;
        let device = leaf.device();
        leaf.close(state, aux);
        self.zio.vdevs().reevaluate();
        let needed = self.zio.vdevs().check_writable().is_err() || self.only_copy(leaf);
        if needed {
            if let Some(device) = device {
                leaf.reopen(device).map_err(|_| Error::new(ErrorKind::Io, "opening a device again"))?;
            }
            leaf.reopen_spare();
            self.zio.vdevs().reevaluate();
            return Err(Error::new(ErrorKind::Busy, "no valid replicas"));
        }
        if !temporary {
            edit(&mut self.config.lock().tree, guid, &mut |nv| {
                nv.put(if state == VdevState::Faulted { "faulted" } else { "offline" }, 1u64);
                match aux {
                    VdevAux::External => drop(nv.put("aux_state", "external")),
                    VdevAux::ErrExceeded => drop(nv.put("aux_state", "err_exceeded")),
                    _ => {}
                }
            });
        }
        let place = leaf.config.path.clone().unwrap_or_default();
        self.store_changes("offline", "vdev offline", format!("{place} guid={guid}"))
    }

    /// Whether some other device lacks what only `leaf` had: its vdev then has a txg that nobody else holds whole.
    fn only_copy(&self, leaf: &Vdev) -> bool {
        let tops = &self.zio.vdevs().root().children;
        let Some(top) = tops.iter().find(|t| t.find(leaf.guid()).is_some()) else { return false };
        outage(top, &is_lacking)
    }

    /// Brings a leaf back on `device`; what it missed is resilvered.
    ///
    /// # Errors
    /// `NotFound` for no device of the pool; `Invalid` when `device` is too small.
    pub fn online(self: &Arc<Self>, guid: u64, device: Option<Arc<dyn BlockDevice>>) -> Result<()> {
        let _one = self.changing.lock();
        let leaf = self.leaf(guid)?;
        let gone = !leaf.state().is_readable();
        if gone {
            // A scan that has visited blocks without this device must not end as if it had filled it.
            self.halt_scan();
        }
        if !leaf.config.is_spare {
            self.release_spares_of(guid);
        }
        if let (Some(device), true) = (device, gone) {
            leaf.reopen(device).map_err(|aux| Error::invalid(format!("the device cannot be used: {aux:?}")))?;
        }
        leaf.reopen_spare();
        self.zio.vdevs().reevaluate();
        edit(&mut self.config.lock().tree, guid, &mut |nv| {
            for flag in ["offline", "faulted", "degraded", "removed", "aux_state", "not_present"] {
                nv.remove(flag);
            }
        });
        let place = leaf.config.path.clone().unwrap_or_default();
        self.store_changes("online", "vdev online", format!("{place} guid={guid}"))?;
        self.tell_of("sysevent.fs.zfs.vdev_online", guid);
        if gone { self.resilver_if_needed() } else { Ok(()) }
    }

    /// Forgets the errors of one vdev and those below, or all.
    ///
    /// # Errors
    /// `NotFound` for no device of the pool.
    pub fn clear_errors(&self, guid: Option<u64>) -> Result<()> {
        let tree = self.zio.vdevs();
        let top = match guid {
            Some(guid) => tree.find(guid).ok_or_else(no_device)?,
            None => tree.root(),
        };
        let mut below = vec![top];
        while let Some(vdev) = below.pop() {
            vdev.stats.clear_errors();
            below.extend(&vdev.children);
        }
        self.tell_of("sysevent.fs.zfs.vdev_clear", top.guid());
        Ok(())
    }

    /// Puts a changed tree in the place of the present one.
    pub(super) fn change_tree(&self, tree: &NvList, devices: &HashMap<u64, Arc<dyn BlockDevice>>) -> Result<()> {
        let config = VdevConfig::from_nvlist(tree)?;
        let mut open = |leaf: &VdevConfig| devices.get(&leaf.guid).cloned().ok_or(VdevAux::OpenFailed);
        let changed = self.zio.vdevs().changed(config, &mut open)?;
        self.zio.set_vdevs(changed);
        Ok(())
    }

    fn plan(
        &self,
        vdevs: &[(Class, NewVdev)],
        auxiliaries: &Auxiliaries,
        ashift: Option<u64>,
        rng: &SystemRng,
    ) -> Result<Planned> {
        let first = self.config.lock().tree.lists("children").len() as u64;
        let txg = self.txgs.synced_txg() + 1;
        Planner { rng, ashift, force: true, first, txg, devices: HashMap::new() }.plan(vdevs, auxiliaries)
    }

    /// Adds top-level vdevs, hot spares and cache devices.
    ///
    /// # Errors
    /// `Invalid` for vdevs that cannot be, whatever writing meets.
    pub fn add(
        self: &Arc<Self>,
        vdevs: &[(Class, NewVdev)],
        auxiliaries: &Auxiliaries,
        ashift: Option<u64>,
    ) -> Result<()> {
        let _one = self.changing.lock();
        let rng = SystemRng::new().map_err(Error::from)?;
        let planned = self.plan(vdevs, auxiliaries, ashift, &rng)?;
        // A device that fails now is refused; one that fails later fails as any of the pool's does.
        init_labels(&planned.tops, &planned.devices)?;
        label_auxiliaries(&planned.spares, &planned.devices, true)?;
        label_auxiliaries(&planned.caches, &planned.devices, false)?;
        let classes: Vec<Class> = vdevs.iter().map(|(class, _)| *class).collect();
        let spares = [self.auxiliaries("spares")?, planned.spares].concat();
        let caches = [self.auxiliaries("l2cache")?, planned.caches].concat();
        let (tops, devices) = (planned.tops, planned.devices);
        self.sync_task("add", move |ctx| {
            ctx.spa.set_auxiliaries(ctx.tx, "spares", &spares)?;
            ctx.spa.set_auxiliaries(ctx.tx, "l2cache", &caches)?;
            if !tops.is_empty() {
                ctx.spa.add_tops(ctx, &tops, &classes, &devices)?;
            }
            ctx.log("vdev add", &format!("pool version 5000; {} vdevs", tops.len()))
        })?;
        Ok(())
    }

    pub(super) fn auxiliaries(&self, which: &str) -> Result<Vec<NvList>> {
        let directory = zfs_dmu::Zap::open(&self.mos, crate::config::POOL_DIRECTORY)?;
        crate::config::auxiliary(&self.mos, &directory, which)
    }

    /// In a sync: the new vdevs get their objects, join the tree, and then space is allocated on them. Nothing is before
    /// the txg is on disk: whoever allocates works in a later one.
    fn add_tops(
        &self,
        ctx: &SyncCtx<'_>,
        tops: &[NvList],
        classes: &[Class],
        devices: &HashMap<u64, Arc<dyn BlockDevice>>,
    ) -> Result<()> {
        let mut tree = self.config.lock().tree.clone();
        let all = [tree.lists("children"), tops].concat();
        tree.set("children", NvValue::NvListArray(all));
        self.change_tree(&tree, devices)?;
        let mut seeds = Vec::new();
        for (top, class) in tops.iter().zip(classes) {
            seeds.push(self.metaslabs.add_top(&self.zio, top.u64("id").unwrap_or(0), *class)?);
        }
        let named = create::top_objects(&self.ops, &self.metaslabs, &self.mos, ctx.tx, tops)?;
        let old = tree.lists("children").len() - tops.len();
        let kept = tree.lists("children").get(..old).unwrap_or_default().to_vec();
        tree.set("children", NvValue::NvListArray([kept, named].concat()));
        // What looks at the devices finds their objects too.
        self.change_tree(&tree, devices)?;
        self.config.lock().tree = tree;
        self.store_config(ctx.tx)?;
        self.labels_now.store(true, Relaxed);
        self.zio.add_tops(seeds)
    }
}
