//! `zdb -O` and `-r`: objects by path, and copies of them.

use crate::ctx::Ctx;
use crate::znode::Files;
use crate::{datasets, object, p};
use std::io::Write;
use std::sync::Arc;
use zfs_dmu::sa::{SaHandle, SaRegistry, ZplAttr};
use zfs_dmu::{Objset, Zap};
use zfs_phys::enums::DmuObjectType;
use zfs_phys::znode::MASTER_NODE_OBJ;

const CHUNK: u64 = 1 << 20;

fn dataset(c: &mut Ctx<'_>, name: &str) -> Option<Arc<Objset>> {
    let found = c.pool.dsl().and_then(|d| d.dataset(name));
    let opened = match found {
        Ok(Some(ds)) => datasets::open(c, &ds),
        Ok(None) => {
            eprintln!("failed to hold dataset '{name}': No such file or directory");
            return None;
        }
        Err(e) => Err(e),
    };
    match opened {
        Ok(os) => {
            c.files = Files::of(&os);
            Some(os)
        }
        Err(e) => {
            eprintln!("failed to hold dataset '{name}': {e}");
            None
        }
    }
}

fn lookup(os: &Arc<Objset>, ds: &str, path: &str) -> Option<u64> {
    let root = Zap::open(os, MASTER_NODE_OBJ).and_then(|z| z.lookup_u64(b"ROOT")).ok().flatten();
    let Some(mut at) = root else {
        eprintln!("can't lookup root znode: No such file or directory");
        return None;
    };
    let mut shown = format!("dataset={ds} path=");
    for part in path.split('/').filter(|p| !p.is_empty()) {
        shown.push('/');
        shown.push_str(part);
        let found = Zap::open(os, at).and_then(|z| z.lookup(part.as_bytes())).ok().flatten();
        let Some(v) = found else {
            eprintln!("failed to lookup {shown}: No such file or directory");
            return None;
        };
        at = v.first() & ((1 << 48) - 1);
    }
    Some(at)
}

/// Prints the object at a path; the result is the exit code.
pub fn show(c: &mut Ctx<'_>, ds: &str, path: &str) -> i32 {
    let Some(os) = dataset(c, ds) else { return 2 };
    let Some(object) = lookup(&os, ds, path) else { return 2 };
    let kind = os.dnode(object).map(|d| d.phys().object_type);
    if !matches!(kind, Ok(DmuObjectType::DIRECTORY_CONTENTS | DmuObjectType::PLAIN_FILE_CONTENTS)) {
        let t = kind.map_or(0, |t| t.0);
        eprintln!("object {object} has non-file/directory type {t}");
        return 22;
    }
    let level = c.opts.verbose + 3;
    let mut opts = c.opts.clone();
    opts.set('d', level);
    let mut inner = Ctx {
        o: &mut *c.o,
        opts: &opts,
        pool: c.pool.clone(),
        files: c.files.take(),
        leaked_objects: 0,
        corrupt: false,
        opened: c.opened,
        threads: c.threads,
    };
    let shown = object::dump(&mut inner, &os, object, &mut true, 0).map(drop);
    inner.complain(shown);
    if inner.corrupt { 3 } else { 0 }
}

/// Copies an object, by path or number, to a file; the result is the exit code.
pub fn copy(c: &mut Ctx<'_>, ds: &str, what: &str, destination: &str) -> i32 {
    let Some(os) = dataset(c, ds) else { return 1 };
    let object = if c.opts.has('O') { crate::opts::number(what) } else { lookup(&os, ds, what) };
    let Some(object) = object else { return 1 };
    p!(c.o, "Copying object {object} to file {destination}\n");
    let size = || {
        let registry = Arc::new(SaRegistry::load(&os)?);
        SaHandle::open(&registry, &os.dnode(object)?)?.require_u64(ZplAttr::Size)
    };
    let Ok(size) = size() else {
        p!(c.o, "Failed to get handle for SA znode\n");
        return 1;
    };
    p!(c.o, "Object {object} is {size} bytes\n");
    let copied = || -> Result<(), String> {
        let dn = os.dnode(object).map_err(|e| e.to_string())?;
        let mut file = std::fs::File::create(destination).map_err(|e| e.to_string())?;
        let mut at = 0;
        while at < size {
            let n = CHUNK.min(size - at);
            let data = dn.read_vec(at, n as usize).map_err(|e| e.to_string())?;
            file.write_all(&data).map_err(|e| e.to_string())?;
            at += n;
        }
        Ok(())
    };
    match copied() {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("zdb: copying object {object}: {e}");
            1
        }
    }
}
