//! What is in a Mach-O program and its signature: enough to say whether macOS would look at it.

use crate::macos_plist::Plist;
use sha2::{Digest, Sha256};
use std::path::Path;

/// What was found in a program.
#[derive(Debug, Default)]
pub struct Program {
    bytes: Vec<u8>,
    cpu: u32,
    kind: u32,
    minimum: Option<(u32, u32)>,
    entry: bool,
    /// Libraries it is linked to.
    pub libraries: Vec<String>,
    signature: Option<(usize, usize)>,
}

fn le32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

impl Program {
    /// Reads a 64-bit Mach-O file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(bytes).ok_or_else(|| format!("{}: no 64-bit Mach-O program", path.display()))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        if le32(&bytes, 0)? != 0xfeed_facf {
            return None;
        }
        let mut p = Self { cpu: le32(&bytes, 4)?, kind: le32(&bytes, 12)?, ..Self::default() };
        let mut at = 32;
        for _ in 0..le32(&bytes, 16)? {
            let (command, size) = (le32(&bytes, at)?, le32(&bytes, at + 4)? as usize);
            match command {
                // LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB
                0xc | 0x8000_0018 => {
                    let name = bytes.get(at + le32(&bytes, at + 8)? as usize..at + size)?;
                    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                    p.libraries.push(String::from_utf8_lossy(&name[..end]).into_owned());
                }
                // LC_CODE_SIGNATURE
                0x1d => p.signature = Some((le32(&bytes, at + 8)? as usize, le32(&bytes, at + 12)? as usize)),
                // LC_BUILD_VERSION of macOS
                0x32 if le32(&bytes, at + 8)? == 1 => {
                    let v = le32(&bytes, at + 12)?;
                    p.minimum = Some((v >> 16, v >> 8 & 0xff));
                }
                // LC_MAIN
                0x8000_0028 => p.entry = true,
                _ => {}
            }
            at += size.max(8);
        }
        p.bytes = bytes;
        Some(p)
    }
}

