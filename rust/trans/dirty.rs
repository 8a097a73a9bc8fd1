// SPDX-License-Identifier: GPL-2.0
//! The tree blocks that the running transaction made, and how a transaction looks at any tree
//! block.

use super::reader::Reader;
use crate::tree::node::{Node, NodePtr};
use crate::tree::node_buf::NodeBuf;
use crate::tree::Nodes;
use core::ops::Deref;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::Arc;

/// One block that the transaction made.
struct Dirty {
    buf: NodeBuf,
    /// The block may have other holders, or children that are referred to by its address: a tree
    /// edit has to copy it like a committed one.
    shared: bool,
}

/// The blocks that the transaction made, by logical address.
pub struct DirtyNodes {
    nodes: RBTree<u64, Dirty>,
    len: usize,
}

impl DirtyNodes {
    /// No blocks.
    pub fn new() -> Self {
        DirtyNodes {
            nodes: RBTree::new(),
            len: 0,
        }
    }

    /// The number of blocks.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a block. Fails with `EEXIST` if there is one at its address, and `ENOMEM`.
    pub fn insert(&mut self, buf: NodeBuf, shared: bool) -> Result {
        let bytenr = buf.bytenr();
        if self.nodes.get(&bytenr).is_some() {
            return Err(EEXIST);
        }
        self.nodes
            .try_create_and_insert(bytenr, Dirty { buf, shared }, GFP_KERNEL)?;
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    /// Removes a block.
    pub fn remove(&mut self, bytenr: u64) -> Option<NodeBuf> {
        let dirty = self.nodes.remove(&bytenr)?;
        self.len = self.len.saturating_sub(1);
        Some(dirty.buf)
    }

    /// The block at `bytenr`.
    pub fn get(&self, bytenr: u64) -> Option<&NodeBuf> {
        self.nodes.get(&bytenr).map(|dirty| &dirty.buf)
    }

    /// A block as the transaction sees it: its own, or else that of the last commit, `base`.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub(super) fn look_up(&self, base: &Reader, ptr: &NodePtr) -> Result<NodeRef<'_>> {
        match self.get(ptr.bytenr) {
            Some(dirty) => Ok(NodeRef::Dirty(dirty.node())),
            None => Ok(NodeRef::Clean(base.node(ptr)?)),
        }
    }

    /// The block at `bytenr`, to be changed.
    pub fn get_mut(&mut self, bytenr: u64) -> Option<&mut NodeBuf> {
        self.nodes.get_mut(&bytenr).map(|dirty| &mut dirty.buf)
    }

    /// Whether a tree edit may change the block at `bytenr` in place.
    pub fn is_exclusive(&self, bytenr: u64) -> bool {
        self.nodes.get(&bytenr).is_some_and(|dirty| !dirty.shared)
    }

    /// Marks the blocks that `owner` allocated as shared, all but `except`.
    pub fn share_blocks_of(&mut self, owner: u64, except: u64) {
        for (bytenr, dirty) in self.nodes.iter_mut() {
            if dirty.buf.owner() == owner && *bytenr != except {
                dirty.shared = true;
            }
        }
    }

    /// The blocks in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = &NodeBuf> {
        self.nodes.values().map(|dirty| &dirty.buf)
    }

    /// The blocks in the order of their addresses, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut NodeBuf> {
        self.nodes.values_mut().map(|dirty| &mut dirty.buf)
    }

    /// Takes the block with the lowest address.
    pub fn pop_first(&mut self) -> Option<NodeBuf> {
        let bytenr = *self.nodes.cursor_front()?.current().0;
        self.remove(bytenr)
    }
}

impl Default for DirtyNodes {
    fn default() -> Self {
        DirtyNodes::new()
    }
}

/// A tree block as the running transaction sees it.
pub enum NodeRef<'a> {
    /// Made by the transaction.
    Dirty(&'a Node),
    /// Committed, which never changes.
    Clean(Arc<Node>),
}

impl Deref for NodeRef<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        match self {
            NodeRef::Dirty(node) => node,
            NodeRef::Clean(node) => node,
        }
    }
}
