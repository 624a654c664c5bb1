//! macOS 27's handler protocols: the operations of 15.4, answered with results.
//!
//! A result carries the attributes of the file and of the directories that the operation changed, so that the kernel need
//! not come back for them (a way of 70 microseconds, ours to the daemon takes 9). FSKit keeps what a result says,
//! so each is read after the change, and all attributes are in it. Calls also say on whose behalf they come: what
//! is made belongs to that user, and access is checked here, by the file system's ACLs, instead of by the kernel.
//!
//! Each function is written over [`VolumeOperations`], so the classes of both generations share everything else.

use crate::api::{
    Context, FsResult, Host, ItemAttributes, ItemType, Linked, Looked, Made, Removed, Renamed, SetAttributes,
    VolumeOperations, access, attribute,
};

/// Finds a name.
pub(crate) fn look<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    name: &[u8],
    dir: &H::Item,
) -> FsResult<Looked<H::Item>> {
    let (item, name) = v.lookup(name, dir)?;
    let attributes = v.get_attributes(&item)?;
    Ok(Looked { item, name, attributes })
}

/// What is made belongs to the caller unless something else is asked for; its group is the directory's, as on BSD.
fn for_caller<T>(
    request: &mut SetAttributes,
    who: Context,
    make: impl FnOnce(&mut SetAttributes) -> FsResult<T>,
) -> FsResult<T> {
    let asked = request.wanted.uid.is_some();
    request.wanted.uid.get_or_insert(who.uid);
    let made = make(request);
    if !asked {
        request.wanted.uid = None;
        request.consumed &= !attribute::UID;
    }
    made
}

fn made<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    (item, name): (H::Item, Vec<u8>),
    dir: &H::Item,
) -> FsResult<Made<H::Item>> {
    let (attributes, directory) = (v.get_attributes(&item)?, v.get_attributes(dir)?);
    Ok(Made { item, name, attributes, directory })
}

/// Makes a file or directory.
pub(crate) fn make<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    name: &[u8],
    kind: ItemType,
    dir: &H::Item,
    attrs: &mut SetAttributes,
    who: Context,
) -> FsResult<Made<H::Item>> {
    let new = for_caller(attrs, who, |attrs| v.create(name, kind, dir, attrs))?;
    made(v, new, dir)
}

/// Makes a symbolic link.
pub(crate) fn make_symlink<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    name: &[u8],
    dir: &H::Item,
    attrs: &mut SetAttributes,
    target: &[u8],
    who: Context,
) -> FsResult<Made<H::Item>> {
    let new = for_caller(attrs, who, |attrs| v.create_symlink(name, dir, attrs, target))?;
    made(v, new, dir)
}

/// Gives a file another name.
pub(crate) fn make_link<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    item: &H::Item,
    name: &[u8],
    dir: &H::Item,
) -> FsResult<Linked> {
    let name = v.create_link(item, name, dir)?;
    Ok(Linked { name, attributes: v.get_attributes(item)?, directory: v.get_attributes(dir)? })
}

/// Attributes of a file that lost a name: a directory is gone then, and has none any more.
fn after_loss<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    item: &H::Item,
    before: ItemAttributes,
) -> ItemAttributes {
    v.get_attributes(item).unwrap_or(ItemAttributes {
        link_count: before.link_count.map(|n| if before.kind == Some(ItemType::Directory) { 0 } else { n.max(1) - 1 }),
        ..before
    })
}

/// Takes a name away.
pub(crate) fn take_away<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    item: &H::Item,
    name: &[u8],
    dir: &H::Item,
) -> FsResult<Removed> {
    let before = v.get_attributes(item)?;
    v.remove(item, name, dir)?;
    Ok(Removed { attributes: after_loss(v, item, before), directory: v.get_attributes(dir)? })
}

/// Renames.
pub(crate) fn move_to<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    item: &H::Item,
    from: (&H::Item, &[u8]),
    to: (&H::Item, &[u8]),
    over: Option<&H::Item>,
) -> FsResult<Renamed> {
    let before = over.map(|item| v.get_attributes(item).map(|a| (item, a))).transpose()?;
    let name = v.rename(item, from, to, over)?;
    Ok(Renamed {
        name,
        attributes: v.get_attributes(item)?,
        from: v.get_attributes(from.0)?,
        to: v.get_attributes(to.0)?,
        over: before.map(|(item, a)| after_loss(v, item, a)),
    })
}

/// What of the daemon's three bits (4 read, 2 write, 1 execute) FSKit's rights need, and whether only the owner has them.
/// Whether a file may be deleted is decided by its directory's right to delete children.
fn bits(mask: u64) -> (u32, bool) {
    let has = |bits: u64| mask & bits != 0;
    let mut want = 0;
    if has(access::READ_DATA | access::READ_XATTR) {
        want |= 4;
    }
    if has(access::WRITE_DATA | access::APPEND_DATA | access::DELETE_CHILD | access::WRITE_XATTR) {
        want |= 2;
    }
    if has(access::EXECUTE) {
        want |= 1;
    }
    (want, has(access::WRITE_SECURITY | access::TAKE_OWNERSHIP))
}

/// Whether a caller may do all that `mask` says.
pub(crate) fn may<H: Host, V: VolumeOperations<H> + ?Sized>(
    v: &V,
    item: &H::Item,
    mask: u64,
    who: Context,
) -> FsResult<bool> {
    let (mut want, owners) = bits(mask);
    if owners || mask & access::WRITE_ATTRIBUTES != 0 {
        let owner = who.uid == 0 || v.get_attributes(item)?.uid == Some(who.uid);
        if owners && !owner {
            return Ok(false);
        }
        // Whoever may write may also set times to now.
        if !owner {
            want |= 2;
        }
    }
    if want == 0 { Ok(true) } else { v.check_access(item, want, who) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_and_bits() {
        assert_eq!(bits(access::READ_DATA), (4, false));
        assert_eq!(bits(access::WRITE_DATA | access::EXECUTE), (3, false));
        assert_eq!(bits(access::DELETE_CHILD), (2, false));
        assert_eq!(bits(access::DELETE | access::READ_ATTRIBUTES | access::READ_SECURITY), (0, false));
        assert_eq!(bits(access::TAKE_OWNERSHIP), (0, true));
    }
}
