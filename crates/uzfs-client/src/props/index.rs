//! Names of enumerated property values with the numbers they are stored as. Several names may share
//! a number: the first is printed, all are understood.

/// A table of names.
pub type Index = &'static [(&'static str, u64)];

/// The name to print for `number`.
pub fn name_of(index: Index, number: u64) -> Option<&'static str> {
    index.iter().find(|(_, n)| *n == number).map(|(name, _)| *name)
}

/// The number of `name`.
pub fn number_of(index: Index, name: &str) -> Option<u64> {
    index.iter().find(|(known, _)| *known == name).map(|(_, n)| *n)
}

/// Values of `enum zio_checksum`.
#[rustfmt::skip]
pub const CHECKSUM: Index = &[
    ("on", 1), ("off", 2), ("fletcher2", 6), ("fletcher4", 7), ("sha256", 8), ("noparity", 10),
    ("sha512", 11), ("skein", 12), ("edonr", 13), ("blake3", 14),
];

/// Values of `enum zio_checksum`, 256 added for verify.
#[rustfmt::skip]
pub const DEDUP: Index = &[
    ("on", 1), ("off", 2), ("verify", 257), ("sha256", 8), ("sha256,verify", 264), ("sha512", 11),
    ("sha512,verify", 267), ("skein", 12), ("skein,verify", 268), ("edonr,verify", 269), ("blake3", 14), ("blake3,verify", 270),
];

/// Values of `enum zio_compress`, the zstd level shifted left by 7.
#[rustfmt::skip]
pub const COMPRESSION: Index = &[
    ("on", 1), ("off", 2), ("lzjb", 3), ("gzip", 10), ("gzip-1", 5), ("gzip-2", 6),
    ("gzip-3", 7), ("gzip-4", 8), ("gzip-5", 9), ("gzip-6", 10), ("gzip-7", 11), ("gzip-8", 12),
    ("gzip-9", 13), ("zle", 14), ("lz4", 15), ("zstd", 16), ("zstd-fast", 13200), ("zstd-1", 144),
    ("zstd-2", 272), ("zstd-3", 400), ("zstd-4", 528), ("zstd-5", 656), ("zstd-6", 784), ("zstd-7", 912),
    ("zstd-8", 1040), ("zstd-9", 1168), ("zstd-10", 1296), ("zstd-11", 1424), ("zstd-12", 1552), ("zstd-13", 1680),
    ("zstd-14", 1808), ("zstd-15", 1936), ("zstd-16", 2064), ("zstd-17", 2192), ("zstd-18", 2320), ("zstd-19", 2448),
    ("zstd-fast-1", 13200), ("zstd-fast-2", 13328), ("zstd-fast-3", 13456), ("zstd-fast-4", 13584), ("zstd-fast-5", 13712), ("zstd-fast-6", 13840),
    ("zstd-fast-7", 13968), ("zstd-fast-8", 14096), ("zstd-fast-9", 14224), ("zstd-fast-10", 14352), ("zstd-fast-20", 14480), ("zstd-fast-30", 14608),
    ("zstd-fast-40", 14736), ("zstd-fast-50", 14864), ("zstd-fast-60", 14992), ("zstd-fast-70", 15120), ("zstd-fast-80", 15248), ("zstd-fast-90", 15376),
    ("zstd-fast-100", 15504), ("zstd-fast-500", 15632), ("zstd-fast-1000", 15760),
];

/// Values of `enum zio_encrypt`.
#[rustfmt::skip]
pub const ENCRYPTION: Index = &[
    ("on", 1), ("off", 2), ("aes-128-ccm", 3), ("aes-192-ccm", 4), ("aes-256-ccm", 5), ("aes-128-gcm", 6),
    ("aes-192-gcm", 7), ("aes-256-gcm", 8),
];

/// Values of `zfs_keyformat_t`.
#[rustfmt::skip]
pub const KEYFORMAT: Index = &[
    ("none", 0), ("raw", 1), ("hex", 2), ("passphrase", 3),
];

/// Values of `zfs_keystatus_t`.
#[rustfmt::skip]
pub const KEYSTATUS: Index = &[
    ("none", 0), ("unavailable", 1), ("available", 2),
];

