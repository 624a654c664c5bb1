//! What is seen of a tree of files: one entry a file with everything a correct reader must agree on.
//!
//! The entries are those of the corpus: a JSON object a line with mode, owners, links, inode number,
//! modification time in nanoseconds, size and SHA-256, extended attributes, target, device number. Only
//! one file system is walked. Names that are not plain ASCII are base64 and say so (`path_b64`).

use crate::encode::{base64, from_base64, hex};
use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom, StatxFlags};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Up to this size a file is hashed as a whole; above, only its blocks that are not zeros.
const BIG: u64 = 64 << 20;
const BLOCK: u64 = 4096;

/// Entries by path (bytes, relative to the root of the tree; empty for the root itself).
pub type Manifest = BTreeMap<Vec<u8>, Map<String, Value>>;

/// How a tree is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Hash the content of every file.
    Hash,
    /// Names and attributes only.
    Skip,
}

/// Reads the lines of a manifest.
pub fn parse(text: &str) -> Result<Manifest, String> {
    let mut manifest = Manifest::new();
    for (number, line) in text.lines().enumerate() {
        let at = |why: String| format!("line {}: {why}", number + 1);
        let entry: Map<String, Value> = serde_json::from_str(line).map_err(|e| at(e.to_string()))?;
        let path = entry.get("path").and_then(Value::as_str).ok_or_else(|| at("no path".into()))?;
        let path = if entry.contains_key("path_b64") {
            from_base64(path).ok_or_else(|| at("bad base64".into()))?
        } else {
            path.as_bytes().to_vec()
        };
        manifest.insert(path, entry);
    }
    Ok(manifest)
}

/// Walks a tree. Errors of single files become entries with `error`, so that they show as differences.
pub fn walk(root: &Path, content: Content) -> Result<Manifest, String> {
    let device = lstat(root).map_err(|e| format!("{}: {e}", root.display()))?.device;
    let mut manifest = Manifest::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(&path) };
        let stat = match lstat(&full) {
            Ok(stat) => stat,
            Err(e) => {
                manifest.insert(path.as_os_str().as_bytes().to_vec(), error(&path, &e.to_string()));
                continue;
            }
        };
        if stat.device != device && !path.as_os_str().is_empty() {
            continue;
        }
        let mut entry = entry(&full, &path, &stat, content);
        if stat.kind() == libc::S_IFDIR {
            match names(&full) {
                Ok(names) => todo.extend(names.iter().map(|n| path.join(n))),
                Err(e) => drop(entry.insert("error".into(), json!(format!("cannot be listed: {e}")))),
            }
        }
        manifest.insert(path.as_os_str().as_bytes().to_vec(), entry);
    }
    Ok(manifest)
}

/// The fields of `stat` that manifests hold.
struct Stat {
    device: (u32, u32),
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    ino: u64,
    size: u64,
    rdev: (u32, u32),
    mtime_ns: i128,
}

impl Stat {
    fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// `statx`, because device numbers of more than 8 bits come through whole.
fn lstat(path: &Path) -> std::io::Result<Stat> {
    let s = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    Ok(Stat {
        device: (s.stx_dev_major, s.stx_dev_minor),
        mode: u32::from(s.stx_mode),
        uid: s.stx_uid,
        gid: s.stx_gid,
        nlink: s.stx_nlink,
        ino: s.stx_ino,
        size: s.stx_size,
        rdev: (s.stx_rdev_major, s.stx_rdev_minor),
        mtime_ns: i128::from(s.stx_mtime.tv_sec) * 1_000_000_000 + i128::from(s.stx_mtime.tv_nsec),
    })
}

fn names(dir: &Path) -> std::io::Result<Vec<OsString>> {
    std::fs::read_dir(dir)?.map(|e| Ok(e?.file_name())).collect()
}

fn error(path: &Path, why: &str) -> Map<String, Value> {
    let mut entry = Map::new();
    put_path(&mut entry, path);
    entry.insert("error".into(), json!(why));
    entry
}

fn put_path(entry: &mut Map<String, Value>, path: &Path) {
    let bytes = path.as_os_str().as_bytes();
    if bytes.iter().any(|c| *c > 126 || *c < 32) {
        entry.insert("path".into(), json!(base64(bytes)));
        entry.insert("path_b64".into(), json!(true));
    } else {
        entry.insert("path".into(), json!(String::from_utf8_lossy(bytes)));
    }
}

fn entry(full: &Path, path: &Path, stat: &Stat, content: Content) -> Map<String, Value> {
    let mut entry = Map::new();
    put_path(&mut entry, path);
    entry.insert("mode".into(), json!(format!("{:o}", stat.mode)));
    entry.insert("uid".into(), json!(stat.uid));
    entry.insert("gid".into(), json!(stat.gid));
    entry.insert("nlink".into(), json!(stat.nlink));
    entry.insert("ino".into(), json!(stat.ino));
    entry.insert("mtime_ns".into(), i64::try_from(stat.mtime_ns).map_or(Value::Null, |n| json!(n)));
    match stat.kind() {
        libc::S_IFREG => {
            entry.insert("size".into(), json!(stat.size));
            let key = if stat.size <= BIG { "sha256" } else { "sparse_sha256" };
            if content == Content::Hash {
                let digest = digest(full, stat.size).unwrap_or_else(|e| format!("cannot be read: {e}"));
                entry.insert(key.into(), json!(digest));
            }
        }
        libc::S_IFLNK => {
            let target = std::fs::read_link(full).map(|t| t.to_string_lossy().into_owned());
            entry.insert("target".into(), json!(target.unwrap_or_else(|e| format!("cannot be read: {e}"))));
        }
        libc::S_IFBLK | libc::S_IFCHR => {
            entry.insert("rdev".into(), json!([stat.rdev.0, stat.rdev.1]));
        }
        _ => {}
    }
    if let Ok(attributes) = xattrs(full)
        && !attributes.is_empty()
    {
        entry.insert("xattr".into(), Value::Object(attributes));
    }
    entry
}

fn xattrs(path: &Path) -> std::io::Result<Map<String, Value>> {
    let mut list = vec![0; 64 << 10];
    let n = rustix::fs::llistxattr(path, &mut list)?;
    let mut found = BTreeMap::new();
    for name in list[..n].split(|b| *b == 0) {
        let known: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl"];
        if known.iter().any(|k| name.starts_with(k)) {
            let mut value = vec![0; 64 << 10];
            let n = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value)?;
            found.insert(String::from_utf8_lossy(name).into_owned(), json!(base64(&value[..n])));
        }
    }
    Ok(found.into_iter().collect())
}

