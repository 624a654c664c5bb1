//! A daemon without an engine: pools and datasets in memory.

use serde_json::json;
use std::sync::Mutex;
use uzfs_proto::*;

/// What the daemon was asked to change, in order.
pub type Log = std::sync::Arc<Mutex<Vec<String>>>;

/// The fake.
#[derive(Default)]
pub struct Fake {
    /// Imported pools.
    pub pools: Vec<Pool>,
    /// Their datasets, parents first.
    pub datasets: Vec<Dataset>,
    /// History of every pool.
    pub history: Vec<HistoryRecord>,
    /// Pools that can be imported.
    pub importable: Vec<ImportablePool>,
    /// What is mounted.
    pub mounts: Vec<MountEntry>,
    /// Events.
    pub events: Vec<Event>,
    /// Answers of ImportPool; without one it works.
    pub refuse: Option<Failure>,
    /// Calls that change something.
    pub log: Log,
}

/// Scan statistics with nothing in them.
pub fn no_scan() -> serde_json::Value {
    json!({
        "function": "none", "state": "none", "start_time": 0, "end_time": 0, "to_examine": 0,
        "examined": 0, "skipped": 0, "processed": 0, "errors": 0, "pass_exam": 0, "pass_start": 0,
        "pass_scrub_pause": 0, "pass_scrub_spent_paused": 0, "pass_issued": 0, "issued": 0,
        "error_scrub_function": "none", "error_scrub_state": "none", "error_scrub_start": 0,
        "error_scrub_end": 0, "error_scrub_examined": 0, "error_scrub_to_be_examined": 0,
        "pass_error_scrub_pause": 0,
    })
}

impl Fake {
    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    fn below(name: &str, root: &str) -> Option<u64> {
        let rest = name.strip_prefix(root)?;
        match rest.chars().next() {
            None => Some(0),
            Some('/' | '@' | '#') => Some(rest.matches(['/', '@', '#']).count() as u64),
            Some(_) => None,
        }
    }

    fn with(ds: &Dataset, wanted: Option<&[String]>) -> Dataset {
        let mut ds = ds.clone();
        if let Some(wanted) = wanted {
            ds.properties.retain(|n, _| wanted.contains(n));
        }
        ds
    }
}

fn items(targets: impl Iterator<Item = (String, Option<Failure>)>) -> ItemResults {
    ItemResults { results: targets.map(|(subject, failure)| ItemResult { subject, failure }).collect() }
}

impl Backend for Fake {
    fn get_version(&self, _: &Caller, _: Empty) -> Result<GetVersionReply, Failure> {
        let version = env!("CARGO_PKG_VERSION").into();
        Ok(GetVersionReply { version, openzfs: "2.3.2".into(), protocol: PROTOCOL, pid: 1 })
    }

    fn discover_pools(&self, _: &Caller, _: DiscoverPoolsArgs) -> Result<DiscoverPoolsReply, Failure> {
        Ok(DiscoverPoolsReply { pools: self.importable.clone() })
    }

    fn import_pool(&self, _: &Caller, args: ImportPoolArgs) -> Result<ImportPoolReply, Failure> {
        if let Some(failure) = &self.refuse {
            return Err(failure.clone());
        }
        let found = self.importable.iter().find(|p| p.guid == args.guid).unwrap();
        let name = args.new_name.clone().unwrap_or_else(|| found.name.clone());
        let props: Vec<String> = args.properties.iter().map(|(n, v)| format!("{n}={v}")).collect();
        self.note(format!(
            "import {name} force={} altroot={:?} cachefile={:?} paths={:?} {}",
            args.force,
            args.altroot,
            args.cachefile,
            args.search.paths,
            props.join(",")
        ));
        Ok(ImportPoolReply { name, rewind: None, warnings: vec![] })
    }

