//! `cargo xtask install --prefix DIR`: puts what a package would hold.
//!
//! Programs go to `sbin`, `mount.zfs` and the daemon with them (the tools look for the daemon beside
//! themselves); manual pages and completions are printed by the programs from the table that also
//! parses their arguments, so nothing here can disagree with them.

use crate::{cargo, run, target};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs with the names they get; cargo allows no dot in the name of a program.
const PROGRAMS: [(&str, &str); 5] =
    [("zpool", "zpool"), ("zfs", "zfs"), ("mount_zfs", "mount.zfs"), ("uzfsd", "uzfsd"), ("zdb", "zdb")];

/// `install --prefix DIR [--destdir DIR] [--profile NAME]`.
pub fn run_install(root: &Path, args: &[String]) -> Result<(), String> {
    let mut prefix = None;
    let mut destdir = String::new();
    let mut profile = "release".to_owned();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{arg} needs a value"))?.clone();
        match arg.as_str() {
            "--prefix" => prefix = Some(value),
            "--destdir" => destdir = value,
            "--profile" => profile = value,
            other => return Err(format!("unknown option '{other}'")),
        }
    }
    let prefix = prefix.ok_or("install needs --prefix DIR")?;
    if !prefix.starts_with('/') {
        return Err("the prefix must be an absolute path".to_owned());
    }
    let folder = if profile == "dev" { "debug" } else { profile.as_str() };
    run(root, &cargo(), &["build", "--workspace", "--bins", "--quiet", "--profile", &profile])?;
    let built = target(root).join(folder);
    put(&Place { prefix: PathBuf::from(&prefix), destdir }, &built)
}

/// Puts everything that was built.
fn put(place: &Place, built: &Path) -> Result<(), String> {
    for (program, name) in PROGRAMS {
        place.copy(&built.join(program), &format!("sbin/{name}"), 0o755)?;
    }
    documents(place, built)?;
    service(place)?;
    helper(place)
}

/// Where things go: `destdir` is put before every path, as packagers want it.
struct Place {
    prefix: PathBuf,
    destdir: String,
}

impl Place {
    fn path(&self, below: &str) -> PathBuf {
        PathBuf::from(format!("{}{}", self.destdir, self.prefix.join(below).display()))
    }

    fn write(&self, below: &str, content: &[u8], mode: u32) -> Result<(), String> {
        let path = self.path(below);
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(failed)?;
        // A running program cannot be written over, but its name can be given to another file.
        let _ = fs::remove_file(&path);
        fs::write(&path, content).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        println!("{}", path.display());
        Ok(())
    }

    fn copy(&self, from: &Path, below: &str, mode: u32) -> Result<(), String> {
        let content = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
        self.write(below, &content, mode)
    }
}

/// Manual pages and completions, as the programs print them.
fn documents(place: &Place, built: &Path) -> Result<(), String> {
    for program in ["zpool", "zfs", "zdb"] {
        let man = generated(&built.join(program), "man")?;
        place.write(&format!("share/man/man8/{program}.8"), &man, 0o644)?;
        let bash = generated(&built.join(program), "bash")?;
        place.write(&format!("share/bash-completion/completions/{program}"), &bash, 0o644)?;
        let zsh = generated(&built.join(program), "zsh")?;
        place.write(&format!("share/zsh/site-functions/_{program}"), &zsh, 0o644)?;
        let fish = generated(&built.join(program), "fish")?;
        place.write(&format!("share/fish/vendor_completions.d/{program}.fish"), &fish, 0o644)?;
    }
    Ok(())
}

fn generated(program: &Path, what: &str) -> Result<Vec<u8>, String> {
    let output = Command::new(program)
        .env("UZFS_GENERATE", what)
        .output()
        .map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    if !output.status.success() || output.stdout.is_empty() {
        return Err(format!("{} prints no {what}: {}", program.display(), output.status));
    }
    Ok(output.stdout)
}

