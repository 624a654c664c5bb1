//! What OpenZFS wrote, decoded and encoded again: every structure of the corpus pools must come out byte for byte, so
//! that what the engine writes is what OpenZFS would have written.

#[path = "common/pool.rs"]
mod pool;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use zfs_codec::checksum::{TRAILER_LEN, label_verifier, seal_embedded};
use zfs_dmu::sa::SaRegistry;
use zfs_dmu::{Dnode, Objset, Zbookmark};
use zfs_env::{BlockDevice, FileDevice};
use zfs_phys::bpobj::BpobjPhys;
use zfs_phys::dnode::{DNODE_SIZE, DnodePhys};
use zfs_phys::dsl::{DeadlistPhys, DslDatasetPhys, DslDirPhys};
use zfs_phys::enums::{ChecksumKind, DmuObjectType as T};
use zfs_phys::history::{HistoryPhys, encode_record, records};
use zfs_phys::label::{
    VDEV_LABEL_SIZE, VDEV_PHYS_SIZE, VDEV_SKIP_SIZE, VDEV_UBERBLOCK_RING_OFFSET, decode_config, encode_config,
    uberblock_shift,
};
use zfs_phys::objset::ObjsetPhys;
use zfs_phys::sa::{SaHeader, SaValue};
use zfs_phys::spacemap::{SpaceMapPhys, entries};
use zfs_phys::uberblock::Uberblock;
use zfs_phys::zap::leaf_edit::{LeafMut, NewEntry};
use zfs_phys::zap::{FatHeader, Fit, MicroZap, ZapKind, init_micro, set_micro_entry};
use zfs_phys::zil::{Record, RecordBody, ZilBlock, encode_block};
use zfs_phys::znode::ZnodePhys;
use zfs_phys::{Endian, NvList};

/// Structures compared, by kind, and the first few that differ.
#[derive(Default)]
struct Tally {
    seen: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn same(&mut self, kind: &'static str, place: &str, theirs: &[u8], ours: &[u8]) {
        *self.seen.entry(kind).or_default() += 1;
        if theirs != ours {
            let at = theirs.iter().zip(ours).position(|(a, b)| a != b).unwrap_or(theirs.len().min(ours.len()));
            let cut = |b: &[u8]| format!("{:02x?}", &b[at.min(b.len())..(at + 16).min(b.len())]);
            self.wrong.push(format!(
                "{kind} of {place} at byte {at} of {} ({} encoded): {} became {}",
                theirs.len(),
                ours.len(),
                cut(theirs),
                cut(ours)
            ));
        }
    }
}

fn labels(dir: &Path, t: &mut Tally) {
    for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        let disk = FileDevice::open_read_only(&path).unwrap();
        let mut label = vec![0; VDEV_LABEL_SIZE as usize];
        let area = VDEV_SKIP_SIZE as usize..(VDEV_SKIP_SIZE + VDEV_PHYS_SIZE) as usize;
        if disk.read_at(0, &mut label).is_err() {
            continue;
        }
        let Ok(config) = decode_config(&label[area.clone()]) else { continue };
        let place = path.display().to_string();
        let used = config.xdr_size();
        t.same("label", &place, &label[area][..used], &encode_config(&config).unwrap()[..used]);
        let slot = 1 << uberblock_shift(config.list("vdev_tree").and_then(|v| v.u64("ashift")).unwrap_or(9));
        let ring = VDEV_UBERBLOCK_RING_OFFSET as usize;
        for (i, raw) in label[ring..].chunks_exact(slot).enumerate() {
            if let Ok(u) = Uberblock::decode(raw) {
                let mut ours = u.encode(slot).unwrap();
                let verifier = label_verifier((ring + i * slot) as u64);
                // A ring that was just initialized holds a root without checksum.
                if raw[slot - TRAILER_LEN..].iter().any(|b| *b != 0) {
                    seal_embedded(ChecksumKind::Label, &mut ours, verifier, u.endian, None).unwrap();
                }
                t.same("uberblock", &place, raw, &ours);
            }
        }
    }
}

fn bonus(place: &str, d: &DnodePhys, t: &mut Tally) {
    let (b, e) = (&d.bonus[..], d.endian);
    match d.bonustype {
        T::DSL_DIR => t.same("dsl dir", place, b, &DslDirPhys::decode(b, e).unwrap().encode(e)),
        T::DSL_DATASET => t.same("dsl dataset", place, b, &DslDatasetPhys::decode(b, e).unwrap().encode(e)),
        T::DEADLIST_HDR => t.same("deadlist", place, b, &DeadlistPhys::decode(b, e).unwrap().encode(e)),
        T::BPOBJ_HDR => t.same("bpobj", place, b, &BpobjPhys::decode(b, e).unwrap().encode(b.len(), e).unwrap()),
        T::SPACE_MAP_HEADER => t.same("space map header", place, b, &SpaceMapPhys::decode(b, e).unwrap().encode(e)),
        T::SPA_HISTORY_OFFSETS => t.same("history offsets", place, b, &HistoryPhys::decode(b, e).unwrap().encode(e)),
        T::ZNODE => {
            let mut ours = ZnodePhys::decode(b, e).unwrap().encode(e).unwrap();
            // A symlink's target or a scan stamp follows.
            ours.extend(&b[ours.len()..]);
            t.same("znode", place, b, &ours);
        }
        _ => {}
    }
}

