//! `zpool import` and `zpool export`.

use super::import_list;
use super::pools;
use super::status_text::{RECOVER, feature_lines};
use crate::getopt::Parsed;
use crate::props;
use crate::sentence;
use crate::session::{Run, Session, Stop, put, putln};
use crate::time;
use crate::zfs::keys;
use crate::zfs::mount::{self, How};
use uzfs_proto::{
    DiscoverPoolsArgs, ExportPoolArgs, Failure, FailureCode, GetPoolsArgs, ImportPoolArgs, ImportPoolReply,
    ImportablePool, MultihostState, PoolState, Rewind, RewindInfo, Search, U64, method,
};

/// What the options say.
struct Plan {
    template: ImportPoolArgs,
    how: How,
    mount: bool,
    load_keys: bool,
}

fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |p| p.to_string_lossy().into_owned())
}

fn check(args: &Parsed) -> Result<(), Stop> {
    let usage = |why: &str| Err(Stop::Usage(why.into()));
    let (all, count) = (args.has('a'), args.operands.len());
    if args.has('c') && args.has('d') {
        return usage("-c is incompatible with -d");
    }
    if args.has('c') && args.has('s') {
        return usage("-c is incompatible with -s");
    }
    if args.has('l') && args.has('N') {
        return usage("-l is incompatible with -N");
    }
    if args.has('l') && !all && count == 0 {
        return usage("-l is only meaningful during an import");
    }
    if (args.has('n') || args.has('X')) && !args.has('F') {
        return usage("-n or -X only meaningful with -F");
    }
    if all && count != 0 || count > 2 {
        return usage("too many arguments");
    }
    Ok(())
}

fn txg(args: &Parsed) -> Result<Option<u64>, Stop> {
    let Some(text) = args.value('T') else { return Ok(None) };
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map(Some).map_err(|_| Stop::Usage("invalid txg value".into()))
}

fn search(session: &Session, args: &Parsed) -> Search {
    let mut paths: Vec<String> = args.values('d').map(absolute).collect();
    if paths.is_empty()
        && let Some(list) = session.variable("ZPOOL_IMPORT_PATH")
    {
        paths = list.split(':').filter(|p| !p.is_empty()).map(absolute).collect();
    }
    Search { paths, cachefile: args.value('c').map(absolute), scan: args.has('s') }
}

/// Sorts the values of `-o` into pool properties and mount options.
fn options(session: &mut Session, args: &Parsed, plan: &mut Plan) -> Result<(), Stop> {
    for value in args.values('o') {
        let Some((name, value)) = value.split_once('=') else {
            plan.how.options.extend(value.split(',').map(str::to_owned));
            continue;
        };
        if props::pool(name).is_none() && !props::is_feature(name) && !props::is_user(name) {
            putln!(session.err, "property '{name}' is not a valid pool or vdev property");
            return Err(Stop::Exit(1));
        }
        match name {
            "altroot" => plan.template.altroot = Some(value.to_owned()),
            "cachefile" => plan.template.cachefile = Some(value.to_owned()),
            _ => {
                let known = &mut plan.template.properties;
                if known.insert(name.to_owned(), value.to_owned()).is_some() {
                    putln!(session.err, "property '{name}' specified multiple times");
                    return Err(Stop::Exit(1));
                }
            }
        }
    }
    Ok(())
}

fn plan(session: &mut Session, args: &Parsed) -> Result<Plan, Stop> {
    let txg = txg(args)?;
    check(args)?;
    let rewind = Rewind {
        recover: args.has('F') || txg.is_some(),
        dry_run: args.has('n'),
        extreme: args.has('X') || txg.is_some(),
        txg,
        checkpoint: args.has_long("rewind-to-checkpoint"),
    };
    let template = ImportPoolArgs {
        search: search(session, args),
        temporary_name: args.has('t'),
        altroot: args.value('R').map(str::to_owned),
        force: args.has('f'),
        destroyed: args.has('D'),
        missing_log: args.has('m'),
        rewind,
        ..Default::default()
    };
    let mut plan = Plan { template, how: How::default(), mount: !args.has('N'), load_keys: args.has('l') };
    options(session, args, &mut plan)?;
    if plan.template.cachefile.is_none() && (args.has('R') || args.has('t')) {
        plan.template.cachefile = Some("none".into());
    }
    Ok(plan)
}

fn taken(session: &mut Session, name: &str) -> Result<bool, Stop> {
    let ask = GetPoolsArgs { pools: vec![name.to_owned()], ..Default::default() };
    Ok(!session.call::<method::GetPools>("cannot get pools", &ask)?.pools.is_empty())
}

