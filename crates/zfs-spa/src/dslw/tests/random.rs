//! Random operations on datasets, each followed by a walk over everything: the sums that datasets, directories and
//! bookmarks keep are those of the blocks that can be reached, and every dataset holds what was written.

use super::*;
use std::collections::BTreeMap;
use zfs_phys::dsl::ZBM_FLAG_HAS_FBN;

/// Blocks of the one file of each dataset.
const BLOCKS: usize = 24;

type Content = [u8; BLOCKS];

/// What can be reached from a dataset: place to birth and bytes.
type Blocks = BTreeMap<[u64; 2], (u64, u64)>;

#[derive(Default)]
struct Names {
    heads: Vec<String>,
    snaps: Vec<String>,
    marks: Vec<String>,
}

impl Mini {
    fn names_at(&self, dir: &Arc<DirState>, path: &str, out: &mut Names) {
        let head = dir.phys().head_dataset_obj;
        if head != 0 && !path.is_empty() {
            let ds = self.dsl.dataset(head).unwrap();
            out.heads.push(path.to_owned());
            for entry in Zap::open(&self.mos, ds.phys().snapnames_zapobj).unwrap().iter() {
                out.snaps.push(format!("{path}@{}", String::from_utf8_lossy(entry.unwrap().name())));
            }
            out.marks.extend(ds.marks.lock().iter().map(|m| format!("{path}#{}", m.name())));
        }
        for entry in Zap::open(&self.mos, dir.phys().child_dir_zapobj).unwrap().iter() {
            let entry = entry.unwrap();
            let name = String::from_utf8_lossy(entry.name()).into_owned();
            if !name.starts_with('$') {
                let below = if path.is_empty() { name } else { format!("{path}/{name}") };
                self.names_at(&self.dsl.dir(entry.value.first()).unwrap(), &below, out);
            }
        }
    }

    fn names(&self) -> Names {
        let mut out = Names::default();
        self.names_at(&self.dsl.find_dir("").unwrap().unwrap(), "", &mut out);
        out
    }

    fn blocks_of(&self, object: u64, bp: &BlkPtr) -> Blocks {
        let out = Mutex::new(Blocks::new());
        if !bp.is_hole() {
            let os = Objset::open(&self.zio, bp, object, None).unwrap();
            let options = Options { threads: 1, ..Options::default() };
            let visit = |v: &zfs_dmu::traverse::Visit<'_>| {
                if !v.bp.is_embedded() {
                    out.lock().insert(v.bp.dva(0).word, (v.bp.birth(), self.ops.dsize(v.bp)));
                }
                Ok(())
            };
            traverse(&os, &options, &visit, &|_, e| Err(e)).unwrap();
        }
        out.into_inner()
    }

    /// Compares every figure with what the blocks say.
    fn check_figures(&self) {
        let dsl = DslPool::open(&self.mos, self.ops.clone()).unwrap();
        let mut all: BTreeMap<u64, Blocks> = BTreeMap::new();
        let mut dirs = Vec::new();
        for item in self.mos.objects() {
            let (object, phys) = item.unwrap();
            if phys.bonustype == Ot::DSL_DATASET {
                let bp = dsl.dataset(object).unwrap().phys().bp;
                all.insert(object, self.blocks_of(object, &bp));
            } else if phys.bonustype == Ot::DSL_DIR {
                dirs.push(object);
            }
        }
        let bytes = |blocks: &Blocks, keep: &dyn Fn(&[u64; 2], u64) -> bool| -> u64 {
            blocks.iter().filter(|(at, (birth, _))| keep(at, *birth)).map(|(_, (_, n))| n).sum()
        };
        let none = Blocks::new();
        for (object, blocks) in &all {
            let ds = dsl.dataset(*object).unwrap();
            let p = ds.phys();
            assert_eq!(p.referenced_bytes, bytes(blocks, &|_, _| true), "dataset {object} references");
            let next = all.get(&p.next_snap_obj).unwrap_or(&none);
            let unique = bytes(blocks, &|at, birth| birth > p.prev_snap_txg && !next.contains_key(at));
            assert_eq!(p.unique_bytes, unique, "dataset {object} alone references");
            for mark in ds.marks.lock().iter().filter(|m| m.phys().flags & ZBM_FLAG_HAS_FBN != 0) {
                let txg = mark.phys().creation_txg;
                // The first dataset of the chain that is newer than the bookmark.
                let (mut at, mut next) = (*object, *object);
                while at != 0 && (at == *object || dsl.dataset(at).unwrap().phys().creation_txg > txg) {
                    next = at;
                    at = dsl.dataset(at).unwrap().phys().prev_snap_obj;
                }
                let left = bytes(all.get(&next).unwrap(), &|_, birth| birth <= txg);
                let said = mark.phys().referenced[0] - mark.phys().freed_before_next_snap[0];
                assert_eq!(said, left, "bookmark {} of dataset {object}", mark.name());
            }
        }
        for object in dirs {
            let dir = dsl.dir(object).unwrap();
            let p = dir.phys();
            if p.head_dataset_obj == 0 {
                continue;
            }
            let born = dir.origin_txg.load(Relaxed);
            let head = &all[&p.head_dataset_obj];
            let mut union = Blocks::new();
            for (object, blocks) in &all {
                if dsl.dataset(*object).unwrap().phys().dir_obj == dir.object {
                    union.extend(blocks.iter().filter(|(_, (birth, _))| *birth > born).map(|(k, v)| (*k, *v)));
                }
            }
            let of_head = bytes(head, &|_, birth| birth > born);
            assert_eq!(p.breakdown.head, of_head, "directory {object}: head");
            assert_eq!(p.breakdown.snap, bytes(&union, &|_, _| true) - of_head, "directory {object}: snapshots");
        }
    }

    /// What is allocated is what can be reached, once nothing waits to be freed.
    pub(super) fn check_leaks(&mut self) {
        for _ in 0..6 {
            self.sync(|_, _| {});
        }
        let mut reached = self.blocks_of(0, &self.mos.root_bp());
        for item in self.mos.objects() {
            let (object, phys) = item.unwrap();
            if phys.bonustype == Ot::DSL_DATASET {
                reached.extend(self.blocks_of(object, &self.dsl.dataset(object).unwrap().phys().bp));
            }
        }
        let reached: u64 = reached.values().map(|(_, bytes)| bytes).sum();
        assert_eq!(self.zio.space(Class::Normal).alloc, reached, "allocated and reached");
        assert_eq!(self.dsl.free_dir.lock().as_ref().unwrap().phys().used_bytes, 0, "waiting to be freed");
    }

    fn check_contents(&self, contents: &BTreeMap<u64, Content>) {
        let names = self.names();
        for name in names.heads.iter().chain(&names.snaps) {
            let ds = self.dsl.find(name).unwrap().unwrap();
            let Some(want) = contents.get(&ds.object) else { panic!("{name} is not known") };
            let os = Objset::open(&self.zio, &ds.phys().bp, ds.object, None).unwrap();
            for (block, fill) in want.iter().enumerate() {
                let mut seen = vec![0; 4096];
                os.dnode(1).unwrap().read_at(block as u64 * 4096, &mut seen).unwrap();
                let right = if *fill == 0 { seen.iter().all(|b| *b == 0) } else { seen == pattern(*fill) };
                assert!(right, "{name} block {block}");
            }
        }
    }
}

