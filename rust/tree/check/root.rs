// SPDX-License-Identifier: GPL-2.0
//! Roots of trees, and the references between subvolumes.

use super::fault::{at_least, at_most, equal, fault, only_bits, Checked, Expected};
use super::item::Item;
use crate::format::dir::NAME_LEN;
use crate::format::header::MAX_LEVEL;
use crate::format::root::{
    RootItem, RootRef, OLD_ROOT_ITEM_SIZE, ROOT_SUBVOL_DEAD, ROOT_SUBVOL_RDONLY,
};
use crate::format::{read_at, tree_id};
use core::mem::offset_of;
use zerocopy::little_endian::U64;

/// `ROOT_ITEM`.
pub(super) fn check_root(item: &Item<'_>) -> Checked {
    at_least("invalid root id", item.key.objectid, 1)?;
    if item.key.objectid == tree_id::TREE_RELOC && !tree_id::is_fs_tree(item.key.offset) {
        let subvolumes = Expected::Words("the id of a subvolume");
        return fault(
            "relocation tree of no subvolume",
            item.key.offset,
            subvolumes,
        );
    }
    let size = size_of::<RootItem>();
    if item.bytes.len() != OLD_ROOT_ITEM_SIZE {
        item.size_is(size)?;
    }
    check_generations(item)?;
    check_block(item)?;
    check_drop_progress(item)?;
    let known = ROOT_SUBVOL_RDONLY | ROOT_SUBVOL_DEAD;
    let flags = number(item, offset_of!(RootItem, flags));
    only_bits("unknown root flags", flags, known)
}

/// A field of 64 bits. An old item has no fields from `generation_v2` on, which read as 0.
fn number(item: &Item<'_>, offset: usize) -> u64 {
    read_at::<U64>(item.bytes, offset).map_or(0, |value| value.get())
}

fn byte(item: &Item<'_>, offset: usize) -> u64 {
    item.bytes.get(offset).map_or(0, |byte| u64::from(*byte))
}

fn check_generations(item: &Item<'_>) -> Checked {
    for (what, offset) in [
        ("invalid root generation", offset_of!(RootItem, generation)),
        (
            "invalid root generation_v2",
            offset_of!(RootItem, generation_v2),
        ),
        (
            "invalid root last_snapshot",
            offset_of!(RootItem, last_snapshot),
        ),
    ] {
        at_most(what, number(item, offset), item.limits.newest)?;
    }
    Ok(())
}

fn check_block(item: &Item<'_>) -> Checked {
    let bytenr = number(item, offset_of!(RootItem, bytenr));
    item.sector_aligned("unaligned root bytenr", bytenr)?;
    let highest = u64::from(MAX_LEVEL.saturating_sub(1));
    let level = byte(item, offset_of!(RootItem, level));
    at_most("invalid root level", level, highest)
}

/// How far the deletion of a subvolume got is only ever noted at interior nodes.
fn check_drop_progress(item: &Item<'_>) -> Checked {
    let highest = u64::from(MAX_LEVEL.saturating_sub(1));
    let level = byte(item, offset_of!(RootItem, drop_level));
    at_most("invalid root drop_level", level, highest)?;
    let progress = number(item, offset_of!(RootItem, drop_progress));
    if progress != 0 {
        at_least("invalid root drop_level with drop_progress", level, 1)?;
    }
    Ok(())
}

/// `ROOT_REF` and `ROOT_BACKREF`: one name.
pub(super) fn check_ref(item: &Item<'_>) -> Checked {
    let what = "invalid item size of a root reference";
    let head_size = size_of::<RootRef>() as u64;
    at_least(what, item.size(), head_size.saturating_add(1))?;
    let Some(head) = item.part::<RootRef>(0) else {
        return Ok(());
    };
    let name_len = u64::from(head.name_len.get());
    at_most(
        "name of a root reference is too long",
        name_len,
        NAME_LEN as u64,
    )?;
    equal(what, item.size(), head_size.saturating_add(name_len))
}
