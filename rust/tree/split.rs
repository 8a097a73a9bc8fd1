// SPDX-License-Identifier: GPL-2.0
//! Splitting leaves and nodes, and growing the tree at its root.
//!
//! A split puts the upper part of a block into a new one to its right. It happens only when the
//! parent has space for the new pointer, so the lowest ancestor with space is looked for first, and
//! the full ones between are split from the top down: no step can find its parent full.

use super::edit::{with_two, EditContext, EditPath};
use super::leaf_mut::item_head;
use super::node::{Node, TreeRoot};
use super::node_buf::{used_bytes, NodeBuf};
use crate::format::header::{ITEM_SIZE, MAX_LEVEL};
use crate::format::Key;
use kernel::prelude::*;

/// The half of a split block at which a path goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Splits the leaf of `path` so that an item at `key`, which takes `need` bytes with its head, fits
/// where `path` leads afterwards.
pub(super) fn ensure_leaf_space<C: EditContext>(
    cx: &mut C,
    path: &mut EditPath,
    key: &Key,
    need: usize,
) -> Result {
    let step = path.step(0)?;
    let leaf = cx.dirty_mut(step.bytenr)?;
    match leaf_cut(leaf, step.slot, need, leaf.capacity())? {
        Some(left) if left <= step.slot => split(cx, path, 0, left, key, Side::Right),
        Some(left) => split(cx, path, 0, left.saturating_sub(1), key, Side::Left),
        None => {
            // The items on neither side leave space: the new one gets a leaf of its own between
            // them.
            split(cx, path, 0, step.slot, key, Side::Left)?;
            split(cx, path, 0, step.slot, key, Side::Right)
        }
    }
}

/// Where to cut a leaf into which an item of `need` bytes goes at `slot`: how many items, counting
/// the new one, go to the left half, or `None` if no cut makes space.
///
/// An item after all others gets a new leaf, so that keys that ascend leave full leaves behind.
/// Else the cut that makes the halves most alike is taken.
fn leaf_cut(leaf: &Node, slot: usize, need: usize, capacity: usize) -> Result<Option<usize>> {
    let entries = leaf.nritems() as usize;
    if slot >= entries {
        return Ok(Some(entries));
    }
    let total = used_bytes(leaf).checked_add(need).ok_or(EOVERFLOW)?;
    let mut left = 0usize;
    let mut best: Option<(usize, usize)> = None;
    for count in 1..=entries {
        let index = count.saturating_sub(1);
        let cost = if index == slot {
            need
        } else {
            let old = if index < slot {
                index
            } else {
                index.saturating_sub(1)
            };
            (item_head(leaf, old)?.size.get() as usize)
                .checked_add(ITEM_SIZE)
                .ok_or(EUCLEAN)?
        };
        left = left.checked_add(cost).ok_or(EUCLEAN)?;
        let right = total.checked_sub(left).ok_or(EUCLEAN)?;
        if left > capacity {
            break;
        }
        if right <= capacity {
            let difference = left.abs_diff(right);
            if best.is_none_or(|(least, _)| difference < least) {
                best = Some((difference, count));
            }
        }
    }
    Ok(best.map(|(_, count)| count))
}

/// Moves the entries from `at` on of the node at `level` of `path` into a new node to its right,
/// and lets the path go on at `side`. `key` is the first key of the new node if no entry moves into
/// it.
fn split<C: EditContext>(
    cx: &mut C,
    path: &mut EditPath,
    level: u8,
    at: usize,
    key: &Key,
    side: Side,
) -> Result {
    if level == path.root_level {
        grow_root(cx, path, key)?;
    } else {
        ensure_node_space(cx, path, level.saturating_add(1), key)?;
    }
    let left = path.step(level)?;
    let right = cx.alloc_node(path.tree, level)?;
    let first = with_two(cx, left.bytenr, right, |left, right| {
        let moved = left.entries().checked_sub(at).ok_or(EUCLEAN)?;
        NodeBuf::move_entries(left, at, moved, right, 0)?;
        Ok(right.key(0).unwrap_or(*key))
    })?;

    let above = level.saturating_add(1);
    let parent = path.step(above)?;
    let slot = parent.slot.checked_add(1).ok_or(EUCLEAN)?;
    let generation = cx.transid();
    cx.dirty_mut(parent.bytenr)?
        .insert_ptr(slot, &first, right, generation)?;
    if side == Side::Right {
        path.set_step(above, parent.bytenr, slot)?;
        path.set_step(level, right, left.slot.checked_sub(at).ok_or(EUCLEAN)?)?;
    }
    Ok(())
}

/// Makes sure that the node at `level` of `path` takes one more pointer.
fn ensure_node_space<C: EditContext>(
    cx: &mut C,
    path: &mut EditPath,
    level: u8,
    key: &Key,
) -> Result {
    let mut full_below = level;
    while !cx
        .dirty_mut(path.step(full_below)?.bytenr)?
        .has_room_for_ptr()
    {
        if full_below == path.root_level {
            grow_root(cx, path, key)?;
        }
        full_below = full_below.saturating_add(1);
    }
    for full in (level..full_below).rev() {
        split_interior(cx, path, full, key)?;
    }
    Ok(())
}

/// Splits the full node at `level` of `path`, whose parent has space.
fn split_interior<C: EditContext>(cx: &mut C, path: &mut EditPath, level: u8, key: &Key) -> Result {
    let step = path.step(level)?;
    let entries = cx.dirty_mut(step.bytenr)?.entries();
    let last = entries.checked_sub(1).ok_or(EUCLEAN)?;
    // Where keys ascend the left node stays full, as in leaves.
    let at = if step.slot == last { last } else { entries / 2 };
    let side = if step.slot >= at {
        Side::Right
    } else {
        Side::Left
    };
    split(cx, path, level, at, key, side)
}

/// Puts a new root above the root of `path`. `key` is the tree's first key if the old root is
/// empty.
fn grow_root<C: EditContext>(cx: &mut C, path: &mut EditPath, key: &Key) -> Result {
    let old = path.step(path.root_level)?.bytenr;
    let level = path.root_level.saturating_add(1);
    if level >= MAX_LEVEL {
        return Err(ENOSPC);
    }
    let first = cx.dirty_mut(old)?.key(0).unwrap_or(*key);
    let bytenr = cx.alloc_node(path.tree, level)?;
    let generation = cx.transid();
    cx.dirty_mut(bytenr)?
        .insert_ptr(0, &first, old, generation)?;
    let root = cx.root(path.tree)?;
    cx.set_root(
        path.tree,
        TreeRoot {
            bytenr,
            level,
            generation,
            ..root
        },
    )?;
    path.root_level = level;
    path.set_step(level, bytenr, 0)
}
