//! The native properties of file systems, volumes and snapshots that can be set: which kinds have them, what they are
//! where nothing is set, and whether they are inherited (module/zcommon/zfs_prop.c).

/// File systems have the property.
pub(crate) const FS: u8 = 1;
/// Volumes have it.
pub(crate) const VOL: u8 = 2;
/// Snapshots have it.
pub(crate) const SNAP: u8 = 4;

/// A value where nothing is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preset {
    Number(u64),
    Text(&'static str),
}

/// A settable property.
pub(crate) struct Settable {
    pub name: &'static str,
    pub kinds: u8,
    pub preset: Preset,
    pub inherit: bool,
}

const fn num(name: &'static str, kinds: u8, value: u64) -> Settable {
    Settable { name, kinds, preset: Preset::Number(value), inherit: true }
}

const fn text(name: &'static str, kinds: u8, value: &'static str) -> Settable {
    Settable { name, kinds, preset: Preset::Text(value), inherit: true }
}

const fn own(mut prop: Settable) -> Settable {
    prop.inherit = false;
    prop
}

/// Properties whose value is what the property objects say and nothing else.
pub(crate) const SETTABLE: &[Settable] = &[
    num("recordsize", FS, 128 << 10),
    text("sharenfs", FS, "off"),
    num("checksum", FS | VOL, 1),
    num("compression", FS | VOL, 1),
    num("atime", FS, 1),
    num("devices", FS | SNAP, 1),
    num("exec", FS | SNAP, 1),
    num("setuid", FS | SNAP, 1),
    num("readonly", FS | VOL, 0),
    num("zoned", FS, 0),
    num("snapdir", FS, 0),
    num("aclmode", FS, 0),
    num("aclinherit", FS, 4),
    own(num("canmount", FS, 1)),
    num("xattr", FS | SNAP, 2),
    num("copies", FS | VOL, 1),
    num("vscan", FS, 0),
    num("nbmand", FS | SNAP, 0),
    text("sharesmb", FS, "off"),
    own(num("refquota", FS, 0)),
    own(num("refreservation", FS | VOL, 0)),
    num("primarycache", FS | VOL | SNAP, 2),
    num("secondarycache", FS | VOL | SNAP, 2),
    num("logbias", FS | VOL, 0),
    num("dedup", FS | VOL, 2),
    text("mlslabel", FS | VOL | SNAP, "none"),
    num("sync", FS | VOL, 0),
    num("dnodesize", FS, 0),
    num("volmode", FS | VOL, 0),
    own(num("filesystem_limit", FS, u64::MAX)),
    own(num("snapshot_limit", FS | VOL, u64::MAX)),
    num("snapdev", FS | VOL, 0),
    num("acltype", FS | SNAP, 0),
    own(text("context", FS | VOL | SNAP, "none")),
    own(text("fscontext", FS | VOL | SNAP, "none")),
    own(text("defcontext", FS | VOL | SNAP, "none")),
    own(text("rootcontext", FS | VOL | SNAP, "none")),
    num("relatime", FS, 1),
    num("redundant_metadata", FS | VOL, 0),
    num("overlay", FS, 1),
    own(text("keylocation", FS | VOL, "none")),
    num("special_small_blocks", FS, 0),
    num("prefetch", FS | VOL | SNAP, 2),
    own(num("volthreading", VOL, 1)),
    num("direct", FS, 1),
    num("longname", FS, 0),
];

/// Properties that are computed or kept elsewhere, hidden ones included.
pub(crate) const COMPUTED: &[(&str, u8)] = &[
    ("type", FS | VOL | SNAP),
    ("creation", FS | VOL | SNAP),
    ("used", FS | VOL | SNAP),
    ("available", FS | VOL),
    ("referenced", FS | VOL | SNAP),
    ("compressratio", FS | VOL | SNAP),
    ("origin", FS | VOL),
    ("quota", FS),
    ("reservation", FS | VOL),
    ("volsize", VOL | SNAP),
    ("volblocksize", VOL),
    ("mountpoint", FS),
    ("createtxg", FS | VOL | SNAP),
    ("version", FS | SNAP),
    ("utf8only", FS | SNAP),
    ("normalization", FS | SNAP),
    ("casesensitivity", FS | SNAP),
    ("guid", FS | VOL | SNAP),
    ("usedbysnapshots", FS | VOL),
    ("usedbydataset", FS | VOL),
    ("usedbychildren", FS | VOL),
    ("usedbyrefreservation", FS | VOL),
    ("defer_destroy", SNAP),
    ("userrefs", SNAP),
    ("unique", FS | VOL | SNAP),
    ("objsetid", FS | VOL | SNAP),
    ("refcompressratio", FS | VOL | SNAP),
    ("written", FS | VOL | SNAP),
    ("clones", SNAP),
    ("numclones", SNAP),
    ("logicalused", FS | VOL),
    ("logicalreferenced", FS | VOL | SNAP),
    ("inconsistent", FS | VOL | SNAP),
    ("filesystem_count", FS),
    ("snapshot_count", FS | VOL),
    ("prevsnap", FS | VOL),
    ("receive_resume_token", FS | VOL),
    ("encryption", FS | VOL | SNAP),
    ("keyformat", FS | VOL),
    ("pbkdf2salt", FS | VOL),
    ("pbkdf2iters", FS | VOL),
    ("encryptionroot", FS | VOL | SNAP),
    ("keyguid", FS | VOL | SNAP),
    ("keystatus", FS | VOL | SNAP),
    ("ivsetguid", FS | VOL | SNAP),
    ("redacted", FS | VOL | SNAP),
    ("redact_snaps", FS | VOL | SNAP),
    ("snapshots_changed", FS | VOL),
];
