//! Fetching the datasets a command is about, as `zfs_for_each` of OpenZFS's tools selects and sorts
//! them, and reading their properties.

use crate::columns::Entry;
use crate::getprint::Row;
use crate::props::{self, Column, FS, Format, MARK, SNAP, VOL, kind_bit};
use crate::sentence;
use crate::session::{Session, Stop, putln};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use uzfs_proto::{Dataset, DatasetKind, GetPoolsArgs, ListDatasetsArgs, Property, PropertySource, Raw, method};

/// Which datasets.
pub struct Query {
    /// Names or paths as given; empty for everything.
    pub roots: Vec<String>,
    /// Everything below the roots too.
    pub recursive: bool,
    /// At most so many levels below the roots.
    pub depth: Option<u64>,
    /// Kinds wanted: bits of [`crate::props`].
    pub kinds: u8,
    /// Snapshots only where the pool has `listsnapshots=on`.
    pub listsnapshots: bool,
    /// Properties to fetch; none for all.
    pub properties: Option<Vec<String>>,
}

/// A column to sort by.
pub struct SortKey {
    /// Which property.
    pub column: Column,
    /// Largest first.
    pub reverse: bool,
}

/// Reads the value of `-t`. The error is the sentence to print.
pub fn parse_kinds(list: &str) -> Result<u8, String> {
    let mut kinds = 0;
    for word in list.split(',') {
        kinds |= match word {
            "filesystem" | "fs" => FS,
            "volume" | "vol" => VOL,
            "snapshot" | "snap" => SNAP,
            "bookmark" => MARK,
            "all" => FS | VOL | SNAP | MARK,
            _ => return Err(format!("invalid type '{word}'")),
        };
    }
    Ok(kinds)
}

/// Reads the value of `-d`. The error is the sentence to print.
pub fn parse_depth(text: &str) -> Result<u64, String> {
    match text.parse::<i64>() {
        Err(_) => Err(format!("{text} is not an integer")),
        Ok(n) => u64::try_from(n).map_err(|_| "Depth can not be negative.".into()),
    }
}

fn kinds_of(bits: u8) -> Vec<DatasetKind> {
    let all = [DatasetKind::Filesystem, DatasetKind::Volume, DatasetKind::Snapshot, DatasetKind::Bookmark];
    all.into_iter().filter(|k| bits & kind_bit(*k) != 0).collect()
}

/// Checks a root and gives the form the daemon wants; none (with a complaint) if it cannot exist.
fn checked_root(session: &mut Session, root: &str, kinds: u8) -> Option<String> {
    if root.starts_with('/') || root.starts_with("./") {
        return match std::fs::canonicalize(root) {
            Ok(path) => Some(path.to_string_lossy().into_owned()),
            Err(e) => {
                putln!(session.err, "cannot open '{root}': {}", crate::os_sentence(&e));
                None
            }
        };
    }
    let why = sentence::bad_dataset_name(root).or_else(|| {
        if root.contains('@') && kinds & SNAP == 0 {
            Some("snapshot delimiter '@' is not expected here".into())
        } else if root.contains('#') && kinds & MARK == 0 {
            Some("bookmark delimiter '#' is not expected here".into())
        } else if !root.contains('@') && kinds == SNAP {
            Some("missing '@' delimiter in snapshot name, did you mean to use -r?".into())
        } else if !root.contains('#') && kinds == MARK {
            Some("missing '#' delimiter in bookmark name, did you mean to use -r?".into())
        } else {
            None
        }
    });
    match why {
        Some(why) => {
            putln!(session.err, "cannot open '{root}': {why}");
            None
        }
        None => Some(root.to_owned()),
    }
}

/// Pools with `listsnapshots=on`.
fn listing_pools(session: &mut Session) -> Result<BTreeSet<String>, Stop> {
    let properties = Some(vec!["listsnapshots".to_owned()]);
    let args = GetPoolsArgs { properties, ..Default::default() };
    let reply = session.call::<method::GetPools>("cannot list pools", &args)?;
    let on = |p: &uzfs_proto::Pool| {
        let value = p.properties.get("listsnapshots").map(|v| v.value.clone());
        let text = props::pool("listsnapshots").and_then(|d| d.spell(&value?, true));
        text.as_deref() == Some("on")
    };
    Ok(reply.pools.iter().filter(|p| on(p)).map(|p| p.name.clone()).collect())
}

