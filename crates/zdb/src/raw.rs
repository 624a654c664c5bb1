//! `zdb -R` and `-E`: blocks by address or from an embedded pointer.

use crate::ctx::Ctx;
use crate::{bp, p};
use std::io::Write;
use zfs_codec::compress::decompress;
use zfs_phys::enums::{ChecksumKind, CompressKind};
use zfs_phys::label::VDEV_LABEL_START_SIZE;
use zfs_phys::{BlkPtr, Dva, Endian};
use zfs_zio::{Vdev, Zbookmark};

const MAX: u64 = 16 << 20;

#[derive(Default)]
struct Flags {
    pointer: Option<usize>,
    checksums: bool,
    decompress: bool,
    swap: bool,
    gang: bool,
    indirect: bool,
    raw: bool,
    verbose: bool,
}

struct Spec<'a> {
    vdev: &'a str,
    offset: u64,
    lsize: u64,
    psize: u64,
    flags: Flags,
}

fn hex(s: &str) -> u64 {
    let s = s.strip_prefix("0x").or_else(|| s.strip_prefix("0X")).unwrap_or(s);
    let end = s.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(s.len());
    u64::from_str_radix(s.get(..end).unwrap_or_default(), 16).unwrap_or(0)
}

fn flags(c: &mut Ctx<'_>, s: &str) -> Flags {
    let mut f = Flags::default();
    let mut rest = s.chars().peekable();
    while let Some(ch) = rest.next() {
        match ch {
            'b' => {
                let mut at = String::new();
                while let Some(d) = rest.next_if(|d| d.is_ascii_hexdigit() && !"bcdegirv".contains(*d)) {
                    at.push(d);
                }
                f.pointer = Some(hex(&at) as usize);
            }
            'c' => f.checksums = true,
            'd' => f.decompress = true,
            'e' => f.swap = true,
            'g' => f.gang = true,
            'i' => f.indirect = true,
            'r' => f.raw = true,
            'v' => f.verbose = true,
            other => p!(c.o, "***Ignoring flag: {other}\n"),
        }
    }
    f
}

fn parse<'a>(c: &mut Ctx<'_>, thing: &'a str) -> Result<Spec<'a>, String> {
    let mut parts = thing.split(':').filter(|p| !p.is_empty());
    let vdev = parts.next().unwrap_or_default();
    let offset = hex(parts.next().unwrap_or_default());
    let sizes = parts.next().unwrap_or_default();
    let (l, ps) = sizes.split_once('/').unwrap_or((sizes, sizes));
    let (lsize, psize) = (hex(l), hex(ps));
    let refuse = |why: &str| format!("Invalid block specifier: {thing}  - {why}");
    if lsize < psize || psize == 0 || lsize > MAX {
        return Err(refuse("invalid size(s)"));
    }
    if psize % 512 != 0 || lsize % 512 != 0 {
        return Err(refuse("size must be a multiple of sector size"));
    }
    if !offset.is_multiple_of(512) {
        return Err(refuse("offset must be a multiple of sector size"));
    }
    let flags = flags(c, parts.next().unwrap_or_default());
    if let Some(at) = flags.pointer.filter(|at| at % 128 != 0) {
        return Err(format!("Block pointer offset 0x{at:x} must be divisible by 0x80"));
    }
    Ok(Spec { vdev, offset, lsize, psize, flags })
}

/// A vdev by its place (`0.1`) or its device's name; whether it is a top-level one.
fn find<'v>(root: &'v Vdev, name: &str) -> Option<(&'v Vdev, bool)> {
    let mut at = root;
    let mut depth = 0;
    for part in name.split('.') {
        match part.parse::<u64>().ok().and_then(|id| at.children.iter().find(|v| v.config.id == id)) {
            Some(v) => at = v,
            None => {
                let tail = |v: &&Vdev| {
                    v.config.path.as_deref().is_some_and(|p| p == name || p.rsplit('/').next() == Some(name))
                };
                let leaf = root.leaves().into_iter().find(tail)?;
                let top = root.children.iter().any(|t| t.guid() == leaf.guid());
                return Some((leaf, top));
            }
        }
        depth += 1;
    }
    Some((at, depth == 1))
}

