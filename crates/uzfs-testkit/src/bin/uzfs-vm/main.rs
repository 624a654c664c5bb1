//! The program behind `cargo xtask vm`: pools made here are judged by OpenZFS, pools made by OpenZFS are changed here and
//! judged again.
//!
//! For every layout, on image files in a scratch folder:
//! 1. a pool is made, filled and exported by uzfs; `zdb -e -bbcc` must find it clean;
//! 2. in a virtual machine the OpenZFS kernel module imports it, compares every file, scrubs, tells the space figures
//!    (which must be ours), changes files, takes a snapshot, exports; and makes a pool of the same layout of its own;
//! 3. uzfs imports both, compares every file, changes the kernel's pool, exports; `zdb` again;
//! 4. in the virtual machine that pool is imported, compared and scrubbed.
//!
//! The machine is run by the program that `--vm` or `UZFS_VM` names (else `../shared/tools/openzfs-vm` beside the
//! repository): `PROGRAM -t SECONDS -w FOLDER SCRIPT` must run a shell script as root with the module loaded and the
//! folder at `/host`. The guest sees this machine's programs. Needs root and FUSE.
//!
//! `uzfs-vm fill|change DIR SEED` does the same to a directory in the guest.

mod guest;
mod host;
mod populate;

use host::Layout;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use uzfs_testkit::paths;

const USAGE: &str = "usage: uzfs-vm [--vm PROGRAM] [--dir FOLDER] [--layouts NAME,...] [--no-kernel] [--ztest SECONDS]
  layouts: single, stripe, mirror, raidz1, raidz2, raidz3, classes, draid
  --no-kernel  only what zdb can judge; --ztest N  also run OpenZFS's ztest for N seconds on a pool of uzfs";

struct Wanted {
    vm: PathBuf,
    dir: PathBuf,
    layouts: Vec<Layout>,
    kernel: bool,
    ztest: u64,
}

fn parse(args: &[String]) -> Option<Wanted> {
    let beside = paths::repository().join("../shared/tools/openzfs-vm");
    let mut wanted = Wanted {
        vm: std::env::var_os("UZFS_VM").map_or(beside, PathBuf::from),
        dir: paths::cache().join("vm"),
        layouts: Layout::ALL.to_vec(),
        kernel: true,
        ztest: 0,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--vm" => wanted.vm = args.next()?.into(),
            "--dir" => wanted.dir = args.next()?.into(),
            "--layouts" => {
                wanted.layouts = args.next()?.split(',').map(Layout::by_name).collect::<Option<_>>()?;
            }
            "--no-kernel" => wanted.kernel = false,
            "--ztest" => wanted.ztest = args.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(wanted)
}

/// `fill` and `change` in the guest.
fn in_guest(args: &[String]) -> Option<Result<(), String>> {
    let [what, dir, seed] = args else { return None };
    let (dir, seed) = (Path::new(dir), seed.parse().ok()?);
    let done = match what.as_str() {
        "fill" => populate::fill(dir, seed, false),
        "change" => populate::change(dir, seed),
        _ => return None,
    };
    Some(done.map_err(|e| format!("{}: {e}", dir.display())))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match (in_guest(&args), parse(&args)) {
        (Some(done), _) => done,
        (None, Some(wanted)) => run(&wanted),
        (None, None) => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &Wanted) -> Result<(), String> {
    let dir = &wanted.dir;
    let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(fail)?;
    }
    std::fs::create_dir_all(dir.join("bin")).map_err(fail)?;
    for name in ["manifest", "uzfs-vm"] {
        std::fs::copy(paths::program(name), dir.join("bin").join(name)).map_err(fail)?;
    }
    let mut layouts = Vec::new();
    for layout in &wanted.layouts {
        if host::make(dir, *layout)? {
            println!("{}: made, filled, exported; zdb finds nothing wrong", layout.name());
            layouts.push(*layout);
        }
    }
    if wanted.ztest > 0 {
        host::ztest(dir, wanted.ztest)?;
    }
    if !wanted.kernel {
        return Ok(());
    }
    boot(wanted, &guest::judge(&layouts))?;
    for layout in &layouts {
        host::compare(dir, *layout)?;
        println!(
            "{}: the kernel saw every file and our figures, scrubbed without errors, changed it; zdb is content",
            layout.name()
        );
        host::change_foreign(dir, *layout)?;
        println!("{}: the kernel's own pool was changed here; zdb is content", layout.name());
    }
    boot(wanted, &guest::judge_again(&layouts))?;
    for layout in &layouts {
        host::compare_again(dir, *layout)?;
        println!("{}: the kernel saw every change and scrubbed without errors", layout.name());
    }
    std::fs::remove_dir_all(dir).map_err(fail)
}

/// Runs a script in the virtual machine.
fn boot(wanted: &Wanted, script: &str) -> Result<(), String> {
    let path = wanted.dir.join("script");
    std::fs::write(&path, script).map_err(|e| e.to_string())?;
    let status = Command::new(&wanted.vm)
        .args(["-t", "3000", "-w"])
        .arg(&wanted.dir)
        .arg(&path)
        .status()
        .map_err(|e| format!("cannot run {}: {e}", wanted.vm.display()))?;
    if status.success() { Ok(()) } else { Err(format!("the virtual machine: {status}")) }
}
