// SPDX-License-Identifier: GPL-2.0
//! A tree block in memory, and where it is found.
//!
//! That a [`Node`] exists proves that its bytes passed the checks of `verify.rs`, or that the
//! running transaction built them. Even so nothing here trusts them: what is not there reads as
//! `None` or zero.

use crate::format::header::{Header, Item, KeyPtr, HEADER_SIZE, ITEM_SIZE, KEY_PTR_SIZE};
use crate::format::root::RootBlock;
use crate::format::{read_at, DiskKey, Key};
use core::fmt;
use core::ops::Deref;
use kernel::prelude::*;
use zerocopy::FromBytes;

pub use super::geometry::Geometry;

/// A tree's root block, as the superblock or a root item has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeRoot {
    /// The tree.
    pub id: u64,
    /// The root block's logical address, in bytes.
    pub bytenr: u64,
    /// Its level, 0 for a leaf.
    pub level: u8,
    /// Its generation.
    pub generation: u64,
}

/// What a parent says of a child: where it is, and what must be found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePtr {
    /// The child's logical address, in bytes.
    pub bytenr: u64,
    /// The child's generation; 0 if that is not known.
    pub generation: u64,
    /// The child's level.
    pub level: u8,
    /// The tree that is walked; 0 if that is not known.
    pub tree: u64,
    /// The child's first key; `None` for roots, of which nobody says it.
    pub first_key: Option<Key>,
}

impl TreeRoot {
    /// The root of `tree`, as its root item has it.
    pub fn of(tree: u64, block: RootBlock) -> TreeRoot {
        TreeRoot {
            id: tree,
            bytenr: block.bytenr,
            level: block.level,
            generation: block.generation,
        }
    }
}

impl From<TreeRoot> for NodePtr {
    fn from(root: TreeRoot) -> NodePtr {
        NodePtr {
            bytenr: root.bytenr,
            generation: root.generation,
            level: root.level,
            tree: root.id,
            first_key: None,
        }
    }
}

/// Where the nodes of a tree come from: the last commit, or the running transaction.
pub trait Nodes {
    /// A node that stays as it is while the reference lives.
    type Ref<'a>: Deref<Target = Node>
    where
        Self: 'a;

    /// The node that `ptr` points to.
    ///
    /// # Errors
    ///
    /// `EIO` or `EUCLEAN` if no mirror has a node that is right, `ENOMEM`.
    fn node(&self, ptr: &NodePtr) -> Result<Self::Ref<'_>>;

    /// Reads nodes that will probably be asked for soon, as far as that is easy.
    fn prefetch(&self, _ptrs: &[NodePtr]) {}

    /// The name of the device, for messages.
    fn name(&self) -> &str {
        "?"
    }

    /// Reports what only a walk over several nodes can find, in the form of all messages on nodes.
    fn report(&self, message: fmt::Arguments<'_>) {
        pr_err!("BTRFS error (device {}): {}\n", self.name(), message);
    }
}

/// A leaf or an interior node.
pub struct Node {
    bytes: KVVec<u8>,
}

impl Node {
    /// The node of bytes that were verified, or that the running transaction builds.
    pub(super) fn from_bytes(bytes: KVVec<u8>) -> Self {
        Self { bytes }
    }

    /// The whole block.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole block, for `NodeBuf` alone.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The header, unless the block is shorter than one.
    pub fn header(&self) -> Option<&Header> {
        Header::ref_from_prefix(&self.bytes)
            .ok()
            .map(|(header, _)| header)
    }

    /// The block's logical address, in bytes.
    pub fn bytenr(&self) -> u64 {
        self.header().map_or(0, |h| h.bytenr.get())
    }

    /// The transaction that wrote the block.
    pub fn generation(&self) -> u64 {
        self.header().map_or(0, |h| h.generation.get())
    }

    /// 0 for a leaf.
    pub fn level(&self) -> u8 {
        self.header().map_or(0, |h| h.level)
    }

    /// The tree that allocated the block.
    pub fn owner(&self) -> u64 {
        self.header().map_or(0, |h| h.owner.get())
    }

    /// The header's flags, with the back reference revision in the highest byte.
    pub fn flags(&self) -> u64 {
        self.header().map_or(0, |h| h.flags.get())
    }

    /// The metadata UUID of the volume.
    pub fn fsid(&self) -> [u8; 16] {
        self.header().map_or([0; 16], |h| h.fsid)
    }

    /// The UUID of the chunk tree.
    pub fn chunk_tree_uuid(&self) -> [u8; 16] {
        self.header().map_or([0; 16], |h| h.chunk_tree_uuid)
    }

