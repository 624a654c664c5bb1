//! `zdb -G`: what the engine had to say, kept in memory and printed on standard error at the end.
//!
//! The engine reports through `tracing`; here its events go to a buffer of limited size that forgets the oldest.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, OnceLock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Most messages kept.
const MESSAGES: usize = 4096;

#[derive(Default)]
struct Buffer(parking_lot::Mutex<VecDeque<String>>);

static BUFFER: OnceLock<Arc<Buffer>> = OnceLock::new();

/// Hands events over to the buffer.
struct Keeper(Arc<Buffer>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let at = event.metadata();
        let file = at.file().and_then(|f| f.rsplit('/').next()).unwrap_or_else(|| at.target());
        let mut text = Text(format!("{file}:{}:{}:", at.line().unwrap_or(0), at.level()));
        event.record(&mut text);
        let mut kept = self.0.0.lock();
        if kept.len() >= MESSAGES {
            kept.pop_front();
        }
        kept.push_back(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Begins to keep what is said. Once a process; a program that listens already goes on doing so.
pub fn begin() {
    let buffer = BUFFER.get_or_init(Arc::default).clone();
    let _ = tracing::subscriber::set_global_default(Keeper(buffer));
}

/// What was kept, as it is printed.
pub fn text() -> String {
    let mut out = String::from("\nZFS_DBGMSG(zdb) START:\n");
    if let Some(buffer) = BUFFER.get() {
        buffer.0.lock().iter().for_each(|line| {
            let _ = writeln!(out, "{line}");
        });
    }
    out.push_str("ZFS_DBGMSG(zdb) END\n");
    out
}
