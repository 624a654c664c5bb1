//! What the pool should show: the state after each operation, in plain maps.
//!
//! A [`State`] shares everything it has in common with the one before it, so a run keeps one for each operation.
//!
//! The promises: every operation of a txg that is on disk; every name of a file system up to its last acknowledged
//! fsync, and every file up to its own. A file system whose log was replayed may show some files older than others.

use crate::Outcome;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body {
    /// Contents.
    pub data: Arc<Vec<u8>>,
    /// Permission bits.
    pub mode: u32,
    /// Value of the one extended attribute.
    pub xattr: Option<Vec<u8>>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Dir,
    /// A file, by the number the model gave it.
    File(u64),
    /// A symbolic link with its target.
    Symlink(String),
}

/// One file system. Paths have no leading slash; the root directory is not listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// All names.
    pub names: BTreeMap<String, Node>,
    /// All files.
    pub bodies: BTreeMap<u64, Body>,
}

impl Tree {
    /// Takes away files without names.
    pub fn collect(&mut self) {
        let used: std::collections::BTreeSet<u64> =
            self.names.values().filter_map(|n| if let Node::File(id) = n { Some(*id) } else { None }).collect();
        self.bodies.retain(|id, _| used.contains(id));
    }

    /// Whether a directory has nothing in it.
    pub fn is_empty_dir(&self, path: &str) -> bool {
        let below = format!("{path}/");
        !self.names.keys().any(|k| k.starts_with(&below))
    }

    /// The file of a name.
    pub fn file(&self, path: &str) -> Option<u64> {
        match self.names.get(path) {
            Some(Node::File(id)) => Some(*id),
            _ => None,
        }
    }

    /// Changes a file.
    pub fn change(&mut self, id: u64, change: impl FnOnce(&mut Body)) {
        if let Some(body) = self.bodies.get_mut(&id) {
            change(body);
        }
    }
}

/// All datasets at one moment. Names have no pool; the pool's own file system is the empty name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// File systems.
    pub heads: BTreeMap<String, Arc<Tree>>,
    /// Snapshots, `fs@snap`, with the number of the operation that made them.
    pub snaps: BTreeMap<String, (u64, Arc<Tree>)>,
    /// Clones, with their origins.
    pub origins: BTreeMap<String, String>,
}

/// A moment of the run: what had been promised when the disks had seen so many events.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Writes and flushes so far.
    pub events: u64,
    /// Operations begun.
    pub begun: usize,
    /// Operations whose txg is on disk for certain.
    pub synced: usize,
}

/// An acknowledged fsync: after so many events, the file (of a file system) as of so many operations.
#[derive(Debug, Clone)]
pub struct Fsync {
    /// Writes and flushes when it returned.
    pub events: u64,
    /// Operations before it.
    pub op: usize,
    /// File system.
    pub fs: String,
    /// File.
    pub id: u64,
}

/// The whole run.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// State after 0, 1, 2 … operations.
    pub states: Vec<Arc<State>>,
    /// Promises, in order.
    pub marks: Vec<Mark>,
    /// Acknowledged fsyncs, in order.
    pub fsyncs: Vec<Fsync>,
    /// Number of the next file.
    pub next_file: u64,
}

/// What may be seen after a crash.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Operations that must be there.
    pub least: usize,
    /// Operations that may be there.
    pub most: usize,
    /// Events at the crash.
    pub events: u64,
}

impl Model {
    /// A pool with an empty file system.
    pub fn new() -> Self {
        let heads = BTreeMap::from([(String::new(), Arc::default())]);
        let first = State { heads, ..State::default() };
        Self { states: vec![Arc::new(first)], next_file: 1, ..Self::default() }
    }

    /// The newest state.
    pub fn now(&self) -> &Arc<State> {
        // There is always one.
        &self.states[self.states.len() - 1]
    }

    /// Operations so far.
    pub fn ops(&self) -> usize {
        self.states.len() - 1
    }

