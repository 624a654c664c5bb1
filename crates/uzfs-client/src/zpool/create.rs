//! `zpool create`, `zpool destroy`, `zpool sync`.

use super::{compat, spec};
use crate::getopt::Parsed;
use crate::props::{self, parse};
use crate::sentence;
use crate::session::{Run, Session, Stop, putln};
use crate::zfs::mount::{self, How};
use std::collections::BTreeMap;
use std::path::Path;
use uzfs_proto::{
    CheckDevicesArgs, CreatePoolArgs, DatasetKind, DestroyPoolArgs, FailureCode, Raw, SyncPoolsArgs, VdevSpec, method,
};

pub fn refuse<T>(session: &mut Session, sentence: &str) -> Result<T, Stop> {
    putln!(session.err, "{sentence}");
    Err(Stop::Exit(1))
}

/// Ends the command when devices are in use, or groups of them do not match and `-f` was not given.
pub fn check_devices(
    session: &mut Session,
    args: &Parsed,
    vdevs: &[VdevSpec],
    mismatches: &[String],
) -> Result<(), Stop> {
    let force = args.has('f');
    let call = CheckDevicesArgs { vdevs: vdevs.to_vec(), force };
    match session.try_call::<method::CheckDevices>(&call)? {
        Ok(_) if mismatches.is_empty() || force => Ok(()),
        Ok(_) => spec_errors(session, mismatches, false),
        Err(f) if f.code == FailureCode::DeviceInUse => spec_errors(session, &f.details, force),
        Err(f) => Err(session.fail("cannot look at devices", &f)),
    }
}

pub fn pool_properties(session: &mut Session, args: &Parsed) -> Result<BTreeMap<String, String>, Stop> {
    let mut out = BTreeMap::new();
    for option in args.values('o') {
        let Some((name, value)) = option.split_once('=') else {
            return refuse(session, "missing '=' for -o option");
        };
        if props::pool(name).is_none() && !props::is_feature(name) {
            return refuse(session, &format!("property '{name}' is not a valid pool or vdev property"));
        }
        if out.insert(name.to_owned(), value.to_owned()).is_some() {
            return refuse(session, &format!("property '{name}' specified multiple times"));
        }
    }
    Ok(out)
}

fn dataset_properties(session: &mut Session, args: &Parsed, what: &str) -> Result<BTreeMap<String, Raw>, Stop> {
    let mut out = BTreeMap::new();
    let mountpoint = args.value('m').map(|m| format!("mountpoint={m}"));
    for option in args.values('O').chain(mountpoint.as_deref()) {
        let Some((name, value)) = option.split_once('=') else {
            return refuse(session, "missing '=' for -O option");
        };
        match parse::value(name, value, DatasetKind::Filesystem, true) {
            Ok(raw) => out.insert(name.to_owned(), raw),
            Err(why) => return refuse(session, &format!("{what}: {why}")),
        };
    }
    Ok(out)
}

/// Whether a text is a sector size that a vdev can have, or lets it be chosen.
pub fn is_ashift(text: &str) -> bool {
    text.parse::<u64>().is_ok_and(|n| n == 0 || (9..=16).contains(&n))
}

/// Says why the mountpoint of a new pool cannot be used.
fn unusable_mountpoint(place: &str) -> Option<String> {
    if place == "none" || place == "legacy" {
        return None;
    }
    if !place.starts_with('/') {
        return Some(format!("invalid mountpoint '{place}': must be an absolute path, 'legacy', or 'none'"));
    }
    let mut entries = std::fs::read_dir(Path::new(place)).ok()?;
    entries.next().map(|_| {
        format!("mountpoint '{place}' exists and is not empty\nuse '-m' option to provide a different default")
    })
}

/// `zpool create`.
pub fn create(session: &mut Session, args: &Parsed) -> Run {
    let Some((name, words)) = args.operands.split_first() else {
        return Err(Stop::Usage("missing pool name argument".into()));
    };
    if words.is_empty() {
        return Err(Stop::Usage("missing vdev specification".into()));
    }
    let what = format!("cannot create '{name}'");
    if name.contains('/') {
        putln!(session.err, "{what}: invalid character '/' in pool name");
        return refuse(session, "use 'zfs create' to create a dataset");
    }
    let reserved = ["mirror", "raidz", "draid", "spare", "log"].iter().any(|r| name.starts_with(r));
    if let Some(why) = sentence::bad_pool_name(name).or(reserved.then(|| "name is reserved".to_owned())) {
        putln!(session.err, "{what}: {why}");
        return refuse(session, "pool name may have been omitted");
    }
    let mut properties = pool_properties(session, args)?;
    if let Some(n) = properties.get("ashift").filter(|n| !is_ashift(n)) {
        return refuse(session, &format!("invalid 'ashift={n}' property: only values between 9 and 16 are allowed."));
    }
    let unknown = args.values('O').filter_map(|o| o.split_once('=')).find(|(name, _)| !props::is_known(name));
    if let Some((name, _)) = unknown {
        return refuse(session, &format!("property '{name}' is not a valid filesystem property"));
    }
    let vdevs = match spec::specification(words) {
        Ok(vdevs) => vdevs,
        Err(why) => return refuse(session, &why),
    };
    check_devices(session, args, &vdevs, &spec::mismatches(&vdevs))?;
    if !vdevs.iter().any(|v| !matches!(v.class.as_str(), "spare" | "cache" | "log")) {
        return refuse(session, "invalid vdev specification: at least one toplevel vdev must be specified");
    }
    features(session, &mut properties, args.has('d'))?;
    let altroot = args.value('R').map(str::to_owned).or_else(|| properties.remove("altroot"));
    if let Some(root) = altroot.as_deref().filter(|r| !r.starts_with('/')) {
        return refuse(session, &format!("invalid alternate root '{root}': must be an absolute path"));
    }
    let dataset_properties = dataset_properties(session, args, &what)?;
    let own = format!("/{name}");
    let place = args.value('m').unwrap_or(&own);
    let place = format!("{}{place}", altroot.as_deref().filter(|_| place.starts_with('/')).unwrap_or(""));
    if let Some(why) = unusable_mountpoint(&place) {
        return refuse(session, &why);
    }
    if args.has('n') {
        putln!(session.out, "would create '{name}' with the following layout:\n\n\t{name}");
        print_layout(session, &vdevs);
        return Ok(0);
    }
    let call = CreatePoolArgs {
        name: name.clone(),
        vdevs,
        properties,
        dataset_properties,
        no_features: true,
        altroot,
        temporary_name: args.value('t').map(str::to_owned),
        force: args.has('f'),
        command: Some(format!("zpool {}", args.line)),
    };
    match session.try_call::<method::CreatePool>(&call)? {
        Ok(_) => mount::mount_new(session, args.value('t').unwrap_or(name), &How::default()),
        Err(f) if f.code == FailureCode::DeviceInUse => spec_errors(session, &f.details, args.has('f')),
        Err(f) if f.code == FailureCode::InvalidProperty || f.code == FailureCode::BadDevice => {
            refuse(session, &format!("{what}: {}", f.message))
        }
        Err(f) => Err(session.fail(&what, &f)),
    }
}

