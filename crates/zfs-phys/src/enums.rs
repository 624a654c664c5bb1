//! Numbered kinds that on-disk structures refer to: checksums, compressions, cipher suites, object types.

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $num:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $num,)* }

        impl $name {
            /// The kind numbered `raw` on disk, if there is one.
            pub const fn from_raw(raw: u8) -> Option<Self> {
                match raw { $($num => Some(Self::$variant),)* _ => None }
            }

            /// The name that OpenZFS's tools print.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

numbered! {
    /// Checksum functions (`enum zio_checksum`, include/sys/zio.h).
    ChecksumKind {
        /// Taken from the parent dataset.
        Inherit = 0, "inherit";
        /// The default: fletcher4.
        On = 1, "on";
        /// None.
        Off = 2, "off";
        /// SHA-256 in the block's own trailer, verified by its offset.
        Label = 3, "label";
        /// SHA-256 in the trailer of a gang header.
        GangHeader = 4, "gang_header";
        /// Old intent-log blocks: fletcher2 in a trailer at the front.
        Zilog = 5, "zilog";
        /// Fletcher over 64-bit words, two lanes.
        Fletcher2 = 6, "fletcher2";
        /// Fletcher over 32-bit words, four sums.
        Fletcher4 = 7, "fletcher4";
        /// SHA-256.
        Sha256 = 8, "sha256";
        /// Intent-log blocks: fletcher4 in a header at the front.
        Zilog2 = 9, "zilog2";
        /// None, and parity is not to be tried either; only for tests.
        Noparity = 10, "noparity";
        /// SHA-512/256.
        Sha512 = 11, "sha512";
        /// Skein-512-256, salted.
        Skein = 12, "skein";
        /// Edon-R 512, salted.
        Edonr = 13, "edonr";
        /// BLAKE3, salted.
        Blake3 = 14, "blake3";
    }
}

numbered! {
    /// Compressions (`enum zio_compress`, include/sys/zio_compress.h).
    CompressKind {
        /// Taken from the parent dataset.
        Inherit = 0, "inherit";
        /// The default: lz4 (lzjb before that feature).
        On = 1, "on";
        /// Stored as is.
        Off = 2, "uncompressed";
        /// LZJB.
        Lzjb = 3, "lzjb";
        /// A block of zeros.
        Empty = 4, "empty";
        /// zlib level 1.
        Gzip1 = 5, "gzip-1";
        /// zlib level 2.
        Gzip2 = 6, "gzip-2";
        /// zlib level 3.
        Gzip3 = 7, "gzip-3";
        /// zlib level 4.
        Gzip4 = 8, "gzip-4";
        /// zlib level 5.
        Gzip5 = 9, "gzip-5";
        /// zlib level 6.
        Gzip6 = 10, "gzip-6";
        /// zlib level 7.
        Gzip7 = 11, "gzip-7";
        /// zlib level 8.
        Gzip8 = 12, "gzip-8";
        /// zlib level 9.
        Gzip9 = 13, "gzip-9";
        /// Runs of zeros only.
        Zle = 14, "zle";
        /// LZ4 behind a length word.
        Lz4 = 15, "lz4";
        /// Zstandard behind a ZFS header.
        Zstd = 16, "zstd";
    }
}

numbered! {
    /// Cipher suites (`enum zio_encrypt`, include/sys/fs/zfs.h).
    CryptSuite {
        /// Taken from the parent dataset.
        Inherit = 0, "inherit";
        /// The default: aes-256-gcm.
        On = 1, "on";
        /// Not encrypted.
        Off = 2, "off";
        /// AES-128-CCM.
        Aes128Ccm = 3, "aes-128-ccm";
        /// AES-192-CCM.
        Aes192Ccm = 4, "aes-192-ccm";
        /// AES-256-CCM.
        Aes256Ccm = 5, "aes-256-ccm";
        /// AES-128-GCM.
        Aes128Gcm = 6, "aes-128-gcm";
        /// AES-192-GCM.
        Aes192Gcm = 7, "aes-192-gcm";
        /// AES-256-GCM.
        Aes256Gcm = 8, "aes-256-gcm";
    }
}

numbered! {
    /// What an object set holds (`dmu_objset_type_t`).
    ObjsetType {
        /// Nothing yet.
        None = 0, "NONE";
        /// The pool's own meta object set (MOS).
        Meta = 1, "META";
        /// A file system.
        Zfs = 2, "ZPL";
        /// A volume.
        Zvol = 3, "ZVOL";
        /// Anything else; only tests make it.
        Other = 4, "OTHER";
        /// Never stored.
        Any = 5, "ANY";
    }
}

/// How the contents of a block are laid out, as far as byte order matters (`dmu_object_byteswap_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ByteswapKind {
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Zap,
    Dnode,
    Objset,
    Znode,
    OldAcl,
    Acl,
}

