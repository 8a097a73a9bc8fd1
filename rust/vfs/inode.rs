// SPDX-License-Identifier: GPL-2.0
//! Inodes in memory, and their cache. `iget` fills them in.
//!
//! Each inode carries an [`InodeInfo`] beside the VFS's part, valid from the moment the memory is
//! allocated: an inode that loses the race to be inserted, or that is freed half-built, needs no
//! care. Its plain fields are written only while the inode is `I_NEW`; what changes after is
//! atomic.
//!
//! The size, times, owner and mode of an inode in memory are the VFS's; those in the tree follow. A
//! regular file's size in the tree grows when its data is on disk. All other changes go to the tree
//! first and are taken over from it.

use super::delalloc::Delalloc;
use super::subvolume::Subvolume;
use super::super_block::SuperBlock;
use super::{attributes, stub, xattr};
use crate::bindings;
use crate::format::inode::inode_flags;
use crate::platform::NofsScope;
use crate::subvol::defrag::Recompress;
use crate::trans::{RunningView, View};
use crate::tree::TreeRoot;
use crate::volume::Fs;
use core::cell::UnsafeCell;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::types::Opaque;

/// The number of a subvolume's root directory.
pub(super) const ROOT_DIR: u64 = 256;

/// What rbtrfs keeps for an inode.
pub(super) struct InodeInfo {
    /// The subvolume's tree; that of the parent for a stub directory.
    pub(super) tree: u64,
    /// The number within the subvolume.
    pub(super) ino: u64,
    /// The subvolume; null until the inode is filled in. It lives as long as the volume.
    pub(super) subvolume: *const Subvolume,
    /// When it was made: seconds and nanoseconds.
    pub(super) created: (i64, u32),
    pub(super) flags: Atomic<u64>,
    pub(super) nbytes: Atomic<u64>,
    pub(super) disk_size: Atomic<u64>,
    pub(super) changed: Atomic<u64>,
    /// Whether its contents are being replaced: one of the states of `replace.rs`.
    pub(super) replacing: Atomic<u32>,
    /// How a defragmentation that runs compresses its data, as [`Recompress::to_bits`] says it.
    pub(super) recompress: Atomic<u32>,
    /// Of a regular file: a box that `destroy_inode` frees.
    pub(super) reserved: *mut Delalloc,
}

impl InodeInfo {
    const fn new() -> Self {
        Self {
            tree: 0,
            ino: 0,
            subvolume: core::ptr::null(),
            created: (0, 0),
            flags: Atomic::new(0),
            nbytes: Atomic::new(0),
            disk_size: Atomic::new(0),
            changed: Atomic::new(0),
            replacing: Atomic::new(0),
            recompress: Atomic::new(0),
            reserved: core::ptr::null_mut(),
        }
    }

    /// `BTRFS_INODE_*` flags.
    pub(super) fn flags(&self) -> u64 {
        self.flags.load(Relaxed)
    }

    /// Bytes that its extents take up.
    pub(super) fn nbytes(&self) -> u64 {
        self.nbytes.load(Relaxed)
    }

    /// The size that a regular file has in its tree, in bytes: after it there is only what was
    /// preallocated.
    pub(super) fn disk_size(&self) -> u64 {
        self.disk_size.load(Relaxed)
    }
}

/// One object of the inode cache.
#[repr(C)]
struct Container {
    info: UnsafeCell<InodeInfo>,
    vfs: Opaque<bindings::inode>,
}

/// An inode of an rbtrfs superblock.
///
/// # Invariants
///
/// It is the `vfs` field of a [`Container`], its superblock is a [`SuperBlock`], and it is no
/// longer `I_NEW`.
#[repr(transparent)]
pub(super) struct Inode(Opaque<bindings::inode>);

