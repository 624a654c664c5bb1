//! Datasets and properties as the contract shows them.

use crate::U64;
use crate::schema::{contract_enums, contract_structs};
use std::collections::BTreeMap;

contract_enums! {
    /// Kind of a dataset.
    pub enum DatasetKind {
        /// File system.
        Filesystem = "filesystem",
        /// Volume.
        Volume = "volume",
        /// Snapshot.
        Snapshot = "snapshot",
        /// Bookmark.
        Bookmark = "bookmark",
    }

    /// Where a value comes from (`zprop_source_t`).
    pub enum PropertySource {
        /// Not settable, has no source.
        None = "none",
        /// Default value.
        Default = "default",
        /// Valid for this mount only.
        Temporary = "temporary",
        /// Set here.
        Local = "local",
        /// Set on the ancestor named in `from`.
        Inherited = "inherited",
        /// Came with a received stream.
        Received = "received",
    }
}

contract_structs! {
    /// A raw value: exactly one field is set, or none if the property has no value here.
    #[derive(Default)]
    pub struct Raw {
        /// Numeric and boolean values and enumerations, as stored.
        pub number: Option<U64>,
        /// Text, also the names of enumerations where the daemon already knows them.
        pub text: Option<String>,
    }

    /// A property with its source.
    pub struct Property {
        /// Value in force.
        pub value: Raw,
        /// Where it comes from.
        pub source: PropertySource,
        /// Ancestor it is inherited from.
        pub from: Option<String>,
        /// Value that was received, if any.
        pub received: Option<Raw>,
    }

    /// A dataset, snapshot or bookmark with the properties asked for.
    pub struct Dataset {
        /// Full name, `pool/fs`, `pool/fs@snap` or `pool/fs#mark`.
        pub name: String,
        /// Kind.
        pub kind: DatasetKind,
        /// Identity.
        pub guid: U64,
        /// Transaction group of its creation; orders snapshots.
        pub createtxg: U64,
        /// Internal state that is hidden from listings: being received for the first time.
        pub inconsistent: bool,
        /// Properties by OpenZFS name. Numbers are raw: bytes, seconds since 1970, ratios times 100.
        /// `mountpoint` is the effective path, inherited tail and altroot included. What does not
        /// apply to the dataset is missing. Settable properties at their default may be missing too,
        /// except on snapshots, where missing means not applicable.
        pub properties: BTreeMap<String, Property>,
    }

    /// A dataset that is mounted.
    pub struct MountEntry {
        /// Dataset or snapshot.
        pub dataset: String,
        /// Absolute path.
        pub mountpoint: String,
        /// Mount options in force, such as `ro`, `noatime`.
        pub options: Vec<String>,
        /// A front end of its own serves it (see Publish): the system's `umount` ends it, not Unmount.
        pub frontend: bool,
    }
}

impl Raw {
    /// A number.
    pub fn number(n: u64) -> Self {
        Raw { number: Some(U64(n)), text: None }
    }

    /// A text.
    pub fn text(t: impl Into<String>) -> Self {
        Raw { number: None, text: Some(t.into()) }
    }

    /// The value as a number, whichever way it was sent.
    pub fn as_u64(&self) -> Option<u64> {
        match (&self.number, &self.text) {
            (Some(n), _) => Some(n.0),
            (None, Some(t)) => t.parse().ok(),
            (None, None) => None,
        }
    }
}

impl Property {
    /// A read-only value.
    pub fn fixed(value: Raw) -> Self {
        Property { value, source: PropertySource::None, from: None, received: None }
    }

    /// A value with a source that needs no name.
    pub fn with(value: Raw, source: PropertySource) -> Self {
        Property { value, source, from: None, received: None }
    }

    /// A value inherited from `from`.
    pub fn inherited(value: Raw, from: impl Into<String>) -> Self {
        Property { value, source: PropertySource::Inherited, from: Some(from.into()), received: None }
    }
}
