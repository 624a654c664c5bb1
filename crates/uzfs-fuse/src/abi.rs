//! The FUSE wire (Linux's include/uapi/linux/fuse.h, protocol 7.x): numbers, request parsing, reply encoding.
//!
//! Everything is little pieces of fixed layout in the byte order of the machine, because both ends run on it. Requests
//! come from the kernel, but are parsed with checks all the same: a short or odd one is answered with `EINVAL`.

/// Version of the protocol spoken: 7.
pub const KERNEL_VERSION: u32 = 7;
/// Newest minor version whose structures are known here.
pub const KERNEL_MINOR: u32 = 39;
/// Oldest minor version accepted (Linux 4.20, which brought `max_pages`).
pub const OLDEST_MINOR: u32 = 28;
/// Node number of the root of every mount.
pub const ROOT_ID: u64 = 1;

/// Bytes of a request's header.
pub const IN_HEADER: usize = 40;
/// Bytes of a reply's header.
pub const OUT_HEADER: usize = 16;
/// Bytes of a write request in front of its data, header included.
pub const WRITE_HEAD: usize = IN_HEADER + 40;

/// Request numbers (`enum fuse_opcode`).
#[allow(missing_docs)]
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// Abilities negotiated at the start (`FUSE_INIT` flags; the upper half travels in `flags2`).
#[allow(missing_docs)]
pub mod flag {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// Keep the pages cached by earlier opens.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// The kernel may cache the directory's listing.
pub const FOPEN_CACHE_DIR: u32 = 1 << 3;

/// A request as it came from the device.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What is wanted: `op::*`.
    pub opcode: u32,
    /// Number that the reply must carry.
    pub unique: u64,
    /// Node it is about.
    pub nodeid: u64,
    /// Caller's user id; 0 for the kernel's own requests.
    pub uid: u32,
    /// Caller's group id.
    pub gid: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Splits the header off; nothing when the bytes are no request.
    pub fn parse(buf: &'a [u8]) -> Option<Self> {
        let mut b = Body(buf);
        let len = b.u32()? as usize;
        let opcode = b.u32()?;
        let (unique, nodeid) = (b.u64()?, b.u64()?);
        let (uid, gid) = (b.u32()?, b.u32()?);
        Some(Self { opcode, unique, nodeid, uid, gid, body: buf.get(IN_HEADER..len)? })
    }

    /// A cursor over the body.
    pub fn body(&self) -> Body<'a> {
        Body(self.body)
    }
}

/// A cursor over a request's body; every step gives nothing when the body is too short.
#[derive(Debug, Clone, Copy)]
pub struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    /// A 32-bit integer.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A 64-bit integer.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A name, up to its terminating zero.
    pub fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&b| b == 0)?;
        let name = self.take(end)?;
        self.take(1)?;
        Some(name)
    }
}

/// What the kernel offers at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitIn {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Largest read-ahead of the kernel, bytes.
    pub max_readahead: u32,
    /// `flag::*`.
    pub flags: u64,
}

impl InitIn {
    /// Parses the body.
    pub fn parse(mut b: Body<'_>) -> Option<Self> {
        let (major, minor) = (b.u32()?, b.u32()?);
        let (max_readahead, low) = (b.u32()?, u64::from(b.u32()?));
        let high = if low & flag::INIT_EXT != 0 { u64::from(b.u32()?) << 32 } else { 0 };
        Some(Self { major, minor, max_readahead, flags: low | high })
    }
}

/// The answer to [`InitIn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOut {
    /// Minor version that will be spoken.
    pub minor: u32,
    /// Largest read-ahead, bytes.
    pub max_readahead: u32,
    /// Abilities used.
    pub flags: u64,
    /// Most background requests (read-ahead) in flight.
    pub max_background: u16,
    /// Largest write, bytes.
    pub max_write: u32,
    /// Largest request, pages.
    pub max_pages: u16,
}

impl InitOut {
    /// Encodes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Out::default();
        o.u32(KERNEL_VERSION).u32(self.minor).u32(self.max_readahead).u32(self.flags as u32);
        o.u16(self.max_background).u16(self.max_background / 4 * 3).u32(self.max_write);
        o.u32(1).u16(self.max_pages).u16(0).u32((self.flags >> 32) as u32);
        o.0.resize(64, 0);
        o.0
    }
}

/// Builds replies.
#[derive(Debug, Default, Clone)]
pub struct Out(pub Vec<u8>);

impl Out {
    /// Appends a 16-bit integer.
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }

    /// Appends a 32-bit integer.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }

    /// Appends a 64-bit integer.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }
}

/// The header of a reply of `len` bytes in all; `errno` is 0 or positive.
pub fn out_header(len: usize, errno: i32, unique: u64) -> [u8; OUT_HEADER] {
    let [l0, l1, l2, l3] = u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes();
    let [e0, e1, e2, e3] = (-errno).to_ne_bytes();
    let [u0, u1, u2, u3, u4, u5, u6, u7] = unique.to_ne_bytes();
    [l0, l1, l2, l3, e0, e1, e2, e3, u0, u1, u2, u3, u4, u5, u6, u7]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_split_and_short_ones_refused() {
        let mut o = Out::default();
        o.u32(46).u32(op::LOOKUP).u64(7).u64(1).u32(1000).u32(0).u32(0).u32(0);
        o.0.extend_from_slice(b"name\0\0");
        let r = Request::parse(&o.0).unwrap();
        assert_eq!((r.opcode, r.unique, r.nodeid, r.uid), (op::LOOKUP, 7, 1, 1000));
        assert_eq!(r.body().name(), Some(&b"name"[..]));
        assert_eq!(Body(b"unterminated").name(), None);
        for cut in 0..IN_HEADER {
            assert!(Request::parse(&o.0[..cut]).is_none());
        }
        assert!(Request::parse(&o.0[..45]).is_none());
    }

    #[test]
    fn the_upper_flags_travel_apart() {
        let mut o = Out::default();
        o.u32(7).u32(39).u32(131072).u32((flag::INIT_EXT | flag::MAX_PAGES) as u32).u32(1 << 4);
        let i = InitIn::parse(Body(&o.0)).unwrap();
        assert_eq!(i.flags, flag::INIT_EXT | flag::MAX_PAGES | flag::DIRECT_IO_ALLOW_MMAP);
        let out = InitOut {
            minor: 39,
            max_readahead: 1 << 20,
            flags: i.flags,
            max_background: 64,
            max_write: 4096,
            max_pages: 256,
        };
        let b = out.encode();
        assert_eq!(b.len(), 64);
        assert_eq!(b[12..16], ((flag::INIT_EXT | flag::MAX_PAGES) as u32).to_ne_bytes());
        assert_eq!((b[28], b[29], b[32]), (0, 1, 1 << 4));
    }

    #[test]
    fn headers_carry_the_negative_errno() {
        let h = out_header(16, 2, 9);
        assert_eq!(
            (h[0..4].to_vec(), h[4..8].to_vec()),
            (16u32.to_ne_bytes().to_vec(), (-2i32).to_ne_bytes().to_vec())
        );
    }
}
