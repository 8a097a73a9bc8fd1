// SPDX-License-Identifier: GPL-2.0
//! Superblocks: one for each mounted device, shared by all mounts of its subvolumes.
//!
//! `s_fs_info` owns a [`Volume`] from the moment the engine has opened the device. Nothing but
//! `kill_sb` frees it, after the VFS has put away all inodes; so a mount that fails later on frees
//! it the same way.

use super::anon_dev::AnonDev;
use super::balance_resume::BalanceResume;
use super::bdev::Bdev;
use super::before_commit::PageCache;
use super::cleaner::Cleaner;
use super::committer::Committer;
use super::filesystem::Filesystem;
use super::iget::iget;
use super::inode::{self, Inode, ROOT_DIR};
use super::mount_options::open_options;
use super::replace::Replaced;
use super::shrinker::Shrinker;
use super::subvolume::Subvolumes;
use super::table::Table;
use super::workqueue::Workqueue;
use super::{attributes, evict, export, fsync, shutdown, statfs, sysfs, xattr};
use crate::balance::control;
use crate::bindings;
use crate::device::BlockDevice;
use crate::format::superblock::compat_ro;
use crate::format::tree_id;
use crate::log::{self, Replay};
use crate::mount::{Facts, Log, Settings, SpaceCache};
use crate::subvol::write::clean_orphans;
use crate::volume::Fs;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::types::Opaque;

/// The whole superblock is read-only.
const SB_RDONLY: usize = 1;

/// What `statfs` calls a btrfs volume.
pub(super) const MAGIC: usize = 0x9123_683e;

/// How many pieces of files are read ahead at a time.
const READERS: u32 = 16;

/// How far the page cache reads ahead, in bytes, unless an admin says otherwise; as the C driver
/// has it.
const READAHEAD: usize = 4 << 20;

/// A mounted superblock of ours.
///
/// # Invariants
///
/// `s_fs_info` points to a [`Volume`], which lives as long as any inode or dentry of the
/// superblock.
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

    /// Starts what a writable volume does of its own accord.
    fn start(&self) -> Result {
        let volume = self.volume();
        // SAFETY: `kill` stops the threads before the superblock goes.
        unsafe {
            volume.committer.start(self)?;
            volume.cleaner.start(self)?;
        }
        let settings = volume.settings();
        volume.resume.start(&volume.fs, settings.skip_balance)
    }

    /// Writes everything and makes the engine refuse to write, which pauses balance; or allows it
    /// again, which resumes that.
    ///
    /// # Errors
    ///
    /// What [`Fs::set_read_only`] answers, and what writing gives.
    ///
    /// # Safety
    ///
    /// The caller has locked the superblock (`s_umount` held for writing).
    pub(super) unsafe fn set_read_only(&self, read_only: bool) -> Result {
        let volume = self.volume();
        if read_only {
            volume.resume.pause(&volume.fs);
            volume.committer.stop();
            volume.cleaner.stop();
            // Of a volume whose transaction failed nothing can be written any more.
            if volume.fs.check_failed().is_ok() {
                // SAFETY: By this function's contract.
                to_result(unsafe { bindings::sync_filesystem(self.as_ptr()) })?;
            }
            if !volume.fs.is_read_only() {
                volume.fs.commit()?;
            }
        }
        volume.fs.set_read_only(read_only)?;
        if read_only {
            return Ok(());
        }
        self.begin_writing().inspect_err(|_| {
            volume.resume.pause(&volume.fs);
            volume.committer.stop();
            volume.cleaner.stop();
            // A commit that fails makes the volume read-only as well.
            let _ = volume
                .fs
                .commit()
                .and_then(|()| volume.fs.set_read_only(true));
        })
    }

    fn begin_writing(&self) -> Result {
        let volume = self.volume();
        volume.renew_free_space_tree()?;
        // Of subvolumes that were looked at while nothing could be written. Others are cleaned when
        // they are.
        for tree in volume.subvolumes.take_cleaning()? {
            clean_orphans(&volume.fs, tree)?;
        }
        self.start()
    }
}

