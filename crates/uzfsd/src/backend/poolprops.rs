//! Values of pool properties as people type them: checked as OpenZFS does, with its sentences.

use std::collections::BTreeMap;
use std::path::Path;
use uzfs_proto::{Failure, FailureCode};
use zfs_phys::feature::{FEATURES, Feature};
use zfs_spa::PoolValue;

/// Longest comment (`ZPROP_MAX_COMMENT`).
const MAX_COMMENT: usize = 32;
/// Properties nobody sets (`PROP_READONLY`).
const READONLY: [&str; 21] = [
    "name",
    "size",
    "capacity",
    "health",
    "guid",
    "dedupratio",
    "free",
    "allocated",
    "expandsize",
    "freeing",
    "fragmentation",
    "leaked",
    "maxblocksize",
    "maxdnodesize",
    "checkpoint",
    "load_guid",
    "bcloneused",
    "bclonesaved",
    "bcloneratio",
    "dedup_table_size",
    "last_scrubbed_txg",
];

/// When properties are set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// With the pool being made.
    Create,
    /// With the pool being imported.
    Import,
    /// Later.
    Set,
}

/// What is to be set.
#[derive(Default)]
pub struct PoolProps {
    /// What the pool stores.
    pub stored: Vec<(String, PoolValue)>,
    /// Features to enable, and to leave out.
    pub features: (Vec<Feature>, Vec<Feature>),
    /// Directory in front of all mount points.
    pub altroot: Option<String>,
    /// File that remembers the pool.
    pub cachefile: Option<String>,
    /// Dataset to boot from.
    pub bootfs: Option<String>,
}

fn bad<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(FailureCode::InvalidProperty, text.into()))
}

/// Checks properties.
pub fn parse(properties: &BTreeMap<String, String>, when: When) -> Result<PoolProps, Failure> {
    let mut out = PoolProps::default();
    for (name, text) in properties {
        one(&mut out, name, text, when)?;
    }
    Ok(out)
}

fn one(out: &mut PoolProps, name: &str, text: &str, when: When) -> Result<(), Failure> {
    if let Some(short) = name.strip_prefix("feature@") {
        return feature(out, name, short, text, when);
    }
    if name.contains(':') {
        out.stored.push((name.into(), PoolValue::Text(text.into())));
        return Ok(());
    }
    if READONLY.contains(&name) {
        return bad(format!("'{name}' is readonly"));
    }
    match name {
        "altroot" if when == When::Set => bad("property 'altroot' can only be set during pool creation or import"),
        "altroot" if !text.starts_with('/') => bad(format!("bad alternate root '{text}'")),
        "altroot" => {
            out.altroot = Some(text.into());
            Ok(())
        }
        "cachefile" => {
            cachefile(text)?;
            out.cachefile = Some(text.into());
            Ok(())
        }
        "bootfs" if when != When::Set => bad("property 'bootfs' cannot be set at creation or import time"),
        "bootfs" => {
            out.bootfs = Some(text.into());
            Ok(())
        }
        "readonly" if when != When::Import => bad("property 'readonly' can only be set at import time"),
        "readonly" | "tname" => Ok(()),
        "version" if when == When::Create && text == "5000" => Ok(()),
        "version" => bad(format!("property 'version' number {text} is invalid.")),
        "comment" | "compatibility" => {
            comment(name, text)?;
            out.stored.push((name.into(), PoolValue::Text(text.into())));
            Ok(())
        }
        _ => {
            out.stored.push((name.into(), PoolValue::Number(number(name, text)?)));
            Ok(())
        }
    }
}

fn feature(out: &mut PoolProps, name: &str, short: &str, text: &str, when: When) -> Result<(), Failure> {
    let Some(feature) = Feature::by_name(short) else {
        return bad(format!("feature '{short}' unsupported by kernel"));
    };
    match text {
        "enabled" => out.features.0.push(feature),
        "disabled" if when == When::Create => out.features.1.push(feature),
        "disabled" => return bad(format!("property '{name}' can only be set to 'disabled' at creation time")),
        _ => return bad(format!("property '{name}' can only be set to 'enabled' or 'disabled'")),
    }
    Ok(())
}

