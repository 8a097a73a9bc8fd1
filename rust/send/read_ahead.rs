// SPDX-License-Identifier: GPL-2.0
//! Reading ahead what two trees do not share: of both at once, and level by level, so that the few
//! blocks that lead to a small change are read in as many steps as the trees have levels. And then
//! what is needed to send the change.

use super::cursor::Here;
use super::lookup::ExtentFinder;
use crate::format::{item_type, objectid, tree_id, Key};
use crate::subvol::file_extent::Regular;
use crate::trans::Reader;
use crate::tree::{Node, NodePtr, Nodes};
use kernel::prelude::*;
use kernel::sync::Arc;

/// The most nodes of one level that are read at once, of both trees together.
const NODES: usize = 32;

/// Nodes of one level of a tree, in the order of their keys, and a place in them.
pub(super) struct Row {
    tree: u64,
    nodes: KVec<Arc<Node>>,
    at: usize,
    slot: usize,
}

impl Row {
    /// A row without nodes.
    pub(super) const fn new(tree: u64) -> Self {
        Row {
            tree,
            nodes: KVec::new(),
            at: 0,
            slot: 0,
        }
    }

    /// Adds the first node, of which only what is at and behind `slot` counts.
    pub(super) fn begin(&mut self, node: Arc<Node>, slot: usize) -> Result {
        self.slot = slot;
        Ok(self.nodes.push(node, GFP_KERNEL)?)
    }

    /// The child at the current place.
    fn child(&self) -> Option<(NodePtr, Key)> {
        let ptr = self.nodes.get(self.at)?.child_ptr(self.slot, self.tree)?;
        Some((ptr, ptr.first_key?))
    }

    /// The child before the current place, if it is in the same node.
    fn child_before(&self) -> Option<NodePtr> {
        let node = self.nodes.get(self.at)?;
        node.child_ptr(self.slot.checked_sub(1)?, self.tree)
    }

    /// Moves on by this many children, all of which are in the current node.
    fn skip(&mut self, children: usize) {
        self.slot = self.slot.saturating_add(children);
        let here = self.nodes.get(self.at);
        if here.is_some_and(|node| self.slot >= node.nritems() as usize) {
            self.at = self.at.saturating_add(1);
            self.slot = 0;
        }
    }

    /// How many children from here on `other` has as well.
    fn shared(&self, other: &Row) -> usize {
        match (self.nodes.get(self.at), other.nodes.get(other.at)) {
            (Some(node), Some(with)) => node.shared_children(self.slot, with, other.slot),
            _ => 0,
        }
    }

    /// The row of these children, as far as they are in memory.
    fn below(&self, reader: &Reader, children: &[NodePtr]) -> Result<Row> {
        let mut row = Row::new(self.tree);
        for child in children {
            let node = reader.cached(child);
            if let Some(node) = node.filter(|node| node.level() == child.level) {
                row.nodes.push(node, GFP_KERNEL)?;
            }
        }
        Ok(row)
    }
}

/// The children that only one of two rows has.
struct Apart {
    sent: KVec<NodePtr>,
    parent: KVec<NodePtr>,
    /// Children of the sent tree to the left of one that begins within a file: to know what is a
    /// hole, it has to be known where the extent before ends.
    before: KVec<NodePtr>,
}

impl Apart {
    const fn new() -> Self {
        Apart {
            sent: KVec::new(),
            parent: KVec::new(),
            before: KVec::new(),
        }
    }

    /// Whether there is no space for one more of each.
    fn is_full(&self) -> bool {
        let sides = self.sent.len().saturating_add(self.parent.len());
        sides.saturating_add(self.before.len()) > NODES - 3
    }

    /// All of them.
    fn all(&self) -> Result<KVec<NodePtr>> {
        let mut all = KVec::with_capacity(NODES, GFP_KERNEL)?;
        for side in [&self.sent, &self.parent, &self.before] {
            all.extend_from_slice(side, GFP_KERNEL)?;
        }
        Ok(all)
    }

