//! The methods of `io.uzfs.Manage1`: one list that makes the [`Backend`] trait, the dispatcher, the
//! typed calls of the client and the interface definition.
//!
//! A method is `open` to every user who can reach the socket (it only looks), or for the `owner`:
//! root, or the user the daemon runs as. A `stream` method answers with any number of parts; callers
//! must ask for that with varlink's `more` flag.

use crate::ops::*;
use crate::ops_dataset::*;
use crate::ops_write::*;
use crate::schema::{self, VarlinkStruct};
use crate::{Caller, Failure, FailureCode, VdevNode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Name of the interface; errors and methods have it as prefix.
pub const INTERFACE: &str = "io.uzfs.Manage1";
/// Version of the contract, told by GetVersion.
pub const PROTOCOL: u64 = 1;

/// A typed method for callers.
pub trait Method {
    /// Method name without the interface.
    const NAME: &'static str;
    /// True if it answers in parts.
    const STREAM: bool;
    /// Parameters.
    type Args: Serialize;
    /// Result, or one part of it.
    type Reply: DeserializeOwned;
}

/// Where a backend puts the parts of a streamed answer.
pub trait Sink<T> {
    /// Sends one part; false when nobody listens any more and the work should stop.
    fn send(&mut self, part: T) -> bool;
    /// True when nobody listens any more. To be polled while waiting for something to send.
    fn gone(&mut self) -> bool;
}

/// How the dispatcher writes replies.
pub(crate) trait Replier {
    /// Writes one reply; false when the peer is gone.
    fn reply(&mut self, parameters: Value, continues: bool) -> bool;
    /// True when the peer is gone.
    fn gone(&mut self) -> bool;
}

struct PartSink<'a>(&'a mut dyn Replier);

impl<T: Serialize> Sink<T> for PartSink<'_> {
    fn send(&mut self, part: T) -> bool {
        match serde_json::to_value(part) {
            Ok(value) => self.0.reply(value, true),
            Err(_) => false,
        }
    }
    fn gone(&mut self) -> bool {
        self.0.gone()
    }
}

/// What came of a call, for the connection loop.
pub(crate) enum Outcome {
    /// A reply was written.
    Done,
    /// The method failed.
    Failed(Failure),
    /// No such method.
    Unknown,
    /// The parameters do not fit; the text says which.
    BadParameter(String),
    /// The method answers in parts and the caller did not say `more`.
    ExpectedMore,
}

fn to_value<T: Serialize>(reply: T) -> Result<Value, Failure> {
    serde_json::to_value(reply)
        .map_err(|e| Failure::new(FailureCode::Internal, format!("cannot encode the reply: {e}")))
}

fn finish<T: Serialize>(replier: &mut dyn Replier, result: Result<T, Failure>) -> Outcome {
    match result.and_then(to_value) {
        Ok(value) => {
            replier.reply(value, false);
            Outcome::Done
        }
        Err(failure) => Outcome::Failed(failure),
    }
}

macro_rules! is_stream {
    (unary) => {
        false
    };
    (stream) => {
        true
    };
}
macro_rules! is_owner {
    (open) => {
        false
    };
    (owner) => {
        true
    };
}

