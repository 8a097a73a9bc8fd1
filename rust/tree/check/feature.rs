// SPDX-License-Identifier: GPL-2.0
//! Items that only volumes with a certain feature have.

use super::fault::{at_least, fault, sum, Checked, Expected};
use super::item::Item;
use crate::format::item_type;
use crate::format::superblock::incompat;

/// The size in bytes of an item that says where a range was moved.
const REMAP_SIZE: usize = 8;

/// `RAID_STRIPE`.
pub(super) fn check_raid_stripe(item: &Item<'_>) -> Checked {
    item.sector_aligned("unaligned address of a stripe", item.key.objectid)?;
    if item.limits.has(incompat::RAID_STRIPE_TREE) {
        return Ok(());
    }
    let none = Expected::Words("none, as the volume is without RAID_STRIPE_TREE");
    fault("item of a RAID stripe tree", item.key.typ.into(), none)
}

/// `IDENTITY_REMAP`, `REMAP` and `REMAP_BACKREF`, keyed by address and length.
pub(super) fn check_remap(item: &Item<'_>) -> Checked {
    if !item.limits.has(incompat::REMAP_TREE) {
        let none = Expected::Words("none, as the volume is without REMAP_TREE");
        return fault("item of a remap tree", item.key.typ.into(), none);
    }
    item.size_is(if item.key.typ == item_type::IDENTITY_REMAP {
        0
    } else {
        REMAP_SIZE
    })?;
    let (start, length) = (item.key.objectid, item.key.offset);
    at_least("invalid length of a remapped range", length, 1)?;
    item.sector_aligned("unaligned address of a remapped range", start)?;
    item.sector_aligned("unaligned length of a remapped range", length)?;
    sum("remapped range ends beyond all addresses", start, length).map(|_| ())
}
