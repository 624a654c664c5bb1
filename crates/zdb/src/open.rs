//! Finds and opens the pool to examine, without a daemon and without asking whether another host uses it.

use crate::opts::Opts;
use std::path::PathBuf;
use std::sync::Arc;
use zfs_spa::{ImportOptions, Pool, PoolCandidate, Rewind, Search, discover, import};
use zfs_zio::ArcCache;

/// Blocks are hardly read twice, so the cache need not be large.
const ARC: u64 = 256 << 20;
const CACHEFILE: &str = "/etc/zfs/zpool.cache";

/// A failure to open: the sentence to print behind `zdb: can't open 'NAME': `.
pub struct Failed(pub String);

fn search(opts: &Opts) -> Search {
    if opts.has('e') {
        return match opts.paths.as_slice() {
            [] => Search::System,
            paths => Search::Paths(paths.iter().map(PathBuf::from).collect()),
        };
    }
    let env = std::env::var("SPA_CONFIG_PATH").ok();
    let path = opts.cachefile.clone().or(env).unwrap_or_else(|| CACHEFILE.to_owned());
    Search::Cachefile(path.into())
}

/// The pool called `name`, or with that guid.
pub fn candidate(opts: &Opts, name: &str) -> Result<PoolCandidate, Failed> {
    let found = discover(&search(opts)).map_err(|_| Failed("No such file or directory".into()))?;
    let guid: Option<u64> = name.parse().ok();
    let fits = |c: &PoolCandidate| c.name == name || Some(c.guid) == guid;
    let best = found.pools.into_iter().filter(fits).max_by_key(|c| c.txg);
    best.ok_or_else(|| Failed("No such file or directory".into()))
}

/// Opens it.
pub fn pool(opts: &Opts, name: &str) -> Result<Arc<Pool>, Failed> {
    let candidate = candidate(opts, name)?;
    let rewind = match opts.txg {
        _ if opts.has('k') => Rewind::Checkpoint,
        Some(txg) => Rewind::To(txg),
        None if opts.has('X') => Rewind::Extreme,
        None if opts.has('F') => Rewind::Recover,
        None => Rewind::None,
    };
    let mut options = ImportOptions::new(Arc::new(ArcCache::new(ARC)), None);
    options.force = true;
    options.allow_missing_logs = true;
    options.skip_host_checks = true;
    options.rewind = rewind;
    import(&candidate, &options).map_err(|e| Failed(e.to_string()))
}
