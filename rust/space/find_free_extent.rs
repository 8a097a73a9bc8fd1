// SPDX-License-Identifier: GPL-2.0
//! Which free extent an allocation gets, and when a new chunk is made for it.
//!
//! Allocations of a kind follow each other: the next one starts where the last one ended, so that
//! what is written together lies together. Where that is not free, tree blocks look for a stretch
//! of free space that has space for many.

use kernel::prelude::*;

use super::block_group::{copies, Kind};
use super::chunk_alloc;
use super::dev_extent;
use super::extent_set::{Extent, ExtentSet};
use super::free_space_load;
use super::space_info::{Space, Volume};
use crate::format::tree_id;

/// Chunks smaller than this, in bytes, are not made in advance.
const LEAST_CHUNK: u64 = 1 << 20;

impl Space {
    /// Bytes of metadata that commits need whatever happens: changes of the extent, free space,
    /// root, and checksum trees that follow from any other change.
    pub fn global_reserve(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Data => 0,
            // The paths of one chunk item and one device item.
            Kind::System => self.nodesize.saturating_mul(4),
            Kind::Metadata => {
                let totals = self.totals(kind);
                let paths = self.nodesize.saturating_mul(8 * 2 * 20);
                let share = totals.used / 16;
                share.max(paths).min(512 << 20).min(totals.total / 4)
            }
        }
    }

    /// Makes sure that `bytes` of a kind can be allocated and the global reserve is left, making
    /// chunks if need be. Who asks for nothing frees space, most likely, and may eat into the
    /// reserve.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; those of making a chunk.
    pub fn ensure_available<V: Volume>(&mut self, vol: &V, kind: Kind, bytes: u64) -> Result {
        loop {
            let reserve = self.global_reserve(kind);
            let available = self.totals(kind).available;
            if available >= bytes.saturating_add(reserve) {
                return Ok(());
            }
            match self.grow(vol, kind, LEAST_CHUNK) {
                Ok(_) => {}
                Err(ENOSPC) if bytes == 0 && available >= reserve / 2 => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Allocates a block for a tree. Touches no tree; may make a chunk in memory.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; errors of reading the free space of a block group; `ENOMEM`.
    pub fn alloc_tree_block<V: Volume>(&mut self, vol: &V, tree: u64) -> Result<u64> {
        let kind = if tree == tree_id::CHUNK {
            Kind::System
        } else {
            Kind::Metadata
        };
        let want = Want {
            kind,
            len: self.nodesize,
            align: self.nodesize,
            // Blocks written together should lie together: prefer space for a megabyte of them.
            cluster: self.nodesize.saturating_mul(64),
        };
        let from = self.cursor(kind);
        Ok(self.alloc(vol, want, from)?.start)
    }

    /// Allocates space for data: `want` bytes, or less if there is no free extent of that size and
    /// no chunk can be made, but at least `min`. The search starts at `hint`, or after the last
    /// allocation if that is 0.
    ///
    /// # Errors
    ///
    /// `EINVAL` unless both are multiples of the sector size; `ENOSPC`; as for
    /// [`Self::alloc_tree_block`].
    pub fn alloc_data<V: Volume>(
        &mut self,
        vol: &V,
        min: u64,
        want: u64,
        hint: u64,
    ) -> Result<Extent> {
        if min == 0 || want < min || (min | want) % self.sectorsize != 0 {
            return Err(EINVAL);
        }
        let request = Want {
            kind: Kind::Data,
            len: want,
            align: self.sectorsize.into(),
            cluster: want,
        };
        let from = if hint != 0 {
            hint
        } else {
            self.cursor(Kind::Data)
        };
        match self.alloc(vol, request, from) {
            Err(ENOSPC) if min < want => {}
            done => return done,
        }
        let len = self.longest(vol, Kind::Data)?;
        let len = len.min(want);
        let len = len.saturating_sub(len % self.sectorsize);
        if len < min {
            return Err(ENOSPC);
        }
        let request = Want {
            len,
            cluster: len,
            ..request
        };
        self.alloc(vol, request, from)
    }

    fn cursor(&self, kind: Kind) -> u64 {
        self.cursors.get(kind as usize).copied().unwrap_or(0)
    }

    fn alloc<V: Volume>(&mut self, vol: &V, want: Want, from: u64) -> Result<Extent> {
        let profile = self.profile(want.kind);
        if let Some(start) = self.search(vol, &want, from, |p| p == profile)? {
            return self.take(&want, start);
        }
        match self.grow(vol, want.kind, want.len) {
            Ok(new) => {
                if let Some(start) = self.search(vol, &want, new, |p| p == profile)? {
                    return self.take(&want, start);
                }
            }
            Err(ENOSPC) => {}
            Err(error) => return Err(error),
        }
        // No space as wanted: more copies than wanted will do, fewer will not.
        let better = |p| p != profile && copies(p) >= copies(profile);
        let start = self.search(vol, &want, from, better)?.ok_or(ENOSPC)?;
        self.take(&want, start)
    }

    /// Finds space in block groups whose profile will do, first at `from`, then after it, then from
    /// the start.
    fn search<V: Volume>(
        &mut self,
        vol: &V,
        want: &Want,
        from: u64,
        profile: impl Fn(u64) -> bool,
    ) -> Result<Option<u64>> {
        let count = self.groups.len();
        let first = self.groups.partition_point(|g| g.end() <= from);
        let mut rounds = [want.cluster, want.len].into_iter();
        if want.cluster <= want.len {
            rounds.next();
        }
        if let Some(start) = self.search_group(vol, want, first, from, None, &profile)? {
            return Ok(Some(start));
        }
        for cluster in rounds {
            // The group at `from` comes up twice: behind `from`, and at last all of it.
            for i in 0..=count {
                let index = first.saturating_add(i) % count.max(1);
                let from = if i == 0 { from } else { 0 };
                let found = self.search_group(vol, want, index, from, Some(cluster), &profile)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Looks for space in one block group: exactly at `from`, or in an extent of at least `cluster`
    /// bytes.
    fn search_group<V: Volume>(
        &mut self,
        vol: &V,
        want: &Want,
        index: usize,
        from: u64,
        cluster: Option<u64>,
        profile: &impl Fn(u64) -> bool,
    ) -> Result<Option<u64>> {
        let Some(group) = self.groups.get(index) else {
            return Ok(None);
        };
        let usable = group.kind() == want.kind && !group.is_read_only() && profile(group.profile());
        if !usable || group.available() < cluster.unwrap_or(want.len) {
            return Ok(None);
        }
        self.load_free(vol, index)?;
        let free = self.groups.get(index).and_then(|g| g.free.as_ref());
        let Some(free) = free else {
            return Ok(None);
        };
        let Some(cluster) = cluster else {
            let here = free.find(from, want.len, want.align);
            return Ok(here.filter(|start| *start == from));
        };
        let found = free
            .first_long(from, cluster)
            .and_then(|extent| free.find(extent.start.max(from), want.len, want.align));
        Ok(found)
    }

    fn take(&mut self, want: &Want, start: u64) -> Result<Extent> {
        let extent = Extent::new(start, want.len)?;
        let group = self.group_mut(extent)?;
        group.free.as_mut().ok_or(EINVAL)?.remove(extent)?;
        group.reserved = group.reserved.saturating_add(extent.len);
        if let Some(cursor) = self.cursors.get_mut(want.kind as usize) {
            *cursor = extent.end();
        }
        Ok(extent)
    }

    /// Allocates exactly this extent.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if not all of it is free; errors of reading the free space of its block group;
    /// `ENOMEM`.
    pub(crate) fn alloc_at<V: Volume>(&mut self, vol: &V, start: u64, len: u64) -> Result {
        let extent = Extent::new(start, len).map_err(|_| EUCLEAN)?;
        let next = self.groups.partition_point(|group| group.start <= start);
        let index = next.checked_sub(1).ok_or(EUCLEAN)?;
        if !self.groups.get(index).is_some_and(|g| g.covers(&extent)) {
            return Err(EUCLEAN);
        }
        self.load_free(vol, index)?;
        let group = self.group_mut(extent)?;
        let free = group.free.as_mut().ok_or(EINVAL)?;
        if !free.covers(&extent) {
            return Err(EUCLEAN);
        }
        free.remove(extent)?;
        group.reserved = group.reserved.saturating_add(len);
        Ok(())
    }

    /// The length of the longest free extent of a kind.
    fn longest<V: Volume>(&mut self, vol: &V, kind: Kind) -> Result<u64> {
        let profile = self.profile(kind);
        let mut longest = 0u64;
        for index in 0..self.groups.len() {
            let usable = self.groups.get(index).is_some_and(|g| {
                g.kind() == kind
                    && !g.is_read_only()
                    && copies(g.profile()) >= copies(profile)
                    && g.available() > longest
            });
            if usable {
                self.load_free(vol, index)?;
                let free = self.groups.get(index).and_then(|g| g.free.as_ref());
                let found = free.and_then(ExtentSet::longest).map_or(0, |e| e.len);
                longest = longest.max(found);
            }
        }
        Ok(longest)
    }

    /// Makes sure that the free space of a block group is in memory: what the last commit left
    /// free, less what readers may still use.
    fn load_free<V: Volume>(&mut self, vol: &V, index: usize) -> Result {
        let Some(group) = self.groups.get(index).filter(|g| g.free.is_none()) else {
            return Ok(());
        };
        let mut free = free_space_load::load(vol, self, group)?;
        for set in self.waiting() {
            let mut at = group.start;
            while let Some(extent) = set.first_after(at).filter(|e| e.start < group.end()) {
                free.subtract(extent)?;
                at = extent.end();
            }
        }
        for extent in group.supers.iter() {
            free.subtract(*extent)?;
        }
        if let Some(group) = self.groups.get_mut(index) {
            group.free = Some(free);
        }
        Ok(())
    }

    /// Takes the first free extent of at least `least` bytes between two logical addresses out of
    /// the free space, or the first `most` bytes of it. Read-only block groups have none, and block
    /// groups of a kind of which nothing can be spared: `spare` says how much can, in bytes.
    ///
    /// # Errors
    ///
    /// Those of reading; `ENOMEM`.
    pub(super) fn take_free<V: Volume>(
        &mut self,
        vol: &V,
        (from, end): (u64, u64),
        least: u64,
        most: u64,
        spare: impl Fn(&Space, Kind) -> u64,
    ) -> Result<Option<Extent>> {
        let first = self.groups.partition_point(|group| group.end() <= from);
        for index in first..self.groups.len() {
            let group = self.groups.get(index).ok_or(EINVAL)?;
            if group.start >= end {
                break;
            }
            // What is reserved finds its place all the while, and others find the most of the rest.
            let share = spare(self, group.kind()) / dev_extent::SHARE;
            let most = most.min(share - share % self.sectorsize);
            if group.is_read_only() || most < u64::from(self.sectorsize) {
                continue;
            }
            let (from, end) = (from.max(group.start), end.min(group.end()));
            self.load_free(vol, index)?;
            let group = self.groups.get_mut(index).ok_or(EINVAL)?;
            let free = group.free.as_mut().ok_or(EINVAL)?;
            let mut at = from;
            while let Some(extent) = free.first_long(at, least) {
                let start = extent.start.max(from);
                if start >= end {
                    break;
                }
                let len = extent.end().min(end).saturating_sub(start);
                if len >= least && len > 0 {
                    let extent = Extent::new(start, len.min(most))?;
                    free.remove(extent)?;
                    group.reserved = group.reserved.saturating_add(extent.len);
                    return Ok(Some(extent));
                }
                at = extent.end();
            }
        }
        Ok(None)
    }

    /// Makes a chunk of at least `least` bytes in memory and returns its logical start. Its items
    /// follow by [`chunk_alloc::write_new_block_groups`].
    fn grow<V: Volume>(&mut self, vol: &V, kind: Kind, least: u64) -> Result<u64> {
        let flags = kind.flag() | self.profile(kind);
        chunk_alloc::make(self, vol, flags, least)
    }
}

/// What is to be allocated.
#[derive(Clone, Copy)]
struct Want {
    kind: Kind,
    len: u64,
    align: u64,
    /// Free extents of at least this length are preferred.
    cluster: u64,
}
