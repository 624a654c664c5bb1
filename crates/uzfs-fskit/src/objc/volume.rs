//! `ZFSVolume`, of macOS 15.4 to 26: every operations protocol but kernel-offloaded I/O, which compressed and
//! checksummed blocks rule out. What ZFS leaves to the kernel is inhibited: opening and closing, access checks (no
//! caller is told before macOS 27), preallocation, renaming of volumes.

use super::host::MacHost;
use super::item::MacItem;
use super::{Sendable, convert};
use crate::api::{CaseFormat, FsError, FsResult, PackedEntry, SHORT_NAME, SyncFlags, VolumeOperations};
use block2::DynBlock;
use objc2::rc::Retained;
use objc2::runtime::{Bool, NSObject};
use objc2::{AnyThread, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSArray, NSData, NSError, NSInteger, NSObjectProtocol, NSUInteger};
use objc2_fs_kit::{
    FSAccessMask, FSDeactivateOptions, FSDirectoryCookie, FSDirectoryEntryPacker, FSDirectoryVerifier, FSFileName,
    FSItem, FSItemAttributes, FSItemDeactivationOptions, FSItemGetAttributesRequest, FSItemID,
    FSItemSetAttributesRequest, FSItemType, FSMutableFileDataBuffer, FSPreallocateFlags, FSSetXattrPolicy,
    FSStatFSResult, FSSyncFlags, FSTaskOptions, FSVolume, FSVolumeAccessCheckOperations, FSVolumeCaseFormat,
    FSVolumeIdentifier, FSVolumeItemDeactivation, FSVolumeOpenCloseOperations, FSVolumeOpenModes, FSVolumeOperations,
    FSVolumePathConfOperations, FSVolumePreallocateOperations, FSVolumeReadWriteOperations, FSVolumeRenameOperations,
    FSVolumeSupportedCapabilities, FSVolumeXattrOperations,
};
use std::ptr;
use std::sync::Arc;

/// The module's volume.
pub(super) type ModuleVolume = Arc<dyn VolumeOperations<MacHost>>;
type Done = DynBlock<dyn Fn(*mut NSError)>;
type Named = DynBlock<dyn Fn(*mut FSFileName, *mut NSError)>;
type Found = DynBlock<dyn Fn(*mut FSItem, *mut FSFileName, *mut NSError)>;

/// Instance variables.
pub struct VolumeIvars {
    volume: ModuleVolume,
}

