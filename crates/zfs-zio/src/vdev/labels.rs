//! Writing labels and uberblocks in the order that survives a crash at any point.
//!
//! A change of the configuration must never leave a pool whose newest uberblock goes with no label, nor lose the old
//! state before the new one is whole. So: everything the new uberblock leads to is flushed; labels 0 and 2 get the new
//! configuration, flush; the uberblock goes to all labels, flush; labels 1 and 3 get the configuration, flush. At every
//! moment one pair of labels agrees with the newest uberblock (`vdev_config_sync`, module/zfs/vdev_label.c).
//!
//! What configurations say is the caller's matter; here they are bytes that get sealed for their place.

use super::tree::{Vdev, VdevTree};
use crate::error::{Error, ErrorKind, Result};
use std::io;
use zfs_codec::checksum::{label_verifier, seal_embedded};
use zfs_env::TaskPool;
use zfs_phys::Endian;
use zfs_phys::enums::ChecksumKind;
use zfs_phys::label::{
    VDEV_LABEL_SIZE, VDEV_LABELS, VDEV_PAD_SIZE, VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, VDEV_UBERBLOCK_RING,
    VDEV_UBERBLOCK_RING_OFFSET, label_offset, uberblock_offset, uberblock_shift,
};
use zfs_phys::uberblock::Uberblock;

/// Gives the configuration area of a leaf's labels (as `zfs_phys::label::encode_config` makes it, not sealed), or
/// nothing for leaves whose labels stay as they are.
pub type LeafConfig<'a> = &'a dyn Fn(&Vdev) -> Result<Option<Vec<u8>>>;

impl Vdev {
    /// Writes `area` at byte `at` of label `n` of a leaf, sealed for its place when `seal` is set.
    fn write_label_part(&self, n: usize, at: u64, area: &mut [u8], seal: bool) -> io::Result<()> {
        let device = self.device().filter(|_| self.state().is_readable()).ok_or(io::ErrorKind::NotFound)?;
        let base = label_offset(device.size(), n).ok_or(io::ErrorKind::InvalidInput)?;
        if seal {
            let verifier = label_verifier(base + at);
            seal_embedded(ChecksumKind::Label, area, verifier, Endian::NATIVE, None).map_err(io::Error::other)?;
        }
        let result = device.write_at(base + at, area);
        self.unflushed.note(0);
        match &result {
            Ok(()) => self.stats.count_write(area.len() as u64),
            Err(error) => {
                tracing::warn!(vdev = self.guid(), label = n, %error, "label write failed");
                self.stats.count_write_error();
            }
        }
        result
    }

    /// Writes the configuration area of label `n` (0 to 3) of a leaf; volatile until a flush.
    pub fn write_label_config(&self, n: usize, config: &mut [u8]) -> Result<()> {
        if config.len() as u64 != VDEV_PHYS_SIZE {
            return Err(Error::invalid("a label's configuration of the wrong size"));
        }
        self.write_label_part(n, VDEV_SKIP_SIZE, config, true).map_err(|e| Error::from(e).on_vdev(self.guid()))
    }

    /// Writes the uberblock to label `n` of a leaf, in the slot of its txg; volatile until a flush.
    pub fn write_uberblock(&self, n: usize, ub: &Uberblock, multihost: bool) -> Result<()> {
        let ashift = u64::from(self.ashift);
        let mut slot = ub.encode(1 << uberblock_shift(ashift))?;
        let at = uberblock_offset(ub.txg, ashift, multihost);
        self.write_label_part(n, at, &mut slot, true).map_err(|e| Error::from(e).on_vdev(self.guid()))
    }

