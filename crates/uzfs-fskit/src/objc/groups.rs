//! Groups of a caller: FSKit tells his user and his first group, the others are in the system's database.

use crate::api::Context;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long groups are believed.
const FRESH: Duration = Duration::from_secs(60);
/// Most groups of a user (`NGROUPS_MAX` is 16; directories know of more).
const MOST: usize = 256;
/// Most callers remembered.
const CALLERS: usize = 64;

/// All groups of a caller, his own among them.
pub fn of(who: Context) -> Vec<u32> {
    type Known = HashMap<(u32, u32), (Instant, Vec<u32>)>;
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    let key = (who.uid, who.gid);
    if let Some((at, groups)) = known.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
        && at.elapsed() < FRESH
    {
        return groups.clone();
    }
    let groups = ask(who).unwrap_or_else(|| vec![who.gid]);
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= CALLERS {
        known.clear();
    }
    known.insert(key, (Instant::now(), groups.clone()));
    groups
}

/// Asks the system; nothing if it does not know the user, or the sandbox does not let it say.
fn ask(who: Context) -> Option<Vec<u32>> {
    // SAFETY: an all-zero `passwd` is a valid value of a plain C struct of integers and pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut text: Vec<libc::c_char> = vec![0; 16 << 10];
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is to a live value of the right type, and the length is the buffer's.
    let code = unsafe { libc::getpwuid_r(who.uid, &mut entry, text.as_mut_ptr(), text.len(), &mut found) };
    if code != 0 || found.is_null() {
        return None;
    }
    let mut groups: Vec<libc::c_int> = vec![0; MOST];
    let mut count = MOST as libc::c_int;
    // SAFETY: the name is a string of `text`, which lives; the array has room for the count given. Fewer are returned
    // when there are more, which is told by the result and no matter.
    unsafe { libc::getgrouplist(entry.pw_name, who.gid as libc::c_int, groups.as_mut_ptr(), &mut count) };
    groups.truncate(usize::try_from(count).ok()?.min(MOST));
    Some(groups.into_iter().map(|g| g as u32).collect())
}