/// `zpool import`.
pub fn import(session: &mut Session, args: &Parsed) -> Run {
    let mut plan = plan(session, args)?;
    let wanted = args.operands.first().cloned();
    let new_name = args.operands.get(1).cloned();
    let nowhere = plan.template.search == Search::default();
    if wanted.is_none() && nowhere && crate::connect::euid() != 0 {
        putln!(session.err, "cannot discover pools: permission denied");
        return Ok(1);
    }
    let guid = wanted.as_deref().and_then(|w| w.parse::<u64>().ok()).map(U64);
    let name = wanted.clone().filter(|_| guid.is_none());
    let exists = match &wanted {
        Some(wanted) => taken(session, wanted)?,
        None => false,
    };
    if let Some(wanted) = wanted.as_deref().filter(|_| exists)
        && new_name.as_deref().is_none_or(|n| n == wanted)
    {
        putln!(session.err, "cannot import '{wanted}': a pool with that name already exists");
        let form = "use the form 'zpool import <pool | id> <newpool>' to give it a new name";
        putln!(session.err, "{form}");
        return Ok(1);
    }
    let wanted = Wanted { text: wanted, new_name, name, guid, all: args.has('a'), destroyed: args.has('D') };
    if let Err(why) = look(&plan.template.search) {
        putln!(session.err, "{why}");
        if let Some(text) = &wanted.text {
            putln!(session.err, "cannot import '{text}': no such pool available");
        }
        return Ok(1);
    }
    let Some(found) = find(session, &plan, &wanted)? else { return Ok(1) };
    let code = use_found(session, &mut plan, &wanted, &found)?;
    if code == 0 || plan.template.search.cachefile.is_none() {
        return Ok(code);
    }
    // Devices may have got other names since the file was written: look beside where they were.
    putln!(session.out, "cachefile import failed, retrying");
    plan.template.search.scan = true;
    let Some(found) = find(session, &plan, &wanted)? else { return Ok(1) };
    use_found(session, &mut plan, &wanted, &found)
}

/// What the command line names.
struct Wanted {
    text: Option<String>,
    new_name: Option<String>,
    name: Option<String>,
    guid: Option<U64>,
    all: bool,
    destroyed: bool,
}

/// The system's words for an error, without its number.
fn errno_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Looks whether the places to search can be looked at; those that do not exist hold nothing, which is no error.
fn look(search: &Search) -> Result<(), String> {
    if let Some(file) = &search.cachefile {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe would be waited for.
        let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file);
        opened.map_err(|e| format!("failed to open cache file: {}", errno_text(&e)))?;
    }
    for path in &search.paths {
        let gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
        let meta = match std::fs::metadata(path) {
            Err(e) if gone(&e) => continue,
            other => other.map_err(|e| format!("cannot resolve path '{path}': {}", errno_text(&e)))?,
        };
        if meta.is_dir() {
            std::fs::read_dir(path).map_err(|e| format!("cannot open '{path}': {}", errno_text(&e)))?;
        }
    }
    Ok(())
}

/// One search; none when it could not be made, which was said then.
fn find(session: &mut Session, plan: &Plan, wanted: &Wanted) -> Result<Option<Vec<ImportablePool>>, Stop> {
    let search = plan.template.search.clone();
    let cached = search.cachefile.is_some();
    let ask = DiscoverPoolsArgs { search, name: wanted.name.clone(), guid: wanted.guid };
    match session.try_call::<method::DiscoverPools>(&ask)? {
        Ok(reply) => {
            let mut found = reply.pools;
            found.retain(|p| (p.state == PoolState::Destroyed) == wanted.destroyed);
            Ok(Some(found))
        }
        Err(_) if cached => {
            putln!(session.err, "invalid or corrupt cache file contents: invalid or missing cache file");
            if let Some(text) = &wanted.text {
                putln!(session.err, "cannot import '{text}': no such pool available");
            }
            Ok(None)
        }
        Err(failure) => {
            session.report("cannot discover pools", &failure);
            Ok(None)
        }
    }
}

