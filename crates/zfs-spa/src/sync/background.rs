//! Work between syncs on a thread of its own: looking through livelists that are to be condensed.
//!
//! One thread at a time, begun by the sync that found something, and done before the sync that makes use of it, which it
//! asks for. It holds the dataset layer, not the pool, so that it keeps nobody from closing that.

use super::Spa;

impl Spa {
    /// Begins what the last sync found to do. What cannot be begun is found again.
    pub(super) fn condense(&self) {
        let Some(work) = self.dsl.condensing_due() else { return };
        let txgs = self.txgs.clone();
        let run = move || {
            if work.run() {
                txgs.kick();
            }
        };
        match zfs_env::spawn("condense", run) {
            Ok(thread) => *self.condensing.lock() = Some(thread),
            Err(error) => tracing::error!(%error, "livelists are not condensed"),
        }
    }

    /// Ends that, before the pool is closed.
    pub(super) fn end_condensing(&self) {
        self.dsl.end_condensing();
        let thread = self.condensing.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("condensing livelists failed");
        }
    }
}