/// Says what is wrong with devices; `forced` tells that `-f` does not help.
pub fn spec_errors<T>(session: &mut Session, sentences: &[String], forced: bool) -> Result<T, Stop> {
    putln!(session.err, "invalid vdev specification");
    putln!(
        session.err,
        "{}",
        if forced {
            "the following errors must be manually repaired:"
        } else {
            "use '-f' to override the following errors:"
        }
    );
    sentences.iter().for_each(|s| putln!(session.err, "{s}"));
    Err(Stop::Exit(1))
}

/// Adds the features that a new pool gets: those of its compatibility set, unless they are left out.
fn features(session: &mut Session, properties: &mut BTreeMap<String, String>, none: bool) -> Result<(), Stop> {
    let set = match compat::load(properties.get("compatibility").map_or("off", String::as_str)) {
        Ok((set, warning)) => {
            if let Some(text) = warning {
                putln!(session.err, "Warning: {text}");
            }
            set
        }
        Err(why) => return refuse(session, &format!("Error: {why}")),
    };
    for name in props::FEATURES {
        let property = format!("feature@{name}");
        let wanted = set.as_ref().is_none_or(|s| s.contains(*name));
        match properties.get(&property).map(String::as_str) {
            Some("enabled") if !wanted => {
                let text = "enabled but is not in specified 'compatibility' feature set.";
                putln!(session.err, "Warning: feature \"{name}\" {text}");
            }
            None if !none && wanted && props::is_release_feature(name) => {
                properties.insert(property, "enabled".into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Prints the devices that would be made, each section under its title.
pub fn print_layout(session: &mut Session, vdevs: &[VdevSpec]) {
    let sections = [
        ("", ""),
        ("dedup", "dedup"),
        ("special", "special"),
        ("log", "logs"),
        ("cache", "cache"),
        ("spare", "spares"),
    ];
    for (class, title) in sections {
        let of_class: Vec<_> = vdevs.iter().filter(|v| v.class == class).collect();
        if !title.is_empty() && !of_class.is_empty() {
            putln!(session.out, "\t{title}");
        }
        for v in of_class {
            print_spec(session, v);
        }
    }
}

/// Prints a device with its members.
pub fn print_spec(session: &mut Session, v: &VdevSpec) {
    putln!(session.out, "\t  {}", v.path.as_deref().unwrap_or(&v.kind));
    for child in &v.children {
        putln!(session.out, "\t    {}", child.path.as_deref().unwrap_or(""));
    }
}

/// `zpool destroy`.
pub fn destroy(session: &mut Session, args: &Parsed) -> Run {
    let pool = match args.operands.as_slice() {
        [] => return Err(Stop::Usage("missing pool argument".into())),
        [pool] => pool.clone(),
        _ => return Err(Stop::Usage("too many arguments".into())),
    };
    if pool.contains('/') {
        putln!(session.err, "cannot open '{pool}': invalid character '/' in pool name");
        return refuse(session, "use 'zfs destroy' to destroy a dataset");
    }
    mount::let_go(session, args.has('f'), &|d| d.split(['/', '@']).next() == Some(&pool))?;
    let call = DestroyPoolArgs { pool: pool.clone(), force: args.has('f') };
    match session.try_call::<method::DestroyPool>(&call)? {
        Ok(_) => Ok(0),
        Err(f) if f.code == FailureCode::NoSuchPool => refuse(session, &format!("cannot open '{pool}': no such pool")),
        Err(f) if f.code == FailureCode::Busy => {
            putln!(session.err, "cannot destroy '{pool}': {}", sentence::of(&f));
            refuse(session, &format!("could not destroy '{pool}': could not unmount datasets"))
        }
        Err(f) => Err(session.fail(&format!("cannot destroy '{pool}'"), &f)),
    }
}

/// `zpool sync`.
pub fn sync(session: &mut Session, args: &Parsed) -> Run {
    let call = SyncPoolsArgs { pools: args.operands.clone() };
    match session.try_call::<method::SyncPools>(&call)? {
        Ok(_) => Ok(0),
        Err(f) => {
            let pool = f.subject.clone().unwrap_or_default();
            Err(session.fail(&format!("cannot open '{pool}'"), &f))
        }
    }
}
