//! What manifests do not show: names in other case and form, handles of files, project ids, cookies, access.

#[path = "common/pools.rs"]
#[allow(dead_code)]
mod pools;

use std::sync::Arc;
use zfs_spa::Pool;
use zfs_zio::ErrorKind;
use zfs_zpl::acl::{self, Cred, Who};
use zfs_zpl::{AttrMask, CaseMode, NodeId, Vfs};

/// Opens a pool of the corpus; nothing, said loudly, when there is no corpus.
fn open(name: &str) -> Option<Arc<Pool>> {
    let found = pools::corpus().into_iter().find(|p| p.name == name);
    match found {
        Some(pool) => Some(pools::import(&pool.dir).unwrap()),
        None => {
            eprintln!("SKIPPED: no corpus with {name} (set UZFS_CORPUS)");
            None
        }
    }
}

fn vfs(pool: &Arc<Pool>, dataset: &str) -> Vfs {
    let ds = pools::dsl(pool).dataset(dataset).unwrap().expect("exists");
    pools::vfs_of(pool, &ds).unwrap()
}

fn walk(vfs: &Vfs, path: &str, case: CaseMode) -> Result<NodeId, ErrorKind> {
    let parts = path.split('/').filter(|p| !p.is_empty());
    parts.into_iter().try_fold(vfs.root(), |dir, name| vfs.lookup(dir, name.as_bytes(), case).map_err(|e| e.kind()))
}

fn at(vfs: &Vfs, path: &str) -> NodeId {
    walk(vfs, path, CaseMode::Dataset).unwrap()
}

#[test]
fn names_are_compared_as_the_dataset_says() {
    let Some(pool) = open("acls") else { return };
    let ci = vfs(&pool, "acls/ci");
    let file = at(&ci, "Dir/File");
    assert_eq!(at(&ci, "dIR/fILE"), file);
    assert_eq!(walk(&ci, "dIR/fILE", CaseMode::Exact), Err(ErrorKind::NotFound));
    assert_eq!(walk(&ci, "Dir/File", CaseMode::Exact), Ok(file));
    let composed = at(&ci, "\u{c9}");
    assert_eq!(at(&ci, "E\u{301}"), composed);
    assert_eq!(at(&ci, "e\u{301}"), composed);
    let mixed = vfs(&pool, "acls/mixed");
    let file = at(&mixed, "MiXed");
    assert_eq!(walk(&mixed, "mixed", CaseMode::Dataset), Err(ErrorKind::NotFound));
    assert_eq!(walk(&mixed, "mixed", CaseMode::Ignore), Ok(file));
    let plain = vfs(&pool, "acls");
    assert_eq!(walk(&plain, "FILE.TXT", CaseMode::Ignore), Err(ErrorKind::NotFound));
}

#[test]
fn access_lists_are_shown_and_obeyed() {
    let Some(pool) = open("acls") else { return };
    let fs = vfs(&pool, "acls");
    let dir = at(&fs, "HelloWorld");
    let list = fs.posix_acl(dir, acl::ACCESS).unwrap().expect("has a list");
    assert!(list.iter().any(|e| e.who == Who::User(1234)));
    assert!(fs.posix_acl(dir, acl::DEFAULT).unwrap().is_some());
    assert!(fs.posix_acl(at(&fs, "file.txt"), acl::ACCESS).unwrap().is_none());
    let file = at(&fs, "perm/m0644");
    let cred = |uid, gid| Cred { uid, gid, groups: vec![] };
    assert!(fs.access(file, &cred(1234, 9), 4).is_ok());
    assert_eq!(fs.access(file, &cred(1234, 9), 1).unwrap_err().kind(), ErrorKind::Access);
    assert_eq!(fs.access(file, &cred(0, 0), 2).unwrap_err().kind(), ErrorKind::ReadOnly);
    // The same attribute does not exist where lists are off.
    let other = vfs(&pool, "acls/ci");
    let e = other.getxattr(other.root(), acl::ACCESS.as_bytes(), true).unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::NotFound));
}

