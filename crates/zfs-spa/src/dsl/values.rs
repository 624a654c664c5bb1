//! Values of all properties of a dataset, raw, with where each comes from: what `zfs get -p` prints before names are
//! put to numbers. Whether it is mounted, and options a mount overrides, are the daemon's to add.

use super::bookmark::Bookmark;
use super::dataset::{Dataset, DatasetKind};
use super::figures::{self, Sizes, phys_of};
use super::native::{COMPUTED, FS, Preset, SETTABLE, SNAP, VOL};
use super::props::{PropValue, Source};
use crate::keys::CryptInfo;
use crate::pool::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use zfs_dmu::{Result, Zap};
use zfs_phys::dsl::{DD_FLAG_USED_BREAKDOWN, ZBM_FLAG_HAS_FBN, field};
use zfs_phys::enums::ObjsetType;

/// Object of a file system's master node, and of a volume's data.
const MASTER_NODE: u64 = 1;
/// Object of a volume's attributes.
const ZVOL_ZAP: u64 = 2;
/// Block size a volume has unless told otherwise.
const ZVOL_BLOCK: u64 = 16 << 10;
/// Numbers that mean encryption is off, and that nothing is stored about it.
const CRYPT_OFF: u64 = 2;

/// A property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Value in force. Sizes in bytes, times in seconds since 1970, ratios times 100, enumerations as stored.
    pub value: PropValue,
    /// Where it comes from.
    pub source: Source,
    /// Value that was received, in force or not.
    pub received: Option<PropValue>,
}

fn fixed(value: PropValue) -> Property {
    Property { value, source: Source::None, received: None }
}

fn number(n: u64) -> Property {
    fixed(PropValue::Number(n))
}

fn text(t: impl Into<String>) -> Property {
    fixed(PropValue::Text(t.into()))
}

fn preset(p: Preset) -> Property {
    let value = match p {
        Preset::Number(n) => PropValue::Number(n),
        Preset::Text(t) => PropValue::Text(t.to_owned()),
    };
    Property { value, source: Source::Default, received: None }
}

fn ratio(uncompressed: u64, compressed: u64) -> u64 {
    uncompressed.saturating_mul(100).checked_div(compressed).unwrap_or(100)
}

/// A dataset and what its properties are computed from, each read at most once.
pub struct View<'a> {
    pool: &'a Pool,
    ds: &'a Arc<Dataset>,
    kind: DatasetKind,
    /// The kind's bit.
    bit: u8,
    /// The bit of the kind that it is a snapshot of, or its own.
    head: u8,
    crypt: OnceLock<Option<CryptInfo>>,
}

impl<'a> View<'a> {
    /// A view of `ds`.
    pub fn new(pool: &'a Pool, ds: &'a Arc<Dataset>) -> Result<Self> {
        let kind = ds.kind()?;
        let head = if ds.objset_type()? == ObjsetType::Zvol { VOL } else { FS };
        let bit = if kind == DatasetKind::Snapshot { SNAP } else { head };
        Ok(Self { pool, ds, kind, bit, head, crypt: OnceLock::new() })
    }

    /// What the dataset is.
    pub fn kind(&self) -> DatasetKind {
        self.kind
    }

    fn applies(&self, kinds: u8) -> bool {
        // What only snapshots have, snapshots of both kinds have.
        kinds & self.bit != 0 && (kinds == SNAP || kinds & self.head != 0)
    }

    fn crypt(&self) -> Result<Option<&CryptInfo>> {
        if self.crypt.get().is_none() {
            let info = CryptInfo::of(self.pool, &self.ds.dir)?;
            let _ = self.crypt.set(info);
        }
        Ok(self.crypt.get().and_then(Option::as_ref))
    }

    /// One property by name; nothing when the dataset does not have it.
    pub fn get(&self, name: &str) -> Result<Option<Property>> {
        if let Some(def) = SETTABLE.iter().find(|d| d.name == name) {
            return if self.applies(def.kinds) {
                Ok(Some(self.stored(name, def.inherit)?.unwrap_or_else(|| preset(def.preset))))
            } else {
                Ok(None)
            };
        }
        if let Some((_, kinds)) = COMPUTED.iter().find(|(n, _)| *n == name) {
            return if self.applies(*kinds) { self.computed(name) } else { Ok(None) };
        }
        if name.contains(':') {
            return self.stored(name, true);
        }
        if let Some(since) = name.strip_prefix("written@").or_else(|| name.strip_prefix("written#")) {
            return self.written_since(since, name.starts_with("written#"));
        }
        if name.contains('@') {
            return super::accounting::property(self.pool, self.ds, name).map(|v| v.map(number));
        }
        Ok(None)
    }