fn system_attributes(place: &str, d: &DnodePhys, sa: &SaRegistry, t: &mut Tally) {
    if d.bonustype != T::SA || d.bonus.is_empty() {
        return;
    }
    let h = SaHeader::decode(&d.bonus, d.endian).unwrap();
    let layout = &sa.layouts()[&h.layout];
    let length = |n: u16| sa.attrs().find(|a| a.num == n).map(|a| a.length);
    let places = zfs_phys::sa::places(&d.bonus, h.endian, layout, length).unwrap();
    let values: Vec<SaValue> = places
        .iter()
        .map(|p| SaValue { data: &d.bonus[p.offset..p.offset + p.len], variable: length(p.num) == Some(0) })
        .collect();
    let mut ours = zfs_phys::sa::encode(h.layout, &values, h.endian).unwrap();
    // The last attribute is not padded where the bonus ends with it, and a bonus does not shrink with its contents.
    ours.truncate(d.bonus.len());
    ours.extend(&d.bonus[ours.len()..]);
    t.same("sa", place, &d.bonus, &ours);
}

fn zap_block(place: &str, raw: &[u8], e: Endian, t: &mut Tally) {
    if let Ok(l) = zfs_phys::zap::Leaf::decode(raw, e) {
        let mut copy = raw.to_vec();
        let mut edit = LeafMut::open(&mut copy, e).unwrap();
        edit.check().unwrap_or_else(|err| t.wrong.push(format!("zap leaf of {place}: {err}")));
        // Taken out and put back, every entry must be found again as it was.
        let all = l.sorted().unwrap();
        for x in all.iter().take(20) {
            assert!(edit.remove(x.hash, x.cd).unwrap());
            let (mut key, value) = (l.name(x).unwrap(), l.value_bytes(x).unwrap());
            if key.len() + 1 != usize::from(x.name_numints) {
                key = zfs_phys::zap::leaf_edit::stored_words(&l.key_words(x).unwrap());
            } else {
                key.push(0);
            }
            let (key_numints, value_intlen) = (x.name_numints, x.value_intlen);
            let new = NewEntry { hash: x.hash, cd: x.cd, key: &key, key_numints, value_intlen, value: &value };
            assert_eq!(edit.insert(&new).unwrap(), Fit::Done);
        }
        edit.check().unwrap();
        let again = edit.leaf().unwrap();
        let tell = |l: &zfs_phys::zap::Leaf<'_>| -> Vec<u8> {
            let entries = l.sorted().unwrap().into_iter();
            entries
                .flat_map(|x| [l.name(&x).unwrap(), l.value_bytes(&x).unwrap(), x.cd.to_le_bytes().to_vec()].concat())
                .collect()
        };
        t.same("zap leaf", place, &tell(&l), &tell(&again));
        return;
    }
    match ZapKind::of(raw, e) {
        Ok(ZapKind::Micro) => {
            let z = MicroZap::decode(raw, e).unwrap();
            let mut ours = vec![0xff; raw.len()];
            init_micro(&mut ours, e, z.salt, z.normflags).unwrap();
            z.iter().for_each(|(i, x)| set_micro_entry(&mut ours, e, i, Some(x)).unwrap());
            t.same("micro zap", place, raw, &ours);
        }
        Ok(ZapKind::Fat) => {
            let h = FatHeader::decode(raw, e).unwrap();
            let mut ours = raw.to_vec();
            ours[..104].fill(0xff);
            h.store(&mut ours, e).unwrap();
            t.same("fat zap header", place, raw, &ours);
        }
        // A block of the pointer table.
        Err(_) => {}
    }
}

fn contents(place: &str, dn: &Arc<Dnode>, t: &mut Tally) {
    let phys = dn.phys().clone();
    let e = phys.endian;
    match phys.object_type {
        T::SPACE_MAP => {
            let header = SpaceMapPhys::decode(&phys.bonus, e).unwrap();
            let raw = dn.read_vec(0, header.length as usize).unwrap();
            let words = entries(&raw, e).flat_map(|x| {
                let (a, b) = x.unwrap().encode().unwrap();
                [Some(a), b].into_iter().flatten()
            });
            let ours: Vec<u8> = words.flat_map(|w| e.put_u64(w)).collect();
            t.same("space map", place, &raw, &ours);
        }
        T::PACKED_NVLIST if phys.bonus.len() >= 8 => {
            let size = e.u64(phys.bonus[..8].try_into().unwrap());
            let raw = dn.read_vec(0, size as usize).unwrap();
            t.same("packed nvlist", place, &raw, &NvList::decode(&raw).unwrap().encode_xdr());
        }
        T::SPA_HISTORY => {
            let h = HistoryPhys::decode(&phys.bonus, e).unwrap();
            if h.records_lost == 0 && h.eof <= h.phys_max_off {
                let raw = dn.read_vec(0, h.eof as usize).unwrap();
                let ours: Vec<u8> = records(&raw).iter().flat_map(encode_record).collect();
                t.same("history", place, &raw, &ours);
            }
        }
        kind if kind.is_zap() => {
            for blkid in 0..=phys.maxblkid.min(2000) {
                if let Ok(Some((raw, e))) = dn.read_block_endian(blkid) {
                    zap_block(place, &raw, e, t);
                }
            }
        }
        _ => {}
    }
}

