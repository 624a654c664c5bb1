//! Commands that change pools, with what OpenZFS 2.3.2 printed for them: sentences, exit codes and what is there afterwards.
//!
//! `tests/golden/commands/*.txt` were recorded in a machine with OpenZFS's kernel module: a line `$ COMMAND`, what went to
//! standard error and then to standard output, and the exit code in brackets. The devices are `/tmp/u/d0` to `d9` of 256 MiB
//! and `small` of 1 MiB, pools are mounted below `/tmp/m`. Each command works on what those before it left.

use std::fs::{self, File};
use std::path::Path;
use uzfs_testkit::session::Session;
use uzfs_testkit::{paths, report};

const NAMES: &str = "names-and-values.txt";
const LIVES: &str = "lives-of-pools.txt";
const VERSIONS: &str = "versions-of-file-systems.txt";

/// Commands whose output differs, and why. One that never does any more fails the test, so that the list can only shrink.
const DIFFERENT: [(&str, &str, &str); 10] = [
    (NAMES, "zpool attach t /tmp/u/d3 /tmp/u/small", "the place is looked at before the size"),
    (NAMES, "zpool labelclear /tmp/u/d0", "a detached device has no label here, and an empty one there"),
    (NAMES, "zpool labelclear -f /tmp/u/d0", "the same"),
    (NAMES, "zfs create t/ü", "OpenZFS prints half a character"),
    (NAMES, "zfs create -o encryption=on t/z", "encrypted datasets are not made yet"),
    (NAMES, "zfs create -o sharenfs=on t/nfs", "nothing is shared yet"),
    (LIVES, "zpool remove u /tmp/u/d4", "devices are not removed yet"),
    (LIVES, "zpool get -H -o value comment,autoreplace u", "an empty comment is none"),
    (LIVES, "zfs set recordsize=1M old", "another sentence for what lacks a feature"),
    (LIVES, "zpool import -d /tmp/u", "the spare that was not removed; a device without a label counts as missing"),
];

struct Step {
    command: String,
    lines: Vec<String>,
}

fn load(path: &Path) -> Vec<Step> {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), lines: Vec::new() }),
            (None, Some(step)) => step.lines.push(line.to_owned()),
            (None, None) => panic!("{}: a line before the first command", path.display()),
        }
    }
    steps
}

/// What does not depend on the moment, the length of paths or the order in which a table happens to be read.
fn settled(command: &str, lines: &[String]) -> Vec<String> {
    let squeezed = |line: &String| {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.split_once(": ") {
            Some(("scan", rest)) => format!("scan: {}", rest.split(' ').next().unwrap_or_default()),
            Some(("id", _)) => "id".to_owned(),
            _ => line,
        }
    };
    // The last line may have an exit code without a line of its own.
    let mut out: Vec<String> = lines.iter().map(squeezed).filter(|l| !l.is_empty()).collect();
    if let Some((text, code)) = out.last().and_then(|l| l.rsplit_once('[')).map(|(t, c)| (t.to_owned(), c.to_owned()))
        && !text.is_empty()
    {
        out.pop();
        out.extend([text, format!("[{code}")]);
    }
    if command.starts_with("zfs destroy") {
        out.sort();
    }
    out
}

fn follow(name: &str) {
    let (root, fuse) = (paths::is_root(), Path::new("/dev/fuse").exists());
    if !root || !fuse {
        return report::line(&format!("SKIPPED the commands of {name}: needs root and FUSE"));
    }
    let session = Session::start().unwrap();
    let (dir, mounts) = (tempfile::tempdir().unwrap(), session.root());
    for n in 0..10 {
        File::create(dir.path().join(format!("d{n}"))).unwrap().set_len(256 << 20).unwrap();
    }
    File::create(dir.path().join("small")).unwrap().set_len(1 << 20).unwrap();
    let places = [("/tmp/u", dir.path().to_string_lossy()), ("/tmp/m", mounts.to_string_lossy())];
    let (mut wrong, mut differ) = (Vec::new(), Vec::new());
    let steps = load(&paths::golden().join("commands").join(name));
    for step in &steps {
        let mut words: Vec<String> = step.command.split(' ').map(str::to_owned).collect();
        for (there, here) in &places {
            words.iter_mut().for_each(|w| *w = w.replace(there, here));
        }
        let args: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let out = session.run(&words[0], &args).unwrap();
        let mut text = format!("{}{}[{}]", out.stderr, out.stdout, out.code.unwrap_or(-1));
        for (there, here) in &places {
            text = text.replace(&**here, there);
        }
        let seen: Vec<String> = text.lines().map(str::to_owned).collect();
        let same = settled(&step.command, &step.lines) == settled(&step.command, &seen);
        if same {
            continue;
        }
        match DIFFERENT.iter().any(|(of, command, _)| *of == name && *command == step.command) {
            true => differ.push(step.command.as_str()),
            false => wrong.push(format!("{}\n  OpenZFS: {:?}\n  here: {seen:?}", step.command, step.lines)),
        }
    }
    let listed = DIFFERENT.iter().filter(|(of, command, _)| *of == name && !differ.contains(command));
    wrong.extend(listed.map(|(_, command, _)| format!("{command}: is listed as different and is the same")));
    session.finish().unwrap();
    assert!(wrong.is_empty(), "{} of {} commands:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}

#[test]
fn names_and_values() {
    follow(NAMES);
}

#[test]
fn lives_of_pools() {
    follow(LIVES);
}

#[test]
fn versions_of_file_systems() {
    follow(VERSIONS);
}
