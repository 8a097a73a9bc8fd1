// SPDX-License-Identifier: GPL-2.0
//! From a logical address to the files that have it.

use crate::extent::backref::{all_refs, find_extent, FoundExtent};
use crate::extent::refs::RefKind;
use crate::format::file_extent::{compression, FileExtentHead, FileExtentItem, TYPE_INLINE};
use crate::format::{self, item_type, tree_id, Key};
use crate::send::backrefs::roots_of;
use crate::trans::Reader;
use crate::tree::{Node, NodePtr, Nodes};
use kernel::prelude::*;

/// The most that a compressed extent holds, in bytes.
const MAX_COMPRESSED: u64 = 128 << 10;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The subvolume's tree.
    pub root: u64,
    /// The inode in it.
    pub ino: u64,
    /// The offset in the file, in bytes.
    pub offset: u64,
}

/// Calls `each` with every place that has the byte at `logical` or, with `whole_extent`, any byte
/// of its extent.
///
/// # Errors
///
/// `ENOENT` if no data extent has that address, `EINTR` on a fatal signal, `EUCLEAN` for damaged
/// trees, `ENOMEM`, and what reading nodes or `each` gives.
pub fn for_each_owner(
    reader: &Reader,
    logical: u64,
    whole_extent: bool,
    each: &mut dyn FnMut(Owner) -> Result,
) -> Result {
    let extent = data_extent_at(reader, logical)?;
    let position = (!whole_extent).then(|| logical.wrapping_sub(extent.bytenr()));
    for leaf in leaves_of(reader, &extent)?.iter() {
        let roots = roots_of(reader, *leaf)?;
        let node = reader.node(&leaf_at(*leaf))?;
        for root in roots.iter().copied().filter(|id| tree_id::is_fs_tree(*id)) {
            for_each_place(&node, extent.bytenr(), position, &mut |ino, offset| {
                each(Owner { root, ino, offset })
            })?;
        }
        crate::platform::yield_now();
        if crate::platform::fatal_signal_pending() {
            return Err(EINTR);
        }
    }
    Ok(())
}

/// The data extent that has the byte at `logical`.
fn data_extent_at(reader: &Reader, logical: u64) -> Result<FoundExtent> {
    let root = reader.root(tree_id::EXTENT)?;
    let mut cursor = reader.cursor(root);
    let mut more = cursor.seek_before(&Key::new(logical, item_type::METADATA_ITEM, u64::MAX))?;
    while more {
        let key = cursor.key().ok_or(ENOENT)?;
        match key.typ {
            item_type::METADATA_ITEM => return Err(ENOENT),
            item_type::EXTENT_ITEM => {
                let end = key.objectid.saturating_add(key.offset);
                let found = find_extent(reader.fs(), reader, root, key.objectid)?;
                return found
                    .filter(|extent| extent.is_data() && logical < end)
                    .ok_or(ENOENT);
            }
            // References and block groups stand between the extents.
            _ => more = cursor.prev()?,
        }
    }
    Err(ENOENT)
}

/// The leaves with file extent items of `extent`, sorted.
fn leaves_of(reader: &Reader, extent: &FoundExtent) -> Result<KVec<u64>> {
    let mut leaves = KVec::new();
    let extent_root = reader.root(tree_id::EXTENT)?;
    for counted in all_refs(reader.fs(), reader, extent_root, extent)?.iter() {
        match counted.kind {
            RefKind::SharedData { parent } => leaves.push(parent, GFP_KERNEL)?,
            RefKind::Data { root, ino, offset } if tree_id::is_fs_tree(root) => {
                add_leaves(reader, extent, (root, ino, offset), &mut leaves)?;
            }
            _ => {}
        }
    }
    crate::sort::sort(&mut leaves);
    let mut last = None;
    leaves.retain(|leaf| last.replace(*leaf) != Some(*leaf));
    Ok(leaves)
}

/// Adds the leaves that a reference by tree, inode and offset stands for.
fn add_leaves(
    reader: &Reader,
    extent: &FoundExtent,
    (root, ino, offset): (u64, u64, u64),
    leaves: &mut KVec<u64>,
) -> Result {
    // The offset is that of the extent's first byte, which may lie before the file's.
    let from = if offset > i64::MAX as u64 { 0 } else { offset };
    let span = extent.num_bytes.max(MAX_COMPRESSED);
    let mut cursor = reader.cursor(reader.root(root)?);
    cursor.seek(&Key::new(ino, item_type::EXTENT_DATA, from))?;
    while let Some((key, data)) = cursor.item() {
        if !key.is(ino, item_type::EXTENT_DATA) || key.offset.wrapping_sub(offset) >= span {
            break;
        }
        if let Some(item) = reference(data, extent.bytenr())? {
            let leaf = cursor.node_at(0).map(|leaf| leaf.bytenr());
            if key.offset.wrapping_sub(item.offset.get()) == offset {
                leaves.push(leaf.ok_or(EUCLEAN)?, GFP_KERNEL)?;
            }
        }
        cursor.next()?;
    }
    Ok(())
}

/// The file extent item, if it refers to the extent at `bytenr`.
fn reference(data: &[u8], bytenr: u64) -> Result<Option<FileExtentItem>> {
    let head: FileExtentHead = format::read(data)?;
    if head.typ == TYPE_INLINE {
        return Ok(None);
    }
    let item: FileExtentItem = format::read(data)?;
    Ok((item.disk_bytenr.get() == bytenr).then_some(item))
}

/// Calls `each` with inode and file offset of what in `leaf` refers to the extent at `bytenr`, and
/// has its byte at `position` if one is given. Of compressed data no byte has a place of its own.
fn for_each_place(
    leaf: &Node,
    bytenr: u64,
    position: Option<u64>,
    each: &mut dyn FnMut(u64, u64) -> Result,
) -> Result {
    for slot in 0..leaf.nritems() as usize {
        let Some((key, data)) = leaf.item(slot) else {
            break;
        };
        if key.typ != item_type::EXTENT_DATA {
            continue;
        }
        let Some(item) = reference(data, bytenr)? else {
            continue;
        };
        let head: FileExtentHead = format::read(data)?;
        let into = match position {
            Some(position) if head.compression == compression::NONE => {
                match position.checked_sub(item.offset.get()) {
                    Some(into) if into < item.num_bytes.get() => into,
                    _ => continue,
                }
            }
            _ => 0,
        };
        each(key.objectid, key.offset.saturating_add(into))?;
    }
    Ok(())
}

/// A leaf of which only the address is known.
fn leaf_at(bytenr: u64) -> NodePtr {
    NodePtr {
        bytenr,
        generation: 0,
        level: 0,
        tree: 0,
        first_key: None,
    }
}