fn objset(name: &str, os: &Arc<Objset>, t: &mut Tally) {
    let place = format!("{name}/{}", os.id());
    let root = os.root_bp();
    let bm = Zbookmark::new(os.id(), 0, -1, 0);
    if let Ok(raw) = os.zio().read(&root, &bm, None) {
        let ours = ObjsetPhys::decode(&raw, root.endian()).unwrap().encode(raw.len()).unwrap();
        t.same("objset", &place, &raw, &ours);
    }
    let sa = SaRegistry::load(os).ok();
    let meta = os.meta_dnode();
    for blkid in 0..=meta.phys().maxblkid {
        let Ok(Some((raw, e))) = meta.read_block_endian(blkid) else { continue };
        let mut at = 0;
        while at < raw.len() {
            let object = (blkid as usize * raw.len() + at) / DNODE_SIZE;
            let place = format!("{place}/{object}");
            let Some(d) = DnodePhys::decode(&raw[at..], e).unwrap() else {
                at += DNODE_SIZE;
                continue;
            };
            let size = d.slots() * DNODE_SIZE;
            let mut ours = d.encode().unwrap();
            // Bytes between the bonus and the end mean nothing: what a longer bonus left there may stand.
            let end = size - if d.spill.is_some() { 128 } else { 0 };
            let gap = 64 + 128 * usize::from(d.nblkptr) + d.bonus.len();
            ours[gap..end].copy_from_slice(&raw[at + gap..at + end]);
            t.same("dnode", &place, &raw[at..at + size], &ours);
            bonus(&place, &d, t);
            if let Some(sa) = &sa {
                system_attributes(&place, &d, sa, t);
            }
            if let Ok(dn) = os.dnode(object as u64) {
                contents(&place, &dn, t);
            }
            at += size;
        }
    }
}

fn log(name: &str, os: &Arc<Objset>, t: &mut Tally) {
    let mut blocks = Vec::new();
    let _ = zfs_dmu::zil::walk(
        os,
        |bp, bm| {
            blocks.push((*bp, *bm));
            Ok(())
        },
        |_| Ok(()),
    );
    for (bp, bm) in blocks {
        let Ok(raw) = os.zio().read_speculative(&bp, &bm, None) else { continue };
        let Ok(block) = ZilBlock::decode(&raw, &bp) else { continue };
        let place = format!("{name}/{}", os.id());
        let mut rest = block.records;
        while !rest.is_empty() {
            let (r, tail) = Record::split(rest, block.endian).unwrap();
            let theirs = &rest[..rest.len() - tail.len()];
            assert!(!matches!(r.body, RecordBody::Unknown(..)));
            t.same("log record", &place, theirs, &r.encode(block.endian).unwrap());
            rest = tail;
        }
        let ours = encode_block(block.records, &block.next, raw.len(), true, block.endian).unwrap();
        let used = block.nused as usize;
        let skip = 144..184;
        t.same(
            "log block",
            &place,
            &[&raw[..skip.start], &raw[skip.end..used]].concat(),
            &[&ours[..skip.start], &ours[skip.end..used]].concat(),
        );
    }
}

#[test]
fn every_structure_of_every_pool_comes_out_as_it_went_in() {
    let Some(corpus) = pool::corpus() else { return };
    let mut t = Tally::default();
    let mut names: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for dir in names.into_iter().filter(|d| d.is_dir()) {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        labels(&dir, &mut t);
        let Some(p) = pool::open(&dir) else { continue };
        objset(&name, &p.mos, &mut t);
        for o in p.mos.objects().filter_map(Result::ok) {
            if o.1.bonustype == T::DSL_DATASET {
                let ds = DslDatasetPhys::decode(&o.1.bonus, o.1.endian).unwrap();
                if let Some(os) = (!ds.bp.is_hole()).then(|| Objset::open(&p.zio, &ds.bp, o.0, None).ok()).flatten() {
                    objset(&name, &os, &mut t);
                    log(&name, &os, &mut t);
                }
            }
        }
    }
    eprintln!("{:?}", t.seen);
    assert!(t.wrong.is_empty(), "{} differ:\n{}", t.wrong.len(), t.wrong[..t.wrong.len().min(40)].join("\n"));
    for kind in
        ["label", "uberblock", "dnode", "sa", "micro zap", "zap leaf", "space map", "history", "log record", "objset"]
    {
        assert!(t.seen.get(kind).is_some_and(|n| *n > 10), "few of kind {kind}");
    }
}
