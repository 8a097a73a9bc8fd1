// SPDX-License-Identifier: GPL-2.0
//! From a logical address to the files that have it.

use super::data_ref::DataRef;
use super::give_way;
use super::leaves::{leaves_of, Visit};
use super::tree_block::roots_of;
use crate::extent::backref::{find_extent, FoundExtent};
use crate::format::{item_type, tree_id, Key};
use crate::trans::Reader;
use kernel::prelude::*;

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

/// Follows the references of subvolumes.
struct Subvolumes;

impl Visit for Subvolumes {
    fn follows(&self, data_ref: &DataRef) -> bool {
        tree_id::is_fs_tree(data_ref.root)
    }
}

/// Calls `each` with every place that has the byte at `logical` or, with `whole_extent`, any byte
/// of its extent; in the C driver's order, see [`super::leaves`].
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
    let leaves = leaves_of(reader, &extent, position, &mut Subvolumes)?;
    for leaf in leaves.iter().flatten() {
        let roots = roots_of(reader, leaf.bytenr, u64::MAX)?;
        for root in roots.iter().copied().filter(|id| tree_id::is_fs_tree(*id)) {
            for place in leaf.places.iter() {
                each(Owner {
                    root,
                    ino: place.ino,
                    offset: place.offset,
                })?;
            }
        }
        give_way()?;
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
