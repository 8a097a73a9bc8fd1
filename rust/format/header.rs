// SPDX-License-Identifier: GPL-2.0
//! Tree blocks: the header that leaves and nodes share, items, and key pointers.

use super::key::DiskKey;
use zerocopy::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most levels a tree can have; a root is at level 7 at most.
pub const MAX_LEVEL: u8 = 8;

/// The block was written (set in every block on disk).
pub const HEADER_FLAG_WRITTEN: u64 = 1 << 0;
/// The block belongs, or belonged, to a relocation tree of C btrfs.
pub const HEADER_FLAG_RELOC: u64 = 1 << 1;
/// The shift of the back reference revision within the flags.
pub const BACKREF_REV_SHIFT: u32 = 56;
/// The back reference revision of all volumes since 2009.
pub const MIXED_BACKREF_REV: u64 = 1;

/// The header of a tree block, 101 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// The checksum of everything after this field.
    pub csum: [u8; 32],
    /// The volume's metadata UUID.
    pub fsid: [u8; 16],
    /// The block's own logical address, in bytes.
    pub bytenr: U64,
    /// Flags in the low 56 bits, the back reference revision above them.
    pub flags: U64,
    /// The UUID of the chunk tree.
    pub chunk_tree_uuid: [u8; 16],
    /// The transaction that wrote the block.
    pub generation: U64,
    /// The tree that allocated the block.
    pub owner: U64,
    /// The number of items or key pointers.
    pub nritems: U32,
    /// 0 for a leaf.
    pub level: u8,
}

/// An item's place within a leaf, 25 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Item {
    /// The item's key.
    pub key: DiskKey,
    /// Where the data starts, in bytes after the header.
    pub offset: U32,
    /// The data's size in bytes.
    pub size: U32,
}

/// A node's pointer to a child, 33 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct KeyPtr {
    /// The child's first key.
    pub key: DiskKey,
    /// The child's logical address, in bytes.
    pub blockptr: U64,
    /// The child's generation.
    pub generation: U64,
}

/// The size of a header, in bytes.
pub const HEADER_SIZE: usize = size_of::<Header>();
/// The size of an item's head, in bytes.
pub const ITEM_SIZE: usize = size_of::<Item>();
/// The size of a key pointer, in bytes.
pub const KEY_PTR_SIZE: usize = size_of::<KeyPtr>();

const _: () = assert!(HEADER_SIZE == 101 && ITEM_SIZE == 25 && KEY_PTR_SIZE == 33);
