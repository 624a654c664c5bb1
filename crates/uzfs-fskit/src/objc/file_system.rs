//! `ZFSFileSystem`: the extension's principal class.

use super::host::MacHost;
use super::volume::ZfsVolume;
use super::volume27::ZfsVolume27;
use super::{Sendable, convert, types27};
use crate::Module;
use crate::api::{BlockDevice, FsError, FsResult, Match, Resource, Task, UnaryFileSystem};
use block2::DynBlock;
use objc2::rc::{Allocated, Retained};
use objc2::runtime::{AnyClass, NSObject};
use objc2::{AnyThread, DefinedClass, Message, define_class, msg_send};
use objc2_foundation::{NSError, NSObjectProtocol, NSProgress};
use objc2_fs_kit::{
    FSBlockDeviceResource, FSContainerIdentifier, FSManageableResourceMaintenanceOperations, FSPathURLResource,
    FSProbeResult, FSResource, FSTask, FSTaskOptions, FSUnaryFileSystem, FSUnaryFileSystemOperations, FSVolume,
};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// Instance variables.
pub struct FileSystemIvars {
    host: Arc<MacHost>,
    module: Arc<Module<MacHost>>,
}

define_class!(
    // SAFETY: FSUnaryFileSystem asks its subclasses for the two protocols below and for nothing else.
    #[unsafe(super(FSUnaryFileSystem, NSObject))]
    #[name = "ZFSFileSystem"]
    #[ivars = FileSystemIvars]
    pub struct ZfsFileSystem;

    impl ZfsFileSystem {
        #[unsafe(method_id(init))]
        fn init(this: Allocated<Self>) -> Retained<Self> {
            let host = Arc::new(MacHost::default());
            let this = this.set_ivars(FileSystemIvars { host: host.clone(), module: Arc::new(Module::new(host)) });
            // SAFETY: the superclass's designated initializer.
            let this: Retained<Self> = unsafe { msg_send![super(this), init] };
            this.ivars().host.serve(&this);
            this
        }
    }

    unsafe impl NSObjectProtocol for ZfsFileSystem {}

    unsafe impl FSUnaryFileSystemOperations for ZfsFileSystem {
        #[unsafe(method(probeResource:replyHandler:))]
        fn probe(&self, resource: &FSResource, reply: &DynBlock<dyn Fn(*mut FSProbeResult, *mut NSError)>) {
            let probed = self.ivars().module.probe(&module_resource(resource));
            let failed = convert::error_of(&probed);
            let result = probed.ok().map(|p| {
                let name = convert::text(&p.name);
                // SAFETY: constructors that copy what they are given.
                unsafe {
                    let id = FSContainerIdentifier::alloc();
                    let id = FSContainerIdentifier::initWithUUID(id, &convert::uuid(p.container));
                    match p.result {
                        Match::NotRecognized => FSProbeResult::notRecognizedProbeResult(),
                        Match::Recognized => FSProbeResult::recognizedProbeResultWithName_containerID(&name, &id),
                        Match::UsableButLimited => {
                            FSProbeResult::usableButLimitedProbeResultWithName_containerID(&name, &id)
                        }
                        Match::Usable => FSProbeResult::usableProbeResultWithName_containerID(&name, &id),
                    }
                }
            });
            reply.call((convert::pointer(&result), convert::pointer(&failed)));
        }

        #[unsafe(method(loadResource:options:replyHandler:))]
        fn load(
            &self,
            resource: &FSResource,
            options: &FSTaskOptions,
            reply: &DynBlock<dyn Fn(*mut FSVolume, *mut NSError)>,
        ) {
            let loaded = self.ivars().module.load(&module_resource(resource), &convert::options(options));
            let failed = convert::error_of(&loaded);
            let volume: Option<Retained<FSVolume>> = loaded.ok().map(|volume| {
                if types27::there() { ZfsVolume27::new(volume).into_super() } else { ZfsVolume::new(volume).into_super() }
            });
            if let Some(volume) = &volume {
                self.ivars().host.loaded(volume);
            }
            reply.call((convert::pointer(&volume), convert::pointer(&failed)));
        }

        #[unsafe(method(unloadResource:options:replyHandler:))]
        fn unload(
            &self,
            resource: &FSResource,
            options: &FSTaskOptions,
            reply: &DynBlock<dyn Fn(*mut NSError)>,
        ) {
            let done = self.ivars().module.unload(&module_resource(resource), &convert::options(options));
            let failed = convert::error_of(&done);
            reply.call((convert::pointer(&failed),));
        }

        #[unsafe(method(didFinishLoading))]
        fn did_finish_loading(&self) {}
    }

    unsafe impl FSManageableResourceMaintenanceOperations for ZfsFileSystem {
        #[unsafe(method_id(startCheckWithTask:options:error:))]
        fn start_check(
            &self,
            task: &FSTask,
            options: &FSTaskOptions,
            error: *mut *mut NSError,
        ) -> Option<Retained<NSProgress>> {
            let task = Arc::new(MacTask(Sendable(task.retain())));
            progress(self.ivars().module.start_check(task, &convert::options(options)), error)
        }

        #[unsafe(method_id(startFormatWithTask:options:error:))]
        fn start_format(
            &self,
            task: &FSTask,
            options: &FSTaskOptions,
            error: *mut *mut NSError,
        ) -> Option<Retained<NSProgress>> {
            let task = Arc::new(MacTask(Sendable(task.retain())));
            progress(self.ivars().module.start_format(task, &convert::options(options)), error)
        }
    }
);

