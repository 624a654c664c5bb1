//! Operations, and how they are invented: always ones that must succeed on the state at hand.

use crate::model::{Node, State, Tree};
use std::collections::BTreeMap;
use std::sync::Arc;
use zfs_env::{Rng, SeededRng};

/// One thing a user does. Paths are below the root of file system `fs`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Create {
        fs: String,
        path: String,
    },
    Mkdir {
        fs: String,
        path: String,
    },
    Symlink {
        fs: String,
        path: String,
        target: String,
    },
    Link {
        fs: String,
        from: String,
        to: String,
    },
    Write {
        fs: String,
        path: String,
        offset: u64,
        len: usize,
        seed: u64,
    },
    Truncate {
        fs: String,
        path: String,
        size: u64,
    },
    Punch {
        fs: String,
        path: String,
        offset: u64,
        len: u64,
    },
    Chmod {
        fs: String,
        path: String,
        mode: u32,
    },
    Xattr {
        fs: String,
        path: String,
        value: Option<Vec<u8>>,
    },
    Rename {
        fs: String,
        from: String,
        to: String,
    },
    Remove {
        fs: String,
        path: String,
    },
    Rmdir {
        fs: String,
        path: String,
    },
    Fsync {
        fs: String,
        path: String,
    },
    /// Closes the open txg and does not wait for it.
    Kick,
    /// Waits until everything is on disk.
    Sync,
    NewFs {
        name: String,
    },
    Snapshot {
        fs: String,
        snap: String,
    },
    DestroySnap {
        fs: String,
        snap: String,
    },
    Clone {
        name: String,
        origin: String,
    },
    Rollback {
        fs: String,
    },
    DestroyFs {
        name: String,
    },
}

/// What kinds of operations there are.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Of a hundred operations, so many are about datasets.
    pub datasets: u64,
    /// And so many are fsyncs.
    pub fsyncs: u64,
    /// And so many end txgs.
    pub syncs: u64,
    /// Longest write.
    pub longest: u64,
    /// Most names in a file system.
    pub names: usize,
}

/// Bytes that compress now and then.
pub fn contents(seed: u64, len: usize) -> Vec<u8> {
    let rng = SeededRng::new(seed);
    let mut out = vec![0u8; len];
    for piece in out.chunks_mut(512) {
        match rng.below(4) {
            0 => {}
            1 => piece.fill(rng.u64() as u8),
            _ => rng.fill(piece),
        }
    }
    out
}

fn pick<T: Clone>(rng: &SeededRng, from: &[T]) -> Option<T> {
    from.get(rng.below(from.len() as u64) as usize).cloned()
}

/// The names of one kind.
fn names(tree: &Tree, want: impl Fn(&Node) -> bool) -> Vec<String> {
    tree.names.iter().filter(|(_, n)| want(n)).map(|(k, _)| k.clone()).collect()
}

/// A name that is free, in a random directory.
fn free_name(rng: &SeededRng, tree: &Tree) -> String {
    let mut dirs = names(tree, |n| *n == Node::Dir);
    dirs.push(String::new());
    loop {
        let dir = pick(rng, &dirs).unwrap_or_default();
        // Some names are long, so that directories outgrow their first form.
        let long = "x".repeat(if rng.below(8) == 0 { 60 } else { 0 });
        let name = format!("n{}{long}", rng.below(1000));
        let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        if !tree.names.contains_key(&path) && path.matches('/').count() < 4 {
            return path;
        }
    }
}

/// Invents the next operation.
pub fn invent(rng: &SeededRng, state: &State, mix: &Mix) -> Op {
    let dice = rng.below(100);
    if dice < mix.datasets
        && let Some(op) = about_datasets(rng, state)
    {
        return op;
    }
    if dice >= mix.datasets && dice < mix.datasets + mix.syncs {
        return if rng.below(2) == 0 { Op::Sync } else { Op::Kick };
    }
    let heads: Vec<_> = state.heads.keys().cloned().collect();
    let fs = pick(rng, &heads).unwrap_or_default();
    let tree = &state.heads[&fs];
    let files = names(tree, |n| matches!(n, Node::File(_)));
    if dice >= 100 - mix.fsyncs
        && let Some(path) = pick(rng, &files)
    {
        return Op::Fsync { fs, path };
    }
    about_files(rng, fs, tree, &files, mix)
}

