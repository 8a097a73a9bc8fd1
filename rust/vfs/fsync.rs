// SPDX-License-Identifier: GPL-2.0
//! `fsync`, `fdatasync` and `sync`: to disk with what was changed, by the log or by a commit.

use super::inode::Inode;
use super::super_block::SuperBlock;
use crate::bindings;
use crate::log;
use crate::subvol::write::InodeId;
use kernel::error::{from_result, to_result};
use kernel::prelude::*;

/// Brings a file to disk. Of one that the last commit shows as it is, nothing is left to be done.
///
/// # Errors
///
/// `EIO` if the volume was shut down; what writing its data gives, and those of a commit.
///
/// # Safety
///
/// `file` is open, and ours.
pub(super) unsafe fn sync(file: *mut bindings::file) -> Result {
    // SAFETY: By this function's contract.
    let inode = unsafe { Inode::of_file(file) };
    inode.fs().check_shut_down()?;
    // SAFETY: As above.
    to_result(unsafe { bindings::file_write_and_wait_range(file, 0, i64::MAX) })?;
    // Times of a write that are still only in memory.
    // SAFETY: The inode is valid.
    to_result(unsafe { bindings::sync_inode_metadata(inode.as_ptr(), 1) })?;
    let id = InodeId {
        tree: inode.info().tree,
        ino: inode.info().ino,
    };
    if !inode.super_block().volume().settings().tree_log {
        return inode.fs().commit_up_to(inode.changed());
    }
    log::sync_inode(inode.fs(), id, inode.changed())
}

/// `file_operations::fsync`. All of the file is written, whatever the range that was asked for: the
/// commit shows its new size, and up to there nothing is to be missing that was written before.
///
/// # Safety
///
/// As the VFS calls it, for an open file of ours.
pub(super) unsafe extern "C" fn fsync(
    file: *mut bindings::file,
    _start: i64,
    _end: i64,
    _datasync: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { sync(file) }.map(|()| 0))
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
    from_result(|| {
        // What was lost with a transaction that failed is not on the disk.
        fs.check_failed()?;
        if !fs.is_read_only() {
            fs.commit()?;
        }
        Ok(0)
    })
}
