//! A fixed set of threads that run short tasks.
//!
//! Invariants: the queue is bounded, so that producers of background work cannot outrun the machine; [`TaskPool::run`]
//! never waits for a free thread without working itself, so tasks may use the pool they run on.

use crossbeam_channel::{Sender, TrySendError};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Task = Box<dyn FnOnce() + Send>;

/// How much a thread's work depends on devices that are away for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Patience {
    /// It may fail, and somebody waits for its answer.
    None,
    /// It is for a program that waits, unless the pool is to go on without.
    Waits,
    /// The pool itself depends on it.
    Insists,
}

thread_local! {
    static PATIENCE: Cell<Patience> = const { Cell::new(Patience::None) };
}

/// Runs `f` as work that must not fail because devices are away for a while: what it meets of that kind is waited for,
/// where the pool is set up so. Jobs of [`TaskPool::run`] are part of the work of whoever runs them.
pub fn insisting<T>(f: impl FnOnce() -> T) -> T {
    with_patience(Patience::Insists, f)
}

/// Runs `f` as work for a program that rather waits than fails.
pub fn waiting<T>(f: impl FnOnce() -> T) -> T {
    with_patience(Patience::Waits, f)
}

/// How patient the caller's work is.
pub fn patience() -> Patience {
    PATIENCE.get()
}

fn with_patience<T>(now: Patience, f: impl FnOnce() -> T) -> T {
    /// Puts back what was there before, also when the work panics.
    struct Back(Patience);
    impl Drop for Back {
        fn drop(&mut self) {
            PATIENCE.set(self.0);
        }
    }
    let _back = Back(PATIENCE.replace(now));
    f()
}

/// Threads fed from one bounded queue. Dropping the pool lets queued tasks finish in the background.
#[derive(Debug)]
pub struct TaskPool {
    queue: Sender<Task>,
    threads: usize,
}

impl TaskPool {
    /// Starts `threads` (at least one) threads called `name`. Fails when the system refuses a thread.
    pub fn new(name: &str, threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let (queue, tasks) = crossbeam_channel::bounded::<Task>(threads * 64);
        for i in 0..threads {
            let tasks = tasks.clone();
            std::thread::Builder::new().name(format!("{name}-{i}")).spawn(move || {
                for task in tasks {
                    // A task that panics must not take the thread along: others queue behind it.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
                }
            })?;
        }
        Ok(Self { queue, threads })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Queues a task; tells whether there was room.
    pub fn try_spawn(&self, task: impl FnOnce() + Send + 'static) -> bool {
        match self.queue.try_send(Box::new(task)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Runs all of `jobs`, on the pool's threads and on the caller's, and gives their results in order. A job whose
    /// run panicked has no result.
    pub fn run<T: Send + 'static>(&self, jobs: Vec<Box<dyn FnOnce() -> T + Send>>) -> Vec<Option<T>> {
        let count = jobs.len();
        let slots: Arc<Vec<Slot<T>>> = Arc::new(jobs.into_iter().map(Slot::new).collect());
        let next = Arc::new(AtomicUsize::new(0));
        let (done, finished) = crossbeam_channel::bounded(count.max(1));
        let patience = patience();
        for _ in 1..count.min(self.threads + 1) {
            let (slots, next, done) = (slots.clone(), next.clone(), done.clone());
            self.try_spawn(move || with_patience(patience, || work(&slots, &next, &done)));
        }
        work(&slots, &next, &done);
        for _ in 0..count {
            // Every slot was taken by somebody who reports it, even when the job panics.
            let _ = finished.recv();
        }
        slots.iter().map(|s| s.result.lock().take()).collect()
    }
}

/// Processors this process may use; at least one.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A thread that can be waited for.
pub type JoinHandle<T> = std::thread::JoinHandle<T>;

/// Starts a thread called `name` that lives as long as `f` runs.
///
/// # Errors
/// When the system refuses another thread.
pub fn spawn<T: Send + 'static>(name: &str, f: impl FnOnce() -> T + Send + 'static) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).spawn(f)
}

/// Lets real time pass, whatever a simulated clock says: for waiting until other threads got somewhere.
pub fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// Runs `f` on `threads` threads called `name` (the caller's among them, which has number 0) and waits for all. A
/// thread that the system refuses is done without: `f` must not need its peers.
pub fn run_scoped(name: &str, threads: usize, f: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for i in 1..threads {
            let f = &f;
            let _ = std::thread::Builder::new().name(format!("{name}-{i}")).spawn_scoped(scope, move || f(i));
        }
        f(0);
    });
}

struct Slot<T> {
    job: parking_lot::Mutex<Option<Box<dyn FnOnce() -> T + Send>>>,
    result: parking_lot::Mutex<Option<T>>,
}

impl<T> Slot<T> {
    fn new(job: Box<dyn FnOnce() -> T + Send>) -> Self {
        Self { job: parking_lot::Mutex::new(Some(job)), result: parking_lot::Mutex::new(None) }
    }
}

fn work<T>(slots: &[Slot<T>], next: &AtomicUsize, done: &Sender<()>) {
    while let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
        let job = slot.job.lock().take();
        if let Some(job) = job {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).ok();
            *slot.result.lock() = result;
        }
        let _ = done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_panics_are_contained() {
        let pool = TaskPool::new("test", 2).unwrap();
        let jobs = (0..100usize)
            .map(|i| {
                Box::new(move || {
                    assert!(i != 50, "job 50 fails");
                    i * 2
                }) as Box<dyn FnOnce() -> usize + Send>
            })
            .collect();
        let got = pool.run(jobs);
        for (i, r) in got.into_iter().enumerate() {
            assert_eq!(r, (i != 50).then_some(i * 2));
        }
    }

    #[test]
    fn jobs_are_as_patient_as_their_caller() {
        let pool = TaskPool::new("test", 2).unwrap();
        let ask =
            || -> Vec<Box<dyn FnOnce() -> Patience + Send>> { (0..50).map(|_| Box::new(patience) as Box<_>).collect() };
        let all = |p: Patience| pool.run(ask()).into_iter().flatten().all(|i| i == p);
        assert!(all(Patience::None));
        assert!(insisting(|| all(Patience::Insists)) && waiting(|| all(Patience::Waits)));
        assert_eq!(patience(), Patience::None);
    }

    #[test]
    fn scoped_threads_borrow_and_finish() {
        let sum = AtomicUsize::new(0);
        run_scoped("test", 3, |i| {
            sum.fetch_add(i + 1, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 6);
    }

    #[test]
    fn tasks_may_run_jobs_on_their_own_pool() {
        let pool = Arc::new(TaskPool::new("test", 1).unwrap());
        let inner = pool.clone();
        let outer: Vec<Box<dyn FnOnce() -> usize + Send>> = vec![
            Box::new(move || {
                inner
                    .run(vec![Box::new(|| 1usize) as Box<_>, Box::new(|| 2usize) as Box<_>])
                    .into_iter()
                    .flatten()
                    .sum()
            }),
            Box::new(|| 10),
        ];
        assert_eq!(pool.run(outer).into_iter().flatten().sum::<usize>(), 13);
    }
}