    /// All properties, user properties included.
    pub fn all(&self) -> Result<BTreeMap<String, Property>> {
        let names = SETTABLE.iter().map(|d| d.name).chain(COMPUTED.iter().map(|(n, _)| *n));
        let mut out = BTreeMap::new();
        for name in names {
            if let Some(p) = self.get(name)? {
                out.insert(name.to_owned(), p);
            }
        }
        for name in self.user_names()? {
            if let Some(p) = self.stored(&name, true)? {
                out.insert(name, p);
            }
        }
        Ok(out)
    }

    fn user_names(&self) -> Result<BTreeSet<String>> {
        let mut out: BTreeSet<String> = self.ds.own_props()?.user_names().map(str::to_owned).collect();
        let mut dir = Some(self.ds.dir.clone());
        while let Some(d) = dir {
            out.extend(d.props()?.user_names().map(str::to_owned));
            dir = d.parent.clone();
        }
        Ok(out)
    }

    /// A property as the property objects say.
    fn stored(&self, name: &str, inherit: bool) -> Result<Option<Property>> {
        let received = if self.ds.is_snapshot() {
            self.ds.own_props()?.received(name).cloned()
        } else {
            self.ds.dir.props()?.received(name).cloned()
        };
        Ok(self.ds.prop(name, inherit)?.map(|(value, source)| Property { value, source, received }))
    }

    /// A number kept outside of the property objects, which only lend it a source; without one, `default` is the
    /// default and everything else was set here.
    fn kept(&self, name: &str, value: u64, default: u64) -> Result<Property> {
        let source = match self.ds.prop(name, false)? {
            Some((_, source)) => source,
            None if value == default => Source::Default,
            None => Source::Local,
        };
        Ok(Property { value: PropValue::Number(value), source, received: None })
    }

    fn computed(&self, name: &str) -> Result<Option<Property>> {
        let (ds, phys, dd) = (self.ds, &self.ds.phys, &self.ds.dir.phys);
        let snapshot = self.kind == DatasetKind::Snapshot;
        let breakdown = |n: u64| (dd.flags & DD_FLAG_USED_BREAKDOWN != 0).then(|| number(n));
        Ok(match name {
            "type" => Some(text(self.kind.name())),
            "creation" => Some(number(phys.creation_time)),
            "createtxg" => Some(number(phys.creation_txg)),
            "guid" => Some(number(phys.guid)),
            "objsetid" => Some(number(ds.object)),
            "used" => Some(number(if snapshot { phys.unique_bytes } else { dd.used_bytes })),
            "available" => Some(number(self.available()?)),
            "referenced" => Some(number(phys.referenced_bytes)),
            "unique" => Some(number(phys.unique_bytes)),
            "logicalused" => Some(number(dd.uncompressed_bytes)),
            "logicalreferenced" => Some(number(phys.uncompressed_bytes)),
            "refcompressratio" => Some(number(ratio(phys.uncompressed_bytes, phys.compressed_bytes))),
            "compressratio" if snapshot => Some(number(ratio(phys.uncompressed_bytes, phys.compressed_bytes))),
            "compressratio" => Some(number(ratio(dd.uncompressed_bytes, dd.compressed_bytes))),
            "usedbysnapshots" => breakdown(dd.breakdown.snap),
            "usedbydataset" => breakdown(dd.breakdown.head),
            "usedbychildren" => breakdown(dd.breakdown.child.saturating_add(dd.breakdown.child_reserved)),
            "usedbyrefreservation" => breakdown(dd.breakdown.ref_reserved),
            "quota" => Some(self.kept(name, dd.quota, 0)?),
            "reservation" => Some(self.kept(name, dd.reserved, 0)?),
            "written" => ds.written()?.map(number),
            "defer_destroy" => Some(number(u64::from(ds.is_deferred_destroy()))),
            "inconsistent" => Some(number(u64::from(ds.is_inconsistent()))),
            "userrefs" => Some(number(ds.holds()?.len() as u64)),
            "numclones" => Some(number(phys.num_children.saturating_sub(1))),
            "filesystem_count" => Some(self.count(field::FILESYSTEM_COUNT)?),
            "snapshot_count" => Some(self.count(field::SNAPSHOT_COUNT)?),
            "snapshots_changed" => {
                let words = ds.dir.field_words(field::SNAPSHOTS_CHANGED)?.unwrap_or_default();
                words.first().filter(|s| **s != 0).map(|s| number(*s))
            }
            "mountpoint" => Some(self.mountpoint()?),
            "version" | "utf8only" | "normalization" | "casesensitivity" => self.fixed_at_creation(name)?,
            "volsize" | "volblocksize" => self.volume(name)?,
            "receive_resume_token" => super::token::resume_token(ds)?.map(text),
            "redacted" => Some(number(u64::from(ds.redacted_against()?.is_some()))),
            "redact_snaps" => ds.redacted_against()?.map(|guids| text(join(&guids))),
            "origin" | "prevsnap" | "clones" => self.relatives(name)?,
            _ => self.encryption(name)?,
        })
    }

