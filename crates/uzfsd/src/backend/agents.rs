//! Mount agents: programs of users that mount for those who may not.
//!
//! On macOS root cannot mount through an extension that a user installed, and the daemon is root's. So an agent of the
//! user waits at `ServeMounts`; a tool of root asks with `MountByAgent`; the daemon publishes the datasets for the
//! agent's user, hands him the tickets, waits for `ReportMounts` and answers with what came of it. The agent that came
//! last serves, unless the caller has one of his own.
//!
//! An agent may use what it mounts, so only the owner of the daemon and the user whose folder holds the tickets may
//! be one. A task whose agent goes, or that takes too long, fails; a report of another task is refused.
//!
//! Locks: the table is a leaf.

use super::{Engine, Service};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use uzfs_proto::{
    Caller, Empty, Failure, FailureCode, ItemResult, ItemResults, MountArgs, MountTask, ReportMountsArgs, Sink,
    TicketItem, U64,
};

/// How long an agent may take for one dataset: a disk that spins up needs seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often an agent that is waited with is looked after.
const LOOK: Duration = Duration::from_millis(500);

struct Agent {
    number: u64,
    uid: u32,
    tasks: Sender<MountTask>,
}

struct Waiting {
    agent: u64,
    uid: u32,
    results: Sender<Vec<ItemResult>>,
}

#[derive(Default)]
struct Table {
    agents: Vec<Agent>,
    waiting: HashMap<u64, Waiting>,
    last: u64,
}

/// The agents that are there.
#[derive(Default)]
pub struct Agents {
    table: Mutex<Table>,
}

impl Agents {
    fn join(&self, uid: u32) -> (u64, Receiver<MountTask>) {
        let (tasks, receive) = channel();
        let mut table = self.table.lock();
        table.last += 1;
        let number = table.last;
        table.agents.push(Agent { number, uid, tasks });
        (number, receive)
    }

    /// Forgets an agent; whoever waits for it is told at once, by the end of the channel.
    fn leave(&self, number: u64) {
        let mut table = self.table.lock();
        table.agents.retain(|a| a.number != number);
        table.waiting.retain(|_, w| w.agent != number);
    }

    /// User of the agent that would serve `uid`.
    fn serving(&self, uid: u32) -> Option<u32> {
        let table = self.table.lock();
        let own = table.agents.iter().rev().find(|a| a.uid == uid);
        own.or(table.agents.last()).map(|a| a.uid)
    }

    /// Hands a task to the agent of `uid` and waits.
    fn perform(&self, uid: u32, items: Vec<TicketItem>, create: bool) -> Option<Vec<ItemResult>> {
        let patience = PATIENCE.saturating_mul(u32::try_from(items.len()).unwrap_or(u32::MAX));
        let (results, receive) = channel();
        let id = {
            let mut table = self.table.lock();
            table.last += 1;
            let id = table.last;
            let agent = table.agents.iter().rev().find(|a| a.uid == uid)?;
            let number = agent.number;
            agent.tasks.send(MountTask { id: U64(id), items, create }).ok()?;
            table.waiting.insert(id, Waiting { agent: number, uid, results });
            id
        };
        let got = receive.recv_timeout(patience);
        self.table.lock().waiting.remove(&id);
        got.ok()
    }

    /// Takes what an agent says of a task.
    fn report(&self, caller: &Caller, args: ReportMountsArgs) -> Result<(), Failure> {
        let waiting = {
            let mut table = self.table.lock();
            let his = table.waiting.get(&args.id.0).is_some_and(|w| w.uid == caller.uid || caller.uid == 0);
            if his { table.waiting.remove(&args.id.0) } else { None }
        };
        let none = || Failure::new(FailureCode::InvalidArgument, "nobody waits for this task");
        waiting.and_then(|w| w.results.send(args.results).ok()).ok_or_else(none)
    }
}

