// SPDX-License-Identifier: GPL-2.0
//! What is kept in memory for each subvolume that was looked at: its device number, and whether it may be written.

use crate::bindings;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Mutex;

/// A subvolume; every one looks like a device of its own.
pub(super) struct Subvolume {
    tree: u64,
    dev: u32,
    read_only: Atomic<bool>,
    deleted: Atomic<bool>,
    /// Orphans that the last mount left were looked for.
    cleaned: Atomic<bool>,
}

impl Subvolume {
    fn new(tree: u64, read_only: bool) -> Result<KBox<Self>> {
        let mut status = 0;
        // SAFETY: The pointer is valid for the write.
        let dev = unsafe { bindings::rbtrfs_new_anon_dev(&mut status) };
        to_result(status)?;
        let subvolume = Self {
            tree,
            dev,
            read_only: Atomic::new(read_only),
            deleted: Atomic::new(false),
            cleaned: Atomic::new(false),
        };
        Ok(KBox::new(subvolume, GFP_KERNEL)?)
    }

    /// The device number that `stat` shows.
    pub(super) fn dev(&self) -> u32 {
        self.dev
    }

    /// Whether nothing in it may be changed.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.load(Relaxed)
    }

    /// Notes that the subvolume was made read-only, or writable.
    pub(super) fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Relaxed);
    }

    /// Whether it was deleted; then its inodes are of no use.
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Relaxed)
    }

    /// Notes that the subvolume was deleted.
    pub(super) fn set_deleted(&self) {
        self.deleted.store(true, Relaxed);
    }

    /// Answers `true` once: the caller is to look for orphans.
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

impl Drop for Subvolume {
    fn drop(&mut self) {
        // SAFETY: The number is ours, and no inode that shows it is left.
        unsafe { bindings::free_anon_bdev(self.dev) }
    }
}

/// The subvolumes of a volume that were looked at, sorted by tree. None goes before the volume does. The mutex is a
/// leaf.
pub(super) struct Subvolumes(Pin<KBox<Mutex<KVec<KBox<Subvolume>>>>>);

impl Subvolumes {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(KBox::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?))
    }

    /// Those that can be written, and in which orphans were not looked for yet; each is answered once.
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

    /// The subvolume `tree`, which is `read_only` if it is not known yet. It lives as long as `self`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EMFILE` when the system has no device number left.
    pub(super) fn get(&self, tree: u64, read_only: bool) -> Result<NonNull<Subvolume>> {
        let mut known = self.0.lock();
        match known.binary_search_by_key(&tree, |known| known.tree) {
            Ok(at) => known
                .get(at)
                .map(|known| NonNull::from(&**known))
                .ok_or(EINVAL),
            Err(at) => {
                let new = Subvolume::new(tree, read_only)?;
                let found = NonNull::from(&*new);
                known.reserve(1, GFP_KERNEL)?;
                known.insert_within_capacity(at, new).map_err(|_| ENOMEM)?;
                Ok(found)
            }
        }
    }
}
