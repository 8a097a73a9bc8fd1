// SPDX-License-Identifier: GPL-2.0
//! Numbers for new objects: of inodes in the tree of a subvolume, of subvolumes in the tree of
//! roots.
//!
//! A number that was in use at any time since the volume was opened is not given to another object:
//! the inode cache, the subvolumes in memory, file handles and sends know objects by their numbers.
//! Across mounts a number may come again; then nothing in memory knows the old object, and the
//! generation tells file handles of the two apart.
//!
//! The number to go on from is looked up in the tree when an object is made, or before the first
//! one is removed: by then the tree still has every number that was in use. The C driver looks it
//! up when it reads the root (`btrfs_init_root_free_objectid`).

use super::transaction::Transaction;
use crate::format::{objectid, tree_id, Key};
use crate::tree::Cursor;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// The lowest number above all that were in use since the volume was opened, of each tree for which
/// it was looked up (`free_objectid`). Behind the writer's mutex.
pub(crate) struct FreeObjectids(RBTree<u64, u64>);

impl FreeObjectids {
    /// None that was looked up.
    pub(crate) fn new() -> Self {
        Self(RBTree::new())
    }

    /// Forgets a tree that is gone. No other gets its number.
    pub(crate) fn forget(&mut self, tree: u64) {
        self.0.remove(&tree);
    }
}

impl Transaction<'_> {
    /// A number for a new object in a tree, above all that were in use since the volume was opened.
    ///
    /// # Errors
    ///
    /// `ENOSPC` when there are no more; those of reading; `ENOMEM`.
    pub fn next_objectid(&mut self, tree: u64) -> Result<u64> {
        let free = self.free_objectid(tree)?;
        let number = *free;
        if number > objectid::LAST_FREE {
            return Err(ENOSPC);
        }
        *free = number.saturating_add(1);
        Ok(number)
    }

    /// Keeps the numbers that a tree has in use from being given again. To be called before an
    /// object is removed. Changes nothing on disk.
    ///
    /// # Errors
    ///
    /// Those of reading; `ENOMEM`.
    pub fn keep_objectids(&mut self, tree: u64) -> Result {
        self.free_objectid(tree).map(|_| ())
    }

    fn free_objectid(&mut self, tree: u64) -> Result<&mut u64> {
        if self.free_objectids().get(&tree).is_none() {
            let free = self.highest_objectid(tree)?.saturating_add(1);
            let known = self.free_objectids();
            known.try_create_and_insert(tree, free, GFP_KERNEL)?;
        }
        self.free_objectids().get_mut(&tree).ok_or(EINVAL)
    }

    fn free_objectids(&mut self) -> &mut RBTree<u64, u64> {
        &mut self.handle.writer.free_objectids.0
    }

    fn highest_objectid(&self, tree: u64) -> Result<u64> {
        let mut cursor = Cursor::new(self, self.lookup_root(tree)?);
        let last = Key::new(objectid::LAST_FREE, u8::MAX, u64::MAX);
        cursor.seek_before(&last)?;
        let highest = cursor.key().map_or(0, |key| key.objectid);
        // The root directory's number is never given to anything else.
        let least = if tree == tree_id::ROOT { 255 } else { 256 };
        Ok(highest.max(least))
    }
}
