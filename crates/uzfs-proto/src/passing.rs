//! Descriptors beside messages: what a caller has open, the daemon can use without a name for it and without rights of its
//! own (`SCM_RIGHTS`).
//!
//! A caller sends descriptors with the first byte of a call and names them in its parameters by their index; it sends no
//! other call before it has the answer. At most [`MOST`] come with a call, more are closed, and so are those that the
//! call did not take. Descriptors are hostile like every other byte: what is read from one is bounded in size and time
//! ([`read_all`]).
//!
//! The one use today is `LoadKey`: the key comes through a pipe, so that it is never part of a JSON text.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Most descriptors of one call.
pub const MOST: usize = 4;

/// Descriptors that came with a call. Each can be taken once; the rest is closed with the last copy of this.
#[derive(Debug, Clone, Default)]
pub struct Passed(Arc<Mutex<Vec<Option<OwnedFd>>>>);

impl Passed {
    /// The descriptor of that index; nothing when none came or it was taken before.
    pub fn take(&self, index: u64) -> Option<OwnedFd> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_mut(usize::try_from(index).ok()?)?.take()
    }
}

impl FromIterator<OwnedFd> for Passed {
    fn from_iter<I: IntoIterator<Item = OwnedFd>>(all: I) -> Self {
        Self(Arc::new(Mutex::new(all.into_iter().map(Some).collect())))
    }
}

/// Reads a socket and keeps the descriptors that come.
pub struct Receiver<'a> {
    stream: &'a UnixStream,
    waiting: RefCell<Vec<OwnedFd>>,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const FLAGS: RecvFlags = RecvFlags::empty();

impl<'a> Receiver<'a> {
    /// Reads `stream`.
    pub fn new(stream: &'a UnixStream) -> Self {
        Self { stream, waiting: RefCell::new(Vec::new()) }
    }

    /// What came since this was last asked.
    pub fn take(&self) -> Passed {
        self.waiting.take().into_iter().collect()
    }

    fn keep(&self, descriptor: OwnedFd) {
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < MOST {
            waiting.push(descriptor);
        }
    }
}

impl Read for Receiver<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(into)];
        let got = rustix::net::recvmsg(self.stream.as_fd(), &mut parts, &mut control, FLAGS)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptors.for_each(|d| self.keep(d));
            }
        }
        Ok(got.bytes)
    }
}

/// Writes all of `bytes`, and the descriptors with the first of them.
pub fn send(mut stream: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).take(MOST).collect();
    let mut done = 0;
    if !descriptors.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        done = loop {
            match rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
    }
    stream.write_all(bytes.get(done..).unwrap_or_default())
}

/// A descriptor from which `bytes` can be read, then its end. They must be few enough for a pipe's buffer.
pub fn holding(bytes: &[u8]) -> io::Result<OwnedFd> {
    let (from, into) = io::pipe()?;
    let mut into = into;
    into.write_all(bytes)?;
    Ok(from.into())
}

/// Everything that `descriptor` gives, which must be at most `most` bytes and come to its end within `patience`.
pub fn read_all(descriptor: OwnedFd, most: usize, patience: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
    let end = Instant::now().checked_add(patience);
    let mut file = File::from(descriptor);
    let mut out = Zeroizing::new(vec![0; most.saturating_add(1)]);
    let mut have = 0;
    while let Some(space) = out.get_mut(have..).filter(|s| !s.is_empty()) {
        let left = end.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        let wait = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&wait)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        match file.read(space) {
            Ok(0) => {
                out.truncate(have);
                return Ok(out);
            }
            Ok(n) => have = have.saturating_add(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "longer than it may be"))
}

/// Longest key material.
const LONGEST_KEY: usize = 1024;
/// How long a key may take to come.
const KEY_PATIENCE: Duration = Duration::from_secs(30);

impl crate::LoadKeyArgs {
    /// The key, from where the caller put it.
    pub fn material(&self, caller: &crate::Caller) -> Result<Zeroizing<Vec<u8>>, crate::Failure> {
        let Some(index) = self.key_descriptor else { return Ok(Zeroizing::new(self.key.0.clone())) };
        let invalid = |why: String| crate::Failure::new(crate::FailureCode::InvalidArgument, why);
        let descriptor = caller.passed.take(index).ok_or_else(|| invalid("no descriptor came with the call".into()))?;
        read_all(descriptor, LONGEST_KEY, KEY_PATIENCE).map_err(|e| invalid(format!("cannot read the key: {e}")))
    }
}
