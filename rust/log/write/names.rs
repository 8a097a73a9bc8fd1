// SPDX-License-Identifier: GPL-2.0
//! The names of an inode in the log, as far as they differ from those of the last commit.
//!
//! A replay adds the logged names to the last commit, and removes those that stand in their way. So
//! each of them is held against what the last commit has there: an inode that loses its name to
//! it must have lost it in the running transaction, too, or the replay would lose that inode.

use super::{found, items_in, keys_of, Items, Record};
use crate::format::inode::InodeItem;
use crate::format::{item_type, Key};
use crate::subvol::dir::{self, Entries};
use crate::subvol::inode::{for_each_name, names_of_item};
use crate::subvol::write::{mode, InodeId};
use crate::trans::View;
use crate::tree::{Cursor, EditContext};
use kernel::prelude::*;

/// A name.
struct Name {
    dir: u64,
    index: u64,
    name: KVec<u8>,
}

fn names_of(items: &[(Key, KVec<u8>)]) -> Result<KVec<Name>> {
    let mut names = KVec::new();
    for (key, data) in items {
        names_of_item(key, data, &mut |found| {
            let name = Name {
                dir: found.parent,
                index: found.index,
                name: super::copy_of(found.name)?,
            };
            names.push(name, GFP_KERNEL)?;
            Ok(true)
        })?;
    }
    Ok(names)
}

impl Record<'_, '_, '_> {
    /// Logs the items of an inode's names that differ from those of the last commit.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if a replay could not make these names of those of the last commit; those of
    /// reading and of tree edits.
    pub(super) fn names(&mut self, id: InodeId, item: &InodeItem) -> Result {
        let range = keys_of(id.ino, item_type::INODE_REF..=item_type::INODE_EXTREF);
        let trans = &*self.edit.trans;
        let new = items_in(trans, trans.tree_root(id.tree)?, &range)?;
        let old = match self.base_inode(id)? {
            None => KVec::new(),
            Some(old) if old.generation != item.generation => return Err(EAGAIN),
            Some(_) => items_in(trans.base(), self.base_root(id.tree)?, &range)?,
        };
        let is_dir = item.mode.get() & mode::FMT == mode::DIR;
        // Of an item that the log has, the replay removes the names that are not in it. All the
        // names of an item that is gone must have been logged as removed by their directory.
        for (key, data) in &old {
            if new.iter().any(|(new, _)| new == key) {
                continue;
            }
            if is_dir {
                // It may have gone below what was below it in the last commit.
                return Err(EAGAIN);
            }
            let mut all_logged = true;
            names_of_item(key, data, &mut |name| {
                all_logged &= self.is_removal_logged(id.tree, name.parent, name.index)?;
                Ok(all_logged)
            })?;
            if !all_logged {
                return Err(EAGAIN);
            }
        }
        let (old_names, new_names) = (names_of(&old)?, names_of(&new)?);
        for name in &new_names {
            let same = |old: &&Name| old.dir == name.dir && old.name == name.name;
            match old_names.iter().find(same) {
                Some(old) if old.index == name.index => {}
                Some(_) => return Err(EAGAIN),
                None => self.check_new(id, name)?,
            }
        }
        let mut wanted: Items = KVec::new();
        for (key, data) in new {
            let is_old = old.iter().any(|(k, d)| *k == key && **d == *data);
            if !is_old {
                wanted.push((key, data), GFP_KERNEL)?;
            }
        }
        self.put_items(id.tree, &range, &wanted)?;
        Ok(())
    }

    /// Checks a name that the last commit does not have, and has its directory logged if that is
    /// new.
    fn check_new(&mut self, id: InodeId, name: &Name) -> Result {
        let dir = InodeId {
            ino: name.dir,
            ..id
        };
        let parent = self.running_inode(dir)?.ok_or(EAGAIN)?;
        match self.base_inode(dir)? {
            None if self.has(dir) => return Ok(()),
            None => return Ok(self.todo.push(dir, GFP_KERNEL)?),
            Some(old) if old.generation != parent.generation => return Err(EAGAIN),
            Some(_) => {}
        }
        let base = self.edit.trans.base();
        let root = self.base_root(id.tree)?;
        if let Some(there) = dir::lookup(base, root, dir.ino, &name.name)? {
            self.check_loser(dir, there.location, &name.name)?;
        }
        // The C driver cannot replay a name if another one has its index.
        let mut cursor = Cursor::new(base, root);
        if cursor.seek(&Key::new(dir.ino, item_type::DIR_INDEX, name.index))? {
            let (_, data) = cursor.item().ok_or(EUCLEAN)?;
            for entry in Entries::new(data) {
                let same = entry?.name == &*name.name;
                if !same && !self.is_removal_logged(dir.tree, dir.ino, name.index)? {
                    return Err(EAGAIN);
                }
            }
        }
        Ok(())
    }

    /// Checks that the inode at `location`, which has this name in the last commit, may lose it.
    fn check_loser(&self, dir: InodeId, location: Key, name: &[u8]) -> Result {
        if location.typ != item_type::INODE_ITEM {
            return Err(EAGAIN);
        }
        let loser = InodeId {
            ino: location.objectid,
            ..dir
        };
        let old = self.base_inode(loser)?.ok_or(EUCLEAN)?;
        if old.mode.get() & mode::FMT == mode::DIR {
            return Err(EAGAIN);
        }
        let alive = self.running_inode(loser)?;
        if alive.is_none_or(|item| item.nlink.get() == 0) {
            return Ok(());
        }
        // It has other names now. These are logged if the entry was logged as removed.
        let mut index = None;
        let base = self.edit.trans.base();
        for_each_name(
            base,
            self.base_root(dir.tree)?,
            loser.ino,
            &mut |found_name| {
                if found_name.parent == dir.ino && found_name.name == name {
                    index = Some(found_name.index);
                }
                Ok(index.is_none())
            },
        )?;
        if self.is_removal_logged(dir.tree, dir.ino, index.ok_or(EUCLEAN)?)? {
            return Ok(());
        }
        Err(EAGAIN)
    }

    /// Whether the log says that a directory has lost the entry that it had at an index.
    fn is_removal_logged(&self, tree: u64, dir: u64, index: u64) -> Result<bool> {
        if found(EditContext::root(self.edit, tree))?.is_none() {
            return Ok(false);
        }
        self.is_logged(tree, &Key::new(dir, item_type::DIR_LOG_INDEX, index))
    }
}
