//! Where everything is printed: a buffered writer that remembers a broken pipe instead of failing each print.

use std::io::{self, BufWriter, Write};

/// Output of one run.
pub struct Out {
    w: BufWriter<Box<dyn Write + Send>>,
    broken: bool,
}

impl Out {
    /// Prints to standard output.
    pub fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    /// Prints to any writer (tests).
    pub fn to(w: Box<dyn Write + Send>) -> Self {
        Self { w: BufWriter::with_capacity(1 << 16, w), broken: false }
    }

    /// Writes formatted text; use through [`p!`](crate::p).
    pub fn put(&mut self, args: std::fmt::Arguments<'_>) {
        if !self.broken {
            self.broken = self.w.write_fmt(args).is_err();
        }
    }

    /// Writes bytes as they are (names on disk need not be UTF-8).
    pub fn bytes(&mut self, b: &[u8]) {
        if !self.broken {
            self.broken = self.w.write_all(b).is_err();
        }
    }

    /// Whether the reader went away: then there is no point in going on.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Hands over what is buffered.
    pub fn flush(&mut self) {
        self.broken |= self.w.flush().is_err();
    }
}

/// Prints to an [`Out`] like `print!`.
#[macro_export]
macro_rules! p {
    ($o:expr, $($arg:tt)*) => { $o.put(format_args!($($arg)*)) };
}
