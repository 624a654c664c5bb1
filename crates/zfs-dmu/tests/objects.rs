//! Objects of pools built in memory, against a plain model of their contents.

mod common;

use common::{Image, Spec, words};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use zfs_dmu::traverse::{Options, traverse};
use zfs_dmu::{ErrorKind, Seek, bpobj::Bpobj, spacemap::SpaceMap};
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType as T;

fn file(blocks: &BTreeSet<u64>, blksz: usize, min_levels: u8, nblkptr: u8) -> Spec {
    let mut s = Spec::new(T::PLAIN_FILE_CONTENTS, blksz);
    (s.min_levels, s.nblkptr) = (min_levels, nblkptr);
    for &b in blocks {
        s.data.insert(b, (0..blksz).map(|i| (b as usize * 7 + i) as u8 | 1).collect());
    }
    s
}

fn expected(blocks: &BTreeSet<u64>, blksz: u64, off: u64, len: usize) -> Vec<u8> {
    (off..off + len as u64)
        .map(|o| if blocks.contains(&(o / blksz)) { (o / blksz * 7 + o % blksz) as u8 | 1 } else { 0 })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reads_and_seeks_agree_with_a_model(
        blocks in proptest::collection::btree_set(prop_oneof![0u64..6, 20u64..70, 0u64..3000], 0..40),
        big: bool, levels in 1u8..4, nblkptr in 1u8..=3,
        probes in proptest::collection::vec((0u64..3_200_000, 0usize..5000), 20),
    ) {
        let blksz = 1024u64;
        let mut img = Image::new(if big { Endian::Big } else { Endian::Little });
        img.add(40, &file(&blocks, blksz as usize, levels, nblkptr));
        let (os, _) = img.finish();
        let d = os.dnode(40).unwrap();
        for (off, len) in probes {
            prop_assert_eq!(d.read_vec(off, len).unwrap(), expected(&blocks, blksz, off, len));
            let data = blocks.range(off / blksz..).next().map(|b| (b * blksz).max(off));
            prop_assert_eq!(d.next_offset(off, Seek::Data).unwrap(), data);
            let hole = (off / blksz..).find(|b| !blocks.contains(b)).unwrap();
            prop_assert_eq!(d.next_offset(off, Seek::Hole).unwrap(), Some((hole * blksz).max(off)));
        }
    }

    #[test]
    fn walking_visits_each_block_once(
        blocks in proptest::collection::btree_set(0u64..3000, 0..60),
        objects in proptest::collection::btree_set(1u64..4000, 1..20), threads in 1usize..4,
    ) {
        let mut img = Image::new(Endian::Little);
        for &o in &objects {
            img.add(o, &file(&blocks, 512, 1, 1));
        }
        let (os, written) = img.finish();
        let seen = Mutex::new(BTreeMap::new());
        let options = Options { threads, ..Options::default() };
        let done = traverse(&os, &options, &|v| {
            assert!(seen.lock().unwrap().insert(v.bookmark, *v.bp).is_none(), "{} twice", v.bookmark);
            Ok(())
        }, &|bm, e| panic!("{bm}: {e}")).unwrap();
        let seen = seen.into_inner().unwrap();
        prop_assert_eq!((seen.len() as u64, done.blocks, done.objects), (written, written, objects.len() as u64));
        let found: Vec<u64> = os.objects().map(|o| o.unwrap().0).collect();
        prop_assert_eq!(&found, &objects.iter().copied().collect::<Vec<_>>());
        let mut stepped = Vec::new();
        let mut at = 0;
        while let Some(o) = os.next_object(at).unwrap() {
            stepped.push(o);
            at = o;
        }
        prop_assert_eq!(stepped, found);
    }
}

#[test]
fn only_younger_blocks_are_walked() {
    let mut img = Image::new(Endian::Little);
    img.add(5, &file(&BTreeSet::from([0, 1, 2]), 512, 2, 1));
    img.txg = 20;
    img.add(6, &file(&BTreeSet::from([0, 1]), 512, 2, 1));
    let (os, _) = img.finish();
    let count = |min_txg| {
        let options = Options { min_txg, threads: 1, ..Options::default() };
        traverse(&os, &options, &|_| Ok(()), &|_, e| Err(e)).unwrap().blocks
    };
    // Header, dnode block, and the trees: one indirect block each, three and two of data.
    assert_eq!((count(0), count(10), count(20)), (9, 5, 0));
}

