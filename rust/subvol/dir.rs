// SPDX-License-Identifier: GPL-2.0
//! Directories: look-up by name, and listing in the order of their indexes.

use crate::format::crc::name_hash;
use crate::format::dir::{DirItem, NAME_LEN};
use crate::format::{self, item_type, Key};
use crate::tree::{Cursor, Nodes, TreeRoot};
use kernel::prelude::*;

/// A directory entry or an extended attribute within an item.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The key of what it names: an inode item, or a root item for a subvolume.
    pub location: Key,
    /// One of [`crate::format::dir::file_type`].
    pub typ: u8,
    /// The transaction that made it.
    pub transid: u64,
    /// The name.
    pub name: &'a [u8],
    /// The value of an extended attribute.
    pub value: &'a [u8],
}

/// The entries packed in one `DIR_ITEM`, `DIR_INDEX` or `XATTR_ITEM`.
///
/// Yields `EUCLEAN` once, and then nothing, where the item ends within an entry.
pub struct Entries<'a> {
    data: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Starts at the first entry of an item's data.
    pub fn new(data: &'a [u8]) -> Self {
        Entries { data }
    }

    fn take(&mut self) -> Result<Entry<'a>> {
        let item: DirItem = format::read(self.data)?;
        let name_len = usize::from(item.name_len.get());
        let data_len = usize::from(item.data_len.get());
        let value_at = size_of::<DirItem>().checked_add(name_len).ok_or(EUCLEAN)?;
        let end = value_at.checked_add(data_len).ok_or(EUCLEAN)?;
        if name_len == 0 || name_len > NAME_LEN {
            return Err(EUCLEAN);
        }
        let entry = Entry {
            location: item.location.into(),
            typ: item.typ,
            transid: item.transid.get(),
            name: format::slice(self.data, size_of::<DirItem>(), name_len)?,
            value: format::slice(self.data, value_at, data_len)?,
        };
        self.data = self.data.get(end..).ok_or(EUCLEAN)?;
        Ok(entry)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.data.is_empty() {
            return None;
        }
        let entry = self.take();
        if entry.is_err() {
            self.data = &[];
        }
        Some(entry)
    }
}

/// What a directory entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The key of an inode item, or of a root item for a subvolume.
    pub location: Key,
    /// One of [`crate::format::dir::file_type`].
    pub typ: u8,
}

/// Looks `name` up in directory `dir`.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item, or what reading nodes gives.
pub fn lookup<S: Nodes>(
    nodes: &S,
    root: TreeRoot,
    dir: u64,
    name: &[u8],
) -> Result<Option<Target>> {
    let mut cursor = Cursor::new(nodes, root);
    if !cursor.seek(&Key::new(dir, item_type::DIR_ITEM, name_hash(name)))? {
        return Ok(None);
    }
    let (_, data) = cursor.item().ok_or(EUCLEAN)?;
    for entry in Entries::new(data) {
        let entry = entry?;
        if entry.name == name {
            return Ok(Some(Target {
                location: entry.location,
                typ: entry.typ,
            }));
        }
    }
    Ok(None)
}

/// Calls `each` with the index and the entry of everything in directory `dir`, from index `from` on
/// and in order, until it answers `false`.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item, or what reading nodes or `each` gives.
pub fn iterate<S: Nodes>(
    nodes: &S,
    root: TreeRoot,
    dir: u64,
    from: u64,
    each: &mut dyn FnMut(u64, &Entry<'_>) -> Result<bool>,
) -> Result {
    let mut cursor = Cursor::new(nodes, root);
    cursor.seek(&Key::new(dir, item_type::DIR_INDEX, from))?;
    while let Some((key, data)) = cursor.item() {
        if !key.is(dir, item_type::DIR_INDEX) {
            break;
        }
        for entry in Entries::new(data) {
            if !each(key.offset, &entry?)? {
                return Ok(());
            }
        }
        cursor.next()?;
    }
    Ok(())
}
