//! The listing of importable pools by a bare `zpool import`.

use super::reason::{self, Reason};
use super::status_text::feature_lines;
use super::vdev::{self, Naming, STATUS_CLASSES};
use crate::session::{Session, put, putln};
use uzfs_proto::{ImportablePool, PoolState, VdevAux, VdevNode, VdevState};

/// Prints one pool.
pub fn print(session: &mut Session, pool: &ImportablePool) {
    let hostid = crate::hostid::system(session);
    let reason = reason::of_import(pool, hostid);
    let pad = if pool.comment.is_some() { " " } else { "" };
    let tree = &pool.tree;
    putln!(session.out, "{pad}  pool: {}", pool.name);
    putln!(session.out, "{pad}    id: {}", pool.guid);
    let destroyed = if pool.state == PoolState::Destroyed { " (DESTROYED)" } else { "" };
    let state = vdev::state_name(tree.state, tree.aux);
    putln!(session.out, "{pad} state: {state}{destroyed}");
    if reason != Reason::Ok {
        put!(session.out, "{pad}status: {}", status(pool, reason, pad));
    }
    put!(session.out, "{pad}action: {}", action(pool, reason, pad));
    if let Some(comment) = &pool.comment {
        putln!(session.out, "comment: {comment}");
    }
    if matches!(tree.state, VdevState::Closed | VdevState::CantOpen) && tree.aux == VdevAux::CorruptData {
        match pool.state {
            PoolState::Destroyed => {
                putln!(session.out, "\t{pad}The pool was destroyed, but can be imported using the '-Df' flags.")
            }
            PoolState::Exported => {}
            _ => putln!(
                session.out,
                "\t{pad}The pool may be active on another system, but can be imported using\n\
                 \t{pad}the '-f' flag."
            ),
        }
    }
    if let Some(id) = reason.message_id() {
        putln!(session.out, "{pad}   see: https://openzfs.github.io/openzfs-docs/msg/{id}");
    }
    put!(session.out, "{pad}config:\n\n");
    let naming = Naming::default().numbered();
    let width = vdev::max_width(tree, None, 0, pool.name.len(), naming).max(10);
    config(session, tree, &pool.name, 0, width);
    for class in STATUS_CLASSES {
        let mut titled = false;
        for child in tree.children.iter().filter(|c| vdev::class_of(c) == Some(class)) {
            if child.kind == "indirect" && !child.is_log {
                continue;
            }
            if !std::mem::replace(&mut titled, true) {
                putln!(session.out, "\t{class}\t");
            }
            config(session, child, &vdev::name(child, None, naming), 2, width);
        }
    }
    if reason == Reason::BadGuidSum {
        putln!(
            session.out,
            "\n\t{pad}Additional devices are known to be part of this pool, though their\n\
             \t{pad}exact configuration cannot be determined."
        );
    }
}

fn config(session: &mut Session, node: &VdevNode, name: &str, depth: usize, width: usize) {
    if matches!(node.kind.as_str(), "missing" | "hole") {
        return;
    }
    let room = width.saturating_sub(depth);
    let state = vdev::state_name(node.state, node.aux);
    put!(session.out, "\t{:depth$}{name:room$}  {state}", "");
    if node.aux != VdevAux::None {
        put!(session.out, "  {}", vdev::import_aux_sentence(node.aux));
    }
    putln!(session.out);
    for child in node.children.iter().filter(|c| vdev::class_of(c).is_none()) {
        let name = vdev::name(child, None, Naming::default().numbered());
        config(session, child, &name, depth + 2, width);
    }
    for (title, devices) in [("cache", &node.l2cache), ("spares", &node.spares)] {
        if !devices.is_empty() {
            putln!(session.out, "\t{title}");
        }
        for child in devices {
            putln!(session.out, "\t  {}", vdev::name(child, None, Naming::default()));
        }
    }
}

