//! Turns the output of OpenZFS's tools back into the raw values a daemon sends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uzfs_client::props::{self, Def, Default as PropDefault, Format, index};
use uzfs_proto::*;

/// Folders with `zfs-get` and so on: those of the repository, and the whole corpus if it is there.
pub fn places() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openzfs");
    let corpus = std::env::var_os("UZFS_CORPUS").map(PathBuf::from);
    for (dir, below) in [(Some(own), ""), (corpus, "expect")] {
        let Some(dir) = dir else { continue };
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let place = entry.path().join(below);
            if place.join("zpool-get").is_file() {
                found.push((entry.file_name().into_string().unwrap(), place));
            }
        }
    }
    found
}

fn raw(def: Option<&Def>, value: &str) -> Raw {
    let hundredths = |text: &str| text.replace('.', "").parse().ok().map(Raw::number);
    let number = |text: &str| text.parse().ok().map(Raw::number);
    let parsed = match def.map(|d| d.format) {
        Some(Format::Index(table)) => index::number_of(table, value).map(Raw::number),
        Some(Format::YesNo) => Some(Raw::number(u64::from(value == "yes"))),
        Some(Format::Ratio) => hundredths(value),
        Some(Format::CountOrNone) if value == "none" => Some(Raw::number(u64::MAX)),
        Some(Format::QuotaOrAuto) if value == "auto" => Some(Raw::number(u64::MAX)),
        Some(Format::BytesOrDash) if value == "-" => Some(Raw::number(0)),
        Some(Format::Percent) if value == "-" => Some(Raw::number(u64::MAX)),
        Some(Format::PoolVersion) if value == "-" => Some(Raw::number(5000)),
        Some(Format::Text) | None => None,
        Some(_) => number(value),
    };
    parsed.unwrap_or_else(|| Raw::text(value))
}

fn source(text: &str) -> (PropertySource, Option<String>) {
    match text.strip_prefix("inherited from ") {
        Some(from) => (PropertySource::Inherited, Some(from.to_owned())),
        None if text == "-" => (PropertySource::None, None),
        None => (PropertySource::from_word(text).expect("a known source"), None),
    }
}

type Properties = BTreeMap<String, Property>;

/// Rows of `zfs get -Hp` or `zpool get -Hp`, by name in order of appearance. What is a default in our
/// tables is left out, as a daemon may do, so that the tables are put to the test.
fn properties(text: &str, find: fn(&str) -> Option<&'static Def>) -> Vec<(String, Properties)> {
    let mut all: Vec<(String, Properties)> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, property, value, from] = fields[..] else { panic!("not a row: {line}") };
        if all.last().is_none_or(|(n, _)| n != name) {
            all.push((name.to_owned(), Properties::new()));
        }
        let def = find(property);
        let (source, from) = source(from);
        let defaulted = def.is_some_and(|d| d.default != PropDefault::None);
        let snapshot = name.contains(['@', '#']);
        if source == PropertySource::Default && (defaulted && !snapshot || value == "-") {
            continue;
        }
        let value = raw(def, value);
        let p = Property { value, source, from, received: None };
        all.last_mut().unwrap().1.insert(property.to_owned(), p);
    }
    all
}

fn datasets(text: &str) -> Vec<Dataset> {
    let number = |p: &Properties, n: &str| p.get(n).and_then(|p| p.value.as_u64()).unwrap();
    let one = |(name, p): (String, Properties)| Dataset {
        name,
        kind: DatasetKind::from_word(p["type"].value.text.as_deref().unwrap()).unwrap(),
        guid: U64(number(&p, "guid")),
        createtxg: U64(number(&p, "createtxg")),
        inconsistent: false,
        properties: p,
    };
    properties(text, props::dataset).into_iter().map(one).collect()
}

fn node(name: &str, id: u64) -> VdevNode {
    let number = |text: &str| text.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    if name.starts_with('/') {
        return VdevNode { path: Some(name.into()), ..VdevNode::new("file", id, 1000 + id) };
    }
    let (kind, count) = name.rsplit_once('-').unwrap_or((name, ""));
    let id = number(count).unwrap_or(id);
    if let Some(shape) = kind.strip_prefix("draid") {
        let parts: Vec<&str> = shape.split(':').collect();
        if let [parity, data, _, spares] = parts[..] {
            return VdevNode {
                nparity: number(parity),
                draid_ndata: number(data),
                draid_nspares: number(spares),
                ..VdevNode::new("draid", id, 2000 + id)
            };
        }
        return VdevNode { path: Some(name.into()), ..VdevNode::new("dspare", id, 3000 + id) };
    }
    match kind.strip_prefix("raidz") {
        Some(parity) => VdevNode { nparity: number(parity), ..VdevNode::new("raidz", id, 4000 + id) },
        None => VdevNode::new(kind, id, 5000 + id),
    }
}