    fn export_pool(&self, _: &Caller, args: ExportPoolArgs) -> Result<Empty, Failure> {
        if self.mounts.iter().any(|m| m.options.iter().any(|o| o == "busy")) && !args.force {
            let place = vec![self.mounts[0].mountpoint.clone()];
            return Err(Failure::new(FailureCode::Busy, "busy").with_details(place));
        }
        self.note(format!("export {} force={}", args.pool, args.force));
        Ok(Empty {})
    }

    fn get_pools(&self, _: &Caller, args: GetPoolsArgs) -> Result<GetPoolsReply, Failure> {
        let mut reply = GetPoolsReply::default();
        let wanted =
            |p: &Pool| args.pools.is_empty() || args.pools.iter().any(|n| *n == p.name || *n == p.guid.to_string());
        for pool in self.pools.iter().filter(|p| wanted(p)) {
            let mut pool = pool.clone();
            match &args.properties {
                None => pool.properties.clear(),
                Some(names) if names.is_empty() => {}
                Some(names) => pool.properties.retain(|n, _| names.contains(n)),
            }
            if !args.tree {
                pool.tree = None;
            }
            reply.pools.push(pool);
        }
        let known = |n: &&String| !self.pools.iter().any(|p| p.name == **n || p.guid.to_string() == **n);
        reply.missing = args.pools.iter().filter(known).cloned().collect();
        Ok(reply)
    }

    fn get_history(&self, _: &Caller, _: GetHistoryArgs, sink: &mut dyn Sink<GetHistoryReply>) -> Result<(), Failure> {
        for part in self.history.chunks(7) {
            sink.send(GetHistoryReply { records: part.to_vec() });
        }
        Ok(())
    }

    fn watch_events(
        &self,
        _: &Caller,
        args: WatchEventsArgs,
        sink: &mut dyn Sink<WatchEventsReply>,
    ) -> Result<(), Failure> {
        let wanted = |e: &&Event| args.pool.is_none() || e.pool == args.pool;
        let events = self.events.iter().filter(wanted).cloned().collect();
        sink.send(WatchEventsReply { events });
        Ok(())
    }

    fn clear_events(&self, _: &Caller, _: Empty) -> Result<ClearEventsReply, Failure> {
        Ok(ClearEventsReply { cleared: self.events.len() as u64 })
    }

    fn list_datasets(
        &self,
        _: &Caller,
        args: ListDatasetsArgs,
        sink: &mut dyn Sink<ListDatasetsReply>,
    ) -> Result<(), Failure> {
        let mut rows = Vec::new();
        let mut failures = Vec::new();
        let mut roots = args.roots.clone();
        if roots.is_empty() {
            roots = self.pools.iter().map(|p| p.name.clone()).collect();
        }
        for root in &roots {
            if !self.datasets.iter().any(|d| d.name == *root) {
                let failure = Failure::new(FailureCode::NoSuchDataset, "no such dataset");
                failures.push(failure.about(root));
                continue;
            }
            for ds in &self.datasets {
                let Some(depth) = Fake::below(&ds.name, root) else { continue };
                let kind = args.kinds.is_empty() || args.kinds.contains(&ds.kind);
                if kind && args.depth.is_none_or(|most| depth <= most) {
                    rows.push(Fake::with(ds, args.properties.as_deref()));
                }
            }
        }
        for part in rows.chunks(3) {
            sink.send(ListDatasetsReply { datasets: part.to_vec(), failures: vec![] });
        }
        sink.send(ListDatasetsReply { datasets: vec![], failures });
        Ok(())
    }

    fn mount(&self, _: &Caller, args: MountArgs) -> Result<ItemResults, Failure> {
        Ok(items(args.items.into_iter().map(|i| {
            self.note(format!("mount {} {} {:?}", i.dataset, i.mountpoint, i.options));
            let full = i.mountpoint.ends_with("/full") && !i.overlay;
            let why = full.then(|| Failure::new(FailureCode::MountpointNotEmpty, "not empty"));
            (i.dataset, why)
        })))
    }

