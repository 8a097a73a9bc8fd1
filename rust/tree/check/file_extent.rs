// SPDX-License-Identifier: GPL-2.0
//! File extents.

use super::fault::{at_least, at_most, equal, sum, Checked};
use super::item::{part, Item};
use crate::format::file_extent::{
    compression, FileExtentHead, FileExtentItem, INLINE_HEAD_SIZE, TYPE_INLINE, TYPE_PREALLOC,
};
use crate::format::{tree_id, Key};

/// `EXTENT_DATA`.
pub(super) fn check(item: &Item<'_>) -> Checked {
    item.sector_aligned("unaligned file offset", item.key.offset)?;
    item.follows_its_inode()?;
    let what = "invalid item size of a file extent";
    at_least(what, item.size(), INLINE_HEAD_SIZE as u64)?;
    let Some(head) = item.part::<FileExtentHead>(0) else {
        return Ok(());
    };
    check_encoding(head)?;
    if head.typ == TYPE_INLINE {
        return check_inline(item, head);
    }
    if item.owner == tree_id::DATA_RELOC {
        check_relocated(head)?;
    }
    item.size_is(size_of::<FileExtentItem>())?;
    if let Some(extent) = item.part::<FileExtentItem>(0) {
        check_range(item, extent)?;
    }
    check_overlap(item)
}

fn check_encoding(head: &FileExtentHead) -> Checked {
    let typ = u64::from(head.typ);
    at_most("invalid type of a file extent", typ, TYPE_PREALLOC.into())?;
    let (found, most) = (head.compression.into(), compression::ZSTD.into());
    at_most("invalid compression of a file extent", found, most)?;
    equal(
        "invalid encryption of a file extent",
        head.encryption.into(),
        0,
    )
}

/// An inline extent is at the start of its file. Without compression its data is as long as it
/// says.
fn check_inline(item: &Item<'_>, head: &FileExtentHead) -> Checked {
    equal(
        "invalid file offset of an inline extent",
        item.key.offset,
        0,
    )?;
    if head.compression != compression::NONE {
        return Ok(());
    }
    let data = item.size().saturating_sub(INLINE_HEAD_SIZE as u64);
    let what = "invalid ram_bytes of an uncompressed inline extent";
    equal(what, head.ram_bytes.get(), data)
}

/// What the C driver's relocation writes into its own tree is never encoded.
fn check_relocated(head: &FileExtentHead) -> Checked {
    let what = "encoded file extent in the data relocation tree";
    let encoding = u64::from(head.compression) | u64::from(head.other_encoding.get());
    equal(what, encoding, 0)
}

fn check_range(item: &Item<'_>, extent: &FileExtentItem) -> Checked {
    for (what, value) in [
        (
            "unaligned ram_bytes of a file extent",
            extent.head.ram_bytes,
        ),
        ("unaligned disk_bytenr of a file extent", extent.disk_bytenr),
        (
            "unaligned disk_num_bytes of a file extent",
            extent.disk_num_bytes,
        ),
        ("unaligned offset of a file extent", extent.offset),
        ("unaligned num_bytes of a file extent", extent.num_bytes),
    ] {
        item.sector_aligned(what, value.get())?;
    }
    let what = "end of a file extent is beyond all offsets";
    sum(what, item.key.offset, extent.num_bytes.get()).map(|_| ())
}

/// The extent before it must end where this one starts, or earlier.
fn check_overlap(item: &Item<'_>) -> Checked {
    let Some((key, bytes)) = item.previous_of_kind() else {
        return Ok(());
    };
    let end = end(item, key, bytes);
    at_most(
        "previous file extent overlaps this one",
        end,
        item.key.offset,
    )
}

/// Where an extent that passed its own rules ends in the file. That of an inline extent covers
/// whole sectors.
fn end(item: &Item<'_>, key: Key, bytes: &[u8]) -> u64 {
    if let Some(extent) = part::<FileExtentItem>(bytes, 0).filter(|e| e.head.typ != TYPE_INLINE) {
        return key.offset.saturating_add(extent.num_bytes.get());
    }
    let ram_bytes = part::<FileExtentHead>(bytes, 0).map_or(0, |head| head.ram_bytes.get());
    let end = key.offset.saturating_add(ram_bytes);
    end.checked_next_multiple_of(item.limits.sectorsize())
        .unwrap_or(u64::MAX)
}
