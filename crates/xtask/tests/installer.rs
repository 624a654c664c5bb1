//! `install-macos.sh`, with stubs for what only macOS has: what it installs, takes away again, refuses, and undoes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Commands of macOS, and what each says. All write down how they were called, and fail when `FAIL` names the call.
const STUBS: [(&str, &str); 12] = [
    ("uname", "echo Darwin"),
    ("id", "echo ${STUB_UID:-501}"),
    ("sw_vers", "echo ${STUB_VERSION:-26.1}"),
    ("csrutil", "echo System Integrity Protection status: ${STUB_SIP:-disabled}."),
    ("nvram", "echo boot-args ${STUB_ARGS:-amfi_get_out_of_my_way=1}"),
    ("security", "echo '1) ABC \"Apple Development: Me\"'"),
    ("mount", "echo ${STUB_MOUNTS:-}"),
    ("codesign", ":"),
    ("pluginkit", ":"),
    ("launchctl", ":"),
    ("chown", ":"),
    ("xattr", ":"),
];

/// What the stubs say, how the script is called, and what it must complain about.
type Refusal = (&'static [(&'static str, &'static str)], &'static [&'static str], &'static str);

struct Mac {
    dir: tempfile::TempDir,
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        fs::read_dir(from).unwrap().for_each(|e| {
            let name = e.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        });
    } else {
        fs::copy(from, to).unwrap();
    }
}

