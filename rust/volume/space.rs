// SPDX-License-Identifier: GPL-2.0
//! The space of a volume that is mounted for writing: which block groups there are, what is free in them, and what
//! was freed but may not be used again yet.
//!
//! Allocation touches memory alone. Extent items, the free space tree, block group items, and the items of chunks
//! made on the way follow later, when delayed refs run and the transaction commits; so allocating a block for a
//! change of the free space tree never recurses into that tree. There is one writer at a time, who holds the only
//! reference to [`Space`]: no locks here.
//!
//! A freed extent goes through three states: *pinned* by the transaction that freed it, *held* once that is
//! committed and readers older than the commit may still use the address, and then free.

use kernel::prelude::*;

use super::block_group::{self, copies, BlockGroup, Kind};
use super::chunk_alloc;
use super::dev_extent::DevExtents;
use super::free_space::{Extent, ExtentSet};
use super::free_space_load;
use crate::format::chunk::block_group_flags as flags;
use crate::format::superblock::{compat_ro, SuperBlock};
use crate::format::tree_id;
use crate::tree::edit::EditContext;
use crate::tree::{Nodes, TreeRoot};

/// Chunks smaller than this, in bytes, are not made in advance.
const LEAST_CHUNK: u64 = 1 << 20;

/// The volume as of the last commit. Its nodes never change, so that they may be read whatever the running
/// transaction is doing.
pub trait Volume: Nodes {
    /// The root of a tree as of the last commit.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such tree; errors of reading.
    fn commit_root(&self, tree: u64) -> Result<TreeRoot>;

    /// Puts a new chunk map into use: of the chunks in use now those whose logical start `keep` approves, and `new`,
    /// given as logical start and chunk item.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the map stays as it was.
    fn set_chunks(&self, keep: &dyn Fn(u64) -> bool, new: Option<(u64, &[u8])>) -> Result;
}

/// The running transaction, as far as the space of the volume is concerned.
pub trait SpaceContext: EditContext {
    /// The volume as of the last commit.
    type Volume: Volume;

    /// The volume as of the last commit.
    fn volume(&self) -> &Self::Volume;
    /// The space that this transaction allocates from.
    fn space(&self) -> &Space;
    /// See [`Self::space`].
    fn space_mut(&mut self) -> &mut Space;
    /// Both the space and the volume as of the last commit, to allocate.
    fn allocator(&mut self) -> (&mut Space, &Self::Volume);
    /// The superblock that the commit will write.
    fn superblock(&self) -> &SuperBlock;
    /// See [`Self::superblock`].
    fn superblock_mut(&mut self) -> &mut SuperBlock;
}

/// How the volume tracks free space on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Not at all: it is what no extent item covers.
    Untracked,
    /// By a free space tree that is complete.
    Tree,
    /// By a free space tree that is not complete: nobody reads it, and it is not kept up.
    Stale,
    /// By a free space tree that the running transaction has rebuilt, and that is not committed yet.
    Rebuilt,
}

/// Extents freed by a committed transaction that readers may still use.
#[derive(Debug)]
struct Held {
    transid: u64,
    extents: ExtentSet,
}

/// Sums over the block groups of one kind, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Their length.
    pub total: u64,
    /// In extents, those included whose items are not written yet.
    pub used: u64,
    /// Freed but not to be used again yet.
    pub pinned: u64,
    /// What could be allocated in read-only block groups, were they not.
    pub read_only: u64,
    /// What can be allocated without a new chunk.
    pub available: u64,
}

/// The space of the volume. See the module's description.
#[derive(Debug)]
pub struct Space {
    pub(super) sectorsize: u64,
    pub(super) nodesize: u64,
    pub(super) device_uuid: [u8; 16],
    block_group_tree: u64,
    tracking: Tracking,
    /// By start.
    pub(super) groups: KVVec<BlockGroup>,
    pub(super) devices: DevExtents,
    /// Profiles that new space should have while balance converts to them.
    targets: [Option<u64>; 3],
    /// The profile with the most copies among the block groups of each kind.
    in_use: [Option<u64>; 3],
    /// Where the last allocation of each kind ended.
    cursors: [u64; 3],
    pinned: ExtentSet,
    held: KVec<Held>,
    /// The last transaction that was committed.
    committed: u64,
    /// The running transaction changed something here.
    touched: bool,
    /// A transaction was rolled back, or nothing was read yet: all must be read.
    stale: bool,
}

