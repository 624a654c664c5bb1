//! Calling the contract over a connected socket, blocking.

use crate::wire::{self, Call, FrameReader, Reply, WireError};
use crate::{Failure, FailureCode, INTERFACE, Method};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Why a call did not give a result.
#[derive(Debug)]
pub enum CallError {
    /// The daemon says no.
    Failed(Box<Failure>),
    /// The daemon does not understand the call: the name of the varlink error and its parameters.
    Protocol(String, Value),
    /// The connection failed.
    Wire(WireError),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Failed(failure) => failure.fmt(f),
            CallError::Protocol(name, parameters) => write!(f, "{name} {parameters}"),
            CallError::Wire(e) => write!(f, "lost the connection to uzfsd: {e}"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<WireError> for CallError {
    fn from(e: WireError) -> Self {
        CallError::Wire(e)
    }
}

impl CallError {
    /// The failure, if the daemon sent one; others are turned into an internal one.
    pub fn into_failure(self) -> Failure {
        match self {
            CallError::Failed(failure) => *failure,
            other => Failure::new(FailureCode::Internal, other.to_string()),
        }
    }
}

/// A connection to a daemon.
pub struct Connection {
    stream: UnixStream,
    frames: FrameReader<UnixStream>,
    /// Descriptors that go with the next call.
    passing: Vec<OwnedFd>,
}

impl Connection {
    /// Connects to the daemon that listens at `path`.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Self::from_stream(UnixStream::connect(path)?)
    }

    /// Uses a connected socket.
    pub fn from_stream(stream: UnixStream) -> std::io::Result<Self> {
        let frames = FrameReader::new(stream.try_clone()?, wire::MAX_REPLY);
        Ok(Connection { stream, frames, passing: Vec::new() })
    }

    /// Has a descriptor go with the next call, whose parameters name it by the index that this returns.
    pub fn pass(&mut self, descriptor: OwnedFd) -> u64 {
        self.passing.push(descriptor);
        self.passing.len() as u64 - 1
    }

    /// Calls `method` in full spelling and gives every reply to `part` until it says stop.
    pub fn call_raw(
        &mut self,
        method: String,
        parameters: Value,
        more: bool,
        part: &mut dyn FnMut(Value) -> Result<bool, CallError>,
    ) -> Result<(), CallError> {
        let call = Call { method, parameters: Some(parameters), oneway: false, more };
        wire::write_call(&self.stream, &call, &std::mem::take(&mut self.passing))?;
        loop {
            let reply: Reply = self.frames.next_message()?.ok_or(WireError::Cut)?;
            let parameters = reply.parameters.unwrap_or(Value::Null);
            if let Some(error) = reply.error {
                if error.strip_prefix(INTERFACE) == Some(".Failed")
                    && let Ok(failure) = serde_json::from_value::<Failure>(parameters.clone())
                {
                    return Err(CallError::Failed(Box::new(failure)));
                }
                return Err(CallError::Protocol(error, parameters));
            }
            if !part(parameters)? || !reply.continues {
                return Ok(());
            }
        }
    }

    /// Calls a method that answers once.
    pub fn call<M: Method>(&mut self, args: &M::Args) -> Result<M::Reply, CallError> {
        let mut result = None;
        self.stream::<M>(args, &mut |reply| {
            result = Some(reply);
            true
        })?;
        result.ok_or(CallError::Wire(WireError::Cut))
    }

    /// Calls a method and hands out every part of its answer until `part` returns false. A
    /// connection whose stream was stopped early must be dropped, as more parts may be under way.
    pub fn stream<M: Method>(
        &mut self,
        args: &M::Args,
        part: &mut dyn FnMut(M::Reply) -> bool,
    ) -> Result<(), CallError> {
        let parameters = serde_json::to_value(args).map_err(WireError::Json)?;
        self.call_raw(format!("{INTERFACE}.{}", M::NAME), parameters, M::STREAM, &mut |value| {
            Ok(part(serde_json::from_value(value).map_err(WireError::Json)?))
        })
    }
}
