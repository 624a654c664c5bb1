//! ZLE: only runs of zeros are shortened. A byte below [`LITERALS`] says how many literals (less one) follow; any
//! other byte is a run of zeros.

/// OpenZFS uses one level only: at most this many literals at once.
const LITERALS: usize = 64;

/// Expands `src` into exactly `dst`; bytes of `src` after that are ignored (padding).
pub(super) fn decompress(mut src: &[u8], mut dst: &mut [u8]) -> Result<(), &'static str> {
    while !dst.is_empty() {
        let (&first, rest) = src.split_first().ok_or("input ends early")?;
        let mut len = usize::from(first) + 1;
        if len > LITERALS {
            len -= LITERALS;
        }
        let (out, left) = std::mem::take(&mut dst).split_at_mut_checked(len).ok_or("output overruns the block")?;
        src = rest;
        if usize::from(first) < LITERALS {
            let (literals, rest) = src.split_at_checked(len).ok_or("input ends early")?;
            out.copy_from_slice(literals);
            src = rest;
        } else {
            out.fill(0);
        }
        dst = left;
    }
    Ok(())
}

/// Compresses `src` to at most `max` bytes.
pub(super) fn compress(src: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(max.min(src.len()));
    let mut rest = src;
    while let Some(&first) = rest.first() {
        let len = if first == 0 {
            let run = rest.iter().take(256 - LITERALS).take_while(|b| **b == 0).count();
            out.push((run - 1 + LITERALS) as u8);
            run
        } else {
            // Literals end before two zeros in a row: a single zero costs less as a literal.
            let limit = rest.len().min(LITERALS);
            let run = (1..limit).find(|i| rest[*i] == 0 && rest.get(i + 1) == Some(&0)).unwrap_or(limit);
            out.push((run - 1) as u8);
            out.extend_from_slice(&rest[..run]);
            run
        };
        if out.len() > max {
            return None;
        }
        rest = &rest[len..];
    }
    Some(out)
}
