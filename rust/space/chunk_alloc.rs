// SPDX-License-Identifier: GPL-2.0
//! Making and removing chunks, and with them block groups.
//!
//! A chunk is made in two steps. [`make`] chooses its place on the device and puts it into memory:
//! blocks can be allocated from it at once, even while a tree is being changed.
//! [`write_new_block_groups`] then writes its items, when no tree is being changed; doing so may
//! allocate blocks, and make further chunks.

use kernel::prelude::*;

use super::block_group::{self, copies, BlockGroup, Kind};
use super::dev_extent;
use super::extent_set::{Extent, ExtentSet};
use super::free_space_tree;
use super::space_info::{Space, SpaceContext, Volume};
use crate::format::chunk::{Chunk, Stripe, STRIPE_LEN};
use crate::format::superblock::SuperBlock;
use crate::format::{self, item_type, objectid, tree_id, DiskKey, Key};
use crate::tree::edit;

/// The size of a device, in bytes, above which metadata chunks are a gigabyte.
const LARGE: u64 = 50 << 30;

/// The size in bytes that chunks have where there is plenty of space, on a device of `total` bytes.
pub const fn wanted_size(kind: Kind, total: u64) -> u64 {
    match kind {
        Kind::Data => 10 << 30,
        Kind::Metadata if total > LARGE => 1 << 30,
        Kind::Metadata => 256 << 20,
        Kind::System => 32 << 20,
    }
}

/// The largest size of a chunk, and of one copy of it, on a device of `total` bytes.
fn limits(kind: Kind, total: u64) -> (u64, u64) {
    let size = wanted_size(kind, total);
    let tenth = total / 10;
    (tenth.min(size), size.min(1 << 30))
}

/// Chooses a place on the device: the range of all copies, one after the other, and the size of
/// one.
fn place(space: &Space, kind: Kind, copies: u64) -> Result<(Extent, u64)> {
    let total = space.devices.total_bytes();
    let (max_chunk, max_stripe) = limits(kind, total);
    let least = STRIPE_LEN.saturating_mul(copies);
    let hole = space
        .devices
        .find_hole(max_stripe.saturating_mul(copies))
        .filter(|hole| hole.len >= least)
        .ok_or(ENOSPC)?;
    let mut size = hole.len.checked_div(copies).ok_or(EINVAL)?;
    if size > max_chunk {
        let rounded = max_chunk
            .checked_next_multiple_of(16 << 20)
            .ok_or(EOVERFLOW)?;
        size = size.min(rounded);
    }
    size = size.min(1 << 30);
    size = size.saturating_sub(size % STRIPE_LEN);
    Ok((hole, size))
}

/// Makes a chunk of at least `least` bytes in memory and its block group, all of it free. Returns
/// the logical start.
///
/// # Errors
///
/// `EINVAL` for flags that name no kind or an unsupported profile; `ENOSPC` if the device has no
/// space; `ENOMEM`.
pub(crate) fn make<V: Volume>(space: &mut Space, vol: &V, flags: u64, least: u64) -> Result<u64> {
    let kind = Kind::of(flags).ok_or(EINVAL)?;
    let copies = copies(flags).ok_or(EINVAL)?;
    let (hole, size) = place(space, kind, copies)?;
    if size < least {
        return Err(ENOSPC);
    }
    let start = space
        .devices
        .logical_end()
        .checked_next_multiple_of(STRIPE_LEN)
        .ok_or(ENOSPC)?;
    let range = Extent::new(start, size)?;
    // What fails is undone by dropping the place again.
    space.groups.reserve(1, GFP_KERNEL)?;
    let made = claim(space, range, hole.start, copies)
        .and_then(|()| new_group(space, range, flags))
        .and_then(|group| {
            publish(space, vol, Some(&group))?;
            Ok(group)
        });
    match made {
        Ok(group) => {
            space.add_group(group)?;
            Ok(start)
        }
        Err(error) => {
            space.devices.forget(start);
            Err(error)
        }
    }
}

