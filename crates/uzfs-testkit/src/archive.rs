//! Unpacking archives once, and copying sparse files.

use crate::encode::hex;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Unpacks `NAME.tar.zst`, which holds a folder NAME, and gives the path of that folder.
///
/// The result is kept in `cache` under the archive's hash and shared by all tests: never write to it.
pub fn unpack(archive: &Path, cache: &Path) -> Result<PathBuf, String> {
    let name = archive.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".tar.zst"));
    let name = name.ok_or_else(|| format!("{}: not NAME.tar.zst", archive.display()))?;
    let failed = |e: io::Error| format!("{}: {e}", archive.display());
    let home = cache.join(format!("{name}-{}", &hash_file(archive).map_err(failed)?[..16]));
    let pool = home.join(name);
    if pool.is_dir() {
        return Ok(pool);
    }
    fs::create_dir_all(cache).map_err(failed)?;
    let part = cache.join(format!("part-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part).map_err(failed)?;
    let mut zstd = Command::new("zstd")
        .args(["-dcq", "--long=27"])
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run zstd: {e}"))?;
    let stream = zstd.stdout.take().ok_or("zstd has no output")?;
    let tar = Command::new("tar").args(["-S", "-x", "-C"]).arg(&part).stdin(stream).status();
    let unpacked = zstd.wait().map_err(failed)?.success() && tar.map_err(failed)?.success();
    if !unpacked || !part.join(name).is_dir() {
        return Err(format!("{}: cannot be unpacked", archive.display()));
    }
    // Another test may have been faster; its result is as good.
    if fs::rename(&part, &home).is_err() {
        let _ = fs::remove_dir_all(&part);
    }
    if pool.is_dir() { Ok(pool) } else { Err(format!("{}: did not appear", pool.display())) }
}

/// SHA-256 of a file in hexadecimal.
pub fn hash_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&chunk[..n]);
    }
}

/// Copies a device so that the copy may be damaged: holes stay holes, blocks are shared where the file
/// system can.
pub fn copy_device(from: &Path, to: &Path) -> Result<(), String> {
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .arg(from)
        .arg(to)
        .status()
        .map_err(|e| format!("cannot run cp: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cannot copy {}", from.display())) }
}
