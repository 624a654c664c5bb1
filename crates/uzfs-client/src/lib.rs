//! The tools `zpool` and `zfs` as a library: subcommand and property tables, the client of the
//! daemon's contract, and all printing, as text and as JSON.
//!
//! Programs are [`zpool::PROGRAM`] and [`zfs::PROGRAM`]; each runs in a [`session::Session`], which
//! holds its output and its connection, so that tests run whole commands in-process against a fake
//! daemon. The crate knows the contract and nothing of the engine: what it prints, it was sent.
//!
//! Output, exit codes and sentences are those of OpenZFS 2.3, because scripts read them.

mod columns;
pub mod complete;
pub mod connect;
pub mod getopt;
mod getprint;
mod hostid;
mod json;
pub mod man;
pub mod nicenum;
pub mod program;
pub mod props;
mod sentence;
pub mod session;
mod time;
mod who;
pub mod zfs;
pub mod zpool;

const MOUNT_USAGE: &str = "usage: mount.zfs [-sfnvh] [-o options] <dataset> <mountpoint>";

/// The program `mount.zfs`: mounts a dataset with a legacy mount point, or a snapshot.
pub fn mount_helper(session: &mut session::Session, args: &[String]) -> i32 {
    let parsed = match getopt::parse(&MOUNT_HELPER, args) {
        Ok(parsed) => parsed,
        Err(why) => {
            session::putln!(session.err, "{why}\n{MOUNT_USAGE}");
            return 1;
        }
    };
    let [dataset, place] = parsed.operands.as_slice() else {
        session::putln!(session.err, "{MOUNT_USAGE}");
        return 1;
    };
    if parsed.has('f') {
        return 0;
    }
    let options = parsed.values('o').flat_map(|o| o.split(',')).map(str::to_owned).collect();
    match zfs::mount::helper(session, dataset, place, options) {
        Ok(code) | Err(session::Stop::Exit(code)) => code,
        Err(session::Stop::Usage(why)) => {
            session::putln!(session.err, "{why}\n{MOUNT_USAGE}");
            1
        }
    }
}

const MOUNT_HELPER: getopt::Command = getopt::Command {
    name: "mount.zfs",
    aliases: &[],
    about: "Mounts a ZFS file system.",
    usage: &["[-sfnvh] [-o options] <dataset> <mountpoint>"],
    flags: &[
        getopt::switch('s', "Ignore unknown options."),
        getopt::switch('f', "Check only."),
        getopt::switch('n', "Do not write to /etc/mtab."),
        getopt::switch('v', "Say what is done."),
        getopt::switch('h', "Show the usage."),
        getopt::option('o', "options", "Mount options."),
    ],
    tells_missing: true,
    operands: getopt::Hint::None,
    ready: true,
};

/// A system error as the C library says it, without Rust's error number.
fn os_sentence(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}
