//! Values that users type, checked and turned into what is stored.

use super::{Attr, Def, Format, dataset, index, is_user, is_userquota, kind_bit};
use uzfs_proto::{DatasetKind, Raw};

/// Longest user property, bytes.
const MAX_USER_NAME: usize = 255;
const MAX_USER_VALUE: usize = 8191;
/// Powers of 1024 by letter.
const UNITS: &[u8] = b"BKMGTPEZ";

/// A size or count as people write it: `128K`, `1.5g`, `4096`, `2TiB`. The error is the sentence to print.
pub fn number(text: &str) -> Result<u64, String> {
    let bad = || format!("bad numeric value '{text}'");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(bad());
    }
    let unit = unit.to_ascii_uppercase();
    let power = match unit.as_bytes() {
        [] => 0,
        [letter, rest @ ..] => {
            let power =
                UNITS.iter().position(|u| u == letter).ok_or_else(|| format!("invalid numeric suffix '{unit}'"))?;
            if !(rest.is_empty() || (power > 0 && matches!(rest, b"B" | b"IB"))) {
                return Err(format!("invalid numeric suffix '{unit}'"));
            }
            power
        }
    };
    let too_large = || "numeric value is too large".to_owned();
    if digits.contains('.') {
        let value = digits.parse::<f64>().map_err(|_| bad())? * 1024f64.powi(power as i32);
        return if value < u64::MAX as f64 { Ok(value as u64) } else { Err(too_large()) };
    }
    let value: u64 = digits.parse().map_err(|_| too_large())?;
    1024u64.checked_pow(power as u32).and_then(|scale| value.checked_mul(scale)).ok_or_else(too_large)
}

/// What a value for a property becomes. The error is the sentence after `cannot set property for 'x': `.
pub fn value(name: &str, text: &str, kind: DatasetKind, creating: bool) -> Result<Raw, String> {
    if is_user(name) {
        if name.len() > MAX_USER_NAME {
            return Err(format!("property name '{name}' is too long"));
        }
        if text.len() > MAX_USER_VALUE {
            return Err(format!("property value '{text}' is too long"));
        }
        return Ok(Raw::text(text));
    }
    if is_userquota(name) {
        return quota_of(name, text, kind);
    }
    let Some(def) = dataset(name) else { return Err(format!("invalid property '{name}'")) };
    if kind == DatasetKind::Snapshot {
        return Err("this property can not be modified for snapshots".into());
    }
    match def.attr {
        Attr::ReadOnly => return Err(format!("'{name}' is readonly")),
        Attr::OneTime | Attr::OneTimeDefault if !creating => return Err(format!("'{name}' is readonly")),
        _ => {}
    }
    if def.kinds & kind_bit(kind) == 0 {
        return Err(format!("'{name}' does not apply to datasets of this type"));
    }
    let raw = spelled(def, text)?;
    limits(def, text, &raw)?;
    Ok(raw)
}

/// Quotas of users, groups and projects; names of users are numbers already.
fn quota_of(name: &str, text: &str, kind: DatasetKind) -> Result<Raw, String> {
    let (what, who) = name.split_once('@').unwrap_or((name, ""));
    if !what.ends_with("quota") {
        return Err(format!("'{name}' is readonly"));
    }
    if kind != DatasetKind::Filesystem {
        return Err(format!("'{name}' does not apply to datasets of this type"));
    }
    if who.parse::<u32>().is_err() {
        return Err(format!("'{name}' has an invalid user/group name"));
    }
    match text {
        "none" => Ok(Raw::number(0)),
        _ => match self::number(text)? {
            0 => Err("use 'none' to disable userquota/groupquota".into()),
            n => Ok(Raw::number(n)),
        },
    }
}

