// SPDX-License-Identifier: GPL-2.0
//! Whether the device's cache is flushed where the order of writes matters.

use kernel::sync::atomic::{Atomic, Relaxed};

/// Turns flushes off for a device whose cache survives a power cut (the option `nobarrier`). On any
/// other device a power cut then damages the volume.
pub struct Barrier(Atomic<bool>);

impl Barrier {
    /// Flushes happen, or not.
    pub const fn new(is_on: bool) -> Self {
        Self(Atomic::new(is_on))
    }

    /// Whether flushes happen.
    pub fn is_on(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Turns flushes on or off.
    pub fn set(&self, is_on: bool) {
        self.0.store(is_on, Relaxed);
    }
}
