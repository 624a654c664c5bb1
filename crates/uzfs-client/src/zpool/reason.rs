//! What is wrong with a pool, most important thing first, as `zpool_get_status` of libzfs decides
//! from a pool's configuration.

use uzfs_proto::{
    ImportablePool, JobState, MultihostState, Pool, PoolState, ScanFunction, ScanState, ScanStats, VdevAux, VdevNode,
    VdevState,
};

/// Reasons (`zpool_status_t`, `libzfs.h`); `R` with enough replicas, `Nr` without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing.
    Ok,
    /// Resilvering.
    Resilvering,
    /// Rebuilding sequentially.
    Rebuilding,
    /// Rebuilt, not scrubbed since.
    RebuildScrub,
    /// Imported elsewhere.
    HostidActive,
    /// This host has no hostid.
    HostidRequired,
    /// Last used elsewhere.
    HostidMismatch,
    /// On-disk version too new.
    VersionNewer,
    /// Unknown features.
    UnsupFeatRead,
    /// Features unknown for writing.
    UnsupFeatWrite,
    /// Not all top-level devices are known.
    BadGuidSum,
    /// Suspended because multihost writes failed.
    IoFailureMmp,
    /// Suspended, failing I/O.
    IoFailureContinue,
    /// Suspended, waiting.
    IoFailureWait,
    /// Log cannot be read.
    BadLog,
    /// Faulted devices.
    FaultedDevNr,
    /// Missing devices.
    MissingDevNr,
    /// Bad labels.
    CorruptLabelNr,
    /// Damaged metadata.
    CorruptPool,
    /// Permanent errors.
    CorruptData,
    /// Faulted devices.
    FaultedDevR,
    /// Missing devices.
    MissingDevR,
    /// Bad labels.
    CorruptLabelR,
    /// Devices with errors.
    FailingDev,
    /// Devices taken offline.
    OfflineDev,
    /// Devices removed.
    RemovedDev,
    /// Blocks smaller than the device's.
    NonNativeAshift,
    /// A known erratum.
    Errata,
    /// Old on-disk version.
    VersionOlder,
    /// Supported features are not enabled.
    FeatDisabled,
}

impl Reason {
    /// Message id of OpenZFS's documentation.
    pub fn message_id(self) -> Option<&'static str> {
        Some(match self {
            Reason::MissingDevR => "ZFS-8000-2Q",
            Reason::MissingDevNr => "ZFS-8000-3C",
            Reason::CorruptLabelR => "ZFS-8000-4J",
            Reason::CorruptLabelNr => "ZFS-8000-5E",
            Reason::BadGuidSum => "ZFS-8000-6X",
            Reason::CorruptPool => "ZFS-8000-72",
            Reason::CorruptData => "ZFS-8000-8A",
            Reason::FailingDev => "ZFS-8000-9P",
            Reason::VersionNewer => "ZFS-8000-A5",
            Reason::HostidMismatch | Reason::HostidActive | Reason::HostidRequired => "ZFS-8000-EY",
            Reason::IoFailureWait => "ZFS-8000-HC",
            Reason::IoFailureContinue => "ZFS-8000-JQ",
            Reason::IoFailureMmp => "ZFS-8000-MM",
            Reason::BadLog => "ZFS-8000-K4",
            Reason::Errata => "ZFS-8000-ER",
            _ => return None,
        })
    }

    /// Left out by `zpool status -x`.
    pub fn is_harmless(self) -> bool {
        matches!(self, Reason::Ok | Reason::VersionOlder | Reason::FeatDisabled)
    }
}

fn any_leaf(node: &VdevNode, skip_replacing: bool, bad: &dyn Fn(&VdevNode) -> bool) -> bool {
    if skip_replacing && node.kind == "replacing" {
        return false;
    }
    let here = match node.is_leaf() {
        true => node.kind != "hole" && node.kind != "indirect" && bad(node),
        false => node.children.iter().any(|c| any_leaf(c, skip_replacing, bad)),
    };
    here || node.l2cache.iter().any(|c| any_leaf(c, skip_replacing, bad))
}

fn has(tree: &VdevNode, bad: impl Fn(&VdevNode) -> bool) -> bool {
    any_leaf(tree, true, &bad)
}

fn missing(v: &VdevNode) -> bool {
    v.state == VdevState::CantOpen && v.aux == VdevAux::OpenFailed
}

fn failing(v: &VdevNode) -> bool {
    let s = &v.stats;
    v.state == VdevState::Degraded || s.read_errors != 0 || s.write_errors != 0 || s.checksum_errors != 0
}

fn non_native(v: &VdevNode) -> bool {
    matches!((v.ashift, v.physical_ashift), (Some(have), Some(native)) if have < native)
}

fn rebuild(tree: &VdevNode, scan: Option<&ScanStats>) -> Option<Reason> {
    let rebuilds = || tree.children.iter().filter_map(|c| c.rebuild.as_ref());
    if rebuilds().any(|r| r.state == JobState::Active) {
        return Some(Reason::Rebuilding);
    }
    let done = rebuilds().filter(|r| r.state == JobState::Complete);
    let end = done.map(|r| r.end_time).max().filter(|&t| t > 0)?;
    let stale = scan.is_none_or(|s| {
        s.state == ScanState::None
            || s.state == ScanState::Finished && s.function == ScanFunction::Scrub && end > s.end_time
    });
    stale.then_some(Reason::RebuildScrub)
}

