//! What OpenZFS's own tools printed after a read-only import of the same bytes.
//!
//! `tests/golden/openzfs-readonly.tar.zst` holds one file a pool. A command starts with `$ `, then comes
//! `exit N`, then its lines: `1|` of standard output, `2|` of standard error. The pools lay in
//! `/host/NAME` and were mounted below `/altroot`; both are replaced before comparing. Time zone UTC,
//! locale C.

use std::path::Path;

/// One command and what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The command line.
    pub line: String,
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Reads a transcript.
pub fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, row) in text.lines().enumerate() {
        if let Some(line) = row.strip_prefix("$ ") {
            steps.push(Step { line: line.to_owned(), ..Step::default() });
            continue;
        }
        let bad = || format!("line {}: {row}", number + 1);
        if row.starts_with('#') {
            continue;
        }
        let step = steps.last_mut().ok_or_else(bad)?;
        if let Some(code) = row.strip_prefix("exit ") {
            step.code = code.parse().map_err(|_| bad())?;
        } else if let Some(line) = row.strip_prefix("1|") {
            step.stdout.push_str(line);
            step.stdout.push('\n');
        } else if let Some(line) = row.strip_prefix("2|") {
            step.stderr.push_str(line);
            step.stderr.push('\n');
        } else {
            return Err(bad());
        }
    }
    Ok(steps)
}

/// Puts the places of this run instead of those of the recording.
pub fn relocate(text: &str, pool: &str, devices: &Path, root: &Path) -> String {
    text.replace(&format!("/host/{pool}"), &devices.to_string_lossy()).replace("/altroot", &root.to_string_lossy())
}

/// A line with runs of blanks made one: column widths depend on the length of the devices' paths.
pub fn squeeze(line: &str) -> String {
    let body = line.trim_start_matches([' ', '\t']);
    let indent = &line[..line.len() - body.len()];
    let words: Vec<&str> = body.split(' ').filter(|w| !w.is_empty()).collect();
    format!("{indent}{}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        let steps = parse("$ zpool list x\nexit 1\n2|cannot open\n$ a\nexit 0\n1|b\n1|\n").unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0].code, steps[0].stderr.as_str()), (1, "cannot open\n"));
        assert_eq!(steps[1].stdout, "b\n\n");
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn blanks_are_squeezed_but_not_the_indent() {
        assert_eq!(squeeze("\t  a   b  c"), "\t  a b c");
    }
}
