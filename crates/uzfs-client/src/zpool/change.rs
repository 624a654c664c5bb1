//! `zpool add`, `set`, `upgrade`, `reguid`, `labelclear`, `clear`, `online`, `offline`, `attach`, `detach`, `replace`,
//! `scrub` and `resilver`.

use super::create::{check_devices, is_ashift, pool_properties, print_spec, refuse, spec_errors};
use super::spec;
use crate::getopt::Parsed;
use crate::sentence;
use crate::session::{Run, Session, Stop, putln};
use crate::zfs::LIBZFS_FAILED;
use std::collections::BTreeMap;
use uzfs_proto::{
    AddDevicesArgs, AttachDeviceArgs, ChangeGuidArgs, ClearErrorsArgs, ClearLabelArgs, DetachDeviceArgs, Failure,
    FailureCode, GetPoolsArgs, Pool, ScanAction, ScanPoolArgs, SetDeviceStateArgs, SetPoolPropertiesArgs, U64,
    UpgradePoolArgs, VdevState, method,
};

/// The pools of those names, or all; the missing ones are told.
fn pools(session: &mut Session, names: &[String], tree: bool) -> Result<(Vec<Pool>, bool), Stop> {
    let properties = Some(vec!["compatibility".to_owned()]);
    let args = GetPoolsArgs { pools: names.to_vec(), properties, tree, ..GetPoolsArgs::default() };
    let reply = session.call::<method::GetPools>("cannot open pools", &args)?;
    for name in &reply.missing {
        putln!(session.err, "cannot open '{name}': no such pool");
    }
    Ok((reply.pools, reply.missing.is_empty()))
}

fn pool(session: &mut Session, name: &str) -> Result<Pool, Stop> {
    let (found, _) = pools(session, &[name.to_owned()], true)?;
    found.into_iter().next().ok_or(Stop::Exit(1))
}

/// The failure in words: those of the daemon where it says more than its code.
fn told(f: &Failure) -> String {
    match f.code {
        FailureCode::InvalidProperty
        | FailureCode::BadDevice
        | FailureCode::InvalidArgument
        | FailureCode::NotSupported
        | FailureCode::Busy
        | FailureCode::NoSuchDevice => f.message.clone(),
        _ => sentence::of(f),
    }
}

fn done(session: &mut Session, what: &str, result: Result<(), Failure>) -> Run {
    match result {
        Ok(()) => Ok(0),
        Err(f) => refuse(session, &format!("{what}: {}", told(&f))),
    }
}

/// The same where OpenZFS's tools pass on what their library returns.
fn passed_on(session: &mut Session, what: &str, result: Result<(), Failure>) -> Run {
    let Err(f) = result else { return Ok(0) };
    putln!(session.err, "{what}: {}", told(&f));
    Ok(LIBZFS_FAILED)
}

fn ashift(session: &mut Session, args: &Parsed) -> Result<Option<u64>, Stop> {
    let properties = pool_properties(session, args)?;
    if let Some(other) = properties.keys().find(|k| *k != "ashift") {
        return refuse(session, &format!("property '{other}' cannot be set here"));
    }
    match properties.get("ashift") {
        None => Ok(None),
        Some(text) if is_ashift(text) => Ok(text.parse().ok().filter(|n| *n != 0)),
        Some(text) => {
            refuse(session, &format!("invalid 'ashift={text}' property: only values between 9 and 16 are allowed."))
        }
    }
}

