// SPDX-License-Identifier: GPL-2.0
//! What is kept in memory for each subvolume that was looked at: its device number, and whether it
//! may be written.

use super::anon_dev::AnonDev;
use super::snapshot_lock::SnapshotLock;
use super::writers::Writers;
use core::ops::Deref;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::Mutex;

/// A subvolume; every one looks like a device of its own.
pub(super) struct Subvolume {
    tree: u64,
    dev: AnonDev,
    deleted: Atomic<bool>,
    /// How many of its inodes are in memory, or [`Self::CLAIMED`].
    inodes: Atomic<i64>,
    /// Orphans that the last mount left were looked for.
    cleaned: Atomic<bool>,
    writers: Pin<KBox<Writers>>,
    snapshot_lock: Pin<KBox<SnapshotLock>>,
}

impl Subvolume {
    /// No inode may come any more: the tree is being dropped.
    const CLAIMED: i64 = -1;

    fn new(tree: u64, read_only: bool) -> Result<KBox<Self>> {
        let snapshot_lock = SnapshotLock::new()?;
        let subvolume = Self {
            tree,
            dev: AnonDev::new()?,
            deleted: Atomic::new(false),
            inodes: Atomic::new(0),
            cleaned: Atomic::new(false),
            writers: Writers::new(read_only)?,
            snapshot_lock,
        };
        Ok(KBox::new(subvolume, GFP_KERNEL)?)
    }

    /// The device number that `stat` shows.
    pub(super) fn dev(&self) -> u32 {
        self.dev.number()
    }

    /// The writes to it that have no space but what was preallocated.
    pub(super) fn snapshot_lock(&self) -> &SnapshotLock {
        &self.snapshot_lock
    }

    /// Those who make data in it dirty.
    pub(super) fn writers(&self) -> &Writers {
        &self.writers
    }

    /// Whether nothing in it may be changed.
    pub(super) fn is_read_only(&self) -> bool {
        self.writers.is_read_only()
    }

    /// Notes that the subvolume was made read-only, or writable.
    pub(super) fn set_read_only(&self, read_only: bool) {
        self.writers.set_read_only(read_only);
    }

    /// Whether it was deleted; then its inodes are of no use.
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Relaxed)
    }

    /// Notes that the subvolume was deleted.
    pub(super) fn set_deleted(&self) {
        self.deleted.store(true, Relaxed);
    }

    /// Keeps the tree from being dropped.
    ///
    /// # Errors
    ///
    /// `ENOENT` if that has begun.
    pub(super) fn enter(&self) -> Result<Entered<'_>> {
        let mut inodes = self.inodes.load(Relaxed);
        loop {
            let more = inodes.checked_add(1).ok_or(EOVERFLOW)?;
            if inodes == Self::CLAIMED {
                return Err(ENOENT);
            }
            match self.inodes.cmpxchg(inodes, more, Full) {
                Ok(_) => return Ok(Entered(self)),
                Err(now) => inodes = now,
            }
        }
    }

    /// Takes an inode back that [`Entered::keep`] counted. Returns whether it was the last one of a
    /// deleted subvolume, which the cleaner may drop now.
    pub(super) fn leave(&self) -> bool {
        self.inodes.fetch_sub(1, Full) == 1 && self.is_deleted()
    }

    /// Keeps inodes from coming into memory, for good. Returns `false` if some are there.
    fn claim(&self) -> bool {
        self.inodes.cmpxchg(0, Self::CLAIMED, Full).is_ok()
            || self.inodes.load(Relaxed) == Self::CLAIMED
    }

    /// Returns `true` once: the caller is to look for orphans.
    pub(super) fn take_cleaning(&self) -> bool {
        self.cleaned.cmpxchg(false, true, Relaxed).is_ok()
    }

    /// Whether it may be changed.
    ///
    /// # Errors
    ///
    /// `EROFS` if not.
    pub(super) fn check_writable(&self) -> Result {
        if self.is_read_only() {
            return Err(EROFS);
        }
        Ok(())
    }
}

/// Keeps the tree of a subvolume from being dropped: for a while, or with [`Self::keep`] for the
/// life of an inode.
pub(super) struct Entered<'a>(&'a Subvolume);

impl Entered<'_> {
    /// The subvolume, for an inode that calls [`Subvolume::leave`] when it goes.
    pub(super) fn keep(self) -> *const Subvolume {
        let subvolume: *const Subvolume = self.0;
        core::mem::forget(self);
        subvolume
    }
}

impl Deref for Entered<'_> {
    type Target = Subvolume;

    fn deref(&self) -> &Subvolume {
        self.0
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // Whoever had the subvolume deleted wakes the cleaner, which comes again after a while.
        self.0.leave();
    }
}

/// The subvolumes of a volume that were looked at, sorted by tree. None goes before this does. The
/// mutex is a leaf.
pub(super) struct Subvolumes(Pin<KBox<Mutex<KVec<KBox<Subvolume>>>>>);

impl Subvolumes {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(KBox::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?))
    }

    /// Those that can be written, and in which orphans were not looked for yet; each is answered
    /// once.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn take_cleaning(&self) -> Result<KVec<u64>> {
        let mut trees = KVec::new();
        for known in self.0.lock().iter() {
            if !known.is_read_only() && known.take_cleaning() {
                trees.push(known.tree, GFP_KERNEL)?;
            }
        }
        Ok(trees)
    }

    /// The subvolume `tree`, if it was looked at.
    pub(super) fn find(&self, tree: u64) -> Option<&Subvolume> {
        let known = self.0.lock();
        let at = known.binary_search_by_key(&tree, |known| known.tree);
        let found: *const Subvolume = &**known.get(at.ok()?)?;
        // SAFETY: The box is kept until `self` goes.
        Some(unsafe { &*found })
    }

    /// The subvolume `tree`, which is `read_only` if it is not known yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EMFILE` when the system has no device number left.
    pub(super) fn get(&self, tree: u64, read_only: bool) -> Result<&Subvolume> {
        let mut known = self.0.lock();
        if let Err(at) = known.binary_search_by_key(&tree, |known| known.tree) {
            let new = Subvolume::new(tree, read_only)?;
            known.reserve(1, GFP_KERNEL)?;
            known.insert_within_capacity(at, new).map_err(|_| ENOMEM)?;
        }
        drop(known);
        self.find(tree).ok_or(EINVAL)
    }

    /// Whether the tree of a deleted subvolume may be dropped: none of its inodes is in memory, nor
    /// will be.
    pub(super) fn claim(&self, tree: u64) -> bool {
        self.find(tree).is_none_or(Subvolume::claim)
    }

    /// Whether deleted subvolumes have inodes in memory.
    pub(super) fn has_deleted_in_use(&self) -> bool {
        let in_use = |known: &KBox<Subvolume>| known.is_deleted() && known.inodes.load(Relaxed) > 0;
        self.0.lock().iter().any(in_use)
    }
}
