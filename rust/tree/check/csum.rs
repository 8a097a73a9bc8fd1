// SPDX-License-Identifier: GPL-2.0
//! Checksums of data sectors.

use super::fault::{aligned, at_most, equal, Checked};
use super::item::Item;
use crate::format::objectid;

/// `EXTENT_CSUM`.
pub(super) fn check(item: &Item<'_>) -> Checked {
    let what = "invalid objectid of a checksum item";
    equal(what, item.key.objectid, objectid::EXTENT_CSUM)?;
    item.sector_aligned("unaligned address of a checksum item", item.key.offset)?;
    let kind = item.limits.geometry.checksum;
    let csum_size = kind.size() as u64;
    aligned("unaligned size of a checksum item", item.size(), csum_size)?;
    let Some((previous, bytes)) = item.previous_of_kind() else {
        return Ok(());
    };
    let sectors = kind.count(bytes.len()) as u64;
    let covered = sectors.saturating_mul(item.limits.sectorsize());
    let end = previous.offset.saturating_add(covered);
    at_most(
        "previous checksum item overlaps this one",
        end,
        item.key.offset,
    )
}
