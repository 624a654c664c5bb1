//! Pools that OpenZFS made, compared with what its own `zdb` says about them.

mod common;
#[path = "common/pool.rs"]
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use zfs_dmu::sa::{SaHandle, SaRegistry, ZplAttr};
use zfs_dmu::traverse::{Options, traverse};
use zfs_dmu::zap::{MatchMode, Zap};
use zfs_dmu::{ErrorKind, Objset, Seek};
use zfs_phys::dsl::DslDatasetPhys;
use zfs_phys::enums::{DmuObjectType, ObjsetType};
use zfs_phys::zap::NORM_TOUPPER;
use zfs_phys::zil::{RecordBody, tx_name};

fn zdb(dir: &Path, pool: &str, args: &[&str]) -> Option<String> {
    let out = Command::new("zdb").args(["-e", "-p"]).arg(dir).arg(args[0]).arg(pool).args(&args[1..]).output();
    match out {
        Ok(out) => Some(String::from_utf8_lossy(&out.stdout).into_owned()),
        Err(_) => {
            eprintln!("SKIPPED: no zdb to compare with");
            None
        }
    }
}

/// Every dataset of a pool: object number and object set.
fn datasets(mos: &Arc<Objset>) -> Vec<(u64, Arc<Objset>)> {
    let mut out = Vec::new();
    for o in mos.objects() {
        let (object, phys) = o.unwrap();
        if phys.bonustype == DmuObjectType::DSL_DATASET {
            let ds = DslDatasetPhys::decode(&phys.bonus, phys.endian).unwrap();
            if !ds.bp.is_hole() {
                out.push((object, Objset::open(mos.zio(), &ds.bp, object, None).unwrap()));
            }
        }
    }
    out
}

#[test]
fn object_directory_of_every_pool() {
    let Some(corpus) = pool::corpus() else { return };
    let mut opened = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let Some(p) = pool::open(&dir) else {
            eprintln!("{name}: needs a whole import");
            continue;
        };
        opened += 1;
        let ours: BTreeMap<String, u64> = Zap::open(&p.mos, 1)
            .unwrap()
            .iter()
            .map(|e| e.unwrap())
            .filter(|e| e.value.integer_length == 8 && e.value.count == 1)
            .map(|e| (String::from_utf8(e.name().to_vec()).unwrap(), e.value.first()))
            .collect();
        assert!(ours.contains_key("root_dataset"), "{name}");
        // zdb takes seconds for each.
        if !["basic", "z2x6", "dr1", "v28", "gang", "expanded"].contains(&name.as_str()) {
            continue;
        }
        let Some(text) = zdb(&dir, &name, &["-dddd", "1"]) else { return };
        let theirs: BTreeMap<String, u64> = text
            .lines()
            .filter_map(|l| l.strip_prefix("\t\t")?.split_once(" = "))
            .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
            .collect();
        if !theirs.is_empty() {
            assert_eq!(ours, theirs, "{name}");
        }
    }
    assert!(opened > 10, "only {opened} pools opened");
}

#[test]
fn objects_of_every_dataset_are_counted_as_zdb_counts_them() {
    let Some(corpus) = pool::corpus() else { return };
    for name in ["basic", "quotas", "longnames", "v28", "acls", "ashift9"] {
        let dir = corpus.join(name);
        let Some(p) = pool::open(&dir) else { continue };
        let Some(text) = zdb(&dir, name, &["-d"]) else { return };
        let theirs: BTreeMap<u64, u64> = text
            .lines()
            .filter(|l| l.starts_with("Dataset ") && !l.starts_with("Dataset mos"))
            .filter_map(|l| {
                let id = l.split("ID ").nth(1)?.split(',').next()?.parse().ok()?;
                Some((id, l.split(' ').rev().nth(1)?.parse().ok()?))
            })
            .collect();
        let mut ours = BTreeMap::new();
        for (id, os) in datasets(&p.mos) {
            if theirs.contains_key(&id) {
                ours.insert(id, os.objects().filter(Result::is_ok).count() as u64);
            }
        }
        assert!(!theirs.is_empty() && ours == theirs, "{name}: {ours:?} {theirs:?}");
    }
}

