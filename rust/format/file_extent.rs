// SPDX-License-Identifier: GPL-2.0
//! File extents.

use zerocopy::little_endian::{U16, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The data is in the item.
pub const TYPE_INLINE: u8 = 0;
/// The data is in an extent.
pub const TYPE_REG: u8 = 1;
/// Space is allocated and reads as zeros.
pub const TYPE_PREALLOC: u8 = 2;

/// Compression of an extent.
pub mod compression {
    /// Not compressed.
    pub const NONE: u8 = 0;
    /// One zlib stream.
    pub const ZLIB: u8 = 1;
    /// LZO segments.
    pub const LZO: u8 = 2;
    /// One zstd frame.
    pub const ZSTD: u8 = 3;
}

/// The part of a file extent that inline extents have, too, 21 bytes; their data follows it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileExtentHead {
    /// The transaction that made the extent.
    pub generation: U64,
    /// The size in bytes of the whole extent once it is decompressed.
    pub ram_bytes: U64,
    /// [`compression`].
    pub compression: u8,
    /// 0.
    pub encryption: u8,
    /// 0.
    pub other_encoding: U16,
    /// [`TYPE_INLINE`], [`TYPE_REG`] or [`TYPE_PREALLOC`].
    pub typ: u8,
}

/// A file extent that is not inline, 53 bytes; keyed by (inode number, offset in the file).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileExtentItem {
    /// What inline extents have, too.
    pub head: FileExtentHead,
    /// The extent's logical address in bytes; 0 for a hole.
    pub disk_bytenr: U64,
    /// The extent's size on disk in bytes.
    pub disk_num_bytes: U64,
    /// Where in the decompressed extent this part of the file starts, in bytes.
    pub offset: U64,
    /// The length in bytes of this part of the file.
    pub num_bytes: U64,
}

/// Where an inline extent's data starts within its item, in bytes.
pub const INLINE_HEAD_SIZE: usize = size_of::<FileExtentHead>();

const _: () = assert!(INLINE_HEAD_SIZE == 21 && size_of::<FileExtentItem>() == 53);
