//! Scalar arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d), and inversion of the small matrices of lost columns.

use super::MAX_PARITY;

/// Product of two elements.
pub(super) const fn mul(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = (a << 1) ^ (if a & 0x80 != 0 { 0x1d } else { 0 });
        b >>= 1;
    }
    product
}

fn pow(base: u8, mut exponent: usize) -> u8 {
    let (mut square, mut out) = (base, 1);
    exponent %= 255;
    while exponent > 0 {
        if exponent & 1 == 1 {
            out = mul(out, square);
        }
        square = mul(square, square);
        exponent >>= 1;
    }
    out
}

fn inverse(a: u8) -> u8 {
    pow(a, 254)
}

/// Inverse of the matrix whose row r holds the factors with which the lost columns enter parity `rows[r]` over `n`
/// data columns; `None` when a parity is named twice or does not exist.
pub(super) fn inverse_for(rows: &[usize], lost: &[usize], n: usize) -> Option<[[u8; MAX_PARITY]; MAX_PARITY]> {
    let k = lost.len();
    let distinct = rows.iter().enumerate().all(|(i, r)| *r < MAX_PARITY && !rows[..i].contains(r));
    if !distinct || rows.len() != k || k > MAX_PARITY {
        return None;
    }
    let mut a = [[0u8; MAX_PARITY]; MAX_PARITY];
    let mut b = [[0u8; MAX_PARITY]; MAX_PARITY];
    for i in 0..k {
        for j in 0..k {
            a[i][j] = pow(1 << rows[i], n - 1 - lost[j]);
            b[i][j] = u8::from(i == j);
        }
    }
    // Gauss-Jordan; the rows are a subset of a Vandermonde matrix's, so a pivot always exists.
    for c in 0..k {
        let pivot = (c..k).find(|r| a[*r][c] != 0)?;
        a.swap(c, pivot);
        b.swap(c, pivot);
        let scale = inverse(a[c][c]);
        for j in 0..k {
            a[c][j] = mul(a[c][j], scale);
            b[c][j] = mul(b[c][j], scale);
        }
        for r in (0..k).filter(|r| *r != c) {
            let factor = a[r][c];
            for j in 0..k {
                a[r][j] ^= mul(factor, a[c][j]);
                b[r][j] ^= mul(factor, b[c][j]);
            }
        }
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_laws() {
        assert_eq!(mul(0x80, 2), 0x1d);
        for a in 1..=255u8 {
            assert_eq!(mul(a, inverse(a)), 1);
            assert_eq!(mul(a, 4), mul(mul(a, 2), 2));
        }
    }
}
