//! The module's results as the objects of macOS 27's replies. An initializer that refuses gives nothing, and the reply
//! is an I/O error then.

use super::convert;
use super::item::MacItem;
use super::types27::*;
use crate::api::{FsError, FsResult, ItemAttributes, Linked, Looked, Made, Removed, Renamed};
use objc2::rc::Retained;
use objc2::{AnyThread, ClassType, msg_send};
use objc2_foundation::{NSArray, NSData, NSInteger};
use objc2_fs_kit::{FSFileName, FSItemAttributes};

/// A result object, or why there is none.
pub type Answer<T> = FsResult<Retained<T>>;

fn checked<T>(made: Option<Retained<T>>) -> Answer<T> {
    made.ok_or(FsError::Posix(libc::EIO))
}

/// Says that free space is as it was: FSKit asks for figures itself when somebody wants them.
fn space() -> Option<Retained<FSFreeSpace>> {
    // SAFETY: a class property without side effects.
    unsafe { msg_send![FSFreeSpace::class(), noUpdate] }
}

fn shown(a: &ItemAttributes) -> Retained<FSItemAttributes> {
    convert::attributes(a)
}

/// The root.
pub fn activated(root: &MacItem) -> Answer<FSActivateResult> {
    // SAFETY: the initializer takes an item.
    checked(unsafe { msg_send![FSActivateResult::alloc(), initWithRootItem: &*root.0] })
}

/// A file that was found.
pub fn found(l: &Looked<MacItem>) -> Answer<FSLookupItemResult> {
    let (name, attributes) = (convert::file_name(&l.name), shown(&l.attributes));
    // SAFETY: the initializer takes these three.
    checked(unsafe {
        msg_send![FSLookupItemResult::alloc(), initWithFoundItem: &*l.item.0, itemName: &*name, itemAttributes: &*attributes]
    })
}

/// A file or directory that was made.
pub fn created(m: &Made<MacItem>) -> Answer<FSCreateItemResult> {
    let (name, attributes, directory) = (convert::file_name(&m.name), shown(&m.attributes), shown(&m.directory));
    // SAFETY: the initializer takes these five, the last of which may be nil.
    checked(unsafe {
        msg_send![FSCreateItemResult::alloc(), initWithNewItem: &*m.item.0, newItemName: &*name,
            newItemAttributes: &*attributes, directoryAttributes: &*directory, freeSpace: space().as_deref()]
    })
}

/// A symbolic link that was made.
pub fn symlinked(m: &Made<MacItem>) -> Answer<FSCreateSymlinkResult> {
    let (name, attributes, directory) = (convert::file_name(&m.name), shown(&m.attributes), shown(&m.directory));
    // SAFETY: as for `created`, whose class it inherits from.
    checked(unsafe {
        msg_send![FSCreateSymlinkResult::alloc(), initWithNewItem: &*m.item.0, newItemName: &*name,
            newItemAttributes: &*attributes, directoryAttributes: &*directory, freeSpace: space().as_deref()]
    })
}

/// A link that was made.
pub fn linked(l: &Linked) -> Answer<FSCreateLinkResult> {
    let (name, attributes, directory) = (convert::file_name(&l.name), shown(&l.attributes), shown(&l.directory));
    // SAFETY: the initializer takes these four, the last of which may be nil.
    checked(unsafe {
        msg_send![FSCreateLinkResult::alloc(), initWithLinkName: &*name, linkAttributes: &*attributes,
            directoryAttributes: &*directory, freeSpace: space().as_deref()]
    })
}

/// A file that has another name.
pub fn renamed(r: &Renamed) -> Answer<FSRenameItemResult> {
    let (name, attributes) = (convert::file_name(&r.name), shown(&r.attributes));
    let (from, to, over) = (shown(&r.from), shown(&r.to), r.over.as_ref().map(shown));
    // SAFETY: the initializer takes these six, the last two of which may be nil.
    checked(unsafe {
        msg_send![FSRenameItemResult::alloc(), initWithNewName: &*name, renamedItemAttributes: &*attributes,
            sourceDirectoryAttributes: &*from, destinationDirectoryAttributes: &*to,
            overItemAttributes: over.as_deref(), freeSpace: space().as_deref()]
    })
}

/// A file that lost a name.
pub fn removed(r: &Removed) -> Answer<FSRemoveItemResult> {
    let (attributes, directory) = (shown(&r.attributes), shown(&r.directory));
    // SAFETY: the initializer takes these three, the last of which may be nil.
    checked(unsafe {
        msg_send![FSRemoveItemResult::alloc(), initWithItemAttributes: &*attributes, directoryAttributes: &*directory,
            freeSpace: space().as_deref()]
    })
}

