// SPDX-License-Identifier: GPL-2.0
//! Anonymous device numbers, by which `stat` tells subvolumes apart.

use crate::bindings;
use kernel::error::to_result;
use kernel::prelude::*;

/// A number that no device has, until this is dropped (`anon_dev`).
pub(super) struct AnonDev(u32);

impl AnonDev {
    /// # Errors
    ///
    /// `EMFILE` when the system has none left; `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut status = 0;
        // SAFETY: The pointer is valid for the write.
        let dev = unsafe { bindings::rbtrfs_new_anon_dev(&mut status) };
        to_result(status)?;
        Ok(Self(dev))
    }

    pub(super) fn number(&self) -> u32 {
        self.0
    }
}

impl Drop for AnonDev {
    fn drop(&mut self) {
        // SAFETY: The number is ours, and its owner is gone, so that no inode shows it.
        unsafe { bindings::free_anon_bdev(self.0) }
    }
}
