//! Properties of every dataset of the corpus, compared with what `zfs get -Hp all` printed.

mod common;

use common::names::spell;
use common::{corpus, find, open, pools};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use zfs_spa::dsl::{PropValue, Property, Source};
use zfs_spa::space::AllocClass;
use zfs_spa::{Pool, import};

type Table = BTreeMap<(String, String), (String, String)>;

/// Properties that are not the pool's alone: which are mounted is the daemon's to say.
const ELSEWHERE: &[&str] = &["mounted"];
/// Properties that OpenZFS's tools hide.
const HIDDEN: &[&str] = &[
    "unique",
    "numclones",
    "inconsistent",
    "prevsnap",
    "pbkdf2salt",
    "keyguid",
    "ivsetguid",
    "redacted",
    "refcompressratio@bookmark",
];

fn spelled(name: &str, p: &Property) -> (String, String) {
    let value = match &p.value {
        PropValue::Number(n) => spell(name, *n),
        PropValue::Text(t) => t.clone(),
    };
    let source = match &p.source {
        Source::None => "-".to_owned(),
        Source::Default => "default".to_owned(),
        Source::Temporary => "temporary".to_owned(),
        Source::Local => "local".to_owned(),
        Source::Inherited(from) => format!("inherited from {from}"),
        Source::Received => "received".to_owned(),
    };
    (value, source)
}

fn seen(corpus: &Path, pool: &Arc<Pool>) -> zfs_spa::Result<Table> {
    load_keys(corpus, pool)?;
    let mut out = Table::new();
    let mut put = |ds: &str, props: BTreeMap<String, Property>| {
        for (name, p) in props {
            let hidden = if ds.contains('#') { format!("{name}@bookmark") } else { name.clone() };
            if !HIDDEN.contains(&name.as_str()) && !HIDDEN.contains(&hidden.as_str()) {
                out.insert((ds.to_owned(), name.clone()), spelled(&name, &p));
            }
        }
    };
    for ds in pool.dsl()?.filesystems()? {
        put(&ds.name, pool.properties(&ds)?);
        for snap in ds.snapshots()? {
            put(&snap.name, pool.properties(&snap)?);
        }
        for mark in ds.bookmarks()? {
            put(&mark.name, pool.bookmark_properties(&ds, &mark)?);
        }
    }
    Ok(out)
}

fn expected(text: &str) -> Table {
    text.lines()
        .map(|l| l.split('\t').collect::<Vec<_>>())
        .filter(|f| f.len() == 4 && !ELSEWHERE.contains(&f[1]))
        .map(|f| ((f[0].into(), f[1].into()), (f[2].into(), f[3].into())))
        .collect()
}

fn load_keys(corpus: &Path, pool: &Arc<Pool>) -> zfs_spa::Result<()> {
    let dir = corpus.join(&**pool.name());
    for ds in pool.dsl()?.filesystems()? {
        let props = pool.properties(&ds)?;
        let root = props.get("encryptionroot").and_then(|p| p.value.text().map(str::to_owned));
        if root.as_deref() == Some(ds.name.as_str()) {
            let location = props["keylocation"].value.text().unwrap().to_owned();
            let file = Path::new(&location).file_name().unwrap();
            pool.load_key(&ds.name, &std::fs::read(dir.join(file))?)?;
        }
    }
    Ok(())
}

/// What differs between the tables.
fn differences(want: &Table, have: &Table) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, value) in want {
        if have.get(key) != Some(value) {
            wrong.push(format!("{} {}: want {value:?}, have {:?}", key.0, key.1, have.get(key)));
        }
    }
    for (key, value) in have.iter().filter(|(k, _)| !want.contains_key(*k)) {
        wrong.push(format!("{} {}: unexpected {value:?}", key.0, key.1));
    }
    wrong
}

/// The pool as it was when a tool described it, and what differs all the same. The files beside the pools were
/// printed while the pool was in use; what was read afterwards to describe it changed access times, and the export wrote
/// those. So the root that is compared is the one that was newest when the tool ran: the newest that agrees, and if none
/// does, the one that agrees best.
fn moment(
    corpus: &Path,
    name: &str,
    differ: impl Fn(&Arc<Pool>) -> zfs_spa::Result<Vec<String>>,
) -> (Arc<Pool>, Vec<String>) {
    let candidate = find(corpus, name);
    let mut best: Option<(Arc<Pool>, Vec<String>)> = None;
    for ub in candidate.uberblocks() {
        let options = zfs_spa::ImportOptions { rewind: zfs_spa::Rewind::To(ub.txg), ..common::options() };
        let pool = import(&candidate, &options).map_err(|e| e.error);
        // Roots that are too old may lead to what was overwritten since.
        let Ok((pool, diff)) = pool.and_then(|pool| differ(&pool).map(|diff| (pool, diff))) else { continue };
        let agrees = diff.is_empty();
        if best.as_ref().is_none_or(|(_, b)| diff.len() < b.len()) {
            best = Some((pool, diff));
        }
        if agrees {
            break;
        }
    }
    best.unwrap()
}

