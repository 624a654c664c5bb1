//! ZAP objects built in memory: lookup, order and cookies.

mod common;

use common::{Image, Spec, put, words};
use std::sync::Arc;
use zfs_dmu::zap::{CURSOR_END, MatchMode, Zap};
use zfs_dmu::{ErrorKind, Objset};
use zfs_phys::Endian;
use zfs_phys::enums::DmuObjectType as T;
use zfs_phys::unicode::textprep;
use zfs_phys::zap::leaf::{ARRAY_BYTES, CHAIN_END, CHUNK_ARRAY, CHUNK_ENTRY};
use zfs_phys::zap::*;

const SALT: u64 = 0x1234_5678_9abc_def1;
const SHIFT: u32 = 12; // log2 of the block size

struct Item {
    key: Vec<u64>,
    name: Vec<u8>,
    values: Vec<u64>,
    intlen: u8,
}

fn array(e: Endian, chunks: &mut Vec<Vec<u8>>, bytes: &[u8]) -> u64 {
    let head = chunks.len() as u64;
    let count = bytes.len().div_ceil(ARRAY_BYTES);
    for (i, piece) in bytes.chunks(ARRAY_BYTES).enumerate() {
        let mut c = vec![CHUNK_ARRAY];
        c.extend(piece);
        c.resize(1 + ARRAY_BYTES, 0);
        put(e, &mut c, if i + 1 == count { u64::from(CHAIN_END) } else { chunks.len() as u64 + 1 }, 2);
        chunks.push(c);
    }
    head
}

fn leaf(e: Endian, prefix: u64, len: u32, items: &[(u64, u32, &Item)]) -> Vec<u8> {
    let hash_shift = SHIFT - 5;
    let mut heads = vec![u64::from(CHAIN_END); 1 << hash_shift];
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for (hash, cd, item) in items {
        let slot = ((hash << len) >> (64 - hash_shift)) as usize;
        let (key, keylen) = if item.name.is_empty() {
            (item.key.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>(), item.key.len())
        } else {
            ([&item.name[..], b"\0"].concat(), item.name.len() + 1)
        };
        let skip = 8 - usize::from(item.intlen);
        let value: Vec<u8> = item.values.iter().flat_map(|w| w.to_be_bytes().into_iter().skip(skip)).collect();
        let (name_chunk, value_chunk) = (array(e, &mut chunks, &key), array(e, &mut chunks, &value));
        let mut c = vec![CHUNK_ENTRY, item.intlen];
        let nums = item.values.len() as u64;
        for v in [heads[slot], name_chunk, keylen as u64, value_chunk, nums] {
            put(e, &mut c, v, 2);
        }
        put(e, &mut c, u64::from(*cd), 4);
        put(e, &mut c, *hash, 8);
        heads[slot] = chunks.len() as u64;
        chunks.push(c);
    }
    let mut b = Vec::new();
    let header = [(ZBT_LEAF, 8), (0, 8), (prefix, 8), (u64::from(ZAP_LEAF_MAGIC), 4), (0, 2)];
    for (v, n) in header.into_iter().chain([(items.len() as u64, 2), (u64::from(len), 2), (0, 2)]) {
        put(e, &mut b, v, n);
    }
    b.resize(48, 0);
    heads.iter().for_each(|h| put(e, &mut b, *h, 2));
    chunks.iter().for_each(|c| b.extend(c));
    assert!(b.len() <= 1 << SHIFT, "leaf of {} bytes", b.len());
    b.resize(1 << SHIFT, 0);
    b
}

/// A fat ZAP: pointer table of 2^table entries, inside or outside of the header; `split` leading bits per leaf.
fn fat(e: Endian, flags: u64, norm: u64, table: u32, split: u32, external: bool, items: &[Item]) -> Spec {
    let p = HashParams { salt: SALT, flags };
    let mut hashed: Vec<(u64, u32, &Item)> = Vec::new();
    let mut cds = std::collections::HashMap::new();
    for item in items {
        let hash = match item.name.is_empty() {
            true => hash_words(p, &item.key),
            false => hash_name(p, &textprep(&item.name, norm)),
        };
        let cd = cds.entry(hash).and_modify(|n| *n += 1).or_insert(0u32);
        hashed.push((hash, *cd, item));
    }
    hashed.sort_by_key(|(hash, cd, _)| (*hash, *cd));
    let first_leaf = if external { 1 + ((8u64 << table) >> SHIFT).max(1) } else { 1 };
    let pointers: Vec<u64> = (0..1u64 << table).map(|i| first_leaf + (i >> (table - split))).collect();
    let numblks = if external { first_leaf - 1 } else { 0 };
    let leaves = 1u64 << split;
    let head = [ZBT_HEADER, ZAP_MAGIC, 1, numblks, u64::from(table), 0, 0, first_leaf + leaves, leaves];
    let mut b = words(e, &head);
    b.extend(words(e, &[items.len() as u64, SALT, norm, flags]));
    if external {
        b.resize(1 << SHIFT, 0);
        b.extend(words(e, &pointers));
        b.resize((first_leaf as usize) << SHIFT, 0);
    } else {
        b.resize(1 << (SHIFT - 1), 0);
        b.extend(words(e, &pointers));
        b.resize(1 << SHIFT, 0);
    }
    for i in 0..leaves {
        let bound = |i: u64| hashed.partition_point(|(h, _, _)| h.checked_shr(64 - split).unwrap_or(0) < i);
        b.extend(leaf(e, i, split, &hashed[bound(i)..bound(i + 1)]));
    }
    Spec::new(T::DIRECTORY_CONTENTS, 1 << SHIFT).bytes(&b)
}

