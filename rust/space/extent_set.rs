// SPDX-License-Identifier: GPL-2.0
//! Sets of extents in memory: the free space of a block group, and extents that must not be reused
//! yet.
//!
//! A set is a sorted list of sorted leaves of at most [`LEAF_MAX`] extents. Every leaf knows its
//! longest extent, so that a search passes leaves in which nothing fits. Looking up costs two
//! binary searches, changing moves at most one leaf's extents, and no allocation is larger than the
//! list of leaves.

use kernel::prelude::*;

/// The most extents in one leaf: 2 KiB.
const LEAF_MAX: usize = 128;

/// A range of logical or physical addresses, in bytes. Its end does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub start: u64,
    /// The length in bytes, above 0.
    pub len: u64,
}

impl Extent {
    /// Makes an extent.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is empty or its end overflows.
    pub fn new(start: u64, len: u64) -> Result<Extent> {
        if len == 0 || start.checked_add(len).is_none() {
            return Err(EINVAL);
        }
        Ok(Extent { start, len })
    }

    /// The first byte after the extent.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether `other` lies within this extent.
    pub fn covers(&self, other: &Extent) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// The first address from `from` on, a multiple of `align`, at which `len` bytes fit into this
    /// extent.
    fn fit(&self, from: u64, len: u64, align: u64) -> Option<u64> {
        let start = self.start.max(from).checked_next_multiple_of(align)?;
        (start.checked_add(len)? <= self.end()).then_some(start)
    }
}

#[derive(Debug)]
struct Leaf {
    /// Sorted and disjoint. Only a leaf that [`ExtentSet::reserve`] has made is empty while it is
    /// in a set.
    extents: KVec<Extent>,
    /// The length of the longest extent.
    longest: u64,
}

impl Leaf {
    fn first_start(&self) -> u64 {
        self.extents.first().map_or(u64::MAX, |e| e.start)
    }

    fn measure(&mut self) {
        self.longest = self.extents.iter().map(|e| e.len).max().unwrap_or(0);
    }
}

/// Where an extent stands: the leaf's number and the slot in it.
type SetIndex = (usize, usize);

/// Disjoint extents; extents that touch are merged.
#[derive(Debug, Default)]
pub struct ExtentSet {
    leaves: KVec<Leaf>,
    count: usize,
    bytes: u64,
}

impl ExtentSet {
    /// An empty set.
    pub const fn new() -> Self {
        ExtentSet {
            leaves: KVec::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// The number of extents.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no extent.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sum of all lengths, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All extents by address.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.leaves.iter().flat_map(|l| l.extents.iter().copied())
    }

    /// The first extent that ends behind `at`.
    pub fn first_after(&self, at: u64) -> Option<Extent> {
        if let Some(place) = self.at_or_before(at) {
            let extent = self.get(place)?;
            if extent.end() > at {
                return Some(extent);
            }
            return self.get(self.next(place));
        }
        self.get((0, 0))
    }

    /// The first extent that ends behind `at` and is at least `len` bytes long.
    pub fn first_long(&self, at: u64, len: u64) -> Option<Extent> {
        let first = self.at_or_before(at).map_or(0, |(leaf, _)| leaf);
        let leaves = self.leaves.get(first..)?;
        leaves
            .iter()
            .filter(|l| l.longest >= len)
            .flat_map(|l| l.extents.iter())
            .find(|e| e.end() > at && e.len >= len)
            .copied()
    }

    /// The longest extent.
    pub fn longest(&self) -> Option<Extent> {
        let leaf = self.leaves.iter().max_by_key(|l| l.longest)?;
        leaf.extents.iter().max_by_key(|e| e.len).copied()
    }

    /// Whether the set holds every byte of `extent`.
    pub fn covers(&self, extent: &Extent) -> bool {
        self.first_after(extent.start)
            .is_some_and(|e| e.covers(extent))
    }

    /// The first address from `from` on, a multiple of `align`, at which `len` bytes are in the
    /// set.
    pub fn find(&self, from: u64, len: u64, align: u64) -> Option<u64> {
        if align == 0 {
            return None;
        }
        let first = self.at_or_before(from).map_or(0, |(leaf, _)| leaf);
        let leaves = self.leaves.get(first..)?;
        leaves
            .iter()
            .filter(|l| l.longest >= len)
            .flat_map(|l| l.extents.iter())
            .find_map(|e| e.fit(from, len, align))
    }

    /// Adds an extent and merges it with its neighbours.
    ///
    /// # Errors
    ///
    /// `EEXIST` if part of it is in the set, `ENOMEM`. The set is unchanged then.
    pub fn insert(&mut self, extent: Extent) -> Result {
        let before = self.at_or_before(extent.start);
        let after = before.map_or((0, 0), |place| self.next(place));
        let left = before.and_then(|place| self.get(place));
        let right = self.get(after);
        if left.is_some_and(|l| l.end() > extent.start)
            || right.is_some_and(|r| r.start < extent.end())
        {
            return Err(EEXIST);
        }
        let left = before.zip(left).filter(|(_, l)| l.end() == extent.start);
        let right = right.filter(|r| r.start == extent.end());
        match (left, right) {
            (Some((place, l)), Some(r)) => {
                let len = l.len.saturating_add(extent.len).saturating_add(r.len);
                self.set(
                    place,
                    Extent {
                        start: l.start,
                        len,
                    },
                );
                self.delete(after);
            }
            (Some((place, l)), None) => {
                let len = l.len.saturating_add(extent.len);
                self.set(
                    place,
                    Extent {
                        start: l.start,
                        len,
                    },
                );
            }
            (None, Some(r)) => {
                let len = extent.len.saturating_add(r.len);
                let start = extent.start;
                self.set(after, Extent { start, len });
            }
            (None, None) => {
                // Behind the left neighbour in its leaf, rather than first in the next one.
                let at = before.map_or((0, 0), |(leaf, slot)| (leaf, slot.saturating_add(1)));
                self.put(at, extent)?;
            }
        }
        self.bytes = self.bytes.saturating_add(extent.len);
        Ok(())
    }

    /// Makes [`Self::insert`] of this extent unable to fail for want of memory, as long as nothing
    /// else changes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn reserve(&mut self, extent: Extent) -> Result {
        let before = self.at_or_before(extent.start);
        let after = before.map_or((0, 0), |place| self.next(place));
        let left = before.and_then(|place| self.get(place));
        let right = self.get(after);
        if left.is_some_and(|l| l.end() == extent.start)
            || right.is_some_and(|r| r.start == extent.end())
        {
            return Ok(());
        }
        let at = before.map_or((0, 0), |(leaf, slot)| (leaf, slot.saturating_add(1)));
        self.make_place(at).map(|_| ())
    }

