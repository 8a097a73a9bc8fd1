// SPDX-License-Identifier: GPL-2.0
//! Back references as values: who holds a reference to an extent, and in which order the extent
//! tree keeps them.

use crate::format::crc::data_ref_hash;
use crate::format::{item_type, Key};
use core::fmt;

/// One holder of references to an extent.
///
/// Metadata is referred to by a tree or by a parent block, data by an inode of a tree or by a leaf.
/// A reference "by a block" (shared) belongs to whoever holds that block, so that a snapshot need
/// not touch the extents below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefKind {
    /// A tree block that the tree `root` points at.
    TreeBlock {
        /// The id of the tree.
        root: u64,
    },
    /// A data extent that inode `ino` of the tree `root` uses.
    Data {
        /// The id of the tree.
        root: u64,
        /// The inode number.
        ino: u64,
        /// The file offset that the start of the extent would have, in bytes, modulo 2^64.
        offset: u64,
    },
    /// A tree block that the tree block at `parent` points at.
    SharedBlock {
        /// The logical address of the parent, in bytes.
        parent: u64,
    },
    /// A data extent that file extent items of the leaf at `parent` use.
    SharedData {
        /// The logical address of the leaf, in bytes.
        parent: u64,
    },
}

impl RefKind {
    /// The item type of the reference, as an inline reference and as an item of its own.
    pub const fn item_type(&self) -> u8 {
        match self {
            RefKind::TreeBlock { .. } => item_type::TREE_BLOCK_REF,
            RefKind::Data { .. } => item_type::EXTENT_DATA_REF,
            RefKind::SharedBlock { .. } => item_type::SHARED_BLOCK_REF,
            RefKind::SharedData { .. } => item_type::SHARED_DATA_REF,
        }
    }

    /// The number by which references of one type are ordered: the hash of a data reference, the
    /// tree or the parent of any other. As an item of its own, this is the key's offset (of a data
    /// reference, unless hashes collide).
    pub fn sequence(&self) -> u64 {
        match *self {
            RefKind::TreeBlock { root } => root,
            RefKind::Data { root, ino, offset } => data_ref_hash(root, ino, offset),
            RefKind::SharedBlock { parent } | RefKind::SharedData { parent } => parent,
        }
    }

    /// The key of the reference as an item of its own.
    pub fn key(&self, bytenr: u64) -> Key {
        Key::new(bytenr, self.item_type(), self.sequence())
    }

    /// Whether this refers to a data extent.
    pub const fn is_data(&self) -> bool {
        matches!(self, RefKind::Data { .. } | RefKind::SharedData { .. })
    }
}

impl fmt::Display for RefKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            RefKind::TreeBlock { root } => write!(f, "parent 0 root {root}"),
            RefKind::Data { root, ino, offset } => {
                write!(f, "parent 0 root {root} owner {ino} offset {offset}")
            }
            RefKind::SharedBlock { parent } => write!(f, "parent {parent} root 0"),
            RefKind::SharedData { parent } => write!(f, "parent {parent} root 0 (data)"),
        }
    }
}

/// References of one holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedRef {
    /// The holder.
    pub kind: RefKind,
    /// How many references it holds; always 1 for metadata.
    pub count: u32,
}
