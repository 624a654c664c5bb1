//! Features of pools of version 5000, by GUID (module/zcommon/zfeature_common.c, zpool-features(7)).

/// Safe to ignore when the pool is only read.
pub const READONLY_COMPAT: u8 = 1;
/// Needed to read the meta object set itself.
pub const MOS: u8 = 2;
/// Active as soon as it is enabled.
pub const ACTIVATE_ON_ENABLE: u8 = 4;
/// Datasets that use it are marked.
pub const PER_DATASET: u8 = 8;
/// Not enabled by `zpool upgrade`.
pub const NO_UPGRADE: u8 = 16;

const NONE: u8 = 0;
const RO: u8 = READONLY_COMPAT;
const ACT: u8 = ACTIVATE_ON_ENABLE;
const PER_DS: u8 = PER_DATASET;
const NO_UP: u8 = NO_UPGRADE;

/// What is to be known about a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureInfo {
    /// Which one.
    pub feature: Feature,
    /// Name on disk, e.g. `com.delphix:async_destroy`.
    pub guid: &'static str,
    /// Short name, as in `feature@async_destroy`.
    pub name: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// `READONLY_COMPAT` and so on.
    pub flags: u8,
    /// Features that must be enabled first.
    pub depends: &'static [Feature],
}

macro_rules! features {
    ($($id:ident: $guid:literal, $name:literal, $desc:literal, $flags:expr, [$($dep:ident),*];)*) => {
        /// A feature that this software knows.
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Feature { $($id,)* }

        /// All of them, in OpenZFS's order (which `zpool get all` and `zpool upgrade -v` keep).
        pub const FEATURES: &[FeatureInfo] = &[$(FeatureInfo {
            feature: Feature::$id, guid: $guid, name: $name, description: $desc, flags: $flags,
            depends: &[$(Feature::$dep),*],
        },)*];

        impl Feature {
            /// Its description.
            pub const fn info(self) -> FeatureInfo {
                match self { $(Feature::$id => FeatureInfo {
                    feature: Feature::$id, guid: $guid, name: $name, description: $desc, flags: $flags,
                    depends: &[$(Feature::$dep),*],
                },)* }
            }
        }
    };
}

