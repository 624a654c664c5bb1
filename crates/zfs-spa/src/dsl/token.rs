//! The token with which an interrupted receive can be resumed: a list of where it got to, compressed, in hexadecimal.

use super::dataset::Dataset;
use std::fmt::Write;
use zfs_codec::checksum::Fletcher4;
use zfs_codec::compress;
use zfs_dmu::Result;
use zfs_phys::dsl::field;
use zfs_phys::enums::CompressKind;
use zfs_phys::{Endian, NvList, NvValue};

/// Version of the token (`ZFS_SEND_RESUME_TOKEN_VERSION`).
const VERSION: u32 = 1;
/// Level of the compression.
const GZIP_LEVEL: u8 = 6;

/// The token of a dataset that is being received; nothing when it is not, or not resumably.
pub(super) fn resume_token(ds: &Dataset) -> Result<Option<String>> {
    if ds.field(field::RESUME_TOGUID)?.is_none() {
        return Ok(None);
    }
    let mut list = NvList::new();
    let numbers = [
        ("fromguid", field::RESUME_FROMGUID),
        ("object", field::RESUME_OBJECT),
        ("offset", field::RESUME_OFFSET),
        ("bytes", field::RESUME_BYTES),
        ("toguid", field::RESUME_TOGUID),
    ];
    for (name, key) in numbers {
        if let Some(v) = ds.field(key)? {
            list.set(name, NvValue::Uint64(v));
        }
    }
    if let Some(name) = ds.field_text(field::RESUME_TONAME)? {
        list.set("toname", NvValue::String(name));
    }
    let flags = [
        ("largeblockok", field::RESUME_LARGEBLOCK),
        ("embedok", field::RESUME_EMBEDOK),
        ("compressok", field::RESUME_COMPRESSOK),
        ("rawok", field::RESUME_RAWOK),
    ];
    for (name, key) in flags {
        if ds.field_words(key)?.is_some() {
            list.set(name, NvValue::Boolean);
        }
    }
    if let Some(snaps) = ds.redacted_against()? {
        list.set("redact_snaps", NvValue::Uint64Array(snaps));
    }
    if let Some(snaps) = ds.field_words(field::RESUME_REDACT_BOOKMARK_SNAPS)? {
        list.set("book_redact_snaps", NvValue::Uint64Array(snaps));
    }
    let packed = list.encode_xdr();
    let Some(small) = compress::compress(CompressKind::Gzip6, GZIP_LEVEL, &packed, packed.len() * 2 + 64) else {
        return Ok(None);
    };
    let [sum, ..] = Fletcher4::of(&small, Endian::NATIVE);
    let mut out = format!("{VERSION}-{sum:x}-{:x}-", packed.len());
    for byte in small {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    Ok(Some(out))
}