fn sha(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// Checks a signed bundle; gives what is wrong.
pub fn check_bundle(bundle: &Path, extension: bool) -> Result<Vec<String>, String> {
    let contents = bundle.join("Contents");
    let read = |p: &Path| std::fs::read(p).map_err(|e| format!("{}: {e}", p.display()));
    let info = read(&contents.join("Info.plist"))?;
    let plist = Plist::parse(&String::from_utf8_lossy(&info))?;
    let program = contents.join("MacOS").join(plist.text("CFBundleExecutable").unwrap_or_default());
    let p = Program::read(&program)?;
    let resources = read(&contents.join("_CodeSignature/CodeResources")).unwrap_or_default();
    let mut wrong = Vec::new();
    let mut need = |fine: bool, text: &str| {
        if !fine {
            wrong.push(format!("{}: {text}", bundle.display()));
        }
    };
    need(p.cpu == 0x0100_000c, "not arm64");
    need(p.kind == 2 && p.entry, "no program with an entry point");
    let minimum = p.minimum.map(|(a, b)| format!("{a}.{b}"));
    need(minimum.as_deref() == plist.text("LSMinimumSystemVersion"), "another minimum system than Info.plist's");
    let ours = |l: &String| l.starts_with("/System/Library/Frameworks/") || l.starts_with("/usr/lib/");
    need(p.libraries.iter().all(ours), "linked to a library that is not the system's");
    if extension {
        need(p.libraries.iter().any(|l| l.contains("FSKit.framework")), "not linked to FSKit");
    }
    let signed = signature(&p, &plist, &info, &resources, extension);
    need(signed.is_ok(), &signed.err().unwrap_or_default());
    Ok(wrong)
}

/// Checks a signed program that is not the one a bundle is named after; gives what is wrong.
pub fn check_tool(path: &Path, minimum: &str) -> Result<Vec<String>, String> {
    let p = Program::read(path)?;
    let mut wrong = Vec::new();
    let mut need = |fine: bool, text: &str| {
        if !fine {
            wrong.push(format!("{}: {text}", path.display()));
        }
    };
    need(p.cpu == 0x0100_000c && p.kind == 2 && p.entry, "no arm64 program with an entry point");
    need(p.minimum.map(|(a, b)| format!("{a}.{b}")).as_deref() == Some(minimum), "another minimum system");
    let system = |l: &String| l.starts_with("/System/Library/Frameworks/") || l.starts_with("/usr/lib/");
    need(p.libraries.iter().all(system), "linked to a library that is not the system's");
    let signed = blobs(&p).and_then(|all| {
        let directory = blob(all, 0).ok_or_else(none)?;
        pages(&p, directory).map(drop)
    });
    need(signed.is_ok(), &signed.err().unwrap_or_default());
    Ok(wrong)
}

fn none() -> String {
    "no signature that can be read".to_owned()
}

/// The blobs of a signature.
fn blobs(p: &Program) -> Result<&[u8], String> {
    let (at, len) = p.signature.ok_or("not signed")?;
    p.bytes.get(at..at + len).ok_or_else(none)
}

/// The blob of a kind: 0 is the directory of hashes.
fn blob(all: &[u8], wanted: u32) -> Option<&[u8]> {
    (0..be32(all, 8)? as usize).find_map(|i| {
        let (kind, at) = (be32(all, 12 + 8 * i)?, be32(all, 16 + 8 * i)? as usize);
        (kind == wanted).then(|| all.get(at..at + be32(all, at + 4)? as usize)).flatten()
    })
}

/// Checks the hash of every page; gives where hashes of pages begin and how long each is.
fn pages(p: &Program, directory: &[u8]) -> Result<(usize, usize), String> {
    let number = |at: usize| be32(directory, at).map(|n| n as usize).ok_or_else(none);
    let (hashes, pages, limit) = (number(16)?, number(28)?, number(32)?);
    let (size, shift) = (usize::from(*directory.get(36).ok_or_else(none)?), *directory.get(39).ok_or_else(none)?);
    let page = 1usize << shift.min(30);
    if pages == 0 || pages * page < limit {
        return Err("pages without a hash".into());
    }
    for i in 0..pages {
        let bytes = p.bytes.get(i * page..((i + 1) * page).min(limit)).ok_or_else(none)?;
        if directory.get(hashes + i * size..hashes + (i + 1) * size) != Some(&sha(bytes)[..size.min(32)]) {
            return Err(format!("page {i} has another hash"));
        }
    }
    Ok((hashes, size))
}

/// Checks an ad hoc signature: hashes of all pages, identifier, and the slots of what is signed beside the program.
fn signature(p: &Program, plist: &Plist, info: &[u8], resources: &[u8], extension: bool) -> Result<(), String> {
    let all = blobs(p)?;
    let blob = |wanted: u32| blob(all, wanted);
    let directory = blob(0).ok_or_else(none)?;
    let number = |at: usize| be32(directory, at).map(|n| n as usize).ok_or_else(none);
    let (flags, name, special) = (number(12)?, number(20)?, number(24)?);
    if flags & 2 == 0 {
        return Err("not signed ad hoc".into());
    }
    let end = directory.get(name..).and_then(|n| n.iter().position(|b| *b == 0)).ok_or_else(none)?;
    if Some(&*String::from_utf8_lossy(&directory[name..name + end])) != plist.text("CFBundleIdentifier") {
        return Err("signed as somebody else".into());
    }
    let (hashes, size) = pages(p, directory)?;
    let slot = |k: usize| (k <= special).then(|| directory.get(hashes - k * size..hashes - (k - 1) * size)).flatten();
    let mut slots = vec![(1, Some(info)), (3, Some(resources)), (2, blob(2))];
    if extension {
        slots.extend([(5, blob(5)), (7, blob(7))]);
        let rights = blob(5).and_then(|b| b.get(8..)).map(String::from_utf8_lossy).ok_or("no entitlements")?;
        let rights = Plist::parse(&rights)?;
        if rights.get("com.apple.developer.fskit.fsmodule") != Some(&Plist::Bool(true)) {
            return Err("signed without the entitlement of a file-system module".into());
        }
    }
    for (k, bytes) in slots {
        if bytes.is_none() || slot(k) != bytes.map(sha).as_deref() {
            return Err(format!("slot {k} does not fit"));
        }
    }
    Ok(())
}
