//! Lanes: a register full of field elements, for each instruction set one implementation.
//!
//! Methods are inlined into functions that enable the instruction set; that is what makes the intrinsics single
//! instructions, and why no method may be called elsewhere.

#[cfg(target_arch = "x86_64")]
use super::gf;

/// A register of field elements.
///
/// # Safety
/// Methods may only run on a processor with the instructions of the implementation. `load` and `store` need `SIZE`
/// bytes behind the pointer; alignment does not matter.
pub(super) trait Lane: Copy {
    /// Bytes in the register.
    const SIZE: usize;
    /// A constant prepared for multiplying.
    type Factor: Copy;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn mul2(self) -> Self;
    unsafe fn mul4(self) -> Self;
    unsafe fn factor(by: u8) -> Self::Factor;
    unsafe fn mul(self, by: Self::Factor) -> Self;
}

macro_rules! integer_lane {
    ($int:ty, $ones:literal) => {
        impl Lane for $int {
            const SIZE: usize = size_of::<$int>();
            type Factor = u8;
            #[inline(always)]
            unsafe fn zero() -> Self {
                0
            }
            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: the caller promises the bytes.
                unsafe { from.cast::<$int>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: the caller promises the bytes.
                unsafe { to.cast::<$int>().write_unaligned(self) }
            }
            #[inline(always)]
            unsafe fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline(always)]
            unsafe fn mul2(self) -> Self {
                let low7 = self & ($ones * 0x7f);
                (low7 << 1) ^ ((self >> 7) & $ones).wrapping_mul(0x1d)
            }
            #[inline(always)]
            unsafe fn mul4(self) -> Self {
                // SAFETY: plain arithmetic.
                unsafe { self.mul2().mul2() }
            }
            #[inline(always)]
            unsafe fn factor(by: u8) -> u8 {
                by
            }
            #[inline(always)]
            unsafe fn mul(self, by: u8) -> Self {
                let (mut sum, mut term, mut bits) = (0, self, by);
                while bits != 0 {
                    if bits & 1 == 1 {
                        sum ^= term;
                    }
                    // SAFETY: plain arithmetic.
                    term = unsafe { term.mul2() };
                    bits >>= 1;
                }
                sum
            }
        }
    };
}
integer_lane!(u8, 1u8);
integer_lane!(u64, 0x0101_0101_0101_0101u64);

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Gfni};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lane, gf};
    use std::arch::x86_64::*;

    /// Products of each constant with the low and the high halves of bytes.
    static HALVES: [[[u8; 16]; 2]; 256] = {
        let (mut table, mut by) = ([[[0; 16]; 2]; 256], 0);
        while by < 256 {
            let mut i = 0;
            while i < 16 {
                table[by][0][i] = gf::mul(i as u8, by as u8);
                table[by][1][i] = gf::mul((i as u8) << 4, by as u8);
                i += 1;
            }
            by += 1;
        }
        table
    };

    /// 32 elements; multiplication by a constant looks up both halves of each byte.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256i);

    impl Lane for Avx2 {
        const SIZE: usize = 32;
        type Factor = (__m256i, __m256i);
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: AVX2 is there, by the trait's contract; so for all below.
            unsafe { Self(_mm256_setzero_si256()) }
        }
        #[inline(always)]
        unsafe fn load(from: *const u8) -> Self {
            // SAFETY: the caller promises the bytes.
            unsafe { Self(_mm256_loadu_si256(from.cast())) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut u8) {
            // SAFETY: the caller promises the bytes.
            unsafe { _mm256_storeu_si256(to.cast(), self.0) }
        }
        #[inline(always)]
        unsafe fn xor(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_xor_si256(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn mul2(self) -> Self {
            // SAFETY: see above.
            unsafe {
                let high = _mm256_cmpgt_epi8(_mm256_setzero_si256(), self.0);
                let carry = _mm256_and_si256(high, _mm256_set1_epi8(0x1d));
                Self(_mm256_xor_si256(_mm256_add_epi8(self.0, self.0), carry))
            }
        }
        #[inline(always)]
        unsafe fn mul4(self) -> Self {
            // SAFETY: see above.
            unsafe { self.mul2().mul2() }
        }
        #[inline(always)]
        unsafe fn factor(by: u8) -> Self::Factor {
            let [low, high] = &HALVES[usize::from(by)];
            // SAFETY: both arrays have 16 bytes.
            unsafe {
                let twice = |half: &[u8; 16]| _mm256_broadcastsi128_si256(_mm_loadu_si128(half.as_ptr().cast()));
                (twice(low), twice(high))
            }
        }
        #[inline(always)]
        unsafe fn mul(self, (low, high): Self::Factor) -> Self {
            // SAFETY: see above.
            unsafe {
                let nibble = _mm256_set1_epi8(0x0f);
                let l = _mm256_shuffle_epi8(low, _mm256_and_si256(self.0, nibble));
                let h = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi64(self.0, 4), nibble));
                Self(_mm256_xor_si256(l, h))
            }
        }
    }

    /// 64 elements; multiplication by a constant is one affine transformation (the multiply instruction itself works
    /// in another field).
    #[derive(Clone, Copy)]
    pub(in super::super) struct Gfni(__m512i);

    /// The bit matrix of multiplication by `by`: byte 7-i holds the input bits that output bit i sums.
    const fn matrix(by: u8) -> i64 {
        let (mut m, mut j) = (0u64, 0);
        while j < 8 {
            let product = gf::mul(1 << j, by);
            let mut i = 0;
            while i < 8 {
                if product >> i & 1 == 1 {
                    m |= 1 << ((7 - i) * 8 + j);
                }
                i += 1;
            }
            j += 1;
        }
        m as i64
    }

    /// The matrix of each constant.
    static MATRICES: [i64; 256] = {
        let (mut table, mut by) = ([0; 256], 0);
        while by < 256 {
            table[by] = matrix(by as u8);
            by += 1;
        }
        table
    };

    impl Lane for Gfni {
        const SIZE: usize = 64;
        type Factor = __m512i;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: AVX-512 and GFNI are there, by the trait's contract; so for all below.
            unsafe { Self(_mm512_setzero_si512()) }
        }
        #[inline(always)]
        unsafe fn load(from: *const u8) -> Self {
            // SAFETY: the caller promises the bytes.
            unsafe { Self(_mm512_loadu_si512(from.cast())) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut u8) {
            // SAFETY: the caller promises the bytes.
            unsafe { _mm512_storeu_si512(to.cast(), self.0) }
        }
        #[inline(always)]
        unsafe fn xor(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_xor_si512(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn mul2(self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, _mm512_set1_epi64(const { matrix(2) }))) }
        }
        #[inline(always)]
        unsafe fn mul4(self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, _mm512_set1_epi64(const { matrix(4) }))) }
        }
        #[inline(always)]
        unsafe fn factor(by: u8) -> __m512i {
            // SAFETY: see above.
            unsafe { _mm512_set1_epi64(MATRICES[usize::from(by)]) }
        }
        #[inline(always)]
        unsafe fn mul(self, by: __m512i) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, by)) }
        }
    }
}
