//! A daemon in this process, fed with what OpenZFS's tools printed for real pools, and runs of whole
//! commands against it.

// Each test binary uses a part of this.
#![allow(dead_code, unused_imports)]

mod fake;
mod parse;

pub use fake::Fake;
pub use parse::{load, places};

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use uzfs_client::program::Program;
use uzfs_client::session::Session;
use uzfs_proto::Backend;
use uzfs_proto::client::Connection;

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Times are printed in UTC whatever the machine's zone is.
pub fn utc() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: every test calls this first, and `Once` makes the others wait; nothing else in
        // this process changes or, before this returns, reads the environment.
        unsafe { std::env::set_var("TZ", "UTC0") };
    });
}

/// Runs a command line of `program` against `backend`.
pub fn run(program: &Program, backend: &Arc<dyn Backend>, line: &str) -> Ran {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    run_args(program, backend, &args)
}

/// Runs a command with arguments that may hold blanks.
pub fn run_args(program: &Program, backend: &Arc<dyn Backend>, args: &[String]) -> Ran {
    utc();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let backend = Arc::clone(backend);
    let connect = move || {
        let (ours, theirs) = UnixStream::pair().map_err(|e| e.to_string())?;
        let backend = Arc::clone(&backend);
        std::thread::spawn(move || {
            let _ = uzfs_proto::server::serve_connection(&*backend, &theirs);
        });
        Connection::from_stream(ours).map_err(|e| e.to_string())
    };
    let variables = |name: &str| (name == "ZFS_HOSTID").then(|| "0x1234abcd".to_owned());
    let code = {
        let mut session = Session::new(&mut out, &mut err, Box::new(variables), Box::new(connect));
        program.main(&mut session, args)
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) }
}

/// Compares line by line, so that a failure shows the line and not two walls of text.
pub fn same(what: &str, got: &str, want: &str) {
    for (i, (g, w)) in got.lines().zip(want.lines()).enumerate() {
        assert_eq!(g, w, "{what}: line {}", i + 1);
    }
    assert_eq!(got.lines().count(), want.lines().count(), "{what}: number of lines\n{got}");
    assert_eq!(got, want, "{what}: line ends");
}
