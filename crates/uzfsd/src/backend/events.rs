//! Events since the daemon started: a bounded ring that listeners read and wait at.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uzfs_proto::{Event, EventValue, U64};
use zfs_spa::Pool;
use zfs_spa::sync::{EventWord, PoolEvent};

/// Events kept; the oldest are forgotten (`zfs_zevent_len_max` of OpenZFS defaults to 512).
const KEPT: usize = 512;

/// Reports of errors kept in a second (`zfs_checksum_events_per_second`).
const REPORTS: u64 = 20;

#[derive(Default)]
struct Ring {
    events: VecDeque<Event>,
    last: u64,
}

/// The ring.
#[derive(Default)]
pub struct EventLog {
    ring: Mutex<Ring>,
    grown: Condvar,
    /// The present second, and reports in it.
    reports: Mutex<(u64, u64)>,
}

/// A text inside an event.
fn text(name: &str, value: impl Into<String>) -> EventValue {
    EventValue { text: Some(value.into()), ..empty(name) }
}

/// A number inside an event.
fn number(name: &str, value: u64) -> EventValue {
    EventValue { number: Some(U64(value)), ..empty(name) }
}

fn empty(name: &str) -> EventValue {
    EventValue { name: name.into(), flag: None, number: None, text: None, numbers: None, texts: None, nested: None }
}

impl EventLog {
    /// Adds an event about a pool.
    pub fn pool(&self, pool: &Pool, class: &str) {
        let values = vec![
            number("version", 0),
            text("class", class),
            text("pool", pool.name().as_ref()),
            number("pool_guid", pool.guid()),
            number("pool_state", 0),
            number("pool_context", 0),
        ];
        self.add(class, Some(pool.name().to_string()), values);
    }

    /// Adds what a pool tells of itself. Of reports about single blocks only some each second are kept.
    pub fn told(&self, pool: &str, guid: u64, event: &PoolEvent) {
        if event.class.starts_with("ereport.") && !event.class.ends_with("io_failure") && !self.has_room() {
            return;
        }
        let mut values = vec![
            number("version", 0),
            text("class", event.class),
            text("pool", pool),
            number("pool_guid", guid),
            number("pool_state", 0),
            number("pool_context", 0),
        ];
        values.extend(event.words.iter().map(|(name, word)| match word {
            EventWord::Number(n) => number(name, *n),
            EventWord::Text(t) => text(name, t.as_str()),
        }));
        self.add(event.class, Some(pool.to_owned()), values);
    }

    /// Whether one more report fits into this second.
    fn has_room(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut reports = self.reports.lock();
        if reports.0 != now {
            *reports = (now, 0);
        }
        reports.1 += 1;
        reports.1 <= REPORTS
    }

    fn add(&self, class: &str, pool: Option<String>, mut values: Vec<EventValue>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut ring = self.ring.lock();
        ring.last += 1;
        let eid = ring.last;
        let (seconds, nanoseconds) = (now.as_secs(), u64::from(now.subsec_nanos()));
        values.push(EventValue { numbers: Some(vec![U64(seconds), U64(nanoseconds)]), ..empty("time") });
        values.push(number("eid", eid));
        ring.events.push_back(Event { eid, class: class.into(), pool, seconds, nanoseconds, values });
        if ring.events.len() > KEPT {
            ring.events.pop_front();
        }
        self.grown.notify_all();
    }

    /// Events after number `after`, at once; waits up to `patience` for the first when there are none.
    pub fn after(&self, after: u64, patience: Duration) -> Vec<Event> {
        let mut ring = self.ring.lock();
        if ring.last <= after && !patience.is_zero() {
            self.grown.wait_for(&mut ring, patience);
        }
        ring.events.iter().filter(|e| e.eid > after).cloned().collect()
    }

    /// Forgets all and tells how many there were.
    pub fn clear(&self) -> u64 {
        let mut ring = self.ring.lock();
        let cleared = ring.events.len() as u64;
        ring.events.clear();
        cleared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_counts_on() {
        let log = EventLog::default();
        for _ in 0..KEPT + 10 {
            log.add("x", None, Vec::new());
        }
        let all = log.after(0, Duration::ZERO);
        assert_eq!((all.len(), all[0].eid, all.last().unwrap().eid), (KEPT, 11, KEPT as u64 + 10));
        assert_eq!(log.clear(), KEPT as u64);
        assert!(log.after(0, Duration::from_millis(1)).is_empty());
    }
}
