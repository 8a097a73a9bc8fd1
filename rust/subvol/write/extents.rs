// SPDX-License-Identifier: GPL-2.0
//! Changing file extent items, with the references that they hold. The inode's item is left to the
//! caller.

use super::{InodeId, NewInline};
use crate::extent::refs::RefKind;
use crate::format::file_extent::{
    compression, FileExtentHead, FileExtentItem, INLINE_HEAD_SIZE, TYPE_INLINE, TYPE_REG,
};
use crate::format::superblock::incompat;
use crate::format::{self, item_type, CompressionMethod, Key};
use crate::subvol::file_extent::{self, Kind};
use crate::trans::Transaction;
use crate::tree::{edit, Cursor, EditContext};
use kernel::prelude::*;
use zerocopy::IntoBytes;

pub(super) const fn extent_key(ino: u64, offset: u64) -> Key {
    Key::new(ino, item_type::EXTENT_DATA, offset)
}

/// A file extent item that is not inline.
pub(super) fn read_item(data: &[u8]) -> Result<FileExtentItem> {
    format::read(data)
}

/// The reference that a file extent item at `offset` of the file holds, `count` times.
pub(super) fn add_ref(
    trans: &mut Transaction<'_>,
    id: InodeId,
    offset: u64,
    item: &FileExtentItem,
    count: i64,
) -> Result {
    let bytenr = item.disk_bytenr.get();
    if bytenr == 0 {
        return Ok(());
    }
    let kind = RefKind::Data {
        root: id.tree,
        ino: id.ino,
        offset: offset.wrapping_sub(item.offset.get()),
    };
    trans.add_ref(bytenr, item.disk_num_bytes.get(), kind, count)
}

/// An item that overlaps a range.
struct Overlap {
    offset: u64,
    /// Where it ends in the file; of inline data, after its whole sector.
    end: u64,
    /// `None` for inline data, of which this many bytes count.
    item: core::result::Result<FileExtentItem, u64>,
}

/// The first item of a file that ends behind `from` and starts before `to`.
fn first_overlap(
    trans: &Transaction<'_>,
    id: InodeId,
    from: u64,
    to: u64,
) -> Result<Option<Overlap>> {
    let sectorsize = trans.fs().geometry.sectorsize;
    let mut cursor = Cursor::new(trans, EditContext::root(trans, id.tree)?);
    let start = extent_key(id.ino, from);
    let is_extent = |key: Key| key.is(id.ino, item_type::EXTENT_DATA);
    let mut here = cursor.seek_before(&start)? && cursor.key().is_some_and(is_extent);
    if !here {
        cursor.seek(&start)?;
        here = cursor.key().is_some_and(is_extent);
    }
    while here {
        let (key, data) = cursor.item().ok_or(EUCLEAN)?;
        let extent = file_extent::parse(&key, data, sectorsize)?;
        let end = sectorsize.round_up(extent.end()).ok_or(EUCLEAN)?;
        if extent.offset >= to {
            break;
        }
        if end > from {
            let item = match extent.kind {
                Kind::Inline(_) => Err(extent.len),
                _ => Ok(read_item(data)?),
            };
            return Ok(Some(Overlap {
                offset: extent.offset,
                end,
                item,
            }));
        }
        here = cursor.next()? && cursor.key().is_some_and(is_extent);
    }
    Ok(None)
}

/// Drops what a file has between two offsets, multiples of the sector size. Items that reach over
/// an end are cut; inline data goes as a whole. Returns by how many bytes the file's use of space
/// shrank.
///
/// # Errors
///
/// `EUCLEAN` for damaged items; those of changing trees.
pub(crate) fn drop_range(
    trans: &mut Transaction<'_>,
    id: InodeId,
    from: u64,
    to: u64,
) -> Result<u64> {
    let mut freed = 0u64;
    let mut at = from;
    while at < to {
        let Some(overlap) = first_overlap(trans, id, at, to)? else {
            break;
        };
        let Overlap { offset, end, item } = overlap;
        let key = extent_key(id.ino, offset);
        at = end;
        let item = match item {
            Ok(item) => item,
            Err(len) => {
                edit::delete(trans, id.tree, &key)?;
                freed = freed.saturating_add(len);
                continue;
            }
        };
        let (cut_from, cut_to) = (offset.max(from), end.min(to));
        if item.disk_bytenr.get() != 0 {
            freed = freed.saturating_add(cut_to.saturating_sub(cut_from));
        }
        let (keeps_head, keeps_tail) = (offset < from, end > to);
        let tail = || part(&item, to.saturating_sub(offset), end.saturating_sub(to));
        if keeps_head {
            let head = part(&item, 0, from.saturating_sub(offset))?;
            edit::replace(trans, id.tree, &key, head.as_bytes())?;
            if keeps_tail {
                insert_item(trans, id, to, &tail()?)?;
            }
        } else if keeps_tail {
            edit::set_key(trans, id.tree, &key, &extent_key(id.ino, to))?;
            let tail = tail()?;
            edit::replace(trans, id.tree, &extent_key(id.ino, to), tail.as_bytes())?;
        } else {
            edit::delete(trans, id.tree, &key)?;
            add_ref(trans, id, offset, &item, -1)?;
        }
    }
    Ok(freed)
}

/// The part of an extent item that starts `skip` bytes into it.
pub(super) fn part(item: &FileExtentItem, skip: u64, len: u64) -> Result<FileExtentItem> {
    let mut part = *item;
    if item.disk_bytenr.get() != 0 {
        part.offset = item.offset.get().checked_add(skip).ok_or(EUCLEAN)?.into();
    }
    part.num_bytes = len.into();
    Ok(part)
}

