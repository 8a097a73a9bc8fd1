// SPDX-License-Identifier: GPL-2.0
//! What the running transaction changed in a range of keys.
//!
//! The tree is compared with that of the last commit, level by level. A block that both have, and
//! all below it, is the same in both. So the cost follows the number of blocks that were changed.

use crate::format::Key;
use crate::tree::{NodePtr, Nodes, TreeRoot};
use core::ops::{Deref, RangeInclusive};
use kernel::prelude::*;

/// The most blocks of a level that are looked at.
const MOST: usize = 256;

/// One of the two trees, at a level.
struct Side<'n, N> {
    nodes: &'n N,
    tree: u64,
    level: u8,
    ptrs: KVec<NodePtr>,
}

impl<'n, N: Nodes> Side<'n, N> {
    fn new((nodes, root): (&'n N, TreeRoot)) -> Result<Self> {
        let mut ptrs = KVec::new();
        ptrs.push(NodePtr::from(root), GFP_KERNEL)?;
        Ok(Side {
            nodes,
            tree: root.id,
            level: root.level,
            ptrs,
        })
    }

    /// One level down.
    fn descend(&mut self, range: &RangeInclusive<Key>) -> Result {
        let mut below = KVec::new();
        for ptr in &self.ptrs {
            let node = self.nodes.node(ptr)?;
            let first = node.child_slot(range.start());
            for slot in first..node.nritems() as usize {
                let child = node.child_ptr(slot, self.tree).ok_or(EUCLEAN)?;
                if child.first_key.is_some_and(|key| key > *range.end()) {
                    break;
                }
                below.push(child, GFP_KERNEL)?;
            }
            if below.len() > MOST {
                return Err(EAGAIN);
            }
        }
        self.level = self.level.checked_sub(1).ok_or(EUCLEAN)?;
        self.ptrs = below;
        Ok(())
    }

    fn leaves(&self) -> Result<KVec<N::Ref<'n>>> {
        let mut leaves = KVec::with_capacity(self.ptrs.len(), GFP_KERNEL)?;
        for ptr in &self.ptrs {
            let node = self.nodes.node(ptr)?;
            if !node.is_leaf() {
                return Err(EUCLEAN);
            }
            leaves.push(node, GFP_KERNEL)?;
        }
        Ok(leaves)
    }
}

/// Removes what both lists have. Both are in the order of their keys.
fn drop_common(old: &mut KVec<NodePtr>, new: &mut KVec<NodePtr>) -> Result {
    let (mut only_old, mut only_new) = (KVec::new(), KVec::new());
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let key = |ptr: &&NodePtr| ptr.first_key;
        match (olds.peek(), news.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) if a.bytenr == b.bytenr => {
                olds.next();
                news.next();
            }
            (Some(a), b) if b.is_none_or(|b| key(a) <= key(b)) => {
                only_old.push(**a, GFP_KERNEL)?;
                olds.next();
            }
            (_, b) => {
                only_new.push(**b.ok_or(EINVAL)?, GFP_KERNEL)?;
                news.next();
            }
        }
    }
    *old = only_old;
    *new = only_new;
    Ok(())
}

/// The items of leaves within a range, in order.
struct Items<'l, R> {
    leaves: &'l [R],
    slot: usize,
    range: &'l RangeInclusive<Key>,
}

impl<'l, R> Items<'l, R> {
    fn new(leaves: &'l [R], range: &'l RangeInclusive<Key>) -> Self {
        Items {
            leaves,
            slot: 0,
            range,
        }
    }
}

impl<'l, R: Deref<Target = crate::tree::Node>> Iterator for Items<'l, R> {
    type Item = (Key, &'l [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (leaf, rest) = self.leaves.split_first()?;
            match leaf.item(self.slot) {
                Some((key, data)) => {
                    self.slot = self.slot.saturating_add(1);
                    if self.range.contains(&key) {
                        return Some((key, data));
                    }
                }
                None => {
                    self.leaves = rest;
                    self.slot = 0;
                }
            }
        }
    }
}

/// An item of one tree or of both: its key, and its data in the old tree and in the new one.
pub(super) type Change<'c> = (Key, Option<&'c [u8]>, Option<&'c [u8]>);

/// Calls `each` for every item in the range that only one of two trees has, or that differs.
///
/// # Errors
///
/// `EAGAIN` if too much was changed; `ENOMEM`; those of reading and of `each`.
pub(super) fn compare<A: Nodes, B: Nodes>(
    old: (&A, TreeRoot),
    new: (&B, TreeRoot),
    range: &RangeInclusive<Key>,
    each: &mut dyn FnMut(Change<'_>) -> Result,
) -> Result {
    let (mut old, mut new) = (Side::new(old)?, Side::new(new)?);
    loop {
        let (old_level, new_level) = (old.level, new.level);
        if old_level == new_level {
            drop_common(&mut old.ptrs, &mut new.ptrs)?;
            if old_level == 0 {
                break;
            }
        }
        if old_level >= new_level {
            old.descend(range)?;
        }
        if new_level >= old_level {
            new.descend(range)?;
        }
    }
    let (old, new) = (old.leaves()?, new.leaves()?);
    let mut olds = Items::new(&old, range).peekable();
    let mut news = Items::new(&new, range).peekable();
    loop {
        let change = match (olds.peek().copied(), news.peek().copied()) {
            (None, None) => return Ok(()),
            (Some((a, old)), Some((b, new))) if a == b => (a, Some(old), Some(new)),
            (Some((a, old)), b) if b.is_none_or(|(b, _)| a < b) => (a, Some(old), None),
            (_, b) => {
                let (key, new) = b.ok_or(EINVAL)?;
                (key, None, Some(new))
            }
        };
        if change.1.is_some() {
            olds.next();
        }
        if change.2.is_some() {
            news.next();
        }
        if change.1 != change.2 {
            each(change)?;
        }
    }
}
