// SPDX-License-Identifier: GPL-2.0
//! Which ranges of the device belong to chunks: the `DEV_EXTENT` items of the device tree, kept in
//! memory as well.
//!
//! A range whose chunk was removed stays in the list, marked, until the removal is committed and
//! every reader that may still use the chunk's addresses has left; so neither its physical nor its
//! logical addresses come back early.

use kernel::prelude::*;
use zerocopy::FromZeros as _;

use super::extent_set::Extent;
use super::space_info::{SpaceContext, Volume};
use crate::format::chunk::{DevExtent, DevItem};
use crate::format::superblock::{COPIES, SUPERBLOCK_SIZE};
use crate::format::{self, item_type, objectid, tree_id, Key};
use crate::tree::edit;
use crate::tree::Cursor;

/// The start of the device, in bytes, that no chunk may use: boot loaders live there.
const RESERVED: u64 = 1 << 20;

/// A range of the device that a chunk uses.
#[derive(Clone, Copy, Debug)]
pub struct DevRange {
    /// Where it is on the device.
    pub physical: Extent,
    /// The chunk's logical start, in bytes.
    pub chunk: u64,
    /// The transaction that removed the chunk; [`HOLE`] for a range that is in no chunk, and only
    /// for a while not to be allocated.
    removed: Option<u64>,
}

/// In place of the transaction that removed a chunk: there is none, and none releases the range.
const HOLE: u64 = u64::MAX;

/// The part of what is free that may be taken out of use at a time, without a reservation: one of
/// so many.
pub(super) const SHARE: u64 = 16;

/// All ranges of the one device, by physical address.
#[derive(Debug, Default)]
pub struct DevExtents {
    devid: u64,
    total_bytes: u64,
    /// Nothing is allocated from here on while the device is being shrunk to this size, in bytes.
    limit: Option<u64>,
    ranges: KVVec<DevRange>,
}

impl DevExtents {
    /// The ranges of no device.
    pub(crate) const fn empty() -> DevExtents {
        DevExtents {
            devid: 0,
            total_bytes: 0,
            limit: None,
            ranges: KVVec::new(),
        }
    }

    /// Reads the device tree of the last commit.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if extents overlap or leave the device; errors of reading; `ENOMEM`.
    pub fn load<V: Volume>(vol: &V, devid: u64, total_bytes: u64) -> Result<DevExtents> {
        let mut all = DevExtents {
            devid,
            total_bytes,
            limit: None,
            ranges: KVVec::new(),
        };
        let mut cursor = Cursor::new(vol, vol.commit_root(tree_id::DEV)?);
        cursor.seek(&Key::new(devid, item_type::DEV_EXTENT, 0))?;
        while let Some((key, data)) = cursor.item() {
            if !key.is(devid, item_type::DEV_EXTENT) {
                break;
            }
            let item: DevExtent = format::read(data)?;
            let physical = Extent::new(key.offset, item.length.get()).map_err(|_| EUCLEAN)?;
            let before = all.ranges.last().map_or(0, |r| r.physical.end());
            if physical.start < before || physical.end() > total_bytes {
                vol.report(fmt!(
                    "device extent {} of length {} overlaps its neighbour or leaves the device of {} bytes",
                    physical.start, physical.len, total_bytes
                ));
                return Err(EUCLEAN);
            }
            let range = DevRange {
                physical,
                chunk: item.chunk_offset.get(),
                removed: None,
            };
            all.ranges.push(range, GFP_KERNEL)?;
            if !cursor.next()? {
                break;
            }
        }
        Ok(all)
    }

    /// The device's id.
    pub fn devid(&self) -> u64 {
        self.devid
    }

    /// The size of the device that the volume uses, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Where allocation ends on the device, in bytes.
    fn end(&self) -> u64 {
        self.limit
            .map_or(self.total_bytes, |limit| limit.min(self.total_bytes))
    }

