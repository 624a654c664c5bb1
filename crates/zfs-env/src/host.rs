//! What the engine asks of the machine besides disks: its identity, and where devices may be found.

use std::io;
use std::path::{Path, PathBuf};

/// The machine's host number, 0 when none is set: `/etc/hostid`, where OpenZFS looks, and nothing else, so that a pool
/// made on a machine without one does not look foreign afterwards.
pub fn hostid() -> u32 {
    match std::fs::read("/etc/hostid") {
        Ok(bytes) => match bytes.first_chunk::<4>() {
            Some(b) => u32::from_le_bytes(*b),
            None => 0,
        },
        Err(_) => 0,
    }
}

/// The machine's name, as `uname -n` gives it.
#[cfg(not(target_os = "linux"))]
pub fn hostname() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the call writes at most as many bytes as it is told, into memory that lives.
    let done = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } == 0;
    let text = name.split(|b| *b == 0).next().filter(|n| done && !n.is_empty());
    text.map_or_else(|| "(none)".to_owned(), |n| String::from_utf8_lossy(n).into_owned())
}

/// The machine's name, as `uname -n` gives it.
#[cfg(target_os = "linux")]
pub fn hostname() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => name.trim_end().to_owned(),
        Err(_) => "(none)".to_owned(),
    }
}

/// Reads a whole regular file of at most `limit` bytes. A pipe nobody writes to would wait for ever.
pub fn read_file(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if meta.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "file is too large"));
    }
    std::fs::read(path)
}

/// Regular files and block devices in `dir`, sorted by name; `dir` itself when it is not a directory.
pub fn devices_in(dir: impl AsRef<Path>) -> io::Result<Vec<PathBuf>> {
    let dir = dir.as_ref();
    if !std::fs::metadata(dir)?.is_dir() {
        return Ok(vec![dir.to_path_buf()]);
    }
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        // Names that lead nowhere, sockets and directories are not devices.
        if std::fs::metadata(&path).is_ok_and(|m| is_device(&m)) {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

/// Whether `path` is a directory.
pub fn is_dir(path: impl AsRef<Path>) -> bool {
    path.as_ref().is_dir()
}

fn is_device(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    meta.is_file() || meta.file_type().is_block_device()
}

/// Block devices of the system that may hold labels, under the most lasting name each has: partitions, disks and
/// mapped devices, but not empty loop or memory devices.
#[cfg(target_os = "linux")]
pub fn system_devices() -> Vec<PathBuf> {
    const LASTING: [&str; 4] = ["/dev/disk/by-vdev", "/dev/disk/by-id", "/dev/disk/by-partuuid", "/dev/mapper"];
    let mut names = std::collections::BTreeMap::new();
    for (rank, dir) in LASTING.iter().enumerate() {
        for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()) {
            if let Ok(real) = std::fs::canonicalize(&path) {
                names.entry(real).or_insert((rank, path));
            }
        }
    }
    let mut out = Vec::new();
    for disk in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let dir = disk.path();
        let empty = std::fs::read_to_string(dir.join("size")).is_ok_and(|s| s.trim() == "0");
        let name = disk.file_name();
        if empty || name.to_string_lossy().starts_with("ram") || name.to_string_lossy().starts_with("zd") {
            continue;
        }
        let mut found = vec![Path::new("/dev").join(&name)];
        for part in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if part.path().join("partition").exists() {
                found.push(Path::new("/dev").join(part.file_name()));
            }
        }
        out.extend(found.into_iter().filter(|p| p.exists()).map(|p| match names.get(&p) {
            Some((_, lasting)) => lasting.clone(),
            None => p,
        }));
    }
    out.sort();
    out.dedup();
    out
}

/// Block devices of the system that may hold labels.
#[cfg(not(target_os = "linux"))]
pub fn system_devices() -> Vec<PathBuf> {
    let dev = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    dev.map(|e| e.path()).filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("disk"))).collect()
}

/// Ends the process at once, as a pool's `failmode=panic` asks for: nothing more is written.
pub fn panic_now() -> ! {
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_devices_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b"), "x").unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        std::fs::create_dir(dir.path().join("c")).unwrap();
        let found = devices_in(dir.path()).unwrap();
        assert_eq!(found, [dir.path().join("a"), dir.path().join("b")]);
        assert_eq!(devices_in(&found[0]).unwrap(), [found[0].clone()]);
        assert!(read_file(&found[0], 0).is_err());
        assert_eq!(read_file(&found[0], 1).unwrap(), b"x");
    }
}
