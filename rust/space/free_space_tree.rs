// SPDX-License-Identifier: GPL-2.0
//! Keeping the free space tree: what extent items do not cover, block group by block group.
//!
//! A block group's free space is a list of `FREE_SPACE_EXTENT` items, or, once that would be
//! larger, of `FREE_SPACE_BITMAP` items; its `FREE_SPACE_INFO` says which, and how many free
//! extents there are.

use kernel::prelude::*;

use super::extent_set::{Extent, ExtentSet};
use super::free_space_bitmap as bitmap;
use super::free_space_load;
use super::space_info::{SpaceContext, Tracking};
use crate::format::free_space::{FreeSpaceInfo, BITMAP_BITS, BITMAP_SIZE, USING_BITMAPS};
use crate::format::header::ITEM_SIZE;
use crate::format::superblock::compat_ro;
use crate::format::{self, item_type, tree_id, BlockSize, Key};
use crate::tree::{edit, Cursor};

const TREE: u64 = tree_id::FREE_SPACE;

/// The range of a block group, which is all the tree needs to know of it.
#[derive(Clone, Copy, Debug)]
struct Group {
    range: Extent,
    sectorsize: BlockSize,
}

impl Group {
    fn info_key(&self) -> Key {
        Key::new(self.range.start, item_type::FREE_SPACE_INFO, self.range.len)
    }

    fn bitmap_range(&self) -> u64 {
        u64::from(self.sectorsize).saturating_mul(BITMAP_BITS)
    }

    /// The number of free extents above which bitmaps take less space, and the one below which
    /// extents do. They differ, lest the block group goes back and forth between the two.
    fn thresholds(&self) -> (u64, u64) {
        let bitmaps = self.range.len.div_ceil(self.bitmap_range());
        let size = (ITEM_SIZE + BITMAP_SIZE) as u64;
        let high = bitmaps.saturating_mul(size) / ITEM_SIZE as u64;
        (high, high.saturating_sub(100))
    }
}

fn extent_key(extent: Extent) -> Key {
    Key::new(extent.start, item_type::FREE_SPACE_EXTENT, extent.len)
}

/// Notes that an extent item for `len` bytes at `start` was made: they are not free any more.
///
/// # Errors
///
/// `ENOENT` without a block group; `EUCLEAN` if the tree does not have them as free; those of
/// changing the tree.
pub fn remove_free<C: SpaceContext>(cx: &mut C, start: u64, len: u64) -> Result {
    update(cx, Extent::new(start, len)?, false)
}

/// Notes that the extent item for `len` bytes at `start` was removed: they are free.
///
/// # Errors
///
/// `ENOENT` without a block group; `EUCLEAN` if the tree has some as free; those of changing the
/// tree.
pub fn add_free<C: SpaceContext>(cx: &mut C, start: u64, len: u64) -> Result {
    update(cx, Extent::new(start, len)?, true)
}

fn is_kept<C: SpaceContext>(cx: &C) -> bool {
    matches!(cx.space().tracking(), Tracking::Tree | Tracking::Rebuilt)
}

fn update<C: SpaceContext>(cx: &mut C, extent: Extent, add: bool) -> Result {
    if !is_kept(cx) {
        return Ok(());
    }
    let sectorsize = cx.space().sectorsize;
    let found = cx.space_mut().group_mut(extent)?;
    let range = Extent::new(found.start, found.length)?;
    let known = found.bitmaps;
    let group = Group { range, sectorsize };
    track(cx, range.start)?;
    let by_bitmaps = match known {
        Some(by_bitmaps) => by_bitmaps,
        None => read_info(cx, &group)?.flags.get() & USING_BITMAPS != 0,
    };
    let change = if by_bitmaps {
        change_bitmaps(cx, &group, extent, add)
    } else if add {
        add_extent(cx, &group, extent)
    } else {
        remove_extent(cx, &group, extent)
    };
    if change == Err(EUCLEAN) {
        cx.report(fmt!(
            "free space tree contradicts the extent tree at {} (length {}) in block group {}",
            extent.start,
            extent.len,
            range.start
        ));
    }
    let by_bitmaps = count(cx, &group, change?)?;
    cx.space_mut().group_at_mut(range.start)?.bitmaps = Some(by_bitmaps);
    Ok(())
}

