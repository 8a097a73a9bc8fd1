// SPDX-License-Identifier: GPL-2.0
//! Names: giving them, and taking them away.

use super::create::file_type_of;
use super::dir_item::{add_entry, check_entry, encode_entry, remove_entry};
use super::inode_ref::{self, NameAt};
use super::{
    check_subvol, inode_key, mode, orphan, read_dir, read_inode, reserve, touch_dir, write_inode,
    InodeId, FREEING,
};
use crate::format::crc::name_hash;
use crate::format::dir::NAME_LEN;
use crate::format::inode::{InodeItem, Timespec};
use crate::format::{item_type, objectid, Key};
use crate::subvol::dir::{self, Target};
use crate::subvol::root_ref;
use crate::trans::Transaction;
use crate::tree::{edit, Cursor, EditContext};
use crate::volume::Fs;
use kernel::prelude::*;
use zerocopy::FromZeros;

/// The most names that an inode has.
const LINK_MAX: u32 = 65535;
/// The first `DIR_INDEX` of a directory: 0 and 1 are for "." and "..".
const FIRST_INDEX: u64 = 2;

/// What [`link`] changed.
#[derive(Clone, Copy)]
pub struct Linked {
    /// The item of the inode.
    pub item: InodeItem,
    /// The item of the directory.
    pub dir: InodeItem,
}

/// What [`unlink`] and [`rmdir`] changed.
#[derive(Clone, Copy)]
pub struct Unlinked {
    /// The number of the inode that lost a name.
    pub ino: u64,
    /// Its item. Without any names left, the inode has an orphan item, and waits to be evicted.
    pub item: InodeItem,
    /// The item of the directory.
    pub dir: InodeItem,
}

/// The `DIR_INDEX` for a new entry of a directory.
pub(crate) fn next_index(trans: &Transaction<'_>, dir: InodeId) -> Result<u64> {
    let mut cursor = Cursor::new(trans, EditContext::root(trans, dir.tree)?);
    if !cursor.seek_before(&Key::new(dir.ino, item_type::DIR_INDEX, u64::MAX))? {
        return Ok(FIRST_INDEX);
    }
    match cursor.key() {
        Some(key) if key.is(dir.ino, item_type::DIR_INDEX) => {
            let next = key.offset.checked_add(1).ok_or(ENOSPC)?;
            Ok(next.max(FIRST_INDEX))
        }
        _ => Ok(FIRST_INDEX),
    }
}

fn dir_key(dir: InodeId, name: &[u8]) -> Key {
    Key::new(dir.ino, item_type::DIR_ITEM, name_hash(name))
}

/// Looks a name up in a directory.
///
/// # Errors
///
/// `ENOENT` if it is not there, `ENAMETOOLONG`.
pub(in crate::subvol) fn find_dir_entry(
    trans: &Transaction<'_>,
    dir: InodeId,
    name: &[u8],
) -> Result<Target> {
    if name.len() > NAME_LEN {
        return Err(ENAMETOOLONG);
    }
    let root = EditContext::root(trans, dir.tree)?;
    dir::lookup(trans, root, dir.ino, name)?.ok_or(ENOENT)
}

/// Adds both items of a directory entry; that they fit was checked. The directory's own item is
/// left to the caller.
pub(crate) fn add_dir_entry(
    trans: &mut Transaction<'_>,
    dir: InodeId,
    name: &[u8],
    location: Key,
    typ: u8,
    index: u64,
) -> Result {
    let entry = encode_entry(location, trans.transid(), typ, name, &[])?;
    add_entry(trans, dir.tree, &dir_key(dir, name), &entry)?;
    let key = Key::new(dir.ino, item_type::DIR_INDEX, index);
    edit::insert(trans, dir.tree, &key, &entry)
}

/// Removes both items of a directory entry. The directory's own item is left to the caller.
pub(crate) fn remove_dir_entry(
    trans: &mut Transaction<'_>,
    dir: InodeId,
    name: &[u8],
    index: u64,
) -> Result {
    remove_entry(trans, dir.tree, &dir_key(dir, name), name)?;
    let key = Key::new(dir.ino, item_type::DIR_INDEX, index);
    remove_entry(trans, dir.tree, &key, name)
}