/// What a superblock owns. Fields are dropped in this order.
pub(super) struct Volume {
    sysfs: Option<sysfs::VolumeDirectory>,
    _shrinker: Shrinker,
    subvolumes: Subvolumes,
    /// The device number of the superblock, which stub directories show as well.
    dev: AnonDev,
    replaced: Pin<KBox<Replaced>>,
    inode_cache: NonNull<bindings::kmem_cache>,
    resume: BalanceResume,
    committer: Committer,
    cleaner: Cleaner,
    readers: Workqueue,
    /// The device's name, as the first mount gave it.
    source: CString,
    /// The mount options in force; a leaf lock.
    settings: Pin<KBox<Mutex<Settings>>>,
    fs: Fs,
}

impl Volume {
    fn new(
        fs: Fs,
        cache: NonNull<bindings::kmem_cache>,
        settings: &Settings,
        source: &CStr,
    ) -> Result<KBox<Self>> {
        let committer = Committer::new()?;
        fs.state.set_send_balance(settings.send_balance);
        let volume = Self {
            sysfs: None,
            _shrinker: Shrinker::new(&fs, &committer)?,
            subvolumes: Subvolumes::new()?,
            dev: AnonDev::new()?,
            replaced: Replaced::new()?,
            inode_cache: cache,
            resume: BalanceResume::new()?,
            committer,
            cleaner: Cleaner::new()?,
            readers: Workqueue::new(c"btrfs-read", READERS)?,
            source: CString::try_from(source)?,
            settings: KBox::pin_init(new_mutex!(*settings), GFP_KERNEL)?,
            fs,
        };
        Ok(KBox::new(volume, GFP_KERNEL)?)
    }

    pub(super) fn fs(&self) -> &Fs {
        &self.fs
    }

    /// The device's name, as the first mount gave it.
    pub(super) fn source(&self) -> &CStr {
        &self.source
    }

    /// The mount options in force.
    pub(super) fn settings(&self) -> Settings {
        *self.settings.lock()
    }

    /// Puts other options in force. What they say of the free space tree is done when the volume
    /// becomes writable.
    pub(super) fn apply(&self, settings: Settings) {
        *self.settings.lock() = settings;
        self.fs.set_barrier(settings.barrier);
        self.fs.set_rescue(&settings.rescue);
        self.fs.state.set_send_balance(settings.send_balance);
        // For it to see the new interval.
        self.committer.try_wake();
        self.cleaner.wake();
    }

    /// Forgets options that a mount has followed, and that the next remount is not to follow again.
    /// Of a volume that is read-only they stay for when it becomes writable.
    pub(super) fn forget_once(&self) {
        if !self.fs.is_read_only() {
            self.settings.lock().clear_once();
        }
    }

