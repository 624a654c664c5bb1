//! Devices that become the mirror of others, take their place, or leave a mirror.
//!
//! A new device begins with a dirty time log of everything there was, so that reads prefer others and a resilver fills it.
//! Replacing is a mirror of the old and the new for as long as that takes; when the new one lacks nothing any more the old
//! one leaves.
//!
//! Configurations are changed as lists: an inner vdev is put around a leaf, or taken away when one child is left. What
//! belongs to a top-level vdev (its number, size, space maps) moves with the place.

use super::devices::{is_lacking, outage};
use super::plan::{Joining, NewVdev, Planner, init_labels, label_auxiliaries};
use super::{Spa, SyncCtx, create};
use crate::config::POOL_DIRECTORY;
use crate::labels::{DeviceLabels, state};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::{Error, ErrorKind, Result, Zap};
use zfs_env::{BlockDevice, Rng, SystemRng};
use zfs_phys::{NvList, NvValue};
use zfs_zio::{VdevKind, VdevState};

/// What of a configuration belongs to the place of a top-level vdev.
const OF_TOP: [&str; 7] =
    ["metaslab_array", "metaslab_shift", "ashift", "asize", "is_log", "non_allocating", "com.delphix:vdev_zap_top"];
/// First txg in which anything can have been written.
const TXG_INITIAL: u64 = 4;
/// Txgs that can be under way at the same time (`TXG_CONCURRENT_STATES`).
const CONCURRENT: u64 = 3;

/// Puts what `make` gives in the place of the vdev of that guid below `tree`.
fn rewrite(tree: &mut NvList, guid: u64, make: &mut dyn FnMut(NvList) -> NvList) -> bool {
    let mut children = tree.lists("children").to_vec();
    for child in &mut children {
        let hit = child.u64("guid") == Some(guid);
        if hit {
            *child = make(child.clone());
        }
        if hit || rewrite(child, guid, make) {
            tree.set("children", NvValue::NvListArray(children));
            return true;
        }
    }
    false
}

/// The vdev above that of the guid.
fn parent(tree: &NvList, guid: u64) -> Option<&NvList> {
    let children = tree.lists("children");
    if children.iter().any(|c| c.u64("guid") == Some(guid)) {
        return Some(tree);
    }
    children.iter().find_map(|c| parent(c, guid))
}

/// Moves what belongs to a top-level vdev from one configuration to another.
fn move_top(from: &mut NvList, to: &mut NvList) {
    for name in OF_TOP {
        if let Some(value) = from.remove(name) {
            to.set(name, value);
        }
    }
}

/// A new inner vdev around `old` and `new`.
fn around(kind: &str, guid: u64, mut old: NvList, mut new: NvList) -> NvList {
    let mut out = NvList::new();
    out.put("type", kind).put("id", old.u64("id").unwrap_or(0)).put("guid", guid);
    move_top(&mut old, &mut out);
    out.put("create_txg", old.u64("create_txg").unwrap_or(TXG_INITIAL));
    old.put("id", 0u64);
    new.put("id", 1u64);
    out.set("children", NvValue::NvListArray(vec![old, new]));
    out
}

/// An inner vdev with one child more.
fn with_child(mut vdev: NvList, mut new: NvList) -> NvList {
    let mut children = vdev.lists("children").to_vec();
    new.put("id", children.len() as u64);
    children.push(new);
    vdev.set("children", NvValue::NvListArray(children));
    vdev
}

/// An inner vdev without one child; the last child left takes its place.
fn without(mut vdev: NvList, guid: u64) -> NvList {
    let mut left: Vec<NvList> =
        vdev.lists("children").iter().filter(|c| c.u64("guid") != Some(guid)).cloned().collect();
    if left.len() == 1
        && let Some(mut last) = left.pop()
    {
        last.put("id", vdev.u64("id").unwrap_or(0));
        move_top(&mut vdev, &mut last);
        return last;
    }
    for (child, id) in left.iter_mut().zip(0u64..) {
        child.put("id", id);
    }
    vdev.set("children", NvValue::NvListArray(left));
    vdev
}

/// What a device joins another for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Mirror,
    Replace,
    /// A hot spare of this guid stands in for it.
    Spare(u64),
}

