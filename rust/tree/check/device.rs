// SPDX-License-Identifier: GPL-2.0
//! Devices, and what of them is allocated.

use super::fault::{at_most, equal, Checked};
use super::item::{part, Item};
use crate::format::chunk::{DevExtent, DevItem};
use crate::format::{objectid, tree_id};

/// `DEV_ITEM`. Its size cannot be judged here: it is 0 while a device is removed.
pub(super) fn check_device(item: &Item<'_>) -> Checked {
    let what = "invalid objectid of a device item";
    equal(what, item.key.objectid, objectid::DEV_ITEMS)?;
    item.size_is(size_of::<DevItem>())?;
    let Some(device) = item.part::<DevItem>(0) else {
        return Ok(());
    };
    equal(
        "devid mismatch with key",
        device.devid.get(),
        item.key.offset,
    )?;
    let (used, total) = (device.bytes_used.get(), device.total_bytes.get());
    at_most("invalid used bytes of a device", used, total)
}

/// `DEV_EXTENT`.
pub(super) fn check_extent(item: &Item<'_>) -> Checked {
    item.size_is(size_of::<DevExtent>())?;
    let Some(extent) = item.part::<DevExtent>(0) else {
        return Ok(());
    };
    let what = "invalid chunk tree of a device extent";
    equal(what, extent.chunk_tree.get(), tree_id::CHUNK)?;
    let what = "invalid chunk objectid of a device extent";
    equal(
        what,
        extent.chunk_objectid.get(),
        objectid::FIRST_CHUNK_TREE,
    )?;
    item.sector_aligned("unaligned device extent", item.key.offset)?;
    let chunk = extent.chunk_offset.get();
    item.sector_aligned("unaligned chunk of a device extent", chunk)?;
    item.sector_aligned("unaligned length of a device extent", extent.length.get())?;
    let Some((previous, bytes)) = item.previous_of_kind() else {
        return Ok(());
    };
    let length = part::<DevExtent>(bytes, 0).map_or(0, |extent| extent.length.get());
    let end = previous.offset.saturating_add(length);
    at_most(
        "previous device extent overlaps this one",
        end,
        item.key.offset,
    )
}
