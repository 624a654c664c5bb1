//! The programs as programs: streams, exit codes, and what happens without a daemon.

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn program(path: &str, args: &[&str]) -> Output {
    let nowhere = tempfile::tempdir().unwrap();
    Command::new(path)
        .args(args)
        .env("UZFS_SOCKET", nowhere.path().join("uzfsd.sock"))
        .env("UZFS_NO_AUTOSTART", "1")
        .output()
        .unwrap()
}

fn zpool(args: &[&str]) -> Output {
    program(env!("CARGO_BIN_EXE_zpool"), args)
}

#[test]
fn wrong_usage_is_2() {
    let ran = zpool(&[]);
    assert_eq!(ran.status.code(), Some(2));
    assert!(ran.stdout.is_empty());
    assert!(String::from_utf8(ran.stderr).unwrap().starts_with("missing command\nusage: zpool command args ...\n"));
    assert_eq!(zpool(&["remove", "tank"]).stderr, b"zpool: 'remove' is not supported yet by uzfs\n");
    assert_eq!(zpool(&["remove", "tank"]).status.code(), Some(2));
    let zfs = program(env!("CARGO_BIN_EXE_zfs"), &["list", "-?"]);
    assert_eq!(zfs.status.code(), Some(2));
}

#[test]
fn without_a_daemon_is_1() {
    let ran = zpool(&["list"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8(ran.stderr).unwrap().starts_with("uzfsd is not running: nobody listens at "));
    let helper = program(env!("CARGO_BIN_EXE_mount_zfs"), &["tank"]);
    assert_eq!(helper.status.code(), Some(1));
}

#[test]
fn help_goes_to_standard_output() {
    let ran = zpool(&["help", "list"]);
    assert_eq!(ran.status.code(), Some(0));
    assert!(String::from_utf8(ran.stdout).unwrap().starts_with("usage:\n\tlist [-gHLpPv]"));
}

/// Every document can be made, and shells accept what is for them.
#[test]
fn documents() {
    for path in [env!("CARGO_BIN_EXE_zpool"), env!("CARGO_BIN_EXE_zfs")] {
        for what in ["man", "bash", "zsh", "fish"] {
            let ran = Command::new(path).env("UZFS_GENERATE", what).output().unwrap();
            assert!(ran.status.success() && ran.stdout.len() > 1000, "{path} {what}");
            if what == "bash" {
                let mut check = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
                std::io::Write::write_all(&mut check.stdin.take().unwrap(), &ran.stdout).unwrap();
                assert!(check.wait().unwrap().success());
            }
        }
    }
}

/// A reader that goes away early is no failure worth a word.
#[test]
fn closed_pipe_is_quiet() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_zfs"))
        .arg("help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert_eq!(said, "");
}
