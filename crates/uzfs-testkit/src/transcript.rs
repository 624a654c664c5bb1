//! What OpenZFS's own tools printed after a read-only import of the same bytes.
//!
//! `tests/golden/openzfs-readonly.tar.zst` holds one file a pool. A command starts with `$ `, then comes
//! `exit N`, then its lines: `1|` of standard output, `2|` of standard error. Lines with `# ` are remarks.
//! The pools lay in `/host/NAME` and were mounted below `/altroot`; both are replaced before comparing.
//! Time zone UTC, locale C.

use crate::session::Session;
use crate::{archive, paths, tables, volatile};
use std::path::{Path, PathBuf};

/// One command and what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The remark above it: a line that starts with `# `.
    pub remark: String,
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
    let mut remark = String::new();
    for (number, row) in text.lines().enumerate() {
        if let Some(line) = row.strip_prefix("$ ") {
            steps.push(Step { line: line.to_owned(), remark: remark.clone(), ..Step::default() });
            continue;
        }
        let bad = || format!("line {}: {row}", number + 1);
        if let Some(text) = row.strip_prefix("# ") {
            text.clone_into(&mut remark);
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

/// The folder of transcripts.
pub fn folder() -> Result<PathBuf, String> {
    archive::unpack(&paths::golden().join("openzfs-readonly.tar.zst"), &paths::cache())
}

/// The transcript of that name; none if there is none.
pub fn read(name: &str) -> Result<Option<Vec<Step>>, String> {
    match std::fs::read_to_string(folder()?.join(name)) {
        Ok(text) => parse(&text).map(Some).map_err(|e| format!("transcript {name}: {e}")),
        Err(_) => Ok(None),
    }
}

/// Whether a step only looks.
pub fn is_query(step: &Step) -> bool {
    let query = ["zpool list", "zpool status", "zpool get", "zpool history", "zfs list", "zfs get"];
    step.line == "zfs mount" || query.iter().any(|q| step.line.starts_with(q))
}

/// Puts the places of this run instead of those of the recording: devices that are there, the folder
/// itself, the mounts. Paths of keys and of missing devices are remembered in the pool and stay.
pub fn relocate(text: &str, pool: &str, devices: &Path, root: &Path) -> String {
    let recorded = format!("/host/{pool}");
    let mut parts = text.split(&recorded);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name: String = part.chars().skip(1).take_while(char::is_ascii_alphanumeric).collect();
        let device = part.starts_with("/d") && devices.join(name).is_file();
        let there = device || !part.starts_with(|c: char| c == '/' || c.is_ascii_alphanumeric());
        out.push_str(if there { devices.to_str().unwrap_or_default() } else { &recorded });
        out.push_str(part);
    }
    out.replace("/altroot", &root.to_string_lossy())
}

/// A line with runs of blanks made one: column widths depend on the length of the devices' paths.
pub fn squeeze(line: &str) -> String {
    let body = line.trim_start_matches([' ', '\t']);
    let indent = &line[..line.len() - body.len()];
    let words: Vec<&str> = body.split(' ').filter(|w| !w.is_empty()).collect();
    format!("{indent}{}", words.join(" "))
}

/// Runs a step and compares all it does with the record. `place` puts this run's places into a text.
pub fn replay(session: &Session, step: &Step, place: &dyn Fn(&str) -> String) -> Result<Vec<String>, String> {
    let line = place(&step.line);
    let words: Vec<&str> = line.split(' ').collect();
    let out = session.run(words[0], &words[1..])?;
    if out.code != Some(step.code) {
        return Ok(vec![format!("exit code must be {}: {out}", step.code)]);
    }
    let keep = |text: &str| -> Vec<String> {
        // The usage text is OpenZFS's own; ours comes from our table.
        let lines = text.lines().take_while(|l| !l.starts_with("usage:") && !l.starts_with("Usage:"));
        let mut kept: Vec<String> = lines.filter(|l| volatile::compared(&step.line, l)).map(squeeze).collect();
        // In the order in which several threads mounted them, or in which folders list their files.
        if step.line == "zfs mount" || step.line.matches(" -d ").count() > 1 {
            kept.sort();
        }
        kept
    };
    let mut wrong = tables::compare_lines(&keep(&place(&step.stdout)), &keep(&out.stdout));
    wrong.extend(tables::compare_lines(&keep(&place(&step.stderr)), &keep(&out.stderr)));
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        let steps = parse("# r\n$ zpool list x\nexit 1\n2|cannot open\n$ a\nexit 0\n1|b\n1|\n").unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0].code, steps[0].stderr.as_str()), (1, "cannot open\n"));
        assert_eq!((steps[1].stdout.as_str(), steps[1].remark.as_str()), ("b\n\n", "r"));
        assert!(parse("nonsense").is_err());
    }

    #[test]
    fn blanks_are_squeezed_but_not_the_indent() {
        assert_eq!(squeeze("\t  a   b  c"), "\t  a b c");
    }
}
