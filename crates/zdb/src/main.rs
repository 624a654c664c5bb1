//! Examines pools without the daemon: labels, configuration, datasets, objects, space, and a full verifying walk.
//!
//! The program links the engine read-only. What it prints follows OpenZFS's `zdb` where other programs parse it.
//! Exit codes: 0 done, 1 something could not be read, 2 wrong arguments or leaked space, 3 blocks that do not verify.

mod blocks;
mod bp;
mod l2arc;
mod label;
mod nvprint;
mod open;
mod opts;
mod out;
mod text;
mod uber;

use opts::{Opts, Refusal};
use out::Out;
use std::process::ExitCode;
use std::sync::Arc;
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
    let Some(target) = opts.args.first() else {
        if !opts.has('e') && opts.has('C') {
            return cachefile(o, opts);
        }
        return usage();
    };
    if opts.has('l') {
        return label::run(o, opts, target);
    }
    let pool = match open::pool(opts, target) {
        Ok(p) => p,
        Err(e) => {
            eprintln!("zdb: can't open '{target}': {}", e.0);
            return 1;
        }
    };
    dump_pool(o, opts, &pool)
}

fn dump_pool(o: &mut Out, opts: &Opts, pool: &Arc<Pool>) -> i32 {
    if opts.has('u') {
        uber::dump(o, pool.uberblock(), "\nUberblock:\n", "\n", opts.lvl('u'));
    }
    let mut code = 0;
    if opts.has('b') || opts.has('c') {
        code = blocks::run(o, opts, pool);
    }
    code
}

fn main() -> ExitCode {
    let argv = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    let code = match Opts::parse(argv) {
        Ok(opts) => {
            let mut o = Out::stdout();
            let code = run(&mut o, &opts);
            o.flush();
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
    ExitCode::from(code as u8)
}
