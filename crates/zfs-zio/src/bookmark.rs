//! Names of blocks (`zbookmark_phys_t`, include/sys/zio.h).

use std::fmt;

/// Which block of which object of which object set; keys of the error log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Zbookmark {
    /// Object set: the dataset's object number in the meta object set, 0 for the meta object set itself.
    pub objset: u64,
    /// Object; 0 is the array of dnodes.
    pub object: u64,
    /// Level of indirection; negative for things that are not blocks of an object (-1 the object set itself, -2 the
    /// intent log).
    pub level: i64,
    /// Number of the block at that level.
    pub blkid: u64,
}

impl Zbookmark {
    /// Level of the block that holds an object set (`ZB_ROOT_LEVEL`).
    pub const ROOT_LEVEL: i64 = -1;
    /// Level of intent-log blocks (`ZB_ZIL_LEVEL`).
    pub const ZIL_LEVEL: i64 = -2;
    /// Block number of an object set's block (`ZB_ROOT_BLKID`).
    pub const ROOT_BLKID: u64 = 0;

    /// Names a block.
    pub const fn new(objset: u64, object: u64, level: i64, blkid: u64) -> Self {
        Self { objset, object, level, blkid }
    }

    /// The block that holds object set `objset`.
    pub const fn root(objset: u64) -> Self {
        Self::new(objset, 0, Self::ROOT_LEVEL, Self::ROOT_BLKID)
    }
}

impl fmt::Display for Zbookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{:x}", self.objset, self.object, self.level, self.blkid)
    }
}