    fn available(&self) -> Result<u64> {
        let mut avail = figures::available(self.pool, &self.ds.dir)?;
        let own =
            |name: &str| -> Result<u64> { Ok(self.ds.prop(name, false)?.and_then(|(v, _)| v.number()).unwrap_or(0)) };
        avail = avail.saturating_add(own("refreservation")?.saturating_sub(self.ds.phys.unique_bytes));
        let quota = own("refquota")?;
        if quota != 0 {
            avail = avail.min(quota.saturating_sub(self.ds.phys.referenced_bytes));
        }
        Ok(avail)
    }

    fn count(&self, key: &str) -> Result<Property> {
        Ok(match self.ds.dir.field(key)? {
            Some(n) => Property { value: PropValue::Number(n), source: Source::Local, received: None },
            None => preset(Preset::Number(u64::MAX)),
        })
    }

    /// The effective mountpoint: what is inherited gets the rest of the name appended, what is a path the altroot in
    /// front.
    fn mountpoint(&self) -> Result<Property> {
        let mut p = self.stored("mountpoint", true)?.unwrap_or_else(|| preset(Preset::Text("/")));
        let Some(path) = p.value.text() else { return Ok(p) };
        if !path.starts_with('/') {
            return Ok(p);
        }
        let name = self.ds.head_name();
        let rest = match &p.source {
            Source::Inherited(from) => name.get(from.len()..).unwrap_or_default(),
            Source::Default => name,
            _ => "",
        };
        let rest = rest.trim_start_matches('/');
        let root = self.pool.altroot().map(|r| r.trim_end_matches('/')).unwrap_or_default();
        let base = if path == "/" { "" } else { path };
        let full = if rest.is_empty() { format!("{root}{path}") } else { format!("{root}{base}/{rest}") };
        // An altroot in front of "/" is itself the path.
        let full = if root.is_empty() || path != "/" || !rest.is_empty() { full } else { root.to_owned() };
        p.value = PropValue::Text(full);
        Ok(p)
    }

    fn fixed_at_creation(&self, name: &str) -> Result<Option<Property>> {
        let objset = self.ds.open_without_key()?;
        if objset.phys().os_type != ObjsetType::Zfs {
            return Ok(None);
        }
        let key = if name == "version" { "VERSION" } else { name };
        // A file system that is being received for the first time has no master node yet.
        let Ok(zap) = Zap::open(&objset, MASTER_NODE) else { return Ok(None) };
        let value = zap.lookup_u64(key.as_bytes())?;
        Ok(match (name, value) {
            ("version", None) => None,
            (_, v) => Some(number(v.unwrap_or(0))),
        })
    }

    fn volume(&self, name: &str) -> Result<Option<Property>> {
        let objset = self.ds.open_without_key()?;
        if objset.phys().os_type != ObjsetType::Zvol {
            return Ok(None);
        }
        if name == "volsize" {
            let size = Zap::open(&objset, ZVOL_ZAP)?.lookup_u64(b"size")?;
            return Ok(size.map(|n| Property { value: PropValue::Number(n), source: Source::Local, received: None }));
        }
        let size = objset.dnode(MASTER_NODE)?.datablksz();
        let source = if size == ZVOL_BLOCK { Source::Default } else { Source::None };
        Ok(Some(Property { value: PropValue::Number(size), source, received: None }))
    }

    fn relatives(&self, name: &str) -> Result<Option<Property>> {
        let dsl = self.pool.dsl()?;
        let name_of = |object: u64| -> Result<Option<Property>> {
            let ds = if object == 0 { None } else { dsl.by_object(object)? };
            Ok(ds.filter(|d| !d.name.contains('$')).map(|d| text(d.name.clone())))
        };
        match name {
            "origin" => name_of(self.ds.dir.phys.origin_obj),
            "prevsnap" => name_of(self.ds.phys.prev_snap_obj),
            _ => {
                let object = self.ds.phys.next_clones_obj;
                if object == 0 || self.ds.phys.num_children < 2 {
                    return Ok(None);
                }
                let mut names = Vec::new();
                for entry in Zap::open(self.ds.mos(), object)?.iter() {
                    // Entries are the oldest datasets of clones, which may be snapshots of them by now.
                    names.extend(dsl.by_object(entry?.value.first())?.map(|d| d.dir.name.clone()));
                }
                Ok((!names.is_empty()).then(|| text(names.join(","))))
            }
        }
    }

