// SPDX-License-Identifier: GPL-2.0
//! The orphan items that were added since the volume was opened.
//!
//! An inode that loses its last name while the volume is mounted is in use by the one who took the
//! name away, at least; it is removed when it leaves memory. Orphan items that the set does not
//! have are from an earlier mount: nothing in memory knows their inodes, and they can be removed at
//! any time.

use super::transaction::Transaction;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// The orphans that may be in use, by tree and number. Behind the writer's mutex.
pub(crate) struct Orphans(RBTree<(u64, u64), ()>);

impl Orphans {
    /// None.
    pub(crate) fn new() -> Self {
        Self(RBTree::new())
    }
}

impl Transaction<'_> {
    /// Notes that an orphan item is about to be added. Changes nothing on disk.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn note_orphan(&mut self, tree: u64, number: u64) -> Result {
        let orphans = &mut self.handle.writer.orphans.0;
        orphans.try_create_and_insert((tree, number), (), GFP_KERNEL)?;
        Ok(())
    }

    /// Notes that an orphan item was removed.
    pub fn forget_orphan(&mut self, tree: u64, number: u64) {
        self.handle.writer.orphans.0.remove(&(tree, number));
    }

    /// Whether the orphan item was added since the volume was opened, so that the inode may be in
    /// use.
    pub fn may_use_orphan(&self, tree: u64, number: u64) -> bool {
        self.handle.writer.orphans.0.get(&(tree, number)).is_some()
    }
}