fn spelled(def: &Def, text: &str) -> Result<Raw, String> {
    let name = def.name;
    let number = Raw::number;
    match def.format {
        Format::Text => Ok(Raw::text(text)),
        Format::Index(table) => match index::number_of(table, text) {
            Some(n) => Ok(number(n)),
            None => Err(format!("'{name}' must be one of '{}'", def.values)),
        },
        Format::YesNo => match text {
            "yes" => Ok(number(1)),
            "no" => Ok(number(0)),
            _ => Err(format!("'{name}' must be one of 'yes | no'")),
        },
        Format::SizeOrNone | Format::BytesOrDash if text == "none" => Ok(number(0)),
        Format::QuotaOrAuto if text == "none" => Ok(number(0)),
        Format::QuotaOrAuto if text == "auto" => Ok(number(u64::MAX)),
        Format::CountOrNone if text == "none" => Ok(number(u64::MAX)),
        _ => self::number(text).map(number),
    }
}

fn limits(def: &Def, text: &str, raw: &Raw) -> Result<(), String> {
    let name = def.name;
    let n = raw.as_u64().unwrap_or(0);
    match name {
        "recordsize" | "volblocksize" if !n.is_power_of_two() || !(512..=16 << 20).contains(&n) => {
            Err(format!("'{name}' must be power of 2 from 512B to 16M"))
        }
        "special_small_blocks" if n != 0 && !(n.is_power_of_two() && (512..=16 << 20).contains(&n)) => {
            Err(format!("invalid '{name}={n}' property: must be zero or a power of 2 from 512B to 16M"))
        }
        "mlslabel" if text != "none" => Err("mlslabels are unsupported".into()),
        "volsize" if n == 0 => Err(format!("'{name}' cannot be zero")),
        "quota" | "refquota" if n == 0 && text != "none" => Err(format!("use 'none' to disable {name}")),
        "mountpoint" if !text.starts_with('/') && text != "none" && text != "legacy" => {
            Err(format!("'{name}' must be an absolute path, 'none', or 'legacy'"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, n) in
            [("0", 0), ("512", 512), ("128K", 128 << 10), ("128k", 128 << 10), ("1.5G", 3 << 29), ("2TiB", 2 << 40)]
        {
            assert_eq!(number(text), Ok(n), "{text}");
        }
        assert_eq!(number("x").unwrap_err(), "bad numeric value 'x'");
        assert_eq!(number("1Q").unwrap_err(), "invalid numeric suffix 'Q'");
        assert_eq!(number("16E").unwrap_err(), "numeric value is too large");
    }

    #[test]
    fn values() {
        let fs = |name: &str, text: &str| value(name, text, DatasetKind::Filesystem, false);
        assert_eq!(fs("compression", "lz4"), Ok(Raw::number(15)));
        assert_eq!(fs("recordsize", "1M"), Ok(Raw::number(1 << 20)));
        assert_eq!(fs("recordsize", "3K").unwrap_err(), "'recordsize' must be power of 2 from 512B to 16M");
        assert_eq!(fs("atime", "maybe").unwrap_err(), "'atime' must be one of 'on | off'");
        assert_eq!(fs("used", "1").unwrap_err(), "'used' is readonly");
        assert_eq!(fs("nonsense", "1").unwrap_err(), "invalid property 'nonsense'");
        assert_eq!(fs("my:prop", "x"), Ok(Raw::text("x")));
        assert_eq!(fs("quota", "none"), Ok(Raw::number(0)));
        assert_eq!(fs("mountpoint", "a/b").unwrap_err(), "'mountpoint' must be an absolute path, 'none', or 'legacy'");
        assert_eq!(fs("userquota@1000", "1G"), Ok(Raw::number(1 << 30)));
        assert_eq!(fs("projectobjquota@7", "none"), Ok(Raw::number(0)));
        assert_eq!(fs("groupused@7", "1").unwrap_err(), "'groupused@7' is readonly");
        assert_eq!(fs("normalization", "formD").unwrap_err(), "'normalization' is readonly");
    }
}
