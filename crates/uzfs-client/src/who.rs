//! Users and groups by name in properties such as `userused@joe`: the daemon knows numbers only.

use std::ffi::CString;

/// Room for one entry of the user database.
const BUFFER: usize = 64 << 10;

fn user_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: an all-zero `passwd` is a valid value of a plain C struct of integers and pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut buffer = vec![0; BUFFER];
    let mut found = std::ptr::null_mut();
    // SAFETY: every pointer is to a live value of the right type, the length is the buffer's, and the
    // strings that `entry` then points to are not read.
    let code = unsafe { libc::getpwnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    (code == 0 && !found.is_null()).then_some(entry.pw_uid)
}

fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: an all-zero `group` is a valid value of a plain C struct of integers and pointers.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let mut buffer = vec![0; BUFFER];
    let mut found = std::ptr::null_mut();
    // SAFETY: as in `user_id`.
    let code = unsafe { libc::getgrnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    (code == 0 && !found.is_null()).then_some(entry.gr_gid)
}

/// The property with the name of a user or group put to its number, where there is such a user or group.
pub fn numeric(property: &str) -> String {
    let Some((prefix, who)) = property.split_once('@') else { return property.to_owned() };
    let id = match () {
        () if who.is_empty() || who.bytes().all(|b| b.is_ascii_digit()) => None,
        () if prefix.starts_with("user") => user_id(who),
        () if prefix.starts_with("group") => group_id(who),
        () => None,
    };
    match id {
        Some(id) => format!("{prefix}@{id}"),
        None => property.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers() {
        assert_eq!(numeric("userused@root"), "userused@0");
        assert_eq!(numeric("groupobjquota@root"), "groupobjquota@0");
        for same in ["userused@1000", "userused@no such user", "projectused@root", "written@snap", "used"] {
            assert_eq!(numeric(same), same);
        }
    }
}
