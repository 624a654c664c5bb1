//! RAID-Z parity: generation of P, Q, R and reconstruction of up to three columns (module/zfs/vdev_raidz.c).
//!
//! Arithmetic is in GF(2^8) with polynomial 0x11d. Over n data columns, in order, parity e (0 = P, 1 = Q, 2 = R) is the
//! sum of `(2^e)^(n-1-i) * D[i]`, that is, Horner's rule with the factors 1, 2 and 4. A column that is shorter than
//! the parity counts as filled up with zeros.
//!
//! Reconstruction is one algorithm for every set of lost columns and every choice of parities: form the syndromes
//! (parity plus what the surviving columns contribute, by the same Horner loop), then multiply them by the inverse of
//! the k×k matrix of the lost columns' factors. OpenZFS has a hand-written case for each pair and triple; one loop over
//! vector lanes is as fast, because the syndromes of a tile stay in the first-level cache between the two steps.
//!
//! The loops are generic over a [`Lane`]; the widest one that the processor has is chosen at run time.

mod gf;
mod lane;

use lane::Lane;

/// Most parities.
pub const MAX_PARITY: usize = 3;
/// Bytes handled between the two steps of a reconstruction.
const TILE: usize = 4096;

/// Fills the parity columns (1 to 3: P, Q, R) from the data columns.
///
/// # Panics
/// If there are no or more than three parity columns, or a data column is longer than a parity column.
pub fn generate(parity: &mut [&mut [u8]], data: &[&[u8]]) {
    generate_with(Kernel::best(), parity, data);
}

/// Rebuilds lost data columns. `parity` gives the parities to use as (index, bytes), exactly as many as columns are
/// lost; `data` has `None` for each lost column, and `out` a buffer for each of those, in order. Answers whether the
/// request made sense: as many parities as lost columns, distinct and below three, lengths that fit.
pub fn reconstruct(parity: &[(usize, &[u8])], data: &[Option<&[u8]>], out: &mut [&mut [u8]]) -> bool {
    reconstruct_with(Kernel::best(), parity, data, out)
}

/// The lane implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Gfni,
}

impl Kernel {
    fn available() -> Vec<Kernel> {
        #[allow(unused_mut, reason = "only x86-64 adds to it")]
        let mut all = vec![Kernel::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                all.push(Kernel::Avx2);
            }
            if is_x86_feature_detected!("gfni")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
            {
                all.push(Kernel::Gfni);
            }
        }
        all
    }

    fn best() -> Kernel {
        static BEST: std::sync::OnceLock<Kernel> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Kernel::available().pop().unwrap_or(Kernel::Scalar))
    }
}

fn generate_with(kernel: Kernel, parity: &mut [&mut [u8]], data: &[&[u8]]) {
    assert!((1..=MAX_PARITY).contains(&parity.len()), "one to three parities");
    let len = parity.iter().map(|p| p.len()).min().unwrap_or(0);
    assert!(data.iter().all(|d| d.len() <= len), "a data column is longer than its parity");
    let columns: Vec<Option<&[u8]>> = data.iter().map(|d| Some(*d)).collect();
    let outs: Vec<*mut u8> = parity.iter_mut().map(|p| p.as_mut_ptr()).collect();
    for (from, to) in segments(len, &columns) {
        let live: Vec<*const u8> = columns.iter().map(|c| column_at(*c, from)).collect();
        let at: Vec<*mut u8> = outs.iter().map(|p| p.wrapping_add(from)).collect();
        // SAFETY: every live column has at least `to` bytes, every parity `len` >= `to`, and the parities are
        // exclusively borrowed and distinct from the data.
        unsafe { horner(kernel, &live, &at, to - from) };
    }
}

/// Start of a column's bytes from `from`, or null when it has none there.
fn column_at(column: Option<&[u8]>, from: usize) -> *const u8 {
    match column {
        Some(c) if c.len() > from => c.as_ptr().wrapping_add(from),
        _ => std::ptr::null(),
    }
}

/// Ranges of the parity within which the set of columns that have bytes does not change.
fn segments(len: usize, columns: &[Option<&[u8]>]) -> Vec<(usize, usize)> {
    let mut cuts: Vec<usize> = columns.iter().flatten().map(|c| c.len().min(len)).collect();
    cuts.push(len);
    cuts.sort_unstable();
    cuts.dedup();
    let mut from = 0;
    let mut out = Vec::with_capacity(cuts.len());
    for to in cuts {
        if to > from {
            out.push((from, to));
            from = to;
        }
    }
    out
}

