// SPDX-License-Identifier: GPL-2.0
//! Cutting files off and growing them.

use super::attributes::{id, now};
use super::inode::Inode;
use super::lock::{Exclusive, InvalidateGuard};
use super::replace;
use super::write::{self, BLOCK};
use crate::bindings;
use crate::format::inode::{inode_flags, InodeItem};
use crate::subvol::write::{grow, punch, trim, truncate};
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;

/// Takes over what an operation on the file's extents changed.
pub(super) fn take_over_extents(inode: &Inode, item: &InodeItem) {
    inode.set_nbytes(item.nbytes.get());
    inode.info().disk_size.store(item.size.get(), Relaxed);
    if item.flags.get() & inode_flags::PREALLOC != 0 {
        inode.set_preallocated();
    }
    inode.set_changed(item.transid.get());
}

/// Sets the size of a regular file: in the tree first, so that the file in memory is as it was if
/// that fails.
///
/// # Errors
///
/// `EFBIG`, `ENOSPC`, `EROFS`, and those of the engine.
pub(super) fn set_size(inode: Exclusive<'_>, size: u64) -> Result {
    let old = inode.size();
    let new = i64::try_from(size).map_err(|_| EFBIG)?;
    inode.fs().check_writable()?;
    if size > old {
        write::zero_tail(inode)?;
    }
    settle_end(inode, size)?;
    let _invalidate = InvalidateGuard::lock(inode);
    if size < old && size % BLOCK != 0 {
        // A large folio that is cut through may keep blocks after the end: without a record of its
        // blocks these would stay dirty, without a reservation, and be written once the file grows.
        clean(&inode, size - size % BLOCK, size.next_multiple_of(BLOCK))?;
    }
    let in_tree = size_in_tree(inode)?;
    let item = truncate(inode.fs(), id(&inode), size, now(&[&inode]))
        .inspect_err(|_| take_over_cut(inode, in_tree))?;
    take_over_extents(&inode, &item);
    if size != old {
        // What is in the page cache after the new end goes, and a last block that is cut through is
        // zeroed there; it is zeroed on disk when the file grows again, for nothing reads after the
        // end. SAFETY: The inode is valid, and both of its locks are held.
        unsafe { bindings::truncate_setsize(inode.as_ptr(), new) };
        if size == 0 {
            replace::emptied(&inode);
        }
        // Nothing is dirty from there on.
        release_reserved(&inode, size.next_multiple_of(BLOCK), u64::MAX);
    }
    if size < old && size_in_tree(inode)? > size {
        // What was dirty after the new end was written back after the tree had been cut, and before
        // the page cache was: the tree took that data's end for the file's.
        let item = truncate(inode.fs(), id(&inode), size, now(&[&inode]))?;
        take_over_extents(&inode, &item);
    }
    if size <= old && item.flags.get() & inode_flags::PREALLOC != 0 {
        // The tree may know of a smaller file still, which has space after its end by right.
        take_over_extents(&inode, &trim(inode.fs(), id(&inode))?);
    }
    Ok(())
}

/// Takes over what a truncation did before it failed: a large file is cut off in several
/// operations. In the tree, it ended at `before`. Both locks are held.
fn take_over_cut(inode: Exclusive<'_>, before: u64) {
    if inode.fs().is_read_only() {
        // Nothing of it reaches the disk.
        return;
    }
    let reached = size_in_tree(inode).unwrap_or(before);
    if let (true, Ok(reached)) = (reached < before, i64::try_from(reached)) {
        // SAFETY: The inode is valid, and both of its locks are held.
        unsafe { bindings::truncate_setsize(inode.as_ptr(), reached) };
    }
}

/// The size that the tree knows of: less than the file's while data that made it grow is in memory
/// only.
fn size_in_tree(inode: Exclusive<'_>) -> Result<u64> {
    let (view, root) = inode.tree()?;
    let item = crate::subvol::inode::read(&*view, root, inode.info().ino)?;
    Ok(item.size.get())
}

