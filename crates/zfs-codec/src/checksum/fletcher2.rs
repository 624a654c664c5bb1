//! Fletcher-2: two interleaved pairs of sums over 64-bit words.

use zfs_phys::Endian;

/// Running fletcher2 state; words are `a0, a1, b0, b1` as stored in a block pointer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fletcher2 {
    a: [u64; 2],
    b: [u64; 2],
}

impl Fletcher2 {
    /// Adds `data`, whose words are in byte order `endian`. Bytes after the last full 16 are ignored, so every
    /// piece but the last must be a multiple of 16.
    pub fn update(&mut self, data: &[u8], endian: Endian) {
        let Self { mut a, mut b } = *self;
        let (pairs, _) = data.as_chunks::<16>();
        for pair in pairs {
            let (words, _) = pair.as_chunks::<8>();
            for i in 0..2 {
                a[i] = a[i].wrapping_add(endian.u64(words[i]));
                b[i] = b[i].wrapping_add(a[i]);
            }
        }
        *self = Self { a, b };
    }

    /// The checksum words.
    pub fn words(&self) -> [u64; 4] {
        [self.a[0], self.a[1], self.b[0], self.b[1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_hand() {
        let mut data = Vec::new();
        for w in [1u64, 10, 2, 20, 3, 30] {
            data.extend_from_slice(&w.to_be_bytes());
        }
        let mut f = Fletcher2::default();
        f.update(&data[..16], Endian::Big);
        f.update(&data[16..], Endian::Big);
        assert_eq!(f.words(), [6, 60, 1 + 3 + 6, 10 + 30 + 60]);
    }
}
