//! RAID-Z parity: generation of P, Q, R and reconstruction of up to three columns (module/zfs/vdev_raidz.c).
//!
//! Arithmetic is in GF(2^8) with polynomial 0x11d. Over n data columns, in order, parity e (0 = P, 1 = Q, 2 = R) is the
//! sum of `(2^e)^(n-1-i) * D[i]`, that is, Horner's rule with the factors 1, 2 and 4. A column that is shorter than
//! the parity counts as filled up with zeros.
//!
//! Reconstruction is one algorithm for every set of lost columns and every choice of parities. The syndromes (parity plus
//! what the surviving columns contribute) times the inverse of the k×k matrix of the lost columns' factors are the lost
//! columns; both are linear, so each lost column is one sum of parities and surviving columns with factors found
//! beforehand. OpenZFS has a hand-written case for each pair and triple; one loop over vector lanes, with no bytes in
//! between, is faster.
//!
//! The loops are generic over a [`Lane`]; the widest one that the processor has is chosen at run time.

mod gf;
mod lane;

use lane::Lane;
use smallvec::SmallVec;

/// Most parities.
pub const MAX_PARITY: usize = 3;
/// Registers of each sum that are worked on at a time: hides how long one multiplication takes.
const ABREAST: usize = 4;

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

/// Factors of a source for each lost column, in order.
type Factors = [u8; MAX_PARITY];
/// Starts of columns; a stripe is rarely wider than what is kept on the stack.
type Pointers = SmallVec<[*const u8; 32]>;

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
    let mut outs = [std::ptr::null_mut(); MAX_PARITY];
    for (from, to) in segments(len, || data.iter().map(|d| d.len())) {
        let live: Pointers = data.iter().map(|c| column_at(Some(c), from)).collect();
        for (out, p) in outs.iter_mut().zip(parity.iter_mut()) {
            *out = p.as_mut_ptr().wrapping_add(from);
        }
        // SAFETY: every live column has at least `to` bytes, every parity `len` >= `to`, and the parities are
        // exclusively borrowed and distinct from the data.
        unsafe { horner(kernel, &live, &outs[..parity.len()], to - from) };
    }
}

/// Start of a column's bytes from `from`, or null when it has none there.
fn column_at(column: Option<&[u8]>, from: usize) -> *const u8 {
    match column {
        Some(c) if c.len() > from => c.as_ptr().wrapping_add(from),
        _ => std::ptr::null(),
    }
}

/// Ranges of the parity within which the set of columns that have bytes does not change. Columns have few lengths, so
/// looking for the next one each time is less work than sorting them.
fn segments<I: Iterator<Item = usize>>(len: usize, lengths: impl Fn() -> I) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from;
        from = lengths().filter(|l| *l > start).fold(len, usize::min);
        (start < from).then_some((start, from))
    })
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
    let sources: SmallVec<[(&[u8], Factors); 32]> = sources(parity, data, &inverse, k);
    // Only P is lost a column to: all factors are 1.
    let plain = rows == [0];
    let mut outs = [std::ptr::null_mut(); MAX_PARITY];
    let lengths: SmallVec<[usize; 32]> = sources.iter().map(|s| s.0.len()).chain(out.iter().map(|o| o.len())).collect();
    for (from, to) in segments(len, || lengths.iter().copied()) {
        let live = || sources.iter().filter(|s| s.0.len() > from);
        let bytes: Pointers = live().map(|s| column_at(Some(s.0), from)).collect();
        for (at, o) in outs.iter_mut().zip(out.iter_mut()) {
            *at = if o.len() > from { o.as_mut_ptr().wrapping_add(from) } else { std::ptr::null_mut() };
        }
        let outs = &outs[..k];
        // SAFETY: no source and no output ends inside a segment, so those that are live have `to` bytes; outputs are
        // exclusively borrowed.
        unsafe {
            if plain && !outs[0].is_null() {
                horner(kernel, &bytes, outs, to - from);
            } else if !plain {
                let factors: SmallVec<[Factors; 32]> = live().map(|s| s.1).collect();
                combine(kernel, &bytes, &factors, outs, to - from);
            }
        }
    }
    true
}