fn block_pointer(vdev: u64, s: &Spec<'_>) -> BlkPtr {
    let mut b = BlkPtr::default();
    let d = Dva::new(vdev as u32, s.offset, s.psize, false);
    b.word[0] = d.word[0];
    b.word[1] = d.word[1];
    let sectors = |n: u64| (n >> 9) - 1;
    b.word[6] = (1 << 63) | (25 << 48) | (2 << 40) | (2 << 32) | (sectors(s.psize) << 16) | sectors(s.lsize);
    b.word[10] = 4;
    b
}

fn read(c: &Ctx<'_>, v: &Vdev, is_top: bool, s: &Spec<'_>) -> Result<Vec<u8>, String> {
    if is_top {
        let b = block_pointer(v.config.id, s);
        return match c.pool.zio().read_raw(&b, &Zbookmark::default()) {
            Ok(buf) => Ok(buf.to_vec()),
            Err(e) => Err(e.to_string()),
        };
    }
    let mut buf = vec![0u8; s.psize as usize];
    let device = v.device().ok_or_else(|| "no such device".to_owned())?;
    device.read_at(VDEV_LABEL_START_SIZE + s.offset, &mut buf).map_err(|e| e.to_string())?;
    Ok(buf)
}

fn expand(raw: &[u8], s: &Spec<'_>) -> Option<(Vec<u8>, CompressKind)> {
    let kinds = [CompressKind::Lz4, CompressKind::Lzjb, CompressKind::Gzip1, CompressKind::Zstd];
    let (from, to) = if s.lsize == s.psize { (s.lsize + 512, MAX) } else { (s.lsize, s.lsize) };
    let attempt = |kind: CompressKind, size: u64| {
        if s.flags.verbose {
            eprintln!("Trying {:05x} -> {size:05x} ({})", s.psize, kind.name());
        }
        let (mut a, mut b) = (vec![0u8; size as usize], vec![0xffu8; size as usize]);
        // Two different backgrounds tell whether every byte was written.
        let fits = decompress(kind, raw, &mut a).is_ok() && decompress(kind, raw, &mut b).is_ok() && a == b;
        fits.then_some((a, kind))
    };
    let sizes = || (from..=to).step_by(512);
    let first = sizes().find_map(|size| kinds.iter().find_map(|k| attempt(*k, size)));
    let zle = std::env::var_os("ZDB_NO_ZLE").is_none();
    first.or_else(|| if zle { sizes().find_map(|size| attempt(CompressKind::Zle, size)) } else { None })
}

