//! What only macOS 27 has, looked up while running: seek regions and cache invalidation.
//!
//! The other handler protocols of 27 replace operations that 27 still has, deprecated; their reply blocks take result
//! objects under the same selectors, so one class cannot have both. They can be taken up as a class of its own when
//! there is a Mac to try it on.

use super::Sendable;
use super::convert;
use super::item::MacItem;
use super::volume::ZfsVolume;
use crate::api::SeekRegion;
use block2::DynBlock;
use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, AnyProtocol, Imp, NSObject, Sel};
use objc2::{ClassType, msg_send, sel};
use objc2_foundation::{NSError, NSInteger, NSUInteger};
use objc2_fs_kit::FSItem;

/// `FSDataCacheModeNone` and `FSKernelCacheCoherencyTypeNoCache`.
const NONE: NSInteger = 0;
/// `FSKernelCacheCoherencyActionInvalidate`.
const INVALIDATE: NSInteger = 2;

/// Makes the kernel forget items; gives false where there is no such call.
pub fn forget(volume: &ZfsVolume, items: &[MacItem]) -> bool {
    let selector = sel!(setCacheStateForItem:cacheMode:coherencyType:coherencyAction:);
    // SAFETY: the question that every object answers.
    let knows: bool = unsafe { msg_send![volume, respondsToSelector: selector] };
    if !knows {
        return false;
    }
    for item in items {
        // SAFETY: the volume said that it has the method, whose arguments are an item and three enumerations.
        let failed: Option<Retained<NSError>> = unsafe {
            msg_send![volume, setCacheStateForItem: &*item.0, cacheMode: NONE, coherencyType: NONE,
                coherencyAction: INVALIDATE]
        };
        if failed.is_some() {
            return false;
        }
    }
    true
}

type SeekReply = DynBlock<dyn Fn(*mut AnyObject, *mut NSError)>;

/// `seekWithinItem:fromOffset:region:context:replyHandler:`
extern "C-unwind" fn seek(
    this: &ZfsVolume,
    _: Sel,
    item: &FSItem,
    offset: libc::off_t,
    region: NSUInteger,
    _context: *mut AnyObject,
    reply: &SeekReply,
) {
    let region = if region == 1 { SeekRegion::Hole } else { SeekRegion::Data };
    let (volume, item, reply) = (this.module_volume(), MacItem::of(item), Sendable(reply.copy()));
    super::run(move || {
        let found = match item {
            Some(item) => volume.seek(&item, offset, region),
            None => Err(crate::api::FsError::Posix(libc::ESTALE)),
        };
        let failed = convert::error_of(&found);
        // SAFETY: the class was looked up by name; its initializer takes an offset.
        let result: Option<Retained<NSObject>> = found.ok().and_then(|at| unsafe {
            let class = AnyClass::get(c"FSSeekRegionResult")?;
            let new = msg_send![class, alloc];
            msg_send![new, initWithReturnedOffset: at]
        });
        reply.get().call((convert::pointer(&result).cast(), convert::pointer(&failed)));
    });
}

/// Adds the protocol of seek regions to the volume's class, where the system has it.
pub fn extend_volume_class() {
    let Some(protocol) = AnyProtocol::get(c"FSVolumeSeekRegionHandler") else { return };
    let class = std::ptr::from_ref(ZfsVolume::class()).cast_mut();
    // SAFETY: the function has the signature of the method; the types are object, selector, object, off_t, NSUInteger,
    // object, block; the class is registered and adding to it is allowed while it runs.
    unsafe {
        let imp: Imp = std::mem::transmute::<*const (), Imp>(seek as *const ());
        let selector = sel!(seekWithinItem:fromOffset:region:context:replyHandler:);
        let added = objc2::ffi::class_addMethod(class, selector, imp, c"v@:@qQ@@?".as_ptr());
        if added.as_bool() {
            objc2::ffi::class_addProtocol(class, protocol);
        }
    }
}
