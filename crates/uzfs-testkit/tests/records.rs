//! What is written down of what was done to a pool: `zpool history` and `zpool events`, in OpenZFS's words.

use std::fs::File;
use uzfs_testkit::session::Session;

/// A pool without a mount, and a few things done to it.
fn done() -> (tempfile::TempDir, Session, String) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("d0");
    File::create(&path).unwrap().set_len(128 << 20).unwrap();
    let path = path.to_string_lossy().into_owned();
    let session = Session::start().unwrap();
    let commands = [
        format!("zpool create -f -O mountpoint=none -o comment=mine tank {path}"),
        "zfs create -o atime=off tank/a".into(),
        "zfs snapshot tank/a@s".into(),
        "zfs clone tank/a@s tank/b".into(),
        "zfs rename tank/a@s tank/a@t".into(),
        "zfs rename tank/b tank/c".into(),
        "zfs set quota=1G tank/a".into(),
        "zfs inherit atime tank/a".into(),
        "zfs hold tag tank/a@t".into(),
        "zfs release tag tank/a@t".into(),
        "zfs destroy tank/c".into(),
        "zpool scrub -w tank".into(),
    ];
    for command in &commands {
        let words: Vec<&str> = command.split(' ').collect();
        session.ok(words[0], &words[1..]).unwrap();
    }
    (home, session, path)
}

#[test]
fn the_history_tells_commands_and_what_they_did() {
    let (_home, session, path) = done();
    let plain = session.ok("zpool", &["history", "tank"]).unwrap().stdout;
    let commands: Vec<&str> = plain.lines().filter_map(|l| l.split_once(' ').map(|(_, rest)| rest)).collect();
    assert_eq!(commands[1], format!("zpool create -f -O mountpoint=none -o comment=mine tank {path}"), "{plain}");
    assert!(commands.contains(&"zfs create -o atime=off tank/a"), "{plain}");
    assert_eq!(plain.matches("zpool create").count(), 1, "{plain}");
    let long = session.ok("zpool", &["history", "-l", "tank"]).unwrap().stdout;
    let who = format!("[user {} (", rustix::process::geteuid().as_raw());
    let all = long.lines().filter(|l| l.contains(" zfs ") || l.contains(" zpool "));
    assert!(all.clone().count() > 10 && all.into_iter().all(|l| l.contains(&who) && l.contains(") on ")), "{long}");
    let internal = session.ok("zpool", &["history", "-i", "tank"]).unwrap().stdout;
    for what in [
        "] create tank/a (",
        "] set tank/a (",
        "] snapshot tank/a@s (",
        "] clone tank/b (",
        ") origin=tank/a@s (",
        "] rename tank/a@s (",
        ") -> @t",
        "] rename tank/b (",
        ") -> tank/c",
        ") quota=1073741824",
        "] inherit tank/a (",
        "] hold tank/a@t (",
        ") tag=tag temp=0 refs=1",
        ") tag=tag refs=0",
        "] destroy tank/c (",
        "] scan setup func=1 mintxg=0 maxtxg=",
        "] scan done errors=0",
    ] {
        assert!(internal.contains(what), "{what}:\n{internal}");
    }
    session.ok("zpool", &["export", "tank"]).unwrap();
    session.finish().unwrap();
}

#[test]
fn events_tell_what_happens() {
    let (_home, session, _) = done();
    let events = session.ok("zpool", &["events", "-H"]).unwrap().stdout;
    for class in ["pool_create", "history_event", "scrub_start", "scrub_finish"] {
        assert!(events.contains(&format!("sysevent.fs.zfs.{class}")), "{class}:\n{events}");
    }
    let verbose = session.ok("zpool", &["events", "-v", "tank"]).unwrap().stdout;
    for line in [
        "pool = \"tank\"",
        "history_hostname = ",
        "history_dsname = \"tank/a@s\"",
        "history_internal_name = \"snapshot\"",
        "history_command = \"zfs set quota=1G tank/a\"",
        "history_txg = 0x",
        "history_time = 0x",
    ] {
        assert!(verbose.contains(line), "{line}:\n{verbose}");
    }
    session.ok("zpool", &["export", "tank"]).unwrap();
    let events = session.ok("zpool", &["events", "-H"]).unwrap().stdout;
    assert!(events.contains("sysevent.fs.zfs.pool_export"), "{events}");
    session.finish().unwrap();
}
