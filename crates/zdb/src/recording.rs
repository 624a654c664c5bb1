//! `zdb -x DIR`: every byte that is read is also written to a sparse copy of its device in a directory, so that a
//! small part of a pool can be taken elsewhere and looked at there. Copies are new files: nothing that is there, least of
//! all a device of the pool, is written over.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use zfs_env::BlockDevice;
use zfs_phys::label::{VDEV_LABEL_END_SIZE, VDEV_LABEL_SIZE};
use zfs_spa::PoolCandidate;

struct Recording {
    device: Arc<dyn BlockDevice>,
    copy: File,
}

impl BlockDevice for Recording {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.device.read_at(offset, buf)?;
        self.copy.write_all_at(buf, offset)
    }

    fn path(&self) -> String {
        self.device.path()
    }
}

/// A device that copies to `dir` what is read of it. Its labels were read when it was found, so they are copied now.
fn recorded(dir: &Path, path: &Path, device: &Arc<dyn BlockDevice>) -> io::Result<Arc<dyn BlockDevice>> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let copy = OpenOptions::new().create_new(true).write(true).open(dir.join(name))?;
    copy.set_len(device.size())?;
    let recording = Recording { device: device.clone(), copy };
    let mut label = vec![0; VDEV_LABEL_SIZE as usize];
    // As OpenZFS reckons: the two at the end stand at a multiple of a label's size.
    let end = (device.size() & !(VDEV_LABEL_SIZE - 1)).saturating_sub(VDEV_LABEL_END_SIZE);
    for at in [0, VDEV_LABEL_SIZE, end, end + VDEV_LABEL_SIZE] {
        recording.read_at(at, &mut label)?;
    }
    Ok(Arc::new(recording))
}

/// Makes all reads of the pool's devices leave copies in `dir`.
///
/// # Errors
/// When the copies cannot be made.
pub fn record(candidate: &mut PoolCandidate, dir: &Path) -> io::Result<()> {
    for found in candidate.devices.values_mut() {
        found.device = recorded(dir, &found.path, &found.device)?;
    }
    Ok(())
}
