//! Properties of a pool, raw, with where each comes from: what `zpool get -p` prints before names are put to numbers.

use crate::dsl::{PropValue, Property, Source};
use crate::pool::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::{Result, Zap};
use zfs_phys::feature::{FEATURES, Feature};
use zfs_phys::label::VDEV_LABEL_SIZE;
use zfs_zio::{Vdev, VdevKind};

/// Version of pools with feature flags.
const VERSION_FEATURES: u64 = 5000;
/// Numbers in the pool's property object, and what they are where nothing is set.
const STORED: &[(&str, u64)] = &[
    ("delegation", 1),
    ("autoreplace", 0),
    ("failmode", 0),
    ("listsnapshots", 0),
    ("autoexpand", 0),
    ("multihost", 0),
    ("autotrim", 0),
    ("ashift", 0),
    ("dedup_table_quota", u64::MAX),
];

fn number(n: u64) -> Property {
    Property { value: PropValue::Number(n), source: Source::None, received: None }
}

fn text(t: impl Into<String>, source: Source) -> Property {
    Property { value: PropValue::Text(t.into()), source, received: None }
}

fn settable(n: u64, default: u64) -> Property {
    let source = if n == default { Source::Default } else { Source::Local };
    Property { value: PropValue::Number(n), source, received: None }
}

impl Pool {
    /// All properties of the pool by name, features as `feature@NAME`, unknown ones as `unsupported@GUID`. Texts without
    /// a value are `-`; fragmentation that is not known is all ones; no checkpoint, nothing to expand are 0.
    pub fn pool_properties(&self) -> Result<BTreeMap<String, Property>> {
        let mut out = BTreeMap::new();
        let mut put = |name: &str, p: Property| drop(out.insert(name.to_owned(), p));
        let space = self.space()?;
        let (dedup, clones) = (self.dedup()?, self.clones()?);
        put("name", text(self.name().to_string(), Source::None));
        put("size", number(space.size));
        put("allocated", number(space.alloc));
        put("free", number(space.size.saturating_sub(space.alloc)));
        put("capacity", number(space.alloc.saturating_mul(100).checked_div(space.size).unwrap_or(0)));
        put("fragmentation", number(space.fragmentation.unwrap_or(u64::MAX)));
        put("expandsize", number(space.expandable));
        put("checkpoint", number(space.checkpoint));
        put("dedupratio", number(dedup.ratio()));
        put("dedup_table_size", number(dedup.disk_size));
        put("bcloneused", number(clones.used));
        put("bclonesaved", number(clones.saved));
        put("bcloneratio", number(clones.ratio()));
        put("freeing", number(self.freeing()?));
        put("leaked", number(self.internal_used("$LEAK")?));
        let root = self.zio().vdevs().root();
        put("health", text(root.state().name(root.aux()), Source::None));
        put("guid", number(self.guid()));
        put("load_guid", number(self.load_guid()));
        put("readonly", number(u64::from(!self.zio().is_writable() && !self.zio().is_suspended())));
        put("version", settable(self.version(), VERSION_FEATURES));
        put("last_scrubbed_txg", number(self.directory().lookup_u64(b"last_scrubbed_txg")?.unwrap_or(0)));
        self.texts(&mut put);
        self.stored(&mut put)?;
        self.feature_properties(&mut put);
        Ok(out)
    }

    fn texts(&self, put: &mut dyn FnMut(&str, Property)) {
        let optional = |t: Option<&str>, default: &str| match t {
            Some(t) => text(t, Source::Local),
            None => text(default, Source::Default),
        };
        put("altroot", optional(self.altroot(), "-"));
        put("comment", optional(self.config().str("comment"), "-"));
        put("compatibility", optional(self.config().str("compatibility"), "off"));
        // With an altroot no cache file is kept.
        put("cachefile", optional(self.altroot().map(|_| "none"), "-"));
    }