fn micro(e: Endian, norm: u64, entries: &[(Vec<u8>, u64)]) -> Spec {
    let mut b = words(e, &[ZBT_MICRO, SALT, norm, 0, 0, 0, 0, 0]);
    let p = HashParams { salt: SALT, flags: 0 };
    let mut seen = std::collections::HashMap::new();
    for (name, value) in entries {
        let cd = seen.entry(hash_name(p, &textprep(name, norm))).and_modify(|n| *n += 1).or_insert(0u64);
        put(e, &mut b, *value, 8);
        put(e, &mut b, *cd, 4);
        b.extend([0, 0]);
        b.extend(name);
        b.resize(b.len().next_multiple_of(64), 0);
    }
    let size = b.len().next_multiple_of(512);
    Spec::new(T::DIRECTORY_CONTENTS, size).bytes(&b)
}

fn names(n: u64) -> Vec<Item> {
    let item = |i: u64| Item { key: vec![], name: format!("file-{i:05}").into_bytes(), values: vec![i], intlen: 8 };
    (0..n).map(item).collect()
}

fn open(e: Endian, spec: Spec) -> (Arc<Objset>, Zap) {
    let mut img = Image::new(e);
    img.add(8, &spec);
    let (os, _) = img.finish();
    let zap = Zap::open(&os, 8).unwrap();
    (os, zap)
}

/// Every entry is found by name, comes exactly once in cursor order, and each cookie resumes behind its entry.
fn check_names(zap: &Zap, n: u64) {
    assert_eq!(zap.count(), n);
    for i in 0..n {
        assert_eq!(zap.lookup_u64(format!("file-{i:05}").as_bytes()).unwrap(), Some(i));
    }
    assert_eq!(zap.lookup(b"file-").unwrap(), None);
    let all: Vec<_> = zap.iter().map(Result::unwrap).collect();
    assert_eq!(all.len() as u64, n);
    assert!(all.windows(2).all(|w| (w[0].hash, w[0].cd) < (w[1].hash, w[1].cd)));
    for (i, e) in all.iter().enumerate() {
        let mut c = zap.cursor(e.next_cookie);
        assert_eq!(c.next_entry().unwrap().as_ref(), all.get(i + 1));
        if i + 1 == all.len() {
            assert_eq!(c.cookie(), CURSOR_END);
        }
    }
    assert!(zap.cursor(CURSOR_END).next_entry().unwrap().is_none());
}

#[test]
fn fat_tables_of_both_kinds() {
    for e in [Endian::Little, Endian::Big] {
        let (_os, zap) = open(e, fat(e, 0, 0, 6, 5, false, &names(600)));
        check_names(&zap, 600);
        let (_os, zap) = open(e, fat(e, 0, 0, 10, 6, true, &names(1000)));
        check_names(&zap, 1000);
        let (_os, zap) = open(e, fat(e, ZAP_FLAG_HASH64, 0, 0, 0, false, &names(20)));
        check_names(&zap, 20);
    }
}

#[test]
fn micro_tables() {
    for e in [Endian::Little, Endian::Big] {
        let entries: Vec<_> = names(500).into_iter().map(|i| (i.name, i.values[0])).collect();
        let (_os, zap) = open(e, micro(e, 0, &entries));
        check_names(&zap, 500);
        assert!(zap.fat_header().is_none());
    }
}

#[test]
fn keys_of_words_and_values_of_every_size() {
    let e = Endian::Big;
    let item =
        |key: &[u64], values: &[u64], intlen| Item { key: key.to_vec(), name: vec![], values: values.to_vec(), intlen };
    let items = [
        item(&[1, 2, 3], &[7], 8),
        item(&[1, 2], &[0x0102, 0x0304], 2),
        item(&[5], &[b'a'.into(), b'b'.into(), 0], 1),
        item(&[6], &[], 8),
        item(&[7], &(0..40).collect::<Vec<_>>(), 4),
    ];
    for flags in [ZAP_FLAG_UINT64_KEY, ZAP_FLAG_UINT64_KEY | ZAP_FLAG_HASH64 | ZAP_FLAG_PRE_HASHED_KEY] {
        let (_os, zap) = open(e, fat(e, flags, 0, 0, 0, false, &items));
        for i in &items {
            let v = zap.lookup_key(&i.key).unwrap().unwrap();
            assert_eq!((v.u64s(), v.integer_length, v.count), (i.values.clone(), i.intlen, i.values.len()));
        }
        assert_eq!(zap.lookup_key(&[5]).unwrap().unwrap().string(), b"ab");
        assert_eq!(zap.lookup_key(&[1, 2]).unwrap().unwrap().bytes(), [1, 2, 3, 4]);
        assert_eq!(zap.lookup_key(&[1]).unwrap(), None);
        assert_eq!(zap.lookup(b"name").unwrap(), None);
        let mut keys: Vec<_> = zap.iter().map(|e| e.unwrap().words().to_vec()).collect();
        keys.sort();
        assert_eq!(keys, [vec![1, 2], vec![1, 2, 3], vec![5], vec![6], vec![7]]);
    }
}

