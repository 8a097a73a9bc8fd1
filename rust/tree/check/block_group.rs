// SPDX-License-Identifier: GPL-2.0
//! Block groups.

use super::chunk::check_type_features;
use super::fault::{at_least, at_most, equal, fault, Checked, Expected};
use super::item::Item;
use crate::format::chunk::{block_group_flags as flags, BlockGroupItem};
use crate::format::objectid;
use crate::format::superblock::incompat;

/// The size in bytes of the item with the remap tree, which adds two numbers.
const REMAP_ITEM_SIZE: usize = size_of::<BlockGroupItem>() + 12;

/// `BLOCK_GROUP_ITEM`.
pub(super) fn check(item: &Item<'_>) -> Checked {
    let length = item.key.offset;
    at_least("invalid block group length", length, 1)?;
    item.size_is(if item.limits.has(incompat::REMAP_TREE) {
        REMAP_ITEM_SIZE
    } else {
        size_of::<BlockGroupItem>()
    })?;
    let Some(group) = item.part::<BlockGroupItem>(0) else {
        return Ok(());
    };
    if !item.limits.has(incompat::EXTENT_TREE_V2) {
        let what = "invalid chunk objectid of a block group";
        equal(what, group.chunk_objectid.get(), objectid::FIRST_CHUNK_TREE)?;
    }
    at_most(
        "invalid used bytes of a block group",
        group.used.get(),
        length,
    )?;
    check_flags(item, group.flags.get())
}

fn check_flags(item: &Item<'_>, bits: u64) -> Checked {
    let profiles = bits & flags::PROFILE_MASK;
    let what = "several profiles of a block group";
    at_most(what, profiles.count_ones().into(), 1)?;
    check_type_features(item, bits)?;
    let types = flags::TYPE_MASK | flags::METADATA_REMAP;
    match bits & types {
        flags::DATA | flags::METADATA | flags::SYSTEM | flags::METADATA_REMAP => Ok(()),
        mixed if mixed == flags::DATA | flags::METADATA => Ok(()),
        typ => {
            let one = Expected::Words("one type, or data with metadata");
            fault("invalid type of a block group", typ, one)
        }
    }
}
