//! GetHistory: the pool's records in the contract's form.

use super::{Engine, failure};
use std::collections::HashMap;
use uzfs_proto::{Failure, GetHistoryReply, HistoryRecord, Sink};
use zfs_phys::history::LEGACY_EVENTS;
use zfs_phys::{NvList, NvValue};

/// Records in one part of the answer.
const RECORDS_PER_PART: usize = 256;

/// A number of either sign: salts use all 64 bits.
fn number(value: &NvValue) -> Option<i128> {
    Some(match value {
        NvValue::Uint64(n) => i128::from(*n),
        NvValue::Int64(n) => i128::from(*n),
        NvValue::Uint32(n) => i128::from(*n),
        NvValue::Int32(n) => i128::from(*n),
        _ => return None,
    })
}

/// One element a line, nested ones indented by four spaces more.
fn lines(list: &NvList, indent: usize, out: &mut Vec<String>) {
    let pad = " ".repeat(indent);
    for (name, value) in &list.pairs {
        match value {
            NvValue::NvList(inner) => {
                out.push(format!("{pad}{name}:"));
                lines(inner, indent + 4, out);
            }
            NvValue::NvListArray(all) => {
                for (i, inner) in all.iter().enumerate() {
                    out.push(format!("{pad}{name}[{i}]:"));
                    lines(inner, indent + 4, out);
                }
            }
            NvValue::Boolean => out.push(format!("{pad}{name}")),
            NvValue::BooleanValue(b) => out.push(format!("{pad}{name}: {}", if *b { "TRUE" } else { "FALSE" })),
            NvValue::String(s) => out.push(format!("{pad}{name}: '{s}'")),
            NvValue::StringArray(all) => {
                out.extend(all.iter().enumerate().map(|(i, s)| format!("{pad}{name}[{i}]: '{s}'")));
            }
            NvValue::Uint64Array(all) => {
                out.extend(all.iter().enumerate().map(|(i, n)| format!("{pad}{name}[{i}]: {n}")));
            }
            other => match number(other) {
                Some(n) => out.push(format!("{pad}{name}: {n}")),
                None => out.push(format!("{pad}{name}: {other:?}")),
            },
        }
    }
}

/// Names of users, each asked for once.
#[derive(Default)]
struct Users(HashMap<u64, Option<String>>);

impl Users {
    fn name(&mut self, uid: u64) -> Option<String> {
        self.0.entry(uid).or_insert_with(|| {
            let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
            let id = uid.to_string();
            let of = |line: &&str| line.split(':').nth(2) == Some(&id);
            passwd.lines().find(of)?.split(':').next().map(str::to_owned)
        });
        self.0.get(&uid).cloned().flatten()
    }
}

fn record(nv: &NvList, users: &mut Users) -> HistoryRecord {
    let text = |name: &str| nv.str(name).map(str::to_owned);
    let printed = |name: &str| {
        nv.list(name).map(|list| {
            let mut out = Vec::new();
            lines(list, 0, &mut out);
            out
        })
    };
    let event = nv.u64("history internal event");
    let legacy = event.and_then(|e| LEGACY_EVENTS.get(usize::try_from(e).ok()?)).map(|n| (*n).to_owned());
    let uid = nv.u64("history who");
    HistoryRecord {
        time: nv.u64("history time").unwrap_or(0),
        elapsed_ns: nv.get("elapsed_ns").and_then(number).map(|n| n as u64),
        command: text("history command"),
        txg: nv.u64("history txg"),
        internal_name: legacy.or_else(|| text("internal_name")),
        internal_text: text("history internal str"),
        internal_event: event,
        dataset: text("dsname"),
        dataset_id: nv.u64("dsid"),
        ioctl: text("ioctl"),
        ioctl_input: printed("in_nvl"),
        ioctl_output: printed("out_nvl"),
        ioctl_output_size: nv.get("out_size").and_then(number).map(|n| n as u64),
        ioctl_errno: nv.get("errno").and_then(number).and_then(|n| i64::try_from(n).ok()),
        uid,
        user: uid.and_then(|uid| users.name(uid)),
        host: text("history hostname"),
        zone: text("history zone"),
    }
}

impl Engine {
    pub(super) fn history(&self, pool: &str, sink: &mut dyn Sink<GetHistoryReply>) -> Result<(), Failure> {
        let imported = self.pool(pool)?;
        if let Some(spa) = imported.spa.as_ref().filter(|spa| !spa.zio().is_suspended()) {
            // Commands are noted in the open txg.
            spa.txgs().wait_synced(0).map_err(|e| failure::engine(&e).about(pool))?;
        }
        let history = imported.view().history().map_err(|e| failure::engine(&e).about(pool))?;
        let mut users = Users::default();
        for part in history.records.chunks(RECORDS_PER_PART) {
            let records = part.iter().map(|nv| record(nv, &mut users)).collect();
            if !sink.send(GetHistoryReply { records }) {
                break;
            }
        }
        Ok(())
    }
}
