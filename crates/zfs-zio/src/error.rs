//! The one error of the engine: a small stable kind, what was being done to what, and why it failed.
//!
//! Layers above add context to an error that passes through; they do not wrap it in types of their own. Front ends
//! map [`ErrorKind`] to errno or to the contract's codes, and print the context for people.

use crate::bookmark::Zbookmark;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Shorthand for results of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is; stable, and all that programs should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A device refused a read, and no other copy was left.
    Io,
    /// No copy of the block matches its checksum.
    Checksum,
    /// A structure makes no sense.
    Corrupt,
    /// There is no such object, name or attribute.
    NotFound,
    /// The dataset's encryption key is not loaded.
    KeyUnavailable,
    /// A message authentication code does not match, or a key is wrong.
    Auth,
    /// The software does not know a feature or a format.
    Unsupported,
    /// The caller asked for nonsense.
    Invalid,
    /// The thing is read-only.
    ReadOnly,
    /// The name is taken.
    Exists,
    /// Not a directory.
    NotDir,
    /// A directory.
    IsDir,
    /// A directory that is not empty.
    NotEmpty,
    /// The name is too long.
    NameTooLong,
    /// Permission denied.
    Access,
    /// In use.
    Busy,
    /// A device is not there.
    NoDevice,
    /// More devices are missing than the redundancy covers.
    TooManyMissing,
    /// The pool was last used by another host and not exported.
    ForeignHost,
    /// Another host is using the pool right now.
    ActiveHost,
    /// The operation was asked to stop.
    Interrupted,
    /// The range holds no data (seek for data).
    NoData,
    /// No space left.
    NoSpace,
    /// Over quota.
    Quota,
    /// The value does not fit the caller's buffer or type.
    Range,
    /// Too many links, levels or nested things.
    Loop,
    /// The handle stands for something that is gone.
    Stale,
    /// Forbidden by the file itself, whoever asks.
    Permission,
    /// A name that is not in the encoding the dataset demands.
    IllegalSequence,
    /// Source and target do not belong together.
    CrossDevice,
    /// Larger than files can be.
    TooBig,
    /// Too many devices of the pool have failed; it waits for them.
    Suspended,
    /// An invariant of this software is broken.
    Bug,
}

impl ErrorKind {
    /// A few words about the kind.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Io => "I/O error",
            Self::Checksum => "checksum mismatch",
            Self::Corrupt => "corrupt structure",
            Self::NotFound => "not found",
            Self::KeyUnavailable => "encryption key not loaded",
            Self::Auth => "authentication failed",
            Self::Unsupported => "not supported",
            Self::Invalid => "invalid argument",
            Self::ReadOnly => "read-only",
            Self::Exists => "already exists",
            Self::NotDir => "not a directory",
            Self::IsDir => "is a directory",
            Self::NotEmpty => "not empty",
            Self::NameTooLong => "name too long",
            Self::Access => "permission denied",
            Self::Busy => "busy",
            Self::NoDevice => "device not available",
            Self::TooManyMissing => "too many devices missing",
            Self::ForeignHost => "last used by another host",
            Self::ActiveHost => "in use by another host",
            Self::Interrupted => "interrupted",
            Self::NoData => "no data",
            Self::NoSpace => "no space left",
            Self::Quota => "quota exceeded",
            Self::Range => "out of range",
            Self::Loop => "too many levels",
            Self::Stale => "stale handle",
            Self::Permission => "operation not permitted",
            Self::IllegalSequence => "illegal byte sequence",
            Self::CrossDevice => "not on the same device",
            Self::TooBig => "file too large",
            Self::Suspended => "pool I/O is currently suspended",
            Self::Bug => "broken invariant",
        }
    }
}

/// A failure with its context. Cheap to move, clonable (many readers may wait for the same failing block).
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    pool: Option<Arc<str>>,
    vdev: Option<u64>,
    bookmark: Option<Zbookmark>,
    offset: Option<u64>,
    txg: Option<u64>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` while doing `operation` ("reading the label", "looking up a name").
    pub fn new(kind: ErrorKind, operation: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: operation.into(),
            pool: None,
            vdev: None,
            bookmark: None,
            offset: None,
            txg: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Corrupt`].
    pub fn corrupt(operation: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, operation)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(operation: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::NotFound, operation)
    }

    /// [`ErrorKind::Invalid`].
    pub fn invalid(operation: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, operation)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(operation: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, operation)
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The block concerned, if it was one.
    pub fn bookmark(&self) -> Option<Zbookmark> {
        self.0.bookmark
    }

    /// Guid of the vdev concerned, if it was one.
    pub fn vdev(&self) -> Option<u64> {
        self.0.vdev
    }

    /// Replaces the kind, keeping the context.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Puts `operation` in front of what is said already.
    #[must_use]
    pub fn context(mut self, operation: impl fmt::Display) -> Self {
        self.0.operation = format!("{operation}: {}", self.0.operation).into();
        self
    }

    /// Names the pool, unless one is named already.
    #[must_use]
    pub fn pool(mut self, name: &Arc<str>) -> Self {
        self.0.pool.get_or_insert_with(|| name.clone());
        self
    }

    /// Names the vdev by guid.
    #[must_use]
    pub fn on_vdev(mut self, guid: u64) -> Self {
        self.0.vdev = Some(guid);
        self
    }

    /// Names the block, unless one is named already.
    #[must_use]
    pub fn at(mut self, bookmark: &Zbookmark) -> Self {
        self.0.bookmark.get_or_insert(*bookmark);
        self
    }

    /// Names a byte offset.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        self.0.offset = Some(offset);
        self
    }

    /// Names a transaction group.
    #[must_use]
    pub fn txg(mut self, txg: u64) -> Self {
        self.0.txg = Some(txg);
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &self.0;
        if let Some(pool) = &e.pool {
            write!(f, "{pool}: ")?;
        }
        write!(f, "{}: {}", e.operation, e.kind.text())?;
        if let Some(vdev) = e.vdev {
            write!(f, ", vdev {vdev:#x}")?;
        }
        if let Some(b) = &e.bookmark {
            write!(f, ", block {b}")?;
        }
        if let Some(offset) = e.offset {
            write!(f, ", offset {offset:#x}")?;
        }
        if let Some(txg) = e.txg {
            write!(f, ", txg {txg}")?;
        }
        if let Some(source) = &e.source {
            write!(f, " ({source})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error[{:?}] {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}

impl From<zfs_phys::DecodeError> for Error {
    fn from(e: zfs_phys::DecodeError) -> Self {
        Self::corrupt(e.what).because(e)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let kind = if e.kind() == std::io::ErrorKind::ResourceBusy { ErrorKind::Busy } else { ErrorKind::Io };
        Self::new(kind, "device").because(e)
    }
}
