// SPDX-License-Identifier: GPL-2.0
//! A volume's own workqueue: when it is dropped, none of its work is left, not even on its way out
//! of this module.

use crate::bindings;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::workqueue::Queue;

/// A workqueue whose work runs on any processor, and goes on when memory is short.
///
/// # Invariants
///
/// The pointer is of a workqueue that this owns.
pub(super) struct Workqueue(NonNull<bindings::workqueue_struct>);

// SAFETY: The functions on workqueues may be called from any thread.
unsafe impl Send for Workqueue {}
// SAFETY: As above.
unsafe impl Sync for Workqueue {}

impl Workqueue {
    /// A queue of which at most `active` items run or wait for the device at a time.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(name: &'static CStr, active: u32) -> Result<Self> {
        // SAFETY: The name is terminated.
        let queue = unsafe { bindings::rbtrfs_workqueue_create(name.as_char_ptr(), active) };
        // INVARIANT: The queue is new.
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }
}

impl Deref for Workqueue {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        // SAFETY: By the type invariant.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. This waits for the work that is queued.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}
