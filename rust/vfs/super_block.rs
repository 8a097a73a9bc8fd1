// SPDX-License-Identifier: GPL-2.0
//! Superblocks: one for each mounted device, shared by all mounts of its subvolumes.
//!
//! `s_fs_info` owns a [`Volume`] from the moment the engine has opened the device. Nothing but `kill_sb` frees
//! it, after the VFS has put away all inodes; so a mount that fails later on frees it the same way.

use super::bdev::Bdev;
use super::filesystem::Filesystem;
use super::inode::{self, iget, Inode, ROOT_DIR};
use super::options::Options;
use super::{export, shrinker::Shrinker, sysfs, xattr};
use super::table::Table;
use crate::bindings;
use crate::device::BlockDevice;
use crate::format::tree_id;
use crate::volume::{Fs, OpenOptions};
use core::ptr::NonNull;
use kernel::error::{from_result, to_result};
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};
use kernel::types::Opaque;

/// What `statfs` calls a btrfs volume.
const MAGIC: usize = 0x9123_683e;

/// A mounted superblock of ours.
///
/// # Invariants
///
/// `s_fs_info` points to a [`Volume`], which lives as long as any inode or dentry of the superblock.
#[repr(transparent)]
pub(super) struct SuperBlock(Opaque<bindings::super_block>);

impl SuperBlock {
    /// # Safety
    ///
    /// `ptr` is a superblock of ours whose `s_fs_info` is set, and it lives for `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::super_block) -> &'a Self {
        // SAFETY: By this function's contract; the type is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::super_block {
        self.0.get()
    }

    pub(super) fn volume(&self) -> &Volume {
        // SAFETY: By the type invariant.
        unsafe { &*(*self.as_ptr()).s_fs_info.cast::<Volume>() }
    }

    pub(super) fn is_read_only(&self) -> bool {
        // SAFETY: The superblock is valid.
        unsafe { bindings::rbtrfs_sb_rdonly(self.as_ptr()) }
    }
}

/// The device number of one subvolume; every subvolume looks like a device of its own.
struct SubvolDev {
    tree: u64,
    dev: u32,
}

impl SubvolDev {
    fn new(tree: u64) -> Result<Self> {
        let mut status = 0;
        // SAFETY: The pointer is valid for the write.
        let dev = unsafe { bindings::rbtrfs_new_anon_dev(&mut status) };
        to_result(status)?;
        Ok(Self { tree, dev })
    }
}

impl Drop for SubvolDev {
    fn drop(&mut self) {
        // SAFETY: The number is ours, and no inode that shows it is left.
        unsafe { bindings::free_anon_bdev(self.dev) }
    }
}

/// What a superblock owns. Fields are dropped in this order.
pub(super) struct Volume {
    sysfs: Option<sysfs::VolumeDirectory>,
    _shrinker: Shrinker,
    /// Sorted by tree.
    devs: Pin<KBox<Mutex<KVec<SubvolDev>>>>,
    inode_cache: NonNull<bindings::kmem_cache>,
    fs: Arc<Fs>,
}

impl Volume {
    fn new(fs: Arc<Fs>, cache: NonNull<bindings::kmem_cache>) -> Result<KBox<Self>> {
        let volume = Self {
            sysfs: None,
            _shrinker: Shrinker::new(&fs)?,
            devs: KBox::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?,
            inode_cache: cache,
            fs,
        };
        Ok(KBox::new(volume, GFP_KERNEL)?)
    }

    pub(super) fn fs(&self) -> &Arc<Fs> {
        &self.fs
    }

    pub(super) fn inode_cache(&self) -> *mut bindings::kmem_cache {
        self.inode_cache.as_ptr()
    }

    pub(super) fn notify_exclusive_operation(&self) {
        if let Some(sysfs) = &self.sysfs {
            sysfs.notify_exclusive_operation();
        }
    }

    /// The device number for the subvolume `tree`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EMFILE` when the system has no number left.
    pub(super) fn subvol_dev(&self, tree: u64) -> Result<u32> {
        let mut devs = self.devs.lock();
        match devs.binary_search_by_key(&tree, |known| known.tree) {
            Ok(at) => devs.get(at).map(|known| known.dev).ok_or(EINVAL),
            Err(at) => {
                let new = SubvolDev::new(tree)?;
                let dev = new.dev;
                devs.reserve(1, GFP_KERNEL)?;
                devs.insert_within_capacity(at, new).map_err(|_| ENOMEM)?;
                Ok(dev)
            }
        }
    }
}