fn pool_of(name: &str) -> &str {
    name.split(['/', '@', '#']).next().unwrap_or(name)
}

/// Fetches the datasets; the flag tells that a root could not be listed, which was reported.
pub fn fetch(session: &mut Session, query: &Query) -> Result<(Vec<Dataset>, bool), Stop> {
    let everything = query.roots.is_empty();
    let recursive = everything || query.recursive;
    let mut allowed = query.kinds;
    if recursive {
        allowed |= FS;
        if query.kinds & (SNAP | MARK) != 0 {
            allowed |= VOL;
        }
    }
    let mut failed = false;
    let mut roots = Vec::new();
    for root in &query.roots {
        match checked_root(session, root, allowed) {
            Some(root) => roots.push(root),
            None => failed = true,
        }
    }
    if roots.is_empty() && !everything {
        return Ok((Vec::new(), true));
    }
    let listing = match recursive && query.listsnapshots {
        true => Some(listing_pools(session)?),
        false => None,
    };
    let mut ask = if everything { query.kinds } else { query.kinds | FS | VOL };
    if listing.as_ref().is_some_and(BTreeSet::is_empty) && !roots.iter().any(|r| r.contains('@')) {
        ask &= !SNAP;
    }
    let args = ListDatasetsArgs {
        roots: roots.clone(),
        depth: if recursive { query.depth } else { Some(0) },
        kinds: if recursive { kinds_of(ask) } else { Vec::new() },
        properties: query.properties.clone(),
    };
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    let result = session.stream::<method::ListDatasets>(&args, &mut |part| {
        rows.extend(part.datasets);
        failures.extend(part.failures);
        true
    })?;
    if let Err(failure) = result {
        return Err(session.fail("cannot iterate filesystems", &failure));
    }
    for failure in &failures {
        failed = true;
        report_root(session, failure);
    }
    let is_root = |name: &str| roots.iter().any(|r| r == name);
    rows.retain(|ds: &Dataset| {
        let root = is_root(&ds.name);
        if root && kind_bit(ds.kind) & allowed == 0 {
            failed = true;
            let name = &ds.name;
            let why = "operation not applicable to datasets of this type";
            putln!(session.err, "cannot open '{name}': {why}");
        }
        let listed = match (&listing, ds.kind) {
            (Some(pools), DatasetKind::Snapshot) => root || pools.contains(pool_of(&ds.name)),
            _ => true,
        };
        listed && !is_hidden(ds) && kind_bit(ds.kind) & query.kinds != 0
    });
    Ok((rows, failed))
}

/// Internal datasets of a receive under way are named with `%` and never listed.
fn is_hidden(ds: &Dataset) -> bool {
    ds.inconsistent && ds.name.contains('%')
}

/// Complains about a root that could not be listed.
pub fn report_root(session: &mut Session, failure: &uzfs_proto::Failure) {
    let root = failure.subject.clone().unwrap_or_default();
    match failure.code {
        uzfs_proto::FailureCode::NotMounted | uzfs_proto::FailureCode::NoSuchDataset if root.starts_with('/') => {
            putln!(session.err, "'{root}': not a ZFS filesystem");
        }
        uzfs_proto::FailureCode::NoSuchPool => {
            putln!(session.err, "cannot open '{root}': dataset does not exist");
        }
        _ => session.report(&format!("cannot open '{root}'"), failure),
    }
}

