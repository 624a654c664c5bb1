//! The lines between state and configuration in `zpool status`: scan, removal, checkpoint, expansion.

use super::vdev::{self, Naming};
use crate::nicenum::{nicebytes, nicenum};
use crate::time::{ctime, duration, now};
use std::fmt::Write;
use uzfs_proto::{
    CheckpointState, CheckpointStats, ExpandStats, JobState, Pool, RebuildStats, RemovalStats, ScanFunction, ScanState,
    ScanStats, VdevNode,
};

/// Slowest rate at which an end is predicted, in bytes a second.
const STEADY: u64 = 10 * 1024 * 1024;
/// Longest prediction, in seconds.
const MONTH: u64 = 30 * 24 * 3600;

/// All lines that apply.
pub fn lines(pool: &Pool, tree: &VdevNode, naming: Naming) -> String {
    let mut out = String::new();
    scans(&mut out, pool, tree, naming);
    if let Some(removal) = &pool.removal {
        removed(&mut out, pool, tree, removal, naming);
    }
    if let Some(checkpoint) = &pool.checkpoint {
        checkpointed(&mut out, checkpoint);
    }
    if let Some(expand) = &pool.expand {
        expanded(&mut out, tree, expand);
    }
    out
}

fn scans(out: &mut String, pool: &Pool, tree: &VdevNode, naming: Naming) {
    let scan = pool.scan.as_ref();
    let is = |f: ScanFunction| scan.is_some_and(|s| s.function == f);
    let error_scrub = scan.filter(|s| s.error_scrub_function == ScanFunction::ErrorScrub);
    let error_start = error_scrub.map_or(0, |s| s.error_scrub_start);
    let start = scan.map_or(0, |s| s.start_time);
    let rebuilds = || tree.children.iter().filter_map(|c| Some((c, c.rebuild.as_ref()?)));
    let rebuilding = rebuilds().any(|(_, r)| r.state == JobState::Active);
    let rebuilt = rebuilds().map(|(_, r)| r.end_time).max().unwrap_or(0);
    if let Some(s) = scan.filter(|s| s.function == ScanFunction::Scrub && start > error_start) {
        scanned(out, s);
    } else if let Some(s) = error_scrub.filter(|_| error_start >= start) {
        error_scrubbed(out, s);
    }
    let resilver_end = if is(ScanFunction::Resilver) { scan.map_or(0, |s| s.end_time) } else { 0 };
    let resilvering = is(ScanFunction::Resilver) && scan.is_some_and(|s| s.state == ScanState::Scanning);
    if resilvering || !rebuilding && resilver_end > rebuilt {
        if let Some(s) = scan {
            scanned(out, s);
        }
    } else if rebuilding || rebuilt > resilver_end {
        for (node, r) in rebuilds() {
            rebuild(out, r, &vdev::name(node, Some(&pool.name), naming.numbered()));
        }
    }
    warn_of_checkpoint(out, pool);
}

fn warn_of_checkpoint(out: &mut String, pool: &Pool) {
    let (Some(scan), Some(checkpoint)) = (&pool.scan, &pool.checkpoint) else { return };
    if checkpoint.state != CheckpointState::Exists || scan.state == ScanState::None {
        return;
    }
    let over = matches!(scan.state, ScanState::Finished | ScanState::Canceled);
    if over && scan.end_time < checkpoint.start_time {
        return;
    }
    let word = if over { "skipped" } else { "skipping" };
    let _ = writeln!(out, "    scan warning: {word} blocks that are only referenced by the checkpoint.");
}

fn rate(bytes: u64, seconds: u64) -> u64 {
    bytes / seconds.max(1)
}

fn at_rate(out: &mut String, rate: u64) {
    if rate > 0 {
        let _ = write!(out, " at {}/s", nicebytes(rate));
    }
}