/// Whether an entry can be added to a directory.
pub(crate) fn check_new_entry(trans: &Transaction<'_>, dir: InodeId, name: &[u8]) -> Result {
    let probe = encode_entry(Key::MIN, 0, 0, name, &[])?;
    check_entry(trans, dir.tree, &dir_key(dir, name), name, probe.len())
}

/// Gives inode `ino` of the directory's subvolume another name.
///
/// # Errors
///
/// `EEXIST`, `EMLINK`, `EPERM` for a directory, `ENOENT` if inode or directory is gone,
/// `ENAMETOOLONG`, `EOVERFLOW`, `EROFS`, `ENOSPC`.
pub fn link(fs: &Fs, ino: u64, dir: InodeId, name: &[u8], now: Timespec) -> Result<Linked> {
    fs.operate(reserve(7), |trans| {
        check_subvol(trans, dir.tree)?;
        let id = InodeId {
            tree: dir.tree,
            ino,
        };
        let mut dir_item = read_dir(trans, dir)?;
        let mut item = read_inode(trans, id)?;
        if item.mode.get() & mode::FMT == mode::DIR {
            return Err(EPERM);
        }
        let nlink = item.nlink.get();
        if nlink >= LINK_MAX {
            return Err(EMLINK);
        }
        // An inode that has no names can get one only as long as it waits for that, as temporary
        // files do.
        let orphaned = nlink == 0;
        if orphaned && !orphan::exists(trans, id)? {
            return Err(ENOENT);
        }
        check_new_entry(trans, dir, name)?;
        let at = NameAt { dir: dir.ino, name };
        let extended = inode_ref::place_for(trans, id, at)?;
        let index = next_index(trans, dir)?;
        let typ = file_type_of(item.mode.get())?;

        if orphaned {
            orphan::remove(trans, id)?;
        }
        inode_ref::add(trans, id, at, index, extended)?;
        add_dir_entry(trans, dir, name, inode_key(ino), typ, index)?;
        touch_dir(&mut dir_item, 2 * name.len() as i64, now);
        write_inode(trans, dir, &mut dir_item)?;
        item.nlink = nlink.saturating_add(1).into();
        item.ctime = now;
        write_inode(trans, id, &mut item)?;
        Ok(Linked {
            item,
            dir: dir_item,
        })
    })
}

/// Removes a name, but not that of a directory. An inode without names is kept, as an orphan, until
/// it is evicted.
///
/// # Errors
///
/// `ENOENT`, `EISDIR` for a directory, `EROFS`, `EUCLEAN` if inode and directory do not agree.
pub fn unlink(fs: &Fs, dir: InodeId, name: &[u8], now: Timespec) -> Result<Unlinked> {
    remove(fs, dir, name, now, false)
}

/// Removes an empty directory, or an entry for a subvolume that is not there: that has
/// [`objectid::EMPTY_SUBVOL_DIR`] for an inode number, and no item.
///
/// # Errors
///
/// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EPERM` for the root directory of a subvolume, `EROFS`,
/// `EUCLEAN`.
pub fn rmdir(fs: &Fs, dir: InodeId, name: &[u8], now: Timespec) -> Result<Unlinked> {
    remove(fs, dir, name, now, true)
}

fn remove(fs: &Fs, dir: InodeId, name: &[u8], now: Timespec, is_dir: bool) -> Result<Unlinked> {
    fs.operate(FREEING, |trans| {
        check_subvol(trans, dir.tree)?;
        let mut dir_item = read_dir(trans, dir)?;
        let target = find_dir_entry(trans, dir, name)?;
        let (ino, item) = if is_dir && is_empty_subvol_dir(trans, dir, name, &target)? {
            let index = index_of(trans, dir, name)?;
            remove_dir_entry(trans, dir, name, index)?;
            (objectid::EMPTY_SUBVOL_DIR, InodeItem::new_zeroed())
        } else {
            let removal = Removal::check(trans, dir, name, &target, Some(is_dir))?;
            removal.run(trans, now)?
        };
        touch_dir(&mut dir_item, -2 * name.len() as i64, now);
        write_inode(trans, dir, &mut dir_item)?;
        Ok(Unlinked {
            ino,
            item,
            dir: dir_item,
        })
    })
}

