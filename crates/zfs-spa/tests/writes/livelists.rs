//! Livelists of clones that are overwritten: how long they get, and what a crash leaves of condensing them.

use super::*;

/// Lists of the livelist of file system `name`: entries of each, and those of blocks that died.
fn livelist(dir: &Path, name: &str) -> Vec<(u64, u64)> {
    let pool = import(&find(dir, "fresh"), &common::options()).unwrap();
    let datasets = pool.dsl().unwrap().filesystems().unwrap();
    let dataset = datasets.iter().find(|d| d.name == format!("fresh/{name}")).unwrap();
    let Some(object) = dataset.dir.field(zfs_phys::dsl::field::LIVELIST).unwrap() else { return Vec::new() };
    let lists = Zap::open(pool.mos(), object).unwrap();
    let lists =
        lists.iter().map(|entry| zfs_dmu::bpobj::Bpobj::open(pool.mos(), entry.unwrap().value.first()).unwrap());
    lists.map(|list| (list.phys().num_blkptrs, list.phys().num_freed)).collect()
}

/// Writes some blocks of the file of `name` again, in a txg of its own.
fn overwrite(spa: &Spa, name: &str, round: u32) {
    let head = spa.dsl().find(name).unwrap().unwrap();
    let objset = spa.dsl().open_objset(&head).unwrap();
    let file = objset.dnode(objset.next_object(0).unwrap().unwrap()).unwrap();
    let tx = spa.txgs().assign().unwrap();
    for n in 0..50 {
        let noise = (0u32..1024).flat_map(|i| (i ^ (n << 12) ^ (round << 20)).wrapping_mul(0x9e37_79b9).to_le_bytes());
        let at = u64::from((n * 11 + round * 3) % 500) * 4096;
        file.write_at(&tx, at, &noise.collect::<Vec<u8>>()).unwrap();
    }
    drop(tx);
    spa.txgs().wait_synced(0).unwrap();
}

/// The livelist of a clone that is overwritten many times stays short, a crash at any time leaves a pool that is whole,
/// and destroying the clone frees what it had.
#[test]
fn livelists_are_condensed() {
    let dir = tempfile::tempdir().unwrap();
    create_pool(vec![(Class::Normal, image(dir.path(), "d0", 128))]);
    let spa = open(dir.path(), "fresh");
    spa.sync_task("create", |ctx| {
        let mut init = |objset: &Arc<zfs_dmu::Objset>, tx: &zfs_dmu::Tx| {
            let spec = ObjectSpec { object_type: DmuObjectType::PLAIN_FILE_CONTENTS, ..ObjectSpec::default() };
            let file = objset.allocate(tx, &ObjectSpec { block_size: 4096, ..spec })?;
            file.write_at(
                tx,
                0,
                &(0u32..1 << 20).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect::<Vec<_>>(),
            )
        };
        let new = NewObjset { kind: ObjsetType::Other, flags: 0, init: &mut init };
        ctx.dsl().create(ctx.tx, "one", new).map(|_| ())
    })
    .unwrap();
    spa.sync_task("snapshot", |ctx| {
        ctx.dsl().snapshot(ctx.tx, &ctx.dsl().find("one")?.unwrap(), "a", 1_700_000_000).map(|_| ())
    })
    .unwrap();
    spa.sync_task("clone", |ctx| ctx.dsl().clone_of(ctx.tx, "copy", "one@a").map(|_| ())).unwrap();
    spa.dsl().set_livelist_limits(100, 0);
    let mut crashes = Vec::new();
    for round in 0..40 {
        overwrite(&spa, "copy", round);
        if round == 33 || round == 36 {
            crashes.push(as_it_is(&spa, dir.path()));
        }
    }
    let destroy = |spa: &Spa| {
        spa.sync_task("destroy", |ctx| {
            let head = ctx.dsl().find("copy")?.unwrap();
            ctx.dsl().destroy_head(ctx.tx, &head, "copy")
        })
        .unwrap();
    };
    spa.close(false).unwrap();
    drop(spa);
    for (n, dir) in crashes.iter().map(tempfile::TempDir::path).chain([dir.path()]).enumerate() {
        zdb(dir, "fresh", &["-bbcc"]);
        let lists = livelist(dir, "copy");
        let entries: u64 = lists.iter().map(|list| list.0).sum();
        // Forty times sixty blocks were born, and most died.
        assert!(entries < 1500 && lists.len() > 2, "{n}: {lists:?}");
        keep(dir, &format!("livelist{n}"));
        let spa = open(dir, "fresh");
        spa.dsl().set_livelist_limits(100, 0);
        (0..4).for_each(|round| overwrite(&spa, "copy", round + 100));
        let crashed = as_it_is(&spa, dir);
        zdb(crashed.path(), "fresh", &["-bbcc"]);
        destroy(&spa);
        while spa.view().unwrap().directory().lookup_u64(b"com.delphix:deleted_clones").unwrap().is_some() {
            spa.txgs().wait_synced(0).unwrap();
        }
        spa.close(false).unwrap();
        check(dir, "fresh");
        zdb(dir, "fresh", &["-bbcc"]);
        assert!(!import(&find(dir, "fresh"), &common::options()).unwrap().features().is_active(Feature::Livelist));
    }
}
