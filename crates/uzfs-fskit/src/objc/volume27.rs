//! `ZFSVolume27`: the volume of macOS 27, whose handler protocols replace the operations of 15.4 (`ZFSVolume`).
//!
//! A class of its own, because several selectors stayed and their reply blocks take other arguments. It is made only
//! where [`super::types27::there`] says so. Replies carry attributes, so the kernel does not come back for them, and
//! calls say who asks, so access is checked by the file system's ACLs. What ZFS leaves to the kernel is inhibited: opening
//! and closing, leases of its cache, preallocation, renaming of volumes. Kernel-offloaded I/O is not taken up:
//! compressed and checksummed blocks are no extents.

use super::item::MacItem;
use super::results::{self, Answer};
use super::types27::*;
use super::volume::{self, ModuleVolume, ours};
use super::{Sendable, convert};
use crate::api::{FsError, FsResult, SeekRegion, SyncFlags};
use block2::DynBlock;
use objc2::rc::Retained;
use objc2::runtime::NSObject;
use objc2::{AnyThread, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSData, NSError, NSInteger, NSObjectProtocol, NSUInteger};
use objc2_fs_kit::{
    FSAccessMask, FSDeactivateOptions, FSDirectoryCookie, FSDirectoryEntryPacker, FSDirectoryVerifier, FSFileName,
    FSItem, FSItemDeactivationOptions, FSItemGetAttributesRequest, FSItemSetAttributesRequest, FSItemType,
    FSMutableFileDataBuffer, FSPreallocateFlags, FSSetXattrPolicy, FSStatFSResult, FSSyncFlags, FSTaskOptions,
    FSVolume, FSVolumeIdentifier, FSVolumeOpenModes, FSVolumePathConfOperations, FSVolumeSupportedCapabilities,
};
/// A reply with a result of macOS 27.
type Reply<T> = DynBlock<dyn Fn(*mut T, *mut NSError)>;
type Done = DynBlock<dyn Fn(*mut NSError)>;

/// Instance variables.
pub struct VolumeIvars {
    volume: ModuleVolume,
}

