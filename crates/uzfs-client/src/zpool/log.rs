//! `zpool history` and `zpool events`.

use super::interval;
use super::pools;
use crate::getopt::Parsed;
use crate::session::{Run, Session, Stop, put, putln};
use crate::time;
use std::fmt::Write;
use uzfs_proto::{Empty, Event, EventValue, GetHistoryArgs, GetPoolsArgs, HistoryRecord, WatchEventsArgs, method};

/// `zpool history`.
pub fn history(session: &mut Session, args: &Parsed) -> Run {
    let (found, failed) = pools::fetch(session, &args.operands, GetPoolsArgs::default())?;
    if found.is_empty() && args.operands.is_empty() {
        putln!(session.err, "no pools available");
        return Ok(0);
    }
    let (internal, long) = (args.has('i'), args.has('l'));
    let mut code = i32::from(failed);
    for pool in &found {
        let name = &pool.name;
        putln!(session.out, "History for '{name}':");
        let mut lines = String::new();
        let ask = GetHistoryArgs { pool: name.clone() };
        let result = session.stream::<method::GetHistory>(&ask, &mut |part| {
            part.records.iter().for_each(|r| record(&mut lines, r, internal, long));
            true
        })?;
        put!(session.out, "{lines}");
        match result {
            Ok(()) => putln!(session.out),
            Err(failure) => {
                session.report(&format!("cannot get history for '{name}'"), &failure);
                code = 1;
            }
        }
    }
    Ok(code)
}

fn record(out: &mut String, r: &HistoryRecord, internal: bool, long: bool) {
    let mut when = time::history(r.time);
    if let Some(ns) = r.elapsed_ns {
        let _ = write!(when, " ({}ms)", ns / 1_000_000);
    }
    if let Some(command) = &r.command {
        let _ = write!(out, "{when} {command}");
    } else if !internal {
        return;
    } else if let Some(name) = &r.internal_name {
        let txg = r.txg.unwrap_or(0);
        let _ = match r.internal_event {
            Some(_) => write!(out, "{when} [internal {name} txg:{txg}]"),
            None => write!(out, "{when} [txg:{txg}] {name}"),
        };
        if let Some(dataset) = &r.dataset {
            let _ = write!(out, " {dataset} ({})", r.dataset_id.unwrap_or(0));
        }
        let _ = write!(out, " {}", r.internal_text.as_deref().unwrap_or_default());
    } else if let Some(name) = &r.ioctl {
        let _ = writeln!(out, "{when} ioctl {name}");
        for (title, lines) in [("input", &r.ioctl_input), ("output", &r.ioctl_output)] {
            let Some(lines) = lines else { continue };
            let _ = writeln!(out, "    {title}:");
            lines.iter().for_each(|l| {
                let _ = writeln!(out, "        {l}");
            });
        }
        if let Some(size) = r.ioctl_output_size {
            let _ = writeln!(out, "    output nvlist omitted; original size: {}KB", size / 1024);
        }
        if let Some(errno) = r.ioctl_errno {
            let _ = writeln!(out, "    errno: {errno}");
        }
    } else {
        let _ = writeln!(out, "{when} unrecognized record:");
    }
    if long {
        out.push_str(" [");
        if let Some(uid) = r.uid {
            let _ = write!(out, "user {uid} ");
            if let Some(user) = &r.user {
                let _ = write!(out, "({user}) ");
            }
        }
        if let Some(host) = &r.host {
            let _ = write!(out, "on {host}");
        }
        if let Some(zone) = &r.zone {
            let _ = write!(out, ":{zone}");
        }
        out.push(']');
    }
    out.push('\n');
}

/// `zpool events`.
pub fn events(session: &mut Session, args: &Parsed) -> Run {
    let (clear, verbose, scripted) = (args.has('c'), args.has('v'), args.has('H'));
    let mut operands = args.operands.clone();
    let mut interval = interval::take(&mut operands)?;
    if operands.len() > 1 {
        return Err(Stop::Usage("too many arguments".into()));
    }
    let pool = operands.first().cloned();
    if clear && (pool.is_some() || verbose || scripted || args.has('f')) {
        return Err(Stop::Usage("invalid options combined with -c".into()));
    }
    if let Some(name) = &pool {
        let (found, _) = pools::fetch(session, std::slice::from_ref(name), GetPoolsArgs::default())?;
        if found.is_empty() {
            return Ok(1);
        }
    }
    if clear {
        let reply = session.call::<method::ClearEvents>("cannot clear events", &Empty {})?;
        putln!(session.out, "cleared {} events", reply.cleared);
        return Ok(0);
    }
    if !scripted {
        putln!(session.out, "{:<30} CLASS", "TIME");
        let _ = session.out.flush();
    }
    let ask = WatchEventsArgs { pool, follow: args.has('f') };
    loop {
        follow(session, &ask, verbose, scripted)?;
        if !interval.again(session) {
            return Ok(0);
        }
    }
}

/// Prints events as they come.
fn follow(session: &mut Session, ask: &WatchEventsArgs, verbose: bool, scripted: bool) -> Result<(), Stop> {
    let result = session.stream_to_output::<method::WatchEvents>(ask, &|reply| {
        let mut text = String::new();
        reply.events.iter().for_each(|e| event(&mut text, e, verbose, scripted));
        text
    })?;
    result.map_err(|failure| session.fail("cannot get events", &failure))
}

fn event(out: &mut String, e: &Event, verbose: bool, scripted: bool) {
    let when = format!("{}.{:09}", time::event(e.seconds), e.nanoseconds);
    let gap = if scripted { '\t' } else { ' ' };
    let _ = writeln!(out, "{when}{gap}{}", e.class);
    if verbose {
        values(out, &e.values, 8);
        out.push('\n');
    }
}

fn state_text(n: u64) -> &'static str {
    match n {
        1 | 2 => "OFFLINE",
        3 => "REMOVED",
        4 => "UNAVAIL",
        5 => "FAULTED",
        6 => "DEGRADED",
        7 => "ONLINE",
        _ => "UNKNOWN",
    }
}

fn values(out: &mut String, list: &[EventValue], depth: usize) {
    for v in list {
        let name = &v.name;
        let _ = write!(out, "{:depth$}{name} = ", "");
        if let Some(flag) = v.flag {
            let _ = write!(out, "{}", u8::from(flag));
        } else if let Some(n) = v.number {
            let _ = match name.as_str() {
                "vdev_state" | "vdev_laststate" => {
                    write!(out, "\"{}\" (0x{:x})", state_text(n.0), n.0)
                }
                _ => write!(out, "0x{:x}", n.0),
            };
        } else if let Some(text) = &v.text {
            let _ = write!(out, "\"{text}\"");
        } else if let Some(numbers) = &v.numbers {
            numbers.iter().for_each(|n| {
                let _ = write!(out, "0x{:x} ", n.0);
            });
        } else if let Some(texts) = &v.texts {
            texts.iter().for_each(|t| {
                let _ = write!(out, "\"{t}\" ");
            });
        } else if let Some(nested) = &v.nested {
            out.push_str("(embedded nvlist)\n");
            values(out, nested, depth + 8);
            let _ = write!(out, "{:depth$}(end {name})", "");
        }
        out.push('\n');
    }
}