    /// Lets nothing be allocated from the physical address `limit` on, or lifts that.
    pub(crate) fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
    }

    /// Takes over the size that the last commit gave the device, in bytes.
    pub(crate) fn set_total_bytes(&mut self, total_bytes: u64) {
        self.total_bytes = total_bytes;
    }

    /// The bytes in chunks that exist: the device item's `bytes_used`.
    pub fn bytes_used(&self) -> u64 {
        self.in_use()
            .fold(0, |sum, r| sum.saturating_add(r.physical.len))
    }

    /// The ranges of chunks that exist.
    pub fn in_use(&self) -> impl Iterator<Item = &DevRange> {
        self.ranges.iter().filter(|r| r.removed.is_none())
    }

    /// The copies of a chunk that exists, by physical address.
    pub fn stripes(&self, chunk: u64) -> impl Iterator<Item = Extent> + '_ {
        self.in_use()
            .filter(move |r| r.chunk == chunk)
            .map(|r| r.physical)
    }

    /// The range that holds a physical address.
    pub fn at(&self, physical: u64) -> Option<&DevRange> {
        let next = self
            .ranges
            .partition_point(|r| r.physical.start <= physical);
        let range = self.ranges.get(next.checked_sub(1)?)?;
        (physical < range.physical.end()).then_some(range)
    }

    /// The first logical address after all chunks, those removed lately included.
    pub fn logical_end(&self) -> u64 {
        self.ranges
            .iter()
            .filter(|r| r.removed != Some(HOLE))
            .map(|r| r.chunk.saturating_add(r.physical.len))
            .max()
            .unwrap_or(0)
    }

    /// The first hole of at least `want` bytes, cut to `want`; if there is none, the largest hole.
    pub fn find_hole(&self, want: u64) -> Option<Extent> {
        let mut best: Option<Extent> = None;
        let mut start = RESERVED;
        let end = self.end();
        let last = core::iter::once((end, end));
        let used = self
            .ranges
            .iter()
            .map(|r| (r.physical.start, r.physical.end()));
        for (used_start, used_end) in Iterator::chain(used, last) {
            let len = used_start.min(end).saturating_sub(start);
            if len >= want {
                return Extent::new(start, want).ok();
            }
            if len > best.map_or(0, |b| b.len) {
                best = Extent::new(start, len).ok();
            }
            start = start.max(used_end);
        }
        best
    }

    /// Takes the first range at the physical address `from` or after it that is in no chunk out of
    /// use, or the first `most` bytes of it, and returns it. Superblocks are part of none.
    ///
    /// That is a small part of all such ranges, so that who needs a chunk meanwhile finds space.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn take_hole(&mut self, from: u64, most: u64) -> Result<Option<Extent>> {
        let mut start = from.max(RESERVED);
        loop {
            let used = self
                .at(start)
                .map(|range| range.physical)
                .or_else(|| superblock_at(start));
            let Some(used) = used else {
                break;
            };
            start = used.end();
        }
        let next = self.ranges.partition_point(|r| r.physical.start < start);
        let next = self.ranges.get(next).map(|r| r.physical.start);
        let superblock = COPIES.into_iter().find(|copy| *copy >= start);
        let end = [next, superblock].into_iter().flatten().min();
        let end = end.map_or(self.end(), |end| end.min(self.end()));
        let share = (self.unallocated() / SHARE).max(RESERVED);
        let len = end.saturating_sub(start).min(most).min(share);
        if len == 0 {
            return Ok(None);
        }
        let physical = Extent::new(start, len)?;
        self.insert_range(DevRange {
            physical,
            chunk: 0,
            removed: Some(HOLE),
        })?;
        Ok(Some(physical))
    }

    /// The bytes of the device that may be allocated and are in no chunk.
    fn unallocated(&self) -> u64 {
        let in_chunks = self
            .ranges
            .iter()
            .fold(0u64, |sum, r| sum.saturating_add(r.physical.len));
        let end = self.end().saturating_sub(RESERVED);
        end.saturating_sub(in_chunks)
    }

    /// Gives back what [`Self::take_hole`] took.
    pub(crate) fn give_back_hole(&mut self, physical: u64) {
        self.ranges
            .retain(|r| r.physical.start != physical || r.removed != Some(HOLE));
    }

    /// Adds a range.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it overlaps another, `ENOMEM`.
    pub fn insert(&mut self, physical: Extent, chunk: u64) -> Result {
        self.insert_range(DevRange {
            physical,
            chunk,
            removed: None,
        })
    }

    fn insert_range(&mut self, range: DevRange) -> Result {
        let at = self
            .ranges
            .partition_point(|r| r.physical.start < range.physical.start);
        let left = at.checked_sub(1).and_then(|i| self.ranges.get(i));
        let right = self.ranges.get(at);
        if left.is_some_and(|l| l.physical.end() > range.physical.start)
            || right.is_some_and(|r| r.physical.start < range.physical.end())
        {
            return Err(EEXIST);
        }
        self.ranges.reserve(1, GFP_KERNEL)?;
        self.ranges
            .insert_within_capacity(at, range)
            .map_err(|_| EINVAL)
    }

    /// Drops the ranges of a chunk that was never used.
    pub(crate) fn forget(&mut self, chunk: u64) {
        self.ranges
            .retain(|r| r.chunk != chunk || r.removed == Some(HOLE));
    }

    /// Marks the ranges of a chunk as removed by transaction `transid`.
    pub fn mark_removed(&mut self, chunk: u64, transid: u64) {
        for range in self.ranges.iter_mut() {
            if range.chunk == chunk && range.removed.is_none() {
                range.removed = Some(transid);
            }
        }
    }

    /// Drops the ranges of chunks that transactions up to `transid` removed: they may be used
    /// again. Returns whether there were any.
    pub fn release_up_to(&mut self, transid: u64) -> bool {
        let before = self.ranges.len();
        self.ranges
            .retain(|r| r.removed.is_none_or(|removed| removed > transid));
        self.ranges.len() != before
    }

    /// The logical starts of all chunks, those that were removed and not released yet included, in
    /// order; once for each copy.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn chunk_starts(&self) -> Result<KVVec<u64>> {
        let mut starts = KVVec::with_capacity(self.ranges.len(), GFP_KERNEL)?;
        for range in self.ranges.iter().filter(|r| r.removed != Some(HOLE)) {
            starts.push(range.chunk, GFP_KERNEL)?;
        }
        crate::sort::sort(&mut starts);
        Ok(starts)
    }

    /// Takes over from `old`, the list before a transaction was rolled back, what transactions up
    /// to `committed` removed and readers may still use, and where allocation ends.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn keep_removed(&mut self, old: &DevExtents, committed: u64) -> Result {
        self.limit = old.limit;
        for range in old.ranges.iter() {
            let is_kept = |removed| removed <= committed || removed == HOLE;
            if range.removed.is_some_and(is_kept) {
                self.insert_range(*range)?;
            }
        }
        Ok(())
    }
}

