//! Devices that fail too often are taken out of use, and hot spares take their place: what OpenZFS leaves to `zed`.
//!
//! Whoever runs a pool calls [`Spa::watch`] now and then. Errors are counted over ten minutes (`zfs_diagnosis`: more than ten
//! errors of reading and writing fault a device, more than ten wrong checksums call it degraded). A device that is out of
//! use gets a hot spare beside it, in a vdev of kind `spare`, which a resilver fills. When the device is whole again, or
//! a new one has taken its place, the spare goes back to the list; when the device is detached instead, the spare stays.
//!
//! Lock order: `changing` is taken for each change.

use super::Spa;
use super::plan::NewVdev;
use std::collections::HashMap;
use std::sync::Arc;
use zfs_dmu::Result;
use zfs_env::BlockDevice;
use zfs_phys::NvList;
use zfs_zio::{Vdev, VdevAux, VdevKind, VdevState};

/// Errors of a kind, within the window, that a device may have.
const MOST_ERRORS: u64 = 10;
/// Seconds that errors are counted over.
const WINDOW: u64 = 600;

/// Errors at the beginning of a window.
#[derive(Debug, Clone, Copy)]
struct Seen {
    since: u64,
    io: u64,
    checksum: u64,
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Watch {
    seen: HashMap<u64, Seen>,
}

/// What to do about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Degrade,
    Fault,
}

impl Watch {
    fn judge(&mut self, guid: u64, now: u64, io: u64, checksum: u64) -> Verdict {
        let seen = self.seen.entry(guid).or_insert(Seen { since: now, io: 0, checksum: 0 });
        // Counts that went down were cleared.
        if io < seen.io || checksum < seen.checksum {
            *seen = Seen { since: now, io: 0, checksum: 0 };
        }
        let verdict = match (io - seen.io > MOST_ERRORS, checksum - seen.checksum > MOST_ERRORS) {
            (true, _) => Verdict::Fault,
            (false, true) => Verdict::Degrade,
            _ => Verdict::Fine,
        };
        if now.saturating_sub(seen.since) >= WINDOW {
            *seen = Seen { since: now, io, checksum };
        }
        verdict
    }
}

/// The leaves of a tree that no spare or replacement stands beside yet.
fn alone<'a>(vdev: &'a Vdev, out: &mut Vec<&'a Vdev>) {
    for child in &vdev.children {
        if child.config.kind.is_leaf() {
            if !matches!(vdev.config.kind, VdevKind::Spare | VdevKind::Replacing) {
                out.push(child);
            }
        } else {
            alone(child, out);
        }
    }
}

impl Spa {
    /// Looks at all devices: takes those with too many errors out of use, puts hot spares beside those that are out of use
    /// and brings back spares that are not needed any more. `open` opens a spare by its configuration.
    ///
    /// # Errors
    /// Whatever changing the configuration meets; what can be done is done.
    pub fn watch(
        self: &Arc<Self>,
        watch: &mut Watch,
        open: &dyn Fn(&NvList) -> Option<Arc<dyn BlockDevice>>,
    ) -> Result<()> {
        if self.zio.is_suspended() {
            return Ok(());
        }
        self.tell_states();
        let done = self.condemn(watch);
        let spared = self.bring_spares(open);
        let returned = {
            let _one = self.changing.lock();
            self.finish_sparing()
        };
        self.tell_states();
        done.and(spared).and(returned)
    }

    /// The spares beside a device are given back when that is whole again.
    pub(super) fn release_spares_of(&self, guid: u64) {
        let mut below = vec![self.zio.vdevs().root()];
        while let Some(vdev) = below.pop() {
            if vdev.config.kind == VdevKind::Spare && vdev.find(guid).is_some() {
                let mut kept = self.kept.lock();
                vdev.leaves().iter().for_each(|l| {
                    kept.remove(&l.guid());
                });
            }
            below.extend(&vdev.children);
        }
    }

    fn condemn(self: &Arc<Self>, watch: &mut Watch) -> Result<()> {
        let now = self.ops.seconds();
        let mut result = Ok(());
        for leaf in self.zio.vdevs().leaves() {
            if !leaf.state().is_readable() {
                continue;
            }
            let io = leaf.stats.read_errors() + leaf.stats.write_errors();
            match watch.judge(leaf.guid(), now, io, leaf.stats.checksum_errors()) {
                Verdict::Fine => {}
                Verdict::Degrade => leaf.degrade(),
                Verdict::Fault => {
                    tracing::error!(vdev = leaf.guid(), errors = io, "device has too many errors and is out of use");
                    result = result.and(self.condemn_one(leaf));
                }
            }
        }
        self.zio.vdevs().reevaluate();
        result
    }

