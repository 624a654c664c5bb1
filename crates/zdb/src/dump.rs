//! Everything about a pool, in OpenZFS's order.

use crate::ctx::Ctx;
use crate::datasets::{self, Range};
use crate::{blocks, iostats, leaks, livelist, metaslabs, nvprint, p, tables, text, uber, view};
use zfs_phys::history::LEGACY_EVENTS;
use zfs_phys::{NvList, NvValue};
use zfs_spa::Result;

/// Exit code when references and what they refer to differ.
const LOST: i32 = 2;

/// Dumps what the options ask for; the result is the exit code.
pub fn pool(c: &mut Ctx<'_>, ranges: &[Range]) -> i32 {
    if c.opts.has('y') {
        let shown = livelist::check(c);
        c.complain(shown);
    }
    if c.opts.has('S') {
        tables::simulate(c);
        return 0;
    }
    if c.opts.has('C') {
        let shown = config(c);
        c.complain(shown);
    }
    if c.opts.has('u') {
        let ub = *c.pool.uberblock();
        uber::dump(c.o, &ub, "\nUberblock:\n", "\n", c.opts.lvl('u'));
    }
    if c.opts.has('D') {
        let shown = tables::ddts(c);
        c.complain(shown);
    }
    if c.opts.has('T') {
        let shown = tables::brt(c);
        c.complain(shown);
    }
    if c.opts.lvl('d') > 2 || c.opts.has('m') {
        let shown = metaslabs::dump(c);
        c.complain(shown);
    }
    if c.opts.has('M') {
        let shown = metaslabs::groups(c);
        c.complain(shown);
    }
    if c.opts.lvl('d') > 2 || c.opts.has('m') {
        let shown = metaslabs::logs(c);
        c.complain(shown);
    }
    let mut code = 0;
    if (c.opts.has('d') || c.opts.has('i')) && !all_datasets(c, ranges) {
        code = LOST;
    }
    if code == 0 && (c.opts.has('b') || c.opts.has('c')) {
        code = blocks::run(c.o, c.opts, &c.pool, c.threads);
    }
    if c.opts.has('s') {
        let shown = iostats::show(c);
        c.complain(shown);
    }
    if c.opts.has('h') {
        let shown = history(c);
        c.complain(shown);
    }
    if code == 0 && !c.opts.has('k') {
        let shown = checkpoint(c);
        c.complain(shown);
    }
    code
}

fn checkpoint(c: &mut Ctx<'_>) -> Result<()> {
    if let Some(ub) = c.pool.checkpoint_uberblock()? {
        uber::dump(c.o, &ub, "\nCheckpointed uberblock found:\n", "\n", c.opts.lvl('u'));
    }
    Ok(())
}

/// Dumps all datasets; false when references and what they refer to are not the same.
fn all_datasets(c: &mut Ctx<'_>, ranges: &[Range]) -> bool {
    datasets::mos(c, ranges);
    if c.opts.lvl('d') >= 3 {
        let dir = |name: &[u8]| c.pool.directory().lookup_u64(name).ok().flatten().filter(|o| *o != 0);
        let lists = [
            ("Deferred frees", dir(b"sync_bplist")),
            ("Pool snapshot frees", dir(b"free_bpobj")),
            ("Pool obsolete blocks", dir(b"com.delphix:obsolete_bpobj")),
        ];
        for (name, object) in lists {
            if let Some(object) = object {
                let shown = datasets::bpobj(c, object, name, 0);
                c.complain(shown);
            }
        }
        let shown = bptree(c);
        c.complain(shown);
        metaslabs::dtls(c);
    }
    let pool = c.pool.clone();
    let mut uses = crate::features::Uses::default();
    let shown = pool.dsl().and_then(|dsl| {
        datasets::each(c, dsl.root_dir(), &mut |c, ds| {
            uses.count(c, ds);
            datasets::dataset(c, ds, ranges);
        })
    });
    c.complain(shown);
    if !c.opts.has('L') {
        let shown = datasets::unowned(c);
        c.complain(shown);
    }
    let counted = uses.count_deleted(c);
    c.complain(counted);
    let mut lost = false;
    if !c.opts.has('L') {
        match leaks::check(c) {
            Ok(found) => lost = found,
            Err(e) => c.complain(Err(e)),
        }
    }
    uses.verify(c, lost)
}

fn bptree(c: &mut Ctx<'_>) -> Result<()> {
    let Some(object) = c.pool.directory().lookup_u64(b"bptree_obj")?.filter(|o| *o != 0) else { return Ok(()) };
    let dn = c.pool.mos().dnode(object)?;
    let [begin, end, bytes] = zfs_phys::Reader::new(&dn.bonus()?, dn.phys().endian, "bptree").u64s()?;
    let n = end.saturating_sub(begin);
    p!(c.o, "\n    Pool dataset frees: {n} datasets, {}\n", crate::ctx::nice(c.opts, bytes));
    Ok(())
}

fn config(c: &mut Ctx<'_>) -> Result<()> {
    let Some(object) = c.pool.directory().lookup_u64(b"config")? else { return Ok(()) };
    let dn = c.pool.mos().dnode(object)?;
    let size = zfs_phys::read::u64_at(&dn.bonus()?, 0, dn.phys().endian).unwrap_or(0).min(view::max_offset(&dn));
    let list = NvList::decode(&dn.read_vec(0, size as usize)?)?;
    p!(c.o, "\nMOS Configuration:\n");
    nvprint::dump(c.o, &list, 8);
    Ok(())
}

fn history(c: &mut Ctx<'_>) -> Result<()> {
    let events = c.pool.history()?.records;
    p!(c.o, "\nHistory:\n");
    for e in &events {
        let when = e.u64("history time").map(text::stamp).unwrap_or_default();
        let txg = e.u64("history txg").unwrap_or(0);
        let str = |n: &str| e.str(n).unwrap_or_default();
        let mut printed = true;
        if let Some(cmd) = e.str("history command") {
            p!(c.o, "{when} {cmd}\n");
        } else if let Some(n) = e.u64("history internal event") {
            let name = LEGACY_EVENTS.get(n as usize).copied().unwrap_or("unknown");
            p!(c.o, " {when} [internal {name} txg:{txg}] {}\n", str("history internal str"));
        } else if let Some(name) = e.str("internal_name") {
            p!(c.o, "{when} [txg:{txg}] {name}");
            if let Some(ds) = e.str("dsname") {
                p!(c.o, " {ds} ({})", e.u64("dsid").unwrap_or(0));
            }
            p!(c.o, " {}\n", str("history internal str"));
        } else if let Some(ioctl) = e.str("ioctl") {
            p!(c.o, "{when} ioctl {ioctl}\n");
            for (key, title) in [("in_nvl", "input"), ("out_nvl", "output")] {
                if let Some(l) = e.list(key) {
                    p!(c.o, "    {title}:\n");
                    nvprint::dump(c.o, l, 8);
                }
            }
            if let Some(NvValue::Int64(n)) = e.get("errno") {
                p!(c.o, "    errno: {n}\n");
            }
        } else {
            printed = false;
        }
        if c.opts.lvl('h') > 1 {
            if !printed {
                p!(c.o, "unrecognized record:\n");
            }
            nvprint::dump(c.o, e, 2);
        }
    }
    Ok(())
}