    fn unmount(&self, _: &Caller, args: UnmountArgs) -> Result<ItemResults, Failure> {
        Ok(items(args.targets.into_iter().map(|t| {
            self.note(format!("unmount {t} force={}", args.force));
            let mount = self.mounts.iter().find(|m| m.dataset == t);
            let busy = mount.is_some_and(|m| m.options.iter().any(|o| o == "busy"));
            (t, busy.then(|| Failure::new(FailureCode::Busy, "busy")))
        })))
    }

    fn list_mounts(&self, _: &Caller, _: Empty) -> Result<ListMountsReply, Failure> {
        Ok(ListMountsReply { mounts: self.mounts.clone() })
    }

    fn add_devices(&self, _: &Caller, args: AddDevicesArgs) -> Result<Empty, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn set_pool_properties(&self, _: &Caller, args: SetPoolPropertiesArgs) -> Result<Empty, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn upgrade_pool(&self, _: &Caller, args: UpgradePoolArgs) -> Result<UpgradePoolReply, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn change_guid(&self, _: &Caller, args: ChangeGuidArgs) -> Result<Empty, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn clear_errors(&self, _: &Caller, args: ClearErrorsArgs) -> Result<Empty, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn set_device_state(&self, _: &Caller, args: SetDeviceStateArgs) -> Result<VdevNode, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn check_devices(&self, _: &Caller, _: CheckDevicesArgs) -> Result<Empty, Failure> {
        Ok(Empty {})
    }