impl How {
    /// Type of the vdev that holds both devices.
    fn word(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Replace => "replacing",
            Self::Spare(_) => "spare",
        }
    }
}

/// Whether a device may stand beside `old`, which is part of a vdev of type `kind`.
fn may_join(kind: &str, how: How, old: &zfs_zio::Vdev) -> Result<()> {
    if !matches!(kind, "root" | "mirror") && how == How::Mirror {
        return Err(Error::invalid("can only attach to mirrors and top-level disks"));
    }
    if kind == "spare" && how == How::Replace && old.config.is_spare {
        return Err(Error::invalid("can only be replaced by another hot spare"));
    }
    // What a spare stands beside may be replaced.
    if kind == "replacing" || (kind == "spare" && how != How::Replace) {
        return Err(Error::invalid("already in replacing/spare config; wait for completion or use 'zpool detach'"));
    }
    Ok(())
}

/// Whether a device of `asize` bytes, with sectors of log2 `sector`, can stand beside `old`.
fn check_fits(how: How, top: &zfs_zio::Vdev, old: &zfs_zio::Vdev, asize: u64, sector: u64) -> Result<()> {
    if matches!(how, How::Spare(_)) && top.config.is_log {
        return Err(Error::invalid("cannot replace a log with a spare"));
    }
    if asize < old.min_asize() {
        return Err(Error::invalid("device is too small"));
    }
    if sector > top.config.ashift {
        return Err(Error::invalid(
            "new device has a different optimal sector size; use the option '-o ashift=N' to override the optimal size",
        ));
    }
    Ok(())
}

/// What the history says of it.
fn shown(how: How, new: &NvList, old: &zfs_zio::Vdev) -> String {
    let (verb, to) = match how {
        How::Mirror => ("attach", "to"),
        How::Replace => ("replace", "for"),
        How::Spare(_) => ("spare in", "for"),
    };
    let (new, old) = (new.str("path").unwrap_or(""), old.config.path.as_deref().unwrap_or(""));
    format!("{verb} vdev={new} {to} vdev={old}")
}

impl Spa {
    /// Attaches a device to another as its mirror, or to take its place with `replace`.
    ///
    /// # Errors
    /// `NotFound` for no device of the pool; `Invalid` when the new one cannot be attached there.
    pub fn attach(self: &Arc<Self>, guid: u64, new: &NewVdev, replace: bool, ashift: Option<u64>) -> Result<()> {
        let how = match (replace, self.spare_on(new)?) {
            (false, _) => How::Mirror,
            (true, None) => How::Replace,
            (true, Some(own)) => How::Spare(own),
        };
        self.attach_as(guid, new, how, ashift)
    }

    /// The guid of the hot spare of this pool that a device is.
    fn spare_on(&self, new: &NewVdev) -> Result<Option<u64>> {
        let NewVdev::Leaf { path, device, .. } = new else { return Ok(None) };
        let labels = DeviceLabels::read(&**device);
        let Some((label, guid)) = labels.best().and_then(|l| Some((l, l.u64("guid")?))) else { return Ok(None) };
        if !self.auxiliaries("spares")?.iter().any(|s| s.u64("guid") == Some(guid)) {
            return Ok(None);
        }
        // It may be in use, here or in another pool that shares it.
        if label.u64("state") != Some(state::SPARE) {
            return Err(Error::new(ErrorKind::Exists, format!("{path} is busy")));
        }
        Ok(Some(guid))
    }

    /// Puts the hot spare of guid `own` beside a device.
    pub(super) fn attach_spare(self: &Arc<Self>, guid: u64, own: u64, new: &NewVdev) -> Result<()> {
        self.attach_as(guid, new, How::Spare(own), None)
    }