/// Writes the items of a block group that the tree does not know yet: all of it is free.
///
/// # Errors
///
/// `ENOENT` without such a block group; those of changing the tree.
pub fn track<C: SpaceContext>(cx: &mut C, start: u64) -> Result {
    if !is_kept(cx) {
        return Ok(());
    }
    let sectorsize = cx.space().sectorsize;
    let found = cx.space_mut().group_at_mut(start)?;
    if !found.untracked {
        return Ok(());
    }
    found.untracked = false;
    found.bitmaps = Some(false);
    let range = Extent::new(found.start, found.length)?;
    let mut free = ExtentSet::new();
    free.insert(range)?;
    write_group(cx, &Group { range, sectorsize }, &free)
}

/// Writes the items of a block group that has none, as extents.
fn write_group<C: SpaceContext>(cx: &mut C, group: &Group, free: &ExtentSet) -> Result {
    let info = FreeSpaceInfo {
        extent_count: u32::try_from(free.len()).map_err(|_| EUCLEAN)?.into(),
        flags: 0.into(),
    };
    edit::insert(cx, TREE, &group.info_key(), info.as_bytes())?;
    for extent in free.iter() {
        edit::insert(cx, TREE, &extent_key(extent), &[])?;
    }
    Ok(())
}

/// Deletes all items of a block group.
///
/// # Errors
///
/// `ENOENT` without such a block group; `EUCLEAN` if items are missing; those of changing the tree.
pub fn untrack<C: SpaceContext>(cx: &mut C, start: u64) -> Result {
    let sectorsize = cx.space().sectorsize;
    let found = cx.space().group_at(start)?;
    if !is_kept(cx) || found.untracked {
        return Ok(());
    }
    let range = Extent::new(found.start, found.length)?;
    let group = Group { range, sectorsize };
    delete_items(cx, &group)?;
    edit::delete(cx, TREE, &group.info_key())?;
    let found = cx.space_mut().group_at_mut(start)?;
    found.untracked = true;
    found.bitmaps = None;
    Ok(())
}

/// Builds a free space tree that is not valid anew from the extent tree, and marks it as valid.
///
/// To be called when no delayed ref is queued: what is queued while it runs brings the new tree up
/// to date later.
///
/// # Errors
///
/// `EUCLEAN` if extent items overlap; those of reading and changing trees.
pub fn rebuild<C: SpaceContext>(cx: &mut C) -> Result {
    if cx.space().tracking() != Tracking::Stale {
        return Ok(());
    }
    while let Some(key) = first_key(cx)? {
        edit::delete(cx, TREE, &key)?;
    }
    cx.space_mut().set_tracking(Tracking::Rebuilt);
    let sectorsize = cx.space().sectorsize;
    let nodesize = cx.space().nodesize;
    let mut next = 0u64;
    while let Some(found) = cx.space().next_group(next) {
        next = found.end();
        if found.untracked {
            continue;
        }
        let range = Extent::new(found.start, found.length)?;
        let group = Group { range, sectorsize };
        let root = cx.root(tree_id::EXTENT)?;
        let free = free_space_load::from_extents(cx, root, nodesize, range)?;
        write_group(cx, &group, &free)?;
        let by_bitmaps = count(cx, &group, 0)?;
        cx.space_mut().group_at_mut(range.start)?.bitmaps = Some(by_bitmaps);
    }
    let superblock = cx.superblock_mut();
    let valid = compat_ro::FREE_SPACE_TREE | compat_ro::FREE_SPACE_TREE_VALID;
    superblock.compat_ro_flags = (superblock.compat_ro_flags.get() | valid).into();
    Ok(())
}

fn first_key<C: SpaceContext>(cx: &C) -> Result<Option<Key>> {
    let mut cursor = Cursor::new(cx, cx.root(TREE)?);
    cursor.seek(&Key::MIN)?;
    Ok(cursor.item().map(|(key, _)| key))
}

/// The last item's key whose object id is at most `at`, if it belongs to the block group.
fn key_at<C: SpaceContext>(cx: &C, group: &Group, at: u64) -> Result<Key> {
    let mut cursor = Cursor::new(cx, cx.root(TREE)?);
    if !cursor.seek_before(&Key::new(at, u8::MAX, u64::MAX))? {
        return Err(EUCLEAN);
    }
    let (key, _) = cursor.item().ok_or(EUCLEAN)?;
    if key == group.info_key() {
        return Ok(key);
    }
    let range = Extent::new(key.objectid, key.offset).map_err(|_| EUCLEAN)?;
    let known = matches!(
        key.typ,
        item_type::FREE_SPACE_EXTENT | item_type::FREE_SPACE_BITMAP
    );
    (known && group.range.covers(&range))
        .then_some(key)
        .ok_or(EUCLEAN)
}