macro_rules! backend_fn {
    (unary, $(#[doc = $d:literal])* $f:ident, $a:ty, $r:ty) => {
        $(#[doc = $d])*
        fn $f(&self, caller: &Caller, args: $a) -> Result<$r, Failure>;
    };
    (stream, $(#[doc = $d:literal])* $f:ident, $a:ty, $r:ty) => {
        $(#[doc = $d])*
        ///
        /// Sends parts to `sink` and stops early when nobody listens.
        fn $f(&self, caller: &Caller, args: $a, sink: &mut dyn Sink<$r>) -> Result<(), Failure>;
    };
}

macro_rules! run {
    (unary, $b:ident, $c:ident, $args:ident, $replier:ident, $f:ident, $r:ty) => {
        finish($replier, $b.$f($c, $args))
    };
    (stream, $b:ident, $c:ident, $args:ident, $replier:ident, $f:ident, $r:ty) => {{
        let result = $b.$f($c, $args, &mut PartSink($replier));
        finish($replier, result.map(|()| <$r>::default()))
    }};
}

macro_rules! contract_methods {
    ($( $(#[doc = $d:literal])* $style:ident $who:ident $name:ident $f:ident ($a:ty) -> $r:ty; )*) => {
        /// What a daemon does: one function a method of the contract, called from many threads at
        /// once. The engine implements this; tests put a fake in its place.
        pub trait Backend: Send + Sync {
            $( backend_fn!($style, $(#[doc = $d])* $f, $a, $r); )*
        }

        /// The methods as types, for callers.
        pub mod method {
            use super::*;
            $(
                $(#[doc = $d])*
                pub struct $name;
                impl Method for $name {
                    const NAME: &'static str = stringify!($name);
                    const STREAM: bool = is_stream!($style);
                    type Args = $a;
                    type Reply = $r;
                }
            )*
        }

        /// Runs one call.
        pub(crate) fn dispatch(
            backend: &dyn Backend,
            caller: &Caller,
            name: &str,
            more: bool,
            parameters: Value,
            replier: &mut dyn Replier,
        ) -> Outcome {
            match name {
                $( stringify!($name) => {
                    if is_owner!($who) && !caller.owner {
                        return Outcome::Failed(Failure::new(
                            FailureCode::PermissionDenied, "permission denied"));
                    }
                    if is_stream!($style) && !more {
                        return Outcome::ExpectedMore;
                    }
                    let args: $a = match serde_json::from_value(parameters) {
                        Ok(args) => args,
                        Err(e) => return Outcome::BadParameter(e.to_string()),
                    };
                    run!($style, backend, caller, args, replier, $f, $r)
                } )*
                _ => Outcome::Unknown,
            }
        }

        fn write_methods(out: &mut String) {
            $( schema::write_method::<$a, $r>(out, stringify!($name), &[$($d),*]); )*
        }

        /// Names of all methods.
        pub const METHODS: &[&str] = &[$(stringify!($name)),*];
    };
}

contract_methods! {
    /// Versions of the daemon and of the contract.
    unary open GetVersion get_version(Empty) -> GetVersionReply;
    /// Pools that could be imported.
    unary owner DiscoverPools discover_pools(DiscoverPoolsArgs) -> DiscoverPoolsReply;
    /// Imports a pool. Nothing is mounted; the client does that with Mount.
    unary owner ImportPool import_pool(ImportPoolArgs) -> ImportPoolReply;
    /// Unmounts and exports a pool.
    unary owner ExportPool export_pool(ExportPoolArgs) -> Empty;
    /// Imported pools with properties, devices, health and errors.
    unary open GetPools get_pools(GetPoolsArgs) -> GetPoolsReply;
    /// Command history of a pool (streamed).
    stream owner GetHistory get_history(GetHistoryArgs) -> GetHistoryReply;
    /// Events since the daemon started, and new ones (streamed).
    stream open WatchEvents watch_events(WatchEventsArgs) -> WatchEventsReply;
    /// Forgets all events.
    unary owner ClearEvents clear_events(Empty) -> ClearEventsReply;
    /// Datasets with properties (streamed).
    stream open ListDatasets list_datasets(ListDatasetsArgs) -> ListDatasetsReply;
    /// Mounts datasets.
    unary owner Mount mount(MountArgs) -> ItemResults;
    /// Unmounts datasets.
    unary owner Unmount unmount(UnmountArgs) -> ItemResults;
    /// What is mounted.
    unary open ListMounts list_mounts(Empty) -> ListMountsReply;
    /// Makes a pool. Nothing is mounted; the client does that with Mount.
    unary owner CreatePool create_pool(CreatePoolArgs) -> Empty;
    /// Unmounts and destroys a pool.
    unary owner DestroyPool destroy_pool(DestroyPoolArgs) -> Empty;
    /// Returns once everything written so far is on stable storage.
    unary open SyncPools sync_pools(SyncPoolsArgs) -> Empty;
    /// Adds devices to a pool.
    unary owner AddDevices add_devices(AddDevicesArgs) -> Empty;
    /// Sets properties of a pool.
    unary owner SetPoolProperties set_pool_properties(SetPoolPropertiesArgs) -> Empty;
    /// Enables features that a pool does not have yet.
    unary owner UpgradePool upgrade_pool(UpgradePoolArgs) -> UpgradePoolReply;
    /// Gives a pool another identity.
    unary owner ChangeGuid change_guid(ChangeGuidArgs) -> Empty;
    /// Forgets errors of devices, opens those again that are back, and lets a suspended pool go on.
    unary owner ClearErrors clear_errors(ClearErrorsArgs) -> Empty;
    /// Takes a device offline or brings it back.
    unary owner SetDeviceState set_device_state(SetDeviceStateArgs) -> VdevNode;
    /// Fails with DeviceInUse, and a sentence about each, when devices that a pool is to get are in use.
    unary owner CheckDevices check_devices(CheckDevicesArgs) -> Empty;
    /// Wipes the labels of a device that no pool uses.
    unary owner ClearLabel clear_label(ClearLabelArgs) -> Empty;
    /// Starts, pauses or stops a scrub or resilver.
    unary owner ScanPool scan_pool(ScanPoolArgs) -> Empty;
    /// Attaches a device to another, as its mirror or to replace it.
    unary owner AttachDevice attach_device(AttachDeviceArgs) -> Empty;
    /// Detaches a device from a mirror.
    unary owner DetachDevice detach_device(DetachDeviceArgs) -> Empty;
    /// Makes a file system or volume.
    unary owner CreateDataset create_dataset(CreateDatasetArgs) -> Empty;
    /// Makes a clone of a snapshot.
    unary owner CloneSnapshot clone_snapshot(CloneSnapshotArgs) -> Empty;
    /// Unmounts and destroys datasets, in the order given; stops at the first that fails.
    unary owner DestroyDatasets destroy_datasets(DestroyDatasetsArgs) -> Empty;
    /// Takes snapshots, all or none.
    unary owner CreateSnapshots create_snapshots(CreateSnapshotsArgs) -> Empty;
    /// Sets properties of a dataset, or takes their values away.
    unary owner SetProperties set_properties(SetPropertiesArgs) -> Empty;
    /// Goes back to the newest snapshot.
    unary owner Rollback rollback(RollbackArgs) -> Empty;
    /// Renames a dataset or snapshot.
    unary owner RenameDataset rename_dataset(RenameDatasetArgs) -> Empty;
    /// Makes a clone independent of its origin, which becomes a clone of it.
    unary owner Promote promote(PromoteArgs) -> Empty;
    /// Makes bookmarks, in the order given; stops at the first that fails.
    unary owner CreateBookmarks create_bookmarks(CreateBookmarksArgs) -> Empty;
    /// Holds snapshots, all or none.
    unary owner HoldSnapshots hold_snapshots(HoldArgs) -> Empty;
    /// Ends holds of snapshots, all or none.
    unary owner ReleaseSnapshots release_snapshots(HoldArgs) -> Empty;
    /// Holds of snapshots.
    unary open ListHolds list_holds(ListHoldsArgs) -> ListHoldsReply;
    /// What destroying a row of snapshots would free.
    unary open SnapshotSpace snapshot_space(SnapshotSpaceArgs) -> SnapshotSpaceReply;
    /// Appends a command to the history of a pool.
    unary owner LogHistory log_history(LogHistoryArgs) -> Empty;
    /// Loads the key of an encryption root.
    unary owner LoadKey load_key(LoadKeyArgs) -> Empty;
    /// Forgets the key of an encryption root.
    unary owner UnloadKey unload_key(UnloadKeyArgs) -> Empty;
    /// Serves a dataset over the file-system protocol to a front end of its own, such as the FSKit extension.
    /// Also for the user whose folder holds the tickets.
    unary open Publish publish(PublishArgs) -> PublishReply;
    /// Takes the ticket of Publish back; connections of its front ends end.
    unary owner Unpublish unpublish(UnpublishArgs) -> Empty;
    /// Has the agent of a user mount datasets, where the caller may not do it himself (FSKit mounts for no root).
    unary owner MountByAgent mount_by_agent(MountArgs) -> ItemResults;
    /// Makes the caller a mount agent: tasks come until he goes (streamed). For the owner and the user whose folder holds
    /// the tickets.
    stream open ServeMounts serve_mounts(Empty) -> MountTask;
    /// Says what came of a task of ServeMounts.
    unary open ReportMounts report_mounts(ReportMountsArgs) -> Empty;
    /// Cache and I/O counters.
    unary open GetStats get_stats(Empty) -> GetStatsReply;
    /// Unmounts everything, closes all pools and ends the daemon.
    unary owner Shutdown shutdown(ShutdownArgs) -> Empty;
}

macro_rules! write_structs { ($out:ident: $($t:ty),* $(,)?) => {$(
    schema::write_struct::<$t>($out, stringify!($t));
)*}; }
macro_rules! write_enums { ($out:ident: $($t:ident),* $(,)?) => {$(
    schema::write_enum($out, stringify!($t), $t::DOC, $t::WORDS);
)*}; }

fn write_types(out: &mut String) {
    use crate::*;
    write_enums!(out: FailureCode, PoolState, ScanFunction, ScanState, MultihostState,
        CheckpointState, VdevState, VdevAux, JobState, DatasetKind, PropertySource, ScanAction);
    write_structs!(out: Raw, Property, LeafJob, RebuildStats, VdevStats, VdevNode, ScanStats,
        RemovalStats, ExpandStats, CheckpointStats, ErrorEntry, DedupBucket, DedupStats,
        ImportablePool, Pool, HistoryRecord, EventValue, Event, Dataset, MountEntry, Search, Rewind,
        RewindInfo, MountItem, TicketItem, ItemResult, VdevSpec, BookmarkSpec, HoldEntry, Failure);
}

/// The interface definition as generated from the code.
pub fn generate_interface() -> String {
    let mut out = String::new();
    out.push_str("# Management of uzfs pools, datasets and mounts.\n#\n");
    out.push_str("# Numbers are raw: bytes, seconds since 1970, ratios times 100. A number that uses all 64\n");
    out.push_str("# bits is a decimal string. Fields marked with ? may be left out. Keys are hexadecimal.\n");
    out.push_str("# Methods marked (streamed) must be called with `more`.\n");
    out.push_str(&format!("interface {INTERFACE}\n"));
    write_types(&mut out);
    write_methods(&mut out);
    out.push_str("\n# The call failed.\nerror Failed (\n");
    let fields = Failure::fields();
    for (i, f) in fields.iter().enumerate() {
        let comma = if i + 1 < fields.len() { "," } else { "" };
        out.push_str(&format!("  {}: {}{comma}\n", f.name, f.spelling));
    }
    out.push_str(")\n");
    out
}

/// The interface definition as checked in and as served.
pub const INTERFACE_TEXT: &str = include_str!("../io.uzfs.Manage1.varlink");
