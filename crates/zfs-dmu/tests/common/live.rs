//! A writable object set on a disk in memory, whose owner keeps books of every block.
#![allow(dead_code)]

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use zfs_dmu::policy::WritePolicy;
use zfs_dmu::traverse::{Options, traverse};
use zfs_dmu::{BlockKind, Objset, ObjsetOwner, Result, Tx, Zio};
use zfs_env::{MemDevice, TaskPool};
use zfs_phys::BlkPtr;
use zfs_phys::enums::ObjsetType;
use zfs_zio::alloc::{Class, MetaslabSeed, RangeTree, TopSeed};
use zfs_zio::write::{WriteConfig, WriteProps};
use zfs_zio::{ArcCache, VdevConfig, VdevKind, VdevTree};

const MS_SHIFT: u64 = 24;

/// Owner of an object set: knows all blocks that are in use, and frees those that die.
pub struct Books {
    zio: Arc<Zio>,
    policy: WritePolicy,
    /// Pointers in use, by their address or (embedded) their words.
    blocks: Mutex<BTreeMap<[u64; 2], BlkPtr>>,
    /// Embedded pointers are many of equal contents: only counted.
    embedded: Mutex<i64>,
    pub dirtied: AtomicBool,
}

impl ObjsetOwner for Books {
    fn block_born(&self, bp: &BlkPtr, tx: &Tx) -> Result<()> {
        assert!(!bp.is_hole() && bp.logical_birth() == tx.txg());
        if bp.is_embedded() {
            *self.embedded.lock() += 1;
        } else {
            assert!(self.blocks.lock().insert(bp.dva(0).word, *bp).is_none(), "born twice");
        }
        Ok(())
    }

    fn block_kill(&self, bp: &BlkPtr, tx: &Tx) -> Result<u64> {
        if bp.is_embedded() {
            *self.embedded.lock() -= 1;
        } else {
            let known = self.blocks.lock().remove(&bp.dva(0).word);
            // A block that is written in its place may get another logical size, of which nobody is told.
            assert_eq!(known.map(|k| (k.asize(), k.psize())), Some((bp.asize(), bp.psize())), "killed but not alive");
            self.zio.free(tx.txg(), bp)?;
        }
        Ok(bp.asize())
    }

    fn write_props(&self, block: &BlockKind) -> WriteProps {
        self.policy.props(block)
    }

    fn dirtied(&self, _txg: u64) {
        self.dirtied.store(true, SeqCst);
    }
}

pub struct Pool {
    pub zio: Arc<Zio>,
    pub books: Arc<Books>,
    pub objset: Arc<Objset>,
}

impl Pool {
    /// A pool of one disk with `megabytes` of space.
    pub fn new(megabytes: u64, os_type: ObjsetType, threads: usize) -> Self {
        let size = megabytes << 20;
        let disk = Arc::new(MemDevice::new(vec![0; (size + (5 << 20)) as usize]));
        let mut leaf = VdevConfig::empty(VdevKind::File, 0);
        (leaf.guid, leaf.ashift, leaf.asize, leaf.metaslab_shift) = (7, 9, size, MS_SHIFT);
        let mut root = VdevConfig::empty(VdevKind::Root, 0);
        root.children.push(leaf);
        let tree = VdevTree::build(root, &mut |_: &VdevConfig| Ok(disk.clone() as _)).unwrap();
        let tasks = (threads > 1).then(|| Arc::new(TaskPool::new("test", threads).unwrap()));
        let zio = Zio::new("test", tree, Arc::new(ArcCache::new(64 << 20)), tasks);
        let seed = |index| MetaslabSeed { index, allocated: 0, histogram: None };
        let metaslabs = (0..size >> MS_SHIFT).map(seed).collect();
        let loader = Arc::new(|_, ms: u64| {
            let mut free = RangeTree::new();
            free.add(ms << MS_SHIFT, (ms + 1) << MS_SHIFT).unwrap();
            Ok(free)
        });
        let tops = vec![TopSeed { vdev: 0, class: Class::Normal, metaslabs }];
        zio.enable_writes(tops, loader, WriteConfig::default()).unwrap();
        let meta = os_type == ObjsetType::Meta;
        let policy = if meta { WritePolicy { copies: 1, ..WritePolicy::meta() } } else { WritePolicy::default() };
        let books = Arc::new(Books {
            zio: zio.clone(),
            policy,
            blocks: Mutex::default(),
            embedded: Mutex::default(),
            dirtied: AtomicBool::default(),
        });
        let objset = Objset::create(&zio, 5, os_type, books.clone()).unwrap();
        Self { zio, books, objset }
    }

