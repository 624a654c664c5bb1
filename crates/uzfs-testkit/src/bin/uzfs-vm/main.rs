//! The program behind `cargo xtask vm`: pools made here are judged by OpenZFS, pools made by OpenZFS are changed here and
//! judged again.
//!
//! For every layout, on image files in a scratch folder:
//! 1. a pool is made, filled and exported by uzfs; `zdb -e -bbcc` must find it clean;
//! 2. in a virtual machine the OpenZFS kernel module imports it, compares every file, scrubs, tells the space figures
//!    (which must be ours), changes files, takes a snapshot, exports; and makes a pool of the same layout of its own;
//!    Both change the pool's devices where the layout says so;
//! 3. uzfs imports both, compares every file and figure, changes the kernel's pool, exports; `zdb` again;
//! 4. in the virtual machine that pool is imported, compared, scrubbed, and emptied, after which nothing may be left.
//!
//! The machine is run by the program that `--vm` or `UZFS_VM` names (else `../shared/tools/openzfs-vm` beside the
//! repository): `PROGRAM -t SECONDS -w FOLDER SCRIPT` must run a shell script as root with the module loaded and the
//! folder at `/host`. The guest sees this machine's programs. Needs root and FUSE.
//!
//! `uzfs-vm fill DIR SEED [acls]`, `change DIR SEED` and `volume DEVICE SEED` do the same in the guest.

mod guest;
mod host;
mod logged;
mod populate;
mod stress;

use host::Layout;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use uzfs_testkit::paths;

const USAGE: &str =
    "usage: uzfs-vm [--vm PROGRAM] [--dir FOLDER] [--layouts NAME,...] [--no-kernel] [--only ours|theirs]
               [--ztest SECONDS]
  layouts: single, stripe, mirror, raidz1, raidz2, raidz3, classes, draid, draid2; pools whose devices change: attached,
           replaced, returned, grown; one with an intent log that nobody replayed: logged
  --no-kernel     only what zdb can judge
  --only ours     only pools that uzfs made; theirs: only those of the kernel
  --ztest N       OpenZFS's ztest works for N seconds on a pool of uzfs of each of the layouts (mirror, raidz1, raidz2,
                  draid), and nothing else is done";

struct Wanted {
    vm: PathBuf,
    dir: PathBuf,
    layouts: Vec<Layout>,
    kernel: bool,
    ours: bool,
    theirs: bool,
    ztest: u64,
}

fn parse(args: &[String]) -> Option<Wanted> {
    let beside = paths::repository().join("../shared/tools/openzfs-vm");
    let mut wanted = Wanted {
        vm: std::env::var_os("UZFS_VM").map_or(beside, PathBuf::from),
        dir: paths::cache().join("vm"),
        layouts: Layout::ALL.to_vec(),
        kernel: true,
        ours: true,
        theirs: true,
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
            "--only" => match args.next()?.as_str() {
                "ours" => wanted.theirs = false,
                "theirs" => wanted.ours = false,
                _ => return None,
            },
            "--ztest" => wanted.ztest = args.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(wanted)
}

/// `fill`, `change` and `volume` in the guest.
fn in_guest(args: &[String]) -> Option<Result<(), String>> {
    let [what, dir, seed, more @ ..] = args else { return None };
    let (dir, seed) = (Path::new(dir), seed.parse().ok()?);
    let done = match what.as_str() {
        "fill" => populate::fill(dir, seed, more == ["acls"]),
        "volume" => populate::fill_volume(dir, seed),
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
    if wanted.ztest > 0 {
        wanted.layouts.iter().try_for_each(|layout| stress::ztest(dir, *layout, wanted.ztest))?;
        return std::fs::remove_dir_all(dir).map_err(fail);
    }
    let mut layouts = wanted.layouts.clone();
    if wanted.ours {
        layouts.clear();
        for layout in &wanted.layouts {
            if host::make(dir, *layout)? {
                println!("{}: made, filled, exported; zdb finds nothing wrong", layout.name());
                layouts.push(*layout);
            }
        }
    }
    if wanted.kernel {
        in_kernel(wanted, &layouts)?;
    }
    std::fs::remove_dir_all(dir).map_err(fail)
}

/// What needs the virtual machine. Every layout is looked at before the first that fails ends it.
fn in_kernel(wanted: &Wanted, layouts: &[Layout]) -> Result<(), String> {
    let dir = &wanted.dir;
    boot(wanted, &guest::judge(layouts, wanted.ours, wanted.theirs))?;
    let (mut wrong, mut changed) = (Vec::new(), Vec::new());
    for layout in layouts {
        let name = layout.name();
        if wanted.ours {
            match host::compare(dir, *layout) {
                Ok(()) => println!(
                    "{name}: the kernel saw every file and our figures, scrubbed without errors, changed it; zdb is content"
                ),
                Err(why) => wrong.push(why),
            }
        }
        if wanted.theirs {
            match host::change_foreign(dir, *layout) {
                Ok(()) => {
                    println!("{name}: the kernel's own pool was read and changed here; zdb is content");
                    changed.push(*layout);
                }
                Err(why) => wrong.push(why),
            }
        }
    }
    if !changed.is_empty() {
        boot(wanted, &guest::judge_again(&changed))?;
    }
    for layout in changed {
        match host::compare_again(dir, layout) {
            Ok(()) => println!("{}: the kernel saw every change, scrubbed without errors, emptied it", layout.name()),
            Err(why) => wrong.push(why),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
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
