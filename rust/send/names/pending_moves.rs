// SPDX-License-Identifier: GPL-2.0
//! The directories that wait to be moved, and what they wait for (`pending_dir_moves` and
//! `waiting_dir_moves` of `struct send_ctx`). `dir_moves` says why.

use crate::send::utimes::Dir;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// A directory that waits to be moved.
pub(super) struct WaitingDirMove {
    /// It has its orphan name, its own having been taken.
    pub(super) is_orphan: bool,
    /// A directory that it is in, and that is to be removed when it is gone.
    pub(super) rmdir: Option<Dir>,
}

/// A move to be made.
pub(super) struct PendingDirMove {
    pub(super) dir: Dir,
    /// The directories whose times the move changes.
    pub(super) touched: KVec<Dir>,
}

/// All moves that wait.
pub(in crate::send) struct DirMoves {
    /// By the directory to be moved.
    waiting: RBTree<u64, WaitingDirMove>,
    count: usize,
    /// By the directory that is waited for.
    pending: RBTree<u64, KVec<PendingDirMove>>,
}

impl DirMoves {
    pub(in crate::send) fn new() -> Self {
        DirMoves {
            waiting: RBTree::new(),
            count: 0,
            pending: RBTree::new(),
        }
    }

    /// How many directories wait.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(in crate::send) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(in crate::send) fn is_waiting_for_move(&self, ino: u64) -> bool {
        self.count != 0 && self.waiting.get(&ino).is_some()
    }

    /// Whether `ino` has its orphan name, if it waits.
    pub(in crate::send) fn is_orphan_if_waiting_for_move(&self, ino: u64) -> Option<bool> {
        if self.count == 0 {
            return None;
        }
        self.waiting.get(&ino).map(|waiting| waiting.is_orphan)
    }

    /// Notes that `ino` got its orphan name, if it waits.
    pub(in crate::send) fn orphaned(&mut self, ino: u64) {
        if let Some(waiting) = self.waiting.get_mut(&ino) {
            waiting.is_orphan = true;
        }
    }

    /// Notes that `rmdir` can only go when `ino` has been moved, if it waits; returns whether it
    /// does.
    pub(in crate::send) fn set_rmdir(&mut self, ino: u64, rmdir: Dir) -> bool {
        match self.waiting.get_mut(&ino) {
            Some(waiting) => {
                waiting.rmdir = Some(rmdir);
                true
            }
            None => false,
        }
    }

    /// Makes the move wait for directory `parent_ino`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the directory waits already, `ENOMEM`.
    pub(super) fn add(
        &mut self,
        parent_ino: u64,
        pending: PendingDirMove,
        waiting: WaitingDirMove,
    ) -> Result {
        let (ino, _) = pending.dir;
        if self.waiting.get(&ino).is_some() {
            return Err(EEXIST);
        }
        match self.pending.get_mut(&parent_ino) {
            Some(list) => list.push(pending, GFP_KERNEL)?,
            None => {
                let mut list = KVec::new();
                list.push(pending, GFP_KERNEL)?;
                self.pending
                    .try_create_and_insert(parent_ino, list, GFP_KERNEL)?;
            }
        }
        self.waiting
            .try_create_and_insert(ino, waiting, GFP_KERNEL)?;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    pub(super) fn take(&mut self, ino: u64) -> Option<WaitingDirMove> {
        let waiting = self.waiting.remove(&ino)?;
        self.count = self.count.saturating_sub(1);
        Some(waiting)
    }

    /// Appends the moves that wait for `parent_ino` to `queue`.
    pub(super) fn take_pending(
        &mut self,
        parent_ino: u64,
        queue: &mut KVVec<PendingDirMove>,
    ) -> Result {
        if let Some(mut list) = self.pending.remove(&parent_ino) {
            for pending in list.drain_all() {
                queue.push(pending, GFP_KERNEL)?;
            }
        }
        Ok(())
    }
}