fn reconstruct_with(kernel: Kernel, parity: &[(usize, &[u8])], data: &[Option<&[u8]>], out: &mut [&mut [u8]]) -> bool {
    let lost: Vec<usize> = (0..data.len()).filter(|i| data[*i].is_none()).collect();
    let k = lost.len();
    if k == 0 || k > MAX_PARITY || k != parity.len() || k != out.len() || data.len() > 255 {
        return false;
    }
    let rows: Vec<usize> = parity.iter().map(|p| p.0).collect();
    let len = parity.iter().map(|p| p.1.len()).min().unwrap_or(0);
    let fits = out.iter().all(|o| o.len() <= len) && data.iter().flatten().all(|d| d.len() <= len);
    let Some(inverse) = gf::inverse_for(&rows, &lost, data.len()).filter(|_| fits) else {
        return false;
    };
    // All three Horner sums are formed where R is needed; the ones not asked for are ignored.
    let sums = rows.iter().max().map_or(1, |r| r + 1);
    let mut tile = [[0u8; TILE]; MAX_PARITY];
    for (start, stop) in segments(len, data) {
        let mut from = start;
        while from < stop {
            let n = TILE.min(stop - from);
            let live: Vec<*const u8> = data.iter().map(|c| column_at(*c, from)).collect();
            let at: Vec<*mut u8> = tile.iter_mut().take(sums).map(|t| t.as_mut_ptr()).collect();
            // SAFETY: every live column has `from + n` bytes (no column ends inside a segment) and the tile TILE >= n.
            unsafe { horner(kernel, &live, &at, n) };
            for (row, bytes) in parity {
                let syndrome = &mut tile[*row][..n];
                // SAFETY: both are at least `n` bytes and distinct.
                unsafe { xor_into(kernel, syndrome.as_mut_ptr(), bytes[from..].as_ptr(), n) };
            }
            for (j, o) in out.iter_mut().enumerate() {
                let have = o.len().saturating_sub(from).min(n);
                let syndromes: Vec<*const u8> = rows.iter().map(|r| tile[*r].as_ptr()).collect();
                if have > 0 {
                    // SAFETY: `have` bytes lie behind each pointer.
                    unsafe { combine(kernel, &syndromes, &inverse[j][..k], o[from..].as_mut_ptr(), have) };
                }
            }
            from += n;
        }
    }
    true
}

