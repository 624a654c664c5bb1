//! Pools with rotten and missing devices: everything must still be read perfectly.

use libtest_mimic::{Arguments, Failed, Trial};
use uzfs_testkit::check::{self, Figures};
use uzfs_testkit::corpus::{self, POOLS, Pool, Spec};
use uzfs_testkit::report::{self, Report};
use uzfs_testkit::session::Session;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for spec in POOLS {
        match spec.name {
            "rotten" => trials.push(Trial::test("rotten", || rotten(spec, &["d0"]))),
            "rottenz" => trials.push(Trial::test("rottenz", || rotten(spec, &["d1", "d2"]))),
            "lostdisk" => trials.push(Trial::test("lostdisk", || lost(spec))),
            _ if !spec.redundancy.is_empty() => {
                trials.push(Trial::test(format!("missing_{}", spec.name), || missing(spec)));
            }
            _ => {}
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn open(spec: &'static Spec) -> Result<Option<Pool>, String> {
    if let Some(why) = corpus::skip_reason(spec) {
        report::line(&format!("SKIPPED damage to {}: {why}", spec.name));
        return Ok(None);
    }
    corpus::open(spec).map(Some)
}

/// Silent corruption: every file is right, the errors are counted on the rotten devices and only there.
fn rotten(spec: &'static Spec, bad: &[&str]) -> Result<(), Failed> {
    let Some(pool) = open(spec)? else { return Ok(()) };
    let session = Session::start()?;
    let mut report = Report::default();
    let mut figures = Figures::default();
    session.import(spec.name, &pool.devices, &[])?;
    session.ok("zfs", &["mount", "-a"])?;
    check::trees(&session, &pool, &mut report, &mut figures)?;
    let mut counted = 0;
    for (device, _, [read, write, checksum]) in check::status_rows(&session, spec.name)? {
        let Some(name) = device.rsplit_once('/').map(|(_, n)| n) else { continue };
        if read + write != 0 {
            report.add("errors", format!("{name}: {read} read and {write} write errors"));
        }
        if bad.contains(&name) {
            counted += checksum;
        } else if checksum != 0 {
            report.add("errors", format!("{name} is sound but has {checksum} checksum errors"));
        }
    }
    // OpenZFS's zdb, which reads parity and every copy, finds 9 rotten sectors in all of `rottenz`; none of them is met
    // by reading files, so nothing has to be counted there.
    if counted == 0 && spec.name != "rottenz" {
        report.add("errors", "no checksum error was counted");
    }
    report.step("status", check::no_data_errors(&session, spec.name));
    session.ok("zpool", &["export", spec.name])?;
    report.step("session", session.finish());
    report::line(&format!("damage {}: {}, {counted} checksum errors healed", spec.name, figures.words()));
    Ok(report.finish()?)
}

/// A member that is gone for good.
fn lost(spec: &'static Spec) -> Result<(), Failed> {
    let Some(pool) = open(spec)? else { return Ok(()) };
    let session = Session::start()?;
    let mut report = Report::default();
    let mut figures = Figures::default();
    degraded(&session, &pool, &pool.devices, &["d1"], &mut report, &mut figures)?;
    report.step("session", session.finish());
    report::line(&format!("damage {}: {}", spec.name, figures.words()));
    Ok(report.finish()?)
}

/// Every set of devices that the pool can do without, of every size.
fn missing(spec: &'static Spec) -> Result<(), Failed> {
    let Some(pool) = open(spec)? else { return Ok(()) };
    let session = Session::start()?;
    let mut report = Report::default();
    let mut figures = Figures::default();
    let links = session.root().with_file_name("links");
    let mut sets = 0;
    for (devices, most) in spec.redundancy {
        for set in subsets(devices, *most) {
            sets += 1;
            pool.without(&set, &links)?;
            let mut one = Report::default();
            let checked = degraded(&session, &pool, &links, &set, &mut one, &mut figures);
            one.step("pool", checked);
            if let Err(why) = one.finish() {
                report.add(&format!("without {}", set.join(" ")), why);
                // The pool may still be imported, which would only fail the sets behind it.
                let _ = session.run("zpool", &["export", spec.name]);
            }
        }
    }
    report.step("session", session.finish());
    report::line(&format!("damage {}: {sets} sets of devices removed, {}", spec.name, figures.words()));
    Ok(report.finish()?)
}

fn degraded(
    session: &Session,
    pool: &Pool,
    devices: &std::path::Path,
    missing: &[&str],
    report: &mut Report,
    figures: &mut Figures,
) -> Result<(), String> {
    let name = pool.spec.name;
    session.import(name, devices, &[])?;
    check::load_keys(session, pool, &pool.devices)?;
    session.ok("zfs", &["mount", "-a"])?;
    check::trees(session, pool, report, figures)?;
    let rows = check::status_rows(session, name)?;
    // A cache device or an unused spare that is missing does not degrade the pool.
    let aside = |d: &str| matches!((name, d), ("classes", "d7" | "d8"));
    let gone = missing.iter().filter(|d| !aside(d)).count();
    if gone > 0 && rows[0].1 != "DEGRADED" {
        report.add("status", format!("the pool is {}, must be DEGRADED", rows[0].1));
    }
    // A device that is not there is shown by its guid.
    let leaf = |name: &str| name.contains('/') || name.bytes().all(|c| c.is_ascii_digit());
    let unavailable = rows.iter().filter(|(device, state, _)| leaf(device) && state == "UNAVAIL").count();
    // Of those beside, a cache device has a row with counters of its own; a spare has none.
    let shown = gone + missing.iter().filter(|d| (name, **d) == ("classes", "d7")).count();
    if unavailable != shown {
        report.add("status", format!("{unavailable} devices are UNAVAIL, must be {shown}: {rows:?}"));
    }
    if let Some((device, _, errors)) = rows.iter().find(|(_, state, e)| state == "ONLINE" && *e != [0; 3]) {
        report.add("status", format!("{device} has errors: {errors:?}"));
    }
    report.step("status", check::no_data_errors(session, name));
    session.ok("zpool", &["export", name]).map(drop)
}

/// Every subset of 1 to `most` members.
fn subsets<'a>(of: &[&'a str], most: usize) -> Vec<Vec<&'a str>> {
    let masks = 1u32..1 << of.len();
    let chosen = masks.filter(|m| m.count_ones() as usize <= most);
    chosen.map(|m| of.iter().enumerate().filter(|(i, _)| m >> i & 1 == 1).map(|(_, d)| *d).collect()).collect()
}
