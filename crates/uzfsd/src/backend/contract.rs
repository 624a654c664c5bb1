//! The contract's methods, one line each where possible; the work is in the modules beside.

use super::Engine;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uzfs_proto::*;

/// What the daemon puts behind its socket.
pub struct Service(pub Arc<Engine>);

/// How long a listener waits before it looks whether its peer is still there.
const PATIENCE: Duration = Duration::from_millis(500);
/// OpenZFS release whose behaviour is followed.
const OPENZFS: &str = "2.3.2";

impl Backend for Service {
    fn get_version(&self, _: &Caller, _: Empty) -> Result<GetVersionReply, Failure> {
        Ok(GetVersionReply {
            version: env!("CARGO_PKG_VERSION").into(),
            openzfs: OPENZFS.into(),
            protocol: PROTOCOL,
            pid: u64::from(std::process::id()),
        })
    }

    fn discover_pools(&self, _: &Caller, args: DiscoverPoolsArgs) -> Result<DiscoverPoolsReply, Failure> {
        self.0.discover(&args)
    }

    fn import_pool(&self, _: &Caller, args: ImportPoolArgs) -> Result<ImportPoolReply, Failure> {
        self.0.import(&args)
    }

    fn export_pool(&self, _: &Caller, args: ExportPoolArgs) -> Result<Empty, Failure> {
        self.0.export(&args)
    }

    fn get_pools(&self, _: &Caller, args: GetPoolsArgs) -> Result<GetPoolsReply, Failure> {
        self.0.get_pools(&args)
    }

    fn get_history(
        &self,
        _: &Caller,
        args: GetHistoryArgs,
        sink: &mut dyn Sink<GetHistoryReply>,
    ) -> Result<(), Failure> {
        self.0.history(&args.pool, sink)
    }

    fn watch_events(
        &self,
        _: &Caller,
        args: WatchEventsArgs,
        sink: &mut dyn Sink<WatchEventsReply>,
    ) -> Result<(), Failure> {
        let mut last = 0;
        let mut patience = Duration::ZERO;
        loop {
            let mut events = self.0.events.after(last, patience);
            last = events.last().map_or(last, |e| e.eid);
            events.retain(|e| args.pool.is_none() || e.pool == args.pool);
            let listens = if events.is_empty() { !sink.gone() } else { sink.send(WatchEventsReply { events }) };
            if !listens || !args.follow {
                return Ok(());
            }
            patience = PATIENCE;
        }
    }

    fn clear_events(&self, _: &Caller, _: Empty) -> Result<ClearEventsReply, Failure> {
        Ok(ClearEventsReply { cleared: self.0.events.clear() })
    }

    fn list_datasets(
        &self,
        _: &Caller,
        args: ListDatasetsArgs,
        sink: &mut dyn Sink<ListDatasetsReply>,
    ) -> Result<(), Failure> {
        self.0.list_datasets(&args, sink)
    }

    fn mount(&self, _: &Caller, args: MountArgs) -> Result<ItemResults, Failure> {
        Ok(self.0.mount_all(&args))
    }

    fn unmount(&self, _: &Caller, args: UnmountArgs) -> Result<ItemResults, Failure> {
        Ok(self.0.unmount_all(&args))
    }

    fn list_mounts(&self, _: &Caller, _: Empty) -> Result<ListMountsReply, Failure> {
        let all = self.0.mounts.list();
        let mut mounts: Vec<_> = all.iter().map(|m| MountEntry::from(m.as_ref())).collect();
        mounts.extend(self.0.served_mounts());
        Ok(ListMountsReply { mounts })
    }

    fn create_pool(&self, _: &Caller, args: CreatePoolArgs) -> Result<Empty, Failure> {
        self.0.create_pool(args)
    }

    fn destroy_pool(&self, _: &Caller, args: DestroyPoolArgs) -> Result<Empty, Failure> {
        self.0.destroy_pool(args)
    }

    fn sync_pools(&self, _: &Caller, args: SyncPoolsArgs) -> Result<Empty, Failure> {
        self.0.sync_pools(args)
    }

    fn add_devices(&self, _: &Caller, args: AddDevicesArgs) -> Result<Empty, Failure> {
        self.0.add_devices(args)
    }

    fn set_pool_properties(&self, _: &Caller, args: SetPoolPropertiesArgs) -> Result<Empty, Failure> {
        self.0.set_pool_properties(args)
    }

    fn upgrade_pool(&self, _: &Caller, args: UpgradePoolArgs) -> Result<UpgradePoolReply, Failure> {
        self.0.upgrade_pool(args)
    }

    fn change_guid(&self, _: &Caller, args: ChangeGuidArgs) -> Result<Empty, Failure> {
        self.0.change_guid(args)
    }

    fn clear_errors(&self, _: &Caller, args: ClearErrorsArgs) -> Result<Empty, Failure> {
        self.0.clear_errors(args)
    }

    fn set_device_state(&self, _: &Caller, args: SetDeviceStateArgs) -> Result<VdevNode, Failure> {
        self.0.set_device_state(args)
    }

