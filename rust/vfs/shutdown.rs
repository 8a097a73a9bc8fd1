// SPDX-License-Identifier: GPL-2.0
//! Ending all use of a volume at once, as if its device were gone: asked for by an ioctl, or
//! because the device is gone.

use super::ioctl::OpenFile;
use super::super_block::SuperBlock;
use crate::bindings;
use kernel::error::to_result;
use kernel::prelude::*;

impl OpenFile<'_> {
    /// Ends all use of the volume. What is only in memory is lost or, with `flush`, goes to the
    /// disk first.
    ///
    /// # Errors
    ///
    /// Those of freezing the volume.
    pub(crate) fn shut_down(&self, flush: bool) -> Result {
        if !flush {
            self.fs().shut_down();
            return Ok(());
        }
        if self.fs().check_shut_down().is_err() {
            return Ok(());
        }
        let sb = self.inode().super_block().as_ptr();
        let holder = bindings::freeze_holder_FREEZE_HOLDER_KERNEL;
        // SAFETY: The superblock is valid as long as the file is open, and no lock of it is held.
        unsafe {
            to_result(bindings::freeze_super(sb, holder, core::ptr::null()))?;
            self.fs().shut_down();
            to_result(bindings::thaw_super(sb, holder, core::ptr::null()))
        }
    }
}

/// `super_operations::shutdown`: the device is gone.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of ours.
pub(super) unsafe extern "C" fn shutdown(sb: *mut bindings::super_block) {
    // SAFETY: By this function's contract.
    unsafe { SuperBlock::from_raw(sb) }
        .volume()
        .fs()
        .shut_down();
}
