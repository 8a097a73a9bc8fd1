// SPDX-License-Identifier: GPL-2.0
//! Inodes that leave memory, for good if they have no names left.

use super::attributes::id;
use super::inode::{info_ptr, Inode, InodeRef};
use super::super_block::SuperBlock;
use crate::bindings;
use crate::fs_warn;
use crate::subvol::write;
use core::ptr::NonNull;
use kernel::prelude::*;

/// `super_operations::drop_inode`: whether an inode that nobody uses is of no use.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours.
pub(super) unsafe extern "C" fn drop_inode(inode: *mut bindings::inode) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract. An inode that was not filled in has no subvolume, and is
    // dropped anyway.
    unsafe {
        if bindings::rbtrfs_inode_generic_drop(inode) {
            return 1;
        }
        i32::from(Inode::from_raw(inode).subvolume().is_deleted())
    }
}

/// `super_operations::evict_inode`.
///
/// # Safety
///
/// As the VFS calls it, for an inode that nobody uses; it may not be complete.
pub(super) unsafe extern "C" fn evict_inode(inode: *mut bindings::inode) {
    // SAFETY: By this function's contract.
    let gone = unsafe {
        bindings::truncate_inode_pages_final(&raw mut (*inode).i_data);
        // A bad inode was never filled in.
        !bindings::is_bad_inode(inode) && bindings::rbtrfs_inode_nlink(inode) == 0
    };
    if gone {
        // SAFETY: The inode is of ours and was complete.
        let inode = unsafe { Inode::from_raw(inode) };
        if !inode.is_stub() {
            delete(inode);
        }
    }
    // SAFETY: The pages are gone. An inode that was not filled in is in no subvolume; one that is
    // goes but once.
    unsafe {
        bindings::clear_inode(inode);
        let subvolume = (*info_ptr(inode)).subvolume;
        if !subvolume.is_null() && (*subvolume).leave() {
            SuperBlock::from_raw((*inode).i_sb).volume().wake_cleaner();
        }
    }
}

fn delete(inode: &Inode) {
    if let Some(reserved) = inode.reserved() {
        drop(reserved.take(0, i64::MAX as u64));
    }
    let fs = inode.fs();
    // A read-only volume keeps its orphans until it is mounted for writing.
    if fs.is_read_only() {
        return;
    }
    let sb = inode.super_block().as_ptr();
    // SAFETY: The superblock is valid; the permission is given back below.
    unsafe { bindings::rbtrfs_start_internal(sb) };
    match write::evict(fs, id(inode)) {
        Ok(()) => (),
        // Its subvolume is being deleted, and takes it along.
        Err(e) if e == ENOENT || e == EROFS => (),
        Err(e) => fs_warn!(
            fs,
            "inode {} of tree {} is left as an orphan: {}",
            inode.info().ino,
            inode.info().tree,
            e.to_errno()
        ),
    }
    // SAFETY: As above.
    unsafe { bindings::rbtrfs_end_internal(sb) };
}

/// Has the inodes of deleted subvolumes that nobody uses leave memory, so that their trees can be
/// dropped. Names that were looked up in directories that are open keep theirs, and are forgotten.
///
/// # Safety
///
/// The superblock stays until this returns, and the caller holds nothing that evicting an inode
/// takes.
pub(super) unsafe fn evict_deleted(sb: &SuperBlock) {
    if !sb.volume().subvolumes().has_deleted_in_use() {
        return;
    }
    let mut last: Option<InodeRef> = None;
    loop {
        let from = last
            .as_ref()
            .map_or(core::ptr::null_mut(), |inode| inode.as_ptr());
        // SAFETY: The superblock is valid, and the inode referenced.
        let next = unsafe { bindings::rbtrfs_next_inode(sb.as_ptr(), from) };
        let Some(next) = NonNull::new(next) else {
            return;
        };
        // SAFETY: The reference is ours, and the inode complete. Dropping the last one asks
        // `drop_inode`, which returns what is to go.
        let inode = unsafe { InodeRef::from_raw(next) };
        if inode.subvolume().is_deleted() {
            // SAFETY: The inode is valid, and so is its dentry until the reference is given back.
            unsafe {
                let dentry = bindings::d_find_any_alias(inode.as_ptr());
                if !dentry.is_null() {
                    bindings::shrink_dcache_parent(dentry);
                    bindings::dput(dentry);
                }
                bindings::d_prune_aliases(inode.as_ptr());
            }
        }
        last = Some(inode);
        crate::platform::yield_now();
    }
}
