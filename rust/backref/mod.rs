// SPDX-License-Identifier: GPL-2.0
//! Back references, followed: from an extent to all that refers to it. The walks of `backref.c`.
//!
//! An extent item names what refers to its extent, and there are two ways to say it. A reference by
//! tree says which tree leads to the extent, and by which key to search there (`TREE_BLOCK_REF`,
//! `EXTENT_DATA_REF`). A reference by parent gives the address of the block with the pointer
//! (`SHARED_BLOCK_REF`, `SHARED_DATA_REF`). A snapshot adds no reference to what it shares but to
//! the children of its root, so that all subvolumes with an extent are found only by a walk up:
//!
//! ```text
//!   data extent
//!     │ data_ref: its file extent items        leaves: the leaves that have them
//!   leaf
//!     │ tree_block: its parents, and theirs, up to the trees whose root is reached
//!   subvolumes                                 owners: (subvolume, inode, offset)
//! ```
//!
//! * [`data_ref`]: the items that a reference by tree stands for (`add_all_parents`);
//! * [`leaves`]: the leaves that have a data extent, and where (`find_parent_nodes`);
//! * [`tree_block`]: the trees that lead to a leaf (`btrfs_find_all_roots`);
//! * [`owners`]: the files that have the byte at an address, for `LOGICAL_INO`
//!   (`iterate_extent_inodes`);
//! * [`sharing`]: whether anything else has an extent of a file, for `FIEMAP`
//!   (`btrfs_is_data_extent_shared`).
//!
//! A send looks for clones with `leaves` and `tree_block` (`send/data/clone_candidates.rs`).
//! Relocation has to know all ancestors of a block with their references, and proves each of them
//! before it moves anything; that walk is in `balance/backref_cache.rs` and uses the same steps.

pub mod data_ref;
pub mod leaves;
pub mod owners;
pub mod sharing;
pub mod tree_block;

use kernel::prelude::*;

/// Lets other tasks run between two steps of a walk.
///
/// # Errors
///
/// `EINTR` if a fatal signal is pending.
fn give_way() -> Result {
    crate::platform::yield_now();
    if crate::platform::fatal_signal_pending() {
        return Err(EINTR);
    }
    Ok(())
}
