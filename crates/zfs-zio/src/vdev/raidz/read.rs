//! One read of a block through its map. See the module above for the order of things.

use super::super::tree::Vdev;
use super::super::{ReadIo, VdevError};
use super::MOST_GUESSES;
use super::map::{Column, RaidMap};
use zfs_codec::raidz;

/// What is known about a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Not read yet.
    Nothing,
    /// Not read because its child is known to lack it; may be tried when all else fails.
    Stale,
    /// Its bytes are there.
    Read,
    /// Its child is not there.
    Missing,
    /// Its child refused.
    Failed,
}

impl Known {
    fn is_lost(self) -> bool {
        matches!(self, Known::Stale | Known::Missing | Known::Failed)
    }
}

pub(super) struct RaidRead<'a> {
    vdev: &'a Vdev,
    map: &'a RaidMap,
    data: &'a mut [u8],
    /// Bytes of `data` that are the block; the rest is padding.
    block_len: usize,
    parity: Vec<u8>,
    known: Vec<Vec<Known>>,
}

impl<'a> RaidRead<'a> {
    pub(super) fn new(vdev: &'a Vdev, map: &'a RaidMap, data: &'a mut [u8], block_len: usize) -> Self {
        let known = map.rows.iter().map(|r| vec![Known::Nothing; r.cols.len()]).collect();
        Self { vdev, map, data, block_len, parity: Vec::new(), known }
    }

    pub(super) fn run(mut self, io: &mut ReadIo<'_>) -> Result<(), VdevError> {
        self.skip_children_known_bad(io.birth);
        self.read_where(io, |_, is_parity| !is_parity);
        let rows_with_loss: Vec<bool> =
            (0..self.map.rows.len()).map(|r| self.known[r].iter().any(|k| k.is_lost())).collect();
        let everything = io.all_copies;
        self.read_where(io, |row, _| everything || rows_with_loss[row]);
        if self.rebuild_known_lost() && self.is_good(io) {
            self.check_parity(io, &[]);
            return Ok(());
        }
        // Something lies, or too much is missing: take everything there is, stale children too.
        for known in self.known.iter_mut().flatten().filter(|k| **k == Known::Stale) {
            *known = Known::Nothing;
        }
        self.read_where(io, |_, _| true);
        let worst = self.worst_row();
        if let Some(error) = worst {
            return Err(error);
        }
        if self.rebuild_known_lost() && self.is_good(io) {
            self.check_parity(io, &[]);
            return Ok(());
        }
        if self.guess(io) {
            return Ok(());
        }
        self.blame_everybody(io);
        Err(VdevError::Checksum)
    }

    fn is_good(&self, io: &ReadIo<'_>) -> bool {
        (io.good)(&self.data[..self.block_len])
    }

    fn skip_children_known_bad(&mut self, birth: u64) {
        for (row, known) in self.map.rows.iter().zip(&mut self.known) {
            for (col, known) in row.cols.iter().zip(known) {
                let Some(child) = self.vdev.children.get(col.child) else {
                    *known = Known::Missing;
                    continue;
                };
                if !child.state().is_readable() {
                    *known = Known::Missing;
                } else if child.is_stale_at(Some(self.vdev), 0, col.offset as u64, birth) {
                    *known = Known::Stale;
                }
            }
        }
    }

    /// Reads the columns not read yet that `want` asks for (by row, and whether it is parity), each child's in as few
    /// reads as its contiguous runs allow.
    fn read_where(&mut self, io: &mut ReadIo<'_>, want: impl Fn(usize, bool) -> bool) {
        let mut wanted: Vec<(usize, usize)> = Vec::with_capacity(self.map.rows[0].cols.len());
        for (r, row) in self.map.rows.iter().enumerate() {
            for (c, col) in row.cols.iter().enumerate() {
                if self.known[r][c] == Known::Nothing && want(r, c < self.map.nparity) {
                    if col.size == 0 {
                        self.known[r][c] = Known::Read;
                    } else {
                        wanted.push((r, c));
                    }
                }
            }
        }
        if self.parity.is_empty() && wanted.iter().any(|(_, c)| *c < self.map.nparity) {
            self.parity = vec![0; self.map.parity_len];
        }
        if wanted.len() > 1 && self.read_at_once(io, &wanted) {
            return;
        }
        // In one row every column is on a child of its own.
        if self.map.rows.len() == 1 {
            wanted.iter().for_each(|w| self.read_run(io, &[*w]));
            return;
        }
        let place = |w: &(usize, usize)| {
            let col = &self.map.rows[w.0].cols[w.1];
            (col.child, col.offset, col.size as i64)
        };
        wanted.sort_unstable_by_key(place);
        let map = self.map;
        let runs = wanted.chunk_by(|a, b| {
            let (a, b) = (&map.rows[a.0].cols[a.1], &map.rows[b.0].cols[b.1]);
            a.child == b.child && a.offset + a.size as i64 == b.offset
        });
        runs.for_each(|run| self.read_run(io, run));
    }

