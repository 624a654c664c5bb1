//! GetPools: state, devices, properties and errors of imported pools.

use super::{Engine, Imported, failure, import};
use std::collections::BTreeMap;
use std::sync::Arc;
use uzfs_proto::{Failure, GetHistoryReply, GetPoolsArgs, GetPoolsReply, Pool, PoolState, Sink, U64};

/// Newest file system version.
const ZPL_VERSION: u64 = 5;

impl Engine {
    pub(super) fn get_pools(&self, args: &GetPoolsArgs) -> Result<GetPoolsReply, Failure> {
        let all: Vec<Arc<Imported>> = self.pools.read().values().cloned().collect();
        let mut reply = GetPoolsReply::default();
        if args.pools.is_empty() {
            reply.pools = all.iter().map(|p| self.show(p, args)).collect();
            return Ok(reply);
        }
        for wanted in &args.pools {
            let named = |p: &&Arc<Imported>| p.pool.name().as_ref() == wanted || p.pool.guid().to_string() == *wanted;
            match all.iter().find(named) {
                Some(p) => reply.pools.push(self.show(p, args)),
                None => reply.missing.push(wanted.clone()),
            }
        }
        Ok(reply)
    }

    fn show(&self, imported: &Imported, args: &GetPoolsArgs) -> Pool {
        let pool = &imported.pool;
        let features = pool.features();
        Pool {
            name: pool.name().to_string(),
            guid: U64(pool.guid()),
            state: PoolState::Active,
            suspended: None,
            version: pool.version(),
            zpl_version: ZPL_VERSION,
            txg: U64(pool.uberblock().txg),
            hostid: pool.candidate().hostid,
            readonly: true,
            failmode: "wait".into(),
            disabled_features: features.disabled().into_iter().map(str::to_owned).collect(),
            unsupported_features: features
                .unknown_for_write
                .iter()
                .map(|f| format!("{} ({})", f.guid, f.description))
                .collect(),
            errata: pool.candidate().errata,
            properties: BTreeMap::new(),
            tree: args.tree.then(|| import::tree(pool)),
            scan: None,
            removal: None,
            expand: None,
            checkpoint: None,
            error_count: 0,
            errors: None,
            dedup: None,
        }
    }

    pub(super) fn history(&self, pool: &str, _sink: &mut dyn Sink<GetHistoryReply>) -> Result<(), Failure> {
        self.pool(pool)?;
        Err(failure::no_pool(pool))
    }
}
