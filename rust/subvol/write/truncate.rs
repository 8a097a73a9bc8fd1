// SPDX-License-Identifier: GPL-2.0
//! Changing a file's size, and taking data out of it.

use super::data::{check_file, check_writable};
use super::extents::{drop_range, extent_key, fill_holes};
use super::{read_inode, reserve, write_inode, InodeId, FREEING};
use crate::format::file_extent::{compression, INLINE_HEAD_SIZE};
use crate::format::inode::{InodeItem, Timespec};
use crate::format::item_type;
use crate::subvol::file_extent::{self, Kind};
use crate::subvol::inode;
use crate::trans::{Transaction, View};
use crate::tree::{edit, Cursor, EditContext};
use crate::volume::Fs;
use kernel::prelude::*;

/// How many extent items one operation drops, and how large a range is punched at once.
const STEP: usize = 256;
const STEP_BYTES: u64 = 1 << 30;

/// Sets a file's size. A smaller one is reached in several operations, from the end of the file on;
/// what is left if one fails is a file of a size in between. What a file that ends within a sector
/// holds after its end is not changed: that is for whoever writes the sector.
///
/// # Errors
///
/// `ENOENT`, `EINVAL` for what is not a file, `EFBIG`, `EROFS`; `ENOSPC` where holes need items.
pub fn truncate(fs: &Fs, id: InodeId, size: u64, now: Timespec) -> Result<InodeItem> {
    if i64::try_from(size).is_err() {
        return Err(EFBIG);
    }
    let shrink = shrink_to(fs, id, size)?;
    let cost = if shrink { FREEING } else { reserve(4) };
    fs.operate(cost, |trans| {
        let mut item = check_writable(trans, id)?;
        if !grow_to(trans, id, &mut item, size)? {
            let freed = cut_inline(trans, id, size)?;
            item.nbytes = item.nbytes.get().saturating_sub(freed).into();
            item.size = size.into();
        }
        item.mtime = now;
        item.ctime = now;
        write_inode(trans, id, &mut item)?;
        Ok(item)
    })
}

/// Makes a file that is smaller than `size` end there, with a hole after what it has.
///
/// # Errors
///
/// `ENOENT`, `EINVAL` for what is not a file, `EFBIG`, `EROFS`; `ENOSPC` where holes need items.
pub fn grow(fs: &Fs, id: InodeId, size: u64) -> Result<InodeItem> {
    if i64::try_from(size).is_err() {
        return Err(EFBIG);
    }
    fs.operate(reserve(4), |trans| {
        let mut item = check_writable(trans, id)?;
        if grow_to(trans, id, &mut item, size)? {
            write_inode(trans, id, &mut item)?;
        }
        Ok(item)
    })
}

/// The part of [`grow`] that is for the item. Returns whether the file was smaller.
pub(super) fn grow_to(
    trans: &mut Transaction<'_>,
    id: InodeId,
    item: &mut InodeItem,
    size: u64,
) -> Result<bool> {
    let sectorsize = trans.fs().geometry.sectorsize;
    let old = item.size.get();
    if old >= size {
        return Ok(false);
    }
    let old_end = sectorsize.round_up(old).ok_or(EFBIG)?;
    let end = sectorsize.round_up(size).ok_or(EFBIG)?;
    fill_holes(trans, id, old_end, end)?;
    item.size = size.into();
    Ok(true)
}

/// Drops what lies after the sector that `size` is in. Returns whether the file is to become
/// smaller.
fn shrink_to(fs: &Fs, id: InodeId, size: u64) -> Result<bool> {
    loop {
        let (smaller, done) = fs.operate(FREEING, |trans| {
            let mut item = check_writable(trans, id)?;
            if size > item.size.get() {
                return Ok((false, true));
            }
            Ok((true, cut_step(trans, id, &mut item, size)?))
        })?;
        if done {
            return Ok(smaller);
        }
        crate::platform::yield_now();
    }
}

/// Drops the space that was preallocated after the end of a file. [`truncate`] does so where it
/// makes a file smaller; who holds data that is yet to be written may know of a larger file that
/// becomes smaller.
///
/// # Errors
///
/// `ENOENT`, `EROFS`.
pub fn trim(fs: &Fs, id: InodeId) -> Result<InodeItem> {
    cut(fs, id)?;
    let view = fs.running_view(id.tree)?;
    inode::read(&view, view.tree_root(id.tree)?, id.ino)
}

/// Drops all that lies after the end of a file.
pub(super) fn cut(fs: &Fs, id: InodeId) -> Result {
    loop {
        let done = fs.operate(FREEING, |trans| {
            let mut item = read_inode(trans, id)?;
            if check_file(&item).is_err() {
                return Ok(true);
            }
            let size = item.size.get();
            cut_step(trans, id, &mut item, size)
        })?;
        if done {
            return Ok(());
        }
    }
}