#[test]
fn folded_and_normalized_names() {
    let e = Endian::Little;
    let norm = NORM_TOUPPER | NORM_NFD;
    let stored = ["Straße", "ÉTÉ", "été", "plain"];
    let item = |n: &&str| Item { key: vec![], name: n.as_bytes().to_vec(), values: vec![n.len() as u64], intlen: 8 };
    let items: Vec<Item> = stored.iter().map(item).collect();
    let entries: Vec<_> = stored.iter().map(|n| (n.as_bytes().to_vec(), n.len() as u64)).collect();
    for spec in [fat(e, 0, norm, 3, 1, false, &items), micro(e, norm, &entries)] {
        let (_os, zap) = open(e, spec);
        let find = |n: &str, mode| {
            let hit = zap.lookup_norm(n.as_bytes(), mode).unwrap();
            hit.map(|m| String::from_utf8(m.name).unwrap())
        };
        assert_eq!(find("PLAIN", MatchMode::Normalize).as_deref(), Some("plain"));
        assert_eq!(find("PLAIN", MatchMode::NormalizeMatchCase), None);
        assert_eq!(find("PLAIN", MatchMode::Exact), None);
        assert_eq!(find("plain", MatchMode::Exact).as_deref(), Some("plain"));
        // "été" with combining accents matches the composed form of the same case.
        let decomposed = "e\u{301}te\u{301}";
        assert_eq!(find(decomposed, MatchMode::NormalizeMatchCase).as_deref(), Some("été"));
        assert_eq!(find(decomposed, MatchMode::Exact), None);
        assert!(find(decomposed, MatchMode::Normalize).is_some());
    }
}

#[test]
fn corrupt_tables_end_in_errors() {
    let e = Endian::Little;
    // A leaf in the wrong place: all pointers lead to the first.
    let mut spec = fat(e, 0, 0, 3, 3, false, &names(50));
    let block = spec.data.get_mut(&0).unwrap();
    let table = block.len() / 2;
    for i in 0..8 {
        block[table + i * 8..table + i * 8 + 8].copy_from_slice(&1u64.to_le_bytes());
    }
    let (_os, zap) = open(e, spec);
    let end = zap.iter().find_map(Result::err).unwrap();
    assert_eq!(end.kind(), ErrorKind::Corrupt);
    // A pointer that leads nowhere.
    let mut spec = fat(e, 0, 0, 3, 3, false, &names(50));
    spec.data.remove(&4);
    let (_os, zap) = open(e, spec);
    assert!(zap.iter().any(|r| r.is_err()));
    // An object that is no ZAP.
    let mut img = Image::new(e);
    img.add(8, &Spec::new(T::PLAIN_FILE_CONTENTS, 512).bytes(b"x"));
    let (os, _) = img.finish();
    assert_eq!(Zap::open(&os, 8).err().unwrap().kind(), ErrorKind::Invalid);
}

#[test]
fn a_large_directory_is_listed_in_pieces_without_going_quadratic() {
    const N: u64 = 300_000;
    let (_os, zap) = open(Endian::Little, fat(Endian::Little, 0, 0, 14, 14, true, &names(N)));
    let start = std::time::Instant::now();
    let mut seen = vec![false; N as usize];
    let mut cookie = 0;
    while cookie != CURSOR_END {
        // As a file system serves it: a cursor is made anew for every hundred entries.
        let mut cursor = zap.cursor(cookie);
        for _ in 0..100 {
            let Some(e) = cursor.next_entry().unwrap() else { break };
            assert!(!std::mem::replace(&mut seen[e.value.first() as usize], true), "{e:?} twice");
        }
        cookie = cursor.cookie();
    }
    assert!(seen.iter().all(|s| *s));
    let listed = start.elapsed();
    for i in (0..N).step_by(3) {
        assert_eq!(zap.lookup_u64(format!("file-{i:05}").as_bytes()).unwrap(), Some(i));
    }
    eprintln!("{N} entries listed in {listed:?}, a third looked up in {:?}", start.elapsed() - listed);
    // Ten times what a slow machine needs; a quadratic listing would take hours.
    assert!(start.elapsed().as_secs() < 60);
}
