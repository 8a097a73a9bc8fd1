// SPDX-License-Identifier: GPL-2.0
//! The free space of one block group as of the last commit: read from the free space tree, or
//! computed from the extent tree.

use kernel::prelude::*;

use super::block_group::BlockGroup;
use super::extent_set::{Extent, ExtentSet};
use super::free_space_bitmap as bitmap;
use super::space_info::{Space, Tracking, Volume};
use crate::format::free_space::{FreeSpaceInfo, USING_BITMAPS};
use crate::format::{self, item_type, tree_id, BlockSize, Key};
use crate::tree::{Cursor, Nodes, TreeRoot};

/// Reads the free space of a block group from where the volume keeps it. Superblocks within are
/// part of it.
///
/// # Errors
///
/// `EUCLEAN` if what is read contradicts itself or the block group's item; errors of reading;
/// `ENOMEM`.
pub(crate) fn load<V: Volume>(vol: &V, space: &Space, group: &BlockGroup) -> Result<ExtentSet> {
    let range = Extent::new(group.start, group.length)?;
    let (tree, free) = match space.tracking() {
        Tracking::Tree => (
            "free space",
            from_free_space_tree(vol, space.sectorsize, range),
        ),
        Tracking::Untracked | Tracking::Stale | Tracking::Rebuilt => {
            let root = vol.commit_root(tree_id::EXTENT)?;
            ("extent", from_extents(vol, root, space.nodesize, range))
        }
    };
    if let Err(EUCLEAN) = free {
        vol.report(fmt!(
            "{tree} tree is corrupt in block group {}",
            group.start
        ));
    }
    let free = free?;
    let expected = group.length.saturating_sub(group.committed_used);
    if free.bytes() != expected {
        vol.report(fmt!(
            "block group {} has wrong amount of free space: expected {expected}, found {}",
            group.start,
            free.bytes()
        ));
        return Err(EUCLEAN);
    }
    Ok(free)
}

fn from_free_space_tree<V: Volume>(
    vol: &V,
    sectorsize: BlockSize,
    group: Extent,
) -> Result<ExtentSet> {
    let root = vol.commit_root(tree_id::FREE_SPACE)?;
    let mut cursor = Cursor::new(vol, root);
    let key = Key::new(group.start, item_type::FREE_SPACE_INFO, group.len);
    if !cursor.seek(&key)? {
        vol.report(fmt!("missing free space info for {}", group.start));
        return Err(EUCLEAN);
    }
    let info: FreeSpaceInfo = format::read(cursor.item().ok_or(EUCLEAN)?.1)?;
    let by_bitmaps = info.flags.get() & USING_BITMAPS != 0;
    let free = items(vol, root, sectorsize, group, by_bitmaps)?;
    let expected = u64::from(info.extent_count.get());
    if free.len() as u64 != expected {
        vol.report(fmt!(
            "incorrect extent count for {}; counted {}, expected {expected}",
            group.start,
            free.len()
        ));
        return Err(EUCLEAN);
    }
    Ok(free)
}

/// Reads the extents or bitmaps that the free space tree has for a block group.
///
/// # Errors
///
/// `EUCLEAN` if they are not all of the kind expected, or overlap; errors of reading; `ENOMEM`.
pub(crate) fn items<N: Nodes>(
    nodes: &N,
    root: TreeRoot,
    sectorsize: BlockSize,
    group: Extent,
    by_bitmaps: bool,
) -> Result<ExtentSet> {
    let mut free = ExtentSet::new();
    let mut cursor = Cursor::new(nodes, root);
    cursor.seek(&Key::new(group.start, item_type::FREE_SPACE_EXTENT, 0))?;
    while let Some((key, data)) = cursor.item().filter(|(key, _)| key.objectid < group.end()) {
        let range = Extent::new(key.objectid, key.offset).map_err(|_| EUCLEAN)?;
        if !group.covers(&range) || (range.start | range.len) % sectorsize != 0 {
            return Err(EUCLEAN);
        }
        match (key.typ, by_bitmaps) {
            (item_type::FREE_SPACE_EXTENT, false) => {
                // Extents that touch should be one; they are counted as written, and found by that.
                free.insert(range).map_err(corrupt)?;
            }
            (item_type::FREE_SPACE_BITMAP, true) => {
                let sectors = range.len / sectorsize;
                if data.len() as u64 != sectors.div_ceil(8) {
                    return Err(EUCLEAN);
                }
                for (first, count) in bitmap::runs(data, sectors) {
                    let offset = first.saturating_mul(sectorsize.into());
                    let run = Extent {
                        start: range.start.saturating_add(offset),
                        len: count.saturating_mul(sectorsize.into()),
                    };
                    free.insert(run).map_err(corrupt)?;
                }
            }
            _ => return Err(EUCLEAN),
        }
        if !cursor.next()? {
            break;
        }
    }
    Ok(free)
}

/// What no extent item covers in a block group.
///
/// # Errors
///
/// `EUCLEAN` if extents overlap or leave the block group; errors of reading; `ENOMEM`.
pub(super) fn from_extents<N: Nodes>(
    nodes: &N,
    root: TreeRoot,
    nodesize: u64,
    group: Extent,
) -> Result<ExtentSet> {
    let mut free = ExtentSet::new();
    let mut at = group.start;
    let mut cursor = Cursor::new(nodes, root);
    cursor.seek(&Key::new(group.start, item_type::EXTENT_ITEM, 0))?;
    while let Some((key, _)) = cursor.item().filter(|(key, _)| key.objectid < group.end()) {
        let len = match key.typ {
            item_type::EXTENT_ITEM => Some(key.offset),
            item_type::METADATA_ITEM => Some(nodesize),
            _ => None,
        };
        if let Some(len) = len {
            let used = Extent::new(key.objectid, len).map_err(|_| EUCLEAN)?;
            if used.start < at || !group.covers(&used) {
                return Err(EUCLEAN);
            }
            insert_gap(&mut free, at, used.start)?;
            at = used.end();
        }
        if !cursor.next()? {
            break;
        }
    }
    insert_gap(&mut free, at, group.end())?;
    Ok(free)
}

fn insert_gap(free: &mut ExtentSet, start: u64, end: u64) -> Result {
    match end.checked_sub(start) {
        Some(len) if len != 0 => free.insert(Extent { start, len }).map_err(corrupt),
        _ => Ok(()),
    }
}

/// Overlapping extents are corruption.
fn corrupt(error: Error) -> Error {
    if error == EEXIST {
        EUCLEAN
    } else {
        error
    }
}
