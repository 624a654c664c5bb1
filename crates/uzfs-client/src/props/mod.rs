//! Property tables and how values are printed.
//!
//! The daemon sends raw values; everything a user sees is decided here, from one definition a
//! property: column title, which datasets have it, how its value is spelled, its default.

mod dataset;
pub mod index;
pub mod parse;
mod pool;

pub use dataset::DATASET;
pub use pool::{FEATURES, POOL, RELEASE_FEATURES, VDEV};

use crate::nicenum::{nicebytes, nicenum};
use crate::time;
use index::Index;
use uzfs_proto::{DatasetKind, Property, PropertySource, Raw};

/// File systems have the property.
pub const FS: u8 = 1;
/// Volumes have the property.
pub const VOL: u8 = 2;
/// Snapshots have the property.
pub const SNAP: u8 = 4;
/// Bookmarks have the property.
pub const MARK: u8 = 8;
/// Pools or vdevs have the property.
pub const POOLKIND: u8 = 16;

/// The bit of a kind of dataset.
pub fn kind_bit(kind: DatasetKind) -> u8 {
    match kind {
        DatasetKind::Filesystem => FS,
        DatasetKind::Volume => VOL,
        DatasetKind::Snapshot => SNAP,
        DatasetKind::Bookmark => MARK,
    }
}

/// Who may set a property and how it is inherited (`zprop_attr_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attr {
    /// Settable, not inherited.
    Default,
    /// Not settable.
    ReadOnly,
    /// Settable and inherited.
    Inherit,
    /// Settable at creation.
    OneTime,
    /// Settable at creation, with a default.
    OneTimeDefault,
}

/// How a value is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As it is.
    Text,
    /// One of the names of a table.
    Index(Index),
    /// `yes` or `no`.
    YesNo,
    /// Count in nice units.
    Count,
    /// Size in nice units with `B`.
    Bytes,
    /// Size in nice units with `B`; zero is `-`.
    BytesOrDash,
    /// Size; zero is `none`, or `0` exactly.
    SizeOrNone,
    /// Size; zero is `none`, all ones are `auto`.
    QuotaOrAuto,
    /// Count; all ones are `none`.
    CountOrNone,
    /// Count; all ones are `-`.
    CountOrDefault,
    /// Identifier, never shortened.
    Plain,
    /// Percent; all ones are `-`.
    Percent,
    /// Hundredths with two decimals.
    Ratio,
    /// Time to the minute.
    Date,
    /// Time to the second; zero is no value.
    DateSeconds,
    /// Pool version; `-` with feature flags.
    PoolVersion,
}

/// The value where nothing is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// There is none.
    None,
    /// A number.
    Number(u64),
    /// A text.
    Text(&'static str),
}

/// One native property.
#[derive(Debug, PartialEq)]
pub struct Def {
    /// Name.
    pub name: &'static str,
    /// Column title.
    pub column: &'static str,
    /// What has it: bits of [`FS`], [`VOL`], [`SNAP`], [`MARK`], [`POOLKIND`].
    pub kinds: u8,
    /// Who may set it.
    pub attr: Attr,
    /// How it is spelled.
    pub format: Format,
    /// Value where nothing is set.
    pub default: Default,
    /// Values allowed, for usage texts.
    pub values: &'static str,
    /// Right-aligned in lists.
    pub right: bool,
    /// The column grows with its values also in nice units.
    pub flex: bool,
    /// Part of `all` and of usage texts.
    pub visible: bool,
}

impl Def {
    /// The width a column starts with: its title, or the longest value it can have.
    pub fn width(&self) -> usize {
        let title = self.column.len();
        match self.format {
            Format::Index(index) => index.iter().map(|(n, _)| n.len()).max().unwrap_or(0).max(title),
            Format::YesNo => title.max(3),
            Format::Text if self.name == "health" || self.name == "state" => 8,
            Format::Text => title,
            _ => title.max(5),
        }
    }