    /// What was promised when the disks had seen `events` writes and flushes.
    pub fn window(&self, events: u64) -> Window {
        let seen = self.marks.iter().take_while(|m| m.events <= events);
        let (mut least, mut most) = (0, 0);
        for mark in seen {
            least = least.max(mark.synced);
            most = most.max(mark.begun);
        }
        Window { least, most: most.min(self.ops()), events }
    }

    /// Forgets everything but operation `at`, which a crash left.
    pub fn restart(&mut self, state: State) {
        *self = Self { states: vec![Arc::new(state)], next_file: self.next_file, ..Self::default() };
    }

    fn floors(&self, window: Window, fs: &str) -> (usize, BTreeMap<u64, usize>) {
        let mut names = window.least;
        let mut files = BTreeMap::new();
        for f in self.fsyncs.iter().filter(|f| f.events <= window.events && f.fs == fs) {
            names = names.max(f.op);
            files.insert(f.id, f.op);
        }
        (names, files)
    }

    /// Whether what is seen may be there; gives the state it stands for.
    ///
    /// # Errors
    /// What differs from the nearest that may be there.
    pub fn explain(&self, window: Window, seen: &Seen) -> Outcome<State> {
        let mut first_wrong = None;
        for k in (window.least..=window.most).rev() {
            let state = &self.states[k];
            match same_datasets(state, seen).and_then(|()| self.explain_heads(window, state, seen)) {
                Ok(heads) => return Ok(State { heads, ..(**state).clone() }),
                Err(e) => drop(first_wrong.get_or_insert(format!("after {k} operations: {e}"))),
            }
        }
        Err(first_wrong.unwrap_or_else(|| "there is nothing that may be seen".into()))
    }

    fn explain_heads(&self, window: Window, at: &State, seen: &Seen) -> Outcome<BTreeMap<String, Arc<Tree>>> {
        if self.fsyncs.is_empty() {
            // Without a log, everything is of the same txg.
            for (name, tree) in &at.heads {
                compare(tree, &seen.heads[name], &|id| vec![&tree.bodies[&id]])
                    .map_err(|e| format!("'{name}': {e}"))?;
            }
            return Ok(at.heads.clone());
        }
        let mut out = BTreeMap::new();
        for name in at.heads.keys() {
            let found = self.explain_head(window, name, &seen.heads[name]).map_err(|e| format!("'{name}': {e}"))?;
            out.insert(name.clone(), Arc::new(found));
        }
        Ok(out)
    }

    /// One file system that may have replayed its log.
    fn explain_head(&self, window: Window, fs: &str, seen: &SeenTree) -> Outcome<Tree> {
        let (floor, files) = self.floors(window, fs);
        let mut first_wrong = None;
        for k in (floor..=window.most).rev() {
            let Some(tree) = self.states[k].heads.get(fs) else { continue };
            let versions = |id: u64| {
                let from = files.get(&id).copied().unwrap_or(0).max(window.least);
                let states = self.states[from..=window.most].iter();
                states.filter_map(|s| s.heads.get(fs)?.bodies.get(&id)).collect::<Vec<_>>()
            };
            match compare(tree, seen, &versions) {
                Ok(bodies) => return Ok(Tree { names: tree.names.clone(), bodies }),
                Err(e) => drop(first_wrong.get_or_insert(format!("names after {k} operations: {e}"))),
            }
        }
        Err(first_wrong.unwrap_or_else(|| "it should not be there".into()))
    }
}

/// A file as the pool shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNode {
    /// Object number.
    pub object: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Links.
    pub links: u32,
    /// Bytes; entries of a directory.
    pub size: u64,
    /// Contents, or the target of a symbolic link.
    pub data: Vec<u8>,
    /// The extended attribute.
    pub xattr: Option<Vec<u8>>,
}

/// A file system as the pool shows it.
pub type SeenTree = BTreeMap<String, SeenNode>;

