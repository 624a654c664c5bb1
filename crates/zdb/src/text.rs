//! Small pieces of text: numbers for people, times, histograms.

use crate::out::Out;
use crate::p;

fn scaled(n: u64, base: &str) -> String {
    const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let mut power = 0usize;
    let mut whole = n;
    while whole >= 1024 && power < 6 {
        whole >>= 10;
        power += 1;
    }
    if power == 0 {
        return format!("{n}{base}");
    }
    let unit = UNITS.get(power).copied().unwrap_or("E");
    let divisor = 1u64 << (10 * power);
    if n.is_multiple_of(divisor) {
        return format!("{whole}{unit}");
    }
    let value = n as f64 / divisor as f64;
    (0..=2usize).rev().map(|d| format!("{value:.d$}{unit}")).find(|t| t.len() <= 5).unwrap_or_default()
}

/// A count in at most five characters, or in full when `raw`.
pub fn nicenum(n: u64, raw: bool) -> String {
    if raw { n.to_string() } else { scaled(n, "") }
}

/// A size with its unit, or in full when `raw`.
pub fn nicebytes(n: u64, raw: bool) -> String {
    if raw { n.to_string() } else { scaled(n, "B") }
}

/// A ratio as C's `%.2f` prints it, not-a-number included.
pub fn ratio(a: f64, b: f64, width: usize) -> String {
    let v = a / b;
    // 0/0 has the sign bit set on x86, which glibc prints.
    let s = if v.is_nan() { "-nan".to_owned() } else { format!("{v:.2}") };
    format!("{s:>width$}")
}

fn tm(secs: i64) -> Option<libc::tm> {
    let t: libc::time_t = secs;
    // SAFETY: `tm` is plain data for which all-zero bytes are a valid value.
    let mut out: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live, properly aligned values for the duration of the call.
    let got = unsafe { libc::localtime_r(&t, &mut out) };
    (!got.is_null()).then_some(out)
}

/// Local time as `ctime` prints it, without the newline: `Sun Nov 22 18:44:01 2026`.
pub fn ctime(secs: u64) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Some(t) = tm(secs as i64) else { return "(null)".into() };
    let day = DAYS.get(t.tm_wday as usize).copied().unwrap_or("???");
    let month = MONTHS.get(t.tm_mon as usize).copied().unwrap_or("???");
    let year = i64::from(t.tm_year) + 1900;
    format!("{day} {month} {:2} {:02}:{:02}:{:02} {year}", t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec)
}

/// Local time as `%F.%T`: `2026-11-22.18:44:01`.
pub fn stamp(secs: u64) -> String {
    let Some(t) = tm(secs as i64) else { return String::new() };
    let year = i64::from(t.tm_year) + 1900;
    let (month, day) = (t.tm_mon + 1, t.tm_mday);
    format!("{year}-{month:02}-{day:02}.{:02}:{:02}:{:02}", t.tm_hour, t.tm_min, t.tm_sec)
}

/// Bars of stars, one line a value, from the first to the last that is not zero; `offset` is added to the index.
pub fn histogram(o: &mut Out, values: &[u64], offset: usize) {
    const WIDTH: u64 = 40;
    let Some(first) = values.iter().position(|v| *v != 0) else { return };
    let last = values.iter().rposition(|v| *v != 0).unwrap_or(first);
    let max = values.iter().copied().max().unwrap_or(0).max(WIDTH);
    for (i, v) in values.iter().enumerate().take(last + 1).skip(first) {
        let blank = (u128::from(max - v) * u128::from(WIDTH) / u128::from(max)) as usize;
        let stars = "*".repeat((WIDTH as usize).saturating_sub(blank));
        p!(o, "\t\t\t{:3}: {v:6} {stars}\n", i + offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let table = [
            (0, "0"),
            (1023, "1023"),
            (1024, "1K"),
            (1025, "1.00K"),
            (10239, "10.0K"),
            (102_399, "100K"),
            (1536, "1.50K"),
        ];
        for (n, want) in table {
            assert_eq!(nicenum(n, false), want);
        }
        assert_eq!(
            (nicebytes(5, false), nicebytes(5, true), nicenum(4096, true)),
            ("5B".into(), "5".into(), "4096".into())
        );
        assert_eq!(ratio(0.0, 0.0, 5), " -nan");
    }
}
