// SPDX-License-Identifier: GPL-2.0
//! How to open a volume.

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
    /// If the tree root cannot be read, those of the last commits are tried. Only with `read_only`.
    pub use_backup_root: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            cache_bytes: 64 << 20,
            dirty_bytes: 64 << 20,
            use_backup_root: false,
        }
    }
}
