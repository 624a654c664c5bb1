//! Scans, removals, expansions, checkpoints, history and errors, compared with what OpenZFS's tools printed.

mod common;

use common::{corpus, find, open, options, pools};
use zfs_spa::{ErrorKind, ImportProblem, Rewind, import};

#[test]
fn history_has_every_record_that_openzfs_printed() {
    let Some(corpus) = corpus() else { return };
    for name in pools(&corpus) {
        let Ok(text) = std::fs::read_to_string(corpus.join(&name).join("expect/zpool-history")) else { continue };
        let history = open(&corpus, &name).history().unwrap();
        assert_eq!(history.lost, 0, "{name}");
        let commands = history.records.iter().filter_map(|r| r.str("history command"));
        // Each record starts with a time; what an ioctl was given and gave follows on lines of its own.
        let stamped = |l: &&str| l.len() > 20 && l.as_bytes()[4] == b'-' && l.as_bytes()[10] == b'.';
        let lines: Vec<&str> = text.lines().filter(stamped).collect();
        let printed: Vec<&str> =
            lines.iter().filter_map(|l| l.get(20..)?.split_once(" [user ").map(|(c, _)| c)).collect();
        let have: Vec<&str> = commands.collect();
        // The export that followed is in the pool but not in the file.
        assert_eq!(have[..printed.len()], printed, "{name}");
        assert!(history.records.len() >= lines.len(), "{name}: {} of {}", history.records.len(), lines.len());
    }
}

#[test]
fn scans_removals_expansions_and_checkpoints() {
    let Some(corpus) = corpus() else { return };
    let expanded = open(&corpus, "expanded");
    let scan = expanded.scan_status().unwrap().unwrap().scan;
    assert_eq!((scan.func, scan.state, scan.errors, scan.processed), (1, 2, 0, 0));
    assert_eq!(scan.end_time - scan.start_time, 4);
    let expand = expanded.expand_status().unwrap().unwrap();
    assert_eq!((expand.state, expand.vdev, expand.end_time - expand.start_time), (2, 0, 3));
    assert_eq!(expand.reflowed >> 10, 404);
    let removal = open(&corpus, "removed").removal_status().unwrap().unwrap();
    assert_eq!((removal.phys.state, removal.phys.removing_vdev, removal.mapping_memory), (2, 1, 72));
    let checkpoint = open(&corpus, "checkpoint").checkpoint_status().unwrap().unwrap();
    assert!(!checkpoint.discarding && checkpoint.space > 1 << 20);
    let plain = open(&corpus, "basic");
    assert!(plain.scan_status().unwrap().is_none() && plain.removal_status().unwrap().is_none());
    assert!(plain.expand_status().unwrap().is_none() && plain.checkpoint_status().unwrap().is_none());
    assert_eq!(plain.data_error_count().unwrap(), 0);
}

#[test]
fn a_checkpoint_can_be_gone_back_to() {
    let Some(corpus) = corpus() else { return };
    let candidate = find(&corpus, "checkpoint");
    let back = zfs_spa::ImportOptions { rewind: Rewind::Checkpoint, ..options() };
    let pool = import(&candidate, &back).unwrap();
    assert!(pool.uberblock().txg < candidate.txg);
    pool.verify_metadata().unwrap();
    let none = import(&find(&corpus, "basic"), &back).unwrap_err();
    assert!(matches!(none.problem, ImportProblem::NoCheckpoint));
}

#[test]
fn a_pool_in_use_elsewhere_needs_force() {
    let Some(corpus) = corpus() else { return };
    let candidate = find(&corpus, "zil");
    let polite = zfs_spa::ImportOptions { force: false, hostid: 1, ..options() };
    let refused = import(&candidate, &polite).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::ForeignHost);
    assert!(matches!(refused.problem, ImportProblem::ForeignHost { hostid: 1727565777, .. }), "{refused:?}");
    import(&candidate, &options()).unwrap();
}

