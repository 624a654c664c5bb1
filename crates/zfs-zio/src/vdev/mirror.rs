//! Mirrors, and the mirrors that replacing and spare vdevs are.

use super::tree::Vdev;
use super::{ReadIo, VdevError};
use crate::config::VdevKind;

impl Vdev {
    pub(super) fn read_mirror(&self, io: &mut ReadIo<'_>, offset: u64, buf: &mut [u8]) -> Result<(), VdevError> {
        let order = self.mirror_order(io.draid, io.depth, io.birth, offset);
        if io.all_copies {
            return self.read_every_side(io, &order, offset, buf);
        }
        let mut worst = VdevError::NoDevice;
        for (tried, &side) in order.iter().enumerate() {
            match self.children[side].read(io, offset, buf) {
                Ok(()) => return Ok(()),
                Err(e) if tried == 0 => worst = e,
                Err(e) => worst = worst.min(e),
            }
        }
        // A side that failed at first may have been skipped for being stale; nothing else is left to try.
        Err(worst)
    }

    /// For checking: every side that should be good is read; the buffer ends up with a good one's bytes.
    fn read_every_side(
        &self,
        io: &mut ReadIo<'_>,
        order: &[usize],
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), VdevError> {
        let mut result = Err(VdevError::NoDevice);
        let mut scratch = vec![0u8; buf.len()];
        for &side in order {
            let got = self.children[side].read(io, offset, &mut scratch);
            match (got, result) {
                (Ok(()), Err(_)) => {
                    buf.copy_from_slice(&scratch);
                    result = Ok(());
                }
                (Err(e), Err(so_far)) => result = Err(e.min(so_far)),
                _ => {}
            }
        }
        result
    }

    /// Sides in the order to try them: those known to hold the txg before stale ones; replacing and spare vdevs by
    /// position, because the first child is the one that has been there longest; otherwise neighbouring megabytes
    /// alternate between sides, so that sequential readers use all disks and each disk stays sequential.
    pub(super) fn mirror_order(&self, draid: Option<&Vdev>, depth: u32, birth: u64, offset: u64) -> Vec<usize> {
        let n = self.children.len();
        let first = match self.config.kind {
            VdevKind::Mirror => (offset >> 20) as usize % n.max(1),
            _ => 0,
        };
        let mut order: Vec<usize> = (0..n).map(|i| (first + i) % n).collect();
        order.sort_by_key(|&i| {
            let child = &self.children[i];
            if !child.state().is_readable() { 2u8 } else { u8::from(child.is_stale_at(draid, depth, offset, birth)) }
        });
        order
    }
}
