// SPDX-License-Identifier: GPL-2.0
//! Changing trees within a transaction: what the transaction offers, and the operations on single
//! items.
//!
//! Every operation walks from the root to a leaf, copies on the way each node that is committed
//! (`cow.rs`), and then changes only nodes that this transaction allocated. Leaves and nodes that
//! are full are split (`split.rs`), those that got too empty are merged with a neighbour
//! (`merge.rs`). At every return without an error the tree is whole: keys are in order, every
//! pointer holds the first key and the generation of its child, and no node but an only leaf is
//! empty.
//!
//! # Errors
//!
//! `EEXIST`, `ENOENT`, `EINVAL` and `EOVERFLOW`, where an operation lists them, are answers: the
//! tree holds what it held before, though nodes may have been copied. Any other error (no memory,
//! no space, a node that cannot be read) may come between two steps that belong together. Committed
//! nodes are untouched even then, and all else is the transaction's own: such an error must abort
//! the transaction, which drops its nodes and roots, and with that all of the change.

use super::cow::descend;
use super::insert::insert_at;
use super::merge::rebalance;
use super::node::{Geometry, Node, NodePtr, Nodes, TreeRoot};
use super::node_buf::NodeBuf;
use crate::format::header::{HEADER_SIZE, ITEM_SIZE, MAX_LEVEL};
use crate::format::Key;
use kernel::prelude::*;

pub use super::cow::cow_to;
pub use super::delete::delete;
pub use super::insert::{insert, insert_many};

/// What a transaction offers to the operations on trees.
///
/// None of these calls may change an item of any tree: what allocation and references owe to the
/// extent tree is queued, and done when no operation is under way. `Nodes::node` must return dirty
/// nodes as they are now.
pub trait EditContext: Nodes {
    /// The generation of the running transaction.
    fn transid(&self) -> u64;

    /// The sizes of the volume.
    fn geometry(&self) -> &Geometry;

    /// The root of `tree` as this transaction sees it.
    fn root(&self, tree: u64) -> Result<TreeRoot>;

    /// Sets the root of `tree` and marks the tree as changed.
    fn set_root(&mut self, tree: u64, root: TreeRoot) -> Result;

    /// Whether the block at `bytenr` may be changed in place: this transaction allocated it, and
    /// one tree alone refers to it. Others are copied.
    fn is_dirty(&self, bytenr: u64) -> bool;

    /// A block allocated by this transaction.
    fn dirty_mut(&mut self, bytenr: u64) -> Result<&mut NodeBuf>;

    /// Allocates an empty block for `tree` at `level` and queues its reference. Returns its
    /// address.
    fn alloc_node(&mut self, tree: u64, level: u8) -> Result<u64>;

    /// Copies the block `old`, reached in `tree`, to a new one, and does all accounting of
    /// references: that of the new block, of what it points to, and of the old one. Returns the new
    /// address.
    fn cow_node(&mut self, tree: u64, old: &NodePtr) -> Result<u64>;

    /// Drops the reference of a block of `tree` that this transaction allocated and nothing points
    /// to any more, and the block itself.
    fn free_node(&mut self, tree: u64, bytenr: u64) -> Result;
}

/// A node on the way to a key, and the slot the way goes on at (in the leaf: where the item is or
/// belongs).
#[derive(Clone, Copy, Default)]
pub(super) struct Step {
    pub(super) bytenr: u64,
    pub(super) slot: usize,
}

/// The way from the root to a key; its nodes are dirty.
pub(super) struct EditPath {
    pub(super) tree: u64,
    pub(super) root_level: u8,
    /// Whether the leaf holds the key itself.
    pub(super) exact: bool,
    steps: [Step; MAX_LEVEL as usize],
}

impl EditPath {
    /// A path of which only the level of the root is known, below [`MAX_LEVEL`].
    pub(super) fn new(tree: u64, root_level: u8) -> Result<Self> {
        if root_level >= MAX_LEVEL {
            return Err(EUCLEAN);
        }
        Ok(Self {
            tree,
            root_level,
            exact: false,
            steps: [Step::default(); MAX_LEVEL as usize],
        })
    }

    pub(super) fn step(&self, level: u8) -> Result<Step> {
        self.steps.get(usize::from(level)).copied().ok_or(EOVERFLOW)
    }

    pub(super) fn set_step(&mut self, level: u8, bytenr: u64, slot: usize) -> Result {
        let step = self.steps.get_mut(usize::from(level)).ok_or(EOVERFLOW)?;
        *step = Step { bytenr, slot };
        Ok(())
    }

    /// The first key to the right of the leaf, or `None` if the leaf is the last one.
    pub(super) fn upper_bound<C: EditContext>(&self, cx: &mut C) -> Result<Option<Key>> {
        for level in 1..=self.root_level {
            let step = self.step(level)?;
            let node = cx.dirty_mut(step.bytenr)?;
            if let Some(key) = step.slot.checked_add(1).and_then(|slot| node.key(slot)) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// The last key to the left of the leaf, or `None` if the leaf is the first one.
    fn last_key_before<C: EditContext>(&self, cx: &mut C) -> Result<Option<Key>> {
        for level in 1..=self.root_level {
            let step = self.step(level)?;
            let Some(before) = step.slot.checked_sub(1) else {
                continue;
            };
            let mut ptr = cx
                .dirty_mut(step.bytenr)?
                .child_ptr(before, self.tree)
                .ok_or(EUCLEAN)?;
            loop {
                let node = read_node(cx, &ptr)?;
                let last = (node.nritems() as usize).checked_sub(1).ok_or(EUCLEAN)?;
                if node.is_leaf() {
                    return Ok(node.key(last));
                }
                let next = node.child_ptr(last, self.tree).ok_or(EUCLEAN)?;
                drop(node);
                ptr = next;
            }
        }
        Ok(None)
    }
}

/// Reads a node, committed or dirty, and holds it against its pointer's level: that each step leads
/// one level down is what ends every walk.
pub(super) fn read_node<'c, C: Nodes>(cx: &'c C, ptr: &NodePtr) -> Result<C::Ref<'c>> {
    let node = cx.node(ptr)?;
    if node.level() != ptr.level {
        return Err(EUCLEAN);
    }
    Ok(node)
}

