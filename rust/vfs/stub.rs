// SPDX-License-Identifier: GPL-2.0
//! Stub directories: what an entry for a subvolume leads to where that subvolume is not. In a
//! snapshot, those are the entries for subvolumes within its source (`new_simple_dir`).
//!
//! A stub has no inode item. It is empty, nothing can be made in it and it has no extended
//! attributes. What `chmod`, `chown` and `utimes` change is forgotten with the dentry, as soon as
//! nobody uses it; they succeed all the same, also in a read-only subvolume, so that `chown -R`
//! over a snapshot does.

use super::inode::{info_ptr, Inode, InodeRef, S_IFDIR};
use super::table::Table;
use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// The number that all stubs have (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`).
pub(super) const INO: u64 = crate::format::objectid::EMPTY_SUBVOL_DIR;

/// A new stub in the directory `parent`.
///
/// # Errors
///
/// `ENOMEM`; `ENOENT` if the subvolume is being dropped.
pub(super) fn new(parent: &Inode) -> Result<InodeRef> {
    const MODE: u32 = S_IFDIR | 0o755;
    let subvolume = parent.subvolume().enter()?;
    // SAFETY: The superblock is valid.
    let inode = unsafe { bindings::new_inode(parent.super_block().as_ptr()) };
    let found = NonNull::new(inode).ok_or(ENOMEM)?;
    let now = crate::platform::now();
    // SAFETY: The inode is in no hash, so it is ours alone until it is returned. The kernel's
    // tables are statics.
    unsafe {
        let info = info_ptr(inode);
        (*info).tree = parent.info().tree;
        (*info).subvolume = subvolume.keep();
        (*info).ino = INO;
        (*inode).i_ino = INO;
        (*inode).i_mode = MODE as bindings::umode_t;
        (*inode).i_op = INODE_OPERATIONS.as_ptr();
        bindings::rbtrfs_inode_no_xattrs(inode);
        bindings::rbtrfs_inode_set_fop(inode, &raw const bindings::simple_dir_operations);
        bindings::rbtrfs_inode_inherit_owner(inode, parent.as_ptr());
        bindings::rbtrfs_inode_set_times(inode, now.0, now.1, now.0, now.1, now.0, now.1);
        bindings::inode_set_flags(inode, bindings::S_NOATIME, bindings::S_NOATIME);
        Ok(InodeRef::from_raw(found))
    }
}

/// `inode_operations::getattr`: a stub is in none of the subvolumes, and nothing is known of when
/// it was made.
///
/// # Safety
///
/// As the VFS calls it, for a stub.
unsafe extern "C" fn getattr(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    mask: u32,
    _flags: kernel::ffi::c_uint,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes a path that it holds, and a `kstat` to be filled in.
    unsafe {
        let inode = Inode::of_dentry((*path).dentry);
        bindings::generic_fillattr(idmap, mask, inode.as_ptr(), stat);
        (*stat).dev = inode.super_block().volume().dev();
    }
    0
}

static INODE_OPERATIONS: Table<bindings::inode_operations> =
    Table::new(bindings::inode_operations {
        lookup: Some(bindings::simple_lookup),
        getattr: Some(getattr),
        ..pin_init::zeroed()
    });
