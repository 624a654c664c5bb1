//! Directory listings on the wire: `fuse_dirent` and `fuse_direntplus`, packed up to the size that was asked for.

use crate::abi::Out;
use crate::attrs::{FOREVER, push_entry, push_no_entry};
use zfs_zio::Result;
use zfs_zpl::{DirEntry, NodeId, Vfs};

/// Bytes of `fuse_dirent` in front of the name.
const DIRENT: usize = 24;
/// Bytes of `fuse_entry_out`, which stands in front of it in the long form.
const ENTRY: usize = 128;
/// The most that is packed, whatever is asked for.
const MOST: usize = 1 << 20;

/// Lists `dir` from `cookie` into at most `size` bytes; `plus` with attributes.
pub fn list(vfs: &Vfs, dir: NodeId, cookie: u64, size: usize, plus: bool) -> Result<Vec<u8>> {
    let size = size.min(MOST);
    let mut o = Out(Vec::with_capacity(size.min(64 << 10)));
    vfs.readdir(dir, cookie, &mut |entry| {
        let len = (DIRENT + entry.name.len()).next_multiple_of(8) + if plus { ENTRY } else { 0 };
        if o.0.len() + len > size {
            return false;
        }
        if plus {
            push_attributes(&mut o, vfs, entry);
        }
        o.u64(entry.ino).u64(entry.next).u32(entry.name.len() as u32);
        o.u32(entry.kind.map_or(0, |k| u32::from(k.dirent())));
        o.0.extend_from_slice(entry.name);
        o.0.resize(o.0.len().next_multiple_of(8), 0);
        true
    })?;
    Ok(o.0)
}

/// The attributes of an entry. `.` and `..` have none: the kernel must not count references to them. Neither has an
/// entry whose file cannot be read: listing goes on, and whoever looks at the file meets the error.
fn push_attributes(o: &mut Out, vfs: &Vfs, entry: &DirEntry<'_>) {
    match vfs.getattr(entry.node) {
        Ok(attr) if entry.name != b"." && entry.name != b".." => push_entry(o, vfs, entry.node, &attr),
        _ => push_no_entry(o, FOREVER),
    }
}