/// Drops some of the last items of a file that lie after the sector of `size`. Returns whether that
/// was all.
fn cut_step(
    trans: &mut Transaction<'_>,
    id: InodeId,
    item: &mut InodeItem,
    size: u64,
) -> Result<bool> {
    let sectorsize = trans.fs().geometry.sectorsize;
    let keep = sectorsize.round_up(size).ok_or(EUCLEAN)?;
    let (mut freed, mut end, mut done) = (0u64, item.size.get(), false);
    let mut dropped = false;
    for _ in 0..STEP {
        let last = {
            let mut cursor = Cursor::new(trans, EditContext::root(trans, id.tree)?);
            cursor.seek_before(&extent_key(id.ino, u64::MAX))?;
            match cursor.item() {
                Some((key, data)) if key.is(id.ino, item_type::EXTENT_DATA) => {
                    let extent = file_extent::parse(&key, data, sectorsize)?;
                    let to = sectorsize.round_up(extent.end()).ok_or(EUCLEAN)?;
                    Some((extent.offset, to))
                }
                _ => None,
            }
        };
        let Some((from, to)) = last.filter(|(_, to)| *to > keep) else {
            done = true;
            break;
        };
        let from = from.max(keep);
        freed = freed.saturating_add(drop_range(trans, id, from, to)?);
        end = end.min(from);
        dropped = true;
    }
    if dropped {
        item.nbytes = item.nbytes.get().saturating_sub(freed).into();
        item.size = item.size.get().min(end.max(size)).into();
        write_inode(trans, id, item)?;
    }
    Ok(done)
}

/// Shortens uncompressed inline data to `size` bytes. Returns by how much.
fn cut_inline(trans: &mut Transaction<'_>, id: InodeId, size: u64) -> Result<u64> {
    let sectorsize = trans.fs().geometry.sectorsize;
    let key = extent_key(id.ino, 0);
    let Some(mut data) = edit::get(trans, id.tree, &key)? else {
        return Ok(0);
    };
    let extent = file_extent::parse(&key, &data, sectorsize)?;
    let Kind::Inline(inline) = extent.kind else {
        return Ok(0);
    };
    let len = extent.len;
    if inline.compression != compression::NONE || len <= size {
        return Ok(0);
    }
    if size == 0 {
        edit::delete(trans, id.tree, &key)?;
        return Ok(len);
    }
    let keep = usize::try_from(size).map_err(|_| EUCLEAN)?;
    data.truncate(INLINE_HEAD_SIZE.saturating_add(keep));
    // The second field of the head is the size of the data.
    let place = data.get_mut(8..16).ok_or(EUCLEAN)?;
    place.copy_from_slice(&size.to_le_bytes());
    edit::replace(trans, id.tree, &key, &data)?;
    Ok(len.saturating_sub(size))
}

/// Where the last item of a file's data ends.
fn end_of_items(fs: &Fs, id: InodeId) -> Result<u64> {
    let view = fs.running_view(id.tree)?;
    let sectorsize = fs.geometry.sectorsize;
    let mut cursor = Cursor::new(&view, view.tree_root(id.tree)?);
    cursor.seek_before(&extent_key(id.ino, u64::MAX))?;
    match cursor.item() {
        Some((key, data)) if key.is(id.ino, item_type::EXTENT_DATA) => {
            let end = file_extent::parse(&key, data, sectorsize)?.end();
            sectorsize.round_up(end).ok_or(EUCLEAN)
        }
        _ => Ok(0),
    }
}

/// Makes a hole of the sectors between two offsets, in bytes, multiples of the sector size. Inline
/// data goes as a whole, and so does space that was preallocated after the end of the file. The
/// size of the file stays.
///
/// # Errors
///
/// `EINVAL`, `ENOENT`, `EROFS`; `ENOSPC` where holes need items, or an extent is split; `EINTR`.
pub fn punch(fs: &Fs, id: InodeId, from: u64, to: u64, now: Timespec) -> Result<InodeItem> {
    let sectorsize = fs.geometry.sectorsize;
    if (from | to) % sectorsize != 0 || from > to {
        return Err(EINVAL);
    }
    // Behind the last item there is nothing to be dropped, however far the range goes on.
    let to = to.min(end_of_items(fs, id)?).max(from);
    let mut at = from;
    loop {
        let end = to.min(at.saturating_add(STEP_BYTES));
        let item = fs.operate(reserve(6), |trans| {
            let mut item = check_writable(trans, id)?;
            let freed = drop_range(trans, id, at, end)?;
            let eof = sectorsize.round_up(item.size.get()).unwrap_or(u64::MAX);
            fill_holes(trans, id, at, end.min(eof))?;
            item.nbytes = item.nbytes.get().saturating_sub(freed).into();
            item.mtime = now;
            item.ctime = now;
            write_inode(trans, id, &mut item)?;
            Ok(item)
        })?;
        at = end;
        if at >= to {
            return Ok(item);
        }
        if crate::platform::fatal_signal_pending() {
            return Err(EINTR);
        }
        crate::platform::yield_now();
    }
}