/// The size of the largest item's data, in bytes.
pub fn max_item_size(geometry: &Geometry) -> usize {
    usize::from(geometry.nodesize).saturating_sub(HEADER_SIZE + ITEM_SIZE)
}

/// The data of the item at `key`, or `None` if there is no such item. Copies no nodes.
///
/// # Errors
///
/// `ENOMEM`, and what reading nodes returns.
pub fn get<C: EditContext>(cx: &C, tree: u64, key: &Key) -> Result<Option<KVec<u8>>> {
    let mut ptr = cx.root(tree)?.into();
    loop {
        let node = read_node(cx, &ptr)?;
        if node.is_leaf() {
            return match find(&node, key) {
                None => Ok(None),
                Some(item) => {
                    let mut data = KVec::new();
                    data.extend_from_slice(item, GFP_KERNEL)?;
                    Ok(Some(data))
                }
            };
        }
        let next = node.child_ptr(node.child_slot(key), tree).ok_or(EUCLEAN)?;
        drop(node);
        ptr = next;
    }
}

fn find<'n>(leaf: &'n Node, key: &Key) -> Option<&'n [u8]> {
    let slot = leaf.search(key).ok()?;
    leaf.item(slot).map(|(_, data)| data)
}

/// Lets `change` overwrite the data of the item at `key`, whose size stays. If `change` fails, its
/// error is returned, and the data is as it left it.
///
/// # Errors
///
/// `ENOENT` if there is no such item.
pub fn update_in_place<C: EditContext>(
    cx: &mut C,
    tree: u64,
    key: &Key,
    change: impl FnOnce(&mut [u8]) -> Result,
) -> Result {
    let path = descend(cx, tree, key, 0)?;
    if !path.exact {
        return Err(ENOENT);
    }
    let step = path.step(0)?;
    let leaf = cx.dirty_mut(step.bytenr)?;
    change(leaf.item_mut(step.slot).ok_or(EUCLEAN)?)
}

/// Replaces the data of the item at `key`; the size may change.
///
/// # Errors
///
/// `ENOENT` if there is no such item, `EOVERFLOW` if `data` is longer than [`max_item_size`].
pub fn replace<C: EditContext>(cx: &mut C, tree: u64, key: &Key, data: &[u8]) -> Result {
    if data.len() > max_item_size(cx.geometry()) {
        return Err(EOVERFLOW);
    }
    let mut path = descend(cx, tree, key, 0)?;
    if !path.exact {
        return Err(ENOENT);
    }
    let step = path.step(0)?;
    let leaf = cx.dirty_mut(step.bytenr)?;
    let old = leaf.item_mut(step.slot).ok_or(EUCLEAN)?;
    let old_len = old.len();
    if old_len == data.len() {
        old.copy_from_slice(data);
        return Ok(());
    }
    leaf.remove_item(step.slot)?;
    insert_at(cx, &mut path, key, data)?;
    if data.len() < old_len {
        rebalance(cx, &mut path)?;
    }
    Ok(())
}

/// Gives the item at `old` the key `new`, at the same place in the order.
///
/// # Errors
///
/// `ENOENT` if there is no such item, `EINVAL` if another item's key is `new` or lies between `old`
/// and `new`.
pub fn set_key<C: EditContext>(cx: &mut C, tree: u64, old: &Key, new: &Key) -> Result {
    let path = descend(cx, tree, old, 0)?;
    if !path.exact {
        return Err(ENOENT);
    }
    let step = path.step(0)?;
    let leaf = cx.dirty_mut(step.bytenr)?;
    let next = step.slot.checked_add(1).and_then(|slot| leaf.key(slot));
    let before = step.slot.checked_sub(1).and_then(|slot| leaf.key(slot));
    let next = match next {
        None if new > old => path.upper_bound(cx)?,
        next => next,
    };
    let before = match before {
        None if new < old => path.last_key_before(cx)?,
        before => before,
    };
    if next.is_some_and(|next| *new >= next) || before.is_some_and(|before| *new <= before) {
        return Err(EINVAL);
    }
    cx.dirty_mut(step.bytenr)?.set_item_key(step.slot, new)?;
    if step.slot == 0 {
        set_low_key(cx, &path, 0, new)?;
    }
    Ok(())
}

/// Tells the ancestors of the node on `path` at `level` that its first key is `key` now.
pub(super) fn set_low_key<C: EditContext>(
    cx: &mut C,
    path: &EditPath,
    level: u8,
    key: &Key,
) -> Result {
    for above in level.saturating_add(1)..=path.root_level {
        let step = path.step(above)?;
        cx.dirty_mut(step.bytenr)?.set_ptr_key(step.slot, key)?;
        if step.slot != 0 {
            break;
        }
    }
    Ok(())
}

/// Runs `change` on two dirty blocks at once.
pub(super) fn with_two<C: EditContext, T>(
    cx: &mut C,
    first: u64,
    second: u64,
    change: impl FnOnce(&mut NodeBuf, &mut NodeBuf) -> Result<T>,
) -> Result<T> {
    let mut taken = cx.dirty_mut(first)?.take();
    let result = match cx.dirty_mut(second) {
        Ok(second) => change(&mut taken, second),
        Err(e) => Err(e),
    };
    *cx.dirty_mut(first)? = taken;
    result
}
