// SPDX-License-Identifier: GPL-2.0
//! What is written back before a commit: files whose contents are being replaced, and with the
//! option `flushoncommit` all dirty data.

use super::replace::write_back_replaced;
use super::super_block::SuperBlock;
use crate::bindings;
use crate::volume::BeforeCommit;
use core::ptr::NonNull;

/// The page cache of a superblock, as the engine calls it before a commit.
pub(super) struct PageCache(NonNull<SuperBlock>);

// SAFETY: Superblocks are made to be used from every thread.
unsafe impl Send for PageCache {}
// SAFETY: As above.
unsafe impl Sync for PageCache {}

impl PageCache {
    /// # Safety
    ///
    /// The value returned is no longer used when the superblock's inodes are evicted.
    pub(super) unsafe fn new(sb: &SuperBlock) -> Self {
        Self(NonNull::from(sb))
    }
}

impl BeforeCommit for PageCache {
    fn write_back(&self) {
        // SAFETY: By the contract of `new`.
        let sb = unsafe { self.0.as_ref() };
        if sb.volume().settings().flush_on_commit {
            write_back_all(sb);
        }
        write_back_replaced(sb);
    }
}

/// Writes back all dirty data and waits for it (`btrfs_start_delalloc_flush`). Errors are left for
/// those who sync the files.
fn write_back_all(sb: &SuperBlock) {
    // SAFETY: The superblock is valid. Where somebody holds it locked for writing it is being
    // unmounted or remounted, which writes back by itself and may wait for this thread.
    unsafe {
        if !bindings::rbtrfs_sb_try_lock_shared(sb.as_ptr()) {
            return;
        }
        bindings::sync_inodes_sb(sb.as_ptr());
        bindings::rbtrfs_sb_unlock_shared(sb.as_ptr());
    }
}
