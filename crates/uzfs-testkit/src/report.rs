//! Collecting what is wrong, so that one run shows everything and not only the first difference.

/// Lines shown of one kind of problem.
const SHOWN: usize = 12;

/// What is printed differently from OpenZFS and is not mended yet: subject, tab, kind of problem. Only how tools print
/// may stand here, never files, volumes or space.
const KNOWN: &str = include_str!("../known-differences.txt");

/// Problems of one test, by kind.
#[derive(Default)]
pub struct Report {
    kinds: Vec<(String, Vec<String>)>,
}

impl Report {
    /// Notes a problem.
    pub fn add(&mut self, kind: &str, problem: impl Into<String>) {
        let problem = problem.into();
        match self.kinds.iter_mut().find(|(k, _)| k == kind) {
            Some((_, list)) => list.push(problem),
            None => self.kinds.push((kind.to_owned(), vec![problem])),
        }
    }

    /// Notes the error of a step and drops its value.
    pub fn step<T>(&mut self, kind: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|e| self.add(kind, e)).ok()
    }

    /// Notes many problems of one kind.
    pub fn extend(&mut self, kind: &str, problems: impl IntoIterator<Item = String>) {
        for problem in problems {
            self.add(kind, problem);
        }
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// As [`Report::finish`], but what `known-differences.txt` lists for `subject` is only printed. A listed difference
    /// that is gone is a failure too, so that the list can only shrink.
    pub fn finish_for(mut self, subject: &str) -> Result<(), String> {
        let listed: Vec<&str> = KNOWN
            .lines()
            .filter_map(|l| l.split_once('\t').filter(|(s, _)| *s == subject).map(|(_, kind)| kind))
            .collect();
        for kind in listed {
            match self.kinds.iter().position(|(k, _)| k == kind) {
                None => self.add(kind, "no longer differs: take the line out of known-differences.txt"),
                Some(at) => {
                    let (_, problems) = self.kinds.remove(at);
                    line(&format!("KNOWN DIFFERENCE {subject}: {kind}: {}", problems.join("; ")));
                }
            }
        }
        self.finish()
    }

    /// Success, or everything that was noted.
    pub fn finish(self) -> Result<(), String> {
        if self.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for (kind, list) in &self.kinds {
            text.push_str(&format!("{kind}: {} wrong\n", list.len()));
            for line in list.iter().take(SHOWN) {
                text.push_str(&format!("  {}\n", line.replace('\n', "\n  ")));
            }
            if list.len() > SHOWN {
                text.push_str(&format!("  ... and {} more\n", list.len() - SHOWN));
            }
        }
        Err(text)
    }
}

/// Appends a line about a pool to the file that `UZFS_REPORT` names, and prints it.
pub fn line(text: &str) {
    use std::io::Write;
    println!("{text}");
    if let Some(path) = std::env::var_os("UZFS_REPORT")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        // The figures are for the reader; a test does not fail because they cannot be kept.
        let _ = file.write_all(format!("{text}\n").as_bytes());
    }
}
