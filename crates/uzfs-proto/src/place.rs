//! Where a daemon listens: the rule that daemon and tools share.

use std::path::{Path, PathBuf};

/// The socket of the daemon of user `uid`: `UZFS_SOCKET` if set; for root `/run/uzfs/uzfsd.sock`; for
/// others `uzfs/uzfsd.sock` in `XDG_RUNTIME_DIR`, or in `/tmp/uzfs-UID` where there is none.
pub fn socket_path(uid: u32, variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(path) = variable("UZFS_SOCKET").filter(|p| !p.is_empty()) {
        return PathBuf::from(path);
    }
    if uid == 0 {
        return PathBuf::from("/run/uzfs/uzfsd.sock");
    }
    match variable("XDG_RUNTIME_DIR").filter(|d| d.starts_with('/') && Path::new(d).is_dir()) {
        Some(dir) => Path::new(&dir).join("uzfs/uzfsd.sock"),
        None => PathBuf::from(format!("/tmp/uzfs-{uid}/uzfsd.sock")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_paths() {
        let none = |_: &str| None;
        assert_eq!(socket_path(0, none), Path::new("/run/uzfs/uzfsd.sock"));
        assert_eq!(socket_path(7, none), Path::new("/tmp/uzfs-7/uzfsd.sock"));
        let set = |n: &str| (n == "UZFS_SOCKET").then(|| "/x/y".to_owned());
        assert_eq!(socket_path(0, set), Path::new("/x/y"));
        let xdg = |n: &str| (n == "XDG_RUNTIME_DIR").then(|| "/tmp".to_owned());
        assert_eq!(socket_path(7, xdg), Path::new("/tmp/uzfs/uzfsd.sock"));
    }
}
