//! The rules of tidy that look at one file at a time.

use super::source::Source;

/// Crates of the engine, where time, files and threads only come from `zfs-env`.
const ENGINE: [&str; 7] = ["zfs-phys", "zfs-codec", "zfs-zio", "zfs-dmu", "zfs-spa", "zfs-zpl", "zfs-zvol"];

/// What each crate may depend on: the arrows of docs/ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("zfs-phys", &[]),
    ("zfs-codec", &["zfs-phys"]),
    ("zfs-env", &[]),
    ("zfs-zio", &["zfs-phys", "zfs-codec", "zfs-env"]),
    ("zfs-dmu", &["zfs-phys", "zfs-codec", "zfs-env", "zfs-zio"]),
    ("zfs-spa", &["zfs-phys", "zfs-codec", "zfs-env", "zfs-zio", "zfs-dmu"]),
    ("zfs-zpl", &["zfs-phys", "zfs-codec", "zfs-env", "zfs-zio", "zfs-dmu", "zfs-spa"]),
    ("zfs-zvol", &["zfs-phys", "zfs-codec", "zfs-env", "zfs-zio", "zfs-dmu", "zfs-spa"]),
    ("uzfs-fuse", &["zfs-phys", "zfs-env", "zfs-zio", "zfs-zpl"]),
    ("uzfs-fsproto", &[]),
    ("uzfs-fskit", &["zfs-phys", "uzfs-fsproto"]),
    ("uzfs-proto", &[]),
    ("uzfs-client", &["uzfs-proto"]),
    ("uzfs-cli", &["uzfs-proto", "uzfs-client"]),
    (
        "uzfsd",
        &[
            "zfs-phys",
            "zfs-codec",
            "zfs-env",
            "zfs-zio",
            "zfs-dmu",
            "zfs-spa",
            "zfs-zpl",
            "zfs-zvol",
            "uzfs-fuse",
            "uzfs-fsproto",
            "uzfs-proto",
        ],
    ),
    ("zdb", &["zfs-phys", "zfs-codec", "zfs-env", "zfs-zio", "zfs-dmu", "zfs-spa", "zfs-zpl", "zfs-zvol"]),
    (
        "uzfs-testkit",
        &[
            "zfs-phys",
            "zfs-codec",
            "zfs-env",
            "zfs-zio",
            "zfs-dmu",
            "zfs-spa",
            "zfs-zpl",
            "zfs-zvol",
            "uzfs-proto",
            "uzfs-fsproto",
            "uzfs-fskit",
        ],
    ),
    ("ztest", &["zfs-phys", "zfs-env", "zfs-zio", "zfs-dmu", "zfs-spa", "zfs-zpl"]),
    ("xtask", &["uzfs-client"]),
];

/// Rules about source files.
pub fn source(source: &Source<'_>, problems: &mut Vec<String>) {
    header(source, problems);
    for (number, line) in source.code.iter().enumerate() {
        let place = format!("{}:{}", source.path, number + 1);
        for word in ["todo!", "unimplemented!", "dbg!"] {
            if contains_word(line, word) {
                problems.push(format!("{place}: {word}"));
            }
        }
        if !source.test[number] {
            environment(source.path, line, &place, problems);
        }
    }
    for (number, line) in source.text.lines().enumerate() {
        let marker = ["TO", "DO"].concat();
        let unfinished = line.contains("//") && (contains_word(line, &marker) || contains_word(line, "FIXME"));
        if unfinished && !source.path.starts_with("crates/xtask/") {
            problems.push(format!("{}:{}: unfinished work belongs into an issue", source.path, number + 1));
        }
    }
}

/// Every file of the engine and the programs says first what it is for.
fn header(source: &Source<'_>, problems: &mut Vec<String>) {
    let first = source.text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!["));
    if source.path.contains("/src/") && !first.is_some_and(|l| l.starts_with("//!")) {
        problems.push(format!("{}: no `//!` header", source.path));
    }
}

/// The engine takes files, clocks and threads from `zfs-env`, so that tests can simulate them.
fn environment(path: &str, line: &str, place: &str, problems: &mut Vec<String>) {
    let engine = ENGINE.iter().any(|c| path.starts_with(&format!("crates/{c}/src/")));
    if !engine {
        return;
    }
    for module in ["std::fs", "std::thread", "std::net", "std::process", "std::time::Instant", "std::time::SystemTime"]
    {
        if contains_word(line, module) {
            problems.push(format!("{place}: {module} in the engine (use zfs-env)"));
        }
    }
    if path.starts_with("crates/zfs-phys/src/") {
        for call in [".unwrap()", ".expect(", "panic!", "unreachable!"] {
            if line.contains(call) {
                problems.push(format!("{place}: {call} on bytes from disk"));
            }
        }
    }
}

/// Whether `line` has `word` with no letter, digit or underscore on either side.
fn contains_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !part(line[..at].chars().next_back()) && (word.ends_with('!') || !part(line[at + word.len()..].chars().next()))
    })
}

/// Paths that only exist where the author sat.
pub fn machine_paths(path: &str, text: &str, problems: &mut Vec<String>) {
    let prefixes = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/home/", "user"].concat()];
    for (number, line) in text.lines().enumerate() {
        if prefixes.iter().any(|p| contains_path(line, p)) {
            problems.push(format!("{path}:{}: a path of one machine", number + 1));
        }
    }
}

/// Whether an absolute path in `line` starts with `prefix` (not merely holds it further down).
fn contains_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '/'))
    })
}

/// Dependencies between our crates follow the table.
pub fn arrows(path: &str, text: &str, problems: &mut Vec<String>) {
    let name = path.split('/').nth(1).unwrap_or_default();
    let Some((_, allowed)) = ARROWS.iter().find(|(n, _)| *n == name) else {
        problems.push(format!("{path}: the crate is not in tidy's table of arrows"));
        return;
    };
    let mut section = "";
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let normal = section.ends_with("dependencies]") && !section.contains("dev-dependencies");
        let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if normal && ARROWS.iter().any(|(n, _)| *n == dependency) && !allowed.contains(&dependency) {
            problems.push(format!("{path}: {name} must not depend on {dependency}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_arrow_is_found() {
        let mut problems = Vec::new();
        arrows("crates/zfs-zio/Cargo.toml", "[dependencies]\nzfs-phys.workspace = true\n", &mut problems);
        assert!(problems.is_empty());
        arrows("crates/zfs-zio/Cargo.toml", "[dependencies]\nzfs-dmu = { workspace = true }\n", &mut problems);
        assert_eq!(problems, ["crates/zfs-zio/Cargo.toml: zfs-zio must not depend on zfs-dmu"]);
    }

    #[test]
    fn rules_bite() {
        let text =
            "//! x\nfn a() { std::fs::read(x).unwrap(); todo!() }\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        let mut problems = Vec::new();
        source(&Source::new("crates/zfs-phys/src/a.rs", text), &mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
        problems.clear();
        source(&Source::new("crates/zfs-env/src/a.rs", "fn a() {}\n"), &mut problems);
        assert_eq!(problems, ["crates/zfs-env/src/a.rs: no `//!` header"]);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let mut problems = Vec::new();
        machine_paths("a", "see https://x/work/y and target/work/", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        machine_paths("a", &["x = \"/wo", "rk/y\""].concat(), &mut problems);
        assert_eq!(problems.len(), 1);
    }
}
