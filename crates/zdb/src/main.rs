//! The program; everything is in the library.

use std::process::ExitCode;
use zdb::out::Out;

fn main() -> ExitCode {
    let argv = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    ExitCode::from(zdb::main_with(&mut Out::stdout(), argv) as u8)
}