/// Imports or shows what was found and wanted.
fn use_found(session: &mut Session, plan: &mut Plan, wanted: &Wanted, found: &[ImportablePool]) -> Run {
    if let Some(text) = &wanted.text {
        let Some(pool) = choose(session, found, text, wanted.guid) else { return Ok(1) };
        plan.template.new_name = wanted.new_name.clone();
        return import_one(session, pool, plan);
    }
    let mut code = 0;
    for (i, pool) in found.iter().enumerate() {
        if wanted.all {
            code |= import_one(session, pool, plan)?;
            continue;
        }
        if i > 0 {
            putln!(session.out);
        }
        import_list::print(session, pool);
    }
    if found.is_empty() {
        putln!(session.err, "no pools available to import");
    }
    Ok(code)
}

fn choose<'a>(
    session: &mut Session,
    found: &'a [ImportablePool],
    wanted: &str,
    guid: Option<U64>,
) -> Option<&'a ImportablePool> {
    let mut fits = found.iter().filter(|p| match guid {
        Some(guid) => p.guid == guid,
        None => p.name == wanted,
    });
    match (fits.next(), fits.next()) {
        (None, _) => {
            putln!(session.err, "cannot import '{wanted}': no such pool available");
            None
        }
        (Some(_), Some(_)) => {
            putln!(session.err, "cannot import '{wanted}': more than one matching pool");
            putln!(session.err, "import by numeric ID instead");
            None
        }
        (only, None) => only,
    }
}

/// Complains if the pool looks in use by another host.
fn in_use(session: &mut Session, pool: &ImportablePool) -> bool {
    let name = &pool.name;
    let foreign = pool.state != PoolState::Exported && pool.hostid != crate::hostid::system(session);
    match pool.multihost {
        MultihostState::Active => {
            let host = pool.multihost_hostname.as_deref().unwrap_or("<unknown>");
            let id = pool.multihost_hostid;
            active_elsewhere(session, name, host, &format!("{id:x}"));
        }
        MultihostState::NoHostid => hostid_required(session, name),
        MultihostState::Inactive if foreign => {
            let host = pool.hostname.as_deref().unwrap_or("<unknown>");
            foreign_host(session, name, host, &format!("{:x}", pool.hostid), pool.timestamp);
        }
        MultihostState::Inactive => return false,
    }
    true
}

fn active_elsewhere(session: &mut Session, name: &str, host: &str, id: &str) {
    putln!(
        session.err,
        "cannot import '{name}': pool is imported on {host} (hostid: 0x{id})\n\
         Export the pool on the other system, then run 'zpool import'."
    );
}

fn hostid_required(session: &mut Session, name: &str) {
    putln!(
        session.err,
        "Cannot import '{name}': pool has the multihost property on and the\n\
         system's hostid is not set. Set a unique hostid with the zgenhostid(8) command."
    );
}

fn foreign_host(session: &mut Session, name: &str, host: &str, id: &str, when: u64) {
    let when = time::ctime(when);
    putln!(
        session.err,
        "cannot import '{name}': pool was previously in use from another system.\n\
         Last accessed by {host} (hostid={id}) at {when}\n\
         The pool can be imported, use 'zpool import -f' to import the pool."
    );
}

fn import_one(session: &mut Session, pool: &ImportablePool, plan: &Plan) -> Run {
    let name = &pool.name;
    if !(1..=28).contains(&pool.version) && pool.version != 5000 {
        let why = "pool is formatted using an unsupported ZFS version";
        putln!(session.err, "cannot import '{name}': {why}");
        return Ok(1);
    }
    if !plan.template.force && in_use(session, pool) {
        return Ok(1);
    }
    if let Some(new) = &plan.template.new_name
        && let Some(why) = sentence::bad_pool_name(new)
    {
        putln!(session.err, "cannot import '{new}': {why}");
        return Ok(1);
    }
    let args = ImportPoolArgs { guid: pool.guid, ..plan.template.clone() };
    match session.try_call::<method::ImportPool>(&args)? {
        Ok(reply) => imported(session, &reply, plan),
        Err(failure) => {
            refused(session, name, plan, &failure);
            Ok(1)
        }
    }
}

fn imported(session: &mut Session, reply: &ImportPoolReply, plan: &Plan) -> Run {
    let dry_run = plan.template.rewind.dry_run;
    if let Some(info) = &reply.rewind {
        rewound(session, &reply.name, info, dry_run);
    }
    for warning in &reply.warnings {
        putln!(session.err, "{warning}");
    }
    if dry_run {
        return Ok(0);
    }
    let mut code = 0;
    if plan.load_keys && !keys::load_all(session, &reply.name)? {
        code = 1;
    }
    if plan.mount {
        let how = How { options: plan.how.options.clone(), ..How::default() };
        if !mount::mount_all(session, vec![reply.name.clone()], &how)? {
            let what = "Import was successful, but unable to mount some datasets";
            putln!(session.err, "{what}");
        }
    }
    Ok(code)
}

