//! Scalar arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d), and inversion of the small matrices of lost columns.

use super::MAX_PARITY;

/// Powers of 2, the generator of the field's multiplicative group, twice around.
const EXP: [u8; 510] = {
    let (mut table, mut power, mut i) = ([0; 510], 1u8, 0);
    while i < 510 {
        table[i] = power;
        power = (power << 1) ^ (if power & 0x80 != 0 { 0x1d } else { 0 });
        i += 1;
    }
    table
};

/// Exponents: `EXP[LOG[a]] == a` for every `a` but 0.
const LOG: [u8; 256] = {
    let (mut table, mut i) = ([0; 256], 0);
    while i < 255 {
        table[EXP[i] as usize] = i as u8;
        i += 1;
    }
    table
};

/// Product of two elements.
pub(super) const fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { 0 } else { EXP[LOG[a as usize] as usize + LOG[b as usize] as usize] }
}

/// The factor with which data column `column` of `n` enters parity `row`.
pub(super) fn weight(row: usize, column: usize, n: usize) -> u8 {
    EXP[row * (n - 1 - column) % 255]
}

fn inverse(a: u8) -> u8 {
    EXP[255 - LOG[a as usize] as usize]
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
            a[i][j] = weight(rows[i], lost[j], n);
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
        assert_eq!((weight(0, 3, 9), weight(1, 8, 9), weight(1, 0, 9), weight(2, 5, 9)), (1, 1, 0x1d, 0x40));
        for a in 1..=255u8 {
            assert_eq!(mul(a, inverse(a)), 1);
            assert_eq!(mul(a, 4), mul(mul(a, 2), 2));
        }
    }
}
