//! Developer chores: `cargo xtask NAME`.

mod fskit_demo;
mod fuzz;
mod install;
mod macos;
mod macos_bundle;
mod macos_lint;
mod macos_macho;
mod macos_plist;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask CHORE
  tidy [--update]              check lengths, crate order, headers; --update lowers the ratchets
  install --prefix DIR [--destdir DIR] [--profile NAME]
                               put programs, manual pages, completions and the service file
  fuzz [--seconds N] [TARGET]  run the fuzz targets (all of them, N seconds each)
  fskit-demo                   the transcript of the macOS extension, on Linux through a stand-in for fskitd
  macos check                  type-check the extension for macOS, lint its selectors, check plists and entitlements
  macos bundle                 build, link and sign the app with the extension in it (arm64), and check the result
  swarm [ARGUMENTS]            crashes and faults on simulated disks, by seed; --help tells more
  kill [ARGUMENTS]             kill -9 of the daemon under load: every acknowledged fsync must be found
  lives [ARGUMENTS]            pools of others imported, changed at random and exported, judged by zdb; --help tells more
  posix [--ops N] [pjdfstest] [fsx] [postgres]
                               other people's tests of POSIX file systems, on a mount; needs root
  vm [ARGUMENTS]               pools judged by the OpenZFS kernel module in a virtual machine, in both directions
  bench read [ARGUMENTS]       measure reading against zfs-fuse, an in-memory FUSE file system and zdb
  bench write [ARGUMENTS]      measure writing against zfs-fuse, ext4 and btrfs on image files in the same folder
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = repository();
    let result = match args.split_first() {
        Some((chore, rest)) => match chore.as_str() {
            "tidy" => tidy::run(&root, rest.iter().any(|a| a == "--update")),
            "install" => install::run_install(&root, rest),
            "fuzz" => fuzz::run_targets(&root, rest),
            "macos" => macos::run_macos(&root, rest),
            "fskit-demo" => fskit_demo::run_demo(&root),
            "bench" => bench(&root, rest),
            "vm" => judged(&root, "uzfs-vm", rest),
            "swarm" => swarm(&root, rest),
            "posix" => judged(&root, "uzfs-posix", rest),
            "kill" => judged(&root, "uzfs-kill", rest),
            "lives" => judged(&root, "uzfs-lives", rest),
            other => Err(format!("unknown chore '{other}'\n{USAGE}")),
        },
        None => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}", why.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository: two levels above this crate.
fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Runs a program in the repository; its failure is the chore's failure.
fn run(root: &Path, program: &str, args: &[&str]) -> Result<(), String> {
    let status = Command::new(program)
        .args(args)
        .current_dir(root)
        .status()
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} {}: {status}", args.join(" "))) }
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Builds everything for release and hands over to the benchmark program.
fn bench(root: &Path, args: &[String]) -> Result<(), String> {
    run(root, &cargo(), &["build", "--release", "--workspace", "--bins", "--quiet"])?;
    let program = target(root).join("release/uzfs-bench");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(root, &program.to_string_lossy(), &args)
}

/// Builds the programs and runs one that judges them from outside.
fn judged(root: &Path, judge: &str, args: &[String]) -> Result<(), String> {
    let build = ["build", "-p", "uzfsd", "-p", "uzfs-cli", "-p", "zdb", "-p", "uzfs-testkit", "--bins", "--quiet"];
    run(root, &cargo(), &build)?;
    let program = target(root).join("debug").join(judge);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(root, &program.to_string_lossy(), &args)
}

/// Builds and runs the swarm: optimized, with assertions.
fn swarm(root: &Path, args: &[String]) -> Result<(), String> {
    run(root, &cargo(), &["build", "-p", "ztest", "--quiet"])?;
    let program = target(root).join("debug/uzfs-swarm");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    run(root, &program.to_string_lossy(), &args)
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