define_class!(
    // SAFETY: FSVolume asks its subclasses for the protocols below; the module behind them may be used by any thread.
    #[unsafe(super(FSVolume, NSObject))]
    #[name = "ZFSVolume27"]
    #[ivars = VolumeIvars]
    pub struct ZfsVolume27;

    unsafe impl NSObjectProtocol for ZfsVolume27 {}

    unsafe impl FSVolumePathConfOperations for ZfsVolume27 {
        #[unsafe(method(maximumLinkCount))]
        fn maximum_link_count(&self) -> NSInteger {
            self.ivars().volume.path_conf().max_links as NSInteger
        }

        #[unsafe(method(maximumNameLength))]
        fn maximum_name_length(&self) -> NSInteger {
            self.ivars().volume.path_conf().max_name as NSInteger
        }

        #[unsafe(method(restrictsOwnershipChanges))]
        fn restricts_ownership_changes(&self) -> bool {
            self.ivars().volume.path_conf().restricts_ownership
        }

        #[unsafe(method(truncatesLongNames))]
        fn truncates_long_names(&self) -> bool {
            self.ivars().volume.path_conf().truncates_names
        }

        #[unsafe(method(maximumXattrSizeInBits))]
        fn maximum_xattr_size_in_bits(&self) -> NSInteger {
            self.ivars().volume.path_conf().xattr_size_bits.unwrap_or(0) as NSInteger
        }

        #[unsafe(method(maximumFileSizeInBits))]
        fn maximum_file_size_in_bits(&self) -> NSInteger {
            self.ivars().volume.path_conf().file_size_bits.unwrap_or(0) as NSInteger
        }
    }

    unsafe impl FSVolumeHandler for ZfsVolume27 {
        #[unsafe(method_id(supportedVolumeCapabilities))]
        fn supported_volume_capabilities(&self) -> Retained<FSVolumeSupportedCapabilities> {
            volume::capabilities(&self.ivars().volume)
        }

        #[unsafe(method_id(volumeStatistics))]
        fn volume_statistics(&self) -> Retained<FSStatFSResult> {
            volume::statistics(&self.ivars().volume)
        }

        #[unsafe(method(enableOpenUnlinkEmulation))]
        fn enable_open_unlink_emulation(&self) -> bool {
            // A file without a name lives in ZFS until it is reclaimed.
            false
        }

        #[unsafe(method(requestedMountOptions))]
        fn requested_mount_options(&self) -> NSUInteger {
            volume::mount_options(&self.ivars().volume)
        }

        #[unsafe(method(activateVolumeWithOptions:replyHandler:))]
        fn activate(&self, options: &FSTaskOptions, reply: &DynBlock<dyn Fn(*mut FSActivateResult, *mut NSError)>) {
            let root = self.ivars().volume.activate(&convert::options(options));
            answer(reply, root.and_then(|root| results::activated(&root)));
        }

        #[unsafe(method(deactivateVolumeWithOptions:replyHandler:))]
        fn deactivate(&self, options: FSDeactivateOptions, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            volume::answer(reply, self.ivars().volume.deactivate(options.contains(FSDeactivateOptions::Force)));
        }

        #[unsafe(method(mountWithOptions:replyHandler:))]
        fn mount(&self, options: &FSTaskOptions, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            let options = convert::options(options);
            self.later_done(reply, move |v| v.mount(&options));
        }

        #[unsafe(method(unmountWithReplyHandler:))]
        fn unmount(&self, reply: &DynBlock<dyn Fn()>) {
            let (volume, reply) = (self.module_volume(), Sendable(reply.copy()));
            super::run(move || {
                volume.unmount();
                reply.get().call(());
            });
        }

        #[unsafe(method(synchronizeWithFlags:replyHandler:))]
        fn synchronize(&self, flags: FSSyncFlags, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            let flags = match flags {
                FSSyncFlags::NoWait => SyncFlags::NoWait,
                FSSyncFlags::DWait => SyncFlags::DWait,
                _ => SyncFlags::Wait,
            };
            self.later_done(reply, move |v| v.synchronize(flags));
        }

        #[unsafe(method(lookupItemNamed:inDirectory:context:replyHandler:))]
        fn lookup(
            &self,
            name: &FSFileName,
            directory: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSLookupItemResult, *mut NSError)>,
        ) {
            let (name, directory) = (convert::name_bytes(name), MacItem::of(directory));
            self.later(reply, move |v| results::found(&v.look(&name, &ours(directory)?)?));
        }

        #[unsafe(method(reclaimItem:replyHandler:))]
        fn reclaim(&self, item: &FSItem, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            let item = MacItem::of(item);
            self.later_done(reply, move |v| v.reclaim(&ours(item)?));
        }

        #[unsafe(method(createItemNamed:type:inDirectory:attributes:context:replyHandler:))]
        fn create(
            &self,
            name: &FSFileName,
            kind: FSItemType,
            directory: &FSItem,
            attributes: &FSItemSetAttributesRequest,
            caller: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSCreateItemResult, *mut NSError)>,
        ) {
            let (name, directory, who) = (convert::name_bytes(name), MacItem::of(directory), context(caller));
            let (kind, request) = (convert::item_type(kind), Sendable(attributes.retain()));
            self.later(reply, move |v| {
                let mut set = convert::wanted(request.get());
                let made = ours(directory).and_then(|d| v.make(&name, kind, &d, &mut set, who));
                convert::consumed(request.get(), &set);
                results::created(&made?)
            });
        }

        #[unsafe(method(createSymbolicLinkNamed:inDirectory:attributes:linkContents:context:replyHandler:))]
        fn create_symbolic_link(
            &self,
            name: &FSFileName,
            directory: &FSItem,
            attributes: &FSItemSetAttributesRequest,
            contents: &FSFileName,
            caller: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSCreateSymlinkResult, *mut NSError)>,
        ) {
            let (name, target) = (convert::name_bytes(name), convert::name_bytes(contents));
            let (directory, who) = (MacItem::of(directory), context(caller));
            let request = Sendable(attributes.retain());
            self.later(reply, move |v| {
                let mut set = convert::wanted(request.get());
                let made = ours(directory).and_then(|d| v.make_symlink(&name, &d, &mut set, &target, who));
                convert::consumed(request.get(), &set);
                results::symlinked(&made?)
            });
        }

        #[unsafe(method(createLinkToItem:named:inDirectory:context:replyHandler:))]
        fn create_link(
            &self,
            item: &FSItem,
            name: &FSFileName,
            directory: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSCreateLinkResult, *mut NSError)>,
        ) {
            let (item, directory, name) = (MacItem::of(item), MacItem::of(directory), convert::name_bytes(name));
            self.later(reply, move |v| results::linked(&v.make_link(&ours(item)?, &name, &ours(directory)?)?));
        }

        #[unsafe(method(renameItem:inDirectory:named:toNewName:inDirectory:overItem:context:replyHandler:))]
        fn rename(
            &self,
            item: &FSItem,
            source_directory: &FSItem,
            source_name: &FSFileName,
            destination_name: &FSFileName,
            destination_directory: &FSItem,
            over_item: Option<&FSItem>,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSRenameItemResult, *mut NSError)>,
        ) {
            let (item, over) = (MacItem::of(item), over_item.and_then(MacItem::of));
            let (from, to) = (MacItem::of(source_directory), MacItem::of(destination_directory));
            let (old, new) = (convert::name_bytes(source_name), convert::name_bytes(destination_name));
            self.later(reply, move |v| {
                let moved = v.move_to(&ours(item)?, (&ours(from)?, &old), (&ours(to)?, &new), over.as_ref())?;
                results::renamed(&moved)
            });
        }

        #[unsafe(method(removeItem:named:fromDirectory:context:replyHandler:))]
        fn remove(
            &self,
            item: &FSItem,
            name: &FSFileName,
            directory: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSRemoveItemResult, *mut NSError)>,
        ) {
            let (item, directory, name) = (MacItem::of(item), MacItem::of(directory), convert::name_bytes(name));
            self.later(reply, move |v| results::removed(&v.take_away(&ours(item)?, &name, &ours(directory)?)?));
        }

        #[unsafe(method(getAttributes:ofItem:context:replyHandler:))]
        fn get_attributes(
            &self,
            _desired: &FSItemGetAttributesRequest,
            item: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSGetAttributesResult, *mut NSError)>,
        ) {
            let item = MacItem::of(item);
            self.later(reply, move |v| results::attributes(&v.get_attributes(&ours(item)?)?));
        }

        #[unsafe(method(setAttributes:onItem:context:replyHandler:))]
        fn set_attributes(
            &self,
            request: &FSItemSetAttributesRequest,
            item: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSSetAttributesResult, *mut NSError)>,
        ) {
            let (item, request) = (MacItem::of(item), Sendable(request.retain()));
            self.later(reply, move |v| {
                let mut set = convert::wanted(request.get());
                let after = ours(item).and_then(|i| v.set_attributes(&mut set, &i));
                convert::consumed(request.get(), &set);
                results::set(&after?)
            });
        }

        #[unsafe(method(
            enumerateDirectory:startingAtCookie:verifier:providingAttributes:usingPacker:context:replyHandler:
        ))]
        fn enumerate(
            &self,
            directory: &FSItem,
            cookie: FSDirectoryCookie,
            verifier: FSDirectoryVerifier,
            attributes: Option<&FSItemGetAttributesRequest>,
            packer: &FSDirectoryEntryPacker,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSEnumerateDirectoryResult, *mut NSError)>,
        ) {
            let (directory, wanted, packer) = (MacItem::of(directory), attributes.is_some(), Sendable(packer.retain()));
            self.later(reply, move |v| {
                results::listed(volume::list(v, directory, (cookie, verifier), wanted, packer.get())?)
            });
        }

        #[unsafe(method(readSymbolicLink:context:replyHandler:))]
        fn read_symbolic_link(
            &self,
            item: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSReadSymlinkResult, *mut NSError)>,
        ) {
            let item = MacItem::of(item);
            self.later(reply, move |v| {
                let item = ours(item)?;
                results::target(&v.read_link(&item)?, &v.get_attributes(&item)?)
            });
        }
    }

    unsafe impl FSVolumeReadWriteHandler for ZfsVolume27 {
        #[unsafe(method(readFromFile:offset:length:intoBuffer:replyHandler:))]
        fn read(
            &self,
            item: &FSItem,
            offset: libc::off_t,
            length: usize,
            buffer: &FSMutableFileDataBuffer,
            reply: &DynBlock<dyn Fn(*mut FSReadFileResult, *mut NSError)>,
        ) {
            let (item, buffer) = (MacItem::of(item), Sendable(buffer.retain()));
            self.later(reply, move |v| {
                let item = ours(item)?;
                let n = volume::fill(v, &item, offset, length, buffer.get())?;
                results::read(n, &v.get_attributes(&item)?)
            });
        }

        #[unsafe(method(writeContents:toFile:atOffset:replyHandler:))]
        fn write(
            &self,
            contents: &NSData,
            item: &FSItem,
            offset: libc::off_t,
            reply: &DynBlock<dyn Fn(*mut FSWriteFileResult, *mut NSError)>,
        ) {
            let (item, contents) = (MacItem::of(item), Sendable(contents.retain()));
            self.later(reply, move |v| {
                let item = ours(item)?;
                // SAFETY: FSKit does not change data that it handed over.
                let n = v.write(unsafe { contents.get().as_bytes_unchecked() }, &item, offset)?;
                results::written(n, &v.get_attributes(&item)?)
            });
        }
    }

    unsafe impl FSVolumeXattrHandler for ZfsVolume27 {
        #[unsafe(method(getXattrNamed:ofItem:context:replyHandler:))]
        fn get_xattr(
            &self,
            name: &FSFileName,
            item: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSGetXattrResult, *mut NSError)>,
        ) {
            let (item, name) = (MacItem::of(item), convert::name_bytes(name));
            self.later(reply, move |v| results::xattr(v.get_xattr(&name, &ours(item)?)?));
        }

        #[unsafe(method(setXattrNamed:toData:onItem:policy:context:replyHandler:))]
        fn set_xattr(
            &self,
            name: &FSFileName,
            value: Option<&NSData>,
            item: &FSItem,
            policy: FSSetXattrPolicy,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSSetXattrResult, *mut NSError)>,
        ) {
            let (item, name, value) = (MacItem::of(item), convert::name_bytes(name), value.map(NSData::to_vec));
            let policy = convert::policy(policy);
            self.later(reply, move |v| {
                v.set_xattr(&name, value.as_deref(), &ours(item)?, policy)?;
                results::xattr_set()
            });
        }

        #[unsafe(method(listXattrsOfItem:context:replyHandler:))]
        fn list_xattrs(
            &self,
            item: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSListXattrsResult, *mut NSError)>,
        ) {
            let item = MacItem::of(item);
            self.later(reply, move |v| results::xattrs(&v.list_xattrs(&ours(item)?)?));
        }
    }

    unsafe impl FSVolumeOpenCloseHandler for ZfsVolume27 {
        #[unsafe(method(isOpenCloseInhibited))]
        fn is_open_close_inhibited(&self) -> bool {
            true
        }

        #[unsafe(method(openItem:withModes:context:replyHandler:))]
        fn open(
            &self,
            _item: &FSItem,
            _modes: FSVolumeOpenModes,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut NSError)>,
        ) {
            volume::answer(reply, Ok(()));
        }

        #[unsafe(method(closeItem:keepingModes:context:replyHandler:))]
        fn close(
            &self,
            _item: &FSItem,
            _modes: FSVolumeOpenModes,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut NSError)>,
        ) {
            volume::answer(reply, Ok(()));
        }
    }

    unsafe impl FSVolumeDataCacheHandler for ZfsVolume27 {
        #[unsafe(method(isDataCacheInhibited))]
        fn is_data_cache_inhibited(&self) -> bool {
            // Leases cost two round trips an open; what changes from outside is told by `setCacheState`.
            true
        }

        #[unsafe(method(openItem:modes:cacheMode:context:replyHandler:))]
        fn open_cached(
            &self,
            _item: &FSItem,
            _modes: FSVolumeOpenModes,
            _mode: NSInteger,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSOpenItemResult, *mut NSError)>,
        ) {
            answer(reply, results::opened());
        }

        #[unsafe(method(closeItem:context:replyHandler:))]
        fn close_cached(&self, _item: &FSItem, _context: &FSContext, reply: &DynBlock<dyn Fn()>) {
            reply.call(());
        }

        #[unsafe(method(upgradeItem:cacheMode:context:replyHandler:))]
        fn upgrade(
            &self,
            _item: &FSItem,
            _mode: NSInteger,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSUpgradeItemResult, *mut NSError)>,
        ) {
            answer(reply, results::upgraded());
        }
    }

    unsafe impl FSVolumeAccessCheckHandler for ZfsVolume27 {
        #[unsafe(method(isAccessCheckInhibited))]
        fn is_access_check_inhibited(&self) -> bool {
            false
        }

        #[unsafe(method(checkAccessToItem:requestedAccess:context:replyHandler:))]
        fn check_access(
            &self,
            item: &FSItem,
            access: FSAccessMask,
            caller: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSCheckAccessResult, *mut NSError)>,
        ) {
            let (item, who) = (MacItem::of(item), context(caller));
            self.later(reply, move |v| results::allowed(v.may(&ours(item)?, access.0 as u64, who)?));
        }
    }

    unsafe impl FSVolumeSeekRegionHandler for ZfsVolume27 {
        #[unsafe(method(seekWithinItem:fromOffset:region:context:replyHandler:))]
        fn seek(
            &self,
            item: &FSItem,
            offset: libc::off_t,
            region: NSUInteger,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSSeekRegionResult, *mut NSError)>,
        ) {
            let item = MacItem::of(item);
            let region = if region == 1 { SeekRegion::Hole } else { SeekRegion::Data };
            self.later(reply, move |v| results::region(v.seek(&ours(item)?, offset, region)?));
        }
    }

    unsafe impl FSVolumeRenameHandler for ZfsVolume27 {
        #[unsafe(method(isVolumeRenameInhibited))]
        fn is_volume_rename_inhibited(&self) -> bool {
            true
        }

        #[unsafe(method(setVolumeName:context:replyHandler:))]
        fn set_volume_name(
            &self,
            _name: &FSFileName,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSVolumeRenameResult, *mut NSError)>,
        ) {
            // Datasets are renamed by `zfs rename`.
            answer(reply, Err(FsError::Posix(libc::ENOTSUP)));
        }
    }

    unsafe impl FSVolumePreallocateHandler for ZfsVolume27 {
        #[unsafe(method(isPreallocateInhibited))]
        fn is_preallocate_inhibited(&self) -> bool {
            true
        }

        #[unsafe(method(preallocateSpaceForItem:atOffset:length:flags:context:replyHandler:))]
        fn preallocate(
            &self,
            _item: &FSItem,
            _offset: libc::off_t,
            _length: usize,
            _flags: FSPreallocateFlags,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSPreallocateResult, *mut NSError)>,
        ) {
            // Blocks are allocated when they are written, never in advance.
            answer(reply, Err(FsError::Posix(libc::ENOTSUP)));
        }
    }

    unsafe impl FSVolumeItemDeactivationHandler for ZfsVolume27 {
        #[unsafe(method(itemDeactivationPolicy))]
        fn item_deactivation_policy(&self) -> FSItemDeactivationOptions {
            FSItemDeactivationOptions::Never
        }

        #[unsafe(method(deactivateItem:context:replyHandler:))]
        fn deactivate_item(
            &self,
            _item: &FSItem,
            _context: &FSContext,
            reply: &DynBlock<dyn Fn(*mut FSDeactivateItemResult, *mut NSError)>,
        ) {
            answer(reply, results::deactivated());
        }
    }
);

