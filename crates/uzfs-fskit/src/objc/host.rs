//! The module's host on macOS.

use super::convert;
use super::file_system::ZfsFileSystem;
use super::item::{MacItem, ZfsItem};
use crate::api::{ContainerState, ContainerStatus, Context, FsError, Host, ItemKey, System, XattrNames};
use objc2::rc::{Retained, Weak, autoreleasepool};
use objc2::runtime::{AnyClass, NSObject};
use objc2::{class, msg_send};
use objc2_foundation::NSURL;
use objc2_fs_kit::{FSContainerStatus, FSFileSystemBase, FSVolume};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The group of which daemon and extension share the container.
const GROUP: &str = match option_env!("UZFS_APP_GROUP") {
    Some(group) => group,
    None => "group.io.uzfs",
};

/// What the classes share with the module.
#[derive(Default)]
pub struct MacHost {
    file_system: Mutex<Option<Weak<ZfsFileSystem>>>,
    volume: Mutex<Option<Weak<FSVolume>>>,
}

// SAFETY: weak references may be loaded on any thread, and the objects behind them are FSKit's, which allows the same.
unsafe impl Send for MacHost {}
// SAFETY: as above; the fields are behind locks.
unsafe impl Sync for MacHost {}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MacHost {
    /// The file system whose status is set.
    pub fn serve(&self, file_system: &ZfsFileSystem) {
        *locked(&self.file_system) = Some(Weak::new(file_system));
    }

    /// The volume whose caches are invalidated.
    pub fn loaded(&self, volume: &FSVolume) {
        *locked(&self.volume) = Some(Weak::new(volume));
    }
}

impl Host for MacHost {
    type Item = MacItem;

    fn new_item(&self, key: ItemKey) -> MacItem {
        MacItem(ZfsItem::new(key))
    }

    fn key_of(&self, item: &MacItem) -> Option<ItemKey> {
        Some(item.0.key())
    }

    fn set_container_status(&self, status: ContainerStatus) {
        let Some(file_system) = locked(&self.file_system).as_ref().and_then(Weak::load) else { return };
        let error = convert::error(status.status.unwrap_or(FsError::Posix(libc::ENODEV)));
        // SAFETY: constructors and a setter that FSKit documents for module code.
        unsafe {
            let status = match (status.state, status.status) {
                (ContainerState::Ready, None) => FSContainerStatus::ready(),
                (ContainerState::Ready, Some(_)) => FSContainerStatus::readyWithStatus(&error),
                (ContainerState::Active, _) => FSContainerStatus::active(),
                (ContainerState::Blocked, _) => FSContainerStatus::blockedWithStatus(&error),
                (ContainerState::NotReady, _) => FSContainerStatus::notReadyWithStatus(&error),
            };
            file_system.setContainerStatus(&status);
        }
    }

    fn later(&self, what: Box<dyn FnOnce() + Send>) {
        // After the method that is running now has replied: the queue of FSKit is another one, so a moment is given.
        super::run(move || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            what();
        });
    }

    fn daemon_tickets(&self) -> Vec<Vec<u8>> {
        let group = convert::text(GROUP);
        let path = autoreleasepool(|_| {
            // SAFETY: both methods are documented, take what they are given and may return nil.
            unsafe {
                let manager: Retained<NSObject> = msg_send![class!(NSFileManager), defaultManager];
                let url: Option<Retained<NSURL>> =
                    msg_send![&*manager, containerURLForSecurityApplicationGroupIdentifier: &*group];
                url.and_then(|u| u.path()).map(|p| p.to_string())
            }
        });
        let Some(path) = path else {
            self.log("no application group: the daemon cannot be found");
            return Vec::new();
        };
        std::fs::read(std::path::Path::new(&path).join("daemon.uzfs")).into_iter().collect()
    }

    fn system(&self) -> System {
        if super::types27::there() {
            System::V27
        } else if AnyClass::get(c"FSPathURLResource").is_some() {
            System::V26
        } else {
            System::V15
        }
    }

    fn xattr_names(&self) -> XattrNames {
        XattrNames::Mac
    }

    fn groups(&self, context: Context) -> Vec<u32> {
        super::groups::of(context)
    }

    fn forget_cached(&self, items: &[MacItem]) {
        let Some(volume) = locked(&self.volume).as_ref().and_then(Weak::load) else { return };
        if !super::v27::forget(&volume, items) {
            self.log("files changed behind the mount; mount it again to see them (macOS 27 does without)");
        }
    }

    fn log(&self, line: &str) {
        if let Ok(line) = std::ffi::CString::new(format!("uzfs: {line}")) {
            // SAFETY: the format takes one string, which ends with a zero byte.
            unsafe { libc::syslog(libc::LOG_NOTICE, c"%s".as_ptr(), line.as_ptr()) };
        }
    }
}