fn rewound(session: &mut Session, name: &str, info: &RewindInfo, dry_run: bool) {
    let when = time::ctime(info.timestamp);
    let verb = if dry_run { "Would discard" } else { "Discarded" };
    if dry_run {
        putln!(session.out, "Would be able to return {name} to its state as of {when}.");
    } else {
        putln!(session.out, "Pool {name} returned to its state as of {when}.");
    }
    match info.lost_seconds {
        ..=0 => {}
        lost @ 1..=120 => {
            putln!(session.out, "{verb} approximately {lost} seconds of transactions.");
        }
        lost => {
            let minutes = (lost + 30) / 60;
            putln!(session.out, "{verb} approximately {minutes} minutes of transactions.");
        }
    }
}

fn detail(failure: &Failure, at: usize) -> &str {
    failure.details.get(at).map_or("<unknown>", String::as_str)
}

/// Prints why an import was refused, in OpenZFS's words.
fn refused(session: &mut Session, name: &str, plan: &Plan, failure: &Failure) {
    let what = match &plan.template.new_name {
        Some(new) => format!("cannot import '{name}' as '{new}'"),
        None => format!("cannot import '{name}'"),
    };
    let say = |session: &mut Session, why: &str| putln!(session.err, "{what}: {why}");
    match failure.code {
        FailureCode::ForeignHost => {
            let when = failure.details.get(2).and_then(|t| t.parse().ok()).unwrap_or(0);
            foreign_host(session, name, detail(failure, 0), detail(failure, 1), when);
        }
        FailureCode::ActiveElsewhere => {
            active_elsewhere(session, name, detail(failure, 0), detail(failure, 1));
        }
        FailureCode::HostidRequired => hostid_required(session, name),
        FailureCode::UnsupportedFeatures | FailureCode::UnsupportedFeaturesWrite => {
            putln!(session.out, "This pool uses the following feature(s) not supported by this system:");
            put!(session.out, "{}", feature_lines(&failure.details));
            if failure.code == FailureCode::UnsupportedFeaturesWrite {
                putln!(
                    session.out,
                    "All unsupported features are only required for writing to the pool.\n\
                     The pool can be imported using '-o readonly=on'."
                );
            }
            say(session, "unsupported version or feature");
        }
        FailureCode::BadLog => {
            putln!(session.out, "The devices below are missing or corrupted, use '-m' to import the pool anyway:");
            for device in &failure.details {
                putln!(session.out, "\t    {device} [log]");
            }
            putln!(session.out);
            say(session, "one or more devices is currently unavailable");
        }
        FailureCode::MissingDevices | FailureCode::BadDevice => {
            say(session, "one or more devices is currently unavailable");
            for device in &failure.details {
                putln!(session.err, "\t{device}");
            }
        }
        FailureCode::PoolExists => {
            say(session, "a pool with that name already exists");
        }
        FailureCode::PoolCorrupt | FailureCode::Io => {
            say(session, "I/O error");
            put!(session.out, "\t{RECOVER}");
        }
        _ => session.report(&what, failure),
    }
}

/// `zpool export`.
pub fn export(session: &mut Session, args: &Parsed) -> Run {
    let all = args.has('a');
    if all && !args.operands.is_empty() {
        return Err(Stop::Usage("too many arguments".into()));
    }
    if !all && args.operands.is_empty() {
        return Err(Stop::Usage("missing pool argument".into()));
    }
    let ask = GetPoolsArgs { properties: None, ..Default::default() };
    let (found, failed) = pools::fetch(session, &args.operands, ask)?;
    let mut code = i32::from(failed);
    for pool in &found {
        let name = &pool.name;
        mount::let_go(session, args.has('f'), &|d| d.split(['/', '@']).next() == Some(name))?;
        let args = ExportPoolArgs { pool: name.clone(), force: args.has('f'), hard: args.has('F') };
        let Err(failure) = session.try_call::<method::ExportPool>(&args)? else { continue };
        code = 1;
        match (failure.code, failure.details.first()) {
            (FailureCode::Busy, Some(place)) => {
                putln!(session.err, "cannot unmount '{place}': pool or dataset is busy");
            }
            (FailureCode::Busy, None) => {
                putln!(session.err, "cannot export '{name}': pool is busy");
            }
            _ => session.report(&format!("cannot export '{name}'"), &failure),
        }
    }
    Ok(code)
}
