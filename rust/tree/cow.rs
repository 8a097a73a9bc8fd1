// SPDX-License-Identifier: GPL-2.0
//! The way down: every committed node on it is replaced by a copy that the transaction owns.
//!
//! Parents are copied before their children, so that a child's new address always has a place to
//! go, and the root's goes to the transaction. A block that the transaction allocated itself is
//! used as it is.

use super::edit::{EditContext, EditPath};
use super::node::{NodePtr, TreeRoot};
use crate::format::Key;
use kernel::prelude::*;

/// Makes the node at `level` on the way to `key` dirty, and with it all nodes above; returns its
/// address.
///
/// # Errors
///
/// `EINVAL` if the tree has no such level.
pub fn cow_to<C: EditContext>(cx: &mut C, tree: u64, key: &Key, level: u8) -> Result<u64> {
    Ok(descend(cx, tree, key, level)?.step(level)?.bytenr)
}

/// Walks from the root of `tree` to the node at `level` on the way to `key`, making all nodes
/// dirty.
pub(super) fn descend<C: EditContext>(
    cx: &mut C,
    tree: u64,
    key: &Key,
    level: u8,
) -> Result<EditPath> {
    let root = cx.root(tree)?;
    if level > root.level {
        return Err(EINVAL);
    }
    let mut path = EditPath::new(tree, root.level)?;
    let mut bytenr = dirty_root(cx, tree, root)?;
    for at in (level..=root.level).rev() {
        let node = cx.dirty_mut(bytenr)?;
        // A pointer into a block that was freed and allocated again can lead anywhere.
        if node.level() != at {
            return Err(EUCLEAN);
        }
        if at == 0 {
            let found = node.search(key);
            path.exact = found.is_ok();
            path.set_step(at, bytenr, found.unwrap_or_else(|slot| slot))?;
            break;
        }
        let slot = node.child_slot(key);
        path.set_step(at, bytenr, slot)?;
        if at > level {
            bytenr = dirty_child(cx, tree, bytenr, slot)?;
        }
    }
    Ok(path)
}

/// Makes the child in `slot` of the dirty node `parent` dirty and returns its address.
pub(super) fn dirty_child<C: EditContext>(
    cx: &mut C,
    tree: u64,
    parent: u64,
    slot: usize,
) -> Result<u64> {
    let ptr = cx.dirty_mut(parent)?.child_ptr(slot, tree).ok_or(EUCLEAN)?;
    if owned(cx, &ptr)? {
        return Ok(ptr.bytenr);
    }
    let bytenr = cx.cow_node(tree, &ptr)?;
    let generation = cx.transid();
    cx.dirty_mut(parent)?.set_child(slot, bytenr, generation)?;
    Ok(bytenr)
}

fn dirty_root<C: EditContext>(cx: &mut C, tree: u64, root: TreeRoot) -> Result<u64> {
    let ptr = root.into();
    if owned(cx, &ptr)? {
        return Ok(ptr.bytenr);
    }
    let bytenr = cx.cow_node(tree, &ptr)?;
    let generation = cx.transid();
    cx.set_root(
        tree,
        TreeRoot {
            bytenr,
            generation,
            ..root
        },
    )?;
    Ok(bytenr)
}

/// Whether `ptr` points to a block of this transaction.
fn owned<C: EditContext>(cx: &C, ptr: &NodePtr) -> Result<bool> {
    if !cx.is_dirty(ptr.bytenr) {
        return Ok(false);
    }
    // An older pointer means a block that a damaged tree still uses and that was free to be
    // allocated.
    if ptr.generation != cx.transid() {
        return Err(EUCLEAN);
    }
    Ok(true)
}
