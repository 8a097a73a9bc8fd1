// SPDX-License-Identifier: GPL-2.0
//! Directory entries of a log.
//!
//! A directory that was synced has in its log the entries that the transaction had added, as
//! `DIR_INDEX` items, and `DIR_LOG_INDEX` items that stand for ranges of them: of a range, what is
//! not in the log was removed.

use super::replay::Target;
use super::xattr::has_name;
use crate::format::crc::extref_hash;
use crate::format::dir::file_type;
use crate::format::{self, item_type, Key};
use crate::subvol::dir::{self, Entries, Entry, Target as Location};
use crate::subvol::inode::names_of_item;
use crate::subvol::write::{
    add_dir_entry, add_name, check_new_entry, file_type_of, find_name, inode_key, name_place,
    next_index, remove_dir_entry, remove_name, NameAt,
};
use crate::trans::View;
use crate::tree::Cursor;
use kernel::prelude::*;
use zerocopy::little_endian::U64;

/// An entry that is to be removed.
struct Gone {
    location: Key,
    name: KVec<u8>,
}

/// Removes the entries of a directory that the log does not have, though it tells of their range.
/// The directory may not be there: then it has none.
///
/// # Errors
///
/// `EUCLEAN`, `ENOMEM`, those of changing trees.
pub(super) fn remove_unlogged(target: &mut Target<'_, '_>, dir: u64) -> Result {
    if target.find_inode(dir)?.is_none() {
        return Ok(());
    }
    let mut ranges: KVec<(u64, u64)> = KVec::new();
    let mut cursor = Cursor::new(target.nodes, target.log.root);
    cursor.seek(&Key::new(dir, item_type::DIR_LOG_INDEX, 0))?;
    while let Some((key, data)) = cursor.item() {
        if !key.is(dir, item_type::DIR_LOG_INDEX) {
            break;
        }
        let end: U64 = format::read(data)?;
        ranges.push((key.offset, end.get()), GFP_KERNEL)?;
        cursor.next()?;
    }
    for (from, to) in ranges {
        remove_range(target, dir, from, to, false)?;
    }
    Ok(())
}

/// Removes all entries of a directory, which has no names left itself.
///
/// # Errors
///
/// As for [`remove_unlogged`].
pub(super) fn remove_all(target: &mut Target<'_, '_>, dir: u64) -> Result {
    remove_range(target, dir, 0, u64::MAX, true)
}

/// Removes the entries of a directory between two indexes, but unless `all` is set for those that
/// are in the log.
fn remove_range(target: &mut Target<'_, '_>, dir: u64, from: u64, to: u64, all: bool) -> Result {
    let mut gone = KVec::new();
    let root = target.trans.tree_root(target.log.subvol)?;
    dir::iterate(&*target.trans, root, dir, from, &mut |index, entry| {
        if index > to {
            return Ok(false);
        }
        let key = Key::new(dir, item_type::DIR_INDEX, index);
        let logged = !all
            && match target.logged(&key)? {
                Some(data) => has_name(&data, entry.name)?,
                None => false,
            };
        if !logged {
            let mut name = KVec::with_capacity(entry.name.len(), GFP_KERNEL)?;
            name.extend_from_slice(entry.name, GFP_KERNEL)?;
            let location = entry.location;
            gone.push(Gone { location, name }, GFP_KERNEL)?;
        }
        Ok(true)
    })?;
    for Gone { location, name } in gone {
        target.remove_conflict(dir, &location, &name)?;
    }
    Ok(())
}

impl Target<'_, '_> {
    /// Removes an entry of a directory, and what the inode that it leads to knows of it. Whether
    /// that inode has other names is found out at the end.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the entry leads to a subvolume, or to nothing; those of changing trees.
    pub(super) fn remove_conflict(&mut self, dir: u64, location: &Key, name: &[u8]) -> Result {
        let ino = location.objectid;
        if location.typ != item_type::INODE_ITEM {
            crate::fs_err!(
                self.trans.fs(),
                "log would remove the entry of subvolume {ino} in directory {dir}"
            );
            return Err(EUCLEAN);
        }
        self.read_inode(ino)?;
        self.count_names(ino)?;
        self.unlink(dir, ino, name)
    }

    /// Removes a name of an inode: the entry of the directory and the inode's own item of it.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if inode and directory do not agree; those of changing trees.
    pub(super) fn unlink(&mut self, dir: u64, ino: u64, name: &[u8]) -> Result {
        let missing = |error| if error == ENOENT { EUCLEAN } else { error };
        let (id, parent) = (self.id(ino), self.id(dir));
        let found = find_name(self.trans, id, NameAt { dir, name }).map_err(missing)?;
        remove_dir_entry(self.trans, parent, name, found.index).map_err(missing)?;
        remove_name(self.trans, id.tree, found)?;
        self.resize_dir(dir, name, false)
    }

