//! What the fuzz targets do with their input: decode it as far as the format goes, both byte orders. The property is
//! that nothing panics, hangs or allocates without bound; where there is an encoder, that it gives back the input.

use zfs_phys::acl::{ZnodeAcl, decode_aces, decode_old_aces};
use zfs_phys::bootenv::BootEnv;
use zfs_phys::bpobj::BpobjPhys;
use zfs_phys::brt::BrtVdevPhys;
use zfs_phys::checkpoint::uberblock_from_words;
use zfs_phys::ddt::{DdtKey, DdtLogHeader, DdtPacking, DdtStat, decode_log_block, decode_phys, histogram_from_words};
use zfs_phys::dnode::DnodePhys;
use zfs_phys::dsl::{BookmarkPhys, DeadlistPhys, DslDatasetPhys, DslDirPhys, RedactionListPhys};
use zfs_phys::enums::ChecksumKind;
use zfs_phys::errlog::ErrorKey;
use zfs_phys::gang::{decode_gang, encode_gang};
use zfs_phys::history::{HistoryPhys, records as history_records};
use zfs_phys::indirect::{IndirectMappingPhys, decode_entries};
use zfs_phys::label::decode_config;
use zfs_phys::objset::ObjsetPhys;
use zfs_phys::sa::{SaHeader, legacy_places, places};
use zfs_phys::scan::{ErrorScrubPhys, RemovingPhys, ScanPhys};
use zfs_phys::spacemap::{SpaceMapPhys, entries};
use zfs_phys::uberblock::Uberblock;
use zfs_phys::zap::{FatHeader, Leaf, MicroZap, ZAP_LEAF_MAGIC, ZAP_MAGIC, ZBT_HEADER, ZBT_LEAF, ZBT_MICRO};
use zfs_phys::zil::{Record, ZilBlock};
use zfs_phys::znode::ZnodePhys;
use zfs_phys::{BlkPtr, Endian, NvList};

const BOTH: [Endian; 2] = [Endian::Little, Endian::Big];

/// The input from byte `at` on.
fn tail(data: &[u8], at: usize) -> &[u8] {
    data.get(at..).unwrap_or_default()
}

/// Vdev labels and uberblocks.
pub fn label(data: &[u8]) {
    if let Ok(config) = decode_config(data) {
        let _ = (config.u64("txg"), config.list("vdev_tree").map(|t| t.lists("children").len()));
    }
    if let Ok(u) = Uberblock::decode(data) {
        let _ = (u.mmp_valid(), u.mmp_interval_ms(), u.reflow_offset(), u.rank());
    }
}

/// Name/value lists: what decodes encodes to something that decodes to the same.
pub fn nvlist(data: &[u8]) {
    if let Ok(list) = NvList::decode(data) {
        let again = NvList::decode(&list.encode_xdr());
        // A NaN is not equal to itself, and only one format has every type.
        if let Ok(again) = again {
            assert_eq!(format!("{again:?}").len(), format!("{list:?}").len());
        }
    }
    for e in BOTH {
        let _ = zfs_phys::nvlist_native::decode(data, e);
    }
}

/// Block pointers and what they compress: embedded payloads through every decompressor.
pub fn blkptr(data: &[u8]) {
    for e in BOTH {
        let Ok(bp) = BlkPtr::decode(data, e) else { return };
        assert_eq!(bp.encode(e)[..], data[..128]);
        let _ = (bp.lsize(), bp.psize(), bp.asize(), bp.fill(), bp.birth(), bp.ndvas(), bp.crypt_params(), bp.mac());
        let _ = (bp.is_hole(), bp.is_gang(), bp.is_redacted(), bp.object_type().name());
        let payload = bp.embedded_payload();
        let source = if payload.is_empty() { tail(data, 128) } else { &payload };
        if let Some(kind) = bp.compress() {
            let mut out = vec![0; (bp.lsize() as usize).min(1 << 17)];
            let _ = zfs_codec::compress::decompress(kind, source, &mut out);
        }
    }
}

/// Dnodes, old znodes, object set headers.
pub fn dnode(data: &[u8]) {
    for e in BOTH {
        if let Ok(Some(d)) = DnodePhys::decode(data, e) {
            assert!(d.slots() * 512 <= data.len());
            let _ = (d.used_bytes(), d.blkptrs().count());
        }
        let _ = ObjsetPhys::decode(data, e);
        if let Ok(z) = ZnodePhys::decode(data, e) {
            let _ = (z.acl.aces(None), z.acl.aces(Some((data, e))));
        }
    }
}

