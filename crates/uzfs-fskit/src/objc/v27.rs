//! Cache invalidation, which FSKit has since macOS 27; looked up while running.

use super::item::MacItem;
use objc2::rc::Retained;
use objc2::{msg_send, sel};
use objc2_foundation::{NSError, NSInteger};
use objc2_fs_kit::FSVolume;

/// `FSDataCacheModeNone` and `FSKernelCacheCoherencyTypeNoCache`.
const NONE: NSInteger = 0;
/// `FSKernelCacheCoherencyActionRevoke`: the kernel lets go of the file and looks it up again. Only invalidating leaves the
/// size that it knew, and so cuts what is longer now (voidfs measured it on macOS 27.0).
const REVOKE: NSInteger = 4;

/// Makes the kernel forget items; gives false where there is no such call. Items that the kernel does not know, or that
/// are gone, are refused by it, which is as good.
pub fn forget(volume: &FSVolume, items: &[MacItem]) -> bool {
    let selector = sel!(setCacheStateForItem:cacheMode:coherencyType:coherencyAction:);
    // SAFETY: the question that every object answers.
    let knows: bool = unsafe { msg_send![volume, respondsToSelector: selector] };
    if !knows {
        return false;
    }
    for item in items {
        // SAFETY: the volume said that it has the method, whose arguments are an item and three enumerations.
        let _: Option<Retained<NSError>> = unsafe {
            msg_send![volume, setCacheStateForItem: &*item.0, cacheMode: NONE, coherencyType: NONE,
                coherencyAction: REVOKE]
        };
    }
    true
}
