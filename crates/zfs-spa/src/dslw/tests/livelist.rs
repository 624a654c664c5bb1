//! Livelists of clones that are written again and again.

use super::*;
use zfs_phys::dsl::field;

/// A pool with a file system of 500 blocks, a snapshot of it and a clone of that.
fn cloned() -> Mini {
    let mut mini = Mini::new();
    mini.sync(|dsl, tx| {
        let new = NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init };
        dsl.create(tx, "a", new).map(drop).unwrap();
    });
    for block in 0..500 {
        mini.write("a", block, block as u8);
    }
    mini.sync(|dsl, tx| dsl.snapshot(tx, &dsl.find("a").unwrap().unwrap(), "s", 5).map(drop).unwrap());
    mini.sync(|dsl, tx| dsl.clone_of(tx, "c", "a@s").map(drop).unwrap());
    mini
}

/// Length of each list of the clone's livelist, oldest first: entries, and those of blocks that died.
fn lists(mini: &Mini) -> Vec<(u64, u64)> {
    let dir = mini.dsl.find_dir("c").unwrap().unwrap();
    let object = mosw::zap_get(&mini.mos, dir.object, field::LIVELIST).unwrap().unwrap();
    let mut lists: Vec<(u64, u64)> = Zap::open(&mini.mos, object)
        .unwrap()
        .iter()
        .map(|entry| {
            let entry = entry.unwrap();
            (u64::from_str_radix(std::str::from_utf8(entry.name()).unwrap(), 16).unwrap(), entry.value.first())
        })
        .collect();
    lists.sort_unstable();
    let phys = |(_, list)| *Bpobj::open(&mini.mos, list).unwrap().phys();
    lists.into_iter().map(phys).map(|p| (p.num_blkptrs, p.num_freed)).collect()
}

fn destroy(mini: &mut Mini, path: &str) {
    mini.sync(|dsl, tx| dsl.destroy_head(tx, &dsl.find(path).unwrap().unwrap(), path).unwrap());
}

/// The clone goes, and what is left is what there was before there was one, but for what the pool itself needs.
fn goes_without_trace(mini: &mut Mini) {
    mini.check();
    destroy(mini, "c");
    for _ in 0..40 {
        mini.sync(|_, _| {});
    }
    mini.check_leaks();
    assert!(!mini.ops.feature_active(Feature::Livelist));
}

/// Whatever is written, a livelist is not longer than what its clone has, and some lists.
#[test]
fn livelists_are_as_long_as_what_is_alive() {
    let mut mini = cloned();
    mini.dsl.set_livelist_limits(40, 0);
    let mut longest = 0;
    for round in 0..60u64 {
        for block in 0..60 {
            mini.write("c", (block * 7 + round * 13) % 400, round as u8);
        }
        mini.sync(|_, _| {});
        let lists = lists(&mini);
        let (all, died) = lists.iter().fold((0, 0), |sum, list| (sum.0 + list.0, sum.1 + list.1));
        // Every block of the file, and those of its tree, may be the clone's.
        assert!(all - 2 * died < 700, "round {round}: {lists:?}");
        longest = longest.max(all);
        (0..3).for_each(|_| mini.sync(|_, _| {}));
    }
    // Sixty times seventy were born, and all but seven hundred died.
    assert!(longest < 2500, "{longest}");
    goes_without_trace(&mut mini);
}

/// A list that grows while others are looked through, and what died in those, are not forgotten.
#[test]
fn what_happens_meanwhile_counts() {
    for late in 0..4u64 {
        let mut mini = cloned();
        mini.dsl.set_livelist_limits(20, 0);
        for round in 0..4u64 {
            (0..30).for_each(|block| mini.write("c", block, round as u8));
            let tx = Tx::syncing(mini.txg);
            mini.dsl.sync_datasets(&tx, 1).unwrap();
            mini.sync(|_, _| {});
            if round == late {
                mini.condensing = None;
            }
        }
        // Found, not looked through yet, or looked through and not replaced yet; and given up in each of those.
        (0..late).for_each(|_| mini.sync(|_, _| {}));
        (0..30).for_each(|block| mini.write("c", block * 2, 99));
        match late {
            0 => drop(mini.sync(|dsl, tx| dsl.promote(tx, &dsl.find("c").unwrap().unwrap(), "c"))),
            1 => drop(mini.sync(|dsl, tx| dsl.rollback(tx, &dsl.find("c").unwrap().unwrap()))),
            _ => {}
        }
        for _ in 0..5 {
            mini.sync(|_, _| {});
        }
        mini.check();
        destroy(&mut mini, if late == 0 { "a" } else { "c" });
        mini.check_leaks();
    }
}

/// Lists whose clone is destroyed while they are looked through are not looked through any more.
#[test]
fn a_clone_goes_while_its_lists_are_condensed() {
    let mut mini = cloned();
    mini.dsl.set_livelist_limits(20, 0);
    let mut round = 0u64;
    while mini.condensing.is_none() {
        (0..30).for_each(|block| mini.write("c", block, round as u8));
        mini.sync(|_, _| {});
        round += 1;
        assert!(round < 20, "{:?}", lists(&mini));
    }
    let work = mini.condensing.take().unwrap();
    goes_without_trace(&mut mini);
    assert!(!work.run(), "what is gone is not condensed");
    mini.check_leaks();
}
