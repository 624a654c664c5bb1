//! Why an operation failed: numbers of the wire, and the error numbers of the operating system they stand for.
//!
//! Error numbers differ between systems (ENOTEMPTY is 39 on Linux and 66 on macOS), so the wire has its own.

/// Error numbers by one name on every system.
mod sys {
    #[cfg(any(target_os = "macos", target_os = "freebsd"))]
    pub use libc::ENOATTR as ENOXATTR;
    pub use libc::*;
    #[cfg(not(any(target_os = "macos", target_os = "freebsd")))]
    pub use libc::{ENODATA as ENOXATTR, ENOKEY as ENEEDAUTH};
}

macro_rules! codes {
    ($( $(#[doc = $d:literal])* $name:ident = $n:literal => $errno:ident; )*) => {
        /// Result code of a reply; 0 on the wire is success.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Code { $( $(#[doc = $d])* $name = $n ),* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The code of a number on the wire. Unknown numbers, which only a newer peer sends, are I/O errors.
            pub const fn from_wire(n: u16) -> Self {
                match n { $( $n => Self::$name, )* _ => Self::Io }
            }

            /// The error number of this operating system.
            pub const fn errno(self) -> i32 {
                match self { $( Self::$name => sys::$errno ),* }
            }

            /// The code of an error number of this operating system.
            pub fn from_errno(errno: i32) -> Self {
                Self::ALL.iter().copied().find(|c| c.errno() == errno).unwrap_or(Self::Io)
            }
        }
    };
}

codes! {
    /// Damaged data, a dead device, or a dead daemon.
    Io = 1 => EIO;
    /// No such name or file.
    NotFound = 2 => ENOENT;
    /// The name is taken.
    Exists = 3 => EEXIST;
    /// Not a directory.
    NotDir = 4 => ENOTDIR;
    /// A directory.
    IsDir = 5 => EISDIR;
    /// A directory that is not empty.
    NotEmpty = 6 => ENOTEMPTY;
    /// The file system or dataset is read-only.
    ReadOnly = 7 => EROFS;
    /// Nonsense was asked for.
    Invalid = 8 => EINVAL;
    /// The server does not do this operation.
    Unsupported = 9 => ENOTSUP;
    /// Permission denied.
    Access = 10 => EACCES;
    /// Only the owner may.
    NotPermitted = 11 => EPERM;
    /// The name is too long.
    NameTooLong = 12 => ENAMETOOLONG;
    /// No space left.
    NoSpace = 13 => ENOSPC;
    /// Over quota.
    Quota = 14 => EDQUOT;
    /// Too large for the type or the file system.
    TooBig = 15 => EFBIG;
    /// In use.
    Busy = 16 => EBUSY;
    /// The handle stands for something that is gone.
    Stale = 17 => ESTALE;
    /// No such extended attribute.
    NoAttribute = 18 => ENOXATTR;
    /// No data or hole behind the offset.
    NoData = 19 => ENXIO;
    /// Too many links.
    TooManyLinks = 20 => EMLINK;
    /// Too many levels of symbolic links.
    Loop = 21 => ELOOP;
    /// The value does not fit.
    Range = 22 => ERANGE;
    /// The deadline of the call passed.
    TimedOut = 23 => ETIMEDOUT;
    /// The operation was interrupted.
    Interrupted = 24 => EINTR;
    /// The peers speak no common version.
    Version = 25 => EPROTONOSUPPORT;
    /// Between two file systems.
    CrossDevice = 26 => EXDEV;
    /// The dataset's encryption key is not loaded.
    KeyNeeded = 27 => ENEEDAUTH;
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.errno()))
    }
}

impl std::error::Error for Code {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_go_round() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, i + 1, "numbers are never reused");
            assert_eq!(Code::from_wire(*code as u16), *code);
            assert_eq!(Code::from_errno(code.errno()), *code);
        }
        assert_eq!(Code::from_wire(999), Code::Io);
    }
}
