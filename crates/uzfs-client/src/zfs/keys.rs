//! `zfs load-key` and `zfs unload-key`, and loading keys on the way to a mount or import.
//!
//! The key's file or the terminal is read here, with the rights of the user who runs the tool, and
//! the daemon gets the bytes.

use super::datasets::{self, Query};
use crate::columns::Table;
use crate::getopt::Parsed;
use crate::props::{Column, FS, VOL};
use crate::session::{Run, Session, Stop, put, putln};
use std::io::{BufRead, IsTerminal, Read};
use uzfs_proto::{Dataset, Empty, Failure, FailureCode, LoadKeyArgs, Secret, UnloadKeyArgs, method};
use zeroize::Zeroizing;

/// Tries at the terminal before giving up.
const ATTEMPTS: usize = 3;
/// Longest key material read: the longest passphrase and its line end.
const LONGEST: u64 = 512 + 2;
/// Length of a raw key in bytes.
const RAW_LENGTH: usize = 32;

/// Properties needed to load and unload keys.
pub const PROPERTIES: &[&str] =
    &["encryption", "keyformat", "keylocation", "keystatus", "encryptionroot", "pbkdf2iters"];

/// The printed value of a property of a dataset, empty if it has none.
pub fn text(ds: &Dataset, name: &str) -> String {
    let def = Table::Dataset.all().iter().find(|d| d.name == name);
    let row = def.and_then(|d| datasets::row(ds, &Column::Native(d), true));
    row.map(|r| r.value).unwrap_or_default()
}

fn complain(session: &mut Session, verb: &str, why: &str) {
    putln!(session.err, "Key {verb} error: {why}");
}

/// What stands in the way of loading or unloading the key of `ds`.
fn unfit(ds: &Dataset, verb: &str) -> Option<String> {
    let name = &ds.name;
    if matches!(text(ds, "keyformat").as_str(), "none" | "") {
        return Some(format!("'{name}' is not encrypted."));
    }
    let root = text(ds, "encryptionroot");
    if &root != name {
        return Some(format!("Keys must be {verb} for encryption root of '{name}' ({root})."));
    }
    None
}

fn trim_line(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if let Some(end) = bytes.iter().position(|&b| b == b'\n') {
        bytes.truncate(end);
    }
    bytes
}

fn read_stream(stream: &mut dyn Read, format: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    stream.take(LONGEST).read_to_end(&mut bytes).map_err(|e| crate::os_sentence(&e))?;
    if format != "raw" && bytes.is_empty() {
        return Err("encryption failure".into()); // Not even a line; OpenZFS has no words for it either.
    }
    Ok(if format == "raw" { bytes } else { trim_line(bytes) })
}

fn check_length(key: &[u8], format: &str) -> Result<(), String> {
    let (what, expected) = match format {
        "raw" => ("Raw", RAW_LENGTH),
        "hex" => ("Hex", RAW_LENGTH * 2),
        _ => return Ok(()),
    };
    match key.len() {
        n if n < expected => Err(format!("{what} key too short (expected {expected}).")),
        n if n > expected => Err(format!("{what} key too long (expected {expected}).")),
        _ if format == "hex" && !key.iter().all(u8::is_ascii_hexdigit) => Err("Invalid hex character detected.".into()),
        _ => Ok(()),
    }
}

/// Reads a line from the terminal without showing it.
fn ask(session: &mut Session, ds: &Dataset, format: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let what = if format == "hex" { "hex key" } else { "passphrase" };
    put!(session.out, "Enter {what} for '{}':", ds.name);
    let _ = session.out.flush();
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(|e| e.to_string())?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHOE | LocalModes::ECHOK);
    quiet.local_modes.remove(LocalModes::ECHONL);
    tcsetattr(&stdin, OptionalActions::Flush, &quiet).map_err(|e| e.to_string())?;
    let mut line = Zeroizing::new(Vec::new());
    let read = stdin.lock().take(LONGEST).read_until(b'\n', &mut line);
    // Nothing better can be done if the terminal refuses its own earlier state.
    let _ = tcsetattr(&stdin, OptionalActions::Flush, &before);
    putln!(session.out);
    read.map_err(|e| crate::os_sentence(&e))?;
    Ok(trim_line(line))
}

/// Key material from `location`; the flag tells that another try makes sense.
fn material(
    session: &mut Session,
    ds: &Dataset,
    location: &str,
    format: &str,
) -> (Result<Zeroizing<Vec<u8>>, String>, bool) {
    if location == "prompt" {
        let terminal = std::io::stdin().is_terminal();
        let key = match (terminal, format) {
            (true, "raw") => Err("Cannot enter raw keys on the terminal".into()),
            (true, _) => ask(session, ds, format),
            (false, _) => read_stream(&mut std::io::stdin().lock(), format),
        };
        return (key, terminal && format != "raw");
    }
    let Some(path) = location.strip_prefix("file://") else {
        let why = if location.contains("://") { "URI scheme is not supported" } else { "Invalid keylocation." };
        return (Err(why.into()), false);
    };
    let file = std::fs::File::open(path);
    let opened = file.map_err(|e| format!("Failed to open key material file: {}", crate::os_sentence(&e)));
    (opened.and_then(|mut f| read_stream(&mut f, format)), false)
}

fn refusal(failure: &uzfs_proto::Failure, name: &str) -> String {
    match failure.code {
        FailureCode::PermissionDenied => "Permission denied.".into(),
        FailureCode::KeyLoaded => format!("Key already loaded for '{name}'."),
        FailureCode::KeyNotLoaded => format!("Key already unloaded for '{name}'."),
        FailureCode::Busy => format!("'{name}' is busy."),
        FailureCode::KeyIncorrect => format!("Incorrect key provided for '{name}'."),
        FailureCode::InvalidArgument => format!("Invalid parameters provided for dataset {name}."),
        _ => failure.message.clone(),
    }
}

