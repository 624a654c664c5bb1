//! Importing a pool and comparing what is mounted with what OpenZFS saw.

use crate::corpus::Pool;
use crate::manifest::{self, Content};
use crate::paths;
use crate::process;
use crate::report::Report;
use crate::session::Session;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What was compared, for the line about a pool.
#[derive(Default)]
pub struct Figures {
    /// File systems and snapshots.
    pub trees: usize,
    /// Files of all of them.
    pub files: usize,
    /// Volumes.
    pub volumes: usize,
    /// Cells of tables.
    pub cells: usize,
    /// Commands whose output was compared with OpenZFS's.
    pub commands: usize,
}

impl Figures {
    /// The figures in words.
    pub fn words(&self) -> String {
        format!(
            "{} trees, {} files, {} volumes, {} cells, {} commands",
            self.trees, self.files, self.volumes, self.cells, self.commands
        )
    }
}

/// Loads the keys that lie beside the devices.
pub fn load_keys(session: &Session, pool: &Pool, devices: &Path) -> Result<(), String> {
    for (dataset, file) in pool.spec.keys {
        let location = format!("file://{}", devices.join(file).display());
        session.ok("zfs", &["load-key", "-L", &location, dataset])?;
    }
    Ok(())
}

/// Where the mounted file systems of a pool are, by name.
pub fn mounted(session: &Session, pool: &str) -> Result<BTreeMap<String, PathBuf>, String> {
    let args = ["list", "-H", "-o", "name,mounted,mountpoint", "-t", "filesystem", "-r", pool];
    let out = session.ok("zfs", &args)?;
    let rows = out.stdout.lines().filter_map(|l| {
        let mut columns = l.split('\t');
        let (name, mounted, point) = (columns.next()?, columns.next()?, columns.next()?);
        (mounted == "yes").then(|| (name.to_owned(), PathBuf::from(point)))
    });
    Ok(rows.collect())
}

/// Compares every file system and snapshot whose files are described.
pub fn trees(session: &Session, pool: &Pool, report: &mut Report, figures: &mut Figures) -> Result<(), String> {
    let mounted = mounted(session, pool.spec.name)?;
    for (dataset, text) in pool.trees()? {
        let expected = manifest::parse(&text)?;
        figures.files += expected.len();
        figures.trees += 1;
        let (file_system, snapshot) = match dataset.split_once('@') {
            Some((fs, snapshot)) => (fs, Some(snapshot)),
            None => (dataset.as_str(), None),
        };
        let Some(point) = mounted.get(file_system) else {
            report.add("mounts", format!("{file_system} is not mounted"));
            continue;
        };
        match snapshot {
            None => {
                let seen = manifest::walk(point, Content::Hash);
                compare(&dataset, &expected, seen, &[], report);
            }
            Some(name) => {
                let seen = manifest::walk(&point.join(".zfs/snapshot").join(name), Content::Hash);
                compare(&format!("{dataset} below .zfs"), &expected, seen, &[], report);
                let seen = mount_snapshot(session, &dataset);
                compare(&dataset, &expected, seen, &[], report);
            }
        }
    }
    Ok(())
}

/// Compares a walk with its expectation.
pub fn compare(
    dataset: &str,
    expected: &manifest::Manifest,
    seen: Result<manifest::Manifest, String>,
    ignored: &[&str],
    report: &mut Report,
) {
    match seen {
        Ok(seen) => report.extend(dataset, manifest::differences(expected, &seen, ignored)),
        Err(why) => report.add(dataset, why),
    }
}

/// Mounts a snapshot as `mount -t zfs` does and walks it.
fn mount_snapshot(session: &Session, snapshot: &str) -> Result<manifest::Manifest, String> {
    let point = session.snapshot_point();
    session.ok("mount_zfs", &[snapshot, &point.to_string_lossy()])?;
    let seen = manifest::walk(&point, Content::Hash);
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty())
        .map_err(|e| format!("{snapshot} cannot be unmounted: {e}"))?;
    seen
}

/// Compares the content of every volume that is described.
///
/// There is no command that reads a volume yet; the program `zvol-hash` opens the pool as `zdb` does.
pub fn volumes(session: &Session, pool: &Pool, report: &mut Report, figures: &mut Figures) -> Result<(), String> {
    for (volume, want) in pool.volumes()? {
        figures.volumes += 1;
        let mut command = session.command("zvol-hash");
        command.arg(&pool.devices).arg(&volume);
        if let Some((_, key)) = pool.spec.keys.iter().find(|(d, _)| *d == volume) {
            command.arg(pool.devices.join(key));
        }
        let out = process::run(&mut command, Duration::from_secs(300))?;
        if out.stdout.trim() != want.trim() || out.code != Some(0) {
            report.add("volumes", format!("{volume}: must be {}, {out}", want.trim()));
        }
    }
    Ok(())
}

/// Errors that `zpool status` shows: name, state, read, write and checksum errors of every row.
pub fn status_rows(session: &Session, pool: &str) -> Result<Vec<(String, String, [u64; 3])>, String> {
    let out = session.ok("zpool", &["status", "-p", pool])?;
    let mut rows = Vec::new();
    for line in out.stdout.lines().skip_while(|l| !l.trim_start().starts_with("NAME")).skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [name, state, read, write, checksum, ..] = words[..]
            && let (Ok(read), Ok(write), Ok(checksum)) = (read.parse(), write.parse(), checksum.parse())
        {
            rows.push((name.to_owned(), state.to_owned(), [read, write, checksum]));
        }
    }
    if rows.is_empty() { Err(format!("no devices in the output of {out}")) } else { Ok(rows) }
}

/// Whether `zpool status` knows of no damaged data.
pub fn no_data_errors(session: &Session, pool: &str) -> Result<(), String> {
    let out = session.ok("zpool", &["status", "-v", pool])?;
    if out.stdout.contains("errors: No known data errors") {
        return Ok(());
    }
    Err(out.stdout)
}

/// Verifies every block with our own `zdb`.
pub fn verify(session: &Session, pool: &str, devices: &Path) -> Result<(), String> {
    if !paths::program("zdb").is_file() {
        return Err("zdb is not built".into());
    }
    let mut command = session.command("zdb");
    command.args(["-e", "-bcc", "-p"]).arg(devices).arg(pool);
    let out = process::run(&mut command, Duration::from_secs(300))?.ok()?;
    let clean = out.stdout.contains("No leaks (block sum matches space maps exactly)");
    if clean { Ok(()) } else { Err(format!("zdb found leaks: {out}")) }
}

/// What OpenZFS's `zdb`, where it is installed, says of a pool in `dir` that is exported or was left by a killed daemon:
/// every block verifies, nothing leaks, every object is referred to, and features are used as often as is noted.
pub fn zdb_clean(dir: &Path, pool: &str) -> Result<(), String> {
    let Ok(out) = Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(dir).args([pool, "-bbccd"]).output() else {
        crate::report::line(&format!("SKIPPED zdb of {pool}: it is not installed"));
        return Ok(());
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let bad = text.lines().any(|l| l.contains("checksum error") || l.contains("mismatch") || l.ends_with("leaked"));
    let clean = text.contains("No leaks (block sum matches space maps exactly)") && !bad;
    if out.status.success() && clean {
        return Ok(());
    }
    Err(format!("zdb of {pool}: {:?}\n{text}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
}