/// What each lost column is the sum of: the parities used and the columns that are there, each with its factor for every
/// lost column. The parities less what the columns add to them are the syndromes, which the inverse matrix maps to the
/// lost columns; here both steps are one.
fn sources<'a>(
    parity: &[(usize, &'a [u8])],
    data: &[Option<&'a [u8]>],
    inverse: &[Factors; MAX_PARITY],
    k: usize,
) -> SmallVec<[(&'a [u8], Factors); 32]> {
    let used = parity.iter().enumerate().map(|(i, (_, bytes))| (*bytes, std::array::from_fn(|j| inverse[j][i])));
    let there = data.iter().enumerate().filter_map(|(i, bytes)| {
        let sum = |j: usize| {
            let rows = parity.iter().zip(inverse[j]);
            rows.fold(0, |sum, ((row, _), by)| sum ^ gf::mul(by, gf::weight(*row, i, data.len())))
        };
        let factors = std::array::from_fn(|j| if j < k { sum(j) } else { 0 });
        bytes.map(|bytes| (bytes, factors))
    });
    used.chain(there).collect()
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
    /// Writes to each of `outs` that is not null the sum of the sources times their factors for it, `len` bytes.
    combine = combine_lanes(sources: &[*const u8], factors: &[Factors], outs: &[*mut u8], len: usize)
}

#[inline(always)]
unsafe fn horner_lanes<L: Lane>(columns: &[*const u8], outs: &[*mut u8], len: usize) {
    // Columns that have nothing left add nothing before the first one that does.
    let first = columns.iter().position(|c| !c.is_null()).unwrap_or(columns.len());
    let columns = columns.get(first..).unwrap_or_default();
    // SAFETY: the caller promises `len` bytes behind every pointer that is not null.
    unsafe {
        match outs {
            [p] => horner_n::<L, 1>(columns, [*p], len),
            [p, q] => horner_n::<L, 2>(columns, [*p, *q], len),
            [p, q, r] => horner_n::<L, 3>(columns, [*p, *q, *r], len),
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn horner_n<L: Lane, const N: usize>(columns: &[*const u8], outs: [*mut u8; N], len: usize) {
    let wide = len - len % (L::SIZE * ABREAST);
    let whole = len - len % L::SIZE;
    // SAFETY: the caller's promise, passed on.
    unsafe {
        horner_rows::<L, N, ABREAST>(columns, outs, 0, wide);
        horner_rows::<L, N, 1>(columns, outs, wide, whole);
        horner_rows::<u8, N, 1>(columns, outs, whole, len);
    }
}

/// From `from` to `to`, which are whole registers apart, `U` registers of each sum at a time.
#[inline(always)]
unsafe fn horner_rows<L: Lane, const N: usize, const U: usize>(
    columns: &[*const u8],
    outs: [*mut u8; N],
    from: usize,
    to: usize,
) {
    let mut at = from;
    while at < to {
        // SAFETY: `at + U * L::SIZE <= to`, and the caller promises `to` bytes behind every pointer that is not null.
        unsafe {
            let mut sums = [[L::zero(); U]; N];
            for (i, column) in columns.iter().enumerate() {
                if N > 1 && i > 0 {
                    sums[1] = sums[1].map(|s| s.mul2());
                }
                if N > 2 && i > 0 {
                    sums[2] = sums[2].map(|s| s.mul4());
                }
                if column.is_null() {
                    continue;
                }
                for u in 0..U {
                    let d = L::load(column.add(at + u * L::SIZE));
                    for sum in &mut sums {
                        sum[u] = sum[u].xor(d);
                    }
                }
            }
            for (sum, out) in sums.iter().zip(outs) {
                for (u, s) in sum.iter().enumerate() {
                    s.store(out.add(at + u * L::SIZE));
                }
            }
        }
        at += L::SIZE * U;
    }
}

#[inline(always)]
unsafe fn combine_lanes<L: Lane>(sources: &[*const u8], factors: &[Factors], outs: &[*mut u8], len: usize) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match outs {
            [a] => combine_n::<L, 1>(sources, factors, [*a], len),
            [a, b] => combine_n::<L, 2>(sources, factors, [*a, *b], len),
            [a, b, c] => combine_n::<L, 3>(sources, factors, [*a, *b, *c], len),
            _ => {}
        }
    }
}

#[inline(always)]
unsafe fn combine_n<L: Lane, const N: usize>(
    sources: &[*const u8],
    factors: &[Factors],
    outs: [*mut u8; N],
    len: usize,
) {
    let wide = len - len % (L::SIZE * ABREAST);
    let whole = len - len % L::SIZE;
    // SAFETY: the caller's promise, passed on.
    unsafe {
        let of = |f: &Factors| std::array::from_fn(|j| L::factor(f[j]));
        let by: SmallVec<[[L::Factor; N]; 16]> = factors.iter().map(of).collect();
        combine_rows::<L, N, ABREAST>(sources, &by, outs, 0, wide);
        combine_rows::<L, N, 1>(sources, &by, outs, wide, whole);
        let by: SmallVec<[[u8; N]; 16]> = factors.iter().map(|f| std::array::from_fn(|j| f[j])).collect();
        combine_rows::<u8, N, 1>(sources, &by, outs, whole, len);
    }
}

/// From `from` to `to`, which are whole registers apart, `U` registers of each output at a time.
#[inline(always)]
unsafe fn combine_rows<L: Lane, const N: usize, const U: usize>(
    sources: &[*const u8],
    factors: &[[L::Factor; N]],
    outs: [*mut u8; N],
    from: usize,
    to: usize,
) {
    let mut at = from;
    while at < to {
        // SAFETY: `at + U * L::SIZE <= to`, and the caller promises `to` bytes behind every pointer that is not null.
        unsafe {
            let mut sums = [[L::zero(); U]; N];
            for (source, by) in sources.iter().zip(factors) {
                for u in 0..U {
                    let d = L::load(source.add(at + u * L::SIZE));
                    for (sum, by) in sums.iter_mut().zip(by) {
                        sum[u] = sum[u].xor(d.mul(*by));
                    }
                }
            }
            for (sum, out) in sums.iter().zip(outs) {
                if out.is_null() {
                    continue;
                }
                for (u, s) in sum.iter().enumerate() {
                    s.store(out.add(at + u * L::SIZE));
                }
            }
        }
        at += L::SIZE * U;
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
