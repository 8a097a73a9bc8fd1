// SPDX-License-Identifier: GPL-2.0
//! An event that happens once.

use super::{new_condvar, new_mutex, CondVar, Mutex};
use crate::init::{pin_init_from_closure, PinInit};
use core::ptr::addr_of_mut;

/// Waiters sleep until it is complete, and never again.
pub struct Completion {
    done: Mutex<bool>,
    changed: CondVar,
}

impl Completion {
    /// An initialiser of a completion that has not happened.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> impl PinInit<Self> {
        // SAFETY: Both fields are written, and neither initialiser can fail.
        unsafe {
            pin_init_from_closure(|slot: *mut Self| {
                new_mutex!(false).__pinned_init(addr_of_mut!((*slot).done))?;
                new_condvar!().__pinned_init(addr_of_mut!((*slot).changed))
            })
        }
    }

    /// Wakes all that wait and will wait.
    pub fn complete_all(&self) {
        *self.done.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until complete.
    pub fn wait_for_completion(&self) {
        let mut done = self.done.lock();
        while !*done {
            self.changed.wait(&mut done);
        }
    }
}