/// A pool as it shows itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// File systems.
    pub heads: BTreeMap<String, SeenTree>,
    /// Snapshots.
    pub snaps: BTreeMap<String, SeenTree>,
}

fn same_datasets(state: &State, seen: &Seen) -> Outcome<()> {
    if !state.heads.keys().eq(seen.heads.keys()) {
        return Err(format!("file systems {:?} instead of {:?}", seen.heads.keys(), state.heads.keys()));
    }
    if !state.snaps.keys().eq(seen.snaps.keys()) {
        return Err(format!("snapshots {:?} instead of {:?}", seen.snaps.keys(), state.snaps.keys()));
    }
    for (name, (_, tree)) in &state.snaps {
        compare(tree, &seen.snaps[name], &|id| vec![&tree.bodies[&id]]).map_err(|e| format!("'{name}': {e}"))?;
    }
    Ok(())
}

/// Compares names with a tree, and each file with the versions it may have; gives the versions found.
fn compare<'a>(tree: &Tree, seen: &SeenTree, versions: &dyn Fn(u64) -> Vec<&'a Body>) -> Outcome<BTreeMap<u64, Body>> {
    let (want, have): (Vec<_>, Vec<_>) = (tree.names.keys().collect(), seen.keys().collect());
    if want != have {
        let missing: Vec<_> = want.iter().filter(|k| !seen.contains_key(**k)).collect();
        let extra: Vec<_> = have.iter().filter(|k| !tree.names.contains_key(**k)).collect();
        return Err(format!("names missing {missing:?}, too many {extra:?}"));
    }
    let mut objects: BTreeMap<u64, u64> = BTreeMap::new();
    let mut bodies = BTreeMap::new();
    for (path, node) in &tree.names {
        let s = &seen[path];
        match node {
            Node::Dir => {
                let below = format!("{path}/");
                let inside = |(k, _): &(&String, &Node)| k.strip_prefix(&below).is_some_and(|r| !r.contains('/'));
                let entries: Vec<_> = tree.names.iter().filter(inside).collect();
                let dirs = entries.iter().filter(|e| *e.1 == Node::Dir).count() as u32;
                if s.mode >> 12 != 4 || s.links != 2 + dirs || s.size != 2 + entries.len() as u64 {
                    return Err(format!("directory {path} has mode {:o}, {} links, size {}", s.mode, s.links, s.size));
                }
            }
            Node::Symlink(target) => {
                if s.mode >> 12 != 10 || s.data != target.as_bytes() {
                    return Err(format!("symbolic link {path} has mode {:o}", s.mode));
                }
            }
            Node::File(id) => {
                let links = tree.names.values().filter(|n| *n == node).count() as u32;
                if s.mode >> 12 != 8 || s.links != links || *objects.entry(*id).or_insert(s.object) != s.object {
                    return Err(format!("file {path} has mode {:o}, {} links, object {}", s.mode, s.links, s.object));
                }
                let same = |b: &&&Body| s.data == **b.data && s.mode & 0o7777 == b.mode && s.xattr == b.xattr;
                let may = versions(*id);
                let found = may.iter().find(same);
                let found = found.ok_or_else(|| differs(path, s, &may))?;
                bodies.insert(*id, (**found).clone());
            }
        }
    }
    Ok(bodies)
}

fn differs(path: &str, seen: &SeenNode, may: &[&Body]) -> String {
    let Some(want) = may.last() else { return format!("file {path} should not be there") };
    let first = seen.data.iter().zip(want.data.iter()).position(|(a, b)| a != b);
    format!(
        "file {path}: {} bytes, mode {:o}, attribute {:?}; not one of {} versions, the newest with {} bytes, mode {:o}, \
         attribute {:?}; first difference {first:?}",
        seen.data.len(),
        seen.mode,
        seen.xattr.as_ref().map(Vec::len),
        may.len(),
        want.data.len(),
        want.mode,
        want.xattr.as_ref().map(Vec::len),
    )
}