fn comment(name: &str, text: &str) -> Result<(), Failure> {
    if name == "comment" && !text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return bad("comment may only have printable characters");
    }
    if name == "comment" && text.len() > MAX_COMMENT {
        return bad(format!("comment must not exceed {MAX_COMMENT} characters"));
    }
    Ok(())
}

fn cachefile(text: &str) -> Result<(), Failure> {
    if text.is_empty() || text == "none" {
        return Ok(());
    }
    if !text.starts_with('/') {
        return bad("property 'cachefile' must be empty, an absolute path, or 'none'");
    }
    let (parent, last) = text.rsplit_once('/').unwrap_or(("", text));
    if matches!(last, "" | "." | "..") {
        return bad(format!("'{text}' is not a valid file"));
    }
    if !parent.is_empty() && !Path::new(parent).is_dir() {
        return bad(format!("'{parent}' is not a valid directory"));
    }
    Ok(())
}

fn number(name: &str, text: &str) -> Result<u64, Failure> {
    let words: &[&str] = match name {
        "failmode" => &["wait", "continue", "panic"],
        "delegation" | "autoreplace" | "listsnapshots" | "autoexpand" | "autotrim" | "multihost" => &["off", "on"],
        "ashift" => {
            return match text.parse::<u64>() {
                Ok(n) if n == 0 || (9..=16).contains(&n) => Ok(n),
                Ok(n) => {
                    bad(format!("property 'ashift' number {n} is invalid, only values between 9 and 16 are allowed."))
                }
                Err(_) => bad(format!("'ashift' must be a number, not '{text}'")),
            };
        }
        "dedup_table_quota" => {
            return match text {
                "none" => Ok(0),
                "auto" => Ok(u64::MAX),
                _ => text.parse().or_else(|_| bad(format!("bad numeric value '{text}'"))),
            };
        }
        _ => return bad(format!("invalid property '{name}'")),
    };
    if name == "multihost" && text == "on" {
        return Err(Failure::new(FailureCode::NotSupported, "multihost is not supported yet by uzfs"));
    }
    match words.iter().position(|w| *w == text) {
        Some(n) => Ok(n as u64),
        None if *words == ["off", "on"] => bad(format!("'{name}' must be one of 'on | off'")),
        None => bad(format!("'{name}' must be one of '{}'", words.join(" | "))),
    }
}

/// The features of a new pool; nothing for all that are usual.
pub fn wanted_features(asked: &(Vec<Feature>, Vec<Feature>), none: bool) -> Option<Vec<Feature>> {
    let (on, off) = asked;
    if none {
        return Some(on.clone());
    }
    let usual = zfs_spa::sync::create::usual_features();
    if off.is_empty() && on.iter().all(|f| usual.contains(f)) {
        return None;
    }
    let known = FEATURES.iter().map(|f| f.feature);
    Some(known.filter(|f| on.contains(f) || (usual.contains(f) && !off.contains(f))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(name: &str, text: &str, when: When) -> String {
        let map = BTreeMap::from([(name.to_owned(), text.to_owned())]);
        parse(&map, when).err().map(|f| f.message).unwrap_or_default()
    }

    #[test]
    fn values_are_judged_as_openzfs_does() {
        assert_eq!(why("size", "1", When::Set), "'size' is readonly");
        assert_eq!(why("failmode", "x", When::Set), "'failmode' must be one of 'wait | continue | panic'");
        assert_eq!(why("failmode", "continue", When::Set), "");
        let text = "property 'ashift' number 8 is invalid, only values between 9 and 16 are allowed.";
        assert_eq!(why("ashift", "8", When::Create), text);
        assert_eq!(why("nonsense", "8", When::Create), "invalid property 'nonsense'");
        let text = "property 'feature@async_destroy' can only be set to 'disabled' at creation time";
        assert_eq!(why("feature@async_destroy", "disabled", When::Set), text);
        assert_eq!(why("comment", &"x".repeat(33), When::Set), "comment must not exceed 32 characters");
        assert_eq!(why("cachefile", "x", When::Set), "property 'cachefile' must be empty, an absolute path, or 'none'");
        assert_eq!(why("multihost", "on", When::Set), "multihost is not supported yet by uzfs");
    }
}
