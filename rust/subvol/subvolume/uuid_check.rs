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
use crate::volume::{Fs, ReadSession};
use crate::{fs_info, fs_warn};
use kernel::prelude::*;

/// Makes sure that every UUID of a subvolume leads there, and none elsewhere, unless the superblock
/// tells that this is so; with `scan` (the option `rescan_uuid_tree`) that is not believed.
/// Subvolumes can be made and deleted meanwhile; each change is an operation of its own. Returns
/// false if `stop` put an end to it.
///
/// # Errors
///
/// `EROFS`, `ENOSPC`, those of reading and of changing trees.
pub fn check_uuid_tree(fs: &Fs, scan: bool, stop: &dyn Fn() -> bool) -> Result<bool> {
    let mut reader = fs.reader()?;
    match reader.root(TREE) {
        Ok(_) if is_right(&reader) && !scan => return Ok(true),
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
    let session = ReadSession::new(reader);
    if !remove_stale(&session, stop)? || !add_missing(&session, stop)? {
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

/// The most items that are looked at in one commit.
const BATCH: usize = 1024;

/// A subvolume to enter or to remove: the UUID, the type of its item, and the tree.
type Entry = ([u8; 16], u8, u64);

/// Gathers what is wrong in a batch of items of `tree` from `from` on, up to `last`. Returns where
/// the next one starts.
fn gather(
    reader: &Reader,
    tree: u64,
    (from, last): (&Key, &Key),
    entries: &mut KVec<Entry>,
    wrong: fn(&Reader, &Key, &[u8], &mut KVec<Entry>) -> Result,
) -> Result<Option<Key>> {
    let mut cursor = reader.cursor(reader.root(tree)?);
    cursor.seek(from)?;
    for _ in 0..BATCH {
        let Some((key, data)) = cursor.item().filter(|(key, _)| key <= last) else {
            return Ok(None);
        };
        wrong(reader, &key, data, entries)?;
        cursor.next()?;
    }
    Ok(cursor.key())
}

/// Removes what leads to subvolumes that are gone, or have another UUID now.
fn remove_stale(session: &ReadSession, stop: &dyn Fn() -> bool) -> Result<bool> {
    let mut next = Some(Key::MIN);
    let mut entries = KVec::new();
    while let Some(from) = next {
        let range = (&from, &Key::MAX);
        next = session.read(|reader| gather(reader, TREE, range, &mut entries, stale))?;
        for (uuid, typ, tree) in entries.drain_all() {
            if stop() {
                return Ok(false);
            }
            session.fs().operate(reserve(3), |trans| {
                if has_uuid(trans, tree, &uuid, typ)? {
                    return Ok(());
                }
                remove(trans, &uuid, typ, tree)
            })?;
        }
        if stop() {
            return Ok(false);
        }
        session.renew();
    }
    Ok(true)
}

/// The subvolumes that an item of the UUID tree leads to wrongly.
fn stale(reader: &Reader, key: &Key, data: &[u8], entries: &mut KVec<Entry>) -> Result {
    let uuid = uuid_of(key);
    for tree in ids(data).filter(|_| is_known_type(key.typ)) {
        // Whoever changed this since the commit changed the tree as well.
        if !has_uuid(reader, tree, &uuid, key.typ)? {
            entries.push((uuid, key.typ, tree), GFP_KERNEL)?;
        }
    }
    Ok(())
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
fn add_missing(session: &ReadSession, stop: &dyn Fn() -> bool) -> Result<bool> {
    let last = Key::new(tree_id::LAST_FREE, u8::MAX, u64::MAX);
    let mut next = Some(Key::new(tree_id::FS, item_type::ROOT_ITEM, 0));
    let mut entries = KVec::new();
    while let Some(from) = next {
        let range = (&from, &last);
        let tree = tree_id::ROOT;
        next = session.read(|reader| gather(reader, tree, range, &mut entries, missing))?;
        for entry in entries.drain_all() {
            if stop() {
                return Ok(false);
            }
            enter(session.fs(), entry)?;
        }
        if stop() {
            return Ok(false);
        }
        session.renew();
    }
    Ok(true)
}

/// The UUIDs of a subvolume that do not lead to it.
fn missing(reader: &Reader, key: &Key, data: &[u8], entries: &mut KVec<Entry>) -> Result {
    let tree = key.objectid;
    if key.typ != item_type::ROOT_ITEM || !tree_id::is_fs_tree(tree) {
        return Ok(());
    }
    let item = RootItem::parse_boxed(data)?;
    for (uuid, typ) in uuids_of(&item).filter(|_| !item.is_dead()) {
        if !leads(reader, &uuid, typ, tree)? {
            entries.push((uuid, typ, tree), GFP_KERNEL)?;
        }
    }
    Ok(())
}

/// Enters a subvolume, if it has this UUID still.
fn enter(fs: &Fs, (uuid, typ, tree): Entry) -> Result {
    let entered = fs.operate(reserve(3), |trans| {
        if has_uuid(trans, tree, &uuid, typ)? {
            add(trans, &uuid, typ, tree)?;
        }
        Ok(())
    });
    match entered {
        Err(e) if e == EOVERFLOW => {
            fs_warn!(fs, "no place for subvolume {} in the UUID tree", tree);
            Ok(())
        }
        entered => entered,
    }
}