    fn attach_as(self: &Arc<Self>, guid: u64, new: &NewVdev, how: How, ashift: Option<u64>) -> Result<()> {
        let replace = how != How::Mirror;
        let _one = self.changing.lock();
        self.expect_no_checkpoint()?;
        self.halt_scan();
        let old = self.zio.vdevs().find(guid).filter(|v| v.config.kind.is_leaf());
        let old = old.ok_or_else(|| Error::not_found("no such device in pool"))?;
        let tree = self.config.lock().tree.clone();
        let above = parent(&tree, guid).ok_or_else(|| Error::not_found("no such device in pool"))?;
        let kind = above.str("type").unwrap_or("").to_owned();
        let rng = SystemRng::new().map_err(Error::from)?;
        let txg = self.txgs.synced_txg() + 1;
        let top = self.zio.vdevs().root().children.iter().find(|t| t.find(guid).is_some());
        let top = top.ok_or_else(|| Error::not_found("no such device in pool"))?;
        let (planned, how) = match new {
            NewVdev::DistributedSpare(name) => self.distributed(name, replace, top, old)?,
            _ => {
                let planner = Planner { rng: &rng, ashift, force: true, first: 0, txg, devices: HashMap::new() };
                (planner.single(new)?, how)
            }
        };
        may_join(&kind, how, old)?;
        let Joining { mut list, asize, sector, mut devices } = planned;
        if let How::Spare(own) = how {
            devices = devices.into_values().map(|device| (own, device)).collect();
            list.put("guid", own).put("is_spare", 1u64);
        }
        check_fits(how, top, old, asize, sector)?;
        // A device that fails now is refused; one that fails later fails as any of the pool's does.
        init_labels(std::slice::from_ref(&list), &devices)?;
        if matches!(how, How::Spare(_)) && !is_lacking(old) {
            self.kept.lock().insert(list.u64("guid").unwrap_or(0));
        }
        let mirror = kind == "mirror" && !replace;
        let own = above.u64("guid").unwrap_or(0);
        let around_guid = rng.guid();
        let shown = shown(how, &list, old);
        self.sync_task("attach", move |ctx| {
            let all = Zap::open(ctx.mos(), POOL_DIRECTORY)?.lookup_u64(create::VDEV_ZAPS)?;
            let all = all.map(|object| Zap::open(ctx.mos(), object)).transpose()?;
            let table = || match &all {
                Some(all) => create::vdev_table(ctx.mos(), ctx.tx, all),
                None => Err(Error::unsupported("a pool whose vdevs have no tables")),
            };
            let mut leaf = create::with_leaf_tables(&list, &table)?;
            leaf.put("create_txg", ctx.tx.txg());
            let at = if mirror { own } else { guid };
            let mut tree = tree;
            let changed = rewrite(&mut tree, at, &mut |there| match mirror {
                true => with_child(there, leaf.clone()),
                false => around(how.word(), around_guid, there, leaf.clone()),
            });
            let found = changed.then_some(()).ok_or_else(|| Error::not_found("no such device in pool"));
            found?;
            let own = leaf.u64("guid").unwrap_or(0);
            ctx.spa.join(ctx, tree, own, &devices)?;
            if matches!(how, How::Spare(_)) {
                ctx.spa.tell_of("sysevent.fs.zfs.vdev_spare", own);
            }
            ctx.spa.tell_of("sysevent.fs.zfs.vdev_attach", own);
            ctx.log("vdev attach", &shown)
        })?;
        if how == How::Replace {
            self.release_spares_of(guid);
        }
        // What was under way in the old tree is on disk then.
        (0..CONCURRENT).try_for_each(|_| self.txgs.wait_synced(0))?;
        self.resilver_if_needed()
    }

    /// The distributed spare of that name, to stand in for `old`, which is part of `top`.
    fn distributed(
        &self,
        name: &str,
        replace: bool,
        top: &zfs_zio::Vdev,
        old: &zfs_zio::Vdev,
    ) -> Result<(Joining, How)> {
        let spares = self.auxiliaries("spares")?;
        let found = spares.into_iter().find(|s| s.str("type") == Some("dspare") && s.str("path") == Some(name));
        let spare = found.ok_or_else(|| Error::invalid("new device must be a single disk"))?;
        let own = spare.u64("guid").unwrap_or(0);
        if !replace || self.zio.vdevs().find(own).is_some() {
            return Err(Error::new(ErrorKind::Exists, format!("{name} is busy")));
        }
        if spare.u64("top_guid") != Some(top.guid()) {
            let text = "dRAID spares can only replace child devices in their parent's dRAID vdev";
            return Err(Error::invalid(text));
        }
        let mut list = NvList::new();
        list.put("type", "dspare").put("id", 0u64).put("guid", own).put("path", name);
        list.put("top_guid", top.guid()).put("spareid", spare.u64("spareid").unwrap_or(0));
        // It is as large, and has the sectors, of the devices that it is spread over.
        let joining = Joining { list, asize: old.min_asize(), sector: top.config.ashift, devices: HashMap::new() };
        Ok((joining, How::Spare(own)))
    }

