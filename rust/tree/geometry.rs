// SPDX-License-Identifier: GPL-2.0
//! The sizes and UUIDs that all nodes of a volume share.

/// What does not change as long as a volume is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The size of a tree block, in bytes.
    pub nodesize: u32,
    /// The size of a sector, the unit of data extents, in bytes.
    pub sectorsize: u32,
    /// The UUID in the header of every node: the metadata UUID.
    pub fsid: [u8; 16],
    /// The UUID of the chunk tree, in the header of every node.
    pub chunk_tree_uuid: [u8; 16],
}

impl Geometry {
    /// Whether `value` is a multiple of the sector size.
    pub fn is_sector_aligned(&self, value: u64) -> bool {
        value
            .checked_rem(u64::from(self.sectorsize))
            .is_some_and(|rest| rest == 0)
    }
}
