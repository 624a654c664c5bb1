//! `zpool status -j`.

use super::reason::Reason;
use super::status::{Style, healthy, object_name};
use super::status_text::advice;
use super::vdev::{self, STATUS_CLASSES};
use super::{pool_json, vdev_json};
use crate::json::Object;
use crate::nicenum::{nicebytes, nicenum};
use crate::time;
use serde_json::Value;
use uzfs_proto::{
    CheckpointStats, ExpandStats, JobState, LeafJob, Pool, RebuildStats, RemovalStats, ScanFunction, ScanStats,
    VdevAux, VdevNode, VdevState,
};

#[derive(Clone, Copy)]
enum Unit {
    Count,
    Bytes,
    Time,
    Plain,
}

struct Writer {
    exact: bool,
    as_int: bool,
}

impl Writer {
    fn put(&self, object: &mut Object, key: &str, n: u64, unit: Unit) {
        let value: Value = match unit {
            _ if self.as_int => n.into(),
            _ if self.exact => n.to_string().into(),
            Unit::Plain => n.to_string().into(),
            Unit::Count => nicenum(n).into(),
            Unit::Bytes => nicebytes(n).into(),
            Unit::Time if n == 0 => "-".into(),
            Unit::Time => time::date(n).into(),
        };
        object.insert(key.into(), value);
    }

    fn all(&self, object: &mut Object, fields: &[(&str, u64, Unit)]) {
        for (key, n, unit) in fields {
            self.put(object, key, *n, *unit);
        }
    }
}

fn function(f: ScanFunction) -> &'static str {
    match f {
        ScanFunction::None => "NONE",
        ScanFunction::Scrub => "SCRUB",
        ScanFunction::Resilver => "RESILVER",
        ScanFunction::ErrorScrub => "ERRORSCRUB",
    }
}

fn upper(word: &str) -> String {
    word.replace("error_scrubbing", "errorscrubbing").to_uppercase()
}

/// The object of one pool.
pub fn pool(pool: &Pool, reason: Reason, style: &Style, as_int: bool, flat: bool) -> Object {
    let w = Writer { exact: style.exact, as_int };
    let mut item = pool_json(pool, false, as_int);
    let advice = advice(pool, reason);
    for (key, text) in [("status", advice.status), ("action", advice.action)] {
        if !text.is_empty() {
            item.insert(key.into(), text.into());
        }
    }
    if let Some(id) = reason.message_id() {
        item.insert("msgid".into(), id.into());
        let more = format!("https://openzfs.github.io/openzfs-docs/msg/{id}");
        item.insert("moreinfo".into(), more.into());
    }
    let Some(tree) = &pool.tree else { return item };
    let scan = scan_stats(&w, pool, tree);
    if !scan.is_empty() {
        item.insert("scan_stats".into(), scan.into());
    }
    if let Some(r) = pool.removal.as_ref().filter(|r| r.state != uzfs_proto::ScanState::None) {
        item.insert("removal_stats".into(), removal(&w, tree, r, pool).into());
    }
    if let Some(c) = &pool.checkpoint {
        item.insert("checkpoint_stats".into(), checkpoint(&w, c).into());
    }
    if let Some(e) = &pool.expand {
        item.insert("raidz_expand_stats".into(), expansion(&w, tree, e, pool).into());
    }
    let mut vdevs = Object::new();
    let shape = Shape { pool, style, w: &w, flat };
    shape.vdev(tree, 0, false, None, &mut vdevs);
    if flat {
        shape.sections(tree, &mut vdevs);
        item.insert("vdevs".into(), vdevs.into());
    } else {
        item.insert("vdevs".into(), vdevs.into());
        shape.sections(tree, &mut item);
    }
    w.put(&mut item, "error_count", pool.error_count, Unit::Count);
    if let Some(errors) = pool.errors.as_ref().filter(|_| pool.error_count != 0 && style.verbose) {
        let list: Vec<Value> = errors.iter().map(|e| object_name(e).into()).collect();
        item.insert("errlist".into(), list.into());
    }
    item
}