fn status(pool: &ImportablePool, reason: Reason, pad: &str) -> String {
    let fixed = match reason {
        Reason::MissingDevR | Reason::MissingDevNr | Reason::BadGuidSum => {
            "One or more devices are missing from the system.\n"
        }
        Reason::CorruptLabelR | Reason::CorruptLabelNr => "One or more devices contains corrupted data.\n",
        Reason::CorruptData => "The pool data is corrupted.\n",
        Reason::OfflineDev => "One or more devices are offlined.\n",
        Reason::CorruptPool => "The pool metadata is corrupted.\n",
        Reason::VersionOlder => "The pool is formatted using a legacy on-disk version.\n",
        Reason::VersionNewer => "The pool is formatted using an incompatible version.\n",
        Reason::HostidActive => "The pool is currently imported by another system.\n",
        Reason::HostidMismatch => "The pool was last accessed by another system.\n",
        Reason::FaultedDevR | Reason::FaultedDevNr => "One or more devices are faulted.\n",
        Reason::BadLog => "An intent log record cannot be read.\n",
        Reason::Resilvering | Reason::Rebuilding => "One or more devices were being resilvered.\n",
        _ => "",
    };
    match reason {
        Reason::FeatDisabled => format!(
            "Some supported features are not enabled on the pool.\n\
             \t{pad}(Note that they may be intentionally disabled if the\n\
             \t{pad}'compatibility' property is set.)\n"
        ),
        Reason::UnsupFeatRead => format!(
            "The pool uses the following feature(s) not supported on this system:\n{}",
            feature_lines(&pool.unsupported_features)
        ),
        Reason::UnsupFeatWrite => format!(
            "The pool can only be accessed in read-only mode on this system. It\n\
             \t{pad}cannot be accessed in read-write mode because it uses the following\n\
             \t{pad}feature(s) not supported on this system:\n{}",
            feature_lines(&pool.unsupported_features)
        ),
        Reason::HostidRequired => format!(
            "The pool has the multihost property on.  It cannot\n\
             \t{pad}be safely imported when the system hostid is not set.\n"
        ),
        Reason::Errata => format!("Errata #{} detected.\n", pool.errata),
        Reason::NonNativeAshift => format!(
            "One or more devices are configured to use a non-native block size.\n\
             \t{pad}Expect reduced performance.\n"
        ),
        _ => fixed.to_owned(),
    }
}

fn action(pool: &ImportablePool, reason: Reason, pad: &str) -> String {
    match (pool.tree.state, reason) {
        (VdevState::Online, Reason::VersionOlder | Reason::FeatDisabled) => format!(
            "The pool can be imported using its name or numeric identifier, though\n\
             \t{pad}some features will not be available without an explicit 'zpool upgrade'.\n"
        ),
        (VdevState::Online, Reason::HostidMismatch) => format!(
            "The pool can be imported using its name or numeric identifier and\n\
             \t{pad}the '-f' flag.\n"
        ),
        (VdevState::Online, Reason::Errata) => erratum(pool.errata, pad),
        (VdevState::Online, _) => "The pool can be imported using its name or numeric identifier.\n".into(),
        (VdevState::Degraded, _) => format!(
            "The pool can be imported despite missing or damaged devices.  The\n\
             \t{pad}fault tolerance of the pool may be compromised if imported.\n"
        ),
        (_, Reason::VersionNewer) => format!(
            "The pool cannot be imported.  Access the pool on a system running newer\n\
             \t{pad}software, or recreate the pool from backup.\n"
        ),
        (_, Reason::UnsupFeatRead) => format!(
            "The pool cannot be imported. Access the pool on a system that supports\n\
             \t{pad}the required feature(s), or recreate the pool from backup.\n"
        ),
        (_, Reason::UnsupFeatWrite) => format!(
            "The pool cannot be imported in read-write mode. Import the pool with\n\
             \t{pad}'-o readonly=on', access the pool on a system that supports the\n\
             \t{pad}required feature(s), or recreate the pool from backup.\n"
        ),
        (_, Reason::MissingDevR | Reason::MissingDevNr | Reason::BadGuidSum) => {
            format!("The pool cannot be imported. Attach the missing\n\t{pad}devices and try again.\n")
        }
        (_, Reason::HostidActive) => {
            let host = pool.multihost_hostname.as_deref().unwrap_or("unknown");
            format!(
                "The pool must be exported from {host} (hostid={:x})\n\
                 \t{pad}before it can be safely imported.\n",
                pool.multihost_hostid
            )
        }
        (_, Reason::HostidRequired) => "Set a unique system hostid with the zgenhostid(8) command.\n".into(),
        _ => "The pool cannot be imported due to damaged devices or data.\n".into(),
    }
}

fn erratum(number: u64, pad: &str) -> String {
    match number {
        1 => format!(
            "The pool can be imported using its name or numeric identifier,\n\
             \t{pad}however there is a compatibility issue which should be corrected\n\
             \t{pad}by running 'zpool scrub'\n"
        ),
        2 => format!(
            "The pool cannot be imported with this version of ZFS due to\n\
             \t{pad}an active asynchronous destroy. Revert to an earlier version\n\
             \t{pad}and allow the destroy to complete before updating.\n"
        ),
        3 => format!(
            "Existing encrypted datasets contain an on-disk incompatibility, which\n\
             \t{pad}needs to be corrected. Backup these datasets to new encrypted datasets\n\
             \t{pad}and destroy the old ones.\n"
        ),
        _ => format!(
            "Existing encrypted snapshots and bookmarks contain an on-disk\n\
             \t{pad}incompatibility. This may cause on-disk corruption if they are used\n\
             \t{pad}with 'zfs recv'. To correct the issue, enable the bookmark_v2 feature.\n\
             \t{pad}No additional action is needed if there are no encrypted snapshots or\n\
             \t{pad}bookmarks. If preserving the encrypted snapshots and bookmarks is\n\
             \t{pad}required, use a non-raw send to backup and restore them. Alternately,\n\
             \t{pad}they may be removed to resolve the incompatibility.\n"
        ),
    }
}
