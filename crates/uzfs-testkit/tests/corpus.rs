//! Every pool of the corpus: import, mount, compare files, volumes and tables with what OpenZFS saw.
//!
//! One test a pool, so that a run prints one line a pool and uses all cores.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::Path;
use uzfs_testkit::check::{self, Figures};
use uzfs_testkit::corpus::{self, POOLS, Pool, Spec};
use uzfs_testkit::report::{self, Report};
use uzfs_testkit::session::Session;
use uzfs_testkit::tables::{self, Cells};
use uzfs_testkit::volatile::Table;
use uzfs_testkit::{paths, transcript, volatile};

fn main() {
    let arguments = Arguments::from_args();
    let trials = POOLS.iter().map(|spec| Trial::test(spec.name, move || pool(spec))).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn pool(spec: &'static Spec) -> Result<(), Failed> {
    if let Some(why) = corpus::skip_reason(spec) {
        report::line(&format!("SKIPPED {}: {why}", spec.name));
        return Ok(());
    }
    let pool = corpus::open(spec)?;
    let before = pool.fingerprint();
    let mut report = Report::default();
    let mut figures = Figures::default();
    let session = Session::start()?;
    let checked = check_pool(&session, &pool, &mut report, &mut figures);
    report.step("pool", checked);
    let exported = session.ok("zpool", &["export", spec.name]).map(drop);
    report.step("export", exported);
    report.step("session", session.finish());
    report.step("volumes", volumes(&pool, &mut figures));
    if before != pool.fingerprint() {
        report.add("devices", "a read-only import wrote to them");
    }
    let outcome = if report.is_empty() { "ok" } else { "WRONG" };
    report::line(&format!("pool {}: {}: {outcome}", spec.name, figures.words()));
    Ok(report.finish_for(spec.name)?)
}

fn check_pool(session: &Session, pool: &Pool, report: &mut Report, figures: &mut Figures) -> Result<(), String> {
    let name = pool.spec.name;
    session.import(name, &pool.devices, pool.spec.import)?;
    check::load_keys(session, pool, &pool.devices)?;
    session.ok("zfs", &["mount", "-a"])?;
    check::trees(session, pool, report, figures)?;
    let compared = compare_tables(session, pool, report, figures);
    report.step("tables", compared);
    report.step("allocated", allocated(session, name));
    let compared = history(session, pool, report);
    report.step("history", compared);
    let compared = recorded(session, pool, report, figures);
    report.step("transcript", compared);
    if !matches!(name, "rotten" | "rottenz" | "lostdisk") {
        report.step("status", check::no_data_errors(session, name));
    }
    Ok(())
}

fn volumes(pool: &Pool, figures: &mut Figures) -> Result<(), String> {
    if pool.volumes()?.is_empty() {
        return Ok(());
    }
    let session = Session::start()?;
    let mut report = Report::default();
    check::volumes(&session, pool, &mut report, figures)?;
    report.finish()
}

fn compare_tables(session: &Session, pool: &Pool, report: &mut Report, figures: &mut Figures) -> Result<(), String> {
    let name = pool.spec.name;
    let root = session.root();
    let mut one = |table: Table, file: &str, args: &[&str], read: &dyn Fn(&str) -> Cells| -> Result<(), String> {
        let Some(expected) = pool.expected(file) else { return Ok(()) };
        if name == "lostdisk" && program_of(file) == "zpool" {
            return Ok(()); // Recorded before the disk was taken away (judged by the transcript).
        }
        let expected = transcript::relocate(&expected, name, &pool.devices, Path::new("/altroot"));
        let seen = session.ok(program_of(file), args)?;
        let (problems, compared) = tables::compare(table, &read(&expected), &read(&seen.stdout), &root);
        report.extend(file, problems);
        figures.cells += compared;
        Ok(())
    };
    let short = pool.expected("zfs-get").is_none();
    let columns = if short { tables::SHORT_LIST_COLUMNS } else { tables::LIST_COLUMNS };
    let kinds = if short { "filesystem,volume" } else { "all" };
    let list = ["list", "-Hp", "-r", "-t", kinds, "-o", columns, name];
    one(Table::ZfsList, "zfs-list", &list, &|t| tables::list(t, columns))?;
    one(Table::ZfsGet, "zfs-get", &["get", "-Hp", "-r", "all", name], &tables::get)?;
    one(Table::PoolGet, "zpool-get", &["get", "-Hp", "all", name], &tables::get)?;
    one(Table::PoolList, "zpool-list", &["list", "-Hpv", name], &tables::pool_list)
}

/// The program that printed a table of the corpus.
fn program_of(file: &str) -> &'static str {
    if file.starts_with("zfs") { "zfs" } else { "zpool" }
}

/// Allocated space is what OpenZFS's zdb finds in the same bytes.
fn allocated(session: &Session, pool: &str) -> Result<(), String> {
    let path = paths::golden().join("allocated.txt");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let Some(want) = text.lines().find_map(|l| l.strip_prefix(pool)?.strip_prefix(' ')) else { return Ok(()) };
    let seen = session.ok("zpool", &["get", "-Hp", "-o", "value", "allocated,free,size", pool])?;
    let values: Vec<u64> = seen.stdout.lines().filter_map(|v| v.parse().ok()).collect();
    match values[..] {
        [allocated, free, size] if allocated.to_string() == want && free + allocated == size => Ok(()),
        _ => Err(format!("allocated, free, size are {values:?}; {want} bytes are allocated")),
    }
}

/// What was in the history when it was recorded is its beginning now.
fn history(session: &Session, pool: &Pool, report: &mut Report) -> Result<(), String> {
    let Some(expected) = pool.expected("zpool-history") else { return Ok(()) };
    let seen = session.ok("zpool", &["history", "-il", pool.spec.name])?;
    let want = tables::lines(expected.trim_end());
    let mut have = tables::lines(seen.stdout.trim_end());
    have.truncate(want.len());
    report.extend("zpool-history", tables::compare_lines(&want, &have));
    Ok(())
}

/// Compares with what OpenZFS printed for the same bytes, imported read-only.
fn recorded(session: &Session, pool: &Pool, report: &mut Report, figures: &mut Figures) -> Result<(), String> {
    let name = pool.spec.name;
    let root = session.root();
    // Before it was mounted and after keys were unloaded other things were seen.
    let steps = transcript::read(name)?.unwrap_or_default();
    let steps = steps.into_iter().skip_while(|s| s.line != "zfs mount -a");
    for step in steps.take_while(|s| !s.line.starts_with("zfs unload-key")) {
        if !transcript::is_query(&step) || volatile::command_reason(&step.line).is_some() {
            continue;
        }
        // What was found rotten depends on which side was read; the damage tests look at that.
        if matches!(name, "rotten" | "rottenz") && step.line.starts_with("zpool status") {
            continue;
        }
        figures.commands += 1;
        // The history says where the devices were when the pool was made.
        let moved = !step.line.starts_with("zpool history");
        let place =
            |text: &str| if moved { transcript::relocate(text, name, &pool.devices, &root) } else { text.into() };
        report.extend(&format!("`{}`", step.line), transcript::replay(session, &step, &place)?);
    }
    Ok(())
}