    /// Spells `raw`; none if it has no value here. With `exact`, numbers are not shortened.
    pub fn spell(&self, raw: &Raw, exact: bool) -> Option<String> {
        if let (None, None) = (&raw.number, &raw.text) {
            return None;
        }
        if let (Format::Text, Some(t)) = (self.format, &raw.text) {
            return Some(t.clone());
        }
        if let Format::Index(index) = self.format {
            let number = match &raw.text {
                Some(t) => index::number_of(index, t),
                None => raw.as_u64(),
            };
            let known = number.and_then(|n| index::name_of(index, n)).map(str::to_owned);
            return known.or_else(|| raw.text.clone());
        }
        match raw.as_u64() {
            Some(n) => self.spell_number(n, exact),
            None => raw.text.clone(),
        }
    }

    fn spell_number(&self, n: u64, exact: bool) -> Option<String> {
        let none_at = |special: u64, word: &str| (n == special).then(|| word.to_owned());
        let special = match self.format {
            Format::YesNo => return Some(if n != 0 { "yes" } else { "no" }.into()),
            Format::Text | Format::Index(_) | Format::Plain => return Some(n.to_string()),
            Format::Ratio => {
                let x = if exact { "" } else { "x" };
                return Some(format!("{}.{:02}{x}", n / 100, n % 100));
            }
            Format::Date if !exact => return Some(time::minute(n)),
            Format::DateSeconds if n == 0 => return None,
            Format::DateSeconds if !exact => return Some(time::second(n)),
            Format::PoolVersion => return Some(if n >= 5000 { "-".into() } else { n.to_string() }),
            Format::Percent if n != u64::MAX && !exact => return Some(format!("{n}%")),
            Format::Percent | Format::CountOrDefault => none_at(u64::MAX, "-"),
            Format::CountOrNone => none_at(u64::MAX, "none"),
            Format::BytesOrDash => none_at(0, "-"),
            Format::SizeOrNone if !exact => none_at(0, "none"),
            Format::QuotaOrAuto if n == 0 && !exact => Some("none".into()),
            Format::QuotaOrAuto => none_at(u64::MAX, "auto"),
            _ => None,
        };
        if special.is_some() {
            return special;
        }
        Some(match self.format {
            _ if exact => n.to_string(),
            Format::Bytes | Format::BytesOrDash | Format::SizeOrNone => nicebytes(n),
            _ => nicenum(n),
        })
    }

    /// The property where the daemon sent nothing: its default, if it has one.
    pub fn default_property(&self) -> Option<Property> {
        let raw = match self.default {
            Default::None => return None,
            Default::Number(n) => Raw::number(n),
            Default::Text(t) => Raw::text(t),
        };
        Some(Property::with(raw, PropertySource::Default))
    }
}

/// The dataset property of that name or column title in lower case.
pub fn dataset(name: &str) -> Option<&'static Def> {
    find(DATASET, name)
}

/// The pool property of that name or column title in lower case.
pub fn pool(name: &str) -> Option<&'static Def> {
    find(POOL, name)
}

/// The vdev property of that name or column title in lower case.
pub fn vdev(name: &str) -> Option<&'static Def> {
    find(VDEV, name)
}