macro_rules! dispatch {
    ($(#[$doc:meta])* $name:ident = $body:ident ( $($arg:ident : $ty:ty),* )) => {
        $(#[$doc])*
        unsafe fn $name(kernel: Kernel, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                unsafe fn avx2($($arg: $ty),*) {
                    // SAFETY: the caller's promise, passed on.
                    unsafe { $body::<lane::Avx2>($($arg),*) }
                }
                #[target_feature(enable = "gfni,avx512f,avx512bw")]
                unsafe fn gfni($($arg: $ty),*) {
                    // SAFETY: the caller's promise, passed on.
                    unsafe { $body::<lane::Gfni>($($arg),*) }
                }
                match kernel {
                    // SAFETY: the kernel is only chosen where the processor has it.
                    Kernel::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: the same.
                    Kernel::Gfni => return unsafe { gfni($($arg),*) },
                    Kernel::Scalar => {}
                }
            }
            let _ = kernel;
            // SAFETY: the caller's promise, passed on.
            unsafe { $body::<u64>($($arg),*) }
        }
    };
}

dispatch! {
    /// Writes the first `outs.len()` Horner sums of the columns (null: zeros) to `outs`, `len` bytes each.
    horner = horner_lanes(columns: &[*const u8], outs: &[*mut u8], len: usize)
}
dispatch! {
    /// `dst ^= src` over `len` bytes.
    xor_into = xor_lanes(dst: *mut u8, src: *const u8, len: usize)
}
dispatch! {
    /// `dst = sum of factors[i] * src[i]` over `len` bytes.
    combine = combine_lanes(src: &[*const u8], factors: &[u8], dst: *mut u8, len: usize)
}

#[inline(always)]
unsafe fn horner_lanes<L: Lane>(columns: &[*const u8], outs: &[*mut u8], len: usize) {
    let whole = len - len % L::SIZE;
    // SAFETY: the caller promises `len` bytes behind every pointer that is not null.
    unsafe {
        match outs {
            [p] => horner_n::<L, 1>(columns, [*p], 0, whole),
            [p, q] => horner_n::<L, 2>(columns, [*p, *q], 0, whole),
            [p, q, r] => horner_n::<L, 3>(columns, [*p, *q, *r], 0, whole),
            _ => {}
        }
        match outs {
            [p] => horner_n::<u8, 1>(columns, [*p], whole, len),
            [p, q] => horner_n::<u8, 2>(columns, [*p, *q], whole, len),
            [p, q, r] => horner_n::<u8, 3>(columns, [*p, *q, *r], whole, len),
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn horner_n<L: Lane, const N: usize>(columns: &[*const u8], outs: [*mut u8; N], from: usize, to: usize) {
    let mut at = from;
    while at < to {
        // SAFETY: `at + L::SIZE <= to`, and the caller promises `to` bytes behind every pointer that is not null.
        unsafe {
            let mut sums = [L::zero(); N];
            for column in columns {
                if N > 1 {
                    sums[1] = sums[1].mul2();
                }
                if N > 2 {
                    sums[2] = sums[2].mul4();
                }
                if !column.is_null() {
                    let d = L::load(column.add(at));
                    for sum in &mut sums {
                        *sum = sum.xor(d);
                    }
                }
            }
            for (sum, out) in sums.iter().zip(outs) {
                sum.store(out.add(at));
            }
        }
        at += L::SIZE;
    }
}

#[inline(always)]
unsafe fn xor_lanes<L: Lane>(dst: *mut u8, src: *const u8, len: usize) {
    let whole = len - len % L::SIZE;
    let mut at = 0;
    // SAFETY: the caller promises `len` bytes behind both.
    unsafe {
        while at < whole {
            L::load(dst.add(at)).xor(L::load(src.add(at))).store(dst.add(at));
            at += L::SIZE;
        }
        while at < len {
            *dst.add(at) ^= *src.add(at);
            at += 1;
        }
    }
}

#[inline(always)]
unsafe fn combine_lanes<L: Lane>(src: &[*const u8], factors: &[u8], dst: *mut u8, len: usize) {
    let whole = len - len % L::SIZE;
    let mut at = 0;
    // SAFETY: the caller promises `len` bytes behind every pointer.
    unsafe {
        let mut by = [L::factor(0); MAX_PARITY];
        for (slot, factor) in by.iter_mut().zip(factors) {
            *slot = L::factor(*factor);
        }
        while at < whole {
            let mut sum = L::zero();
            for (s, f) in src.iter().zip(by) {
                sum = sum.xor(L::load(s.add(at)).mul(f));
            }
            sum.store(dst.add(at));
            at += L::SIZE;
        }
        while at < len {
            let mut sum = 0;
            for (s, f) in src.iter().zip(factors) {
                sum ^= gf::mul(*s.add(at), *f);
            }
            *dst.add(at) = sum;
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parity by the definition, byte by byte.
    fn plain(nparity: usize, len: usize, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let byte = |e: usize, at: usize| {
            let factor = 1u8 << e;
            data.iter().fold(0u8, |sum, d| gf::mul(sum, factor) ^ d.get(at).copied().unwrap_or(0))
        };
        (0..nparity).map(|e| (0..len).map(|at| byte(e, at)).collect()).collect()
    }

    fn stripe() -> impl Strategy<Value = (usize, Vec<Vec<u8>>)> {
        (1usize..=3, 1usize..12, 0usize..700, any::<u64>(), any::<usize>()).prop_map(|(p, n, len, seed, short)| {
            let byte = |i: usize, j: usize| {
                (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add((i * 977 + j * j * 31 + j) as u64) >> 13) as u8
            };
            let cut = len - len.min(64);
            let width = |i: usize| if i > short % n { cut } else { len };
            (p, (0..n).map(|i| (0..width(i)).map(|j| byte(i, j)).collect()).collect())
        })
    }

    proptest! {
        #[test]
        fn every_kernel_makes_the_same_parity((p, data) in stripe()) {
            let len = data.iter().map(Vec::len).max().unwrap();
            let want = plain(p, len, &data);
            let columns: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            for kernel in Kernel::available() {
                let mut got = vec![vec![0xa5u8; len]; p];
                generate_with(kernel, &mut got.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), &columns);
                prop_assert_eq!(&got, &want, "{:?}", kernel);
            }
        }

        #[test]
        fn every_loss_is_rebuilt((p, data) in stripe()) {
            let len = data.iter().map(Vec::len).max().unwrap();
            let parity = plain(p, len, &data);
            let n = data.len();
            for lost in 1u32..1 << n {
                let k = lost.count_ones() as usize;
                if k > p { continue; }
                for rows in 1u32..1 << p {
                    if rows.count_ones() as usize != k { continue; }
                    let used: Vec<(usize, &[u8])> =
                        (0..p).filter(|r| rows >> r & 1 == 1).map(|r| (r, parity[r].as_slice())).collect();
                    let have: Vec<Option<&[u8]>> =
                        (0..n).map(|i| (lost >> i & 1 == 0).then_some(data[i].as_slice())).collect();
                    let gone: Vec<usize> = (0..n).filter(|i| lost >> i & 1 == 1).collect();
                    for kernel in Kernel::available() {
                        let mut out: Vec<Vec<u8>> = gone.iter().map(|i| vec![0x5a; data[*i].len()]).collect();
                        let done = reconstruct_with(kernel, &used, &have, &mut out.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
                        prop_assert!(done);
                        for (i, o) in gone.iter().zip(&out) {
                            prop_assert_eq!(o, &data[*i], "{:?} column {} from parities {:b}", kernel, i, rows);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let (d, p) = ([1u8; 8], [2u8; 8]);
        let mut o = [0u8; 8];
        assert!(!reconstruct(&[(0, &p)], &[Some(&d)], &mut [&mut o]));
        assert!(!reconstruct(&[(0, &p), (0, &p)], &[None, None], &mut [&mut o.clone(), &mut o]));
        assert!(!reconstruct(&[(3, &p)], &[None, Some(&d)], &mut [&mut o]));
        assert!(reconstruct(&[(0, &p)], &[None, Some(&d)], &mut [&mut o]));
        assert_eq!(o, [3u8; 8]);
    }
}
