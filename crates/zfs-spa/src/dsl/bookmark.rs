//! Bookmarks: what remains of a snapshot to send from.

use super::dataset::Dataset;
use std::sync::Arc;
use zfs_dmu::{Result, Zap};
use zfs_phys::dsl::{BookmarkPhys, RedactionListPhys, field};

/// A bookmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// Full name, `pool/fs#mark`.
    pub name: String,
    /// What is stored.
    pub phys: BookmarkPhys,
}

impl Dataset {
    /// Bookmarks of a file system or volume, in order of creation txg, then name.
    pub fn bookmarks(&self) -> Result<Vec<Bookmark>> {
        let Some(object) = self.field(field::BOOKMARK_NAMES)?.filter(|o| *o != 0) else { return Ok(Vec::new()) };
        let mut out = Vec::new();
        for entry in Zap::open(self.mos(), object)?.iter() {
            let entry = entry?;
            let phys = BookmarkPhys::from_words(&entry.value.u64s());
            out.push(Bookmark { name: format!("{}#{}", self.name, String::from_utf8_lossy(entry.name())), phys });
        }
        out.sort_by(|a, b| (a.phys.creation_txg, &a.name).cmp(&(b.phys.creation_txg, &b.name)));
        Ok(out)
    }

    /// Guids of the snapshots a redaction bookmark of this dataset redacts against; nothing for other bookmarks.
    pub fn redaction_snaps(self: &Arc<Self>, mark: &Bookmark) -> Result<Option<Vec<u64>>> {
        if mark.phys.redaction_obj == 0 {
            return Ok(None);
        }
        let dnode = self.mos().dnode(mark.phys.redaction_obj)?;
        let list = match dnode.spill()? {
            Some((buf, endian)) if RedactionListPhys::decode(&buf, endian).is_ok_and(|l| l.num_snaps != 0) => {
                RedactionListPhys::decode(&buf, endian)?
            }
            _ => RedactionListPhys::decode(&dnode.bonus()?, dnode.phys().endian)?,
        };
        Ok(Some(list.snaps))
    }
}
