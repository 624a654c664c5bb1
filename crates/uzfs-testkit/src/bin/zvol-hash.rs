//! `zvol-hash DEVICES VOLUME [KEYFILE]`: prints the SHA-256 of a volume's content.
//!
//! Opens the pool in DEVICES as `zdb` does, without the daemon: there is no block device for a volume yet. It is
//! the only program of the test kit that links the engine.

use sha2::{Digest, Sha256};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use uzfs_testkit::encode::hex;
use zfs_spa::{ImportOptions, Search, discover, import};
use zfs_zio::ArcCache;
use zfs_zvol::Zvol;

const CACHE: u64 = 64 << 20;
const CHUNK: usize = 1 << 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match &args[..] {
        [devices, volume] => hash(devices, volume, None),
        [devices, volume, key] => hash(devices, volume, Some(key)),
        _ => Err("usage: zvol-hash DEVICES VOLUME [KEYFILE]".into()),
    };
    match result {
        Ok(digest) => {
            println!("{digest}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn hash(devices: &str, volume: &str, key: Option<&str>) -> Result<String, Box<dyn Error>> {
    let name = volume.split('/').next().unwrap_or_default();
    let found = discover(&Search::Paths(vec![PathBuf::from(devices)]))?;
    let candidate = found.pools.iter().find(|p| p.name == name).ok_or("no such pool")?;
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(CACHE)), None);
    options.skip_host_checks = true;
    let pool = import(candidate, &options)?;
    if let Some(key) = key {
        pool.load_key(volume, &std::fs::read(key)?)?;
    }
    let dataset = pool.dsl()?.dataset(volume)?.ok_or("no such dataset")?;
    let zvol = Zvol::open(&pool.open_objset(&dataset)?)?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < zvol.size() {
        let n = usize::try_from(zvol.size() - at)?.min(CHUNK);
        zvol.read_at(at, &mut chunk[..n])?;
        digest.update(&chunk[..n]);
        at += n as u64;
    }
    Ok(hex(&digest.finalize()))
}