/// Type of an object (`dmu_object_type_t`, include/sys/dmu.h): an old enumerated type, or a new one (bit 7) that
/// tells metadata (bit 6), encryption (bit 5) and layout (bits 0-4) by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct DmuObjectType(pub u8);

struct OldType(ByteswapKind, bool, bool, &'static str);

macro_rules! old_types {
    ($($num:literal $konst:ident $swap:ident $meta:literal $crypt:literal $name:literal;)*) => {
        #[allow(missing_docs)]
        impl DmuObjectType {
            $(pub const $konst: DmuObjectType = DmuObjectType($num);)*
        }
        const fn old_type(raw: u8) -> Option<OldType> {
            match raw {
                $($num => Some(OldType(ByteswapKind::$swap, $meta, $crypt, $name)),)*
                _ => None,
            }
        }
    };
}

old_types! {
    0 NONE Uint8 true false "unallocated";
    1 OBJECT_DIRECTORY Zap true false "object directory";
    2 OBJECT_ARRAY Uint64 true false "object array";
    3 PACKED_NVLIST Uint8 true false "packed nvlist";
    4 PACKED_NVLIST_SIZE Uint64 true false "packed nvlist size";
    5 BPOBJ Uint64 true false "bpobj";
    6 BPOBJ_HDR Uint64 true false "bpobj header";
    7 SPACE_MAP_HEADER Uint64 true false "SPA space map header";
    8 SPACE_MAP Uint64 true false "SPA space map";
    9 INTENT_LOG Uint64 true true "ZIL intent log";
    10 DNODE Dnode true true "DMU dnode";
    11 OBJSET Objset true false "DMU objset";
    12 DSL_DIR Uint64 true false "DSL directory";
    13 DSL_DIR_CHILD_MAP Zap true false "DSL directory child map";
    14 DSL_DS_SNAP_MAP Zap true false "DSL dataset snap map";
    15 DSL_PROPS Zap true false "DSL props";
    16 DSL_DATASET Uint64 true false "DSL dataset";
    17 ZNODE Znode true false "ZFS znode";
    18 OLDACL OldAcl true true "ZFS V0 ACL";
    19 PLAIN_FILE_CONTENTS Uint8 false true "ZFS plain file";
    20 DIRECTORY_CONTENTS Zap true true "ZFS directory";
    21 MASTER_NODE Zap true false "ZFS master node";
    22 UNLINKED_SET Zap true true "ZFS delete queue";
    23 ZVOL Uint8 false true "zvol object";
    24 ZVOL_PROP Zap true false "zvol prop";
    25 PLAIN_OTHER Uint8 false true "other uint8[]";
    26 UINT64_OTHER Uint64 false true "other uint64[]";
    27 ZAP_OTHER Zap true false "other ZAP";
    28 ERROR_LOG Zap true false "persistent error log";
    29 SPA_HISTORY Uint8 true false "SPA history";
    30 SPA_HISTORY_OFFSETS Uint64 true false "SPA history offsets";
    31 POOL_PROPS Zap true false "Pool properties";
    32 DSL_PERMS Zap true false "DSL permissions";
    33 ACL Acl true true "ZFS ACL";
    34 SYSACL Uint8 true true "ZFS SYSACL";
    35 FUID Uint8 true true "FUID table";
    36 FUID_SIZE Uint64 true false "FUID table size";
    37 NEXT_CLONES Zap true false "DSL dataset next clones";
    38 SCAN_QUEUE Zap true false "scan work queue";
    39 USERGROUP_USED Zap true true "ZFS user/group/project used";
    40 USERGROUP_QUOTA Zap true true "ZFS user/group/project quota";
    41 USERREFS Zap true false "snapshot refcount tags";
    42 DDT_ZAP Zap true false "DDT ZAP algorithm";
    43 DDT_STATS Zap true false "DDT statistics";
    44 SA Uint8 true true "System attributes";
    45 SA_MASTER_NODE Zap true true "SA master node";
    46 SA_ATTR_REGISTRATION Zap true true "SA attr registration";
    47 SA_ATTR_LAYOUTS Zap true true "SA attr layouts";
    48 SCAN_XLATE Zap true false "scan translations";
    49 DEDUP Uint8 false true "deduplicated block";
    50 DEADLIST Zap true false "DSL deadlist map";
    51 DEADLIST_HDR Uint64 true false "DSL deadlist map hdr";
    52 DSL_CLONES Zap true false "DSL dir clones";
    53 BPOBJ_SUBOBJ Uint64 true false "bpobj subobj";
}

impl DmuObjectType {
    const NEWTYPE: u8 = 0x80;

    /// Whether the number stands for a type at all.
    pub const fn is_valid(self) -> bool {
        if self.0 & Self::NEWTYPE != 0 { self.0 & 0x1f < 10 } else { self.0 < 54 }
    }

    /// Whether the object is metadata.
    pub const fn is_metadata(self) -> bool {
        if self.0 & Self::NEWTYPE != 0 {
            return self.0 & 0x40 != 0;
        }
        match old_type(self.0) {
            Some(OldType(_, meta, _, _)) => meta,
            None => false,
        }
    }

    /// Whether level-0 blocks of this type are encrypted in an encrypted dataset.
    pub const fn is_encrypted(self) -> bool {
        if self.0 & Self::NEWTYPE != 0 {
            return self.0 & 0x20 != 0;
        }
        match old_type(self.0) {
            Some(OldType(_, _, crypt, _)) => crypt,
            None => false,
        }
    }

    /// Layout of the contents, for byte order.
    pub const fn byteswap(self) -> ByteswapKind {
        use ByteswapKind as B;
        if self.0 & Self::NEWTYPE == 0 {
            return match old_type(self.0) {
                Some(OldType(swap, _, _, _)) => swap,
                None => B::Uint8,
            };
        }
        match self.0 & 0x1f {
            1 => B::Uint16,
            2 => B::Uint32,
            3 => B::Uint64,
            4 => B::Zap,
            5 => B::Dnode,
            6 => B::Objset,
            7 => B::Znode,
            8 => B::OldAcl,
            9 => B::Acl,
            _ => B::Uint8,
        }
    }

    /// Whether the object is a ZAP.
    pub const fn is_zap(self) -> bool {
        matches!(self.byteswap(), ByteswapKind::Zap)
    }

    /// The name that OpenZFS's `zdb` prints; new types are described by their bits.
    pub fn name(self) -> String {
        if let Some(OldType(_, _, _, name)) = old_type(self.0) {
            return name.to_owned();
        }
        if self.0 & Self::NEWTYPE == 0 || !self.is_valid() {
            return "UNKNOWN".to_owned();
        }
        let layout = match self.byteswap() {
            ByteswapKind::Uint8 => "uint8",
            ByteswapKind::Uint16 => "uint16",
            ByteswapKind::Uint32 => "uint32",
            ByteswapKind::Uint64 => "uint64",
            ByteswapKind::Zap => "zap",
            ByteswapKind::Dnode => "dnode",
            ByteswapKind::Objset => "objset",
            ByteswapKind::Znode => "znode",
            ByteswapKind::OldAcl => "oldacl",
            ByteswapKind::Acl => "acl",
        };
        format!("bswap {layout} {}", if self.is_metadata() { "metadata" } else { "data" })
    }
}
