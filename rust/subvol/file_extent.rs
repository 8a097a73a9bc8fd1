// SPDX-License-Identifier: GPL-2.0
//! File extents: where each part of a file's data is.

use crate::format::file_extent::{
    compression, FileExtent, FileExtentItem, MAX_COMPRESSED, TYPE_PREALLOC, TYPE_REG,
};
use crate::format::{item_type, BlockSize, Key};
use crate::tree::{Cursor, Nodes, TreeRoot};
use kernel::prelude::*;

/// A part of a file that lies in an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regular {
    /// The extent's logical address, in bytes.
    pub disk_bytenr: u64,
    /// The extent's size on disk, in bytes.
    pub disk_num_bytes: u64,
    /// Where in the decompressed extent the part starts, in bytes.
    pub extent_offset: u64,
    /// The size in bytes of the decompressed extent.
    pub ram_bytes: u64,
    /// One of [`compression`].
    pub compression: u8,
}

impl Regular {
    /// The logical range, in bytes, whose checksums a part of `len` bytes of the file is read by:
    /// that part of the extent, or all of one that is compressed. Where it starts, and its length.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for an address that overflows.
    pub(crate) fn checksummed(&self, len: u64) -> Result<(u64, u64)> {
        if self.compression != compression::NONE {
            return Ok((self.disk_bytenr, self.disk_num_bytes));
        }
        let start = self.disk_bytenr.checked_add(self.extent_offset);
        Ok((start.ok_or(EUCLEAN)?, len))
    }
}

/// Data within an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inline<'a> {
    /// The bytes as stored.
    pub data: &'a [u8],
    /// Their number once decompressed.
    pub ram_bytes: u64,
    /// One of [`compression`].
    pub compression: u8,
}

/// What a part of a file consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Nothing: it reads as zeros.
    Hole,
    /// Data within the item.
    Inline(Inline<'a>),
    /// Allocated and not written: it reads as zeros.
    Prealloc(Regular),
    /// Data in an extent.
    Regular(Regular),
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent<'a> {
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes; of inline data, the decompressed size.
    pub len: u64,
    /// The transaction that wrote it, 0 for a hole without an item.
    pub generation: u64,
    /// What it consists of.
    pub kind: Kind<'a>,
}

impl Extent<'_> {
    /// Where the part ends in the file, in bytes.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// Reads one file extent item and checks everything that can be checked without its neighbours.
///
/// # Errors
///
/// `EUCLEAN` for an item that no btrfs writes.
pub fn parse<'a>(key: &Key, data: &'a [u8], sectorsize: BlockSize) -> Result<Extent<'a>> {
    let item = FileExtent::read(data)?;
    let head = item.head();
    if head.compression > compression::ZSTD
        || head.encryption != 0
        || head.other_encoding.get() != 0
        || key.offset % sectorsize != 0
    {
        return Err(EUCLEAN);
    }
    let extent = |len, kind| Extent {
        offset: key.offset,
        len,
        generation: head.generation.get(),
        kind,
    };
    let ram_bytes = head.ram_bytes.get();
    let item = match item {
        FileExtent::Regular(item) => item,
        FileExtent::Inline { data, .. } => {
            // Old kernels left a wrong ram_bytes after inline truncation; the stored size counts
            // there.
            let len = if head.compression == compression::NONE {
                data.len() as u64
            } else {
                ram_bytes
            };
            if key.offset != 0 || len > MAX_COMPRESSED {
                return Err(EUCLEAN);
            }
            let inline = Inline {
                data,
                ram_bytes: len,
                compression: head.compression,
            };
            return Ok(extent(len, Kind::Inline(inline)));
        }
    };
    let (disk_bytenr, disk_num_bytes) = (item.disk_bytenr.get(), item.disk_num_bytes.get());
    let (offset, len) = (item.offset.get(), item.num_bytes.get());
    let aligned = (disk_bytenr | disk_num_bytes | offset | len) % sectorsize == 0;
    if data.len() != size_of::<FileExtentItem>()
        || !aligned
        || len == 0
        || key.offset.checked_add(len).is_none()
        || disk_bytenr.checked_add(disk_num_bytes).is_none()
    {
        return Err(EUCLEAN);
    }
    if disk_bytenr == 0 {
        return Ok(extent(len, Kind::Hole));
    }
    let compressed = head.compression != compression::NONE;
    let limit = if compressed {
        ram_bytes
    } else {
        disk_num_bytes
    };
    if offset.checked_add(len).ok_or(EUCLEAN)? > limit
        || (compressed && (ram_bytes > MAX_COMPRESSED || disk_num_bytes > MAX_COMPRESSED))
    {
        return Err(EUCLEAN);
    }
    let regular = Regular {
        disk_bytenr,
        disk_num_bytes,
        extent_offset: offset,
        ram_bytes,
        compression: head.compression,
    };
    match head.typ {
        TYPE_REG => Ok(extent(len, Kind::Regular(regular))),
        TYPE_PREALLOC if !compressed => Ok(extent(len, Kind::Prealloc(regular))),
        _ => Err(EUCLEAN),
    }
}

/// Calls `each` for the parts of inode `ino` that touch `from..to`, in order and without gaps or
/// overlaps, until it returns `false`. Holes that have no item are made up; parts are whole, so
/// that the first may start before `from` and the last may end after `to`.
///
/// # Errors
///
/// `EUCLEAN` for damaged or overlapping items, or what reading nodes or `each` gives.
pub fn for_each<S: Nodes>(
    nodes: &S,
    root: TreeRoot,
    ino: u64,
    sectorsize: BlockSize,
    (from, to): (u64, u64),
    each: &mut dyn FnMut(&Extent<'_>) -> Result<bool>,
) -> Result {
    let mut at = from;
    let mut cursor = Cursor::new(nodes, root);
    let start = Key::new(ino, item_type::EXTENT_DATA, from);
    // The part that holds `from` starts at or before it.
    let inside = cursor.seek_before(&start)?
        && cursor
            .item()
            .is_some_and(|(key, _)| key.is(ino, item_type::EXTENT_DATA));
    if !inside {
        cursor.seek(&start)?;
    }
    while let Some((key, data)) = cursor.item() {
        if !key.is(ino, item_type::EXTENT_DATA) || key.offset >= to {
            break;
        }
        let extent = parse(&key, data, sectorsize)?;
        // Inline data stands for its whole last sector.
        let end = sectorsize.round_up(extent.end()).ok_or(EUCLEAN)?;
        if extent.offset > at {
            let hole = hole(at, extent.offset);
            if !each(&hole)? {
                return Ok(());
            }
        } else if extent.offset < at && at != from {
            return Err(EUCLEAN);
        }
        if end > at {
            if !each(&extent)? {
                return Ok(());
            }
            at = end;
        }
        cursor.next()?;
    }
    if at < to {
        each(&hole(at, to))?;
    }
    Ok(())
}

fn hole(from: u64, to: u64) -> Extent<'static> {
    Extent {
        offset: from,
        len: to.saturating_sub(from),
        generation: 0,
        kind: Kind::Hole,
    }
}
