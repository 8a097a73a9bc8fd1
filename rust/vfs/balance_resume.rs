// SPDX-License-Identifier: GPL-2.0
//! The thread that goes on with the balance that a mount found, or that a remount to read-only
//! paused.

use super::thread::{Thread, Turn, Work};
use crate::balance::control;
use crate::volume::Fs;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Mutex;

/// Goes on with a balance.
struct Resumed(Fs);

impl Work for Resumed {
    fn run(&self, _turn: &Turn) {
        control::resume_after_mount(&self.0);
    }
}

/// What a superblock does of its own accord about balance.
pub(super) struct BalanceResume {
    thread: Pin<KBox<Mutex<Option<Thread<Resumed>>>>>,
}

impl BalanceResume {
    /// Nothing goes on yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            thread: KBox::pin_init(new_mutex!(None), GFP_KERNEL)?,
        })
    }

    /// Goes on with the balance that is paused, if there is one; with `skip` it stays paused.
    /// Called when the volume is, or becomes, writable.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and what else keeps a thread from starting.
    pub(super) fn start(&self, fs: &Fs, skip: bool) -> Result {
        if !fs.state.has_balance() {
            return Ok(());
        }
        if skip {
            control::skip_resume(fs);
            return Ok(());
        }
        let thread = Thread::start(c"btrfs-balance", Resumed(fs.clone()))?;
        // One that ran before has ended, or will at once, for only one balance can run.
        let before = self.thread.lock().replace(thread);
        drop(before);
        Ok(())
    }

    /// Pauses the balance that runs and waits for the thread. Called before the volume becomes
    /// read-only.
    pub(super) fn pause(&self, fs: &Fs) {
        // Without one that runs there is nothing to do; a signal only ends the wait that follows in
        // any case.
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
