//! The operations: one list that makes requests, numbers, the server's trait and its dispatcher.
//!
//! Numbers are never reused and fields never change within a version; new operations get new numbers, and a server
//! answers [`Code::Unsupported`] to those that it does not know.

use crate::types::*;
use crate::wire::{self, Blob, Bytes, Caller, Field, Frame, List, record};
use crate::{Code, MAGIC};

/// A request with its number and its answer.
pub trait Operation: Field {
    /// Number on the wire.
    const OP: Op;
    /// What success is answered with.
    type Reply: Field;
}

fn answer<T: Field>(result: Result<T, Code>) -> Result<Frame, Code> {
    result.map(wire::encode)
}

macro_rules! operations {
    (
        greetings { $( $(#[doc = $gd:literal])* $gn:literal $gname:ident { $( $(#[doc = $gfd:literal])* $gf:ident: $gt:ty ),* $(,)? } -> $gr:ty; )* }
        served { $( $(#[doc = $d:literal])* $n:literal $f:ident $name:ident { $( $(#[doc = $fd:literal])* $ff:ident: $t:ty ),* $(,)? } -> $r:ty; )* }
    ) => {
        /// Number of an operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Op { $( $(#[doc = $gd])* $gname = $gn, )* $( $(#[doc = $d])* $name = $n, )* }

        impl Op {
            /// Every operation.
            pub const ALL: &'static [Op] = &[$(Op::$gname,)* $(Op::$name),*];

            /// The operation of a number.
            pub const fn from_wire(n: u16) -> Option<Self> {
                Some(match n { $( $gn => Self::$gname, )* $( $n => Self::$name, )* _ => return None })
            }
        }

        $( record! { $(#[doc = $gd])* $gname { $( $(#[doc = $gfd])* $gf: $gt ),* } }
           impl Operation for $gname { const OP: Op = Op::$gname; type Reply = $gr; } )*
        $( record! { $(#[doc = $d])* $name { $( $(#[doc = $fd])* $ff: $t ),* } }
           impl Operation for $name { const OP: Op = Op::$name; type Reply = $r; } )*

        /// What a mount does: one function an operation, called from many threads at once.
        pub trait Service: Send + std::marker::Sync {
            /// What the mount is of.
            fn volume(&self) -> VolumeInfo;
            $(
                $(#[doc = $d])*
                fn $f(&self, caller: &Caller, request: $name) -> Result<$r, Code>;
            )*
        }

        /// Runs one operation of a mount.
        pub(crate) fn dispatch(service: &dyn Service, caller: &Caller, op: u16, body: Vec<u8>) -> Result<Frame, Code> {
            match Op::from_wire(op) {
                $( Some(Op::$name) => {
                    let request: $name = wire::decode(body).map_err(|_| Code::Invalid)?;
                    answer(service.$f(caller, request))
                } )*
                _ => Err(Code::Unsupported),
            }
        }

        /// Decodes the body of any request, and encodes it again; for tests of the decoder.
        pub fn recode(op: u16, body: Vec<u8>) -> Option<Vec<u8>> {
            match Op::from_wire(op)? {
                $( Op::$gname => wire::decode::<$gname>(body).ok().map(|m| wire::encode(m).head), )*
                $( Op::$name => wire::decode::<$name>(body).ok().map(|m| wire::encode(m).head), )*
            }
        }

        /// Decodes the body of any reply, and encodes it again; for tests of the decoder.
        pub fn recode_reply(op: u16, body: Vec<u8>) -> Option<Vec<u8>> {
            match Op::from_wire(op)? {
                $( Op::$gname => wire::decode::<$gr>(body).ok().map(|m| wire::encode(m).head), )*
                $( Op::$name => wire::decode::<$r>(body).ok().map(|m| wire::encode(m).head), )*
            }
        }
    };
}

operations! {
    greetings {
        /// Shows the token of a mount. The first request of every connection but one that claims.
        1 Hello {
            /// [`MAGIC`].
            magic: u64,
            /// Oldest version that the client speaks.
            oldest: u16,
            /// Newest version that the client speaks.
            newest: u16,
            /// Secret of the mount.
            token: Token,
        } -> Welcome;
        /// Asks for a mount of the root dataset of the pool that a device belongs to, which is imported if need be.
        2 Claim {
            /// [`MAGIC`].
            magic: u64,
            /// Oldest version that the client speaks.
            oldest: u16,
            /// Newest version that the client speaks.
            newest: u16,
            /// Secret of the daemon, which it keeps where only its own extensions look.
            secret: Token,
            /// Guid of the pool, from the device's label.
            pool: u64,
        } -> Claimed;
        /// Makes this connection one that only receives notices. Answered once; then come [`Notice`]s with id 0.
        3 Listen {} -> ();
    }
    served {
        /// Does nothing: is the daemon there, and how far away?
        4 ping Ping {} -> ();
        /// Says that the file system is mounted, or no longer.
        5 mounted Mounted {
            /// Whether it is.
            on: bool,
        } -> ();
        /// Finds a name in a directory.
        16 lookup Lookup {
            /// The directory.
            dir: u64,
            /// The name; `.` and `..` are understood.
            name: Bytes,
        } -> Entry;
        /// Attributes of a file.
        17 getattr GetAttr {
            /// The file.
            node: u64,
        } -> Attr;
        /// Changes attributes.
        18 setattr SetAttr {
            /// The file.
            node: u64,
            /// What to change.
            attrs: SetAttrs,
        } -> SetDone;
        /// Lists a directory, `.` and `..` first.
        19 readdir ReadDir {
            /// The directory.
            dir: u64,
            /// Where to go on; 0 from the start.
            cookie: u64,
            /// Of the listing that the cookie came from; 0 at the start. A cookie of another time is refused.
            verifier: u64,
            /// Most bytes of the reply.
            room: u32,
            /// Attributes of every entry too.
            attrs: bool,
        } -> Listing;
        /// Target of a symbolic link.
        20 readlink ReadLink {
            /// The link.
            node: u64,
        } -> Bytes;
        /// Reads a file; short only at its end.
        21 read Read {
            /// The file.
            node: u64,
            /// From which byte.
            offset: u64,
            /// How many; at most [`wire::MAX_IO`].
            len: u32,
        } -> Blob;
        /// Writes a file; tells how many bytes.
        22 write Write {
            /// The file.
            node: u64,
            /// From which byte.
            offset: u64,
            /// The data; at most [`wire::MAX_IO`].
            data: Blob,
        } -> u32;
        /// Makes a file, directory or special file: the type is in the mode.
        23 create Create {
            /// The directory.
            dir: u64,
            /// The name.
            name: Bytes,
            /// Attributes to begin with; `mode` must be among them.
            attrs: SetAttrs,
            /// Major and minor number of a device node, else 0.
            rdev: u64,
        } -> Entry;
        /// Makes a symbolic link.
        24 symlink Symlink {
            /// The directory.
            dir: u64,
            /// The name.
            name: Bytes,
            /// Where it points.
            target: Bytes,
            /// Attributes to begin with.
            attrs: SetAttrs,
        } -> Entry;
        /// Gives a file another name.
        25 link Link {
            /// The file.
            node: u64,
            /// Directory of the new name.
            dir: u64,
            /// The new name.
            name: Bytes,
        } -> Entry;
        /// Takes a name away.
        26 remove Remove {
            /// The directory.
            dir: u64,
            /// The name.
            name: Bytes,
            /// The file that must be behind it; 0 if the caller does not know.
            node: u64,
            /// It must be a directory (`rmdir`), or must not (`unlink`).
            directory: bool,
        } -> ();
        /// Renames. A file in the way is replaced in the same step.
        27 rename Rename {
            /// Directory of the old name.
            from: u64,
            /// The old name.
            old: Bytes,
            /// Directory of the new name.
            to: u64,
            /// The new name.
            new: Bytes,
            /// Bits of [`rename_flags`].
            flags: u32,
        } -> ();
        /// Space of the file system.
        28 statfs StatFs {
            /// A file in it.
            node: u64,
        } -> Statfs;
        /// Names of extended attributes, as Linux spells them.
        29 listxattr ListXattr {
            /// The file.
            node: u64,
            /// Also those that only root sees.
            privileged: bool,
        } -> List<Bytes>;
        /// Value of an extended attribute.
        30 getxattr GetXattr {
            /// The file.
            node: u64,
            /// Linux's name of the attribute.
            name: Bytes,
            /// The caller may see what only root sees.
            privileged: bool,
        } -> Blob;
        /// Sets an extended attribute.
        31 setxattr SetXattr {
            /// The file.
            node: u64,
            /// Linux's name of the attribute.
            name: Bytes,
            /// When it may be set.
            policy: XattrPolicy,
            /// The value.
            value: Blob,
        } -> ();
        /// Takes an extended attribute away.
        32 removexattr RemoveXattr {
            /// The file.
            node: u64,
            /// Linux's name of the attribute.
            name: Bytes,
        } -> ();
        /// The next data or hole.
        33 seek Seek {
            /// The file.
            node: u64,
            /// From which byte.
            offset: u64,
            /// What.
            what: SeekTo,
        } -> u64;
        /// Puts the whole file system on stable storage.
        34 sync SyncAll {
            /// How long to wait.
            mode: SyncMode,
        } -> ();
        /// Puts one file on stable storage.
        35 fsync Fsync {
            /// The file.
            node: u64,
            /// Its data and what is needed to find them, no more.
            data_only: bool,
        } -> ();
        /// Checks a user against mode and list.
        36 access Access {
            /// The file.
            node: u64,
            /// The user.
            uid: u32,
            /// The user's groups.
            groups: List<u32>,
            /// 4 read, 2 write, 1 execute.
            want: u32,
        } -> ();
        /// The front end forgot a file: what is unlinked can go.
        37 reclaim Reclaim {
            /// The file.
            node: u64,
        } -> ();
        /// Shares blocks of one file with another; tells how many bytes.
        38 clone_range CloneRange {
            /// The file to take from.
            from: u64,
            /// From which byte.
            from_offset: u64,
            /// The file to give to.
            to: u64,
            /// At which byte.
            to_offset: u64,
            /// How many bytes.
            len: u64,
        } -> u64;
        /// Makes room in a file, or a hole.
        39 allocate Allocate {
            /// The file.
            node: u64,
            /// From which byte.
            offset: u64,
            /// How many.
            len: u64,
            /// Make a hole instead.
            punch: bool,
        } -> ();
        /// The lasting name of a file.
        40 fid GetFid {
            /// The file.
            node: u64,
        } -> Fid;
        /// The file of a lasting name.
        41 by_fid ByFid {
            /// Its name.
            fid: Fid,
        } -> u64;
    }
}

/// Bits of [`Rename::flags`].
pub mod rename_flags {
    /// Fail if the new name is taken.
    pub const NO_REPLACE: u32 = 1;
    /// Exchange the two files.
    pub const EXCHANGE: u32 = 2;
}

record! {
    /// What the daemon says by itself on a connection that listens: files changed behind the front end's back, after
    /// a rollback or a receive.
    Notice {
        /// The file whose attributes, data and entries are to be forgotten; 0 for everything.
        node: u64,
    }
}

/// Operation number of a [`Notice`].
pub const NOTICE: u16 = 64;

/// A greeting of this version.
pub fn hello(token: Token) -> Hello {
    Hello { magic: MAGIC, oldest: OLDEST, newest: NEWEST, token }
}

/// A claim of this version.
pub fn claim(secret: Token, pool: u64) -> Claim {
    Claim { magic: MAGIC, oldest: OLDEST, newest: NEWEST, secret, pool }
}

/// The version that two peers speak, if there is one.
pub(crate) fn common_version(magic: u64, oldest: u16, newest: u16) -> Result<u16, Code> {
    let version = newest.min(NEWEST);
    if magic == MAGIC && oldest <= version && version >= OLDEST { Ok(version) } else { Err(Code::Version) }
}

/// Oldest version that is spoken.
pub const OLDEST: u16 = 1;
/// Newest version that is spoken.
pub const NEWEST: u16 = 1;