fn about_files(rng: &SeededRng, fs: String, tree: &Arc<Tree>, files: &[String], mix: &Mix) -> Op {
    let full = tree.names.len() >= mix.names;
    let Some(path) = pick(rng, files).filter(|_| full || rng.below(4) != 0) else {
        let path = free_name(rng, tree);
        return match rng.below(6) {
            0 => Op::Mkdir { fs, path },
            1 => Op::Symlink { fs, path, target: "t".repeat(1 + rng.below(200) as usize) },
            _ => Op::Create { fs, path },
        };
    };
    let size = tree.file(&path).and_then(|id| tree.bodies.get(&id)).map_or(0, |b| b.data.len() as u64);
    match rng.below(if full { 24 } else { 20 }) {
        0 => Op::Truncate { fs, path, size: rng.below(size * 2 + 2) },
        1 => Op::Chmod { fs, path, mode: rng.below(0o1000) as u32 },
        2 => {
            let value = (rng.below(4) != 0).then(|| contents(rng.u64(), 1 + rng.below(900) as usize));
            Op::Xattr { fs, path, value }
        }
        3 => Op::Link { fs, from: path, to: free_name(rng, tree) },
        4 if size > 0 => Op::Punch { fs, path, offset: rng.below(size), len: 1 + rng.below(size) },
        5..8 => rename(rng, fs, tree, path),
        8 | 20..24 => match names(tree, |n| *n == Node::Dir).into_iter().find(|d| tree.is_empty_dir(d)) {
            Some(path) if rng.below(2) == 0 => Op::Rmdir { fs, path },
            _ => Op::Remove { fs, path },
        },
        _ => {
            let offset = if rng.below(3) == 0 { 0 } else { rng.below(size + 10_000) };
            Op::Write { fs, path, offset, len: 1 + rng.below(mix.longest) as usize, seed: rng.u64() }
        }
    }
}

fn rename(rng: &SeededRng, fs: String, tree: &Tree, file: String) -> Op {
    let dirs = names(tree, |n| *n == Node::Dir);
    if rng.below(4) == 0
        && let Some(from) = pick(rng, &dirs)
    {
        let to = free_name(rng, tree);
        if !to.starts_with(&format!("{from}/")) {
            return Op::Rename { fs, from, to };
        }
    }
    // Over another file, now and then.
    let others = names(tree, |n| !matches!(n, Node::Dir) && *n != tree.names[&file]);
    match pick(rng, &others) {
        Some(to) if rng.below(3) == 0 => Op::Rename { fs, from: file, to },
        _ => Op::Rename { fs, from: file, to: free_name(rng, tree) },
    }
}

fn about_datasets(rng: &SeededRng, state: &State) -> Option<Op> {
    let heads: Vec<_> = state.heads.keys().cloned().collect();
    let snaps: Vec<_> = state.snaps.keys().cloned().collect();
    let fs = pick(rng, &heads)?;
    let is_origin = |snap: &str| state.origins.values().any(|o| o == snap);
    match rng.below(8) {
        0..3 if snaps.len() < 6 => Some(Op::Snapshot { fs, snap: format!("s{}", rng.below(100_000)) }),
        3 if heads.len() < 5 => Some(Op::NewFs { name: format!("fs{}", rng.below(100_000)) }),
        4 if heads.len() < 5 => {
            Some(Op::Clone { name: format!("c{}", rng.below(100_000)), origin: pick(rng, &snaps)? })
        }
        5 => {
            let at = format!("{fs}@");
            snaps.iter().any(|s| s.starts_with(&at)).then_some(Op::Rollback { fs })
        }
        6 => {
            let full = pick(rng, &snaps).filter(|s| !is_origin(s))?;
            let (fs, snap) = full.split_once('@')?;
            Some(Op::DestroySnap { fs: fs.into(), snap: snap.into() })
        }
        7 => {
            let at = format!("{fs}@");
            (!fs.is_empty() && !snaps.iter().any(|s| s.starts_with(&at))).then_some(Op::DestroyFs { name: fs })
        }
        _ => None,
    }
}

