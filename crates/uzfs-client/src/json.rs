//! The envelope and the objects of `-j` output.

use crate::getprint::Row;
use serde_json::{Map, Value, json};
use uzfs_proto::{Dataset, DatasetKind, PropertySource};

/// An object under construction; keys keep their order.
pub type Object = Map<String, Value>;

/// Starts the output of `command`, such as `zfs list`.
pub fn envelope(command: &str) -> Object {
    let mut object = Object::new();
    let version = json!({ "command": command, "vers_major": 0, "vers_minor": 1 });
    object.insert("output_version".into(), version);
    object
}

/// A value that is printed as text: a number if asked for and possible.
pub fn number_or_text(text: &str, as_int: bool) -> Value {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(n) if as_int && digits => Value::from(n),
        _ => Value::from(text),
    }
}

/// A number: as text unless asked for as a number.
pub fn number(n: u64, as_int: bool) -> Value {
    if as_int { Value::from(n) } else { Value::from(n.to_string()) }
}

/// `{"value":…,"source":{"type":…,"data":…}}`.
pub fn property(row: &Row, as_int: bool) -> Value {
    let (kind, data) = match row.source {
        PropertySource::None => ("NONE", "-"),
        PropertySource::Default => ("DEFAULT", "-"),
        PropertySource::Local => ("LOCAL", "-"),
        PropertySource::Temporary => ("TEMPORARY", "-"),
        PropertySource::Inherited => ("INHERITED", row.from.as_deref().unwrap_or("-")),
        PropertySource::Received => ("RECEIVED", row.received.as_deref().unwrap_or("-")),
    };
    json!({
        "value": number_or_text(&row.value, as_int),
        "source": { "type": kind, "data": data },
    })
}

/// The fields every dataset object starts with.
pub fn dataset(ds: &Dataset, as_int: bool) -> Object {
    let mut object = Object::new();
    object.insert("name".into(), ds.name.clone().into());
    object.insert("type".into(), ds.kind.word().to_uppercase().into());
    let pool = ds.name.split(['/', '@', '#']).next().unwrap_or_default();
    object.insert("pool".into(), pool.into());
    object.insert("createtxg".into(), number(ds.createtxg.0, as_int));
    if ds.kind == DatasetKind::Snapshot
        && let Some((dataset, snapshot)) = ds.name.split_once('@')
    {
        object.insert("dataset".into(), dataset.into());
        object.insert("snapshot_name".into(), snapshot.into());
    }
    object
}