/// Differences in the figures of `zpool` that have a reason outside of the pool.
fn is_of_the_moment(pool: &str, difference: &str) -> bool {
    let space = ["free", "allocated", "dedup_table_size", "list"];
    match pool {
        // A disk was taken away after the tools had run.
        "lostdisk" => difference.starts_with("lostdisk health") || difference.contains("lostdisk/d1"),
        // The root of that moment leads to blocks that were overwritten (see below).
        "crypt" => space.iter().any(|s| difference.starts_with(&format!("crypt {s}"))),
        // The tools ran while the table's log was being flushed, between the roots of txg 42 and 43.
        "dedup" => space.iter().any(|s| difference.starts_with(&format!("dedup {s}"))),
        _ => false,
    }
}

/// Space figures, which change with every txg.
const SPACE: &[&str] =
    &["available", "compressratio", "logicalused", "used", "usedbychildren", "usedbysnapshots", "written"];

#[test]
fn properties_equal_those_of_openzfs() {
    let Some(corpus) = corpus() else { return };
    let mut wrong = Vec::new();
    for name in pools(&corpus) {
        let dir = corpus.join(&name).join("expect");
        let Ok(text) = std::fs::read_to_string(dir.join("zfs-get")) else { continue };
        let want = expected(&text);
        let (pool, mut diff) = moment(&corpus, &name, |pool| Ok(differences(&want, &seen(&corpus, pool)?)));
        if name == "crypt" {
            // The root of that moment is still there, but blocks below it were overwritten; the oldest that can be
            // read has the access times already.
            diff.retain(|d| !SPACE.contains(&d.split([' ', ':']).nth(1).unwrap()));
        }
        let figures = |pool: &Arc<Pool>| Ok([pool_differences(&dir, pool)?, list_differences(&dir, pool)?].concat());
        let (_, more) = moment(&corpus, &name, figures);
        diff.extend(more.into_iter().filter(|d| !is_of_the_moment(&name, d)));
        eprintln!("{name}: {} properties, {} wrong, txg {}", want.len(), diff.len(), pool.uberblock().txg);
        wrong.extend(diff);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Pool properties that are not the pool's alone: it was writable then, and had another number of its import.
const HOST: &[&str] = &["readonly", "load_guid"];

fn pool_differences(dir: &Path, pool: &Arc<Pool>) -> zfs_spa::Result<Vec<String>> {
    let have = pool.pool_properties()?;
    let text = std::fs::read_to_string(dir.join("zpool-get")).unwrap();
    let mut wrong = Vec::new();
    for line in text.lines() {
        let [_, name, value, source] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        if HOST.contains(&name) {
            continue;
        }
        let Some(p) = have.get(name) else {
            wrong.push(format!("{} {name}: missing", pool.name()));
            continue;
        };
        let (mut v, s) = spelled(name, p);
        v = match (name, &p.value) {
            ("expandsize" | "checkpoint", PropValue::Number(0)) => "-".into(),
            ("fragmentation" | "dedup_table_quota", PropValue::Number(u64::MAX)) => {
                if name == "fragmentation" { "-" } else { "auto" }.into()
            }
            ("version", PropValue::Number(5000)) => "-".into(),
            ("failmode", PropValue::Number(0)) => "wait".into(),
            ("delegation" | "autoreplace" | "listsnapshots" | "autoexpand" | "multihost" | "autotrim", p) => {
                if p.number() == Some(1) { "on" } else { "off" }.into()
            }
            _ => v,
        };
        if (v.as_str(), s.as_str()) != (value, source) {
            wrong.push(format!("{} {name}: want {value} {source}, have {v} {s}", pool.name()));
        }
    }
    Ok(wrong)
}

fn push_all(vdev: &zfs_zio::Vdev, order: &mut Vec<u64>) {
    order.push(vdev.guid());
    vdev.children.iter().for_each(|c| push_all(c, order));
}

/// Rows of `zpool list -v` against the space of vdevs, in order; cache devices and spares have their own figures.
fn list_differences(dir: &Path, pool: &Arc<Pool>) -> zfs_spa::Result<Vec<String>> {
    let text = std::fs::read_to_string(dir.join("zpool-list")).unwrap();
    let space = pool.vdev_space()?;
    let root = pool.zio().vdevs().root();
    let mut order = vec![root.guid()];
    let classes = |log: bool, special: bool| {
        let space = pool.space().unwrap();
        let tops = root.children.iter().zip(space.tops.clone());
        tops.filter(|(_, t)| (t.class == AllocClass::Log) == log)
            .filter(|(_, t)| (t.class == AllocClass::Special) == special)
            .map(|(v, _)| v)
            .collect::<Vec<_>>()
    };
    for top in [classes(false, false), classes(false, true), classes(true, false)].concat() {
        push_all(top, &mut order);
    }
    let rows = text.lines().filter(|l| l.contains('\t')).map(|l| l.trim_start().split('\t').collect::<Vec<_>>());
    let mut wrong = Vec::new();
    for (row, guid) in rows.zip(order) {
        let s = space[&guid];
        let dash = |n: u64| if n == 0 { "-".to_owned() } else { n.to_string() };
        let have = if s.space == 0 {
            vec![dash(s.pspace), "-".into(), "-".into(), "-".into(), "-".into(), "-".into(), "-".into()]
        } else {
            vec![
                (if s.pspace != 0 { s.pspace } else { s.space }).to_string(),
                s.alloc.to_string(),
                (s.space - s.alloc).to_string(),
                dash(s.checkpoint),
                dash(s.expandable),
                s.fragmentation.map_or("-".into(), |f| f.to_string()),
                (s.alloc * 100 / s.space).to_string(),
            ]
        };
        if row[1..8] != have {
            wrong.push(format!("{} list: want {:?}, have {have:?}", pool.name(), &row[..8]));
        }
    }
    Ok(wrong)
}

#[test]
fn keys_open_what_they_should_and_nothing_else() {
    let Some(corpus) = corpus() else { return };
    let pool = open(&corpus, "crypt");
    let dsl = pool.dsl().unwrap();
    let child = dsl.dataset("crypt/gcm/child").unwrap().unwrap();
    let kind = |e: zfs_spa::Error| e.kind();
    assert_eq!(pool.open_objset(&child).map_err(kind).unwrap_err(), zfs_spa::ErrorKind::KeyUnavailable);
    assert_eq!(pool.load_key("crypt/gcm", b"wrong wrong").map_err(kind), Err(zfs_spa::ErrorKind::Auth));
    assert_eq!(pool.load_key("crypt/gcm", b"short").map_err(kind), Err(zfs_spa::ErrorKind::Invalid));
    assert_eq!(pool.load_key("crypt/gcm/child", b"x").map_err(kind), Err(zfs_spa::ErrorKind::Invalid));
    let phrase = std::fs::read(corpus.join("crypt/passphrase")).unwrap();
    pool.load_key("crypt/gcm", &phrase).unwrap();
    assert_eq!(pool.load_key("crypt/gcm", &phrase).map_err(kind), Err(zfs_spa::ErrorKind::Exists));
    let objset = pool.open_objset(&child).unwrap();
    assert!(objset.objects().count() > 3);
    pool.unload_key("crypt/gcm").unwrap();
    assert_eq!(pool.open_objset(&child).map_err(kind).unwrap_err(), zfs_spa::ErrorKind::KeyUnavailable);
}

#[test]
fn space_of_users_equals_openzfs() {
    use zfs_spa::dsl::accounting::{Usage, Who, usage};
    let Some(corpus) = corpus() else { return };
    let differ = |pool: &Arc<Pool>| {
        let Some(ds) = pool.dsl()?.dataset("quotas")? else { return Ok(vec!["no dataset".into()]) };
        let objset = pool.open_objset(&ds)?;
        let mut wrong = Vec::new();
        for (who, file) in [(Who::User, "userspace"), (Who::Group, "groupspace"), (Who::Project, "projectspace")] {
            let text = std::fs::read_to_string(corpus.join("quotas").join(file)).unwrap();
            let have = usage(&objset, who)?;
            for line in text.lines() {
                let n = |s: &str| s.parse::<u64>().unwrap_or(0);
                let [.., id, used, quota, objects, object_quota] = line.split('\t').collect::<Vec<_>>()[..] else {
                    panic!("{line}")
                };
                let want = Usage { used: n(used), quota: n(quota), objects: n(objects), object_quota: n(object_quota) };
                if have.get(&n(id)).copied().unwrap_or_default() != want {
                    wrong.push(format!("{line}: have {:?}", have.get(&n(id))));
                }
            }
        }
        Ok(wrong)
    };
    let (pool, wrong) = moment(&corpus, "quotas", differ);
    assert!(wrong.is_empty(), "txg {}:\n{}", pool.uberblock().txg, wrong.join("\n"));
}

#[test]
fn another_name_and_another_root() {
    let Some(corpus) = corpus() else { return };
    let options =
        zfs_spa::ImportOptions { name: Some("other".into()), altroot: Some("/mnt/x".into()), ..common::options() };
    let pool = import(&find(&corpus, "basic"), &options).unwrap();
    let dsl = pool.dsl().unwrap();
    let at = |name: &str| {
        let ds = dsl.dataset(name).unwrap().unwrap();
        spelled("mountpoint", &pool.property(&ds, "mountpoint").unwrap().unwrap())
    };
    assert_eq!(at("other"), ("/mnt/x/basic".into(), "local".into()));
    assert_eq!(at("other/home"), ("/mnt/x/basic/home".into(), "inherited from other".into()));
    assert_eq!(at("other/home/data"), ("/mnt/x/elsewhere".into(), "local".into()));
}
