// SPDX-License-Identifier: GPL-2.0
//! Space that a file has before anything is written to it.

use super::data::check_writable;
use super::extents::{drop_range, insert_item, whole};
use super::truncate::grow_to;
use super::{reserve, write_inode, InodeId};
use crate::format::file_extent::TYPE_PREALLOC;
use crate::format::inode::{inode_flags, InodeItem, Timespec};
use crate::space::ordered_extent::MAX_EXTENT;
use crate::subvol::file_extent::{self, Kind};
use crate::trans::{Reserve, Transaction};
use crate::tree::EditContext;
use crate::volume::Fs;
use kernel::prelude::*;

/// Allocates space for all holes between two offsets, in bytes, multiples of the sector size. It
/// reads as zeros. The file grows to `size`, if that is more than it has. Each extent is an
/// operation of its own: if one fails, those before it stay.
///
/// # Errors
///
/// `EINVAL`, `ENOENT`, `EFBIG`, `EROFS`, `ENOSPC`.
pub fn preallocate(
    fs: &Fs,
    id: InodeId,
    from: u64,
    to: u64,
    size: u64,
    now: Timespec,
) -> Result<InodeItem> {
    let sectorsize = fs.geometry.sectorsize;
    if (from | to) % sectorsize != 0 || from > to {
        return Err(EINVAL);
    }
    if i64::try_from(to.max(size)).is_err() {
        return Err(EFBIG);
    }
    let mut at = from;
    loop {
        let hole = fs.operate(reserve(2), |trans| {
            check_writable(trans, id)?;
            first_hole(trans, id, at, to)
        })?;
        let Some((start, end)) = hole else {
            break;
        };
        let want = end.saturating_sub(start).min(MAX_EXTENT);
        let cost = Reserve {
            data: want,
            ..reserve(4)
        };
        at = fs.operate(cost, |trans| {
            let mut item = check_writable(trans, id)?;
            let (bytenr, len) = trans.alloc_extent(sectorsize.into(), want)?;
            let end = start.saturating_add(len);
            // A hole may have an item.
            let freed = drop_range(trans, id, start, end)?;
            let extent = whole(trans.transid(), TYPE_PREALLOC, bytenr, len);
            insert_item(trans, id, start, &extent)?;
            let nbytes = item.nbytes.get().saturating_add(len).saturating_sub(freed);
            item.nbytes = nbytes.into();
            item.flags = (item.flags.get() | inode_flags::PREALLOC).into();
            item.ctime = now;
            write_inode(trans, id, &mut item)?;
            Ok(end)
        })?;
        crate::platform::yield_now();
    }
    fs.operate(reserve(4), |trans| {
        let mut item = check_writable(trans, id)?;
        if grow_to(trans, id, &mut item, size)? {
            item.mtime = now;
        }
        item.ctime = now;
        write_inode(trans, id, &mut item)?;
        Ok(item)
    })
}

/// The first stretch without space.
fn first_hole(
    trans: &Transaction<'_>,
    id: InodeId,
    from: u64,
    to: u64,
) -> Result<Option<(u64, u64)>> {
    let sectorsize = trans.fs().geometry.sectorsize;
    let root = EditContext::root(trans, id.tree)?;
    let mut found = None;
    file_extent::for_each(trans, root, id.ino, sectorsize, (from, to), &mut |extent| {
        if extent.kind == Kind::Hole {
            found = Some((extent.offset.max(from), extent.end().min(to)));
        }
        Ok(found.is_none())
    })?;
    Ok(found.filter(|(start, end)| start < end))
}
