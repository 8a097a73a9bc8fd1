// SPDX-License-Identifier: GPL-2.0
//! The tree that leads from UUIDs to subvolumes. [`super::uuid_check`] makes it for volumes of old
//! kernels, which have none.

use crate::format::root::RootItem;
use crate::format::{item_type, tree_id, Key};
use crate::trans::{Transaction, View};
use crate::tree::edit::{self, max_item_size};
use crate::tree::{Cursor, EditContext};
use kernel::prelude::*;

pub(super) const TREE: u64 = tree_id::UUID;
/// The size of a subvolume's id, in bytes.
const ID: usize = size_of::<u64>();

pub(super) fn key(uuid: &[u8; 16], typ: u8) -> Key {
    let number = u128::from_le_bytes(*uuid);
    Key::new(number as u64, typ, (number >> 64) as u64)
}

/// The UUID that a key stands for.
pub(super) fn uuid_of(key: &Key) -> [u8; 16] {
    let number = (u128::from(key.offset) << 64) | u128::from(key.objectid);
    number.to_le_bytes()
}

/// The UUIDs of a subvolume that lead to it, with the types of their items.
pub(super) fn uuids_of(item: &RootItem) -> impl Iterator<Item = ([u8; 16], u8)> {
    let uuids = [
        (item.uuid, item_type::UUID_SUBVOL),
        (item.received_uuid, item_type::UUID_RECEIVED_SUBVOL),
    ];
    uuids.into_iter().filter(|(uuid, _)| *uuid != [0; 16])
}

/// The subvolumes in an item.
pub(super) fn ids(data: &[u8]) -> impl Iterator<Item = u64> + '_ {
    data.chunks(ID)
        .filter_map(|id| Some(u64::from_le_bytes(id.try_into().ok()?)))
}

/// The item of a UUID, empty if there is none; `None` without a tree.
fn item<V: View>(view: &V, key: &Key) -> Result<Option<KVec<u8>>> {
    let root = match view.tree_root(TREE) {
        Ok(root) => root,
        Err(e) if e == ENOENT => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut data = KVec::new();
    let mut cursor = Cursor::new(view, root);
    if cursor.seek(key)? {
        let (_, found) = cursor.item().ok_or(EUCLEAN)?;
        data.extend_from_slice(found, GFP_KERNEL)?;
    }
    Ok(Some(data))
}

/// Whether a UUID leads to a subvolume.
pub(super) fn leads<V: View>(view: &V, uuid: &[u8; 16], typ: u8, tree: u64) -> Result<bool> {
    let data = item(view, &key(uuid, typ))?;
    Ok(data.is_some_and(|data| ids(&data).any(|id| id == tree)))
}

/// Whether a UUID leads to a subvolume, or can be made to.
pub(super) fn can_lead(
    trans: &Transaction<'_>,
    uuid: &[u8; 16],
    typ: u8,
    tree: u64,
) -> Result<bool> {
    let Some(data) = item(trans, &key(uuid, typ))? else {
        return Ok(true);
    };
    let fits = data.len().saturating_add(ID) <= max_item_size(trans.geometry());
    Ok(fits || ids(&data).any(|id| id == tree))
}

/// Adds a subvolume to those that a UUID leads to. The item type tells which UUID of the subvolume
/// it is.
///
/// # Errors
///
/// `EOVERFLOW`, before anything is changed, if it leads to as many as an item has place for.
pub(super) fn add(trans: &mut Transaction<'_>, uuid: &[u8; 16], typ: u8, tree: u64) -> Result {
    let key = key(uuid, typ);
    let Some(mut data) = item(trans, &key)? else {
        return Ok(());
    };
    if ids(&data).any(|id| id == tree) {
        return Ok(());
    }
    let is_new = data.is_empty();
    data.extend_from_slice(&tree.to_le_bytes(), GFP_KERNEL)?;
    if is_new {
        edit::insert(trans, TREE, &key, &data)
    } else {
        edit::replace(trans, TREE, &key, &data)
    }
}

/// Removes a subvolume from those that a UUID leads to, if it is one of them.
pub(super) fn remove(trans: &mut Transaction<'_>, uuid: &[u8; 16], typ: u8, tree: u64) -> Result {
    let key = key(uuid, typ);
    let Some(data) = item(trans, &key)? else {
        return Ok(());
    };
    let id = tree.to_le_bytes();
    let mut rest = KVec::new();
    for found in data.chunks(ID).filter(|found| **found != id) {
        rest.extend_from_slice(found, GFP_KERNEL)?;
    }
    if rest.len() == data.len() {
        return Ok(());
    }
    if rest.is_empty() {
        edit::delete(trans, TREE, &key)
    } else {
        edit::replace(trans, TREE, &key, &rest)
    }
}
