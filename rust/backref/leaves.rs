// SPDX-License-Identifier: GPL-2.0
//! The leaves that have a data extent, and where in files they have it, in the C driver's order
//! (`find_parent_nodes`).
//!
//! The order decides what a send clones from and what `LOGICAL_INO` returns first: references by
//! tree before those by parent, larger numbers before smaller ones. Within a leaf the places of a
//! reference by tree come in the order of keys, and those of a reference by parent against it. So
//! the newest subvolume comes first.

use super::data_ref::{DataRef, Items};
use super::give_way;
use super::tree_block::{read_block, tree};
use crate::extent::backref::{all_refs, FoundExtent};
use crate::extent::refs::RefKind;
use crate::format::file_extent::{FileExtent, FileExtentItem};
use crate::format::{item_type, tree_id, Key};
use crate::sort::sort_by;
use crate::trans::Reader;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// Where a file has the extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The inode.
    pub ino: u64,
    /// Where in the file the byte is that is looked for, or where the part starts; in bytes.
    pub offset: u64,
    /// The length of the part, in bytes.
    pub num_bytes: u64,
}

/// A leaf that refers to the extent.
pub struct Leaf {
    /// Its logical address, in bytes.
    pub bytenr: u64,
    /// The places, in order.
    pub places: KVec<Place>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Walk on.
    GoOn,
    /// Nothing more is needed.
    Stop,
}

/// Takes part in the walk (`struct btrfs_backref_walk_ctx`).
pub trait Visit {
    /// Whether a reference by tree is followed (`skip_data_ref`).
    fn follows(&self, data_ref: &DataRef) -> bool;

    /// Is called with each place at once, before the leaves are sorted
    /// (`indirect_ref_iterator`).
    fn found(&mut self, _leaf: u64, _place: &Place) -> Step {
        Step::GoOn
    }
}

/// The leaves that have the extent, with the places of it or, with `position`, of its byte at that
/// offset; `None` if `visit` stopped the walk. Of data that is encoded no byte has a place of its
/// own: there, every part counts.
///
/// # Errors
///
/// `EUCLEAN` for damaged trees, `EINTR` on a fatal signal, `ENOMEM`, and those of reading nodes.
pub fn leaves_of(
    reader: &Reader,
    extent: &FoundExtent,
    position: Option<u64>,
    visit: &mut dyn Visit,
) -> Result<Option<KVec<Leaf>>> {
    let mut by_tree: KVec<(DataRef, u32)> = KVec::new();
    let mut by_parent = KVec::new();
    let extent_root = reader.root(tree_id::EXTENT)?;
    for counted in all_refs(reader.fs(), reader, extent_root, extent)?.iter() {
        match DataRef::of(&counted.kind) {
            Some(data_ref) if !visit.follows(&data_ref) => {}
            Some(data_ref) => by_tree.push((data_ref, counted.count), GFP_KERNEL)?,
            None => match counted.kind {
                RefKind::SharedData { parent } => by_parent.push(parent, GFP_KERNEL)?,
                _ => return Err(EUCLEAN),
            },
        }
    }
    sort_by(&mut by_tree, |a, b| b.cmp(a));
    sort_by(&mut by_parent, |a, b| b.cmp(a));
    let mut walk = Walk {
        reader,
        extent,
        position,
        by_parent: &by_parent,
        leaves: Leaves::new(),
        visit,
    };
    for (data_ref, count) in by_tree.iter() {
        if walk.by_tree(data_ref, *count)? == Step::Stop {
            return Ok(None);
        }
        give_way()?;
    }
    for parent in by_parent.iter() {
        if walk.by_parent(*parent)? == Step::Stop {
            return Ok(None);
        }
        give_way()?;
    }
    Ok(Some(walk.leaves.leaves))
}

/// Leaves in the order in which they were added first.
struct Leaves {
    leaves: KVec<Leaf>,
    /// Where the leaf of an address is in `leaves`.
    index: RBTree<u64, usize>,
}

