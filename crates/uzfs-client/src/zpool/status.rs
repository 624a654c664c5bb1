//! `zpool status`.

use super::interval;
use super::list::{json_options, naming};
use super::pools;
use super::reason::{self, Reason};
use super::scan;
use super::scripts;
use super::status_text::advice;
use super::vdev::{self, Naming, STATUS_CLASSES};
use crate::getopt::Parsed;
use crate::json::Object;
use crate::nicenum::nicenum;
use crate::session::{Run, Session, Stop, put, putln};
use crate::time;
use uzfs_proto::{
    ErrorEntry, GetPoolsArgs, JobState, LeafJob, Pool, RebuildStats, ScanFunction, ScanState, VdevAux, VdevNode,
    VdevState,
};

/// What to print.
pub struct Style {
    /// Names of devices.
    pub naming: Naming,
    /// Numbers are not shortened.
    pub exact: bool,
    /// List damaged files.
    pub verbose: bool,
    /// Only devices in trouble.
    pub unhealthy: bool,
    /// Column of slow I/Os.
    pub slow: bool,
    /// Column of power states.
    pub power: bool,
    /// Column of direct I/O errors.
    pub direct: bool,
    /// Initialization of leaves.
    pub initialize: bool,
    /// TRIM of leaves.
    pub trim: bool,
    /// Deduplication table.
    pub dedup: bool,
    /// Warn of block sizes.
    pub ashift: bool,
    /// What the scripts of `-c` tell of devices.
    pub scripts: Option<scripts::Columns>,
    name_width: usize,
}

impl Style {
    fn new(session: &Session, args: &Parsed) -> Style {
        Style {
            naming: naming(session, args),
            exact: args.has('p') || args.has_long("json-int"),
            verbose: args.has('v'),
            unhealthy: args.has('e'),
            slow: args.has('s'),
            power: args.has_long("power"),
            direct: args.has('d'),
            initialize: args.has('i'),
            trim: args.has('t'),
            dedup: args.has('D'),
            ashift: session.variable("ZPOOL_STATUS_NON_NATIVE_ASHIFT_IGNORE").is_none(),
            scripts: None,
            name_width: 10,
        }
    }
}

/// `zpool status`.
pub fn status(session: &mut Session, args: &Parsed) -> Run {
    let scripts = scripts::wanted(session, &args.values('c').collect::<Vec<_>>())?;
    let mut operands = args.operands.clone();
    let mut interval = interval::take(&mut operands)?;
    if args.has_long("json-flat-vdevs") && !args.has('j') {
        return Err(Stop::Usage("'--json-flat-vdevs' only works with '-j' option".into()));
    }
    let (as_json, as_int, by_guid) = json_options(args)?;
    let mut style = Style::new(session, args);
    let explain = args.has('x');
    loop {
        let stamp = interval::timestamp(args)?;
        let ask = GetPoolsArgs {
            properties: Some(vec!["compatibility".into(), "ashift".into()]),
            tree: true,
            errors: style.verbose,
            dedup: style.dedup,
            ..Default::default()
        };
        let (found, failed) = pools::fetch(session, &operands, ask)?;
        style.scripts = (!scripts.is_empty()).then(|| scripts::run(session, &scripts, &found));
        let hostid = crate::hostid::system(session);
        let judged: Vec<(&Pool, Reason)> =
            found.iter().map(|p| (p, reason::of_pool(p, hostid, style.ashift))).collect();
        if as_json {
            let mut all = Object::new();
            for (pool, reason) in judged.iter().filter(|(_, r)| !(explain && r.is_harmless())) {
                let flat = args.has_long("json-flat-vdevs");
                let value = super::status_json::pool(pool, *reason, &style, as_int, flat);
                let key = if by_guid { pool.guid.to_string() } else { pool.name.clone() };
                all.insert(key, value.into());
            }
            if !failed {
                putln!(session.out, "{}", super::finish_json("zpool status", stamp, as_int, all));
            }
        } else {
            interval::print_timestamp(session, args)?;
            print_all(session, &judged, &mut style, explain, operands.is_empty());
        }
        if failed {
            return Ok(1);
        }
        if !interval.again(session) {
            return Ok(0);
        }
    }
}

fn print_all(session: &mut Session, judged: &[(&Pool, Reason)], style: &mut Style, explain: bool, all: bool) {
    let mut first = true;
    for (pool, reason) in judged {
        if explain && reason.is_harmless() {
            if !all {
                putln!(session.out, "pool '{}' is healthy", pool.name);
                first = false;
            }
            continue;
        }
        if !std::mem::take(&mut first) {
            putln!(session.out);
        }
        print_pool(session, pool, *reason, style);
    }
    if all && judged.is_empty() {
        putln!(session.err, "no pools available");
    } else if explain && first && all {
        putln!(session.out, "all pools are healthy");
    }
}

