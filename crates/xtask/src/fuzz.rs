//! Runs the fuzz targets of `uzfs-testkit`.
//!
//! The targets are ordinary code that runs on the stable toolchain: seeds from real pools, structured
//! mutation, a limit on time and memory for every execution. `docs/FAULTS.md` says what they promise.

use crate::{cargo, run, target};
use std::path::Path;

/// `cargo xtask fuzz [--seconds N] [TARGET...]`.
pub fn run_targets(root: &Path, args: &[String]) -> Result<(), String> {
    run(root, &cargo(), &["build", "--release", "--package", "uzfs-testkit", "--package", "zdb", "--bins", "--quiet"])?;
    let program = target(root).join("release/uzfs-fuzz");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(root, &program.to_string_lossy(), &args)
}
