//! Directories, datasets, bookmarks and deadlists of the dataset and snapshot layer (include/sys/dsl_dir.h,
//! dsl_dataset.h, dsl_bookmark.h, dsl_deadlist.h). Each is the bonus of an object of the meta object set.

use crate::blkptr::BlkPtr;
use crate::error::Result;
use crate::read::{Endian, Reader};
use crate::write::Writer;

/// `DD_FLAG_USED_BREAKDOWN`: the breakdown of used space is kept.
pub const DD_FLAG_USED_BREAKDOWN: u64 = 1;
/// `DS_FLAG_INCONSISTENT`: a receive into it did not end.
pub const DS_FLAG_INCONSISTENT: u64 = 1;
/// `DS_FLAG_NOPROMOTE`.
pub const DS_FLAG_NOPROMOTE: u64 = 1 << 1;
/// `DS_FLAG_UNIQUE_ACCURATE`: `unique_bytes` may be trusted.
pub const DS_FLAG_UNIQUE_ACCURATE: u64 = 1 << 2;
/// `DS_FLAG_DEFER_DESTROY`: goes when its last hold or clone does.
pub const DS_FLAG_DEFER_DESTROY: u64 = 1 << 3;
/// `DS_FLAG_CI_DATASET`: names ignore case.
pub const DS_FLAG_CI_DATASET: u64 = 1 << 16;
/// `ZBM_FLAG_HAS_FBN`: the "freed before next snapshot" figures are kept.
pub const ZBM_FLAG_HAS_FBN: u64 = 1;
/// `ZBM_FLAG_SNAPSHOT_EXISTS`: the bookmarked snapshot still exists.
pub const ZBM_FLAG_SNAPSHOT_EXISTS: u64 = 2;

/// Keys of a directory or dataset object's ZAP form.
pub mod field {
    /// Number of file systems below, when limits are in use.
    pub const FILESYSTEM_COUNT: &str = "com.joyent:filesystem_count";
    /// Number of snapshots below, when limits are in use.
    pub const SNAPSHOT_COUNT: &str = "com.joyent:snapshot_count";
    /// Object of the wrapped encryption key.
    pub const CRYPTO_KEY_OBJ: &str = "com.datto:crypto_key_obj";
    /// Livelist of a clone.
    pub const LIVELIST: &str = "com.delphix:livelist";
    /// When the directory's snapshots last changed: seconds and nanoseconds since 1970.
    pub const SNAPSHOTS_CHANGED: &str = "com.ixsystems:snapshots_changed";
    /// ZAP of bookmarks.
    pub const BOOKMARK_NAMES: &str = "com.delphix:bookmarks";
    /// Deadlist of blocks that were moved by device removal.
    pub const REMAP_DEADLIST: &str = "com.delphix:remap_deadlist";
    /// Array of guids of the snapshots a redacted dataset was redacted against.
    pub const REDACTED_DATASETS: &str = "com.delphix:redacted_datasets";
    /// Guid of the current set of initialization vectors.
    pub const IVSET_GUID: &str = "com.datto:ivset_guid";
    /// Resumable receive: guid of the stream's origin.
    pub const RESUME_FROMGUID: &str = "com.delphix:resume_fromguid";
    /// Resumable receive: name of the stream's snapshot.
    pub const RESUME_TONAME: &str = "com.delphix:resume_toname";
    /// Resumable receive: guid of the stream's snapshot.
    pub const RESUME_TOGUID: &str = "com.delphix:resume_toguid";
    /// Resumable receive: object it got to.
    pub const RESUME_OBJECT: &str = "com.delphix:resume_object";
    /// Resumable receive: offset it got to.
    pub const RESUME_OFFSET: &str = "com.delphix:resume_offset";
    /// Resumable receive: bytes received.
    pub const RESUME_BYTES: &str = "com.delphix:resume_bytes";
    /// Resumable receive: the stream has large blocks.
    pub const RESUME_LARGEBLOCK: &str = "com.delphix:resume_largeblockok";
    /// Resumable receive: the stream has embedded blocks.
    pub const RESUME_EMBEDOK: &str = "com.delphix:resume_embedok";
    /// Resumable receive: the stream is compressed.
    pub const RESUME_COMPRESSOK: &str = "com.delphix:resume_compressok";
    /// Resumable receive: the stream is raw.
    pub const RESUME_RAWOK: &str = "com.datto:resume_rawok";
    /// Resumable receive: snapshots the stream is redacted against.
    pub const RESUME_REDACT_BOOKMARK_SNAPS: &str = "com.delphix:resume_redact_book_snaps";
}

