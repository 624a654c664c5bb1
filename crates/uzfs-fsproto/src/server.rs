//! The daemon's side: accepts connections, lets in who has a token, and answers.
//!
//! Every connection has a few threads. One reads a request, lets the next one read, does the work and writes the
//! answer itself: a request never changes threads, several are worked on at the same time, and answers come in the
//! order in which they are ready. A connection that sends what is no frame is closed. Before the token was shown,
//! bodies are limited to a greeting's size.
//!
//! Locks: a connection's `reader` and `writer` and the server's table are leaves.

use crate::ops::{self, Claim, Hello, NOTICE, Notice, Op, Service};
use crate::transport::{Listener, Stream, linger, write_all};
use crate::types::{Claimed, Token, Welcome};
use crate::wire::{self, Frame, MAX_GREETING, REQUEST_HEAD, ReplyHead, RequestHead};
use crate::{Code, Endpoint};
use parking_lot::Mutex;
use rustix::fd::AsFd;
use std::collections::HashMap;
use std::io::{self, BufReader, IoSlice, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads of a connection, and with it requests that are worked on at the same time.
const THREADS: usize = 4;
/// Most connections at the same time.
const MAX_CONNECTIONS: usize = 1024;
/// How long an answer may wait for a peer that does not read.
const STUCK: Duration = Duration::from_secs(60);

/// Decides who gets in. Called from connection threads.
pub trait Gate: Send + Sync {
    /// The mount that a token stands for. Fails with [`Code::Access`] for any other.
    fn open(&self, token: &Token) -> Result<Arc<dyn Service>, Code>;
    /// Makes a mount of the root dataset of a pool.
    fn claim(&self, secret: &Token, pool: u64) -> Result<Claimed, Code>;
}

struct Connection {
    stream: Stream,
    writer: Mutex<()>,
    token: Mutex<Option<Token>>,
    listens: AtomicBool,
}

struct Shared {
    gate: Arc<dyn Gate>,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
}

/// A listening server. Dropping it ends all its connections.
pub struct Server {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `at`.
    pub fn start(gate: Arc<dyn Gate>, at: &Endpoint) -> io::Result<Self> {
        let listener = Listener::bind(at)?;
        let endpoint = listener.endpoint()?;
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::new(Shared { gate, connections: Mutex::default(), next: AtomicU64::new(1) });
        let accepting = shared.clone();
        let thread = std::thread::Builder::new()
            .name("fs-accept".into())
            .spawn(move || accept_all(&accepting, &listener, &stopped))?;
        Ok(Self { shared, endpoint, stop, thread: Some(thread) })
    }

    /// Where it listens; with the port that the system chose.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Ends the connections of a mount: their calls fail at once.
    pub fn disconnect(&self, token: &Token) {
        for c in self.shared.connections.lock().values() {
            if c.token.lock().as_ref() == Some(token) {
                c.stream.shutdown();
            }
        }
    }

    /// Connections of a mount.
    pub fn connections(&self, token: &Token) -> usize {
        self.shared.connections.lock().values().filter(|c| c.token.lock().as_ref() == Some(token)).count()
    }

    /// Tells all who listen for a mount that something changed behind their backs; gives how many were told.
    pub fn notify(&self, token: &Token, notice: &Notice) -> usize {
        let all: Vec<_> = self.shared.connections.lock().values().cloned().collect();
        let listens =
            |c: &&Arc<Connection>| c.listens.load(Ordering::Acquire) && c.token.lock().as_ref() == Some(token);
        let tell = |c: &&Arc<Connection>| c.send(NOTICE, 0, Ok(wire::encode(notice.clone()))).is_ok();
        all.iter().filter(listens).filter(tell).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        use std::io::Write;
        // The accepting thread waits for this byte or for the end of the pair; either comes.
        let _ = (&self.stop).write_all(b"x");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for c in self.shared.connections.lock().values() {
            c.stream.shutdown();
        }
    }
}

fn accept_all(shared: &Arc<Shared>, listener: &Listener, stopped: &UnixStream) {
    while matches!(listener.wait(stopped.as_fd()), Ok(true)) {
        match listener.accept() {
            Ok(Some(stream)) => {
                if shared.connections.lock().len() < MAX_CONNECTIONS {
                    // No thread, no connection: the peer sees its end.
                    let _ = welcome(shared, stream);
                }
            }
            Ok(None) => {}
            // No descriptors left: they come back when connections end.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn welcome(shared: &Arc<Shared>, stream: Stream) -> io::Result<()> {
    stream.limit_writes(STUCK)?;
    let reader = stream.try_clone()?;
    let id = shared.next.fetch_add(1, Ordering::Relaxed);
    let connection = Arc::new(Connection {
        stream,
        writer: Mutex::new(()),
        token: Mutex::new(None),
        listens: AtomicBool::new(false),
    });
    shared.connections.lock().insert(id, connection.clone());
    let taken = shared.clone();
    let spawned = std::thread::Builder::new().name(format!("fs-{id}")).spawn(move || {
        serve(&taken, &connection, reader);
        connection.stream.shutdown();
        taken.connections.lock().remove(&id);
    });
    if spawned.is_err() {
        shared.connections.lock().remove(&id);
    }
    spawned.map(drop)
}

/// Serves a connection: first the greeting, then requests on several threads until it ends.
fn serve(shared: &Shared, connection: &Arc<Connection>, reader: Stream) {
    let mut reader = BufReader::with_capacity(32 << 10, reader);
    let Some(service) = greet(shared, connection, &mut reader) else { return };
    let reader = Mutex::new(reader);
    std::thread::scope(|scope| {
        for index in 1..THREADS {
            let work = || work(connection, &*service, &reader);
            // Fewer threads are slower and nothing else.
            let _ = std::thread::Builder::new().name(format!("fs-work-{index}")).spawn_scoped(scope, work);
        }
        work(connection, &*service, &reader);
    });
}

/// Reads greetings until a token was shown; nothing if the connection is to be closed.
fn greet(shared: &Shared, connection: &Connection, reader: &mut BufReader<Stream>) -> Option<Arc<dyn Service>> {
    loop {
        let (head, body) = read_frame(reader, MAX_GREETING)?;
        match Op::from_wire(head.op) {
            Some(Op::Hello) => {
                let opened = wire::decode::<Hello>(body).map_err(|_| Code::Version).and_then(|h| {
                    let version = ops::common_version(h.magic, h.oldest, h.newest)?;
                    let service = shared.gate.open(&h.token)?;
                    *connection.token.lock() = Some(h.token);
                    Ok((version, service))
                });
                let reply = match &opened {
                    Ok((version, s)) => Ok(wire::encode(Welcome { version: *version, volume: s.volume() })),
                    Err(code) => Err(*code),
                };
                connection.send(head.op, head.id, reply).ok()?;
                return opened.ok().map(|(_, service)| service);
            }
            Some(Op::Claim) => {
                let claimed = wire::decode::<Claim>(body).map_err(|_| Code::Version).and_then(|c| {
                    ops::common_version(c.magic, c.oldest, c.newest)?;
                    shared.gate.claim(&c.secret, c.pool)
                });
                let denied = claimed.is_err();
                connection.send(head.op, head.id, claimed.map(wire::encode)).ok()?;
                if denied {
                    return None;
                }
            }
            _ => {
                connection.send(head.op, head.id, Err(Code::Access)).ok()?;
                return None;
            }
        }
    }
}

/// One of the threads of a connection.
fn work(connection: &Connection, service: &dyn Service, reader: &Mutex<BufReader<Stream>>) {
    loop {
        let (frame, begun) = {
            let mut reader = reader.lock();
            if reader.buffer().is_empty() {
                linger(reader.get_ref());
            }
            let frame = read_frame(&mut *reader, wire::MAX_BODY);
            (frame, Instant::now())
        };
        let Some((head, body)) = frame else {
            connection.stream.shutdown();
            return;
        };
        let listen = head.op == Op::Listen as u16;
        let reply = if listen { Ok(Frame::default()) } else { ops::dispatch(service, &head.caller, head.op, body) };
        // Nobody waits for a late answer, but a short one costs nothing.
        let late = begun.elapsed() > Duration::from_millis(u64::from(head.deadline_ms).max(1));
        let reply = if late { Err(Code::TimedOut) } else { reply };
        if connection.send(head.op, head.id, reply).is_err() {
            connection.stream.shutdown();
            return;
        }
        if listen {
            connection.listens.store(true, Ordering::Release);
        }
    }
}

fn read_frame(reader: &mut impl Read, most: usize) -> Option<(RequestHead, Vec<u8>)> {
    let mut bytes = [0; REQUEST_HEAD];
    reader.read_exact(&mut bytes).ok()?;
    let head = RequestHead::decode(&bytes).ok().filter(|h| h.len as usize <= most)?;
    let mut body = Vec::with_capacity(head.len as usize);
    reader.take(u64::from(head.len)).read_to_end(&mut body).ok()?;
    (body.len() == head.len as usize).then_some((head, body))
}

impl Connection {
    fn send(&self, op: u16, id: u64, reply: Result<Frame, Code>) -> io::Result<()> {
        let (code, body) = match reply {
            Ok(body) if body.len() <= wire::MAX_BODY => (0, body),
            Ok(_) => (Code::TooBig as u16, Frame::default()),
            Err(code) => (code as u16, Frame::default()),
        };
        let head = ReplyHead { len: body.len() as u32, op, code, id }.encode();
        let mut parts = Vec::with_capacity(2 + body.tail.len());
        parts.extend([IoSlice::new(&head), IoSlice::new(&body.head)]);
        parts.extend(body.tail.iter().map(|p| IoSlice::new(p)));
        let _turn = self.writer.lock();
        write_all(&self.stream, &mut parts)
    }
}
