// SPDX-License-Identifier: GPL-2.0
//! Names in a log as inodes know of them, and how many names inodes have.

use super::dir::{self, contains_name};
use super::replay::Target;
use crate::format::crc::extref_hash;
use crate::format::inode::{InodeExtref, InodeRef};
use crate::format::{item_type, Key};
use crate::subvol::dir::Target as Location;
use crate::subvol::inode::{for_each_name, names_of_item};
use crate::subvol::write::{add_unused_orphan, has_orphan, mode, remove_orphan, NameAt};
use crate::trans::View;
use crate::tree::edit;
use kernel::prelude::*;
use zerocopy::IntoBytes;

/// A name of an item.
struct Name {
    dir: u64,
    index: u64,
    name: KVec<u8>,
}

fn names(key: &Key, data: &[u8]) -> Result<KVec<Name>> {
    let mut names = KVec::new();
    names_of_item(key, data, &mut |found| {
        let mut name = KVec::with_capacity(found.name.len(), GFP_KERNEL)?;
        name.extend_from_slice(found.name, GFP_KERNEL)?;
        let (dir, index) = (found.parent, found.index);
        names.push(Name { dir, index, name }, GFP_KERNEL)?;
        Ok(true)
    })?;
    Ok(names)
}

/// Makes the names of an inode in an `INODE_REF` or `INODE_EXTREF` item those that the log has in
/// it. Names of directories that are neither in the log nor in the subvolume are left out.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item; those of changing trees.
pub(super) fn replay(target: &mut Target<'_, '_>, key: &Key, data: &[u8]) -> Result {
    let ino = key.objectid;
    let logged = names(key, data)?;
    let mut item = KVec::new();
    for (at, Name { dir, index, name }) in logged.iter().enumerate() {
        let (dir, index) = (*dir, *index);
        if target.find_inode(dir)?.is_none() {
            // As the C driver does: the first name of an item stands for all.
            if at == 0 {
                return Ok(());
            }
            continue;
        }
        target.read_inode(ino)?;
        let mut index = index;
        if !has_entry(target, dir, ino, index, name)? {
            if !make_way(target, dir, ino, index, name)? {
                return Ok(());
            }
            index = target.add_entry(dir, ino, name, index)?;
        }
        push(&mut item, key, dir, index, name)?;
    }
    remove_unlogged(target, key, data)?;
    target.put(key, &item)
}

fn push(item: &mut KVec<u8>, key: &Key, dir: u64, index: u64, name: &[u8]) -> Result {
    let name_len = u16::try_from(name.len()).map_err(|_| EUCLEAN)?.into();
    let index = index.into();
    if key.typ == item_type::INODE_EXTREF {
        let head = InodeExtref {
            parent_objectid: dir.into(),
            index,
            name_len,
        };
        item.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
    } else {
        let head = InodeRef { index, name_len };
        item.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
    }
    Ok(item.extend_from_slice(name, GFP_KERNEL)?)
}

/// Whether a directory has this very entry for the inode.
fn has_entry(target: &Target<'_, '_>, dir: u64, ino: u64, index: u64, name: &[u8]) -> Result<bool> {
    let is_ours =
        |found: Option<Location>| found.is_some_and(|found| found.location.objectid == ino);
    Ok(is_ours(target.entry_at(dir, index, Some(name))?) && is_ours(target.entry_of(dir, name)?))
}

/// Removes what stands in the way of a name: other names that the inode had in the directory, and
/// other entries of that name. Returns false for the name of the root directory, which is always
/// there.
fn make_way(
    target: &mut Target<'_, '_>,
    dir: u64,
    ino: u64,
    index: u64,
    name: &[u8],
) -> Result<bool> {
    let key = Key::new(ino, item_type::INODE_REF, dir);
    if let Some(data) = edit::get(target.trans, target.log.subvol, &key)? {
        if ino == dir {
            return Ok(false);
        }
        remove_old_names(target, &key, &data, dir)?;
    }
    let key = Key::new(ino, item_type::INODE_EXTREF, extref_hash(dir, name));
    if let Some(data) = edit::get(target.trans, target.log.subvol, &key)? {
        if contains_name(&key, &data, NameAt { dir, name })? {
            remove_old_names(target, &key, &data, dir)?;
        }
    }
    if let Some(found) = target.entry_at(dir, index, Some(name))? {
        target.remove_conflict(dir, &found.location, name)?;
    }
    if let Some(found) = target.entry_of(dir, name)? {
        target.remove_conflict(dir, &found.location, name)?;
    }
    Ok(true)
}

/// Removes the names in `dir` of an item of the subvolume that the log does not have.
fn remove_old_names(target: &mut Target<'_, '_>, key: &Key, data: &[u8], dir: u64) -> Result {
    let old = names(key, data)?;
    for Name { name, .. } in old.iter().filter(|name| name.dir == dir) {
        let mut logged_key = *key;
        if key.typ == item_type::INODE_EXTREF {
            logged_key.offset = extref_hash(dir, name);
        }
        let logged = match target.logged(&logged_key)? {
            Some(data) => contains_name(&logged_key, &data, NameAt { dir, name })?,
            None => false,
        };
        if !logged {
            target.unlink(dir, key.objectid, name)?;
        }
    }
    Ok(())
}

/// Removes the names of the subvolume's item at `key` that are not in `logged`, the item of the
/// log.
fn remove_unlogged(target: &mut Target<'_, '_>, key: &Key, logged: &[u8]) -> Result {
    let Some(data) = edit::get(target.trans, target.log.subvol, key)? else {
        return Ok(());
    };
    for Name { dir, name, .. } in names(key, &data)? {
        let at = NameAt { dir, name: &name };
        if !contains_name(key, logged, at)? {
            target.read_inode(dir)?;
            target.unlink(dir, key.objectid, &name)?;
        }
    }
    Ok(())
}

/// Counts the names of all inodes that the replay has touched. One that has none left becomes an
/// orphan, and if it is a directory, its entries go as well.
///
/// # Errors
///
/// `EUCLEAN`, `ENOMEM`, those of changing trees.
pub(super) fn fix_counts(target: &mut Target<'_, '_>) -> Result {
    // The entries of a directory that goes may lead to inodes that were counted already.
    while let Some(ino) = target.take_counted() {
        let mut item = target.read_inode(ino)?;
        let root = target.trans.tree_root(target.log.subvol)?;
        let mut nlink = 0u32;
        for_each_name(&*target.trans, root, ino, &mut |_| {
            nlink = nlink.checked_add(1).ok_or(EUCLEAN)?;
            Ok(true)
        })?;
        if item.nlink.get() != nlink {
            item.nlink = nlink.into();
            target.write_inode(ino, &mut item)?;
        }
        let id = target.id(ino);
        let has_orphan = has_orphan(target.trans, id)?;
        if nlink != 0 {
            // A temporary file that got a name.
            if has_orphan {
                remove_orphan(target.trans, id)?;
            }
            continue;
        }
        if item.mode.get() & mode::FMT == mode::DIR {
            dir::remove_all(target, ino)?;
        }
        if !has_orphan {
            add_unused_orphan(target.trans, id)?;
        }
    }
    Ok(())
}
