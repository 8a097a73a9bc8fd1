// SPDX-License-Identifier: GPL-2.0
//! The free space tree: for each block group what form its free space has, then that.

use super::fault::{at_least, at_most, equal, fault, only_bits, sum, Checked, Expected};
use super::item::{part, Item};
use crate::format::free_space::{FreeSpaceInfo, USING_BITMAPS};
use crate::format::{item_type, Key};

/// The range of addresses in the key: aligned, and its end an address.
fn check_range(item: &Item<'_>) -> Checked {
    let (start, length) = (item.key.objectid, item.key.offset);
    item.sector_aligned("unaligned address of free space", start)?;
    item.sector_aligned("unaligned length of free space", length)?;
    sum("free space ends beyond all addresses", start, length).map(|_| ())
}

/// `FREE_SPACE_INFO`, keyed as the block group.
pub(super) fn check_info(item: &Item<'_>) -> Checked {
    check_range(item)?;
    item.size_is(size_of::<FreeSpaceInfo>())?;
    let Some(info) = item.part::<FreeSpaceInfo>(0) else {
        return Ok(());
    };
    let what = "unknown free space flags";
    only_bits(what, info.flags.get().into(), USING_BITMAPS.into())?;
    let count = u64::from(info.extent_count.get());
    let sectors = item.key.offset / item.limits.geometry.sectorsize;
    at_most("more free extents than sectors", count, sectors)
}

/// `FREE_SPACE_EXTENT`.
pub(super) fn check_extent(item: &Item<'_>) -> Checked {
    check_place(item)?;
    item.size_is(0)
}

/// `FREE_SPACE_BITMAP`, with a bit for each sector.
pub(super) fn check_bitmap(item: &Item<'_>) -> Checked {
    check_place(item)?;
    let sectors = item.key.offset / item.limits.geometry.sectorsize;
    let bytes = sectors.div_ceil(u8::BITS.into());
    equal("invalid size of a free space bitmap", item.size(), bytes)
}

/// Free space follows the block group that it is in, or free space of the same form.
fn check_place(item: &Item<'_>) -> Checked {
    check_range(item)?;
    at_least("invalid length of free space", item.key.offset, 1)?;
    let Some((previous, bytes)) = item.previous else {
        return Ok(());
    };
    let end = |key: &Key| key.objectid.saturating_add(key.offset);
    if previous.typ == item_type::FREE_SPACE_INFO {
        let (start, most) = (item.key.objectid, end(&previous));
        let what = "free space outside of its block group";
        at_least(what, start, previous.objectid)?;
        at_most(what, end(&item.key), most)?;
        return check_form(item, bytes);
    }
    let what = "free space does not follow its own form";
    equal(what, previous.typ.into(), item.key.typ.into())?;
    let what = "previous free space overlaps this one";
    at_most(what, end(&previous), item.key.objectid)
}

/// The form is the one that the block group's item says.
fn check_form(item: &Item<'_>, info: &[u8]) -> Checked {
    let flags = part::<FreeSpaceInfo>(info, 0).map_or(0, |info| info.flags.get());
    let is_bitmap = item.key.typ == item_type::FREE_SPACE_BITMAP;
    if (flags == USING_BITMAPS) == is_bitmap {
        return Ok(());
    }
    let words = if is_bitmap {
        "extents, as the block group is without bitmaps"
    } else {
        "bitmaps, as the block group uses them"
    };
    let what = "free space does not have its block group's form";
    fault(what, item.key.typ.into(), Expected::Words(words))
}
