// SPDX-License-Identifier: GPL-2.0
//! Writers of a subvolume, and the flag that keeps them out.
//!
//! Data becomes dirty within a [`Dirtying`]. Who makes the subvolume read-only sets the flag, and
//! waits for those that were there before: what they made dirty is written back while the tree can
//! still be changed. So nothing that a `write` has taken is lost, and nothing changes once the
//! subvolume is read-only. The C driver lets files that are open for writing be written to all the
//! same.

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::{new_condvar, new_mutex, CondVar, Mutex};

/// Who makes data of a subvolume dirty, and whether that is allowed. The mutex is a leaf.
#[pin_data]
pub(super) struct Writers {
    read_only: Atomic<bool>,
    count: Atomic<i64>,
    #[pin]
    waiting: Mutex<()>,
    /// Told when the last writer of a read-only subvolume is gone.
    #[pin]
    gone: CondVar,
}

impl Writers {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(read_only: bool) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                read_only: Atomic::new(read_only),
                count: Atomic::new(0),
                waiting <- new_mutex!((), "Writers::waiting"),
                gone <- new_condvar!("Writers::gone"),
            }),
            GFP_KERNEL,
        )
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.load(Relaxed)
    }

    pub(super) fn set_read_only(&self, read_only: bool) {
        self.read_only.xchg(read_only, Full);
    }

    /// Begins to make data dirty.
    ///
    /// # Errors
    ///
    /// `EROFS` if the subvolume is read-only.
    pub(super) fn begin(&self) -> Result<Dirtying<'_>> {
        // Either this sees the flag, or `wait` sees the count: a full barrier is between the two on
        // each side.
        self.count.fetch_add(1, Full);
        let dirtying = Dirtying(self);
        if self.is_read_only() {
            return Err(EROFS);
        }
        Ok(dirtying)
    }

    /// Waits, with the flag set, until none of those is left that began before. The caller holds
    /// nothing that they may wait for.
    ///
    /// # Errors
    ///
    /// `EINTR`.
    pub(super) fn wait(&self) -> Result {
        let mut waiting = self.waiting.lock();
        while self.count.load(Relaxed) != 0 {
            if self.gone.wait_interruptible(&mut waiting) {
                return Err(EINTR);
            }
        }
        Ok(())
    }

    fn end(&self) {
        if self.count.fetch_sub(1, Full) == 1 && self.is_read_only() {
            // Not between the look of `wait` at the count and its sleep.
            drop(self.waiting.lock());
            self.gone.notify_all();
        }
    }
}

/// Data of the subvolume is being made dirty.
#[must_use = "this ends when it is dropped"]
pub(super) struct Dirtying<'a>(&'a Writers);

impl Dirtying<'_> {
    /// Goes on until [`Self::resume`].
    pub(super) fn suspend(self) {
        core::mem::forget(self);
    }

    /// Takes up what was suspended; once for each time.
    pub(super) fn resume(writers: &Writers) -> Dirtying<'_> {
        Dirtying(writers)
    }
}

impl Drop for Dirtying<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
