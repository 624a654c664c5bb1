//! Where a daemon listens: the rule that daemon and tools share.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where root's daemon listens; macOS has no `/run`.
const ROOTS: &str = if cfg!(target_os = "macos") { "/var/run/uzfs/uzfsd.sock" } else { "/run/uzfs/uzfsd.sock" };

/// The socket of the daemon of user `uid`: `UZFS_SOCKET` if set; for root `/run/uzfs/uzfsd.sock`; for
/// others `uzfs/uzfsd.sock` in `XDG_RUNTIME_DIR`, or in `/tmp/uzfs-UID` where there is none.
pub fn socket_path(uid: u32, variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(path) = variable("UZFS_SOCKET").filter(|p| !p.is_empty()) {
        return PathBuf::from(path);
    }
    if uid == 0 {
        return PathBuf::from(ROOTS);
    }
    match variable("XDG_RUNTIME_DIR").filter(|d| d.starts_with('/') && Path::new(d).is_dir()) {
        Some(dir) => Path::new(&dir).join("uzfs/uzfsd.sock"),
        None => PathBuf::from(format!("/tmp/uzfs-{uid}/uzfsd.sock")),
    }
}

/// Refuses a folder for the socket, the log and the lock of user `uid` in which somebody else may exchange files: one
/// that is another user's, or that all may write to. `/tmp` itself, where only owners may take files away, will do.
pub fn check_dir(dir: &Path, uid: u32) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let meta = std::fs::metadata(dir)?;
    let (theirs, all, sticky) =
        (meta.uid() != uid && meta.uid() != 0, meta.mode() & 0o002 != 0, meta.mode() & 0o1000 != 0);
    if theirs || (all && !sticky) {
        let why = if theirs { format!("belongs to user {}", meta.uid()) } else { "can be written by everybody".into() };
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the folder {} {why}", dir.display())));
    }
    Ok(())
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

    #[test]
    fn folders_of_others_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let own = std::fs::metadata(dir.path()).unwrap().uid();
        let mode = |m| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(m)).unwrap();
        mode(0o755);
        assert!(check_dir(dir.path(), own).is_ok());
        assert_eq!(check_dir(dir.path(), own + 1).is_ok(), own == 0);
        mode(0o777);
        assert!(check_dir(dir.path(), own).is_err());
        mode(0o1777);
        assert!(check_dir(dir.path(), own).is_ok());
        assert!(check_dir(&dir.path().join("none"), own).is_err());
    }
}
