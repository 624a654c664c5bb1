//! `fskit-mount -F -t zfs [-o OPTIONS] TICKET DIR`: stands for macOS's `/sbin/mount`.
//!
//! Starts `fskit-host`, which stays as a process of the extension would, and ends when the volume is mounted or could not
//! be. Options are taken and not used: FSKit gives modules none either.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use uzfs_testkit::paths;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (ticket, dir) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["-F", "-t", "zfs", ticket, dir] | ["-F", "-t", "zfs", "-o", _, ticket, dir] => (ticket, dir),
        _ => {
            eprintln!("usage: fskit-mount -F -t zfs [-o options] ticket directory");
            return ExitCode::from(64);
        }
    };
    match mount(ticket, dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("mount: {why}");
            ExitCode::FAILURE
        }
    }
}

fn mount(ticket: &str, dir: &str) -> Result<(), String> {
    let mut host = Command::new(paths::program("fskit-host"));
    host.args(["--stay", ticket, dir]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // It outlives this program and its terminal.
    let mut host = host.process_group(0).spawn().map_err(|e| format!("fskit-host: {e}"))?;
    let (out, err) = (host.stdout.take().ok_or("no output")?, host.stderr.take().ok_or("no output")?);
    if BufReader::new(out).lines().map_while(Result::ok).any(|line| line.starts_with("mounted on ")) {
        return Ok(());
    }
    let mut why = String::new();
    let _ = BufReader::new(err).read_to_string(&mut why);
    let _ = host.wait();
    Err(why.trim().trim_start_matches("fskit-host: ").to_owned())
}