/// What an operation makes of a state. `number` is larger than that of any operation before; a new file gets it.
pub fn apply(state: &State, op: &Op, number: u64) -> State {
    let mut next = state.clone();
    match op {
        Op::Kick | Op::Sync | Op::Fsync { .. } => {}
        Op::NewFs { name } => drop(next.heads.insert(name.clone(), Arc::default())),
        Op::Snapshot { fs, snap } => {
            let tree = next.heads[fs].clone();
            next.snaps.insert(format!("{fs}@{snap}"), (number, tree));
        }
        Op::DestroySnap { fs, snap } => drop(next.snaps.remove(&format!("{fs}@{snap}"))),
        Op::Clone { name, origin } => {
            next.heads.insert(name.clone(), next.snaps[origin].1.clone());
            next.origins.insert(name.clone(), origin.clone());
        }
        Op::Rollback { fs } => {
            let at = format!("{fs}@");
            let of = next.snaps.iter().filter(|(k, _)| k.starts_with(&at)).map(|(_, v)| v);
            if let Some((_, tree)) = of.max_by_key(|(made, _)| *made) {
                next.heads.insert(fs.clone(), tree.clone());
            }
        }
        Op::DestroyFs { name } => {
            next.heads.remove(name);
            next.origins.remove(name);
        }
        Op::Create { fs, .. }
        | Op::Mkdir { fs, .. }
        | Op::Symlink { fs, .. }
        | Op::Link { fs, .. }
        | Op::Write { fs, .. }
        | Op::Truncate { fs, .. }
        | Op::Punch { fs, .. }
        | Op::Chmod { fs, .. }
        | Op::Xattr { fs, .. }
        | Op::Rename { fs, .. }
        | Op::Remove { fs, .. }
        | Op::Rmdir { fs, .. } => {
            let mut tree = (*next.heads[fs]).clone();
            apply_to_tree(&mut tree, op, number);
            next.heads.insert(fs.clone(), Arc::new(tree));
        }
    }
    next
}

fn apply_to_tree(tree: &mut Tree, op: &Op, file: u64) {
    let id_of = |tree: &Tree, path: &str| tree.file(path).unwrap_or(0);
    match op {
        Op::Create { path, .. } => {
            tree.names.insert(path.clone(), Node::File(file));
            tree.bodies.insert(file, crate::model::Body { mode: 0o644, ..Default::default() });
        }
        Op::Mkdir { path, .. } => drop(tree.names.insert(path.clone(), Node::Dir)),
        Op::Symlink { path, target, .. } => drop(tree.names.insert(path.clone(), Node::Symlink(target.clone()))),
        Op::Link { from, to, .. } => drop(tree.names.insert(to.clone(), tree.names[from].clone())),
        Op::Write { path, offset, len, seed, .. } => tree.change(id_of(tree, path), |b| {
            let data = Arc::make_mut(&mut b.data);
            let (from, to) = (*offset as usize, *offset as usize + len);
            if data.len() < to {
                data.resize(to, 0);
            }
            data[from..to].copy_from_slice(&contents(*seed, *len));
        }),
        Op::Truncate { path, size, .. } => {
            tree.change(id_of(tree, path), |b| Arc::make_mut(&mut b.data).resize(*size as usize, 0));
        }
        Op::Punch { path, offset, len, .. } => tree.change(id_of(tree, path), |b| {
            let data = Arc::make_mut(&mut b.data);
            let end = data.len().min((offset + len) as usize);
            data[*offset as usize..end].fill(0);
        }),
        Op::Chmod { path, mode, .. } => tree.change(id_of(tree, path), |b| b.mode = *mode),
        Op::Xattr { path, value, .. } => tree.change(id_of(tree, path), |b| b.xattr.clone_from(value)),
        Op::Rename { from, to, .. } => {
            let below = format!("{from}/");
            let moved: BTreeMap<String, Node> = tree
                .names
                .iter()
                .map(|(k, n)| {
                    let new = match k.strip_prefix(&below) {
                        Some(rest) => format!("{to}/{rest}"),
                        None if k == from => to.clone(),
                        None => k.clone(),
                    };
                    (new, k, n.clone())
                })
                // What had the new name goes.
                .filter(|(_, k, _)| *k != to)
                .map(|(new, _, n)| (new, n))
                .collect();
            tree.names = moved;
            tree.collect();
        }
        Op::Remove { path, .. } | Op::Rmdir { path, .. } => {
            tree.names.remove(path);
            tree.collect();
        }
        _ => {}
    }
}
