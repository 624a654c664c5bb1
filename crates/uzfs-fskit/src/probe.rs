//! What a resource is: the one place where identifiers come from, for probing and for loading alike.
//!
//! A path resource is a volume ticket. A block device is recognized by the configuration in its labels, of which
//! there are two at each end; any one that can be read is enough, and any member of a pool gives the same answer.
//! Nothing is verified beyond what makes the label readable: the daemon opens the pool and judges.

use crate::api::{BlockDevice, FsError, FsKitCode, FsResult, Match, ProbeResult, Resource};
use std::io::Read;
use std::path::Path;
use uzfs_fsproto::{Ticket, TicketKind, volume_uuid};
use zfs_phys::feature::Feature;
use zfs_phys::label::{VDEV_LABEL_SIZE, VDEV_LABELS, VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, decode_config, label_offset};
use zfs_phys::nvlist::NvList;

/// Largest ticket that is read.
const MAX_TICKET: u64 = 8 << 10;
/// `POOL_STATE_DESTROYED` and the states of spares and cache devices follow.
const DESTROYED: u64 = 2;

/// What a resource stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A dataset, by ticket.
    Dataset(Ticket),
    /// The root dataset of the pool that a device belongs to.
    Pool {
        /// Guid of the pool.
        guid: u64,
        /// Its name.
        name: String,
        /// How well it can be used.
        fit: Match,
    },
}

impl Identity {
    /// Identifier of the container and of the volume.
    pub fn uuid(&self) -> [u8; 16] {
        match self {
            Self::Dataset(t) => match &t.kind {
                TicketKind::Volume(v) => volume_uuid(v.pool_guid, v.dataset_guid),
                TicketKind::Daemon => [0; 16],
            },
            Self::Pool { guid, .. } => volume_uuid(*guid, 0),
        }
    }

    /// Name to show.
    pub fn name(&self) -> String {
        match self {
            Self::Dataset(t) => match &t.kind {
                TicketKind::Volume(v) => String::from_utf8_lossy(&v.name).into_owned(),
                TicketKind::Daemon => String::new(),
            },
            Self::Pool { name, .. } => name.clone(),
        }
    }
}

/// Finds out what a resource is; nothing if it is none of ours.
pub fn identify(resource: &Resource) -> FsResult<Option<Identity>> {
    match resource {
        Resource::Path(path) => Ok(read_ticket(path)?.map(Identity::Dataset)),
        Resource::Block(device) => Ok(label(&**device)?.map(|config| pool(&config))),
        Resource::Url(_) => Ok(None),
    }
}

/// Answers a probe.
pub fn probe(resource: &Resource) -> FsResult<ProbeResult> {
    let Some(identity) = identify(resource)? else {
        return Ok(ProbeResult { result: Match::NotRecognized, name: String::new(), container: [0; 16] });
    };
    let result = match &identity {
        Identity::Dataset(ticket) if ticket.is_readonly() => Match::UsableButLimited,
        Identity::Dataset(_) => Match::Usable,
        Identity::Pool { fit, .. } => *fit,
    };
    Ok(ProbeResult { result, name: identity.name(), container: identity.uuid() })
}

/// Reads a ticket for a volume; nothing if the file is something else.
fn read_ticket(path: &Path) -> FsResult<Option<Ticket>> {
    let posix = |e: std::io::Error| FsError::Posix(e.raw_os_error().unwrap_or(libc::EIO));
    let file = std::fs::File::open(path).map_err(posix)?;
    if !file.metadata().map_err(posix)?.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(MAX_TICKET + 1).read_to_end(&mut text).map_err(posix)?;
    Ok(Ticket::parse(&text).ok().filter(|t| matches!(t.kind, TicketKind::Volume(_))))
}

/// The first readable configuration of a device's labels. A device that cannot be read at all is an error.
fn label(device: &dyn BlockDevice) -> FsResult<Option<NvList>> {
    let mut failed = None;
    for l in 0..VDEV_LABELS {
        let Some(at) = label_offset(device.size(), l).filter(|at| at + VDEV_LABEL_SIZE <= device.size()) else {
            continue;
        };
        let mut phys = vec![0; VDEV_PHYS_SIZE as usize];
        match device.read_at(at + VDEV_SKIP_SIZE, &mut phys) {
            Ok(n) if n == phys.len() => {}
            Ok(_) => continue,
            Err(e) => {
                failed = Some(e);
                continue;
            }
        }
        let usable = |c: &NvList| c.u64("pool_guid").is_some_and(|g| g != 0) && c.str("name").is_some();
        if let Some(config) = decode_config(&phys).ok().filter(usable) {
            return Ok(Some(config));
        }
    }
    match failed {
        Some(e) => Err(e),
        None => Ok(None),
    }
}

/// What a label says of the pool.
fn pool(config: &NvList) -> Identity {
    let known = |name: &str| Feature::by_guid(name).is_some();
    let read = config.list("features_for_read");
    let unknown = read.is_some_and(|f| f.pairs.iter().any(|(name, _)| !known(name)));
    let gone = config.u64("state").unwrap_or(0) >= DESTROYED;
    let fit = match (unknown || gone, config.u64("version")) {
        (true, _) => Match::Recognized,
        (_, Some(1..=28 | 5000)) => Match::Usable,
        _ => Match::Recognized,
    };
    Identity::Pool {
        guid: config.u64("pool_guid").unwrap_or(0),
        name: config.str("name").unwrap_or_default().to_owned(),
        fit,
    }
}

/// Refuses what can be recognized but not loaded.
pub fn loadable(identity: Option<Identity>) -> FsResult<Identity> {
    match identity {
        None => Err(FsError::FsKit(FsKitCode::ResourceUnrecognized)),
        Some(Identity::Pool { fit: Match::Recognized, .. }) => Err(FsError::FsKit(FsKitCode::ResourceUnusable)),
        Some(identity) => Ok(identity),
    }
}