    /// Writes all four labels of a leaf anew: padding, boot environment (`bootenv`: 8 KiB, not sealed; zeros when there
    /// is none), configuration, and an empty uberblock ring. For leaves that join a pool; volatile until a flush.
    pub fn init_labels(&self, config: &[u8], bootenv: Option<&[u8]>) -> Result<()> {
        let failed = |e: io::Error| Error::from(e).on_vdev(self.guid());
        if config.len() as u64 != VDEV_PHYS_SIZE || bootenv.is_some_and(|b| b.len() as u64 != VDEV_PAD_SIZE) {
            return Err(Error::invalid("parts of a label of the wrong size"));
        }
        for n in 0..VDEV_LABELS {
            self.write_label_part(n, 0, &mut vec![0; VDEV_SKIP_SIZE as usize], false).map_err(failed)?;
            if let Some(env) = bootenv {
                self.write_label_part(n, VDEV_PAD_SIZE, &mut env.to_vec(), true).map_err(failed)?;
            }
            self.write_label_part(n, VDEV_SKIP_SIZE, &mut config.to_vec(), true).map_err(failed)?;
            let mut ring = vec![0; VDEV_UBERBLOCK_RING as usize];
            self.write_label_part(n, VDEV_UBERBLOCK_RING_OFFSET, &mut ring, false).map_err(failed)?;
        }
        Ok(())
    }

    /// Wipes all four labels of a leaf, so that nobody takes it for a pool's; volatile until a flush.
    pub fn clear_labels(&self) -> Result<()> {
        for n in 0..VDEV_LABELS {
            let wiped = self.write_label_part(n, 0, &mut vec![0; VDEV_LABEL_SIZE as usize], false);
            wiped.map_err(|e| Error::from(e).on_vdev(self.guid()))?;
        }
        Ok(())
    }
}

impl VdevTree {
    /// Leaves that carry labels.
    fn labelled(&self) -> Vec<&Vdev> {
        self.leaves().into_iter().filter(|l| l.device().is_some() && l.state().is_readable()).collect()
    }

    /// Makes `ub` the root of the pool, after everything it leads to: see the order above. `config` is called for every
    /// leaf when the configuration changed. The leaves' labels must leave room for a heartbeat when `multihost` is on.
    ///
    /// Fails when the uberblock reached no device, or the labels of some top-level vdev could not be written, or a flush
    /// fails beyond redundancy: whether the pool is at the old or the new txg is then known only at the next import.
    pub fn commit(
        &self,
        ub: &Uberblock,
        multihost: bool,
        config: Option<LeafConfig<'_>>,
        tasks: Option<&TaskPool>,
    ) -> Result<()> {
        self.flush(tasks)?;
        if let Some(config) = config {
            self.write_configs(&[0, 2], config)?;
            self.flush(tasks)?;
        }
        self.write_uberblocks(ub, multihost)?;
        self.flush(tasks)?;
        if let Some(config) = config {
            self.write_configs(&[1, 3], config)?;
            self.flush(tasks)?;
        }
        Ok(())
    }

    /// Writes the configuration to some labels of every leaf. One good label of each top-level vdev is enough; those of
    /// separate logs may fail.
    fn write_configs(&self, labels: &[usize], config: LeafConfig<'_>) -> Result<()> {
        for top in &self.root().children {
            let (mut wanted, mut good) = (0, 0);
            for leaf in top.leaves().into_iter().filter(|l| l.device().is_some() && l.state().is_readable()) {
                let Some(mut area) = config(leaf)? else { continue };
                for n in labels {
                    wanted += 1;
                    good += u32::from(leaf.write_label_config(*n, &mut area).is_ok());
                }
            }
            if wanted > 0 && good == 0 && !top.config.is_log {
                return Err(Error::new(ErrorKind::Io, "no label of a vdev could be written").on_vdev(top.guid()));
            }
        }
        Ok(())
    }

    /// Writes the uberblock to all labels of every leaf.
    fn write_uberblocks(&self, ub: &Uberblock, multihost: bool) -> Result<()> {
        let mut good = 0u32;
        for leaf in self.labelled() {
            let written = (0..VDEV_LABELS).filter(|n| leaf.write_uberblock(*n, ub, multihost).is_ok()).count() as u32;
            leaf.was_given_uberblock(ub.txg, written > 0);
            good += written;
        }
        if good == 0 {
            return Err(Error::new(ErrorKind::Io, "the uberblock could not be written to any device").txg(ub.txg));
        }
        Ok(())
    }
}
