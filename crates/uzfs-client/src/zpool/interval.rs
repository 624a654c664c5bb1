//! Repeating a command (`INTERVAL [COUNT]`) and its time stamps (`-T`).

use crate::getopt::Parsed;
use crate::session::{Session, Stop, putln};
use crate::time;
use std::time::Duration;

/// How often to repeat.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Interval {
    /// Seconds between two runs; zero for a single run.
    pub seconds: f32,
    /// Runs; zero for no end.
    pub count: u64,
}

fn number(text: &str) -> Option<f32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|_| digits)
}

/// Takes interval and count off the end of the operands.
pub fn take(operands: &mut Vec<String>) -> Result<Interval, Stop> {
    let mut found = Interval::default();
    for _ in 0..2 {
        let Some(value) = operands.last().and_then(|t| number(t)) else { break };
        if value == 0.0 {
            return Err(Stop::Usage("interval cannot be zero".into()));
        }
        found = Interval { seconds: value, count: found.seconds as u64 };
        operands.pop();
    }
    Ok(found)
}

impl Interval {
    /// Waits for the next run; false if there is none.
    pub fn again(&mut self, session: &mut Session) -> bool {
        if self.seconds == 0.0 {
            return false;
        }
        if self.count != 0 {
            self.count -= 1;
            if self.count == 0 {
                return false;
            }
        }
        let _ = session.out.flush();
        std::thread::sleep(Duration::from_secs_f32(self.seconds));
        true
    }
}

/// The time stamp asked for with `-T`, as text; none if none was.
pub fn timestamp(args: &Parsed) -> Result<Option<String>, Stop> {
    match args.value('T') {
        None => Ok(None),
        Some(t) if t.starts_with('u') => Ok(Some(time::now().to_string())),
        Some(t) if t.starts_with('d') => Ok(Some(time::ctime(time::now()))),
        Some(_) => Err(Stop::Usage(String::new())),
    }
}

/// Prints the time stamp if there is one.
pub fn print_timestamp(session: &mut Session, args: &Parsed) -> Result<(), Stop> {
    if let Some(text) = timestamp(args)? {
        putln!(session.out, "{text}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands() {
        let run = |words: &[&str]| {
            let mut operands: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            let interval = take(&mut operands);
            (interval.ok(), operands.len())
        };
        assert_eq!(run(&["tank"]), (Some(Interval::default()), 1));
        assert_eq!(run(&["tank", "2"]), (Some(Interval { seconds: 2.0, count: 0 }), 1));
        assert_eq!(run(&["tank", "0.5", "3"]), (Some(Interval { seconds: 0.5, count: 3 }), 1));
        assert_eq!(run(&["0"]).0, None);
    }
}