#[test]
fn trusted_attributes_are_for_root() {
    let Some(pool) = open("acls") else { return };
    for dataset in ["acls", "acls/xdir"] {
        let fs = vfs(&pool, dataset);
        let file = at(&fs, "xattr/x0");
        assert_eq!(fs.getxattr(file, b"trusted.t", true).unwrap(), [0, 1, 2]);
        assert_eq!(fs.getxattr(file, b"trusted.t", false).unwrap_err().kind(), ErrorKind::Access);
        assert!(!fs.listxattr(file, false).unwrap().contains(&b"trusted.t".to_vec()));
        assert_eq!(fs.getxattr(file, b"user.none", true).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs.getxattr(file, b"odd.name", true).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn project_ids_are_told() {
    let Some(pool) = open("quotas") else { return };
    let fs = vfs(&pool, "quotas");
    let project = fs.getattr(at(&fs, "proj")).unwrap();
    assert!(project.valid.has(AttrMask::PROJID));
    assert_eq!(project.projid, 42);
    assert_ne!(project.flags & zfs_phys::znode::ZFS_PROJINHERIT, 0);
    assert_eq!(fs.getattr(at(&fs, "file.txt")).unwrap().projid, 0);
    // The project has a quota of 9 MiB, which is what can be seen of the pool from there.
    let space = fs.statfs(at(&fs, "proj")).unwrap();
    assert_eq!(space.blocks, (9 << 20) / u64::from(space.bsize));
    assert!(space.bfree > 0 && space.bfree < space.blocks);
    assert_eq!(fs.statfs(fs.root()).unwrap().blocks, 0);
}

#[test]
fn handles_and_paths_lead_back() {
    let Some(pool) = open("m3") else { return };
    let fs = vfs(&pool, "m3");
    for path in ["file.txt", "deep/d0/d1", "sizes/131073", "names/日本語.txt"] {
        let node = at(&fs, path);
        let fid = fs.fid(node).unwrap();
        assert_ne!(fid.generation, 0);
        assert_eq!(fs.by_fid(&fid).unwrap(), node);
        assert_eq!(fs.dataset().path_of(node.object()).unwrap(), format!("/{path}").as_bytes());
        let stale = zfs_zpl::Fid { generation: fid.generation + 1, ..fid };
        assert_eq!(fs.by_fid(&stale).unwrap_err().kind(), ErrorKind::Stale);
    }
    assert_eq!(at(&fs, "deep/d0/.."), at(&fs, "deep"));
    assert_eq!(at(&fs, ".."), fs.root());
    assert_eq!(fs.dataset().path_of(fs.root().object()).unwrap(), b"/");
}

#[test]
fn any_cookie_continues_behind_its_entry() {
    let Some(pool) = open("m3") else { return };
    let fs = vfs(&pool, "m3");
    let dir = at(&fs, "many");
    let mut all = Vec::new();
    fs.readdir(dir, 0, &mut |e| {
        all.push((e.name.to_vec(), e.next));
        true
    })
    .unwrap();
    assert!(all.len() > 400);
    assert_eq!((&all[0].0[..], &all[1].0[..]), (&b"."[..], &b".."[..]));
    for (i, (_, cookie)) in all.iter().enumerate().step_by(37) {
        let mut next = None;
        fs.readdir(dir, *cookie, &mut |e| {
            next = Some(e.name.to_vec());
            false
        })
        .unwrap();
        assert_eq!(next.as_ref(), all.get(i + 1).map(|(name, _)| name));
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let Some(pool) = open("m3") else { return };
    let fs = vfs(&pool, "m3");
    let kind = |object| fs.getattr(NodeId::new(0, object)).unwrap_err().kind();
    assert_eq!(kind(1), ErrorKind::Invalid);
    assert_eq!(kind(1 << 40), ErrorKind::NotFound);
    assert_eq!(fs.getattr(NodeId::new(7, 34)).unwrap_err().kind(), ErrorKind::Stale);
    let error = |r: Result<_, zfs_zio::Error>| r.map(|_: ()| ()).unwrap_err().kind();
    assert_eq!(error(fs.open(fs.root()).map(drop)), ErrorKind::IsDir);
    assert_eq!(error(fs.open(at(&fs, "special/fifo")).map(drop)), ErrorKind::Invalid);
    assert_eq!(error(fs.readlink(fs.root()).map(drop)), ErrorKind::Invalid);
    assert_eq!(error(fs.lookup(at(&fs, "file.txt"), b"x", CaseMode::Dataset).map(drop)), ErrorKind::NotDir);
    assert_eq!(error(fs.lookup(fs.root(), &[b'x'; 2000], CaseMode::Dataset).map(drop)), ErrorKind::NameTooLong);
}
