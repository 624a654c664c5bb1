//! The pools of the corpus, and what must be known of each beside its files.

use crate::{archive, paths, transcript};
use std::fs;
use std::path::{Path, PathBuf};

/// What is special about a pool.
pub struct Spec {
    /// Name of the pool and of its archive.
    pub name: &'static str,
    /// Datasets that need a key, with the file beside the devices that holds it.
    pub keys: &'static [(&'static str, &'static str)],
    /// More options for `zpool import`.
    pub import: &'static [&'static str],
    /// Groups of devices with the number of them that may be missing at the same time.
    pub redundancy: &'static [(&'static [&'static str], usize)],
    /// Ships with the repository.
    pub golden: bool,
}

const PLAIN: Spec = Spec { name: "", keys: &[], import: &[], redundancy: &[], golden: false };

const CRYPT_KEYS: &[(&str, &str)] = &[
    ("crypt/gcm", "passphrase"),
    ("crypt/aes-128-ccm", "rawkey"),
    ("crypt/aes-192-ccm", "rawkey"),
    ("crypt/aes-256-ccm", "rawkey"),
    ("crypt/aes-128-gcm", "rawkey"),
    ("crypt/aes-192-gcm", "rawkey"),
    ("crypt/hex", "hexkey"),
    ("crypt/vol", "rawkey"),
];

/// Every pool: those that ship with the repository (also in the middle of an expansion or a replacement,
/// with spares in use, with a device offline) and those of the corpus.
pub const POOLS: &[Spec] = &[
    Spec { name: "tank", golden: true, redundancy: &[(&["d0", "d1"], 1)], ..PLAIN },
    Spec { name: "midexp", golden: true, redundancy: &[(&["d0", "d1", "d2", "d3"], 1)], ..PLAIN },
    Spec { name: "replacing", golden: true, redundancy: &[(&["d0", "d2"], 1), (&["d3"], 1)], ..PLAIN },
    Spec { name: "hotspare", golden: true, redundancy: &[(&["d0", "d1", "d2"], 2)], ..PLAIN },
    Spec { name: "offlined", golden: true, ..PLAIN },
    Spec { name: "drspare", golden: true, redundancy: &[(&["d0", "d1", "d3", "d4"], 1)], ..PLAIN },
    // Blocks of a removed device under two addresses: where snapshots know them, and where heads do.
    Spec { name: "remapped", golden: true, ..PLAIN },
    Spec { name: "acls", ..PLAIN },
    Spec { name: "algos", ..PLAIN },
    Spec { name: "ashift9", ..PLAIN },
    Spec { name: "basic", ..PLAIN },
    Spec { name: "checkpoint", ..PLAIN },
    Spec {
        name: "classes",
        redundancy: &[(&["d0", "d1", "d2"], 1), (&["d3", "d4"], 1), (&["d5", "d6"], 1), (&["d7"], 1), (&["d8"], 1)],
        ..PLAIN
    },
    Spec { name: "crypt", keys: CRYPT_KEYS, ..PLAIN },
    Spec { name: "dedup", ..PLAIN },
    Spec { name: "dr1", redundancy: &[(&["d0", "d1", "d2", "d3", "d4"], 1)], ..PLAIN },
    Spec { name: "dr2", redundancy: &[(&["d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8"], 2)], ..PLAIN },
    Spec { name: "expanded", redundancy: &[(&["d0", "d1", "d2", "d3"], 1)], ..PLAIN },
    Spec { name: "gang", ..PLAIN },
    Spec { name: "legacydedup", ..PLAIN },
    Spec { name: "longnames", ..PLAIN },
    Spec { name: "lostdisk", ..PLAIN },
    Spec { name: "m3", redundancy: &[(&["d0", "d1", "d2"], 2)], ..PLAIN },
    Spec { name: "quotas", ..PLAIN },
    Spec { name: "reflink", ..PLAIN },
    Spec { name: "removed", ..PLAIN },
    Spec { name: "rotten", ..PLAIN },
    Spec { name: "rottenz", ..PLAIN },
    Spec { name: "streams", keys: &[("streams/enc", "key")], ..PLAIN },
    Spec { name: "stripe3", ..PLAIN },
    Spec { name: "twomirrors", redundancy: &[(&["d0", "d1"], 1), (&["d2", "d3"], 1)], ..PLAIN },
    Spec { name: "v28", ..PLAIN },
    Spec { name: "vol", ..PLAIN },
    Spec { name: "z1x3", redundancy: &[(&["d0", "d1", "d2"], 1)], ..PLAIN },
    Spec { name: "z2x6", redundancy: &[(&["d0", "d1", "d2", "d3", "d4", "d5"], 2)], ..PLAIN },
    Spec { name: "z3x7", redundancy: &[(&["d0", "d1", "d2", "d3", "d4", "d5", "d6"], 3)], ..PLAIN },
    // Never exported, so it looks in use by another host.
    Spec { name: "zil", import: &["-f"], ..PLAIN },
];

