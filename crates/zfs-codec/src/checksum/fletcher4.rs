//! Fletcher-4: four sums of sums over 32-bit words, 64 bits wide; the default checksum, so the hottest loop of all.
//!
//! Vector versions deal words to `n` lanes, each lane keeping its own four sums, and fold the lanes at the end.
//! Folding is exact arithmetic modulo 2^64: with `j` the distance of a lane's word from the lane's end and `l` the
//! lane, the word stands `n*j - l` from the end of the data, and the weights 1, m, m(m+1)/2, m(m+1)(m+2)/6 of `m`
//! are integer combinations of the same weights of `j`. The same weights join two pieces summed apart
//! ([`Fletcher4::append`]), which lets callers sum pieces on several cores.
//!
//! Rejected: leaving it to the compiler's vectorizer, which is slower than the scalar loop.

use zfs_phys::Endian;

/// Running fletcher4 state over a known number of words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fletcher4 {
    sums: [u64; 4],
    /// 32-bit words summed so far.
    count: u64,
}

/// `n(n+1)/2` modulo 2^64.
fn triangular(n: u64) -> u64 {
    let n = u128::from(n);
    ((n * (n + 1)) / 2) as u64
}

/// `n(n+1)(n+2)/6` modulo 2^64, for `n` below 2^42 (16 TiB of data).
fn tetrahedral(n: u64) -> u64 {
    let n = u128::from(n);
    ((n * (n + 1) * (n + 2)) / 6) as u64
}

impl Fletcher4 {
    /// The checksum of `data`, whose words are in byte order `endian`.
    pub fn of(data: &[u8], endian: Endian) -> [u64; 4] {
        sum(data, endian)
    }

    /// Adds `data`. Bytes after the last full 4 are ignored, so every piece but the last must be a multiple of 4.
    pub fn update(&mut self, data: &[u8], endian: Endian) {
        let piece = Self { sums: sum(data, endian), count: (data.len() / 4) as u64 };
        *self = self.append(&piece);
    }

    /// The state of this data followed by the data of `next`.
    #[must_use]
    pub fn append(&self, next: &Self) -> Self {
        let [a, b, c, d] = self.sums;
        let n = next.count;
        let (tri, tet) = (triangular(n), tetrahedral(n));
        let add = u64::wrapping_add;
        let mul = u64::wrapping_mul;
        let sums = [
            add(a, next.sums[0]),
            add(add(b, mul(n, a)), next.sums[1]),
            add(add(c, mul(n, b)), add(mul(tri, a), next.sums[2])),
            add(add(add(d, mul(n, c)), mul(tri, b)), add(mul(tet, a), next.sums[3])),
        ];
        Self { sums, count: self.count.wrapping_add(n) }
    }

    /// The checksum words.
    pub fn words(&self) -> [u64; 4] {
        self.sums
    }
}

/// Sums with the fastest routine this CPU has.
fn sum(data: &[u8], endian: Endian) -> [u64; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        // Below a few hundred bytes folding the lanes costs more than the lanes save.
        if data.len() >= 512 {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                // SAFETY: the CPU has the features the function was compiled for.
                return unsafe { x86::avx512(data, endian) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: as above.
                return unsafe { x86::avx2(data, endian) };
            }
        }
    }
    scalar(data, endian)
}

/// The plain loop, also the judge of the others.
fn scalar(data: &[u8], endian: Endian) -> [u64; 4] {
    match endian {
        Endian::Little => scalar_by([0; 4], data, u32::from_le_bytes),
        Endian::Big => scalar_by([0; 4], data, u32::from_be_bytes),
    }
}

