//! Style as a test: what a reviewer should not have to look for.
//!
//! Checked: length of files and functions, arrows between crates, a theory header on every source
//! file, no direct use of files, clocks and threads in the engine, no unfinished code, no paths of one
//! machine. Lengths are ratchets: `crates/xtask/ratchet.txt` lists what was too long when it was
//! written down; an entry may shrink and must never grow.
//!
//! The source is not parsed. `source::strip` blanks comments and strings, and braces of what is left
//! are counted, which is exact enough for code that rustfmt has laid out.

mod rules;
mod source;

use source::Source;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Longest file, in lines.
const FILE_LINES: usize = 800;
/// Longest function, in lines from `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;

/// Runs every check over the files that git knows of.
pub fn run(root: &Path, update: bool) -> Result<(), String> {
    let files = tracked(root)?;
    let mut problems = Vec::new();
    let mut lengths = BTreeMap::new();
    for path in &files {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else {
            continue; // Deleted but still in the index, or not text.
        };
        rules::machine_paths(path, &text, &mut problems);
        if path.ends_with(".rs") {
            let source = Source::new(path, &text);
            rules::source(&source, &mut problems);
            measure(&source, &mut lengths);
        }
        if path.starts_with("crates/") && path.ends_with("/Cargo.toml") && path.matches('/').count() == 2 {
            rules::arrows(path, &text, &mut problems);
        }
    }
    ratchet(root, &lengths, update, &mut problems)?;
    if problems.is_empty() {
        println!("tidy: {} files are in order", files.len());
        return Ok(());
    }
    problems.sort();
    Err(format!("{}\ntidy: {} problems", problems.join("\n"), problems.len()))
}

/// Paths of the files under version control and of new ones that are not ignored.
fn tracked(root: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cannot run git: {e}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut files: Vec<String> =
        output.stdout.split(|b| *b == 0).filter(|p| !p.is_empty()).map(|p| String::from_utf8_lossy(p).into()).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// Notes what is longer than the limits.
fn measure(source: &Source<'_>, lengths: &mut BTreeMap<String, usize>) {
    let lines = source.lines();
    if lines > FILE_LINES {
        lengths.insert(format!("file {}", source.path), lines);
    }
    for function in source.functions() {
        if function.lines > FUNCTION_LINES {
            let key = format!("fn {} {}", source.path, function.name);
            let longest = lengths.entry(key).or_default();
            *longest = function.lines.max(*longest);
        }
    }
}

/// Compares lengths with the recorded ones.
fn ratchet(
    root: &Path,
    lengths: &BTreeMap<String, usize>,
    update: bool,
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let path = root.join("crates/xtask/ratchet.txt");
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    let mut old = BTreeMap::new();
    for line in recorded.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let (key, n) = line.rsplit_once(' ').ok_or_else(|| format!("ratchet.txt: bad line '{line}'"))?;
        old.insert(key.to_owned(), n.parse::<usize>().map_err(|e| format!("ratchet.txt: {line}: {e}"))?);
    }
    for (key, n) in lengths {
        match old.get(key) {
            Some(was) if n <= was => {}
            Some(was) => problems.push(format!("{key}: grew from {was} to {n} lines")),
            None => problems.push(format!("{key}: {n} lines (limit {FILE_LINES} a file, {FUNCTION_LINES} a function)")),
        }
    }
    let lower: BTreeMap<&String, usize> =
        old.iter().filter_map(|(k, was)| lengths.get(k).map(|n| (k, *n.min(was)))).collect();
    let same = lower.len() == old.len() && old.iter().all(|(k, n)| lower.get(k) == Some(n));
    if update && !same {
        let mut text = String::from(
            "# What is too long, and how long it may be. Entries shrink and go; new ones need a reason.\n",
        );
        for (key, n) in &lower {
            text.push_str(&format!("{key} {n}\n"));
        }
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    } else if !same {
        problems.push("ratchet.txt: something became shorter: run `cargo xtask tidy --update`".to_owned());
    }
    Ok(())
}
