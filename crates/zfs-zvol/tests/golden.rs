//! Volumes of the corpus must have the contents that OpenZFS gave.

#[path = "../../zfs-zpl/tests/common/pools.rs"]
#[allow(dead_code)]
mod pools;

use sha2::{Digest, Sha256};
use uzfs_testkit::encode::hex;
use zfs_phys::enums::ObjsetType;
use zfs_zio::ErrorKind;
use zfs_zvol::Zvol;

fn digest(zvol: &Zvol) -> String {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    while at < zvol.size() {
        let n = chunk.len().min((zvol.size() - at) as usize);
        zvol.read_at(at, &mut chunk[..n]).unwrap();
        hash.update(&chunk[..n]);
        at += n as u64;
    }
    hex(&hash.finalize())
}

#[test]
fn volumes_have_their_contents() {
    let all = pools::corpus();
    if all.is_empty() {
        eprintln!("SKIPPED: no corpus (set UZFS_CORPUS)");
        return;
    }
    let mut seen = 0;
    for pool in &all {
        let volumes = std::fs::read_dir(pool.dir.join("expect")).unwrap();
        let names: Vec<String> = volumes.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        if !names.iter().any(|n| n.starts_with("zvol.")) {
            continue;
        }
        let open = pools::import(&pool.dir).unwrap();
        for name in names.iter().filter_map(|n| n.strip_prefix("zvol.")) {
            let ds = pools::dsl(&open).dataset(&name.replace('%', "/")).unwrap().expect("exists");
            assert_eq!(ds.objset_type().unwrap(), ObjsetType::Zvol);
            let zvol = Zvol::open(&pools::objset_of(&open, &ds).unwrap()).unwrap();
            let want = std::fs::read_to_string(pool.dir.join("expect").join(format!("zvol.{name}"))).unwrap();
            assert_eq!(digest(&zvol), want.split_whitespace().next().unwrap(), "{name}");
            let end = zvol.read_at(zvol.size() - 1, &mut [0; 2]).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::Range);
            seen += 1;
        }
    }
    assert!(seen >= 2);
}