impl Space {
    /// The space of a volume that no transaction has looked at yet.
    pub const fn unloaded() -> Space {
        Space {
            sectorsize: 0,
            nodesize: 0,
            device_uuid: [0; 16],
            block_group_tree: 0,
            tracking: Tracking::Untracked,
            groups: KVVec::new(),
            devices: DevExtents::empty(),
            targets: [None; 3],
            in_use: [None; 3],
            cursors: [0; 3],
            pinned: ExtentSet::new(),
            held: KVec::new(),
            committed: 0,
            touched: false,
            stale: true,
        }
    }

    /// Reads block groups and device extents. Free space is read when it is first needed.
    fn load<V: Volume>(vol: &V, superblock: &SuperBlock) -> Result<Space> {
        let device = &superblock.dev_item;
        let devices = DevExtents::load(vol, device.devid.get(), device.total_bytes.get())?;
        let features = superblock.compat_ro_flags.get();
        let block_group_tree = block_group::tree_of(features);
        let tracking = if features & compat_ro::FREE_SPACE_TREE == 0 {
            Tracking::Untracked
        } else if features & compat_ro::FREE_SPACE_TREE_VALID != 0 {
            Tracking::Tree
        } else {
            Tracking::Stale
        };
        let groups = block_group::load(vol, block_group_tree, &devices)?;
        let mut space = Space {
            sectorsize: superblock.sectorsize.get().into(),
            nodesize: superblock.nodesize.get().into(),
            device_uuid: device.uuid,
            block_group_tree,
            tracking,
            groups,
            devices,
            committed: superblock.generation.get(),
            stale: false,
            ..Space::unloaded()
        };
        space.count_profiles();
        Ok(space)
    }

    /// To be called when a transaction begins: reads everything, if that was never done or the transaction before was
    /// rolled back.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the trees do not agree; errors of reading; `ENOMEM`. It may be called again.
    pub fn begin<V: Volume>(&mut self, vol: &V, superblock: &SuperBlock) -> Result {
        if !self.stale {
            return Ok(());
        }
        let mut new = Space::load(vol, superblock)?;
        new.devices.keep_removed(&self.devices, self.committed)?;
        for old in self.groups.iter().filter(|g| g.is_read_only()) {
            let range = Extent::new(old.start, old.length)?;
            if let Some(group) = covering_mut(&mut new.groups, range) {
                group.read_only = old.read_only;
            }
        }
        for held in self.held.iter() {
            for extent in held.extents.iter() {
                let mut rest = Some(extent);
                while let Some(extent) = rest {
                    let (part, group) = first_part(&mut new.groups, extent);
                    if let Some(group) = group {
                        group.pinned = group.pinned.saturating_add(part.len);
                    }
                    let len = extent.end().saturating_sub(part.end());
                    rest = Extent::new(part.end(), len).ok();
                }
            }
        }
        // Chunks that the transaction made go out of use.
        chunk_alloc::publish(&new, vol, None)?;
        new.targets = self.targets;
        new.cursors = self.cursors;
        new.held = core::mem::take(&mut self.held);
        *self = new;
        Ok(())
    }

    /// To be called when a transaction is given up. Cannot fail; extents that earlier transactions freed stay held.
    pub fn rolled_back(&mut self) {
        if self.touched {
            self.pinned = ExtentSet::new();
            self.stale = true;
        }
    }

