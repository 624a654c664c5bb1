//! The program of the host app. An extension comes inside an app; this one has no window and says where to go.

fn main() {
    println!(
        "uzfs holds the ZFS file-system extension. Enable it in System Settings > General > Login Items & Extensions > \
         File System Extensions, then mount with: mount -F -t zfs /dev/diskN /Volumes/NAME"
    );
}
