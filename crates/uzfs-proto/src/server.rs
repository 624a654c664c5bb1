//! Serving the contract on connected sockets: reads calls, checks who may do what, dispatches to a
//! [`Backend`] and writes replies. One thread a connection; calls of one connection run one after
//! the other, as varlink demands.
//!
//! Users who may only look share a smaller number of connections and are closed when they stay silent,
//! so that they cannot keep the owner's tools out.
//!
//! Socket files, locks and start-up belong to the daemon; this module starts with a listener.

use crate::contract::{self, Outcome, Replier};
use crate::passing::{Passed, Receiver};
use crate::wire::{self, Call, FrameReader, Reply, WireError};
use crate::{Backend, Caller, INTERFACE, INTERFACE_TEXT};
use serde_json::{Value, json};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Connections of owners served at once; more are closed at once, so that a flood cannot exhaust memory.
pub const MAX_CONNECTIONS: usize = 256;
/// Connections of all other users together.
pub const MAX_STRANGERS: usize = 64;

/// How long a message may take, and how long a user who is no owner may say nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a peer may take to read its replies before it is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

const SERVICE: &str = "org.varlink.service";

const SERVICE_TEXT: &str = "# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't
error ExpectedMore ()
";

struct SocketReplier<'a> {
    stream: &'a UnixStream,
    oneway: bool,
    alive: bool,
}

impl SocketReplier<'_> {
    fn write(&mut self, reply: &Reply) -> bool {
        if !self.oneway && self.alive {
            self.alive = wire::write_message(self.stream, reply).is_ok();
        }
        self.alive
    }

    fn error(&mut self, name: String, parameters: Value) -> bool {
        self.write(&Reply { parameters: Some(parameters), continues: false, error: Some(name) })
    }
}

impl Replier for SocketReplier<'_> {
    fn reply(&mut self, parameters: Value, continues: bool) -> bool {
        self.write(&Reply { parameters: Some(parameters), continues, error: None })
    }

    fn gone(&mut self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(self.stream, PollFlags::empty())];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let hung = matches!(poll(&mut fds, Some(&now)), Ok(n) if n > 0)
            && fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR));
        !self.alive || hung
    }
}

/// Credentials of the peer. Whoever is root or runs as the daemon's own user is its owner.
pub fn peer(stream: &UnixStream) -> io::Result<Caller> {
    let own = rustix::process::geteuid().as_raw();
    #[cfg(target_os = "linux")]
    let (uid, gid, pid) = {
        let cred = rustix::net::sockopt::socket_peercred(stream)?;
        let pid = u32::try_from(cred.pid.as_raw_nonzero().get()).unwrap_or(0);
        (cred.uid.as_raw(), cred.gid.as_raw(), pid)
    };
    #[cfg(not(target_os = "linux"))]
    let (uid, gid, pid) = peer_ids(stream).map(|(uid, gid)| (uid, gid, 0))?;
    Ok(Caller { uid, gid, pid, owner: uid == 0 || uid == own, passed: Passed::default() })
}