    /// In a sync: a tree with one leaf more, which lacks everything.
    fn join(
        &self,
        ctx: &SyncCtx<'_>,
        tree: NvList,
        guid: u64,
        devices: &HashMap<u64, Arc<dyn BlockDevice>>,
    ) -> Result<()> {
        self.change_tree(&tree, devices)?;
        let leaf = self.zio.vdevs().find(guid).ok_or_else(|| Error::not_found("no such device in pool"))?;
        let missed = TXG_INITIAL..ctx.tx.txg() + CONCURRENT;
        leaf.set_dtl(Vec::from([missed]));
        self.config.lock().tree = tree;
        self.store_config(ctx.tx)?;
        self.labels_now.store(true, Relaxed);
        Ok(())
    }

    /// Takes a device out of its mirror, and wipes its labels.
    ///
    /// # Errors
    /// `NotFound` for no device of the pool, `Invalid` when it is in no mirror, `Busy` when others lack what it has.
    pub fn detach(self: &Arc<Self>, guid: u64) -> Result<()> {
        let _one = self.changing.lock();
        self.expect_no_checkpoint()?;
        self.halt_scan();
        let detached = self.leave(guid);
        let again = self.resilver_if_needed();
        detached.and(again)
    }

    pub(super) fn leave(&self, guid: u64) -> Result<()> {
        let missing = || Error::not_found("no such device in pool");
        let vdevs = self.zio.vdevs();
        let leaf = vdevs.find(guid).filter(|v| v.config.kind.is_leaf()).ok_or_else(missing)?;
        let tree = self.config.lock().tree.clone();
        let above = parent(&tree, guid).and_then(|p| p.u64("guid")).ok_or_else(missing)?;
        let holder = vdevs.find(above).ok_or_else(missing)?;
        if !matches!(holder.config.kind, VdevKind::Mirror | VdevKind::Replacing | VdevKind::Spare) {
            return Err(Error::invalid("only applicable to mirror and replacing vdevs"));
        }
        let top = vdevs.root().children.iter().find(|t| t.find(guid).is_some()).ok_or_else(missing)?;
        if outage(top, &|v| v.guid() == guid || is_lacking(v)) {
            return Err(Error::new(ErrorKind::Busy, "no valid replicas"));
        }
        let device = leaf.device();
        let place = leaf.config.path.clone().unwrap_or_default();
        let is_spare = leaf.config.is_spare;
        // A distributed spare stays one wherever it is: its dRAID has no other.
        let ordinary = |v: &&zfs_zio::Vdev| v.config.is_spare && !matches!(v.config.kind, VdevKind::DraidSpare { .. });
        let stays = holder.children.iter().filter(ordinary).find(|c| c.guid() != guid && !is_spare);
        let stays = stays.filter(|_| holder.config.kind == VdevKind::Spare && holder.children.len() == 2);
        let stays = stays.map(zfs_zio::Vdev::guid);
        let spares = self.auxiliaries("spares")?;
        let own = spares.iter().filter(|s| s.u64("guid") == Some(guid)).cloned().collect::<Vec<_>>();
        self.sync_task("detach", move |ctx| {
            ctx.spa.tell_of("sysevent.fs.zfs.vdev_remove", guid);
            let mut tree = tree;
            let mut gone: Vec<(Option<u64>, Option<u64>)> = Vec::new();
            rewrite(&mut tree, above, &mut |vdev| {
                let leaf = vdev.lists("children").iter().find(|c| c.u64("guid") == Some(guid));
                gone.extend(leaf.map(|l| (l.u64("com.delphix:vdev_zap_leaf"), l.u64("DTL"))));
                without(vdev, guid)
            });
            if let Some(spare) = stays {
                // It is no spare any more.
                let left: Vec<NvList> = spares.into_iter().filter(|s| s.u64("guid") != Some(spare)).collect();
                ctx.spa.set_auxiliaries(ctx.tx, "spares", &left)?;
                super::devices::edit(&mut tree, spare, &mut |nv| drop(nv.remove("is_spare")));
            }
            for (table, dtl) in gone {
                ctx.spa.forget_objects(ctx, table, dtl)?;
            }
            ctx.spa.dtls.lock().remove(&guid);
            ctx.spa.kept.lock().remove(&guid);
            ctx.spa.change_tree(&tree, &HashMap::new())?;
            ctx.spa.config.lock().tree = tree;
            ctx.spa.store_config(ctx.tx)?;
            ctx.spa.labels_now.store(true, Relaxed);
            ctx.log("detach", &format!("vdev={place}"))
        })?;
        // Writers of the old tree are done with it then.
        (0..CONCURRENT).try_for_each(|_| self.txgs.wait_synced(0))?;
        if let Some(device) = device {
            crate::labels::clear(&*device).map_err(Error::from)?;
            if is_spare {
                label_auxiliaries(&own, &HashMap::from([(guid, device)]), true)?;
            }
        }
        leaf.close(VdevState::Closed, zfs_zio::VdevAux::None);
        Ok(())
    }

