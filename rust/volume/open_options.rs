// SPDX-License-Identifier: GPL-2.0
//! How to open a volume.

use crate::mount::Rescue;

/// What may be chosen when a volume is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Nothing is ever written.
    pub read_only: bool,
    /// The most memory that the node cache takes, in bytes.
    pub cache_bytes: usize,
    /// The most memory that the running transaction's tree blocks take before it is committed, in
    /// bytes.
    pub dirty_bytes: u64,
    /// The device's cache is flushed where the order of writes matters.
    pub barrier: bool,
    /// How to read a damaged volume. Only with `read_only`.
    pub rescue: Rescue,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            cache_bytes: 64 << 20,
            dirty_bytes: 64 << 20,
            barrier: true,
            rescue: Rescue::default(),
        }
    }
}
