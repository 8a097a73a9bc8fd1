// SPDX-License-Identifier: GPL-2.0
//! The thread that commits from time to time, so that a crash loses no more than the last half
//! minute; and when memory is short, for what is dirty cannot be given back before.

use super::super_block::SuperBlock;
use super::thread::{Thread, Turn, Work};
use crate::bindings;
use crate::fs_err;
use core::ptr::NonNull;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};

struct Commits {
    sb: NonNull<SuperBlock>,
}

// SAFETY: Superblocks are made to be used from every thread.
unsafe impl Send for Commits {}
// SAFETY: As above.
unsafe impl Sync for Commits {}

impl Work for Commits {
    fn run(&self, turn: &Turn) {
        // SAFETY: `Committer::stop` is called before the superblock goes.
        let sb = unsafe { self.sb.as_ref() };
        // In milliseconds; a remount may change it.
        let interval = || {
            let seconds = sb.volume().settings().commit_interval;
            seconds.saturating_mul(1000)
        };
        while turn.sleep(interval().min(5000)) {
            let fs = sb.volume().fs();
            if fs.is_read_only() || !fs.is_commit_due(u64::from(interval())) {
                continue;
            }
            // Not with the permission below, which an inode that goes takes again.
            fs.write_back_before_commit();
            // SAFETY: The superblock is valid; the permission is given back below.
            if !unsafe { bindings::rbtrfs_try_start_internal(sb.as_ptr()) } {
                // It is frozen, and nothing waits.
                continue;
            }
            if let Err(e) = fs.commit_if_due(u64::from(interval())) {
                fs_err!(fs, "the periodic commit failed: {}", e.to_errno());
            }
            // SAFETY: As above.
            unsafe { bindings::rbtrfs_end_internal(sb.as_ptr()) };
        }
    }
}

/// The thread of a volume, when there is one: while the volume is writable.
#[derive(Clone)]
pub(super) struct Committer(Arc<Mutex<Option<Thread<Commits>>>>);

impl Committer {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Arc::pin_init(new_mutex!(None), GFP_KERNEL)?))
    }

    /// Starts the thread, in the place of one that runs.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and what else keeps a thread from starting.
    ///
    /// # Safety
    ///
    /// [`Self::stop`] is called before the superblock goes.
    pub(super) unsafe fn start(&self, sb: &SuperBlock) -> Result {
        let commits = Commits {
            sb: NonNull::from(sb),
        };
        let thread = Thread::start(c"btrfs-transaction", commits)?;
        let before = self.0.lock().replace(thread);
        drop(before);
        Ok(())
    }

    /// Ends the thread's sleep, for it to see whether a commit is due. Waits for nothing, so that
    /// memory reclaim can call this; a thread that is about to end needs no call.
    pub(super) fn try_wake(&self) {
        if let Some(Some(thread)) = self.0.try_lock().as_deref() {
            thread.wake();
        }
    }

    /// Stops the thread and waits for its end.
    pub(super) fn stop(&self) {
        let thread = self.0.lock().take();
        drop(thread);
    }
}