/// Values of `snapdir`.
#[rustfmt::skip]
pub const SNAPDIR: Index = &[
    ("hidden", 0), ("visible", 1), ("disabled", 2),
];

/// Values of `snapdev`.
#[rustfmt::skip]
pub const SNAPDEV: Index = &[
    ("hidden", 0), ("visible", 1),
];

/// Values of `sys/zfs_acl.h`.
#[rustfmt::skip]
pub const ACLMODE: Index = &[
    ("discard", 0), ("groupmask", 2), ("passthrough", 3), ("restricted", 4),
];

/// Values of `sys/zfs_ioctl.h`; the last three are old spellings.
#[rustfmt::skip]
pub const ACLTYPE: Index = &[
    ("off", 0), ("posix", 1), ("nfsv4", 2), ("disabled", 0), ("noacl", 0), ("posixacl", 1),
];

/// Values of `sys/zfs_acl.h`; `secure` is an old spelling.
#[rustfmt::skip]
pub const ACLINHERIT: Index = &[
    ("discard", 0), ("noallow", 1), ("restricted", 4), ("passthrough", 3), ("secure", 4), ("passthrough-x", 5),
];

/// Values of `zfs_case_t`.
#[rustfmt::skip]
pub const CASE: Index = &[
    ("sensitive", 0), ("insensitive", 1), ("mixed", 2),
];

/// Values of `copies`.
#[rustfmt::skip]
pub const COPIES: Index = &[
    ("1", 1), ("2", 2), ("3", 3),
];

/// Values of the flags of `sys/u8_textprep.h`.
#[rustfmt::skip]
pub const NORMALIZATION: Index = &[
    ("none", 0), ("formD", 16), ("formKC", 96), ("formC", 80), ("formKD", 32),
];

/// Values of the version of the file system.
#[rustfmt::skip]
pub const VERSION: Index = &[
    ("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5), ("current", 5),
];

/// Values of booleans.
#[rustfmt::skip]
pub const BOOLEAN: Index = &[
    ("off", 0), ("on", 1),
];

/// Values of `zfs_logbias_op_t`.
#[rustfmt::skip]
pub const LOGBIAS: Index = &[
    ("latency", 0), ("throughput", 1),
];

/// Values of `zfs_canmount_type_t`.
#[rustfmt::skip]
pub const CANMOUNT: Index = &[
    ("off", 0), ("on", 1), ("noauto", 2),
];

/// Values of `zfs_cache_type_t` and `zfs_prefetch_type_t`.
#[rustfmt::skip]
pub const CACHE: Index = &[
    ("none", 0), ("metadata", 1), ("all", 2),
];

/// Values of `zfs_sync_type_t`.
#[rustfmt::skip]
pub const SYNC: Index = &[
    ("standard", 0), ("always", 1), ("disabled", 2),
];

/// Values of `zfs_xattr_type_t`; `on` is how release 2.3 prints `sa`.
#[rustfmt::skip]
pub const XATTR: Index = &[
    ("off", 0), ("on", 2), ("sa", 2), ("dir", 1),
];

/// Values of `zfs_dnsize_type_t`.
#[rustfmt::skip]
pub const DNODESIZE: Index = &[
    ("legacy", 0), ("auto", 1), ("1k", 1024), ("2k", 2048), ("4k", 4096), ("8k", 8192),
    ("16k", 16384),
];

/// Values of `zfs_redundant_metadata_type_t`.
#[rustfmt::skip]
pub const REDUNDANT_METADATA: Index = &[
    ("all", 0), ("most", 1), ("some", 2), ("none", 3),
];

/// Values of `zfs_volmode_t`.
#[rustfmt::skip]
pub const VOLMODE: Index = &[
    ("default", 0), ("full", 1), ("geom", 1), ("dev", 2), ("none", 3),
];

/// Values of `zfs_direct_t`.
#[rustfmt::skip]
pub const DIRECT: Index = &[
    ("disabled", 0), ("standard", 1), ("always", 2),
];

/// Values of `ZIO_FAILURE_MODE_*`.
#[rustfmt::skip]
pub const FAILMODE: Index = &[
    ("wait", 0), ("continue", 1), ("panic", 2),
];
