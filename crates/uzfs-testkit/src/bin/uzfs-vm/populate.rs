//! A tree with files of every kind, decided by a seed: sizes around block boundaries, holes, links, special files,
//! owners and modes, extended attributes, access control lists, many names.

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

/// Sizes of files, bytes.
const SIZES: [usize; 16] =
    [0, 1, 111, 112, 113, 511, 512, 513, 4096, 4097, 65_535, 131_071, 131_072, 131_073, 262_144, 900_001];

/// Bytes of every compressibility.
pub fn data(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let kind = seed % 4;
    let next = |i: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match kind {
            0 => b"some words that come again and again "[i % 37],
            1 if (i / 5000).is_multiple_of(2) => 0,
            _ => (state >> 24) as u8,
        }
    };
    (0..len).map(next).collect()
}

fn errno(e: rustix::io::Errno) -> io::Error {
    e.into()
}

/// Fills a directory. `acls` says that the file system keeps POSIX access control lists.
pub fn fill(at: &Path, seed: u64, acls: bool) -> io::Result<()> {
    for dir in ["sizes", "holes", "links", "special", "modes", "attrs", "many", "names", "deep/1/2/3/4/5/6/7/8/9"] {
        fs::create_dir_all(at.join(dir))?;
    }
    for (n, size) in SIZES.into_iter().enumerate() {
        fs::write(at.join(format!("sizes/{size}")), data(seed + n as u64, size))?;
    }
    for (n, offset) in [1u64 << 20, 10 << 20, (1 << 33) + 3].into_iter().enumerate() {
        let file = File::create(at.join(format!("holes/h{n}")))?;
        file.write_all_at(b"head", 0)?;
        file.write_all_at(&data(seed + offset, 70_000), offset)?;
    }
    File::create(at.join("holes/empty"))?.set_len(777_777)?;
    fs::write(at.join("links/a"), data(seed, 5000))?;
    fs::hard_link(at.join("links/a"), at.join("links/b"))?;
    symlink("a", at.join("links/short"))?;
    symlink("long/".repeat(300), at.join("links/long"))?;
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, at.join("special/fifo"), FileType::Fifo, mode, 0).map_err(errno)?;
    mknodat(CWD, at.join("special/socket"), FileType::Socket, mode, 0).map_err(errno)?;
    mknodat(CWD, at.join("special/char"), FileType::CharacterDevice, mode, makedev(1, 3)).map_err(errno)?;
    mknodat(CWD, at.join("special/block"), FileType::BlockDevice, mode, makedev(259, 70_000)).map_err(errno)?;
    for mode in [0o0, 0o400, 0o644, 0o4755, 0o2755, 0o1777, 0o7777] {
        let path = at.join(format!("modes/m{mode:o}"));
        fs::write(&path, b"x")?;
        chown(&path, Some(1000 + mode), Some(200_000 + mode))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    attributes(at, seed, acls)?;
    for n in 0..400u64 {
        fs::write(at.join(format!("many/file-{n:04}")), data(seed + n, (n * 37 % 3000) as usize))?;
    }
    for name in ["space in name", "tab\there", "ünïcödé", "日本語", ".hidden", &"x".repeat(255)] {
        fs::write(at.join("names").join(name), name)?;
    }
    fs::write(at.join("deep/1/2/3/4/5/6/7/8/9/leaf"), "leaf\n")
}

fn attributes(at: &Path, seed: u64, acls: bool) -> io::Result<()> {
    for (n, sizes) in [vec![3], vec![10, 20, 30], vec![200; 20], vec![5000], vec![60_000]].into_iter().enumerate() {
        let path = at.join(format!("attrs/x{n}"));
        fs::write(&path, data(seed, 100))?;
        for (i, size) in sizes.into_iter().enumerate() {
            let value = data(seed + i as u64, size);
            lsetxattr(&path, format!("user.attr{i}"), &value, XattrFlags::empty()).map_err(errno)?;
        }
    }
    if !acls {
        return Ok(());
    }
    let path = at.join("attrs/acl");
    fs::write(&path, b"listed")?;
    // Version 2, then tag, permissions, id: owner rw, user 1234 rwx, group r, mask rwx, others none.
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 7, 1234), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    lsetxattr(&path, "system.posix_acl_access", &value, XattrFlags::empty()).map_err(errno)
}

/// Fills a volume's block device here and there.
pub fn fill_volume(device: &Path, seed: u64) -> io::Result<()> {
    let file = File::options().write(true).open(device)?;
    for (n, offset) in [0u64, 5 << 20, (11 << 20) + 4096].into_iter().enumerate() {
        file.write_all_at(&data(seed + n as u64, 300 << 10), offset)?;
    }
    file.sync_all()
}

/// Changes a tree that [`fill`] made: overwrites, cuts, removes, renames, adds.
pub fn change(at: &Path, seed: u64) -> io::Result<()> {
    for n in (0..400u64).step_by(3) {
        fs::remove_file(at.join(format!("many/file-{n:04}")))?;
    }
    let file = File::options().write(true).open(at.join("sizes/900001"))?;
    file.write_all_at(&data(seed + 7, 50_000), 300_000)?;
    file.sync_all()?;
    File::options().write(true).open(at.join("sizes/262144"))?.set_len(100_000)?;
    fs::rename(at.join("sizes/131072"), at.join("deep/1/moved"))?;
    fs::rename(at.join("deep/1/2"), at.join("two"))?;
    fs::remove_file(at.join("links/a"))?;
    fs::create_dir(at.join("fresh"))?;
    for n in 0..50u64 {
        fs::write(at.join(format!("fresh/{n}")), data(seed + n, (n * 999) as usize))?;
    }
    Ok(())
}
