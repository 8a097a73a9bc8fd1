// SPDX-License-Identifier: GPL-2.0
//! Makes the tree that leads from UUIDs to subvolumes where there is none, and puts right what a
//! kernel that does not know the tree left behind.
//!
//! The superblock has the generation of the last commit that the tree was right for. Where that is
//! the last commit, so it stays by itself: whoever makes, marks or deletes a subvolume sees to the
//! tree, and each commit moves the generation on. Where it is not, all subvolumes and all items are
//! looked through, and only then the generation is set; a check that a power cut or an unmount ends
//! is begun anew by the next mount.

use super::uuid_tree::{add, ids, leads, remove, uuid_of, uuids_of, TREE};
use crate::format::root::RootItem;
use crate::format::{item_type, tree_id, Key};
use crate::space::space_info::SpaceContext;
use crate::subvol::write::reserve;
use crate::trans::{Reader, Transaction, View};
use crate::volume::Fs;
use crate::{fs_info, fs_warn};
use kernel::prelude::*;

/// Makes sure that every UUID of a subvolume leads there, and none elsewhere, unless the superblock
/// tells that this is so. Subvolumes can be made and deleted meanwhile; each change is an operation
/// of its own. Returns false if `stop` put an end to it.
///
/// # Errors
///
/// `EROFS`, `ENOSPC`, those of reading and of changing trees.
pub fn check_uuid_tree(fs: &Fs, stop: &dyn Fn() -> bool) -> Result<bool> {
    let mut reader = fs.reader()?;
    match reader.root(TREE) {
        Ok(_) if is_right(&reader) => return Ok(true),
        Ok(_) => fs_info!(fs, "checking UUID tree"),
        Err(e) if e == ENOENT => {
            fs_info!(fs, "creating UUID tree");
            fs.operate(reserve(4), make)?;
            // Subvolumes that are made from here on enter themselves; the next commit has all
            // others.
            fs.commit_as_is(u64::MAX)?;
            reader = fs.reader()?;
        }
        Err(e) => return Err(e),
    }
    if !remove_stale(&reader, stop)? || !add_missing(&reader, stop)? {
        return Ok(false);
    }
    fs.operate(reserve(1), |trans| {
        trans.mark_changed();
        let sb = trans.superblock_mut();
        sb.uuid_tree_generation = sb.generation;
        Ok(())
    })?;
    Ok(true)
}

fn is_right(reader: &Reader) -> bool {
    let sb = reader.superblock();
    sb.uuid_tree_generation == sb.generation
}

/// Makes an empty tree, which is not right for anything yet.
fn make(trans: &mut Transaction<'_>) -> Result {
    match trans.tree_root(TREE) {
        Err(e) if e == ENOENT => (),
        found => return found.map(|_| ()),
    }
    let mut item = RootItem::zeroed_boxed()?;
    item.refs = 1.into();
    trans.new_tree(&Key::new(TREE, item_type::ROOT_ITEM, 0), item)?;
    trans.superblock_mut().uuid_tree_generation = 0.into();
    Ok(())
}

/// Removes what leads to subvolumes that are gone, or have another UUID now.
fn remove_stale(reader: &Reader, stop: &dyn Fn() -> bool) -> Result<bool> {
    let fs = reader.fs();
    let mut cursor = reader.cursor(reader.root(TREE)?);
    cursor.seek(&Key::MIN)?;
    while let Some((key, data)) = cursor.item() {
        if stop() {
            return Ok(false);
        }
        let uuid = uuid_of(&key);
        for tree in ids(data) {
            // Whoever changed this since the last commit changed the tree as well.
            if !is_known_type(key.typ) || has_uuid(reader, tree, &uuid, key.typ)? {
                continue;
            }
            fs.operate(reserve(3), |trans| {
                if has_uuid(trans, tree, &uuid, key.typ)? {
                    return Ok(());
                }
                remove(trans, &uuid, key.typ, tree)
            })?;
        }
        cursor.next()?;
    }
    Ok(true)
}

fn is_known_type(typ: u8) -> bool {
    matches!(
        typ,
        item_type::UUID_SUBVOL | item_type::UUID_RECEIVED_SUBVOL
    )
}

/// Whether there is such a subvolume, and it has this UUID.
fn has_uuid<V: View>(view: &V, tree: u64, uuid: &[u8; 16], typ: u8) -> Result<bool> {
    if !tree_id::is_fs_tree(tree) {
        return Ok(false);
    }
    match view.tree_root_item(tree) {
        Ok(item) => Ok(!item.is_dead() && uuids_of(&item).any(|found| found == (*uuid, typ))),
        Err(e) if e == ENOENT => Ok(false),
        Err(e) => Err(e),
    }
}

/// Enters the subvolumes that their UUIDs do not lead to.
fn add_missing(reader: &Reader, stop: &dyn Fn() -> bool) -> Result<bool> {
    let mut cursor = reader.cursor(reader.root(tree_id::ROOT)?);
    cursor.seek(&Key::new(tree_id::FS, item_type::ROOT_ITEM, 0))?;
    while let Some((key, data)) = cursor.item() {
        if stop() {
            return Ok(false);
        }
        let tree = key.objectid;
        if tree > tree_id::LAST_FREE {
            break;
        }
        if key.typ == item_type::ROOT_ITEM && tree_id::is_fs_tree(tree) {
            enter(reader, tree, &*RootItem::parse_boxed(data)?)?;
        }
        cursor.next()?;
    }
    Ok(true)
}

/// Enters a subvolume of the last commit.
fn enter(reader: &Reader, tree: u64, item: &RootItem) -> Result {
    if item.is_dead() {
        return Ok(());
    }
    for (uuid, typ) in uuids_of(item) {
        if leads(reader, &uuid, typ, tree)? {
            continue;
        }
        let fs = reader.fs();
        let entered = fs.operate(reserve(3), |trans| {
            if has_uuid(trans, tree, &uuid, typ)? {
                add(trans, &uuid, typ, tree)?;
            }
            Ok(())
        });
        match entered {
            Err(e) if e == EOVERFLOW => {
                fs_warn!(fs, "no place for subvolume {} in the UUID tree", tree);
            }
            entered => entered?,
        }
    }
    Ok(())
}