fn answer<T: Message>(reply: &Reply<T>, result: Answer<T>) {
    let failed = convert::error_of(&result);
    let result = result.ok();
    reply.call((convert::pointer(&result), convert::pointer(&failed)));
}

impl ZfsVolume27 {
    /// A volume of the module.
    pub fn new(volume: ModuleVolume) -> Retained<Self> {
        let (id, name) = (convert::uuid(volume.volume_id()), convert::file_name(volume.volume_name().as_bytes()));
        let this = Self::alloc().set_ivars(VolumeIvars { volume });
        // SAFETY: the superclass's designated initializer.
        unsafe {
            let id = FSVolumeIdentifier::initWithUUID(FSVolumeIdentifier::alloc(), &id);
            msg_send![super(this), initWithVolumeID: &*id, volumeName: &*name]
        }
    }

    fn module_volume(&self) -> ModuleVolume {
        self.ivars().volume.clone()
    }

    /// Works on a thread of its own and replies from there with a result.
    fn later<T: Message + 'static>(
        &self,
        reply: &Reply<T>,
        what: impl FnOnce(&ModuleVolume) -> Answer<T> + Send + 'static,
    ) {
        let (volume, reply) = (self.module_volume(), Sendable(reply.copy()));
        super::run(move || answer(reply.get(), what(&volume)));
    }

    fn later_done(&self, reply: &Done, what: impl FnOnce(&ModuleVolume) -> FsResult<()> + Send + 'static) {
        let (volume, reply) = (self.module_volume(), Sendable(reply.copy()));
        super::run(move || volume::answer(reply.get(), what(&volume)));
    }
}