    /// The number of items or key pointers.
    pub fn nritems(&self) -> u32 {
        self.header().map_or(0, |h| h.nritems.get())
    }

    /// Whether this is a leaf.
    pub fn is_leaf(&self) -> bool {
        self.level() == 0
    }

    /// The key of an item, or of a key pointer.
    pub fn key(&self, slot: usize) -> Option<Key> {
        let header = self.header()?;
        if slot >= header.nritems.get() as usize {
            return None;
        }
        let size = if header.level == 0 {
            ITEM_SIZE
        } else {
            KEY_PTR_SIZE
        };
        let at = slot.checked_mul(size)?.checked_add(HEADER_SIZE)?;
        read_at::<DiskKey>(&self.bytes, at).ok().map(Key::from)
    }

    /// The last key.
    pub fn last_key(&self) -> Option<Key> {
        self.key((self.nritems() as usize).checked_sub(1)?)
    }

    /// An item of a leaf.
    pub fn item(&self, slot: usize) -> Option<(Key, &[u8])> {
        let header = self.header()?;
        if header.level != 0 || slot >= header.nritems.get() as usize {
            return None;
        }
        let at = slot.checked_mul(ITEM_SIZE)?.checked_add(HEADER_SIZE)?;
        let item: Item = read_at(&self.bytes, at).ok()?;
        let start = (item.offset.get() as usize).checked_add(HEADER_SIZE)?;
        let end = start.checked_add(item.size.get() as usize)?;
        Some((item.key.into(), self.bytes.get(start..end)?))
    }

    /// What an interior node says of a child, which is reached in the tree that allocated this
    /// node.
    pub fn child(&self, slot: usize) -> Option<NodePtr> {
        self.child_ptr(slot, self.owner())
    }

    /// What an interior node says of a child that is reached in `tree`.
    pub fn child_ptr(&self, slot: usize, tree: u64) -> Option<NodePtr> {
        let header = self.header()?;
        let level = header.level.checked_sub(1)?;
        if slot >= header.nritems.get() as usize {
            return None;
        }
        let at = slot.checked_mul(KEY_PTR_SIZE)?.checked_add(HEADER_SIZE)?;
        let ptr: KeyPtr = read_at(&self.bytes, at).ok()?;
        Some(NodePtr {
            bytenr: ptr.blockptr.get(),
            generation: ptr.generation.get(),
            level,
            tree,
            first_key: Some(ptr.key.into()),
        })
    }

    /// How many children from `slot` on are the same, by key, address and generation, as those of
    /// `other` from `from` on. Both are interior nodes.
    pub fn shared_children(&self, slot: usize, other: &Node, from: usize) -> usize {
        let (Some(ours), Some(theirs)) = (self.key_ptrs(slot), other.key_ptrs(from)) else {
            return 0;
        };
        // Most of two long nodes is the same, so that halves are compared, and not child by child.
        let (mut low, mut high) = (0, ours.len().min(theirs.len()) / KEY_PTR_SIZE);
        while low < high {
            let middle = low.midpoint(high);
            let half = low.saturating_mul(KEY_PTR_SIZE)
                ..middle.saturating_add(1).saturating_mul(KEY_PTR_SIZE);
            if ours.get(half.clone()) == theirs.get(half) {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low
    }

    /// The key pointers of an interior node from `slot` on.
    fn key_ptrs(&self, slot: usize) -> Option<&[u8]> {
        let header = self.header()?;
        if header.level == 0 {
            return None;
        }
        let place = |slot: usize| slot.checked_mul(KEY_PTR_SIZE)?.checked_add(HEADER_SIZE);
        let end = place(header.nritems.get() as usize)?;
        self.bytes.get(place(slot)?..end)
    }

    /// The slot of `key`, or as an error the slot where it would be: `slice::binary_search` over
    /// the keys.
    pub fn search(&self, key: &Key) -> core::result::Result<usize, usize> {
        let mut low = 0;
        let mut high = self.nritems() as usize;
        while low < high {
            let middle = low.midpoint(high);
            // A key that cannot be read counts as larger than all, which ends the search below it.
            match self.key(middle).map(|found| found.cmp(key)) {
                Some(core::cmp::Ordering::Equal) => return Ok(middle),
                Some(core::cmp::Ordering::Less) => low = middle.saturating_add(1),
                _ => high = middle,
            }
        }
        Err(low)
    }

    /// The slot of the child under which `key` belongs: the last one whose key is not above it, or
    /// the first.
    pub fn child_slot(&self, key: &Key) -> usize {
        match self.search(key) {
            Ok(slot) => slot,
            Err(slot) => slot.saturating_sub(1),
        }
    }
}
