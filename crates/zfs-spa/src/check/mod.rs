//! The whole-pool check: every block reachable from the uberblock is visited once, verified, counted
//! by type, and marked in an image of the pool's space; what is marked is then compared with what the
//! space maps say is allocated.
//!
//! (Owned by the helper that writes `zdb`: the walk is filled in once pools can be imported.)
