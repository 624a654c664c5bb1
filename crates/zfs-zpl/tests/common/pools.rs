//! Opens pools of the corpus and mounts their datasets without any front end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use uzfs_testkit::{archive, paths};
use zfs_dmu::Objset;
use zfs_env::TaskPool;
use zfs_phys::enums::ObjsetType;
use zfs_spa::dsl::{Dataset, Dsl};
use zfs_spa::{ImportOptions, Pool, Search};
use zfs_zio::ArcCache;
use zfs_zpl::{AclType, ControlDir, MountOptions, SnapshotEntry, Time, Vfs, Zfs};

/// A pool of the corpus: its name and the folder of its devices.
pub struct CorpusPool {
    /// Name of the pool.
    pub name: String,
    /// Where devices, keys and `expect/` are.
    pub dir: PathBuf,
}

/// All pools of the corpus, unpacked; none when the corpus is not there.
pub fn corpus() -> Vec<CorpusPool> {
    let Some(dir) = paths::corpus() else { return Vec::new() };
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(name) = name.strip_suffix(".tar.zst") {
            out.push(CorpusPool { name: name.to_owned(), dir: archive::unpack(&path, &paths::cache()).unwrap() });
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

/// Imports the pool whose devices lie in `dir`.
pub fn import(dir: &Path) -> Result<Arc<Pool>, String> {
    import_with(dir, 256 << 20)
}

/// Imports the pool whose devices lie in `dir`, with a cache of `arc` bytes.
pub fn import_with(dir: &Path, arc: u64) -> Result<Arc<Pool>, String> {
    let found = zfs_spa::discover(&Search::Paths(vec![dir.to_owned()])).map_err(|e| e.to_string())?;
    let candidate = found.pools.first().ok_or("no pool found")?;
    let tasks = TaskPool::new("prefetch", 2).ok().map(Arc::new);
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(arc)), tasks);
    options.skip_host_checks = true;
    let pool = zfs_spa::import(candidate, &options).map_err(|e| format!("{e:?}"))?;
    load_keys(&pool, dir);
    Ok(pool)
}

/// Loads the keys of all encryption roots, whose files lie beside the devices. Those of other names stay locked.
fn load_keys(pool: &Arc<Pool>, dir: &Path) {
    for ds in dsl(pool).filesystems().unwrap() {
        let location = ds.prop("keylocation", false).unwrap();
        let file = location.and_then(|(v, _)| v.text().map(|t| dir.join(Path::new(t).file_name().unwrap_or_default())));
        if let Some(material) = file.and_then(|f| std::fs::read(f).ok()) {
            pool.load_key(&ds.name, &material).unwrap_or_else(|e| panic!("{}: {e}", ds.name));
        }
    }
}

/// What a dataset's properties say about its mount.
pub fn options_of(ds: &Dataset) -> MountOptions {
    let number =
        |name: &str, default: u64| ds.prop(name, true).unwrap().and_then(|(v, _)| v.number()).unwrap_or(default);
    MountOptions {
        snapdir_visible: number("snapdir", 0) == 1,
        acltype: match number("acltype", 0) {
            1 => AclType::Posix,
            2 => AclType::Nfs4,
            _ => AclType::Off,
        },
        xattr: number("xattr", 2) != 0,
        recordsize: number("recordsize", 128 << 10) as u32,
        longname: number("longname", 0) != 0,
        snapshot: ds.is_snapshot(),
        ..MountOptions::default()
    }
}

/// The object set of a dataset, with its key if it needs one.
pub fn objset_of(pool: &Arc<Pool>, ds: &Dataset) -> Result<Arc<Objset>, String> {
    pool.open_objset(ds).map_err(|e| e.to_string())
}

/// Mounts a file system or snapshot with its `.zfs`.
pub fn vfs_of(pool: &Arc<Pool>, ds: &Arc<Dataset>) -> Result<Vfs, String> {
    let zfs = Zfs::mount(objset_of(pool, ds)?, options_of(ds)).map_err(|e| e.to_string())?;
    if ds.is_snapshot() {
        return Ok(Vfs::new(zfs, None));
    }
    let (listed, opened, pool) = (ds.clone(), ds.clone(), pool.clone());
    let control = ControlDir {
        list: Box::new(move || {
            let all = listed.snapshot_objects()?;
            Ok(all.into_iter().map(|(name, objset)| SnapshotEntry { name, objset }).collect())
        }),
        open: Box::new(move |s| {
            let snap = opened.snapshot(&s.name)?.expect("listed");
            Zfs::mount(objset_of(&pool, &snap).expect("opens"), options_of(&snap))
        }),
        on_enter: None,
        changed: Time::default(),
    };
    Ok(Vfs::new(zfs, Some(control)))
}

/// Whether a dataset holds files.
pub fn is_filesystem(ds: &Dataset) -> bool {
    ds.objset_type().is_ok_and(|t| t == ObjsetType::Zfs)
}

/// The pool's datasets.
pub fn dsl(pool: &Arc<Pool>) -> Arc<Dsl> {
    pool.dsl().expect("the pool's directories can be read")
}

/// Mount points of other datasets inside of `ds`, as paths below its root, where they are by default. Nothing is
/// mounted inside of a snapshot.
pub fn foreign(dsl: &Dsl, ds: &Dataset) -> Vec<String> {
    if ds.is_snapshot() {
        return Vec::new();
    }
    let below = format!("{}/", ds.head_name());
    let all = dsl.filesystems().unwrap();
    all.iter().filter_map(|d| d.name.strip_prefix(&below).map(str::to_owned)).collect()
}