/// `zpool add`.
pub fn add(session: &mut Session, args: &Parsed) -> Run {
    let Some((name, words)) = args.operands.split_first() else {
        return Err(Stop::Usage("missing pool name argument".into()));
    };
    if words.is_empty() {
        return Err(Stop::Usage("missing vdev specification".into()));
    }
    let ashift = ashift(session, args)?;
    let found = pool(session, name)?;
    let vdevs = match spec::specification(words) {
        Ok(vdevs) => vdevs,
        Err(why) => return refuse(session, &why),
    };
    let mut wrong = spec::mismatches(&vdevs);
    if wrong.is_empty() {
        wrong.extend(found.tree.as_ref().and_then(|tree| spec::mismatch_with(tree, &vdevs)));
    }
    check_devices(session, args, &vdevs, &wrong)?;
    if args.has('n') {
        putln!(session.out, "would update '{name}' to the following configuration:\n\n\t{name}");
        for top in found.tree.iter().flat_map(|t| &t.children).filter(|t| t.kind != "hole") {
            print_existing(session, top, 2);
        }
        vdevs.iter().filter(|v| v.class.is_empty()).for_each(|v| print_spec(session, v));
        for (class, title) in
            [("dedup", "dedup"), ("special", "special"), ("log", "logs"), ("cache", "cache"), ("spare", "spares")]
        {
            let of_class: Vec<_> = vdevs.iter().filter(|v| v.class == class).collect();
            if !of_class.is_empty() {
                putln!(session.out, "\t{title}");
            }
            of_class.into_iter().for_each(|v| print_spec(session, v));
        }
        return Ok(0);
    }
    let call = AddDevicesArgs { pool: name.clone(), vdevs, ashift, force: args.has('f') };
    match session.try_call::<method::AddDevices>(&call)? {
        Err(f) if f.code == FailureCode::DeviceInUse => spec_errors(session, &f.details, args.has('f')),
        other => done(session, &format!("cannot add to '{name}'"), other.map(drop)),
    }
}

fn print_existing(session: &mut Session, node: &uzfs_proto::VdevNode, indent: usize) {
    let own = format!("{}-{}", node.kind, node.id);
    let name = node.path.as_deref().unwrap_or(&own);
    putln!(session.out, "\t{:indent$}{name}", "");
    node.children.iter().for_each(|c| print_existing(session, c, indent + 2));
}

/// `zpool set`.
pub fn set(session: &mut Session, args: &Parsed) -> Run {
    let [assignment, name] = args.operands.as_slice() else {
        return Err(Stop::Usage(match args.operands.len() {
            0 => "missing property=value argument".into(),
            1 => "missing pool name".into(),
            _ => "too many pool names".into(),
        }));
    };
    let Some((property, value)) = assignment.split_once('=') else {
        return Err(Stop::Usage("missing value in property=value argument".into()));
    };
    let known =
        crate::props::pool(property).is_some() || crate::props::is_feature(property) || crate::props::is_user(property);
    if !known {
        return refuse(session, &format!("cannot set property for '{name}': invalid property '{property}'"));
    }
    if property == "compatibility"
        && let Err(why) = super::compat::load(value)
    {
        return refuse(session, &format!("cannot set property for '{name}': {why}"));
    }
    pool(session, name)?;
    let properties = BTreeMap::from([(property.to_owned(), value.to_owned())]);
    let call = SetPoolPropertiesArgs { pool: name.clone(), properties };
    let result = session.try_call::<method::SetPoolProperties>(&call)?.map(drop);
    if result.as_ref().is_err_and(|f| f.code == FailureCode::NoSuchDataset) {
        return refuse(session, &format!("cannot set property for '{name}': no such pool or dataset"));
    }
    done(session, &format!("cannot set property for '{name}'"), result)
}

fn one_pool(args: &Parsed) -> Result<&String, Stop> {
    match args.operands.as_slice() {
        [] => Err(Stop::Usage("missing pool name".into())),
        [pool] => Ok(pool),
        _ => Err(Stop::Usage("too many arguments".into())),
    }
}

/// `zpool reguid`.
pub fn reguid(session: &mut Session, args: &Parsed) -> Run {
    let name = one_pool(args)?;
    let guid = match args.value('g').map(str::parse::<u64>) {
        None => None,
        Some(Ok(n)) if n != 0 => Some(U64(n)),
        Some(_) => return refuse(session, "invalid GUID"),
    };
    pool(session, name)?;
    let result = session.try_call::<method::ChangeGuid>(&ChangeGuidArgs { pool: name.clone(), guid })?;
    done(session, &format!("cannot reguid '{name}'"), result.map(drop))
}

