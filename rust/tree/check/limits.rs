// SPDX-License-Identifier: GPL-2.0
//! What a volume allows its items to be.

use crate::tree::Geometry;

/// What items are held against, beside the rules themselves.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sizes and UUIDs of the volume.
    pub geometry: Geometry,
    /// The incompat features of the superblock.
    pub incompat: u64,
    /// The newest generation that an item may name: one above the superblock's, that of the running
    /// transaction and of log trees.
    pub newest: u64,
    /// Whether the volume may be written to. If not, read-only compatible inode flags that are not
    /// known do no harm.
    pub writable: bool,
}

impl Limits {
    /// Whether the volume has all of these incompat features.
    pub fn has(&self, features: u64) -> bool {
        self.incompat & features == features
    }

    /// The size of a sector, in bytes.
    pub fn sectorsize(&self) -> u64 {
        self.geometry.sectorsize.into()
    }

    /// The size of a tree block, in bytes.
    pub fn nodesize(&self) -> u64 {
        self.geometry.nodesize.into()
    }
}