/// Gives the key to the daemon through a pipe, so that it is in no message.
fn hand_over(session: &mut Session, args: &LoadKeyArgs, key: &[u8]) -> Result<Result<Empty, Failure>, Stop> {
    match uzfs_proto::passing::holding(key) {
        Ok(pipe) => session.try_call_passing::<method::LoadKey>(args, &pipe),
        Err(e) => Ok(Err(Failure::new(FailureCode::Internal, crate::os_sentence(&e)))),
    }
}

/// Loads the key of an encryption root; complains and gives false if that fails.
pub fn load(session: &mut Session, ds: &Dataset, dry_run: bool, location: Option<&str>) -> Result<bool, Stop> {
    if let Some(why) = unfit(ds, "loaded") {
        complain(session, "load", &why);
        return Ok(false);
    }
    if !dry_run && text(ds, "keystatus") == "available" {
        complain(session, "load", &format!("Key already loaded for '{}'.", ds.name));
        return Ok(false);
    }
    let format = text(ds, "keyformat");
    let location = location.map_or_else(|| text(ds, "keylocation"), str::to_owned);
    for attempt in 1..=ATTEMPTS {
        let (key, can_retry) = material(session, ds, &location, &format);
        let key = key.and_then(|k| check_length(&k, &format).map(|()| k));
        let (why, correctible) = match key {
            Err(why) => (why, true),
            Ok(key) => {
                let (dataset, key_descriptor) = (ds.name.clone(), Some(0));
                let args = LoadKeyArgs { dataset, key: Secret(Vec::new()), key_descriptor, dry_run };
                match hand_over(session, &args, &key)? {
                    Ok(_) => return Ok(true),
                    Err(failure) => {
                        let again = failure.code == FailureCode::KeyIncorrect;
                        (refusal(&failure, &ds.name), again)
                    }
                }
            }
        };
        complain(session, "load", &why);
        if !(can_retry && correctible && attempt < ATTEMPTS) {
            break;
        }
    }
    Ok(false)
}

fn unload(session: &mut Session, ds: &Dataset) -> Result<bool, Stop> {
    let mut why = unfit(ds, "unloaded");
    if why.is_none() && text(ds, "keystatus") == "unavailable" {
        why = Some(format!("Key already unloaded for '{}'.", ds.name));
    }
    if why.is_none() {
        let args = UnloadKeyArgs { dataset: ds.name.clone() };
        if let Err(failure) = session.try_call::<method::UnloadKey>(&args)? {
            why = Some(refusal(&failure, &ds.name));
        }
    }
    match why {
        None => Ok(true),
        Some(why) => {
            complain(session, "unload", &why);
            Ok(false)
        }
    }
}

/// Encryption roots at and below `roots` (everything if empty).
pub fn query(roots: Vec<String>, recursive: bool) -> Query {
    Query {
        roots,
        recursive,
        depth: None,
        kinds: FS | VOL,
        listsnapshots: false,
        properties: Some(PROPERTIES.iter().map(|p| (*p).to_owned()).collect()),
    }
}

/// Loads every key below `root` that is not loaded, as `zpool import -l` does; true if all worked.
pub fn load_all(session: &mut Session, root: &str) -> Result<bool, Stop> {
    let (mut rows, _) = datasets::fetch(session, &query(vec![root.to_owned()], true))?;
    datasets::sort(&mut rows, &[]);
    let (mut tried, mut loaded) = (0u64, 0u64);
    for ds in rows.iter().filter(|d| text(d, "encryptionroot") == d.name) {
        if text(ds, "keystatus") == "available" {
            continue;
        }
        tried += 1;
        loaded += u64::from(load(session, ds, false, None)?);
    }
    putln!(session.out, "{loaded} / {tried} keys successfully loaded");
    Ok(loaded == tried)
}

/// `zfs load-key` and `zfs unload-key`.
pub fn run(session: &mut Session, args: &Parsed, loading: bool) -> Run {
    let (all, dry_run) = (args.has('a'), args.has('n'));
    let recursive = all || args.has('r');
    if !all && args.operands.is_empty() {
        return Err(Stop::Usage("Missing dataset argument or -a option".into()));
    }
    if all && !args.operands.is_empty() {
        return Err(Stop::Usage("Cannot specify dataset with -a option".into()));
    }
    let location = args.value('L');
    if recursive && location.is_some_and(|l| l != "prompt") {
        let why = "alternate keylocation may only be 'prompt' with -r or -a";
        return Err(Stop::Usage(why.into()));
    }
    let (mut rows, missing) = datasets::fetch(session, &query(args.operands.clone(), recursive))?;
    datasets::sort(&mut rows, &[]);
    let (mut tried, mut done) = (0u64, 0u64);
    for ds in &rows {
        let status = text(ds, "keystatus");
        let finished = if loading { "available" } else { "unavailable" };
        if recursive && (text(ds, "encryptionroot") != ds.name || status == finished) {
            continue;
        }
        tried += 1;
        let worked = match loading {
            true => load(session, ds, dry_run, location)?,
            false => unload(session, ds)?,
        };
        done += u64::from(worked);
    }
    if dry_run || recursive && tried != 0 {
        let word = match (loading, dry_run) {
            (true, true) => "verified",
            (true, false) => "loaded",
            (false, _) => "unloaded",
        };
        putln!(session.out, "{done} / {tried} key(s) successfully {word}");
    }
    Ok(if done != tried { 255 } else { i32::from(missing) })
}