#[inline(always)]
fn scalar_by(start: [u64; 4], data: &[u8], decode: impl Fn([u8; 4]) -> u32) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = start;
    for word in data.as_chunks::<4>().0 {
        a = a.wrapping_add(u64::from(decode(*word)));
        b = b.wrapping_add(a);
        c = c.wrapping_add(b);
        d = d.wrapping_add(c);
    }
    [a, b, c, d]
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! AVX2 and AVX-512 lanes. Each routine sums whole strides and leaves the tail to the scalar loop.

    use super::{Endian, scalar_by};
    use std::arch::x86_64::*;

    /// Folds `N` lanes: `lanes[k][l]` is the k-th sum of lane `l`.
    fn fold<const N: usize>(lanes: &[[u64; N]; 4]) -> [u64; 4] {
        let n = N as i64;
        let mut out = [0i64; 4];
        let per_lane: [[u64; 4]; N] = std::array::from_fn(|l| std::array::from_fn(|k| lanes[k][l]));
        for (l, sums) in per_lane.iter().enumerate() {
            let li = l as i64;
            let [a, b, c, d] = sums.map(|x| x as i64);
            // Weights of the triangular and tetrahedral numbers of n*j - l, in those of j.
            let tri_1 = n * (1 - n) / 2 - n * li;
            let tri_0 = li * (li - 1) / 2;
            let tet_2 = n * n * (1 - n - li);
            let tet_1 = (n * n * n + 3 * n * n * li - 3 * n * n + 3 * n * li * li - 6 * n * li + 2 * n) / 6;
            let tet_0 = -(li * (li - 1) * (li - 2)) / 6;
            let sum = |terms: &[(i64, i64)]| terms.iter().fold(0i64, |s, (w, x)| s.wrapping_add(w.wrapping_mul(*x)));
            out[0] = out[0].wrapping_add(a);
            out[1] = out[1].wrapping_add(sum(&[(n, b), (-li, a)]));
            out[2] = out[2].wrapping_add(sum(&[(n * n, c), (tri_1, b), (tri_0, a)]));
            out[3] = out[3].wrapping_add(sum(&[(n * n * n, d), (tet_2, c), (tet_1, b), (tet_0, a)]));
        }
        out.map(|x| x as u64)
    }

    fn finish(sums: [u64; 4], tail: &[u8], endian: Endian) -> [u64; 4] {
        match endian {
            Endian::Little => scalar_by(sums, tail, u32::from_le_bytes),
            Endian::Big => scalar_by(sums, tail, u32::from_be_bytes),
        }
    }

    /// Eight lanes in two sets of 256-bit registers.
    #[target_feature(enable = "avx2")]
    pub fn avx2(data: &[u8], endian: Endian) -> [u64; 4] {
        let (strides, tail) = data.as_chunks::<32>();
        let lanes = match endian {
            Endian::Little => avx2_lanes::<false>(strides),
            Endian::Big => avx2_lanes::<true>(strides),
        };
        finish(fold(&lanes), tail, endian)
    }

    #[target_feature(enable = "avx2")]
    fn avx2_lanes<const SWAP: bool>(strides: &[[u8; 32]]) -> [[u64; 8]; 4] {
        let zero = _mm256_setzero_si256();
        // Reverses the low four bytes of each 64-bit lane and clears the rest.
        let swap = _mm256_set_epi64x(
            0x8080_8080_0809_0a0bu64 as i64,
            0x8080_8080_0001_0203u64 as i64,
            0x8080_8080_0809_0a0bu64 as i64,
            0x8080_8080_0001_0203u64 as i64,
        );
        let mut acc = [[zero; 4]; 2];
        for stride in strides {
            for (half, [a, b, c, d]) in acc.iter_mut().enumerate() {
                // SAFETY: the stride holds 32 bytes; this reads 16 at offset 0 or 16, alignment not needed.
                let raw = unsafe { _mm_loadu_si128(stride.as_ptr().add(16 * half).cast()) };
                let mut x = _mm256_cvtepu32_epi64(raw);
                if SWAP {
                    x = _mm256_shuffle_epi8(x, swap);
                }
                *a = _mm256_add_epi64(*a, x);
                *b = _mm256_add_epi64(*b, *a);
                *c = _mm256_add_epi64(*c, *b);
                *d = _mm256_add_epi64(*d, *c);
            }
        }
        let mut lanes = [[0u64; 8]; 4];
        for (half, sums) in acc.into_iter().enumerate() {
            for (lane, s) in lanes.iter_mut().zip(sums) {
                // SAFETY: four u64 fit at index 0 or 4 of eight.
                unsafe { _mm256_storeu_si256(lane.as_mut_ptr().add(4 * half).cast(), s) };
            }
        }
        lanes
    }

    /// Sixteen lanes in two sets of 512-bit registers.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn avx512(data: &[u8], endian: Endian) -> [u64; 4] {
        let (strides, tail) = data.as_chunks::<64>();
        let lanes = match endian {
            Endian::Little => avx512_lanes::<false>(strides),
            Endian::Big => avx512_lanes::<true>(strides),
        };
        finish(fold(&lanes), tail, endian)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn avx512_lanes<const SWAP: bool>(strides: &[[u8; 64]]) -> [[u64; 16]; 4] {
        let zero = _mm512_setzero_si512();
        let (low, high) = (0x8080_8080_0001_0203u64 as i64, 0x8080_8080_0809_0a0bu64 as i64);
        let swap = _mm512_set_epi64(high, low, high, low, high, low, high, low);
        let mut acc = [[zero; 4]; 2];
        for stride in strides {
            for (half, [a, b, c, d]) in acc.iter_mut().enumerate() {
                // SAFETY: the stride holds 64 bytes; this reads 32 at offset 0 or 32, alignment not needed.
                let raw = unsafe { _mm256_loadu_si256(stride.as_ptr().add(32 * half).cast()) };
                let mut x = _mm512_cvtepu32_epi64(raw);
                if SWAP {
                    x = _mm512_shuffle_epi8(x, swap);
                }
                *a = _mm512_add_epi64(*a, x);
                *b = _mm512_add_epi64(*b, *a);
                *c = _mm512_add_epi64(*c, *b);
                *d = _mm512_add_epi64(*d, *c);
            }
        }
        let mut lanes = [[0u64; 16]; 4];
        for (half, sums) in acc.into_iter().enumerate() {
            for (lane, s) in lanes.iter_mut().zip(sums) {
                // SAFETY: eight u64 fit at index 0 or 8 of sixteen.
                unsafe { _mm512_storeu_si512(lane.as_mut_ptr().add(8 * half).cast(), s) };
            }
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_by_hand() {
        let data: Vec<u8> = [1u32, 2, 3].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(Fletcher4::of(&data, Endian::Little), [6, 10, 15, 21]);
        assert_eq!(Fletcher4::of(&[0, 0, 0, 1, 9], Endian::Big), [1, 1, 1, 1]);
    }

    fn every_routine(data: &[u8], endian: Endian) -> Vec<[u64; 4]> {
        let mut all = vec![sum(data, endian)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                // SAFETY: just detected.
                all.push(unsafe { x86::avx2(data, endian) });
            }
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                // SAFETY: just detected.
                all.push(unsafe { x86::avx512(data, endian) });
            }
        }
        all
    }

    proptest! {
        #[test]
        fn vectors_equal_scalar(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
            for endian in [Endian::Little, Endian::Big] {
                let want = scalar(&data, endian);
                for got in every_routine(&data, endian) {
                    prop_assert_eq!(got, want);
                }
            }
        }

        #[test]
        fn pieces_join(words in proptest::collection::vec(any::<u32>(), 0..800), cuts in any::<[u16; 2]>()) {
            let data: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let mut at = cuts.map(|c| usize::from(c) % (words.len() + 1) * 4);
            at.sort_unstable();
            let mut f = Fletcher4::default();
            for piece in [&data[..at[0]], &data[at[0]..at[1]], &data[at[1]..]] {
                f.update(piece, Endian::Little);
            }
            prop_assert_eq!(f.words(), scalar(&data, Endian::Little));
        }
    }

    /// 16 MiB of ones, the largest block: sums pass 2^64 and must wrap alike everywhere.
    #[test]
    fn largest_block_wraps_alike() {
        let data = vec![0xff; 16 << 20];
        for endian in [Endian::Little, Endian::Big] {
            let want = scalar(&data, endian);
            for got in every_routine(&data, endian) {
                assert_eq!(got, want);
            }
        }
    }
}
