// SPDX-License-Identifier: GPL-2.0
//! Writes that have no space but what was preallocated for them, and snapshots, kept out of each
//! other's way.
//!
//! A snapshot shares what is preallocated, and what is shared is not written to. So a snapshot
//! waits for the writes whose pages are about to become dirty, brings all that is dirty to the disk
//! before it is made, and refuses other writes meanwhile. On a volume with space nobody meets this:
//! writes have some of their own there.

use kernel::prelude::*;
use kernel::sync::{new_condvar, new_mutex, CondVar, Mutex};

#[derive(Default)]
struct Counts {
    writes: usize,
    snapshots: usize,
}

/// Who writes in place to a subvolume, and who makes snapshots of it. The mutex is a leaf.
#[pin_data]
pub(super) struct SnapshotLock {
    #[pin]
    counts: Mutex<Counts>,
    /// Told when no write is under way any more.
    #[pin]
    written: CondVar,
}

impl SnapshotLock {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                counts <- new_mutex!(Counts::default(), "InPlace::counts"),
                written <- new_condvar!("InPlace::written"),
            }),
            GFP_KERNEL,
        )
    }

    /// Begins a write, which ends when what is returned is dropped; nothing if a snapshot is being
    /// made.
    pub(super) fn lock_for_nocow(&self) -> Option<NocowWriteGuard<'_>> {
        let mut counts = self.counts.lock();
        if counts.snapshots != 0 {
            return None;
        }
        counts.writes = counts.writes.saturating_add(1);
        Some(NocowWriteGuard(self))
    }

    /// Keeps new writes away until what is returned is dropped, and waits for those under way. The
    /// caller holds nothing that a write may wait for.
    ///
    /// # Errors
    ///
    /// `EINTR`.
    pub(super) fn lock_for_snapshot(&self) -> Result<SnapshotGuard<'_>> {
        let mut counts = self.counts.lock();
        counts.snapshots = counts.snapshots.saturating_add(1);
        while counts.writes != 0 {
            if self.written.wait_interruptible(&mut counts) {
                counts.snapshots = counts.snapshots.saturating_sub(1);
                return Err(EINTR);
            }
        }
        Ok(SnapshotGuard(self))
    }
}

/// A write whose pages may not be dirty yet.
pub(super) struct NocowWriteGuard<'a>(&'a SnapshotLock);

impl NocowWriteGuard<'_> {
    /// Lets the write go on until [`Self::from_raw`] takes it up.
    pub(super) fn into_raw(self) -> *mut kernel::ffi::c_void {
        let snapshot_lock: *const SnapshotLock = self.0;
        core::mem::forget(self);
        snapshot_lock.cast_mut().cast()
    }

    /// # Safety
    ///
    /// `raw` is from [`Self::into_raw`], of a subvolume that lives for `'a`, and is not used again.
    pub(super) unsafe fn from_raw(raw: *mut kernel::ffi::c_void) -> Self {
        // SAFETY: By this function's contract.
        Self(unsafe { &*raw.cast_const().cast() })
    }
}

impl Drop for NocowWriteGuard<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock();
        counts.writes = counts.writes.saturating_sub(1);
        if counts.writes == 0 {
            self.0.written.notify_all();
        }
    }
}

/// A snapshot that is being made.
pub(super) struct SnapshotGuard<'a>(&'a SnapshotLock);

impl Drop for SnapshotGuard<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock();
        counts.snapshots = counts.snapshots.saturating_sub(1);
    }
}