/// Used space of a directory by what uses it, bytes (`dd_used_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsedBreakdown {
    /// The head dataset itself.
    pub head: u64,
    /// Its snapshots.
    pub snap: u64,
    /// Children.
    pub child: u64,
    /// Reservations of children that they do not use yet.
    pub child_reserved: u64,
    /// Its refreservation beyond what it references.
    pub ref_reserved: u64,
}

/// A directory (`dsl_dir_phys_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DslDirPhys {
    /// Seconds since 1970; not kept by current software.
    pub creation_time: u64,
    /// Object of the dataset it is about.
    pub head_dataset_obj: u64,
    /// Object of the directory above; 0 at the top.
    pub parent_obj: u64,
    /// Snapshot it is a clone of; 0 when none.
    pub origin_obj: u64,
    /// ZAP of children: name to object.
    pub child_dir_zapobj: u64,
    /// Bytes used, children included.
    pub used_bytes: u64,
    /// Compressed bytes.
    pub compressed_bytes: u64,
    /// Logical bytes.
    pub uncompressed_bytes: u64,
    /// Quota, bytes; 0 is none.
    pub quota: u64,
    /// Reservation, bytes.
    pub reserved: u64,
    /// ZAP of local and received properties.
    pub props_zapobj: u64,
    /// ZAP of delegated permissions.
    pub deleg_zapobj: u64,
    /// `DD_FLAG_*`.
    pub flags: u64,
    /// Parts of `used_bytes`.
    pub breakdown: UsedBreakdown,
    /// ZAP of clones of its snapshots.
    pub clones: u64,
}

impl DslDirPhys {
    /// Decodes the bonus (256 bytes).
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "dsl directory");
        let r = &mut r;
        Ok(Self {
            creation_time: r.u64()?,
            head_dataset_obj: r.u64()?,
            parent_obj: r.u64()?,
            origin_obj: r.u64()?,
            child_dir_zapobj: r.u64()?,
            used_bytes: r.u64()?,
            compressed_bytes: r.u64()?,
            uncompressed_bytes: r.u64()?,
            quota: r.u64()?,
            reserved: r.u64()?,
            props_zapobj: r.u64()?,
            deleg_zapobj: r.u64()?,
            flags: r.u64()?,
            breakdown: UsedBreakdown {
                head: r.u64()?,
                snap: r.u64()?,
                child: r.u64()?,
                child_reserved: r.u64()?,
                ref_reserved: r.u64()?,
            },
            clones: r.u64()?,
        })
    }
}

/// Bytes of a directory's bonus.
pub const DSL_DIR_SIZE: usize = 256;
/// Bytes of a dataset's bonus.
pub const DSL_DATASET_SIZE: usize = 320;
/// Bytes of a deadlist's bonus.
pub const DEADLIST_SIZE: usize = 320;

impl DslDirPhys {
    /// Encodes the bonus ([`DSL_DIR_SIZE`] bytes).
    pub fn encode(&self, endian: Endian) -> Vec<u8> {
        let mut w = Writer::new(endian, "dsl directory", DSL_DIR_SIZE);
        w.u64s(&[self.creation_time, self.head_dataset_obj, self.parent_obj, self.origin_obj, self.child_dir_zapobj]);
        w.u64s(&[self.used_bytes, self.compressed_bytes, self.uncompressed_bytes, self.quota, self.reserved]);
        w.u64s(&[self.props_zapobj, self.deleg_zapobj, self.flags]);
        let b = &self.breakdown;
        w.u64s(&[b.head, b.snap, b.child, b.child_reserved, b.ref_reserved, self.clones]);
        w.align(DSL_DIR_SIZE);
        w.finish()
    }
}

/// A dataset: file system, volume or snapshot (`dsl_dataset_phys_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DslDatasetPhys {
    /// Directory it belongs to.
    pub dir_obj: u64,
    /// Newest snapshot before it; its origin when it is a clone without snapshots.
    pub prev_snap_obj: u64,
    /// Txg of that snapshot.
    pub prev_snap_txg: u64,
    /// Next newer snapshot, or the head; 0 for a head.
    pub next_snap_obj: u64,
    /// ZAP of snapshots: name to object; only heads have it.
    pub snapnames_zapobj: u64,
    /// For snapshots: clones plus one; for heads 0.
    pub num_children: u64,
    /// Seconds since 1970.
    pub creation_time: u64,
    /// Txg it was made in.
    pub creation_txg: u64,
    /// Deadlist: blocks of the previous snapshot that it no longer references.
    pub deadlist_obj: u64,
    /// Bytes it references.
    pub referenced_bytes: u64,
    /// Compressed bytes referenced.
    pub compressed_bytes: u64,
    /// Logical bytes referenced.
    pub uncompressed_bytes: u64,
    /// Bytes only it references.
    pub unique_bytes: u64,
    /// Identity for `fsid`.
    pub fsid_guid: u64,
    /// Identity.
    pub guid: u64,
    /// `DS_FLAG_*`.
    pub flags: u64,
    /// Its object set.
    pub bp: BlkPtr,
    /// For snapshots: ZAP of clones' objects.
    pub next_clones_obj: u64,
    /// For snapshots: ZAP of properties.
    pub props_obj: u64,
    /// For snapshots: ZAP of holds.
    pub userrefs_obj: u64,
}

