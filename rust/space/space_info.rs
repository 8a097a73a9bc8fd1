// SPDX-License-Identifier: GPL-2.0
//! The space of a volume that is mounted for writing: which block groups there are, what is free in
//! them, and what was freed but may not be used again yet.
//!
//! Allocation touches memory alone. Extent items, the free space tree, block group items, and the
//! items of chunks made on the way follow later, when delayed refs run and the transaction commits;
//! so allocating a block for a change of the free space tree never recurses into that tree. There
//! is one writer at a time, who holds the only reference to [`Space`]: no locks here.
//!
//! A freed extent goes through three states: *pinned* by the transaction that freed it, *held* once
//! that is committed and readers older than the commit may still use the address, and then free.

use kernel::prelude::*;

use super::block_group::{self, copies, BlockGroup, Kind};
use super::chunk_alloc;
use super::dev_extent::DevExtents;
use super::extent_set::{Extent, ExtentSet};
use super::ordered_space::DeferredFrees;
use crate::format::chunk::block_group_flags as flags;
use crate::format::superblock::{compat_ro, SuperBlock};
use crate::format::BlockSize;
use crate::tree::edit::EditContext;
use crate::tree::{Nodes, TreeRoot};

/// The volume as of the last commit. Its nodes never change, so that they may be read whatever the
/// running transaction is doing.
pub trait Volume: Nodes {
    /// The root of a tree as of the last commit.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such tree; errors of reading.
    fn commit_root(&self, tree: u64) -> Result<TreeRoot>;

    /// Puts a new chunk map into use: of the chunks in use now those whose logical start `keep`
    /// approves, and `new`, given as logical start and chunk item.
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
    /// By a free space tree that the running transaction has rebuilt, and that is not committed
    /// yet.
    Rebuilt,
}

/// Extents freed by a committed transaction that readers may still use.
#[derive(Debug)]
struct PinnedExtents {
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
    pub(crate) sectorsize: BlockSize,
    pub(crate) nodesize: u64,
    pub(super) device_uuid: [u8; 16],
    block_group_tree: u64,
    tracking: Tracking,
    /// By start.
    pub(crate) groups: KVVec<BlockGroup>,
    pub(crate) devices: DevExtents,
    /// Profiles that new space should have while balance converts to them.
    targets: [Option<u64>; 3],
    /// The profile with the most copies among the block groups of each kind.
    in_use: [Option<u64>; 3],
    /// Where the last allocation of each kind ended.
    pub(super) cursors: [u64; 3],
    pinned: ExtentSet,
    pinned_extents: KVec<PinnedExtents>,
    /// Data space that was allocated for data on its way to the device, which no transaction knows
    /// of yet.
    pub(super) ordered: ExtentSet,
    /// Data space that files have already, and that data is on its way to.
    pub(crate) nocow: ExtentSet,
    /// What of both is to be given back as soon as there is memory for that.
    pub(super) deferred_frees: DeferredFrees,
    /// The last transaction that was committed.
    committed: u64,
    /// The running transaction changed something here.
    touched: bool,
    /// A transaction was rolled back, or nothing was read yet: all must be read.
    pub(super) stale: bool,
}

