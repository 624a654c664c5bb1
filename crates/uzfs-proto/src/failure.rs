//! The one error of the contract, `io.uzfs.Manage1.Failed`.

use crate::schema::{contract_enums, contract_structs};

contract_enums! {
    /// What went wrong, as programs need to tell it apart. The tools turn a code into OpenZFS's
    /// sentence; `message` is only shown where OpenZFS has none.
    pub enum FailureCode {
        /// No pool of that name or guid.
        NoSuchPool = "no_such_pool",
        /// No dataset of that name.
        NoSuchDataset = "no_such_dataset",
        /// No device of that name in the pool.
        NoSuchDevice = "no_such_device",
        /// A pool of that name or guid is imported already.
        PoolExists = "pool_exists",
        /// A dataset of that name exists already.
        DatasetExists = "dataset_exists",
        /// The name breaks the rules of names.
        InvalidName = "invalid_name",
        /// An argument makes no sense.
        InvalidArgument = "invalid_argument",
        /// No such property, or it does not apply.
        InvalidProperty = "invalid_property",
        /// The caller may not do that.
        PermissionDenied = "permission_denied",
        /// Files are open, or a mount or job is in the way; `details` names the mount point, if one.
        Busy = "busy",
        /// The pool is only readable.
        ReadOnly = "read_only",
        /// The pool is not usable.
        PoolUnavailable = "pool_unavailable",
        /// I/O of the pool is suspended.
        PoolSuspended = "pool_suspended",
        /// More devices are missing than redundancy allows; `details` names them.
        MissingDevices = "missing_devices",
        /// A device could not be used; `details` names it.
        BadDevice = "bad_device",
        /// The pool was used last by another host; `details` is hostname, hostid in hex, time in
        /// seconds since 1970.
        ForeignHost = "foreign_host",
        /// The pool is active on another host; `details` is hostname, hostid in hex.
        ActiveElsewhere = "active_elsewhere",
        /// Multihost is on and this host has no hostid.
        HostidRequired = "hostid_required",
        /// Unknown on-disk version.
        UnsupportedVersion = "unsupported_version",
        /// Unknown features; `details` names each as `guid (description)`.
        UnsupportedFeatures = "unsupported_features",
        /// As above, but a read-only import would work.
        UnsupportedFeaturesWrite = "unsupported_features_write",
        /// The log device is missing or damaged.
        BadLog = "bad_log",
        /// A device is in use by another pool or program.
        DeviceInUse = "device_in_use",
        /// The pool's metadata is damaged; rewinding may help.
        PoolCorrupt = "pool_corrupt",
        /// Data is damaged.
        Corrupt = "corrupt",
        /// A device failed.
        Io = "io",
        /// No space left.
        NoSpace = "no_space",
        /// Not enough memory.
        NoMemory = "no_memory",
        /// The encryption key is not loaded.
        KeyNotLoaded = "key_not_loaded",
        /// The encryption key is loaded already.
        KeyLoaded = "key_loaded",
        /// The key is not the right one.
        KeyIncorrect = "key_incorrect",
        /// The key has the wrong form or length.
        KeyInvalid = "key_invalid",
        /// The dataset is not encrypted.
        NotEncrypted = "not_encrypted",
        /// The dataset has its key from another dataset, named in `details`.
        NotEncryptionRoot = "not_encryption_root",
        /// The dataset is mounted already.
        AlreadyMounted = "already_mounted",
        /// The dataset or path is not mounted.
        NotMounted = "not_mounted",
        /// The mount point is not empty.
        MountpointNotEmpty = "mountpoint_not_empty",
        /// The mount point cannot be made or used.
        MountpointInvalid = "mountpoint_invalid",
        /// Mounting failed for a reason of the host, such as a missing FUSE device.
        MountFailed = "mount_failed",
        /// Does not apply to this kind of dataset.
        WrongKind = "wrong_kind",
        /// Not built into this daemon.
        NotSupported = "not_supported",
        /// The daemon is going down.
        ShuttingDown = "shutting_down",
        /// A bug.
        Internal = "internal",
    }
}

contract_structs! {
    /// Parameters of the error `Failed`.
    pub struct Failure {
        /// Code.
        pub code: FailureCode,
        /// Sentence for people and logs, lower case, without a final dot.
        pub message: String,
        /// What it is about: a pool, dataset or path.
        pub subject: Option<String>,
        /// Facts that belong to the code, see there.
        pub details: Vec<String>,
    }
}

impl Failure {
    /// A failure without subject or details.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Failure { code, message: message.into(), subject: None, details: Vec::new() }
    }

    /// The same about `subject`.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// The same with facts.
    #[must_use]
    pub fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(subject) = &self.subject {
            write!(f, "{subject}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
