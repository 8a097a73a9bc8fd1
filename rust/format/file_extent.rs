// SPDX-License-Identifier: GPL-2.0
//! File extents.

use kernel::prelude::*;
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

/// The largest compressed extent, in bytes before and after compression
/// (`BTRFS_MAX_COMPRESSED`).
pub const MAX_COMPRESSED: u64 = 128 << 10;

/// Where an inline extent's data starts within its item, in bytes.
pub const INLINE_HEAD_SIZE: usize = size_of::<FileExtentHead>();

/// A file extent item as it is in its leaf.
///
/// Its fields are not checked against each other;
/// [`subvol::file_extent::parse`](crate::subvol::file_extent::parse) does that for a
/// reader of the data.
#[derive(Clone, Copy, Debug)]
pub enum FileExtent<'a> {
    /// Data within the item.
    Inline {
        /// What every item has.
        head: &'a FileExtentHead,
        /// The data as stored.
        data: &'a [u8],
    },
    /// A part of an extent, written or preallocated, or a hole.
    Regular(&'a FileExtentItem),
}

impl<'a> FileExtent<'a> {
    /// The item whose bytes are `data`.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if it is too short for its type.
    #[inline]
    pub fn read(data: &'a [u8]) -> Result<Self> {
        let (head, rest) = FileExtentHead::ref_from_prefix(data).map_err(|_| EUCLEAN)?;
        if head.typ == TYPE_INLINE {
            return Ok(FileExtent::Inline { head, data: rest });
        }
        let (item, _) = FileExtentItem::ref_from_prefix(data).map_err(|_| EUCLEAN)?;
        Ok(FileExtent::Regular(item))
    }

    /// What every item has.
    pub fn head(&self) -> &'a FileExtentHead {
        match self {
            FileExtent::Inline { head, .. } => head,
            FileExtent::Regular(item) => &item.head,
        }
    }

    /// The item, unless its data is inline or it is a hole.
    pub fn in_extent(self) -> Option<&'a FileExtentItem> {
        match self {
            FileExtent::Regular(item) if item.disk_bytenr.get() != 0 => Some(item),
            _ => None,
        }
    }

    /// The item, if it refers to the extent at the logical address `bytenr`.
    pub fn in_extent_at(self, bytenr: u64) -> Option<&'a FileExtentItem> {
        self.in_extent()
            .filter(|item| item.disk_bytenr.get() == bytenr)
    }
}

impl FileExtentHead {
    /// Whether the data is stored in another form than it is read: compressed, encrypted or
    /// encoded.
    pub fn is_encoded(&self) -> bool {
        self.compression != compression::NONE
            || self.encryption != 0
            || self.other_encoding.get() != 0
    }
}

impl FileExtentItem {
    /// The offset of the back reference that an item at `offset` of its file has: where in the file
    /// the first byte of the extent would be, modulo 2^64. A clone may start further into its
    /// extent than into its file.
    pub fn backref_offset(&self, offset: u64) -> u64 {
        offset.wrapping_sub(self.offset.get())
    }

    /// Changes the address of the extent in the bytes of an item that is not inline.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if `data` is too short.
    pub fn set_disk_bytenr(data: &mut [u8], bytenr: u64) -> Result {
        let (item, _) = FileExtentItem::mut_from_prefix(data).map_err(|_| EUCLEAN)?;
        item.disk_bytenr = bytenr.into();
        Ok(())
    }
}

const _: () = assert!(INLINE_HEAD_SIZE == 21 && size_of::<FileExtentItem>() == 53);
