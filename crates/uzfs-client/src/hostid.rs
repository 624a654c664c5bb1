//! The identity of this host, as OpenZFS determines it.

use crate::session::Session;

/// `ZFS_HOSTID` (hexadecimal) if set, else what the C library says (`/etc/hostid`).
pub fn system(session: &Session) -> u64 {
    if let Some(text) = session.variable("ZFS_HOSTID") {
        let digits = text.trim_start_matches("0x");
        if let Ok(id) = u64::from_str_radix(digits, 16) {
            return id & 0xffff_ffff;
        }
    }
    // SAFETY: the call has no arguments and only reads a system file.
    let id = unsafe { libc::gethostid() };
    id.cast_unsigned() & 0xffff_ffff
}
