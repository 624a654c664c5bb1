//! Numbers as OpenZFS prints them for people: 1024-based units in at most five characters.

const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

fn scaled(n: u64, base_unit: &str) -> String {
    let mut whole = n;
    let mut power = 0usize;
    while whole >= 1024 && power < 6 {
        whole >>= 10;
        power += 1;
    }
    if power == 0 {
        return format!("{n}{base_unit}");
    }
    let unit = UNITS.get(power).copied().unwrap_or("E");
    let divisor = 1u64 << (10 * power);
    if n.is_multiple_of(divisor) {
        return format!("{whole}{unit}");
    }
    let value = n as f64 / divisor as f64;
    // As many decimals as fit into five characters; rounding can make the number longer, so try.
    for decimals in (1..=2).rev() {
        let text = format!("{value:.decimals$}{unit}");
        if text.len() <= 5 {
            return text;
        }
    }
    format!("{value:.0}{unit}")
}

/// A count or size without a unit below 1024: `0`, `512`, `1.50K`.
pub fn nicenum(n: u64) -> String {
    scaled(n, "")
}

/// A size with a unit always: `0B`, `512B`, `1.50K`.
pub fn nicebytes(n: u64) -> String {
    scaled(n, "B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_openzfs() {
        let table: &[(u64, &str)] = &[
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1K"),
            (1025, "1.00K"),
            (1536, "1.50K"),
            (10239, "10.0K"),
            (10240, "10K"),
            (102_399, "100K"),
            (131_072, "128K"),
            (1_048_575, "1024K"),
            (1_150_000, "1.10M"),
            (1_610_612_736, "1.50G"),
            (184_549_376, "176M"),
            (173_753_856, "166M"),
            (10_795_520, "10.3M"),
            (u64::MAX, "16.0E"),
            (1 << 60, "1E"),
        ];
        for (n, text) in table {
            assert_eq!(nicenum(*n), *text, "{n}");
        }
        assert_eq!(nicebytes(0), "0B");
        assert_eq!(nicebytes(1023), "1023B");
        assert_eq!(nicebytes(1024), "1K");
    }
}
