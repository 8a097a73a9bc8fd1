// SPDX-License-Identifier: GPL-2.0
//! Merging blocks that got too empty with their neighbours, and shrinking the tree at its root.
//!
//! A block less than a third full goes into its left or its right neighbour under the same parent
//! if one of them can take it, or is spread over both. The parent then has a pointer less, and may
//! be the next to merge.

use super::cow::dirty_child;
use super::edit::{read_node, set_low_key, with_two, EditContext, EditPath, Step};
use super::leaf_mut::item_head;
use super::node::{Node, TreeRoot};
use super::node_buf::{capacity, used_bytes, NodeBuf};
use crate::format::header::{ITEM_SIZE, KEY_PTR_SIZE};
use kernel::prelude::*;

/// Restores the fill of the nodes of `path`, from the leaf up, after something was removed from the
/// leaf. The path is of no use afterwards.
pub(super) fn rebalance<C: EditContext>(cx: &mut C, path: &mut EditPath) -> Result {
    for level in 0..path.root_level {
        if !dissolve(cx, path, level)? {
            return Ok(());
        }
    }
    shrink_root(cx, path.tree)
}

/// Removes the node at `level` of `path`, which is not the root, if it is empty or its neighbours
/// can take what it holds. Returns whether it is gone.
fn dissolve<C: EditContext>(cx: &mut C, path: &EditPath, level: u8) -> Result<bool> {
    let above = level.saturating_add(1);
    let node = path.step(level)?.bytenr;
    let parent = path.step(above)?;
    let buf = cx.dirty_mut(node)?;
    if buf.entries() == 0 {
        cx.free_node(path.tree, node)?;
        let buf = cx.dirty_mut(parent.bytenr)?;
        buf.remove_ptr(parent.slot)?;
        if parent.slot == 0 {
            if let Some(first) = buf.key(0) {
                set_low_key(cx, path, above, &first)?;
            }
        }
        return Ok(true);
    }

    let used = buf.used();
    if used >= buf.capacity() / 3 {
        return Ok(false);
    }
    let left_slot = parent.slot.checked_sub(1);
    let left_free = match left_slot {
        Some(slot) => free_in_child(cx, path.tree, parent, slot)?,
        None => 0,
    };
    if left_free >= used {
        move_to_left(cx, path.tree, parent, node, usize::MAX)?;
        return remove(cx, path.tree, parent, node);
    }
    let right_slot = parent.slot.checked_add(1).ok_or(EUCLEAN)?;
    let right_free = free_in_child(cx, path.tree, parent, right_slot)?;
    if right_free >= used {
        move_to_right(cx, path.tree, parent, node)?;
        return remove(cx, path.tree, parent, node);
    }
    let (fitting, fitting_bytes) = fitting_entries(cx.dirty_mut(node)?, left_free)?;
    if fitting > 0 && right_free >= used.saturating_sub(fitting_bytes) {
        move_to_left(cx, path.tree, parent, node, fitting)?;
        move_to_right(cx, path.tree, parent, node)?;
        return remove(cx, path.tree, parent, node);
    }
    Ok(false)
}

/// The free bytes of the child in `slot` of `parent`, 0 if there is none.
fn free_in_child<C: EditContext>(
    cx: &mut C,
    tree: u64,
    parent: Step,
    slot: usize,
) -> Result<usize> {
    let Some(ptr) = cx.dirty_mut(parent.bytenr)?.child_ptr(slot, tree) else {
        return Ok(0);
    };
    let child = read_node(cx, &ptr)?;
    Ok(capacity(&child).saturating_sub(used_bytes(&child)))
}

/// How many of the first entries of `node` fit into `space` bytes, and how many bytes they take.
fn fitting_entries(node: &Node, space: usize) -> Result<(usize, usize)> {
    let mut bytes = 0usize;
    for slot in 0..node.nritems() as usize {
        let cost = if node.is_leaf() {
            (item_head(node, slot)?.size.get() as usize)
                .checked_add(ITEM_SIZE)
                .ok_or(EUCLEAN)?
        } else {
            KEY_PTR_SIZE
        };
        let with = bytes.checked_add(cost).ok_or(EUCLEAN)?;
        if with > space {
            return Ok((slot, bytes));
        }
        bytes = with;
    }
    Ok((node.nritems() as usize, bytes))
}

/// Moves up to `count` of the first entries of `node`, to which `parent` points, to its left
/// neighbour.
fn move_to_left<C: EditContext>(
    cx: &mut C,
    tree: u64,
    parent: Step,
    node: u64,
    count: usize,
) -> Result {
    let slot = parent.slot.checked_sub(1).ok_or(EUCLEAN)?;
    let left = dirty_child(cx, tree, parent.bytenr, slot)?;
    with_two(cx, node, left, |node, left| {
        let end = left.entries();
        NodeBuf::move_entries(node, 0, count.min(node.entries()), left, end)
    })
}

/// Moves all entries of `node`, to which `parent` points, to its right neighbour.
fn move_to_right<C: EditContext>(cx: &mut C, tree: u64, parent: Step, node: u64) -> Result {
    let slot = parent.slot.checked_add(1).ok_or(EUCLEAN)?;
    let right = dirty_child(cx, tree, parent.bytenr, slot)?;
    let first = with_two(cx, node, right, |node, right| {
        let first = node.key(0).ok_or(EUCLEAN)?;
        NodeBuf::move_entries(node, 0, node.entries(), right, 0)?;
        Ok(first)
    })?;
    cx.dirty_mut(parent.bytenr)?.set_ptr_key(slot, &first)
}

/// Removes `node`, which is empty now and to which `parent` points. The first key of the parent
/// stays what it is: if the pointer was its first one, the right neighbour has taken over the key
/// with the entries.
fn remove<C: EditContext>(cx: &mut C, tree: u64, parent: Step, node: u64) -> Result<bool> {
    cx.free_node(tree, node)?;
    cx.dirty_mut(parent.bytenr)?.remove_ptr(parent.slot)?;
    Ok(true)
}

/// Lets the only child of an interior root be the root, again and again. A root without children
/// makes place for an empty leaf.
fn shrink_root<C: EditContext>(cx: &mut C, tree: u64) -> Result {
    let mut root = cx.root(tree)?;
    while root.level > 0 {
        let old = root.bytenr;
        let (bytenr, level) = match cx.dirty_mut(old)?.entries() {
            0 => (cx.alloc_node(tree, 0)?, 0),
            // A root is never shared with another tree, so the child must be this transaction's.
            1 => (dirty_child(cx, tree, old, 0)?, root.level.saturating_sub(1)),
            _ => break,
        };
        root = TreeRoot {
            bytenr,
            level,
            generation: cx.transid(),
            ..root
        };
        cx.set_root(tree, root)?;
        cx.free_node(tree, old)?;
    }
    Ok(())
}