    /// What the volume is like, as far as options depend on it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn facts(&self) -> Result<Facts> {
        let flags = self.fs.reader()?.superblock().compat_ro_flags.get();
        Ok(Facts {
            free_space_tree: flags & compat_ro::FREE_SPACE_TREE != 0,
            block_group_tree: flags & compat_ro::BLOCK_GROUP_TREE != 0,
        })
    }

    /// Makes the free space tree if the options ask for one, or makes it anew.
    fn renew_free_space_tree(&self) -> Result {
        let settings = self.settings();
        let facts = self.facts()?;
        let is_wanted = settings.space_cache == SpaceCache::Tree && !facts.free_space_tree;
        if is_wanted || (settings.clear_cache && facts.free_space_tree) {
            self.fs.renew_free_space_tree().inspect_err(|e| {
                crate::fs_err!(
                    self.fs,
                    "making the free space tree failed: {}",
                    e.to_errno()
                );
            })?;
        }
        Ok(())
    }

    /// Has the cleaner look for deleted subvolumes.
    pub(super) fn wake_cleaner(&self) {
        self.cleaner.wake();
    }

    /// Where files are read ahead.
    pub(super) fn readers(&self) -> &Workqueue {
        &self.readers
    }

    /// The device number of the superblock, and of what is in no subvolume: of stub directories.
    pub(super) fn dev(&self) -> u32 {
        self.dev.number()
    }

    pub(super) fn inode_cache(&self) -> *mut bindings::kmem_cache {
        self.inode_cache.as_ptr()
    }

    pub(super) fn notify_exclusive_operation(&self) {
        if let Some(sysfs) = &self.sysfs {
            sysfs.notify_exclusive_operation();
        }
    }

    pub(super) fn subvolumes(&self) -> &Subvolumes {
        &self.subvolumes
    }

    /// Files that are to be written back before a commit.
    pub(super) fn replaced(&self) -> &Replaced {
        &self.replaced
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
/// `sb` is new, locked, and set up on its device, whose name is `source`; `filesystem` is that of
/// its type.
pub(super) unsafe fn fill(
    sb: *mut bindings::super_block,
    settings: &Settings,
    filesystem: &Filesystem,
    source: &CStr,
    log: &mut Log<'_>,
) -> Result {
    // SAFETY: By this function's contract.
    let device = unsafe { Bdev::of_super(sb) }?;
    // SAFETY: As above.
    let read_only = unsafe { bindings::rbtrfs_sb_rdonly(sb) };
    let device: Arc<dyn BlockDevice> = Arc::new(device, GFP_KERNEL)?;
    let replay = if settings.rescue.no_log_replay {
        Replay::No
    } else {
        Replay::Yes
    };
    let fs = log::open(device, &open_options(settings, read_only), replay)?;
    let fsid = fs.reader()?.superblock().fsid;
    let blocksize = u32::from(fs.geometry.sectorsize);
    control::recover(&fs)?;
    let cache = NonNull::new(filesystem.inode_cache().as_ptr()).ok_or(EINVAL)?;
    let volume = Volume::new(Fs::clone(&fs), cache, settings, source)?;
    settings.check_volume(volume.facts()?, log)?;

    let forced = volume.fs().is_read_only() && !read_only;

    // SAFETY: The superblock is new and locked, so its fields are ours to set; the tables are
    // statics.
    let sb = unsafe {
        if forced {
            (*sb).s_flags |= SB_RDONLY;
        }
        (*sb).s_fs_info = KBox::into_raw(volume).cast();
        (*sb).s_magic = MAGIC;
        (*sb).s_maxbytes = i64::MAX;
        (*sb).s_time_gran = 1;
        (*sb).s_op = OPERATIONS.as_ptr();
        (*sb).s_export_op = export::OPERATIONS.as_ptr().cast();
        (*sb).s_xattr = xattr::HANDLERS.as_ptr();
        bindings::rbtrfs_sb_set_uuid(sb, fsid.as_ptr());
        to_result(bindings::rbtrfs_sb_set_readahead(sb, READAHEAD))?;
        if bindings::sb_set_blocksize(sb, blocksize as i32) == 0 {
            return Err(EINVAL);
        }
        SuperBlock::from_raw(sb)
    };

    let fs = sb.volume().fs();
    let root = iget(sb, tree_id::FS, ROOT_DIR)?;
    if !root.is_dir() {
        return Err(EUCLEAN);
    }
    let directory = filesystem.sysfs().add(fs, sb)?;
    // SAFETY: `d_make_root` takes the reference over. The superblock is still ours alone, so that
    // nobody reads the volume while the field is set.
    unsafe {
        (*(*sb.as_ptr()).s_fs_info.cast::<Volume>()).sysfs = directory;
        (*sb.as_ptr()).s_root = bindings::d_make_root(root.into_raw());
        if (*sb.as_ptr()).s_root.is_null() {
            return Err(ENOMEM);
        }
    }
    // SAFETY: `kill` takes it back before the inodes are evicted.
    let before_commit = unsafe { PageCache::new(sb) };
    fs.set_before_commit(Some(Arc::new(before_commit, GFP_KERNEL)?));
    if !sb.is_read_only() {
        sb.volume().renew_free_space_tree()?;
        sb.start()?;
    }
    sb.volume().forget_once();
    // SAFETY: The superblock is still locked.
    unsafe { filesystem.numbers().begin(sb.as_ptr(), sb.volume().dev()) }
}

/// `file_system_type::kill_sb`.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of our type.
pub(super) unsafe extern "C" fn kill(sb: *mut bindings::super_block) {
    // SAFETY: The superblock is valid; the field is null if opening the volume failed.
    let volume: *mut Volume = unsafe { (*sb).s_fs_info.cast() };
    if !volume.is_null() {
        // SAFETY: `fill` made the pointer of a box, which lives until below.
        let volume = unsafe { &*volume };
        volume.resume.close(&volume.fs);
        volume.committer.stop();
        volume.cleaner.stop();
        // The VFS writes everything back before it puts the inodes away.
        volume.fs.set_before_commit(None);
        // SAFETY: The VFS has locked the superblock, which is of a type of ours.
        unsafe { Filesystem::of_super(sb).numbers().end(sb) };
    }
    // SAFETY: The superblock was set up on a block device.
    unsafe { bindings::kill_block_super(sb) };
    if !volume.is_null() {
        // SAFETY: `fill` made the pointer of a box, and no inode that could refer to it is left.
        drop(unsafe { KBox::from_raw(volume) });
    }
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
    let shown = volume.facts().and_then(|facts| {
        let shown = volume.settings().show(facts.free_space_tree);
        CString::try_from_fmt(fmt!("{shown}"))
    });
    let shown = match shown {
        Ok(shown) => shown,
        Err(e) => return e.to_errno(),
    };
    // SAFETY: The strings are terminated, and the format fits its argument. The path from the top
    // of the volume to a subvolume is that of its dentry.
    unsafe {
        bindings::rbtrfs_seq_puts(seq, shown.as_char_ptr());
        bindings::seq_printf(
            seq,
            c",subvolid=%llu,subvol=".as_char_ptr(),
            inode.info().tree,
        );
        bindings::rbtrfs_seq_dentry(seq, dentry);
    }
    0
}

/// `super_operations::show_devname`: the name of the device is that of its first mount for all of
/// them.
///
/// # Safety
///
/// As the VFS calls it: `dentry` is the root of a mount of ours.
unsafe extern "C" fn show_devname(
    seq: *mut bindings::seq_file,
    dentry: *mut bindings::dentry,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes a dentry that it holds.
    let inode = unsafe { Inode::of_dentry(dentry) };
    let volume = inode.super_block().volume();
    // SAFETY: The name is a terminated string.
    unsafe { bindings::rbtrfs_seq_escape(seq, volume.source.as_char_ptr()) };
    0
}

/// `super_operations::put_super`: all inodes are gone; their going may have changed something.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of ours.
unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
    // SAFETY: By this function's contract.
    let volume = unsafe { SuperBlock::from_raw(sb) }.volume();
    if !volume.fs.is_read_only() {
        if let Err(e) = volume.fs.commit() {
            crate::fs_err!(volume.fs, "the last commit failed: {}", e.to_errno());
        }
    }
}

/// `super_operations::freeze_fs`: nothing changes any more, and all of it goes to disk.
///
/// # Safety
///
/// As the VFS calls it, for a superblock of ours.
unsafe extern "C" fn freeze_fs(sb: *mut bindings::super_block) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    unsafe { fsync::sync_fs(sb, 1) }
}

static OPERATIONS: Table<bindings::super_operations> = Table::new(bindings::super_operations {
    alloc_inode: Some(inode::alloc_inode),
    destroy_inode: Some(inode::destroy_inode),
    free_inode: Some(inode::free_inode),
    write_inode: Some(attributes::write_inode),
    drop_inode: Some(evict::drop_inode),
    evict_inode: Some(evict::evict_inode),
    put_super: Some(put_super),
    sync_fs: Some(fsync::sync_fs),
    freeze_fs: Some(freeze_fs),
    statfs: Some(statfs::statfs),
    show_options: Some(show_options),
    show_devname: Some(show_devname),
    shutdown: Some(shutdown::shutdown),
    ..pin_init::zeroed()
});