/// The last free extent that starts at or before `at`.
fn extent_at<C: SpaceContext>(cx: &C, group: &Group, at: u64) -> Result<Option<Extent>> {
    let key = key_at(cx, group, at)?;
    match key.typ {
        item_type::FREE_SPACE_EXTENT => Ok(Some(Extent {
            start: key.objectid,
            len: key.offset,
        })),
        item_type::FREE_SPACE_INFO => Ok(None),
        _ => Err(EUCLEAN),
    }
}

fn read_info<C: SpaceContext>(cx: &C, group: &Group) -> Result<FreeSpaceInfo> {
    let info = edit::get(cx, TREE, &group.info_key())?;
    let Some(info) = info else {
        cx.report(fmt!("missing free space info for {}", group.range.start));
        return Err(EUCLEAN);
    };
    format::read(&info)
}

/// Takes `used` out of the free extent that holds it. Returns by how much the number of extents
/// changed.
fn remove_extent<C: SpaceContext>(cx: &mut C, group: &Group, used: Extent) -> Result<i64> {
    let old = extent_at(cx, group, used.start)?
        .filter(|old| old.covers(&used))
        .ok_or(EUCLEAN)?;
    let head = Extent::new(old.start, used.start.saturating_sub(old.start));
    let tail = Extent::new(used.end(), old.end().saturating_sub(used.end()));
    match (head, tail) {
        (Err(_), Err(_)) => {
            edit::delete(cx, TREE, &extent_key(old))?;
            Ok(-1)
        }
        (Ok(rest), Err(_)) | (Err(_), Ok(rest)) => {
            edit::set_key(cx, TREE, &extent_key(old), &extent_key(rest))?;
            Ok(0)
        }
        (Ok(head), Ok(tail)) => {
            edit::set_key(cx, TREE, &extent_key(old), &extent_key(head))?;
            edit::insert(cx, TREE, &extent_key(tail), &[])?;
            Ok(1)
        }
    }
}

/// Adds `new` to the free extents. Returns by how much their number changed.
fn add_extent<C: SpaceContext>(cx: &mut C, group: &Group, new: Extent) -> Result<i64> {
    let last = extent_at(cx, group, new.end().saturating_sub(1))?;
    if last.is_some_and(|last| last.end() > new.start) {
        return Err(EUCLEAN);
    }
    let left = last.filter(|left| left.end() == new.start);
    let right = if new.end() < group.range.end() {
        extent_at(cx, group, new.end())?.filter(|right| right.start == new.end())
    } else {
        None
    };
    let start = left.map_or(new.start, |left| left.start);
    let end = right.map_or(new.end(), |right| right.end());
    let all = Extent::new(start, end.saturating_sub(start))?;
    match (left, right) {
        (Some(left), Some(right)) => {
            edit::delete(cx, TREE, &extent_key(right))?;
            edit::set_key(cx, TREE, &extent_key(left), &extent_key(all))?;
            Ok(-1)
        }
        (Some(old), None) | (None, Some(old)) => {
            edit::set_key(cx, TREE, &extent_key(old), &extent_key(all))?;
            Ok(0)
        }
        (None, None) => {
            edit::insert(cx, TREE, &extent_key(all), &[])?;
            Ok(1)
        }
    }
}

/// The key of the bitmap that holds the sector at `at`.
fn bitmap_at<C: SpaceContext>(cx: &C, group: &Group, at: u64) -> Result<Key> {
    let key = key_at(cx, group, at)?;
    let covered =
        key.typ == item_type::FREE_SPACE_BITMAP && at < key.objectid.saturating_add(key.offset);
    covered.then_some(key).ok_or(EUCLEAN)
}

/// Whether the sector at `at` is free; not, if it is outside of the block group.
fn is_free<C: SpaceContext>(cx: &C, group: &Group, at: Option<u64>) -> Result<bool> {
    let Some(at) = at.filter(|at| group.range.start <= *at && *at < group.range.end()) else {
        return Ok(false);
    };
    let key = bitmap_at(cx, group, at)?;
    let data = edit::get(cx, TREE, &key)?.ok_or(EUCLEAN)?;
    bitmap::test(&data, at.saturating_sub(key.objectid) / group.sectorsize)
}

