//! Devices of a pool as the contract shows them: configuration, state and counters of one tree.

use crate::schema::{contract_enums, contract_structs};
use crate::{Raw, U64};

contract_enums! {
    /// State of a device, worst last but one (`vdev_state_t`, `sys/fs/zfs.h`).
    pub enum VdevState {
        /// Not opened yet.
        Unknown = "unknown",
        /// Not currently open.
        Closed = "closed",
        /// Taken offline by the administrator.
        Offline = "offline",
        /// Removed from the machine while open.
        Removed = "removed",
        /// Could not be opened; `aux` says why.
        CantOpen = "cant_open",
        /// Faulted by diagnosis or by the administrator.
        Faulted = "faulted",
        /// Working with reduced redundancy.
        Degraded = "degraded",
        /// Working.
        Online = "online",
    }

    /// Why a device is in its state (`vdev_aux_t`, `sys/fs/zfs.h`).
    pub enum VdevAux {
        /// Nothing to add.
        None = "none",
        /// The device node or file could not be opened.
        OpenFailed = "open_failed",
        /// Label or contents are damaged.
        CorruptData = "corrupt_data",
        /// Too few children are usable.
        NoReplicas = "no_replicas",
        /// The sum of all guids does not match: a top-level device is missing.
        BadGuidSum = "bad_guid_sum",
        /// Smaller than the configuration says.
        TooSmall = "too_small",
        /// The label is readable but is not this device's.
        BadLabel = "bad_label",
        /// Written by a newer on-disk version.
        VersionNewer = "version_newer",
        /// Written by a version that is too old.
        VersionOlder = "version_older",
        /// Uses features this program does not know.
        UnsupFeat = "unsup_feat",
        /// A hot spare in use.
        Spared = "spared",
        /// Too many errors.
        ErrExceeded = "err_exceeded",
        /// I/O failed.
        IoFailure = "io_failure",
        /// The intent log cannot be read.
        BadLog = "bad_log",
        /// Faulted from outside.
        External = "external",
        /// Split off into another pool.
        SplitPool = "split_pool",
        /// Its ashift is invalid.
        BadAshift = "bad_ashift",
        /// Faulted from outside, also after the next import.
        ExternalPersist = "external_persist",
        /// Active on another host.
        Active = "active",
        /// All children are offline.
        ChildrenOffline = "children_offline",
        /// Its smallest block is larger than the pool's.
        AshiftTooBig = "ashift_too_big",
    }

    /// State of initialization or TRIM of a leaf, or of a rebuild of a top-level device.
    pub enum JobState {
        /// Never done.
        None = "none",
        /// Running.
        Active = "active",
        /// Stopped for good before its end.
        Canceled = "canceled",
        /// Stopped, can go on.
        Suspended = "suspended",
        /// Done.
        Complete = "complete",
    }
}