/// Path, object, mode and size of every file below a directory, for comparison with `zdb -ddddd`.
fn walk(os: &Arc<Objset>, sa: &Arc<SaRegistry>, dir: u64, prefix: &str, out: &mut BTreeMap<u64, (String, u64, u64)>) {
    for e in Zap::open(os, dir).unwrap().iter() {
        let e = e.unwrap();
        let object = zfs_phys::znode::Dirent::decode(e.value.first()).object;
        let path = format!("{prefix}/{}", String::from_utf8_lossy(e.name()));
        let h = SaHandle::open(sa, &os.dnode(object).unwrap()).unwrap();
        let (mode, size) = (h.require_u64(ZplAttr::Mode).unwrap(), h.require_u64(ZplAttr::Size).unwrap());
        if mode & 0o170_000 == 0o040_000 {
            walk(os, sa, object, &path, out);
        }
        if mode & 0o170_000 == 0o100_000 {
            // Sparse files are larger than what is worth reading here.
            let dnode = os.dnode(object).unwrap();
            let mut at = 0;
            while let Some(data) = dnode.next_offset(at, Seek::Data).unwrap() {
                let hole = dnode.next_offset(data, Seek::Hole).unwrap().unwrap();
                dnode.read_vec(data, (hole - data) as usize).unwrap();
                at = hole;
            }
        }
        out.insert(object, (path, mode, size));
    }
}

#[test]
fn files_have_the_attributes_zdb_shows() {
    let Some(corpus) = pool::corpus() else { return };
    for (pool_name, dataset) in [("basic", "basic/home/data"), ("v28", "v28/"), ("acls", "acls/")] {
        let dir = corpus.join(pool_name);
        let Some(p) = pool::open(&dir) else { continue };
        let Some(text) = zdb_dataset(&dir, dataset) else { return };
        let id: u64 = text.split("ID ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        let (_, os) = datasets(&p.mos).into_iter().find(|(n, _)| *n == id).unwrap();
        assert_eq!(os.phys().os_type, ObjsetType::Zfs);
        let sa = Arc::new(SaRegistry::load(&os).unwrap());
        let root = Zap::open(&os, 1).unwrap().lookup_u64(b"ROOT").unwrap().unwrap();
        let mut ours = BTreeMap::new();
        walk(&os, &sa, root, "", &mut ours);
        let mut compared = 0;
        let mut object = 0;
        let mut path = String::new();
        let mut mode = 0;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("    Object ") {
                let row = lines.next().unwrap_or_default();
                object = row.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
            }
            let line = line.trim();
            if let Some(p) = line.strip_prefix("path\t") {
                path = p.to_owned();
            } else if let Some(m) = line.strip_prefix("mode\t") {
                mode = u64::from_str_radix(m, 8).unwrap();
            } else if let (Some(s), Some((p, m, size))) = (line.strip_prefix("size\t"), ours.get(&object)) {
                assert_eq!((*m, size.to_string().as_str()), (mode, s), "{path}");
                // A file with several links shows one of its names; odd bytes are escaped.
                compared += usize::from(*p == path);
            }
        }
        assert!(compared * 10 > ours.len() * 8, "{dataset}: {compared} of {} paths agree", ours.len());
    }
}

fn zdb_dataset(dir: &Path, dataset: &str) -> Option<String> {
    zdb(dir, dataset, &["-ddddd"])
}

#[test]
fn walking_every_dataset_meets_no_error_and_no_block_twice() {
    let Some(corpus) = pool::corpus() else { return };
    for name in ["basic", "m3", "z1x3", "gang", "zil", "vol", "v28", "reflink"] {
        let Some(p) = pool::open(&corpus.join(name)) else { continue };
        let mut all = vec![(0, p.mos.clone())];
        all.extend(datasets(&p.mos));
        for (id, os) in all {
            let seen = Mutex::new(BTreeSet::new());
            let done = traverse(
                &os,
                &Options::default(),
                &|v| {
                    assert!(seen.lock().unwrap().insert(v.bookmark), "{name}: {} twice", v.bookmark);
                    if v.bookmark.level == 0 && v.bp.psize() > 64 << 10 {
                        return Ok(());
                    }
                    p.zio.verify(v.bp, &v.bookmark, false)
                },
                &|bm, e| panic!("{name}/{id} {bm}: {e}"),
            );
            match done {
                Ok(done) => assert!(done.blocks > 1 && done.errors == 0, "{name}/{id}: {done:?}"),
                // The block behind the end of an intent log may never have been written.
                Err(e) => assert!(e.bookmark().is_some_and(|b| b.level == -2), "{name}/{id}: {e}"),
            }
        }
    }
}

#[test]
fn encrypted_datasets_can_be_walked_but_not_read_without_key() {
    let Some(corpus) = pool::corpus() else { return };
    let Some(p) = pool::open(&corpus.join("crypt")) else { return };
    let mut locked = 0;
    for (id, os) in datasets(&p.mos).into_iter().filter(|(_, os)| os.is_encrypted()) {
        let done = traverse(&os, &Options { zil: false, ..Options::default() }, &|_| Ok(()), &|_, e| Err(e)).unwrap();
        assert!(done.objects > 1, "{id}: {done:?}");
        if os.phys().os_type == ObjsetType::Zfs {
            let root = Zap::open(&os, 1).unwrap().lookup_u64(b"ROOT").unwrap().unwrap();
            let e = os.dnode(root).unwrap().bonus().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::KeyUnavailable);
            locked += 1;
        }
    }
    assert!(locked > 0);
}

