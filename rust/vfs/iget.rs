// SPDX-License-Identifier: GPL-2.0
//! Inodes on their way into memory: read from a subvolume's tree, or just made.

use super::delalloc::Delalloc;
use super::inode::{
    info_ptr, running_view, Inode, InodeRef, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT,
    S_IFREG, S_IFSOCK,
};
use super::subvolume::{Entered, Subvolume};
use super::super_block::SuperBlock;
use super::{attributes, dir, file, page_cache, special, symlink};
use crate::bindings;
use crate::format::inode::InodeItem;
use crate::format::tree_id;
use crate::subvol;
use crate::trans::View;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::Atomic;

/// What identifies an inode within a superblock.
struct Id {
    tree: u64,
    ino: u64,
}

impl Id {
    fn hash(&self) -> u64 {
        self.ino ^ self.tree.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// # Safety
///
/// `inode` is one of ours, `id` points to an [`Id`]; the caller holds the inode hash lock.
unsafe extern "C" fn test(
    inode: *mut bindings::inode,
    id: *mut kernel::ffi::c_void,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    let id = unsafe { &*id.cast::<Id>() };
    // SAFETY: The inode is in the hash, so `set` has run. These two fields are written there alone,
    // so that reading them does not race with `iget` filling in the others.
    unsafe {
        let info = info_ptr(inode);
        i32::from((*info).tree == id.tree && (*info).ino == id.ino)
    }
}

/// # Safety
///
/// As for [`test`]; nobody else knows `inode` yet.
unsafe extern "C" fn set(
    inode: *mut bindings::inode,
    id: *mut kernel::ffi::c_void,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    let id = unsafe { &*id.cast::<Id>() };
    // SAFETY: The inode is not in the hash yet, so it is ours alone.
    unsafe {
        let info = info_ptr(inode);
        (*info).tree = id.tree;
        (*info).ino = id.ino;
        (*inode).i_ino = id.ino;
    }
    0
}

/// Fills in what a kind of inode works by.
///
/// # Errors
///
/// `EUCLEAN` if there is no such kind, or no such device number; `ENOMEM`.
///
/// # Safety
///
/// `inode` is one of ours with its mode set, and nobody else uses it yet. This is called once.
unsafe fn set_operations(inode: *mut bindings::inode, rdev: u64) -> Result {
    // SAFETY: By this function's contract.
    let mode = unsafe { (*inode).i_mode };
    match u32::from(mode) & S_IFMT {
        // SAFETY: The inode is ours alone and the tables are statics.
        S_IFREG => unsafe {
            let reserved = Pin::into_inner_unchecked(Delalloc::new()?);
            (*info_ptr(inode)).reserved = KBox::into_raw(reserved);
            bindings::rbtrfs_inode_stable_writes(inode);
            (*inode).i_op = file::INODE_OPERATIONS.as_ptr();
            bindings::rbtrfs_inode_set_fop(inode, file::FILE_OPERATIONS.as_ptr());
            (*(*inode).i_mapping).a_ops = page_cache::OPERATIONS.as_ptr();
            bindings::rbtrfs_inode_no_highmem(inode);
            bindings::rbtrfs_inode_enable_large_folios(inode);
        },
        // SAFETY: As above.
        S_IFDIR => unsafe {
            (*inode).i_op = dir::INODE_OPERATIONS.as_ptr();
            bindings::rbtrfs_inode_set_fop(inode, dir::FILE_OPERATIONS.as_ptr());
        },
        // SAFETY: As above.
        S_IFLNK => unsafe {
            (*inode).i_op = symlink::INODE_OPERATIONS.as_ptr();
        },
        S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK => {
            let dev = u32::try_from(rdev).map_err(|_| EUCLEAN)?;
            // SAFETY: As above.
            unsafe {
                (*inode).i_op = special::INODE_OPERATIONS.as_ptr();
                bindings::init_special_inode(inode, mode, dev);
            }
        }
        _ => return Err(EUCLEAN),
    }
    Ok(())
}

/// Fills in what an inode item says, but for the mode, and has the inode be in its subvolume.
///
/// # Errors
///
/// `EUCLEAN` if the item makes no sense.
///
/// # Safety
///
/// `inode` is one of ours, and nobody else uses it yet. This is called once.
unsafe fn set_item(
    inode: *mut bindings::inode,
    item: &InodeItem,
    subvolume: Entered<'_>,
) -> Result {
    let size = i64::try_from(item.size.get()).map_err(|_| EUCLEAN)?;
    let nbytes = i64::try_from(item.nbytes.get()).map_err(|_| EUCLEAN)?;
    let flags = item.flags.get();
    // SAFETY: By this function's contract the inode and its data are ours to fill.
    unsafe {
        let info = info_ptr(inode);
        (*info).subvolume = subvolume.keep();
        (*info).flags = Atomic::new(flags);
        (*info).nbytes = Atomic::new(item.nbytes.get());
        (*info).disk_size = Atomic::new(item.size.get());
        (*info).changed = Atomic::new(item.transid.get());
        (*info).created = (item.otime.sec.get() as i64, item.otime.nsec.get());

        (*inode).i_generation = item.generation.get() as u32;
        bindings::set_nlink(inode, item.nlink.get());
        bindings::rbtrfs_inode_set_owner(inode, item.uid.get(), item.gid.get());
        bindings::rbtrfs_inode_set_size(inode, size);
        bindings::inode_set_bytes(inode, nbytes);
        bindings::rbtrfs_inode_set_times(
            inode,
            item.atime.sec.get() as i64,
            item.atime.nsec.get(),
            item.mtime.sec.get() as i64,
            item.mtime.nsec.get(),
            item.ctime.sec.get() as i64,
            item.ctime.nsec.get(),
        );
        bindings::rbtrfs_inode_set_version(inode, item.sequence.get());
        attributes::set_vfs_flags(inode, flags);
    }
    Ok(())
}

/// An inode that is in the hash but not yet filled in (`I_NEW`); dropping it makes waiters fail.
struct Filling(NonNull<bindings::inode>);

impl Filling {
    fn as_ptr(&self) -> *mut bindings::inode {
        self.0.as_ptr()
    }

    /// # Safety
    ///
    /// The inode is complete.
    unsafe fn finish(self) -> InodeRef {
        let inode = self.0;
        core::mem::forget(self);
        // SAFETY: By this function's contract; from here on it is shared.
        unsafe {
            bindings::unlock_new_inode(inode.as_ptr());
            InodeRef::from_raw(inode)
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        // SAFETY: The inode is `I_NEW` and the reference ours; this marks it bad and wakes who
        // waits.
        unsafe { bindings::iget_failed(self.0.as_ptr()) }
    }
}

/// The inode `ino` of the subvolume `tree`, from the cache or from its tree. No view may be held:
/// whoever else reads the inode is waited for.
///
/// # Errors
///
/// `ENOENT` if there is none, or none but an orphan that an earlier mount left; `EUCLEAN` if its
/// item makes no sense, `ENOMEM`, or what reading gives.
pub(super) fn iget(sb: &SuperBlock, tree: u64, ino: u64) -> Result<InodeRef> {
    let mut id = Id { tree, ino };
    // SAFETY: The callbacks take the pointer for what it is, and do not keep it.
    let inode = unsafe {
        bindings::iget5_locked(
            sb.as_ptr(),
            id.hash(),
            Some(test),
            Some(set),
            (&raw mut id).cast(),
        )
    };
    let found = NonNull::new(inode).ok_or(ENOMEM)?;
    // SAFETY: The inode is referenced.
    unsafe {
        if !bindings::rbtrfs_inode_is_new(inode) {
            return Ok(InodeRef::from_raw(found));
        }
    }
    let new = Filling(found);
    let subvolume = enter(sb, tree)?;
    clean(sb, &subvolume, tree)?;
    let item = {
        let view = running_view(sb.volume().fs(), &[tree])?;
        subvol::inode::read(&*view, view.tree_root(tree)?, ino)?
    };
    if item.nlink.get() == 0 {
        // Inodes that lost their last name since the mount are in memory until they go.
        return Err(ENOENT);
    }
    // SAFETY: The inode is `I_NEW`, so that it is ours to fill, and complete after this.
    unsafe {
        set_item(new.as_ptr(), &item, subvolume)?;
        (*new.as_ptr()).i_mode = item.mode.get() as bindings::umode_t;
        set_operations(new.as_ptr(), item.rdev.get())?;
        Ok(new.finish())
    }
}

/// The inode `ino` of the subvolume `tree`, if it is in memory, complete, and not about to leave.
/// Waits for nothing.
pub(super) fn find(sb: &SuperBlock, tree: u64, ino: u64) -> Option<InodeRef> {
    let mut id = Id { tree, ino };
    // SAFETY: The callback takes the pointer for what it is. A complete inode that is found comes
    // with a reference.
    unsafe {
        let data = (&raw mut id).cast();
        let inode = bindings::rbtrfs_find_inode(sb.as_ptr(), id.hash(), Some(test), data);
        Some(InodeRef::from_raw(NonNull::new(inode)?))
    }
}

/// Keeps the subvolume `tree` from being dropped.
///
/// # Errors
///
/// `ENOENT` if there is none, or if it was deleted and nobody had anything in it open.
fn enter(sb: &SuperBlock, tree: u64) -> Result<Entered<'_>> {
    let subvolumes = sb.volume().subvolumes();
    if let Some(known) = subvolumes.find(tree) {
        return known.enter();
    }
    let item = running_view(sb.volume().fs(), &[tree_id::ROOT])?.tree_root_item(tree)?;
    if item.is_dead() {
        return Err(ENOENT);
    }
    subvolumes.get(tree, item.is_read_only())?.enter()
}

/// Deletes the orphans of a subvolume that is looked at for the first time since it can be written.
fn clean(sb: &SuperBlock, subvolume: &Subvolume, tree: u64) -> Result {
    let fs = sb.volume().fs();
    if fs.is_read_only() || subvolume.is_read_only() {
        return Ok(());
    }
    // SAFETY: The superblock is valid; the permission is given back below.
    if !unsafe { bindings::rbtrfs_try_start_internal(sb.as_ptr()) } {
        // It is frozen: the next one does it.
        return Ok(());
    }
    let cleaned = if subvolume.take_cleaning() {
        subvol::write::clean_orphans(fs, tree)
    } else {
        Ok(())
    };
    // SAFETY: As above.
    unsafe { bindings::rbtrfs_end_internal(sb.as_ptr()) };
    cleaned
}

/// An inode in memory for something that is about to be made; nobody can find it yet.
pub(super) struct Unmade<'a> {
    inode: NonNull<bindings::inode>,
    sb: &'a SuperBlock,
}

impl<'a> Unmade<'a> {
    /// # Errors
    ///
    /// `ENOMEM`, `EUCLEAN` if the mode is none.
    pub(super) fn new(
        sb: &'a SuperBlock,
        mode: u32,
        rdev: u32,
        (uid, gid): (u32, u32),
    ) -> Result<Self> {
        // SAFETY: The superblock is valid.
        let inode = NonNull::new(unsafe { bindings::new_inode(sb.as_ptr()) }).ok_or(ENOMEM)?;
        let unmade = Self { inode, sb };
        // SAFETY: The inode is in no hash, so that it is ours alone.
        unsafe {
            (*inode.as_ptr()).i_mode = mode as bindings::umode_t;
            bindings::rbtrfs_inode_set_owner(inode.as_ptr(), uid, gid);
            set_operations(inode.as_ptr(), u64::from(rdev))?;
        }
        Ok(unmade)
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.inode.as_ptr()
    }

