// SPDX-License-Identifier: GPL-2.0
//! The limit on a scrub's speed, `scrub_speed_max`: after each window the scrub sleeps for as long
//! as the bytes that it read may take.

use super::stripe::STRIPE;
use super::window::MAX_WINDOW;
use crate::platform::{sleep_interruptible, uptime_ms};
use kernel::prelude::*;

/// The longest sleep before somebody who asked the scrub to end is heard, in milliseconds.
const NAP_MS: u64 = 100;

/// When the scrub may go on.
pub(super) struct Pace {
    /// By [`uptime_ms`].
    next: u64,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { next: uptime_ms() }
    }

    /// The size of the next window, in bytes: with a limit of `limit` bytes a second, at most what
    /// that lets through in a quarter of one.
    pub(super) fn window(&self, limit: u64) -> u64 {
        if limit == 0 {
            return MAX_WINDOW;
        }
        let bytes = (limit / 4).min(MAX_WINDOW);
        (bytes - bytes % STRIPE).max(STRIPE)
    }

    /// Sleeps until the time is over that `bytes` may take with `limit`.
    ///
    /// # Errors
    ///
    /// `EINTR` on a signal; what `check` gives.
    pub(super) fn sleep(&mut self, bytes: u64, limit: u64, check: &dyn Fn() -> Result) -> Result {
        if limit == 0 {
            return Ok(());
        }
        let takes = bytes.saturating_mul(1000) / limit;
        self.next = self.next.max(uptime_ms()).saturating_add(takes);
        loop {
            check()?;
            let left = self.next.saturating_sub(uptime_ms()).min(NAP_MS);
            if left == 0 {
                return Ok(());
            }
            if !sleep_interruptible(left as u32) {
                return Err(EINTR);
            }
        }
    }
}
