// SPDX-License-Identifier: GPL-2.0
//! Directory entries and extended attributes within their items. Names whose hashes are equal share
//! an item.

use crate::format::dir::{DirItem, NAME_LEN};
use crate::format::Key;
use crate::subvol::dir::Entries;
use crate::trans::Transaction;
use crate::tree::edit::{self, max_item_size};
use crate::tree::{Cursor, EditContext};
use kernel::prelude::*;
use zerocopy::IntoBytes;

/// An entry as it is stored.
///
/// # Errors
///
/// `EINVAL` for an empty name, `ENAMETOOLONG` for one that is too long, `E2BIG` for a value of 64
/// KiB and more, `ENOMEM`.
pub(in crate::subvol) fn encode_entry(
    location: Key,
    transid: u64,
    typ: u8,
    name: &[u8],
    value: &[u8],
) -> Result<KVec<u8>> {
    if name.is_empty() {
        return Err(EINVAL);
    }
    if name.len() > NAME_LEN {
        return Err(ENAMETOOLONG);
    }
    let head = DirItem {
        location: location.into(),
        transid: transid.into(),
        data_len: u16::try_from(value.len()).map_err(|_| E2BIG)?.into(),
        name_len: (name.len() as u16).into(),
        typ,
    };
    let len = size_of::<DirItem>()
        .saturating_add(name.len())
        .saturating_add(value.len());
    let mut bytes = KVec::with_capacity(len, GFP_KERNEL)?;
    bytes.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
    bytes.extend_from_slice(name, GFP_KERNEL)?;
    bytes.extend_from_slice(value, GFP_KERNEL)?;
    Ok(bytes)
}

/// Where an entry lies in its item's data, in bytes.
fn find(data: &[u8], name: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut at = 0usize;
    for entry in Entries::new(data) {
        let entry = entry?;
        let end = at
            .checked_add(size_of::<DirItem>())
            .and_then(|at| at.checked_add(entry.name.len()))
            .and_then(|at| at.checked_add(entry.value.len()))
            .ok_or(EUCLEAN)?;
        if entry.name == name {
            return Ok(Some((at, end)));
        }
        at = end;
    }
    Ok(None)
}

/// Whether an entry of `len` bytes can be added to the item at `key`.
///
/// # Errors
///
/// `EEXIST` if the name is there, `EOVERFLOW` if the item would become too large.
pub(in crate::subvol) fn check_entry(
    trans: &Transaction<'_>,
    tree: u64,
    key: &Key,
    name: &[u8],
    len: usize,
) -> Result {
    let mut cursor = Cursor::new(trans, EditContext::root(trans, tree)?);
    let mut size = len;
    if cursor.seek(key)? {
        let (_, data) = cursor.item().ok_or(EUCLEAN)?;
        if find(data, name)?.is_some() {
            return Err(EEXIST);
        }
        size = size.saturating_add(data.len());
    }
    if size > max_item_size(trans.geometry()) {
        return Err(EOVERFLOW);
    }
    Ok(())
}

/// Adds an entry to the item at `key`.
pub(in crate::subvol) fn add_entry(
    trans: &mut Transaction<'_>,
    tree: u64,
    key: &Key,
    entry: &[u8],
) -> Result {
    match edit::get(trans, tree, key)? {
        Some(mut data) => {
            data.extend_from_slice(entry, GFP_KERNEL)?;
            edit::replace(trans, tree, key, &data)
        }
        None => edit::insert(trans, tree, key, entry),
    }
}

/// Removes the entry of `name` from the item at `key`, and the item with its last one.
///
/// # Errors
///
/// `ENOENT` if there is no such entry.
pub(crate) fn remove_entry(
    trans: &mut Transaction<'_>,
    tree: u64,
    key: &Key,
    name: &[u8],
) -> Result {
    let data = edit::get(trans, tree, key)?.ok_or(ENOENT)?;
    let (from, to) = find(&data, name)?.ok_or(ENOENT)?;
    let (head, tail) = (data.get(..from), data.get(to..));
    let (head, tail) = (head.ok_or(EUCLEAN)?, tail.ok_or(EUCLEAN)?);
    if head.is_empty() && tail.is_empty() {
        return edit::delete(trans, tree, key);
    }
    let mut rest = KVec::with_capacity(data.len(), GFP_KERNEL)?;
    rest.extend_from_slice(head, GFP_KERNEL)?;
    rest.extend_from_slice(tail, GFP_KERNEL)?;
    edit::replace(trans, tree, key, &rest)
}