fn scan_stats(w: &Writer, pool: &Pool, tree: &VdevNode) -> Object {
    let mut scan = Object::new();
    if let Some(s) = &pool.scan {
        scan.insert("function".into(), function(s.function).into());
        scan.insert("state".into(), upper(s.state.word()).into());
        scan_figures(w, s, &mut scan);
    }
    let mut rebuilds = Object::new();
    for child in &tree.children {
        let Some(r) = child.rebuild.as_ref().filter(|r| r.state != JobState::None) else { continue };
        let name = vdev::name(child, Some(&pool.name), vdev::Naming::default().numbered());
        let mut object = vdev_json(pool, child, Some(tree), &name, None, w.as_int);
        rebuild(w, r, &mut object);
        rebuilds.insert(name, object.into());
    }
    if !rebuilds.is_empty() {
        scan.insert("rebuild_stats".into(), rebuilds.into());
    }
    scan
}

fn scan_figures(w: &Writer, s: &ScanStats, into: &mut Object) {
    use Unit::{Bytes, Count, Plain, Time};
    w.all(
        into,
        &[
            ("start_time", s.start_time, Time),
            ("end_time", s.end_time, Time),
            ("to_examine", s.to_examine, Bytes),
            ("examined", s.examined, Bytes),
            ("skipped", s.skipped, Bytes),
            ("processed", s.processed, Bytes),
            ("errors", s.errors, Count),
            ("bytes_per_scan", s.pass_exam, Bytes),
            ("pass_start", s.pass_start, Plain),
            ("scrub_pause", s.pass_scrub_pause, Time),
            ("scrub_spent_paused", s.pass_scrub_spent_paused, Plain),
            ("issued_bytes_per_scan", s.pass_issued, Bytes),
            ("issued", s.issued, Bytes),
        ],
    );
    let scrubbed = s.error_scrub_function == ScanFunction::ErrorScrub;
    if scrubbed && s.error_scrub_start > s.start_time {
        into.insert("err_scrub_func".into(), function(s.error_scrub_function).into());
        into.insert("err_scrub_state".into(), upper(s.error_scrub_state.word()).into());
        w.all(
            into,
            &[
                ("err_scrub_start_time", s.error_scrub_start, Time),
                ("err_scrub_end_time", s.error_scrub_end, Time),
                ("err_scrub_examined", s.error_scrub_examined, Count),
                ("err_scrub_to_examine", s.error_scrub_to_be_examined, Count),
                ("err_scrub_pause", s.pass_error_scrub_pause, Plain),
            ],
        );
    }
}

fn rebuild(w: &Writer, r: &RebuildStats, into: &mut Object) {
    use Unit::{Bytes, Count, Plain, Time};
    into.insert("state".into(), upper(r.state.word()).into());
    w.all(
        into,
        &[
            ("start_time", r.start_time, Time),
            ("end_time", r.end_time, Time),
            ("scan_time", r.scan_time_ms.saturating_mul(1_000_000), Plain),
            ("scanned", r.bytes_scanned, Bytes),
            ("issued", r.bytes_issued, Bytes),
            ("rebuilt", r.bytes_rebuilt, Bytes),
            ("to_scan", r.bytes_est, Bytes),
            ("errors", r.errors, Count),
            ("pass_time", r.pass_time_ms.saturating_mul(1_000_000), Plain),
            ("pass_scanned", r.pass_bytes_scanned, Bytes),
            ("pass_issued", r.pass_bytes_issued, Bytes),
            ("pass_skipped", r.pass_bytes_skipped, Bytes),
        ],
    );
}

/// An object with the name of a top-level device, without its number.
fn top_level(tree: &VdevNode, id: u64, pool: &Pool) -> Object {
    let mut object = Object::new();
    if let Some(child) = tree.children.iter().find(|c| c.id == id) {
        object.insert("name".into(), vdev::name(child, Some(&pool.name), vdev::Naming::default()).into());
    }
    object
}

