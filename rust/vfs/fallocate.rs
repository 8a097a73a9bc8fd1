// SPDX-License-Identifier: GPL-2.0
//! Preallocating space, making holes, and sharing data between files.

use super::attributes::{id, now};
use super::fsync;
use super::inode::{Inode, S_IFMT, S_IFREG};
use super::lock::{Exclusive, InodeGuard, InvalidatePair};
use super::setsize::{drop_cached, flush, punch_hole, settle_end, take_over_extents};
use super::write::{zero_tail, BLOCK};
use crate::bindings;
use crate::format::inode::inode_flags;
use crate::subvol::write::{clone_range, preallocate, CloneRange};
use kernel::error::{from_result, to_result};
use kernel::prelude::*;

const KEEP_SIZE: u32 = bindings::FALLOC_FL_KEEP_SIZE;
const PUNCH_HOLE: u32 = bindings::FALLOC_FL_PUNCH_HOLE;
const ZERO_RANGE: u32 = bindings::FALLOC_FL_ZERO_RANGE;

/// Notes a change of the file's contents, and takes privileges away that must not outlive one.
///
/// # Safety
///
/// `file` is an open file of the locked inode.
pub(super) unsafe fn modified(file: *mut bindings::file) -> Result {
    // SAFETY: By this function's contract.
    unsafe {
        to_result(bindings::file_remove_privs(file))?;
        to_result(bindings::file_update_time(file))
    }
}

/// Allocates space for the holes of a range.
fn allocate(inode: Exclusive<'_>, start: u64, end: u64, keep_size: bool) -> Result {
    let size = inode.size();
    let new_size = if keep_size { size } else { size.max(end) };
    if new_size > size {
        let new = i64::try_from(new_size).map_err(|_| EFBIG)?;
        // SAFETY: The inode is valid, and locked.
        to_result(unsafe { bindings::inode_newsize_ok(inode.as_ptr(), new) })?;
        zero_tail(inode)?;
    }
    // What is dirty is a hole as far as the tree knows.
    let (from, to) = (start - start % BLOCK, end.next_multiple_of(BLOCK));
    flush(&inode, from, to)?;
    settle_end(inode, size)?;
    let item = preallocate(inode.fs(), id(&inode), from, to, new_size, now(&[&inode]))?;
    take_over_extents(&inode, &item);
    if new_size > size {
        // SAFETY: The inode is valid, and locked.
        unsafe { bindings::rbtrfs_inode_set_size(inode.as_ptr(), new_size as i64) };
    }
    Ok(())
}

/// `file_operations::fallocate`.
///
/// # Safety
///
/// As the VFS calls it, for an open regular file of ours.
pub(super) unsafe extern "C" fn fallocate(
    file: *mut bindings::file,
    mode: kernel::ffi::c_int,
    offset: i64,
    len: i64,
) -> kernel::ffi::c_long {
    let result = from_result(|| {
        // SAFETY: The VFS passes a file that is open.
        let inode = unsafe { Inode::of_file(file) };
        let start = u64::try_from(offset).map_err(|_| EINVAL)?;
        let end = u64::try_from(len)
            .ok()
            .and_then(|len| start.checked_add(len))
            .filter(|end| i64::try_from(end.next_multiple_of(BLOCK)).is_ok())
            .ok_or(EFBIG)?;
        inode.fs().check_shut_down()?;
        inode.subvolume().check_writable()?;
        let mode = mode as u32;
        let keep_size = mode & KEEP_SIZE != 0;
        let guard = InodeGuard::lock(inode);
        let locked = guard.exclusive();
        match mode & !KEEP_SIZE {
            0 => {
                // SAFETY: The file is open, and its inode locked.
                unsafe { modified(file) }?;
                allocate(locked, start, end, keep_size)?;
            }
            PUNCH_HOLE if keep_size => {
                // SAFETY: As above.
                unsafe { modified(file) }?;
                punch_hole(locked, start, end)?;
            }
            ZERO_RANGE => {
                // SAFETY: As above.
                unsafe { modified(file) }?;
                punch_hole(locked, start, end)?;
                allocate(locked, start, end, keep_size)?;
            }
            _ => return Err(EOPNOTSUPP),
        }
        Ok(0)
    });
    result as kernel::ffi::c_long
}

/// Two inodes that are locked exclusively, or the same one twice.
struct Pair<'a> {
    first: &'a Inode,
    second: &'a Inode,
}

impl<'a> Pair<'a> {
    fn lock(first: &'a Inode, second: &'a Inode) -> Self {
        // SAFETY: The inodes are valid regular files; `drop` gives the locks back, in the same
        // task.
        unsafe {
            bindings::lock_two_nondirectories(first.as_ptr(), second.as_ptr());
        }
        Self { first, second }
    }

