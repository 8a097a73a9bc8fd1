// SPDX-License-Identifier: GPL-2.0
//! Inode items, and the names by which directories hold an inode.

use crate::format::inode::{InodeExtref, InodeItem, InodeRef};
use crate::format::{self, item_type, Key};
use crate::tree::{Cursor, Nodes, TreeRoot};
use kernel::prelude::*;

/// Reads the item of inode `ino`.
///
/// # Errors
///
/// `ENOENT` if there is none, `EUCLEAN` if it is too short, or what reading nodes gives.
pub fn read<S: Nodes>(nodes: &S, root: TreeRoot, ino: u64) -> Result<InodeItem> {
    let mut cursor = Cursor::new(nodes, root);
    if !cursor.seek(&Key::new(ino, item_type::INODE_ITEM, 0))? {
        return Err(ENOENT);
    }
    let (_, data) = cursor.item().ok_or(ENOENT)?;
    format::read(data)
}

/// One name of an inode.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// The directory's inode number.
    pub parent: u64,
    /// The `DIR_INDEX` of the entry.
    pub index: u64,
    /// The name.
    pub name: &'a [u8],
}

/// Calls `each` for every name in one `INODE_REF` or `INODE_EXTREF` item until it answers `false`.
///
/// Returns whether `each` wants more.
///
/// # Errors
///
/// `EUCLEAN` where the item ends within a name, or what `each` gives.
pub fn names_of_item(
    key: &Key,
    mut data: &[u8],
    each: &mut dyn FnMut(Name<'_>) -> Result<bool>,
) -> Result<bool> {
    while !data.is_empty() {
        let (parent, index, head, len) = if key.typ == item_type::INODE_EXTREF {
            let item: InodeExtref = format::read(data)?;
            let parent = item.parent_objectid.get();
            (
                parent,
                item.index.get(),
                size_of::<InodeExtref>(),
                item.name_len,
            )
        } else {
            let item: InodeRef = format::read(data)?;
            (
                key.offset,
                item.index.get(),
                size_of::<InodeRef>(),
                item.name_len,
            )
        };
        let len = usize::from(len.get());
        let name = format::slice(data, head, len)?;
        if !each(Name {
            parent,
            index,
            name,
        })? {
            return Ok(false);
        }
        // `slice` found `head + len` bytes, so the sum does not overflow.
        data = data.get(head.saturating_add(len)..).ok_or(EUCLEAN)?;
    }
    Ok(true)
}

/// Calls `each` for every name of inode `ino`, in key order, until it answers `false`.
///
/// # Errors
///
/// What reading nodes, [`names_of_item`] or `each` gives.
pub fn for_each_name<S: Nodes>(
    nodes: &S,
    root: TreeRoot,
    ino: u64,
    each: &mut dyn FnMut(Name<'_>) -> Result<bool>,
) -> Result {
    let mut cursor = Cursor::new(nodes, root);
    cursor.seek(&Key::new(ino, item_type::INODE_REF, 0))?;
    while let Some((key, data)) = cursor.item() {
        if key.objectid != ino || key.typ > item_type::INODE_EXTREF {
            break;
        }
        if !names_of_item(&key, data, each)? {
            break;
        }
        cursor.next()?;
    }
    Ok(())
}