define_class!(
    // SAFETY: FSVolume asks its subclasses for the protocols below; the module behind them may be used by any thread.
    #[unsafe(super(FSVolume, NSObject))]
    #[name = "ZFSVolume"]
    #[ivars = VolumeIvars]
    pub struct ZfsVolume;

    unsafe impl NSObjectProtocol for ZfsVolume {}

    impl ZfsVolume {
        // macOS 26.4 asks for it; the bindings do not know it yet.
        #[unsafe(method(requestedMountOptions))]
        fn requested_mount_options(&self) -> NSUInteger {
            mount_options(&self.ivars().volume)
        }
    }

    unsafe impl FSVolumePathConfOperations for ZfsVolume {
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

    unsafe impl FSVolumeOperations for ZfsVolume {
        #[unsafe(method_id(supportedVolumeCapabilities))]
        fn supported_volume_capabilities(&self) -> Retained<FSVolumeSupportedCapabilities> {
            capabilities(&self.ivars().volume)
        }

        #[unsafe(method_id(volumeStatistics))]
        fn volume_statistics(&self) -> Retained<FSStatFSResult> {
            statistics(&self.ivars().volume)
        }

        #[unsafe(method(enableOpenUnlinkEmulation))]
        fn enable_open_unlink_emulation(&self) -> bool {
            // A file without a name lives in ZFS until it is reclaimed.
            false
        }

        #[unsafe(method(activateWithOptions:replyHandler:))]
        fn activate(&self, options: &FSTaskOptions, reply: &DynBlock<dyn Fn(*mut FSItem, *mut NSError)>) {
            let root = self.ivars().volume.activate(&convert::options(options));
            let failed = convert::error_of(&root);
            reply.call((root.map_or(ptr::null_mut(), |r| r.pointer()), convert::pointer(&failed)));
        }

        #[unsafe(method(deactivateWithOptions:replyHandler:))]
        fn deactivate(&self, options: FSDeactivateOptions, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            answer(reply, self.ivars().volume.deactivate(options.contains(FSDeactivateOptions::Force)));
        }

        #[unsafe(method(mountWithOptions:replyHandler:))]
        fn mount(&self, options: &FSTaskOptions, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            let options = convert::options(options);
            self.later(reply, move |v| v.mount(&options));
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
            self.later(reply, move |v| v.synchronize(flags));
        }

        #[unsafe(method(getAttributes:ofItem:replyHandler:))]
        fn get_attributes(
            &self,
            _desired: &FSItemGetAttributesRequest,
            item: &FSItem,
            reply: &DynBlock<dyn Fn(*mut FSItemAttributes, *mut NSError)>,
        ) {
            let (volume, item, reply) = (self.module_volume(), MacItem::of(item), Sendable(reply.copy()));
            super::run(move || {
                let found = ours(item).and_then(|i| volume.get_attributes(&i));
                let failed = convert::error_of(&found);
                let attributes = found.ok().map(|a| convert::attributes(&a));
                reply.get().call((convert::pointer(&attributes), convert::pointer(&failed)));
            });
        }

        #[unsafe(method(setAttributes:onItem:replyHandler:))]
        fn set_attributes(
            &self,
            request: &FSItemSetAttributesRequest,
            item: &FSItem,
            reply: &DynBlock<dyn Fn(*mut FSItemAttributes, *mut NSError)>,
        ) {
            let (volume, item) = (self.module_volume(), MacItem::of(item));
            let kept: Sendable<(Retained<FSItemSetAttributesRequest>, block2::RcBlock<_>)> =
                Sendable((request.retain(), reply.copy()));
            super::run(move || {
                let (request, reply) = kept.get();
                let mut set = convert::wanted(request);
                let found = ours(item).and_then(|i| volume.set_attributes(&mut set, &i));
                convert::consumed(request, &set);
                let failed = convert::error_of(&found);
                let attributes = found.ok().map(|a| convert::attributes(&a));
                reply.call((convert::pointer(&attributes), convert::pointer(&failed)));
            });
        }

        #[unsafe(method(lookupItemNamed:inDirectory:replyHandler:))]
        fn lookup(
            &self,
            name: &FSFileName,
            directory: &FSItem,
            reply: &DynBlock<dyn Fn(*mut FSItem, *mut FSFileName, *mut NSError)>,
        ) {
            let (name, directory) = (convert::name_bytes(name), MacItem::of(directory));
            self.later_found(reply, move |v| v.lookup(&name, &ours(directory)?));
        }

        #[unsafe(method(reclaimItem:replyHandler:))]
        fn reclaim(&self, item: &FSItem, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            let item = MacItem::of(item);
            self.later(reply, move |v| v.reclaim(&ours(item)?));
        }

        #[unsafe(method(readSymbolicLink:replyHandler:))]
        fn read_symbolic_link(&self, item: &FSItem, reply: &DynBlock<dyn Fn(*mut FSFileName, *mut NSError)>) {
            let item = MacItem::of(item);
            self.later_named(reply, move |v| v.read_link(&ours(item)?));
        }

        #[unsafe(method(createItemNamed:type:inDirectory:attributes:replyHandler:))]
        fn create(
            &self,
            name: &FSFileName,
            kind: FSItemType,
            directory: &FSItem,
            attributes: &FSItemSetAttributesRequest,
            reply: &DynBlock<dyn Fn(*mut FSItem, *mut FSFileName, *mut NSError)>,
        ) {
            let (name, directory) = (convert::name_bytes(name), MacItem::of(directory));
            let request = Sendable(attributes.retain());
            let kind = convert::item_type(kind);
            self.later_found(reply, move |v| {
                let mut set = convert::wanted(request.get());
                let made = v.create(&name, kind, &ours(directory)?, &mut set);
                convert::consumed(request.get(), &set);
                made
            });
        }

        #[unsafe(method(createSymbolicLinkNamed:inDirectory:attributes:linkContents:replyHandler:))]
        fn create_symbolic_link(
            &self,
            name: &FSFileName,
            directory: &FSItem,
            attributes: &FSItemSetAttributesRequest,
            contents: &FSFileName,
            reply: &DynBlock<dyn Fn(*mut FSItem, *mut FSFileName, *mut NSError)>,
        ) {
            let (name, target) = (convert::name_bytes(name), convert::name_bytes(contents));
            let (directory, request) = (MacItem::of(directory), Sendable(attributes.retain()));
            self.later_found(reply, move |v| {
                let mut set = convert::wanted(request.get());
                let made = v.create_symlink(&name, &ours(directory)?, &mut set, &target);
                convert::consumed(request.get(), &set);
                made
            });
        }

        #[unsafe(method(createLinkToItem:named:inDirectory:replyHandler:))]
        fn create_link(
            &self,
            item: &FSItem,
            name: &FSFileName,
            directory: &FSItem,
            reply: &DynBlock<dyn Fn(*mut FSFileName, *mut NSError)>,
        ) {
            let (item, directory, name) = (MacItem::of(item), MacItem::of(directory), convert::name_bytes(name));
            self.later_named(reply, move |v| v.create_link(&ours(item)?, &name, &ours(directory)?));
        }

        #[unsafe(method(removeItem:named:fromDirectory:replyHandler:))]
        fn remove(&self, item: &FSItem, name: &FSFileName, directory: &FSItem, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            let (item, directory, name) = (MacItem::of(item), MacItem::of(directory), convert::name_bytes(name));
            self.later(reply, move |v| v.remove(&ours(item)?, &name, &ours(directory)?));
        }

        #[unsafe(method(renameItem:inDirectory:named:toNewName:inDirectory:overItem:replyHandler:))]
        fn rename(
            &self,
            item: &FSItem,
            source_directory: &FSItem,
            source_name: &FSFileName,
            destination_name: &FSFileName,
            destination_directory: &FSItem,
            over_item: Option<&FSItem>,
            reply: &DynBlock<dyn Fn(*mut FSFileName, *mut NSError)>,
        ) {
            let (item, over) = (MacItem::of(item), over_item.and_then(MacItem::of));
            let (from, to) = (MacItem::of(source_directory), MacItem::of(destination_directory));
            let (old, new) = (convert::name_bytes(source_name), convert::name_bytes(destination_name));
            self.later_named(reply, move |v| {
                v.rename(&ours(item)?, (&ours(from)?, &old), (&ours(to)?, &new), over.as_ref())
            });
        }

        #[unsafe(method(enumerateDirectory:startingAtCookie:verifier:providingAttributes:usingPacker:replyHandler:))]
        fn enumerate(
            &self,
            directory: &FSItem,
            cookie: FSDirectoryCookie,
            verifier: FSDirectoryVerifier,
            attributes: Option<&FSItemGetAttributesRequest>,
            packer: &FSDirectoryEntryPacker,
            reply: &DynBlock<dyn Fn(FSDirectoryVerifier, *mut NSError)>,
        ) {
            let (volume, directory, wanted) = (self.module_volume(), MacItem::of(directory), attributes.is_some());
            let kept: Sendable<(Retained<FSDirectoryEntryPacker>, block2::RcBlock<_>)> =
                Sendable((packer.retain(), reply.copy()));
            super::run(move || {
                let (packer, reply) = kept.get();
                let listed = list(&volume, directory, (cookie, verifier), wanted, packer);
                let failed = convert::error_of(&listed);
                reply.call((listed.unwrap_or(0), convert::pointer(&failed)));
            });
        }
    }

    unsafe impl FSVolumeReadWriteOperations for ZfsVolume {
        #[unsafe(method(readFromFile:offset:length:intoBuffer:replyHandler:))]
        fn read(
            &self,
            item: &FSItem,
            offset: libc::off_t,
            length: usize,
            buffer: &FSMutableFileDataBuffer,
            reply: &DynBlock<dyn Fn(usize, *mut NSError)>,
        ) {
            let (volume, item) = (self.module_volume(), MacItem::of(item));
            let kept: Sendable<(Retained<FSMutableFileDataBuffer>, block2::RcBlock<_>)> =
                Sendable((buffer.retain(), reply.copy()));
            super::run(move || {
                let (buffer, reply) = kept.get();
                let done = ours(item).and_then(|i| fill(&volume, &i, offset, length, buffer));
                let failed = convert::error_of(&done);
                reply.call((done.unwrap_or(0), convert::pointer(&failed)));
            });
        }

        #[unsafe(method(writeContents:toFile:atOffset:replyHandler:))]
        fn write(
            &self,
            contents: &NSData,
            item: &FSItem,
            offset: libc::off_t,
            reply: &DynBlock<dyn Fn(usize, *mut NSError)>,
        ) {
            let (volume, item) = (self.module_volume(), MacItem::of(item));
            let kept: Sendable<(Retained<NSData>, block2::RcBlock<_>)> = Sendable((contents.retain(), reply.copy()));
            super::run(move || {
                let (contents, reply) = kept.get();
                // SAFETY: FSKit does not change data that it handed over.
                let bytes = unsafe { contents.as_bytes_unchecked() };
                let done = ours(item).and_then(|i| volume.write(bytes, &i, offset));
                let failed = convert::error_of(&done);
                reply.call((done.unwrap_or(0), convert::pointer(&failed)));
            });
        }
    }

    unsafe impl FSVolumeXattrOperations for ZfsVolume {
        #[unsafe(method(getXattrNamed:ofItem:replyHandler:))]
        fn get_xattr(&self, name: &FSFileName, item: &FSItem, reply: &DynBlock<dyn Fn(*mut NSData, *mut NSError)>) {
            let (volume, item, name) = (self.module_volume(), MacItem::of(item), convert::name_bytes(name));
            let reply = Sendable(reply.copy());
            super::run(move || {
                let found = ours(item).and_then(|i| volume.get_xattr(&name, &i));
                let failed = convert::error_of(&found);
                let value = found.ok().map(NSData::from_vec);
                reply.get().call((convert::pointer(&value), convert::pointer(&failed)));
            });
        }

        #[unsafe(method(setXattrNamed:toData:onItem:policy:replyHandler:))]
        fn set_xattr(
            &self,
            name: &FSFileName,
            value: Option<&NSData>,
            item: &FSItem,
            policy: FSSetXattrPolicy,
            reply: &DynBlock<dyn Fn(*mut NSError)>,
        ) {
            let (item, name, value) = (MacItem::of(item), convert::name_bytes(name), value.map(NSData::to_vec));
            let policy = convert::policy(policy);
            self.later(reply, move |v| v.set_xattr(&name, value.as_deref(), &ours(item)?, policy));
        }

        #[unsafe(method(listXattrsOfItem:replyHandler:))]
        fn list_xattrs(&self, item: &FSItem, reply: &DynBlock<dyn Fn(*mut NSArray<FSFileName>, *mut NSError)>) {
            let (volume, item, reply) = (self.module_volume(), MacItem::of(item), Sendable(reply.copy()));
            super::run(move || {
                let found = ours(item).and_then(|i| volume.list_xattrs(&i));
                let failed = convert::error_of(&found);
                let names = found.ok().map(|names| {
                    let names: Vec<_> = names.iter().map(|n| convert::file_name(n)).collect();
                    NSArray::from_retained_slice(&names)
                });
                reply.get().call((convert::pointer(&names), convert::pointer(&failed)));
            });
        }
    }

    unsafe impl FSVolumeOpenCloseOperations for ZfsVolume {
        #[unsafe(method(isOpenCloseInhibited))]
        fn is_open_close_inhibited(&self) -> bool {
            true
        }

        #[unsafe(method(openItem:withModes:replyHandler:))]
        fn open(&self, _item: &FSItem, _modes: FSVolumeOpenModes, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            answer(reply, Ok(()));
        }

        #[unsafe(method(closeItem:keepingModes:replyHandler:))]
        fn close(&self, _item: &FSItem, _modes: FSVolumeOpenModes, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            answer(reply, Ok(()));
        }
    }

    unsafe impl FSVolumeAccessCheckOperations for ZfsVolume {
        #[unsafe(method(isAccessCheckInhibited))]
        fn is_access_check_inhibited(&self) -> bool {
            true
        }

        #[unsafe(method(checkAccessToItem:requestedAccess:replyHandler:))]
        fn check_access(&self, _item: &FSItem, _access: FSAccessMask, reply: &DynBlock<dyn Fn(Bool, *mut NSError)>) {
            // Who asks is not told: the kernel checks modes itself.
            reply.call((Bool::YES, ptr::null_mut()));
        }
    }

    unsafe impl FSVolumeRenameOperations for ZfsVolume {
        #[unsafe(method(isVolumeRenameInhibited))]
        fn is_volume_rename_inhibited(&self) -> bool {
            true
        }

        #[unsafe(method(setVolumeName:replyHandler:))]
        fn set_volume_name(&self, _name: &FSFileName, reply: &DynBlock<dyn Fn(*mut FSFileName, *mut NSError)>) {
            // Datasets are renamed by `zfs rename`.
            let failed = Some(convert::error(FsError::Posix(libc::ENOTSUP)));
            reply.call((ptr::null_mut(), convert::pointer(&failed)));
        }
    }

    unsafe impl FSVolumePreallocateOperations for ZfsVolume {
        #[unsafe(method(isPreallocateInhibited))]
        fn is_preallocate_inhibited(&self) -> bool {
            true
        }

        #[unsafe(method(preallocateSpaceForItem:atOffset:length:flags:replyHandler:))]
        fn preallocate(
            &self,
            _item: &FSItem,
            _offset: libc::off_t,
            _length: usize,
            _flags: FSPreallocateFlags,
            reply: &DynBlock<dyn Fn(usize, *mut NSError)>,
        ) {
            // Blocks are allocated when they are written, never in advance.
            let failed = Some(convert::error(FsError::Posix(libc::ENOTSUP)));
            reply.call((0, convert::pointer(&failed)));
        }
    }

    unsafe impl FSVolumeItemDeactivation for ZfsVolume {
        #[unsafe(method(itemDeactivationPolicy))]
        fn item_deactivation_policy(&self) -> FSItemDeactivationOptions {
            FSItemDeactivationOptions::Never
        }

        #[unsafe(method(deactivateItem:replyHandler:))]
        fn deactivate_item(&self, _item: &FSItem, reply: &DynBlock<dyn Fn(*mut NSError)>) {
            answer(reply, Ok(()));
        }
    }
);

/// `FSMountOptions` of a volume: 1 for one that can only be read.
pub(super) fn mount_options(volume: &ModuleVolume) -> NSUInteger {
    NSUInteger::from(volume.is_readonly())
}

/// What a volume can do.
pub(super) fn capabilities(volume: &ModuleVolume) -> Retained<FSVolumeSupportedCapabilities> {
    let c = volume.capabilities();
    // SAFETY: setters of a new object.
    unsafe {
        let out = FSVolumeSupportedCapabilities::new();
        out.setSupportsPersistentObjectIDs(c.persistent_ids);
        out.setSupports64BitObjectIDs(c.wide_ids);
        out.setSupportsHardLinks(c.hard_links);
        out.setSupportsSymbolicLinks(c.symbolic_links);
        out.setSupportsSparseFiles(c.sparse_files);
        out.setSupports2TBFiles(c.large_files);
        out.setSupportsSharedSpace(c.shared_space);
        out.setSupportsFastStatFS(c.fast_statfs);
        out.setCaseFormat(match c.case {
            CaseFormat::Sensitive => FSVolumeCaseFormat::Sensitive,
            CaseFormat::InsensitivePreserving => FSVolumeCaseFormat::InsensitiveCasePreserving,
        });
        out
    }
}

/// Space of a volume.
pub(super) fn statistics(volume: &ModuleVolume) -> Retained<FSStatFSResult> {
    let s = volume.statistics();
    let used = s.total_blocks.saturating_sub(s.free_blocks);
    // SAFETY: setters of a new object.
    unsafe {
        let name = convert::text(SHORT_NAME);
        let out = FSStatFSResult::initWithFileSystemTypeName(FSStatFSResult::alloc(), &name);
        out.setBlockSize(s.block_size as NSInteger);
        out.setIoSize(s.io_size as NSInteger);
        out.setTotalBlocks(s.total_blocks);
        out.setFreeBlocks(s.free_blocks);
        out.setAvailableBlocks(s.free_blocks);
        out.setUsedBlocks(used);
        out.setTotalBytes(s.total_blocks.saturating_mul(s.block_size));
        out.setFreeBytes(s.free_blocks.saturating_mul(s.block_size));
        out.setAvailableBytes(s.free_blocks.saturating_mul(s.block_size));
        out.setUsedBytes(used.saturating_mul(s.block_size));
        out.setTotalFiles(s.total_files);
        out.setFreeFiles(s.free_files);
        out
    }
}

/// Lists a directory into FSKit's packer; gives the verifier.
pub(super) fn list(
    volume: &ModuleVolume,
    directory: Option<MacItem>,
    (cookie, verifier): (FSDirectoryCookie, FSDirectoryVerifier),
    wanted: bool,
    packer: &FSDirectoryEntryPacker,
) -> FsResult<FSDirectoryVerifier> {
    let mut pack = |e: &PackedEntry<'_>| {
        let name = convert::file_name(e.name);
        let attributes = e.attributes.as_ref().map(convert::attributes);
        // SAFETY: the packer copies what it is given, and is alive until the reply.
        unsafe {
            packer.packEntryWithName_itemType_itemID_nextCookie_attributes(
                &name,
                convert::fs_type(e.kind),
                FSItemID(e.id),
                e.next_cookie,
                attributes.as_deref(),
            )
        }
    };
    volume.enumerate(&ours(directory)?, cookie, verifier, wanted, &mut pack)
}

