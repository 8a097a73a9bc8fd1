// SPDX-License-Identifier: GPL-2.0
//! Extent items and the references within and beside them.

use super::key::DiskKey;
use zerocopy::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The extent holds file data.
pub const FLAG_DATA: u64 = 1 << 0;
/// The extent is a tree block.
pub const FLAG_TREE_BLOCK: u64 = 1 << 1;
/// The tree block's children are referred to by its address, not by its owner.
pub const FLAG_FULL_BACKREF: u64 = 1 << 8;

/// An extent item, 24 bytes; [`TreeBlockInfo`] for a tree block that is not skinny, then inline
/// references follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ExtentItem {
    /// The number of references.
    pub refs: U64,
    /// The transaction that allocated the extent.
    pub generation: U64,
    /// [`FLAG_DATA`] or [`FLAG_TREE_BLOCK`], and [`FLAG_FULL_BACKREF`].
    pub flags: U64,
}

/// What a tree block's `EXTENT_ITEM` says of it, 18 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TreeBlockInfo {
    /// The block's first key when it was allocated.
    pub key: DiskKey,
    /// The block's level.
    pub level: u8,
}

/// An inline reference's head, 9 bytes. `EXTENT_DATA_REF` has an [`ExtentDataRef`] in place of
/// `offset`, and `SHARED_DATA_REF` a [`SharedDataRef`] after it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InlineRef {
    /// The item type that a keyed reference of this kind has.
    pub typ: u8,
    /// The tree's id, or the parent block's address.
    pub offset: U64,
}

/// A data extent's reference by an inode, 28 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ExtentDataRef {
    /// The tree.
    pub root: U64,
    /// The inode.
    pub objectid: U64,
    /// The file offset of the extent's first byte, in bytes, modulo 2^64.
    pub offset: U64,
    /// The number of file extent items.
    pub count: U32,
}

/// A data extent's reference by a leaf, 4 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SharedDataRef {
    /// The number of file extent items.
    pub count: U32,
}

const _: () = assert!(size_of::<ExtentItem>() == 24 && size_of::<TreeBlockInfo>() == 18);
const _: () = assert!(size_of::<InlineRef>() == 9 && size_of::<ExtentDataRef>() == 28);
