//! Backends and a server in this process.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use uzfs_proto::*;

/// A server that stops when dropped.
pub struct Server {
    /// Its socket.
    pub path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

/// Serves `backend` on a fresh socket.
pub fn start(backend: impl Backend + 'static) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let backend: Arc<dyn Backend> = Arc::new(backend);
    let thread = std::thread::spawn(move || {
        server::serve(&listener, &backend, &|| asked.load(Ordering::SeqCst)).unwrap();
    });
    Server { path, stop, thread: Some(thread), _dir: dir }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn no<T>() -> Result<T, Failure> {
    Err(Failure::new(FailureCode::NoSuchPool, "no such pool"))
}

/// No pools, but a thousand datasets.
pub struct Quiet;

/// Waits for events that never come.
pub struct Follow {
    /// Passed when the stream has started.
    pub started: Arc<Barrier>,
    /// Passed when the stream has ended.
    pub ended: Arc<Barrier>,
}

impl Default for Follow {
    fn default() -> Self {
        Follow { started: Arc::new(Barrier::new(2)), ended: Arc::new(Barrier::new(2)) }
    }
}

fn thousand(sink: &mut dyn Sink<ListDatasetsReply>) {
    for part in 0..10 {
        let datasets = (part * 100..(part + 1) * 100)
            .map(|i| Dataset {
                name: format!("pool/fs{i}"),
                kind: DatasetKind::Filesystem,
                guid: U64(i),
                createtxg: U64(i),
                inconsistent: false,
                properties: Default::default(),
            })
            .collect();
        if !sink.send(ListDatasetsReply { datasets, failures: vec![] }) {
            return;
        }
    }
}

macro_rules! backend {
    ($name:ident, $events:expr) => {
        impl Backend for $name {
            fn get_version(&self, caller: &Caller, _: Empty) -> Result<GetVersionReply, Failure> {
                assert!(caller.owner && caller.pid == std::process::id());
                Ok(GetVersionReply { version: "0".into(), openzfs: "2.3.2".into(), protocol: PROTOCOL, pid: 1 })
            }
            fn discover_pools(&self, _: &Caller, _: DiscoverPoolsArgs) -> Result<DiscoverPoolsReply, Failure> {
                no()
            }
            fn import_pool(&self, _: &Caller, _: ImportPoolArgs) -> Result<ImportPoolReply, Failure> {
                no()
            }
            fn export_pool(&self, _: &Caller, _: ExportPoolArgs) -> Result<Empty, Failure> {
                no()
            }
            fn get_pools(&self, _: &Caller, _: GetPoolsArgs) -> Result<GetPoolsReply, Failure> {
                no()
            }
            fn get_history(
                &self,
                _: &Caller,
                _: GetHistoryArgs,
                _: &mut dyn Sink<GetHistoryReply>,
            ) -> Result<(), Failure> {
                no()
            }
            fn watch_events(
                &self,
                _: &Caller,
                _: WatchEventsArgs,
                sink: &mut dyn Sink<WatchEventsReply>,
            ) -> Result<(), Failure> {
                let run: fn(&$name, &mut dyn Sink<WatchEventsReply>) = $events;
                run(self, sink);
                Ok(())
            }
            fn clear_events(&self, _: &Caller, _: Empty) -> Result<ClearEventsReply, Failure> {
                no()
            }
            fn list_datasets(
                &self,
                _: &Caller,
                _: ListDatasetsArgs,
                sink: &mut dyn Sink<ListDatasetsReply>,
            ) -> Result<(), Failure> {
                thousand(sink);
                Ok(())
            }
            fn mount(&self, _: &Caller, _: MountArgs) -> Result<ItemResults, Failure> {
                no()
            }
            fn unmount(&self, _: &Caller, _: UnmountArgs) -> Result<ItemResults, Failure> {
                no()
            }
            fn list_mounts(&self, _: &Caller, _: Empty) -> Result<ListMountsReply, Failure> {
                no()
            }
            fn add_devices(&self, _: &Caller, _: AddDevicesArgs) -> Result<Empty, Failure> {
                no()
            }
            fn set_pool_properties(&self, _: &Caller, _: SetPoolPropertiesArgs) -> Result<Empty, Failure> {
                no()
            }
            fn upgrade_pool(&self, _: &Caller, _: UpgradePoolArgs) -> Result<UpgradePoolReply, Failure> {
                no()
            }
            fn change_guid(&self, _: &Caller, _: ChangeGuidArgs) -> Result<Empty, Failure> {
                no()
            }
            fn clear_errors(&self, _: &Caller, _: ClearErrorsArgs) -> Result<Empty, Failure> {
                no()
            }
            fn set_device_state(&self, _: &Caller, _: SetDeviceStateArgs) -> Result<VdevNode, Failure> {
                no()
            }
            fn check_devices(&self, _: &Caller, _: CheckDevicesArgs) -> Result<Empty, Failure> {
                no()
            }
            fn clear_label(&self, _: &Caller, _: ClearLabelArgs) -> Result<Empty, Failure> {
                no()
            }
            fn scan_pool(&self, _: &Caller, _: ScanPoolArgs) -> Result<Empty, Failure> {
                no()
            }
            fn attach_device(&self, _: &Caller, _: AttachDeviceArgs) -> Result<Empty, Failure> {
                no()
            }
            fn detach_device(&self, _: &Caller, _: DetachDeviceArgs) -> Result<Empty, Failure> {
                no()
            }
            fn load_key(&self, caller: &Caller, args: LoadKeyArgs) -> Result<Empty, Failure> {
                let key = args.material(caller)?;
                Err(Failure::new(FailureCode::KeyIncorrect, String::from_utf8_lossy(&key)))
            }
            fn unload_key(&self, _: &Caller, _: UnloadKeyArgs) -> Result<Empty, Failure> {
                no()
            }
            fn create_pool(&self, _: &Caller, _: CreatePoolArgs) -> Result<Empty, Failure> {
                no()
            }
            fn destroy_pool(&self, _: &Caller, _: DestroyPoolArgs) -> Result<Empty, Failure> {
                no()
            }
            fn sync_pools(&self, _: &Caller, _: SyncPoolsArgs) -> Result<Empty, Failure> {
                no()
            }
            fn create_dataset(&self, _: &Caller, _: CreateDatasetArgs) -> Result<Empty, Failure> {
                no()
            }
            fn clone_snapshot(&self, _: &Caller, _: CloneSnapshotArgs) -> Result<Empty, Failure> {
                no()
            }
            fn destroy_datasets(&self, _: &Caller, _: DestroyDatasetsArgs) -> Result<Empty, Failure> {
                no()
            }
            fn create_snapshots(&self, _: &Caller, _: CreateSnapshotsArgs) -> Result<Empty, Failure> {
                no()
            }
            fn set_properties(&self, _: &Caller, _: SetPropertiesArgs) -> Result<Empty, Failure> {
                no()
            }
            fn rollback(&self, _: &Caller, _: RollbackArgs) -> Result<Empty, Failure> {
                no()
            }
            fn rename_dataset(&self, _: &Caller, _: RenameDatasetArgs) -> Result<Empty, Failure> {
                no()
            }
            fn promote(&self, _: &Caller, _: PromoteArgs) -> Result<Empty, Failure> {
                no()
            }
            fn create_bookmarks(&self, _: &Caller, _: CreateBookmarksArgs) -> Result<Empty, Failure> {
                no()
            }
            fn hold_snapshots(&self, _: &Caller, _: HoldArgs) -> Result<Empty, Failure> {
                no()
            }
            fn release_snapshots(&self, _: &Caller, _: HoldArgs) -> Result<Empty, Failure> {
                no()
            }
            fn list_holds(&self, _: &Caller, _: ListHoldsArgs) -> Result<ListHoldsReply, Failure> {
                no()
            }
            fn snapshot_space(&self, _: &Caller, _: SnapshotSpaceArgs) -> Result<SnapshotSpaceReply, Failure> {
                no()
            }
            fn log_history(&self, _: &Caller, _: LogHistoryArgs) -> Result<Empty, Failure> {
                no()
            }
            fn publish(&self, _: &Caller, _: PublishArgs) -> Result<PublishReply, Failure> {
                no()
            }
            fn unpublish(&self, _: &Caller, _: UnpublishArgs) -> Result<Empty, Failure> {
                no()
            }
            fn mount_by_agent(&self, _: &Caller, _: MountArgs) -> Result<ItemResults, Failure> {
                no()
            }
            fn serve_mounts(&self, _: &Caller, _: Empty, _: &mut dyn Sink<MountTask>) -> Result<(), Failure> {
                no()
            }
            fn report_mounts(&self, _: &Caller, _: ReportMountsArgs) -> Result<Empty, Failure> {
                no()
            }
            fn get_stats(&self, _: &Caller, _: Empty) -> Result<GetStatsReply, Failure> {
                no()
            }
            fn shutdown(&self, _: &Caller, _: ShutdownArgs) -> Result<Empty, Failure> {
                no()
            }
        }
    };
}

backend!(Quiet, |_, _| {});
backend!(Follow, |this, sink| {
    this.started.wait();
    while !sink.gone() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    this.ended.wait();
});