impl Leaves {
    fn new() -> Self {
        Leaves {
            leaves: KVec::new(),
            index: RBTree::new(),
        }
    }

    /// The leaf at `bytenr`, which is added if it is new.
    fn leaf(&mut self, bytenr: u64) -> Result<&mut Leaf> {
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
        self.leaves.get_mut(at).ok_or(EUCLEAN)
    }
}

struct Walk<'w> {
    reader: &'w Reader,
    extent: &'w FoundExtent,
    position: Option<u64>,
    /// The leaves with references of their own, from the largest address down.
    by_parent: &'w [u64],
    leaves: Leaves,
    visit: &'w mut dyn Visit,
}

impl Walk<'_> {
    /// Adds the `count` places that a reference by tree stands for. It does not mean leaves that
    /// another tree allocated, or that have a reference of their own.
    fn by_tree(&mut self, data_ref: &DataRef, count: u32) -> Result<Step> {
        let Some(root) = tree(self.reader, data_ref.root)? else {
            return Ok(Step::GoOn);
        };
        let by_parent = self.by_parent;
        let takes = |leaf: &crate::tree::Node| {
            let address = leaf.bytenr();
            leaf.owner() == data_ref.root
                && by_parent.binary_search_by(|at| address.cmp(at)).is_err()
        };
        let extent = (self.extent.bytenr(), self.extent.num_bytes);
        let first = data_ref.first_key();
        let mut items = Items::new(self.reader, root, *data_ref, extent, &first)?;
        let mut places: KVec<(u64, Place)> = KVec::new();
        for _ in 0..count {
            let Some(found) = items.next(takes)? else {
                break;
            };
            let Some(place) = self.place(&found.key, &found.item) else {
                continue;
            };
            if self.visit.found(found.leaf, &place) == Step::Stop {
                return Ok(Step::Stop);
            }
            places.push((found.leaf, place), GFP_KERNEL)?;
        }
        // The largest address first; within a leaf the order of keys stays.
        sort_by(&mut places, |(a, here), (b, there)| {
            b.cmp(a).then(here.offset.cmp(&there.offset))
        });
        for (leaf, place) in places.iter() {
            let leaf = self.leaves.leaf(*leaf)?;
            leaf.places.push(*place, GFP_KERNEL)?;
        }
        Ok(Step::GoOn)
    }

    /// Adds the places in a leaf that is referred to by its address. The leaf counts even without
    /// any: a send remembers its trees, as the C driver does.
    fn by_parent(&mut self, leaf: u64) -> Result<Step> {
        let node = read_block(self.reader, leaf, 0, 0)?;
        let mut places: KVec<Place> = KVec::new();
        for slot in 0..node.nritems() as usize {
            let (key, data) = node.item(slot).ok_or(EUCLEAN)?;
            if key.typ != item_type::EXTENT_DATA {
                continue;
            }
            let item = FileExtent::read(data)?.in_extent_at(self.extent.bytenr());
            let Some(place) = item.and_then(|item| self.place(&key, item)) else {
                continue;
            };
            if self.visit.found(leaf, &place) == Step::Stop {
                return Ok(Step::Stop);
            }
            places.push(place, GFP_KERNEL)?;
        }
        places.reverse();
        let leaf = self.leaves.leaf(leaf)?;
        leaf.places.extend_from_slice(&places, GFP_KERNEL)?;
        Ok(Step::GoOn)
    }

    /// The place of the item at `key`, if it has the byte that is looked for.
    fn place(&self, key: &Key, item: &FileExtentItem) -> Option<Place> {
        let into = match self.position {
            Some(position) if !item.head.is_encoded() => {
                let into = position.checked_sub(item.offset.get())?;
                (into < item.num_bytes.get()).then_some(into)?
            }
            _ => 0,
        };
        Some(Place {
            ino: key.objectid,
            offset: key.offset.wrapping_add(into),
            num_bytes: item.num_bytes.get(),
        })
    }
}
