// SPDX-License-Identifier: GPL-2.0
//! Changing the checksum tree: checksums of data sectors come and go with their extents.
//!
//! An `EXTENT_CSUM` item holds the checksums of consecutive sectors from its key's offset on. Items
//! never overlap.

use kernel::prelude::*;

use crate::format::header::{HEADER_SIZE, ITEM_SIZE};
use crate::format::{item_type, objectid, tree_id, Key};
use crate::tree::edit::{self, EditContext};
use crate::tree::{Cursor, Geometry};

const TREE: u64 = tree_id::CSUM;
/// C btrfs caps the checksums in an item at this, whatever the node size.
const MAX_SUMS: usize = 4096;

const fn csum_key(logical: u64) -> Key {
    Key::new(objectid::EXTENT_CSUM, item_type::EXTENT_CSUM, logical)
}

/// The most checksums in one item: two items must fit into a leaf.
fn max_sums(geometry: &Geometry) -> usize {
    let bytes = usize::from(geometry.nodesize)
        .saturating_sub(HEADER_SIZE)
        .saturating_sub(2 * ITEM_SIZE);
    geometry
        .checksum
        .count(bytes)
        .saturating_sub(1)
        .min(MAX_SUMS)
}

/// Where an item of the tree lies.
#[derive(Clone, Copy)]
struct Item {
    start: u64,
    end: u64,
    /// The number of checksums in it.
    sums: usize,
    /// The bytes free in its leaf.
    space_left: usize,
}

/// The last item that starts at or before `logical`.
fn item_at<C: EditContext>(cx: &C, tree: u64, logical: u64) -> Result<Option<Item>> {
    let geometry = cx.geometry();
    let (sectorsize, nodesize) = (
        u64::from(geometry.sectorsize),
        usize::from(geometry.nodesize),
    );
    let mut cursor = Cursor::new(cx, cx.root(tree)?);
    if !cursor.seek_before(&csum_key(logical))? {
        return Ok(None);
    }
    let Some((key, data)) = cursor.item() else {
        return Ok(None);
    };
    if !key.is(objectid::EXTENT_CSUM, item_type::EXTENT_CSUM) {
        return Ok(None);
    }
    let kind = geometry.checksum;
    if data.is_empty() || !kind.is_whole(data.len()) {
        return Err(EUCLEAN);
    }
    let sums = kind.count(data.len());
    let len = sectorsize.checked_mul(sums as u64).ok_or(EUCLEAN)?;
    let end = key.offset.checked_add(len).ok_or(EUCLEAN)?;
    let leaf = cursor.node_at(0).ok_or(EUCLEAN)?;
    let mut space_left = nodesize.saturating_sub(HEADER_SIZE);
    for slot in 0..leaf.nritems() as usize {
        let size = leaf.item(slot).map_or(0, |(_, data)| data.len());
        space_left = space_left.saturating_sub(size).saturating_sub(ITEM_SIZE);
    }
    Ok(Some(Item {
        start: key.offset,
        end,
        sums,
        space_left,
    }))
}

/// The start of the first item behind `logical`, or `u64::MAX`.
fn next_start<C: EditContext>(cx: &C, tree: u64, logical: u64) -> Result<u64> {
    let mut cursor = Cursor::new(cx, cx.root(tree)?);
    cursor.seek(&csum_key(logical.saturating_add(1)))?;
    let next = cursor
        .item()
        .filter(|(key, _)| key.is(objectid::EXTENT_CSUM, item_type::EXTENT_CSUM));
    Ok(next.map_or(u64::MAX, |(key, _)| key.offset))
}

/// Writes the checksums of the sectors from `logical` on, as they are on disk. Checksums that
/// are there already are overwritten; others go after the item that ends at `logical`, as far as
/// that and its leaf have space, and into new items.
///
/// # Errors
///
/// `EINVAL` if `logical` or `sums` is not a multiple of its unit; `EUCLEAN` for corrupt items;
/// those of changing the tree.
pub fn insert_csums<C: EditContext>(cx: &mut C, logical: u64, sums: &[u8]) -> Result {
    insert_csums_in(cx, TREE, logical, sums)
}

