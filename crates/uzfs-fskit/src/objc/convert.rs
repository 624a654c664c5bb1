//! Values between FSKit's objects and the module's types.

use crate::api::{FsError, ItemAttributes, ItemType, SetAttributes, SetXattrPolicy, TimeSpec, attribute};
use objc2::encode::{Encode, Encoding};
use objc2::rc::Retained;
use objc2::{AnyThread, msg_send};
use objc2_foundation::{NSData, NSError, NSInteger, NSPOSIXErrorDomain, NSString, NSUUID};
use objc2_fs_kit::{
    FSFileName, FSItemAttribute, FSItemAttributes, FSItemID, FSItemSetAttributesRequest, FSItemType, FSKitErrorDomain,
    FSSetXattrPolicy, FSTaskOptions,
};
use std::ptr;

/// `struct timespec`, which the bindings leave out because `libc`'s has no encoding.
#[repr(C)]
#[derive(Clone, Copy)]
struct Spec {
    sec: i64,
    nsec: i64,
}

// SAFETY: the layout is that of `struct timespec` on 64-bit macOS: two longs.
unsafe impl Encode for Spec {
    const ENCODING: Encoding = Encoding::Struct("timespec", &[i64::ENCODING, i64::ENCODING]);
}

/// An `NSError`.
pub fn error(e: FsError) -> Retained<NSError> {
    // SAFETY: the domains are constant strings of frameworks that are linked; no user info is given.
    unsafe {
        match e {
            FsError::Posix(n) => NSError::errorWithDomain_code_userInfo(NSPOSIXErrorDomain, n as NSInteger, None),
            FsError::FsKit(c) => NSError::errorWithDomain_code_userInfo(FSKitErrorDomain, c as NSInteger, None),
        }
    }
}

/// The error of a result for a reply block: none for success. The caller keeps what is returned alive over the call.
pub fn error_of<T>(result: &Result<T, FsError>) -> Option<Retained<NSError>> {
    result.as_ref().err().map(|e| error(*e))
}

/// The pointer that a reply block takes.
pub fn pointer<T: objc2::Message>(object: &Option<Retained<T>>) -> *mut T {
    object.as_ref().map_or(ptr::null_mut(), |o| Retained::as_ptr(o).cast_mut())
}

/// The bytes of a name.
pub fn name_bytes(name: &FSFileName) -> Vec<u8> {
    // SAFETY: a property without side effects.
    unsafe { name.data() }.to_vec()
}

/// A name of bytes, which need not be UTF-8.
pub fn file_name(bytes: &[u8]) -> Retained<FSFileName> {
    let data = NSData::with_bytes(bytes);
    // SAFETY: the initializer copies the data.
    unsafe { FSFileName::initWithData(FSFileName::alloc(), &data) }
}

/// A text.
pub fn text(words: &str) -> Retained<NSString> {
    NSString::from_str(words)
}

/// An identifier.
pub fn uuid(bytes: [u8; 16]) -> Retained<NSUUID> {
    NSUUID::from_bytes(bytes)
}

/// The options of a task.
pub fn options(o: &FSTaskOptions) -> Vec<String> {
    // SAFETY: a property without side effects.
    unsafe { o.taskOptions() }.iter().map(|s| s.to_string()).collect()
}

/// `FSItemType`.
pub fn fs_type(kind: ItemType) -> FSItemType {
    FSItemType(kind as NSInteger)
}

/// The module's type.
pub fn item_type(kind: FSItemType) -> ItemType {
    match kind {
        FSItemType::File => ItemType::File,
        FSItemType::Directory => ItemType::Directory,
        FSItemType::Symlink => ItemType::Symlink,
        FSItemType::FIFO => ItemType::Fifo,
        FSItemType::CharDevice => ItemType::CharDevice,
        FSItemType::BlockDevice => ItemType::BlockDevice,
        FSItemType::Socket => ItemType::Socket,
        _ => ItemType::Unknown,
    }
}

