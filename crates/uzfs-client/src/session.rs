//! What a running program has: its output, its environment and its connection to the daemon.
//!
//! Everything the tools print goes through a [`Session`], so that tests run whole commands in this
//! process against a fake daemon and compare what comes out.

use crate::sentence;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use uzfs_proto::client::{CallError, Connection};
use uzfs_proto::wire::WireError;
use uzfs_proto::{Failure, Method};

/// Why a command ends early.
#[derive(Debug)]
pub enum Stop {
    /// Wrong usage: the sentence to print above the usage text; exit code 2.
    Usage(String),
    /// Something was printed already; the exit code.
    Exit(i32),
}

/// What commands return: an exit code, or an early end.
pub type Run = Result<i32, Stop>;

/// Looks up an environment variable.
pub type Variables = Box<dyn Fn(&str) -> Option<String>>;
/// Connects to the daemon, starting it if need be. The error is a sentence.
pub type Connect = Box<dyn Fn() -> Result<Connection, String>>;

/// One run of a program.
pub struct Session<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// The environment.
    pub variables: Variables,
    connect: Connect,
    connection: Option<Connection>,
}

/// Prints to a stream. Errors are ignored like printf's: a closed pipe is no reason to complain, and
/// what was not printed is not missed by anyone.
macro_rules! put {
    ($stream:expr, $($arg:tt)*) => { { let _ = write!($stream, $($arg)*); } };
}
/// Prints a line to a stream, see [`put`].
macro_rules! putln {
    ($stream:expr) => { { let _ = writeln!($stream); } };
    ($stream:expr, $($arg:tt)*) => { { let _ = writeln!($stream, $($arg)*); } };
}
pub(crate) use {put, putln};

impl<'a> Session<'a> {
    /// A session that has not connected yet.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, variables: Variables, connect: Connect) -> Self {
        Session { out, err, variables, connect, connection: None }
    }

    /// An environment variable.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.variables)(name)
    }

    /// True if a variable is set to something that means yes (`libzfs_envvar_is_set`).
    pub fn is_set(&self, name: &str) -> bool {
        let Some(value) = self.variable(name) else { return false };
        let number: i64 = value.parse().unwrap_or(0);
        number > 0 || ["YES", "Y", "ON"].iter().any(|w| value.to_uppercase().starts_with(w))
    }

    fn connection(&mut self) -> Result<&mut Connection, Stop> {
        if self.connection.is_none() {
            match (self.connect)() {
                Ok(connection) => self.connection = Some(connection),
                Err(sentence) => {
                    putln!(self.err, "{sentence}");
                    return Err(Stop::Exit(1));
                }
            }
        }
        self.connection.as_mut().ok_or(Stop::Exit(1))
    }

    /// Drops the connection; the next call makes a new one.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Runs a first exchange. If the daemon closed the connection without having read the request, as
    /// one that is just ending does, a new connection is made and the request is sent once more.
    fn exchange<T>(
        &mut self,
        ask: &mut dyn FnMut(&mut Connection) -> Result<T, CallError>,
    ) -> Result<Result<T, CallError>, Stop> {
        let fresh = self.connection.is_none();
        let result = ask(self.connection()?);
        let unread = matches!(
            &result,
            Err(CallError::Wire(WireError::Io(e)))
                if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        );
        if fresh && unread {
            self.connection = None;
            return Ok(ask(self.connection()?));
        }
        Ok(result)
    }

    fn settle<T>(&mut self, result: Result<T, CallError>) -> Result<Result<T, Failure>, Stop> {
        match result {
            Ok(reply) => Ok(Ok(reply)),
            Err(CallError::Failed(failure)) => Ok(Err(*failure)),
            Err(error) => {
                self.connection = None;
                putln!(self.err, "internal error: {error}");
                Err(Stop::Exit(1))
            }
        }
    }

    /// Calls a method that may fail in a way the caller handles.
    pub fn try_call<M: Method>(&mut self, args: &M::Args) -> Result<Result<M::Reply, Failure>, Stop> {
        let result = self.exchange(&mut |c| c.call::<M>(args))?;
        self.settle(result)
    }

    /// The same with a descriptor beside the call, which has index 0.
    pub fn try_call_passing<M: Method>(
        &mut self,
        args: &M::Args,
        descriptor: &OwnedFd,
    ) -> Result<Result<M::Reply, Failure>, Stop> {
        let result = self.exchange(&mut |c| {
            c.pass(descriptor.try_clone().map_err(WireError::Io)?);
            c.call::<M>(args)
        })?;
        self.settle(result)
    }

    /// Calls a method; a failure ends the command with `what` and the sentence for it.
    pub fn call<M: Method>(&mut self, what: &str, args: &M::Args) -> Result<M::Reply, Stop> {
        match self.try_call::<M>(args)? {
            Ok(reply) => Ok(reply),
            Err(failure) => Err(self.fail(what, &failure)),
        }
    }

    /// Calls a method that answers in parts.
    pub fn stream<M: Method>(
        &mut self,
        args: &M::Args,
        part: &mut dyn FnMut(M::Reply) -> bool,
    ) -> Result<Result<(), Failure>, Stop> {
        let result = self.exchange(&mut |c| c.stream::<M>(args, part))?;
        self.settle(result)
    }

    /// Calls a method that answers in parts; `part` may make other calls meanwhile, on a connection of their own.
    pub fn stream_beside<M: Method>(
        &mut self,
        args: &M::Args,
        part: &mut dyn FnMut(&mut Self, M::Reply) -> bool,
    ) -> Result<Result<(), Failure>, Stop> {
        self.connection()?;
        let Some(mut connection) = self.connection.take() else { return Err(Stop::Exit(1)) };
        let result = connection.stream::<M>(args, &mut |reply| part(self, reply));
        self.settle(result)
    }

    /// Calls a method that answers in parts and prints each part at once; ends when nobody reads.
    pub fn stream_to_output<M: Method>(
        &mut self,
        args: &M::Args,
        print: &dyn Fn(M::Reply) -> String,
    ) -> Result<Result<(), Failure>, Stop> {
        self.connection()?;
        let Some(mut connection) = self.connection.take() else { return Err(Stop::Exit(1)) };
        let out = &mut self.out;
        let mut open = true;
        let result = connection.stream::<M>(args, &mut |reply| {
            let text = print(reply);
            open = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok();
            open
        });
        if open {
            self.connection = Some(connection);
        }
        self.settle(result)
    }

    /// Prints `what: sentence` for a failure.
    pub fn report(&mut self, what: &str, failure: &Failure) {
        putln!(self.err, "{what}: {}", sentence::of(failure));
    }

    /// Prints a failure and gives exit code 1.
    pub fn fail(&mut self, what: &str, failure: &Failure) -> Stop {
        self.report(what, failure);
        Stop::Exit(1)
    }
}