fn hexdump(c: &mut Ctx<'_>, label: &str, buf: &[u8], swap: bool) {
    let head = if swap { " 7 6 5 4 3 2 1 0   f e d c b a 9 8" } else { " 0 1 2 3 4 5 6 7   8 9 a b c d e f" };
    p!(c.o, "\n{label}\n{:6}   {head}  0123456789abcdef\n", "");
    let order = if swap { Endian::Little } else { Endian::Big };
    for (i, line) in buf.chunks_exact(16).enumerate() {
        let w = |at| zfs_phys::read::u64_at(line, at, order).unwrap_or(0);
        p!(c.o, "{:06x}:  {:016x}  {:016x}  ", i * 16, w(0), w(8));
        line.iter().for_each(|b| p!(c.o, "{}", if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' }));
        p!(c.o, "\n");
    }
}

fn pointers(c: &mut Ctx<'_>, buf: &[u8], count: usize, swap: bool) {
    let order = if swap { Endian::NATIVE.swapped() } else { Endian::NATIVE };
    for raw in buf.chunks_exact(128).take(count) {
        if let Ok(b) = BlkPtr::decode(raw, order) {
            p!(c.o, "{}\n", bp::long(&b));
        }
    }
}

fn words_swapped(buf: &[u8]) -> Vec<u8> {
    buf.chunks_exact(8).flat_map(|w| w.iter().rev().copied()).collect()
}

/// Reads and shows one block; false when that failed.
pub fn block(c: &mut Ctx<'_>, thing: &str) -> bool {
    let s = match parse(c, thing) {
        Ok(s) => s,
        Err(why) => {
            p!(c.o, "{why}\n");
            return false;
        }
    };
    let pool = c.pool.clone();
    let Some((v, is_top)) = find(pool.zio().vdevs().root(), s.vdev) else {
        p!(c.o, "***Invalid vdev: {}\n", s.vdev);
        return false;
    };
    match &v.config.path {
        Some(path) => eprintln!("Found vdev: {path}"),
        None => eprintln!("Found vdev type: {}", v.config.kind.type_name()),
    }
    let raw = match read(c, v, is_top, &s) {
        Ok(raw) => raw,
        Err(why) => {
            p!(c.o, "Read of {thing} failed, error: {why}\n");
            return false;
        }
    };
    let mut buf = raw.clone();
    buf.resize(s.lsize as usize, 0);
    if s.flags.decompress {
        match expand(&raw, &s) {
            Some((plain, kind)) => {
                if kind == CompressKind::Zle {
                    p!(c.o, "\nZLE decompression was selected. If you suspect the results are wrong,\n");
                    p!(c.o, "try avoiding ZLE by setting and exporting ZDB_NO_ZLE=\"true\"\n");
                }
                buf = plain;
            }
            None => {
                p!(c.o, "Decompress of {thing} failed\n");
                return false;
            }
        }
    }
    let f = &s.flags;
    if let Some(at) = f.pointer {
        pointers(c, buf.get(at..).unwrap_or_default(), 1, f.swap);
    } else if f.raw {
        let out = if f.swap { words_swapped(&buf) } else { buf };
        c.o.bytes(&out);
        return true;
    } else if f.indirect {
        pointers(c, &buf, s.lsize as usize / 128, f.swap);
    } else if f.gang {
        pointers(c, &buf, (buf.len().saturating_sub(40)) / 128, f.swap);
    } else {
        hexdump(c, thing, &buf, f.swap);
    }
    if f.checksums && !f.gang {
        checksums(c, &raw);
    }
    true
}

fn checksums(c: &mut Ctx<'_>, raw: &[u8]) {
    p!(c.o, "\n");
    let salt = c.pool.directory().lookup(b"org.illumos:checksum_salt").ok().flatten().map(|v| v.bytes());
    let salt: Option<[u8; 32]> = salt.and_then(|b| b.try_into().ok());
    for kind in (0..=u8::MAX).map_while(ChecksumKind::from_raw) {
        let plain = !matches!(kind, ChecksumKind::Off | ChecksumKind::Noparity);
        if !plain || zfs_codec::checksum::is_embedded(kind) {
            continue;
        }
        if let Some(w) = zfs_codec::checksum::compute(kind, raw, Endian::NATIVE, salt.as_ref()) {
            p!(c.o, "{:>12}\tcksum={:016x}:{:016x}:{:016x}:{:016x}\n", kind.name(), w[0], w[1], w[2], w[3]);
        }
    }
}

/// Decodes an embedded pointer given as sixteen words, and writes its payload; the result is the exit code.
pub fn embedded(thing: &str) -> i32 {
    let words: Vec<Option<u64>> = thing.split(':').map(|w| u64::from_str_radix(w.trim(), 16).ok()).collect();
    let parsed: Option<Vec<u64>> = words.into_iter().collect();
    let Some(word) = parsed.and_then(|w| <[u64; 16]>::try_from(w).ok()) else {
        eprintln!("invalid input format");
        return 1;
    };
    let b = BlkPtr { word };
    let mut out = vec![0u8; b.lsize().min(MAX) as usize];
    let kind = b.compress().filter(|_| b.is_embedded());
    match kind.map(|k| decompress(k, &b.embedded_payload(), &mut out)) {
        Some(Ok(())) => i32::from(std::io::stdout().write_all(&out).is_err()),
        _ => {
            eprintln!("decode failed: {}", libc::EIO);
            1
        }
    }
}