impl Inode {
    /// # Safety
    ///
    /// `ptr` is an inode of an rbtrfs superblock, not `I_NEW`, and is referenced for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::inode) -> &'a Self {
        // SAFETY: By this function's contract; the type is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    /// # Safety
    ///
    /// `dentry` is a positive dentry of an rbtrfs superblock and is referenced for `'a`.
    pub(super) unsafe fn of_dentry<'a>(dentry: *const bindings::dentry) -> &'a Self {
        // SAFETY: A dentry in use pins its inode, and the dcache only holds inodes that are
        // complete.
        unsafe { Self::from_raw(bindings::rbtrfs_d_inode(dentry)) }
    }

    /// # Safety
    ///
    /// `file` is an open file of an rbtrfs superblock and stays open for `'a`.
    pub(super) unsafe fn of_file<'a>(file: *const bindings::file) -> &'a Self {
        // SAFETY: An open file pins its inode.
        unsafe { Self::from_raw(bindings::rbtrfs_file_inode(file)) }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.0.get()
    }

    pub(super) fn info(&self) -> &InodeInfo {
        // SAFETY: By the type invariant the inode is within a container, and no longer new, so that
        // the data is not written any more.
        unsafe { &*info_ptr(self.as_ptr()) }
    }

    pub(super) fn super_block(&self) -> &SuperBlock {
        // SAFETY: An inode is gone before its superblock is, and by the type invariant that is one
        // of ours.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).i_sb) }
    }

    pub(super) fn mode(&self) -> u32 {
        // SAFETY: The inode is valid. The type bits of a complete inode do not change.
        u32::from(unsafe { (*self.as_ptr()).i_mode })
    }

    pub(super) fn is_dir(&self) -> bool {
        self.mode() & S_IFMT == S_IFDIR
    }

    /// Whether it is a stub directory, which is in no tree.
    pub(super) fn is_stub(&self) -> bool {
        self.info().ino == stub::INO
    }

    pub(super) fn size(&self) -> u64 {
        // SAFETY: The inode is valid.
        let size = unsafe { bindings::rbtrfs_inode_size(self.as_ptr()) };
        u64::try_from(size).unwrap_or(0)
    }

    pub(super) fn fs(&self) -> &Fs {
        self.super_block().volume().fs()
    }

    /// The subvolume that it is in.
    pub(super) fn subvolume(&self) -> &Subvolume {
        // SAFETY: The pointer is set before the inode is complete, and what it leads to outlives
        // all inodes.
        unsafe { &*self.info().subvolume }
    }

    /// A view of the inode's tree as it is now. While it lives no other view may be taken, and
    /// nothing be waited for.
    pub(super) fn tree(&self) -> Result<(NofsRunningView<'_>, TreeRoot)> {
        let view = running_view(self.fs(), &[self.info().tree])?;
        let root = view.tree_root(self.info().tree)?;
        Ok((view, root))
    }

    /// The space that is reserved for the dirty data of a regular file.
    pub(super) fn reserved(&self) -> Option<&Delalloc> {
        // SAFETY: The pointer is null or of a box that lives until the inode is destroyed.
        unsafe { self.info().reserved.as_ref() }
    }

    /// The transaction that last changed the inode, its names or its data.
    pub(super) fn changed(&self) -> u64 {
        self.info().changed.load(Relaxed)
    }

    /// Notes that transaction `transid` changed the inode.
    pub(super) fn set_changed(&self, transid: u64) {
        self.info().changed.store(transid, Relaxed);
    }

    /// Notes how much space the inode's extents take up.
    pub(super) fn set_nbytes(&self, nbytes: u64) {
        self.info().nbytes.store(nbytes, Relaxed);
        if let Ok(nbytes) = i64::try_from(nbytes) {
            // SAFETY: The inode is valid; the function takes its lock.
            unsafe { bindings::inode_set_bytes(self.as_ptr(), nbytes) };
        }
    }

    /// Notes that the file may have preallocated space.
    pub(super) fn set_preallocated(&self) {
        let flags = self.info().flags();
        self.info()
            .flags
            .store(flags | inode_flags::PREALLOC, Relaxed);
    }