impl Space {
    /// The space of a volume that no transaction has looked at yet.
    pub const fn unloaded() -> Space {
        Space {
            sectorsize: BlockSize::ONE,
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
            pinned_extents: KVec::new(),
            ordered: ExtentSet::new(),
            nocow: ExtentSet::new(),
            deferred_frees: DeferredFrees::none(),
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
            sectorsize: BlockSize::new(superblock.sectorsize.get()).ok_or(EINVAL)?,
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

    /// To be called when a transaction begins: reads everything, if that was never done or the
    /// transaction before was rolled back.
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
        for pinned_extents in self.pinned_extents.iter() {
            for extent in pinned_extents.extents.iter() {
                each_part(&mut new.groups, extent, |group, part| {
                    group.pinned = group.pinned.saturating_add(part.len);
                });
            }
        }
        // Chunks that the transaction made go out of use.
        chunk_alloc::publish(&new, vol, None)?;
        new.targets = self.targets;
        new.cursors = self.cursors;
        for extent in self.ordered.iter() {
            each_part(&mut new.groups, extent, |group, part| {
                group.reserved = group.reserved.saturating_add(part.len);
            });
        }
        new.pinned_extents = core::mem::take(&mut self.pinned_extents);
        new.ordered = core::mem::take(&mut self.ordered);
        new.nocow = core::mem::take(&mut self.nocow);
        new.deferred_frees = self.deferred_frees.take_for_reload();
        *self = new;
        Ok(())
    }

    /// To be called when a transaction is given up. Cannot fail; extents that earlier transactions
    /// freed stay held.
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
        Ok(self.pinned_extents.reserve(1, GFP_KERNEL)?)
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
            let pinned_extents = PinnedExtents { transid, extents };
            // Without `prepare_commit` and memory, what was freed stays unused until the next
            // mount.
            let _ = self.pinned_extents.push(pinned_extents, GFP_KERNEL);
        }
    }

    /// Makes what transactions up to `transid` freed and removed usable again: every reader older
    /// than that commit has left.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: some is left for the next call.
    pub fn release_up_to<V: Volume>(&mut self, vol: &V, transid: u64) -> Result {
        if self.stale {
            return Ok(());
        }
        while let Some(pinned_extents) = self.pinned_extents.first_mut() {
            if pinned_extents.transid > transid {
                break;
            }
            while let Some(extent) = pinned_extents.extents.first_after(0) {
                let (part, group) = first_part(&mut self.groups, extent);
                // A block group that was removed takes its extents along.
                if let Some(group) = group {
                    if let Some(free) = group.free.as_mut() {
                        free.insert(part)?;
                    }
                    group.pinned = group.pinned.saturating_sub(part.len);
                }
                pinned_extents.extents.remove(part)?;
            }
            let _ = self.pinned_extents.remove(0);
        }
        // Last, so that no new chunk has addresses of extents that are still held.
        if self.devices.release_up_to(transid) {
            chunk_alloc::publish(self, vol, None)?;
        }
        Ok(())
    }

    /// All extents that may not be used yet though no extent item covers them: freed ones, and
    /// those of data on its way.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &ExtentSet> {
        let pinned_extents = self
            .pinned_extents
            .iter()
            .map(|pinned_extents| &pinned_extents.extents);
        Iterator::chain(pinned_extents, [&self.pinned, &self.ordered])
    }

    /// The extents that [`Self::release_up_to`] would free: what may be discarded on the device
    /// just before.
    pub fn pinned_up_to(&self, transid: u64) -> impl Iterator<Item = Extent> + '_ {
        self.pinned_extents
            .iter()
            .filter(move |pinned_extents| pinned_extents.transid <= transid)
            .flat_map(|pinned_extents| pinned_extents.extents.iter())
    }

    /// Keeps an extent whose extent item the running transaction removed from being used again,
    /// until [`Self::release_up_to`].
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

    /// Pins an extent that the running transaction allocated and that never had an extent item, but
    /// may have been written to.
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

    /// Gives back an extent that the running transaction allocated and that never had an extent
    /// item.
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
        let mut pinned_extents = self.pinned_extents.iter();
        self.pinned.covers(extent)
            || pinned_extents.any(|pinned_extents| pinned_extents.extents.covers(extent))
    }

    /// How free space is tracked on disk.
    pub fn tracking(&self) -> Tracking {
        self.tracking
    }

    /// Has the free space tree made anew: it is not complete, and describes no block group.
    pub(crate) fn forget_tracking(&mut self) {
        self.tracking = Tracking::Stale;
        for group in self.groups.iter_mut() {
            group.untracked = false;
            group.bitmaps = None;
        }
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

    /// The block group that holds all of `extent`, to be changed by the transaction; `ENOENT` if
    /// there is none.
    pub(super) fn group_mut(&mut self, extent: Extent) -> Result<&mut BlockGroup> {
        self.touched = true;
        covering_mut(&mut self.groups, extent).ok_or(ENOENT)
    }

    /// Whether one block group has all of an extent.
    pub(crate) fn is_within_group(&self, extent: Extent) -> bool {
        let next = self.groups.partition_point(|g| g.start <= extent.start);
        let group = next.checked_sub(1).and_then(|at| self.groups.get(at));
        group.is_some_and(|group| group.covers(&extent))
    }

    /// The first block group from `start` on whose item on disk is out of date, pending ones
    /// excepted.
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

    /// Whether the running transaction has made a chunk, which the last commit does not have.
    pub(crate) fn has_new_chunk(&self) -> bool {
        self.groups.iter().any(|group| group.pending || group.fresh)
    }

    /// Drops a block group whose items are gone.
    pub(super) fn forget_group(&mut self, start: u64) {
        self.groups.retain(|g| g.start != start);
        self.count_profiles();
    }

    /// Takes a new block group in; there must be space for it in the list.
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

    /// Stops allocation from a block group, once more for every call, so that it can be emptied.
    /// What is in it must fit elsewhere; new chunks are made for that if need be.
    ///
    /// # Errors
    ///
    /// `ENOENT` without such a block group; `ENOSPC` if its contents would not fit elsewhere; those
    /// of allocating.
    pub fn set_read_only<V: Volume>(&mut self, vol: &V, start: u64) -> Result {
        let group = starting_mut(&mut self.groups, start)?;
        group.read_only = group.read_only.checked_add(1).ok_or(EOVERFLOW)?;
        let (kind, moving) = (group.kind(), group.used.saturating_add(group.reserved));
        let available = self.ensure_available(vol, kind, moving);
        if available.is_err() {
            self.set_read_write(start)?;
        }
        available
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

    /// The profile that new space of a kind gets: what balance converts to, or else the profile
    /// with the most copies that is in use.
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
}

/// The block group that holds all of `extent`.
pub(super) fn covering_mut(groups: &mut [BlockGroup], extent: Extent) -> Option<&mut BlockGroup> {
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

/// Calls `each` for the parts of `extent` in every block group that it touches.
fn each_part(
    groups: &mut [BlockGroup],
    extent: Extent,
    mut each: impl FnMut(&mut BlockGroup, Extent),
) {
    let mut rest = Some(extent);
    while let Some(extent) = rest {
        let (part, group) = first_part(groups, extent);
        if let Some(group) = group {
            each(group, part);
        }
        let len = extent.end().saturating_sub(part.end());
        rest = Extent::new(part.end(), len).ok();
    }
}

/// The part of `extent` that lies in the block group, or in the gap between block groups, that it
/// starts in. Extents that were freed side by side may reach over the end of a block group.
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
