//! Mounts one dataset of a pool for tests and profiling, without the daemon:
//!
//!     mount_one DIR POOL/DATASET[@SNAPSHOT] MOUNTPOINT [ARC-MIB [THREADS]]
//!
//! DIR holds the pool's devices. Ends when the mount is unmounted.

#[path = "../../zfs-zpl/tests/common/pools.rs"]
#[allow(dead_code)]
mod pools;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use uzfs_fuse::{Mount, MountConfig};

fn run(args: &[String]) -> Result<(), String> {
    let [dir, dataset, at, rest @ ..] = args else {
        return Err("usage: mount_one DIR POOL/DATASET[@SNAPSHOT] MOUNTPOINT [ARC-MIB [THREADS]]".to_owned());
    };
    let mib: u64 = rest.first().map_or(Ok(256), |m| m.parse()).map_err(|_| "ARC-MIB must be a number")?;
    let pool = pools::import_with(Path::new(dir), mib << 20)?;
    let found = pools::dsl(&pool).dataset(dataset).map_err(|e| e.to_string())?;
    let ds = found.ok_or_else(|| format!("{dataset}: no such dataset"))?;
    let vfs = Arc::new(pools::vfs_of(&pool, &ds)?);
    let mut config = MountConfig::new(dataset.as_str());
    config.threads = rest.get(1).map_or(Ok(0), |t| t.parse()).map_err(|_| "THREADS must be a number")?;
    let mount = Mount::new(vfs, Path::new(at), &config).map_err(|e| e.to_string())?;
    eprintln!("{dataset} is mounted on {at}");
    mount.wait();
    let s = pool.zio().arc_stats();
    eprintln!("{s:?}");
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
