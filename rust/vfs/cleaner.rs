// SPDX-License-Identifier: GPL-2.0
//! The thread that drops the trees of deleted subvolumes. Before that, it sees to the tree of
//! UUIDs, once a mount.

use super::evict::evict_deleted;
use super::super_block::SuperBlock;
use super::thread::{Thread, Turn, Work};
use crate::bindings;
use crate::fs_err;
use crate::subvol::subvolume::{check_uuid_tree, clean_subvolumes};
use crate::volume::Fs;
use core::ptr::NonNull;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Mutex;

/// How long the thread sleeps unless it is woken, in milliseconds.
const INTERVAL: u32 = 30_000;

struct Cleaning {
    sb: NonNull<SuperBlock>,
}

// SAFETY: Superblocks are made to be used from every thread.
unsafe impl Send for Cleaning {}
// SAFETY: As above.
unsafe impl Sync for Cleaning {}

impl Work for Cleaning {
    fn run(&self, turn: &Turn) {
        // SAFETY: `Cleaner::stop` is called before the superblock goes.
        let sb = unsafe { self.sb.as_ref() };
        // The option `rescan_uuid_tree` was followed; a remount may set it.
        let (mut checked, mut scanned) = (false, false);
        loop {
            // SAFETY: The superblock is valid, and this thread holds nothing.
            unsafe { evict_deleted(sb) };
            // SAFETY: The superblock is valid; the permission is given back below.
            if unsafe { bindings::rbtrfs_try_start_internal(sb.as_ptr()) } {
                let fs = sb.volume().fs();
                if !fs.is_read_only() {
                    let scan = sb.volume().settings().rescan_uuid_tree && !scanned;
                    if !checked || scan {
                        check_uuids(fs, scan, turn);
                        (checked, scanned) = (true, scanned || scan);
                    }
                    let claim = |tree| sb.volume().subvolumes().claim(tree);
                    if let Err(e) = clean_subvolumes(fs, &claim, &|| turn.is_over()) {
                        fs_err!(
                            fs,
                            "cleaning up after deleted subvolumes failed: {}",
                            e.to_errno()
                        );
                    }
                }
                // SAFETY: As above.
                unsafe { bindings::rbtrfs_end_internal(sb.as_ptr()) };
            }
            if !turn.sleep(INTERVAL) {
                return;
            }
        }
    }
}

/// Without it, subvolumes are only harder to find.
fn check_uuids(fs: &Fs, scan: bool, turn: &Turn) {
    if let Err(e) = check_uuid_tree(fs, scan, &|| turn.is_over()) {
        fs_err!(fs, "checking the UUID tree failed: {}", e.to_errno());
    }
}

/// The thread of a volume, when there is one: while the volume is writable.
pub(super) struct Cleaner(Pin<KBox<Mutex<Option<Thread<Cleaning>>>>>);

impl Cleaner {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(KBox::pin_init(new_mutex!(None), GFP_KERNEL)?))
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
        let cleaning = Cleaning {
            sb: NonNull::from(sb),
        };
        let thread = Thread::start(c"btrfs-cleaner", cleaning)?;
        let before = self.0.lock().replace(thread);
        drop(before);
        Ok(())
    }

    /// Ends the thread's sleep.
    pub(super) fn wake(&self) {
        if let Some(thread) = &*self.0.lock() {
            thread.wake();
        }
    }

    /// Stops the thread and waits for its end.
    pub(super) fn stop(&self) {
        let thread = self.0.lock().take();
        drop(thread);
    }
}