struct Run {
    mini: Mini,
    rng: SeededRng,
    contents: BTreeMap<u64, Content>,
    made: u64,
    /// What was done, told when something is wrong.
    done: BTreeMap<&'static str, u32>,
}

impl Run {
    fn pick(&mut self, from: &[String]) -> Option<String> {
        if from.is_empty() { None } else { Some(from[self.rng.below(from.len() as u64) as usize].clone()) }
    }

    fn object(&self, name: &str) -> u64 {
        self.mini.dsl.find(name).unwrap().unwrap().object
    }

    fn fresh(&mut self, kind: char) -> String {
        self.made += 1;
        format!("{kind}{}", self.made)
    }

    /// Runs a task; a refusal is fine, but nothing may have changed then.
    fn task(&mut self, what: &'static str, f: impl FnOnce(&DslPool, &Tx) -> Result<()>) -> bool {
        let result = self.mini.sync(f);
        if let Err(e) = &result {
            use zfs_zio::ErrorKind as K;
            assert!(matches!(e.kind(), K::Exists | K::Busy | K::Invalid | K::NotFound | K::CrossDevice), "{what}: {e}");
        } else {
            *self.done.entry(what).or_default() += 1;
        }
        result.is_ok()
    }

    fn write(&mut self, head: &str) {
        let object = self.object(head);
        for _ in 0..=self.rng.below(6) {
            let block = self.rng.below(BLOCKS as u64);
            let fill = 1 + self.rng.below(250) as u8;
            self.mini.write(head, block, fill);
            self.contents.get_mut(&object).unwrap()[block as usize] = fill;
        }
        if self.rng.below(4) == 0 {
            let from = self.rng.below(BLOCKS as u64);
            let end = BLOCKS.min(from as usize + 5);
            let len = (end as u64 - from) * 4096;
            self.mini.file(head).free_range(&Tx::syncing(self.mini.txg), from * 4096, len).unwrap();
            self.contents.get_mut(&object).unwrap()[from as usize..end].fill(0);
        }
        self.mini.sync(|_, _| {});
    }

    fn create(&mut self, names: &Names) {
        let name = self.fresh('f');
        let path = match self.pick(&names.heads) {
            Some(above) if self.rng.below(2) == 0 => format!("{above}/{name}"),
            _ => name,
        };
        self.task("create", |dsl, tx| {
            dsl.create(tx, &path, NewObjset { kind: ObjsetType::Zfs, flags: 0, init: &mut init }).map(drop)
        });
        self.contents.insert(self.object(&path), [0; BLOCKS]);
    }

    fn snapshot(&mut self, head: &str) {
        let snap = format!("{head}@{}", self.fresh('s'));
        let short = snap.split('@').nth(1).unwrap().to_owned();
        self.task("snapshot", |dsl, tx| dsl.snapshot(tx, &dsl.find(head)?.unwrap(), &short, 5).map(drop));
        let content = self.contents[&self.object(head)];
        self.contents.insert(self.object(&snap), content);
    }

