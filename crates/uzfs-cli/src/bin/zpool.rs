//! The program `zpool`.

fn main() {
    uzfs_cli::with_session(|session, args| uzfs_client::zpool::PROGRAM.main(session, args))
}