features! {
    AsyncDestroy: "com.delphix:async_destroy", "async_destroy", "Destroy filesystems asynchronously.", RO, [];
    EmptyBpobj: "com.delphix:empty_bpobj", "empty_bpobj", "Snapshots use less space.", RO, [];
    Lz4Compress: "org.illumos:lz4_compress", "lz4_compress", "LZ4 compression algorithm support.", ACT, [];
    MultiVdevCrashDump: "com.joyent:multi_vdev_crash_dump", "multi_vdev_crash_dump", "Crash dumps to multiple vdev pools.", NONE, [];
    SpacemapHistogram: "com.delphix:spacemap_histogram", "spacemap_histogram", "Spacemaps maintain space histograms.", RO, [];
    EnabledTxg: "com.delphix:enabled_txg", "enabled_txg", "Record txg at which a feature is enabled", RO, [];
    HoleBirth: "com.delphix:hole_birth", "hole_birth", "Retain hole birth txg for more precise zfs send", MOS | ACT, [EnabledTxg];
    ExtensibleDataset: "com.delphix:extensible_dataset", "extensible_dataset", "Enhanced dataset functionality, used by other features.", NONE, [];
    EmbeddedData: "com.delphix:embedded_data", "embedded_data", "Blocks which compress very well use even less space.", MOS | ACT, [];
    Bookmarks: "com.delphix:bookmarks", "bookmarks", "\"zfs bookmark\" command", RO, [ExtensibleDataset];
    FilesystemLimits: "com.joyent:filesystem_limits", "filesystem_limits", "Filesystem and snapshot limits.", RO, [ExtensibleDataset];
    LargeBlocks: "org.open-zfs:large_blocks", "large_blocks", "Support for blocks larger than 128KB.", PER_DS, [ExtensibleDataset];
    LargeDnode: "org.zfsonlinux:large_dnode", "large_dnode", "Variable on-disk size of dnodes.", PER_DS, [ExtensibleDataset];
    Sha512: "org.illumos:sha512", "sha512", "SHA-512/256 hash algorithm.", PER_DS, [ExtensibleDataset];
    Skein: "org.illumos:skein", "skein", "Skein hash algorithm.", PER_DS, [ExtensibleDataset];
    Edonr: "org.illumos:edonr", "edonr", "Edon-R hash algorithm.", PER_DS, [ExtensibleDataset];
    UserobjAccounting: "org.zfsonlinux:userobj_accounting", "userobj_accounting", "User/Group object accounting.", RO | PER_DS, [ExtensibleDataset];
    Encryption: "com.datto:encryption", "encryption", "Support for dataset level encryption", PER_DS, [ExtensibleDataset, BookmarkV2];
    ProjectQuota: "org.zfsonlinux:project_quota", "project_quota", "space/object accounting based on project ID.", RO | PER_DS, [ExtensibleDataset];
    DeviceRemoval: "com.delphix:device_removal", "device_removal", "Top-level vdevs can be removed, reducing logical pool size.", MOS, [];
    ObsoleteCounts: "com.delphix:obsolete_counts", "obsolete_counts", "Reduce memory used by removed devices when their blocks are freed or remapped.", RO, [ExtensibleDataset, DeviceRemoval];
    ZpoolCheckpoint: "com.delphix:zpool_checkpoint", "zpool_checkpoint", "Pool state can be checkpointed, allowing rewind later.", RO, [];
    SpacemapV2: "com.delphix:spacemap_v2", "spacemap_v2", "Space maps representing large segments are more efficient.", RO | ACT, [];
    AllocationClasses: "org.zfsonlinux:allocation_classes", "allocation_classes", "Support for separate allocation classes.", RO, [];
    ResilverDefer: "com.datto:resilver_defer", "resilver_defer", "Support for deferring new resilvers when one is already running.", RO, [];
    BookmarkV2: "com.datto:bookmark_v2", "bookmark_v2", "Support for larger bookmarks", NONE, [ExtensibleDataset, Bookmarks];
    RedactionBookmarks: "com.delphix:redaction_bookmarks", "redaction_bookmarks", "Support for bookmarks which store redaction lists for zfs redacted send/recv.", NONE, [BookmarkV2, ExtensibleDataset, Bookmarks];
    RedactedDatasets: "com.delphix:redacted_datasets", "redacted_datasets", "Support for redacted datasets, produced by receiving a redacted zfs send stream.", PER_DS, [ExtensibleDataset];
    BookmarkWritten: "com.delphix:bookmark_written", "bookmark_written", "Additional accounting, enabling the written#<bookmark> property (space written since a bookmark), and estimates of send stream sizes for incrementals from bookmarks.", NONE, [BookmarkV2, ExtensibleDataset, Bookmarks];
    LogSpacemap: "com.delphix:log_spacemap", "log_spacemap", "Log metaslab changes on a single spacemap and flush them periodically.", RO, [SpacemapV2];
    Livelist: "com.delphix:livelist", "livelist", "Improved clone deletion performance.", RO, [ExtensibleDataset];
    DeviceRebuild: "org.openzfs:device_rebuild", "device_rebuild", "Support for sequential mirror/dRAID device rebuilds", RO, [];
    ZstdCompress: "org.freebsd:zstd_compress", "zstd_compress", "zstd compression algorithm support.", PER_DS, [ExtensibleDataset];
    Draid: "org.openzfs:draid", "draid", "Support for distributed spare RAID", MOS, [];
    Zilsaxattr: "org.openzfs:zilsaxattr", "zilsaxattr", "Support for xattr=sa extended attribute logging in ZIL.", RO | PER_DS, [ExtensibleDataset];
    HeadErrlog: "com.delphix:head_errlog", "head_errlog", "Support for per-dataset on-disk error logs.", ACT, [];
    Blake3: "org.openzfs:blake3", "blake3", "BLAKE3 hash algorithm.", PER_DS, [ExtensibleDataset];
    BlockCloning: "com.fudosecurity:block_cloning", "block_cloning", "Support for block cloning via Block Reference Table.", RO, [];
    VdevZapsV2: "com.klarasystems:vdev_zaps_v2", "vdev_zaps_v2", "Support for root vdev ZAP.", MOS, [];
    RedactionListSpill: "com.delphix:redaction_list_spill", "redaction_list_spill", "Support for increased number of redaction_snapshot arguments in zfs redact.", NONE, [RedactionBookmarks];
    RaidzExpansion: "org.openzfs:raidz_expansion", "raidz_expansion", "Support for raidz expansion", MOS, [];
    FastDedup: "com.klarasystems:fast_dedup", "fast_dedup", "Support for advanced deduplication", RO, [];
    Longname: "org.zfsonlinux:longname", "longname", "support filename up to 1024 bytes", PER_DS, [ExtensibleDataset];
    LargeMicrozap: "com.klarasystems:large_microzap", "large_microzap", "Support for microzaps larger than 128KB.", RO | PER_DS, [ExtensibleDataset, LargeBlocks];
    DynamicGangHeader: "com.klarasystems:dynamic_gang_header", "dynamic_gang_header", "Support for dynamically sized gang headers", MOS | NO_UP, [];
    BlockCloningEndian: "com.truenas:block_cloning_endian", "block_cloning_endian", "Fixes BRT ZAP endianness on new pools.", RO, [];
    PhysicalRewrite: "com.truenas:physical_rewrite", "physical_rewrite", "Support for preserving logical birth time during rewrite.", RO | PER_DS, [ExtensibleDataset];
    DraidFailureDomains: "com.seagate:draid_failure_domains", "draid_failure_domains", "Support for failure domains in dRAID", MOS, [Draid];
}

impl Feature {
    /// By GUID.
    pub fn by_guid(guid: &str) -> Option<Self> {
        FEATURES.iter().find(|f| f.guid == guid).map(|f| f.feature)
    }

    /// By short name.
    pub fn by_name(name: &str) -> Option<Self> {
        FEATURES.iter().find(|f| f.name == name).map(|f| f.feature)
    }

    /// Name on disk.
    pub const fn guid(self) -> &'static str {
        self.info().guid
    }

    /// Short name.
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Whether a pool that uses it may be read without knowing it.
    pub const fn is_readonly_compatible(self) -> bool {
        self.info().flags & READONLY_COMPAT != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        assert_eq!(FEATURES.len(), 48);
        for f in FEATURES {
            assert_eq!(Feature::by_guid(f.guid), Some(f.feature));
            assert_eq!(Feature::by_name(f.name), Some(f.feature));
            assert_eq!(f.feature.info(), *f);
            assert!(f.flags & PER_DATASET == 0 || f.depends.contains(&Feature::ExtensibleDataset), "{}", f.name);
            assert!(f.flags & (READONLY_COMPAT | MOS) != READONLY_COMPAT | MOS, "{}", f.name);
        }
    }
}