/// Progress for a task that began, or its error.
fn progress(started: FsResult<()>, error: *mut *mut NSError) -> Option<Retained<NSProgress>> {
    match started {
        Ok(()) => Some(NSProgress::progressWithTotalUnitCount(1)),
        Err(e) => {
            if !error.is_null() {
                // SAFETY: FSKit gave a place for an autoreleased error.
                unsafe { *error = Retained::autorelease_ptr(convert::error(e)) };
            }
            None
        }
    }
}

/// `FSTask`.
struct MacTask(Sendable<Retained<FSTask>>);

// SAFETY: a task may be completed on any thread.
unsafe impl Sync for MacTask {}

impl Task for MacTask {
    fn log(&self, line: &str) {
        // SAFETY: copies the text.
        unsafe { self.0.get().logMessage(&convert::text(line)) };
    }

    fn complete(&self, result: FsResult<()>) {
        let failed = convert::error_of(&result);
        // SAFETY: called once, after the method that started the task returned.
        unsafe { self.0.get().didCompleteWithError(failed.as_deref()) };
    }
}

/// `FSBlockDeviceResource`.
struct MacDevice(Sendable<Retained<FSBlockDeviceResource>>);

// SAFETY: reads may come from any thread.
unsafe impl Sync for MacDevice {}

impl BlockDevice for MacDevice {
    fn name(&self) -> String {
        // SAFETY: a property without side effects.
        unsafe { self.0.get().BSDName() }.to_string()
    }

    fn size(&self) -> u64 {
        // SAFETY: properties without side effects.
        unsafe { self.0.get().blockSize().saturating_mul(self.0.get().blockCount()) }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> FsResult<usize> {
        let io = FsError::Posix(libc::EIO);
        let place = NonNull::new(buf.as_mut_ptr().cast()).ok_or(io)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| io)?;
        let mut failed = None;
        // SAFETY: the memory is writable for its length, and is not used meanwhile.
        let n = unsafe { self.0.get().readInto_startingAt_length_error(place, offset, buf.len(), Some(&mut failed)) };
        if failed.is_some() { Err(io) } else { Ok(n) }
    }
}

/// What FSKit hands over, in the module's terms. Classes that the running system may lack are asked for by name.
fn module_resource(resource: &FSResource) -> Resource {
    if let Some(device) = resource.downcast_ref::<FSBlockDeviceResource>() {
        return Resource::Block(Arc::new(MacDevice(Sendable(device.retain()))));
    }
    if AnyClass::get(c"FSPathURLResource").is_some()
        && let Some(path) = resource.downcast_ref::<FSPathURLResource>()
    {
        // SAFETY: a property without side effects.
        let url = unsafe { path.url() };
        // SAFETY: the sandbox opens the path for as long as the process lives; a mount is a process.
        let _: bool = unsafe { msg_send![&*url, startAccessingSecurityScopedResource] };
        if let Some(path) = url.path() {
            return Resource::Path(path.to_string().into());
        }
    }
    let _ = ptr::from_ref(resource);
    Resource::Url(String::new())
}
