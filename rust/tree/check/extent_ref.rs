// SPDX-License-Identifier: GPL-2.0
//! References to extents that are items of their own, and what they have in common with inline
//! ones.

use super::fault::{aligned, at_least, fault, within, Checked, Expected};
use super::item::{part, Item};
use crate::format::extent::{ExtentDataRef, SharedDataRef};
use crate::format::{item_type, objectid, tree_id};

/// `TREE_BLOCK_REF` and `SHARED_BLOCK_REF`, whose key says all.
pub(super) fn check_block(item: &Item<'_>) -> Checked {
    item.size_is(0)?;
    check_address(item)?;
    if item.key.typ == item_type::SHARED_BLOCK_REF {
        check_parent(item, item.key.offset)?;
    }
    Ok(())
}

/// `SHARED_DATA_REF`.
pub(super) fn check_shared_data(item: &Item<'_>) -> Checked {
    item.size_is(size_of::<SharedDataRef>())?;
    if let Some(data) = item.part::<SharedDataRef>(0) {
        check_count(data.count.get())?;
    }
    check_address(item)?;
    check_parent(item, item.key.offset)
}

/// `EXTENT_DATA_REF`. The hash in the key is not held against the reference: where hashes collide,
/// the next one that is free was taken.
pub(super) fn check_data(item: &Item<'_>) -> Checked {
    const SIZE: usize = size_of::<ExtentDataRef>();
    let what = "invalid item size of a data reference";
    aligned(what, item.size(), SIZE as u64)?;
    check_address(item)?;
    for bytes in item.bytes.chunks_exact(SIZE) {
        if let Some(data) = part::<ExtentDataRef>(bytes, 0) {
            check_data_ref(item, data)?;
        }
    }
    Ok(())
}

/// The address of the extent, in the key.
fn check_address(item: &Item<'_>) -> Checked {
    let what = "unaligned extent address of a reference";
    item.sector_aligned(what, item.key.objectid)
}

/// The address of the block that refers to the extent.
pub(super) fn check_parent(item: &Item<'_>, parent: u64) -> Checked {
    item.sector_aligned("unaligned parent of a shared reference", parent)
}

/// A reference that stands for none is a mistake.
pub(super) fn check_count(count: u32) -> Checked {
    at_least("invalid count of a data reference", count.into(), 1)
}

/// A reference by a file: subvolumes have files, as have the tree of roots (free space caches of
/// the first version) and the data relocation tree.
pub(super) fn check_data_ref(item: &Item<'_>, data: &ExtentDataRef) -> Checked {
    let root = data.root.get();
    if !tree_id::is_fs_tree(root) && !matches!(root, tree_id::DATA_RELOC | tree_id::ROOT) {
        let trees = Expected::Words("a tree with files");
        return fault("invalid root of a data reference", root, trees);
    }
    let (first, last) = (objectid::FIRST_FREE, objectid::LAST_FREE);
    let ino = data.objectid.get();
    within("invalid inode of a data reference", ino, first, last)?;
    item.sector_aligned("unaligned offset of a data reference", data.offset.get())?;
    check_count(data.count.get())
}
