//! AES-CCM (RFC 3610) with ZFS's 12-byte nonce, hence a 3-byte length, and 16-byte tag.
//!
//! CCM chains every block through the cipher once for the tag, which no parallelism helps, and encrypts a counter for
//! every block besides, which has plenty. Both run in one closure inside the cipher's backend, so that the processor
//! overlaps them and nothing is dispatched per block; the `ccm` crate, which dispatches each, is several times slower
//! and judges this one in the tests.

use super::cipher::{IV_LEN, MAC_LEN};
use aes::cipher::consts::U16;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, ParBlocks};

/// Longest message: the length field has three bytes.
pub(super) const MAX_LEN: usize = (1 << 24) - 1;
/// First byte of a counter block: the size of the length field, less one.
const COUNTER_FLAGS: u8 = 2;
/// First byte of the first tagged block: a tag of 16 bytes, and the size of the length field.
const TAG_FLAGS: u8 = (7 << 3) | COUNTER_FLAGS;
/// Set there too when there is additional data.
const AAD_FLAG: u8 = 0x40;
/// Lengths of additional data from here on take six bytes instead of two.
const LONG_AAD: usize = 0xff00;

/// Which way the bytes go: the tag is always over the plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Encrypt,
    Decrypt,
}

struct Message<'a> {
    direction: Direction,
    iv: &'a [u8; IV_LEN],
    aad: &'a [u8],
    src: &'a [u8],
    dst: &'a mut [u8],
    tag: &'a mut [u8; MAC_LEN],
}

impl BlockSizeUser for Message<'_> {
    type BlockSize = U16;
}

#[inline(always)]
fn xor(a: &mut [u8], b: &[u8]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
}

#[inline(always)]
fn framed(flags: u8, iv: &[u8; IV_LEN], number: u32) -> [u8; 16] {
    let mut block = [0; 16];
    block[0] = flags;
    block[1..13].copy_from_slice(iv);
    block[13..].copy_from_slice(&number.to_be_bytes()[1..]);
    block
}

impl BlockCipherEncClosure for Message<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let Self { direction, iv, aad, src, dst, tag } = self;
        let flags = if aad.is_empty() { TAG_FLAGS } else { TAG_FLAGS | AAD_FLAG };
        let mut mac: Block<Self> = framed(flags, iv, src.len() as u32).into();
        backend.encrypt_block_inplace(&mut mac);
        if !aad.is_empty() {
            let mut head = Vec::with_capacity(6);
            if aad.len() < LONG_AAD {
                head.extend_from_slice(&(aad.len() as u16).to_be_bytes());
            } else {
                head.extend_from_slice(&[0xff, 0xfe]);
                head.extend_from_slice(&(aad.len() as u32).to_be_bytes());
            }
            let (first, rest) = aad.split_at(aad.len().min(16 - head.len()));
            head.extend_from_slice(first);
            xor(&mut mac, &head);
            backend.encrypt_block_inplace(&mut mac);
            for piece in rest.chunks(16) {
                xor(&mut mac, piece);
                backend.encrypt_block_inplace(&mut mac);
            }
        }

        let width = 16 * B::ParBlocksSize::USIZE;
        let mut counter = 1;
        for (from, to) in src.chunks(width).zip(dst.chunks_mut(width)) {
            let mut stream = ParBlocks::<B>::default();
            for block in &mut stream {
                *block = framed(COUNTER_FLAGS, iv, counter).into();
                counter += 1;
            }
            backend.encrypt_par_blocks_inplace(&mut stream);
            for ((from, to), key) in from.chunks(16).zip(to.chunks_mut(16)).zip(&stream) {
                to.copy_from_slice(from);
                xor(to, key);
                xor(&mut mac, if direction == Direction::Encrypt { from } else { to });
                backend.encrypt_block_inplace(&mut mac);
            }
        }
        let mut last: Block<Self> = framed(COUNTER_FLAGS, iv, 0).into();
        backend.encrypt_block_inplace(&mut last);
        xor(&mut mac, &last);
        tag.copy_from_slice(&mac);
    }
}

/// Converts `src` into `dst` of the same length and gives the tag over the plain one of both. Nothing when the
/// lengths differ or are more than CCM holds.
pub(super) fn run<C: BlockCipherEncrypt<BlockSize = U16>>(
    cipher: &C,
    direction: Direction,
    iv: &[u8; IV_LEN],
    aad: &[u8],
    src: &[u8],
    dst: &mut [u8],
) -> Option<[u8; MAC_LEN]> {
    if src.len() != dst.len() || src.len() > MAX_LEN || u32::try_from(aad.len()).is_err() {
        return None;
    }
    let mut tag = [0; MAC_LEN];
    cipher.encrypt_with_backend(Message { direction, iv, aad, src, dst, tag: &mut tag });
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes::{Aes128, Aes192, Aes256};
    use ccm::aead::{AeadInOut, KeyInit, inout::InOutBuf};
    use ccm::consts::{U12, U16};
    use proptest::prelude::*;

    fn compare<C: BlockCipherEncrypt<BlockSize = U16> + KeyInit>(key: &[u8], iv: [u8; 12], aad: &[u8], plain: &[u8]) {
        let judge = ccm::Ccm::<C, U16, U12>::new_from_slice(key).unwrap();
        let mut want = vec![0; plain.len()];
        let buf = InOutBuf::new(plain, &mut want).unwrap();
        let want_tag = judge.encrypt_inout_detached(&iv.into(), aad, buf).unwrap();
        let cipher = C::new_from_slice(key).unwrap();
        let mut got = vec![0; plain.len()];
        let tag = run(&cipher, Direction::Encrypt, &iv, aad, plain, &mut got).unwrap();
        assert_eq!((&got, &tag[..]), (&want, &want_tag[..]));
        let mut back = vec![0; plain.len()];
        assert_eq!(run(&cipher, Direction::Decrypt, &iv, aad, &got, &mut back), Some(tag));
        assert_eq!(back, plain);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_ccm_crate(
            key: [u8; 32],
            iv: [u8; 12],
            aad in proptest::collection::vec(any::<u8>(), 0..100),
            plain in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            compare::<Aes128>(&key[..16], iv, &aad, &plain);
            compare::<Aes192>(&key[..24], iv, &aad, &plain);
            compare::<Aes256>(&key, iv, &aad, &plain);
        }
    }

    #[test]
    fn long_additional_data_and_limits() {
        for len in [LONG_AAD - 1, LONG_AAD, 70_000] {
            compare::<Aes256>(&[1; 32], [2; 12], &vec![3; len], &[4; 40]);
        }
        let cipher = Aes128::new_from_slice(&[1; 16]).unwrap();
        let long = vec![0; MAX_LEN + 1];
        let mut out = vec![0; MAX_LEN + 1];
        assert_eq!(run(&cipher, Direction::Encrypt, &[0; 12], &[], &long, &mut out), None);
        assert!(run(&cipher, Direction::Encrypt, &[0; 12], &[], &long[1..], &mut out[1..]).is_some());
        assert_eq!(run(&cipher, Direction::Decrypt, &[0; 12], &[], &long[..9], &mut out[..8]), None);
    }
}
