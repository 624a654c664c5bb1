//! State of scrubs and resilvers (`dsl_scan_phys_t`, `dsl_errorscrub_phys_t`; include/sys/dsl_scan.h) and of device
//! removal (`spa_removing_phys_t`): arrays of words in the pool directory, so they arrive in host order.

/// Last or running scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanPhys {
    /// 0 none, 1 scrub, 2 resilver, 3 error scrub.
    pub func: u64,
    /// 0 none, 1 running, 2 finished, 3 canceled.
    pub state: u64,
    /// Object of queued datasets.
    pub queue_obj: u64,
    /// Smallest birth txg examined.
    pub min_txg: u64,
    /// Largest birth txg examined.
    pub max_txg: u64,
    /// Smallest birth txg examined in the dataset being visited.
    pub cur_min_txg: u64,
    /// Largest birth txg examined in the dataset being visited.
    pub cur_max_txg: u64,
    /// Seconds since 1970.
    pub start_time: u64,
    /// Seconds since 1970.
    pub end_time: u64,
    /// Bytes to examine.
    pub to_examine: u64,
    /// Bytes examined.
    pub examined: u64,
    /// Bytes skipped.
    pub skipped: u64,
    /// Bytes repaired.
    pub processed: u64,
    /// Errors.
    pub errors: u64,
    /// Last storage class of the deduplication table visited before the datasets.
    pub ddt_class_max: u64,
    /// Place in the deduplication table: class, type, checksum, cursor.
    pub ddt_bookmark: [u64; 4],
    /// Place in the datasets: objset, object, level, blkid.
    pub bookmark: [u64; 4],
    /// Bit 0: the dataset is to be visited again; bit 1: paused.
    pub flags: u64,
}

impl ScanPhys {
    /// From the words of the entry `scan`; missing ones are 0.
    pub fn from_words(words: &[u64]) -> Self {
        let w = |i: usize| words.get(i).copied().unwrap_or(0);
        Self {
            func: w(0),
            state: w(1),
            queue_obj: w(2),
            min_txg: w(3),
            max_txg: w(4),
            cur_min_txg: w(5),
            cur_max_txg: w(6),
            start_time: w(7),
            end_time: w(8),
            to_examine: w(9),
            examined: w(10),
            skipped: w(11),
            processed: w(12),
            errors: w(13),
            ddt_class_max: w(14),
            ddt_bookmark: [w(15), w(16), w(17), w(18)],
            bookmark: [w(19), w(20), w(21), w(22)],
            flags: w(23),
        }
    }

    /// The words of the entry `scan`.
    pub fn to_words(&self) -> Vec<u64> {
        let mut out = vec![self.func, self.state, self.queue_obj, self.min_txg, self.max_txg];
        out.extend([self.cur_min_txg, self.cur_max_txg, self.start_time, self.end_time, self.to_examine]);
        out.extend([self.examined, self.skipped, self.processed, self.errors, self.ddt_class_max]);
        out.extend(self.ddt_bookmark);
        out.extend(self.bookmark);
        out.push(self.flags);
        out
    }
}

/// Last or running error scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorScrubPhys {
    /// Function.
    pub func: u64,
    /// State.
    pub state: u64,
    /// Place in the error log.
    pub cursor: u64,
    /// Seconds since 1970.
    pub start_time: u64,
    /// Seconds since 1970.
    pub end_time: u64,
    /// Blocks to examine.
    pub to_examine: u64,
    /// Blocks examined.
    pub examined: u64,
    /// Errors.
    pub errors: u64,
    /// Whether paused.
    pub paused_flags: u64,
}

impl ErrorScrubPhys {
    /// From the words of the entry `error_scrub`; missing ones are 0.
    pub fn from_words(words: &[u64]) -> Self {
        let w = |i: usize| words.get(i).copied().unwrap_or(0);
        Self {
            func: w(0),
            state: w(1),
            cursor: w(2),
            start_time: w(3),
            end_time: w(4),
            to_examine: w(5),
            examined: w(6),
            errors: w(7),
            paused_flags: w(8),
        }
    }

    /// The words of the entry `error_scrub`.
    pub fn to_words(&self) -> Vec<u64> {
        let head = [self.func, self.state, self.cursor, self.start_time, self.end_time];
        [&head[..], &[self.to_examine, self.examined, self.errors, self.paused_flags]].concat()
    }
}

/// Last or running removal of a top-level vdev.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemovingPhys {
    /// 0 none, 1 running, 2 finished, 3 canceled.
    pub state: u64,
    /// Vdev last tried; all ones when none.
    pub removing_vdev: u64,
    /// Vdev last removed: head of the list of indirect vdevs; all ones when none.
    pub prev_indirect_vdev: u64,
    /// Seconds since 1970.
    pub start_time: u64,
    /// Seconds since 1970.
    pub end_time: u64,
    /// Bytes to copy.
    pub to_copy: u64,
    /// Bytes copied.
    pub copied: u64,
}

impl RemovingPhys {
    /// From the words of the entry `com.delphix:removing`.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        let [state, removing_vdev, prev_indirect_vdev, start_time, end_time, to_copy, copied] =
            *words.first_chunk::<7>()?;
        Some(Self { state, removing_vdev, prev_indirect_vdev, start_time, end_time, to_copy, copied })
    }
}

impl RemovingPhys {
    /// The words of the entry `com.delphix:removing`.
    pub fn to_words(&self) -> Vec<u64> {
        let head = [self.state, self.removing_vdev, self.prev_indirect_vdev];
        [&head[..], &[self.start_time, self.end_time, self.to_copy, self.copied]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive() {
        let words: Vec<u64> = (1..=24).collect();
        assert_eq!(ScanPhys::from_words(&words).to_words(), words);
        assert_eq!(ErrorScrubPhys::from_words(&words[..9]).to_words(), words[..9]);
        assert_eq!(RemovingPhys::from_words(&words[..7]).unwrap().to_words(), words[..7]);
    }
}