fn removal(w: &Writer, tree: &VdevNode, r: &RemovalStats, pool: &Pool) -> Object {
    use Unit::{Bytes, Plain, Time};
    let mut object = top_level(tree, r.removing_vdev, pool);
    object.insert("state".into(), upper(r.state.word()).into());
    w.all(
        &mut object,
        &[
            ("removing_vdev", r.removing_vdev, Plain),
            ("start_time", r.start_time, Time),
            ("end_time", r.end_time, Time),
            ("to_copy", r.to_copy, Bytes),
            ("copied", r.copied, Bytes),
            ("mapping_memory", r.mapping_memory, Bytes),
        ],
    );
    object
}

fn checkpoint(w: &Writer, c: &CheckpointStats) -> Object {
    let mut object = Object::new();
    object.insert("state".into(), upper(c.state.word()).into());
    w.all(&mut object, &[("start_time", c.start_time, Unit::Time), ("space", c.space, Unit::Bytes)]);
    object
}

fn expansion(w: &Writer, tree: &VdevNode, e: &ExpandStats, pool: &Pool) -> Object {
    use Unit::{Bytes, Plain, Time};
    let mut object = top_level(tree, e.expanding_vdev, pool);
    object.insert("state".into(), upper(e.state.word()).into());
    w.all(
        &mut object,
        &[
            ("expanding_vdev", e.expanding_vdev, Plain),
            ("start_time", e.start_time, Time),
            ("end_time", e.end_time, Time),
            ("to_reflow", e.to_reflow, Bytes),
            ("reflowed", e.reflowed, Bytes),
            ("waiting_for_resilver", u64::from(e.waiting_for_resilver), Plain),
        ],
    );
    object
}

struct Shape<'a> {
    pool: &'a Pool,
    style: &'a Style,
    w: &'a Writer,
    flat: bool,
}