/// Notes the place of all copies.
fn claim(space: &mut Space, range: Extent, physical: u64, copies: u64) -> Result {
    for copy in 0..copies {
        let offset = range.len.saturating_mul(copy);
        let physical = Extent::new(physical.saturating_add(offset), range.len)?;
        space.devices.insert(physical, range.start)?;
    }
    Ok(())
}

fn new_group(space: &Space, range: Extent, flags: u64) -> Result<BlockGroup> {
    let mut group = BlockGroup::new(range.start, range.len, flags, &space.devices)?;
    let mut free = ExtentSet::new();
    free.insert(range)?;
    for extent in group.supers.iter() {
        free.subtract(*extent)?;
    }
    group.free = Some(free);
    group.pending = true;
    group.fresh = true;
    group.untracked = true;
    Ok(group)
}

/// Has all chunks of `space`, those removed and not released included, and `new` found by their
/// addresses; no others.
pub(crate) fn publish<V: Volume>(space: &Space, vol: &V, new: Option<&BlockGroup>) -> Result {
    let starts = space.devices.chunk_starts()?;
    let keep = |start| starts.binary_search(&start).is_ok();
    match new {
        Some(group) => {
            let item = chunk_item(space, group)?;
            // What an address meant before a rollback must not survive.
            let keep = |start| start != group.start && keep(start);
            vol.set_chunks(&keep, Some((group.start, &item)))
        }
        None => vol.set_chunks(&keep, None),
    }
}

/// Makes a chunk of the kind and profile in `flags`, with all its items. Returns its logical start.
///
/// # Errors
///
/// As for [`write_new_block_groups`], `EINVAL` for flags that name no kind or an unsupported
/// profile, and `ENOSPC` if the device has no space.
pub fn create_chunk<C: SpaceContext>(cx: &mut C, flags: u64) -> Result<u64> {
    let (space, vol) = cx.allocator();
    let start = make(space, vol, flags, 0)?;
    write_new_block_groups(cx)?;
    Ok(start)
}

/// Writes the items of all chunks that were made in memory.
///
/// # Errors
///
/// `EFBIG` if a system chunk does not fit into the superblock; those of changing trees.
pub fn write_new_block_groups<C: SpaceContext>(cx: &mut C) -> Result {
    while let Some(start) = cx.space().first_pending() {
        // From here on a change of its use makes it dirty as any other.
        cx.space_mut().group_at_mut(start)?.pending = false;
        block_group::insert_item(cx, start)?;
        dev_extent::update_dev_item(cx)?;
        insert_chunk_item(cx, start)?;
        let mut copies = KVec::new();
        for physical in cx.space().devices().stripes(start) {
            copies.push(physical, GFP_KERNEL)?;
        }
        for physical in copies.iter() {
            dev_extent::insert_item(cx, *physical, start)?;
        }
        free_space_tree::track(cx, start)?;
    }
    Ok(())
}

fn chunk_key(start: u64) -> Key {
    Key::new(objectid::FIRST_CHUNK_TREE, item_type::CHUNK_ITEM, start)
}

/// The chunk item of a block group.
fn chunk_item(space: &Space, group: &BlockGroup) -> Result<KVec<u8>> {
    let mut stripes = KVec::new();
    let mut count = 0u16;
    for physical in space.devices.stripes(group.start) {
        let stripe = Stripe {
            devid: space.devices.devid().into(),
            offset: physical.start.into(),
            dev_uuid: space.device_uuid,
        };
        stripes.extend_from_slice(stripe.as_bytes(), GFP_KERNEL)?;
        count = count.checked_add(1).ok_or(EUCLEAN)?;
    }
    let chunk = Chunk {
        length: group.length.into(),
        owner: tree_id::EXTENT.into(),
        stripe_len: STRIPE_LEN.into(),
        typ: group.flags.into(),
        io_align: (STRIPE_LEN as u32).into(),
        io_width: (STRIPE_LEN as u32).into(),
        sector_size: u32::from(space.sectorsize).into(),
        num_stripes: count.into(),
        sub_stripes: 1.into(),
    };
    let mut item = KVec::new();
    item.extend_from_slice(chunk.as_bytes(), GFP_KERNEL)?;
    item.extend_from_slice(&stripes, GFP_KERNEL)?;
    Ok(item)
}