/// The unit that starts the daemon at boot where systemd is used.
fn service(place: &Place) -> Result<(), String> {
    let unit = format!(
        "[Unit]\nDescription=uzfs: ZFS in user space\nDocumentation=man:zpool(8) man:zfs(8)\n\
         After=systemd-udev-settle.service\nBefore=local-fs.target\nDefaultDependencies=no\n\n\
         [Service]\nExecStart={}/sbin/uzfsd\nRuntimeDirectory=uzfs\nRuntimeDirectoryMode=0755\n\
         Restart=on-failure\nKillMode=mixed\nOOMScoreAdjust=-900\n\n[Install]\nWantedBy=local-fs.target\n",
        place.prefix.display()
    );
    place.write("lib/systemd/system/uzfsd.service", unit.as_bytes(), 0o644)
}

/// mount(8) looks for helpers only in /sbin. Where the prefix is the system's, a link is put there.
fn helper(place: &Place) -> Result<(), String> {
    if !place.prefix.starts_with("/usr") {
        println!("for `mount -t zfs`: ln -s {}/sbin/mount.zfs /sbin/mount.zfs", place.prefix.display());
        return Ok(());
    }
    let link = PathBuf::from(format!("{}/sbin/mount.zfs", place.destdir));
    let program = place.prefix.join("sbin/mount.zfs");
    if link.exists() || fs::symlink_metadata(&link).is_ok() {
        println!("{} is there already and stays", link.display());
        return Ok(());
    }
    let failed = |e: std::io::Error| format!("{}: {e}", link.display());
    fs::create_dir_all(link.parent().unwrap_or(&link)).map_err(failed)?;
    symlink(program, &link).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(dir: &Path, root: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            if meta.is_dir() {
                list(&entry.path(), root, out);
            } else {
                let below = entry.path().strip_prefix(root).unwrap().display().to_string();
                out.push(format!("{:o} {below}", meta.permissions().mode() & 0o777));
            }
        }
    }

    /// Programs that only print what is asked of them stand for the real ones.
    #[test]
    fn everything_gets_its_place_and_can_be_replaced() {
        let home = std::env::temp_dir().join(format!("uzfs-install-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        let built = home.join("built");
        fs::create_dir_all(&built).unwrap();
        for (program, _) in PROGRAMS {
            let script = format!("#!/bin/sh\necho \"$UZFS_GENERATE of {program}\"\n");
            fs::write(built.join(program), script).unwrap();
            fs::set_permissions(built.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let root = home.join("root");
        let place = Place { prefix: PathBuf::from("/usr/local"), destdir: root.display().to_string() };
        put(&place, &built).unwrap();
        put(&place, &built).unwrap();
        let mut found = Vec::new();
        list(&root, &root, &mut found);
        found.sort();
        let expected = "\
            644 usr/local/lib/systemd/system/uzfsd.service\n\
            644 usr/local/share/bash-completion/completions/zdb\n\
            644 usr/local/share/bash-completion/completions/zfs\n\
            644 usr/local/share/bash-completion/completions/zpool\n\
            644 usr/local/share/fish/vendor_completions.d/zdb.fish\n\
            644 usr/local/share/fish/vendor_completions.d/zfs.fish\n\
            644 usr/local/share/fish/vendor_completions.d/zpool.fish\n\
            644 usr/local/share/man/man8/zdb.8\n\
            644 usr/local/share/man/man8/zfs.8\n\
            644 usr/local/share/man/man8/zpool.8\n\
            644 usr/local/share/zsh/site-functions/_zdb\n\
            644 usr/local/share/zsh/site-functions/_zfs\n\
            644 usr/local/share/zsh/site-functions/_zpool\n\
            755 usr/local/sbin/mount.zfs\n\
            755 usr/local/sbin/uzfsd\n\
            755 usr/local/sbin/zdb\n\
            755 usr/local/sbin/zfs\n\
            755 usr/local/sbin/zpool\n\
            777 sbin/mount.zfs";
        assert_eq!(found.join("\n"), expected);
        assert_eq!(fs::read_link(root.join("sbin/mount.zfs")).unwrap(), Path::new("/usr/local/sbin/mount.zfs"));
        let man = fs::read_to_string(root.join("usr/local/share/man/man8/zpool.8")).unwrap();
        assert_eq!(man, "man of zpool\n");
        let unit = fs::read_to_string(root.join("usr/local/lib/systemd/system/uzfsd.service")).unwrap();
        assert!(unit.contains("ExecStart=/usr/local/sbin/uzfsd\n"));
        fs::remove_dir_all(&home).unwrap();
    }
}