    /// What lies before children of these lies before theirs, if they are the first.
    fn inherit(&mut self, reader: &Reader, before: &[NodePtr]) -> Result {
        for above in before {
            let node = reader.cached(above);
            let last = node.and_then(|node| {
                node.child_ptr((node.nritems() as usize).checked_sub(1)?, above.tree)
            });
            if let Some(last) = last.filter(|last| last.level < above.level) {
                self.before.push(last, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Gathers them, as far as their keys are below `end`. Returns the first key that was not
    /// reached.
    fn gather(&mut self, sent: &mut Row, parent: &mut Row, end: Key) -> Result<Key> {
        loop {
            let ours = sent.child().filter(|(_, key)| *key < end);
            let theirs = parent.child().filter(|(_, key)| *key < end);
            let first = match (&ours, &theirs) {
                (Some((_, ours)), Some((_, theirs))) => *ours.min(theirs),
                (Some((_, key)), None) | (None, Some((_, key))) => *key,
                (None, None) => return Ok(end),
            };
            if self.is_full() {
                return Ok(first);
            }
            if ours.is_some() && theirs.is_some() {
                let shared = sent.shared(parent);
                if shared > 0 {
                    sent.skip(shared);
                    parent.skip(shared);
                    continue;
                }
            }
            if let Some((child, key)) = ours.filter(|(_, key)| *key == first) {
                let before = sent.child_before();
                if let Some(before) = before.filter(|_| key.typ == item_type::EXTENT_DATA) {
                    self.before.push(before, GFP_KERNEL)?;
                }
                self.sent.push(child, GFP_KERNEL)?;
                sent.skip(1);
            }
            if let Some((child, _)) = theirs.filter(|(_, key)| *key == first) {
                self.parent.push(child, GFP_KERNEL)?;
                parent.skip(1);
            }
        }
    }
}

/// Reads ahead what only one of the two rows, which are of the same level, has below it, as far as
/// its keys are below `end`. Returns from which key on there may be more. What fails is left for
/// the walk to report.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn read(reader: &Reader, mut sent: Row, mut parent: Row, mut end: Key) -> Result<Key> {
    let mut before = KVec::new();
    loop {
        let mut apart = Apart::new();
        apart.inherit(reader, &before)?;
        end = apart.gather(&mut sent, &mut parent, end)?;
        let all = apart.all()?;
        reader.prefetch(&all);
        if all.first().is_none_or(|child| child.level == 0) {
            return Ok(end);
        }
        sent = sent.below(reader, &apart.sent)?;
        parent = parent.below(reader, &apart.parent)?;
        before = apart.before;
    }
}

/// Reads ahead what a search for those who share an extent comes by, and the extent's checksums.
/// The item at `here` is the one that refers to the extent. What fails is left for the search to
/// report.
#[inline(never)]
pub(super) fn read_for_clone(
    reader: &Reader,
    extents: &ExtentFinder,
    here: &Here,
    bytenr: u64,
    regular: &Regular,
) {
    let item = Key::new(bytenr, item_type::EXTENT_ITEM, 0);
    // What lies near the one before was read with it.
    if extents.is_at(reader, &item) {
        return;
    }
    let tree = reader.root(tree_id::EXTENT).ok();
    let leaf = Key::new(here.leaf.bytenr(), item_type::METADATA_ITEM, 0);
    let start = bytenr.saturating_add(regular.extent_offset);
    let sum = Key::new(objectid::EXTENT_CSUM, item_type::EXTENT_CSUM, start);
    let sums = reader.root(tree_id::CSUM).ok();
    // The subvolume that the sent one is a snapshot of often shares what it wrote before.
    let owner = Some(here.leaf.owner()).filter(|id| tree_id::is_fs_tree(*id));
    let owner = owner.and_then(|id| reader.root(id).ok());
    let goals = [
        tree.map(|root| (root, item)),
        tree.map(|root| (root, leaf)),
        sums.map(|root| (root, sum)),
        owner.zip(here.leaf.key(here.slot)),
    ];
    reader.prefetch_paths(goals.into_iter().flatten());
}
