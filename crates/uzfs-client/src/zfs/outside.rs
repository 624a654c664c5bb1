//! Mounting through the system's `mount`, where the daemon cannot mount itself.
//!
//! On macOS a mount is a process of the FSKit extension. Whoever mounts asks the daemon for a ticket (`Publish`), a file
//! that stands for one dataset, and calls `/sbin/mount -F -t zfs TICKET DIR`. macOS lets only the user who enabled the
//! extension do that, so root asks the user's agent (`MountByAgent`), which is this program with the hidden subcommand
//! `zfs agent`. Unmounting is `umount`, which root may call for everybody.
//!
//! The same code runs everywhere: `UZFS_MOUNT` names another program, with the arguments of macOS's `mount`, or says
//! `agent`; the tests use it with the stand-in for FSKit. What may be mounted, in which order and with which words it is
//! refused, is decided before, in one place for all ways.

use super::mount::{self, How};
use crate::session::{Run, Session, Stop, putln};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use uzfs_proto::{
    Empty, Failure, FailureCode, ItemResult, MountArgs, MountEntry, MountItem, MountTask, PublishArgs,
    ReportMountsArgs, TicketItem, UnloadKeyArgs, UnmountArgs, method,
};

/// How long the front end may take to say goodbye after its mount is gone.
const GOODBYE: Duration = Duration::from_secs(20);
/// Time between two looks, and before an agent looks for the daemon again.
const LOOK: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_secs(5);

/// Who mounts.
#[derive(Debug, PartialEq, Eq)]
pub enum By {
    /// The daemon.
    Daemon,
    /// This program of the system, called here.
    Program(String),
    /// The agent of a user.
    Agent,
}

/// Who mounts for this session.
pub fn by(session: &Session) -> By {
    choose(cfg!(target_os = "macos"), crate::connect::euid() == 0, session.variable("UZFS_MOUNT"))
}

fn choose(mac: bool, root: bool, variable: Option<String>) -> By {
    match variable.as_deref() {
        Some("agent") => By::Agent,
        Some(program) if !program.is_empty() => By::Program(program.to_owned()),
        _ if mac && root => By::Agent,
        _ if mac => By::Program("/sbin/mount".into()),
        _ => By::Daemon,
    }
}

/// Makes a mount point ready.
fn prepare(item: &MountItem, create: bool) -> Result<(), Failure> {
    let place = Path::new(&item.mountpoint);
    let invalid = |e: std::io::Error| {
        let text = format!("{}: {}", place.display(), crate::os_sentence(&e));
        Failure::new(FailureCode::MountpointInvalid, text).about(item.dataset.clone())
    };
    if create {
        std::fs::create_dir_all(place).map_err(invalid)?;
    }
    let empty = std::fs::read_dir(place).map_err(invalid)?.next().is_none();
    if !empty && !item.overlay {
        return Err(Failure::new(FailureCode::MountpointNotEmpty, "directory is not empty").about(item.dataset.clone()));
    }
    Ok(())
}

/// Mounts a dataset. `ticket` publishes it, `run` calls the system's `mount` with a ticket, a directory and options, and
/// gives what it complains about.
fn mount_one(
    item: &MountItem,
    create: bool,
    ticket: impl FnOnce() -> Result<Result<String, Failure>, Stop>,
    run: impl FnOnce(&str, &str, &[String]) -> Result<(), String>,
) -> Result<ItemResult, Stop> {
    let mut done = prepare(item, create);
    if done.is_ok() {
        done = match ticket()? {
            Ok(ticket) => run(&ticket, &item.mountpoint, &item.options)
                .map_err(|why| Failure::new(FailureCode::MountFailed, why).about(item.dataset.clone())),
            Err(failure) => Err(failure),
        };
    }
    Ok(ItemResult { subject: item.dataset.clone(), failure: done.err() })
}

/// Calls a program and waits; what it complains about if it fails.
fn call(program: &str, args: &[&str]) -> Result<(), String> {
    let out = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).output();
    let out = out.map_err(|e| format!("{program}: {}", crate::os_sentence(&e)))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(if said.is_empty() { format!("{program}: {}", out.status) } else { said })
}

/// Calls the system's `mount`.
fn run_mount(program: &str, ticket: &str, place: &str, options: &[String]) -> Result<(), String> {
    let options = options.join(",");
    let mut args = vec!["-F", "-t", "zfs"];
    if !options.is_empty() {
        args.extend(["-o", &options]);
    }
    args.extend([ticket, place]);
    call(program, &args)
}

/// Mounts datasets by `program`, in the order given.
pub fn mount_items(session: &mut Session, program: &str, args: &MountArgs) -> Result<Vec<ItemResult>, Stop> {
    let mut results = Vec::with_capacity(args.items.len());
    for item in &args.items {
        let mountpoint = Some(item.mountpoint.clone());
        let ask = PublishArgs { dataset: item.dataset.clone(), uid: None, mountpoint };
        let ticket = || Ok(session.try_call::<method::Publish>(&ask)?.map(|reply| reply.ticket));
        results.push(mount_one(item, args.create, ticket, |t, place, o| run_mount(program, t, place, o))?);
    }
    Ok(results)
}

/// The system's `umount`.
fn umount_program() -> &'static str {
    if cfg!(target_os = "macos") { "/sbin/umount" } else { "umount" }
}

