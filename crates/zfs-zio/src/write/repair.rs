//! Repairing what a read found damaged, once it has the right bytes.

use crate::vdev::{Damage, WriteIo};
use crate::zio::Zio;
use zfs_phys::Dva;

impl Zio {
    /// Writes the good bytes of a block back to the places where others were found. Best effort: a device that refuses
    /// keeps its damage, which the next read will find again.
    pub(crate) fn repair(&self, birth: u64, wounds: &[(Dva, Vec<Damage>)], good: &[u8]) {
        if wounds.is_empty() || !self.is_writable() {
            return;
        }
        for (dva, damage) in wounds {
            let Some(top) = self.vdevs().top(dva.vdev()) else { continue };
            match top.write(WriteIo::repair(birth, damage), dva.offset(), good) {
                Ok(()) => tracing::info!(vdev = dva.vdev(), offset = dva.offset(), "repaired a block"),
                Err(e) => tracing::warn!(vdev = dva.vdev(), offset = dva.offset(), error = ?e, "repair failed"),
            }
        }
    }
}
