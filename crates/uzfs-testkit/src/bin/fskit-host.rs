//! `fskit-host [-F] [-t zfs] RESOURCE DIR`: mounts through the extension's module as macOS's mount(8) would.
//!
//! RESOURCE is a ticket, a device or image file, or the name of a dataset, which is then published by the daemon at
//! `UZFS_SOCKET` first. Every step of the life cycle is printed. It stays until DIR is unmounted or its standard input
//! ends (with `--stay` only until it is unmounted), and takes everything down in order. A broken rule of FSKit is an error: exit code 3.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use uzfs_fskit::Module;
use uzfs_fskit::api::{ROOT_ID, Resource, System};
use uzfs_testkit::fskit_host::{Fskitd, ImageFile, Problem, StandIn, mount};

/// Prints a step; whoever started this program may be gone, which is no reason to stop.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).filter(|a| a != "-F").collect();
    let all = args.len();
    args.retain(|a| a != "--stay");
    let stay = args.len() < all;
    let plain: Vec<&str> = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["-t", "zfs", resource, dir] | [resource, dir] => vec![resource, dir],
        _ => {
            eprintln!("usage: fskit-host [-F] [-t zfs] TICKET|DEVICE|DATASET DIR");
            return ExitCode::from(2);
        }
    };
    match run(plain[0], Path::new(plain[1]), stay) {
        Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
        Ok(broken) => {
            let text: String = broken.iter().map(|p| format!("fskit-host: {p}\n")).collect();
            complain(&text);
            ExitCode::from(3)
        }
        Err(why) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "fskit-host: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong; into the file that `UZFS_FSKIT_PROBLEMS` names where nobody reads this program's output.
fn complain(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
    if let Some(path) = std::env::var_os("UZFS_FSKIT_PROBLEMS") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        let _ = file.and_then(|mut f| f.write_all(text.as_bytes()));
    }
}

/// The socket of the daemon.
fn socket() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    uzfs_proto::place::socket_path(uid, |name| std::env::var(name).ok())
}

/// What FSKit would be given for a name on the command line.
fn resource(name: &str) -> Result<Resource, String> {
    let path = Path::new(name);
    if !path.exists() || path.is_dir() {
        let args = uzfs_proto::PublishArgs { dataset: name.to_owned(), uid: None, mountpoint: None };
        let at = socket();
        let mut daemon = uzfs_proto::client::Connection::open(&at).map_err(|e| format!("{}: {e}", at.display()))?;
        let reply = daemon.call::<uzfs_proto::method::Publish>(&args).map_err(|e| format!("{name}: {e}"))?;
        say!("publish {name}: {}", reply.ticket);
        return Ok(Resource::Path(reply.ticket.into()));
    }
    if path.extension().is_some_and(|e| e == "uzfs") {
        return Ok(Resource::Path(path.to_owned()));
    }
    ImageFile::open(path).map_err(|e| format!("{name}: {e}"))
}

fn run(name: &str, dir: &Path, stay: bool) -> Result<Vec<Problem>, String> {
    let said = |p: Problem| p.to_string();
    let tickets = vec![socket().with_extension("tickets").join("daemon.uzfs")];
    let host = StandIn::new(System::V27, tickets);
    let fskitd = Arc::new(Fskitd::new(Module::new(host.clone()), host.clone(), resource(name)?));
    let probed = fskitd.probe().map_err(said)?;
    let id: String = probed.container.iter().map(|b| format!("{b:02x}")).collect();
    say!("probe: {:?}, {}, container {id}", probed.result, probed.name);
    fskitd.load().map_err(said)?;
    say!("load: container {:?}, volume has the same identifier", host.status().state);
    fskitd.check().map_err(said)?.iter().for_each(|line| say!("check: {line}"));
    fskitd.activate().map_err(said)?;
    say!("activate: the root is item {ROOT_ID}");
    fskitd.mount().map_err(said)?;
    let mounted = mount::mount(fskitd.clone(), dir, name).map_err(|e| format!("{}: {e}", dir.display()))?;
    say!("mounted on {}", dir.display());
    if !stay {
        let point = dir.to_owned();
        std::thread::spawn(move || {
            let mut line = String::new();
            // Whoever started this program ends it by closing its input.
            while std::io::stdin().read_line(&mut line).is_ok_and(|n| n > 0) {}
            let _ = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
        });
    }
    let broken = mounted.wait().map_err(|e| format!("{}: {e}", dir.display()))?;
    fskitd.take_down().map_err(said)?;
    say!("unmount, reclaim, deactivate, unload: {} operations, every item given back", fskitd.calls());
    Ok(broken)
}
