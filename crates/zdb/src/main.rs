//! The program; everything is in the library.

use std::process::ExitCode;
use zdb::out::Out;

fn main() -> ExitCode {
    if let Some(document) = std::env::var("UZFS_GENERATE").ok().and_then(|what| zdb::document::of(&what)) {
        print!("{document}");
        return ExitCode::SUCCESS;
    }
    let argv = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    ExitCode::from(zdb::main_with(&mut Out::stdout(), argv) as u8)
}
