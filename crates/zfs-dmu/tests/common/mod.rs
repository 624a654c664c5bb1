//! Builds small pools in memory: one disk, uncompressed blocks without checksum, one object set.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_dmu::{Objset, Zio};
use zfs_env::BlockDevice;
use zfs_phys::Endian;
use zfs_phys::blkptr::{BlkPtr, Dva};
use zfs_phys::enums::DmuObjectType;
use zfs_zio::{ArcCache, VdevConfig, VdevKind, VdevTree};

pub fn put(e: Endian, b: &mut Vec<u8>, v: u64, n: usize) {
    let w = e.put_u64(v);
    b.extend(if e == Endian::Big { &w[8 - n..] } else { &w[..n] });
}

pub fn words(e: Endian, w: &[u64]) -> Vec<u8> {
    w.iter().flat_map(|w| e.put_u64(*w)).collect()
}

/// An object to be written.
#[derive(Clone)]
pub struct Spec {
    pub kind: DmuObjectType,
    pub blksz: usize,
    pub indblkshift: u8,
    pub nblkptr: u8,
    pub min_levels: u8,
    pub data: BTreeMap<u64, Vec<u8>>,
    pub bonustype: DmuObjectType,
    pub bonus: Vec<u8>,
    pub slots: u8,
    pub spill: Option<Vec<u8>>,
}

impl Spec {
    pub fn new(kind: DmuObjectType, blksz: usize) -> Self {
        Self {
            kind,
            blksz,
            indblkshift: 12,
            nblkptr: 1,
            min_levels: 1,
            data: BTreeMap::new(),
            bonustype: DmuObjectType::NONE,
            bonus: Vec::new(),
            slots: 1,
            spill: None,
        }
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        for (i, chunk) in bytes.chunks(self.blksz).enumerate() {
            let mut c = chunk.to_vec();
            c.resize(self.blksz, 0);
            self.data.insert(i as u64, c);
        }
        self
    }

    pub fn bonus(mut self, kind: DmuObjectType, bonus: Vec<u8>) -> Self {
        (self.bonustype, self.bonus) = (kind, bonus);
        self
    }
}

/// A pool being written.
pub struct Image {
    bytes: Vec<u8>,
    next: u64,
    pub endian: Endian,
    pub txg: u64,
    pub blocks: u64,
    dnodes: BTreeMap<u64, (u8, Vec<u8>)>,
}

const START: u64 = 4 << 20;

impl Image {
    pub fn new(endian: Endian) -> Self {
        Self { bytes: Vec::new(), next: 0, endian, txg: 10, blocks: 0, dnodes: BTreeMap::new() }
    }

