//! Pools of versions 1 to 28 that ship with the ZFS Test Suite: import, walk, verify every block.

use libtest_mimic::{Arguments, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use uzfs_testkit::manifest::{self, Content};
use uzfs_testkit::report::{self, Report};
use uzfs_testkit::session::Session;
use uzfs_testkit::{archive, check, paths, transcript, volatile};

/// Where the package zfs-test puts them, or `UZFS_BLOCKFILES`.
const PLACE: &str = "/usr/share/zfs/zfs-tests/tests/functional/cli_root/zpool_upgrade";

fn main() {
    let arguments = Arguments::from_args();
    let place = std::env::var_os("UZFS_BLOCKFILES").map_or_else(|| PathBuf::from(PLACE), PathBuf::from);
    let pools = fs::read_to_string(place.join("zpool_upgrade.cfg")).map(|t| pools(&t)).unwrap_or_default();
    let mut trials: Vec<Trial> = Vec::new();
    if pools.is_empty() {
        trials.push(Trial::test("package_is_absent", move || {
            report::line("SKIPPED pools of versions 1 to 15: the package zfs-test is not here (set UZFS_BLOCKFILES)");
            Ok(())
        }));
    } else {
        for name in ["cryptv0", "missing_ivset", "unclean_export"] {
            let place = place.join("../zpool_import/blockfiles");
            let files = vec![format!("{name}.dat")];
            trials.push(Trial::test(name, move || one(&place, name, name, &files)));
        }
    }
    for (version, name, files) in pools {
        let place = place.join("blockfiles");
        trials.push(Trial::test(format!("version_{version}"), move || one(&place, &version, &name, &files)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Versions, names and files of the pools, from the shell assignments of the test suite.
fn pools(text: &str) -> Vec<(String, String, Vec<String>)> {
    let text = text.replace("\\\n", " ");
    let value = |key: &str| -> Option<String> {
        let line = text.lines().find(|l| l.starts_with(&format!("{key}=")))?;
        Some(line.split_once('=')?.1.trim_matches('"').to_owned())
    };
    let versions = text.lines().filter_map(|l| l.strip_prefix("ZPOOL_VERSION_")?.split_once("_NAME=").map(|v| v.0));
    let entry = |version: &str| {
        let name = value(&format!("ZPOOL_VERSION_{version}_NAME"))?;
        let files = value(&format!("ZPOOL_VERSION_{version}_FILES"))?;
        Some((version.to_owned(), name, files.split_whitespace().map(str::to_owned).collect()))
    };
    versions.filter_map(entry).collect()
}

fn one(place: &Path, version: &str, pool: &str, files: &[String]) -> Result<(), Failed> {
    if !paths::is_root() {
        report::line(&format!("SKIPPED version {version}: only root may mount with every owner and device visible"));
        return Ok(());
    }
    let session = Session::start()?;
    let devices = session.root().with_file_name("devices");
    fs::create_dir_all(&devices)?;
    for file in files {
        let to = fs::File::create(devices.join(file))?;
        let packed = place.join(format!("{file}.bz2"));
        if !Command::new("bzcat").arg(packed).stdout(to).status()?.success() {
            return Err(format!("{file} cannot be unpacked").into());
        }
    }
    let mut report = Report::default();
    let record = archive::unpack(&paths::golden().join("openzfs-blockfiles.tar.zst"), &paths::cache())?;
    let steps = transcript::parse(&fs::read_to_string(record.join(version))?)?;
    let refused = steps.iter().any(|s| s.line.starts_with("zpool import -f") && s.code != 0);
    if !refused {
        report.step("zdb", check::verify(&session, pool, &devices));
    }
    for step in steps.iter().filter(|s| !s.line.starts_with("zpool export")) {
        if volatile::command_reason(&step.line).is_some() {
            continue;
        }
        let place = |text: &str| {
            // Some files had no name yet when the first listing was recorded.
            let text = text.replace("/tmp/p/d ", &format!("/tmp/p/{} ", files[0]));
            let text = text.replace("/tmp/p", &devices.to_string_lossy());
            text.replace("/altroot", &session.root().to_string_lossy())
        };
        report.extend(&format!("`{}`", step.line), transcript::replay(&session, step, &place)?);
    }
    let mut seen = 0;
    if !refused {
        for (dataset, point) in check::mounted(&session, pool)? {
            let manifest = manifest::walk(&point, Content::Hash)?;
            seen += manifest.len();
            let file = record.join(format!("{version}.files.{}", dataset.replace('/', "%")));
            let expected = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            report.extend(&dataset, manifest::differences(&manifest::parse(&expected)?, &manifest, &[]));
        }
        report.step("status", check::no_data_errors(&session, pool));
        session.ok("zpool", &["export", pool])?;
    }
    report.step("session", session.finish());
    report::line(&format!("pool of version {version}: {seen} files"));
    Ok(report.finish_for(&format!("version {version}"))?)
}
