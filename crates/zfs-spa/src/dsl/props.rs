//! Properties as stored: local values, received values (`NAME$recvd`) and marks of explicit inheritance
//! (`NAME$inherit`), and how they combine along the directories (module/zfs/dsl_prop.c).

use super::dataset::Dataset;
use super::dir::Dir;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::{Objset, Result, Zap};
use zfs_zio::Error;

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropValue {
    /// A number, boolean or enumeration.
    Number(u64),
    /// Text.
    Text(String),
}

impl PropValue {
    /// The number.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(_) => None,
        }
    }

    /// The text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(t) => Some(t),
            Self::Number(_) => None,
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Not settable.
    None,
    /// Nothing is set anywhere.
    Default,
    /// Only for this import or mount.
    Temporary,
    /// Set on the dataset itself.
    Local,
    /// Set on the dataset named.
    Inherited(String),
    /// Received with a stream.
    Received,
}

/// Properties stored on one directory or snapshot.
#[derive(Debug, Clone, Default)]
pub struct PropMap {
    local: BTreeMap<String, PropValue>,
    received: BTreeMap<String, PropValue>,
    inherit: Vec<String>,
}

impl PropMap {
    pub(super) fn load(mos: &Arc<Objset>, object: u64) -> Result<Self> {
        let mut out = Self::default();
        if object == 0 {
            return Ok(out);
        }
        for entry in Zap::open(mos, object)?.iter() {
            let entry = entry?;
            let name = String::from_utf8_lossy(entry.name()).into_owned();
            let value = match entry.value.integer_length {
                8 => PropValue::Number(entry.value.first()),
                1 => PropValue::Text(String::from_utf8_lossy(&entry.value.string()).into_owned()),
                n => return Err(Error::corrupt(format!("property {name} of {n}-byte integers"))),
            };
            match name.rsplit_once('$') {
                Some((name, "recvd")) => drop(out.received.insert(name.to_owned(), value)),
                Some((name, "inherit")) => out.inherit.push(name.to_owned()),
                Some((_, "iuv" | "hasrecvd")) => {}
                _ => drop(out.local.insert(name, value)),
            }
        }
        Ok(out)
    }

    /// The value in force here, and whether it was received.
    pub fn get(&self, name: &str) -> Option<(&PropValue, bool)> {
        if let Some(v) = self.local.get(name) {
            return Some((v, false));
        }
        if self.inherit.iter().any(|n| n == name) {
            return None;
        }
        self.received.get(name).map(|v| (v, true))
    }

    /// The received value, in force or not.
    pub fn received(&self, name: &str) -> Option<&PropValue> {
        self.received.get(name)
    }

    /// Names of user properties set here in any way.
    pub fn user_names(&self) -> impl Iterator<Item = &str> {
        self.local.keys().chain(self.received.keys()).map(String::as_str).filter(|n| n.contains(':'))
    }

    /// All names with a local or received value.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.local.keys().chain(self.received.keys()).map(String::as_str)
    }
}

impl Dir {
    /// The value of `name` in force on this directory, and its source; nothing when it is the default.
    pub fn prop(&self, name: &str, inheritable: bool) -> Result<Option<(PropValue, Source)>> {
        if let Some((v, received)) = self.props()?.get(name) {
            return Ok(Some((v.clone(), if received { Source::Received } else { Source::Local })));
        }
        if !inheritable {
            return Ok(None);
        }
        let mut above = self.parent.clone();
        while let Some(dir) = above {
            if let Some((v, _)) = dir.props()?.get(name) {
                return Ok(Some((v.clone(), Source::Inherited(dir.name.clone()))));
            }
            above = dir.parent.clone();
        }
        Ok(None)
    }
}

impl Dataset {
    /// Properties stored on a snapshot itself; none for heads, whose properties are the directory's.
    pub fn own_props(&self) -> Result<PropMap> {
        PropMap::load(self.mos(), if self.is_snapshot() { self.phys.props_obj } else { 0 })
    }

    /// The value of a settable property in force, and its source; nothing when it is the default.
    pub fn prop(&self, name: &str, inheritable: bool) -> Result<Option<(PropValue, Source)>> {
        if !self.is_snapshot() {
            return self.dir.prop(name, inheritable);
        }
        if let Some((v, received)) = self.own_props()?.get(name) {
            return Ok(Some((v.clone(), if received { Source::Received } else { Source::Local })));
        }
        // For a snapshot even what its own file system has set is inherited.
        Ok(self.dir.prop(name, inheritable)?.map(|(v, source)| match source {
            Source::Inherited(from) => (v, Source::Inherited(from)),
            _ => (v, Source::Inherited(self.dir.name.clone())),
        }))
    }
}
