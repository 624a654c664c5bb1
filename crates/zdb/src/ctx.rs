//! What every listing needs: where to print, the options, the pool.

use crate::opts::Opts;
use crate::out::Out;
use crate::text;
use crate::znode::Files;
use std::sync::Arc;
use std::time::Instant;
use zfs_spa::{Pool, Result};

/// State of one run over a pool.
pub struct Ctx<'a> {
    /// Output.
    pub o: &'a mut Out,
    /// Options.
    pub opts: &'a Opts,
    /// The pool.
    pub pool: Arc<Pool>,
    /// Of the file system being listed.
    pub files: Option<Files>,
    /// Files without a path, of the file system being listed.
    pub leaked_objects: u64,
    /// Something that cannot be true was seen: exit code 3 at the end.
    pub corrupt: bool,
    /// When the pool was opened.
    pub opened: Instant,
    /// Threads for walking it; 0 leaves it to the machine.
    pub threads: usize,
}

/// A number for people, or in full with `-P`.
pub fn nice(opts: &Opts, n: u64) -> String {
    text::nicenum(n, opts.has('P'))
}

impl Ctx<'_> {
    /// Prints the error of something that could not be shown, and remembers it.
    pub fn complain(&mut self, r: Result<()>) {
        if let Err(e) = r {
            self.o.flush();
            eprintln!("zdb: {e}");
            self.corrupt = true;
        }
    }
}
