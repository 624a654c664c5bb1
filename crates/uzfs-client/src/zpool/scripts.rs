//! `zpool status -c`: programs of the user's that tell something about each device, shown as columns.
//!
//! A script is named without a path and looked for in the directories of `ZPOOL_SCRIPTS_PATH`, or in `~/.zpool.d` and
//! `/etc/zfs/zpool.d`. It runs once for each device of the pools shown, by the tool and as its user (the daemon has no
//! part in it), with nothing in its environment but `PATH`, `POOL_NAME`, `VDEV_PATH`, `VDEV_UPATH` and
//! `VDEV_ENC_SYSFS_PATH`. Lines `name=value` of what it prints are columns, in the order in which they first come; a
//! line without a name stands behind them, and ends what is taken from that script.

use crate::session::{Session, Stop, put, putln};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use uzfs_proto::{Pool, VdevNode};

/// Where scripts that came with the system are.
const SYSTEM: &str = "/etc/zfs/zpool.d";
/// Where scripts look for programs.
const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// What scripts told about one device.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Told {
    named: Vec<(String, String)>,
    rest: Vec<String>,
}

impl Told {
    /// Takes what one script printed.
    fn take(&mut self, text: &str) {
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else {
                self.rest.push(line.to_owned());
                return;
            };
            if !self.named.iter().any(|(n, _)| n == name) {
                self.named.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    fn value(&self, name: &str) -> &str {
        let found = self.named.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        found.filter(|v| !v.trim().is_empty()).unwrap_or("-")
    }
}

/// What scripts told about all devices.
#[derive(Debug, Default)]
pub struct Columns {
    /// By pool and path.
    told: BTreeMap<(String, String), Told>,
    /// Names and widths of the columns.
    columns: Vec<(String, usize)>,
}

impl Columns {
    fn of(told: BTreeMap<(String, String), Told>, order: &[(String, String)]) -> Self {
        let mut columns: Vec<(String, usize)> = Vec::new();
        for (name, value) in order.iter().filter_map(|d| told.get(d)).flat_map(|t| &t.named) {
            match columns.iter_mut().find(|(n, _)| n == name) {
                Some((_, width)) => *width = (*width).max(value.len()),
                None => columns.push((name.clone(), name.len().max(value.len()))),
            }
        }
        Self { told, columns }
    }

    /// What stands behind the other titles.
    pub fn titles(&self) -> String {
        self.columns.iter().fold(String::new(), |mut out, (name, width)| {
            let _ = write!(out, "  {name:>width$}");
            out
        })
    }

    fn about(&self, pool: &str, node: &VdevNode) -> Option<&Told> {
        self.told.get(&(pool.to_owned(), node.path.clone()?))
    }

    /// What stands behind the figures of a device; nothing for one without a path.
    pub fn line(&self, pool: &str, node: &VdevNode) -> String {
        let Some(told) = self.about(pool, node) else { return String::new() };
        let named = self.columns.iter().map(|(name, width)| format!("{:>width$}", told.value(name)));
        let all: Vec<String> = named.chain(told.rest.iter().cloned()).collect();
        format!("  {}", all.join("  "))
    }

    /// The same for JSON.
    pub fn fields(&self, pool: &str, node: &VdevNode) -> Vec<(String, Value)> {
        let Some(told) = self.about(pool, node) else { return Vec::new() };
        let named = self.columns.iter().map(|(name, _)| (name.clone(), told.value(name).into()));
        let rest = told.rest.iter().enumerate().map(|(i, text)| (format!("extra_{}", i + 1), text.as_str().into()));
        named.chain(rest).collect()
    }
}

/// Whether scripts may run here, and which: nothing if none are asked for. Without a name, those that there are are
/// listed, which is all that is done then.
pub fn wanted(session: &mut Session, values: &[&str]) -> Result<Vec<String>, Stop> {
    let Some(first) = values.first() else { return Ok(Vec::new()) };
    if first.is_empty() {
        list(session);
        return Err(Stop::Exit(0));
    }
    let why = if values.len() > 1 {
        "Can't set -c flag twice"
    } else if session.variable("ZPOOL_SCRIPTS_ENABLED").is_some() && !session.is_set("ZPOOL_SCRIPTS_ENABLED") {
        "Can't run -c, disabled by ZPOOL_SCRIPTS_ENABLED."
    } else if crate::connect::euid() == 0 && !session.is_set("ZPOOL_SCRIPTS_AS_ROOT") {
        "Can't run -c with root privileges unless ZPOOL_SCRIPTS_AS_ROOT is set."
    } else {
        return Ok(first.split(',').filter(|n| !n.is_empty() && !n.contains('/')).map(str::to_owned).collect());
    };
    putln!(session.err, "{why}");
    Err(Stop::Exit(1))
}

fn directories(session: &Session) -> Vec<PathBuf> {
    if let Some(list) = session.variable("ZPOOL_SCRIPTS_PATH") {
        return list.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect();
    }
    let own = session.variable("HOME").map(|home| Path::new(&home).join(".zpool.d"));
    own.into_iter().chain([PathBuf::from(SYSTEM)]).collect()
}

fn runs(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// What a program prints; nothing if it fails.
fn printed(program: &Path, args: &[&str], variables: &[(&str, &OsStr)]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(variables.iter().copied()).stdin(Stdio::null()).stderr(Stdio::null());
    let out = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn list(session: &mut Session) {
    putln!(session.out, "Available 'zpool status -c' commands:");
    for dir in directories(session) {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| runs(p)).collect();
        found.sort();
        for script in found {
            let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let help = printed(&script, &["-h"], &[("PATH", OsStr::new(PATH))]).unwrap_or_default();
            for line in help.lines().filter(|l| !l.trim().is_empty()) {
                put!(session.out, "  {name:14}  {line}\n");
            }
        }
    }
}

/// The disk that a name leads to, without the number of a partition.
fn underlying(path: &str) -> PathBuf {
    let Ok(real) = std::fs::canonicalize(path) else { return PathBuf::new() };
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let block = Path::new("/sys/class/block").join(&name);
    // A mapped device stands for the first one below it.
    let slave = std::fs::read_dir(block.join("slaves")).ok().and_then(|mut d| d.next()?.ok()).map(|e| e.file_name());
    if let Some(slave) = slave {
        return Path::new("/dev").join(slave);
    }
    let disk = block.join("partition").exists().then(|| std::fs::canonicalize(&block).ok()).flatten();
    match disk.as_deref().and_then(Path::parent).and_then(Path::file_name) {
        Some(disk) => Path::new("/dev").join(disk),
        None => real,
    }
}

/// The place of a disk in its enclosure, if it tells.
fn enclosure(disk: &Path) -> PathBuf {
    let name = disk.file_name().unwrap_or_default();
    let device = Path::new("/sys/class/block").join(name).join("device");
    let entries = std::fs::read_dir(device).into_iter().flatten().flatten();
    let found = entries
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("enclosure_device")));
    found.and_then(|p| std::fs::canonicalize(p).ok()).unwrap_or_default()
}

fn devices(node: &VdevNode, pool: &str, out: &mut Vec<(String, String)>) {
    let below = node.children.iter().chain(&node.spares).chain(&node.l2cache);
    if let Some(path) = node.path.as_ref().filter(|_| node.is_leaf()) {
        let device = (pool.to_owned(), path.clone());
        // A spare in use is in two places.
        if !out.contains(&device) {
            out.push(device);
        }
    }
    below.for_each(|child| devices(child, pool, out));
}

fn ask(scripts: &[PathBuf], pool: &str, path: &str) -> Told {
    let mut told = Told::default();
    let disk = underlying(path);
    let place = enclosure(&disk);
    let variables = [
        ("PATH", OsStr::new(PATH)),
        ("POOL_NAME", OsStr::new(pool)),
        ("VDEV_PATH", OsStr::new(path)),
        ("VDEV_UPATH", disk.as_os_str()),
        ("VDEV_ENC_SYSFS_PATH", place.as_os_str()),
    ];
    for script in scripts {
        if let Some(text) = printed(script, &[], &variables) {
            told.take(&text);
        }
    }
    told
}

/// Runs scripts for every device of the pools.
pub fn run(session: &Session, names: &[String], pools: &[Pool]) -> Columns {
    let dirs = directories(session);
    let find = |name: &String| dirs.iter().map(|d| d.join(name)).find(|p| runs(p));
    let scripts: Vec<PathBuf> = names.iter().filter_map(find).collect();
    let mut order = Vec::new();
    for pool in pools {
        pool.tree.iter().for_each(|tree| devices(tree, &pool.name, &mut order));
    }
    let (next, told) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some(device) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = ask(&scripts, &device.0, &device.1);
            told.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(device.clone(), answer);
        }
    };
    // Scripts ask disks, which answer slowly and beside each other.
    let threads = std::thread::available_parallelism().map_or(1, usize::from) * 5;
    std::thread::scope(|scope| (0..threads.min(order.len())).for_each(|_| drop(scope.spawn(work))));
    Columns::of(told.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner), &order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_print() {
        let mut told = Told::default();
        told.take("size=7.3T\nempty=\nsize=1T\nplain\nafter=this is not taken\n");
        told.take("model=ST8000\n");
        assert_eq!(told.value("size"), "7.3T");
        assert_eq!((told.value("empty"), told.value("after"), told.value("model")), ("-", "-", "ST8000"));
        assert_eq!(told.rest, ["plain"]);
        let key = |path: &str| ("tank".to_owned(), path.to_owned());
        let mut other = Told::default();
        other.take("temp=31\nsize=10.75T\n");
        let all = BTreeMap::from([(key("/a"), told), (key("/b"), other)]);
        let columns = Columns::of(all, &[key("/a"), key("/b")]);
        assert_eq!(columns.titles(), "    size  empty   model  temp");
        let mut node = VdevNode::new("file", 0, 1);
        assert_eq!(columns.line("tank", &node), "");
        node.path = Some("/a".into());
        assert_eq!(columns.line("tank", &node), "    7.3T      -  ST8000     -  plain");
        let fields = columns.fields("tank", &node);
        assert_eq!(fields.last(), Some(&("extra_1".to_owned(), Value::from("plain"))));
        node.path = Some("/b".into());
        assert_eq!(columns.line("tank", &node), "  10.75T      -       -    31");
    }
}