    /// Notes that the file's data does not become smaller by compression. The flag is stored with
    /// the next change of the inode.
    pub(super) fn set_incompressible(&self) {
        let flags = self.info().flags();
        self.info()
            .flags
            .store(flags | inode_flags::NOCOMPRESS, Relaxed);
    }

    /// How a defragmentation that runs compresses the file's data.
    pub(super) fn recompress(&self) -> Recompress {
        Recompress::from_bits(self.info().recompress.load(Relaxed))
    }

    /// See [`Self::recompress`].
    pub(super) fn set_recompress(&self, how: Recompress) {
        self.info().recompress.store(how.to_bits(), Relaxed);
    }

    /// Takes new `BTRFS_INODE_*` flags over.
    pub(super) fn set_flags(&self, flags: u64) {
        self.info().flags.store(flags, Relaxed);
        // SAFETY: The inode is valid.
        unsafe { attributes::set_vfs_flags(self.as_ptr(), flags) };
    }
}

/// A view of what is not committed, with NOFS in force.
pub(super) struct NofsRunningView<'fs> {
    // Dropped first: memory must not be waited for while the view holds the writer's mutex.
    running_view: RunningView<'fs>,
    _nofs: NofsScope,
}

impl<'fs> Deref for NofsRunningView<'fs> {
    type Target = RunningView<'fs>;

    fn deref(&self) -> &RunningView<'fs> {
        &self.running_view
    }
}

/// A view of some trees as they are now. See [`Fs::running_view_of`].
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn running_view<'fs>(fs: &'fs Fs, trees: &[u64]) -> Result<NofsRunningView<'fs>> {
    let nofs = NofsScope::enter();
    Ok(NofsRunningView {
        running_view: fs.running_view_of(trees)?,
        _nofs: nofs,
    })
}

/// A counted reference to an inode.
pub(super) struct InodeRef(NonNull<bindings::inode>);

impl InodeRef {
    /// # Safety
    ///
    /// The reference is the caller's to give, and the inode one of ours that is complete.
    pub(super) unsafe fn from_raw(inode: NonNull<bindings::inode>) -> Self {
        Self(inode)
    }

    /// Gives the reference away.
    pub(super) fn into_raw(self) -> *mut bindings::inode {
        let ptr = self.0.as_ptr();
        core::mem::forget(self);
        ptr
    }
}

