// SPDX-License-Identifier: GPL-2.0
//! Chunks, devices, device extents, and block groups.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a block group holds, and its profile: the bits of `BTRFS_BLOCK_GROUP_*`.
pub mod block_group_flags {
    /// File data.
    pub const DATA: u64 = 1 << 0;
    /// The chunk tree.
    pub const SYSTEM: u64 = 1 << 1;
    /// All other trees.
    pub const METADATA: u64 = 1 << 2;
    /// Striped over devices.
    pub const RAID0: u64 = 1 << 3;
    /// Two copies on two devices.
    pub const RAID1: u64 = 1 << 4;
    /// Two copies on one device.
    pub const DUP: u64 = 1 << 5;
    /// Two copies, each striped over devices.
    pub const RAID10: u64 = 1 << 6;
    /// Striped over devices, with one parity.
    pub const RAID5: u64 = 1 << 7;
    /// Striped over devices, with two parities.
    pub const RAID6: u64 = 1 << 8;
    /// Three copies on three devices.
    pub const RAID1C3: u64 = 1 << 9;
    /// Four copies on four devices.
    pub const RAID1C4: u64 = 1 << 10;
    /// What the chunk held was moved, as the remap tree says.
    pub const REMAPPED: u64 = 1 << 11;
    /// The remap tree.
    pub const METADATA_REMAP: u64 = 1 << 12;
    /// Every kind of content.
    pub const TYPE_MASK: u64 = DATA | SYSTEM | METADATA;
    /// Every profile that any btrfs knows; none of them is `single`.
    pub const PROFILE_MASK: u64 = 0x7f8;
    /// The bit by which ioctls and balance name the profile `single`.
    pub const AVAIL_ALLOC_BIT_SINGLE: u64 = 1 << 48;
}

/// One copy of a chunk, 32 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Stripe {
    /// The device's id.
    pub devid: U64,
    /// Where the copy starts on the device, in bytes.
    pub offset: U64,
    /// The device's UUID.
    pub dev_uuid: [u8; 16],
}

/// A chunk item up to its stripes, 48 bytes; `num_stripes` [`Stripe`]s follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Chunk {
    /// The size in bytes of the logical range.
    pub length: U64,
    /// The tree that refers to the chunk: the extent tree.
    pub owner: U64,
    /// The stripe length in bytes, 65536.
    pub stripe_len: U64,
    /// [`block_group_flags`].
    pub typ: U64,
    /// The preferred I/O alignment in bytes.
    pub io_align: U32,
    /// The preferred I/O width in bytes.
    pub io_width: U32,
    /// The smallest I/O in bytes.
    pub sector_size: U32,
    /// The number of stripes.
    pub num_stripes: U16,
    /// Only for RAID10.
    pub sub_stripes: U16,
}

/// The stripe length of every chunk, in bytes.
pub const STRIPE_LEN: u64 = 65536;

/// A device, 98 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DevItem {
    /// The device's id within the volume.
    pub devid: U64,
    /// The size of the device that the volume uses, in bytes.
    pub total_bytes: U64,
    /// The bytes in device extents.
    pub bytes_used: U64,
    /// The optimal I/O alignment in bytes.
    pub io_align: U32,
    /// The optimal I/O width in bytes.
    pub io_width: U32,
    /// The smallest I/O in bytes.
    pub sector_size: U32,
    /// Always 0.
    pub typ: U64,
    /// The generation in which the device was added.
    pub generation: U64,
    /// Where allocation starts, in bytes; not used any more.
    pub start_offset: U64,
    /// Unused.
    pub dev_group: U32,
    /// Unused.
    pub seek_speed: u8,
    /// Unused.
    pub bandwidth: u8,
    /// The device's own UUID.
    pub uuid: [u8; 16],
    /// The volume's UUID.
    pub fsid: [u8; 16],
}

/// An allocated range of a device, 48 bytes; keyed by (devid, physical start).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DevExtent {
    /// The chunk tree's id.
    pub chunk_tree: U64,
    /// The object id of chunk items, 256.
    pub chunk_objectid: U64,
    /// The chunk's logical start, in bytes.
    pub chunk_offset: U64,
    /// The range's length in bytes.
    pub length: U64,
    /// The UUID of the chunk tree.
    pub chunk_tree_uuid: [u8; 16],
}

/// A block group's item, 24 bytes; keyed by (logical start, length).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockGroupItem {
    /// The bytes in extents.
    pub used: U64,
    /// The object id of chunk items, 256.
    pub chunk_objectid: U64,
    /// [`block_group_flags`].
    pub flags: U64,
}

const _: () = assert!(size_of::<Chunk>() == 48 && size_of::<Stripe>() == 32);
const _: () = assert!(size_of::<DevItem>() == 98 && size_of::<DevExtent>() == 48);
