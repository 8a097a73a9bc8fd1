// SPDX-License-Identifier: GPL-2.0
//! The sizes and UUIDs that all nodes of a volume share.

use crate::format::{BlockSize, ChecksumType};

/// What does not change as long as a volume is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The size of a tree block.
    pub nodesize: BlockSize,
    /// The size of a sector, the unit of data extents.
    pub sectorsize: BlockSize,
    /// By what blocks and data are checked.
    pub checksum: ChecksumType,
    /// The UUID in the header of every node: the metadata UUID.
    pub fsid: [u8; 16],
    /// The UUID of the chunk tree, in the header of every node.
    pub chunk_tree_uuid: [u8; 16],
}

impl Geometry {
    /// Whether `value` is a multiple of the sector size.
    pub fn is_sector_aligned(&self, value: u64) -> bool {
        value % self.sectorsize == 0
    }
}
