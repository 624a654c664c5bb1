//! The boot environment block of a label (`vdev_boot_envblock_t`): 8 KiB, a version word in big-endian order, the
//! environment, and a checksum trailer.

use crate::error::Result;
use crate::label::ECK_SIZE;
use crate::nvlist::NvList;
use crate::read::{Endian, Reader};

/// What a boot environment block holds.
#[derive(Debug, Clone, PartialEq)]
pub enum BootEnv {
    /// Nothing, or a version that is not known.
    Empty,
    /// Version 0: the text of GRUB's environment.
    Raw(String),
    /// Version 1: a list.
    List(NvList),
}

impl BootEnv {
    /// Decodes a block, trailer included; the caller verifies the checksum.
    pub fn decode(block: &[u8]) -> Result<Self> {
        let body = block.get(..block.len().saturating_sub(ECK_SIZE)).unwrap_or(block);
        let mut r = Reader::new(body, Endian::Big, "boot environment");
        let version = r.u64()?;
        let rest = r.bytes(r.remaining())?;
        Ok(match version {
            0 => {
                let text = rest.split(|b| *b == 0).next().unwrap_or_default();
                if text.is_empty() { Self::Empty } else { Self::Raw(String::from_utf8_lossy(text).into_owned()) }
            }
            1 => Self::List(NvList::decode(rest)?),
            _ => Self::Empty,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvlist::NvValue;

    #[test]
    fn three_forms() {
        let mut b = vec![0u8; 8192];
        assert_eq!(BootEnv::decode(&b).unwrap(), BootEnv::Empty);
        b[8..13].copy_from_slice(b"a=b\nc");
        assert_eq!(BootEnv::decode(&b).unwrap(), BootEnv::Raw("a=b\nc".into()));
        let mut list = NvList::new();
        list.set("grub:envmap", NvValue::String("x".into()));
        let packed = list.encode_xdr();
        b[7] = 1;
        b[8..8 + packed.len()].copy_from_slice(&packed);
        assert_eq!(BootEnv::decode(&b).unwrap(), BootEnv::List(list));
    }
}
