//! Names that OpenZFS's tools print for numbers, as far as the corpus has them.

/// The text `zfs get -p` prints for a raw number.
pub fn spell(prop: &str, n: u64) -> String {
    const CHECKSUM: &[(u64, &str)] = &[
        (1, "on"),
        (2, "off"),
        (6, "fletcher2"),
        (7, "fletcher4"),
        (8, "sha256"),
        (264, "sha256,verify"),
        (10, "noparity"),
        (11, "sha512"),
        (267, "sha512,verify"),
        (12, "skein"),
        (13, "edonr"),
        (14, "blake3"),
    ];
    const COMPRESSION: &[(u64, &str)] = &[
        (1, "on"),
        (2, "off"),
        (3, "lzjb"),
        (5, "gzip-1"),
        (10, "gzip"),
        (13, "gzip-9"),
        (14, "zle"),
        (15, "lz4"),
        (16, "zstd"),
        (16 | 19 << 7, "zstd-19"),
        (16 | 110 << 7, "zstd-fast-10"),
        (14352, "zstd-fast-10"),
    ];
    let table: &[(u64, &str)] = match prop {
        "checksum" | "dedup" => CHECKSUM,
        "compression" => COMPRESSION,
        "atime" | "devices" | "exec" | "setuid" | "readonly" | "zoned" | "vscan" | "nbmand" | "relatime"
        | "overlay" | "longname" | "utf8only" | "defer_destroy" | "volthreading" => &[(0, "off"), (1, "on")],
        "snapdir" | "snapdev" => &[(0, "hidden"), (1, "visible")],
        "aclmode" => &[(0, "discard")],
        "aclinherit" => &[(4, "restricted")],
        "canmount" => &[(0, "off"), (1, "on"), (2, "noauto")],
        "xattr" => &[(0, "off"), (1, "dir"), (2, "on")],
        "primarycache" | "secondarycache" | "prefetch" => &[(0, "none"), (1, "metadata"), (2, "all")],
        "logbias" => &[(0, "latency"), (1, "throughput")],
        "sync" => &[(0, "standard"), (1, "always"), (2, "disabled")],
        "dnodesize" => &[(0, "legacy"), (1, "auto"), (16384, "16k")],
        "volmode" => &[(0, "default")],
        "acltype" => &[(0, "off"), (1, "posix")],
        "redundant_metadata" => &[(0, "all"), (1, "most")],
        "direct" => &[(1, "standard")],
        "normalization" => &[(0, "none"), (16, "formD")],
        "casesensitivity" => &[(0, "sensitive"), (1, "insensitive"), (2, "mixed")],
        "encryption" => &[
            (2, "off"),
            (3, "aes-128-ccm"),
            (4, "aes-192-ccm"),
            (5, "aes-256-ccm"),
            (6, "aes-128-gcm"),
            (7, "aes-192-gcm"),
            (8, "aes-256-gcm"),
        ],
        "keyformat" => &[(0, "none"), (1, "raw"), (2, "hex"), (3, "passphrase")],
        "keystatus" => &[(0, "none"), (1, "unavailable"), (2, "available")],
        "compressratio" | "refcompressratio" | "dedupratio" | "bcloneratio" => {
            return format!("{}.{:02}", n / 100, n % 100);
        }
        "filesystem_limit" | "snapshot_limit" | "filesystem_count" | "snapshot_count" if n == u64::MAX => {
            return "none".into();
        }
        _ => &[],
    };
    table.iter().find(|(k, _)| *k == n).map_or_else(|| n.to_string(), |(_, s)| (*s).to_owned())
}