/// Ends the mount of a front end, and waits until the daemon heard of it.
pub fn unmount(session: &mut Session, entry: &MountEntry, ask: &UnmountArgs) -> Result<ItemResult, Stop> {
    let result = |failure| ItemResult { subject: entry.dataset.clone(), failure };
    let mut args = vec![entry.mountpoint.as_str()];
    if ask.force {
        args.insert(0, "-f");
    }
    if let Err(why) = call(umount_program(), &args) {
        let busy = why.contains("busy");
        let code = if busy { FailureCode::Busy } else { FailureCode::MountFailed };
        return Ok(result(Some(Failure::new(code, why).about(entry.dataset.clone()))));
    }
    let end = Instant::now() + GOODBYE;
    while mount::mounts(session)?.iter().any(|m| m.frontend && m.dataset == entry.dataset) {
        if Instant::now() > end {
            let text = "its front end does not end";
            return Ok(result(Some(Failure::new(FailureCode::Busy, text).about(entry.dataset.clone()))));
        }
        std::thread::sleep(LOOK);
    }
    let mut failure = None;
    if ask.unload_keys {
        let unloaded = session.try_call::<method::UnloadKey>(&UnloadKeyArgs { dataset: entry.dataset.clone() })?;
        // Only the root of an encryption has a key of its own.
        let other = |f: &Failure| matches!(f.code, FailureCode::NotEncrypted | FailureCode::NotEncryptionRoot);
        failure = unloaded.err().filter(|f| !other(f));
    }
    Ok(result(failure))
}

/// Does one task of an agent.
fn perform(task: &MountTask, mut run: impl FnMut(&str, &str, &[String]) -> Result<(), String>) -> Vec<ItemResult> {
    let one = |t: &TicketItem| mount_one(&t.item, task.create, || Ok(Ok(t.ticket.clone())), &mut run).ok();
    task.items.iter().filter_map(one).collect()
}

/// `zfs agent`: mounts for root in the name of this user until it is ended. Everything that mounts by itself is mounted
/// first, because pools may be open already. A daemon that is gone is waited for.
pub fn agent(session: &mut Session) -> Run {
    let By::Program(program) = by(session) else {
        putln!(session.err, "zfs agent: it mounts for a user of macOS, and root is none");
        return Ok(1);
    };
    loop {
        // What cannot be mounted is said; there may be more to mount later.
        let _ = mount::mount_all(session, Vec::new(), &How::default());
        if let Ok(Err(failure)) = serve(session, &program)
            && failure.code == FailureCode::PermissionDenied
        {
            return Err(session.fail("zfs agent", &failure));
        }
        session.disconnect();
        std::thread::sleep(LATER);
    }
}

/// Serves until the connection ends.
fn serve(session: &mut Session, program: &str) -> Result<Result<(), Failure>, Stop> {
    session.stream_beside::<method::ServeMounts>(&Empty {}, &mut |session, task| {
        if task.items.is_empty() {
            return true;
        }
        let results = perform(&task, |t, place, options| run_mount(program, t, place, options));
        let told = session.try_call::<method::ReportMounts>(&ReportMountsArgs { id: task.id, results });
        // A connection that says nothing for long is closed.
        session.disconnect();
        told.is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_mounts() {
        let set = |text: &str| Some(text.to_owned());
        assert_eq!(choose(false, true, None), By::Daemon);
        assert_eq!(choose(false, true, set("")), By::Daemon);
        assert_eq!(choose(true, true, None), By::Agent);
        assert_eq!(choose(true, false, None), By::Program("/sbin/mount".into()));
        assert_eq!(choose(false, true, set("agent")), By::Agent);
        assert_eq!(choose(false, true, set("/x/mount")), By::Program("/x/mount".into()));
    }

    #[test]
    fn a_task_makes_directories_and_goes_on_after_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        std::fs::create_dir(dir.path().join("full")).unwrap();
        std::fs::write(dir.path().join("full/file"), b"x").unwrap();
        let item = |name: &str, options: &[&str]| TicketItem {
            ticket: format!("/t/{name}"),
            item: MountItem {
                dataset: format!("tank/{name}"),
                mountpoint: place(name),
                options: options.iter().map(|o| (*o).to_owned()).collect(),
                overlay: false,
            },
        };
        let items = vec![item("full", &[]), item("new/deep", &["ro", "noatime"]), item("bad", &[])];
        let task = MountTask { id: uzfs_proto::U64(1), items, create: true };
        let mut calls = Vec::new();
        let results = perform(&task, |ticket, at, options| {
            calls.push((ticket.to_owned(), at.to_owned(), options.join(",")));
            if ticket.ends_with("bad") { Err("mount: no".into()) } else { Ok(()) }
        });
        let codes: Vec<_> = results.iter().map(|r| r.failure.as_ref().map(|f| f.code)).collect();
        assert_eq!(codes, [Some(FailureCode::MountpointNotEmpty), None, Some(FailureCode::MountFailed)]);
        let deep = ("/t/new/deep".to_owned(), place("new/deep"), "ro,noatime".to_owned());
        assert_eq!(calls, [deep, ("/t/bad".to_owned(), place("bad"), String::new())]);
        assert!(dir.path().join("new/deep").is_dir());
    }
}