    /// Syncs a txg in as many passes as it takes.
    pub fn sync(&self, txg: u64) {
        let tx = Tx::syncing(txg);
        let mut pass = 1;
        while self.objset.is_dirty(txg) {
            self.objset.sync(&tx, pass).unwrap();
            pass += 1;
            assert!(pass < 10);
        }
        self.zio.take_sync_delta(txg).unwrap();
        self.zio.flush().unwrap();
        self.objset.txg_done(txg);
        self.zio.metaslab_sync_done(txg).unwrap();
    }

    /// The object set as a reader finds it on disk. The books agree with what can be reached, block by block.
    pub fn reopen(&self) -> Arc<Objset> {
        self.reopen_as(false)
    }

    /// The same when there is an intent log, whose blocks nobody owns.
    pub fn reopen_with_log(&self) -> Arc<Objset> {
        self.reopen_as(true)
    }

    /// The same pool, imported once more.
    pub fn again(&self) -> Self {
        let (zio, books) = (self.zio.clone(), self.books.clone());
        let objset = Objset::open_writable(&zio, &self.objset.root_bp(), 5, None, books.clone()).unwrap();
        Self { zio, books, objset }
    }

    fn reopen_as(&self, log: bool) -> Arc<Objset> {
        let os = Objset::open(&self.zio, &self.objset.root_bp(), 5, None).unwrap();
        let seen = Mutex::new(BTreeSet::new());
        let embedded = Mutex::new(0i64);
        let options = Options { threads: 1, zil: !log, ..Options::default() };
        traverse(
            &os,
            &options,
            &|v| {
                if v.bp.is_embedded() {
                    *embedded.lock() += 1;
                } else {
                    assert!(seen.lock().insert(v.bp.dva(0).word), "{} reached twice", v.bookmark);
                }
                self.zio.verify(v.bp, &v.bookmark, true)
            },
            &|_, e| Err(e),
        )
        .unwrap();
        let known: BTreeSet<[u64; 2]> = self.books.blocks.lock().keys().copied().collect();
        let seen = seen.into_inner();
        assert_eq!(known.difference(&seen).count(), 0, "blocks leaked");
        assert_eq!(seen.difference(&known).count(), 0, "blocks reachable and not owned");
        let sum: u64 = self.books.blocks.lock().values().map(BlkPtr::asize).sum();
        let figures = Class::ALL.map(|c| self.zio.space(c));
        let allocated: u64 = figures.iter().map(|f| f.alloc).sum();
        if !log {
            assert_eq!(allocated, sum, "allocated space");
        }
        assert_eq!(*self.books.embedded.lock(), embedded.into_inner(), "embedded blocks");
        os
    }

    /// Reopens and checks the space that descriptors say is used.
    pub fn check_used(&self, os: &Arc<Objset>) {
        let spent = Mutex::new(BTreeMap::<u64, u64>::new());
        let add = |v: &zfs_dmu::traverse::Visit<'_>| {
            *spent.lock().entry(v.bookmark.object).or_default() += v.bp.asize();
            Ok(())
        };
        traverse(os, &Options { threads: 1, ..Options::default() }, &add, &|_, e| Err(e)).unwrap();
        let spent = spent.into_inner();
        for object in os.objects() {
            let (object, phys) = object.unwrap();
            assert_eq!(phys.used_bytes(), spent.get(&object).copied().unwrap_or(0), "dn_used of {object}");
        }
    }
}