    /// Takes an extent, all of which must be in the set.
    ///
    /// # Errors
    ///
    /// `ENOENT` if part of it is not in the set, `ENOMEM`. The set is unchanged then.
    pub fn remove(&mut self, extent: Extent) -> Result {
        let place = self.at_or_before(extent.start).ok_or(ENOENT)?;
        let old = self.get(place).ok_or(ENOENT)?;
        if !old.covers(&extent) {
            return Err(ENOENT);
        }
        let head = extent.start.saturating_sub(old.start);
        let tail = old.end().saturating_sub(extent.end());
        let head = (head != 0).then_some(Extent {
            start: old.start,
            len: head,
        });
        let tail = (tail != 0).then_some(Extent {
            start: extent.end(),
            len: tail,
        });
        match (head, tail) {
            (None, None) => self.delete(place),
            (Some(rest), None) | (None, Some(rest)) => self.set(place, rest),
            (Some(head), Some(tail)) => {
                let (leaf, slot) = place;
                // What can fail goes first. The old extent is cut after: it may have moved to
                // another leaf.
                self.put((leaf, slot.saturating_add(1)), tail)?;
                if let Some(place) = self.at_or_before(extent.start) {
                    self.set(place, head);
                }
            }
        }
        self.bytes = self.bytes.saturating_sub(extent.len);
        Ok(())
    }

    /// Takes as much of an extent as is in the set. Returns the bytes taken.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; part of the extent may be gone then.
    pub fn subtract(&mut self, extent: Extent) -> Result<u64> {
        let mut at = extent.start;
        let mut taken = 0u64;
        while let Some(found) = self.first_after(at) {
            let start = found.start.max(extent.start);
            let end = found.end().min(extent.end());
            if start >= end {
                break;
            }
            let len = end.saturating_sub(start);
            self.remove(Extent { start, len })?;
            taken = taken.saturating_add(len);
            at = end;
        }
        Ok(taken)
    }

    /// Takes the first extent out. Cannot fail.
    pub fn pop_first(&mut self) -> Option<Extent> {
        let extent = self.get((0, 0))?;
        self.delete((0, 0));
        self.bytes = self.bytes.saturating_sub(extent.len);
        Some(extent)
    }

    fn get(&self, (leaf, slot): SetIndex) -> Option<Extent> {
        self.leaves.get(leaf)?.extents.get(slot).copied()
    }

