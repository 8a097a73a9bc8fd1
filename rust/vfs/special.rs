// SPDX-License-Identifier: GPL-2.0
//! Device files, pipes and sockets; and the attributes that `lsattr` shows, which all inodes have.

use super::inode::{self, Inode};
use super::table::Table;
use crate::bindings;
use crate::format::inode::inode_flags;

pub(super) static INODE_OPERATIONS: Table<bindings::inode_operations> = Table::new(inode::COMMON);

/// `inode_operations::fileattr_get`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours.
pub(super) unsafe extern "C" fn fileattr_get(
    dentry: *mut bindings::dentry,
    attr: *mut kernel::bindings::file_kattr,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes a dentry that it holds.
    let flags = unsafe { Inode::of_dentry(dentry) }.info().flags();
    let mut shown = 0;
    for (flag, bit) in [
        (inode_flags::SYNC, bindings::FS_SYNC_FL),
        (inode_flags::IMMUTABLE, bindings::FS_IMMUTABLE_FL),
        (inode_flags::APPEND, bindings::FS_APPEND_FL),
        (inode_flags::NODUMP, bindings::FS_NODUMP_FL),
        (inode_flags::NOATIME, bindings::FS_NOATIME_FL),
        (inode_flags::DIRSYNC, bindings::FS_DIRSYNC_FL),
        (inode_flags::NODATACOW, bindings::FS_NOCOW_FL),
        (inode_flags::RO_VERITY, bindings::FS_VERITY_FL),
    ] {
        if flags & flag != 0 {
            shown |= bit;
        }
    }
    if flags & inode_flags::NOCOMPRESS != 0 {
        shown |= bindings::FS_NOCOMP_FL;
    } else if flags & inode_flags::COMPRESS != 0 {
        shown |= bindings::FS_COMPR_FL;
    }
    // SAFETY: The VFS passes a structure to be filled in; the kernel crate knows it by name alone.
    unsafe { bindings::fileattr_fill_flags(attr.cast(), shown) };
    0
}