contract_structs! {
    /// Progress of an initialization or a manual TRIM of one leaf.
    pub struct LeafJob {
        /// Where it is.
        pub state: JobState,
        /// Seconds since 1970 of the last change of state.
        pub action_time: u64,
        /// Bytes done.
        pub bytes_done: u64,
        /// Bytes to do altogether, estimated.
        pub bytes_est: u64,
    }

    /// Sequential rebuild of one top-level device (`vdev_rebuild_stat_t`).
    pub struct RebuildStats {
        /// Where it is.
        pub state: JobState,
        /// Seconds since 1970.
        pub start_time: u64,
        /// Seconds since 1970, zero while running.
        pub end_time: u64,
        /// Milliseconds of work so far.
        pub scan_time_ms: u64,
        /// Bytes scanned.
        pub bytes_scanned: u64,
        /// Bytes issued.
        pub bytes_issued: u64,
        /// Bytes rebuilt.
        pub bytes_rebuilt: u64,
        /// Bytes to scan altogether, estimated.
        pub bytes_est: u64,
        /// Errors met.
        pub errors: u64,
        /// Milliseconds since it was last resumed.
        pub pass_time_ms: u64,
        /// Bytes scanned since it was last resumed.
        pub pass_bytes_scanned: u64,
        /// Bytes issued since it was last resumed.
        pub pass_bytes_issued: u64,
        /// Bytes skipped since it was last resumed.
        pub pass_bytes_skipped: u64,
    }

    /// Counters of one device (`vdev_stat_t`). Bytes unless said otherwise.
    #[derive(Default)]
    pub struct VdevStats {
        /// Space allocated.
        pub alloc: u64,
        /// Total space, after parity for the pool's own figures.
        pub space: u64,
        /// Deflated capacity.
        pub dspace: u64,
        /// Size a replacement must have.
        pub rsize: u64,
        /// Space the device could grow by.
        pub esize: u64,
        /// Physical capacity.
        pub pspace: u64,
        /// Fragmentation in percent; none when unknown.
        pub fragmentation: Option<u64>,
        /// Space held by the pool's checkpoint.
        pub checkpoint_space: u64,
        /// Operations by kind: null, read, write, free, claim, flush or trim.
        pub ops: Vec<u64>,
        /// Bytes by kind, in the order of `ops`.
        pub bytes: Vec<u64>,
        /// Read errors (count).
        pub read_errors: u64,
        /// Write errors (count).
        pub write_errors: u64,
        /// Checksum errors (count).
        pub checksum_errors: u64,
        /// Initialization errors (count).
        pub initialize_errors: u64,
        /// TRIM errors (count).
        pub trim_errors: u64,
        /// Direct I/O verification errors (count).
        pub dio_verify_errors: u64,
        /// Operations that took too long (count).
        pub slow_ios: u64,
        /// Bytes repaired from redundancy.
        pub self_healed: u64,
        /// Bytes repaired or resilvered by the running scan.
        pub scan_processed: u64,
        /// Bytes rebuilt by the running sequential rebuild.
        pub rebuild_processed: u64,
    }

    /// One device of a pool with everything below it.
    pub struct VdevNode {
        /// Type name of the label: root, mirror, raidz, draid, replacing, spare, disk, file, dspare,
        /// indirect, hole, missing, l2cache.
        pub kind: String,
        /// Number among its siblings, as in the label.
        pub id: u64,
        /// Identity.
        pub guid: U64,
        /// Path of a leaf as configured.
        pub path: Option<String>,
        /// Device id of a leaf.
        pub devid: Option<String>,
        /// Physical path of a leaf.
        pub phys_path: Option<String>,
        /// Enclosure path of a leaf.
        pub enc_path: Option<String>,
        /// Field replaceable unit of a leaf.
        pub fru: Option<String>,
        /// The leaf is a whole disk that was partitioned by ZFS.
        pub whole_disk: bool,
        /// The device could not be found at import; `path` is where it was.
        pub not_present: bool,
        /// Parity devices of raidz and draid.
        pub nparity: Option<u64>,
        /// Data devices a group, draid only.
        pub draid_ndata: Option<u64>,
        /// Distributed spares, draid only.
        pub draid_nspares: Option<u64>,
        /// Groups, draid only.
        pub draid_ngroups: Option<u64>,
        /// A separate log device.
        pub is_log: bool,
        /// Allocation class of a top-level device: special, dedup or log.
        pub alloc_bias: Option<String>,
        /// Configured block size, as a power of two.
        pub ashift: Option<u64>,
        /// Logical block size reported by the device, as a power of two.
        pub logical_ashift: Option<u64>,
        /// Physical block size reported by the device, as a power of two.
        pub physical_ashift: Option<u64>,
        /// Allocatable size of a top-level device in bytes.
        pub asize: Option<u64>,
        /// Size of the device itself in bytes, leaves only.
        pub psize: Option<u64>,
        /// State.
        pub state: VdevState,
        /// Why.
        pub aux: VdevAux,
        /// Counters.
        pub stats: VdevStats,
        /// Being removed (evacuated).
        pub removing: bool,
        /// Allocations are halted.
        pub noalloc: bool,
        /// Waits for the next resilver.
        pub resilver_deferred: bool,
        /// A raidz that is being expanded.
        pub raidz_expanding: bool,
        /// The device cannot TRIM.
        pub trim_notsup: bool,
        /// Initialization of a leaf.
        pub initialize: Option<LeafJob>,
        /// Manual TRIM of a leaf.
        pub trim: Option<LeafJob>,
        /// Sequential rebuild of a top-level device.
        pub rebuild: Option<RebuildStats>,
        /// Name of the other pool that uses this hot spare.
        pub spare_pool: Option<String>,
        /// Children in the label's order, log and class devices included.
        pub children: Vec<VdevNode>,
        /// Cache devices, on the root only.
        pub l2cache: Vec<VdevNode>,
        /// Hot spares, on the root only.
        pub spares: Vec<VdevNode>,
        /// Vdev properties set by the administrator, by name.
        pub properties: Option<std::collections::BTreeMap<String, Raw>>,
    }
}

impl VdevNode {
    /// A healthy device without children, statistics or optional facts; callers fill in the rest.
    pub fn new(kind: &str, id: u64, guid: u64) -> Self {
        VdevNode {
            kind: kind.into(),
            id,
            guid: U64(guid),
            path: None,
            devid: None,
            phys_path: None,
            enc_path: None,
            fru: None,
            whole_disk: false,
            not_present: false,
            nparity: None,
            draid_ndata: None,
            draid_nspares: None,
            draid_ngroups: None,
            is_log: false,
            alloc_bias: None,
            ashift: None,
            logical_ashift: None,
            physical_ashift: None,
            asize: None,
            psize: None,
            state: VdevState::Online,
            aux: VdevAux::None,
            stats: VdevStats::default(),
            removing: false,
            noalloc: false,
            resilver_deferred: false,
            raidz_expanding: false,
            trim_notsup: false,
            initialize: None,
            trim: None,
            rebuild: None,
            spare_pool: None,
            children: Vec::new(),
            l2cache: Vec::new(),
            spares: Vec::new(),
            properties: None,
        }
    }

    /// True for a device without children.
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }
}