    fn stored(&self, put: &mut dyn FnMut(&str, Property)) -> Result<()> {
        for (name, default) in STORED {
            put(name, settable(*default, *default));
        }
        put("bootfs", text("-", Source::Default));
        let Some(object) = self.directory().lookup_u64(b"pool_props")? else { return Ok(()) };
        for entry in Zap::open(self.mos(), object)?.iter() {
            let entry = entry?;
            let name = String::from_utf8_lossy(entry.name()).into_owned();
            if name == "bootfs" {
                if let Some(ds) = self.dsl()?.by_object(entry.value.first())? {
                    put("bootfs", text(ds.name.clone(), Source::Local));
                }
            } else if entry.value.integer_length == 1 {
                put(&name, text(String::from_utf8_lossy(&entry.value.string()).into_owned(), Source::Local));
            } else if let Some((_, default)) = STORED.iter().find(|(n, _)| *n == name) {
                put(&name, settable(entry.value.first(), *default));
            }
        }
        Ok(())
    }

    fn feature_properties(&self, put: &mut dyn FnMut(&str, Property)) {
        for f in FEATURES {
            put(&format!("feature@{}", f.name), text(self.features().state(f.feature).name(), Source::Local));
        }
        for (guid, count) in self.features().counts() {
            if Feature::by_guid(guid).is_none() {
                let state = if *count == 0 { "inactive" } else { "readonly" };
                put(&format!("unsupported@{guid}"), text(state, Source::Local));
            }
        }
    }

    /// Bytes of what was destroyed and waits to be freed.
    ///
    /// # Errors
    /// When datasets cannot be read.
    pub fn freeing(&self) -> Result<u64> {
        self.internal_used("$FREE")
    }

    /// Bytes used by an internal directory; 0 when there is none.
    fn internal_used(&self, short: &str) -> Result<u64> {
        let dsl = self.dsl()?;
        let dir = dsl.dir(&format!("{}/{short}", self.name()))?;
        Ok(dir.map_or(0, |d| d.phys.used_bytes))
    }

    /// A number that differs between imports.
    pub fn load_guid(&self) -> u64 {
        let at = self.imported_at();
        let mixed = self.guid() ^ at.as_nanos() as u64;
        mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31)
    }
}

/// Space of one vdev as `zpool list -v` shows it (`vdev_stat_t`). Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VdevSpace {
    /// Allocated; top-level vdevs only.
    pub alloc: u64,
    /// Allocatable; top-level vdevs only.
    pub space: u64,
    /// Usable after parity; top-level vdevs only.
    pub dspace: u64,
    /// Size of the device; leaves only.
    pub pspace: u64,
    /// Bytes it could grow by.
    pub expandable: u64,
    /// Fragmentation in percent, when known.
    pub fragmentation: Option<u64>,
    /// Bytes that only the checkpoint references.
    pub checkpoint: u64,
}

fn device_size(vdev: &Vdev) -> u64 {
    vdev.device().map_or(0, |d| d.size() - d.size() % VDEV_LABEL_SIZE)
}

impl Pool {
    fn smallest_below(&self, guid: u64) -> u64 {
        let leaves = self.zio().vdevs().find(guid).map(Vdev::leaves).unwrap_or_default();
        leaves.into_iter().map(device_size).filter(|s| *s != 0).min().unwrap_or(0)
    }

    /// Space of every vdev by guid; the root's is the pool's.
    pub fn vdev_space(self: &Arc<Self>) -> Result<BTreeMap<u64, VdevSpace>> {
        let space = self.space()?;
        let mut out = BTreeMap::new();
        let mut pending = vec![self.zio().vdevs().root()];
        while let Some(vdev) = pending.pop() {
            let pspace = match vdev.config.kind {
                // A distributed spare is as large as the smallest device it is spread over.
                VdevKind::DraidSpare { top_guid, .. } => self.smallest_below(top_guid),
                _ => device_size(vdev),
            };
            out.insert(vdev.guid(), VdevSpace { pspace, ..VdevSpace::default() });
            pending.extend(&vdev.children);
        }
        for (top, vdev) in space.tops.iter().zip(&self.zio().vdevs().root().children) {
            let have: &mut VdevSpace = out.entry(vdev.guid()).or_default();
            have.alloc = top.alloc;
            have.space = top.size;
            have.dspace = top.deflate(top.size);
            have.expandable = top.expandable;
            have.fragmentation = top.fragmentation;
            have.checkpoint = top.checkpoint;
        }
        let whole = VdevSpace {
            alloc: space.alloc,
            space: space.size,
            dspace: space.dspace,
            pspace: 0,
            expandable: space.expandable,
            fragmentation: space.fragmentation,
            checkpoint: space.checkpoint,
        };
        out.insert(self.zio().vdevs().root().guid(), whole);
        Ok(out)
    }
}