    /// Makes [`Self::committed`] unable to fail. To be called before the superblock is written.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn prepare_commit(&mut self) -> Result {
        Ok(self.held.reserve(1, GFP_KERNEL)?)
    }

    /// To be called when transaction `transid` is on disk: what it freed is held from now on.
    pub fn committed(&mut self, transid: u64) {
        self.committed = transid;
        self.touched = false;
        if self.tracking == Tracking::Rebuilt {
            self.tracking = Tracking::Tree;
        }
        for group in self.groups.iter_mut() {
            group.committed_used = group.used;
            group.fresh = false;
        }
        if !self.pinned.is_empty() {
            let extents = core::mem::take(&mut self.pinned);
            let held = Held { transid, extents };
            // Without `prepare_commit` and memory, what was freed stays unused until the next mount.
            let _ = self.held.push(held, GFP_KERNEL);
        }
    }

    /// Makes what transactions up to `transid` freed and removed usable again: every reader older than that commit
    /// has left.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: some is left for the next call.
    pub fn release_upto<V: Volume>(&mut self, vol: &V, transid: u64) -> Result {
        if self.stale {
            return Ok(());
        }
        while let Some(held) = self.held.first_mut() {
            if held.transid > transid {
                break;
            }
            while let Some(extent) = held.extents.first_after(0) {
                let (part, group) = first_part(&mut self.groups, extent);
                // A block group that was removed takes its extents along.
                if let Some(group) = group {
                    if let Some(free) = group.free.as_mut() {
                        free.insert(part)?;
                    }
                    group.pinned = group.pinned.saturating_sub(part.len);
                }
                held.extents.remove(part)?;
            }
            let _ = self.held.remove(0);
        }
        // Last, so that no new chunk has addresses of extents that are still held.
        if self.devices.release_upto(transid) {
            chunk_alloc::publish(self, vol, None)?;
        }
        Ok(())
    }

    /// The extents that [`Self::release_upto`] would free: what may be discarded on the device just before.
    pub fn held_upto(&self, transid: u64) -> impl Iterator<Item = Extent> + '_ {
        self.held
            .iter()
            .filter(move |held| held.transid <= transid)
            .flat_map(|held| held.extents.iter())
    }

    /// Keeps an extent whose extent item the running transaction removed from being used again, until
    /// [`Self::release_upto`].
    ///
    /// # Errors
    ///
    /// `ENOENT` without a block group, `EEXIST` if part of it is pinned, `ENOMEM`.
    pub fn pin(&mut self, start: u64, len: u64) -> Result {
        let extent = Extent::new(start, len)?;
        self.touched = true;
        let group = covering_mut(&mut self.groups, extent).ok_or(ENOENT)?;
        self.pinned.insert(extent)?;
        group.pinned = group.pinned.saturating_add(len);
        Ok(())
    }

    /// Pins an extent that the running transaction allocated and that never had an extent item, but may have been
    /// written to.
    ///
    /// # Errors
    ///
    /// As for [`Self::pin`].
    pub fn abandon(&mut self, start: u64, len: u64) -> Result {
        self.pin(start, len)?;
        let group = self.group_mut(Extent::new(start, len)?)?;
        group.reserved = group.reserved.saturating_sub(len);
        Ok(())
    }

    /// Gives back an extent that the running transaction allocated and that never had an extent item.
    ///
    /// # Errors
    ///
    /// `ENOENT` without a block group, `EEXIST` if part of it is free, `ENOMEM`.
    pub fn release(&mut self, start: u64, len: u64) -> Result {
        let extent = Extent::new(start, len)?;
        let group = self.group_mut(extent)?;
        group.free.as_mut().ok_or(EINVAL)?.insert(extent)?;
        group.reserved = group.reserved.saturating_sub(len);
        Ok(())
    }

    /// Whether an extent was freed lately and may not be used yet.
    pub fn is_pinned(&self, extent: &Extent) -> bool {
        let mut sets = self.held.iter().map(|held| &held.extents);
        self.pinned.covers(extent) || sets.any(|set| set.covers(extent))
    }

    /// How free space is tracked on disk.
    pub fn tracking(&self) -> Tracking {
        self.tracking
    }

    pub(super) fn set_tracking(&mut self, tracking: Tracking) {
        self.tracking = tracking;
    }

    /// The tree that block group items live in.
    pub fn block_group_tree(&self) -> u64 {
        self.block_group_tree
    }

    /// The device's allocated ranges.
    pub fn devices(&self) -> &DevExtents {
        &self.devices
    }

    /// The sums over all block groups of a kind.
    pub fn totals(&self, kind: Kind) -> Totals {
        let mut sum = Totals::default();
        for group in self.groups.iter().filter(|g| g.kind() == kind) {
            let used = group.used.saturating_add(group.reserved);
            sum.total = sum.total.saturating_add(group.length);
            sum.used = sum.used.saturating_add(used);
            sum.pinned = sum.pinned.saturating_add(group.pinned);
            let available = group.available();
            if group.is_read_only() {
                sum.read_only = sum.read_only.saturating_add(available);
            } else {
                sum.available = sum.available.saturating_add(available);
            }
        }
        sum
    }

    /// All block groups, by start.
    pub fn block_groups(&self) -> &[BlockGroup] {
        &self.groups
    }

    /// The block group that holds a logical address.
    pub fn find(&self, logical: u64) -> Option<&BlockGroup> {
        let next = self.groups.partition_point(|g| g.start <= logical);
        let group = self.groups.get(next.checked_sub(1)?)?;
        (logical < group.end()).then_some(group)
    }

    /// The block group that starts at `start`; `ENOENT` if there is none.
    pub fn group_at(&self, start: u64) -> Result<&BlockGroup> {
        self.find(start).filter(|g| g.start == start).ok_or(ENOENT)
    }

    /// As [`Self::group_at`], to be changed by the transaction.
    pub(super) fn group_at_mut(&mut self, start: u64) -> Result<&mut BlockGroup> {
        self.touched = true;
        starting_mut(&mut self.groups, start)
    }

    /// The block group that holds all of `extent`, to be changed by the transaction; `ENOENT` if there is none.
    pub(super) fn group_mut(&mut self, extent: Extent) -> Result<&mut BlockGroup> {
        self.touched = true;
        covering_mut(&mut self.groups, extent).ok_or(ENOENT)
    }

    /// The first block group from `start` on whose item on disk is out of date, pending ones excepted.
    pub(super) fn next_dirty(&self, start: u64) -> Option<&BlockGroup> {
        let first = self.groups.partition_point(|g| g.start < start);
        let rest = self.groups.get(first..)?;
        rest.iter().find(|g| !g.pending && g.is_dirty())
    }

    /// The first block group from `start` on.
    pub(super) fn next_group(&self, start: u64) -> Option<&BlockGroup> {
        let first = self.groups.partition_point(|g| g.start < start);
        self.groups.get(first)
    }

    /// The start of the first block group whose items were never written.
    pub(super) fn first_pending(&self) -> Option<u64> {
        self.groups.iter().find(|g| g.pending).map(|g| g.start)
    }

    /// Drops a block group whose items are gone.
    pub(super) fn forget_group(&mut self, start: u64) {
        self.groups.retain(|g| g.start != start);
        self.count_profiles();
    }

    /// Takes a new block group in; there must be room for it in the list.
    pub(super) fn add_group(&mut self, group: BlockGroup) -> Result {
        self.touched = true;
        let at = self.groups.partition_point(|g| g.start < group.start);
        self.groups
            .insert_within_capacity(at, group)
            .map_err(|_| EINVAL)?;
        self.count_profiles();
        Ok(())
    }

    /// Whether a block group's items have to be written before the commit.
    pub fn is_dirty(&self) -> bool {
        self.groups.iter().any(BlockGroup::is_dirty)
    }

    /// Stops allocation from a block group, once more for every call, so that it can be emptied. What is in it must
    /// fit elsewhere; new chunks are made for that if need be.
    ///
    /// # Errors
    ///
    /// `ENOENT` without such a block group; `ENOSPC` if its contents would not fit elsewhere; those of allocating.
    pub fn set_read_only<V: Volume>(&mut self, vol: &V, start: u64) -> Result {
        let group = starting_mut(&mut self.groups, start)?;
        group.read_only = group.read_only.checked_add(1).ok_or(EOVERFLOW)?;
        let (kind, moving) = (group.kind(), group.used.saturating_add(group.reserved));
        let room = self.make_room(vol, kind, moving);
        if room.is_err() {
            self.set_read_write(start)?;
        }
        room
    }

    /// Undoes one [`Self::set_read_only`].
    ///
    /// # Errors
    ///
    /// `ENOENT` without such a block group, `EINVAL` if it is not read-only.
    pub fn set_read_write(&mut self, start: u64) -> Result {
        let group = starting_mut(&mut self.groups, start)?;
        group.read_only = group.read_only.checked_sub(1).ok_or(EINVAL)?;
        Ok(())
    }

    /// The profile that new space of a kind gets: what balance converts to, or else the profile with the most copies
    /// that is in use.
    pub fn profile(&self, kind: Kind) -> u64 {
        self.targets
            .get(kind as usize)
            .copied()
            .flatten()
            .unwrap_or_else(|| self.profile_in_use(kind))
    }

    fn profile_in_use(&self, kind: Kind) -> u64 {
        self.in_use
            .get(kind as usize)
            .copied()
            .flatten()
            .unwrap_or(match kind {
                Kind::Data => 0,
                Kind::Metadata | Kind::System => flags::DUP,
            })
    }

    fn count_profiles(&mut self) {
        for (kind, in_use) in Kind::ALL.into_iter().zip(self.in_use.iter_mut()) {
            let groups = self.groups.iter().filter(|g| g.kind() == kind);
            *in_use = groups
                .map(BlockGroup::profile)
                .max_by_key(|profile| copies(*profile));
        }
    }

    /// Makes new space of a kind have this profile, until called with `None`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for profiles that are not supported.
    pub fn set_target(&mut self, kind: Kind, profile: Option<u64>) -> Result {
        if profile.is_some_and(|p| p & !flags::PROFILE_MASK != 0 || copies(p).is_none()) {
            return Err(EINVAL);
        }
        *self.targets.get_mut(kind as usize).ok_or(EINVAL)? = profile;
        Ok(())
    }

    /// Bytes of metadata that commits need whatever happens: changes of the extent, free space, root, and checksum
    /// trees that follow from any other change.
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

    /// Sees to it that `bytes` of a kind can be allocated and the global reserve is left, making chunks if need be.
    /// Who asks for nothing frees space, most likely, and may eat into the reserve.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; those of making a chunk.
    pub fn make_room<V: Volume>(&mut self, vol: &V, kind: Kind, bytes: u64) -> Result {
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
            // Blocks written together should lie together: prefer room for a megabyte of them.
            cluster: self.nodesize.saturating_mul(64),
        };
        let from = self.cursor(kind);
        Ok(self.alloc(vol, want, from)?.start)
    }

    /// Allocates space for data: `want` bytes, or less if there is no free extent of that size and no chunk can be
    /// made, but at least `min`. The search starts at `hint`, or behind the last allocation if that is 0.
    ///
    /// # Errors
    ///
    /// `EINVAL` unless both are multiples of the sector size; `ENOSPC`; as for [`Self::alloc_tree_block`].
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
            align: self.sectorsize,
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
        // No room as wanted: more copies than wanted will do, fewer will not.
        let better = |p| p != profile && copies(p) >= copies(profile);
        let start = self.search(vol, &want, from, better)?.ok_or(ENOSPC)?;
        self.take(&want, start)
    }

    /// Finds room in block groups whose profile will do, first at `from`, then behind it, then from the start.
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

    /// Looks for room in one block group: exactly at `from`, or in an extent of at least `cluster` bytes.
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

    /// Makes sure that the free space of a block group is in memory: what the last commit left free, less what
    /// readers may still use.
    fn load_free<V: Volume>(&mut self, vol: &V, index: usize) -> Result {
        let Some(group) = self.groups.get(index).filter(|g| g.free.is_none()) else {
            return Ok(());
        };
        let mut free = free_space_load::load(vol, self, group)?;
        let sets = self.held.iter().map(|held| &held.extents);
        for set in Iterator::chain(sets, [&self.pinned]) {
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

    /// Makes a chunk of at least `least` bytes in memory and returns its logical start. Its items follow by
    /// [`chunk_alloc::write_new_block_groups`].
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

/// The block group that holds all of `extent`.
fn covering_mut(groups: &mut [BlockGroup], extent: Extent) -> Option<&mut BlockGroup> {
    let next = groups.partition_point(|g| g.start <= extent.start);
    let group = groups.get_mut(next.checked_sub(1)?)?;
    group.covers(&extent).then_some(group)
}

/// The block group that starts at `start`; `ENOENT` if there is none.
fn starting_mut(groups: &mut [BlockGroup], start: u64) -> Result<&mut BlockGroup> {
    let at = groups.partition_point(|g| g.start < start);
    groups
        .get_mut(at)
        .filter(|g| g.start == start)
        .ok_or(ENOENT)
}

/// The part of `extent` that lies in the block group, or in the gap between block groups, that it starts in. Extents
/// that were freed side by side may reach over the end of a block group.
fn first_part(groups: &mut [BlockGroup], extent: Extent) -> (Extent, Option<&mut BlockGroup>) {
    let at = groups.partition_point(|g| g.end() <= extent.start);
    let Some(group) = groups.get_mut(at) else {
        return (extent, None);
    };
    let start = extent.start;
    let inside = group.start <= start;
    let end = if inside { group.end() } else { group.start };
    let len = extent.end().min(end).saturating_sub(start);
    (Extent { start, len }, inside.then_some(group))
}
