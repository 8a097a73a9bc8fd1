// SPDX-License-Identifier: GPL-2.0
//! The full send: one walk over the subvolume's items in key order, each handed to what knows its
//! type.

use super::context::Send;
use super::cursor::{Cursor, Here};
use crate::format::{item_type, objectid, Key};
use crate::platform;
use kernel::prelude::*;

impl Send<'_> {
    /// Sends every item of the subvolume, and then the directory times that are still due.
    pub(super) fn walk(&mut self) -> Result {
        let mut cursor =
            Cursor::new(self.snapshots.session, self.snapshots.root.id).with_readahead();
        cursor.seek(&Key::new(objectid::FIRST_FREE, item_type::INODE_ITEM, 0))?;
        while let Some((key, data)) = cursor.item() {
            let here = cursor.here()?;
            if here.slot == 0 {
                platform::yield_now();
            }
            self.item(here, &key, data)?;
            self.snapshots.session.renew();
            if !cursor.next()? {
                break;
            }
            // Once for the rest of the leaf, and not for each item of it.
            cursor.renew()?;
        }
        self.finish(None)?;
        self.send_due_utimes()
    }

    /// One item of the walk.
    fn item(&mut self, here: Here, key: &Key, data: &[u8]) -> Result {
        self.finish(Some(key))?;
        if matches!(key.objectid, objectid::FREE_INO | objectid::FREE_SPACE) {
            return Ok(());
        }
        if key.typ == item_type::INODE_ITEM {
            return self.begin_inode(&here.leaf, key.objectid, data);
        }
        if self
            .position
            .inode
            .as_ref()
            .is_some_and(|inode| inode.ignored)
        {
            return Ok(());
        }
        match key.typ {
            item_type::INODE_REF | item_type::INODE_EXTREF => {
                self.current(key, "new reference without updated inode item")?;
                self.names_of(key, data)
            }
            item_type::XATTR_ITEM => {
                self.current(key, "new xattr without updated inode item")?;
                self.xattrs_of(data)
            }
            item_type::DIR_ITEM if key.objectid == objectid::FIRST_FREE => {
                self.names.orphans.note(data)
            }
            item_type::EXTENT_DATA => self.extent(here),
            _ => Ok(()),
        }
    }

    /// Makes sure that an item belongs to the inode whose item came before it.
    fn current(&self, key: &Key, what: &str) -> Result {
        match &self.position.inode {
            Some(inode) if inode.ino == key.objectid => Ok(()),
            _ => {
                self.snapshots
                    .inconsistent_snapshot_error(key.objectid, what);
                Err(EIO)
            }
        }
    }
}
