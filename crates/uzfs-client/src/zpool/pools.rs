//! Fetching the pools a command is about and reading their properties.

use super::vdev;
use crate::columns::Entry;
use crate::getprint::Row;
use crate::props::{self, Column};
use crate::sentence;
use crate::session::{Session, Stop, putln};
use uzfs_proto::{GetPoolsArgs, Pool, Property, PropertySource, Raw, method};

/// Fetches pools, complaining about names that cannot be or do not exist; the flag tells that there
/// were such names. Without names, all pools in order of name.
pub fn fetch(session: &mut Session, names: &[String], ask: GetPoolsArgs) -> Result<(Vec<Pool>, bool), Stop> {
    let mut failed = false;
    let mut good = Vec::new();
    for name in names {
        match sentence::bad_pool_name(name) {
            Some(why) => {
                failed = true;
                putln!(session.err, "cannot open '{name}': {why}");
            }
            None => good.push(name.clone()),
        }
    }
    if good.is_empty() && !names.is_empty() {
        return Ok((Vec::new(), true));
    }
    let args = GetPoolsArgs { pools: good.clone(), ..ask };
    let mut reply = session.call::<method::GetPools>("cannot get pools", &args)?;
    for name in &reply.missing {
        failed = true;
        putln!(session.err, "cannot open '{name}': no such pool");
    }
    if good.is_empty() {
        reply.pools.sort_by(|a, b| a.name.cmp(&b.name));
    } else {
        let place = |p: &Pool| good.iter().position(|n| *n == p.name).unwrap_or(usize::MAX);
        reply.pools.sort_by_key(place);
        reply.pools.dedup_by(|a, b| a.guid == b.guid);
    }
    Ok((reply.pools, failed))
}

/// Names of the properties the daemon must send.
pub fn names(entries: &[Entry]) -> Vec<String> {
    let own = ["name", "health", "guid"];
    let names = entries.iter().map(|e| e.column.name());
    let mut names: Vec<String> = names.filter(|n| !own.contains(n)).map(str::to_owned).collect();
    // An empty list would ask for everything.
    names.push("readonly".into());
    names.sort_unstable();
    names.dedup();
    names
}

fn property(pool: &Pool, column: &Column) -> Option<Property> {
    let found = pool.properties.get(column.name()).cloned();
    let Column::Native(def) = column else {
        return found.map(|mut p| {
            if props::is_feature(column.name()) {
                p.source = PropertySource::Local;
            }
            p
        });
    };
    match def.name {
        "name" => Some(Property::fixed(Raw::text(pool.name.clone()))),
        "health" => Some(Property::fixed(Raw::text(vdev::pool_state(pool)))),
        "guid" => Some(Property::fixed(Raw::number(pool.guid.0))),
        _ => found.or_else(|| def.default_property()),
    }
}

/// The property as a row of `zpool get`. A native property without a value is `-`; another one that
/// the pool does not have is none.
pub fn row(pool: &Pool, column: &Column, exact: bool) -> Option<Row> {
    let found = property(pool, column);
    let value = found.as_ref().and_then(|p| column.spell(&p.value, exact));
    let value = value.filter(|v| !v.is_empty());
    let native = matches!(column, Column::Native(_));
    if value.is_none() && !native {
        return None;
    }
    let settable = matches!(column, Column::Native(d) if d.attr != props::Attr::ReadOnly);
    let source = match &found {
        Some(p) => p.source,
        None if settable => PropertySource::Default,
        None => PropertySource::None,
    };
    Some(Row {
        name: pool.name.clone(),
        property: column.name().to_owned(),
        value: value.unwrap_or_else(|| "-".into()),
        source,
        from: None,
        received: None,
    })
}

/// Adds user properties, features and unsupported features of the pools, in OpenZFS's order.
pub fn add_named(entries: &mut Vec<Entry>, pools: &[Pool]) {
    let mut add = |name: &str| {
        if !entries.iter().any(|e| e.column.name() == name) {
            entries.push(Entry::new(Column::Named(name.to_owned()), true));
        }
    };
    for pool in pools {
        pool.properties.keys().filter(|n| props::is_user(n)).for_each(|n| add(n));
    }
    for feature in props::FEATURES {
        let name = format!("feature@{feature}");
        // Features of later releases are only worth a line where they are used.
        let shown = |p: &Property| props::is_release_feature(feature) || p.value.text.as_deref() != Some("disabled");
        if pools.iter().any(|p| p.properties.get(&name).is_some_and(shown)) {
            add(&name);
        }
    }
    for pool in pools {
        let named = pool.properties.keys().filter(|n| n.starts_with("unsupported@"));
        named.for_each(|n| add(n));
    }
}
