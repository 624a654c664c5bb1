//! Parameters and results of the methods that change pools and datasets.

use crate::schema::contract_structs;
use crate::{DatasetKind, Raw};
use std::collections::BTreeMap;

contract_structs! {
    /// A device or group of devices of a pool to be made.
    #[derive(Default)]
    pub struct VdevSpec {
        /// `file`, `disk`, `mirror`, `raidz1` to `raidz3`, or `draid...` with its parameters.
        pub kind: String,
        /// Absolute path of a `file` or `disk`.
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
        /// Even if devices look in use (`-f`).
        pub force: bool,
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
        /// File systems, volumes, snapshots; children and snapshots before what they belong to.
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
    }
}