fn print_pool(session: &mut Session, pool: &Pool, reason: Reason, style: &mut Style) {
    putln!(session.out, "  pool: {}", pool.name);
    putln!(session.out, " state: {}", vdev::pool_state(pool));
    let advice = advice(pool, reason);
    if !advice.status.is_empty() {
        put!(session.out, "status: {}", advice.status);
    }
    if !advice.action.is_empty() {
        put!(session.out, "action: {}", advice.action);
    }
    if let Some(id) = reason.message_id() {
        putln!(session.out, "   see: https://openzfs.github.io/openzfs-docs/msg/{id}");
    }
    let Some(tree) = &pool.tree else {
        putln!(session.out, "config: The configuration cannot be determined.");
        return;
    };
    put!(session.out, "{}", scan::lines(pool, tree, style.naming));
    let numbered = style.naming.numbered();
    style.name_width = vdev::max_width(tree, Some(&pool.name), 0, 10, numbered);
    print_config(session, pool, tree, style);
    print_errors(session, pool, style);
    if style.dedup {
        put!(session.out, "{}", super::ddt::lines(pool, style.exact));
    }
}

fn print_config(session: &mut Session, pool: &Pool, tree: &VdevNode, style: &Style) {
    let width = style.name_width;
    put!(session.out, "config:\n\n\t{:width$}  {:8} {:>5} {:>5} {:>5}", "NAME", "STATE", "READ", "WRITE", "CKSUM");
    for (on, title) in [(style.slow, "SLOW"), (style.power, "POWER"), (style.direct, "DIO")] {
        if on {
            put!(session.out, " {title:>5}");
        }
    }
    putln!(session.out, "{}", style.scripts.as_ref().map(scripts::Columns::titles).unwrap_or_default());
    print_vdev(session, pool, tree, &pool.name, style, Place::default(), None);
    let below = Place { depth: 2, spare: false };
    for class in STATUS_CLASSES {
        let mut titled = false;
        for child in tree.children.iter().filter(|c| vdev::class_of(c) == Some(class)) {
            if child.kind == "indirect" && !child.is_log {
                continue;
            }
            if !std::mem::replace(&mut titled, true) {
                putln!(session.out, "\t{class}\t");
            }
            let name = vdev::name(child, Some(&pool.name), style.naming.numbered());
            print_vdev(session, pool, child, &name, style, below, None);
        }
    }
    for (title, devices, spare) in [("cache", &tree.l2cache, false), ("spares", &tree.spares, true)] {
        if !devices.is_empty() {
            putln!(session.out, "\t{title}");
        }
        for child in devices {
            let name = vdev::name(child, Some(&pool.name), style.naming);
            print_vdev(session, pool, child, &name, style, Place { depth: 2, spare }, None);
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Place {
    depth: usize,
    spare: bool,
}

/// True if nothing below is worth a line with `-e`.
pub fn healthy(node: &VdevNode, slow: bool) -> bool {
    if !node.is_leaf() {
        return node.children.iter().all(|c| healthy(c, slow));
    }
    let s = &node.stats;
    let errors = s.checksum_errors + s.read_errors + s.write_errors;
    errors == 0 && node.state == VdevState::Online && !(slow && s.slow_ios > 0)
}

fn counters(node: &VdevNode, style: &Style) -> String {
    let s = &node.stats;
    let count = |n: u64| if style.exact { n.to_string() } else { nicenum(n) };
    let mut out = String::new();
    for n in [s.read_errors, s.write_errors, s.checksum_errors] {
        out.push_str(&format!(" {:>5}", count(n)));
    }
    if style.slow {
        let text = match node.is_leaf() || style.exact {
            true => count(s.slow_ios),
            false => "-".into(),
        };
        out.push_str(&format!(" {text:>5}"));
    }
    if style.power {
        out.push_str(&format!(" {:>5}", "-"));
    }
    if style.direct {
        out.push_str(&format!(" {:>5}", count(s.dio_verify_errors)));
    }
    out
}

fn scan_note(pool: &Pool, node: &VdevNode, rebuild: Option<&RebuildStats>) -> &'static str {
    if !node.is_leaf() || node.state != VdevState::Online {
        return "";
    }
    if let Some(scan) = pool.scan.as_ref().filter(|s| s.state == ScanState::Scanning) {
        match (node.stats.scan_processed, scan.function) {
            (0, _) if node.resilver_deferred => return "  (awaiting resilver)",
            (0, _) => {}
            (_, ScanFunction::Resilver) => return "  (resilvering)",
            (_, _) => return "  (repairing)",
        }
    }
    match rebuild {
        Some(r) if r.state == JobState::Active && node.stats.rebuild_processed != 0 => "  (resilvering)",
        _ => "",
    }
}

fn job(job: Option<&LeafJob>, words: [&str; 3], verbose: bool, removing: bool) -> String {
    let [never, going, done] = words;
    let state = job.map_or(JobState::None, |j| j.state);
    if !verbose {
        return if state == JobState::Active { format!("  ({going})") } else { String::new() };
    }
    let Some(job) = job.filter(|_| !removing) else { return format!("  ({never})") };
    let when = time::ctime(job.action_time);
    let part = u128::from(job.bytes_done) * 100 / (u128::from(job.bytes_est) + 1);
    match job.state {
        JobState::Suspended => format!("  ({part}% {done}, suspended, started at {when})"),
        JobState::Active => format!("  ({part}% {done}, started at {when})"),
        JobState::Complete => format!("  (100% {done}, completed at {when})"),
        _ => format!("  ({never})"),
    }
}

fn print_vdev(
    session: &mut Session,
    pool: &Pool,
    node: &VdevNode,
    name: &str,
    style: &Style,
    place: Place,
    rebuild: Option<&RebuildStats>,
) {
    if node.kind == "indirect" {
        return;
    }
    if style.unhealthy && place.depth > 0 && healthy(node, style.slow) {
        return;
    }
    let depth = place.depth;
    let width = style.name_width.saturating_sub(depth);
    let state = vdev::state_of(node, place.spare);
    put!(session.out, "\t{:depth$}{name:width$}  {state:8}", "");
    if !place.spare {
        put!(session.out, "{}", counters(node, style));
    }
    if node.not_present {
        put!(session.out, "  was {}", node.path.as_deref().unwrap_or("unknown"));
    } else if node.aux != VdevAux::None {
        put!(session.out, "  {}", vdev::aux_sentence(node, &pool.name));
    } else if let (Some(have), Some(native)) = (node.ashift, node.physical_ashift)
        && node.is_leaf()
        && !place.spare
        && style.ashift
        && have < native
        && native < 64
    {
        let (have, native) = (1u64 << have, 1u64 << native);
        put!(session.out, "  block size: {have}B configured, {native}B native");
    }
    if node.removing {
        put!(session.out, "  (removing)");
    } else if node.noalloc {
        put!(session.out, "  (non-allocating)");
    }
    put!(session.out, "{}", scan_note(pool, node, rebuild));
    if let Some(told) = &style.scripts {
        put!(session.out, "{}", told.line(&pool.name, node));
    }
    if node.is_leaf() {
        let words = ["uninitialized", "initializing", "initialized"];
        let text = job(node.initialize.as_ref(), words, style.initialize, node.removing);
        put!(session.out, "{text}");
        let never = if node.trim_notsup { "trim unsupported" } else { "untrimmed" };
        let words = [never, "trimming", "trimmed"];
        put!(session.out, "{}", job(node.trim.as_ref(), words, style.trim, node.removing));
    }
    putln!(session.out);
    let rebuild = rebuild.or(node.rebuild.as_ref());
    for child in &node.children {
        if vdev::class_of(child).is_some() || vdev::is_hole(child) {
            continue;
        }
        let name = vdev::name(child, Some(&pool.name), style.naming.numbered());
        let place = Place { depth: depth + 2, ..place };
        print_vdev(session, pool, child, &name, style, place, rebuild);
    }
}

/// The name of a damaged object as `zpool status -v` prints it.
pub fn object_name(entry: &ErrorEntry) -> String {
    let object = format!("<0x{:x}>", entry.object.0);
    if entry.objset.0 == 0 {
        return format!("<metadata>:{object}");
    }
    match (&entry.dataset, &entry.path, &entry.mountpoint) {
        (None, _, _) => format!("<0x{:x}>:{object}", entry.objset.0),
        (Some(dataset), None, _) => format!("{dataset}:{object}"),
        (Some(_), Some(path), Some(at)) if at == "/" => path.clone(),
        (Some(_), Some(path), Some(at)) => format!("{at}{path}"),
        (Some(dataset), Some(path), None) => format!("{dataset}:{path}"),
    }
}

fn print_errors(session: &mut Session, pool: &Pool, style: &Style) {
    putln!(session.out);
    match (pool.error_count, &pool.errors) {
        (0, _) => putln!(session.out, "errors: No known data errors"),
        (_, Some(list)) if style.verbose => {
            let title = "errors: Permanent errors have been detected in the following files:";
            putln!(session.out, "{title}\n");
            for entry in list {
                putln!(session.out, "        {}", object_name(entry));
            }
        }
        (n, _) => putln!(session.out, "errors: {n} data errors, use '-v' for a list"),
    }
}
