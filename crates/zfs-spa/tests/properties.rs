//! Properties of every dataset of the corpus, compared with what `zfs get -Hp all` printed.

mod common;

use common::names::spell;
use common::{corpus, find, open, pools};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use zfs_spa::dsl::{PropValue, Property, Source};
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

/// The files beside the pools were printed while the pool was in use; what was read afterwards to describe it changed
/// access times, and the export wrote those. So the root that is compared is the one that was newest when `zfs get`
/// ran: the newest that agrees, and if none does, the newest of all.
#[test]
fn properties_equal_those_of_openzfs() {
    let Some(corpus) = corpus() else { return };
    let mut wrong = Vec::new();
    for name in pools(&corpus) {
        let Ok(text) = std::fs::read_to_string(corpus.join(&name).join("expect/zfs-get")) else { continue };
        let (want, candidate) = (expected(&text), find(&corpus, &name));
        let mut best: Option<(u64, Vec<String>)> = None;
        for ub in candidate.uberblocks() {
            let options = zfs_spa::ImportOptions { rewind: zfs_spa::Rewind::To(ub.txg), ..common::options() };
            let have = import(&candidate, &options).map_err(|e| e.error).and_then(|pool| seen(&corpus, &pool));
            // Roots that are too old may lead to what was overwritten since.
            let have = match have {
                Ok(have) => have,
                Err(e) => {
                    eprintln!("{name}: txg {}: {e}", ub.txg);
                    continue;
                }
            };
            let diff = differences(&want, &have);
            if best.as_ref().is_none_or(|(_, b)| diff.len() < b.len()) {
                best = Some((ub.txg, diff));
            }
            if best.as_ref().is_some_and(|(_, b)| b.is_empty()) {
                break;
            }
        }
        let (txg, diff) = best.unwrap();
        eprintln!("{name}: {} properties, {} wrong, txg {txg} of {}", want.len(), diff.len(), candidate.txg);
        wrong.extend(diff);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
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
    use zfs_spa::dsl::accounting::{Who, usage};
    let Some(corpus) = corpus() else { return };
    let pool = open(&corpus, "quotas");
    let ds = pool.dsl().unwrap().dataset("quotas").unwrap().unwrap();
    let objset = pool.open_objset(&ds).unwrap();
    for (who, file) in [(Who::User, "userspace"), (Who::Group, "groupspace"), (Who::Project, "projectspace")] {
        let text = std::fs::read_to_string(corpus.join("quotas").join(file)).unwrap();
        let have = usage(&objset, who).unwrap();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let n = |s: &str| s.parse::<u64>().unwrap_or(0);
            let [.., id, used, quota, objects, object_quota] = fields[..] else { panic!("{line}") };
            let u = have.get(&n(id)).copied().unwrap_or_default();
            assert_eq!(
                (u.used, u.quota, u.objects, u.object_quota),
                (n(used), n(quota), n(objects), n(object_quota)),
                "{line}"
            );
        }
    }
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
