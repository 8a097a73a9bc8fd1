// SPDX-License-Identifier: GPL-2.0
//! The file extent items that a reference by tree to a data extent (`EXTENT_DATA_REF`) stands for.

use crate::extent::refs::RefKind;
use crate::format::file_extent::{FileExtent, FileExtentItem, MAX_COMPRESSED};
use crate::format::{item_type, Key};
use crate::tree::{Cursor, Node, Nodes, TreeRoot};
use kernel::prelude::*;

/// A reference by tree to a data extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataRef {
    /// The tree.
    pub root: u64,
    /// The inode in it.
    pub ino: u64,
    /// Where in the file the extent's first byte would be, in bytes modulo 2^64: a clone may start
    /// further into its extent than into its file.
    pub offset: u64,
}

impl DataRef {
    /// What `kind` names; `None` if it is of another kind.
    pub fn of(kind: &RefKind) -> Option<Self> {
        match *kind {
            RefKind::Data { root, ino, offset } => Some(DataRef { root, ino, offset }),
            _ => None,
        }
    }

    /// Where a search for the items starts. An extent whose first byte would lie before the file's
    /// has a negative offset.
    pub fn first_key(&self) -> Key {
        let offset = match i64::try_from(self.offset) {
            Ok(_) => self.offset,
            Err(_) => 0,
        };
        Key::new(self.ino, item_type::EXTENT_DATA, offset)
    }
}

/// A file extent item that refers to the extent.
#[derive(Clone, Copy)]
pub struct Found {
    /// Its key.
    pub key: Key,
    /// The item.
    pub item: FileExtentItem,
    /// The logical address of its leaf, in bytes.
    pub leaf: u64,
}

/// The items that one reference stands for, in the order of keys.
pub struct Items<'n, S: Nodes> {
    cursor: Cursor<'n, S>,
    data_ref: DataRef,
    /// The extent's logical address, in bytes.
    bytenr: u64,
    /// The most bytes of a file that the extent can cover.
    span: u64,
    /// The cursor is at an item that was returned.
    returned: bool,
    /// The cursor's leaf was not asked about yet.
    in_new_leaf: bool,
}

impl<'n, S: Nodes> Items<'n, S> {
    /// Searches the tree at `root`, which is `data_ref.root`, from `from` on for items of the
    /// extent at the logical address `bytenr`, which has `num_bytes` on disk.
    ///
    /// # Errors
    ///
    /// Those of reading nodes.
    pub fn new(
        nodes: &'n S,
        root: TreeRoot,
        data_ref: DataRef,
        (bytenr, num_bytes): (u64, u64),
        from: &Key,
    ) -> Result<Self> {
        let mut cursor = Cursor::new(nodes, root);
        cursor.seek(from)?;
        Ok(Items {
            cursor,
            data_ref,
            bytenr,
            span: num_bytes.max(MAX_COMPRESSED),
            returned: false,
            in_new_leaf: true,
        })
    }

    /// The next item that the reference stands for, in the leaves that `takes` accepts.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for an item that is too short, and those of reading nodes.
    pub fn next(&mut self, takes: impl Fn(&Node) -> bool) -> Result<Option<Found>> {
        loop {
            if self.returned {
                self.step()?;
            }
            let Some((key, data)) = self.cursor.item() else {
                return Ok(None);
            };
            // The offset of a part in its extent is smaller than the span.
            if !key.is(self.data_ref.ino, item_type::EXTENT_DATA)
                || key.offset.wrapping_sub(self.data_ref.offset) >= self.span
            {
                return Ok(None);
            }
            let leaf = self.cursor.node_at(0).ok_or(EUCLEAN)?;
            if self.in_new_leaf && !takes(leaf) {
                if !self.next_leaf()? {
                    return Ok(None);
                }
                continue;
            }
            self.in_new_leaf = false;
            self.returned = true;
            let item = FileExtent::read(data)?.in_extent_at(self.bytenr);
            if let Some(item) = item {
                if item.backref_offset(key.offset) == self.data_ref.offset {
                    return Ok(Some(Found {
                        key,
                        item: *item,
                        leaf: leaf.bytenr(),
                    }));
                }
            }
        }
    }

    /// Moves to the next item.
    fn step(&mut self) -> Result {
        self.returned = false;
        self.cursor.next()?;
        self.in_new_leaf = self.cursor.slot_at(0) == 0;
        Ok(())
    }

    /// Moves to the first item of the next leaf; returns whether there is one.
    fn next_leaf(&mut self) -> Result<bool> {
        let last = self.cursor.node_at(0).and_then(|leaf| leaf.last_key());
        let Some(next) = last.and_then(|last| last.successor()) else {
            return Ok(false);
        };
        self.in_new_leaf = true;
        self.cursor.seek(&next)?;
        Ok(self.cursor.item().is_some())
    }
}