/// Every kind of ZAP block; the first byte chooses which, so that magics need not be found by luck.
pub fn zap(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let e = if choice & 1 == 0 { Endian::Little } else { Endian::Big };
    let mut block = rest.to_vec();
    block.resize(rest.len().next_power_of_two().clamp(512, 16384), 0);
    let mut put = |at: usize, w: u64| block[at..at + 8].copy_from_slice(&e.put_u64(w));
    match (choice >> 1) % 3 {
        0 => {
            put(0, ZBT_MICRO);
            if let Ok(z) = MicroZap::decode(&block, e) {
                assert!(z.iter().count() <= z.chunks());
            }
        }
        1 => {
            put(0, ZBT_HEADER);
            put(8, ZAP_MAGIC);
            if let Ok(h) = FatHeader::decode(&block, e) {
                for hash in [0, 1 << 63, u64::MAX] {
                    let _ = h.leaf_pointer(&block, e, hash);
                }
            }
        }
        _ => {
            put(0, ZBT_LEAF);
            let magic = if e == Endian::Big { ZAP_LEAF_MAGIC.to_be_bytes() } else { ZAP_LEAF_MAGIC.to_le_bytes() };
            block[24..28].copy_from_slice(&magic);
            let Ok(leaf) = Leaf::decode(&block, e) else { return };
            let Ok(all) = leaf.sorted() else { return };
            for entry in all {
                let _ = (leaf.name(&entry), leaf.key_words(&entry), leaf.value_bytes(&entry), leaf.first_value(&entry));
                let _ = (leaf.name_is(&entry, b"name"), leaf.next_hash(entry.hash), leaf.chain(entry.hash).count());
            }
        }
    }
}

/// System attributes and ACLs: a layout is taken from the first bytes.
pub fn sa(data: &[u8]) {
    let Some((head, buf)) = data.split_at_checked(16) else { return };
    let layout: Vec<u16> = head.iter().map(|b| u16::from(b & 15)).collect();
    let length = |n: u16| (n < 14).then_some([0, 8, 16, 0, 88, 32, 0][usize::from(n) % 7]);
    let _ = SaHeader::decode(buf, Endian::Little);
    for e in BOTH {
        if let Ok(found) = places(buf, e, &layout, length) {
            assert!(found.iter().all(|p| p.offset + p.len <= buf.len()));
        }
        let _ = (decode_aces(buf, e, layout.len()), decode_old_aces(buf, e, layout.len()));
        if let Ok(acl) = ZnodeAcl::decode(buf, e) {
            let _ = acl.aces(None);
        }
    }
    legacy_places(buf);
}

/// Space maps.
pub fn spacemap(data: &[u8]) {
    for e in BOTH {
        assert!(entries(data, e).count() <= data.len() / 8);
        let _ = SpaceMapPhys::decode(data, e);
    }
}

/// Intent log blocks (the pointer first, the block after it) and single records.
pub fn zil(data: &[u8]) {
    for e in BOTH {
        if let Ok(bp) = BlkPtr::decode(data, e) {
            if let Ok(block) = ZilBlock::decode(tail(data, 128), &bp) {
                block.iter().flatten().for_each(|r| drop(r.blkptrs().to_vec()));
            }
        }
        let mut rest = data;
        while let Ok((record, next)) = Record::split(rest, e) {
            assert!(next.len() < rest.len());
            let _ = record.blkptrs();
            rest = next;
        }
    }
}

/// What the pool keeps in objects and directories of its own: gang headers, lists of pointers, clone and deduplication tables,
/// datasets and bookmarks, mappings of removed devices, history, scans, logs of errors, boot environments.
pub fn records(data: &[u8]) {
    for e in BOTH {
        if let Ok(bps) = decode_gang(data, e) {
            assert!(bps.len() * 128 <= data.len());
            let _ = encode_gang(&bps, data.len(), e);
        }
        let _ = (BpobjPhys::decode(data, e), BrtVdevPhys::decode(data, e), DdtLogHeader::decode(data, e));
        let _ = (DslDirPhys::decode(data, e), DslDatasetPhys::decode(data, e).map(|d| d.is_snapshot()));
        let _ =
            (DeadlistPhys::decode(data, e), RedactionListPhys::decode(data, e), IndirectMappingPhys::decode(data, e));
        if let Ok(entries) = decode_entries(data, e) {
            assert!(entries.len() <= data.len() / 24);
        }
        if let Ok(history) = HistoryPhys::decode(data, e) {
            let _ = [0, 1, history.bof, history.eof, u64::MAX].map(|at| history.physical(at));
        }
        for flat in [false, true] {
            let log = decode_log_block(data, e, flat).unwrap_or_default();
            for phys in decode_phys(data, e, flat).into_iter().flatten().chain(log.into_iter().flat_map(|l| l.phys)) {
                let words = [0, 8, 16, 24, 32].map(|at| tail(data, at).first_chunk().map_or(0, |w| e.u64(*w)));
                let key = DdtKey::from_words(words);
                let bp = phys.block_pointer(&key, ChecksumKind::Sha256);
                let _ = (key.lsize(), key.psize(), bp.asize(), bp.is_gang(), bp.ndvas());
            }
        }
        let words: Vec<u64> = data.chunks_exact(8).map(|c| e.u64(c.try_into().unwrap_or_default())).collect();
        let _ = (ScanPhys::from_words(&words), ErrorScrubPhys::from_words(&words), RemovingPhys::from_words(&words));
        let _ = (BookmarkPhys::from_words(&words).to_words(), uberblock_from_words(&words));
        histogram_from_words(&words).iter().for_each(|row| DdtStat::default().add(row));
    }
    let _ =
        (history_records(data).len(), BootEnv::decode(data), ErrorKey::from_name(data), ErrorKey::from_head_name(data));
    let _ = data.first().map(|version| DdtPacking::of(*version));
}