/// Figures of a device from `zpool list -Hpv`.
fn figures(listing: &str, name: &str, stats: &mut VdevStats, leaf_of_group: bool) {
    let Some(line) = listing.lines().find(|l| l.starts_with(&format!("\t{name}\t"))) else { return };
    let cells: Vec<&str> = line.trim_start().split('\t').collect();
    let n = |i: usize| cells[i].parse::<u64>().unwrap_or(0);
    stats.pspace = n(1);
    if !leaf_of_group {
        stats.alloc = n(2);
        stats.space = n(2) + n(3);
        stats.checkpoint_space = n(4);
        stats.fragmentation = cells[6].parse().ok();
    }
}

fn tree(status: &str, listing: &str) -> VdevNode {
    let mut root = VdevNode::new("root", 0, 9);
    let config = status.split("config:\n\n").nth(1).unwrap();
    let lines = config.lines().skip(2).take_while(|l| !l.is_empty());
    let (mut section, mut next) = ("", 0u64);
    for line in lines {
        let line = line.strip_prefix('\t').unwrap();
        let name = line.split_whitespace().next().unwrap();
        let depth = line.len() - line.trim_start().len();
        if depth == 0 {
            section = ["special", "logs", "cache", "spares", "dedup"].into_iter().find(|s| *s == name).unwrap();
            continue;
        }
        let mut new = node(name, next);
        figures(listing, name, &mut new.stats, depth > 2);
        next += 1;
        let list = match (section, depth) {
            ("cache", _) => &mut root.l2cache,
            ("spares", _) => &mut root.spares,
            (_, 2) => &mut root.children,
            (_, _) => &mut root.children.last_mut().unwrap().children,
        };
        if depth == 2 {
            new.is_log = section == "logs";
            new.alloc_bias = (section == "special").then(|| "special".to_owned());
        }
        list.push(new);
    }
    // Removed devices are only in the listing.
    let names = listing.lines().filter_map(|l| l.trim_start().split('\t').next());
    root.children.extend(names.filter(|n| n.starts_with("indirect-")).map(|n| node(n, 0)));
    root
}

fn seconds(date: &str) -> u64 {
    // `Sun Nov 22 19:21:02 2026`: all fixtures are of one day.
    let clock: Vec<u64> = date.split_whitespace().nth(3).unwrap().split(':').map(|p| p.parse().unwrap()).collect();
    assert!(date.contains("Nov 22") && date.contains("2026"), "{date}");
    1_795_305_600 + clock[0] * 3600 + clock[1] * 60 + clock[2]
}

fn jobs(pool: &mut Pool, status: &str) {
    let mebi = |n: f64| (n * 1_048_576.0) as u64;
    for line in status.lines() {
        let end = line.get(line.len().saturating_sub(24)..).unwrap_or("");
        if line.starts_with("remove: Removal") {
            pool.removal = Some(RemovalStats {
                state: ScanState::Finished,
                removing_vdev: 1,
                start_time: seconds(end) - 2,
                end_time: seconds(end),
                to_copy: mebi(1.85),
                copied: mebi(1.85),
                mapping_memory: 72,
            });
        } else if line.starts_with("expand: expanded") {
            pool.expand = Some(ExpandStats {
                state: ScanState::Finished,
                expanding_vdev: 0,
                start_time: seconds(end) - 3,
                end_time: seconds(end),
                to_reflow: 404 << 10,
                reflowed: 404 << 10,
                waiting_for_resilver: false,
            });
        } else if let Some(rest) = line.strip_prefix("checkpoint: created ") {
            pool.checkpoint = Some(CheckpointStats {
                state: CheckpointState::Exists,
                start_time: seconds(&rest[..24]),
                space: mebi(1.10),
            });
        } else if line.starts_with("  scan: scrub repaired 0B") {
            let mut scan: ScanStats = serde_json::from_value(super::fake::no_scan()).unwrap();
            scan.function = ScanFunction::Scrub;
            scan.state = ScanState::Finished;
            scan.end_time = seconds(end);
            scan.start_time = scan.end_time - 4;
            pool.scan = Some(scan);
        }
    }
}