#[test]
fn missing_devices_are_named() {
    let Some(corpus) = corpus() else { return };
    let mut candidate = find(&corpus, "stripe3");
    let gone = *candidate.devices.keys().next().unwrap();
    candidate.devices.remove(&gone);
    let refused = import(&candidate, &options()).unwrap_err();
    let ImportProblem::MissingDevices(missing) = &refused.problem else { panic!("{refused:?}") };
    assert_eq!(missing.iter().map(|m| m.guid).collect::<Vec<_>>(), [gone]);

    let mut candidate = find(&corpus, "classes");
    let logs: Vec<u64> =
        candidate.tree.lists("children")[2].lists("children").iter().filter_map(|c| c.u64("guid")).collect();
    candidate.devices.retain(|guid, _| !logs.contains(guid));
    let refused = import(&candidate, &options()).unwrap_err();
    assert!(matches!(&refused.problem, ImportProblem::MissingLogs(m) if m.len() == 2), "{refused:?}");
    let lenient = zfs_spa::ImportOptions { allow_missing_logs: true, ..options() };
    import(&candidate, &lenient).unwrap();
}

#[test]
fn any_device_of_a_redundant_pool_may_be_missing() {
    let Some(corpus) = corpus() else { return };
    for (name, most) in [("m3", 2), ("z1x3", 1), ("z2x6", 2), ("z3x7", 3), ("dr1", 1), ("dr2", 2), ("expanded", 1)] {
        let all: Vec<u64> = find(&corpus, name).devices.keys().copied().collect();
        for first in 0..all.len() {
            let mut candidate = find(&corpus, name);
            for i in 0..most {
                candidate.devices.remove(&all[(first + i) % all.len()]);
            }
            let pool = import(&candidate, &options()).unwrap_or_else(|e| panic!("{name} without {first}: {e}"));
            pool.verify_metadata().unwrap_or_else(|e| panic!("{name} without {first}: {e}"));
        }
        if all.len() == most + 1 {
            continue;
        }
        let mut candidate = find(&corpus, name);
        for guid in all.iter().take(most + 1) {
            candidate.devices.remove(guid);
        }
        let refused = import(&candidate, &options()).unwrap_err();
        assert!(matches!(refused.problem, ImportProblem::MissingDevices(_)), "{name}: {refused:?}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let Some(corpus) = corpus() else { return };
    let pool = open(&corpus, "basic");
    let ds = pool.dsl().unwrap().dataset("basic").unwrap().unwrap();
    let objset = pool.open_objset(&ds).unwrap();
    let text = std::fs::read_to_string(corpus.join("basic/expect/files.basic")).unwrap();
    let mut named = 0;
    for object in objset.objects().take(200) {
        let (object, _) = object.unwrap();
        if let Ok(Some(path)) = zfs_spa::errlog::path_of(&objset, object)
            && text.contains(&format!("\"{}\"", path.trim_start_matches('/')))
        {
            named += 1;
        }
    }
    assert!(named > 50, "{named} named");
    let bm = zfs_zio::Zbookmark::new(ds.object, u64::MAX >> 20, 0, 0);
    pool.zio().errors().unreadable(&bm, 7, ErrorKind::Checksum);
    let errors = pool.data_errors().unwrap();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].text(), format!("basic:<0x{:x}>", bm.object));
}

#[test]
fn a_removed_device_is_not_missed() {
    let Some(corpus) = corpus() else { return };
    let alone = zfs_spa::discover(&zfs_spa::Search::Paths(vec![corpus.join("removed/d0")])).unwrap();
    let pool = import(&alone.pools[0], &options()).unwrap();
    pool.verify_metadata().unwrap();
    let ds = pool.dsl().unwrap().dataset("removed").unwrap().unwrap();
    let objset = pool.open_objset(&ds).unwrap();
    // The end of an intent log is a block that was never written.
    let walk = zfs_dmu::traverse::Options { zil: false, ..Default::default() };
    let zio = pool.zio();
    let visit = |v: &zfs_dmu::traverse::Visit<'_>| zio.verify(v.bp, &v.bookmark, true);
    let done = zfs_dmu::traverse::traverse(&objset, &walk, &visit, &|_, e| Err(e)).unwrap();
    assert!(done.objects > 100);
    let gone = zfs_spa::discover(&zfs_spa::Search::Paths(vec![corpus.join("removed/d1")])).unwrap();
    for candidate in &gone.pools {
        let refused = import(candidate, &options()).unwrap_err();
        assert!(!matches!(refused.problem, ImportProblem::Version(_)), "{refused:?}");
    }
}
