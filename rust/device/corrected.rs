// SPDX-License-Identifier: GPL-2.0
//! What the log says when a bad copy was written over with a good one.

use super::block_device::SECTOR;
use core::fmt;

/// A copy that was made good.
pub struct Corrected<'a> {
    /// The inode whose data it is; 0 for a tree block.
    pub ino: u64,
    /// Where in the file it is, or the logical address of the tree block, in bytes.
    pub offset: u64,
    /// The device's short name.
    pub device: &'a str,
    /// Where on the device it is, in bytes.
    pub physical: u64,
}

impl fmt::Display for Corrected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "read error corrected: ino {} off {} (dev /dev/{} sector {})",
            self.ino,
            self.offset,
            self.device,
            self.physical / SECTOR
        )
    }
}
