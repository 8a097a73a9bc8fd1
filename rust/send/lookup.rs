// SPDX-License-Identifier: GPL-2.0
//! Single look-ups that are usually near each other: the leaf found last is tried before the tree
//! is searched.

use crate::format::Key;
use crate::tree::{Cursor, Node, Nodes, TreeRoot};
use kernel::prelude::*;

/// Finds items of one tree.
pub(super) struct Finder<'s, S: Nodes> {
    cursor: Cursor<'s, S>,
}

/// Where in `leaf` the first item at or behind `key` is, if this leaf alone can tell.
pub(super) fn slot_in_leaf(leaf: &Node, key: &Key) -> Option<usize> {
    // Only between two items of the leaf is it sure that no other leaf holds the key.
    let first = leaf.key(0)?;
    let last = leaf.last_key()?;
    if *key < first || *key > last {
        return None;
    }
    Some(match leaf.search(key) {
        Ok(slot) | Err(slot) => slot,
    })
}

impl<'s, S: Nodes> Finder<'s, S> {
    pub(super) fn new(nodes: &'s S, root: TreeRoot) -> Self {
        Finder {
            cursor: Cursor::new(nodes, root),
        }
    }

    /// The tree that is searched.
    pub(super) fn root(&self) -> TreeRoot {
        self.cursor.root()
    }

    /// Whether [`Finder::at_or_after`] needs no search for `key`.
    pub(super) fn is_at(&self, key: &Key) -> bool {
        let leaf = self.cursor.node_at(0);
        leaf.is_some_and(|leaf| slot_in_leaf(leaf, key).is_some())
    }

    /// The first item at or behind `key`.
    pub(super) fn at_or_after(&mut self, key: &Key) -> Result<Option<(Key, &[u8])>> {
        let slot = self
            .cursor
            .node_at(0)
            .and_then(|leaf| slot_in_leaf(leaf, key));
        if let Some(slot) = slot {
            return Ok(self.cursor.node_at(0).and_then(|leaf| leaf.item(slot)));
        }
        self.cursor.seek(key)?;
        Ok(self.cursor.item())
    }

    /// The data of the item `key`.
    pub(super) fn exact(&mut self, key: &Key) -> Result<Option<&[u8]>> {
        let found = self.at_or_after(key)?;
        Ok(found.filter(|(at, _)| at == key).map(|(_, data)| data))
    }
}
