//! Pools whose writer went away: what was promised lies in an intent log, on a device of its own, and the other replays it.
//!
//! The kernel is made to leave such a pool by `zpool freeze`, as OpenZFS's own tests do: nothing but the log is written from
//! then on. Our daemon is killed; what must be found is what it finds itself on a copy of the images.

use crate::{host, populate};
use std::fs;
use std::path::Path;
use std::process::Command;
use uzfs_testkit::session::Session;

/// What the frozen pool's files and volume are changed by.
pub const SEED: u64 = 36;

/// For the kernel: changes files and the volume of a pool that it then leaves behind. Both have a log before (a snapshot
/// ends it), because a frozen pool cannot begin one.
pub fn frozen(pool: &str) -> String {
    format!(
        r#"
zfs create -o sync=always {pool}/frozen || fail "making {pool}/frozen"
vm fill /mnt/{pool}/frozen 12
vm volume "$(volume {pool}/vol)" 31
zpool sync {pool} && zpool freeze {pool} || fail "freezing {pool}"
vm change /mnt/{pool}/frozen {SEED}
vm volume "$(volume {pool}/vol)" {SEED}
"#
    )
}

/// An exported pool has records in a log, or this judges nothing.
pub fn must_be_left(dir: &Path, pool: &str) -> Result<(), String> {
    let out = Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(dir).args(["-iiii", "-d", pool]).output();
    let out = out.map_err(|e| format!("zdb: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let records = text.lines().filter(|l| l.trim_start().starts_with("TX_")).count();
    if records == 0 {
        return Err(format!("{pool} has no intent log:\n{text}{}", String::from_utf8_lossy(&out.stderr)));
    }
    println!("{pool}: {records} records lie in intent logs");
    Ok(())
}

/// Changes files, and has the daemon killed before they are more than promised.
pub fn leave(mut session: Session, dir: &Path, pool: &str) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("{pool}: {e}");
    let at = session.root().join(pool).join("frozen");
    session.ok("zfs", &["create", "-o", "sync=always", &format!("{pool}/frozen")])?;
    populate::fill(&at, 12, false).map_err(fail)?;
    session.ok("zpool", &["sync"])?;
    populate::change(&at, SEED).map_err(fail)?;
    session.kill();
    must_be_left(dir, pool)?;
    let copy = dir.join("copy");
    fs::create_dir(&copy).map_err(fail)?;
    for entry in fs::read_dir(dir).map_err(fail)?.flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), copy.join(entry.file_name())).map_err(fail)?;
    }
    session.restart()?;
    host::import(&session, &copy, pool)?;
    host::store(dir, "ours", &host::manifests(&session, pool)?)?;
    session.ok("zpool", &["export", pool])?;
    session.finish()?;
    host::zdb(&copy, pool)?;
    fs::remove_dir_all(&copy).map_err(fail)
}
