// SPDX-License-Identifier: GPL-2.0
//! Subvolumes whose deletion was begun and interrupted.
//!
//! Deletion walks a tree from its first key on and notes in the root item how far it came. What
//! lies before has no references of this tree any more, and may be something else by now; the
//! pointers to it stay in those nodes that are on the way to the note's key.

use crate::format::Key;
use crate::fs_err;
use crate::trans::transaction::Transaction;
use crate::tree::{EditContext, NodePtr, Nodes};
use kernel::prelude::*;

/// How far the deletion of a subvolume came.
#[derive(Clone, Copy, Debug)]
pub struct DropProgress {
    tree: u64,
    /// What comes before this key was dropped.
    pub key: Key,
    /// The lowest level of the nodes that the deletion is in the midst of.
    level: u8,
}

/// How far the deletion of `tree` came; `None` if nothing of it was dropped.
///
/// # Errors
///
/// `ENOENT` if there is no such tree, `EUCLEAN` for a level that cannot be, those of reading.
pub fn read(trans: &Transaction<'_>, tree: u64) -> Result<Option<DropProgress>> {
    let item = trans.root_item(tree)?;
    let key = Key::from(item.drop_progress);
    if item.refs.get() != 0 || key.objectid == 0 {
        return Ok(None);
    }
    let (level, root_level) = (item.drop_level, trans.root(tree)?.level);
    if level == 0 || level > root_level {
        fs_err!(
            trans.fs(),
            "root {} has an invalid drop_level: {}, but its level is {}",
            tree,
            level,
            root_level
        );
        return Err(EUCLEAN);
    }
    Ok(Some(DropProgress { tree, key, level }))
}

impl DropProgress {
    /// Calls `each` with level, logical address in bytes, and first slot that still counts of every
    /// node that the deletion is in the midst of.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn for_each(
        &self,
        trans: &Transaction<'_>,
        mut each: impl FnMut(u8, u64, usize),
    ) -> Result {
        let mut ptr = NodePtr::from(trans.root(self.tree)?);
        while ptr.level >= self.level {
            let node = trans.node(&ptr)?;
            let slot = node.child_slot(&self.key);
            each(ptr.level, ptr.bytenr, slot);
            ptr = node.child_ptr(slot, self.tree).ok_or(EUCLEAN)?;
        }
        Ok(())
    }
}
