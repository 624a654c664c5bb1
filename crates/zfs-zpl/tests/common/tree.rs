//! The model: what a file system is, without disks.

use std::collections::BTreeMap;
use zfs_zio::ErrorKind;
use zfs_zpl::{Attr, CaseMode, FileKind, NewFile, NodeId, RenameFlags, Time, Vfs};

/// A file.
#[derive(Debug, Clone, Default)]
pub struct Node {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: (u32, u32),
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub data: Vec<u8>,
    pub target: Vec<u8>,
    pub entries: BTreeMap<Vec<u8>, u64>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub parent: u64,
    /// How often it is open.
    pub held: u32,
}

impl Node {
    /// An empty file with these attributes.
    pub fn of(attr: &Attr) -> Self {
        Self {
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            ..Self::default()
        }
    }

    fn kind(&self) -> FileKind {
        FileKind::of_mode(self.mode).unwrap()
    }

    fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    fn size(&self) -> u64 {
        match self.kind() {
            FileKind::Directory => self.entries.len() as u64 + 2,
            FileKind::Symlink => self.target.len() as u64,
            _ => self.data.len() as u64,
        }
    }
}

/// A file system.
pub struct Tree {
    root: u64,
    nodes: BTreeMap<u64, Node>,
}

impl Tree {
    pub fn new(root: u64, node: Node) -> Self {
        Self { root, nodes: BTreeMap::from([(root, Node { parent: root, ..node })]) }
    }

    pub fn at(&mut self, object: u64) -> &mut Node {
        self.nodes.get_mut(&object).expect("a file of the model")
    }

    fn which(&self, f: impl Fn(&Node) -> bool) -> Vec<u64> {
        self.nodes.iter().filter(|(_, n)| f(n)).map(|(o, _)| *o).collect()
    }

    /// Directories that have a name.
    pub fn dirs(&self) -> Vec<u64> {
        self.which(|n| n.is_dir() && n.nlink > 0)
    }

    /// Regular files, those without a name too.
    pub fn files(&self) -> Vec<u64> {
        self.which(|n| n.kind() == FileKind::Regular)
    }

    pub fn all(&self) -> Vec<u64> {
        self.which(|_| true)
    }

    pub fn held(&self) -> Vec<u64> {
        self.which(|n| n.held > 0)
    }

    pub fn find(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.nodes[&dir].entries.get(name).copied()
    }

    fn stamp_dir(&mut self, dir: u64, now: Time) {
        let dir = self.at(dir);
        (dir.mtime, dir.ctime) = (now, now);
    }

    pub fn insert(&mut self, dir: u64, name: Option<&[u8]>, object: u64, new: &NewFile<'_>, now: Time) {
        let parent = &self.nodes[&dir];
        let (mut mode, mut gid) = (new.mode, new.gid);
        let is_dir = FileKind::of_mode(mode) == Some(FileKind::Directory);
        if parent.mode & 0o2000 != 0 {
            gid = parent.gid;
            mode |= if is_dir { 0o2000 } else { 0 };
        }
        let node = Node {
            mode,
            uid: new.uid,
            gid,
            nlink: if is_dir { 2 } else { u32::from(name.is_some()) },
            rdev: new.rdev,
            atime: now,
            mtime: now,
            ctime: now,
            target: new.target.to_vec(),
            parent: dir,
            ..Node::default()
        };
        assert!(self.nodes.insert(object, node).is_none(), "object {object} is in use");
        if let Some(name) = name {
            self.enter(dir, name, object, now);
        }
    }

    fn enter(&mut self, dir: u64, name: &[u8], object: u64, now: Time) {
        let is_dir = self.nodes[&object].is_dir();
        self.at(object).parent = dir;
        let parent = self.at(dir);
        parent.entries.insert(name.to_vec(), object);
        parent.nlink += u32::from(is_dir);
        self.stamp_dir(dir, now);
    }