impl Shape<'_> {
    fn vdev(&self, node: &VdevNode, depth: usize, spare: bool, parent: Option<&VdevNode>, into: &mut Object) {
        if node.kind == "indirect" {
            return;
        }
        if self.style.unhealthy && depth > 0 && healthy(node, self.style.slow) {
            return;
        }
        let name = vdev::name(node, Some(&self.pool.name), self.style.naming.numbered());
        let mut object = vdev_json(self.pool, node, parent, &name, None, self.w.as_int);
        if let (true, Some(parent)) = (self.flat, parent) {
            let parent = vdev::name(parent, Some(&self.pool.name), self.style.naming.numbered());
            object.insert("parent".into(), parent.into());
        }
        if !spare {
            self.figures(node, &mut object);
        } else if node.aux == VdevAux::Spared {
            object.insert("state".into(), "INUSE".into());
        } else if node.state == VdevState::Online {
            object.insert("state".into(), "AVAIL".into());
        }
        self.condition(node, spare, &mut object);
        if let Some(told) = &self.style.scripts {
            object.extend(told.fields(&self.pool.name, node));
        }
        if node.is_leaf() {
            self.jobs(node, &mut object);
        }
        let mut below = Object::new();
        for child in &node.children {
            if vdev::class_of(child).is_some() || vdev::is_hole(child) {
                continue;
            }
            if self.flat {
                self.vdev(child, depth + 2, spare, Some(node), into);
            }
            self.vdev(child, depth + 2, spare, Some(node), &mut below);
        }
        if !below.is_empty() {
            object.insert("vdevs".into(), below.into());
        }
        into.insert(name, object.into());
    }

    fn figures(&self, node: &VdevNode, object: &mut Object) {
        use Unit::{Bytes, Count, Plain};
        let s = &node.stats;
        let sizes = [
            ("alloc_space", s.alloc),
            ("total_space", s.space),
            ("def_space", s.dspace),
            ("rep_dev_size", s.rsize),
            ("ex_dev_size", s.esize),
            ("self_healed", s.self_healed),
            ("phys_space", s.pspace),
        ];
        for (key, n) in sizes.into_iter().filter(|(_, n)| *n != 0) {
            self.w.put(object, key, n, Bytes);
        }
        self.w.put(object, "read_errors", s.read_errors, Count);
        self.w.put(object, "write_errors", s.write_errors, Count);
        self.w.put(object, "checksum_errors", s.checksum_errors, Count);
        if s.scan_processed != 0 {
            self.w.put(object, "scan_processed", s.scan_processed, Bytes);
        }
        if s.checkpoint_space != 0 {
            self.w.put(object, "checkpoint_space", s.checkpoint_space, Bytes);
        }
        if node.resilver_deferred {
            self.w.put(object, "resilver_deferred", 1, Plain);
        }
        if node.is_leaf() {
            self.w.put(object, "slow_ios", s.slow_ios, Count);
        }
        if self.style.power {
            object.insert("power_state".into(), "-".into());
        }
    }

    fn condition(&self, node: &VdevNode, spare: bool, object: &mut Object) {
        if self.style.direct {
            self.w.put(object, "dio_verify_errors", node.stats.dio_verify_errors, Unit::Count);
        }
        if node.not_present {
            self.w.put(object, "not_present", 1, Unit::Plain);
            object.insert("was".into(), node.path.clone().unwrap_or_default().into());
        } else if node.aux != VdevAux::None {
            object.insert("aux".into(), node.aux.word().to_uppercase().into());
        } else if let (Some(have), Some(native)) = (node.ashift, node.physical_ashift)
            && node.is_leaf()
            && !spare
            && self.style.ashift
            && have < native
        {
            self.w.put(object, "configured_ashift", have, Unit::Plain);
            self.w.put(object, "physical_ashift", native, Unit::Plain);
        }
        if node.removing {
            self.w.put(object, "removing", 1, Unit::Plain);
        } else if node.noalloc {
            self.w.put(object, "noalloc", 1, Unit::Plain);
        }
    }

    fn jobs(&self, node: &VdevNode, object: &mut Object) {
        if self.style.initialize {
            let errors = Some(node.stats.initialize_errors);
            let keys = ["init_state", "initialized", "to_initialize", "init_time", "init_errors"];
            self.job(node.initialize.as_ref(), "UNINITIALIZED", keys, errors, object);
        }
        if self.style.trim {
            if !node.trim_notsup {
                let errors = Some(node.stats.trim_errors);
                let keys = ["trim_state", "trimmed", "to_trim", "trim_time", "trim_errors"];
                self.job(node.trim.as_ref(), "UNTRIMMED", keys, errors, object);
            }
            self.w.put(object, "trim_notsup", u64::from(node.trim_notsup), Unit::Plain);
        }
    }

    fn job(&self, job: Option<&LeafJob>, never: &str, keys: [&str; 5], errors: Option<u64>, object: &mut Object) {
        let [state, done, total, when, failed] = keys;
        let Some(job) = job.filter(|j| j.state != JobState::None) else {
            object.insert(state.into(), never.into());
            return;
        };
        object.insert(state.into(), upper(job.state.word()).into());
        self.w.put(object, done, job.bytes_done, Unit::Bytes);
        self.w.put(object, total, job.bytes_est, Unit::Bytes);
        self.w.put(object, when, job.action_time, Unit::Time);
        self.w.put(object, failed, errors.unwrap_or(0), Unit::Count);
    }

    fn sections(&self, tree: &VdevNode, into: &mut Object) {
        for class in STATUS_CLASSES {
            let mut section = Object::new();
            for child in tree.children.iter().filter(|c| vdev::class_of(c) == Some(class)) {
                self.vdev(child, 2, false, None, &mut section);
            }
            self.place(class, section, into);
        }
        for (key, devices, spare) in [("l2cache", &tree.l2cache, false), ("spares", &tree.spares, true)] {
            let mut section = Object::new();
            for child in devices {
                self.vdev(child, 2, spare, None, &mut section);
            }
            self.place(key, section, into);
        }
    }

    fn place(&self, key: &str, section: Object, into: &mut Object) {
        if self.flat {
            into.extend(section);
        } else if !section.is_empty() {
            into.insert(key.into(), section.into());
        }
    }
}