fn insert_chunk_item<C: SpaceContext>(cx: &mut C, start: u64) -> Result {
    let group = cx.space().group_at(start)?;
    let kind = group.kind();
    let item = chunk_item(cx.space(), group)?;
    edit::insert(cx, tree_id::CHUNK, &chunk_key(start), &item)?;
    if kind == Kind::System {
        add_sys_chunk(cx.superblock_mut(), start, &item)?;
    }
    Ok(())
}

/// Removes an empty, read-only block group and its chunk. Its place on the device, and its
/// addresses, are not used again before [`Space::release_up_to`]. No delayed ref within it may be
/// queued.
///
/// # Errors
///
/// `ENOENT` without such a block group; `EBUSY` if it is not read-only, not empty, or was made by
/// this transaction; `ENOSPC`; those of changing trees.
pub fn remove_chunk<C: SpaceContext>(cx: &mut C, start: u64) -> Result {
    let group = cx.space().group_at(start)?;
    if !group.is_read_only() || group.used() != 0 || group.reserved() != 0 || group.fresh {
        return Err(EBUSY);
    }
    let kind = group.kind();
    let (space, vol) = cx.allocator();
    space.ensure_available(vol, Kind::System, 0)?;
    write_new_block_groups(cx)?;
    let mut copies = KVec::new();
    for physical in cx.space().devices().stripes(start) {
        copies.push(physical, GFP_KERNEL)?;
    }
    for physical in copies.iter() {
        dev_extent::delete_item(cx, *physical)?;
    }
    let transid = cx.transid();
    cx.space_mut().devices.mark_removed(start, transid);
    dev_extent::update_dev_item(cx)?;
    edit::delete(cx, tree_id::CHUNK, &chunk_key(start))?;
    if kind == Kind::System {
        delete_sys_chunk(cx.superblock_mut(), start)?;
    }
    free_space_tree::untrack(cx, start)?;
    block_group::delete_item(cx, start)?;
    cx.space_mut().forget_group(start);
    Ok(())
}

/// Appends a chunk to the superblock's array of system chunks.
fn add_sys_chunk(superblock: &mut SuperBlock, start: u64, item: &[u8]) -> Result {
    let key = DiskKey::from(chunk_key(start));
    let used = superblock.sys_chunk_array_size.get() as usize;
    let middle = used.checked_add(size_of::<DiskKey>()).ok_or(EFBIG)?;
    let end = middle.checked_add(item.len()).ok_or(EFBIG)?;
    let array = &mut superblock.sys_chunk_array;
    if end > array.len() {
        return Err(EFBIG);
    }
    array
        .get_mut(used..middle)
        .ok_or(EFBIG)?
        .copy_from_slice(key.as_bytes());
    array
        .get_mut(middle..end)
        .ok_or(EFBIG)?
        .copy_from_slice(item);
    superblock.sys_chunk_array_size = (end as u32).into();
    Ok(())
}

/// Takes a chunk out of the superblock's array of system chunks.
fn delete_sys_chunk(superblock: &mut SuperBlock, start: u64) -> Result {
    let used = superblock.sys_chunk_array_size.get() as usize;
    let array = superblock.sys_chunk_array.get_mut(..used).ok_or(EUCLEAN)?;
    let mut at = 0usize;
    while at < array.len() {
        let key: DiskKey = format::read_at(array, at)?;
        let head = at.saturating_add(size_of::<DiskKey>());
        let chunk: Chunk = format::read_at(array, head)?;
        let stripes = usize::from(chunk.num_stripes.get()).saturating_mul(size_of::<Stripe>());
        let len = size_of::<DiskKey>() + size_of::<Chunk>();
        let end = at.saturating_add(len).saturating_add(stripes);
        if end > array.len() {
            return Err(EUCLEAN);
        }
        if Key::from(key) == chunk_key(start) {
            array.copy_within(end.., at);
            let left = at.saturating_add(used.saturating_sub(end));
            array.get_mut(left..).ok_or(EUCLEAN)?.fill(0);
            superblock.sys_chunk_array_size = (left as u32).into();
            return Ok(());
        }
        at = end;
    }
    Err(ENOENT)
}