fn find(table: &'static [Def], name: &str) -> Option<&'static Def> {
    table.iter().find(|d| d.name == name || d.column.eq_ignore_ascii_case(name) && is_lower(name))
}

fn is_lower(name: &str) -> bool {
    !name.bytes().any(|b| b.is_ascii_uppercase())
}

/// A user property: only the letters allowed, and a colon.
pub fn is_user(name: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.: ".contains(&b);
    name.contains(':') && name.bytes().all(ok)
}

const USER_QUOTA: &[&str] = &[
    "userused@",
    "userquota@",
    "groupused@",
    "groupquota@",
    "userobjused@",
    "userobjquota@",
    "groupobjused@",
    "groupobjquota@",
    "projectused@",
    "projectquota@",
    "projectobjused@",
    "projectobjquota@",
];

/// A property of a user, group or project, such as `userused@joe`.
pub fn is_userquota(name: &str) -> bool {
    USER_QUOTA.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether there is such a property of datasets, the user's own included.
pub fn is_known(name: &str) -> bool {
    dataset(name).is_some() || is_user(name) || is_userquota(name)
}

/// `written@SNAP` or `written#MARK`.
pub fn is_written(name: &str) -> bool {
    name.starts_with("written@") || name.starts_with("written#")
}

/// `feature@NAME` or `unsupported@GUID`.
pub fn is_feature(name: &str) -> bool {
    name.starts_with("feature@") || name.starts_with("unsupported@")
}

/// A feature that release 2.3, whose behaviour the tools follow, knows.
pub fn is_release_feature(name: &str) -> bool {
    FEATURES.iter().take(RELEASE_FEATURES).any(|f| *f == name)
}

/// A column of a list or a row of `get`: a native property or one with a free name.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Native.
    Native(&'static Def),
    /// User property, feature, quota or written, by name.
    Named(String),
}

impl Column {
    /// Name of the property.
    pub fn name(&self) -> &str {
        match self {
            Column::Native(def) => def.name,
            Column::Named(name) => name,
        }
    }

    /// Column title.
    pub fn title(&self) -> String {
        match self {
            Column::Native(def) => def.column.into(),
            Column::Named(name) => name.to_uppercase(),
        }
    }

    /// Right-aligned in lists. The values of quotas and written are, their titles are not.
    pub fn right_value(&self) -> bool {
        match self {
            Column::Native(def) => def.right,
            Column::Named(name) => is_userquota(name) || is_written(name),
        }
    }

    /// Spells the value of a property with a free name or a native one.
    pub fn spell(&self, raw: &Raw, exact: bool) -> Option<String> {
        match self {
            Column::Native(def) => def.spell(raw, exact),
            Column::Named(name) => match (raw.as_u64(), raw.text.is_some()) {
                (Some(n), false) => Some(spell_named(name, n, exact)),
                _ => raw.text.clone(),
            },
        }
    }
}

fn spell_named(name: &str, n: u64, exact: bool) -> String {
    let quota = is_userquota(name) && name.contains("quota@");
    match (exact, quota && n == 0) {
        (true, _) => n.to_string(),
        (false, true) => "none".into(),
        (false, false) if name.contains("obj") => nicenum(n),
        (false, false) if is_userquota(name) => nicebytes(n),
        (false, false) => nicebytes(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spell(name: &str, n: u64, exact: bool) -> Option<String> {
        dataset(name).unwrap().spell(&Raw::number(n), exact)
    }

    #[test]
    fn values_as_openzfs_prints_them() {
        let s = |t: &str| Some(t.to_owned());
        assert_eq!(spell("used", 1536, false), s("1.50K"));
        assert_eq!(spell("used", 12, false), s("12B"));
        assert_eq!(spell("written", 12, false), s("12"));
        assert_eq!(spell("quota", 0, false), s("none"));
        assert_eq!(spell("quota", 0, true), s("0"));
        assert_eq!(spell("compressratio", 223, true), s("2.23"));
        assert_eq!(spell("compressratio", 223, false), s("2.23x"));
        assert_eq!(spell("snapshot_limit", u64::MAX, true), s("none"));
        assert_eq!(spell("compression", 10, true), s("gzip"));
        assert_eq!(spell("compression", 16 | (19 << 7), true), s("zstd-19"));
        assert_eq!(spell("compression", 16 | (112 << 7), true), s("zstd-fast-10"));
        assert_eq!(spell("xattr", 2, true), s("on"));
        assert_eq!(spell("mounted", 1, false), s("yes"));
        assert_eq!(spell("snapshots_changed", 0, true), None);
        let text = |n: &str, t: &str| dataset(n).unwrap().spell(&Raw::text(t), false);
        assert_eq!(text("compression", "gzip-6"), s("gzip"));
        assert_eq!(text("mountpoint", "/x"), s("/x"));
        let p = |n: &str, v: u64, e: bool| pool(n).unwrap().spell(&Raw::number(v), e);
        assert_eq!(p("version", 5000, true), s("-"));
        assert_eq!(p("version", 28, true), s("28"));
        assert_eq!(p("capacity", 5, false), s("5%"));
        assert_eq!(p("fragmentation", u64::MAX, true), s("-"));
        assert_eq!(p("dedup_table_quota", u64::MAX, true), s("auto"));
        assert_eq!(p("checkpoint", 0, true), s("-"));
    }

    #[test]
    fn names_and_columns_find_properties() {
        assert_eq!(dataset("avail").unwrap().name, "available");
        assert_eq!(dataset("refer").unwrap().name, "referenced");
        assert_eq!(pool("cap").unwrap().name, "capacity");
        assert!(dataset("AVAIL").is_none());
        assert!(is_user("com.example:note") && !is_user("note") && !is_user("A:b"));
    }
}
