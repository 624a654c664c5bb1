//! Prints name-value lists as OpenZFS's tools do: one pair a line, nested lists indented by four.

use crate::out::Out;
use crate::p;
use zfs_phys::{NvList, NvValue};

/// Prints `list`, each line behind `indent` blanks.
pub fn dump(o: &mut Out, list: &NvList, indent: usize) {
    for (name, value) in &list.pairs {
        pair(o, name, value, indent);
    }
}

fn many<T: std::fmt::Display>(o: &mut Out, name: &str, values: &[T], indent: usize) {
    for (i, v) in values.iter().enumerate() {
        p!(o, "{:indent$}{name}[{i}]: {v}\n", "");
    }
}

fn pair(o: &mut Out, name: &str, value: &NvValue, indent: usize) {
    use NvValue as V;
    match value {
        V::Boolean => p!(o, "{:indent$}{name}\n", ""),
        V::BooleanValue(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Byte(v) | V::Uint8(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Int8(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Int16(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Uint16(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Int32(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Uint32(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Int64(v) | V::Hrtime(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Uint64(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::Double(v) => p!(o, "{:indent$}{name}: {v}\n", ""),
        V::String(v) => p!(o, "{:indent$}{name}: '{v}'\n", ""),
        V::NvList(v) => {
            p!(o, "{:indent$}{name}:\n", "");
            dump(o, v, indent + 4);
        }
        V::NvListArray(lists) => {
            for (i, v) in lists.iter().enumerate() {
                p!(o, "{:indent$}{name}[{i}]:\n", "");
                dump(o, v, indent + 4);
            }
        }
        V::ByteArray(v) | V::Uint8Array(v) => many(o, name, v, indent),
        V::Int8Array(v) => many(o, name, v, indent),
        V::Int16Array(v) => many(o, name, v, indent),
        V::Uint16Array(v) => many(o, name, v, indent),
        V::Int32Array(v) => many(o, name, v, indent),
        V::Uint32Array(v) => many(o, name, v, indent),
        V::Int64Array(v) => many(o, name, v, indent),
        V::Uint64Array(v) => many(o, name, v, indent),
        V::BooleanArray(v) => many(o, name, v, indent),
        V::StringArray(v) => {
            for (i, v) in v.iter().enumerate() {
                p!(o, "{:indent$}{name}[{i}]: '{v}'\n", "");
            }
        }
    }
}
