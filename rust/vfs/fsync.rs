// SPDX-License-Identifier: GPL-2.0
//! `fsync`, `fdatasync` and `sync`: to disk with what was changed, by a commit.

use super::inode::Inode;
use super::super_block::SuperBlock;
use crate::bindings;
use kernel::error::{from_result, to_result};

/// `file_operations::fsync`. Of a file that the last commit shows as it is, nothing is left to be done.
///
/// # Safety
///
/// As the VFS calls it, for an open file of ours.
pub(super) unsafe extern "C" fn fsync(
    file: *mut bindings::file,
    start: i64,
    end: i64,
    _datasync: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The VFS passes a file that is open.
        let inode = unsafe { Inode::of_file(file) };
        // SAFETY: As above.
        to_result(unsafe { bindings::file_write_and_wait_range(file, start, end) })?;
        // Times of a write that are still only in memory.
        // SAFETY: The inode is valid.
        to_result(unsafe { bindings::sync_inode_metadata(inode.as_ptr(), 1) })?;
        inode.fs().commit_upto(inode.changed())?;
        Ok(0)
    })
}

/// `super_operations::sync_fs`. The VFS has written inodes and their data back before it waits.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of ours.
pub(super) unsafe extern "C" fn sync_fs(
    sb: *mut bindings::super_block,
    wait: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    if wait == 0 {
        return 0;
    }
    // SAFETY: By this function's contract.
    let fs = unsafe { SuperBlock::from_raw(sb) }.volume().fs();
    if fs.is_read_only() {
        return 0;
    }
    from_result(|| fs.commit().map(|()| 0))
}
