//! The `status:` and `action:` paragraphs of `zpool status` and of listings of importable pools.
//! Tools look for words in them, so they are part of the interface.

use super::reason::Reason;
use uzfs_proto::Pool;

/// Two paragraphs; every line ends, lines after the first start with a tab.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// What is the matter.
    pub status: String,
    /// What to do.
    pub action: String,
}

/// The list of features a pool uses and we do not know, as printed.
pub fn feature_lines(features: &[String]) -> String {
    features.iter().map(|f| format!("\t{f}\n")).collect()
}

/// What to do about a pool that cannot be opened.
pub const RECOVER: &str = "Destroy and re-create the pool from\n\ta backup source.\n";

fn pair(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::MissingDevR => (
            "One or more devices could not be opened.  Sufficient replicas exist for\n\
             \tthe pool to continue functioning in a degraded state.\n",
            "Attach the missing device and online it using 'zpool online'.\n",
        ),
        Reason::MissingDevNr => (
            "One or more devices could not be opened.  There are insufficient\n\
             \treplicas for the pool to continue functioning.\n",
            "Attach the missing device and online it using 'zpool online'.\n",
        ),
        Reason::CorruptLabelR => (
            "One or more devices could not be used because the label is missing or\n\
             \tinvalid.  Sufficient replicas exist for the pool to continue\n\
             \tfunctioning in a degraded state.\n",
            "Replace the device using 'zpool replace'.\n",
        ),
        Reason::CorruptLabelNr => (
            "One or more devices could not be used because the label is missing \n\
             \tor invalid.  There are insufficient replicas for the pool to continue\n\
             \tfunctioning.\n",
            RECOVER,
        ),
        Reason::FailingDev => (
            "One or more devices has experienced an unrecoverable error.  An\n\
             \tattempt was made to correct the error.  Applications are unaffected.\n",
            "Determine if the device needs to be replaced, and clear the errors\n\
             \tusing 'zpool clear' or replace the device with 'zpool replace'.\n",
        ),
        Reason::OfflineDev => (
            "One or more devices has been taken offline by the administrator.\n\
             \tSufficient replicas exist for the pool to continue functioning in a\n\
             \tdegraded state.\n",
            "Online the device using 'zpool online' or replace the device with\n\
             \t'zpool replace'.\n",
        ),
        Reason::RemovedDev => (
            "One or more devices has been removed by the administrator.\n\
             \tSufficient replicas exist for the pool to continue functioning in a\n\
             \tdegraded state.\n",
            "Online the device using zpool online' or replace the device with\n\
             \t'zpool replace'.\n",
        ),
        Reason::FaultedDevR => (
            "One or more devices are faulted in response to persistent errors.\n\
             \tSufficient replicas exist for the pool to continue functioning in a\n\
             \tdegraded state.\n",
            "Replace the faulted device, or use 'zpool clear' to mark the device\n\
             \trepaired.\n",
        ),
        Reason::FaultedDevNr => (
            "One or more devices are faulted in response to persistent errors.  \
             There are insufficient replicas for the pool to\n\tcontinue functioning.\n",
            "Destroy and re-create the pool from a backup source.  Manually marking the device\n\
             \trepaired using 'zpool clear' may allow some data to be recovered.\n",
        ),
        other => rare_pair(other),
    }
}

fn rare_pair(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::Resilvering | Reason::Rebuilding => (
            "One or more devices is currently being resilvered.  The pool will\n\
             \tcontinue to function, possibly in a degraded state.\n",
            "Wait for the resilver to complete.\n",
        ),
        Reason::RebuildScrub => (
            "One or more devices have been sequentially resilvered, scrubbing\n\
             \tthe pool is recommended.\n",
            "Use 'zpool scrub' to verify all data checksums.\n",
        ),
        Reason::CorruptData => (
            "One or more devices has experienced an error resulting in data\n\
             \tcorruption.  Applications may be affected.\n",
            "Restore the file in question if possible.  Otherwise restore the\n\
             \tentire pool from backup.\n",
        ),
        Reason::CorruptPool => ("The pool metadata is corrupted and the pool cannot be opened.\n", RECOVER),
        Reason::VersionOlder => (
            "The pool is formatted using a legacy on-disk format.  The pool can\n\
             \tstill be used, but some features are unavailable.\n",
            "Upgrade the pool using 'zpool upgrade'.  Once this is done, the\n\
             \tpool will no longer be accessible on software that does not support\n\
             \tfeature flags.\n",
        ),
        Reason::VersionNewer => (
            "The pool has been upgraded to a newer, incompatible on-disk version.\n\
             \tThe pool cannot be accessed on this system.\n",
            "Access the pool from a system running more recent software, or\n\
             \trestore the pool from backup.\n",
        ),
        Reason::FeatDisabled => (
            "Some supported and requested features are not enabled on the pool.\n\
             \tThe pool can still be used, but some features are unavailable.\n",
            "Enable all features using 'zpool upgrade'. Once this is done,\n\
             \tthe pool may no longer be accessible by software that does not support\n\
             \tthe features. See zpool-features(7) for details.\n",
        ),
        other => suspended_pair(other),
    }
}

