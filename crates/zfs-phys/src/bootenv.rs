//! The boot environment block of a label (`vdev_boot_envblock_t`): 8 KiB, a version word in big-endian order, the
//! environment, and a checksum trailer.

use crate::error::Result;
use crate::label::ECK_SIZE;
use crate::nvlist::NvList;
use crate::read::{Endian, Reader};
use crate::write::Writer;

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

    /// Encodes a block of `size` bytes with a trailer of zeros that the caller seals. An error when it is too small.
    pub fn encode(&self, size: usize) -> Result<Vec<u8>> {
        let mut w = Writer::new(Endian::Big, "boot environment", size);
        match self {
            Self::Empty => w.u64(0),
            Self::Raw(text) => w.u64(0).bytes(text.as_bytes()),
            Self::List(list) => w.u64(1).bytes(&list.encode_xdr()),
        };
        w.pad_to(size.saturating_sub(ECK_SIZE))?.zeros(ECK_SIZE);
        Ok(w.finish())
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
        assert_eq!(BootEnv::decode(&b).unwrap(), BootEnv::List(list.clone()));
        for env in [BootEnv::Empty, BootEnv::Raw("a=b".into()), BootEnv::List(list)] {
            assert_eq!(BootEnv::decode(&env.encode(8192).unwrap()).unwrap(), env);
        }
        assert!(BootEnv::Raw("x".repeat(100)).encode(128).is_err());
    }
}