fn history(text: &str) -> Vec<HistoryRecord> {
    let mut records: Vec<HistoryRecord> = Vec::new();
    for line in text.lines().skip(1).filter(|l| !l.is_empty()) {
        if let Some(item) = line.strip_prefix("        ") {
            let last = records.last_mut().unwrap();
            last.ioctl_output.as_mut().or(last.ioctl_input.as_mut()).unwrap().push(item.into());
            continue;
        }
        match line {
            "    input:" => records.last_mut().unwrap().ioctl_input = Some(vec![]),
            "    output:" => records.last_mut().unwrap().ioctl_output = Some(vec![]),
            _ if line.starts_with(" [") => who(records.last_mut().unwrap(), line),
            _ => records.push(record(line)),
        }
    }
    records
}

fn who(r: &mut HistoryRecord, text: &str) {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let (user, place) = inner.rsplit_once("on ").unwrap();
    if let Some(user) = user.strip_prefix("user ") {
        let (uid, name) = user.trim().split_once(" (").unwrap();
        r.uid = uid.parse().ok();
        r.user = Some(name.trim_end_matches(')').into());
    }
    match place.split_once(':') {
        Some((host, zone)) => {
            r.host = Some(host.into());
            r.zone = Some(zone.into());
        }
        None => r.host = Some(place.into()),
    }
}

fn record(line: &str) -> HistoryRecord {
    let (when, rest) = line.split_once(' ').unwrap();
    let date = format!("Sun Nov 22 {} 2026", when.split_once('.').unwrap().1);
    let mut r = HistoryRecord { time: seconds(&date), ..Default::default() };
    let mut rest = rest.to_owned();
    if let Some(at) = rest.rfind(" [")
        && !rest[at..].starts_with(" [txg:")
    {
        let tail = rest.split_off(at);
        who(&mut r, &tail);
    }
    if let Some((ms, more)) = rest.strip_prefix('(').and_then(|t| t.split_once("ms) ")) {
        r.elapsed_ns = ms.parse::<u64>().ok().map(|n| n * 1_000_000);
        rest = more.to_owned();
    }
    if let Some((txg, more)) = rest.strip_prefix("[txg:").and_then(|t| t.split_once("] ")) {
        r.txg = txg.parse().ok();
        let (name, text) = more.split_once(' ').unwrap();
        r.internal_name = Some(name.into());
        let mut text = text.to_owned();
        if let Some((ds, tail)) = text.clone().split_once(" (")
            && let Some((id, tail)) = tail.split_once(") ")
            && id.bytes().all(|b| b.is_ascii_digit())
            && !ds.contains(' ')
        {
            (r.dataset, r.dataset_id) = (Some(ds.into()), id.parse().ok());
            text = tail.into();
        }
        r.internal_text = Some(text);
    } else if let Some(name) = rest.strip_prefix("ioctl ") {
        r.ioctl = Some(name.into());
    } else {
        r.command = Some(rest);
    }
    r
}

/// The pool whose tools' output lies in `place`, with its datasets and history.
pub fn load(name: &str, place: &Path) -> (Pool, Vec<Dataset>, Vec<HistoryRecord>) {
    let read = |file: &str| std::fs::read_to_string(place.join(file)).unwrap_or_default();
    let (_, properties) = properties(&read("zpool-get"), props::pool).remove(0);
    let number = |n: &str| properties.get(n).and_then(|p| p.value.as_u64());
    let version = number("version").unwrap_or(5000);
    let disabled = properties.iter().filter(|(_, p)| p.value.text.as_deref() == Some("disabled"));
    let disabled: Vec<String> = disabled.filter_map(|(n, _)| n.strip_prefix("feature@")).map(str::to_owned).collect();
    let status = read("zpool-status");
    let mut pool = Pool {
        name: name.into(),
        guid: U64(number("guid").unwrap()),
        state: PoolState::Active,
        suspended: None,
        version,
        zpl_version: 5,
        txg: U64(77),
        hostid: 0,
        readonly: false,
        failmode: "wait".into(),
        disabled_features: disabled,
        unsupported_features: vec![],
        errata: 0,
        tree: Some(tree(&status, &read("zpool-list"))),
        properties,
        scan: None,
        removal: None,
        expand: None,
        checkpoint: None,
        error_count: 0,
        errors: Some(vec![]),
        dedup: None,
    };
    jobs(&mut pool, &status);
    (pool, datasets(&read("zfs-get")), history(&read("zpool-history")))
}
