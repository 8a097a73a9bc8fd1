// SPDX-License-Identifier: GPL-2.0
//! From a logical address to the files that have it.

use crate::extent::backref::{all_refs, find_extent, FoundExtent};
use crate::extent::refs::RefKind;
use crate::format::file_extent::{compression, FileExtent, FileExtentItem, MAX_COMPRESSED};
use crate::format::{item_type, tree_id, Key};
use crate::send::backrefs::roots_of;
use crate::sort::sort_by;
use crate::trans::Reader;
use crate::tree::{NodePtr, Nodes};
use kernel::prelude::*;
use kernel::rbtree::RBTree;

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
/// of its extent; in the C driver's order, see [`Leaves`].
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
    let wanted = Wanted {
        bytenr: extent.bytenr(),
        position: (!whole_extent).then(|| logical.wrapping_sub(extent.bytenr())),
        span: extent.num_bytes.max(MAX_COMPRESSED),
    };
    for leaf in leaves_of(reader, &extent, &wanted)?.iter() {
        let roots = roots_of(reader, leaf.bytenr)?;
        for root in roots.iter().copied().filter(|id| tree_id::is_fs_tree(*id)) {
            for (ino, offset) in leaf.places.iter().copied() {
                each(Owner { root, ino, offset })?;
            }
        }
        give_way()?;
    }
    Ok(())
}

/// Lets others run. Fails with `EINTR` on a fatal signal.
fn give_way() -> Result {
    crate::platform::yield_now();
    if crate::platform::fatal_signal_pending() {
        return Err(EINTR);
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

/// What is looked for in a leaf.
struct Wanted {
    /// The extent's logical address, in bytes.
    bytenr: u64,
    /// The byte of it that a place must have, if one is asked for.
    position: Option<u64>,
    /// The most bytes of a file that the extent can cover.
    span: u64,
}

impl Wanted {
    /// Where in its file the item at `key` has the byte, or where it starts if none is asked for;
    /// `None` if it does not have it. Of compressed data no byte has a place of its own.
    fn place(&self, key: &Key, item: &FileExtentItem) -> Option<u64> {
        let into = match self.position {
            Some(position) if item.head.compression == compression::NONE => {
                let into = position.checked_sub(item.offset.get())?;
                (into < item.num_bytes.get()).then_some(into)?
            }
            _ => 0,
        };
        Some(key.offset.saturating_add(into))
    }
}

/// A leaf with file extent items of the extent.
struct Leaf {
    bytenr: u64,
    /// Inode and offset of each place, in bytes.
    places: KVec<(u64, u64)>,
}

/// Leaves in the order in which the C driver comes upon them: references by file before those by
/// leaf, larger numbers before smaller ones. Within a leaf the places of references by file come in
/// that order, too, and those of a reference by leaf against the order of keys. So the newest
/// subvolume comes first, and in a file the last place.
struct Leaves {
    leaves: KVec<Leaf>,
    /// Where the leaf of an address is in `leaves`.
    index: RBTree<u64, usize>,
}

impl Leaves {
    /// Adds a place in the leaf at `bytenr`.
    fn add(&mut self, bytenr: u64, place: (u64, u64)) -> Result {
        let at = match self.index.get(&bytenr) {
            Some(at) => *at,
            None => {
                let at = self.leaves.len();
                let places = KVec::new();
                self.leaves.push(Leaf { bytenr, places }, GFP_KERNEL)?;
                self.index.try_create_and_insert(bytenr, at, GFP_KERNEL)?;
                at
            }
        };
        let leaf = self.leaves.get_mut(at).ok_or(EUCLEAN)?;
        Ok(leaf.places.push(place, GFP_KERNEL)?)
    }
}

/// A reference by file: tree, inode, and the offset in the file of the extent's first byte, modulo
/// 2^64.
type FileRef = (u64, u64, u64);

/// The leaves with what is wanted, with its places.
fn leaves_of(reader: &Reader, extent: &FoundExtent, wanted: &Wanted) -> Result<KVec<Leaf>> {
    let mut by_file: KVec<FileRef> = KVec::new();
    let mut by_leaf = KVec::new();
    let extent_root = reader.root(tree_id::EXTENT)?;
    for counted in all_refs(reader.fs(), reader, extent_root, extent)?.iter() {
        match counted.kind {
            RefKind::SharedData { parent } => by_leaf.push(parent, GFP_KERNEL)?,
            RefKind::Data { root, ino, offset } if tree_id::is_fs_tree(root) => {
                by_file.push((root, ino, offset), GFP_KERNEL)?;
            }
            _ => {}
        }
    }
    sort_by(&mut by_file, |a, b| b.cmp(a));
    sort_by(&mut by_leaf, |a, b| b.cmp(a));
    let mut found = Leaves {
        leaves: KVec::new(),
        index: RBTree::new(),
    };
    for file in by_file.iter() {
        add_by_file(reader, wanted, *file, &by_leaf, &mut found)?;
        give_way()?;
    }
    for leaf in by_leaf.iter() {
        let node = reader.node(&leaf_at(*leaf))?;
        for slot in (0..node.nritems() as usize).rev() {
            let Some((key, data)) = node.item(slot) else {
                continue;
            };
            if key.typ != item_type::EXTENT_DATA {
                continue;
            }
            if let Some(item) = FileExtent::read(data)?.in_extent_at(wanted.bytenr) {
                if let Some(offset) = wanted.place(&key, item) {
                    found.add(*leaf, (key.objectid, offset))?;
                }
            }
        }
        give_way()?;
    }
    Ok(found.leaves)
}

/// Adds the places that a reference by file stands for. A leaf that another tree allocated, or that
/// has references of its own, which are in `by_leaf`, is not meant by it.
fn add_by_file(
    reader: &Reader,
    wanted: &Wanted,
    (root, ino, offset): FileRef,
    by_leaf: &[u64],
    found: &mut Leaves,
) -> Result {
    // The extent's first byte may lie before the file's.
    let from = if offset > i64::MAX as u64 { 0 } else { offset };
    let mut leaves: KVec<(u64, u64)> = KVec::new();
    let mut cursor = reader.cursor(reader.root(root)?);
    cursor.seek(&Key::new(ino, item_type::EXTENT_DATA, from))?;
    while let Some((key, data)) = cursor.item() {
        if !key.is(ino, item_type::EXTENT_DATA) || key.offset.wrapping_sub(offset) >= wanted.span {
            break;
        }
        if let Some(item) = FileExtent::read(data)?.in_extent_at(wanted.bytenr) {
            let leaf = cursor.node_at(0).ok_or(EUCLEAN)?;
            let is_meant = leaf.owner() == root
                && by_leaf
                    .binary_search_by(|other| leaf.bytenr().cmp(other))
                    .is_err();
            if is_meant && item.backref_offset(key.offset) == offset {
                if let Some(offset) = wanted.place(&key, item) {
                    leaves.push((leaf.bytenr(), offset), GFP_KERNEL)?;
                }
            }
        }
        cursor.next()?;
    }
    // Of several leaves the one with the largest address comes first; within a leaf the order of
    // keys stays.
    sort_by(&mut leaves, |a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    for (leaf, offset) in leaves.iter() {
        found.add(*leaf, (ino, *offset))?;
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
