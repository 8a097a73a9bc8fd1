// SPDX-License-Identifier: GPL-2.0
//! Inodes: their cache, how they are read from a subvolume's tree, and `stat`.
//!
//! Each inode carries an [`InodeInfo`] beside the VFS's part. It is plain data that is valid from the moment
//! the memory is allocated: an inode that loses the race to be inserted, or that is freed half-built, needs
//! no care. It is written only while the inode is `I_NEW` and never changes after.

use super::super_block::SuperBlock;
use super::{dir, file, page_cache, special, symlink, xattr};
use crate::bindings;
use crate::format::inode::{inode_flags, InodeItem};
use crate::subvol;
use crate::tree::TreeRoot;
use crate::volume::Reader;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The number of a subvolume's root directory.
pub(super) const ROOT_DIR: u64 = 256;
/// The number that the stand-in for a subvolume which is not there has.
pub(super) const STAND_IN: u64 = 2;

/// What rbtrfs keeps for an inode.
#[derive(Clone, Copy, Default)]
pub(super) struct InodeInfo {
    /// The subvolume's tree; that of the parent for a stand-in.
    pub(super) tree: u64,
    /// The number within the subvolume.
    pub(super) ino: u64,
    /// The device number that `stat` shows for the subvolume.
    pub(super) dev: u32,
    /// `BTRFS_INODE_*` flags.
    pub(super) flags: u64,
    /// Bytes that its extents take up.
    pub(super) nbytes: u64,
    /// When it was made: seconds and nanoseconds.
    pub(super) created: (i64, u32),
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
/// It is the `vfs` field of a [`Container`], its superblock is a [`SuperBlock`], and it is no longer `I_NEW`.
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
        // SAFETY: A dentry in use pins its inode, and the dcache only holds inodes that are complete.
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
        // SAFETY: By the type invariant the inode is within a container, and no longer new, so that the data
        // is not written any more.
        unsafe { &*info_ptr(self.as_ptr()) }
    }

    pub(super) fn super_block(&self) -> &SuperBlock {
        // SAFETY: An inode is gone before its superblock is, and by the type invariant that is one of ours.
        unsafe { SuperBlock::from_raw((*self.as_ptr()).i_sb) }
    }

    pub(super) fn mode(&self) -> u32 {
        // SAFETY: The inode is valid. The type bits of a complete inode do not change.
        u32::from(unsafe { (*self.as_ptr()).i_mode })
    }

    pub(super) fn is_dir(&self) -> bool {
        self.mode() & S_IFMT == S_IFDIR
    }

    pub(super) fn is_stand_in(&self) -> bool {
        self.info().ino == STAND_IN
    }

    pub(super) fn size(&self) -> u64 {
        // SAFETY: The inode is valid.
        let size = unsafe { bindings::rbtrfs_inode_size(self.as_ptr()) };
        u64::try_from(size).unwrap_or(0)
    }

    /// A view of the last commit and the inode's tree within it.
    pub(super) fn tree(&self) -> Result<(Reader, TreeRoot)> {
        let reader = self.super_block().volume().fs().reader()?;
        let root = reader.root(self.info().tree)?;
        Ok((reader, root))
    }
}

/// A counted reference to an inode.
pub(super) struct InodeRef(NonNull<bindings::inode>);