impl DslDatasetPhys {
    /// Decodes the bonus (320 bytes).
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "dsl dataset");
        let r = &mut r;
        Ok(Self {
            dir_obj: r.u64()?,
            prev_snap_obj: r.u64()?,
            prev_snap_txg: r.u64()?,
            next_snap_obj: r.u64()?,
            snapnames_zapobj: r.u64()?,
            num_children: r.u64()?,
            creation_time: r.u64()?,
            creation_txg: r.u64()?,
            deadlist_obj: r.u64()?,
            referenced_bytes: r.u64()?,
            compressed_bytes: r.u64()?,
            uncompressed_bytes: r.u64()?,
            unique_bytes: r.u64()?,
            fsid_guid: r.u64()?,
            guid: r.u64()?,
            flags: r.u64()?,
            bp: BlkPtr::read(r)?,
            next_clones_obj: r.u64()?,
            props_obj: r.u64()?,
            userrefs_obj: r.u64()?,
        })
    }

    /// Encodes the bonus ([`DSL_DATASET_SIZE`] bytes).
    pub fn encode(&self, endian: Endian) -> Vec<u8> {
        let mut w = Writer::new(endian, "dsl dataset", DSL_DATASET_SIZE);
        w.u64s(&[self.dir_obj, self.prev_snap_obj, self.prev_snap_txg, self.next_snap_obj, self.snapnames_zapobj]);
        w.u64s(&[self.num_children, self.creation_time, self.creation_txg, self.deadlist_obj]);
        w.u64s(&[self.referenced_bytes, self.compressed_bytes, self.uncompressed_bytes, self.unique_bytes]);
        w.u64s(&[self.fsid_guid, self.guid, self.flags]).bp(&self.bp);
        w.u64s(&[self.next_clones_obj, self.props_obj, self.userrefs_obj]).align(DSL_DATASET_SIZE);
        w.finish()
    }

    /// Whether it is a snapshot.
    pub fn is_snapshot(&self) -> bool {
        self.num_children != 0
    }
}

/// A bookmark (`zfs_bookmark_phys_t`): the value of an entry of the bookmark ZAP, 3 words at first, 12 now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BookmarkPhys {
    /// Guid of the snapshot it was made of.
    pub guid: u64,
    /// Txg of that snapshot.
    pub creation_txg: u64,
    /// Seconds since 1970 of that snapshot.
    pub creation_time: u64,
    /// Redaction list object; 0 when none.
    pub redaction_obj: u64,
    /// `ZBM_FLAG_*`.
    pub flags: u64,
    /// Bytes the snapshot referenced: on disk, compressed, logical.
    pub referenced: [u64; 3],
    /// Bytes freed before the next snapshot: on disk, compressed, logical.
    pub freed_before_next_snap: [u64; 3],
    /// Guid of the set of initialization vectors.
    pub ivset_guid: u64,
    /// Words that were stored.
    pub words: usize,
}

impl BookmarkPhys {
    /// Builds it from the words of a ZAP entry; missing words are 0.
    pub fn from_words(words: &[u64]) -> Self {
        let w = |i: usize| words.get(i).copied().unwrap_or(0);
        Self {
            guid: w(0),
            creation_txg: w(1),
            creation_time: w(2),
            redaction_obj: w(3),
            flags: w(4),
            referenced: [w(5), w(6), w(7)],
            freed_before_next_snap: [w(8), w(9), w(10)],
            ivset_guid: w(11),
            words: words.len(),
        }
    }

    /// The words of its ZAP entry, as many as `words` says (the opposite of [`Self::from_words`]).
    pub fn to_words(&self) -> Vec<u64> {
        let [a, b, c] = self.referenced;
        let [d, e, f] = self.freed_before_next_snap;
        let mut out = vec![self.guid, self.creation_txg, self.creation_time, self.redaction_obj, self.flags];
        out.extend([a, b, c, d, e, f, self.ivset_guid]);
        out.resize(self.words, 0);
        out
    }