impl core::ops::Deref for InodeRef {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        // SAFETY: The reference keeps the inode, and only complete inodes get one.
        unsafe { Inode::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for InodeRef {
    fn drop(&mut self) {
        // SAFETY: The reference is ours to drop.
        unsafe { bindings::iput(self.0.as_ptr()) }
    }
}

/// Where the data of an inode lies; only the pointer is made, nothing is read.
///
/// # Safety
///
/// `inode` points to the `vfs` field of a live [`Container`].
pub(super) unsafe fn info_ptr(inode: *mut bindings::inode) -> *mut InodeInfo {
    let vfs: *mut Opaque<bindings::inode> = inode.cast();
    // SAFETY: By this function's contract the result stays within the container.
    let container = unsafe { kernel::container_of!(vfs, Container, vfs) };
    // SAFETY: As above.
    unsafe { UnsafeCell::raw_get(&raw const (*container).info) }
}

pub(super) const S_IFMT: u32 = bindings::S_IFMT;
pub(super) const S_IFDIR: u32 = bindings::S_IFDIR;
pub(super) const S_IFREG: u32 = bindings::S_IFREG;
pub(super) const S_IFLNK: u32 = bindings::S_IFLNK;
pub(super) const S_IFCHR: u32 = bindings::S_IFCHR;
pub(super) const S_IFBLK: u32 = bindings::S_IFBLK;
pub(super) const S_IFIFO: u32 = bindings::S_IFIFO;
pub(super) const S_IFSOCK: u32 = bindings::S_IFSOCK;

/// The slab cache of inodes; there is one for the module.
pub(super) struct InodeCache(NonNull<bindings::kmem_cache>);

// SAFETY: Slab caches are made to be used from every thread.
unsafe impl Send for InodeCache {}
// SAFETY: As above.
unsafe impl Sync for InodeCache {}

/// Runs once for each object when its slab is made.
///
/// # Safety
///
/// `object` is memory of the cache's object size, which nothing uses yet.
unsafe extern "C" fn construct(object: *mut kernel::ffi::c_void) {
    let container: *mut Container = object.cast();
    // SAFETY: By this function's contract.
    unsafe {
        (*container).info = UnsafeCell::new(InodeInfo::new());
        bindings::inode_init_once((*container).vfs.get());
    }
}

impl InodeCache {
    pub(super) fn new() -> Result<Self> {
        // SAFETY: The constructor fits the size; the cache is destroyed when this is dropped.
        let cache = unsafe {
            bindings::rbtrfs_inode_cache_create(
                size_of::<Container>(),
                align_of::<Container>(),
                Some(construct),
            )
        };
        NonNull::new(cache).map(Self).ok_or(ENOMEM)
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::kmem_cache {
        self.0.as_ptr()
    }
}

impl Drop for InodeCache {
    fn drop(&mut self) {
        // SAFETY: The cache is ours. It goes after the filesystem was unregistered, when no
        // superblock is left; the helper waits for inodes that are being freed.
        unsafe { bindings::rbtrfs_inode_cache_destroy(self.0.as_ptr()) }
    }
}

/// `super_operations::alloc_inode`.
///
/// # Safety
///
/// `sb` is an rbtrfs superblock whose filesystem data is set.
pub(super) unsafe extern "C" fn alloc_inode(
    sb: *mut bindings::super_block,
) -> *mut bindings::inode {
    // SAFETY: By this function's contract.
    let cache = unsafe { SuperBlock::from_raw(sb) }.volume().inode_cache();
    // SAFETY: Both are valid.
    let container: *mut Container = unsafe { bindings::rbtrfs_inode_cache_alloc(sb, cache) }.cast();
    if container.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: The object is ours alone until it is returned.
    unsafe {
        (*container).info = UnsafeCell::new(InodeInfo::new());
        (*container).vfs.get()
    }
}

/// `super_operations::destroy_inode`: before the grace period, with the volume still there.
///
/// # Safety
///
/// `inode` came from [`alloc_inode`] and nothing but walks under RCU refers to it.
pub(super) unsafe extern "C" fn destroy_inode(inode: *mut bindings::inode) {
    // SAFETY: By this function's contract; such walks do not look at the field.
    let reserved =
        unsafe { core::mem::replace(&mut (*info_ptr(inode)).reserved, core::ptr::null_mut()) };
    if !reserved.is_null() {
        // SAFETY: `set_operations` made the pointer of a pinned box, which only this function
        // frees.
        drop(unsafe { Pin::new_unchecked(KBox::from_raw(reserved)) });
    }
}

/// `super_operations::free_inode`: after a grace period, maybe after the superblock is gone.
///
/// # Safety
///
/// `inode` came from [`alloc_inode`] and nothing refers to it.
pub(super) unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
    let vfs: *mut Opaque<bindings::inode> = inode.cast();
    // SAFETY: By this function's contract the inode is within a container.
    let container = unsafe { kernel::container_of!(vfs, Container, vfs) };
    // SAFETY: The slab allocator finds the cache of an object, and frees it once.
    unsafe { bindings::kfree(container.cast()) }
}

/// What all kinds of inodes have in common. Files and directories have attributes of `lsattr`
/// besides.
pub(super) const COMMON: bindings::inode_operations = bindings::inode_operations {
    getattr: Some(attributes::getattr),
    permission: Some(attributes::permission),
    setattr: Some(attributes::setattr),
    update_time: Some(attributes::update_time),
    listxattr: Some(xattr::list),
    get_inode_acl: Some(xattr::get_inode_acl),
    set_acl: Some(xattr::set_acl),
    ..pin_init::zeroed()
};
