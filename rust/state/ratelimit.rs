// SPDX-License-Identifier: GPL-2.0
//! A limit on warnings that any user of an ioctl can cause in a loop.

use crate::platform;

/// The window's length in milliseconds, and the warnings let through in one: what `printk` itself
/// takes.
const INTERVAL_MS: u64 = 5_000;
const BURST: u32 = 10;

/// How many warnings of one kind were printed in the present window.
pub(super) struct RateLimit {
    window: Option<u64>,
    printed: u32,
}

impl RateLimit {
    pub(super) const fn new() -> RateLimit {
        RateLimit {
            window: None,
            printed: 0,
        }
    }

    /// Whether one more warning may be printed now.
    pub(super) fn admit(&mut self) -> bool {
        self.admit_at(platform::uptime_ms())
    }

    fn admit_at(&mut self, now: u64) -> bool {
        let fresh = match self.window {
            Some(start) => now.wrapping_sub(start) >= INTERVAL_MS,
            None => true,
        };
        if fresh {
            self.window = Some(now);
            self.printed = 0;
        }
        let admitted = self.printed < BURST;
        if admitted {
            self.printed += 1;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_a_burst_through_in_each_window() {
        let mut limit = RateLimit::new();
        let printed = |limit: &mut RateLimit, now| (0..50).filter(|_| limit.admit_at(now)).count();
        assert_eq!(printed(&mut limit, 1_000), 10);
        assert_eq!(printed(&mut limit, 5_999), 0);
        assert_eq!(printed(&mut limit, 6_000), 10);
        assert_eq!(printed(&mut limit, u64::MAX), 10);
    }
}