    /// Whether the size of what the snapshot referenced is known.
    pub fn has_referenced(&self) -> bool {
        self.flags & ZBM_FLAG_HAS_FBN != 0
    }
}

/// Header of a deadlist (`dsl_deadlist_phys_t`): sums over its lists. The object itself is a ZAP from the smallest
/// birth txg of a list to the list's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeadlistPhys {
    /// Bytes on disk.
    pub used: u64,
    /// Compressed bytes.
    pub comp: u64,
    /// Logical bytes.
    pub uncomp: u64,
}

impl DeadlistPhys {
    /// Decodes the bonus.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "deadlist");
        Ok(Self { used: r.u64()?, comp: r.u64()?, uncomp: r.u64()? })
    }

    /// Encodes the bonus ([`DEADLIST_SIZE`] bytes).
    pub fn encode(&self, endian: Endian) -> Vec<u8> {
        let mut w = Writer::new(endian, "deadlist", DEADLIST_SIZE);
        w.u64s(&[self.used, self.comp, self.uncomp]).align(DEADLIST_SIZE);
        w.finish()
    }
}

/// Head of a redaction list (`redaction_list_phys_t`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedactionListPhys {
    /// Object it got to when unfinished; all ones when finished.
    pub last_object: u64,
    /// Block it got to.
    pub last_blkid: u64,
    /// Entries.
    pub num_entries: u64,
    /// Snapshots it redacts against.
    pub num_snaps: u64,
    /// Guids of those that fit the bonus.
    pub snaps: Vec<u64>,
}

impl RedactionListPhys {
    /// Decodes the bonus.
    pub fn decode(buf: &[u8], endian: Endian) -> Result<Self> {
        let mut r = Reader::new(buf, endian, "redaction list");
        let [last_object, last_blkid, num_entries, num_snaps] = r.u64s()?;
        let fit = (num_snaps as usize).min(r.remaining() / 8);
        let snaps = (0..fit).map(|_| r.u64()).collect::<Result<_>>()?;
        Ok(Self { last_object, last_blkid, num_entries, num_snaps, snaps })
    }

    /// Encodes the bonus.
    pub fn encode(&self, endian: Endian) -> Vec<u8> {
        let mut w = Writer::new(endian, "redaction list", 32 + 8 * self.snaps.len());
        w.u64s(&[self.last_object, self.last_blkid, self.num_entries, self.num_snaps]).u64s(&self.snaps);
        w.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_land_in_their_fields() {
        let bytes: Vec<u8> = (1..=40u64).flat_map(u64::to_be_bytes).collect();
        let d = DslDirPhys::decode(&bytes, Endian::Big).unwrap();
        assert_eq!((d.head_dataset_obj, d.used_bytes, d.flags), (2, 6, 13));
        assert_eq!((d.breakdown.head, d.breakdown.ref_reserved, d.clones), (14, 18, 19));
        let ds = DslDatasetPhys::decode(&bytes, Endian::Big).unwrap();
        assert_eq!((ds.guid, ds.flags, ds.bp.word[0], ds.bp.word[15]), (15, 16, 17, 32));
        assert_eq!((ds.next_clones_obj, ds.userrefs_obj), (33, 35));
        assert_eq!((&d.encode(Endian::Big)[..152], d.encode(Endian::Big).len()), (&bytes[..152], DSL_DIR_SIZE));
        let packed = ds.encode(Endian::Big);
        assert_eq!((&packed[..280], packed.len()), (&bytes[..280], DSL_DATASET_SIZE));
        let dead = DeadlistPhys::decode(&bytes, Endian::Big).unwrap().encode(Endian::Big);
        assert_eq!((&dead[..24], dead.len()), (&bytes[..24], DEADLIST_SIZE));
        assert!(DslDatasetPhys::decode(&bytes[..270], Endian::Big).is_err());
        let redaction = RedactionListPhys::decode(&bytes[..48], Endian::Big).unwrap();
        assert_eq!(redaction.encode(Endian::Big), bytes[..48]);
        assert_eq!(RedactionListPhys::decode(&bytes[..48], Endian::Big).unwrap().snaps, [5, 6]);
    }

    #[test]
    fn old_bookmarks_have_three_words() {
        let b = BookmarkPhys::from_words(&[7, 8, 9]);
        let words: Vec<u64> = (1..=12).collect();
        assert_eq!(BookmarkPhys::from_words(&words).to_words(), words);
        assert_eq!(b.to_words(), [7, 8, 9]);
        assert_eq!((b.guid, b.creation_txg, b.creation_time, b.has_referenced()), (7, 8, 9, false));
    }
}