impl Mac {
    fn new() -> Self {
        let mac = Self { dir: tempfile::tempdir().unwrap() };
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/macos");
        copy(&packaging, &mac.at("bundle"));
        for file in ["MacOS/uzfs", "MacOS/zfs", "Extensions/UzfsModule.appex/Contents/MacOS/UzfsModule"] {
            write(&mac.at("bundle/uzfs.app/Contents").join(file), file, 0o755);
        }
        let stub = |name: &str, does: &str| {
            let log = mac.at("log");
            let text = format!(
                "#!/bin/bash\ncall=\"{name} $*\"\necho \"$call\" >> '{}'\n[ -n \"${{FAIL:-}}\" ] && [[ $call == $FAIL* ]] && exit 1\n{does}\n",
                log.display()
            );
            write(&mac.at("stubs").join(name), &text, 0o755);
        };
        STUBS.iter().for_each(|(name, does)| stub(name, does));
        stub("sudo", "exec \"$@\"");
        stub("lsregister", ":");
        let services =
            "root/System/Library/Frameworks/CoreServices.framework/Frameworks/LaunchServices.framework/Support";
        copy(&mac.at("stubs/lsregister"), &{
            fs::create_dir_all(mac.at(services)).unwrap();
            mac.at(services).join("lsregister")
        });
        write(&mac.at("root/usr/local/sbin/uzfsd"), "daemon", 0o755);
        for dir in ["root/Applications", "root/Library/Filesystems", "root/Library/LaunchDaemons", "home"] {
            fs::create_dir_all(mac.at(dir)).unwrap();
        }
        mac
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn run(&self, args: &[&str], set: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.at("stubs").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(self.at("bundle/install-macos.sh")).args(args).current_dir(self.at("bundle"));
        command.env("PATH", path).env("HOME", self.at("home")).env("UZFS_INSTALL_ROOT", self.at("root"));
        command.envs(set.iter().copied()).output().unwrap()
    }

    /// Every file that is installed, with its contents.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut pending = vec![self.at("root"), self.at("home")];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    all.insert(path.strip_prefix(self.dir.path()).unwrap().to_owned(), fs::read(&path).unwrap());
                }
            }
        }
        all
    }

    fn log(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn it_installs_what_the_transcript_does_and_takes_it_away_again() {
    for identity in [None, Some("Apple Development: Me")] {
        let mac = Mac::new();
        let before = mac.files();
        let args = identity.map_or(vec![], |i| vec!["--identity", i]);
        let out = mac.run(&args, &[]);
        assert!(out.status.success(), "{}", said(&out));
        let extension = mac.at("root/Applications/uzfs.app/Contents/Extensions/UzfsModule.appex");
        assert!(extension.join("Contents/MacOS/UzfsModule").is_file());
        assert!(mac.at("root/Library/Filesystems/zfs.fs/Contents/Resources/mount_zfs").is_file());
        let text = |path: &str| fs::read_to_string(mac.at(path)).unwrap();
        let daemon = text("root/Library/LaunchDaemons/io.uzfs.uzfsd.plist");
        assert!(
            daemon.contains(&format!("<string>{}/Library/Group Containers/group.io.uzfs<", mac.at("home").display()))
        );
        let agent = text("home/Library/LaunchAgents/io.uzfs.agent.plist");
        assert!(
            agent.contains(&format!("<string>{}/Contents/MacOS/zfs<", mac.at("root/Applications/uzfs.app").display()))
        );
        assert!(!daemon.contains('@') && !agent.contains('@'), "a placeholder was left");
        let log = mac.log();
        let mut wanted = vec![
            format!("pluginkit -a {}", extension.display()),
            "pluginkit -e use -i io.uzfs.app.fs".to_owned(),
            "launchctl bootstrap system".to_owned(),
            "launchctl bootstrap gui/501".to_owned(),
        ];
        wanted.extend(identity.map(|i| format!("codesign --force --sign {i}")));
        for call in wanted {
            assert!(log.contains(&call), "{call} in:\n{log}");
        }
        // Every step is printed, the commands under it.
        assert!(said(&out).matches("==> ").count() >= 7 && said(&out).contains("pluginkit -e use -i io.uzfs.app.fs"));
        // What is there is not installed over.
        assert!(!mac.run(&args, &[]).status.success());
        let out = mac.run(&["--uninstall"], &[("STUB_MOUNTS", "tank on /Volumes/tank (zfs, local)")]);
        assert!(!out.status.success() && said(&out).contains("unmount them first"), "{}", said(&out));
        let out = mac.run(&["--uninstall"], &[]);
        assert!(out.status.success(), "{}", said(&out));
        assert_eq!(mac.files(), before);
        assert!(mac.log().contains("launchctl bootout gui/501/io.uzfs.agent"));
        assert!(mac.log().contains("launchctl bootout system/io.uzfs.uzfsd"));
    }
}

#[test]
fn a_step_that_fails_undoes_those_before_it() {
    let steps = [
        "xattr",
        "codesign --verify",
        "lsregister",
        "pluginkit -a",
        "pluginkit -e",
        "sudo cp",
        "chown",
        "sudo tee",
        "launchctl bootstrap system",
        "launchctl bootstrap gui",
    ];
    for step in steps {
        let mac = Mac::new();
        let before = mac.files();
        let out = mac.run(&[], &[("FAIL", step)]);
        assert!(!out.status.success(), "{step} did not fail: {}", said(&out));
        assert!(mac.log().contains(step), "{step} was not called");
        assert!(said(&out).contains("undoing what was done"), "{step}: {}", said(&out));
        assert_eq!(mac.files().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{step}");
        // It can be tried again.
        let again = mac.run(&[], &[]);
        assert!(again.status.success(), "after {step}: {}", said(&again));
    }
}

#[test]
fn it_refuses_where_it_cannot_work() {
    let cases: [Refusal; 6] = [
        (&[("STUB_VERSION", "15.3.2")], &[], "macOS 15.4 or newer"),
        (&[("STUB_UID", "0")], &[], "not as root"),
        (&[("STUB_SIP", "enabled")], &[], "System Integrity Protection"),
        (&[("STUB_ARGS", "-v")], &[], "amfi_get_out_of_my_way=1"),
        (&[], &["--identity", "Somebody"], "no signing identity"),
        (&[], &["elsewhere.app"], "is not there"),
    ];
    for (set, args, why) in cases {
        let mac = Mac::new();
        let before = mac.files();
        let out = mac.run(args, set);
        assert!(!out.status.success() && said(&out).contains(why), "{why}: {}", said(&out));
        assert_eq!(mac.files(), before, "{why}");
    }
    // OpenZFS has a file system of this name: it is left alone.
    let mac = Mac::new();
    write(&mac.at("root/Library/Filesystems/zfs.fs/other"), "theirs", 0o644);
    let before = mac.files();
    assert!(!mac.run(&[], &[]).status.success());
    assert_eq!(mac.files(), before);
    // An identity needs neither SIP nor AMFI to be off.
    let signed =
        Mac::new().run(&["--identity", "Apple Development: Me"], &[("STUB_SIP", "enabled"), ("STUB_ARGS", "-v")]);
    assert!(signed.status.success(), "{}", said(&signed));
}

#[test]
fn a_dry_run_changes_nothing() {
    let mac = Mac::new();
    let before = mac.files();
    let out = mac.run(&["--dry-run"], &[]);
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(mac.files(), before);
    for effect in ["sudo", "launchctl", "pluginkit", "codesign", "lsregister"] {
        assert!(!mac.log().lines().any(|l| l.starts_with(effect)), "{effect} was called");
    }
    assert!(said(&out).contains("launchctl bootstrap gui/501"));
}

#[test]
fn mount_zfs_goes_on_to_fskit() {
    let mac = Mac::new();
    let script = mac.at("bundle/zfs.fs/Contents/Resources/mount_zfs");
    let text = fs::read_to_string(&script).unwrap();
    assert_eq!(text.matches("/sbin/mount ").count(), 1);
    write(&script, &text.replace("/sbin/mount ", &format!("'{}' ", mac.at("stubs/mount").display())), 0o755);
    let run = |args: &[&str]| Command::new("sh").arg(&script).args(args).output().unwrap();
    assert!(run(&["/dev/disk4", "/Volumes/tank"]).status.success());
    assert!(run(&["-o", "ro,noatime", "/t/tank.uzfs", "/Volumes/my tank"]).status.success());
    assert_eq!(
        mac.log(),
        "mount -F -t zfs /dev/disk4 /Volumes/tank\nmount -F -t zfs -o ro,noatime /t/tank.uzfs /Volumes/my tank\n"
    );
    assert_eq!(run(&["/dev/disk4"]).status.code(), Some(64));
}
