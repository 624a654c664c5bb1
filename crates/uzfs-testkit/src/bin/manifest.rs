//! `manifest DIR`: prints what the tests see of a tree, a JSON object a file.

use std::path::Path;
use std::process::ExitCode;
use uzfs_testkit::manifest::{Content, walk};

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: manifest DIR");
        return ExitCode::from(2);
    };
    match walk(Path::new(&dir), Content::Hash) {
        Ok(manifest) => {
            for entry in manifest.values() {
                println!("{}", serde_json::Value::Object(entry.clone()));
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
