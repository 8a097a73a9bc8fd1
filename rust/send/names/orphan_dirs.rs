// SPDX-License-Identifier: GPL-2.0
//! The directories that wait to be removed (`orphan_dirs` of `struct send_ctx`). `delayed_rmdir`
//! says why.

use kernel::rbtree::RBTree;

/// What is known of a directory that waits.
#[derive(Clone, Copy)]
pub(super) struct OrphanDirInfo {
    pub(super) generation: u64,
    /// Entries of the parent below this index are gone.
    pub(super) next_index: u64,
    /// The directory cannot go before the turn of this inode.
    pub(super) not_before: u64,
}

/// The directories that wait, by inode number.
pub(in crate::send) struct DelayedRmdirs {
    pub(super) waiting: RBTree<u64, OrphanDirInfo>,
}

impl DelayedRmdirs {
    pub(in crate::send) fn new() -> Self {
        DelayedRmdirs {
            waiting: RBTree::new(),
        }
    }

    pub(in crate::send) fn is_waiting_for_rm(&self, dir: u64, generation: u64) -> bool {
        self.get(dir, generation).is_some()
    }

    pub(super) fn get(&self, dir: u64, generation: u64) -> Option<OrphanDirInfo> {
        let found = self.waiting.get(&dir).copied();
        found.filter(|orphan_dir| orphan_dir.generation == generation)
    }
}
