//! Edon-R 512, as submitted to the SHA-3 competition with the later tweak, and ZFS's salted use of it.
//!
//! No crate offers it. The compression function is sixteen 64-bit words of message mixed into a double pipe of
//! sixteen words by eight quasigroup operations; each operation is two rotated sums-of-five followed by
//! exclusive-ors. The tables below say which words enter each sum.

/// Bytes hashed by one compression.
const BLOCK: usize = 128;
/// Bytes of a full digest.
pub const DIGEST: usize = 64;

type Words = [u64; 8];

/// Words summed and the rotation, for the left operand of the quasigroup.
const LEFT: [([usize; 5], u32); 8] = [
    ([0, 1, 2, 4, 7], 0),
    ([0, 1, 3, 4, 7], 5),
    ([0, 1, 4, 6, 7], 15),
    ([2, 3, 5, 6, 7], 22),
    ([1, 2, 3, 5, 6], 31),
    ([0, 2, 3, 4, 5], 40),
    ([0, 1, 5, 6, 7], 50),
    ([2, 3, 4, 5, 6], 59),
];

/// The same for the right operand.
const RIGHT: [([usize; 5], u32); 8] = [
    ([0, 1, 2, 5, 7], 0),
    ([0, 1, 3, 4, 6], 10),
    ([0, 1, 2, 3, 5], 19),
    ([2, 3, 4, 6, 7], 29),
    ([0, 1, 3, 4, 5], 36),
    ([2, 4, 5, 6, 7], 44),
    ([1, 2, 5, 6, 7], 48),
    ([0, 3, 4, 6, 7], 55),
];

/// Three left words and three right words that make each word of the product.
const MIX: [([usize; 3], [usize; 3]); 8] = [
    ([0, 1, 4], [0, 1, 5]),
    ([0, 4, 7], [2, 6, 7]),
    ([1, 6, 7], [0, 1, 3]),
    ([2, 3, 4], [0, 3, 4]),
    ([0, 1, 7], [1, 2, 5]),
    ([3, 5, 6], [3, 4, 6]),
    ([2, 5, 6], [2, 5, 7]),
    ([2, 3, 5], [4, 6, 7]),
];

const LEFT_CONSTANT: u64 = 0xaaaa_aaaa_aaaa_aaaa;

#[inline(always)]
fn sums(x: &Words, table: &[([usize; 5], u32); 8], constant: u64) -> Words {
    let mut out = [0u64; 8];
    let mut i = 0;
    while i < 8 {
        let ([a, b, c, d, e], rot) = table[i];
        let sum = x[a].wrapping_add(x[b]).wrapping_add(x[c]).wrapping_add(x[d]).wrapping_add(x[e]);
        out[i] = if i == 0 { sum.wrapping_add(constant) } else { sum.rotate_left(rot) };
        i += 1;
    }
    out
}

/// The quasigroup product of `x` and `y`.
#[inline(always)]
fn product(x: &Words, y: &Words) -> Words {
    let s = sums(x, &LEFT, LEFT_CONSTANT);
    let t = sums(y, &RIGHT, !LEFT_CONSTANT);
    let mut out = [0u64; 8];
    let mut i = 0;
    while i < 8 {
        let ([a, b, c], [d, e, f]) = MIX[i];
        out[i] = (s[a] ^ s[b] ^ s[c]).wrapping_add(t[d] ^ t[e] ^ t[f]);
        i += 1;
    }
    out
}

/// A running Edon-R 512 hash.
#[derive(Clone)]
pub struct Edonr {
    low: Words,
    high: Words,
    partial: [u8; BLOCK],
    used: usize,
    total: u64,
}

impl Default for Edonr {
    fn default() -> Self {
        let byte = |i: u64| 0x8081_8283_8485_8687u64.wrapping_add(i.wrapping_mul(0x0808_0808_0808_0808));
        Self {
            low: std::array::from_fn(|i| byte(i as u64)),
            high: std::array::from_fn(|i| byte(i as u64 + 8)),
            partial: [0; BLOCK],
            used: 0,
            total: 0,
        }
    }
}

