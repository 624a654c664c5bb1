//! Pools as the contract shows them: importable ones and imported ones.

use crate::schema::{contract_enums, contract_structs};
use crate::{Property, U64, VdevNode};
use std::collections::BTreeMap;

contract_enums! {
    /// State of a pool in its labels (`pool_state_t`, `sys/fs/zfs.h`).
    pub enum PoolState {
        /// In use, or was when its machine stopped.
        Active = "active",
        /// Exported.
        Exported = "exported",
        /// Destroyed, its labels are still there.
        Destroyed = "destroyed",
        /// Reserved for hot spares.
        Spare = "spare",
        /// Reserved for cache devices.
        L2cache = "l2cache",
        /// Loaded but not usable.
        Unavail = "unavail",
    }

    /// What a scan does.
    pub enum ScanFunction {
        /// Nothing was ever scanned.
        None = "none",
        /// Verify everything.
        Scrub = "scrub",
        /// Bring devices up to date.
        Resilver = "resilver",
        /// Verify only blocks known to be damaged.
        ErrorScrub = "error_scrub",
    }

    /// Where a scan, removal or expansion is (`dsl_scan_state_t`).
    pub enum ScanState {
        /// Never started.
        None = "none",
        /// Running.
        Scanning = "scanning",
        /// Ended.
        Finished = "finished",
        /// Stopped before its end.
        Canceled = "canceled",
        /// An error scrub is running.
        ErrorScrubbing = "error_scrubbing",
    }

    /// What the multihost check of an importable pool found (`mmp_state_t`).
    pub enum MultihostState {
        /// Active on another host.
        Active = "active",
        /// Not active anywhere.
        Inactive = "inactive",
        /// Multihost is on and this host has no hostid.
        NoHostid = "no_hostid",
    }

    /// State of a checkpoint of the whole pool.
    pub enum CheckpointState {
        /// There is none.
        None = "none",
        /// There is one.
        Exists = "exists",
        /// It is being discarded.
        Discarding = "discarding",
    }
}