    fn leave(&mut self, dir: u64, name: &[u8], now: Time) -> u64 {
        let object = self.at(dir).entries.remove(name).unwrap();
        let is_dir = self.nodes[&object].is_dir();
        self.at(dir).nlink -= u32::from(is_dir);
        self.stamp_dir(dir, now);
        object
    }

    /// A name of it is gone.
    fn drop_link(&mut self, object: u64, now: Time) {
        let node = self.at(object);
        node.nlink = if node.is_dir() { 0 } else { node.nlink - 1 };
        node.ctime = now;
        self.collect(object);
    }

    /// Forgets it if nothing leads to it any more.
    pub fn collect(&mut self, object: u64) {
        let node = &self.nodes[&object];
        if node.nlink == 0 && node.held == 0 {
            self.nodes.remove(&object);
        }
    }

    /// Nothing is open any more.
    pub fn forget_held(&mut self) {
        for object in self.held() {
            self.at(object).held = 0;
            self.collect(object);
        }
    }

    pub fn link(&mut self, object: u64, dir: u64, name: &[u8], now: Time) -> Result<(), ErrorKind> {
        if self.nodes[&object].is_dir() {
            return Err(ErrorKind::Permission);
        }
        if self.find(dir, name).is_some() {
            return Err(ErrorKind::Exists);
        }
        let node = self.at(object);
        node.nlink += 1;
        node.ctime = now;
        self.enter(dir, name, object, now);
        Ok(())
    }

    fn may_go(&self, object: u64) -> Result<(), ErrorKind> {
        let node = &self.nodes[&object];
        if node.is_dir() && !node.entries.is_empty() { Err(ErrorKind::NotEmpty) } else { Ok(()) }
    }

    pub fn remove(&mut self, dir: u64, name: &[u8], rmdir: bool, now: Time) -> Result<(), ErrorKind> {
        let object = self.find(dir, name).ok_or(ErrorKind::NotFound)?;
        match (self.nodes[&object].is_dir(), rmdir) {
            (true, false) => return Err(ErrorKind::IsDir),
            (false, true) => return Err(ErrorKind::NotDir),
            _ => self.may_go(object)?,
        }
        self.leave(dir, name, now);
        self.drop_link(object, now);
        Ok(())
    }

    fn is_below(&self, mut at: u64, object: u64) -> bool {
        loop {
            if at == object {
                return true;
            }
            if at == self.root {
                return false;
            }
            at = self.nodes[&at].parent;
        }
    }

    /// `left` is the object that a whiteout became.
    pub fn rename(
        &mut self,
        (from, name): (u64, &[u8]),
        (to, new_name): (u64, &[u8]),
        how: RenameFlags,
        left: Option<u64>,
        now: Time,
    ) -> Result<(), ErrorKind> {
        let object = self.find(from, name).ok_or(ErrorKind::NotFound)?;
        let target = self.find(to, new_name);
        match (target, how) {
            (Some(_), RenameFlags::NoReplace) => return Err(ErrorKind::Exists),
            (None, RenameFlags::Exchange) => return Err(ErrorKind::NotFound),
            _ => {}
        }
        if target == Some(object) {
            return Ok(());
        }
        let (is_dir, exchange) = (self.nodes[&object].is_dir(), how == RenameFlags::Exchange);
        if is_dir && self.is_below(to, object) {
            return Err(ErrorKind::Invalid);
        }
        if let Some(old) = target {
            let old_dir = self.nodes[&old].is_dir();
            match (is_dir, old_dir) {
                _ if exchange && old_dir && self.is_below(from, old) => return Err(ErrorKind::Invalid),
                _ if exchange => {}
                (true, false) => return Err(ErrorKind::NotDir),
                (false, true) => return Err(ErrorKind::IsDir),
                _ => self.may_go(old)?,
            }
            self.leave(to, new_name, now);
        }
        self.leave(from, name, now);
        self.enter(to, new_name, object, now);
        self.at(object).ctime = now;
        match target {
            Some(old) if exchange => {
                self.enter(from, name, old, now);
                self.at(old).ctime = now;
            }
            Some(old) => self.drop_link(old, now),
            None => {}
        }
        if let RenameFlags::Whiteout { uid, gid } = how {
            let new = NewFile { mode: 0o020_000, uid, gid, ..NewFile::default() };
            self.insert(from, Some(name), left.expect("a whiteout is left"), &new, now);
        }
        Ok(())
    }