/// `FSItemAttributes`. What is none stays invalid; the module leaves nothing out.
pub fn attributes(a: &ItemAttributes) -> Retained<FSItemAttributes> {
    let spec = |t: Option<TimeSpec>| {
        let t = t.unwrap_or_default();
        Spec { sec: t.sec, nsec: t.nsec }
    };
    // SAFETY: setters of a new object; the four that the bindings lack take a `struct timespec` by value.
    unsafe {
        let out = FSItemAttributes::new();
        out.setType(fs_type(a.kind.unwrap_or(ItemType::Unknown)));
        out.setMode(a.mode.unwrap_or(0));
        out.setLinkCount(a.link_count.unwrap_or(0));
        out.setUid(a.uid.unwrap_or(0));
        out.setGid(a.gid.unwrap_or(0));
        out.setFlags(a.flags.unwrap_or(0));
        out.setSize(a.size.unwrap_or(0));
        out.setAllocSize(a.alloc_size.unwrap_or(0));
        out.setFileID(FSItemID(a.file_id.unwrap_or(0)));
        out.setParentID(FSItemID(a.parent_id.unwrap_or(0)));
        out.setInhibitKernelOffloadedIO(true);
        let _: () = msg_send![&*out, setAccessTime: spec(a.access_time)];
        let _: () = msg_send![&*out, setModifyTime: spec(a.modify_time)];
        let _: () = msg_send![&*out, setChangeTime: spec(a.change_time)];
        let _: () = msg_send![&*out, setBirthTime: spec(a.birth_time)];
        out
    }
}

/// The module's policy for extended attributes.
pub fn policy(policy: FSSetXattrPolicy) -> SetXattrPolicy {
    match policy {
        FSSetXattrPolicy::MustCreate => SetXattrPolicy::MustCreate,
        FSSetXattrPolicy::MustReplace => SetXattrPolicy::MustReplace,
        FSSetXattrPolicy::Delete => SetXattrPolicy::Delete,
        _ => SetXattrPolicy::Always,
    }
}

/// What a request wants to set.
pub fn wanted(r: &FSItemSetAttributesRequest) -> SetAttributes {
    // SAFETY: getters; a time is only asked for when it is valid.
    unsafe {
        let valid = |bit: u64| r.isValid(FSItemAttribute(bit as NSInteger));
        let time = |t: Spec| TimeSpec { sec: t.sec, nsec: t.nsec };
        let mut a = ItemAttributes::default();
        if valid(attribute::MODE) {
            a.mode = Some(r.mode());
        }
        if valid(attribute::UID) {
            a.uid = Some(r.uid());
        }
        if valid(attribute::GID) {
            a.gid = Some(r.gid());
        }
        if valid(attribute::FLAGS) {
            a.flags = Some(r.flags());
        }
        if valid(attribute::SIZE) {
            a.size = Some(r.size());
        }
        if valid(attribute::ACCESS_TIME) {
            a.access_time = Some(time(msg_send![r, accessTime]));
        }
        if valid(attribute::MODIFY_TIME) {
            a.modify_time = Some(time(msg_send![r, modifyTime]));
        }
        if valid(attribute::CHANGE_TIME) {
            a.change_time = Some(time(msg_send![r, changeTime]));
        }
        if valid(attribute::BIRTH_TIME) {
            a.birth_time = Some(time(msg_send![r, birthTime]));
        }
        if valid(attribute::LINK_COUNT) {
            a.link_count = Some(r.linkCount());
        }
        if valid(attribute::ALLOC_SIZE) {
            a.alloc_size = Some(r.allocSize());
        }
        if valid(attribute::FILE_ID) {
            a.file_id = Some(r.fileID().0);
        }
        if valid(attribute::PARENT_ID) {
            a.parent_id = Some(r.parentID().0);
        }
        SetAttributes { wanted: a, consumed: 0 }
    }
}

/// Tells FSKit what was used of a request.
pub fn consumed(r: &FSItemSetAttributesRequest, set: &SetAttributes) {
    // SAFETY: a setter.
    unsafe { r.setConsumedAttributes(FSItemAttribute(set.consumed as NSInteger)) };
}
