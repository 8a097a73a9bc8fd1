// SPDX-License-Identifier: GPL-2.0
//! Extended attributes.

use super::dir::{Entries, Entry};
use crate::format::crc::name_hash;
use crate::format::{item_type, Key};
use crate::tree::{Cursor, Nodes, TreeRoot};
use kernel::prelude::*;

/// Gives `found` the value of the attribute `name` (with its prefix, such as `user.`) of inode
/// `ino`.
///
/// # Errors
///
/// `ENODATA` if there is none, `EUCLEAN` for a damaged item, or what reading nodes or `found`
/// gives.
pub fn get<S: Nodes, T>(
    nodes: &S,
    root: TreeRoot,
    ino: u64,
    name: &[u8],
    found: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    let mut cursor = Cursor::new(nodes, root);
    if !cursor.seek(&Key::new(ino, item_type::XATTR_ITEM, name_hash(name)))? {
        return Err(ENODATA);
    }
    let (_, data) = cursor.item().ok_or(EUCLEAN)?;
    for entry in Entries::new(data) {
        let entry = entry?;
        if entry.name == name {
            return found(entry.value);
        }
    }
    Err(ENODATA)
}

/// Calls `each` for every attribute of inode `ino` until it answers `false`.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item, or what reading nodes or `each` gives.
pub fn for_each<S: Nodes>(
    nodes: &S,
    root: TreeRoot,
    ino: u64,
    each: &mut dyn FnMut(&Entry<'_>) -> Result<bool>,
) -> Result {
    let mut cursor = Cursor::new(nodes, root);
    cursor.seek(&Key::new(ino, item_type::XATTR_ITEM, 0))?;
    while let Some((key, data)) = cursor.item() {
        if !key.is(ino, item_type::XATTR_ITEM) {
            break;
        }
        for entry in Entries::new(data) {
            if !each(&entry?)? {
                return Ok(());
            }
        }
        cursor.next()?;
    }
    Ok(())
}
