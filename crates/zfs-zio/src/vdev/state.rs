//! Health of vdevs: what `zpool status` shows (`vdev_state_t`, `vdev_aux_t`, include/sys/fs/zfs.h).

/// Health of a vdev, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum VdevState {
    /// Not determined yet.
    Unknown = 0,
    /// Not open.
    Closed = 1,
    /// Taken offline by the administrator.
    Offline = 2,
    /// Unplugged.
    Removed = 3,
    /// Tried to open, but failed.
    CantOpen = 4,
    /// Declared bad.
    Faulted = 5,
    /// Works, but something below does not.
    Degraded = 6,
    /// Presumed good.
    Healthy = 7,
}

/// Why a vdev is in the state it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum VdevAux {
    #[default]
    None = 0,
    OpenFailed = 1,
    CorruptData = 2,
    NoReplicas = 3,
    BadGuidSum = 4,
    TooSmall = 5,
    BadLabel = 6,
    VersionNewer = 7,
    VersionOlder = 8,
    UnsupFeat = 9,
    Spared = 10,
    ErrExceeded = 11,
    IoFailure = 12,
    BadLog = 13,
    External = 14,
    SplitPool = 15,
    BadAshift = 16,
    ExternalPersist = 17,
    Active = 18,
    ChildrenOffline = 19,
    AshiftTooBig = 20,
}

impl VdevState {
    /// The word that `zpool status` prints (`zpool_state_to_name`).
    pub const fn name(self, aux: VdevAux) -> &'static str {
        match self {
            Self::Closed | Self::Offline => "OFFLINE",
            Self::Removed => "REMOVED",
            Self::CantOpen => match aux {
                VdevAux::CorruptData | VdevAux::BadLog => "FAULTED",
                VdevAux::SplitPool => "SPLIT",
                _ => "UNAVAIL",
            },
            Self::Faulted => "FAULTED",
            Self::Degraded => "DEGRADED",
            Self::Healthy => "ONLINE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Whether reads may be tried (`!vdev_is_dead`).
    pub const fn is_readable(self) -> bool {
        matches!(self, Self::Degraded | Self::Healthy)
    }
}
