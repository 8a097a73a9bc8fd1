// SPDX-License-Identifier: GPL-2.0
//! An inode in the log: its item, its attributes and its data.

use super::{items_in, keys_of, Items, Record};
use crate::format::inode::InodeItem;
use crate::format::item_type;
use crate::subvol::write::{inode_key, mode, InodeId};
use crate::trans::View;
use kernel::prelude::*;
use zerocopy::IntoBytes;

impl Record<'_, '_, '_> {
    /// Logs an inode's item, its attributes and, of what has data, its data.
    ///
    /// # Errors
    ///
    /// `EAGAIN` for what takes a commit; those of reading and of tree edits.
    pub(super) fn contents(&mut self, id: InodeId, item: &InodeItem) -> Result {
        self.edit
            .put(id.tree, &inode_key(id.ino), item.as_bytes())?;
        self.attributes(id)?;
        match item.mode.get() & mode::FMT {
            mode::REG | mode::LNK => self.extents(id, item),
            _ => Ok(()),
        }
    }

    /// Logs that an inode exists, which the last commit has: a replay keeps its item and its data.
    /// An item of generation 0 says so.
    ///
    /// # Errors
    ///
    /// As for [`Self::contents`].
    pub(super) fn existence(&mut self, id: InodeId, item: &InodeItem) -> Result {
        let mut item = *item;
        item.generation = 0.into();
        item.size = 0.into();
        self.edit
            .put(id.tree, &inode_key(id.ino), item.as_bytes())?;
        self.attributes(id)
    }

    /// Logs all attributes: those that are not in the log are removed by a replay.
    fn attributes(&mut self, id: InodeId) -> Result {
        let root = self.edit.trans.tree_root(id.tree)?;
        let range = keys_of(id.ino, item_type::XATTR_ITEM..=item_type::XATTR_ITEM);
        let wanted: Items = items_in(&*self.edit.trans, root, &range)?;
        self.put_items(id.tree, &range, &wanted)?;
        Ok(())
    }
}