impl InodeRef {
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
unsafe fn info_ptr(inode: *mut bindings::inode) -> *mut InodeInfo {
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
const S_IFCHR: u32 = bindings::S_IFCHR;
const S_IFBLK: u32 = bindings::S_IFBLK;
const S_IFIFO: u32 = bindings::S_IFIFO;
const S_IFSOCK: u32 = bindings::S_IFSOCK;

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
        (*container).info = UnsafeCell::new(InodeInfo::default());
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
        // SAFETY: The cache is ours. It goes after the filesystem was unregistered, when no superblock is left;
        // the helper waits for inodes that are being freed.
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
        (*container).info = UnsafeCell::new(InodeInfo::default());
        (*container).vfs.get()
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
    // SAFETY: `iget` passed the pointer.
    let id = unsafe { &*id.cast::<Id>() };
    // SAFETY: The inode is in the hash, so `set` has run. These two fields are written there alone, so that
    // reading them does not race with `iget` filling in the others.
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
    // SAFETY: `iget` passed the pointer.
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

/// An inode that is in the hash but not yet filled in; dropping it makes waiters fail.
struct NewInode<'a> {
    inode: *mut bindings::inode,
    sb: &'a SuperBlock,
}

impl NewInode<'_> {
    fn set_common(&mut self, item: &InodeItem, dev: u32) -> Result {
        let size = i64::try_from(item.size.get()).map_err(|_| EUCLEAN)?;
        let nbytes = i64::try_from(item.nbytes.get()).map_err(|_| EUCLEAN)?;
        let flags = item.flags.get();
        let mut vfs_flags = bindings::S_NOATIME;
        for (flag, bit) in [
            (inode_flags::SYNC, bindings::S_SYNC),
            (inode_flags::IMMUTABLE, bindings::S_IMMUTABLE),
            (inode_flags::APPEND, bindings::S_APPEND),
            (inode_flags::DIRSYNC, bindings::S_DIRSYNC),
        ] {
            if flags & flag != 0 {
                vfs_flags |= bit;
            }
        }
        let inode = self.inode;
        // SAFETY: The inode is `I_NEW`, so it and its data are ours to fill.
        unsafe {
            let info = info_ptr(inode);
            (*info).dev = dev;
            (*info).flags = flags;
            (*info).nbytes = item.nbytes.get();
            (*info).created = (item.otime.sec.get() as i64, item.otime.nsec.get());

            (*inode).i_mode = item.mode.get() as bindings::umode_t;
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
            bindings::inode_set_flags(inode, vfs_flags, vfs_flags);
        }
        Ok(())
    }

    fn set_operations(&mut self, item: &InodeItem) -> Result {
        let inode = self.inode;
        match item.mode.get() & S_IFMT {
            // SAFETY: The inode is `I_NEW` and the tables are statics.
            S_IFREG => unsafe {
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
                let dev = u32::try_from(item.rdev.get()).map_err(|_| EUCLEAN)?;
                // SAFETY: As above.
                unsafe {
                    (*inode).i_op = special::INODE_OPERATIONS.as_ptr();
                    bindings::init_special_inode(inode, (*inode).i_mode, dev);
                }
            }
            _ => return Err(EUCLEAN),
        }
        Ok(())
    }

    fn finish(self) -> InodeRef {
        let inode = self.inode;
        core::mem::forget(self);
        // SAFETY: The inode is complete; from here on it is shared.
        unsafe { bindings::unlock_new_inode(inode) };
        // SAFETY: `iget5_locked` returned it, so it is not null, with a reference that is ours.
        InodeRef(unsafe { NonNull::new_unchecked(inode) })
    }
}

impl Drop for NewInode<'_> {
    fn drop(&mut self) {
        // SAFETY: The inode is `I_NEW` and the reference ours; this marks it bad and wakes who waits.
        unsafe { bindings::iget_failed(self.inode) }
    }
}

/// The inode `ino` of the subvolume `root`, from the cache or from disk.
///
/// # Errors
///
/// `ENOENT` if there is none, `EUCLEAN` if its item makes no sense, `ENOMEM`, or what reading gives.
pub(super) fn iget(sb: &SuperBlock, reader: &Reader, root: TreeRoot, ino: u64) -> Result<InodeRef> {
    let mut id = Id { tree: root.id, ino };
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
    if !unsafe { bindings::rbtrfs_inode_is_new(inode) } {
        return Ok(InodeRef(found));
    }
    let mut new = NewInode { inode, sb };
    let item = subvol::inode::read(reader, root, ino)?;
    let dev = new.sb.volume().subvol_dev(root.id)?;
    new.set_common(&item, dev)?;
    new.set_operations(&item)?;
    Ok(new.finish())
}

/// An empty directory in the place of a subvolume that is not there: in a snapshot, those within its source.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn stand_in(parent: &Inode) -> Result<InodeRef> {
    const MODE: u32 = S_IFDIR | 0o755;
    // SAFETY: The superblock is valid.
    let inode = unsafe { bindings::new_inode(parent.super_block().as_ptr()) };
    let found = NonNull::new(inode).ok_or(ENOMEM)?;
    let now = crate::platform::now();
    // SAFETY: The inode is in no hash, so it is ours alone until it is returned.
    unsafe {
        let info = info_ptr(inode);
        (*info).tree = parent.info().tree;
        (*info).dev = parent.info().dev;
        (*info).ino = STAND_IN;
        (*info).created = now;
        (*inode).i_ino = STAND_IN;
        (*inode).i_mode = MODE as bindings::umode_t;
        (*inode).i_op = dir::INODE_OPERATIONS.as_ptr();
        bindings::rbtrfs_inode_set_fop(inode, dir::FILE_OPERATIONS.as_ptr());
        bindings::rbtrfs_inode_inherit_owner(inode, parent.as_ptr());
        bindings::rbtrfs_inode_set_times(inode, now.0, now.1, now.0, now.1, now.0, now.1);
        bindings::inode_set_flags(inode, bindings::S_NOATIME, bindings::S_NOATIME);
    }
    Ok(InodeRef(found))
}