    /// Frees what only a device that left had.
    fn forget_objects(&self, ctx: &SyncCtx<'_>, table: Option<u64>, dtl: Option<u64>) -> Result<()> {
        if let Some(table) = table.filter(|t| *t != 0) {
            let all = Zap::open(ctx.mos(), POOL_DIRECTORY)?.lookup_u64(create::VDEV_ZAPS)?;
            if let Some(all) = all {
                Zap::open(ctx.mos(), all)?.remove(ctx.tx, format!("{table:x}").as_bytes())?;
            }
            ctx.mos().free_object(ctx.tx, table)?;
        }
        if let Some(dtl) = dtl.filter(|d| *d != 0) {
            self.ops.free_space_map(ctx.mos(), ctx.tx, dtl)?;
        }
        Ok(())
    }

    /// Ends replacements whose new device lacks nothing any more. `changing` is held.
    pub(super) fn finish_replacing(&self) -> Result<()> {
        loop {
            let tops = &self.zio.vdevs().root().children;
            let mut below: Vec<&zfs_zio::Vdev> = tops.iter().collect();
            let mut old = None;
            while let Some(vdev) = below.pop() {
                below.extend(&vdev.children);
                let new = vdev.children.last().filter(|_| vdev.config.kind == VdevKind::Replacing);
                if new.is_some_and(|n| n.state().is_readable() && n.dtl().is_empty()) {
                    old = vdev.children.first().map(zfs_zio::Vdev::guid);
                }
            }
            let Some(old) = old else { return Ok(()) };
            self.leave(old)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(guid: u64) -> NvList {
        let mut nv = NvList::new();
        nv.put("type", "file").put("id", 0u64).put("guid", guid).put("asize", 7u64).put("ashift", 9u64);
        nv
    }

    #[test]
    fn a_mirror_around_a_device_and_back() {
        let mut root = NvList::new();
        root.put("type", "root").put("guid", 1u64);
        root.set("children", NvValue::NvListArray(vec![leaf(2)]));
        let mut new = NvList::new();
        new.put("type", "file").put("guid", 3u64);
        assert!(rewrite(&mut root, 2, &mut |old| around("mirror", 9, old, new.clone())));
        let mirror = root.lists("children")[0].clone();
        assert_eq!((mirror.u64("asize"), mirror.u64("guid")), (Some(7), Some(9)));
        assert_eq!(mirror.lists("children")[0].u64("asize"), None);
        assert_eq!(parent(&root, 3).and_then(|p| p.u64("guid")), Some(9));
        assert!(rewrite(&mut root, 9, &mut |vdev| without(vdev, 2)));
        let left = &root.lists("children")[0];
        assert_eq!((left.u64("guid"), left.u64("asize"), left.str("type")), (Some(3), Some(7), Some("file")));
    }
}