/// User and group of the peer, where the system tells no more.
#[cfg(not(target_os = "linux"))]
#[allow(unsafe_code)]
fn peer_ids(stream: &UnixStream) -> io::Result<(u32, u32)> {
    use std::os::fd::AsRawFd;
    let (mut uid, mut gid) = (u32::MAX, u32::MAX);
    // SAFETY: the descriptor is open for as long as the stream lives, and both pointers are to live values.
    match unsafe { libc::getpeereid(stream.as_raw_fd(), &mut uid, &mut gid) } {
        0 => Ok((uid, gid)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn introspect(method: &str, parameters: &Value, replier: &mut SocketReplier<'_>) {
    match method {
        "GetInfo" => {
            let info = json!({
                "vendor": "uzfs",
                "product": "uzfsd",
                "version": env!("CARGO_PKG_VERSION"),
                "url": env!("CARGO_PKG_REPOSITORY"),
                "interfaces": [SERVICE, INTERFACE],
            });
            replier.reply(info, false);
        }
        "GetInterfaceDescription" => {
            let name = parameters.get("interface").and_then(Value::as_str);
            let text = match name {
                Some(SERVICE) => Some(SERVICE_TEXT),
                Some(INTERFACE) => Some(INTERFACE_TEXT),
                _ => None,
            };
            match (name, text) {
                (_, Some(text)) => {
                    replier.reply(json!({ "description": text }), false);
                }
                (Some(name), None) => {
                    replier.error(format!("{SERVICE}.InterfaceNotFound"), json!({ "interface": name }));
                }
                (None, None) => {
                    let what = json!({ "parameter": "interface" });
                    replier.error(format!("{SERVICE}.InvalidParameter"), what);
                }
            }
        }
        _ => {
            replier.error(format!("{SERVICE}.MethodNotFound"), json!({ "method": method }));
        }
    }
}

fn answer(backend: &dyn Backend, caller: &Caller, call: Call, replier: &mut SocketReplier<'_>) {
    let parameters = call.parameters.unwrap_or_else(|| json!({}));
    let Some((interface, method)) = call.method.rsplit_once('.') else {
        replier.error(format!("{SERVICE}.MethodNotFound"), json!({ "method": call.method }));
        return;
    };
    match interface {
        SERVICE => return introspect(method, &parameters, replier),
        INTERFACE => {}
        _ => {
            replier.error(format!("{SERVICE}.InterfaceNotFound"), json!({ "interface": interface }));
            return;
        }
    }
    match contract::dispatch(backend, caller, method, call.more, parameters, replier) {
        Outcome::Done => {}
        Outcome::Failed(failure) => {
            let parameters = serde_json::to_value(failure).unwrap_or_else(|_| json!({}));
            replier.error(format!("{INTERFACE}.Failed"), parameters);
        }
        Outcome::Unknown => {
            replier.error(format!("{SERVICE}.MethodNotFound"), json!({ "method": method }));
        }
        Outcome::BadParameter(what) => {
            replier.error(format!("{SERVICE}.InvalidParameter"), json!({ "parameter": what }));
        }
        Outcome::ExpectedMore => {
            replier.error(format!("{SERVICE}.ExpectedMore"), json!({}));
        }
    }
}

/// Serves one connection until the peer closes it or breaks the protocol. A message that is too
/// long or no JSON is answered with `InvalidParameter` and ends the connection, as its end cannot be
/// trusted any more.
pub fn serve_connection(backend: &dyn Backend, stream: &UnixStream) -> Result<(), WireError> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let caller = peer(stream)?;
    let mut frames = FrameReader::new(Receiver::new(stream), wire::MAX_REQUEST).within(READ_TIMEOUT);
    loop {
        match frames.next_message::<Call>() {
            Ok(Some(call)) => {
                let mut replier = SocketReplier { stream, oneway: call.oneway, alive: true };
                let caller = Caller { passed: frames.inner().take(), ..caller.clone() };
                answer(backend, &caller, call, &mut replier);
                if !replier.alive {
                    return Err(WireError::Cut);
                }
            }
            Ok(None) => return Ok(()),
            // An owner's tool may be waiting for a passphrase to be typed.
            Err(WireError::Io(e)) if caller.owner && e.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                if matches!(error, WireError::TooLong(_) | WireError::Json(_)) {
                    let mut replier = SocketReplier { stream, oneway: false, alive: true };
                    let what = json!({ "parameter": error.to_string() });
                    replier.error(format!("{SERVICE}.InvalidParameter"), what);
                }
                return Err(error);
            }
        }
    }
}

/// How often a quiet server asks whether to stop.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// Waits for the next connection; none when it is time to ask whether to stop.
fn next_connection(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let wait = Timespec { tv_sec: 0, tv_nsec: STOP_CHECK.subsec_nanos().into() };
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    match poll(&mut fds, Some(&wait)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(e) => return Err(e.into()),
    }
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false)?;
            Ok(Some(stream))
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            // Out of descriptors: let running connections end instead of spinning.
            std::thread::sleep(STOP_CHECK);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Counts a connection out, also when serving it panicked.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until `stop` says so, one thread each. `stop` is asked a few times a second.
pub fn serve(listener: &UnixListener, backend: &Arc<dyn Backend>, stop: &dyn Fn() -> bool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (owners, strangers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    while !stop() {
        let Some(stream) = next_connection(listener)? else { continue };
        let Ok(caller) = peer(&stream) else { continue };
        let (connections, limit) = if caller.owner { (&owners, MAX_CONNECTIONS) } else { (&strangers, MAX_STRANGERS) };
        if connections.load(Ordering::Relaxed) >= limit {
            continue;
        }
        connections.fetch_add(1, Ordering::Relaxed);
        let (backend, counter) = (Arc::clone(backend), Arc::clone(connections));
        let spawned = std::thread::Builder::new().name("contract".into()).spawn(move || {
            let leave = Leave(counter);
            // The peer learns of errors from its reply or the closed connection.
            let _ = serve_connection(&*backend, &stream);
            drop(leave);
        });
        if spawned.is_err() {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
