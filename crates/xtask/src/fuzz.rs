//! `cargo xtask fuzz [--seconds N] [TARGET...]`: runs the coverage-guided fuzz targets.
//!
//! The targets live in `crates/*/fuzz`, each a workspace of its own on `libfuzzer-sys`. They are built with
//! the coverage passes of the stable compiler, so neither nightly nor `cargo-fuzz` is needed (both work too).
//! Every run is bounded in time and memory; what was found is kept in `target/fuzz/corpus` and is where the
//! next run starts. `docs/FAULTS.md` says what the targets promise.

use crate::{cargo, target};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo fuzz` sets as well, without the sanitizers that need nightly.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
                     -Ccodegen-units=1";
/// Megabytes that an execution may use in all, and in one allocation.
const MEMORY: [&str; 2] = ["-rss_limit_mb=2048", "-malloc_limit_mb=512"];
/// Seconds after which an execution counts as hung.
const HUNG: &str = "-timeout=20";

/// Runs targets, all of them without names.
pub fn run_targets(root: &Path, args: &[String]) -> Result<(), String> {
    let mut seconds = "60".to_owned();
    let mut wanted = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--seconds" => seconds = rest.next().ok_or("--seconds needs a number")?.clone(),
            name => wanted.push(name.to_owned()),
        }
    }
    let mut failed = Vec::new();
    for (project, name) in targets(root)? {
        if !wanted.is_empty() && !wanted.contains(&name) {
            continue;
        }
        if let Err(why) = build(root, &project, &name).and_then(|program| fuzz(root, &program, &name, &seconds)) {
            failed.push(format!("{name}: {why}"));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// Folders of fuzz projects with the targets in them.
fn targets(root: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let mut found = Vec::new();
    let crates = fs::read_dir(root.join("crates")).map_err(|e| format!("crates: {e}"))?;
    for project in crates.flatten().map(|c| c.path().join("fuzz")).filter(|p| p.is_dir()) {
        let sources = fs::read_dir(project.join("fuzz_targets")).map_err(|e| format!("{}: {e}", project.display()))?;
        for name in sources.flatten().filter_map(|s| s.path().file_stem().map(|n| n.to_string_lossy().into_owned())) {
            found.push((project.clone(), name));
        }
    }
    found.sort();
    Ok(found)
}

/// The target triple of this machine: flags must not reach build scripts, so it has to be named.
fn host() -> Result<String, String> {
    let out = Command::new("rustc").arg("-vV").output().map_err(|e| format!("cannot run rustc: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().find_map(|l| l.strip_prefix("host: ")).map(str::to_owned).ok_or_else(|| "rustc has no host".into())
}

fn build(root: &Path, project: &Path, name: &str) -> Result<PathBuf, String> {
    let (triple, place) = (host()?, target(root).join("fuzz"));
    let status = Command::new(cargo())
        .args(["build", "--release", "--quiet", "--bin", name, "--target", &triple])
        .current_dir(project)
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &place)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(place.join(triple).join("release").join(name)) } else { Err("does not build".into()) }
}

/// The image that the target of whole images damages: what `UZFS_FUZZ_IMAGE` names, else one side of a mirror that OpenZFS
/// made, with sectors of 512 bytes.
fn image(root: &Path) -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("UZFS_FUZZ_IMAGE") {
        return Ok(named.into());
    }
    let place = target(root).join("fuzz");
    fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
    let status = Command::new("tar")
        .args(["--zstd", "-xf"])
        .arg(root.join("tests/golden/tank.tar.zst"))
        .arg("-C")
        .arg(&place)
        .arg("tank/d0")
        .status()
        .map_err(|e| format!("cannot run tar: {e}"))?;
    if status.success() { Ok(place.join("tank/d0")) } else { Err(format!("tar: {status}")) }
}

fn fuzz(root: &Path, program: &Path, name: &str, seconds: &str) -> Result<(), String> {
    let corpus = target(root).join("fuzz/corpus").join(name);
    fs::create_dir_all(&corpus).map_err(|e| format!("{}: {e}", corpus.display()))?;
    let log = target(root).join("fuzz").join(format!("{name}.log"));
    let output = fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let mut command = Command::new(program);
    if name == "image" {
        command.env("UZFS_FUZZ_IMAGE", image(root)?);
    }
    let status = command
        .arg(&corpus)
        .args([format!("-max_total_time={seconds}"), "-print_final_stats=1".into(), HUNG.into()])
        .args(MEMORY)
        .arg(format!("-artifact_prefix={}/", target(root).join("fuzz").display()))
        .stderr(output)
        .status()
        .map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    let executions = text.lines().rev().find_map(|l| l.strip_prefix("stat::number_of_executed_units:"));
    println!("{name}: {} executions", executions.unwrap_or("?").trim());
    if status.success() {
        return Ok(());
    }
    let last: Vec<&str> = text.lines().rev().take(30).collect();
    Err(format!("{status}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n")))
}