impl Edonr {
    fn compress(&mut self, block: &[u8; BLOCK]) {
        let (words, _) = block.as_chunks::<8>();
        let first: Words = std::array::from_fn(|i| u64::from_le_bytes(words[i]));
        let second: Words = std::array::from_fn(|i| u64::from_le_bytes(words[i + 8]));
        let reversed = |w: &Words| -> Words { std::array::from_fn(|i| w[7 - i]) };

        let mut p = product(&reversed(&second), &first);
        let mut q = product(&p, &second);
        p = product(&self.high, &p);
        q = product(&p, &q);
        p = product(&p, &self.low);
        q = product(&q, &p);
        p = product(&reversed(&first), &p);
        q = product(&p, &q);
        for i in 0..8 {
            self.low[i] ^= second[i] ^ p[i];
            self.high[i] ^= first[i] ^ q[i];
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, mut data: &[u8]) {
        self.total = self.total.wrapping_add(data.len() as u64);
        if self.used > 0 {
            let take = data.len().min(BLOCK - self.used);
            self.partial[self.used..self.used + take].copy_from_slice(&data[..take]);
            self.used += take;
            data = &data[take..];
            if self.used < BLOCK {
                return;
            }
            let block = self.partial;
            self.compress(&block);
            self.used = 0;
        }
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        for block in blocks {
            self.compress(block);
        }
        self.partial[..rest.len()].copy_from_slice(rest);
        self.used = rest.len();
    }

    /// Pads and gives the digest.
    pub fn finish(mut self) -> [u8; DIGEST] {
        let bits = self.total.wrapping_mul(8);
        let mut block = [0u8; BLOCK];
        block[..self.used].copy_from_slice(&self.partial[..self.used]);
        block[self.used] = 0x80;
        if self.used >= BLOCK - 8 {
            self.compress(&block);
            block = [0u8; BLOCK];
        }
        block[BLOCK - 8..].copy_from_slice(&bits.to_le_bytes());
        self.compress(&block);
        let mut out = [0u8; DIGEST];
        for (o, w) in out.as_chunks_mut::<8>().0.iter_mut().zip(self.high) {
            *o = w.to_le_bytes();
        }
        out
    }

    /// Hashes `data` at once.
    pub fn digest(data: &[u8]) -> [u8; DIGEST] {
        let mut h = Self::default();
        h.update(data);
        h.finish()
    }

    /// A hash that has taken in ZFS's salt: one block made of H(salt) and H(H(salt)).
    pub fn salted(salt: &[u8; 32]) -> Self {
        let first = Self::digest(salt);
        let second = Self::digest(&first);
        let mut h = Self::default();
        h.update(&first);
        h.update(&second);
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(b: &[u8]) -> String {
        b.iter().map(|x| format!("{x:02x}")).collect()
    }

    #[test]
    fn known_answers() {
        assert_eq!(
            hex(&Edonr::digest(b"abc")),
            "1b14db155f1d406594b8cef70a4362ec6b5de6a5daf50ec999e987c19d3049e2\
             de5977bb05b1bb220050a1ea5b46a9f1740acafbf6b45032adc90c628372c22b"
        );
        let long = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
        assert_eq!(
            hex(&Edonr::digest(long)),
            "5351070dc51c3b2baca5a60d0252ccb4e4921a96fe5a69e76dad48fd21a0845a\
             d57f880b3e4a907bc503151842bb949e1cba7439a6409a34b8436cb46921583c"
        );
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        let data: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        for cut in [0, 1, 119, 120, 127, 128, 129, 255, 256, 999] {
            let mut h = Edonr::default();
            h.update(&data[..cut]);
            h.update(&data[cut..]);
            assert_eq!(h.finish(), Edonr::digest(&data), "cut at {cut}");
        }
    }
}
