//! `zdb -l`: the four labels of a device, their uberblocks, and the header of a cache device.
//!
//! Equal labels and equal uberblocks are printed once with the numbers of the labels that carry them. A damaged
//! label is named and skipped; nothing here needs a pool to be importable.

use crate::opts::Opts;
use crate::out::Out;
use crate::{l2arc, nvprint, p, uber};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use zfs_phys::label as lay;
use zfs_phys::uberblock::Uberblock;
use zfs_phys::{Endian, NvList, NvValue};

const LABEL: usize = lay::VDEV_LABEL_SIZE as usize;
const PHYS: usize = lay::VDEV_PHYS_SIZE as usize;
const SKIP: usize = lay::VDEV_SKIP_SIZE as usize;
const RING: usize = lay::VDEV_UBERBLOCK_RING_OFFSET as usize;
/// Space for the packed list: the area less its checksum trailer.
const NVLIST_ROOM: usize = PHYS - lay::ECK_SIZE;
const ECK_MAGIC: u64 = 0x0210_da7a_b10c_7a11;
/// Slots at the end of the ring that multihost writes.
const MMP_SLOTS: usize = 1;

struct Label {
    bytes: Vec<u8>,
    sum_ok: bool,
    config: Option<NvList>,
    packed: Vec<u8>,
    /// Bytes of the uberblock of each slot that holds one.
    ubers: Vec<Option<Vec<u8>>>,
    header_printed: bool,
}

fn resolve(dev: &str) -> Option<PathBuf> {
    let direct = PathBuf::from(dev);
    if dev.starts_with('/') || direct.exists() {
        return Some(direct);
    }
    let dirs = ["/dev", "/dev/disk/by-id", "/dev/disk/by-partlabel", "/dev/disk/by-path", "/dev/disk/by-vdev"];
    dirs.iter().map(|d| PathBuf::from(d).join(dev)).find(|p| p.exists())
}

/// Bytes of a file or block device.
fn size_of(file: &File) -> std::io::Result<u64> {
    use std::io::Seek;
    let meta = file.metadata()?;
    if meta.is_file() {
        return Ok(meta.len());
    }
    let mut handle = file;
    handle.seek(std::io::SeekFrom::End(0))
}

fn os_text(e: &std::io::Error) -> String {
    let s = e.to_string();
    s.split(" (os error").next().unwrap_or(&s).to_owned()
}

/// Whether the configuration area's own checksum fits, given the label's place on the device.
fn checksum_ok(label: &[u8], offset: u64) -> bool {
    let Some(area) = label.get(SKIP..SKIP + PHYS) else { return false };
    let mut area = area.to_vec();
    let trailer = PHYS - lay::ECK_SIZE;
    let word = |a: &[u8], at: usize, e: Endian| zfs_phys::read::u64_at(a, at, e).unwrap_or(0);
    let endian = if word(&area, trailer, Endian::Big) == ECK_MAGIC { Endian::Big } else { Endian::Little };
    let stored: Vec<u64> = (0..4).map(|i| word(&area, trailer + 8 + i * 8, endian)).collect();
    let verifier = endian.put_u64(offset + SKIP as u64);
    if let Some(field) = area.get_mut(trailer + 8..) {
        field.fill(0);
    }
    if let Some(field) = area.get_mut(trailer + 8..trailer + 16) {
        field.copy_from_slice(&verifier);
    }
    let digest = Sha256::digest(&area);
    (0..4).all(|i| stored.get(i).copied() == Some(word(&digest, i * 8, Endian::Big)))
}

fn uber_slots(bytes: &[u8], ashift: u64) -> Vec<Option<Vec<u8>>> {
    let slot = 1usize << lay::uberblock_shift(ashift);
    let ring = bytes.get(RING..).unwrap_or_default();
    let good = |s: &[u8]| Uberblock::decode(s).is_ok_and(|u| (1..=28).contains(&u.version) || u.version == 5000);
    ring.chunks_exact(slot).map(|s| good(s).then(|| s.get(..216).unwrap_or(s).to_vec())).collect()
}

