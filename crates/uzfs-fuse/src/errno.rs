//! The one place where the engine's error kinds become error numbers of the operating system.

use zfs_zio::ErrorKind;

/// The error number that a system call should fail with.
pub const fn of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::Io
        | ErrorKind::Checksum
        | ErrorKind::Corrupt
        | ErrorKind::Auth
        | ErrorKind::NoDevice
        | ErrorKind::TooManyMissing
        | ErrorKind::Suspended
        | ErrorKind::Bug => libc::EIO,
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::KeyUnavailable | ErrorKind::Access => libc::EACCES,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        ErrorKind::Invalid => libc::EINVAL,
        ErrorKind::ReadOnly => libc::EROFS,
        ErrorKind::Exists => libc::EEXIST,
        ErrorKind::NotDir => libc::ENOTDIR,
        ErrorKind::IsDir => libc::EISDIR,
        ErrorKind::NotEmpty => libc::ENOTEMPTY,
        ErrorKind::NameTooLong => libc::ENAMETOOLONG,
        ErrorKind::Busy | ErrorKind::ForeignHost | ErrorKind::ActiveHost => libc::EBUSY,
        ErrorKind::Interrupted => libc::EINTR,
        ErrorKind::NoData => libc::ENXIO,
        ErrorKind::NoSpace => libc::ENOSPC,
        ErrorKind::Quota => libc::EDQUOT,
        ErrorKind::Range => libc::ERANGE,
        ErrorKind::Loop => libc::ELOOP,
        ErrorKind::Stale => libc::ESTALE,
        ErrorKind::Permission => libc::EPERM,
        ErrorKind::IllegalSequence => libc::EILSEQ,
        ErrorKind::CrossDevice => libc::EXDEV,
        ErrorKind::TooBig => libc::EFBIG,
    }
}

/// As [`of`], for an extended attribute that is not there.
pub const fn of_xattr(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => libc::ENODATA,
        other => of(other),
    }
}