/// Reads into FSKit's buffer.
pub(super) fn fill(
    volume: &ModuleVolume,
    item: &MacItem,
    offset: libc::off_t,
    length: usize,
    buffer: &FSMutableFileDataBuffer,
) -> FsResult<usize> {
    // SAFETY: the buffer is writable for its length until the reply, and nobody else writes it.
    let room = unsafe {
        let bytes = buffer.mutableBytes().as_ptr().cast::<u8>();
        std::slice::from_raw_parts_mut(bytes, length.min(buffer.length()))
    };
    volume.read(item, offset, room)
}

/// An item of ours, or the error for one that is not.
pub(super) fn ours(item: Option<MacItem>) -> FsResult<MacItem> {
    item.ok_or(FsError::Posix(libc::ESTALE))
}

pub(super) fn answer(reply: &Done, result: FsResult<()>) {
    let failed = convert::error_of(&result);
    reply.call((convert::pointer(&failed),));
}

impl ZfsVolume {
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

    /// The module's volume.
    pub fn module_volume(&self) -> ModuleVolume {
        self.ivars().volume.clone()
    }

    fn later(&self, reply: &Done, what: impl FnOnce(&ModuleVolume) -> FsResult<()> + Send + 'static) {
        let (volume, reply) = (self.module_volume(), Sendable(reply.copy()));
        super::run(move || answer(reply.get(), what(&volume)));
    }

    fn later_named(&self, reply: &Named, what: impl FnOnce(&ModuleVolume) -> FsResult<Vec<u8>> + Send + 'static) {
        let (volume, reply) = (self.module_volume(), Sendable(reply.copy()));
        super::run(move || {
            let found = what(&volume);
            let failed = convert::error_of(&found);
            let name = found.ok().map(|n| convert::file_name(&n));
            reply.get().call((convert::pointer(&name), convert::pointer(&failed)));
        });
    }

    fn later_found(
        &self,
        reply: &Found,
        what: impl FnOnce(&ModuleVolume) -> FsResult<(MacItem, Vec<u8>)> + Send + 'static,
    ) {
        let (volume, reply) = (self.module_volume(), Sendable(reply.copy()));
        super::run(move || {
            let found = what(&volume);
            let failed = convert::error_of(&found);
            match found {
                Ok((item, name)) => {
                    let name = convert::file_name(&name);
                    reply.get().call((item.pointer(), Retained::as_ptr(&name).cast_mut(), ptr::null_mut()));
                }
                Err(_) => reply.get().call((ptr::null_mut(), ptr::null_mut(), convert::pointer(&failed))),
            }
        });
    }
}
