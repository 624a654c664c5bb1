//! The program `zfs`.

fn main() {
    uzfs_cli::with_session(|session, args| uzfs_client::zfs::PROGRAM.main(session, args))
}
