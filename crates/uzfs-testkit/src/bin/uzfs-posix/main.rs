//! `cargo xtask posix`: other people's judges of POSIX file systems, on a mount of a fresh pool.
//!
//! * pjdfstest, at a fixed commit, fetched with git and compiled with the C compiler of the machine (`cc`); run by
//!   `prove`. What fails must stand in `pjdfstest-exclusions.txt`, with its reason; what stands there must fail.
//! * fsx, the port to Rust, installed by cargo at a fixed version: reads, writes, mappings, truncation, holes, copies, with
//!   several settings, each for the number of operations asked for.
//! * PostgreSQL and SQLite, where they are installed: transactions, with the daemon killed under them again and again.
//! * A project: git, tar, cargo and a compiler at work on the mount.
//!
//! The pool is exported at the end, and judged by OpenZFS's `zdb` where it is installed. Needs root and FUSE.

mod postgres;
mod project;
mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use uzfs_testkit::session::Session;

const USAGE: &str =
    "usage: cargo xtask posix [--ops N] [--seed N] [--tools DIR] [--rounds N] [pjdfstest] [fsx] [project] [postgres] [sqlite]
  --ops N      operations of each run of fsx (250000)
  --seed N     of fsx
  --rounds N   kills under PostgreSQL and SQLite (10)
  --tools DIR  where the judges are kept (target/posix)
";
const JUDGES: [&str; 5] = ["pjdfstest", "fsx", "project", "postgres", "sqlite"];
const PJDFSTEST: (&str, &str) = ("https://github.com/pjd/pjdfstest.git", "85a8aea9e685999ef0540392fd80535f873d7ff7");
const FSX: &str = "0.3.2";
/// Known failures: test file, numbers, reason.
const EXCLUSIONS: &str = include_str!("../../../pjdfstest-exclusions.txt");
/// What Linux has of the calls that pjdfstest can do without.
const CALLS: [&str; 18] = [
    "SYS_SYSMACROS_H",
    "OPENAT",
    "UNLINKAT",
    "MKDIRAT",
    "LINKAT",
    "SYMLINKAT",
    "RENAMEAT",
    "MKFIFOAT",
    "MKNODAT",
    "FCHMODAT",
    "FCHOWNAT",
    "FSTATAT",
    "POSIX_FALLOCATE",
    "UTIMENSAT",
    "READLINKAT",
    "STRUCT_STAT_ST_ATIM",
    "STRUCT_STAT_ST_MTIM",
    "STRUCT_STAT_ST_CTIM",
];
/// Weights of fsx's operations, for all runs.
const WEIGHTS: &str = "[weights]
close_open = 1
invalidate = 0.2
mapread = 10
mapwrite = 10
read = 10
write = 15
truncate = 8
fsync = 0.02
fdatasync = 0.02
punch_hole = 5
sendfile = 3
posix_fadvise = 2
copy_file_range = 5
";
/// Settings of fsx: files of a few blocks, of many, of one; aligned operations; mappings that are left to the kernel.
/// No operation is empty, and aligned runs allocate nothing: fsx would ask for ranges of no length, which POSIX refuses.
const RUNS: [(&str, &str, u32); 4] = [
    ("blocks", "nomsyncafterwrite = true\nflen = 1000000\n[opsize]\nmin = 1\nmax = 100000\n", 3),
    ("small", "nomsyncafterwrite = true\nflen = 100000\n[opsize]\nmin = 1\nmax = 5000\n", 3),
    ("large", "nomsyncafterwrite = true\nflen = 20000000\n[opsize]\nmin = 1\nmax = 300000\n", 3),
    ("aligned", "nomsyncafterwrite = true\nflen = 2097152\n[opsize]\nmax = 262144\nalign = 4096\n", 0),
];

struct Options {
    ops: String,
    seed: String,
    tools: PathBuf,
    rounds: u32,
    judges: BTreeSet<String>,
}

fn options() -> Result<Options, String> {
    let mut out = Options {
        ops: "250000".into(),
        seed: "1".into(),
        tools: std::env::current_dir().map_err(|e| e.to_string())?.join("target/posix"),
        rounds: 10,
        judges: BTreeSet::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(USAGE);
        match arg.as_str() {
            "--ops" => out.ops = value()?,
            "--seed" => out.seed = value()?,
            "--tools" => out.tools = value()?.into(),
            "--rounds" => out.rounds = value()?.parse().map_err(|_| USAGE)?,
            name if JUDGES.contains(&name) => drop(out.judges.insert(arg)),
            _ => return Err(USAGE.into()),
        }
    }
    if out.judges.is_empty() {
        out.judges = JUDGES.map(str::to_owned).into();
    }
    Ok(out)
}

