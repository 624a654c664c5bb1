//! What happens to a pool, for `zpool events`: told as it happens to whoever asked ([`Spa::listen`]).
//!
//! Classes and the names of values are OpenZFS's (include/sys/sysevent/eventdefs.h, include/sys/fm/fs/zfs.h). States of
//! devices are compared with those that were told last, wherever they may have changed.
//!
//! Lock order: `states` is a leaf; listeners are called with no lock held and must not wait for the pool.

use super::Spa;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use zfs_phys::NvList;
use zfs_zio::vdev::Damage;
use zfs_zio::{Vdev, VdevState, Zbookmark};

/// A value inside an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventWord {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct PoolEvent {
    /// Class, as `sysevent.fs.zfs.scrub_start`.
    pub class: &'static str,
    /// More about it, by name.
    pub words: Vec<(&'static str, EventWord)>,
}

type Listener = Box<dyn Fn(&PoolEvent) + Send + Sync>;

/// Who listens, and which states of devices were told.
#[derive(Default)]
pub(super) struct Telling {
    listener: OnceLock<Listener>,
    states: parking_lot::Mutex<HashMap<u64, VdevState>>,
}

fn number(n: u64) -> EventWord {
    EventWord::Number(n)
}

fn text(t: impl Into<String>) -> EventWord {
    EventWord::Text(t.into())
}

/// What events say about a device.
fn about(vdev: &Vdev) -> Vec<(&'static str, EventWord)> {
    let mut words = vec![
        ("vdev_guid", number(vdev.guid())),
        ("vdev_type", text(vdev.config.kind.type_name())),
        ("vdev_state", number(vdev.state() as u64)),
    ];
    words.extend(vdev.config.path.iter().map(|p| ("vdev_path", text(p.clone()))));
    words
}

/// What events say about a damaged place.
fn about_damage(vdev: &Vdev, bm: &Zbookmark, damage: &Damage) -> Vec<(&'static str, EventWord)> {
    let mut words = about(vdev);
    words.extend([
        ("vdev_read_errors", number(vdev.stats.read_errors())),
        ("vdev_write_errors", number(vdev.stats.write_errors())),
        ("vdev_cksum_errors", number(vdev.stats.checksum_errors())),
        ("zio_offset", number(damage.offset)),
        ("zio_size", number(damage.size)),
        ("zio_objset", number(bm.objset)),
        ("zio_object", number(bm.object)),
        ("zio_level", number(bm.level as u64)),
        ("zio_blkid", number(bm.blkid)),
    ]);
    words
}

/// Names of a history record's values, as the history and as an event has them (`spa_history_log_notify`).
const OF_RECORDS: [(&str, &str); 9] = [
    ("history command", "history_command"),
    ("internal_name", "history_internal_name"),
    ("history hostname", "history_hostname"),
    ("dsname", "history_dsname"),
    ("history internal str", "history_internal_str"),
    ("dsid", "history_dsid"),
    ("history txg", "history_txg"),
    ("history time", "history_time"),
    ("history who", "history_who"),
];

fn about_record(record: &NvList) -> Vec<(&'static str, EventWord)> {
    let value = |name: &str| record.str(name).map(text).or_else(|| record.u64(name).map(number));
    OF_RECORDS.iter().filter_map(|(stored, told)| Some((*told, value(stored)?))).collect()
}

impl Spa {
    /// Has everything that happens from now on told to `listener`. There is one listener; a second is not heard.
    pub fn listen(self: &Arc<Self>, listener: impl Fn(&PoolEvent) + Send + Sync + 'static) {
        let states = self.zio.vdevs().leaves().into_iter().map(|l| (l.guid(), l.state())).collect();
        *self.telling.states.lock() = states;
        if self.telling.listener.set(Box::new(listener)).is_err() {
            return;
        }
        let me = Arc::downgrade(self);
        self.zio.on_suspension(move || {
            if let Some(spa) = me.upgrade() {
                spa.tell_states();
                let mode = spa.zio.fail_mode().map_or("wait", zfs_zio::write::FailMode::name);
                spa.tell("ereport.fs.zfs.io_failure", vec![("pool_failmode", text(mode))]);
            }
        });
        let me = Arc::downgrade(self);
        let hear = move |record: &NvList| {
            if let Some(spa) = me.upgrade() {
                spa.tell("sysevent.fs.zfs.history_event", about_record(record));
            }
        };
        let _ = self.ops.heard.set(Box::new(hear));
        let me = Arc::downgrade(self);
        self.zio.errors().on_damage(move |bm, damage| {
            let Some(spa) = me.upgrade() else { return };
            let Some(vdev) = spa.zio.vdevs().find(damage.vdev) else { return };
            let class = match damage.error {
                zfs_zio::vdev::VdevError::Checksum => "ereport.fs.zfs.checksum",
                _ => "ereport.fs.zfs.io",
            };
            spa.tell(class, about_damage(vdev, bm, damage));
        });
    }

    pub(super) fn tell(&self, class: &'static str, words: Vec<(&'static str, EventWord)>) {
        if let Some(listener) = self.telling.listener.get() {
            listener(&PoolEvent { class, words });
        }
    }

    /// Tells what happened to a device.
    pub(super) fn tell_of(&self, class: &'static str, guid: u64) {
        if let Some(vdev) = self.zio.vdevs().find(guid) {
            self.tell(class, about(vdev));
        }
    }

    /// Tells that a scan began or ended.
    pub(super) fn tell_scan(&self, class: &'static str, resilver: bool) {
        self.tell(class, if resilver { vec![("resilver_type", text("healing"))] } else { Vec::new() });
    }

    /// Tells of devices whose state is another than it was told to be.
    pub(super) fn tell_states(&self) {
        if self.telling.listener.get().is_none() {
            return;
        }
        for leaf in self.zio.vdevs().leaves() {
            let state = leaf.state();
            let before = self.telling.states.lock().insert(leaf.guid(), state);
            if let Some(before) = before.filter(|b| *b != state) {
                let mut words = about(leaf);
                words.push(("vdev_laststate", number(before as u64)));
                self.tell("resource.fs.zfs.statechange", words);
            }
        }
    }
}