fn read_label(file: &File, psize: u64, l: usize, ashift: &mut u64) -> Option<Label> {
    let offset = lay::label_offset(psize, l)?;
    let mut bytes = vec![0u8; LABEL];
    file.read_exact_at(&mut bytes, offset).ok()?;
    let area = bytes.get(SKIP..SKIP + NVLIST_ROOM).unwrap_or_default();
    let config = NvList::decode(area).ok();
    let mut packed = Vec::new();
    if let Some(c) = &config {
        *ashift = c.list("vdev_tree").and_then(|t| t.u64("ashift")).unwrap_or(9);
        packed = c.encode_xdr();
    }
    let ubers = uber_slots(&bytes, *ashift);
    Some(Label { sum_ok: checksum_ok(&bytes, offset), bytes, config, packed, ubers, header_printed: false })
}

fn header(o: &mut Out, opts: &Opts, label: &mut Label, l: usize) {
    if opts.has('q') || label.header_printed {
        return;
    }
    let line = "------------------------------------";
    let note = if label.sum_ok { "" } else { "(Bad label cksum)" };
    p!(o, "{line}\nLABEL {l} {note}\n{line}\n");
    label.header_printed = true;
}

fn numbers(o: &mut Out, prefix: &str, which: &[usize]) {
    p!(o, "{prefix}");
    which.iter().for_each(|l| p!(o, "{l} "));
    p!(o, "\n");
}

/// Reads and prints; the result is the exit code: 2 without any configuration, 1 after errors.
pub fn run(o: &mut Out, opts: &Opts, dev: &str) -> i32 {
    let Some(path) = resolve(dev) else {
        p!(o, "failed to find device {dev}, try specifying absolute path instead\n");
        return 1;
    };
    let opened = File::open(&path).and_then(|f| size_of(&f).map(|n| (f, n)));
    let (file, size) = match opened {
        Ok(v) => v,
        Err(e) => {
            p!(o, "cannot open '{}': {}\n", path.display(), os_text(&e));
            return 1;
        }
    };
    let psize = size - size % lay::VDEV_LABEL_SIZE;
    let mut ashift = 9;
    let mut labels: Vec<Option<Label>> = Vec::new();
    let mut failed = false;
    for l in 0..lay::VDEV_LABELS {
        let label = read_label(&file, psize, l, &mut ashift);
        if label.is_none() && !opts.has('q') {
            p!(o, "failed to read label {l}\n");
        }
        failed |= label.as_ref().is_none_or(|l| l.config.is_none());
        labels.push(label);
    }
    for l in 0..labels.len() {
        one(o, opts, &mut labels, l, ashift);
    }
    let configs = || labels.iter().flatten().filter_map(|l| l.config.as_ref());
    if configs().any(|c| c.u64("state") == Some(l2arc::POOL_STATE_L2CACHE)) {
        failed |= !l2arc::dump(o, opts, &file);
    }
    if configs().next().is_none() { 2 } else { i32::from(failed) }
}

/// Labels that hold the same thing as label `l`, by `key`.
fn same<K: PartialEq>(labels: &[Option<Label>], l: usize, key: impl Fn(&Label) -> Option<K>) -> Vec<usize> {
    let mine = labels.get(l).and_then(Option::as_ref).and_then(&key);
    let one = |(i, lab): (usize, &Option<Label>)| {
        let theirs = lab.as_ref().and_then(&key);
        (theirs.is_some() && theirs == mine).then_some(i)
    };
    labels.iter().enumerate().filter_map(one).collect()
}

fn one(o: &mut Out, opts: &Opts, labels: &mut [Option<Label>], l: usize, ashift: u64) {
    let alike = same(labels, l, |x| x.config.as_ref().map(|_| x.packed.clone()));
    let Some(label) = labels.get_mut(l).and_then(Option::as_mut) else { return };
    match label.config.take() {
        None if opts.has('q') => {}
        None => p!(o, "failed to unpack label {l}\n"),
        Some(config) => {
            if !opts.has('q') && (opts.lvl('l') >= 3 || alike.first() == Some(&l)) {
                header(o, opts, label, l);
                nvprint::dump(o, &config, 4);
                numbers(o, "    labels = ", &alike);
                if opts.lvl('l') >= 2 {
                    stats(o, opts, &config);
                }
            }
            label.config = Some(config);
        }
    }
    if opts.has('u') {
        uberblocks(o, opts, labels, l, ashift);
    }
}

