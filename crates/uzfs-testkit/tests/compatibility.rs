//! `docs/COMPATIBILITY.md` cannot lie: every row of its table of subcommands is run.

use std::process::Command;
use std::time::Duration;
use uzfs_testkit::{paths, process};

#[test]
fn subcommands_are_as_documented() {
    let text = std::fs::read_to_string(paths::repository().join("docs/COMPATIBILITY.md")).expect("the document");
    let mut wrong = Vec::new();
    let mut rows = 0;
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, program @ ("zpool" | "zfs"), name, state, _] = cells[..] else { continue };
        rows += 1;
        // No daemon is needed: an argument nobody has is refused before anything else is done.
        let mut command = Command::new(paths::program(program));
        command.args([name, "-\u{1}"]).env("UZFS_NO_AUTOSTART", "1").env("UZFS_SOCKET", "/nonexistent/uzfs");
        let out = process::run(&mut command, Duration::from_secs(20)).expect("the program runs");
        let absent = out.stderr.contains("not ") && out.stderr.contains("yet");
        if out.code != Some(2) && name != "version" || absent != (state == "not yet") {
            wrong.push(format!("{program} {name} is said to be '{state}': {out}"));
        }
    }
    assert!(rows > 20, "the table was not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