fn scanned(out: &mut String, s: &ScanStats) {
    let processed = nicebytes(s.processed);
    let scrub = s.function == ScanFunction::Scrub;
    out.push_str("  scan: ");
    match s.state {
        ScanState::Finished => {
            let took = duration(s.end_time.saturating_sub(s.start_time));
            let word = if scrub { "scrub repaired" } else { "resilvered" };
            let (errors, end) = (s.errors, ctime(s.end_time));
            let _ = writeln!(out, "{word} {processed} in {took} with {errors} errors on {end}");
            return;
        }
        ScanState::Canceled => {
            let word = if scrub { "scrub" } else { "resilver" };
            let _ = writeln!(out, "{word} canceled on {}", ctime(s.end_time));
            return;
        }
        _ => {}
    }
    let paused = s.pass_scrub_pause != 0;
    let start = ctime(s.start_time);
    let _ = match (scrub, paused) {
        (true, false) => writeln!(out, "scrub in progress since {start}"),
        (true, true) => {
            let pause = ctime(s.pass_scrub_pause);
            writeln!(out, "scrub paused since {pause}\n\tscrub started on {start}")
        }
        (false, _) => writeln!(out, "resilver in progress since {start}"),
    };
    let elapsed = now().saturating_sub(s.pass_start).saturating_sub(s.pass_scrub_spent_paused);
    let (scan_rate, issue_rate) = (rate(s.pass_exam, elapsed), rate(s.pass_issued, elapsed));
    let total = s.to_examine.saturating_sub(s.skipped);
    let _ = write!(out, "\t{} / {} scanned", nicebytes(s.examined), nicebytes(s.to_examine));
    at_rate(out, if paused { 0 } else { scan_rate });
    let _ = write!(out, ", {} / {} issued", nicebytes(s.issued), nicebytes(total));
    at_rate(out, if paused { 0 } else { issue_rate });
    let word = if scrub { "repaired" } else { "resilvered" };
    let part = 100.0 * s.issued as f64 / total as f64;
    let _ = write!(out, "\n\t{processed} {word}, {part:.2}% done");
    let begun = if scrub { s.issued > 0 } else { s.processed > 0 };
    if paused {
        out.push('\n');
    } else if total >= s.issued && issue_rate >= STEADY && begun {
        let _ = writeln!(out, ", {} to go", duration((total - s.issued) / issue_rate));
    } else {
        out.push_str(", no estimated completion time\n");
    }
}

fn error_scrubbed(out: &mut String, s: &ScanStats) {
    let (start, end) = (s.error_scrub_start, s.error_scrub_end);
    let done = s.error_scrub_examined;
    out.push_str(" scrub: ");
    match s.error_scrub_state {
        ScanState::Finished => {
            let took = end.saturating_sub(start);
            let (days, clock) = (took / 86400, duration(took % 86400));
            let _ = writeln!(out, "scrubbed {done} error blocks in {days} days {clock} on {}", ctime(end));
            return;
        }
        ScanState::Canceled => {
            let _ = writeln!(out, "error scrub canceled on {}", ctime(end));
            return;
        }
        _ => {}
    }
    let start = ctime(start);
    let _ = match s.pass_error_scrub_pause {
        0 => writeln!(out, "error scrub in progress since {start}"),
        pause => writeln!(out, "error scrub paused since {}\n\terror scrub started on {start}", ctime(pause)),
    };
    let part = 100.0 * done as f64 / (s.error_scrub_to_be_examined + done) as f64;
    let _ = writeln!(out, "\t{part:.2}% done, issued I/O for {done} error blocks");
}

fn rebuild(out: &mut String, r: &RebuildStats, name: &str) {
    let rebuilt = nicebytes(r.bytes_rebuilt);
    let _ = match r.state {
        JobState::None | JobState::Suspended => return,
        JobState::Complete => {
            let (took, end) = (duration(r.scan_time_ms / 1000), ctime(r.end_time));
            let errors = r.errors;
            let what = format!("resilvered ({name}) {rebuilt} in {took}");
            let _ = writeln!(out, "  scan: {what} with {errors} errors on {end}");
            return;
        }
        JobState::Canceled => {
            let end = ctime(r.end_time);
            let _ = writeln!(out, "  scan: resilver ({name}) canceled on {end}");
            return;
        }
        JobState::Active => {
            let start = ctime(r.start_time);
            writeln!(out, "  scan: resilver ({name}) in progress since {start}")
        }
    };
    let per_second = |bytes: u64| (bytes / (r.pass_time_ms + 1)).saturating_mul(1000);
    let scan_rate = per_second(r.pass_bytes_scanned);
    let issue_total = r.bytes_est.saturating_sub(r.pass_bytes_skipped);
    let _ = write!(out, "\t{} / {} scanned", nicebytes(r.bytes_scanned), nicebytes(r.bytes_est));
    at_rate(out, scan_rate);
    let _ = write!(out, ", {} / {} issued", nicebytes(r.bytes_issued), nicebytes(issue_total));
    at_rate(out, per_second(r.pass_bytes_issued));
    let part = (r.bytes_scanned as f64 * 100.0 / (r.bytes_est as f64 + 1.0)).min(100.0);
    let _ = write!(out, "\n\t{rebuilt} resilvered, {part:.2}% done");
    if r.bytes_est >= r.bytes_scanned && scan_rate >= STEADY {
        let left = (r.bytes_est - r.bytes_scanned) / scan_rate;
        let _ = writeln!(out, ", {} to go", duration(left));
    } else {
        out.push_str(", no estimated completion time\n");
    }
}

