//! The pool checkpoint: an uberblock kept in the pool directory under `com.delphix:zpool_checkpoint`, as words.

use crate::blkptr::BlkPtr;
use crate::error::{DecodeError, Result};
use crate::read::Endian;
use crate::uberblock::{UBERBLOCK_MAGIC, Uberblock};

/// The words of an entry that keeps `u`.
pub fn uberblock_to_words(u: &Uberblock) -> Vec<u64> {
    let mut out = vec![UBERBLOCK_MAGIC, u.version, u.txg, u.guid_sum, u.timestamp];
    out.extend(u.rootbp.word);
    out.extend([u.software_version, u.mmp_magic, u.mmp_delay, u.mmp_config, u.checkpoint_txg, u.raidz_reflow_info]);
    out
}

/// Rebuilds the checkpointed uberblock from the words of its entry.
pub fn uberblock_from_words(words: &[u64]) -> Result<Uberblock> {
    let w = |i: usize| words.get(i).copied().unwrap_or(0);
    if words.len() < 5 + 16 || w(0) != UBERBLOCK_MAGIC {
        return Err(DecodeError::new("checkpoint", 0, format!("{} words, magic {:#x}", words.len(), w(0))));
    }
    let mut rootbp = BlkPtr::default();
    for (dst, src) in rootbp.word.iter_mut().zip(words.iter().skip(5)) {
        *dst = *src;
    }
    Ok(Uberblock {
        endian: Endian::NATIVE,
        version: w(1),
        txg: w(2),
        guid_sum: w(3),
        timestamp: w(4),
        rootbp,
        software_version: w(21),
        mmp_magic: w(22),
        mmp_delay: w(23),
        mmp_config: w(24),
        checkpoint_txg: w(25),
        raidz_reflow_info: w(26),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive() {
        let mut words: Vec<u64> = (0..27).collect();
        words[0] = UBERBLOCK_MAGIC;
        assert_eq!(uberblock_to_words(&uberblock_from_words(&words).unwrap()), words);
    }
}
