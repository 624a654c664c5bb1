//! `ZFSItem`: a file as FSKit holds it.

use crate::api::ItemKey;
use objc2::rc::Retained;
use objc2::runtime::NSObject;
use objc2::{AnyThread, DefinedClass, define_class, msg_send};
use objc2_foundation::NSObjectProtocol;
use objc2_fs_kit::FSItem;

/// Instance variables.
pub struct ItemIvars {
    key: ItemKey,
}

define_class!(
    // SAFETY: FSItem has no requirements for subclasses; the key never changes.
    #[unsafe(super(FSItem, NSObject))]
    #[name = "ZFSItem"]
    #[ivars = ItemIvars]
    pub struct ZfsItem;

    unsafe impl NSObjectProtocol for ZfsItem {}
);

impl ZfsItem {
    /// A new item.
    pub fn new(key: ItemKey) -> Retained<Self> {
        let this = Self::alloc().set_ivars(ItemIvars { key });
        // SAFETY: the superclass's designated initializer.
        unsafe { msg_send![super(this), init] }
    }

    /// What it stands for.
    pub fn key(&self) -> ItemKey {
        self.ivars().key
    }
}

/// An item that the module keeps.
#[derive(Clone)]
pub struct MacItem(pub Retained<ZfsItem>);

// SAFETY: the key never changes, and reference counts are atomic.
unsafe impl Send for MacItem {}
// SAFETY: as above.
unsafe impl Sync for MacItem {}

impl MacItem {
    /// The item behind an object of FSKit; nothing if it is not one of ours.
    pub fn of(item: &FSItem) -> Option<Self> {
        use objc2::Message;
        item.downcast_ref::<ZfsItem>().map(|i| Self(i.retain()))
    }

    /// For a reply block.
    pub fn pointer(&self) -> *mut FSItem {
        Retained::as_ptr(&self.0).cast_mut().cast()
    }
}