    /// Has all columns read at the same time when their devices wait for hardware; false when that does not apply.
    fn read_at_once(&mut self, io: &mut ReadIo<'_>, wanted: &[(usize, usize)]) -> bool {
        type Job = Box<dyn FnOnce() -> (Result<(), VdevError>, Vec<u8>) + Send>;
        let Some(tasks) = io.tasks else { return false };
        let mut jobs: Vec<Job> = Vec::with_capacity(wanted.len());
        for &(r, c) in wanted {
            let col = self.column(r, c);
            let Some((device, at)) = self.vdev.children[col.child].slow_place(col.offset as u64, col.size) else {
                return false;
            };
            jobs.push(Box::new(move || {
                let mut bytes = vec![0u8; col.size];
                let result = device.read_at(at, &mut bytes).map_err(|_| VdevError::Io);
                (result, bytes)
            }));
        }
        for (&(r, c), outcome) in wanted.iter().zip(tasks.run(jobs)) {
            let col = self.column(r, c);
            let (result, bytes) = outcome.unwrap_or((Err(VdevError::Io), Vec::new()));
            self.vdev.children[col.child].account(io, col.offset as u64, col.size as u64, result);
            if result.is_ok() {
                self.memory(r, c).copy_from_slice(&bytes);
            }
            self.known[r][c] = if result.is_ok() { Known::Read } else { Known::Failed };
        }
        true
    }

    fn column(&self, r: usize, c: usize) -> Column {
        self.map.rows[r].cols[c]
    }

    fn memory(&mut self, r: usize, c: usize) -> &mut [u8] {
        let col = self.column(r, c);
        let from = if c < self.map.nparity { &mut self.parity[..] } else { &mut self.data[..] };
        &mut from[col.mem..col.mem + col.size]
    }

    fn bytes(&self, r: usize, c: usize) -> &[u8] {
        let col = self.column(r, c);
        let from = if c < self.map.nparity { &self.parity[..] } else { &self.data[..] };
        &from[col.mem..col.mem + col.size]
    }

    /// Reads columns that lie one behind the other on one child.
    fn read_run(&mut self, io: &mut ReadIo<'_>, pieces: &[(usize, usize)]) {
        let Some(&(r, c)) = pieces.first() else { return };
        let first = self.column(r, c);
        let child: &'a Vdev = &self.vdev.children[first.child];
        let accept = |_: &[u8]| true;
        let mut sub = io.below(self.vdev, &accept);
        let result = if pieces.len() == 1 {
            child.read(&mut sub, first.offset as u64, self.memory(r, c))
        } else {
            let len = pieces.iter().map(|(r, c)| self.column(*r, *c).size).sum();
            let mut scratch = vec![0u8; len];
            let result = child.read(&mut sub, first.offset as u64, &mut scratch);
            let mut at = 0;
            for &(r, c) in pieces.iter().filter(|_| result.is_ok()) {
                let memory = self.memory(r, c);
                memory.copy_from_slice(&scratch[at..at + memory.len()]);
                at += memory.len();
            }
            result
        };
        io.damage.append(&mut sub.damage);
        let known = match result {
            Ok(()) => Known::Read,
            Err(VdevError::NoDevice) => Known::Missing,
            Err(_) => Known::Failed,
        };
        for &(r, c) in pieces {
            self.known[r][c] = known;
        }
    }

    /// Rebuilds lost data columns from parity; false when a row has lost too much.
    fn rebuild_known_lost(&mut self) -> bool {
        (0..self.map.rows.len()).all(|r| self.rebuild_row(r, &[]))
    }