    fn clear_label(&self, _: &Caller, args: ClearLabelArgs) -> Result<Empty, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.path))
    }

    fn scan_pool(&self, _: &Caller, args: ScanPoolArgs) -> Result<Empty, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn attach_device(&self, _: &Caller, args: AttachDeviceArgs) -> Result<Empty, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn detach_device(&self, _: &Caller, args: DetachDeviceArgs) -> Result<Empty, Failure> {
        Err(Failure::new(FailureCode::NoSuchPool, "no such pool").about(args.pool))
    }

    fn load_key(&self, caller: &Caller, args: LoadKeyArgs) -> Result<Empty, Failure> {
        if **args.material(caller)? != *b"correct horse" {
            return Err(Failure::new(FailureCode::KeyIncorrect, "wrong key"));
        }
        self.note(format!("load-key {} dry_run={}", args.dataset, args.dry_run));
        Ok(Empty {})
    }

    fn unload_key(&self, _: &Caller, args: UnloadKeyArgs) -> Result<Empty, Failure> {
        self.note(format!("unload-key {}", args.dataset));
        Ok(Empty {})
    }

    fn create_pool(&self, _: &Caller, args: CreatePoolArgs) -> Result<Empty, Failure> {
        let shape: Vec<String> =
            args.vdevs.iter().map(|v| format!("{}{}{}", v.class, v.kind, v.children.len())).collect();
        self.note(format!("create-pool {} {} {:?}", args.name, shape.join(" "), args.properties));
        Ok(Empty {})
    }

    fn destroy_pool(&self, _: &Caller, args: DestroyPoolArgs) -> Result<Empty, Failure> {
        self.note(format!("destroy-pool {} force={}", args.pool, args.force));
        Ok(Empty {})
    }

    fn sync_pools(&self, _: &Caller, args: SyncPoolsArgs) -> Result<Empty, Failure> {
        self.note(format!("sync {:?}", args.pools));
        Ok(Empty {})
    }

    fn create_dataset(&self, _: &Caller, args: CreateDatasetArgs) -> Result<Empty, Failure> {
        let set: Vec<&String> = args.properties.keys().collect();
        self.note(format!("create {} {} {set:?}", args.kind.word(), args.name));
        Ok(Empty {})
    }

    fn clone_snapshot(&self, _: &Caller, args: CloneSnapshotArgs) -> Result<Empty, Failure> {
        self.note(format!("clone {} {}", args.origin, args.name));
        Ok(Empty {})
    }

    fn destroy_datasets(&self, _: &Caller, args: DestroyDatasetsArgs) -> Result<Empty, Failure> {
        self.note(format!("destroy {} defer={}", args.names.join(" "), args.defer));
        Ok(Empty {})
    }

    fn create_snapshots(&self, _: &Caller, args: CreateSnapshotsArgs) -> Result<Empty, Failure> {
        self.note(format!("snapshot {}", args.names.join(" ")));
        Ok(Empty {})
    }

    fn set_properties(&self, _: &Caller, args: SetPropertiesArgs) -> Result<Empty, Failure> {
        let set: Vec<&String> = args.properties.keys().collect();
        self.note(format!("set {} {set:?} {:?}", args.name, args.inherit));
        Ok(Empty {})
    }

    fn rollback(&self, _: &Caller, args: RollbackArgs) -> Result<Empty, Failure> {
        self.note(format!("rollback {}", args.snapshot));
        Ok(Empty {})
    }

    fn rename_dataset(&self, _: &Caller, args: RenameDatasetArgs) -> Result<Empty, Failure> {
        self.note(format!("rename {} {}", args.from, args.to));
        Ok(Empty {})
    }

    fn promote(&self, _: &Caller, args: PromoteArgs) -> Result<Empty, Failure> {
        self.note(format!("promote {}", args.name));
        Ok(Empty {})
    }

    fn create_bookmarks(&self, _: &Caller, args: CreateBookmarksArgs) -> Result<Empty, Failure> {
        let all: Vec<String> = args.bookmarks.iter().map(|b| format!("{} of {}", b.name, b.source)).collect();
        self.note(format!("bookmark {}", all.join(" ")));
        Ok(Empty {})
    }

    fn hold_snapshots(&self, _: &Caller, args: HoldArgs) -> Result<Empty, Failure> {
        self.note(format!("hold {} {}", args.tag, args.names.join(" ")));
        Ok(Empty {})
    }

    fn release_snapshots(&self, _: &Caller, args: HoldArgs) -> Result<Empty, Failure> {
        self.note(format!("release {} {}", args.tag, args.names.join(" ")));
        Ok(Empty {})
    }

    fn list_holds(&self, _: &Caller, args: ListHoldsArgs) -> Result<ListHoldsReply, Failure> {
        let hold = |s: &String| HoldEntry { snapshot: s.clone(), tag: "keep".into(), time: U64(1_700_000_000) };
        Ok(ListHoldsReply { holds: args.names.iter().map(hold).collect() })
    }

    fn snapshot_space(&self, _: &Caller, _: SnapshotSpaceArgs) -> Result<SnapshotSpaceReply, Failure> {
        Ok(SnapshotSpaceReply { bytes: U64(4096) })
    }

    fn log_history(&self, _: &Caller, _: LogHistoryArgs) -> Result<Empty, Failure> {
        Ok(Empty {})
    }

    fn publish(&self, _: &Caller, _: PublishArgs) -> Result<PublishReply, Failure> {
        Ok(PublishReply { ticket: String::new() })
    }

    fn unpublish(&self, _: &Caller, _: UnpublishArgs) -> Result<Empty, Failure> {
        Ok(Empty {})
    }

    fn mount_by_agent(&self, caller: &Caller, args: MountArgs) -> Result<ItemResults, Failure> {
        self.mount(caller, args)
    }

    fn serve_mounts(&self, _: &Caller, _: Empty, _: &mut dyn Sink<MountTask>) -> Result<(), Failure> {
        Ok(())
    }

    fn report_mounts(&self, _: &Caller, _: ReportMountsArgs) -> Result<Empty, Failure> {
        Ok(Empty {})
    }

    fn get_stats(&self, _: &Caller, _: Empty) -> Result<GetStatsReply, Failure> {
        Ok(GetStatsReply::default())
    }

    fn shutdown(&self, _: &Caller, _: ShutdownArgs) -> Result<Empty, Failure> {
        Ok(Empty {})
    }
}