/// Sets or clears the bits of `extent`. Returns by how much the number of free extents changed.
fn change_bitmaps<C: SpaceContext>(
    cx: &mut C,
    group: &Group,
    extent: Extent,
    set: bool,
) -> Result<i64> {
    if (extent.start.saturating_sub(group.range.start) | extent.len) % group.sectorsize != 0 {
        return Err(EUCLEAN);
    }
    let left = is_free(cx, group, extent.start.checked_sub(group.sectorsize.into()))?;
    let right = is_free(cx, group, Some(extent.end()))?;
    let mut at = extent.start;
    while at < extent.end() {
        let key = bitmap_at(cx, group, at)?;
        let end = key.objectid.saturating_add(key.offset).min(extent.end());
        let first = at.saturating_sub(key.objectid) / group.sectorsize;
        let count = end.saturating_sub(at) / group.sectorsize;
        edit::update_in_place(cx, TREE, &key, |data: &mut [u8]| {
            bitmap::change(data, first, count, set)
        })?;
        at = end;
    }
    let neighbours = i64::from(left) + i64::from(right);
    Ok(if set { 1 - neighbours } else { neighbours - 1 })
}

/// Adds `change` to the number of free extents, and turns extents into bitmaps or back where that
/// is due. Returns whether the block group has bitmaps now.
fn count<C: SpaceContext>(cx: &mut C, group: &Group, change: i64) -> Result<bool> {
    let mut info = read_info(cx, group)?;
    let by_bitmaps = info.flags.get() & USING_BITMAPS != 0;
    let extents = i64::from(info.extent_count.get()).saturating_add(change);
    let extents = u32::try_from(extents).map_err(|_| EUCLEAN)?;
    if change != 0 {
        info.extent_count = extents.into();
        write_info(cx, group, info)?;
    }
    let (high, low) = group.thresholds();
    let convert = if by_bitmaps {
        u64::from(extents) < low
    } else {
        u64::from(extents) > high
    };
    if !convert {
        return Ok(by_bitmaps);
    }
    let root = cx.root(TREE)?;
    let free = free_space_load::items(cx, root, group.sectorsize, group.range, by_bitmaps)?;
    if free.len() as u64 != u64::from(extents) {
        cx.report(fmt!(
            "incorrect extent count for {}; counted {}, expected {extents}",
            group.range.start,
            free.len()
        ));
        return Err(EUCLEAN);
    }
    delete_items(cx, group)?;
    info.flags = (info.flags.get() ^ USING_BITMAPS).into();
    write_info(cx, group, info)?;
    if by_bitmaps {
        for extent in free.iter() {
            edit::insert(cx, TREE, &extent_key(extent), &[])?;
        }
    } else {
        insert_bitmaps(cx, group, &free)?;
    }
    Ok(!by_bitmaps)
}

fn write_info<C: SpaceContext>(cx: &mut C, group: &Group, info: FreeSpaceInfo) -> Result {
    edit::update_in_place(cx, TREE, &group.info_key(), |bytes: &mut [u8]| {
        let head = bytes.get_mut(..size_of::<FreeSpaceInfo>()).ok_or(EUCLEAN)?;
        head.copy_from_slice(info.as_bytes());
        Ok(())
    })
}

fn insert_bitmaps<C: SpaceContext>(cx: &mut C, group: &Group, free: &ExtentSet) -> Result {
    let mut at = group.range.start;
    while at < group.range.end() {
        let len = group
            .bitmap_range()
            .min(group.range.end().saturating_sub(at));
        let end = at.saturating_add(len);
        let mut data = [0u8; BITMAP_SIZE];
        let size = (len / group.sectorsize).div_ceil(8) as usize;
        let data = data.get_mut(..size).ok_or(EUCLEAN)?;
        let mut from = at;
        while let Some(extent) = free.first_after(from).filter(|e| e.start < end) {
            let first = extent.start.max(at).saturating_sub(at) / group.sectorsize;
            from = extent.end().min(end);
            let after = from.saturating_sub(at) / group.sectorsize;
            bitmap::change(data, first, after.saturating_sub(first), true)?;
            if from == end {
                break;
            }
        }
        let key = Key::new(at, item_type::FREE_SPACE_BITMAP, len);
        edit::insert(cx, TREE, &key, data)?;
        at = end;
    }
    Ok(())
}

/// Deletes the extents and bitmaps of a block group.
fn delete_items<C: SpaceContext>(cx: &mut C, group: &Group) -> Result {
    loop {
        let key = key_at(cx, group, group.range.end().saturating_sub(1))?;
        if key.typ == item_type::FREE_SPACE_INFO {
            return Ok(());
        }
        edit::delete(cx, TREE, &key)?;
    }
}