/// The copy of the superblock that has the physical address.
fn superblock_at(physical: u64) -> Option<Extent> {
    let mut copies = COPIES.into_iter().map(|start| Extent {
        start,
        len: SUPERBLOCK_SIZE as u64,
    });
    copies.find(|copy| copy.start <= physical && physical < copy.end())
}

/// Writes the `DEV_EXTENT` item of a range.
///
/// # Errors
///
/// Those of changing the device tree.
pub fn insert_item<C: SpaceContext>(cx: &mut C, physical: Extent, chunk: u64) -> Result {
    let devid = cx.space().devices().devid();
    let mut item = DevExtent::new_zeroed();
    item.chunk_tree = tree_id::CHUNK.into();
    item.chunk_objectid = objectid::FIRST_CHUNK_TREE.into();
    item.chunk_offset = chunk.into();
    item.length = physical.len.into();
    let key = Key::new(devid, item_type::DEV_EXTENT, physical.start);
    edit::insert(cx, tree_id::DEV, &key, item.as_bytes())
}

/// Deletes the `DEV_EXTENT` item of a range.
///
/// # Errors
///
/// Those of changing the device tree.
pub fn delete_item<C: SpaceContext>(cx: &mut C, physical: Extent) -> Result {
    let devid = cx.space().devices().devid();
    let key = Key::new(devid, item_type::DEV_EXTENT, physical.start);
    edit::delete(cx, tree_id::DEV, &key)
}

/// Brings the `DEV_ITEM` of the chunk tree and the superblock's copy of it up to date.
///
/// # Errors
///
/// Those of changing the chunk tree.
pub fn update_dev_item<C: SpaceContext>(cx: &mut C) -> Result {
    let used = cx.space().devices().bytes_used();
    cx.superblock_mut().dev_item.bytes_used = used.into();
    change_dev_item(cx, |item| item.bytes_used = used.into())
}

/// Gives the device another size, in bytes, in the `DEV_ITEM` and in the superblock.
///
/// # Errors
///
/// Those of changing the chunk tree.
pub fn write_total_bytes<C: SpaceContext>(cx: &mut C, total_bytes: u64) -> Result {
    change_dev_item(cx, |item| item.total_bytes = total_bytes.into())?;
    let superblock = cx.superblock_mut();
    superblock.dev_item.total_bytes = total_bytes.into();
    // There is one device.
    superblock.total_bytes = total_bytes.into();
    Ok(())
}

fn change_dev_item<C: SpaceContext>(cx: &mut C, change: impl Fn(&mut DevItem)) -> Result {
    let devid = cx.space().devices().devid();
    let key = Key::new(objectid::DEV_ITEMS, item_type::DEV_ITEM, devid);
    edit::update_in_place(cx, tree_id::CHUNK, &key, |bytes: &mut [u8]| {
        let mut item: DevItem = format::read(bytes)?;
        change(&mut item);
        let head = bytes.get_mut(..size_of::<DevItem>()).ok_or(EUCLEAN)?;
        head.copy_from_slice(item.as_bytes());
        Ok(())
    })
}