fn uberblocks(o: &mut Out, opts: &Opts, labels: &mut [Option<Label>], l: usize, ashift: u64) {
    let slots = (lay::VDEV_UBERBLOCK_RING >> lay::uberblock_shift(ashift)) as usize;
    let level = opts.lvl('u');
    // The same uberblock in another slot of another label counts as the same.
    let holds = |x: &Label, b: &[u8]| x.ubers.iter().flatten().any(|u| u.as_slice() == b);
    for i in 0..slots {
        let mine = labels.get(l).and_then(Option::as_ref).and_then(|x| x.ubers.get(i).cloned().flatten());
        let Some(mine) = mine else {
            if level >= 2 {
                if let Some(label) = labels.get_mut(l).and_then(Option::as_mut) {
                    header(o, opts, label, l);
                }
                p!(o, "    Uberblock[{i}] invalid\n");
            }
            continue;
        };
        let found = |(n, x): (usize, &Option<Label>)| x.as_ref().is_some_and(|x| holds(x, &mine)).then_some(n);
        let alike: Vec<usize> = labels.iter().enumerate().filter_map(found).collect();
        let Some(label) = labels.get_mut(l).and_then(Option::as_mut) else { return };
        let at = RING + (i << lay::uberblock_shift(ashift));
        let Ok(ub) = Uberblock::decode(label.bytes.get(at..).unwrap_or_default()) else { continue };
        if level < 3 && alike.first() != Some(&l) {
            continue;
        }
        if level < 4 && ub.mmp_valid() && ub.mmp_delay != 0 && i >= slots - MMP_SLOTS {
            continue;
        }
        header(o, opts, label, l);
        uber::dump(o, &ub, &format!("    Uberblock[{i}]\n"), "", level);
        numbers(o, "        labels = ", &alike);
    }
}

#[derive(Default)]
struct Stats {
    lists: usize,
    leaves: Vec<usize>,
    strings: NvList,
    integers: NvList,
    booleans: NvList,
}

fn collect(o: &mut Out, s: &mut Stats, list: &NvList) {
    s.lists += 1;
    for (name, value) in &list.pairs {
        let pair = (name.clone(), value.clone());
        match value {
            NvValue::String(_) => s.strings.pairs.push(pair),
            NvValue::Uint64(_) => s.integers.pairs.push(pair),
            NvValue::Boolean => s.booleans.pairs.push(pair),
            NvValue::NvList(l) => collect(o, s, l),
            NvValue::NvListArray(lists) => {
                for l in lists {
                    collect(o, s, l);
                    if name == "children" {
                        s.leaves.push(l.encode_xdr().len());
                    }
                }
            }
            // Says no more of the kinds it has no column for than their number (`data_type_t`).
            NvValue::Uint64Array(_) => p!(o, "skip type 16!\n"),
            NvValue::BooleanValue(_) => p!(o, "skip type 20!\n"),
            _ => p!(o, "skip type!\n"),
        }
    }
}

fn stats(o: &mut Out, opts: &Opts, config: &NvList) {
    let total = config.encode_xdr().len();
    let free = NVLIST_ROOM.saturating_sub(total);
    let part = |n: usize| 100.0 * n as f64 / total as f64;
    p!(o, "\n\nZFS Label NVList Config Stats:\n");
    let used = 100.0 * total as f64 / NVLIST_ROOM as f64;
    p!(o, "  {total} bytes used, {free} bytes free (using {used:4.1}%)\n\n");
    let mut s = Stats::default();
    collect(o, &mut s, config);
    let empty = NvList::default().encode_xdr().len();
    let mut sum = 0;
    for (title, list) in [("integers:", &s.integers), ("strings:", &s.strings), ("booleans:", &s.booleans)] {
        let size = list.encode_xdr().len() - empty;
        sum += size;
        p!(o, "{title:>12} {:4} {size:6} bytes ({:5.2}%)\n", list.pairs.len(), part(size));
    }
    let rest = total.saturating_sub(sum);
    p!(o, "{:>12} {:4} {rest:6} bytes ({:5.2}%)\n\n", "nvlists:", s.lists, part(rest));
    if let Some(largest) = s.leaves.iter().max() {
        let average = s.leaves.iter().sum::<usize>() / s.leaves.len();
        p!(o, "{:>12} {:4} {average:6} bytes average\n{largest:24} bytes largest\n", "leaf vdevs:", s.leaves.len());
        if opts.lvl('l') >= 3 && average > 0 {
            p!(o, "  space for {} additional leaf vdevs\n", free / average);
        }
    }
    p!(o, "\n");
}
