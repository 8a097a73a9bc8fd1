// SPDX-License-Identifier: GPL-2.0
//! The free space tree.

use zerocopy::little_endian::U32;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The block group's free space is kept as bitmaps.
pub const USING_BITMAPS: u32 = 1 << 0;
/// The size in bytes of a bitmap item.
pub const BITMAP_SIZE: usize = 256;
/// The sectors that one bitmap item covers.
pub const BITMAP_BITS: u64 = 256 * 8;

/// What the free space tree says of a block group, 8 bytes; keyed as the block group.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FreeSpaceInfo {
    /// The number of free extents, also with bitmaps.
    pub extent_count: U32,
    /// [`USING_BITMAPS`] or 0.
    pub flags: U32,
}