    fn first(&self) -> Exclusive<'_> {
        // SAFETY: It is locked as long as this lives.
        unsafe { Exclusive::assume(self.first) }
    }

    fn second(&self) -> Exclusive<'_> {
        // SAFETY: As above.
        unsafe { Exclusive::assume(self.second) }
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        // SAFETY: `lock` locked them.
        unsafe {
            bindings::unlock_two_nondirectories(self.first.as_ptr(), self.second.as_ptr());
        }
    }
}

/// # Safety
///
/// As for [`remap_file_range`].
unsafe fn remap(
    from: *mut bindings::file,
    from_offset: i64,
    to: *mut bindings::file,
    to_offset: i64,
    mut len: i64,
    flags: u32,
) -> Result<i64> {
    const KNOWN: u32 = bindings::REMAP_FILE_DEDUP | bindings::REMAP_FILE_CAN_SHORTEN;
    if flags & !KNOWN != 0 {
        return Err(EINVAL);
    }
    let dedupe = flags & bindings::REMAP_FILE_DEDUP != 0;
    // SAFETY: The VFS passes files that are open.
    let (source, target) = unsafe { (Inode::of_file(from), Inode::of_file(to)) };
    if source.mode() & S_IFMT != S_IFREG || target.mode() & S_IFMT != S_IFREG {
        return Err(EINVAL);
    }
    source.fs().check_shut_down()?;
    if !dedupe {
        target.subvolume().check_writable()?;
    }
    if dedupe && target.fs().state.sends_of(target.info().tree) != 0 {
        crate::fs_warn!(
            target.fs(),
            "cannot deduplicate to root {} while send operations are using it",
            target.info().tree
        );
        return Err(EAGAIN);
    }
    let pair = Pair::lock(source, target);
    // What is compared must stay as it is until it is shared, whoever writes to it through a
    // mapping.
    let _invalidate = InvalidatePair::lock(pair.first(), pair.second());
    if source.info().flags() & inode_flags::PREALLOC != 0 {
        // What is dirty may have no other space than what was preallocated for it, even outside of
        // the range, and that is not written to any more once a part of it is shared.
        flush(source, 0, i64::MAX as u64)?;
    }
    // SAFETY: The inodes are locked. The function writes back what is dirty in both ranges, and
    // takes privileges away.
    to_result(unsafe {
        bindings::generic_remap_file_range_prep(from, from_offset, to, to_offset, &mut len, flags)
    })?;
    if len == 0 {
        return Ok(0);
    }
    let (from_offset, to_offset, bytes) = (from_offset as u64, to_offset as u64, len as u64);
    let end = to_offset.checked_add(bytes).ok_or(EFBIG)?;
    let target = pair.second();
    if to_offset > target.size() {
        zero_tail(target)?;
        flush(&target, 0, i64::MAX as u64)?;
    } else {
        settle_end(target, target.size())?;
    }
    drop_cached(target, to_offset, end.next_multiple_of(BLOCK))?;
    let range = CloneRange {
        src: id(source),
        src_offset: from_offset,
        len: bytes.next_multiple_of(BLOCK),
        dst: id(&target),
        dst_offset: to_offset,
        dst_size: if dedupe { target.size() } else { end },
    };
    let item = clone_range(target.fs(), &range, (!dedupe).then(|| now(&[&target])))?;
    take_over_extents(&target, &item);
    if !dedupe && end > target.size() {
        // SAFETY: The inode is valid, and locked.
        unsafe { bindings::rbtrfs_inode_set_size(target.as_ptr(), end as i64) };
    }
    Ok(len)
}

/// Shares a range, and brings it to disk if one of the files was opened to be written
/// synchronously.
///
/// # Safety
///
/// As for [`remap_file_range`].
unsafe fn remap_and_sync(
    from: *mut bindings::file,
    from_offset: i64,
    to: *mut bindings::file,
    to_offset: i64,
    len: i64,
    flags: u32,
) -> Result<i64> {
    // SAFETY: By this function's contract.
    unsafe {
        let done = remap(from, from_offset, to, to_offset, len, flags)?;
        if done > 0 && (bindings::rbtrfs_file_is_sync(from) || bindings::rbtrfs_file_is_sync(to)) {
            fsync::sync(from)?;
            fsync::sync(to)?;
        }
        Ok(done)
    }
}

/// `file_operations::remap_file_range`.
///
/// # Safety
///
/// As the VFS calls it, for open files of one superblock of ours.
pub(super) unsafe extern "C" fn remap_file_range(
    from: *mut bindings::file,
    from_offset: i64,
    to: *mut bindings::file,
    to_offset: i64,
    len: i64,
    flags: kernel::ffi::c_uint,
) -> i64 {
    // SAFETY: By this function's contract.
    match unsafe { remap_and_sync(from, from_offset, to, to_offset, len, flags) } {
        Ok(len) => len,
        Err(e) => i64::from(e.to_errno()),
    }
}
