// SPDX-License-Identifier: GPL-2.0
//! The tree that leads from UUIDs to subvolumes. Volumes of old kernels have none, and it is not made here.

use crate::format::{tree_id, Key};
use crate::tree::{edit, EditContext};
use crate::volume::Transaction;
use kernel::prelude::*;

const TREE: u64 = tree_id::UUID;
/// The size of a subvolume's id, in bytes.
const ID: usize = size_of::<u64>();

fn key(uuid: &[u8; 16], typ: u8) -> Key {
    let number = u128::from_le_bytes(*uuid);
    Key::new(number as u64, typ, (number >> 64) as u64)
}

/// The ids in the item of a UUID, `None` without a tree.
fn ids(trans: &Transaction<'_>, key: &Key) -> Result<Option<KVec<u8>>> {
    match EditContext::root(trans, TREE) {
        Ok(_) => Ok(Some(edit::get(trans, TREE, key)?.unwrap_or(KVec::new()))),
        Err(e) if e == ENOENT => Ok(None),
        Err(e) => Err(e),
    }
}

/// Adds a subvolume to those that a UUID leads to. The item type tells which UUID of the subvolume it is.
pub(super) fn add(trans: &mut Transaction<'_>, uuid: &[u8; 16], typ: u8, tree: u64) -> Result {
    let key = key(uuid, typ);
    let Some(mut data) = ids(trans, &key)? else {
        return Ok(());
    };
    let id = tree.to_le_bytes();
    if data.chunks(ID).any(|found| found == id) {
        return Ok(());
    }
    let is_new = data.is_empty();
    data.extend_from_slice(&id, GFP_KERNEL)?;
    if is_new {
        edit::insert(trans, TREE, &key, &data)
    } else {
        edit::replace(trans, TREE, &key, &data)
    }
}

/// Removes a subvolume from those that a UUID leads to, if it is one of them.
pub(super) fn remove(trans: &mut Transaction<'_>, uuid: &[u8; 16], typ: u8, tree: u64) -> Result {
    let key = key(uuid, typ);
    let Some(data) = ids(trans, &key)? else {
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
