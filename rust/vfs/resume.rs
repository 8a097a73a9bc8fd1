// SPDX-License-Identifier: GPL-2.0
//! The thread that goes on with the balance that a mount found, or that a remount to read-only paused.

use crate::balance::control;
use crate::bindings;
use crate::volume::Fs;
use kernel::error::from_err_ptr;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Mutex;

/// A thread, with what it works on. Dropping waits for its end.
struct Thread {
    task: *mut kernel::bindings::task_struct,
    _fs: KBox<Fs>,
}

// SAFETY: The functions on tasks may be called from any thread, and `Fs` is `Send`.
unsafe impl Send for Thread {}

impl Thread {
    fn start(fs: Fs) -> Result<Self> {
        let fs = KBox::new(fs, GFP_KERNEL)?;
        // SAFETY: `run` takes a pointer to an `Fs`, which is not moved, and not freed before the thread has ended.
        let task = from_err_ptr(unsafe {
            bindings::rbtrfs_thread_run(Some(run), (&raw const *fs).cast_mut().cast())
        })?;
        Ok(Self { task, _fs: fs })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: `start` got a reference to the task, which this gives back.
        unsafe { bindings::rbtrfs_thread_join(self.task) }
    }
}

/// # Safety
///
/// `data` is the `Fs` of a [`Thread`].
unsafe extern "C" fn run(data: *mut kernel::ffi::c_void) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract; `Thread` keeps it until this function has returned.
    let fs = unsafe { &*data.cast::<Fs>() };
    control::resume_after_mount(fs);
    0
}

/// What a superblock does of its own accord about balance.
pub(super) struct Resume {
    skip: bool,
    thread: Pin<KBox<Mutex<Option<Thread>>>>,
}

impl Resume {
    /// With `skip`, a balance that the mount finds stays paused.
    pub(super) fn new(skip: bool) -> Result<Self> {
        Ok(Self {
            skip,
            thread: KBox::pin_init(new_mutex!(None), GFP_KERNEL)?,
        })
    }

    /// Goes on with the balance that is paused, if there is one. Called when the volume is, or becomes, writable.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and what else keeps a thread from starting.
    pub(super) fn start(&self, fs: &Fs) -> Result {
        if !fs.state.has_balance() {
            return Ok(());
        }
        if self.skip {
            control::skip_resume(fs);
            return Ok(());
        }
        let thread = Thread::start(fs.clone())?;
        // One that ran before has ended, or will at once, for only one balance can run.
        let before = self.thread.lock().replace(thread);
        drop(before);
        Ok(())
    }

    /// Pauses the balance that runs and waits for the thread. Called before the volume becomes read-only.
    pub(super) fn pause(&self, fs: &Fs) {
        // Without one that runs there is nothing to do; a signal only ends the wait that follows in any case.
        let _ = control::pause(fs);
        let thread = self.thread.lock().take();
        drop(thread);
    }

    /// As [`Self::pause`], for good. Called before the device is closed.
    pub(super) fn close(&self, fs: &Fs) {
        fs.state.close();
        let thread = self.thread.lock().take();
        drop(thread);
    }
}