#[test]
fn intent_logs_have_the_records_zdb_prints() {
    let Some(corpus) = pool::corpus() else { return };
    let dir = corpus.join("zil");
    let Some(p) = pool::open(&dir) else { return };
    let Some(text) = zdb(&dir, "zil", &["-iiii"]) else { return };
    let mut ours = Vec::new();
    for (_, os) in datasets(&p.mos) {
        zfs_dmu::zil::walk(
            &os,
            |_, _| Ok(()),
            |r| {
                assert!(!matches!(r.body, RecordBody::Unknown(..)), "{r:?}");
                let shown = match &r.body {
                    RecordBody::Create(c) if c.target.is_some() => {
                        let target = String::from_utf8_lossy(c.target.unwrap());
                        format!("{} -> {target}", String::from_utf8_lossy(c.name))
                    }
                    RecordBody::Create(c) => String::from_utf8_lossy(c.name).into_owned(),
                    RecordBody::Link { dir, object, name } => {
                        format!("doid {dir}, link_obj {object}, name {}", String::from_utf8_lossy(name))
                    }
                    RecordBody::Write(w) => format!("foid {}, offset {:x}, length {:x}", w.object, w.offset, w.length),
                    _ => String::new(),
                };
                ours.push((format!("{}:{}:{}:{}", tx_name(r.txtype), r.reclen, r.txg, r.seq), shown));
                Ok(())
            },
        )
        .unwrap();
    }
    let mut lines = text.lines().peekable();
    let mut theirs = Vec::new();
    while let Some(line) = lines.next() {
        let words: Vec<_> = line.split([' ', ',', '\t']).filter(|w| !w.is_empty()).collect();
        if let [tx, "len", len, "txg", txg, "seq", seq] = words[..] {
            theirs.push((format!("{tx}:{len}:{txg}:{seq}"), lines.peek().unwrap_or(&"").trim().to_owned()));
        }
    }
    assert!(ours.len() > 20, "{}", ours.len());
    assert_eq!(ours.len(), theirs.len());
    ours.sort();
    theirs.sort();
    for (o, t) in ours.iter().zip(&theirs) {
        assert_eq!(o.0, t.0);
        assert!(o.1.is_empty() || o.1 == t.1, "{o:?} {t:?}");
    }
}

/// Looks every entry of a ZAP up by its key; gives how many there were.
fn look_up_all(zap: &Zap, what: &str) -> u64 {
    let mut count = 0;
    for e in zap.iter() {
        let e = e.unwrap();
        count += 1;
        let hit = match zap.has_word_keys() {
            true => zap.lookup_key(e.words()).unwrap(),
            false => zap.lookup(e.name()).unwrap(),
        };
        assert_eq!(hit.as_ref(), Some(&e.value), "{what} {:?}", e.key);
        if zap.normflags() & NORM_TOUPPER != 0 {
            let folded = String::from_utf8_lossy(e.name()).to_uppercase();
            assert!(zap.lookup_norm(folded.as_bytes(), MatchMode::Normalize).unwrap().is_some(), "{what} {folded}");
        }
    }
    assert_eq!(count, zap.count(), "{what}");
    count
}

#[test]
fn every_entry_of_every_zap_is_found_by_its_key() {
    let Some(corpus) = pool::corpus() else { return };
    let (mut entries, mut fat, mut folded, mut words) = (0, 0, 0, 0);
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let dir = entry.unwrap().path();
        let Some(p) = pool::open(&dir) else { continue };
        let mut all = vec![(0, p.mos.clone())];
        // Datasets of the pool with a removed disk need its mapping, which only an import loads.
        if !dir.ends_with("removed") {
            all.extend(datasets(&p.mos));
        }
        for (id, os) in all {
            for o in os.objects() {
                let (object, phys) = o.unwrap();
                let locked = os.is_encrypted() && phys.object_type.is_encrypted();
                if !phys.object_type.is_zap() || locked || phys.blkptr[0].is_hole() {
                    continue;
                }
                let zap = Zap::open(&os, object).unwrap();
                entries += look_up_all(&zap, &format!("{}/{id}/{object}", dir.display()));
                fat += u64::from(zap.fat_header().is_some());
                folded += u64::from(zap.normflags() != 0);
                words += u64::from(zap.has_word_keys());
            }
        }
    }
    eprintln!("{entries} entries; fat tables {fat}, folded or normalized {folded}, with word keys {words}");
    assert!(entries > 5000 && fat > 50 && folded > 1 && words > 2);
}
