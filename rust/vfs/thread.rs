// SPDX-License-Identifier: GPL-2.0
//! Kernel threads of a volume.

use crate::bindings;
use kernel::error::from_err_ptr;
use kernel::prelude::*;

/// What a thread does.
pub(super) trait Work: Send + Sync {
    /// Runs in the thread, once.
    fn run(&self, turn: &Turn);
}

/// The thread's own view of itself.
pub(super) struct Turn(());

impl Turn {
    /// Sleeps for `ms` milliseconds or until woken, and returns whether to go on.
    pub(super) fn sleep(&self, ms: u32) -> bool {
        // SAFETY: A `Turn` is only given to functions that run in a kernel thread.
        unsafe { bindings::rbtrfs_thread_sleep(ms) }
    }
}

impl Turn {
    /// Whether the thread is to end.
    pub(super) fn is_over(&self) -> bool {
        // SAFETY: As above.
        unsafe { bindings::kthread_should_stop() }
    }
}

/// A thread, with what it works on. Dropping stops it and waits for its end.
pub(super) struct Thread<W: Work> {
    task: *mut kernel::bindings::task_struct,
    _work: KBox<W>,
}

// SAFETY: The functions on tasks may be called from any thread, and so may what is behind `W`.
unsafe impl<W: Work> Send for Thread<W> {}
// SAFETY: As above.
unsafe impl<W: Work> Sync for Thread<W> {}

impl<W: Work> Thread<W> {
    /// Starts a thread.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and what else keeps a thread from starting.
    pub(super) fn start(name: &'static CStr, work: W) -> Result<Self> {
        let work = KBox::new(work, GFP_KERNEL)?;
        // SAFETY: `run` takes a pointer to a `W`, which is not moved, and not freed before the
        // thread has ended.
        let task = from_err_ptr(unsafe {
            bindings::rbtrfs_thread_run(
                Some(run::<W>),
                (&raw const *work).cast_mut().cast(),
                name.as_char_ptr(),
            )
        })?;
        Ok(Self { task, _work: work })
    }

    /// Ends the thread's sleep.
    pub(super) fn wake(&self) {
        // SAFETY: The task is referenced.
        unsafe { bindings::rbtrfs_thread_wake(self.task) }
    }
}

impl<W: Work> Drop for Thread<W> {
    fn drop(&mut self) {
        // SAFETY: `start` got a reference to the task, which this gives back.
        unsafe { bindings::rbtrfs_thread_join(self.task) }
    }
}

/// # Safety
///
/// `data` is the work of a [`Thread`].
unsafe extern "C" fn run<W: Work>(data: *mut kernel::ffi::c_void) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract; `Thread` keeps it until this function has returned.
    let work = unsafe { &*data.cast::<W>() };
    work.run(&Turn(()));
    0
}
