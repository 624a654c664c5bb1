//! What macOS's kernel asks of a volume that can be changed, and the rules for it.

use super::driver::{FAULT, Step, module_error};
use super::{Fskitd, Problem, Rule, StandIn};
use uzfs_fskit::api::{
    Context, FsError, ItemAttributes, ItemType, SetAttributes, SetXattrPolicy, SyncFlags, TimeSpec, UnaryFileSystem,
    attribute,
};

/// A name in a directory, as FSKit gives it: number of the directory, and the name.
pub type Place<'a> = (u64, &'a [u8]);

/// Who asks, where it does not matter.
const ROOT: Context = Context { uid: 0, gid: 0 };

/// What is to be set. Times and the like that are none stay.
#[derive(Debug, Default, Clone, Copy)]
pub struct Wanted {
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Last access.
    pub access_time: Option<TimeSpec>,
    /// Last change of contents.
    pub modify_time: Option<TimeSpec>,
}

impl Wanted {
    fn request(&self) -> (SetAttributes, u64) {
        let w = *self;
        let mut request = SetAttributes::default();
        let to = &mut request.wanted;
        (to.mode, to.uid, to.gid, to.size) = (w.mode, w.uid, w.gid, w.size);
        (to.access_time, to.modify_time) = (w.access_time, w.modify_time);
        let bits = [
            (w.mode.is_some(), attribute::MODE),
            (w.uid.is_some(), attribute::UID),
            (w.gid.is_some(), attribute::GID),
            (w.size.is_some(), attribute::SIZE),
            (w.access_time.is_some(), attribute::ACCESS_TIME),
            (w.modify_time.is_some(), attribute::MODIFY_TIME),
        ];
        (request, bits.into_iter().filter(|b| b.0).map(|b| b.1).sum())
    }
}

/// FSKit takes what was not consumed for not done.
fn all_consumed(wanted: u64, consumed: u64) -> Step<()> {
    match wanted & !consumed {
        0 => Ok(()),
        left => Err(Problem::new(Rule::Consumed, FAULT, format!("attributes {left:#x} were set and not consumed"))),
    }
}