/// Unusable pools: why their root cannot be opened.
fn unopenable(tree: &VdevNode) -> Option<Reason> {
    if tree.state != VdevState::CantOpen {
        return None;
    }
    if has(tree, |v| v.state == VdevState::Faulted) {
        return Some(Reason::FaultedDevNr);
    }
    if has(tree, missing) {
        return Some(Reason::MissingDevNr);
    }
    if has(tree, |v| v.state == VdevState::CantOpen) {
        return Some(Reason::CorruptLabelNr);
    }
    (tree.aux == VdevAux::CorruptData).then_some(Reason::CorruptPool)
}

/// Devices in trouble in a pool that works.
fn devices(tree: &VdevNode, importing: bool) -> Option<Reason> {
    if has(tree, |v| v.state == VdevState::Faulted) {
        Some(Reason::FaultedDevR)
    } else if has(tree, missing) {
        Some(Reason::MissingDevR)
    } else if has(tree, |v| v.state == VdevState::CantOpen) {
        Some(Reason::CorruptLabelR)
    } else if !importing && has(tree, failing) {
        Some(Reason::FailingDev)
    } else if has(tree, |v| v.state == VdevState::Offline) {
        Some(Reason::OfflineDev)
    } else if has(tree, |v| v.state == VdevState::Removed) {
        Some(Reason::RemovedDev)
    } else {
        None
    }
}

fn age(version: u64, disabled: &[String], compatibility: &str) -> Reason {
    match version {
        0..5000 if compatibility != "legacy" => Reason::VersionOlder,
        // A compatibility list says that features are off on purpose.
        5000..
            if matches!(compatibility, "off" | "") && disabled.iter().any(|f| crate::props::is_release_feature(f)) =>
        {
            Reason::FeatDisabled
        }
        _ => Reason::Ok,
    }
}

/// What is wrong with an imported pool.
pub fn of_pool(pool: &Pool, system_hostid: u64, ashift_matters: bool) -> Reason {
    let Some(tree) = &pool.tree else { return Reason::Ok };
    let scan = pool.scan.as_ref();
    if scan.is_some_and(|s| s.function == ScanFunction::Resilver && s.state == ScanState::Scanning) {
        return Reason::Resilvering;
    }
    if let Some(reason) = rebuild(tree, scan) {
        return reason;
    }
    let active = pool.state == PoolState::Active;
    if pool.hostid != 0 && pool.hostid != system_hostid && active && !pool.readonly {
        return Reason::HostidMismatch;
    }
    match (pool.suspended.as_deref(), pool.failmode.as_str()) {
        (Some("mmp"), _) => return Reason::IoFailureMmp,
        (Some(_), "continue") => return Reason::IoFailureContinue,
        (Some(_), _) => return Reason::IoFailureWait,
        (None, _) => {}
    }
    if tree.state == VdevState::CantOpen && tree.aux == VdevAux::BadLog {
        return Reason::BadLog;
    }
    if let Some(reason) = unopenable(tree) {
        return reason;
    }
    if pool.error_count != 0 {
        return Reason::CorruptData;
    }
    if let Some(reason) = devices(tree, false) {
        return reason;
    }
    if ashift_matters && any_leaf(tree, false, &non_native) {
        return Reason::NonNativeAshift;
    }
    if pool.errata != 0 {
        return Reason::Errata;
    }
    let compatibility = pool.properties.get("compatibility").and_then(|p| p.value.text.as_deref());
    age(pool.version, &pool.disabled_features, compatibility.unwrap_or("off"))
}

/// What is wrong with a pool that could be imported.
pub fn of_import(pool: &ImportablePool, system_hostid: u64) -> Reason {
    let tree = &pool.tree;
    let closed = tree.state == VdevState::CantOpen;
    if closed && tree.aux == VdevAux::Active {
        return match pool.multihost {
            MultihostState::Active => Reason::HostidActive,
            MultihostState::NoHostid => Reason::HostidRequired,
            MultihostState::Inactive => Reason::HostidMismatch,
        };
    }
    if pool.hostid != 0 && pool.hostid != system_hostid && pool.state == PoolState::Active {
        return Reason::HostidMismatch;
    }
    match tree.aux {
        VdevAux::VersionNewer if closed => return Reason::VersionNewer,
        VdevAux::UnsupFeat if closed && pool.can_readonly => return Reason::UnsupFeatWrite,
        VdevAux::UnsupFeat if closed => return Reason::UnsupFeatRead,
        VdevAux::BadGuidSum if closed => return Reason::BadGuidSum,
        VdevAux::BadLog if closed => return Reason::BadLog,
        _ => {}
    }
    if let Some(reason) = unopenable(tree).or_else(|| devices(tree, true)) {
        return reason;
    }
    if pool.errata != 0 {
        return Reason::Errata;
    }
    age(pool.version, &pool.disabled_features, pool.compatibility.as_deref().unwrap_or("off"))
}
