//! What the programs of this crate share: a session on the real standard streams.

use std::io::{BufWriter, Write};
use uzfs_client::connect;
use uzfs_client::session::Session;

/// Runs `body` in a session on this process's streams and environment and ends the process with its
/// exit code.
pub fn with_session(body: impl FnOnce(&mut Session, &[String]) -> i32) -> ! {
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut err = std::io::stderr().lock();
    let code = {
        let variables = Box::new(|name: &str| std::env::var(name).ok());
        let mut session = Session::new(&mut out, &mut err, variables, Box::new(connect::connect));
        body(&mut session, &args)
    };
    // A closed pipe is no reason to fail: whoever reads has seen enough.
    let _ = out.flush();
    std::process::exit(code)
}