/// The item of uncompressed data that ends at `offset` in the file, and where it starts.
pub(super) fn data_before(
    trans: &Transaction<'_>,
    id: InodeId,
    offset: u64,
) -> Result<Option<(u64, FileExtentItem)>> {
    let Some(last) = offset.checked_sub(1) else {
        return Ok(None);
    };
    let mut cursor = Cursor::new(trans, EditContext::root(trans, id.tree)?);
    cursor.seek_before(&extent_key(id.ino, last))?;
    let Some((key, data)) = cursor.item() else {
        return Ok(None);
    };
    if !key.is(id.ino, item_type::EXTENT_DATA) || data.len() != size_of::<FileExtentItem>() {
        return Ok(None);
    }
    let item = read_item(data)?;
    let ends_here = item.head.typ == TYPE_REG
        && item.head.compression == compression::NONE
        && item.disk_bytenr.get() != 0
        && key.offset.checked_add(item.num_bytes.get()) == Some(offset);
    Ok(ends_here.then_some((key.offset, item)))
}

/// Inserts the item for all of a new extent where the file has nothing, with the reference that it
/// holds. If the extent before it in the file ends where this one starts, and nobody else knows of
/// that one yet, they become one: writeback comes in pieces, and what is written together is to be
/// one extent of up to [`MAX_EXTENT`](crate::space::ordered_extent::MAX_EXTENT), as in the C
/// driver.
pub(super) fn insert_data_item(
    trans: &mut Transaction<'_>,
    id: InodeId,
    offset: u64,
    (start, len): (u64, u64),
) -> Result {
    if let Some((at, item)) = data_before(trans, id, offset)? {
        let (bytenr, old) = (item.disk_bytenr.get(), item.disk_num_bytes.get());
        let is_whole = item.offset.get() == 0 && item.num_bytes.get() == old;
        let transid = trans.transid();
        // A snapshot shares the items that are older, whatever the references say.
        if is_whole
            && bytenr.checked_add(old) == Some(start)
            && item.head.generation.get() == transid
            && trans.root_item(id.tree)?.last_snapshot.get() < transid
        {
            let kind = RefKind::Data {
                root: id.tree,
                ino: id.ino,
                offset: at,
            };
            if trans.extend_data((bytenr, old), len, kind) {
                let both = whole(transid, TYPE_REG, bytenr, old.saturating_add(len));
                return edit::replace(trans, id.tree, &extent_key(id.ino, at), both.as_bytes());
            }
        }
    }
    let data = whole(trans.transid(), TYPE_REG, start, len);
    insert_item(trans, id, offset, &data)
}

/// Inserts an extent item where the file has nothing, with the reference that it holds.
pub(crate) fn insert_item(
    trans: &mut Transaction<'_>,
    id: InodeId,
    offset: u64,
    item: &FileExtentItem,
) -> Result {
    edit::insert(trans, id.tree, &extent_key(id.ino, offset), item.as_bytes())?;
    add_ref(trans, id, offset, item, 1)
}

/// An item for all of an uncompressed extent.
pub(crate) fn whole(transid: u64, typ: u8, bytenr: u64, len: u64) -> FileExtentItem {
    FileExtentItem {
        head: FileExtentHead {
            generation: transid.into(),
            ram_bytes: len.into(),
            compression: compression::NONE,
            encryption: 0,
            other_encoding: 0.into(),
            typ,
        },
        disk_bytenr: bytenr.into(),
        disk_num_bytes: if bytenr == 0 { 0 } else { len }.into(),
        offset: 0.into(),
        num_bytes: len.into(),
    }
}

/// Inserts inline data at the start of a file that has nothing there.
pub(super) fn insert_inline(
    trans: &mut Transaction<'_>,
    id: InodeId,
    new: NewInline<'_>,
) -> Result {
    let NewInline { data, size, method } = new;
    let head = FileExtentHead {
        generation: trans.transid().into(),
        ram_bytes: size.into(),
        compression: method.map_or(compression::NONE, CompressionMethod::number),
        encryption: 0,
        other_encoding: 0.into(),
        typ: TYPE_INLINE,
    };
    let mut bytes = KVec::with_capacity(INLINE_HEAD_SIZE.saturating_add(data.len()), GFP_KERNEL)?;
    bytes.extend_from_slice(head.as_bytes(), GFP_KERNEL)?;
    bytes.extend_from_slice(data, GFP_KERNEL)?;
    trans.set_incompat(method.map_or(0, CompressionMethod::incompat));
    edit::insert(trans, id.tree, &extent_key(id.ino, 0), &bytes)
}

/// Gives the holes between two offsets, multiples of the sector size, items of their own, if the
/// volume wants that.
pub(super) fn fill_holes(trans: &mut Transaction<'_>, id: InodeId, from: u64, to: u64) -> Result {
    if trans.has_incompat(incompat::NO_HOLES) || from >= to {
        return Ok(());
    }
    let sectorsize = trans.fs().geometry.sectorsize;
    let root = EditContext::root(trans, id.tree)?;
    let mut holes = KVec::new();
    file_extent::for_each(trans, root, id.ino, sectorsize, (from, to), &mut |extent| {
        if extent.kind == Kind::Hole && extent.generation == 0 {
            holes.push((extent.offset, extent.len), GFP_KERNEL)?;
        }
        Ok(true)
    })?;
    let transid = trans.transid();
    for (offset, len) in holes {
        let hole = whole(transid, crate::format::file_extent::TYPE_REG, 0, len);
        insert_item(trans, id, offset, &hole)?;
    }
    Ok(())
}