    /// Adds an entry for an inode to a directory, at `index` or, if another entry is there, after
    /// all others. The C driver fails in the latter case. Returns the index. What the inode knows
    /// of its names is left to the caller.
    ///
    /// # Errors
    ///
    /// `EEXIST` for a name that is there, `EOVERFLOW` if too many names have the same hash; those
    /// of changing trees.
    pub(super) fn add_entry(&mut self, dir: u64, ino: u64, name: &[u8], index: u64) -> Result<u64> {
        let parent = self.id(dir);
        let typ = file_type_of(self.read_inode(ino)?.mode.get())?;
        check_new_entry(self.trans, parent, name)?;
        let index = match self.entry_at(dir, index, None)? {
            None => index,
            Some(_) => next_index(self.trans, parent)?,
        };
        add_dir_entry(self.trans, parent, name, inode_key(ino), typ, index)?;
        self.resize_dir(dir, name, true)?;
        Ok(index)
    }

    /// What the entry of `name` in a directory leads to.
    pub(super) fn entry_of(&self, dir: u64, name: &[u8]) -> Result<Option<Location>> {
        let root = self.trans.tree_root(self.log.subvol)?;
        dir::lookup(&*self.trans, root, dir, name)
    }

    /// What the entry of a directory at `index` leads to, if it has this name.
    pub(super) fn entry_at(
        &self,
        dir: u64,
        index: u64,
        name: Option<&[u8]>,
    ) -> Result<Option<Location>> {
        let root = self.trans.tree_root(self.log.subvol)?;
        let mut found = None;
        dir::iterate(&*self.trans, root, dir, index, &mut |at, entry| {
            if at == index && name.is_none_or(|name| entry.name == name) {
                found = Some(Location {
                    location: entry.location,
                    typ: entry.typ,
                });
            }
            Ok(at == index && found.is_none())
        })?;
        Ok(found)
    }

    /// Whether the log has the name among those that the inode knows of. Then it is added with
    /// them.
    fn has_logged_name(&self, dir: u64, ino: u64, name: &[u8]) -> Result<bool> {
        for key in [
            Key::new(ino, item_type::INODE_REF, dir),
            Key::new(ino, item_type::INODE_EXTREF, extref_hash(dir, name)),
        ] {
            if let Some(data) = self.logged(&key)? {
                if contains_name(&key, &data, NameAt { dir, name })? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Whether an `INODE_REF` or `INODE_EXTREF` item has a name.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item.
pub(super) fn contains_name(key: &Key, data: &[u8], at: NameAt<'_>) -> Result<bool> {
    let more = names_of_item(key, data, &mut |found| {
        Ok(found.parent != at.dir || found.name != at.name)
    })?;
    Ok(!more)
}

/// Adds the entries of a logged `DIR_INDEX` item, which holds one.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item; those of changing trees.
pub(super) fn replay(target: &mut Target<'_, '_>, key: &Key, data: &[u8]) -> Result {
    for entry in Entries::new(data) {
        replay_entry(target, key.objectid, key.offset, &entry?)?;
    }
    Ok(())
}

fn replay_entry(target: &mut Target<'_, '_>, dir: u64, index: u64, entry: &Entry<'_>) -> Result {
    let Entry {
        location,
        typ,
        name,
        ..
    } = *entry;
    target.read_inode(dir)?;
    // The sync of a directory does not write all inodes that are in it; and subvolumes come and go
    // by commits.
    let ino = location.objectid;
    if location.typ != item_type::INODE_ITEM || target.find_inode(ino)?.is_none() {
        return Ok(());
    }
    let logged = Location { location, typ };
    let mut matches = true;
    for by_index in [false, true] {
        let found = if by_index {
            target.entry_at(dir, index, Some(name))?
        } else {
            target.entry_of(dir, name)?
        };
        matches &= found == Some(logged);
        if let Some(found) = found.filter(|found| *found != logged) {
            target.remove_conflict(dir, &found.location, name)?;
        }
    }
    if matches || target.has_logged_name(dir, ino, name)? {
        return Ok(());
    }
    let (id, at) = (target.id(ino), NameAt { dir, name });
    match find_name(target.trans, id, at) {
        Err(ENOENT) => {}
        Ok(_) => return Ok(()),
        Err(error) => return Err(error),
    }
    if target.entry_of(dir, name)?.is_some() {
        return Ok(());
    }
    let extended = name_place(target.trans, id, at)?;
    let index = target.add_entry(dir, ino, name, index)?;
    add_name(target.trans, id, at, index, extended)?;
    // A directory has one name, and its log tells of it.
    if typ & !file_type::ENCRYPTED != file_type::DIR {
        target.count_names(ino)?;
    }
    Ok(())
}