/// Makes a hole. The file's size stays.
///
/// # Errors
///
/// `ENOSPC` for blocks of which only a part becomes a hole, and those of the engine.
pub(super) fn punch_hole(inode: Exclusive<'_>, start: u64, end: u64) -> Result {
    let size = inode.size();
    // What follows the end of the file in its last block goes with what is before it.
    let end = if end >= size {
        end.max(size.next_multiple_of(BLOCK))
    } else {
        end
    };
    let (first, last) = (start.next_multiple_of(BLOCK), end - end % BLOCK);
    let zero = |from, to: u64| write::zero_range(inode, from, to.min(size).max(from));
    if first >= last {
        return zero(start, end);
    }
    zero(start, first)?;
    zero(last, end)?;
    settle_end(inode, first)?;
    let _invalidate = InvalidateGuard::lock(inode);
    drop_cached(inode, first, last)?;
    let item = punch(inode.fs(), id(&inode), first, last, now(&[&inode]))?;
    take_over_extents(&inode, &item);
    if item.size.get() < last.min(size) {
        // Data that was only in memory would have told the tree of this end.
        let item = grow(inode.fs(), id(&inode), last.min(size))?;
        take_over_extents(&inode, &item);
    }
    Ok(())
}

/// Writes back what is dirty before `end` and after the end that the tree knows of. To be called
/// before the tree learns of an end there or further on: after a crash the file would have zeros in
/// the place of that data.
///
/// # Errors
///
/// What reading the inode and writing gave.
pub(super) fn settle_end(inode: Exclusive<'_>, end: u64) -> Result {
    let end = end.min(inode.size());
    if end == 0 {
        return Ok(());
    }
    let known = size_in_tree(inode)?;
    if known < end {
        flush(&inode, known, end)?;
    }
    Ok(())
}

/// Drops whole blocks from the page cache. What is dirty in them is written back first, as the C
/// driver does it: a large folio that reaches beyond the range stays as a whole, and must not be
/// dirty where it has lost its space. The caller holds the invalidate lock, so that nothing becomes
/// dirty again.
///
/// # Errors
///
/// `EFBIG`. What fails to be written is told to those who sync the file.
pub(super) fn drop_cached(inode: Exclusive<'_>, start: u64, end: u64) -> Result {
    clean(&inode, start, end)?;
    let first = i64::try_from(start).map_err(|_| EFBIG)?;
    let last = i64::try_from(end).map_err(|_| EFBIG)?;
    // SAFETY: The inode is valid, and its locks are held.
    unsafe { bindings::truncate_pagecache_range(inode.as_ptr(), first, last - 1) };
    release_reserved(&inode, start, end);
    Ok(())
}

/// Releases the space reservations of whole blocks, none of which is dirty.
fn release_reserved(inode: &Inode, start: u64, end: u64) {
    if let Some(reserved) = inode.reserved() {
        drop(reserved.take(start, end));
    }
}

/// Has nothing be dirty between two offsets, of folios as wholes, as long as the caller holds the
/// invalidate lock.
///
/// # Errors
///
/// `EFBIG`. What fails to be written is told to those who sync the file.
pub(super) fn clean(inode: &Inode, start: u64, end: u64) -> Result {
    let start = i64::try_from(start).map_err(|_| EFBIG)?;
    let last = i64::try_from(end).map_err(|_| EFBIG)? - 1;
    // SAFETY: The inode is valid.
    unsafe {
        let mapping = (*inode.as_ptr()).i_mapping;
        bindings::filemap_fdatawrite_range(mapping, start, last);
        bindings::filemap_fdatawait_range_keep_errors(mapping, start, last);
    }
    Ok(())
}

/// Writes what is dirty in a part of a file to disk and waits for it.
///
/// # Errors
///
/// What writing gave.
pub(super) fn flush(inode: &Inode, start: u64, end: u64) -> Result {
    let start = i64::try_from(start).map_err(|_| EFBIG)?;
    let end = i64::try_from(end).unwrap_or(i64::MAX);
    // SAFETY: The inode is valid.
    to_result(unsafe {
        bindings::filemap_write_and_wait_range((*inode.as_ptr()).i_mapping, start, end - 1)
    })
}
