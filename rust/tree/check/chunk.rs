// SPDX-License-Identifier: GPL-2.0
//! Chunks, by what every btrfs may write: profiles that this driver does not support are refused
//! elsewhere, in words.

use super::fault::{at_least, at_most, equal, fault, only_bits, sum, Checked, Expected};
use super::item::Item;
use crate::format::chunk::{block_group_flags as flags, Chunk, Stripe, STRIPE_LEN};
use crate::format::superblock::incompat;

/// The longest chunk, in bytes, is shorter than this: its stripes are counted in 32 bits.
const LENGTH_LIMIT: u64 = STRIPE_LEN * u32::MAX as u64;

/// `CHUNK_ITEM`.
pub(super) fn check(item: &Item<'_>) -> Checked {
    let head_size = size_of::<Chunk>() as u64;
    at_least("invalid item size of a chunk", item.size(), head_size)?;
    let Some(chunk) = item.part::<Chunk>(0) else {
        return Ok(());
    };
    let stripes = u64::from(chunk.num_stripes.get());
    if stripes != 0 {
        let size = stripes.saturating_mul(size_of::<Stripe>() as u64);
        let what = "invalid item size of a chunk";
        equal(what, item.size(), size.saturating_add(head_size))?;
    }
    let typ = chunk.typ.get();
    check_type(item, typ)?;
    check_range(item, chunk)?;
    // What a remapped chunk held is elsewhere, so that it may be without stripes.
    if typ & flags::REMAPPED != 0 {
        return Ok(());
    }
    check_stripes(
        typ & flags::PROFILE_MASK,
        stripes,
        chunk.sub_stripes.get().into(),
    )
}

fn check_range(item: &Item<'_>, chunk: &Chunk) -> Checked {
    let (logical, length) = (item.key.offset, chunk.length.get());
    item.sector_aligned("unaligned chunk logical", logical)?;
    let what = "invalid chunk sector size";
    equal(
        what,
        chunk.sector_size.get().into(),
        item.limits.sectorsize(),
    )?;
    at_least("invalid chunk length", length, 1)?;
    item.sector_aligned("unaligned chunk length", length)?;
    sum("chunk ends beyond all addresses", logical, length)?;
    equal(
        "invalid chunk stripe length",
        chunk.stripe_len.get(),
        STRIPE_LEN,
    )?;
    at_most("chunk is too long", length, LENGTH_LIMIT.saturating_sub(1))
}

fn check_type(item: &Item<'_>, bits: u64) -> Checked {
    let types = flags::TYPE_MASK | flags::METADATA_REMAP;
    let known = types | flags::PROFILE_MASK | flags::REMAPPED;
    only_bits("unknown chunk type", bits, known)?;
    let profiles = bits & flags::PROFILE_MASK;
    at_most(
        "several profiles of a chunk",
        profiles.count_ones().into(),
        1,
    )?;
    at_least("missing chunk type", bits & types, 1)?;
    let others = bits & (flags::DATA | flags::METADATA);
    if bits & flags::SYSTEM != 0 {
        equal("system chunk with data or metadata", others, 0)?;
    }
    if others == flags::DATA | flags::METADATA && !item.limits.has(incompat::MIXED_GROUPS) {
        let one = Expected::Words("one type, as the volume is without MIXED_GROUPS");
        return fault("mixed chunk type", bits, one);
    }
    check_type_features(item, bits)
}

/// Types that only the remap tree has, for block groups as well.
pub(super) fn check_type_features(item: &Item<'_>, bits: u64) -> Checked {
    let remap = bits & (flags::METADATA_REMAP | flags::REMAPPED);
    if item.limits.has(incompat::REMAP_TREE) {
        return Ok(());
    }
    equal(
        "type of the remap tree, which the volume is without",
        remap,
        0,
    )
}

/// Each profile has its number of stripes; the count of the C driver's table, per chunk.
fn check_stripes(profile: u64, stripes: u64, sub_stripes: u64) -> Checked {
    let what = "invalid number of stripes for the chunk's profile";
    match profile {
        flags::RAID0 => at_least(what, stripes, 1),
        flags::RAID10 => {
            at_least(what, stripes, 2)?;
            equal("invalid sub_stripes of a chunk", sub_stripes, 2)
        }
        flags::RAID5 => at_least(what, stripes, 2),
        flags::RAID6 => at_least(what, stripes, 3),
        flags::RAID1C3 => equal(what, stripes, 3),
        flags::RAID1C4 => equal(what, stripes, 4),
        flags::RAID1 | flags::DUP => equal(what, stripes, 2),
        _ => equal(what, stripes, 1),
    }
}
