//! Skein-512, with ZFS's 256-bit output and key (MAC) mode.
//!
//! No maintained crate offers the keyed mode. Skein chains the tweakable block cipher Threefish-512: 72 rounds
//! over eight words, a subkey added every four rounds, and a tweak that holds position and purpose of each block.

/// Bytes of a block and of the state.
const BLOCK: usize = 64;
/// XORed with all key words to make the ninth.
const PARITY: u64 = 0x1bd1_1bda_a9fc_1a22;
/// Schema identifier "SHA3" and version 1, first word of the configuration block.
const SCHEMA: u64 = 0x0000_0001_3341_4853;

const ROTATE: [[u32; 4]; 8] = [
    [46, 36, 19, 37],
    [33, 27, 14, 42],
    [17, 49, 36, 39],
    [44, 9, 54, 56],
    [39, 30, 34, 24],
    [13, 50, 10, 17],
    [25, 29, 39, 43],
    [8, 35, 56, 22],
];

/// Purpose of a block, as numbered in its tweak.
#[derive(Clone, Copy)]
enum Purpose {
    Key = 0,
    Config = 4,
    Message = 48,
    Output = 63,
}

const FIRST: u64 = 1 << 62;
const FINAL: u64 = 1 << 63;

/// Adds subkey `S` to the state.
#[inline(always)]
fn inject<const S: usize>(x: &mut [u64; 8], ks: &[u64; 9], ts: &[u64; 3]) {
    for (i, w) in x.iter_mut().enumerate() {
        *w = w.wrapping_add(ks[(S + i) % 9]);
    }
    x[5] = x[5].wrapping_add(ts[S % 3]);
    x[6] = x[6].wrapping_add(ts[(S + 1) % 3]);
    x[7] = x[7].wrapping_add(S as u64);
}

/// Mixes four pairs of words; the cipher's permutation of words is in the choice of pairs.
#[inline(always)]
fn mix(x: &mut [u64; 8], pairs: [(usize, usize); 4], rot: [u32; 4]) {
    for ((a, b), r) in pairs.into_iter().zip(rot) {
        x[a] = x[a].wrapping_add(x[b]);
        x[b] = x[b].rotate_left(r) ^ x[a];
    }
}

/// The pairs of four successive rounds, after which the words are back in place.
const PAIRS: [[(usize, usize); 4]; 4] = [
    [(0, 1), (2, 3), (4, 5), (6, 7)],
    [(2, 1), (4, 7), (6, 5), (0, 3)],
    [(4, 1), (6, 3), (0, 5), (2, 7)],
    [(6, 1), (0, 7), (2, 5), (4, 3)],
];

/// Four rounds with the rotations from row `R` on.
#[inline(always)]
fn four_rounds<const R: usize>(x: &mut [u64; 8]) {
    mix(x, PAIRS[0], ROTATE[R]);
    mix(x, PAIRS[1], ROTATE[R + 1]);
    mix(x, PAIRS[2], ROTATE[R + 2]);
    mix(x, PAIRS[3], ROTATE[R + 3]);
}

/// Encrypts `words` under `key` and `tweak`.
#[inline]
fn threefish(key: &[u64; 8], tweak: [u64; 2], words: &[u64; 8]) -> [u64; 8] {
    let mut ks = [0u64; 9];
    ks[..8].copy_from_slice(key);
    ks[8] = key.iter().fold(PARITY, |a, k| a ^ k);
    let ts = [tweak[0], tweak[1], tweak[0] ^ tweak[1]];
    let mut x = *words;
    // Subkey numbers are constants so that the compiler keeps everything in registers.
    macro_rules! eight_rounds {
        ($($s:literal)*) => {$(
            inject::<{ 2 * $s }>(&mut x, &ks, &ts);
            four_rounds::<0>(&mut x);
            inject::<{ 2 * $s + 1 }>(&mut x, &ks, &ts);
            four_rounds::<4>(&mut x);
        )*};
    }
    eight_rounds!(0 1 2 3 4 5 6 7 8);
    inject::<18>(&mut x, &ks, &ts);
    x
}

fn load(block: &[u8; BLOCK]) -> [u64; 8] {
    let (words, _) = block.as_chunks::<8>();
    std::array::from_fn(|i| u64::from_le_bytes(words[i]))
}

/// Hashes all of `data` for one purpose, from chaining value `state`.
fn chain(mut state: [u64; 8], purpose: Purpose, data: &[u8]) -> [u64; 8] {
    let mut flags = ((purpose as u64) << 56) | FIRST;
    // The last block, full or not, carries the final flag; an empty message is one block of zeros.
    let full = data.len().saturating_sub(1) / BLOCK;
    let (blocks, _) = data.as_chunks::<BLOCK>();
    let mut position = 0u64;
    for block in &blocks[..full] {
        position += BLOCK as u64;
        let words = load(block);
        let out = threefish(&state, [position, flags], &words);
        state = std::array::from_fn(|i| out[i] ^ words[i]);
        flags &= !FIRST;
    }
    let rest = &data[full * BLOCK..];
    let mut last = [0u8; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let words = load(&last);
    let out = threefish(&state, [position + rest.len() as u64, flags | FINAL], &words);
    std::array::from_fn(|i| out[i] ^ words[i])
}

/// A Skein-512 hash function made ready: key and output size are already mixed in.
#[derive(Clone)]
pub struct Skein {
    start: [u64; 8],
}

impl Skein {
    /// Output of `bits` (at most 512), keyed when `key` is not empty.
    pub fn new(bits: u64, key: &[u8]) -> Self {
        let keyed = if key.is_empty() { [0; 8] } else { chain([0; 8], Purpose::Key, key) };
        let mut config = [0u8; 32];
        config[..8].copy_from_slice(&SCHEMA.to_le_bytes());
        config[8..16].copy_from_slice(&bits.to_le_bytes());
        Self { start: chain(keyed, Purpose::Config, &config) }
    }

    /// Hash of `data`; the caller takes as many leading bytes as it asked bits for.
    pub fn digest(&self, data: &[u8]) -> [u8; BLOCK] {
        let state = chain(self.start, Purpose::Message, data);
        let out = chain(state, Purpose::Output, &0u64.to_le_bytes());
        let mut bytes = [0u8; BLOCK];
        for (b, w) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(out) {
            *b = w.to_le_bytes();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix C of the Skein 1.3 paper.
    #[test]
    fn known_answers() {
        let hex = |b: &[u8]| b.iter().map(|x| format!("{x:02x}")).collect::<String>();
        let h = Skein::new(512, &[]);
        let down = |n: usize| (0..n).map(|i| 255 - i as u8).collect::<Vec<u8>>();
        assert_eq!(
            hex(&h.digest(&down(1))),
            "71b7bce6fe6452227b9ced6014249e5bf9a9754c3ad618ccc4e0aae16b316cc8\
             ca698d864307ed3e80b6ef1570812ac5272dc409b5a012df2a579102f340617a"
        );
        assert_eq!(
            hex(&h.digest(&down(64))),
            "45863ba3be0c4dfc27e75d358496f4ac9a736a505d9313b42b2f5eada79fc17f\
             63861e947afb1d056aa199575ad3f8c9a3cc1780b5e5fa4cae050e989876625b"
        );
        assert_eq!(
            hex(&h.digest(&down(128))),
            "91cca510c263c4ddd010530a33073309628631f308747e1bcbaa90e451cab92e\
             5188087af4188773a332303e6667a7a210856f742139000071f48e8ba2a5adb7"
        );
    }
}
