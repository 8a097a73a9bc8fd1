// SPDX-License-Identifier: GPL-2.0
//! Extents, and the references within their items.

use super::extent_ref::{check_count, check_data_ref, check_parent};
use super::fault::{at_least, at_most, equal, fault, Checked, Expected, RuleFault};
use super::item::Item;
use crate::format::crc::data_ref_hash;
use crate::format::extent::{
    ExtentDataRef, ExtentItem, InlineRef, SharedDataRef, TreeBlockInfo, FLAG_DATA,
    FLAG_FULL_BACKREF, FLAG_TREE_BLOCK,
};
use crate::format::header::MAX_LEVEL;
use crate::format::item_type;
use crate::format::superblock::incompat;

/// `EXTENT_ITEM` and `METADATA_ITEM`.
pub(super) fn check(item: &Item<'_>) -> Checked {
    check_key(item)?;
    let what = "invalid item size of an extent";
    at_least(what, item.size(), size_of::<ExtentItem>() as u64)?;
    let Some(extent) = item.part::<ExtentItem>(0) else {
        return Ok(());
    };
    let generation = extent.generation.get();
    at_most("invalid extent generation", generation, item.limits.newest)?;
    let mut at = size_of::<ExtentItem>();
    match extent.flags.get() & (FLAG_DATA | FLAG_TREE_BLOCK) {
        FLAG_DATA => check_data(item, extent.flags.get())?,
        FLAG_TREE_BLOCK => at = check_tree_block(item)?,
        _ => {
            let what = "invalid extent flags";
            let one = Expected::Words("one of data (1) and tree block (2)");
            return fault(what, extent.flags.get(), one);
        }
    }
    let inline = check_inline_refs(item, at)?;
    at_least(
        "fewer extent references than inline ones",
        extent.refs.get(),
        inline,
    )?;
    check_overlap(item)
}

fn check_key(item: &Item<'_>) -> Checked {
    let highest = u64::from(MAX_LEVEL.saturating_sub(1));
    item.sector_aligned("unaligned extent address", item.key.objectid)?;
    if item.key.typ == item_type::METADATA_ITEM {
        if !item.limits.has(incompat::SKINNY_METADATA) {
            let item_of =
                Expected::Words("an EXTENT_ITEM, as the volume is without SKINNY_METADATA");
            return fault(
                "invalid type of a tree block's item",
                item.key.typ.into(),
                item_of,
            );
        }
        at_most("invalid level of a tree block", item.key.offset, highest)?;
    }
    Ok(())
}

fn check_data(item: &Item<'_>, flags: u64) -> Checked {
    let what = "invalid key type of a data extent";
    equal(what, item.key.typ.into(), item_type::EXTENT_ITEM.into())?;
    item.sector_aligned("unaligned length of a data extent", item.key.offset)?;
    let what = "data extent with full back references";
    equal(what, flags & FLAG_FULL_BACKREF, 0)
}

/// Returns where the references start: an `EXTENT_ITEM` has level and first key before them.
fn check_tree_block(item: &Item<'_>) -> Result<usize, RuleFault> {
    let at = size_of::<ExtentItem>();
    if item.key.typ == item_type::METADATA_ITEM {
        return Ok(at);
    }
    let what = "invalid length of a tree block";
    equal(what, item.key.offset, item.limits.nodesize())?;
    let end = at.saturating_add(size_of::<TreeBlockInfo>());
    at_least("invalid item size of an extent", item.size(), end as u64)?;
    if let Some(info) = item.part::<TreeBlockInfo>(at) {
        let highest = u64::from(MAX_LEVEL.saturating_sub(1));
        at_most("invalid level of a tree block", info.level.into(), highest)?;
    }
    Ok(end)
}

/// The references from `at` on. By type they ascend; within a type their sequence numbers descend.
/// Returns how many references they are.
fn check_inline_refs(item: &Item<'_>, mut at: usize) -> Result<u64, RuleFault> {
    let (mut last_type, mut last_sequence) = (0u8, u64::MAX);
    let mut total = 0u64;
    while at < item.bytes.len() {
        let typ = item.bytes.get(at).copied().unwrap_or(0);
        let end = at.saturating_add(inline_size(typ)?);
        at_least("inline reference beyond its item", item.size(), end as u64)?;
        let what = "inline references out of order by type";
        at_least(what, typ.into(), last_type.into())?;
        if typ != last_type {
            last_sequence = u64::MAX;
        }
        let (sequence, count) = check_inline_ref(item, typ, at)?;
        let what = "inline references out of order within a type";
        at_most(what, sequence, last_sequence)?;
        (last_type, last_sequence) = (typ, sequence);
        total = total.saturating_add(count);
        at = end;
    }
    Ok(total)
}

/// The size in bytes of an inline reference of this type.
fn inline_size(typ: u8) -> Result<usize, RuleFault> {
    match typ {
        item_type::TREE_BLOCK_REF | item_type::SHARED_BLOCK_REF | item_type::EXTENT_OWNER_REF => {
            Ok(size_of::<InlineRef>())
        }
        item_type::SHARED_DATA_REF => Ok(SHARED_DATA_AT + size_of::<SharedDataRef>()),
        item_type::EXTENT_DATA_REF => Ok(DATA_AT + size_of::<ExtentDataRef>()),
        _ => {
            let what = "unknown type of an inline reference";
            let known = Expected::Words("the type of a reference");
            Err(RuleFault::new(what, typ.into(), known))
        }
    }
}

/// Where the data of an `EXTENT_DATA_REF` starts, in bytes: in place of the head's number.
const DATA_AT: usize = 1;
/// Where that of a `SHARED_DATA_REF` starts, in bytes: after the head.
const SHARED_DATA_AT: usize = size_of::<InlineRef>();

/// Checks the reference at `at`. Returns its sequence number, and how many references it counts
/// for.
fn check_inline_ref(item: &Item<'_>, typ: u8, at: usize) -> Result<(u64, u64), RuleFault> {
    let number = item
        .part::<InlineRef>(at)
        .map_or(0, |head| head.offset.get());
    match typ {
        item_type::SHARED_BLOCK_REF => {
            check_parent(item, number)?;
            Ok((number, 1))
        }
        item_type::SHARED_DATA_REF => {
            check_parent(item, number)?;
            let at = at.saturating_add(SHARED_DATA_AT);
            let count = item
                .part::<SharedDataRef>(at)
                .map_or(0, |data| data.count.get());
            check_count(count)?;
            Ok((number, count.into()))
        }
        item_type::EXTENT_DATA_REF => {
            let Some(data) = item.part::<ExtentDataRef>(at.saturating_add(DATA_AT)) else {
                return Ok((0, 0));
            };
            check_data_ref(item, data)?;
            let (root, ino) = (data.root.get(), data.objectid.get());
            let hash = data_ref_hash(root, ino, data.offset.get());
            Ok((hash, data.count.get().into()))
        }
        // The number of a tree, which may be any. An owner is no reference.
        item_type::TREE_BLOCK_REF => Ok((number, 1)),
        _ => Ok((number, 0)),
    }
}

/// The extent before it must end where this one starts, or earlier.
fn check_overlap(item: &Item<'_>) -> Checked {
    let Some((previous, _)) = item.previous else {
        return Ok(());
    };
    let length = match previous.typ {
        item_type::EXTENT_ITEM => previous.offset,
        item_type::METADATA_ITEM => item.limits.nodesize(),
        _ => return Ok(()),
    };
    let end = previous.objectid.saturating_add(length);
    at_most("previous extent overlaps this one", end, item.key.objectid)
}
