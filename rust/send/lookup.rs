// SPDX-License-Identifier: GPL-2.0
//! Single look-ups that are usually near each other: the leaf found last is tried before the tree
//! is searched.

use super::cursor::{Cursor, Detached};
use crate::format::{tree_id, Key};
use crate::trans::Reader;
use crate::tree::Node;
use crate::volume::ReadSession;
use kernel::prelude::*;

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

/// Finds items of a read-only snapshot under send, of which all but the addresses in them stays as
/// it is, whatever is relocated.
pub(super) struct Finder<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(session: &'a ReadSession, tree: u64) -> Self {
        Finder {
            cursor: Cursor::new(session, tree),
        }
    }

    /// The first item at or behind `key`.
    pub(super) fn at_or_after(&mut self, key: &Key) -> Result<Option<(Key, &[u8])>> {
        let leaf = self.cursor.leaf();
        if let Some(slot) = leaf.and_then(|leaf| slot_in_leaf(leaf, key)) {
            return Ok(self.cursor.leaf().and_then(|leaf| leaf.item(slot)));
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

/// Finds items of the extent tree, which changes with each commit.
pub(super) struct ExtentFinder {
    at: Detached,
}

impl ExtentFinder {
    pub(super) const fn new() -> Self {
        ExtentFinder {
            at: Detached::in_tree(tree_id::EXTENT),
        }
    }

    /// Whether [`Self::at_or_after`] needs no search for `key`.
    pub(super) fn is_at(&self, reader: &Reader, key: &Key) -> bool {
        let leaf = self.at.leaf().filter(|_| self.at.holds(reader));
        leaf.is_some_and(|leaf| slot_in_leaf(leaf, key).is_some())
    }

    /// The first item at or behind `key` in the reader's commit.
    pub(super) fn at_or_after(
        &mut self,
        reader: &Reader,
        key: &Key,
    ) -> Result<Option<(Key, &[u8])>> {
        let leaf = self.at.leaf().filter(|_| self.at.holds(reader));
        if let Some(slot) = leaf.and_then(|leaf| slot_in_leaf(leaf, key)) {
            return Ok(self.at.leaf().and_then(|leaf| leaf.item(slot)));
        }
        self.at.seek(reader, key)?;
        Ok(self.at.item())
    }
}
