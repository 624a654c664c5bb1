//! Parameters and results of the methods.

use crate::schema::contract_structs;
use crate::{Dataset, DatasetKind, Event, Failure, HistoryRecord, ImportablePool, MountEntry, Pool, Secret, U64};
use std::collections::BTreeMap;

contract_structs! {
    /// No parameters.
    #[derive(Default)]
    pub struct Empty {}

    /// Result of GetVersion.
    pub struct GetVersionReply {
        /// Version of the daemon, such as `0.1.0`.
        pub version: String,
        /// OpenZFS release whose behaviour it follows, such as `2.3.2`.
        pub openzfs: String,
        /// Version of this contract; grows when methods or fields are added.
        pub protocol: u64,
        /// Process id of the daemon.
        pub pid: u64,
    }

    /// Where to look for devices of pools.
    #[derive(Default)]
    pub struct Search {
        /// Directories or devices to look at, absolute; empty for the system's devices.
        pub paths: Vec<String>,
        /// Read this cache file instead of looking at devices.
        pub cachefile: Option<String>,
        /// Look at all devices in the directories that hold their names (`-s`); with a cache file, in those it names.
        pub scan: bool,
    }

    /// Parameters of DiscoverPools.
    #[derive(Default)]
    pub struct DiscoverPoolsArgs {
        /// Where to look.
        pub search: Search,
        /// Only this pool, to spare work; the answer may contain more.
        pub name: Option<String>,
        /// Only this pool.
        pub guid: Option<U64>,
    }

    /// Result of DiscoverPools.
    #[derive(Default)]
    pub struct DiscoverPoolsReply {
        /// Pools found, imported ones left out, destroyed ones included; by name and guid.
        pub pools: Vec<ImportablePool>,
    }

    /// Going back to an earlier state (`-F -n -X -T`, `--rewind-to-checkpoint`).
    #[derive(Default)]
    pub struct Rewind {
        /// Try earlier transaction groups if the newest cannot be opened.
        pub recover: bool,
        /// Only say what would happen.
        pub dry_run: bool,
        /// Try much earlier ones too.
        pub extreme: bool,
        /// Open exactly this transaction group or the one before it.
        pub txg: Option<u64>,
        /// Open the pool's checkpoint.
        pub checkpoint: bool,
    }

    /// Parameters of ImportPool.
    #[derive(Default)]
    pub struct ImportPoolArgs {
        /// Where to look, as in DiscoverPools.
        pub search: Search,
        /// Which pool.
        pub guid: U64,
        /// New name.
        pub new_name: Option<String>,
        /// The new name is not written to the pool (`-t`).
        pub temporary_name: bool,
        /// Directory that all mount points are put under (`-R`).
        pub altroot: Option<String>,
        /// Cache file to remember the pool in, `none` for none.
        pub cachefile: Option<String>,
        /// Pool properties, such as `readonly=on`.
        pub properties: BTreeMap<String, String>,
        /// Even if it looks in use by another host (`-f`).
        pub force: bool,
        /// Also destroyed pools (`-D`).
        pub destroyed: bool,
        /// Without its log devices (`-m`).
        pub missing_log: bool,
        /// Earlier states.
        pub rewind: Rewind,
    }

    /// What going back did or would do.
    pub struct RewindInfo {
        /// Seconds since 1970 of the state opened.
        pub timestamp: u64,
        /// Seconds of work lost.
        pub lost_seconds: i64,
        /// Damaged data blocks met (count).
        pub data_errors: u64,
        /// Damaged metadata blocks met (count).
        pub metadata_errors: u64,
    }

    /// Result of ImportPool.
    pub struct ImportPoolReply {
        /// Its name now.
        pub name: String,
        /// What was lost by going back.
        pub rewind: Option<RewindInfo>,
        /// Sentences the user should see, such as an import that was made read-only.
        pub warnings: Vec<String>,
    }

    /// Parameters of ExportPool.
    pub struct ExportPoolArgs {
        /// Name.
        pub pool: String,
        /// Even if mounts are busy (`-f`).
        pub force: bool,
        /// Without marking it exported (`-F`).
        pub hard: bool,
    }

    /// Parameters of GetPools.
    #[derive(Default)]
    pub struct GetPoolsArgs {
        /// Names or guids; empty for all.
        pub pools: Vec<String>,
        /// Properties wanted; none for none, empty for all.
        pub properties: Option<Vec<String>>,
        /// Devices, scan, removal, expansion and checkpoint too.
        pub tree: bool,
        /// The list of damaged objects too.
        pub errors: bool,
        /// Deduplication statistics too.
        pub dedup: bool,
    }

    /// Result of GetPools.
    #[derive(Default)]
    pub struct GetPoolsReply {
        /// Pools, by name, or in the order asked for.
        pub pools: Vec<Pool>,
        /// Names that do not exist.
        pub missing: Vec<String>,
    }

    /// Parameters of GetHistory.
    pub struct GetHistoryArgs {
        /// Name.
        pub pool: String,
    }

    /// A part of the result of GetHistory.
    #[derive(Default)]
    pub struct GetHistoryReply {
        /// Records, oldest first.
        pub records: Vec<HistoryRecord>,
    }

    /// Parameters of WatchEvents.
    #[derive(Default)]
    pub struct WatchEventsArgs {
        /// Only of this pool.
        pub pool: Option<String>,
        /// After the known events, wait for new ones.
        pub follow: bool,
    }

    /// A part of the result of WatchEvents.
    #[derive(Default)]
    pub struct WatchEventsReply {
        /// Events, oldest first.
        pub events: Vec<Event>,
    }

    /// Result of ClearEvents.
    pub struct ClearEventsReply {
        /// Events forgotten (count).
        pub cleared: u64,
    }

    /// Parameters of ListDatasets.
    #[derive(Default)]
    pub struct ListDatasetsArgs {
        /// Datasets, snapshots or bookmarks, or absolute paths inside a mount; empty for all pools.
        pub roots: Vec<String>,
        /// How many levels below the roots; none for all. A snapshot or bookmark is one level below
        /// its dataset.
        pub depth: Option<u64>,
        /// Kinds wanted, for the roots too; empty for all.
        pub kinds: Vec<DatasetKind>,
        /// Properties wanted by name, also `user:props`, `written@SNAP`, `userused@WHO`; none for
        /// every native and user property.
        pub properties: Option<Vec<String>>,
    }

    /// A part of the result of ListDatasets.
    #[derive(Default)]
    pub struct ListDatasetsReply {
        /// Rows, a parent before its children, each only once.
        pub datasets: Vec<Dataset>,
        /// Roots that could not be listed; `subject` is the root as asked for.
        pub failures: Vec<Failure>,
    }

    /// One dataset to mount.
    pub struct MountItem {
        /// Dataset or snapshot.
        pub dataset: String,
        /// Absolute path.
        pub mountpoint: String,
        /// Mount options the user asked for, such as `ro`, `noatime`; they go before those that
        /// follow from the dataset's properties.
        pub options: Vec<String>,
        /// Also over a directory that is not empty (`-O`, or the `overlay` property).
        pub overlay: bool,
    }

    /// Parameters of Mount.
    #[derive(Default)]
    pub struct MountArgs {
        /// What to mount, in this order.
        pub items: Vec<MountItem>,
        /// Make missing directories of the mount points.
        pub create: bool,
    }

    /// Outcome of one item; none if it worked.
    pub struct ItemResult {
        /// The dataset or path as asked for.
        pub subject: String,
        /// Why it failed.
        pub failure: Option<Failure>,
    }

    /// Result of Mount and Unmount, one entry an item.
    #[derive(Default)]
    pub struct ItemResults {
        /// Outcomes in the order asked for.
        pub results: Vec<ItemResult>,
    }

    /// Parameters of Unmount.
    #[derive(Default)]
    pub struct UnmountArgs {
        /// Datasets, snapshots or absolute mount points, in this order.
        pub targets: Vec<String>,
        /// Even if files are open (`-f`).
        pub force: bool,
        /// Unload the encryption keys afterwards (`-u`).
        pub unload_keys: bool,
    }

    /// Result of ListMounts.
    #[derive(Default)]
    pub struct ListMountsReply {
        /// Mounts in the order they were made.
        pub mounts: Vec<MountEntry>,
    }

    /// Parameters of LoadKey.
    pub struct LoadKeyArgs {
        /// Encryption root.
        pub dataset: String,
        /// The key as the user has it: passphrase without its line end, hexadecimal text, or the raw
        /// bytes; the daemon reads it by the dataset's `keyformat`. Empty when it comes by a descriptor.
        pub key: Secret,
        /// Index of the descriptor that came with the call and from which the key is read, at most 1024 bytes: it is
        /// then in no message.
        pub key_descriptor: Option<u64>,
        /// Only say whether it is right (`-n`).
        pub dry_run: bool,
    }

    /// Parameters of UnloadKey.
    pub struct UnloadKeyArgs {
        /// Encryption root.
        pub dataset: String,
    }

    /// Parameters of Publish.
    #[derive(Default)]
    pub struct PublishArgs {
        /// File system or snapshot.
        pub dataset: String,
        /// User whose front end may read the ticket, root's daemon only; the caller if left out.
        pub uid: Option<u64>,
        /// Where the caller is about to mount it; shown by ListMounts while a front end has it mounted.
        pub mountpoint: Option<String>,
    }

    /// Result of Publish.
    pub struct PublishReply {
        /// Absolute path of the ticket: a file that stands for the dataset and holds the secret to use it.
        pub ticket: String,
    }

    /// One dataset that a mount agent is to mount.
    pub struct TicketItem {
        /// Absolute path of its ticket, which the agent's user can read.
        pub ticket: String,
        /// What to mount where, and how.
        pub item: MountItem,
    }

    /// A part of the result of ServeMounts: something to do. The last part has nothing in it.
    #[derive(Default)]
    pub struct MountTask {
        /// Number of the task, for ReportMounts.
        pub id: U64,
        /// What to mount, in this order.
        pub items: Vec<TicketItem>,
        /// Make missing directories of the mount points.
        pub create: bool,
    }

    /// Parameters of ReportMounts.
    pub struct ReportMountsArgs {
        /// Number of the task.
        pub id: U64,
        /// Outcomes in the order of its items.
        pub results: Vec<ItemResult>,
    }

    /// Parameters of Unpublish.
    pub struct UnpublishArgs {
        /// File system or snapshot.
        pub dataset: String,
        /// Even if a front end has it mounted.
        pub force: bool,
    }

    /// Result of GetStats.
    #[derive(Default)]
    pub struct GetStatsReply {
        /// Counters by name, in the style of OpenZFS's arcstats.
        pub stats: BTreeMap<String, u64>,
    }

    /// Parameters of Shutdown.
    pub struct ShutdownArgs {
        /// Even if mounts are busy.
        pub force: bool,
    }
}
