//! The front end's side: calls with deadlines over one connection, from any number of threads.
//!
//! There is no receiving thread: whoever waits for a reply reads the socket, one at a time, and hands replies of others
//! to them. A call alone on the connection therefore costs one wake-up of the daemon and one of the caller, and no
//! more. A caller whose deadline passes leaves; half a frame stays in the inbox for the next one.
//!
//! The connection is dead from the first error on: everything outstanding fails with [`Code::Io`] then and there, and
//! every later call at once. An idle connection notices when it is used next.
//!
//! Locks: `writer` and `state` are leaves, except that `state` may be taken while `inbox` is held.

use crate::ops::{self, Notice, Operation};
use crate::transport::{Stream, linger, write_all};
use crate::types::{Claimed, Token, VolumeInfo};
use crate::wire::{self, Blob, Caller, REPLY_HEAD, ReplyHead, RequestHead};
use crate::{Code, Endpoint};
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a call waits if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes read ahead for headers and small bodies.
const STAGE: usize = 16 << 10;

type Answered = Result<Vec<u8>, Code>;

/// A caller that waits.
#[derive(Default)]
struct Slot {
    answer: Option<Answered>,
    wake: Arc<Condvar>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, Slot>,
    /// Somebody reads the socket.
    reading: bool,
    dead: bool,
}

/// A connection to the daemon for one mount.
pub struct Client {
    stream: Stream,
    writer: Mutex<()>,
    inbox: Mutex<Inbox>,
    state: Mutex<State>,
    next: AtomicU64,
    patience: Duration,
    volume: VolumeInfo,
}

impl Client {
    /// Connects to the first endpoint that answers and shows the token. Fails with [`Code::Io`] when nobody is there,
    /// [`Code::Access`] when the token is not known, [`Code::Version`] when no version is common.
    pub fn connect(endpoints: &[Endpoint], token: Token) -> Result<Self, Code> {
        let mut client = Self::open(endpoints)?;
        client.volume = client.call(&Caller::default(), ops::hello(token))?.volume;
        Ok(client)
    }

    /// Asks the daemon for a mount of the pool with this guid.
    pub fn claim(endpoints: &[Endpoint], secret: Token, pool: u64) -> Result<Claimed, Code> {
        // The pool may have to be found and opened first.
        let client = Self::open(endpoints)?.with_patience(Duration::from_secs(120));
        client.call(&Caller::default(), ops::claim(secret, pool))
    }

    fn open(endpoints: &[Endpoint]) -> Result<Self, Code> {
        let stream = endpoints.iter().find_map(|e| Stream::connect(e).ok()).ok_or(Code::Io)?;
        stream.limit_writes(PATIENCE).map_err(|_| Code::Io)?;
        Ok(Self {
            stream,
            writer: Mutex::new(()),
            inbox: Mutex::default(),
            state: Mutex::default(),
            next: AtomicU64::new(1),
            patience: PATIENCE,
            volume: VolumeInfo::default(),
        })
    }

    /// Changes how long calls wait.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// What the mount is of.
    pub fn volume(&self) -> &VolumeInfo {
        &self.volume
    }

    /// Whether the daemon is known to be gone.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// Ends the connection; every call fails from now on.
    pub fn close(&self) {
        self.stream.shutdown();
        self.die(&mut self.state.lock());
    }

    /// Performs one operation.
    pub fn call<O: Operation>(&self, caller: &Caller, request: O) -> Result<O::Reply, Code> {
        let body = wire::encode(request);
        let tail: Vec<&[u8]> = body.tail.iter().map(|p| &p[..]).collect();
        let reply = self.exchange(caller, O::OP as u16, &body.head, &tail)?;
        wire::decode(reply).map_err(|_| self.broken())
    }

    /// Writes data that the caller keeps, without copying it.
    pub fn write(&self, caller: &Caller, node: u64, offset: u64, data: &[u8]) -> Result<u32, Code> {
        let data = data.get(..wire::MAX_IO).unwrap_or(data);
        let head = wire::encode(ops::Write { node, offset, data: Blob::default() }).head;
        let reply = self.exchange(caller, ops::Op::Write as u16, &head, &[data])?;
        wire::decode(reply).map_err(|_| self.broken())
    }

    /// Makes this connection one that listens, and calls `tell` for every notice until it dies.
    pub fn listen(&self, mut tell: impl FnMut(Notice)) -> Result<(), Code> {
        self.call(&Caller::default(), ops::Listen {})?;
        let mut inbox = self.inbox.lock();
        loop {
            match inbox.next(&self.stream, None) {
                Ok(Some((head, body))) if head.op == ops::NOTICE && head.id == 0 => {
                    tell(wire::decode(body).map_err(|_| self.broken())?);
                }
                Ok(_) => {}
                Err(Dead) => {
                    self.die(&mut self.state.lock());
                    return Err(Code::Io);
                }
            }
        }
    }

    /// The peer does not speak the protocol: nothing it says is believed any more.
    fn broken(&self) -> Code {
        self.close();
        Code::Io
    }

    fn die(&self, state: &mut State) {
        state.dead = true;
        for slot in state.waiting.values_mut() {
            slot.answer.get_or_insert(Err(Code::Io));
            slot.wake.notify_all();
        }
    }

