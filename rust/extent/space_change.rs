// SPDX-License-Identifier: GPL-2.0
//! What the making and removal of extent items means for the free space tree, the block groups, the
//! checksum tree and the pinned extents.
//!
//! Delayed references are run in the order of addresses, and extents that were made together often
//! go together. So the changes of neighbours are merged, and each tree is changed once for all of
//! them.

use super::csum_tree;
use crate::space::block_group;
use crate::space::extent_set::Extent;
use crate::space::free_space_tree;
use crate::space::space_info::SpaceContext;
use crate::trans::transaction::Transaction;
use kernel::prelude::*;

/// What happened to extents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Extent items were made.
    Allocated,
    /// The extent items of tree blocks were removed.
    TreeBlocksFreed,
    /// The extent items of data were removed.
    DataFreed,
}

/// Extents side by side to which the same happened. Until [`Self::apply`], nothing but the extent
/// tree knows of it: what was allocated counts as reserved, and what was freed as used.
pub(super) struct SpaceChange {
    change: Change,
    extent: Extent,
}

impl SpaceChange {
    /// The change of `num_bytes` at `bytenr`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is no range.
    pub(super) fn new(change: Change, bytenr: u64, num_bytes: u64) -> Result<Self> {
        let extent = Extent::new(bytenr, num_bytes)?;
        Ok(Self { change, extent })
    }

    /// Adds `next`, if it is the same change of the extent after this one in the same block group.
    /// Returns whether it is.
    pub(super) fn extend(&mut self, trans: &Transaction<'_>, next: &Self) -> bool {
        let both = Extent {
            start: self.extent.start,
            len: self.extent.len.saturating_add(next.extent.len),
        };
        let follows = self.change == next.change && self.extent.end() == next.extent.start;
        let extends = follows && trans.space().is_within_group(both);
        if extends {
            self.extent = both;
        }
        extends
    }

    /// Tells the trees and the block group. May queue references, as trees change.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the free space tree or the block group contradicts the extent tree; those of
    /// changing trees.
    pub(super) fn apply(self, trans: &mut Transaction<'_>) -> Result {
        let Extent { start, len } = self.extent;
        let used = i64::try_from(len).map_err(|_| EUCLEAN)?;
        if self.change == Change::Allocated {
            free_space_tree::remove_free(trans, start, len)?;
            return block_group::account(trans, start, used);
        }
        if self.change == Change::DataFreed {
            csum_tree::delete_csums(trans, start, len)?;
        }
        free_space_tree::add_free(trans, start, len)?;
        block_group::account(trans, start, used.wrapping_neg())?;
        trans.pin(start, len)
    }
}