    fn encryption(&self, name: &str) -> Result<Option<Property>> {
        let info = self.crypt()?;
        let or_default = |value: Option<u64>, default: u64| match value {
            Some(n) if n != default => number(n),
            _ => preset(Preset::Number(default)),
        };
        Ok(match (name, info) {
            ("encryption", info) => Some(or_default(info.map(|i| i.suite), CRYPT_OFF)),
            ("keyformat", info) => Some(or_default(info.and_then(|i| i.format).map(|f| f as u64 + 1), 0)),
            ("pbkdf2iters", info) => Some(or_default(info.and_then(|i| i.iters), 0)),
            (_, None) => None,
            ("pbkdf2salt", Some(i)) => i.salt.map(number),
            ("keyguid", Some(i)) => Some(number(i.guid)),
            ("keystatus", Some(i)) => Some(number(if self.pool.key_is_loaded(i) { 2 } else { 1 })),
            ("encryptionroot", Some(i)) => self.pool.encryption_root_name(&*self.pool.dsl()?, i)?.map(text),
            ("ivsetguid", Some(_)) => self.ds.field(field::IVSET_GUID)?.map(number),
            _ => None,
        })
    }

    /// `written@SNAP` and `written#MARK`.
    fn written_since(&self, since: &str, bookmark: bool) -> Result<Option<Property>> {
        let head = self.pool.dsl()?.dataset(self.ds.head_name())?;
        let Some(head) = head else { return Ok(None) };
        if bookmark {
            let full = format!("{}#{since}", head.name);
            let Some(mark) = head.bookmarks()?.into_iter().find(|m| m.name == full) else { return Ok(None) };
            if mark.phys.flags & ZBM_FLAG_HAS_FBN == 0 {
                return Ok(None);
            }
            let of = |[used, comp, uncomp]: [u64; 3]| Sizes { used, comp, uncomp };
            let freed = Some(of(mark.phys.freed_before_next_snap));
            let sum = figures::written_since(self.ds, mark.phys.creation_txg, of(mark.phys.referenced), freed)?;
            return Ok(Some(number(sum.used)));
        }
        let object = match head.snapshot_objects()?.get(since) {
            Some(object) => *object,
            None => return Ok(None),
        };
        let p = phys_of(self.ds.mos(), object)?;
        if p.creation_txg >= self.ds.phys.creation_txg && self.ds.is_snapshot() {
            return Ok(None);
        }
        let old = Sizes { used: p.referenced_bytes, comp: p.compressed_bytes, uncomp: p.uncompressed_bytes };
        figures::written_since(self.ds, p.creation_txg, old, None).map(|s| Some(number(s.used)))
    }
}

fn join(guids: &[u64]) -> String {
    guids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

impl Pool {
    /// All properties of a dataset by name.
    pub fn properties(&self, ds: &Arc<Dataset>) -> Result<BTreeMap<String, Property>> {
        View::new(self, ds)?.all()
    }

    /// One property of a dataset; nothing when it does not have it.
    pub fn property(&self, ds: &Arc<Dataset>, name: &str) -> Result<Option<Property>> {
        View::new(self, ds)?.get(name)
    }

    /// All properties of a bookmark of `ds` by name.
    pub fn bookmark_properties(&self, ds: &Arc<Dataset>, mark: &Bookmark) -> Result<BTreeMap<String, Property>> {
        let p = &mark.phys;
        let mut out = BTreeMap::from([
            ("type".to_owned(), text("bookmark")),
            ("creation".to_owned(), number(p.creation_time)),
            ("createtxg".to_owned(), number(p.creation_txg)),
            ("guid".to_owned(), number(p.guid)),
        ]);
        if p.has_referenced() {
            let [used, comp, uncomp] = p.referenced;
            out.insert("referenced".to_owned(), number(used));
            out.insert("logicalreferenced".to_owned(), number(uncomp));
            out.insert("refcompressratio".to_owned(), number(ratio(uncomp, comp)));
        }
        if p.ivset_guid != 0 {
            out.insert("ivsetguid".to_owned(), number(p.ivset_guid));
        }
        if let Some(snaps) = ds.redaction_snaps(mark)? {
            out.insert("redact_snaps".to_owned(), text(join(&snaps)));
        }
        Ok(out)
    }
}