fn suspended_pair(reason: Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::IoFailureMmp => (
            "The pool is suspended because multihost writes failed or were delayed;\n\
             \tanother system could import the pool undetected.\n",
            "Make sure the pool's devices are connected, then reboot your system and\n\
             \timport the pool or run 'zpool clear' to resume the pool.\n",
        ),
        Reason::IoFailureWait | Reason::IoFailureContinue => (
            "One or more devices are faulted in response to IO failures.\n",
            "Make sure the affected devices are connected, then run 'zpool clear'.\n",
        ),
        Reason::BadLog => (
            "An intent log record could not be read.\n\
             \tWaiting for administrator intervention to fix the faulted pool.\n",
            "Either restore the affected device(s) and run 'zpool online',\n\
             \tor ignore the intent log records by running 'zpool clear'.\n",
        ),
        Reason::NonNativeAshift => (
            "One or more devices are configured to use a non-native block size.\n\
             \tExpect reduced performance.\n",
            "Replace affected devices with devices that support the\n\
             \tconfigured block size, or migrate data to a properly configured\n\
             \tpool.\n",
        ),
        Reason::HostidMismatch => (
            "Mismatch between pool hostid and system hostid on imported pool.\n\
             \tThis pool was previously imported into a system with a different hostid,\n\
             \tand then was verbatim imported into this system.\n",
            "Export this pool on all systems on which it is imported.\n\
             \tThen import it to correct the mismatch.\n",
        ),
        _ => ("", ""),
    }
}

/// The paragraphs for a pool.
pub fn advice(pool: &Pool, reason: Reason) -> Advice {
    let (status, action) = pair(reason);
    let (mut status, mut action) = (status.to_owned(), action.to_owned());
    match reason {
        Reason::UnsupFeatRead => {
            status = format!(
                "The pool cannot be accessed on this system because it uses the\n\
                 \tfollowing feature(s) not supported on this system:\n{}",
                feature_lines(&pool.unsupported_features)
            );
            action = "Access the pool from a system that supports the required feature(s),\n\
                \tor restore the pool from backup.\n"
                .into();
        }
        Reason::Errata => {
            status = format!("Errata #{} detected.\n", pool.errata);
            let (more, what) = erratum(pool.errata);
            status.push_str(more);
            action = what.into();
        }
        _ => {}
    }
    Advice { status, action }
}

fn erratum(number: u64) -> (&'static str, &'static str) {
    match number {
        1 => ("", "To correct the issue run 'zpool scrub'.\n"),
        3 => (
            "\tExisting encrypted datasets contain an on-disk incompatibility\n\
             \t which needs to be corrected.\n",
            "To correct the issue backup existing encrypted datasets to new\n\
             \tencrypted datasets and destroy the old ones. 'zfs mount -o ro' can\n\
             \tbe used to temporarily mount existing encrypted datasets readonly.\n",
        ),
        4 => (
            "\tExisting encrypted snapshots and bookmarks contain an on-disk\n\
             \tincompatibility. This may cause on-disk corruption if they are used\n\
             \twith 'zfs recv'.\n",
            "To correct theissue, enable the bookmark_v2 feature. No additional\n\
             \taction is needed if there are no encrypted snapshots or bookmarks.\n\
             \tIf preservingthe encrypted snapshots and bookmarks is required, use\n\
             \ta non-raw send to backup and restore them. Alternately, they may be\n\
             \tremoved to resolve the incompatibility.\n",
        ),
        _ => ("", ""),
    }
}
