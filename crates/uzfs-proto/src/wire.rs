//! Varlink messages: JSON objects, each ended by one NUL byte.
//!
//! [`FrameReader`] bounds what a peer can make us hold: one message at most, of a limited size; a
//! longer one is an error before it is stored. JSON nesting is limited by serde_json (128 levels).
//! [`FrameReader::within`] also bounds the time from a message's first byte to its last, so that a peer
//! who sends a byte now and then does not hold a thread for ever.

use crate::passing;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Largest request a daemon accepts, in bytes.
pub const MAX_REQUEST: usize = 1 << 20;
/// Largest single reply a client accepts, in bytes. Long lists are streamed in much smaller parts.
pub const MAX_REPLY: usize = 256 << 20;

/// A call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Interface and method, `io.uzfs.Manage1.GetPools`.
    pub method: String,
    /// Parameters; left out means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// No reply wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oneway: bool,
    /// Several replies are welcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Result or parameters of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Another reply to the same call follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
    /// Name of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What can go wrong on the wire.
#[derive(Debug)]
pub enum WireError {
    /// The socket failed.
    Io(io::Error),
    /// A message is longer than the limit, given in bytes.
    TooLong(usize),
    /// The peer went away in the middle of a message.
    Cut,
    /// A message was begun and not ended in time.
    Slow,
    /// A message is not the JSON it should be.
    Json(serde_json::Error),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WireError::Io(e) => write!(f, "{e}"),
            WireError::TooLong(limit) => write!(f, "message longer than {limit} bytes"),
            WireError::Cut => f.write_str("connection closed in the middle of a message"),
            WireError::Slow => f.write_str("message not ended in time"),
            WireError::Json(e) => write!(f, "malformed message: {e}"),
        }
    }
}

impl std::error::Error for WireError {}

impl From<io::Error> for WireError {
    fn from(e: io::Error) -> Self {
        WireError::Io(e)
    }
}

/// Takes messages off a byte stream.
pub struct FrameReader<R> {
    inner: R,
    /// Bytes read and not yet handed out. Never longer than the limit and one read more.
    buf: Vec<u8>,
    /// Where to go on looking for the end, so that a message is searched only once.
    searched: usize,
    limit: usize,
    /// Longest time a message may take, and when the present one began.
    patience: Option<Duration>,
    begun: Option<Instant>,
}

/// Bytes asked from the stream at once.
const CHUNK: usize = 64 << 10;

impl<R: Read> FrameReader<R> {
    /// Reads messages of at most `limit` bytes from `inner`.
    pub fn new(inner: R, limit: usize) -> Self {
        FrameReader { inner, buf: Vec::new(), searched: 0, limit, patience: None, begun: None }
    }

    /// Gives a message at most `patience` from its first byte to its last. The stream must have a read timeout of
    /// that size, after which a read fails with `WouldBlock`; between messages that error is handed on and
    /// reading can go on.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        FrameReader { patience: Some(patience), ..self }
    }

    /// The stream below.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    /// The next message without its NUL; none at the end of the stream.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        loop {
            let fresh = self.buf.get(self.searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|&b| b == 0) {
                let end = self.searched.saturating_add(at);
                if end > self.limit {
                    return Err(WireError::TooLong(self.limit));
                }
                let rest = self.buf.split_off(end.saturating_add(1).min(self.buf.len()));
                let mut frame = std::mem::replace(&mut self.buf, rest);
                frame.truncate(end);
                self.searched = 0;
                self.begun = None;
                return Ok(Some(frame));
            }
            self.searched = self.buf.len();
            if self.buf.len() > self.limit {
                return Err(WireError::TooLong(self.limit));
            }
            self.check_time()?;
            if !self.fill()? {
                return if self.buf.is_empty() { Ok(None) } else { Err(WireError::Cut) };
            }
        }
    }

    /// The next message decoded.
    pub fn next_message<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, WireError> {
        match self.next_frame()? {
            Some(frame) => serde_json::from_slice(&frame).map(Some).map_err(WireError::Json),
            None => Ok(None),
        }
    }

    fn check_time(&mut self) -> Result<(), WireError> {
        let Some(patience) = self.patience.filter(|_| !self.buf.is_empty()) else { return Ok(()) };
        if self.begun.get_or_insert_with(Instant::now).elapsed() > patience { Err(WireError::Slow) } else { Ok(()) }
    }

    fn fill(&mut self) -> Result<bool, WireError> {
        let old = self.buf.len();
        self.buf.resize(old.saturating_add(CHUNK), 0);
        loop {
            let result = match self.buf.get_mut(old..) {
                Some(space) => self.inner.read(space),
                None => Ok(0),
            };
            match result {
                Ok(n) => {
                    self.buf.truncate(old.saturating_add(n));
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.buf.truncate(old);
                    let waited = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    return Err(if waited && old > 0 { WireError::Slow } else { e.into() });
                }
            }
        }
    }
}

/// Writes one message with its NUL in a single write.
pub fn write_message<T: Serialize>(mut out: impl Write, message: &T) -> Result<(), WireError> {
    write_with(message, &mut |bytes| out.write_all(bytes))
}

/// Writes a call, and descriptors beside it.
pub fn write_call(stream: &UnixStream, call: &Call, descriptors: &[OwnedFd]) -> Result<(), WireError> {
    write_with(call, &mut |bytes| passing::send(stream, bytes, descriptors))
}

fn write_with<T: Serialize>(message: &T, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), WireError> {
    let mut bytes = serde_json::to_vec(message).map_err(WireError::Json)?;
    bytes.push(0);
    let result = out(&bytes);
    // Requests can carry keys.
    zeroize::Zeroize::zeroize(&mut bytes);
    result.map_err(WireError::Io)
}
