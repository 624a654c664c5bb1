//! OpenZFS's sentences for the contract's failure codes, and the checks of names that OpenZFS makes
//! before it asks the kernel.

use crate::props::{MARK, SNAP};
use uzfs_proto::{Failure, FailureCode};

/// The sentence after `cannot open 'x': `.
pub fn of(failure: &Failure) -> String {
    let fixed = match failure.code {
        FailureCode::NoSuchPool => "no such pool",
        FailureCode::NoSuchDataset => "dataset does not exist",
        FailureCode::NoSuchDevice => "no such device in pool",
        FailureCode::PoolExists => "pool already exists",
        FailureCode::DatasetExists => "dataset already exists",
        FailureCode::PermissionDenied => "permission denied",
        FailureCode::Busy => "pool or dataset is busy",
        FailureCode::ReadOnly => "pool is read-only",
        FailureCode::PoolUnavailable => "pool is unavailable",
        FailureCode::PoolSuspended => "pool I/O is currently suspended",
        FailureCode::MissingDevices => "one or more devices is currently unavailable",
        FailureCode::BadDevice => "one or more devices is currently unavailable",
        FailureCode::UnsupportedVersion => "unsupported version or feature",
        FailureCode::DeviceInUse => "one or more devices are already in use",
        FailureCode::PoolCorrupt | FailureCode::Io => "I/O error",
        FailureCode::NoSpace => "out of space",
        FailureCode::NoMemory => "out of memory",
        FailureCode::KeyNotLoaded => "encryption key not loaded",
        FailureCode::WrongKind => "operation not applicable to datasets of this type",
        FailureCode::MountpointNotEmpty => "directory is not empty",
        FailureCode::NotMounted => "not currently mounted",
        FailureCode::AlreadyMounted => "filesystem already mounted",
        _ => return failure.message.clone(),
    };
    fixed.into()
}

fn component_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.: ".contains(&b)
}

/// Why something that is to be one of `kinds` (bits of [`crate::props`]) cannot get a name; none if it can
/// (`zfs_validate_name`).
pub fn bad_new_name(name: &str, kinds: u8) -> Option<String> {
    let lacks = |c: char, kind: u8| kinds == kind && !name.contains(c);
    if name.contains('@') && kinds & SNAP == 0 {
        return Some("snapshot delimiter '@' is not expected here".into());
    }
    if lacks('@', SNAP) {
        return Some("missing '@' delimiter in snapshot name".into());
    }
    if name.contains('#') && kinds & MARK == 0 {
        return Some("bookmark delimiter '#' is not expected here".into());
    }
    if lacks('#', MARK) {
        return Some("missing '#' delimiter in bookmark name".into());
    }
    // The names of what is being received, which nobody gives by hand.
    name.contains('%').then(|| "invalid character % in name".into()).or_else(|| bad_dataset_name(name))
}

/// Why `name` cannot be the name of a dataset, snapshot or bookmark; none if it can.
pub fn bad_dataset_name(name: &str) -> Option<String> {
    if name.len() >= 256 {
        return Some("name is too long".into());
    }
    if name.is_empty() {
        return Some("empty component or misplaced '@' or '#' delimiter in name".into());
    }
    if name.starts_with('/') {
        return Some("leading slash in name".into());
    }
    let delimiters = name.bytes().filter(|b| matches!(b, b'@' | b'#')).count();
    if delimiters > 1 {
        return Some("multiple '@' and/or '#' delimiters in name".into());
    }
    let (base, tail) = match name.find(['@', '#']) {
        Some(at) => (name.get(..at).unwrap_or(""), name.get(at + 1..)),
        None => (name, None),
    };
    if tail.is_none() && base.ends_with('/') {
        return Some("trailing slash in name".into());
    }
    for component in base.split('/').chain(tail) {
        if component.is_empty() {
            return Some("empty component or misplaced '@' or '#' delimiter in name".into());
        }
        if component.contains('/') {
            // OpenZFS's words for a slash behind the delimiter.
            return Some("trailing slash in name".into());
        }
        if let Some(bad) = component.chars().find(|c| !c.is_ascii() || !component_char(*c as u8)) {
            return Some(format!("invalid character '{bad}' in name"));
        }
        match component {
            "." => return Some("self reference, '.' is found in name".into()),
            ".." => return Some("parent reference, '..' is found in name".into()),
            _ => {}
        }
    }
    None
}

/// Why `name` cannot be the name of a pool; none if it can.
pub fn bad_pool_name(name: &str) -> Option<String> {
    if name.len() >= 256 {
        return Some("name is too long".into());
    }
    if let Some(bad) = name.chars().find(|c| !c.is_ascii() || !component_char(*c as u8)) {
        return Some(format!("invalid character '{bad}' in pool name"));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Some("name must begin with a letter".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["tank", "tank/a b", "tank/x@s", "tank#m", "a/b/c-_.:"] {
            assert_eq!(bad_dataset_name(good), None, "{good}");
        }
        let why = |n: &str| bad_dataset_name(n).unwrap();
        assert_eq!(why("tank/"), "trailing slash in name");
        assert_eq!(why("/tank"), "leading slash in name");
        assert_eq!(why("a//b"), "empty component or misplaced '@' or '#' delimiter in name");
        assert_eq!(why("a@"), "empty component or misplaced '@' or '#' delimiter in name");
        assert_eq!(why("a@b@c"), "multiple '@' and/or '#' delimiters in name");
        assert_eq!(why("a/$"), "invalid character '$' in name");
        assert_eq!(why("a/.."), "parent reference, '..' is found in name");
        assert_eq!(bad_pool_name("a/b").unwrap(), "invalid character '/' in pool name");
        assert_eq!(bad_pool_name("1a").unwrap(), "name must begin with a letter");
        assert_eq!(bad_pool_name("tank"), None);
    }
}
