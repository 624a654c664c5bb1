//! The program `zfs`; as `zfs agent` the mount agent of a user on macOS.

use uzfs_client::session::Stop;
use uzfs_client::zfs;

fn main() {
    uzfs_cli::with_session(|session, args| match args {
        [only] if only == "agent" => match zfs::outside::agent(session) {
            Ok(code) | Err(Stop::Exit(code)) => code,
            Err(Stop::Usage(_)) => 2,
        },
        _ => zfs::PROGRAM.main(session, args),
    })
}
