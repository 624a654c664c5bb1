//! The one map from errors of the engine to codes of the contract.

use uzfs_proto::{Failure, FailureCode};
use zfs_spa::{Error, ErrorKind, ImportError, ImportProblem};

/// The code that stands for an engine error's kind.
fn code(kind: ErrorKind) -> FailureCode {
    use ErrorKind as K;
    match kind {
        K::Io | K::NoDevice | K::Interrupted => FailureCode::Io,
        K::Checksum | K::Corrupt => FailureCode::Corrupt,
        K::NotFound | K::Stale => FailureCode::NoSuchDataset,
        K::KeyUnavailable => FailureCode::KeyNotLoaded,
        K::Auth => FailureCode::KeyIncorrect,
        K::Unsupported => FailureCode::NotSupported,
        K::ReadOnly => FailureCode::ReadOnly,
        K::Exists => FailureCode::DatasetExists,
        K::Access => FailureCode::PermissionDenied,
        K::Busy => FailureCode::Busy,
        K::TooManyMissing => FailureCode::MissingDevices,
        K::ForeignHost => FailureCode::ForeignHost,
        K::ActiveHost => FailureCode::ActiveElsewhere,
        K::NoSpace | K::Quota => FailureCode::NoSpace,
        K::NotDir | K::IsDir | K::NotEmpty => FailureCode::MountpointInvalid,
        K::Permission => FailureCode::PermissionDenied,
        K::Invalid | K::NameTooLong | K::NoData | K::Range | K::Loop | K::TooBig => FailureCode::InvalidArgument,
        K::IllegalSequence => FailureCode::InvalidName,
        K::CrossDevice => FailureCode::WrongKind,
        K::Suspended => FailureCode::PoolSuspended,
        K::Bug => FailureCode::Internal,
    }
}

/// A failure of the contract from an error of the engine.
pub fn engine(error: &Error) -> Failure {
    let text = error.to_string();
    // The code says that much.
    let text = text.strip_suffix(": not supported").unwrap_or(&text);
    Failure::new(code(error.kind()), text)
}

/// A failure of the contract from a pool that could not be made.
pub fn create(error: &Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::Busy => FailureCode::DeviceInUse,
        ErrorKind::Range => {
            let text = "one or more devices is less than the minimum size (64M)";
            return Failure::new(FailureCode::BadDevice, text);
        }
        ErrorKind::Invalid | ErrorKind::Unsupported => FailureCode::BadDevice,
        kind => code(kind),
    };
    Failure::new(code, error.to_string())
}

/// A failure of the contract from a failed import; `details` are those that the code promises.
pub fn import(pool: &str, error: &ImportError) -> Failure {
    use ImportProblem as P;
    let host = |name: &Option<String>, id: u64| vec![name.clone().unwrap_or_default(), format!("{id:x}")];
    let devices = |missing: &[zfs_spa::import::MissingDevice]| {
        missing.iter().map(|d| d.path.clone().unwrap_or_else(|| format!("guid {}", d.guid))).collect::<Vec<_>>()
    };
    let (code, details) = match &error.problem {
        P::Version(v) => (FailureCode::UnsupportedVersion, vec![v.to_string()]),
        P::UnknownFeatures { features, can_readonly } => {
            let words = features.iter().map(|f| format!("{} ({})", f.guid, f.description)).collect();
            let code =
                if *can_readonly { FailureCode::UnsupportedFeaturesWrite } else { FailureCode::UnsupportedFeatures };
            (code, words)
        }
        P::MissingDevices(m) => (FailureCode::MissingDevices, devices(m)),
        P::MissingLogs(m) => (FailureCode::BadLog, devices(m)),
        P::ForeignHost { hostid, hostname, timestamp } => {
            let mut details = host(hostname, *hostid);
            details.push(timestamp.to_string());
            (FailureCode::ForeignHost, details)
        }
        P::ActiveHost { hostid, hostname } => (FailureCode::ActiveElsewhere, host(hostname, *hostid)),
        P::NoHostid => (FailureCode::HostidRequired, Vec::new()),
        P::Destroyed => (FailureCode::NoSuchPool, Vec::new()),
        P::Damaged { .. } if error.error.kind() == ErrorKind::Busy => (FailureCode::DeviceInUse, Vec::new()),
        P::NoUberblock | P::NoCheckpoint | P::Damaged { .. } => (FailureCode::PoolCorrupt, Vec::new()),
    };
    Failure::new(code, error.to_string()).about(pool).with_details(details)
}

/// No dataset of that name.
pub fn no_dataset(name: &str) -> Failure {
    Failure::new(FailureCode::NoSuchDataset, "dataset does not exist").about(name)
}

/// No pool of that name.
pub fn no_pool(name: &str) -> Failure {
    Failure::new(FailureCode::NoSuchPool, "no such pool").about(name)
}