impl<M: UnaryFileSystem<StandIn> + 'static> Fskitd<M> {
    /// Makes a file or directory; the caller knows it from now on.
    pub fn create(&self, at: Place<'_>, kind: ItemType, wanted: &Wanted) -> Step<ItemAttributes> {
        let (volume, parent) = self.item(at.0)?;
        let (mut attrs, bits) = wanted.request();
        let item = if self.handles() {
            let made = volume.make(at.1, kind, &parent, &mut attrs, ROOT).map_err(|e| module_error("createItem", e))?;
            self.changed(&made.attributes, &[(at.0, &made.directory)])?;
            made.item
        } else {
            volume.create(at.1, kind, &parent, &mut attrs).map_err(|e| module_error("createItem", e))?.0
        };
        if !matches!(kind, ItemType::File | ItemType::Directory) {
            return Err(Problem::new(Rule::Creatable, FAULT, format!("a {kind:?} was made")));
        }
        let known = self.learn(&volume, item)?;
        all_consumed(bits, attrs.consumed)?;
        Ok(known)
    }

    /// What came with a result: all of a file's attributes, and those of the directories it names.
    fn changed(&self, file: &ItemAttributes, directories: &[(u64, &ItemAttributes)]) -> Step<()> {
        self.result(&[file])?;
        for (id, attributes) in directories {
            self.result(&[attributes])?;
            if attributes.file_id != Some(*id) {
                let text = format!("attributes of {:?} came for directory {id}", attributes.file_id);
                return Err(Problem::new(Rule::ResultAttributes, FAULT, text));
            }
        }
        Ok(())
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, at: Place<'_>, target: &[u8], wanted: &Wanted) -> Step<ItemAttributes> {
        let (volume, parent) = self.item(at.0)?;
        let (mut attrs, _) = wanted.request();
        let wrong = |e| module_error("createSymbolicLink", e);
        if !self.handles() {
            let made = volume.create_symlink(at.1, &parent, &mut attrs, target).map_err(wrong)?;
            return self.learn(&volume, made.0);
        }
        let made = volume.make_symlink(at.1, &parent, &mut attrs, target, ROOT).map_err(wrong)?;
        self.changed(&made.attributes, &[(at.0, &made.directory)])?;
        self.learn(&volume, made.item)
    }

    /// Gives a file another name.
    pub fn link(&self, id: u64, at: Place<'_>) -> Step<ItemAttributes> {
        let (volume, item) = self.item(id)?;
        let (_, parent) = self.item(at.0)?;
        let wrong = |e| module_error("createLink", e);
        let stored = if self.handles() {
            let made = volume.make_link(&item, at.1, &parent).map_err(wrong)?;
            self.changed(&made.attributes, &[(at.0, &made.directory)])?;
            made.name
        } else {
            volume.create_link(&item, at.1, &parent).map_err(wrong)?
        };
        if stored.is_empty() {
            return Err(Problem::new(Rule::StoredName, FAULT, "no name came with the link"));
        }
        self.learn(&volume, item)
    }

    /// Takes a name away. FSKit names the file too, so it is looked up first.
    pub fn remove(&self, at: Place<'_>, directory: bool) -> Step<()> {
        let found = self.lookup(at.0, at.1)?;
        let id = found.file_id.unwrap_or(0);
        // The kernel checks this before it asks.
        let is_dir = found.kind == Some(ItemType::Directory);
        let done = match (is_dir, directory) {
            (true, false) => Err(module_error("removeItem", FsError::Posix(libc::EISDIR))),
            (false, true) => Err(module_error("removeItem", FsError::Posix(libc::ENOTDIR))),
            _ => self.item(id).and_then(|(volume, item)| {
                let (_, parent) = self.item(at.0)?;
                let wrong = |e| module_error("removeItem", e);
                if !self.handles() {
                    return volume.remove(&item, at.1, &parent).map_err(wrong);
                }
                let removed = volume.take_away(&item, at.1, &parent).map_err(wrong)?;
                self.changed(&removed.attributes, &[(at.0, &removed.directory)])
            }),
        };
        self.forget(id, 1)?;
        done
    }

    /// Renames; what has the new name goes.
    pub fn rename(&self, from: Place<'_>, to: Place<'_>) -> Step<()> {
        let id = self.lookup(from.0, from.1)?.file_id.unwrap_or(0);
        let over = self.lookup(to.0, to.1).ok().and_then(|a| a.file_id);
        let act = || {
            let (volume, item) = self.item(id)?;
            let ((_, from_dir), (_, to_dir)) = (self.item(from.0)?, self.item(to.0)?);
            let over = over.map(|id| self.item(id)).transpose()?.map(|(_, item)| item);
            let wrong = |e| module_error("renameItem", e);
            let stored = if self.handles() {
                let moved = volume.move_to(&item, (&from_dir, from.1), (&to_dir, to.1), over.as_ref());
                let moved = moved.map_err(wrong)?;
                self.changed(&moved.attributes, &[(from.0, &moved.from), (to.0, &moved.to)])?;
                self.result(&moved.over.iter().collect::<Vec<_>>())?;
                moved.name
            } else {
                volume.rename(&item, (&from_dir, from.1), (&to_dir, to.1), over.as_ref()).map_err(wrong)?
            };
            match stored.is_empty() {
                true => Err(Problem::new(Rule::StoredName, FAULT, "no name came with the renamed file")),
                false => Ok(()),
            }
        };
        let done = act();
        self.forget(id, 1)?;
        over.map_or(Ok(()), |id| self.forget(id, 1))?;
        done
    }

    /// Sets attributes.
    pub fn set_attributes(&self, id: u64, wanted: &Wanted) -> Step<ItemAttributes> {
        let (volume, item) = self.item(id)?;
        let (mut request, bits) = wanted.request();
        let after = volume.set_attributes(&mut request, &item).map_err(|e| module_error("setAttributes", e))?;
        all_consumed(bits, request.consumed)?;
        self.complete(&after)?;
        Ok(after)
    }

    /// Writes.
    pub fn write(&self, id: u64, offset: i64, data: &[u8]) -> Step<usize> {
        let (volume, item) = self.item(id)?;
        let n = volume.write(data, &item, offset).map_err(|e| module_error("write", e))?;
        if n > data.len() {
            return Err(Problem::new(Rule::Reads, FAULT, format!("{n} bytes written of {}", data.len())));
        }
        Ok(n)
    }

    /// Sets an extended attribute, or takes it away.
    pub fn set_xattr(&self, id: u64, name: &[u8], value: Option<&[u8]>, policy: SetXattrPolicy) -> Step<()> {
        let (volume, item) = self.item(id)?;
        volume.set_xattr(name, value, &item, policy).map_err(|e| module_error("setXattr", e))
    }

    /// Puts everything on stable storage.
    pub fn synchronize(&self) -> Step<()> {
        let (volume, _) = self.item(uzfs_fskit::api::ROOT_ID)?;
        volume.synchronize(SyncFlags::Wait).map_err(|e| module_error("synchronize", e))
    }
}