/// `zpool labelclear`.
pub fn labelclear(session: &mut Session, args: &Parsed) -> Run {
    let path = match args.operands.as_slice() {
        [] => return Err(Stop::Usage("missing vdev name".into())),
        [word] if word.starts_with('/') => word.clone(),
        [word] => format!("/dev/{word}"),
        _ => return Err(Stop::Usage("too many arguments".into())),
    };
    if let (Err(e), true) = (std::fs::metadata(&path), path.starts_with('/')) {
        let text = e.to_string();
        return refuse(session, &format!("failed to open {path}: {}", text.split(" (os").next().unwrap_or("")));
    }
    let call = ClearLabelArgs { path, force: args.has('f') };
    match session.try_call::<method::ClearLabel>(&call)? {
        Ok(_) => Ok(0),
        Err(f) => refuse(session, &f.message),
    }
}

/// The version of pools that have features instead of versions (`SPA_VERSION_FEATURES`).
const FEATURE_FLAGS: u64 = 5000;

/// The features that the `compatibility` of a pool lets it have; nothing when it lets it have all.
fn allowed(session: &mut Session, pool: &Pool) -> Result<Option<Vec<String>>, Stop> {
    let value = pool.properties.get("compatibility").and_then(|p| p.value.text.clone()).unwrap_or_default();
    match super::compat::load(&value) {
        Ok((set, _)) => Ok(set.map(|s| s.into_iter().collect())),
        Err(why) => refuse(session, &format!("cannot upgrade '{}': {why}", pool.name)),
    }
}

