//! Parameters and results of the methods that change pools and datasets.

use crate::schema::{contract_enums, contract_structs};
use crate::{DatasetKind, Raw, U64};
use std::collections::BTreeMap;

contract_enums! {
    /// What to do about a scan.
    pub enum ScanAction {
        /// Start a scrub, or go on with one that is paused.
        Scrub = "scrub",
        /// Start a resilver of all that is missing.
        Resilver = "resilver",
        /// Pause the scrub.
        Pause = "pause",
        /// Stop the scrub.
        Stop = "stop",
    }
}

contract_structs! {
    /// A device or group of devices of a pool to be made.
    #[derive(Default)]
    pub struct VdevSpec {
        /// `file`, `disk`, `mirror`, `raidz1` to `raidz3`, or `draid2:4d:9c:1s` and the like; to replace a device also
        /// `dspare`, a distributed spare.
        pub kind: String,
        /// Absolute path of a `file` or `disk`; name of a `dspare`, as `draid1-0-0`.
        pub path: Option<String>,
        /// What it is for: empty for data, else `log`, `special`, `dedup`, `spare` or `cache`.
        pub class: String,
        /// Devices of a group.
        pub children: Vec<VdevSpec>,
    }

    /// Parameters of CreatePool.
    #[derive(Default)]
    pub struct CreatePoolArgs {
        /// Name.
        pub name: String,
        /// Its top-level devices, in order.
        pub vdevs: Vec<VdevSpec>,
        /// Pool properties, such as `ashift`, `feature@x`.
        pub properties: BTreeMap<String, String>,
        /// Properties of its file system.
        pub dataset_properties: BTreeMap<String, Raw>,
        /// Enable no features (`-d`).
        pub no_features: bool,
        /// Directory that all mount points are put under (`-R`).
        pub altroot: Option<String>,
        /// Name for as long as it stays imported (`-t`).
        pub temporary_name: Option<String>,
        /// Even if devices look in use (`-f`).
        pub force: bool,
        /// The command as it was given, for the history.
        pub command: Option<String>,
    }

    /// Parameters of DestroyPool.
    pub struct DestroyPoolArgs {
        /// Name.
        pub pool: String,
        /// Even if mounts are busy (`-f`).
        pub force: bool,
    }

    /// Parameters of SyncPools.
    #[derive(Default)]
    pub struct SyncPoolsArgs {
        /// Names; empty for all.
        pub pools: Vec<String>,
    }

    /// Parameters of AddDevices.
    #[derive(Default)]
    pub struct AddDevicesArgs {
        /// Pool.
        pub pool: String,
        /// The devices, top-level ones in order.
        pub vdevs: Vec<VdevSpec>,
        /// log2 of the sector size; the device tells when left out.
        pub ashift: Option<u64>,
        /// Even if devices look in use (`-f`).
        pub force: bool,
    }

    /// Parameters of SetPoolProperties.
    pub struct SetPoolPropertiesArgs {
        /// Pool.
        pub pool: String,
        /// What to set, as typed.
        pub properties: BTreeMap<String, String>,
    }

    /// Parameters of UpgradePool.
    pub struct UpgradePoolArgs {
        /// Pool.
        pub pool: String,
        /// Only these features; all that are usual when left out.
        pub features: Option<Vec<String>>,
    }

    /// Result of UpgradePool.
    #[derive(Default)]
    pub struct UpgradePoolReply {
        /// Features that are enabled now and were not before.
        pub features: Vec<String>,
    }

    /// Parameters of ChangeGuid.
    pub struct ChangeGuidArgs {
        /// Pool.
        pub pool: String,
        /// The new identity; drawn at random when left out.
        pub guid: Option<U64>,
    }

    /// Parameters of ClearErrors.
    pub struct ClearErrorsArgs {
        /// Pool.
        pub pool: String,
        /// Only this device: path, last part of it, or guid.
        pub device: Option<String>,
    }

    /// Parameters of SetDeviceState.
    pub struct SetDeviceStateArgs {
        /// Pool.
        pub pool: String,
        /// Device: path, last part of it, or guid.
        pub device: String,
        /// Bring it back; else take it offline.
        pub online: bool,
        /// Offline only until the next import (`-t`).
        pub temporary: bool,
        /// Call it faulted (`-f`).
        pub fault: bool,
    }

    /// Parameters of CheckDevices.
    pub struct CheckDevicesArgs {
        /// Devices, in groups and alone.
        pub vdevs: Vec<VdevSpec>,
        /// Let those be that belong to a pool which is not imported (`-f`).
        pub force: bool,
    }

    /// Parameters of ClearLabel.
    pub struct ClearLabelArgs {
        /// Path of the device.
        pub path: String,
        /// Even if it belongs to a pool that is not imported (`-f`).
        pub force: bool,
    }

    /// Parameters of ScanPool.
    pub struct ScanPoolArgs {
        /// Pool.
        pub pool: String,
        /// What to do.
        pub action: ScanAction,
    }

    /// Parameters of AttachDevice.
    pub struct AttachDeviceArgs {
        /// Pool.
        pub pool: String,
        /// Device that is there: path, last part of it, or guid.
        pub device: String,
        /// The new one.
        pub new: VdevSpec,
        /// It takes the other's place.
        pub replace: bool,
        /// log2 of the sector size; the device tells when left out.
        pub ashift: Option<u64>,
        /// Even if the device looks in use (`-f`).
        pub force: bool,
    }

    /// Parameters of DetachDevice.
    pub struct DetachDeviceArgs {
        /// Pool.
        pub pool: String,
        /// Device: path, last part of it, or guid.
        pub device: String,
    }

    /// Parameters of CreateDataset.
    pub struct CreateDatasetArgs {
        /// Full name.
        pub name: String,
        /// File system or volume.
        pub kind: DatasetKind,
        /// Size of a volume, bytes.
        pub volume_size: Option<u64>,
        /// Properties, those that are fixed at creation too.
        pub properties: BTreeMap<String, Raw>,
    }

    /// Parameters of CloneSnapshot.
    pub struct CloneSnapshotArgs {
        /// Snapshot.
        pub origin: String,
        /// Full name of the clone.
        pub name: String,
        /// Properties.
        pub properties: BTreeMap<String, Raw>,
    }

    /// Parameters of DestroyDatasets.
    #[derive(Default)]
    pub struct DestroyDatasetsArgs {
        /// File systems, volumes, snapshots, bookmarks; children and snapshots before what they belong to.
        pub names: Vec<String>,
        /// Snapshots that are held or cloned go later (`-d`).
        pub defer: bool,
        /// Unmount by force (`-f`).
        pub force: bool,
    }

    /// Parameters of CreateSnapshots.
    #[derive(Default)]
    pub struct CreateSnapshotsArgs {
        /// Full names; all of one pool, taken at the same moment.
        pub names: Vec<String>,
        /// User properties.
        pub properties: BTreeMap<String, String>,
    }

    /// Parameters of SetProperties.
    #[derive(Default)]
    pub struct SetPropertiesArgs {
        /// Full name.
        pub name: String,
        /// What to set.
        pub properties: BTreeMap<String, Raw>,
        /// Properties whose local value goes.
        pub inherit: Vec<String>,
        /// Those go back to the value that was received, if any (`-S`).
        pub to_received: bool,
    }

    /// Parameters of Rollback.
    pub struct RollbackArgs {
        /// The newest snapshot of a file system or volume.
        pub snapshot: String,
        /// Unmount by force.
        pub force: bool,
    }

    /// Parameters of RenameDataset.
    pub struct RenameDatasetArgs {
        /// File system, volume or snapshot.
        pub from: String,
        /// Its new full name.
        pub to: String,
        /// Unmount by force (`-f`).
        pub force: bool,
        /// Snapshots of that name of everything below, too (`-r`).
        pub recursive: bool,
    }
}