    /// Rebuilds the data columns of row `r` that are lost or `suspected`; false when that is impossible.
    fn rebuild_row(&mut self, r: usize, suspected: &[usize]) -> bool {
        let nparity = self.map.nparity;
        let bad = |c: &usize| self.known[r][*c].is_lost() || suspected.contains(c);
        let ncols = self.map.rows[r].cols.len();
        let lost: Vec<usize> = (nparity..ncols).filter(|c| self.column(r, *c).size > 0 && bad(c)).collect();
        if lost.is_empty() {
            return true;
        }
        let sound: Vec<usize> =
            (0..nparity.min(ncols)).filter(|c| self.known[r][*c] == Known::Read && !bad(c)).collect();
        if lost.len() > sound.len() {
            return false;
        }
        let data: Vec<Option<&[u8]>> =
            (nparity..ncols).map(|c| (!lost.contains(&c)).then(|| self.bytes(r, c))).collect();
        let parity: Vec<(usize, &[u8])> = sound.iter().take(lost.len()).map(|c| (*c, self.bytes(r, *c))).collect();
        let mut rebuilt: Vec<Vec<u8>> = lost.iter().map(|c| vec![0; self.column(r, *c).size]).collect();
        let mut out: Vec<&mut [u8]> = rebuilt.iter_mut().map(Vec::as_mut_slice).collect();
        if !raidz::reconstruct(&parity, &data, &mut out) {
            return false;
        }
        for (c, bytes) in lost.into_iter().zip(rebuilt) {
            self.memory(r, c).copy_from_slice(&bytes);
        }
        true
    }

    /// The error of a row that lost more than parity covers, if there is one.
    fn worst_row(&self) -> Option<VdevError> {
        self.known.iter().find_map(|row| {
            let lost = row.iter().filter(|k| k.is_lost()).count();
            let failed = row.contains(&Known::Failed);
            (lost > self.map.nparity).then_some(if failed { VdevError::Io } else { VdevError::NoDevice })
        })
    }

    /// Assumes sets of children to be wrong until the block is good.
    fn guess(&mut self, io: &mut ReadIo<'_>) -> bool {
        let suspects = self.suspects();
        let data = self.data.to_vec();
        let mut guesses = 0;
        for count in 1..=self.map.nparity.min(suspects.len()) {
            let mut set: Vec<usize> = (0..count).collect();
            loop {
                guesses += 1;
                if guesses > MOST_GUESSES {
                    tracing::warn!(vdev = self.vdev.guid(), "gave up guessing which columns are wrong");
                    return false;
                }
                let wrong: Vec<Vec<usize>> = (0..self.map.rows.len())
                    .map(|r| set.iter().flat_map(|s| suspects[*s][r].iter().copied()).collect())
                    .collect();
                let solved = (0..self.map.rows.len()).all(|r| self.rebuild_row(r, &wrong[r]));
                if solved && self.is_good(io) {
                    self.blame_wrong(io, &data, &wrong);
                    self.check_parity(io, &wrong);
                    return true;
                }
                self.data.copy_from_slice(&data);
                if !next_set(&mut set, suspects.len()) {
                    break;
                }
            }
        }
        false
    }

    /// For each child that may be the liar, now or in one of the widths the vdev had, the columns of each row that
    /// lay on it.
    fn suspects(&self) -> Vec<Vec<Vec<usize>>> {
        let (width, original) = match &self.vdev.geometry {
            super::super::tree::Geometry::Raidz(g) if self.map.rows.len() > 1 => (g.width, g.original_width),
            _ => (self.vdev.children.len(), self.vdev.children.len()),
        };
        let shift = self.vdev.ashift;
        let on = |col: &Column, w: usize, id: usize| {
            let sector = (col.offset >> shift).wrapping_mul(width as i64).wrapping_add(col.child as i64);
            sector.rem_euclid(w as i64) == id as i64
        };
        let mut out: Vec<Vec<Vec<usize>>> = Vec::new();
        for (w, id) in (original..=width).rev().flat_map(|w| (0..w).map(move |id| (w, id))) {
            let hit: Vec<Vec<usize>> = self
                .map
                .rows
                .iter()
                .zip(&self.known)
                .map(|(row, known)| {
                    let lies =
                        |c: &usize| known[*c] == Known::Read && row.cols[*c].size > 0 && on(&row.cols[*c], w, id);
                    (0..row.cols.len()).filter(lies).collect()
                })
                .collect();
            // Only data can make the block wrong, but parity that lies spoils what is rebuilt from it.
            if hit.iter().any(|h| !h.is_empty()) && !out.contains(&hit) {
                out.push(hit);
            }
        }
        out
    }

