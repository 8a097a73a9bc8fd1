// SPDX-License-Identifier: GPL-2.0
//! The locks of an inode, as evidence in types: who holds one may call what asks for it.

use super::inode::Inode;
use crate::bindings;
use core::marker::PhantomData;
use core::ops::Deref;
use kernel::types::NotThreadSafe;

/// An inode whose lock, `i_rwsem`, the calling task holds exclusively.
#[derive(Clone, Copy)]
pub(super) struct Exclusive<'a>(&'a Inode);

impl<'a> Exclusive<'a> {
    /// # Safety
    ///
    /// The calling task holds the inode's lock exclusively, for `'a`.
    pub(super) unsafe fn assume(inode: &'a Inode) -> Self {
        Self(inode)
    }

    pub(super) fn inode(&self) -> &'a Inode {
        self.0
    }
}

impl Deref for Exclusive<'_> {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        self.0
    }
}

/// Holds an inode's lock exclusively.
#[must_use = "the lock is given up when the guard is dropped"]
pub(super) struct InodeGuard<'a> {
    inode: &'a Inode,
    _task: PhantomData<NotThreadSafe>,
}

impl<'a> InodeGuard<'a> {
    pub(super) fn lock(inode: &'a Inode) -> Self {
        // SAFETY: The inode is valid; `drop` unlocks it, in the same task.
        unsafe { bindings::rbtrfs_inode_lock(inode.as_ptr()) };
        Self {
            inode,
            _task: PhantomData,
        }
    }

    pub(super) fn exclusive(&self) -> Exclusive<'_> {
        Exclusive(self.inode)
    }
}

impl Drop for InodeGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: `lock` locked it, in this task.
        unsafe { bindings::rbtrfs_inode_unlock(self.inode.as_ptr()) }
    }
}

/// Keeps the page cache of an inode from being filled: taken to cut data off.
#[must_use = "the lock is given up when the guard is dropped"]
pub(super) struct InvalidateGuard<'a> {
    inode: &'a Inode,
    _task: PhantomData<NotThreadSafe>,
}

impl<'a> InvalidateGuard<'a> {
    /// Within the inode's lock.
    pub(super) fn lock(inode: Exclusive<'a>) -> Self {
        let inode = inode.inode();
        // SAFETY: The inode is valid; `drop` unlocks it, in the same task.
        unsafe { bindings::rbtrfs_invalidate_lock(inode.as_ptr()) };
        Self {
            inode,
            _task: PhantomData,
        }
    }
}

impl Drop for InvalidateGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: `lock` locked it, in this task.
        unsafe { bindings::rbtrfs_invalidate_unlock(self.inode.as_ptr()) }
    }
}

/// Keeps the page caches of two inodes, which may be the same one, from being filled and from
/// becoming dirty through mappings.
#[must_use = "the locks are given up when the guard is dropped"]
pub(super) struct InvalidatePair<'a> {
    first: &'a Inode,
    second: &'a Inode,
    _task: PhantomData<NotThreadSafe>,
}

impl<'a> InvalidatePair<'a> {
    /// Within the locks of both inodes.
    pub(super) fn lock(first: Exclusive<'a>, second: Exclusive<'a>) -> Self {
        let (first, second) = (first.inode(), second.inode());
        // SAFETY: The inodes are valid; `drop` unlocks them, in the same task.
        unsafe {
            bindings::filemap_invalidate_lock_two(
                (*first.as_ptr()).i_mapping,
                (*second.as_ptr()).i_mapping,
            );
        }
        Self {
            first,
            second,
            _task: PhantomData,
        }
    }
}

impl Drop for InvalidatePair<'_> {
    fn drop(&mut self) {
        // SAFETY: `lock` locked them, in this task.
        unsafe {
            bindings::filemap_invalidate_unlock_two(
                (*self.first.as_ptr()).i_mapping,
                (*self.second.as_ptr()).i_mapping,
            );
        }
    }
}