    /// A device that the pool cannot do without stays in use, degraded.
    fn condemn_one(&self, leaf: &Vdev) -> Result<()> {
        match self.take_away(leaf.guid(), VdevState::Faulted, VdevAux::ErrExceeded, false) {
            Err(e) if e.kind() == zfs_zio::ErrorKind::Busy => {
                leaf.degrade();
                Ok(())
            }
            other => other,
        }
    }

    fn bring_spares(self: &Arc<Self>, open: &dyn Fn(&NvList) -> Option<Arc<dyn BlockDevice>>) -> Result<()> {
        let mut leaves = Vec::new();
        alone(self.zio.vdevs().root(), &mut leaves);
        let failed = |l: &&&Vdev| {
            matches!(l.state(), VdevState::Faulted | VdevState::CantOpen | VdevState::Removed) && !l.config.is_spare
        };
        let failed: Vec<u64> = leaves.iter().filter(failed).map(|l| l.guid()).collect();
        if failed.is_empty() {
            // Nothing is read while all is well.
            return Ok(());
        }
        let spares = self.auxiliaries("spares")?;
        for guid in failed {
            for spare in self.in_order(&spares, guid) {
                let own = spare.u64("guid").unwrap_or(0);
                if self.zio.vdevs().find(own).is_some() {
                    continue;
                }
                let path = spare.str("path").unwrap_or("").to_owned();
                let disk = spare.str("type") == Some("disk");
                let new = match spare.str("type") {
                    Some("dspare") => NewVdev::DistributedSpare(path),
                    _ => match open(spare) {
                        Some(device) => NewVdev::Leaf { path, device, disk },
                        None => continue,
                    },
                };
                match self.attach_spare(guid, own, &new) {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, spare = own, "hot spare cannot take the place"),
                }
            }
        }
        Ok(())
    }

    /// Spares that may stand in for a device: those of its own dRAID first, which are filled fastest, and never another's.
    fn in_order<'a>(&self, spares: &'a [NvList], guid: u64) -> Vec<&'a NvList> {
        let tops = &self.zio.vdevs().root().children;
        let top = tops.iter().find(|t| t.find(guid).is_some()).map(Vdev::guid);
        let own = |s: &&NvList| s.str("type") == Some("dspare") && s.u64("top_guid") == top;
        let ordinary = |s: &&NvList| s.str("type") != Some("dspare");
        spares.iter().filter(own).chain(spares.iter().filter(ordinary)).collect()
    }

    /// Brings spares back whose device is whole again. `changing` is held.
    pub(super) fn finish_sparing(&self) -> Result<()> {
        loop {
            let mut below: Vec<&Vdev> = self.zio.vdevs().root().children.iter().collect();
            let mut spare = None;
            while let Some(vdev) = below.pop() {
                below.extend(&vdev.children);
                let whole = |v: &Vdev| v.config.kind.is_leaf() && v.state().is_readable() && v.dtl().is_empty();
                let (first, last) = (vdev.children.first(), vdev.children.last());
                if vdev.config.kind == VdevKind::Spare
                    && first.is_some_and(|v| whole(v) && v.state() == VdevState::Healthy)
                {
                    spare = spare.or(last
                        .filter(|l| l.config.is_spare)
                        .map(Vdev::guid)
                        .filter(|g| !self.kept.lock().contains(g)));
                }
            }
            let Some(spare) = spare else { return Ok(()) };
            self.leave(spare)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_within_their_window() {
        let mut watch = Watch::default();
        assert_eq!(watch.judge(1, 0, 0, 0), Verdict::Fine);
        assert_eq!(watch.judge(1, 10, 10, 3), Verdict::Fine);
        assert_eq!(watch.judge(1, 20, 11, 3), Verdict::Fault);
        assert_eq!(watch.judge(2, 20, 0, 11), Verdict::Degrade);
        // Now and then an error is nothing.
        for n in 0..50 {
            assert_eq!(watch.judge(3, n * WINDOW, n * 9, n * 9), Verdict::Fine, "{n}");
        }
        // Cleared counts begin anew.
        assert_eq!(watch.judge(1, 30, 0, 0), Verdict::Fine);
        assert_eq!(watch.judge(1, 40, 9, 0), Verdict::Fine);
    }
}
