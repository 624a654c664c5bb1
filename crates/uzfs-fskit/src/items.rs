//! Which item object stands for which file: exactly one at a time, from the first time FSKit is given it until FSKit
//! reclaims it.
//!
//! FSKit compares items by identity and deletes a file for good only when its item is gone, so a second object for a
//! live file, or a reclaim that takes the wrong one away, loses data or space. A reclaim can cross a lookup of the same
//! file on another thread; the serial number in the key makes sure that it only takes away the object it was for.

use crate::api::{Host, ItemKey};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

struct Entry<I> {
    item: I,
    key: ItemKey,
    parent: u64,
    id: u64,
}

struct Table<I> {
    live: HashMap<u64, Entry<I>>,
    next: u64,
}

/// The items of a volume.
pub struct Items<H: Host> {
    host: Arc<H>,
    table: Mutex<Table<H::Item>>,
}

impl<H: Host> Items<H> {
    /// No items.
    pub fn new(host: Arc<H>) -> Self {
        Self { host, table: Mutex::new(Table { live: HashMap::new(), next: 1 }) }
    }

    /// The item of a file that was found in directory `parent`; `id` is the number that FSKit is told.
    pub fn give(&self, node: u64, parent: u64, id: u64) -> H::Item {
        let mut table = self.table.lock();
        if let Some(entry) = table.live.get_mut(&node) {
            entry.parent = parent;
            return entry.item.clone();
        }
        let key = ItemKey { node, serial: table.next };
        table.next += 1;
        let item = self.host.new_item(key);
        table.live.insert(node, Entry { item: item.clone(), key, parent, id });
        item
    }

    /// Takes an item back; gives false if it is not the one that stands for its file.
    pub fn reclaim(&self, key: ItemKey) -> bool {
        let mut table = self.table.lock();
        let ours = table.live.get(&key.node).is_some_and(|e| e.key == key);
        ours && table.live.remove(&key.node).is_some()
    }

    /// Directory in which a file was found last.
    pub fn parent(&self, node: u64) -> Option<u64> {
        self.table.lock().live.get(&node).map(|e| e.parent)
    }

    /// The number that FSKit was told of a file.
    pub fn id(&self, node: u64) -> Option<u64> {
        self.table.lock().live.get(&node).map(|e| e.id)
    }

    /// The file was renamed.
    pub fn moved(&self, node: u64, parent: u64) {
        if let Some(entry) = self.table.lock().live.get_mut(&node) {
            entry.parent = parent;
        }
    }

    /// The item of a file, if FSKit knows it.
    pub fn find(&self, node: u64) -> Option<H::Item> {
        self.table.lock().live.get(&node).map(|e| e.item.clone())
    }

    /// All items that FSKit knows, each before the directory it was found in: the kernel lets go of a directory only when
    /// it knows nothing in it.
    pub fn children_first(&self) -> Vec<H::Item> {
        let table = self.table.lock();
        let depth = |mut node: u64| {
            // No chain is longer than the table; a directory that was moved below itself would make a ring.
            let up = (0..table.live.len()).find(|_| {
                let parent = table.live.get(&node).map_or(node, |e| e.parent);
                std::mem::replace(&mut node, parent) == parent
            });
            up.unwrap_or(0)
        };
        let mut all: Vec<_> = table.live.iter().map(|(node, e)| (depth(*node), e.item.clone())).collect();
        all.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        all.into_iter().map(|(_, item)| item).collect()
    }

    /// Items that were given and not taken back.
    pub fn len(&self) -> usize {
        self.table.lock().live.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.table.lock().live.clear();
    }
}