/// A dataset before its snapshots, those by age, everything else by name.
pub fn by_name(l: &Dataset, r: &Dataset) -> Ordering {
    let split = |d: &'_ Dataset| d.name.find('@').unwrap_or(d.name.len());
    let (lat, rat) = (split(l), split(r));
    let (lbase, rbase) = (l.name.get(..lat), r.name.get(..rat));
    let (lsnap, rsnap) = (lat < l.name.len(), rat < r.name.len());
    lbase.cmp(&rbase).then(lsnap.cmp(&rsnap)).then_with(|| match lsnap {
        true => l.createtxg.cmp(&r.createtxg).then_with(|| l.name.cmp(&r.name)),
        false => Ordering::Equal,
    })
}

/// Sorts by the keys, then by name. Rows that lack a property come last, whatever the direction.
pub fn sort(rows: &mut Vec<Dataset>, keys: &[SortKey]) {
    rows.sort_by(|l, r| {
        for key in keys {
            let order = match (sort_value(l, &key.column), sort_value(r, &key.column)) {
                (None, None) => continue,
                (None, Some(_)) => return Ordering::Greater,
                (Some(_), None) => return Ordering::Less,
                (Some(a), Some(b)) => a.cmp(&b),
            };
            if order != Ordering::Equal {
                return if key.reverse { order.reverse() } else { order };
            }
        }
        by_name(l, r)
    });
    rows.dedup_by(|a, b| a.name == b.name);
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SortValue {
    Number(u64),
    Text(String),
}

fn sort_value(ds: &Dataset, column: &Column) -> Option<SortValue> {
    let property = property(ds, column)?;
    if let Column::Native(def) = column {
        if let Format::Index(index) = def.format {
            let name = property.value.text.as_deref();
            let number = name.and_then(|n| props::index::number_of(index, n));
            return number.or_else(|| property.value.as_u64()).map(SortValue::Number);
        }
        if def.format != Format::Text {
            return property.value.as_u64().map(SortValue::Number);
        }
    }
    column.spell(&property.value, true).map(SortValue::Text)
}

/// The property of a dataset, or its default; none if it does not apply or has no value.
pub fn property(ds: &Dataset, column: &Column) -> Option<Property> {
    let Column::Native(def) = column else {
        let name = match props::is_userquota(column.name()) {
            true => crate::who::numeric(column.name()),
            false => column.name().to_owned(),
        };
        let mut found = ds.properties.get(&name).cloned()?;
        if props::is_userquota(column.name()) || props::is_written(column.name()) {
            found.source = PropertySource::Local;
        }
        return Some(found);
    };
    if def.kinds & kind_bit(ds.kind) == 0 {
        return None;
    }
    let own = match def.name {
        "name" => Some(Raw::text(ds.name.clone())),
        "type" => Some(Raw::text(ds.kind.word())),
        "guid" => Some(Raw::number(ds.guid.0)),
        "createtxg" => Some(Raw::number(ds.createtxg.0)),
        _ => None,
    };
    if let Some(raw) = own {
        return Some(Property::fixed(raw));
    }
    let found = ds.properties.get(def.name).cloned();
    // Whether a snapshot has a property depends on what it is a snapshot of, which only the daemon
    // knows, so nothing is made up for snapshots.
    match ds.kind {
        DatasetKind::Filesystem | DatasetKind::Volume => found.or_else(|| def.default_property()),
        DatasetKind::Snapshot | DatasetKind::Bookmark => found,
    }
}

/// The property as a row of `zfs get`; none if it has no value here.
pub fn row(ds: &Dataset, column: &Column, exact: bool) -> Option<Row> {
    let property = property(ds, column)?;
    let value = column.spell(&property.value, exact)?;
    let received = property.received.as_ref().and_then(|raw| column.spell(raw, exact));
    Some(Row {
        name: ds.name.clone(),
        property: column.name().to_owned(),
        value,
        source: property.source,
        from: property.from,
        received,
    })
}

/// Adds the user properties of `rows` that are not in the list yet.
pub fn add_user_properties(entries: &mut Vec<Entry>, rows: &[Dataset]) {
    for ds in rows {
        for name in ds.properties.keys().filter(|n| props::is_user(n)) {
            if !entries.iter().any(|e| e.column.name() == name) {
                entries.push(Entry::new(Column::Named(name.clone()), true));
            }
        }
    }
}