#[test]
fn a_visitor_can_stop_the_walk() {
    let mut img = Image::new(Endian::Little);
    img.add(5, &file(&(0..500).collect(), 512, 1, 1));
    let (os, _) = img.finish();
    let options = Options { threads: 2, ..Options::default() };
    let e = traverse(
        &os,
        &options,
        &|v| if v.bookmark.blkid == 77 { Err(zfs_dmu::Error::invalid("enough")) } else { Ok(()) },
        &|_, e| Err(e),
    );
    assert_eq!(e.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn large_dnodes_spill_blocks_and_odd_sizes() {
    for e in [Endian::Little, Endian::Big] {
        let mut img = Image::new(e);
        let mut s = Spec::new(T::PLAIN_FILE_CONTENTS, 512 * 3).bytes(b"odd").bonus(T::SA, vec![7; 900]);
        (s.slots, s.spill) = (3, Some(vec![9; 512]));
        img.add(33, &s);
        img.add(36, &Spec::new(T::PLAIN_FILE_CONTENTS, 512).bytes(b"after"));
        let (os, _) = img.finish();
        let d = os.dnode(33).unwrap();
        assert_eq!((d.phys().slots(), d.bonus().unwrap().len(), d.datablksz()), (3, 900, 1536));
        assert_eq!(&d.spill().unwrap().unwrap().0[..], &[9; 512]);
        assert_eq!(&d.read_vec(0, 2000).unwrap()[..5], b"odd\0\0");
        assert_eq!(d.next_offset(10, Seek::Data).unwrap(), Some(10));
        assert_eq!(d.next_offset(10, Seek::Hole).unwrap(), Some(1536));
        assert_eq!(d.next_offset(1536, Seek::Data).unwrap(), None);
        assert_eq!(os.dnode(34).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(os.dnode(37).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(os.dnode(u64::MAX).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!((os.next_object(32).unwrap(), os.next_object(33).unwrap()), (Some(33), Some(36)));
        assert_eq!(os.next_object(36).unwrap(), None);
    }
}

#[test]
fn lists_of_block_pointers() {
    for e in [Endian::Little, Endian::Big] {
        let mut img = Image::new(e);
        let list = |bps: &[u64], subs: (u64, u64)| {
            let raw: Vec<u8> =
                bps.iter().flat_map(|&n| words(e, &[n, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, n & 1, 0, 0, 0, 0])).collect();
            let bonus = words(e, &[bps.len() as u64, 0, 0, 0, subs.0, subs.1, 0]);
            Spec::new(T::BPOBJ, 1024).bytes(&raw).bonus(T::BPOBJ_HDR, bonus)
        };
        let names = |objs: &[u64]| Spec::new(T::BPOBJ_SUBOBJ, 1024).bytes(&words(e, objs));
        img.add(1, &list(&(1..20).collect::<Vec<_>>(), (2, 3)));
        img.add(2, &names(&[3, 4, 4]));
        img.add(3, &list(&[100, 101], (0, 0)));
        img.add(4, &list(&[], (0, 0)));
        img.add(5, &list(&[7], (6, 1)));
        img.add(6, &names(&[5]));
        img.add(7, &list(&[], (0, 0)).bonus(T::BPOBJ_HDR, words(e, &[1 << 40, 0])));
        let (os, _) = img.finish();
        let mut got = Vec::new();
        let b = Bpobj::open(&os, 1).unwrap();
        b.iterate(|bp, freed| {
            got.push((bp.word[0], freed));
            Ok(())
        })
        .unwrap();
        let want: Vec<_> = (1..20).chain([100, 101]).map(|n| (n, n & 1 == 1)).collect();
        assert_eq!((got, b.subobjs().unwrap()), (want, vec![3, 4, 4]));
        let looped = Bpobj::open(&os, 5).unwrap().iterate(|_, _| Ok(()));
        assert_eq!(looped.unwrap_err().kind(), ErrorKind::Corrupt);
        let too_long = Bpobj::open(&os, 7).unwrap().iterate(|_, _| Ok(()));
        assert_eq!(too_long.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn space_maps() {
    let e = Endian::Big;
    let mut img = Image::new(e);
    let entries: Vec<u64> = (0..200).map(|i| (i << 16) | ((i & 1) << 15) | 3).collect();
    let bonus = words(e, &[9, 200 * 8, 800]);
    img.add(9, &Spec::new(T::SPACE_MAP, 512).bytes(&words(e, &entries)).bonus(T::SPACE_MAP_HEADER, bonus));
    let (os, _) = img.finish();
    let sm = SpaceMap::open(&os, 9).unwrap();
    let mut n = 0;
    sm.iterate(|_| {
        n += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((n, sm.phys().alloc), (200, 800));
}

#[test]
fn forged_trees_do_not_take_for_ever() {
    let mut img = Image::new(Endian::Little);
    img.add_forged(5, 9);
    let (os, _) = img.finish();
    let d = os.dnode(5).unwrap();
    assert_eq!(d.next_offset(0, Seek::Data).unwrap_err().kind(), ErrorKind::Corrupt);
    let walked = traverse(&os, &Options { threads: 2, ..Options::default() }, &|_| Ok(()), &|_, e| Err(e));
    assert_eq!(walked.unwrap_err().kind(), ErrorKind::Corrupt);
}
