//! Examines pools without the daemon: labels, configuration, datasets, objects, space, and a full verifying walk.
//!
//! The engine is linked read-only. What is printed follows OpenZFS's `zdb` where other programs parse it. Everything
//! that one run needs is in [`ctx::Ctx`]; each module prints one part of a pool. A part that cannot be read is named
//! on standard error and the next part follows, because damaged pools are what this program is for.
//!
//! Exit codes: 0 done, 1 something could not be opened, 2 wrong arguments or references lost, 3 damage.

mod blocks;
mod bp;
pub mod ctx;
mod datasets;
mod dbgmsg;
pub mod document;
mod dump;
mod features;
mod il;
mod iostats;
mod l2arc;
mod label;
mod leaks;
mod livelist;
mod metaslabs;
mod nvprint;
mod object;
mod open;
pub mod opts;
pub mod out;
mod path;
mod raw;
mod recording;
mod tables;
mod text;
mod tunable;
mod uber;
mod view;
mod znode;

use ctx::Ctx;
use datasets::Range;
use opts::{Opts, Refusal};
use out::Out;
use std::sync::Arc;
use std::time::Instant;
use tunable::Tunables;
use zfs_spa::Pool;

fn usage() -> i32 {
    eprint!("{}", opts::usage());
    2
}

fn cachefile(o: &mut Out, opts: &Opts) -> i32 {
    let path = opts.cachefile.as_deref().unwrap_or("/etc/zfs/zpool.cache");
    match std::fs::read(path) {
        Err(e) => {
            let text = e.to_string();
            p!(o, "cannot open '{path}': {}\n", text.split(" (os error").next().unwrap_or_default());
            1
        }
        Ok(bytes) => match zfs_phys::NvList::decode(&bytes) {
            Err(_) => {
                eprintln!("failed to unpack nvlist");
                1
            }
            Ok(list) => {
                nvprint::dump(o, &list, 0);
                0
            }
        },
    }
}

fn run(o: &mut Out, opts: &Opts) -> i32 {
    let mut tunables = Tunables::default();
    for text in &opts.tunables {
        if let Err(why) = tunables.option(o, text) {
            o.flush();
            eprintln!("{why}");
            return 1;
        }
    }
    if opts.has('E') {
        return match opts.args.as_slice() {
            [one] => raw::embedded(one),
            _ => usage(),
        };
    }
    let Some(target) = opts.args.first() else {
        if !opts.has('e') && opts.has('C') {
            return cachefile(o, opts);
        }
        return usage();
    };
    if opts.has('l') {
        return label::run(o, opts, target);
    }
    if (opts.has('R') && opts.args.len() < 2) || (opts.has('O') && !opts.has('r') && opts.args.len() != 2) {
        return usage();
    }
    if opts.has('r') && opts.args.len() != 3 {
        return usage();
    }
    let name = target.split(['/', '@', '#']).next().unwrap_or(target);
    if opts.has('e')
        && opts.lvl('C') > 1
        && let Ok(found) = open::candidate(opts, name)
    {
        p!(o, "\nConfiguration for import:\n");
        nvprint::dump(o, &open::import_config(opts, &found), 8);
    }
    let opened = Instant::now();
    let pool = match open::pool(opts, &tunables, name) {
        Ok(p) => p,
        Err(e) => {
            o.flush();
            eprintln!("zdb: can't open '{target}': {}", e.0);
            return 1;
        }
    };
    let mut c = Ctx {
        o,
        opts,
        pool,
        files: None,
        leaked_objects: 0,
        corrupt: false,
        opened,
        threads: tunables.threads as usize,
    };
    let code = dispatch(&mut c, target);
    if code == 0 && c.corrupt { 3 } else { code }
}

fn dispatch(c: &mut Ctx<'_>, target: &str) -> i32 {
    let args = &c.opts.args;
    if c.opts.has('r') {
        return path::copy(c, target, &args[1], &args[2]);
    }
    if c.opts.has('O') {
        return path::show(c, target, &args[1]);
    }
    if c.opts.has('R') {
        let all = args.iter().skip(1).map(|a| raw::block(c, a)).filter(|ok| !ok).count();
        return i32::from(all > 0);
    }
    let mut ranges = Vec::new();
    if c.opts.has('d') {
        for arg in args.iter().skip(1) {
            match Range::parse(arg) {
                Ok(r) => ranges.push(r),
                Err(why) => {
                    eprintln!("zdb: Bad object or range: '{arg}': {why}\n");
                    return 1;
                }
            }
        }
    }
    let whole = !target.contains(['/', '@', '#']);
    if whole && !ranges.is_empty() && !c.opts.has('m') {
        datasets::mos(c, &ranges);
        return 0;
    }
    if whole {
        return dump::pool(c, &ranges);
    }
    one_dataset(c, target, &ranges)
}

/// A dataset by name, by object number behind the pool's name, or a bookmark.
fn one_dataset(c: &mut Ctx<'_>, target: &str, ranges: &[Range]) -> i32 {
    let fail = |why: &str| {
        eprintln!("zdb: can't open '{target}': {why}");
        1
    };
    let Ok(dsl) = c.pool.dsl() else { return fail("Input/output error") };
    if let Some((name, short)) = target.split_once('#') {
        let found = dsl.dataset(name).ok().flatten().and_then(|ds| ds.bookmarks().ok());
        let mark = found.and_then(|m| m.into_iter().find(|m| m.name.rsplit('#').next() == Some(short)));
        return match mark.map(|m| datasets::bookmark(c, &m, true)) {
            Some(Ok(())) => 0,
            _ => fail("No such file or directory"),
        };
    }
    let tail = target.split_once('/').map_or("", |(_, t)| t.trim_end_matches('/'));
    let number = opts::number(tail);
    if tail == "0" {
        return dump::pool(c, ranges);
    }
    let named = if c.opts.has('N') { None } else { dsl.dataset(target.trim_end_matches('/')).ok().flatten() };
    let found = named.or_else(|| number.and_then(|n| dsl.by_object(n).ok().flatten()));
    match found {
        Some(ds) => {
            datasets::dataset(c, &ds, ranges);
            0
        }
        None => fail("No such file or directory"),
    }
}

/// Runs a command line (without the program's name), printing to `o`; the result is the exit code.
pub fn main_with(o: &mut Out, argv: impl IntoIterator<Item = String>) -> i32 {
    let code = match Opts::parse(argv) {
        Ok(opts) => {
            if opts.has('G') {
                dbgmsg::begin();
            }
            let code = run(o, &opts);
            if opts.has('G') {
                o.flush();
                eprint!("{}", dbgmsg::text());
            }
            code
        }
        Err(Refusal::Usage(line)) => {
            if !line.is_empty() {
                eprintln!("{line}");
            }
            usage()
        }
        Err(Refusal::Absent(line)) => {
            eprintln!("{line}");
            2
        }
    };
    o.flush();
    code
}

/// Dumps an opened pool as a command line would; the result is the exit code. The pool's name is left out of `opts`.
pub fn dump_opened(o: &mut Out, opts: &Opts, pool: Arc<Pool>) -> i32 {
    let mut c =
        Ctx { o, opts, pool, files: None, leaked_objects: 0, corrupt: false, opened: Instant::now(), threads: 0 };
    let code = dump::pool(&mut c, &[]);
    if code == 0 && c.corrupt { 3 } else { code }
}
