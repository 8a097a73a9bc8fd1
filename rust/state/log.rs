// SPDX-License-Identifier: GPL-2.0
//! Messages for the administrator.

use core::fmt;

use kernel::sync::Arc;

use crate::device::BlockDevice;
use crate::{fs_err, fs_info, fs_warn};

/// Where messages for the administrator go: the kernel's log, with the device's name in front.
pub trait Log {
    /// Prints `BTRFS info (device NAME): message`.
    fn info(&self, message: fmt::Arguments<'_>);
    /// Prints `BTRFS warning (device NAME): message`.
    fn warn(&self, message: fmt::Arguments<'_>);
    /// Prints `BTRFS error (device NAME): message`.
    fn error(&self, message: fmt::Arguments<'_>);
}

impl Log for Arc<dyn BlockDevice> {
    fn info(&self, message: fmt::Arguments<'_>) {
        fs_info!(self, "{}", message);
    }

    fn warn(&self, message: fmt::Arguments<'_>) {
        fs_warn!(self, "{}", message);
    }

    fn error(&self, message: fmt::Arguments<'_>) {
        fs_err!(self, "{}", message);
    }
}