/// Fills in a superblock that was just set up on a device.
///
/// # Errors
///
/// What opening the volume and reading its root directory gives.
///
/// # Safety
///
/// `sb` is new, locked, and set up on its device; `fc` is the context that made it, of our type.
pub(super) unsafe fn fill(
    sb: *mut bindings::super_block,
    options: &Options,
    filesystem: &Filesystem,
) -> Result {
    // SAFETY: By this function's contract.
    let device = unsafe { Bdev::of_super(sb) }?;
    // SAFETY: As above.
    let read_only = unsafe { bindings::rbtrfs_sb_rdonly(sb) };
    let device: Arc<dyn BlockDevice> = Arc::new(device, GFP_KERNEL)?;
    let fs = Fs::open(
        device,
        &OpenOptions {
            read_only,
            ..options.open()
        },
    )?;
    let fsid = fs.reader()?.superblock().fsid;
    let blocksize = fs.geometry.sectorsize;
    let volume = Volume::new(fs, NonNull::new(filesystem.inode_cache().as_ptr()).ok_or(EINVAL)?)?;

    // SAFETY: The superblock is new and locked, so its fields are ours to set; the tables are statics.
    let sb = unsafe {
        (*sb).s_fs_info = KBox::into_raw(volume).cast();
        (*sb).s_magic = MAGIC;
        (*sb).s_maxbytes = i64::MAX;
        (*sb).s_time_gran = 1;
        (*sb).s_op = OPERATIONS.as_ptr();
        (*sb).s_export_op = export::OPERATIONS.as_ptr().cast();
        (*sb).s_xattr = xattr::HANDLERS.as_ptr();
        bindings::rbtrfs_sb_set_uuid(sb, fsid.as_ptr());
        if bindings::sb_set_blocksize(sb, blocksize as i32) == 0 {
            return Err(EINVAL);
        }
        SuperBlock::from_raw(sb)
    };

    let fs = sb.volume().fs();
    let reader = fs.reader()?;
    let root = iget(sb, &reader, reader.root(tree_id::FS)?, ROOT_DIR)?;
    if !root.is_dir() {
        return Err(EUCLEAN);
    }
    drop(reader);
    let directory = filesystem.sysfs().add(fs)?;
    // SAFETY: `d_make_root` takes the reference over. The superblock is still ours alone, so that nobody reads
    // the volume while the field is set.
    unsafe {
        (*(*sb.as_ptr()).s_fs_info.cast::<Volume>()).sysfs = directory;
        (*sb.as_ptr()).s_root = bindings::d_make_root(root.into_raw());
        if (*sb.as_ptr()).s_root.is_null() {
            return Err(ENOMEM);
        }
    }
    Ok(())
}

/// `file_system_type::kill_sb`.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of our type.
pub(super) unsafe extern "C" fn kill(sb: *mut bindings::super_block) {
    // SAFETY: The superblock is valid; the field is null if opening the volume failed.
    let volume: *mut Volume = unsafe { (*sb).s_fs_info.cast() };
    // SAFETY: The superblock was set up on a block device.
    unsafe { bindings::kill_block_super(sb) };
    if !volume.is_null() {
        // SAFETY: `fill` made the pointer of a box, and no inode that could refer to it is left.
        drop(unsafe { KBox::from_raw(volume) });
    }
}

/// `super_operations::statfs`.
///
/// # Safety
///
/// As the VFS calls it, for a dentry of ours.
unsafe extern "C" fn statfs(
    dentry: *mut bindings::dentry,
    stat: *mut kernel::bindings::kstatfs,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes a dentry that it holds.
    let inode = unsafe { Inode::of_dentry(dentry) };
    let stat: *mut bindings::kstatfs = stat.cast();
    from_result(|| {
        let fs = inode.super_block().volume().fs();
        let usage = fs.usage()?;
        let block = u64::from(fs.geometry.sectorsize);
        let reader = fs.reader()?;
        let mut words = [0u32; 4];
        for (word, bytes) in words
            .iter_mut()
            .zip(reader.superblock().fsid.chunks_exact(4))
        {
            *word = bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        let [a, b, c, d] = words;
        let tree = inode.info().tree;
        // SAFETY: The VFS passes a structure to be filled in; the kernel crate knows it by name alone.
        let stat = unsafe { &mut *stat };
        stat.f_type = MAGIC as isize;
        stat.f_bsize = block as isize;
        stat.f_namelen = crate::format::dir::NAME_LEN as isize;
        stat.f_blocks = usage.total / block;
        stat.f_bfree = usage.free / block;
        stat.f_bavail = usage.available / block;
        stat.f_fsid.val = [
            (a ^ c ^ (tree >> 32) as u32) as i32,
            (b ^ d ^ tree as u32) as i32,
        ];
        Ok(0)
    })
}

/// `super_operations::show_options`. Tools find the subvolume of a mount by these.
///
/// # Safety
///
/// As the VFS calls it: `dentry` is the root of a mount of ours.
unsafe extern "C" fn show_options(
    seq: *mut bindings::seq_file,
    dentry: *mut bindings::dentry,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes a dentry that it holds.
    let inode = unsafe { Inode::of_dentry(dentry) };
    let volume = inode.super_block().volume();
    if volume.fs().has_free_space_tree() {
        // SAFETY: The string is terminated.
        unsafe { bindings::rbtrfs_seq_puts(seq, c",space_cache=v2".as_ptr().cast()) };
    } else {
        // SAFETY: As above.
        unsafe { bindings::rbtrfs_seq_puts(seq, c",nospace_cache".as_ptr().cast()) };
    }
    // SAFETY: The formats fit their arguments; the path from the top of the volume to a subvolume is that of
    // its dentry.
    unsafe {
        bindings::seq_printf(
            seq,
            c",subvolid=%llu,subvol=".as_ptr().cast(),
            inode.info().tree,
        );
        bindings::rbtrfs_seq_dentry(seq, dentry);
    }
    0
}

/// `super_operations::sync_fs`. Every change is committed by the operation that makes it.
///
/// # Safety
///
/// None is needed: the arguments are not looked at.
unsafe extern "C" fn sync_fs(
    _sb: *mut bindings::super_block,
    _wait: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    0
}

static OPERATIONS: Table<bindings::super_operations> = Table::new(bindings::super_operations {
    alloc_inode: Some(inode::alloc_inode),
    free_inode: Some(inode::free_inode),
    sync_fs: Some(sync_fs),
    statfs: Some(statfs),
    show_options: Some(show_options),
    ..pin_init::zeroed()
});
