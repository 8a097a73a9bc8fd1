// SPDX-License-Identifier: GPL-2.0
//! The names that an inode knows it has: `INODE_REF` items, one for each directory, and
//! `INODE_EXTREF` items for names that have no space there.

use crate::format::crc::extref_hash;
use crate::format::inode::{InodeExtref, InodeRef};
use crate::format::superblock::incompat;
use crate::format::{item_type, Key};
use crate::subvol::inode::names_of_item;
use crate::trans::Transaction;
use crate::tree::edit::{self, max_item_size};
use crate::tree::{Cursor, EditContext};
use kernel::prelude::*;
use zerocopy::IntoBytes;

use super::InodeId;

/// A name in a directory.
#[derive(Clone, Copy)]
pub(crate) struct NameAt<'a> {
    /// The inode number of the directory.
    pub(crate) dir: u64,
    pub(crate) name: &'a [u8],
}

impl NameAt<'_> {
    fn ref_key(&self, ino: u64) -> Key {
        Key::new(ino, item_type::INODE_REF, self.dir)
    }

    fn extref_key(&self, ino: u64) -> Key {
        Key::new(
            ino,
            item_type::INODE_EXTREF,
            extref_hash(self.dir, self.name),
        )
    }

    fn encode(&self, extended: bool, index: u64) -> Result<KVec<u8>> {
        let name_len = u16::try_from(self.name.len()).map_err(|_| ENAMETOOLONG)?;
        let mut bytes = KVec::new();
        if extended {
            let head = InodeExtref {
                parent_objectid: self.dir.into(),
                index: index.into(),
                name_len: name_len.into(),
            };
            bytes.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
        } else {
            let head = InodeRef {
                index: index.into(),
                name_len: name_len.into(),
            };
            bytes.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
        }
        bytes.extend_from_slice(self.name, GFP_KERNEL)?;
        Ok(bytes)
    }
}

/// The size of the item at `key`, 0 without one.
fn item_size(trans: &Transaction<'_>, tree: u64, key: &Key) -> Result<usize> {
    let mut cursor = Cursor::new(trans, EditContext::root(trans, tree)?);
    if !cursor.seek(key)? {
        return Ok(0);
    }
    Ok(cursor.item().map_or(0, |(_, data)| data.len()))
}

/// In which of the two kinds of items a new name has space: true for the extended kind.
///
/// # Errors
///
/// `EMLINK` if in none.
pub(crate) fn place_for(trans: &Transaction<'_>, id: InodeId, at: NameAt<'_>) -> Result<bool> {
    let most = max_item_size(trans.geometry());
    let len = size_of::<InodeRef>().saturating_add(at.name.len());
    let size = item_size(trans, id.tree, &at.ref_key(id.ino))?;
    if size.saturating_add(len) <= most {
        return Ok(false);
    }
    if !trans.has_incompat(incompat::EXTENDED_IREF) {
        return Err(EMLINK);
    }
    let len = size_of::<InodeExtref>().saturating_add(at.name.len());
    let size = item_size(trans, id.tree, &at.extref_key(id.ino))?;
    if size.saturating_add(len) <= most {
        return Ok(true);
    }
    Err(EMLINK)
}

/// Gives an inode a name, in the kind of item that [`place_for`] answered.
pub(crate) fn add(
    trans: &mut Transaction<'_>,
    id: InodeId,
    at: NameAt<'_>,
    index: u64,
    extended: bool,
) -> Result {
    let key = if extended {
        at.extref_key(id.ino)
    } else {
        at.ref_key(id.ino)
    };
    let bytes = at.encode(extended, index)?;
    trans.note_renamed(id.tree, id.ino);
    super::add_entry(trans, id.tree, &key, &bytes)
}

/// A name that was found.
#[derive(Clone, Copy)]
pub(crate) struct FoundName {
    key: Key,
    from: usize,
    to: usize,
    /// The `DIR_INDEX` of the entry.
    pub(crate) index: u64,
}

fn find_in(
    trans: &Transaction<'_>,
    tree: u64,
    key: Key,
    at: NameAt<'_>,
) -> Result<Option<FoundName>> {
    let mut cursor = Cursor::new(trans, EditContext::root(trans, tree)?);
    if !cursor.seek(&key)? {
        return Ok(None);
    }
    let (_, data) = cursor.item().ok_or(EUCLEAN)?;
    let head = if key.typ == item_type::INODE_EXTREF {
        size_of::<InodeExtref>()
    } else {
        size_of::<InodeRef>()
    };
    let (mut from, mut found) = (0usize, None);
    names_of_item(&key, data, &mut |name| {
        let to = from.saturating_add(head).saturating_add(name.name.len());
        if name.parent == at.dir && name.name == at.name {
            found = Some(FoundName {
                key,
                from,
                to,
                index: name.index,
            });
            return Ok(false);
        }
        from = to;
        Ok(true)
    })?;
    Ok(found)
}

/// Finds a name of an inode.
///
/// # Errors
///
/// `ENOENT` if it has no such name.
pub(crate) fn find(trans: &Transaction<'_>, id: InodeId, at: NameAt<'_>) -> Result<FoundName> {
    if let Some(found) = find_in(trans, id.tree, at.ref_key(id.ino), at)? {
        return Ok(found);
    }
    find_in(trans, id.tree, at.extref_key(id.ino), at)?.ok_or(ENOENT)
}

/// Takes a name away from an inode.
pub(crate) fn remove(trans: &mut Transaction<'_>, tree: u64, found: FoundName) -> Result {
    trans.note_renamed(tree, found.key.objectid);
    let data = edit::get(trans, tree, &found.key)?.ok_or(EUCLEAN)?;
    let (head, tail) = (data.get(..found.from), data.get(found.to..));
    let (head, tail) = (head.ok_or(EUCLEAN)?, tail.ok_or(EUCLEAN)?);
    if head.is_empty() && tail.is_empty() {
        return edit::delete(trans, tree, &found.key);
    }
    let mut rest = KVec::with_capacity(data.len(), GFP_KERNEL)?;
    rest.extend_from_slice(head, GFP_KERNEL)?;
    rest.extend_from_slice(tail, GFP_KERNEL)?;
    edit::replace(trans, tree, &found.key, &rest)
}
