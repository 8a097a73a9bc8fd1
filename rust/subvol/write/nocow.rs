// SPDX-License-Identifier: GPL-2.0
//! Writing to preallocated space: where nothing was written yet, nothing is overwritten.
//!
//! The space must be the file's alone. Blocks that a snapshot shares do not show in the references
//! of an extent, so that only items younger than the last snapshot count.

use super::data::check_file;
use super::extents::{add_ref, data_before, extent_key, insert_item, part, read_item};
use super::{check_files, read_inode, InodeId};
use crate::extent::refs::RefKind;
use crate::format::file_extent::{FileExtentItem, TYPE_REG};
use crate::format::item_type;
use crate::space::OrderedExtent;
use crate::subvol::file_extent;
use crate::trans::Transaction;
use crate::tree::{edit, Cursor, EditContext};
use crate::volume::Fs;
use kernel::prelude::*;
use zerocopy::IntoBytes;

/// An item that covers a place in a file: where it starts, and what it says.
struct Covering {
    offset: u64,
    item: FileExtentItem,
}

impl Covering {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.item.num_bytes.get())
    }

    /// The logical address of a place in the file that the item covers.
    fn logical(&self, at: u64) -> Option<u64> {
        let skip = at.checked_sub(self.offset)?;
        let start = self.item.disk_bytenr.get();
        start.checked_add(self.item.offset.get())?.checked_add(skip)
    }
}

/// The preallocated item that covers `offset`.
fn find(trans: &Transaction<'_>, id: InodeId, offset: u64) -> Result<Option<Covering>> {
    let sectorsize = trans.fs().geometry.sectorsize;
    let mut cursor = Cursor::new(trans, EditContext::root(trans, id.tree)?);
    if !cursor.seek_before(&extent_key(id.ino, offset))? {
        return Ok(None);
    }
    let Some((key, data)) = cursor.item() else {
        return Ok(None);
    };
    if !key.is(id.ino, item_type::EXTENT_DATA) {
        return Ok(None);
    }
    let extent = file_extent::parse(&key, data, sectorsize)?;
    if !matches!(extent.kind, file_extent::Kind::Prealloc(_)) || extent.end() <= offset {
        return Ok(None);
    }
    Ok(Some(Covering {
        offset: key.offset,
        item: read_item(data)?,
    }))
}

/// A place for up to `want` bytes of data at `offset`, both multiples of the sector size, in space
/// that the file has preallocated; nothing if the file has none there, or not alone. Data goes
/// there, and then into the file, as it does with [`crate::volume::Fs::alloc_data`]. The caller
/// keeps others from changing this part of the file until then.
///
/// # Errors
///
/// `EINVAL`, `ENOENT`, `EROFS`; those of reading; `ENOMEM`.
pub fn preallocated(fs: &Fs, id: InodeId, offset: u64, want: u64) -> Result<Option<OrderedExtent>> {
    let sectorsize = fs.geometry.sectorsize;
    if want == 0 || (offset | want) % sectorsize != 0 {
        return Err(EINVAL);
    }
    fs.nocow_extent(|trans| {
        check_file(&read_inode(trans, id)?)?;
        let Some(found) = find(trans, id, offset)? else {
            return Ok(None);
        };
        let item = &found.item;
        let kind = RefKind::Data {
            root: id.tree,
            ino: id.ino,
            offset: found.offset.wrapping_sub(item.offset.get()),
        };
        let snapshot = trans.root_item(id.tree)?.last_snapshot.get();
        if item.head.generation.get() <= snapshot
            || !trans.is_sole_holder(item.disk_bytenr.get(), kind)?
        {
            return Ok(None);
        }
        let start = found.logical(offset).ok_or(EUCLEAN)?;
        Ok(Some((start, want.min(found.end().saturating_sub(offset)))))
    })
}

/// Whether all of a range has space of its own, so that writing to it takes none.
///
/// # Errors
///
/// As for [`preallocated`].
pub fn is_preallocated(fs: &Fs, id: InodeId, offset: u64, len: u64) -> Result<bool> {
    let end = offset.checked_add(len).ok_or(EINVAL)?;
    let mut at = offset;
    while at < end {
        match preallocated(fs, id, at, end.saturating_sub(at))? {
            Some(extent) => at = at.saturating_add(extent.len()),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// What turns a part of a preallocated item into data.
pub(super) struct Conversion {
    found: Covering,
    offset: u64,
    end: u64,
}

impl Conversion {
    /// Checks that the data which was written to `start` is the file's at `offset`.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the file has something else there by now.
    pub(super) fn check(
        trans: &Transaction<'_>,
        id: InodeId,
        offset: u64,
        start: u64,
        len: u64,
    ) -> Result<Self> {
        check_files(trans, id.tree)?;
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        let found = find(trans, id, offset)?.ok_or(EAGAIN)?;
        if found.logical(offset) != Some(start) || found.end() < end {
            return Err(EAGAIN);
        }
        Ok(Conversion { found, offset, end })
    }

    /// Splits the item, and lets the item before it grow where that ends at the same place of the
    /// extent.
    pub(super) fn run(self, trans: &mut Transaction<'_>, id: InodeId) -> Result {
        let Conversion { found, offset, end } = self;
        let (from, to) = (found.offset, found.end());
        let key = extent_key(id.ino, from);
        let mut data = part(
            &found.item,
            offset.saturating_sub(from),
            end.saturating_sub(offset),
        )?;
        data.head.typ = TYPE_REG;
        data.head.generation = trans.transid().into();
        if from < offset {
            let head = part(&found.item, 0, offset.saturating_sub(from))?;
            edit::replace(trans, id.tree, &key, head.as_bytes())?;
        } else {
            edit::delete(trans, id.tree, &key)?;
            add_ref(trans, id, from, &found.item, -1)?;
        }
        if end < to {
            let tail = part(
                &found.item,
                end.saturating_sub(from),
                to.saturating_sub(end),
            )?;
            insert_item(trans, id, end, &tail)?;
        }
        match before(trans, id, offset, &data)? {
            Some((at, item)) => {
                edit::replace(trans, id.tree, &extent_key(id.ino, at), item.as_bytes())
            }
            None => insert_item(trans, id, offset, &data),
        }
    }
}

/// The item that ends at `offset` in file and extent where `next` starts, made so long that it
/// covers `next`.
fn before(
    trans: &Transaction<'_>,
    id: InodeId,
    offset: u64,
    next: &FileExtentItem,
) -> Result<Option<(u64, FileExtentItem)>> {
    let Some((at, mut item)) = data_before(trans, id, offset)? else {
        return Ok(None);
    };
    let len = item.num_bytes.get();
    if item.disk_bytenr != next.disk_bytenr
        || item.offset.get().checked_add(len) != Some(next.offset.get())
    {
        return Ok(None);
    }
    item.num_bytes = len.checked_add(next.num_bytes.get()).ok_or(EUCLEAN)?.into();
    item.head.generation = next.head.generation;
    Ok(Some((at, item)))
}