    fn check_devices(&self, _: &Caller, args: CheckDevicesArgs) -> Result<Empty, Failure> {
        self.0.check_in_use(&args.vdevs, args.force).map(|()| Empty {})
    }

    fn clear_label(&self, _: &Caller, args: ClearLabelArgs) -> Result<Empty, Failure> {
        self.0.clear_label(args)
    }

    fn scan_pool(&self, _: &Caller, args: ScanPoolArgs) -> Result<Empty, Failure> {
        self.0.scan_pool(args)
    }

    fn attach_device(&self, _: &Caller, args: AttachDeviceArgs) -> Result<Empty, Failure> {
        self.0.attach_device(args)
    }

    fn detach_device(&self, _: &Caller, args: DetachDeviceArgs) -> Result<Empty, Failure> {
        self.0.detach_device(args)
    }

    fn create_dataset(&self, caller: &Caller, args: CreateDatasetArgs) -> Result<Empty, Failure> {
        self.0.create_dataset(caller, args)
    }

    fn clone_snapshot(&self, caller: &Caller, args: CloneSnapshotArgs) -> Result<Empty, Failure> {
        self.0.clone_snapshot(caller, args)
    }

    fn destroy_datasets(&self, _: &Caller, args: DestroyDatasetsArgs) -> Result<Empty, Failure> {
        self.0.destroy_datasets(args)
    }

    fn create_snapshots(&self, caller: &Caller, args: CreateSnapshotsArgs) -> Result<Empty, Failure> {
        self.0.create_snapshots(caller, args)
    }

    fn set_properties(&self, _: &Caller, args: SetPropertiesArgs) -> Result<Empty, Failure> {
        self.0.set_properties(args)
    }

    fn rollback(&self, _: &Caller, args: RollbackArgs) -> Result<Empty, Failure> {
        self.0.rollback(args)
    }

    fn rename_dataset(&self, caller: &Caller, args: RenameDatasetArgs) -> Result<Empty, Failure> {
        self.0.rename_dataset(caller, args)
    }

    fn promote(&self, _: &Caller, args: PromoteArgs) -> Result<Empty, Failure> {
        self.0.promote(&args)
    }

    fn create_bookmarks(&self, _: &Caller, args: CreateBookmarksArgs) -> Result<Empty, Failure> {
        self.0.create_bookmarks(&args)
    }

    fn hold_snapshots(&self, _: &Caller, args: HoldArgs) -> Result<Empty, Failure> {
        self.0.hold_snapshots(&args)
    }

    fn release_snapshots(&self, _: &Caller, args: HoldArgs) -> Result<Empty, Failure> {
        self.0.release_snapshots(&args)
    }

    fn list_holds(&self, _: &Caller, args: ListHoldsArgs) -> Result<ListHoldsReply, Failure> {
        self.0.list_holds(&args)
    }

    fn snapshot_space(&self, _: &Caller, args: SnapshotSpaceArgs) -> Result<SnapshotSpaceReply, Failure> {
        self.0.snapshot_space(&args)
    }

    fn log_history(&self, caller: &Caller, args: LogHistoryArgs) -> Result<Empty, Failure> {
        self.0.log_history(&args, caller.uid)
    }

    fn load_key(&self, caller: &Caller, args: LoadKeyArgs) -> Result<Empty, Failure> {
        self.0.load_key(&args, &args.material(caller)?)
    }

    fn unload_key(&self, _: &Caller, args: UnloadKeyArgs) -> Result<Empty, Failure> {
        self.0.unload_key(&args.dataset)
    }

    fn publish(&self, caller: &Caller, args: PublishArgs) -> Result<PublishReply, Failure> {
        self.0.publish(caller, args)
    }

    fn unpublish(&self, _: &Caller, args: UnpublishArgs) -> Result<Empty, Failure> {
        self.0.unpublish(&args)
    }

    fn mount_by_agent(&self, caller: &Caller, args: MountArgs) -> Result<ItemResults, Failure> {
        self.0.mount_by_agent(caller, args)
    }

    fn serve_mounts(&self, caller: &Caller, _: Empty, sink: &mut dyn Sink<MountTask>) -> Result<(), Failure> {
        self.serve_agent(caller, sink)
    }

    fn report_mounts(&self, caller: &Caller, args: ReportMountsArgs) -> Result<Empty, Failure> {
        self.agent_reports(caller, args)
    }

    fn get_stats(&self, _: &Caller, _: Empty) -> Result<GetStatsReply, Failure> {
        let s = self.0.arc.stats();
        let stats = [
            ("hits", s.hits),
            ("misses", s.misses),
            ("hot_hits", s.hot_hits),
            ("coalesced", s.coalesced),
            ("evictions", s.evictions),
            ("size", s.used),
            ("c_max", s.budget),
            ("entries", s.entries),
        ];
        Ok(GetStatsReply { stats: stats.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>() })
    }

    fn shutdown(&self, _: &Caller, args: ShutdownArgs) -> Result<Empty, Failure> {
        self.0.close_all(args.force)?;
        self.0.stop();
        Ok(Empty {})
    }
}