fn digest(path: &Path, size: u64) -> std::io::Result<String> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let file = std::fs::File::from(fd);
    let mut hash = Sha256::new();
    if size <= BIG {
        let mut chunk = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            let n = file.read_at(&mut chunk, at)?;
            if n == 0 {
                return Ok(hex(&hash.finalize()));
            }
            hash.update(&chunk[..n]);
            at += n as u64;
        }
    }
    let mut at = 0;
    while at < size {
        // A file system without holes at the end says so by an error, as one without more data does.
        let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) else { break };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
        at = data - data % BLOCK;
        while at < end {
            let mut block = [0; BLOCK as usize];
            read_block(&file, &mut block, at)?;
            if block.iter().any(|b| *b != 0) {
                hash.update((at / BLOCK).to_le_bytes());
                hash.update(block);
            }
            at += BLOCK;
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Fills a block as far as the file goes; the rest stays zero.
fn read_block(file: &std::fs::File, block: &mut [u8], at: u64) -> std::io::Result<()> {
    let mut done = 0;
    while done < block.len() {
        match file.read_at(&mut block[done..], at + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(())
}

/// Differences, a line each. `ignored` fields are left out on both sides.
pub fn differences(expected: &Manifest, seen: &Manifest, ignored: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, want) in expected {
        let shown = shown(path);
        let Some(have) = seen.get(path) else {
            lines.push(format!("{shown}: missing"));
            continue;
        };
        let mut fields: Vec<&String> = want.keys().chain(have.keys().filter(|k| !want.contains_key(*k))).collect();
        fields.retain(|f| !ignored.contains(&f.as_str()));
        for field in fields {
            match (want.get(field), have.get(field)) {
                (Some(Value::Object(want)), Some(Value::Object(have))) => {
                    lines.extend(map_differences(want, have).map(|d| format!("{shown}: {field} {d}")));
                }
                (want, have) if want != have => {
                    lines.push(format!("{shown}: {field} is {}, must be {}", value(have), value(want)));
                }
                _ => {}
            }
        }
    }
    lines.extend(seen.keys().filter(|p| !expected.contains_key(*p)).map(|p| format!("{}: must not exist", shown(p))));
    lines
}

fn map_differences<'a>(
    want: &'a Map<String, Value>,
    have: &'a Map<String, Value>,
) -> impl Iterator<Item = String> + 'a {
    let keys = want.keys().chain(have.keys().filter(|k| !want.contains_key(*k)));
    keys.filter(|k| want.get(*k) != have.get(*k))
        .map(|k| format!("{k} is {}, must be {}", value(have.get(k)), value(want.get(k))))
}

fn value(v: Option<&Value>) -> String {
    let mut text = v.map_or_else(|| "absent".to_owned(), Value::to_string);
    if text.len() > 90 {
        let cut = (0..=80).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text = format!("{}... ({} characters)", &text[..cut], text.len());
    }
    text
}

fn shown(path: &[u8]) -> String {
    if path.is_empty() { "(root)".to_owned() } else { OsString::from_vec(path.to_vec()).to_string_lossy().into_owned() }
}
