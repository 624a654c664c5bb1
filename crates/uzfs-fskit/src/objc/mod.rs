//! The Objective-C classes: FSKit's objects to the module's types, and back. No logic.
//!
//! `ZFSFileSystem` is the principal class of the extension, `ZFSVolume` the volume it loads (from macOS 27 on
//! `ZFSVolume27`, with the handler protocols), `ZFSItem` a file. Methods that
//! reach the daemon are handed to a few worker threads and reply from there, so that FSKit's queue is free for the
//! next one; the reply block and everything it needs is kept alive until then.
//!
//! What only macOS 26 or 27 has is looked up by name while running, never linked: resources that are paths (26),
//! handlers, seek regions and cache invalidation (27).
//!
//! Nothing here ran on a Mac yet. It type-checks for both architectures, and a lint compares every selector, required
//! method and argument type with the bindings, because the compiler does not (`cargo xtask macos check`).

mod convert;
mod file_system;
mod groups;
mod host;
mod item;
mod results;
mod types27;
mod v27;
mod volume;
mod volume27;

use objc2::ClassType;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads that wait for the daemon.
const WORKERS: usize = 8;

/// Makes the classes, so that ExtensionKit finds the principal class by its name.
pub fn register_classes() {
    let _ = (file_system::ZfsFileSystem::class(), item::ZfsItem::class());
    // Only the class whose protocols the system has.
    let _ = if types27::there() { volume27::ZfsVolume27::class() } else { volume::ZfsVolume::class() };
}

/// What crosses threads: objects that FSKit allows to be used from any.
struct Sendable<T>(T);

// SAFETY: FSKit's objects and reply blocks may be used and released on any thread; it calls modules on many queues and
// documents that replies can come from any.
unsafe impl<T> Send for Sendable<T> {}

impl<T> Sendable<T> {
    /// The value. A method, so that closures capture the wrapper and not what is in it.
    fn get(&self) -> &T {
        &self.0
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs a job on one of the workers.
fn run(job: impl FnOnce() + Send + 'static) {
    static QUEUE: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (send, receive) = channel::<Job>();
        let receive = Arc::new(Mutex::new(receive));
        for _ in 0..WORKERS {
            let receive = receive.clone();
            std::thread::spawn(move || {
                loop {
                    let next = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match next {
                        Ok(job) => job(),
                        Err(_) => return,
                    }
                }
            });
        }
        Mutex::new(send)
    });
    let sent = queue.lock().unwrap_or_else(PoisonError::into_inner).send(Box::new(job));
    // Without workers the job runs here: slower, and every reply still comes.
    if let Err(e) = sent {
        (e.0)();
    }
}