/// Whether an entry leads to a subvolume that is not there, as they do in snapshots.
fn is_empty_subvol_dir(
    trans: &Transaction<'_>,
    dir: InodeId,
    name: &[u8],
    target: &Target,
) -> Result<bool> {
    if target.location.typ != item_type::ROOT_ITEM {
        return Ok(false);
    }
    let tree = target.location.objectid;
    Ok(root_ref::find(trans, dir.tree, tree, dir.ino, name)?.is_none())
}

/// The `DIR_INDEX` of an entry that only the directory knows of.
fn index_of(trans: &Transaction<'_>, dir: InodeId, name: &[u8]) -> Result<u64> {
    let mut found = None;
    let root = EditContext::root(trans, dir.tree)?;
    dir::iterate(trans, root, dir.ino, 0, &mut |index, entry| {
        found = (entry.name == name).then_some(index);
        Ok(found.is_none())
    })?;
    found.ok_or(EUCLEAN)
}

/// A name that can be removed, and the inode that loses it.
pub(super) struct Removal<'a> {
    id: InodeId,
    item: InodeItem,
    dir: InodeId,
    name: &'a [u8],
    found: inode_ref::FoundName,
}

impl<'a> Removal<'a> {
    /// Checks that the entry `name`, which leads to `target`, can go. `is_dir` tells what it must
    /// lead to.
    pub(super) fn check(
        trans: &Transaction<'_>,
        dir: InodeId,
        name: &'a [u8],
        target: &Target,
        is_dir: Option<bool>,
    ) -> Result<Self> {
        if target.location.typ != item_type::INODE_ITEM {
            return Err(if is_dir == Some(false) { EISDIR } else { EPERM });
        }
        let id = InodeId {
            tree: dir.tree,
            ino: target.location.objectid,
        };
        // The entry is there, so whatever is not must be damage.
        let missing = |e| if e == ENOENT { EUCLEAN } else { e };
        let item = read_inode(trans, id).map_err(missing)?;
        let found_dir = item.mode.get() & mode::FMT == mode::DIR;
        match is_dir {
            Some(false) if found_dir => return Err(EISDIR),
            Some(true) if !found_dir => return Err(ENOTDIR),
            _ => {}
        }
        if found_dir && !is_empty(trans, id, &item)? {
            return Err(ENOTEMPTY);
        }
        if item.nlink.get() == 0 {
            return Err(EUCLEAN);
        }
        let at = NameAt { dir: dir.ino, name };
        let found = inode_ref::find(trans, id, at).map_err(missing)?;
        Ok(Removal {
            id,
            item,
            dir,
            name,
            found,
        })
    }

    /// Removes the name. Returns the inode's number and item. The directory's own item is left to
    /// the caller.
    pub(super) fn run(
        self,
        trans: &mut Transaction<'_>,
        now: Timespec,
    ) -> Result<(u64, InodeItem)> {
        let Removal {
            id,
            mut item,
            dir,
            name,
            found,
        } = self;
        remove_dir_entry(trans, dir, name, found.index)?;
        inode_ref::remove(trans, id.tree, found)?;
        item.nlink = item.nlink.get().saturating_sub(1).into();
        item.ctime = now;
        if item.nlink.get() == 0 {
            orphan::add(trans, id)?;
        }
        write_inode(trans, id, &mut item)?;
        Ok((id.ino, item))
    }
}

fn is_empty(trans: &Transaction<'_>, dir: InodeId, item: &InodeItem) -> Result<bool> {
    if item.size.get() != 0 {
        return Ok(false);
    }
    let mut cursor = Cursor::new(trans, EditContext::root(trans, dir.tree)?);
    cursor.seek(&Key::new(dir.ino, item_type::DIR_ITEM, 0))?;
    Ok(!cursor.key().is_some_and(|key| {
        key.objectid == dir.ino && matches!(key.typ, item_type::DIR_ITEM | item_type::DIR_INDEX)
    }))
}