    fn of_snapshot(&mut self, what: u64, snap: &str) {
        let short = snap.split('@').nth(1).unwrap().to_owned();
        let of = |dsl: &DslPool| Ok::<_, Error>(dsl.find(snap)?.unwrap());
        match what {
            0 => {
                let path = self.fresh('c');
                if self.task("clone", |dsl, tx| dsl.clone_of(tx, &path, snap).map(drop)) {
                    let content = self.contents[&self.object(snap)];
                    self.contents.insert(self.object(&path), content);
                }
            }
            1 => drop(self.task("destroy", |dsl, tx| dsl.destroy_snapshot(tx, &of(dsl)?, &short, false))),
            2 => drop(self.task("defer", |dsl, tx| dsl.destroy_snapshot(tx, &of(dsl)?, &short, true))),
            3 => drop(self.task("hold", |dsl, tx| dsl.hold(tx, &of(dsl)?, snap, "me", 7))),
            4 => drop(self.task("release", |dsl, tx| dsl.release(tx, &of(dsl)?, &short, "me"))),
            _ => {
                let mark = format!("{}#{}", snap.split('@').next().unwrap(), self.fresh('b'));
                self.task("bookmark", |dsl, tx| dsl.bookmark(tx, snap, &mark));
            }
        }
    }

    fn of_mark(&mut self, mark: &str) {
        let (path, short) = mark.split_once('#').unwrap();
        if self.rng.below(3) == 0 {
            let copy = format!("{path}#{}", self.fresh('b'));
            self.task("copy bookmark", |dsl, tx| dsl.bookmark(tx, mark, &copy));
        } else {
            self.task("destroy bookmark", |dsl, tx| dsl.destroy_bookmark(tx, &dsl.find(path)?.unwrap(), path, short));
        }
    }

    fn of_head(&mut self, what: u64, head: &str, names: &Names) {
        match what {
            0 => drop(self.task("promote", |dsl, tx| dsl.promote(tx, &dsl.find(head)?.unwrap(), head))),
            1 => drop(self.task("destroy head", |dsl, tx| dsl.destroy_head(tx, &dsl.find(head)?.unwrap(), head))),
            2 => {
                let prev = self.mini.dsl.find(head).unwrap().unwrap().phys().prev_snap_obj;
                if self.task("rollback", |dsl, tx| dsl.rollback(tx, &dsl.find(head)?.unwrap())) {
                    let content = self.contents[&prev];
                    self.contents.insert(self.object(head), content);
                }
            }
            _ => {
                let name = self.fresh('r');
                let to = match self.pick(&names.heads) {
                    Some(above) if self.rng.below(2) == 0 => format!("{above}/{name}"),
                    _ => name,
                };
                self.task("rename", |dsl, tx| dsl.rename(tx, &dsl.find_dir(head)?.unwrap(), head, &to));
            }
        }
    }

    fn step(&mut self) {
        let names = self.mini.names();
        let heads = names.heads.len() as u64;
        match self.rng.below(20) {
            0 if heads < 8 => self.create(&names),
            1..=6 if heads > 0 => {
                let head = self.pick(&names.heads).unwrap();
                self.write(&head);
            }
            7..=10 if heads > 0 && names.snaps.len() < 24 => {
                let head = self.pick(&names.heads).unwrap();
                self.snapshot(&head);
            }
            11..=15 => {
                if let Some(snap) = self.pick(&names.snaps) {
                    let what = self.rng.below(7);
                    self.of_snapshot(what, &snap);
                }
            }
            16 => {
                if let Some(mark) = self.pick(&names.marks) {
                    self.of_mark(&mark);
                }
            }
            _ => {
                if let Some(head) = self.pick(&names.heads) {
                    let what = self.rng.below(4);
                    self.of_head(what, &head, &names);
                }
            }
        }
    }
}

#[test]
fn every_figure_is_that_of_the_blocks_after_random_operations() {
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 1..=2 {
        let mini = Mini::new();
        // Livelists of a few blocks, which nobody gives up.
        mini.dsl.set_livelist_limits(6, 0);
        let mut run = Run { mini, rng: SeededRng::new(seed), contents: BTreeMap::new(), made: 0, done: done.clone() };
        for step in 0..150 {
            run.step();
            let check = std::panic::AssertUnwindSafe(|| run.mini.check_figures());
            if let Err(why) = std::panic::catch_unwind(check) {
                eprintln!("seed {seed} step {step}: {:?}", run.done);
                std::panic::resume_unwind(why);
            }
            if step % 25 == 0 {
                run.mini.check_contents(&run.contents);
            }
        }
        run.mini.check_contents(&run.contents);
        run.mini.check();
        run.mini.check_leaks();
        done = run.done;
    }
    for what in ["promote", "rollback", "destroy", "destroy head", "rename", "bookmark", "destroy bookmark", "defer"] {
        assert!(done.contains_key(what), "{what} was never done: {done:?}");
    }
}