    pub fn write(&mut self, data: &[u8], kind: DmuObjectType, level: u8, fill: u64) -> BlkPtr {
        let size = data.len().next_multiple_of(512);
        let at = self.next;
        self.next += size as u64;
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.next as usize, 0);
        self.blocks += 1;
        let sectors = (size / 512 - 1) as u64;
        let mut bp = BlkPtr::default();
        let dva = Dva::new(0, at, size as u64, false);
        (bp.word[0], bp.word[1]) = (dva.word[0], dva.word[1]);
        let little = u64::from(self.endian == Endian::Little);
        bp.word[6] = sectors
            | (sectors << 16)
            | (2 << 32)
            | (2 << 40)
            | (u64::from(kind.0) << 48)
            | (u64::from(level) << 56)
            | (little << 63);
        (bp.word[10], bp.word[11]) = (self.txg, fill);
        bp
    }

    /// Writes the tree of an object and gives its dnode.
    pub fn object_bytes(&mut self, spec: &Spec) -> Vec<u8> {
        let e = self.endian;
        let epbs = u32::from(spec.indblkshift) - 7;
        let maxblkid = spec.data.keys().max().copied().unwrap_or(0);
        let mut levels = spec.min_levels;
        while u64::from(spec.nblkptr) << (epbs * (u32::from(levels) - 1)) <= maxblkid {
            levels += 1;
        }
        let is_meta = spec.kind == DmuObjectType::DNODE;
        let mut bps: BTreeMap<u64, BlkPtr> = BTreeMap::new();
        for (blkid, data) in &spec.data {
            let fill = if is_meta { data.chunks(512).filter(|d| d[0] != 0).count() as u64 } else { 1 };
            bps.insert(*blkid, self.write(data, spec.kind, 0, fill));
        }
        for level in 1..levels {
            let mut up: BTreeMap<u64, Vec<BlkPtr>> = BTreeMap::new();
            for (blkid, bp) in bps {
                let v = up.entry(blkid >> epbs).or_insert_with(|| vec![BlkPtr::default(); 1 << epbs]);
                v[(blkid & ((1 << epbs) - 1)) as usize] = bp;
            }
            bps = BTreeMap::new();
            for (blkid, v) in up {
                let bytes: Vec<u8> = v.iter().flat_map(|bp| bp.encode(e)).collect();
                let fill = v.iter().map(BlkPtr::fill).sum();
                bps.insert(blkid, self.write(&bytes, spec.kind, level, fill));
            }
        }
        let mut d = vec![spec.kind.0, spec.indblkshift, levels, spec.nblkptr, spec.bonustype.0, 2, 2];
        d.push(if spec.spill.is_some() { 4 } else { 0 });
        put(e, &mut d, (spec.blksz / 512) as u64, 2);
        put(e, &mut d, spec.bonus.len() as u64, 2);
        d.extend([spec.slots - 1, 0, 0, 0]);
        put(e, &mut d, maxblkid, 8);
        put(e, &mut d, 0, 8);
        d.resize(64, 0);
        for i in 0..u64::from(spec.nblkptr) {
            d.extend(bps.get(&i).copied().unwrap_or_default().encode(e));
        }
        d.extend(&spec.bonus);
        d.resize(usize::from(spec.slots) * 512, 0);
        if let Some(spill) = &spec.spill {
            let bp = self.write(spill, spec.bonustype, 0, 1);
            let at = d.len() - 128;
            d[at..].copy_from_slice(&bp.encode(e));
        }
        d
    }

    /// An object whose tree is forged: `levels` deep, every pointer of a block leads to the same block below, the
    /// lowest of which is empty though the counts say otherwise.
    pub fn add_forged(&mut self, object: u64, levels: u8) {
        let (e, kind) = (self.endian, DmuObjectType::PLAIN_FILE_CONTENTS);
        let mut bp = self.write(&[0; 4096], kind, 1, 1);
        for level in 2..levels {
            let all: Vec<u8> = (0..32).flat_map(|_| bp.encode(e)).collect();
            bp = self.write(&all, kind, level, 1);
        }
        let mut d = self.object_bytes(&Spec::new(kind, 512));
        d[2] = levels;
        d[16..24].copy_from_slice(&e.put_u64(1 << 40));
        d[64..192].copy_from_slice(&bp.encode(e));
        self.dnodes.insert(object, (1, d));
    }

    pub fn add(&mut self, object: u64, spec: &Spec) {
        let bytes = self.object_bytes(spec);
        self.dnodes.insert(object, (spec.slots, bytes));
    }

    /// Writes the object set and opens it.
    pub fn finish(mut self) -> (Arc<Objset>, u64) {
        let mut meta = Spec::new(DmuObjectType::DNODE, 16384);
        meta.nblkptr = 3;
        for (object, (_, bytes)) in std::mem::take(&mut self.dnodes) {
            let block = meta.data.entry(object / 32).or_insert_with(|| vec![0; 16384]);
            let at = (object % 32) as usize * 512;
            block[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        let mut os = self.object_bytes(&meta);
        os.resize(512 + 192, 0);
        os.extend(words(self.endian, &[2, 0]));
        os.resize(4096, 0);
        let root = self.write(&os, DmuObjectType::OBJSET, 0, 1);
        let (zio, blocks) = (zio_of(self.bytes), self.blocks);
        (Objset::open(&zio, &root, 21, None).unwrap(), blocks)
    }
}

/// A disk of which only what was written takes memory.
struct Disk {
    contents: Vec<u8>,
    size: u64,
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let at = offset.saturating_sub(START) as usize;
        match self.contents.get(at..at + buf.len()).filter(|_| offset >= START) {
            Some(data) => buf.copy_from_slice(data),
            None => buf.fill(0),
        }
        Ok(())
    }

    fn path(&self) -> String {
        "memory".into()
    }
}

fn zio_of(contents: Vec<u8>) -> Arc<Zio> {
    let size = (START + contents.len() as u64 + (80 << 20)).next_multiple_of(256 << 10);
    let mut leaf = VdevConfig::empty(VdevKind::File, 0);
    (leaf.ashift, leaf.asize, leaf.guid) = (9, size - START - (512 << 10), 7);
    let mut root = VdevConfig::empty(VdevKind::Root, 0);
    root.children = vec![leaf];
    let disk: Arc<dyn BlockDevice> = Arc::new(Disk { contents, size });
    let tree = VdevTree::build(root, &mut |_| Ok(disk.clone())).unwrap();
    Zio::new("memory", tree, Arc::new(ArcCache::new(64 << 20)), None)
}