/// `zpool upgrade`.
pub fn upgrade(session: &mut Session, args: &Parsed) -> Run {
    if args.has('v') {
        putln!(session.out, "This system supports ZFS pool feature flags.\n");
        putln!(session.out, "The following features are supported:\n");
        for name in crate::props::FEATURES.iter().take(crate::props::RELEASE_FEATURES) {
            putln!(session.out, "{}", name);
        }
        return Ok(0);
    }
    if args.operands.is_empty() && !args.has('a') {
        return list_old(session);
    }
    let (found, all_there) = pools(session, &args.operands, false)?;
    putln!(session.out, "This system supports ZFS pool feature flags.\n");
    let mut code = i32::from(!all_there);
    for found in found {
        let name = &found.name;
        let call = UpgradePoolArgs { pool: name.clone(), features: allowed(session, &found)? };
        match session.try_call::<method::UpgradePool>(&call)? {
            Ok(reply) if reply.features.is_empty() => {
                putln!(session.out, "Pool '{name}' already has all supported and requested features enabled.");
            }
            Ok(reply) => {
                let old = found.version;
                if old < FEATURE_FLAGS {
                    putln!(session.out, "Successfully upgraded '{name}' from version {old} to feature flags.");
                }
                putln!(session.out, "Enabled the following features on '{name}':");
                reply.features.iter().for_each(|f| putln!(session.out, "  {f}"));
            }
            Err(f) => {
                session.report(&format!("cannot upgrade '{name}'"), &f);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn list_legacy(session: &mut Session, pools: &[Pool]) {
    if pools.is_empty() {
        return putln!(session.out, "All pools are formatted using feature flags.\n");
    }
    putln!(session.out, "The following pools are formatted with legacy version numbers and can");
    putln!(session.out, "be upgraded to use feature flags.  After being upgraded, these pools");
    putln!(session.out, "will no longer be accessible by software that does not support feature");
    putln!(session.out, "flags.\n");
    putln!(session.out, "Note that setting a pool's 'compatibility' feature to 'legacy' will");
    putln!(session.out, "inhibit upgrades.\n");
    putln!(session.out, "VER  POOL\n---  ------------");
    pools.iter().for_each(|p| putln!(session.out, "{:2}   {}", p.version, p.name));
    putln!(session.out, "\nUse 'zpool upgrade -v' for a list of available legacy versions.");
}

fn list_old(session: &mut Session) -> Run {
    let (found, _) = pools(session, &[], false)?;
    putln!(session.out, "This system supports ZFS pool feature flags.\n");
    let missing = |p: &Pool| -> Vec<String> {
        let release = |f: &&String| crate::props::is_release_feature(f);
        let value = p.properties.get("compatibility").and_then(|v| v.value.text.clone()).unwrap_or_default();
        let set = super::compat::load(&value).ok().and_then(|(set, _)| set);
        let let_be = |f: &&String| set.as_ref().is_none_or(|s| s.contains(*f));
        p.disabled_features.iter().filter(release).filter(let_be).cloned().collect()
    };
    let (legacy, found): (Vec<Pool>, Vec<Pool>) = found.into_iter().partition(|p| p.version < FEATURE_FLAGS);
    let old: Vec<(String, Vec<String>)> = found.iter().map(|p| (p.name.clone(), missing(p))).collect();
    list_legacy(session, &legacy);
    if old.iter().all(|(_, f)| f.is_empty()) {
        putln!(session.out, "Every feature flags pool has all supported and requested features enabled.");
        return Ok(0);
    }
    putln!(session.out, "Some supported features are not enabled on the following pools. Once a");
    putln!(session.out, "feature is enabled the pool may become incompatible with software");
    putln!(session.out, "that does not support the feature. See zpool-features(7) for details.\n");
    putln!(session.out, "Note that the pool 'compatibility' feature can be used to inhibit");
    putln!(session.out, "feature upgrades.\n");
    putln!(session.out, "Features marked with (*) are not applied automatically on upgrade, and");
    putln!(session.out, "must be applied explicitly with zpool-set(7).\n");
    putln!(session.out, "POOL  FEATURE\n---------------");
    for (name, features) in old.iter().filter(|(_, f)| !f.is_empty()) {
        putln!(session.out, "{name}");
        features.iter().for_each(|f| putln!(session.out, "      {f}"));
    }
    putln!(session.out, "");
    Ok(0)
}

/// `zpool clear`.
pub fn clear(session: &mut Session, args: &Parsed) -> Run {
    let (name, device) = match args.operands.as_slice() {
        [] => return Err(Stop::Usage("missing pool name".into())),
        [pool] => (pool, None),
        [pool, device] => (pool, Some(device.clone())),
        _ => return Err(Stop::Usage("too many arguments".into())),
    };
    let what = match &device {
        Some(device) => format!("cannot clear errors for {device}"),
        None => format!("cannot clear errors for {name}"),
    };
    pool(session, name)?;
    let call = ClearErrorsArgs { pool: name.clone(), device };
    let result = session.try_call::<method::ClearErrors>(&call)?.map(drop);
    done(session, &what, result)
}

/// `zpool online` and `zpool offline`.
pub fn set_state(session: &mut Session, args: &Parsed, online: bool) -> Run {
    let Some((name, devices)) = args.operands.split_first() else {
        return Err(Stop::Usage("missing pool name".into()));
    };
    if devices.is_empty() {
        return Err(Stop::Usage("missing device name".into()));
    }
    if pool(session, name).is_err() {
        return refuse(session, &format!("failed to open pool \"{name}\""));
    }
    let mut code = 0;
    for device in devices {
        let call = SetDeviceStateArgs {
            pool: name.clone(),
            device: device.clone(),
            online,
            temporary: args.has('t'),
            fault: args.has('f') && !online,
        };
        match session.try_call::<method::SetDeviceState>(&call)? {
            Ok(node) if online && node.state != VdevState::Online && node.state != VdevState::Degraded => {
                putln!(session.out, "warning: device '{device}' onlined, but remains in faulted state");
                putln!(session.out, "use 'zpool replace' to replace devices that are no longer present");
                code = 1;
            }
            Ok(_) => {}
            Err(f) if f.code == FailureCode::NoSuchDevice && online => {
                putln!(session.err, "couldn't find device \"{device}\" in pool \"{name}\"");
                code = 1;
            }
            Err(f) => {
                let word = if online { "online" } else { "offline" };
                putln!(session.err, "cannot {word} {device}: {}", told(&f));
                code = 1;
            }
        }
    }
    Ok(code)
}

/// `zpool attach` and `zpool replace`.
pub fn attach(session: &mut Session, args: &Parsed, replace: bool) -> Run {
    let (name, device, new) = match args.operands.as_slice() {
        [] => return Err(Stop::Usage("missing pool name argument".into())),
        [_] => return Err(Stop::Usage("missing <device> specification".into())),
        [pool, old] if replace => (pool, old, old),
        [_, _] => return Err(Stop::Usage("missing <new_device> specification".into())),
        [pool, old, new] => (pool, old, new),
        _ => return Err(Stop::Usage("too many arguments".into())),
    };
    let ashift = ashift(session, args)?;
    pool(session, name)?;
    let new_spec = match spec::device(new) {
        Ok(spec) => spec,
        Err(why) => return refuse(session, &why),
    };
    let what = if replace {
        format!("cannot replace {device} with {new}")
    } else {
        format!("cannot attach {new} to {device}")
    };
    let force = args.has('f');
    let call = AttachDeviceArgs { pool: name.clone(), device: device.clone(), new: new_spec, replace, ashift, force };
    match session.try_call::<method::AttachDevice>(&call)? {
        Err(f) if f.code == FailureCode::DeviceInUse => spec_errors(session, &f.details, force),
        Ok(_) if args.has('w') => wait(session, std::slice::from_ref(name)).map(|()| 0),
        other => passed_on(session, &what, other.map(drop)),
    }
}

/// `zpool detach`.
pub fn detach(session: &mut Session, args: &Parsed) -> Run {
    let (name, device) = match args.operands.as_slice() {
        [] => return Err(Stop::Usage("missing <pool> and <device> specifications".into())),
        [_] => return Err(Stop::Usage("missing <device> specification".into())),
        [pool, device] => (pool, device),
        _ => return Err(Stop::Usage("too many arguments".into())),
    };
    let call = DetachDeviceArgs { pool: name.clone(), device: device.clone() };
    let result = session.try_call::<method::DetachDevice>(&call)?.map(drop);
    passed_on(session, &format!("cannot detach {device}"), result)
}

/// `zpool scrub` and `zpool resilver`.
pub fn scan(session: &mut Session, args: &Parsed, resilver: bool) -> Run {
    if args.operands.is_empty() {
        return Err(Stop::Usage("missing pool name argument".into()));
    }
    if args.has('s') && args.has('p') {
        return Err(Stop::Usage("invalid option combination: -s and -p are mutually exclusive".into()));
    }
    let action = match () {
        () if resilver => ScanAction::Resilver,
        () if args.has('s') => ScanAction::Stop,
        () if args.has('p') => ScanAction::Pause,
        () => ScanAction::Scrub,
    };
    let mut code = 0;
    for name in &args.operands {
        let call = ScanPoolArgs { pool: name.clone(), action };
        let word = match action {
            ScanAction::Scrub => "scrub",
            ScanAction::Resilver => "restart resilver on",
            ScanAction::Pause => "pause scrubbing",
            ScanAction::Stop => "cancel scrubbing",
        };
        if let Err(f) = session.try_call::<method::ScanPool>(&call)? {
            if action == ScanAction::Pause && f.message.contains("no active scrub") {
                continue;
            }
            let open = f.code == FailureCode::NoSuchPool;
            let what = if open { format!("cannot open '{name}'") } else { format!("cannot {word} {name}") };
            putln!(session.err, "{what}: {}", told(&f));
            code = 1;
        }
    }
    if args.has('w') && code == 0 {
        wait(session, &args.operands)?;
    }
    Ok(code)
}

/// Waits until no pool of these is scanned any more.
fn wait(session: &mut Session, names: &[String]) -> Result<(), Stop> {
    loop {
        let (found, _) = pools(session, names, true)?;
        let running = |p: &Pool| {
            p.scan.as_ref().is_some_and(|s| s.state == uzfs_proto::ScanState::Scanning && s.pass_scrub_pause == 0)
        };
        if !found.iter().any(running) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