    /// The place behind `place`; nothing need be there.
    fn next(&self, (leaf, slot): SetIndex) -> SetIndex {
        let slot = slot.saturating_add(1);
        match self.leaves.get(leaf) {
            Some(l) if slot >= l.extents.len() => (leaf.saturating_add(1), 0),
            _ => (leaf, slot),
        }
    }

    /// The last extent that starts at or before `at`.
    fn at_or_before(&self, at: u64) -> Option<SetIndex> {
        let leaf = self.leaves.partition_point(|l| l.first_start() <= at);
        let leaf = leaf.checked_sub(1)?;
        let slot = self
            .leaves
            .get(leaf)?
            .extents
            .partition_point(|e| e.start <= at);
        Some((leaf, slot.checked_sub(1)?))
    }

    /// Changes an extent in place; its order among the others must stay.
    fn set(&mut self, (leaf, slot): SetIndex, extent: Extent) {
        if let Some(leaf) = self.leaves.get_mut(leaf) {
            if let Some(old) = leaf.extents.get_mut(slot) {
                *old = extent;
            }
            leaf.measure();
        }
    }

    /// Makes a place fit for one extent more, splitting a full leaf. Returns where the place is
    /// then.
    fn make_place(&mut self, (mut leaf, mut slot): SetIndex) -> Result<SetIndex> {
        if self.leaves.is_empty() {
            let extents = KVec::with_capacity(1, GFP_KERNEL)?;
            let longest = 0;
            self.leaves.push(Leaf { extents, longest }, GFP_KERNEL)?;
            return Ok((0, 0));
        }
        let full = self.leaves.get(leaf).ok_or(EINVAL)?.extents.len() >= LEAF_MAX;
        if full {
            self.split(leaf)?;
            let half = self.leaves.get(leaf).ok_or(EINVAL)?.extents.len();
            if slot > half {
                leaf = leaf.saturating_add(1);
                slot = slot.saturating_sub(half);
            }
        }
        let extents = &mut self.leaves.get_mut(leaf).ok_or(EINVAL)?.extents;
        extents.reserve(1, GFP_KERNEL)?;
        Ok((leaf, slot))
    }

    /// Puts an extent at a place, moving up what is there.
    fn put(&mut self, place: SetIndex, extent: Extent) -> Result {
        let (leaf, slot) = self.make_place(place)?;
        let leaf = self.leaves.get_mut(leaf).ok_or(EINVAL)?;
        leaf.extents
            .insert_within_capacity(slot, extent)
            .map_err(|_| EINVAL)?;
        leaf.longest = leaf.longest.max(extent.len);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Moves the upper half of a leaf into a new one after it.
    fn split(&mut self, at: usize) -> Result {
        self.leaves.reserve(1, GFP_KERNEL)?;
        let leaf = self.leaves.get_mut(at).ok_or(EINVAL)?;
        let half = leaf.extents.len() / 2;
        let mut extents = KVec::with_capacity(LEAF_MAX, GFP_KERNEL)?;
        extents.extend_from_slice(leaf.extents.get(half..).ok_or(EINVAL)?, GFP_KERNEL)?;
        let mut upper = Leaf {
            extents,
            longest: 0,
        };
        upper.measure();
        leaf.extents.truncate(half);
        leaf.measure();
        self.leaves
            .insert_within_capacity(at.saturating_add(1), upper)
            .map_err(|_| EINVAL)
    }

    fn delete(&mut self, (at, slot): SetIndex) {
        let Some(leaf) = self.leaves.get_mut(at) else {
            return;
        };
        if leaf.extents.remove(slot).is_err() {
            return;
        }
        self.count = self.count.saturating_sub(1);
        leaf.measure();
        let left = leaf.extents.len();
        if left == 0 {
            let _ = self.leaves.remove(at);
        } else if left < LEAF_MAX / 4 {
            self.merge(at);
        }
    }

    /// Moves a small leaf's extents after those of the leaf before it, if they fit. Only saves
    /// memory, so that it may be skipped when memory is short.
    fn merge(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1) else {
            return;
        };
        let Some((head, tail)) = self.leaves.split_at_mut_checked(at) else {
            return;
        };
        let (Some(lower), Some(upper)) = (head.get_mut(before), tail.first_mut()) else {
            return;
        };
        let total = lower.extents.len().saturating_add(upper.extents.len());
        if total > LEAF_MAX / 2 {
            return;
        }
        if lower
            .extents
            .extend_from_slice(&upper.extents, GFP_KERNEL)
            .is_ok()
        {
            lower.measure();
            let _ = self.leaves.remove(at);
        }
    }
}
