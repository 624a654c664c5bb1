//! The tools, command by command, against transcripts of OpenZFS: sentences, exit codes, layout.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use uzfs_testkit::corpus::{self, POOLS, Pool, Spec};
use uzfs_testkit::report::{self, Report};
use uzfs_testkit::session::Session;
use uzfs_testkit::{transcript, volatile};

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        Trial::test("basic", || replay("basic.cli", &["basic"], true)),
        Trial::test("several_pools", || replay("stripe3.cli", &["z1x3", "m3"], false)),
        Trial::test("import_refused", || replay("multi.cli", &["z1x3", "v28", "lostdisk", "zil", "checkpoint"], false)),
        Trial::test("missing_devices", missing),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn spec(name: &str) -> &'static Spec {
    POOLS.iter().find(|s| s.name == name).expect("the pool is in the table")
}

/// Opens the pools; none if one cannot be had here.
fn open(names: &[&str]) -> Result<Option<Vec<Pool>>, String> {
    for name in names {
        if let Some(why) = corpus::skip_reason(spec(name)) {
            report::line(&format!("SKIPPED commands on {name}: {why}"));
            return Ok(None);
        }
    }
    names.iter().map(|n| corpus::open(spec(n))).collect::<Result<_, _>>().map(Some)
}

/// Replays a whole transcript in order, for its commands change what is imported and mounted.
fn replay(file: &str, names: &[&str], mounted: bool) -> Result<(), Failed> {
    let Some(pools) = open(names)? else { return Ok(()) };
    let steps = transcript::read(file)?.ok_or_else(|| format!("no transcript {file}"))?;
    let session = Session::start()?;
    let root = session.root();
    if mounted {
        let (devices, root) = (pools[0].devices.to_string_lossy(), root.to_string_lossy());
        session.ok("zpool", &["import", "-o", "readonly=on", "-d", &devices, "-R", &root, names[0]])?;
        session.ok("zfs", &["mount", "-a"])?;
    }
    let place = |text: &str| {
        pools.iter().fold(text.to_owned(), |t, p| transcript::relocate(&t, p.spec.name, &p.devices, &root))
    };
    let mut report = Report::default();
    let mut compared = 0;
    for (number, step) in steps.iter().enumerate() {
        if volatile::command_reason(&step.line).is_some() {
            continue;
        }
        compared += 1;
        report.extend(&format!("{} `{}`", number + 1, step.line), transcript::replay(&session, step, &place)?);
    }
    report::line(&format!("commands of {file}: {compared}"));
    Ok(report.finish_for(file)?)
}

/// What is shown and refused when devices are missing, each set in a folder of its own.
fn missing() -> Result<(), Failed> {
    let steps = transcript::read("missing.cli")?.ok_or("no transcript missing.cli")?;
    let mut names: Vec<&str> = steps.iter().filter_map(|s| s.remark.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    let Some(pools) = open(&names)? else { return Ok(()) };
    let session = Session::start()?;
    let (root, links) = (session.root(), session.root().with_file_name("links"));
    let mut report = Report::default();
    let mut before = "";
    for step in &steps {
        let (name, gone) = step.remark.split_once(" without ").ok_or("a remark names no devices")?;
        let pool = pools.iter().find(|p| p.spec.name == name).ok_or("the pool is open")?;
        if step.remark != before {
            let gone: Vec<&str> = gone.split(' ').collect();
            pool.without(&gone, &links)?;
            before = &step.remark;
        }
        if step.line.starts_with("zpool list") && step.code == 0 {
            continue; // Space is shown as zero by OpenZFS, see `volatile`.
        }
        if step.line.starts_with("zpool import -o") && step.code != 0 {
            // OpenZFS says "no such pool or dataset" here; uzfs names every device that is missing.
            let words: Vec<String> = relocate(&step.line, &links, &root).split(' ').map(str::to_owned).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let out = session.run(words[0], &words[1..])?;
            if out.code != Some(step.code) {
                report.add(&step.remark, format!("exit code must be {}: {out}", step.code));
            }
            continue;
        }
        // The paths in the labels are those of the recording.
        let place = |text: &str| relocate(text, &links, &root);
        report.extend(&format!("{}: `{}`", step.remark, step.line), transcript::replay(&session, step, &place)?);
    }
    report::line(&format!("commands with missing devices: {}", steps.len()));
    Ok(report.finish_for("missing")?)
}

fn relocate(text: &str, links: &Path, root: &Path) -> String {
    text.replace("/tmp/m", &links.to_string_lossy()).replace("/altroot", &root.to_string_lossy())
}