fn main() -> ExitCode {
    match options().and_then(|o| judge(&o)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}", why.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

fn judge(options: &Options) -> Result<(), String> {
    fs::create_dir_all(&options.tools).map_err(|e| format!("{}: {e}", options.tools.display()))?;
    let tests = if options.judges.contains("pjdfstest") { Some(pjdfstest(&options.tools)?) } else { None };
    let fsx = if options.judges.contains("fsx") { Some(fsx(&options.tools)?) } else { None };
    let images = tempfile_dir()?;
    let mut wrong = Vec::new();
    if options.judges.contains("postgres") {
        wrong.extend(postgres::judge(&images, options.rounds).err());
    }
    if options.judges.contains("sqlite") {
        wrong.extend(sqlite::judge(&images, options.rounds).err());
    }
    if tests.is_some() || fsx.is_some() || options.judges.contains("project") {
        wrong.extend(judge_mount(&images, tests.as_deref(), fsx.as_deref(), options).err());
    }
    fs::remove_dir_all(&images).map_err(|e| format!("{}: {e}", images.display()))?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Runs the judges that share a pool.
fn judge_mount(images: &Path, tests: Option<&Path>, fsx: Option<&Path>, options: &Options) -> Result<(), String> {
    let image = images.join("d0");
    File::create(&image).and_then(|f| f.set_len(8 << 30)).map_err(|e| format!("{}: {e}", image.display()))?;
    let session = Session::start()?;
    let (root, device) = (session.root().to_string_lossy().into_owned(), image.to_string_lossy().into_owned());
    session.ok("zpool", &["create", "-R", &root, "tank", &device])?;
    let at = session.root().join("tank");
    let mut wrong = Vec::new();
    if let Some(tests) = tests {
        wrong.extend(run_pjdfstest(tests, &at).err());
    }
    if let Some(program) = fsx {
        wrong.extend(run_fsx(program, &at, options).err());
    }
    if options.judges.contains("project") {
        wrong.extend(project::judge(&at, images).err());
    }
    session.ok("zpool", &["export", "tank"])?;
    session.finish()?;
    wrong.extend(zdb(images, "tank").err());
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn tempfile_dir() -> Result<PathBuf, String> {
    let dir = std::env::temp_dir().join(format!("uzfs-posix-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

/// Fetches and compiles pjdfstest; gives the folder of its tests.
fn pjdfstest(tools: &Path) -> Result<PathBuf, String> {
    let dir = tools.join("pjdfstest");
    if !dir.join("pjdfstest.c").exists() {
        run(Command::new("git").args(["clone", "--quiet", PJDFSTEST.0]).arg(&dir))?;
    }
    run(Command::new("git").args(["checkout", "--quiet", PJDFSTEST.1]).current_dir(&dir))?;
    let header: String = CALLS.iter().map(|call| format!("#define HAVE_{call} 1\n")).collect();
    fs::write(dir.join("config.h"), header).map_err(|e| format!("config.h: {e}"))?;
    let words = ["-O1", "-w", "-D_GNU_SOURCE", "-DHAVE_CONFIG_H", "-I.", "-o", "pjdfstest", "pjdfstest.c"];
    run(Command::new("cc").args(words).current_dir(&dir))?;
    Ok(dir.join("tests"))
}

/// What stands in the list of exclusions: numbers by test file.
fn exclusions() -> Result<BTreeMap<String, BTreeSet<u32>>, String> {
    let mut out = BTreeMap::new();
    for line in EXCLUSIONS.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(file), Some(list), Some(_reason)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("an exclusion without numbers or reason: {line}"));
        };
        let parsed = list.split(',').map(|n| n.parse().map_err(|_| format!("odd number in: {line}")));
        out.insert(file.to_owned(), parsed.collect::<Result<_, _>>()?);
    }
    Ok(out)
}

/// The failures that `prove` sums up: numbers by test file, relative to the folder of tests.
fn failures(report: &str) -> BTreeMap<String, BTreeSet<u32>> {
    let mut out: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let mut file = String::new();
    for line in report.lines() {
        if let Some((path, rest)) = line.split_once(".t ")
            && rest.contains("(Wstat:")
        {
            file = path.rsplit('/').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/");
            out.entry(file.clone()).or_default();
        } else if let Some((_, list)) = line.trim().split_once("Failed test").filter(|_| line.starts_with("  ")) {
            for part in list.trim_start_matches(['s', ':', ' ']).split(',') {
                let (from, to) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
                if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
                    out.entry(file.clone()).or_default().extend(from..=to);
                }
            }
        } else if let Some(rest) = line.strip_prefix("               ") {
            // A long list of numbers goes on.
            out.entry(file.clone()).or_default().extend(rest.split(',').filter_map(|n| n.trim().parse::<u32>().ok()));
        }
    }
    out
}

fn run_pjdfstest(tests: &Path, at: &Path) -> Result<(), String> {
    let dir = at.join("pjdfstest");
    fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut prove = Command::new("prove");
    prove.arg("-r").arg(tests).current_dir(&dir).stdin(Stdio::null()).stderr(Stdio::inherit());
    let out = prove.output().map_err(|e| format!("prove: {e}"))?;
    let report = String::from_utf8_lossy(&out.stdout).into_owned();
    if !report.contains("Files=") {
        return Err(format!("pjdfstest did not run to its end:\n{report}"));
    }
    let (found, known) = (failures(&report), exclusions()?);
    let summary = report.lines().find(|l| l.starts_with("Files=")).unwrap_or_default();
    println!("pjdfstest: {summary}; {} files fail, {} are known to", found.len(), known.len());
    if found == known {
        return Ok(());
    }
    let only = |a: &BTreeMap<String, BTreeSet<u32>>, b: &BTreeMap<String, BTreeSet<u32>>| -> Vec<String> {
        a.iter().filter(|(f, n)| b.get(*f) != Some(*n)).map(|(f, n)| format!("  {f} {n:?}")).collect()
    };
    let (new, gone) = (only(&found, &known), only(&known, &found));
    Err(format!("pjdfstest: fail:\n{}\nare listed otherwise:\n{}", new.join("\n"), gone.join("\n")))
}

/// Installs fsx; gives the program.
fn fsx(tools: &Path) -> Result<PathBuf, String> {
    let program = tools.join("bin/fsx");
    if !program.exists() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        run(Command::new(cargo).args(["install", "fsx", "--locked", "--version", FSX, "--root"]).arg(tools))?;
    }
    Ok(program)
}

/// Runs fsx with all settings at the same time, each on a file of its own.
fn run_fsx(program: &Path, at: &Path, options: &Options) -> Result<(), String> {
    let dir = at.join("fsx");
    fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut running = Vec::new();
    for (name, settings, allocations) in RUNS {
        let config = options.tools.join(format!("{name}.toml"));
        fs::write(&config, format!("{settings}{WEIGHTS}posix_fallocate = {allocations}\n"))
            .map_err(|e| format!("{}: {e}", config.display()))?;
        let mut command = Command::new(program);
        command.arg("-f").arg(config).args(["-N", &options.ops, "-S", &options.seed, "-P"]).arg(&options.tools);
        command.arg(dir.join(name)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        running.push((name, command.spawn().map_err(|e| format!("fsx: {e}"))?));
    }
    let mut wrong = Vec::new();
    for (name, child) in running {
        let out = child.wait_with_output().map_err(|e| format!("fsx: {e}"))?;
        if out.status.success() {
            println!("fsx: {name}: {} operations", options.ops);
        } else {
            let tail: Vec<_> = [out.stdout, out.stderr].concat().split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            let tail: Vec<_> = tail.iter().rev().take(30).rev().map(|l| String::from_utf8_lossy(l)).collect();
            wrong.push(format!("fsx: {name}: {}\n{}", out.status, tail.join("\n")));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn zdb(images: &Path, pool: &str) -> Result<(), String> {
    let Ok(out) = Command::new("/usr/sbin/zdb").arg("-e").arg("-p").arg(images).args([pool, "-bbcc"]).output() else {
        println!("SKIPPED zdb: it is not installed");
        return Ok(());
    };
    let text = String::from_utf8_lossy(&out.stdout);
    if out.status.success() && text.contains("No leaks (block sum matches space maps exactly)") {
        println!("zdb: clean");
        return Ok(());
    }
    Err(format!("zdb: {}\n{text}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_prove_is_understood() {
        let report = "/a/tests/chmod/00.t ... ok\n\nTest Summary Report\n-------------------\n\
                      /a/tests/chown/02.t          (Wstat: 0 Tests: 10 Failed: 2)\n  Failed tests:  5, 8-10\n\
                      /a/tests/link/02.t           (Wstat: 0 Tests: 10 Failed: 1)\n  Failed test:  10\nFiles=2";
        let found = failures(report);
        assert_eq!(found["chown/02"], [5, 8, 9, 10].into());
        assert_eq!(found["link/02"], [10].into());
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn every_exclusion_has_a_reason() {
        exclusions().unwrap();
    }
}
