//! The intent log (include/sys/zil.h): blocks chained by pointers, each carrying records of operations.
//!
//! The header with the first pointer is part of the object set ([`crate::objset::ZilHeader`]). The checksum of a log
//! block's pointer is not a checksum of its contents: it names the log (two random words), the object set and the
//! block's sequence number, and the sum that verifies the contents is kept in the block.

use crate::blkptr::{BLKPTR_SIZE, BlkPtr};
use crate::error::{DecodeError, Result};
use crate::read::{Endian, Reader};

pub use encode::{LR_WRITE_SIZE, encode_block, next_sum};
pub use record::{Attrs, Create, Record, RecordBody, Rename, SetAttr, Whiteout, Write, tx_name};

mod encode;
mod record;

/// Bytes of the chain structure in a block: padding, next pointer, bytes used, and the embedded checksum.
pub const ZIL_CHAIN_SIZE: usize = 8 + BLKPTR_SIZE + 8 + 40;
/// Bytes of the header of every record.
pub const LR_SIZE: usize = 32;
/// Word of the checksum that holds the object set's number.
pub const ZIL_ZC_OBJSET: usize = 2;
/// Word of the checksum that holds the block's sequence number.
pub const ZIL_ZC_SEQ: usize = 3;
/// Flag in the type of a record: the request ignored case.
pub const TX_CI: u64 = 1 << 63;
/// Header flag: replay is needed.
pub const ZIL_REPLAY_NEEDED: u64 = 1;
/// Header flag: the claimed record sequence number is valid.
pub const ZIL_CLAIM_LR_SEQ_VALID: u64 = 2;

/// A block of the chain.
#[derive(Debug, Clone, Copy)]
pub struct ZilBlock<'a> {
    /// Pointer to the next block; a hole ends the chain.
    pub next: BlkPtr,
    /// Bytes used, the chain structure included when it is at the front.
    pub nused: u64,
    /// The records.
    pub records: &'a [u8],
    /// Byte order of the records.
    pub endian: Endian,
}

impl<'a> ZilBlock<'a> {
    /// Decodes a block's contents, whose pointer was `bp`. A next pointer that does not carry the following sequence
    /// number is an error: that is how the end of a log that was being written shows.
    pub fn decode(buf: &'a [u8], bp: &BlkPtr) -> Result<Self> {
        use crate::enums::ChecksumKind;
        let endian = bp.endian();
        let front = bp.checksum_kind() == Some(ChecksumKind::Zilog2);
        let mut r = Reader::new(buf, endian, "intent log block");
        if !front {
            r.seek(buf.len().saturating_sub(ZIL_CHAIN_SIZE))?;
        }
        r.skip(8)?;
        let next = BlkPtr::read(&mut r)?;
        let nused = r.u64()?;
        r.skip(40)?;
        let mut want = bp.checksum();
        if let Some(seq) = want.get_mut(ZIL_ZC_SEQ) {
            *seq = seq.wrapping_add(1);
        }
        if next.checksum() != want {
            return Err(r.err("the next block does not continue the chain"));
        }
        let used = usize::try_from(nused).unwrap_or(usize::MAX);
        let records = if front {
            buf.get(ZIL_CHAIN_SIZE..used)
        } else {
            buf.get(..used).filter(|_| used <= buf.len().saturating_sub(ZIL_CHAIN_SIZE))
        };
        let records = records.ok_or_else(|| r.err(format!("{nused} bytes used of {}", buf.len())))?;
        Ok(Self { next, nused, records, endian })
    }

    /// The records of the block in order. One that is too short or reaches past the end is an error and the last.
    pub fn iter(&self) -> impl Iterator<Item = Result<Record<'a>>> + 'a {
        let (mut rest, endian) = (self.records, self.endian);
        let total = rest.len();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let at = total - rest.len();
            match Record::split(rest, endian) {
                Ok((record, tail)) => {
                    rest = tail;
                    Some(Ok(record))
                }
                Err(e) => {
                    rest = &[];
                    Some(Err(DecodeError { offset: e.offset + at as u64, ..e }))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log_bp(seq: u64, zilog2: bool, endian: Endian) -> BlkPtr {
        let mut bp = BlkPtr::default();
        let kind: u64 = if zilog2 { 9 } else { 5 };
        let order = u64::from(endian == Endian::Little);
        bp.word[6] = (kind << 40) | (order << 63) | 7 | (7 << 16);
        bp.word[12..].copy_from_slice(&[11, 12, 51, seq]);
        bp
    }

    /// A log block of 4096 bytes with the given records.
    pub(super) fn block(zilog2: bool, e: Endian, records: &[u8]) -> Vec<u8> {
        let mut chain = vec![0u8; 8];
        chain.extend(log_bp(2, zilog2, e).encode(e));
        let used = if zilog2 { ZIL_CHAIN_SIZE + records.len() } else { records.len() };
        chain.extend(e.put_u64(used as u64));
        chain.extend([0; 40]);
        let mut b = if zilog2 { [&chain, records].concat() } else { records.to_vec() };
        b.resize(4096, 0);
        if !zilog2 {
            b[4096 - ZIL_CHAIN_SIZE..].copy_from_slice(&chain);
        }
        b
    }

    #[test]
    fn both_places_of_the_chain() {
        for e in [Endian::Little, Endian::Big] {
            for zilog2 in [false, true] {
                let record: Vec<u8> = [10u64, 56, 5, 1, 77, 100, 50].iter().flat_map(|w| e.put_u64(*w)).collect();
                let buf = block(zilog2, e, &record);
                let b = ZilBlock::decode(&buf, &log_bp(1, zilog2, e)).unwrap();
                let got: Vec<_> = b.iter().map(Result::unwrap).collect();
                assert_eq!(got.len(), 1);
                assert_eq!(got[0].body, RecordBody::Truncate { object: 77, offset: 100, length: 50 });
                assert!(ZilBlock::decode(&buf, &log_bp(2, zilog2, e)).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(words in proptest::collection::vec(prop_oneof![0u64..300, any::<u64>()], 0..120), zilog2: bool) {
            let e = Endian::Little;
            let bytes: Vec<u8> = words.iter().flat_map(|w| e.put_u64(*w)).collect();
            let _ = ZilBlock::decode(&bytes, &log_bp(1, zilog2, e));
            let buf = block(zilog2, e, &bytes);
            if let Ok(b) = ZilBlock::decode(&buf, &log_bp(1, zilog2, e)) {
                prop_assert!(b.iter().count() <= buf.len() / LR_SIZE + 1);
            }
        }

        #[test]
        fn no_record_panics(tx in 0u64..30, ci: bool, body in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..500)) {
            for e in [Endian::Little, Endian::Big] {
                let tx = tx | if ci { TX_CI } else { 0 };
                let mut b: Vec<u8> = [tx, (LR_SIZE + body.len()) as u64, 1, 2].iter().flat_map(|w| e.put_u64(*w)).collect();
                b.extend(&body);
                let (_, tail) = Record::split(&b, e).unwrap();
                prop_assert!(tail.is_empty());
            }
        }
    }
}
