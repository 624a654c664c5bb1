//! A pool whose devices failed: what it does then, and how it goes on when they are back (`zpool clear`).
//!
//! The waiting itself is `zfs_zio::write::gate`'s. Here devices are opened again, and refused where they hold an older state
//! than the pool had: every txg leaves its uberblock on all devices that take it, so one that had it and lacks it now has
//! lost a flush, or is a copy. Whether the pool waits at all is for whoever opened it to say ([`Spa::follow_failmode`]).
//!
//! Lock order: resuming takes none of the pool's locks, because those who wait may hold any of them.

use super::Spa;
use super::devices::outage;
use crate::config::POOL_DIRECTORY;
use crate::labels::DeviceLabels;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zfs_dmu::{Error, ErrorKind, Result, Zap};
use zfs_env::BlockDevice;
use zfs_zio::write::FailMode;
use zfs_zio::{Vdev, VdevAux, VdevKind, VdevState};

/// Opens the device of a leaf again; nothing where it is not there.
pub type Reopen<'a> = &'a dyn Fn(&Vdev) -> Option<Arc<dyn BlockDevice>>;

/// The mode that a number of property `failmode` stands for (`zio_failure_mode_t`).
fn mode(number: u64) -> FailMode {
    match number {
        1 => FailMode::Continue,
        2 => FailMode::Panic,
        _ => FailMode::Wait,
    }
}

impl Spa {
    /// From now on the pool waits, or not, for devices that fail, as its property `failmode` says.
    ///
    /// # Errors
    /// When the property cannot be read.
    pub fn follow_failmode(&self) -> Result<()> {
        let object = Zap::open(&self.mos, POOL_DIRECTORY)?.lookup_u64(b"pool_props")?;
        let stored = object.map(|o| Zap::open(&self.mos, o)?.lookup_u64(b"failmode")).transpose()?.flatten();
        self.follows_failmode.store(true, Relaxed);
        self.txgs.set_gate(&self.zio);
        self.zio.set_fail_mode(mode(stored.unwrap_or(0)));
        Ok(())
    }

    /// The property `failmode` is another now.
    pub(super) fn failmode_changed(&self, number: u64) {
        if self.follows_failmode.load(Relaxed) {
            self.zio.set_fail_mode(mode(number));
        }
    }

    /// Ends all writing of a suspended pool: those who wait for its devices are told that they failed.
    pub fn give_up(&self) {
        if self.zio.is_suspended() {
            self.zio.break_down(&Error::new(ErrorKind::Suspended, "giving up a suspended pool"));
        }
    }

    /// Lets a suspended pool go on: opens devices again that are away or had errors, writes again what they may have lost, and
    /// has everybody who waits try again. Gives the devices that were opened, which may lack something.
    ///
    /// # Errors
    /// `Io` when too many devices are still away, or hold an older state of the pool; `Suspended` when it cannot go on.
    pub fn resume_io(&self, reopen: Reopen<'_>) -> Result<Vec<u64>> {
        if !self.zio.is_suspended() {
            return Ok(Vec::new());
        }
        if !self.zio.can_resume() {
            return Err(Error::new(ErrorKind::Suspended, "letting a pool go on"));
        }
        let mut opened = Vec::new();
        let mut stale = Vec::new();
        for leaf in self.zio.vdevs().leaves() {
            let device = matches!(leaf.config.kind, VdevKind::Disk | VdevKind::File);
            let errors = leaf.stats.read_errors() + leaf.stats.write_errors();
            let well = leaf.state().is_readable() && errors == 0 && leaf.answers();
            if !device || leaf.state() == VdevState::Offline || well {
                continue;
            }
            leaf.close(VdevState::CantOpen, VdevAux::OpenFailed);
            let Some(device) = reopen(leaf) else { continue };
            let newest = DeviceLabels::read(&*device).uberblocks.iter().map(|u| u.ub.txg).max().unwrap_or(0);
            if leaf.reopen(device).is_err() {
                continue;
            }
            leaf.stats.clear_errors();
            opened.push(leaf.guid());
            let before = leaf.dtl();
            if self.lost_its_place(leaf, newest) {
                stale.push((leaf, before));
            }
        }
        self.zio.vdevs().reevaluate();
        if let Err(e) = self.refuse_older(&stale.iter().map(|(l, _)| l.guid()).collect::<Vec<_>>()) {
            // They are as good as away, and what comes in their place may lack nothing.
            for (leaf, before) in stale {
                leaf.close(VdevState::CantOpen, VdevAux::OpenFailed);
                leaf.set_dtl(before);
            }
            self.zio.vdevs().reevaluate();
            return Err(e);
        }
        self.zio.resume()?;
        Ok(opened)
    }

    /// Whether a device lacks the newest txg on disk though it was written to it; it is noted as lacking all since.
    fn lost_its_place(&self, leaf: &Vdev, newest: u64) -> bool {
        let synced = self.uberblock().txg;
        if newest >= leaf.uberblock_txg(synced) || leaf.is_stale(synced) {
            return false;
        }
        tracing::error!(vdev = leaf.guid(), newest, synced, "device holds an older state of the pool");
        leaf.lacks(newest + 1..synced + 1);
        true
    }

    /// Fails when more devices of a vdev hold an older state than it can do without.
    fn refuse_older(&self, stale: &[u64]) -> Result<()> {
        for top in &self.zio.vdevs().root().children {
            let lacking = |l: &Vdev| !l.state().is_readable() || stale.contains(&l.guid());
            let old = top.leaves().iter().any(|l| stale.contains(&l.guid()));
            if old && outage(top, &lacking) {
                return Err(Error::new(ErrorKind::Io, "letting a pool go on whose devices hold an older state"));
            }
        }
        Ok(())
    }

    /// What is due when a pool goes on: devices that were opened again get what they lack. Done by a thread of its own, since
    /// the pool may be suspended again before that.
    pub fn after_resuming(self: &Arc<Self>, opened: &[u64]) {
        if opened.is_empty() {
            return;
        }
        let me = Arc::downgrade(self);
        let due = move || {
            let Some(spa) = me.upgrade() else { return };
            let _one = spa.changing.lock();
            // A scan may have written to devices what they have lost.
            spa.halt_scan();
            if let Err(error) = spa.resilver_if_needed() {
                tracing::error!(%error, "devices that are back cannot be given what they lack");
            }
        };
        if let Err(error) = zfs_env::spawn("resumed", due) {
            tracing::error!(%error, "devices that are back cannot be given what they lack");
        }
    }
}