    pub fn write(&mut self, object: u64, offset: u64, data: &[u8], append: bool, privileged: bool, now: Time) -> u64 {
        let file = self.at(object);
        let at = if append { file.data.len() } else { offset as usize };
        let end = at + data.len();
        if data.is_empty() {
            return end as u64;
        }
        if file.data.len() < end {
            file.data.resize(end, 0);
        }
        file.data[at..end].copy_from_slice(data);
        (file.mtime, file.ctime) = (now, now);
        if !privileged {
            file.mode &= !0o4000;
            file.mode &= if file.mode & 0o010 != 0 { !0o2000 } else { !0 };
        }
        end as u64
    }

    /// Every file of the model is in the file system as the model has it, and nothing else is.
    pub fn compare(&self, vfs: &Vfs, context: &str) {
        for (object, model) in &self.nodes {
            let node = NodeId::new(0, *object);
            let attr = vfs.getattr(node).unwrap_or_else(|e| panic!("object {object}: {e}\n{context}"));
            let real = (attr.mode, attr.uid, attr.gid, attr.nlink, attr.size, attr.rdev);
            let wanted = (model.mode, model.uid, model.gid, model.nlink, model.size(), model.rdev);
            assert_eq!(real, wanted, "object {object}: mode, uid, gid, links, size, device\n{context}");
            let times = (attr.atime, attr.mtime, attr.ctime);
            assert_eq!(times, (model.atime, model.mtime, model.ctime), "times of {object}\n{context}");
            match model.kind() {
                FileKind::Directory => self.compare_names(vfs, node, model, context),
                FileKind::Symlink => assert_eq!(vfs.readlink(node).unwrap(), model.target),
                FileKind::Regular => {
                    let data: Vec<u8> = vfs.read(node, 0, 64 << 20).unwrap().iter().flat_map(|s| s.to_vec()).collect();
                    let differs = data.iter().zip(&model.data).position(|(a, b)| a != b);
                    assert!(data == model.data, "contents of {object} from {differs:?}\n{context}");
                }
                _ => {}
            }
            let mut names = vfs.listxattr(node, true).unwrap();
            names.sort();
            assert!(names.iter().eq(model.xattrs.keys()), "attributes of {object}: {names:?}\n{context}");
            for (name, value) in &model.xattrs {
                assert!(vfs.getxattr(node, name, true).unwrap() == *value, "attribute of {object}\n{context}");
            }
        }
    }

    fn compare_names(&self, vfs: &Vfs, dir: NodeId, model: &Node, context: &str) {
        let mut names = BTreeMap::new();
        vfs.readdir(dir, 0, &mut |e| {
            assert!(names.insert(e.name.to_vec(), (e.ino, e.kind)).is_none(), "a name comes twice");
            true
        })
        .unwrap();
        assert_eq!(names.remove(&b"."[..]).map(|n| n.0), Some(dir.object()));
        assert_eq!(names.remove(&b".."[..]).map(|n| n.0), Some(model.parent), "parent of {}\n{context}", dir.object());
        let wanted = model.entries.iter().map(|(n, o)| (n.clone(), (*o, Some(self.nodes[o].kind()))));
        assert!(
            names.iter().map(|(n, v)| (n.clone(), *v)).eq(wanted),
            "names of {}: {names:?}\n{context}",
            dir.object()
        );
        for (name, object) in &model.entries {
            assert_eq!(vfs.lookup(dir, name, CaseMode::Dataset).unwrap().object(), *object);
        }
    }
}
