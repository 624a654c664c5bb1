//! Walks a [`Vfs`] the way the corpus's manifests were made: one entry a file.

pub mod pools;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uzfs_testkit::encode::{base64, hex};
use uzfs_testkit::manifest::Manifest;
use zfs_zpl::{Attr, CaseMode, FileKind, NodeId, Seek, Vfs};

/// Above this size only blocks that are not zeros are hashed.
const BIG: u64 = 64 << 20;
const BLOCK: u64 = 4096;

/// Everything under the root; directories listed in `foreign` (mount points of other datasets) are left out.
pub fn manifest_of(vfs: &Vfs, root: NodeId, foreign: &[String]) -> Manifest {
    let mut out = Manifest::new();
    let mut todo = vec![(Vec::new(), root)];
    while let Some((path, node)) = todo.pop() {
        let attr = vfs.getattr(node).unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(&path)));
        if attr.is_dir() {
            for (name, child) in names(vfs, node) {
                let full = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
                if !foreign.iter().any(|f| f.as_bytes() == full) {
                    todo.push((full, child));
                }
            }
        }
        let entry = entry(vfs, &path, node, &attr);
        out.insert(path, entry);
    }
    out
}

/// The entries of a directory but `.` and `..`.
pub fn names_only(vfs: &Vfs, dir: NodeId) -> Vec<(Vec<u8>, NodeId)> {
    let mut out = Vec::new();
    vfs.readdir(dir, 0, &mut |e| {
        out.push((e.name.to_vec(), e.node));
        true
    })
    .unwrap();
    out.retain(|(name, _)| name != b"." && name != b"..");
    out
}

/// The entries of a directory, read a few at a time so that cookies are used, each looked up by name as well.
pub fn names(vfs: &Vfs, dir: NodeId) -> Vec<(Vec<u8>, NodeId)> {
    let mut out = Vec::new();
    let mut cookie = 0;
    loop {
        let mut room = 7;
        let mut more = false;
        vfs.readdir(dir, cookie, &mut |e| {
            if room == 0 {
                more = true;
                return false;
            }
            room -= 1;
            cookie = e.next;
            out.push((e.name.to_vec(), e.node));
            true
        })
        .unwrap();
        if !more {
            break;
        }
    }
    out.retain(|(name, node)| {
        assert_eq!(vfs.lookup(dir, name, CaseMode::Dataset).unwrap(), *node, "{}", String::from_utf8_lossy(name));
        name != b"." && name != b".." && name != b".zfs"
    });
    let mut unique: Vec<_> = out.iter().map(|(n, _)| n.clone()).collect();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), out.len(), "a name was listed twice");
    out
}

fn entry(vfs: &Vfs, path: &[u8], node: NodeId, a: &Attr) -> Map<String, Value> {
    let mut e = Map::new();
    let mut put = |key: &str, value: Value| drop(e.insert(key.to_owned(), value));
    if path.iter().any(|&c| !(32..=126).contains(&c)) {
        put("path", json!(base64(path)));
        put("path_b64", json!(true));
    } else {
        put("path", json!(String::from_utf8_lossy(path)));
    }
    put("mode", json!(format!("{:o}", a.mode)));
    put("uid", json!(a.uid));
    put("gid", json!(a.gid));
    put("nlink", json!(a.nlink));
    put("ino", json!(a.ino));
    put("mtime_ns", json!(a.mtime.sec * 1_000_000_000 + i64::from(a.mtime.nsec)));
    match a.kind() {
        Some(FileKind::Regular) => {
            put("size", json!(a.size));
            put(if a.size <= BIG { "sha256" } else { "sparse_sha256" }, json!(digest(vfs, node, a.size)));
        }
        Some(FileKind::Symlink) => {
            put("target", json!(String::from_utf8(vfs.readlink(node).unwrap()).unwrap()));
        }
        Some(FileKind::BlockDevice | FileKind::CharDevice) => put("rdev", json!([a.rdev.0, a.rdev.1])),
        _ => {}
    }
    let mut xattrs = Map::new();
    let mut list = vfs.listxattr(node, true).unwrap();
    list.sort();
    for name in list {
        let value = vfs.getxattr(node, &name, true).unwrap();
        xattrs.insert(String::from_utf8(name).unwrap(), json!(base64(&value)));
    }
    if !xattrs.is_empty() {
        put("xattr", Value::Object(xattrs));
    }
    e
}

fn digest(vfs: &Vfs, node: NodeId, size: u64) -> String {
    let file = vfs.open(node).unwrap();
    let mut hash = Sha256::new();
    if size <= BIG {
        let (mut at, mut chunk) = (0u64, vec![0; 100_003]);
        loop {
            let slices = file.read(at, chunk.len()).unwrap();
            let n: usize = slices.iter().map(|s| s.len()).sum();
            assert_eq!(file.read_into(at, &mut chunk).unwrap(), n);
            assert_eq!(slices.iter().flat_map(|s| s.iter()).copied().collect::<Vec<u8>>(), chunk[..n]);
            if n == 0 {
                break;
            }
            hash.update(&chunk[..n]);
            at += n as u64;
        }
        assert_eq!(at, size);
        return hex(&hash.finalize());
    }
    let mut at = 0;
    while let Ok(data) = file.seek(at, Seek::Data) {
        let end = file.seek(data, Seek::Hole).unwrap();
        at = data - data % BLOCK;
        while at < end {
            let mut block = [0; BLOCK as usize];
            file.read_into(at, &mut block).unwrap();
            if block.iter().any(|&b| b != 0) {
                hash.update((at / BLOCK).to_le_bytes());
                hash.update(block);
            }
            at += BLOCK;
        }
    }
    hex(&hash.finalize())
}