/// Attributes.
pub fn attributes(a: &ItemAttributes) -> Answer<FSGetAttributesResult> {
    // SAFETY: the initializer takes attributes.
    checked(unsafe { msg_send![FSGetAttributesResult::alloc(), initWithAttributes: &*shown(a)] })
}

/// Attributes after setting some.
pub fn set(a: &ItemAttributes) -> Answer<FSSetAttributesResult> {
    // SAFETY: the initializer takes attributes, and free space or nil.
    checked(unsafe {
        msg_send![FSSetAttributesResult::alloc(), initWithAttributes: &*shown(a), freeSpace: space().as_deref()]
    })
}

/// Verifier of a listing.
pub fn listed(verifier: u64) -> Answer<FSEnumerateDirectoryResult> {
    // SAFETY: the initializer takes a verifier.
    checked(unsafe { msg_send![FSEnumerateDirectoryResult::alloc(), initWithVerifier: verifier] })
}

/// Target of a symbolic link, and the link's attributes.
pub fn target(contents: &[u8], a: &ItemAttributes) -> Answer<FSReadSymlinkResult> {
    let contents = convert::file_name(contents);
    // SAFETY: the initializer takes a name and attributes.
    checked(unsafe {
        msg_send![FSReadSymlinkResult::alloc(), initWithContents: &*contents, symlinkAttributes: &*shown(a)]
    })
}

/// Value of an extended attribute.
pub fn xattr(value: Vec<u8>) -> Answer<FSGetXattrResult> {
    // SAFETY: the initializer takes data.
    checked(unsafe { msg_send![FSGetXattrResult::alloc(), initWithXattrValue: &*NSData::from_vec(value)] })
}

/// An extended attribute was set.
pub fn xattr_set() -> Answer<FSSetXattrResult> {
    // SAFETY: the initializer takes free space or nil.
    checked(unsafe { msg_send![FSSetXattrResult::alloc(), initWithFreeSpace: space().as_deref()] })
}

/// Names of extended attributes.
pub fn xattrs(names: &[Vec<u8>]) -> Answer<FSListXattrsResult> {
    let names: Vec<Retained<FSFileName>> = names.iter().map(|n| convert::file_name(n)).collect();
    let names = NSArray::from_retained_slice(&names);
    // SAFETY: the initializer takes an array of names.
    checked(unsafe { msg_send![FSListXattrsResult::alloc(), initWithXattrNames: &*names] })
}

/// Bytes read, and the attributes after it.
pub fn read(n: usize, a: &ItemAttributes) -> Answer<FSReadFileResult> {
    // SAFETY: the initializer takes a count and attributes.
    checked(unsafe { msg_send![FSReadFileResult::alloc(), initWithBytesRead: n, itemAttributes: &*shown(a)] })
}

/// Bytes written, and the attributes after it.
pub fn written(n: usize, a: &ItemAttributes) -> Answer<FSWriteFileResult> {
    // SAFETY: the initializer takes a count, attributes, and free space or nil.
    checked(unsafe {
        msg_send![FSWriteFileResult::alloc(), initWithBytesWritten: n, itemAttributes: &*shown(a),
            freeSpace: space().as_deref()]
    })
}

/// Whether something may be done.
pub fn allowed(yes: bool) -> Answer<FSCheckAccessResult> {
    // SAFETY: the initializer takes a truth value.
    checked(unsafe { msg_send![FSCheckAccessResult::alloc(), initWithAccessAllowed: yes] })
}

/// Where data or a hole begins.
pub fn region(at: i64) -> Answer<FSSeekRegionResult> {
    // SAFETY: the initializer takes an offset.
    checked(unsafe { msg_send![FSSeekRegionResult::alloc(), initWithReturnedOffset: at] })
}

/// The kernel may not cache a file that it opened: it is asked not to open any.
pub fn opened() -> Answer<FSOpenItemResult> {
    // SAFETY: the initializer takes a kind of coherency.
    checked(unsafe { msg_send![FSOpenItemResult::alloc(), initWithGrantedCoherency: NO_CACHE] })
}

/// Nor later.
pub fn upgraded() -> Answer<FSUpgradeItemResult> {
    // SAFETY: the initializer takes a kind of coherency.
    checked(unsafe { msg_send![FSUpgradeItemResult::alloc(), initWithGrantedCoherency: NO_CACHE] })
}

/// `FSKernelCacheCoherencyTypeNoCache`.
const NO_CACHE: NSInteger = 0;

/// A file was deactivated.
pub fn deactivated() -> Answer<FSDeactivateItemResult> {
    // SAFETY: the initializer takes free space or nil.
    checked(unsafe { msg_send![FSDeactivateItemResult::alloc(), initWithFreeSpace: space().as_deref()] })
}
