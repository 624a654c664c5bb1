//! What FSKit has since macOS 27 and the bindings lack: protocols and classes, by name.
//!
//! Both are looked up while running, so the extension links and starts on systems without them; [`there`] tells whether
//! this one has them all. Their methods and initializers are in `crates/xtask/src/macos_handlers.txt`, with the source,
//! and the lint compares what [`super::volume27`] says with it.

use objc2::runtime::{AnyClass, AnyProtocol, NSObject, NSObjectProtocol};
use objc2::{extern_class, extern_protocol, msg_send};
use objc2_foundation::NSInteger;
use std::ffi::CStr;

use crate::api::Context;

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        extern_class!(
            $(#[$doc])*
            // SAFETY: the class inherits from NSObject, directly or through FSVolumeHandlerResult.
            #[unsafe(super(NSObject))]
            #[derive(Debug)]
            pub struct $name;
        );
    )*};
}

classes! {
    /// Who asks.
    FSContext;
    /// Free space after a change.
    FSFreeSpace;
    /// Of activation: the root.
    FSActivateResult;
    /// Of a lookup.
    FSLookupItemResult;
    /// Of making a file or directory.
    FSCreateItemResult;
    /// Of making a symbolic link; it inherits from `FSCreateItemResult`.
    FSCreateSymlinkResult;
    /// Of making a link.
    FSCreateLinkResult;
    /// Of renaming.
    FSRenameItemResult;
    /// Of removing.
    FSRemoveItemResult;
    /// Attributes.
    FSGetAttributesResult;
    /// Attributes that were set.
    FSSetAttributesResult;
    /// Of listing: the verifier.
    FSEnumerateDirectoryResult;
    /// Target of a symbolic link.
    FSReadSymlinkResult;
    /// Value of an extended attribute.
    FSGetXattrResult;
    /// Of setting an extended attribute.
    FSSetXattrResult;
    /// Names of extended attributes.
    FSListXattrsResult;
    /// Of reading.
    FSReadFileResult;
    /// Of writing.
    FSWriteFileResult;
    /// Whether something may be done.
    FSCheckAccessResult;
    /// Name of the volume.
    FSVolumeRenameResult;
    /// Of allocating in advance.
    FSPreallocateResult;
    /// Of deactivating a file.
    FSDeactivateItemResult;
    /// Where data or a hole begins.
    FSSeekRegionResult;
    /// How the kernel may cache a file that was opened.
    FSOpenItemResult;
    /// How it may cache it now.
    FSUpgradeItemResult;
}

macro_rules! protocols {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            extern_protocol!(
                $(#[$doc])*
                #[allow(clippy::missing_safety_doc, reason = "a class has the methods of its protocols, which the lint checks")]
                pub unsafe trait $name: NSObjectProtocol {}
            );
        )*

        /// Names of the protocols.
        const PROTOCOLS: &[&str] = &[$(concat!(stringify!($name), "\0")),*];
    };
}

protocols! {
    /// What every volume has.
    FSVolumeHandler;
    /// Extended attributes.
    FSVolumeXattrHandler;
    /// Opening and closing.
    FSVolumeOpenCloseHandler;
    /// Reading and writing.
    FSVolumeReadWriteHandler;
    /// Access checks.
    FSVolumeAccessCheckHandler;
    /// Renaming the volume.
    FSVolumeRenameHandler;
    /// Allocating in advance.
    FSVolumePreallocateHandler;
    /// Files that are no longer used.
    FSVolumeItemDeactivationHandler;
    /// Data and holes.
    FSVolumeSeekRegionHandler;
    /// Leases of the kernel's cache.
    FSVolumeDataCacheHandler;
}

/// Whether this system has the protocols, and the classes that replies need.
pub fn there() -> bool {
    let name = |text: &'static str| CStr::from_bytes_with_nul(text.as_bytes()).ok();
    let protocol = |text: &&'static str| name(text).and_then(AnyProtocol::get).is_some();
    let classes = [c"FSContext", c"FSFreeSpace", c"FSVolumeHandlerResult", c"FSLookupItemResult", c"FSOpenItemResult"];
    PROTOCOLS.iter().all(protocol) && classes.into_iter().all(|name| AnyClass::get(name).is_some())
}

/// Who asks, for the module.
pub fn context(context: &FSContext) -> Context {
    // SAFETY: properties without side effects.
    let (uid, gid): (NSInteger, NSInteger) =
        unsafe { (msg_send![context, effectiveUserID], msg_send![context, effectiveGroupID]) };
    // What does not fit is nobody's.
    Context { uid: u32::try_from(uid).unwrap_or(u32::MAX), gid: u32::try_from(gid).unwrap_or(u32::MAX) }
}