/// `inode_operations::getattr`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of an rbtrfs superblock.
pub(super) unsafe extern "C" fn getattr(
    idmap: *mut bindings::mnt_idmap,
    path: *const bindings::path,
    stat: *mut bindings::kstat,
    mask: u32,
    _flags: kernel::ffi::c_uint,
) -> kernel::ffi::c_int {
    const STATX_BTIME: u32 = bindings::STATX_BTIME;
    // SAFETY: The VFS passes a path that it holds.
    let inode = unsafe { Inode::of_dentry((*path).dentry) };
    let info = inode.info();
    // SAFETY: The VFS passes a `kstat` to be filled in.
    unsafe {
        bindings::generic_fillattr(idmap, mask, inode.as_ptr(), stat);
        let stat = &mut *stat;
        stat.dev = info.dev;
        stat.subvol = info.tree;
        stat.result_mask |= bindings::STATX_SUBVOL | STATX_BTIME;
        stat.btime.tv_sec = info.created.0;
        stat.btime.tv_nsec = info.created.1 as isize;
        stat.blksize = u32::try_from(kernel::page::PAGE_SIZE).unwrap_or(4096);
        stat.blocks = info
            .nbytes
            .div_ceil(SECTOR_SIZE)
            .saturating_mul(SECTOR_SIZE / 512);
        for (flag, bit) in [
            (inode_flags::APPEND, bindings::STATX_ATTR_APPEND),
            (inode_flags::COMPRESS, bindings::STATX_ATTR_COMPRESSED),
            (inode_flags::IMMUTABLE, bindings::STATX_ATTR_IMMUTABLE),
            (inode_flags::NODUMP, bindings::STATX_ATTR_NODUMP),
        ] {
            let bit = u64::from(bit);
            stat.attributes_mask |= bit;
            if info.flags & flag != 0 {
                stat.attributes |= bit;
            }
        }
    }
    0
}

/// The only sector size that is mounted.
const SECTOR_SIZE: u64 = 4096;

/// `inode_operations::permission`: as on a read-only filesystem, whatever the mount says, for files cannot be
/// written yet. The mount itself may be writable: balance changes the volume and no file.
///
/// # Safety
///
/// As the VFS calls it, for an inode of an rbtrfs superblock.
pub(super) unsafe extern "C" fn permission(
    idmap: *mut bindings::mnt_idmap,
    inode: *mut bindings::inode,
    mask: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    const MAY_WRITE: i32 = bindings::MAY_WRITE as i32;
    // SAFETY: The VFS passes an inode that it holds.
    let mode = u32::from(unsafe { (*inode).i_mode });
    if mask & MAY_WRITE != 0 && matches!(mode & S_IFMT, S_IFREG | S_IFDIR | S_IFLNK) {
        return EROFS.to_errno();
    }
    // SAFETY: The arguments are the VFS's own.
    unsafe { bindings::generic_permission(idmap, inode, mask) }
}

/// `inode_operations::setattr`.
///
/// # Safety
///
/// None is needed: the arguments are not looked at.
pub(super) unsafe extern "C" fn setattr(
    _idmap: *mut bindings::mnt_idmap,
    _dentry: *mut bindings::dentry,
    _attr: *mut bindings::iattr,
) -> kernel::ffi::c_int {
    EROFS.to_errno()
}

/// What all kinds of inodes have in common.
pub(super) const COMMON: bindings::inode_operations = bindings::inode_operations {
    getattr: Some(getattr),
    permission: Some(permission),
    setattr: Some(setattr),
    listxattr: Some(xattr::list),
    get_inode_acl: Some(xattr::get_inode_acl),
    set_acl: Some(xattr::set_acl),
    fileattr_get: Some(special::fileattr_get),
    ..pin_init::zeroed()
};
