//! OpenZFS's stress test on pools of uzfs.
//!
//! `ztest` runs OpenZFS's engine as a program. With `-E` it takes the pool that it finds, and it asks the kernel module
//! through `/dev/zfs` whether that pool is in use; where no module is loaded, a file there that answers no request says
//! "no". So the program is run with a `/dev` of its own. It writes, snapshots, clones, scrubs, attaches, adds, damages,
//! is killed in between, and lets `zdb` judge after every pass.
//!
//! uzfs does not write pools with deduplicated blocks or checkpoints yet, so a small library (compiled with `cc`, and
//! preloaded) keeps `ztest` from making these. What else it leaves that uzfs does not write (it removes devices, for
//! instance) has the pool imported read-only instead, which is told.

use super::host::{self, Layout, images_named, zdb};
use std::path::{Path, PathBuf};
use std::process::Command;
use uzfs_testkit::manifest::{self, Content};
use uzfs_testkit::session::Session;

/// A `/dev` with what `ztest` needs, and then `ztest`.
const SCRIPT: &str = r#"
d=$(mktemp -d)
mount -t tmpfs none "$d"
for n in null,3 zero,5 random,8 urandom,9; do mknod -m 666 "$d/${n%,*}" c 1 "${n#*,}"; done
mkdir "$d/shm"
touch "$d/zfs"
mount --move "$d" /dev
rmdir "$d"
exec ztest "$@"
"#;

/// Takes calls of `ztest` into OpenZFS's library: `dedup` is never set, and there is no space (28) for checkpoints.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
int dsl_prop_set_int(const char *dataset, const char *name, int source, uint64_t value) {
  int (*real)(const char *, const char *, int, uint64_t) = dlsym(RTLD_NEXT, "dsl_prop_set_int");
  return strcmp(name, "dedup") == 0 ? 0 : real(dataset, name, source, value);
}
int spa_checkpoint(const char *pool) { (void)pool; return 28; }
"#;

/// Has `ztest` work on a pool of uzfs for some seconds; what it leaves is imported and checked. The names of the images must
/// end as those that `ztest` gives, and must not be those of the devices that it makes.
pub fn ztest(dir: &Path, layout: Layout, seconds: u64) -> Result<(), String> {
    // With -E it never takes notice of mirrors (-m).
    let words: &[&str] = match layout {
        Layout::Single | Layout::Mirror => &["-K", "raidz", "-m", "0", "-r", "1"],
        Layout::Raidz1 => &["-K", "raidz", "-m", "0", "-r", "3", "-R", "1"],
        Layout::Raidz2 => &["-K", "raidz", "-m", "0", "-r", "5", "-R", "2"],
        Layout::Raidz3 => &["-K", "raidz", "-m", "0", "-r", "7", "-R", "3"],
        Layout::Draid => &["-K", "draid", "-m", "0", "-r", "5", "-R", "1", "-D", "2", "-S", "1"],
        _ => return Err(format!("ztest knows no pools of layout {}", layout.name())),
    };
    let pool = format!("z{}", layout.name());
    let dir = dir.join(&pool);
    let images = images_named(&dir, layout.disks(), |n| format!("{pool}.x{n}a"))?;
    let session = Session::start()?;
    let root = session.root().to_string_lossy().into_owned();
    let mut args = vec!["create".to_owned(), "-f".into(), "-R".into(), root, pool.clone()];
    args.extend(layout.words(&images));
    session.ok("zpool", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    session.ok("zfs", &["create", &format!("{pool}/data")])?;
    crate::populate::fill(&session.root().join(&pool).join("data"), 41, false).map_err(|e| e.to_string())?;
    let before = host::manifests(&session, &pool)?;
    session.ok("zpool", &["export", &pool])?;
    session.finish()?;
    let passes = run(&dir, &pool, words, seconds)?;
    zdb(&dir, &pool)?;
    let session = Session::start()?;
    let refused = match host::import(&session, &dir, &pool) {
        Ok(()) => None,
        Err(why) if why.contains("not supported") => Some(why),
        Err(why) => return Err(why),
    };
    if refused.is_some() {
        session.import(&pool, &dir, &["-f"])?;
    }
    // The others are no file systems.
    let name = format!("{pool}/data");
    let root = session.root().join(&name);
    if !session.mounts().contains(&root) {
        session.ok("zfs", &["mount", &name])?;
    }
    let after = manifest::walk(&root, Content::Hash)?;
    let (before, after) = ([(name.clone(), before[&name].clone())].into(), [(name, after)].into());
    host::same(&format!("{pool} after ztest"), &before, &after)?;
    let judged = if let Some(why) = refused {
        format!("was read, because {}", why.lines().find(|l| l.contains("not supported")).unwrap_or_default())
    } else {
        // The scrub or resilver that ztest began goes on.
        host::settle(&session, &pool)?;
        session.ok("zpool", &["scrub", "-w", &pool])?;
        let status = session.ok("zpool", &["status", "-v", &pool])?.stdout;
        if !status.contains("with 0 errors") || !status.contains("No known data errors") {
            return Err(format!("after ztest: {status}"));
        }
        "was imported, scrubbed without errors".to_owned()
    };
    session.ok("zpool", &["export", &pool])?;
    session.finish()?;
    zdb(&dir, &pool)?;
    println!(
        "{}: ztest ran {passes} passes in {seconds} s on a pool of uzfs, which then {judged}; zdb is content",
        layout.name()
    );
    Ok(())
}

/// Compiles the library.
fn shim(dir: &Path) -> Result<PathBuf, String> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SHIM).map_err(|e| e.to_string())?;
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    match status {
        Ok(status) if status.success() => Ok(library),
        other => Err(format!("cc: {other:?}")),
    }
}

/// Runs it; gives the number of passes.
fn run(dir: &Path, pool: &str, words: &[&str], seconds: u64) -> Result<usize, String> {
    let (time, pass) = (seconds.to_string(), (seconds / 5).clamp(5, 60).to_string());
    let mut command = Command::new("unshare");
    // Of mounts that others have, none is held on to.
    command.args(["-m", "--propagation", "slave", "sh", "-ec", SCRIPT, "ztest", "-f"]).arg(dir);
    command.args(["-E", "-p", pool, "-T", &time, "-P", &pass, "-V"]).args(words);
    command.env("LD_PRELOAD", shim(dir)?);
    // It looks for its own zdb in the path.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(dir);
    let out = command.output().map_err(|e| format!("ztest: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        let tail: Vec<&str> = text.lines().rev().take(20).collect();
        return Err(format!("ztest: {}\n{tail:#?}\n{}", out.status, String::from_utf8_lossy(&out.stderr)));
    }
    Ok(text.lines().filter(|l| l.starts_with("Pass")).count())
}