    /// Makes it the inode `ino` in the subvolume of `dir`, where it was made with this item.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and what reading gives.
    pub(super) fn made(self, dir: &Inode, ino: u64, item: &InodeItem) -> Result<InodeRef> {
        let (inode, sb, tree) = (self.inode, self.sb, dir.info().tree);
        let subvolume = dir.subvolume().enter()?;
        let mut id = Id { tree, ino };
        // SAFETY: The inode is ours alone, and the callback takes the pointer for what it is.
        let inserted = to_result(unsafe {
            set(inode.as_ptr(), (&raw mut id).cast());
            let data = (&raw mut id).cast();
            bindings::insert_inode_locked4(inode.as_ptr(), id.hash(), Some(test), data)
        });
        if inserted.is_err() {
            // Somebody guessed its number, and was faster.
            drop(self);
            return iget(sb, tree, ino);
        }
        core::mem::forget(self);
        let new = Filling(inode);
        // SAFETY: The inode is `I_NEW`, and complete after this.
        unsafe {
            set_item(new.as_ptr(), item, subvolume)?;
            Ok(new.finish())
        }
    }
}

impl Drop for Unmade<'_> {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, and the inode in no hash, so that it goes.
        unsafe { bindings::iput(self.inode.as_ptr()) }
    }
}