    fn exchange(&self, caller: &Caller, op: u16, body: &[u8], tail: &[&[u8]]) -> Answered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let deadline = Instant::now() + self.patience;
        let wake = Arc::new(Condvar::new());
        {
            let mut state = self.state.lock();
            if state.dead {
                return Err(Code::Io);
            }
            state.waiting.insert(id, Slot { answer: None, wake: wake.clone() });
        }
        let len = body.len() + tail.iter().map(|t| t.len()).sum::<usize>();
        let deadline_ms = u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX);
        let head = RequestHead { len: len as u32, op, id, caller: *caller, deadline_ms };
        if len > wire::MAX_BODY || !self.send(&head, body, tail) {
            self.state.lock().waiting.remove(&id);
            return Err(if len > wire::MAX_BODY { Code::TooBig } else { Code::Io });
        }
        let answer = self.wait(id, &wake, deadline);
        let mut state = self.state.lock();
        state.waiting.remove(&id);
        // Whoever leaves wakes one of those who stay, to read the socket.
        if !state.reading
            && let Some(other) = state.waiting.values().find(|s| s.answer.is_none())
        {
            other.wake.notify_one();
        }
        answer
    }

    fn send(&self, head: &RequestHead, body: &[u8], tail: &[&[u8]]) -> bool {
        let head = head.encode();
        let mut parts = Vec::with_capacity(2 + tail.len());
        parts.extend([IoSlice::new(&head), IoSlice::new(body)]);
        parts.extend(tail.iter().map(|t| IoSlice::new(t)));
        let sent = {
            let _turn = self.writer.lock();
            write_all(&self.stream, &mut parts)
        };
        if sent.is_err() {
            // Half a request may be out: the connection is of no use any more.
            self.close();
        }
        sent.is_ok()
    }

    /// Waits for the answer to `id`, reading the socket if nobody else does.
    fn wait(&self, id: u64, wake: &Condvar, deadline: Instant) -> Answered {
        let mut state = self.state.lock();
        loop {
            if let Some(answer) = state.waiting.get_mut(&id).and_then(|s| s.answer.take()) {
                return answer;
            }
            if state.dead {
                return Err(Code::Io);
            }
            if Instant::now() >= deadline {
                return Err(Code::TimedOut);
            }
            if state.reading {
                wake.wait_until(&mut state, deadline);
                continue;
            }
            state.reading = true;
            drop(state);
            let received = self.inbox.lock().next(&self.stream, Some(deadline));
            state = self.state.lock();
            state.reading = false;
            match received {
                Ok(Some((head, body))) => {
                    let answer = if head.code == 0 { Ok(body) } else { Err(Code::from_wire(head.code)) };
                    if head.id == id {
                        return answer;
                    }
                    // Nobody waits for an answer that came after its deadline.
                    if let Some(slot) = state.waiting.get_mut(&head.id) {
                        slot.answer = Some(answer);
                        slot.wake.notify_all();
                    }
                }
                Ok(None) => {}
                Err(Dead) => {
                    self.stream.shutdown();
                    self.die(&mut state);
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stream.shutdown();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", String::from_utf8_lossy(&self.volume.name))
    }
}

/// The connection ended, or what came is no frame.
struct Dead;

/// Frames being received.
#[derive(Default)]
struct Inbox {
    /// Bytes received and not used.
    stage: Vec<u8>,
    used: usize,
    /// A frame whose body is not complete.
    open: Option<(ReplyHead, Vec<u8>)>,
}

impl Inbox {
    /// The next frame; nothing if the deadline passes first.
    fn next(&mut self, stream: &Stream, deadline: Option<Instant>) -> Result<Option<(ReplyHead, Vec<u8>)>, Dead> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if !linger(stream) && !wait_readable(stream, deadline)? {
                return Ok(None);
            }
            self.receive(stream)?;
        }
    }

    /// A frame from what was received already.
    fn take(&mut self) -> Result<Option<(ReplyHead, Vec<u8>)>, Dead> {
        if self.open.is_none() {
            let Some(bytes) = self.stage.get(self.used..self.used + REPLY_HEAD) else { return Ok(None) };
            let fixed = bytes.try_into().map_err(|_| Dead)?;
            let head = ReplyHead::decode(fixed).map_err(|_| Dead)?;
            self.used += REPLY_HEAD;
            self.open = Some((head, Vec::with_capacity(head.len as usize)));
        }
        if let Some((head, body)) = &mut self.open {
            let have = self.stage.get(self.used..).unwrap_or_default();
            let more = have.get(..(head.len as usize).saturating_sub(body.len())).unwrap_or(have);
            body.extend_from_slice(more);
            self.used += more.len();
            if body.len() < head.len as usize {
                return Ok(None);
            }
        }
        Ok(self.open.take())
    }

    /// Receives what is there: a long body goes straight to its place.
    fn receive(&mut self, stream: &Stream) -> Result<(), Dead> {
        if self.used == self.stage.len() {
            self.stage.clear();
            self.used = 0;
        }
        let n = match &mut self.open {
            Some((head, body)) if head.len as usize - body.len() >= STAGE && self.stage.is_empty() => {
                let n = rustix::io::read(stream, rustix::buffer::spare_capacity(body));
                // Memory can be more than was asked for; what is in it is the next frame.
                if body.len() > head.len as usize {
                    self.stage = body.split_off(head.len as usize);
                }
                n
            }
            _ => {
                self.stage.drain(..self.used);
                self.used = 0;
                self.stage.reserve(STAGE);
                rustix::io::read(stream, rustix::buffer::spare_capacity(&mut self.stage))
            }
        };
        match n {
            Ok(0) => Err(Dead),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(_) => Err(Dead),
        }
    }
}

/// Waits until something can be read; gives false when the deadline passes first.
fn wait_readable(stream: &Stream, deadline: Option<Instant>) -> Result<bool, Dead> {
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let left = left.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: d.subsec_nanos().into() });
        let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Dead),
        }
    }
}
