//! A real project on a mount: this repository is cloned there with git and checked, a program of others is unpacked by
//! cargo and built there, and a tree is extracted and compared with its archive.

use super::run;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use uzfs_testkit::paths;

/// What is built: a program with some dependencies, and the command that shows that it works.
const PROGRAM: (&str, &str) = ("hexyl", "0.16.0");

fn text(command: &mut Command) -> Result<String, String> {
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
}

/// Clones this repository to the mount, and again from there to an ordinary file system, with all checks of git.
fn clone(at: &Path, plain: &Path) -> Result<(), String> {
    let (there, back) = (at.join("clone"), plain.join("clone"));
    let start = Instant::now();
    run(Command::new("git").args(["clone", "--quiet", "--no-local"]).arg(paths::repository()).arg(&there))?;
    run(Command::new("git").args(["fsck", "--full", "--strict", "--no-progress"]).current_dir(&there))?;
    run(Command::new("git").args(["gc", "--quiet", "--aggressive"]).current_dir(&there))?;
    let state = text(Command::new("git").args(["status", "--porcelain"]).current_dir(&there))?;
    run(Command::new("git").args(["clone", "--quiet", "--no-local"]).arg(&there).arg(&back))?;
    let head = |dir: &Path| text(Command::new("git").args(["rev-parse", "HEAD^{tree}"]).current_dir(dir));
    if !state.is_empty() || head(&there)? != head(&back)? {
        return Err(format!("the clone differs from what was cloned:\n{state}"));
    }
    println!("git: clone, fsck, gc and a clone of the clone: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Extracts a tree on the mount and has tar compare every member with it: contents, modes, owners, times, links.
fn extract(at: &Path, plain: &Path) -> Result<(), String> {
    let tar = plain.join("tree.tar");
    run(Command::new("tar").arg("-cf").arg(&tar).args(["-C", "/usr", "include", "share/doc"]))?;
    let there = at.join("tree");
    fs::create_dir(&there).map_err(|e| format!("{}: {e}", there.display()))?;
    let start = Instant::now();
    run(Command::new("tar").arg("-xpf").arg(&tar).arg("-C").arg(&there))?;
    let seconds = start.elapsed().as_secs_f64();
    let compared = text(Command::new("tar").arg("-dvf").arg(&tar).arg("-C").arg(&there))?;
    println!("tar: {} members extracted in {seconds:.1} s and compared: all are equal", compared.lines().count());
    Ok(())
}

/// Has cargo fetch and build a program with everything it writes on the mount, and runs it.
fn build(at: &Path) -> Result<(), String> {
    let (home, target) = (at.join("cargo"), at.join("target"));
    let start = Instant::now();
    let (name, version) = PROGRAM;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command
        .args(["install", name, "--locked", "--debug", "--quiet", "--version", version, "--root"])
        .arg(at.join("built"));
    command.env("CARGO_TARGET_DIR", &target).env("CARGO_INSTALL_ROOT", &home).current_dir(at);
    run(&mut command)?;
    let program = at.join("built/bin").join(name);
    let shown = text(Command::new(&program).args(["-n", "16", "--color", "never"]).arg(&program))?;
    if !shown.contains("7f 45 4c 46") {
        return Err(format!("{name} was built and does not work:\n{shown}"));
    }
    println!("cargo: {name} {version} built and run: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// All of it, on a mounted file system; `plain` is a folder of an ordinary one.
pub fn judge(at: &Path, plain: &Path) -> Result<(), String> {
    let (at, plain) = (at.join("project"), plain.join("project"));
    for dir in [&at, &plain] {
        fs::create_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    }
    clone(&at, &plain)?;
    extract(&at, &plain)?;
    build(&at)?;
    fs::remove_dir_all(&at).map_err(|e| format!("{}: {e}", at.display()))
}