/// As [`insert_csums`], in `tree`: a log has checksums as well.
///
/// # Errors
///
/// As for [`insert_csums`].
pub(crate) fn insert_csums_in<C: EditContext>(
    cx: &mut C,
    tree: u64,
    logical: u64,
    sums: &[u8],
) -> Result {
    let (sectorsize, kind) = (cx.geometry().sectorsize, cx.geometry().checksum);
    let csum_size = kind.size();
    let most = max_sums(cx.geometry());
    if logical % sectorsize != 0 || !kind.is_whole(sums.len()) {
        return Err(EINVAL);
    }
    let mut at = logical;
    let mut rest = sums;
    while !rest.is_empty() {
        let left = kind.count(rest.len());
        let item = item_at(cx, tree, at)?;
        let count = match item {
            Some(item) if item.end > at => {
                let skip = at.saturating_sub(item.start) / sectorsize;
                let skip = usize::try_from(skip).map_err(|_| EUCLEAN)?;
                let count = item.sums.saturating_sub(skip).min(left);
                let new = bytes(rest, count, csum_size)?;
                edit::update_in_place(cx, tree, &csum_key(item.start), |data: &mut [u8]| {
                    let from = skip.saturating_mul(csum_size);
                    let to = from.saturating_add(new.len());
                    data.get_mut(from..to).ok_or(EUCLEAN)?.copy_from_slice(new);
                    Ok(())
                })?;
                count
            }
            found => {
                let gap = next_start(cx, tree, at)?.saturating_sub(at) / sectorsize;
                let count = usize::try_from(gap).unwrap_or(usize::MAX).min(left);
                let before = found.filter(|item| item.end == at);
                let extend = before.map_or(0, |item| {
                    most.saturating_sub(item.sums)
                        .min(kind.count(item.space_left))
                        .min(count)
                });
                match before {
                    Some(item) if extend != 0 => {
                        let key = csum_key(item.start);
                        let mut data = edit::get(cx, tree, &key)?.ok_or(EUCLEAN)?;
                        data.extend_from_slice(bytes(rest, extend, csum_size)?, GFP_KERNEL)?;
                        edit::replace(cx, tree, &key, &data)?;
                        extend
                    }
                    _ => {
                        let count = count.min(most);
                        edit::insert(cx, tree, &csum_key(at), bytes(rest, count, csum_size)?)?;
                        count
                    }
                }
            }
        };
        if count == 0 {
            return Err(EUCLEAN);
        }
        rest = rest.get(count.saturating_mul(csum_size)..).ok_or(EINVAL)?;
        at = u64::from(sectorsize)
            .checked_mul(count as u64)
            .and_then(|len| at.checked_add(len))
            .ok_or(EINVAL)?;
    }
    Ok(())
}

/// Deletes the checksums of the sectors in `len` bytes from `start` on, where there are any, and
/// cuts items that reach over either end.
///
/// # Errors
///
/// `EINVAL` unless both are multiples of the sector size and the end does not overflow; `EUCLEAN`
/// for corrupt items; those of changing the tree.
pub fn delete_csums<C: EditContext>(cx: &mut C, start: u64, len: u64) -> Result {
    let (sectorsize, csum_size) = (cx.geometry().sectorsize, cx.geometry().checksum.size());
    let end = start.checked_add(len).ok_or(EINVAL)?;
    if (start | len) % sectorsize != 0 {
        return Err(EINVAL);
    }
    let mut below = end;
    while let Some(last) = below.checked_sub(1).filter(|_| below > start) {
        let Some(item) = item_at(cx, TREE, last)?.filter(|item| item.end > start) else {
            break;
        };
        // Items that overlap could make this loop endless.
        if item.start >= below || (item.end > below && below != end) {
            return Err(EUCLEAN);
        }
        let key = csum_key(item.start);
        let head = start.saturating_sub(item.start) / sectorsize;
        let cut = item.end.min(end).saturating_sub(item.start) / sectorsize;
        let head = usize::try_from(head).map_err(|_| EUCLEAN)?;
        let cut = usize::try_from(cut).map_err(|_| EUCLEAN)?;
        let data = if head != 0 || cut < item.sums {
            edit::get(cx, TREE, &key)?.ok_or(EUCLEAN)?
        } else {
            KVec::new()
        };
        if head != 0 {
            edit::replace(cx, TREE, &key, bytes(&data, head, csum_size)?)?;
        } else {
            edit::delete(cx, TREE, &key)?;
        }
        if cut < item.sums {
            let tail = data.get(cut.saturating_mul(csum_size)..).ok_or(EUCLEAN)?;
            edit::insert(cx, TREE, &csum_key(end), tail)?;
        }
        below = item.start;
    }
    Ok(())
}

/// The first `count` checksums.
fn bytes(sums: &[u8], count: usize, csum_size: usize) -> Result<&[u8]> {
    sums.get(..count.saturating_mul(csum_size)).ok_or(EUCLEAN)
}