    /// Blames the data columns that a successful guess changed.
    fn blame_wrong(&self, io: &mut ReadIo<'_>, before: &[u8], wrong: &[Vec<usize>]) {
        for (r, cols) in wrong.iter().enumerate() {
            for &c in cols.iter().filter(|c| **c >= self.map.nparity) {
                let col = self.column(r, c);
                if before[col.mem..col.mem + col.size] != *self.bytes(r, c) {
                    self.blame(io, &col);
                }
            }
        }
    }

    /// With a good block at hand, blames parity columns that were read and do not fit it. Where rebuilding used up
    /// all parity there is nothing to compare.
    fn check_parity(&mut self, io: &mut ReadIo<'_>, wrong: &[Vec<usize>]) {
        if self.parity.is_empty() {
            return;
        }
        self.check_padding(io);
        let nparity = self.map.nparity;
        for r in 0..self.map.rows.len() {
            let ncols = self.map.rows[r].cols.len();
            let lost =
                (nparity..ncols).filter(|c| self.known[r][*c].is_lost() || wrong.get(r).is_some_and(|w| w.contains(c)));
            let lost = lost.count();
            let read: Vec<usize> = (0..nparity.min(ncols)).filter(|c| self.known[r][*c] == Known::Read).collect();
            if read.len() <= lost {
                continue;
            }
            let height = self.column(r, 0).size;
            let data: Vec<&[u8]> = (nparity..ncols).map(|c| self.bytes(r, c)).collect();
            let mut right: Vec<Vec<u8>> = (0..nparity).map(|_| vec![0; height]).collect();
            let mut out: Vec<&mut [u8]> = right.iter_mut().map(Vec::as_mut_slice).collect();
            raidz::generate(&mut out, &data);
            for c in read.into_iter().filter(|c| right[*c] != self.bytes(r, *c)) {
                self.blame(io, &self.column(r, c));
            }
        }
    }

    /// What fills a block up to whole sectors is zero, and no checksum tells when it is not. Parity covers it, so a column
    /// whose padding lies would make all parity look wrong, also after that was written anew from the block.
    fn check_padding(&mut self, io: &mut ReadIo<'_>) {
        if self.data[self.block_len..].iter().all(|b| *b == 0) {
            return;
        }
        for (r, row) in self.map.rows.iter().enumerate() {
            for (c, col) in row.cols.iter().enumerate().skip(self.map.nparity) {
                let padding = self.data.get(col.mem.max(self.block_len)..col.mem + col.size).unwrap_or_default();
                if self.known[r][c] == Known::Read && padding.iter().any(|b| *b != 0) {
                    self.blame(io, col);
                }
            }
        }
        self.data[self.block_len..].fill(0);
    }

    /// No guess helped: all that was read is under suspicion.
    fn blame_everybody(&self, io: &mut ReadIo<'_>) {
        for (row, known) in self.map.rows.iter().zip(&self.known) {
            for (col, _) in row.cols.iter().zip(known).filter(|(c, k)| **k == Known::Read && c.size > 0) {
                self.blame(io, col);
            }
        }
    }

    fn blame(&self, io: &mut ReadIo<'_>, col: &Column) {
        let child = self.vdev.children.get(col.child);
        if let Some(leaf) = child.and_then(|c| c.leaf_at(self.vdev, 0, col.offset as u64, io.birth)) {
            io.blame(leaf, col.offset as u64, col.size as u64, VdevError::Checksum);
        }
    }
}

/// The next subset of `0..n` of the same size, in lexicographic order.
fn next_set(set: &mut [usize], n: usize) -> bool {
    let k = set.len();
    for i in (0..k).rev() {
        if set[i] < n - (k - i) {
            set[i] += 1;
            for j in i + 1..k {
                set[j] = set[j - 1] + 1;
            }
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::next_set;

    #[test]
    fn all_subsets_come_once() {
        let mut set = vec![0, 1, 2];
        let mut seen = vec![set.clone()];
        while next_set(&mut set, 6) {
            seen.push(set.clone());
        }
        assert_eq!(seen.len(), 20);
        seen.dedup();
        assert_eq!(seen.len(), 20);
    }
}