/// A pool on disk, not to be written to.
pub struct Pool {
    /// What is special about it.
    pub spec: &'static Spec,
    /// Folder of its devices and keys.
    pub devices: PathBuf,
    /// Folder of what OpenZFS saw.
    pub expect: PathBuf,
}

/// Why a pool of the corpus cannot be tested here; tests say so and pass.
pub fn skip_reason(spec: &Spec) -> Option<String> {
    if !paths::is_root() {
        return Some("only root may mount with every owner and device visible".into());
    }
    if spec.golden {
        return None;
    }
    match paths::corpus() {
        None => Some("the corpus is not here (set UZFS_CORPUS)".into()),
        Some(dir) if !dir.join(format!("{}.tar.zst", spec.name)).is_file() => {
            Some(format!("{} is not in {}", spec.name, dir.display()))
        }
        Some(_) => None,
    }
}

/// Unpacks a pool.
pub fn open(spec: &'static Spec) -> Result<Pool, String> {
    let dir = if spec.golden { Some(paths::golden()) } else { paths::corpus() };
    let dir = dir.ok_or("the corpus is not here")?;
    let devices = archive::unpack(&dir.join(format!("{}.tar.zst", spec.name)), &paths::cache())?;
    Ok(Pool { spec, expect: devices.join("expect"), devices })
}

impl Pool {
    /// What OpenZFS's tools printed, by the name of the file.
    pub fn expected(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.expect.join(name)).ok()
    }

    /// Datasets or snapshots whose files are described, with the descriptions.
    ///
    /// Those of `zil` say what is there once the intent log is replayed, which a read-only import does
    /// not do; what OpenZFS sees then was recorded with the transcripts.
    pub fn trees(&self) -> Result<Vec<(String, String)>, String> {
        if self.spec.name == "zil" {
            let file = transcript::folder()?.join("zil.files");
            let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            return Ok(vec![("zil".into(), text)]);
        }
        self.described("files.")
    }

    /// Volumes whose content is described, with its SHA-256.
    pub fn volumes(&self) -> Result<Vec<(String, String)>, String> {
        self.described("zvol.")
    }

    fn described(&self, prefix: &str) -> Result<Vec<(String, String)>, String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.expect.display());
        let mut found = Vec::new();
        for file in fs::read_dir(&self.expect).map_err(failed)? {
            let name = file.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if let Some(dataset) = name.strip_prefix(prefix) {
                let text = fs::read_to_string(self.expect.join(&name)).map_err(failed)?;
                found.push((dataset.replace('%', "/"), text));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The devices by name.
    pub fn device_names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.devices)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| is_device(n))
            .collect();
        names.sort();
        names
    }

    /// A folder `to` with links to all devices but some.
    pub fn without(&self, missing: &[&str], to: &Path) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("{}: {e}", to.display());
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).map_err(failed)?;
        for name in self.device_names().iter().filter(|n| !missing.contains(&n.as_str())) {
            std::os::unix::fs::symlink(self.devices.join(name), to.join(name)).map_err(failed)?;
        }
        Ok(())
    }

    /// Sizes and times of the devices: a read-only import must not change them.
    pub fn fingerprint(&self) -> Vec<(String, std::time::SystemTime)> {
        let changed = |n: &String| fs::metadata(self.devices.join(n)).and_then(|m| m.modified());
        self.device_names().into_iter().filter_map(|n| changed(&n).ok().map(|t| (n, t))).collect()
    }
}

fn is_device(name: &str) -> bool {
    name.strip_prefix('d').is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
}