contract_structs! {
    /// Last or running scan (`pool_scan_stat_t`). Times in seconds since 1970, sizes in bytes.
    pub struct ScanStats {
        /// What it does.
        pub function: ScanFunction,
        /// Where it is.
        pub state: ScanState,
        /// When it started.
        pub start_time: u64,
        /// When it ended.
        pub end_time: u64,
        /// Bytes to examine.
        pub to_examine: u64,
        /// Bytes found by the scanner.
        pub examined: u64,
        /// Bytes skipped by the scanner.
        pub skipped: u64,
        /// Bytes repaired or resilvered.
        pub processed: u64,
        /// Errors (count).
        pub errors: u64,
        /// Bytes found in this pass.
        pub pass_exam: u64,
        /// Start of this pass.
        pub pass_start: u64,
        /// When this pass was paused, zero if it is not.
        pub pass_scrub_pause: u64,
        /// Seconds paused in this pass.
        pub pass_scrub_spent_paused: u64,
        /// Bytes issued in this pass.
        pub pass_issued: u64,
        /// Bytes issued.
        pub issued: u64,
        /// Error scrub: function.
        pub error_scrub_function: ScanFunction,
        /// Error scrub: state.
        pub error_scrub_state: ScanState,
        /// Error scrub: start.
        pub error_scrub_start: u64,
        /// Error scrub: end.
        pub error_scrub_end: u64,
        /// Error scrub: blocks issued (count).
        pub error_scrub_examined: u64,
        /// Error scrub: blocks to issue (count).
        pub error_scrub_to_be_examined: u64,
        /// Error scrub: when it was paused, zero if it is not.
        pub pass_error_scrub_pause: u64,
    }

    /// Last or running removal of a top-level device (`pool_removal_stat_t`).
    pub struct RemovalStats {
        /// Where it is.
        pub state: ScanState,
        /// Number of the top-level device.
        pub removing_vdev: u64,
        /// Seconds since 1970.
        pub start_time: u64,
        /// Seconds since 1970.
        pub end_time: u64,
        /// Bytes to copy.
        pub to_copy: u64,
        /// Bytes copied.
        pub copied: u64,
        /// Memory used for the mappings of all removed devices, bytes.
        pub mapping_memory: u64,
    }

    /// Last or running raidz expansion (`pool_raidz_expand_stat_t`).
    pub struct ExpandStats {
        /// Where it is.
        pub state: ScanState,
        /// Number of the top-level device.
        pub expanding_vdev: u64,
        /// Seconds since 1970.
        pub start_time: u64,
        /// Seconds since 1970.
        pub end_time: u64,
        /// Bytes to move.
        pub to_reflow: u64,
        /// Bytes moved.
        pub reflowed: u64,
        /// Paused until a resilver has ended.
        pub waiting_for_resilver: bool,
    }

    /// Checkpoint of the whole pool.
    pub struct CheckpointStats {
        /// State.
        pub state: CheckpointState,
        /// Seconds since 1970 of its creation.
        pub start_time: u64,
        /// Bytes it holds.
        pub space: u64,
    }

    /// One object with permanent errors.
    pub struct ErrorEntry {
        /// Object set number, zero for the pool's own metadata.
        pub objset: U64,
        /// Object number.
        pub object: U64,
        /// Name of the dataset or snapshot, if the object set still exists.
        pub dataset: Option<String>,
        /// Path inside the dataset, if the object is a file that still has a name.
        pub path: Option<String>,
        /// Where the dataset is mounted.
        pub mountpoint: Option<String>,
    }

    /// Deduplication table of one pool, for `zpool status -D`.
    pub struct DedupStats {
        /// Entries.
        pub entries: u64,
        /// Bytes on disk.
        pub disk_size: u64,
        /// Bytes in memory.
        pub core_size: u64,
        /// Bytes in the ARC.
        pub cached_size: u64,
        /// Histogram rows in order of reference counts 1, 2, 4, …
        pub histogram: Vec<DedupBucket>,
    }

    /// One row of the deduplication histogram (`ddt_stat_t`).
    pub struct DedupBucket {
        /// Blocks.
        pub blocks: u64,
        /// Logical bytes.
        pub lsize: u64,
        /// Physical bytes.
        pub psize: u64,
        /// Allocated bytes.
        pub dsize: u64,
        /// Referenced blocks.
        pub ref_blocks: u64,
        /// Referenced logical bytes.
        pub ref_lsize: u64,
        /// Referenced physical bytes.
        pub ref_psize: u64,
        /// Referenced allocated bytes.
        pub ref_dsize: u64,
    }

    /// A pool that could be imported, put together from the labels of its devices.
    pub struct ImportablePool {
        /// Name.
        pub name: String,
        /// Identity.
        pub guid: U64,
        /// State in the labels.
        pub state: PoolState,
        /// On-disk version.
        pub version: u64,
        /// Last synced transaction group of the best label.
        pub txg: u64,
        /// Host that used it last.
        pub hostid: u64,
        /// Name of the host that used it last.
        pub hostname: Option<String>,
        /// Seconds since 1970 of the best uberblock.
        pub timestamp: u64,
        /// Comment property.
        pub comment: Option<String>,
        /// Compatibility property.
        pub compatibility: Option<String>,
        /// Unknown features as `guid (description)`, in order of guid.
        pub unsupported_features: Vec<String>,
        /// With unknown features: it could still be imported read-only.
        pub can_readonly: bool,
        /// Supported features that are not enabled on the pool, by short name.
        pub disabled_features: Vec<String>,
        /// Multihost check.
        pub multihost: MultihostState,
        /// Host that has it now, from the multihost check.
        pub multihost_hostid: u64,
        /// Name of that host.
        pub multihost_hostname: Option<String>,
        /// Number of the known on-disk erratum, zero if none.
        pub errata: u64,
        /// Devices; states say what could be opened.
        pub tree: VdevNode,
    }

    /// An imported pool. What was not asked for is left out.
    pub struct Pool {
        /// Name.
        pub name: String,
        /// Identity.
        pub guid: U64,
        /// State.
        pub state: PoolState,
        /// Why I/O is suspended: `io`, `mmp`, …; none if it is not.
        pub suspended: Option<String>,
        /// On-disk version.
        pub version: u64,
        /// Highest file system version this program supports.
        pub zpl_version: u64,
        /// Last synced transaction group.
        pub txg: U64,
        /// Host that has it, zero if none was recorded.
        pub hostid: u64,
        /// Imported read-only.
        pub readonly: bool,
        /// `failmode` property: wait, continue or panic.
        pub failmode: String,
        /// Supported features that are not enabled on the pool, by short name.
        pub disabled_features: Vec<String>,
        /// Unknown features as `guid (description)`; only on read-only imports.
        pub unsupported_features: Vec<String>,
        /// Number of the known on-disk erratum, zero if none.
        pub errata: u64,
        /// Pool properties by OpenZFS name, features as `feature@NAME`. Numbers are raw: bytes,
        /// percent, ratios times 100.
        pub properties: BTreeMap<String, Property>,
        /// Devices with counters.
        pub tree: Option<VdevNode>,
        /// Last or running scan.
        pub scan: Option<ScanStats>,
        /// Last or running device removal.
        pub removal: Option<RemovalStats>,
        /// Last or running raidz expansion.
        pub expand: Option<ExpandStats>,
        /// Checkpoint.
        pub checkpoint: Option<CheckpointStats>,
        /// Objects with permanent errors (count).
        pub error_count: u64,
        /// Those objects, if asked for.
        pub errors: Option<Vec<ErrorEntry>>,
        /// Deduplication, if asked for.
        pub dedup: Option<DedupStats>,
    }

    /// One record of a pool's history.
    #[derive(Default)]
    pub struct HistoryRecord {
        /// Seconds since 1970.
        pub time: u64,
        /// How long it took, in nanoseconds.
        pub elapsed_ns: Option<u64>,
        /// Command line, for commands.
        pub command: Option<String>,
        /// Transaction group, for internal records.
        pub txg: Option<u64>,
        /// Name of an internal event.
        pub internal_name: Option<String>,
        /// Text of an internal event.
        pub internal_text: Option<String>,
        /// Numeric event of very old pools.
        pub internal_event: Option<u64>,
        /// Dataset an internal event is about.
        pub dataset: Option<String>,
        /// Its object number.
        pub dataset_id: Option<u64>,
        /// Name of the ioctl, for ioctl records.
        pub ioctl: Option<String>,
        /// Printed input of the ioctl, one line an element; top level without indentation.
        pub ioctl_input: Option<Vec<String>>,
        /// Printed output of the ioctl, in the same way.
        pub ioctl_output: Option<Vec<String>>,
        /// Size in bytes of an output that was too large to keep.
        pub ioctl_output_size: Option<u64>,
        /// Error number of the ioctl.
        pub ioctl_errno: Option<i64>,
        /// User id.
        pub uid: Option<u64>,
        /// User name on this host, if it has one.
        pub user: Option<String>,
        /// Host.
        pub host: Option<String>,
        /// Zone.
        pub zone: Option<String>,
    }

    /// One value inside an event. Exactly one of the optional fields is set.
    pub struct EventValue {
        /// Name.
        pub name: String,
        /// Boolean.
        pub flag: Option<bool>,
        /// Unsigned number.
        pub number: Option<U64>,
        /// Text.
        pub text: Option<String>,
        /// Numbers.
        pub numbers: Option<Vec<U64>>,
        /// Texts.
        pub texts: Option<Vec<String>>,
        /// Nested values.
        pub nested: Option<Vec<EventValue>>,
    }

    /// One event.
    pub struct Event {
        /// Number since the daemon's start.
        pub eid: u64,
        /// Class, such as `sysevent.fs.zfs.pool_import`.
        pub class: String,
        /// Pool, if it is about one.
        pub pool: Option<String>,
        /// Seconds since 1970.
        pub seconds: u64,
        /// Nanoseconds of the second.
        pub nanoseconds: u64,
        /// The rest, in order.
        pub values: Vec<EventValue>,
    }
}
