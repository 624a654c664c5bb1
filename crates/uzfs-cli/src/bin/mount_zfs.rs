//! The program `mount.zfs`, which `mount -t zfs DATASET DIRECTORY` runs.

fn main() {
    uzfs_cli::with_session(uzfs_client::mount_helper)
}