fn child_name(tree: &VdevNode, id: u64, pool: &str, naming: Naming) -> String {
    let child = tree.children.iter().find(|c| c.id == id);
    child.map_or_else(|| id.to_string(), |c| vdev::name(c, Some(pool), naming))
}

fn removed(out: &mut String, pool: &Pool, tree: &VdevNode, r: &RemovalStats, naming: Naming) {
    let name = child_name(tree, r.removing_vdev, &pool.name, naming);
    match r.state {
        ScanState::None => return,
        ScanState::Finished => {
            let minutes = r.end_time.saturating_sub(r.start_time) / 60;
            let _ = writeln!(
                out,
                "remove: Removal of vdev {} copied {} in {}h{}m, completed on {}",
                r.removing_vdev,
                nicenum(r.copied),
                minutes / 60,
                minutes % 60,
                ctime(r.end_time)
            );
        }
        ScanState::Canceled => {
            let _ = writeln!(out, "remove: Removal of {name} canceled on {}", ctime(r.end_time));
        }
        _ => {
            let start = ctime(r.start_time);
            let _ = writeln!(out, "remove: Evacuation of {name} in progress since {start}");
            let copied = r.copied.max(1);
            let speed = rate(copied, now().saturating_sub(r.start_time)).max(1);
            let part = 100.0 * copied as f64 / r.to_copy as f64;
            let _ = write!(
                out,
                "\t{} copied out of {} at {}/s, {part:.2}% done",
                nicenum(copied),
                nicenum(r.to_copy),
                nicenum(speed)
            );
            let minutes = r.to_copy.saturating_sub(copied) / speed / 60;
            if minutes / 60 < 30 * 24 {
                let _ = writeln!(out, ", {}h{}m to go", minutes / 60, minutes % 60);
            } else {
                out.push_str(", (copy is slow, no estimated time)\n");
            }
        }
    }
    if r.mapping_memory > 0 {
        let memory = nicenum(r.mapping_memory);
        let _ = writeln!(out, "\t{memory} memory used for removed device mappings");
    }
}

fn checkpointed(out: &mut String, c: &CheckpointStats) {
    let space = nicenum(c.space);
    let _ = match c.state {
        CheckpointState::None => Ok(()),
        CheckpointState::Exists => {
            writeln!(out, "checkpoint: created {}, consumes {space}", ctime(c.start_time))
        }
        CheckpointState::Discarding => {
            writeln!(out, "checkpoint: discarding, {space} remaining.")
        }
    };
}

fn expanded(out: &mut String, tree: &VdevNode, e: &ExpandStats) {
    let id = e.expanding_vdev;
    let name = child_name(tree, id, "", Naming::default());
    match e.state {
        ScanState::None => {}
        ScanState::Finished => {
            let took = duration(e.end_time.saturating_sub(e.start_time));
            let (copied, end) = (nicenum(e.reflowed), ctime(e.end_time));
            let _ = writeln!(out, "expand: expanded {name}-{id} copied {copied} in {took}, on {end}");
        }
        _ => {
            let start = ctime(e.start_time);
            let _ = writeln!(out, "expand: expansion of {name}-{id} in progress since {start}");
            let copied = e.reflowed.max(1);
            let speed = rate(copied, now().saturating_sub(e.start_time)).max(1);
            let part = 100.0 * copied as f64 / e.to_reflow as f64;
            let _ = write!(
                out,
                "\t{} / {} copied at {}/s, {part:.2}% done",
                nicenum(copied),
                nicenum(e.to_reflow),
                nicenum(speed)
            );
            let left = e.to_reflow.saturating_sub(copied) / speed;
            if e.waiting_for_resilver {
                out.push_str(", paused for resilver or clear\n");
            } else if left < MONTH {
                let _ = writeln!(out, ", {} to go", duration(left));
            } else {
                out.push_str(", (copy is slow, no estimated time)\n");
            }
        }
    }
}