impl Engine {
    /// Has an agent mount datasets.
    pub(super) fn mount_by_agent(self: &Arc<Self>, caller: &Caller, args: MountArgs) -> Result<ItemResults, Failure> {
        let Some(uid) = self.agents.serving(caller.uid) else {
            let text = "no mount agent of a user is running";
            return Err(Failure::new(FailureCode::MountFailed, text));
        };
        let mut results: Vec<ItemResult> = Vec::new();
        let mut items = Vec::new();
        for item in args.items {
            let ticket = self.publish_at(&item.dataset, uid, Some(item.mountpoint.clone()));
            results.push(ItemResult { subject: item.dataset.clone(), failure: ticket.as_ref().err().cloned() });
            items.extend(ticket.ok().map(|ticket| TicketItem { ticket, item }));
        }
        let asked = items.len();
        if asked == 0 {
            return Ok(ItemResults { results });
        }
        let mut done = self.agents.perform(uid, items, args.create).unwrap_or_default().into_iter();
        for result in results.iter_mut().filter(|r| r.failure.is_none()) {
            result.failure = match done.next() {
                Some(told) => told.failure,
                None => {
                    let text = "the mount agent did not answer";
                    Some(Failure::new(FailureCode::MountFailed, text).about(result.subject.clone()))
                }
            };
        }
        Ok(ItemResults { results })
    }
}

impl Service {
    pub(super) fn serve_agent(&self, caller: &Caller, sink: &mut dyn Sink<MountTask>) -> Result<(), Failure> {
        self.0.require_front(caller)?;
        let (number, tasks) = self.0.agents.join(caller.uid);
        tracing::info!(uid = caller.uid, "a mount agent is there");
        loop {
            let listens = match tasks.recv_timeout(LOOK) {
                Ok(task) => sink.send(task),
                Err(RecvTimeoutError::Timeout) => !sink.gone(),
                Err(RecvTimeoutError::Disconnected) => false,
            };
            if !listens || self.0.stopping() {
                self.0.agents.leave(number);
                return Ok(());
            }
        }
    }

    pub(super) fn agent_reports(&self, caller: &Caller, args: ReportMountsArgs) -> Result<Empty, Failure> {
        self.0.require_front(caller)?;
        self.0.agents.report(caller, args).map(|()| Empty {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uzfs_proto::MountItem;

    fn item(name: &str) -> TicketItem {
        let (dataset, mountpoint) = (name.to_owned(), format!("/{name}"));
        let item = MountItem { dataset, mountpoint, options: Vec::new(), overlay: false };
        TicketItem { ticket: "/t".into(), item }
    }

    #[test]
    fn tasks_go_to_their_agent_and_end_with_it() {
        let agents = Arc::new(Agents::default());
        assert_eq!(agents.serving(0), None);
        let (first, tasks) = agents.join(501);
        let (_, other) = agents.join(502);
        assert_eq!((agents.serving(501), agents.serving(0)), (Some(501), Some(502)));
        let caller = |uid| Caller { uid, gid: 0, pid: 1, owner: uid == 0, passed: Default::default() };
        let asking = agents.clone();
        let asked = std::thread::spawn(move || asking.perform(501, vec![item("a")], true));
        let task = tasks.recv().unwrap();
        let report = |id, uid| {
            let results = vec![ItemResult { subject: "a".into(), failure: None }];
            agents.report(&caller(uid), ReportMountsArgs { id, results })
        };
        assert!(report(U64(task.id.0 + 1), 501).is_err(), "no such task");
        assert!(report(task.id, 502).is_err(), "the task of somebody else");
        assert!(report(task.id, 501).is_ok() && report(task.id, 501).is_err());
        assert_eq!(asked.join().unwrap().unwrap().len(), 1);
        assert!(other.try_recv().is_err());
        let asking = agents.clone();
        let asked = std::thread::spawn(move || asking.perform(501, vec![item("b")], true));
        tasks.recv().unwrap();
        agents.leave(first);
        assert!(asked.join().unwrap().is_none(), "an agent that goes is not waited for");
        assert_eq!(agents.serving(501), Some(502));
    }
}
