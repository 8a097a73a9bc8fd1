// SPDX-License-Identifier: GPL-2.0
//! An item as the rules see it.

use super::fault::{aligned, equal, Checked};
use super::limits::Limits;
use crate::format::{tree_id, Key};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// An item of a leaf, and what stands before it.
pub(super) struct Item<'a> {
    /// What the volume is like.
    pub(super) limits: &'a Limits,
    /// The tree that allocated the leaf.
    pub(super) owner: u64,
    /// The item's key.
    pub(super) key: Key,
    /// The item's data.
    pub(super) bytes: &'a [u8],
    /// Key and data of the item before it in the leaf. It has passed its own rules.
    pub(super) previous: Option<(Key, &'a [u8])>,
}

impl<'a> Item<'a> {
    /// The structure `offset` bytes into the data, if it is all there.
    pub(super) fn part<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &self,
        offset: usize,
    ) -> Option<&'a T> {
        part(self.bytes, offset)
    }

    /// The size of the data in bytes.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The data must have this size in bytes.
    pub(super) fn size_is(&self, expected: usize) -> Checked {
        equal("invalid item size", self.size(), expected as u64)
    }

    /// The number must be a multiple of the sector size.
    pub(super) fn sector_aligned(&self, what: &'static str, found: u64) -> Checked {
        aligned(what, found, self.limits.sectorsize())
    }

    /// Whether the leaf is of a subvolume. A leaf of a relocation tree names the subvolume, too.
    pub(super) fn is_in_subvolume(&self) -> bool {
        tree_id::is_fs_tree(self.owner)
    }

    /// The item before it, if that is of the same object and type.
    pub(super) fn previous_of_kind(&self) -> Option<(Key, &'a [u8])> {
        self.previous
            .filter(|(key, _)| key.is(self.key.objectid, self.key.typ))
    }

    /// In a subvolume, what belongs to an inode must follow the inode's item, or another item of
    /// the same inode: else the inode's item is missing. The first item of a leaf may follow one in
    /// the leaf before.
    pub(super) fn follows_its_inode(&self) -> Checked {
        match self.previous {
            Some((previous, _)) if self.is_in_subvolume() => equal(
                "invalid previous key objectid",
                previous.objectid,
                self.key.objectid,
            ),
            _ => Ok(()),
        }
    }
}

/// The structure `offset` bytes into `bytes`, if it is all there.
pub(super) fn part<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    bytes: &[u8],
    offset: usize,
) -> Option<&T> {
    let (part, _) = T::ref_from_prefix(bytes.get(offset..)?).ok()?;
    Some(part)
}
