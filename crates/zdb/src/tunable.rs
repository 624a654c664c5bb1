//! `zdb -o`: what can be tuned here, under OpenZFS's names.
//!
//! Only what has an effect is known, so that nobody believes to have changed what stays as it was.

use crate::out::Out;
use crate::p;

/// Blocks are hardly read twice, so the cache need not be large.
const ARC: u64 = 256 << 20;

/// What can be tuned, with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunables {
    /// Bytes of the cache (`zfs_arc_max`).
    pub arc: u64,
    /// Threads that read and verify (`zdb_threads`); 0 leaves it to the machine.
    pub threads: u64,
}

impl Default for Tunables {
    fn default() -> Self {
        Self { arc: ARC, threads: 0 }
    }
}

/// Name, what it is for.
const KNOWN: [(&str, &str); 2] = [
    ("zfs_arc_max", "Maximum ARC size in bytes"),
    ("zdb_threads", "Threads that read and verify blocks, 0 for one of each processor"),
];
/// Least bytes of the cache.
const ARC_MIN: u64 = 16 << 20;
/// Most threads.
const THREADS_MAX: u64 = 256;

impl Tunables {
    fn value(&mut self, name: &str) -> Option<&mut u64> {
        match name {
            "zfs_arc_max" => Some(&mut self.arc),
            "zdb_threads" => Some(&mut self.threads),
            _ => None,
        }
    }

    fn print(&mut self, o: &mut Out, name: &str, help: Option<&str>) -> Result<(), String> {
        let value = *self.value(name).ok_or_else(|| format!("no such tunable: {name}"))?;
        match help {
            Some(help) => p!(o, "{name} [u64]: {help}\n"),
            None => p!(o, "{name}: {value}\n"),
        }
        Ok(())
    }

    /// Does what one `-o` asks for: `NAME=VALUE` sets, `NAME` and `show[=NAME]` show, `info[=NAME]` explains.
    ///
    /// # Errors
    /// The sentence for a name that is not known or a value that cannot be had.
    pub fn option(&mut self, o: &mut Out, text: &str) -> Result<(), String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("show" | "info", which) => {
                let shown = |n: &str| which.is_none_or(|w| w == n);
                if !KNOWN.iter().any(|(n, _)| shown(n)) {
                    return Err(format!("no such tunable: {}", which.unwrap_or_default()));
                }
                for (known, help) in KNOWN.iter().filter(|(n, _)| shown(n)) {
                    self.print(o, known, (name == "info").then_some(help))?;
                }
                Ok(())
            }
            (name, None) => self.print(o, name, None),
            (name, Some(value)) => {
                let slot = self.value(name).ok_or_else(|| format!("no such tunable: {name}"))?;
                let fits = |n: &u64| match name {
                    "zfs_arc_max" => *n >= ARC_MIN,
                    _ => *n <= THREADS_MAX,
                };
                let refuse = || format!("couldn't set tunable '{name}': Invalid argument");
                let new = crate::opts::number(value).filter(fits).ok_or_else(refuse)?;
                let old = std::mem::replace(slot, new);
                p!(o, "{name}: {old} -> {new}\n");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_an_effect_can_be_set() {
        let mut t = Tunables::default();
        let mut o = Out::to(Box::new(std::io::sink()));
        t.option(&mut o, "zfs_arc_max=0x4000000").unwrap();
        t.option(&mut o, "show").unwrap();
        t.option(&mut o, "info=zdb_threads").unwrap();
        assert_eq!(t, Tunables { arc: 64 << 20, threads: 0 });
        assert_eq!(t.option(&mut o, "zfs_recover=1"), Err("no such tunable: zfs_recover".into()));
        assert_eq!(t.option(&mut o, "show=x"), Err("no such tunable: x".into()));
        let bad = "couldn't set tunable 'zdb_threads': Invalid argument";
        assert_eq!(t.option(&mut o, "zdb_threads=many"), Err(bad.into()));
    }
}
