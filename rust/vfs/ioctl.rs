// SPDX-License-Identifier: GPL-2.0
//! The way from the VFS to `crate::ioctl`, and what its commands need of the kernel, safe to call.

use super::attributes::now;
use super::iget::iget;
use super::inode::{Inode, ROOT_DIR};
use crate::bindings;
use crate::format::inode::Timespec;
use crate::format::tree_id;
use crate::send;
use crate::trans::Reader;
use crate::volume::Fs;
use core::marker::PhantomData;
use kernel::error::to_result;
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::uaccess::{UserPtr, UserSlice};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// A value of all zeros that is too large for the stack.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn zeroed_box<T: FromZeros>() -> Result<KBox<T>> {
    let value = KBox::<T>::new_uninit(GFP_KERNEL | __GFP_ZERO)?;
    // SAFETY: The memory is zeroed, and `FromZeros` says that such a value is valid.
    Ok(unsafe { value.assume_init() })
}

/// The open file or directory that an ioctl came on.
///
/// # Invariants
///
/// `file` is an open file of an rbtrfs superblock, and stays open for `'a`.
pub(crate) struct OpenFile<'a> {
    file: *mut bindings::file,
    _open: PhantomData<&'a File>,
}

impl OpenFile<'_> {
    /// # Safety
    ///
    /// `file` is an open file of an rbtrfs superblock, and stays open as long as the result is
    /// used.
    unsafe fn from_raw(file: *mut bindings::file) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            file,
            _open: PhantomData,
        }
    }

    pub(super) fn file(&self) -> *mut bindings::file {
        self.file
    }

    pub(super) fn inode(&self) -> &Inode {
        // SAFETY: By the type invariant.
        unsafe { Inode::of_file(self.file) }
    }

    /// The volume.
    pub(crate) fn fs(&self) -> &Fs {
        self.inode().super_block().volume().fs()
    }

    /// The name of the volume's device, as it was mounted.
    pub(crate) fn device_path(&self) -> &[u8] {
        self.inode().super_block().volume().source().to_bytes()
    }

    /// A view of the last commit, after one that takes in what is not committed of `tree`.
    ///
    /// # Errors
    ///
    /// Those of a commit; `ENOMEM`.
    pub(crate) fn reader_of(&self, tree: u64) -> Result<Reader> {
        let fs = self.fs();
        // What is known of subvolumes as a whole changes with each of them, and so does what is
        // known of extents, though not before the commit.
        let changed = fs.differs(tree) || !tree_id::is_fs_tree(tree);
        if changed && !fs.is_read_only() {
            fs.commit()?;
        }
        fs.reader()
    }

    /// The tree of the subvolume that the file is in.
    pub(crate) fn tree(&self) -> u64 {
        self.inode().info().tree
    }

    /// The inode number within the subvolume.
    pub(crate) fn ino(&self) -> u64 {
        self.inode().info().ino
    }

    /// Tells files apart that had the same inode number one after the other (`FS_IOC_GETVERSION`).
    pub(crate) fn generation(&self) -> u32 {
        // SAFETY: The inode is valid, and the field does not change while it is in memory.
        unsafe { (*self.inode().as_ptr()).i_generation }
    }

    /// The time for a change of the inode.
    pub(crate) fn now(&self) -> Timespec {
        now(&[self.inode()])
    }

    /// Whether this is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        self.inode().is_dir()
    }

    /// Whether this is the root directory of a subvolume.
    pub(crate) fn is_subvol_root(&self) -> bool {
        self.is_dir() && self.ino() == ROOT_DIR
    }

    /// Permission to change the volume, which keeps it from being remounted read-only or frozen.
    ///
    /// # Errors
    ///
    /// `EROFS` if the mount or the superblock is read-only.
    pub(crate) fn want_write(&self) -> Result<WriteGuard<'_>> {
        // SAFETY: The file is open by the type invariant; the guard gives the permission back.
        to_result(unsafe { bindings::mnt_want_write_file(self.file) })?;
        Ok(WriteGuard { file: self })
    }

    /// Whether the caller owns the inode or may act as if.
    pub(crate) fn owner_or_capable(&self) -> bool {
        // SAFETY: The file is open by the type invariant.
        unsafe { bindings::rbtrfs_inode_owner_or_capable(self.file) }
    }

    /// Checks that the caller may read and search the directory `dir` of the same subvolume.
    ///
    /// # Errors
    ///
    /// `EACCES` if not, and what reading the inode gives.
    pub(crate) fn may_search(&self, dir: u64) -> Result {
        let sb = self.inode().super_block();
        let dir = iget(sb, self.tree(), dir)?;
        // SAFETY: The file is open by the type invariant, and `dir` is an inode that we hold.
        to_result(unsafe { bindings::rbtrfs_may_search(self.file, dir.as_ptr()) })
    }

    /// Has the cleaner look for deleted subvolumes.
    pub(crate) fn wake_cleaner(&self) {
        self.inode().super_block().volume().wake_cleaner();
    }

    /// Whether the volume is frozen, or about to be: what holds permission to change it must give
    /// it back.
    pub(crate) fn is_freezing(&self) -> bool {
        // SAFETY: The superblock is valid as long as the file is open; the field is only looked at.
        unsafe { (*(*self.inode().as_ptr()).i_sb).s_writers.frozen != 0 }
    }

    /// Wakes those who poll the sysfs file `exclusive_operation`. To be called when it has changed.
    pub(crate) fn notify_exclusive_operation(&self) {
        self.inode()
            .super_block()
            .volume()
            .notify_exclusive_operation();
    }
}

/// Permission to change the volume, until dropped.
#[must_use = "the permission ends when the guard is dropped"]
pub(crate) struct WriteGuard<'a> {
    file: &'a OpenFile<'a>,
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: `want_write` got the permission on this file, which is still open.
        unsafe { bindings::mnt_drop_write_file(self.file.file) }
    }
}

/// An address in the caller's memory. Every access checks it.
#[derive(Clone, Copy)]
pub(crate) struct UserArg(usize);

impl UserArg {
    /// An address that an argument holds.
    pub(crate) fn new(addr: u64) -> Self {
        Self(addr as usize)
    }

    /// The number itself, for commands that pass no pointer.
    pub(crate) fn value(self) -> usize {
        self.0
    }

    /// Whether it is zero.
    pub(crate) fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address `bytes` further on.
    ///
    /// # Errors
    ///
    /// `EFAULT` if there is none.
    pub(crate) fn add(self, bytes: u64) -> Result<Self> {
        let bytes = usize::try_from(bytes).map_err(|_| EFAULT)?;
        self.0.checked_add(bytes).map(Self).ok_or(EFAULT)
    }

    fn slice(self, len: usize) -> UserSlice {
        UserSlice::new(UserPtr::from_addr(self.0), len)
    }

    /// Copies a small value in.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(crate) fn read<T: FromBytes + IntoBytes>(self) -> Result<T> {
        const { assert!(size_of::<T>() <= 512, "use read_boxed") };
        let mut value = T::new_zeroed();
        self.read_slice(value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value in that is too large for the stack.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    pub(crate) fn read_boxed<T: FromBytes + IntoBytes>(self) -> Result<KBox<T>> {
        let mut value = zeroed_box::<T>()?;
        self.read_slice(value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value out.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(crate) fn write<T: IntoBytes + Immutable + ?Sized>(self, value: &T) -> Result {
        self.write_slice(value.as_bytes())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(crate) fn read_slice(self, bytes: &mut [u8]) -> Result {
        self.slice(bytes.len()).reader().read_slice(bytes)
    }

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(crate) fn write_slice(self, bytes: &[u8]) -> Result {
        self.slice(bytes.len()).writer().write_slice(bytes)
    }
}

/// Whether the caller may administer the system.
pub(crate) fn capable_sys_admin() -> bool {
    // SAFETY: The function looks at the current task's credentials.
    unsafe { bindings::rbtrfs_capable(bindings::CAP_SYS_ADMIN as i32) }
}

/// Whether the caller may read and search everywhere.
pub(crate) fn capable_dac_read_search() -> bool {
    // SAFETY: The function looks at the current task's credentials.
    unsafe { bindings::rbtrfs_capable(bindings::CAP_DAC_READ_SEARCH as i32) }
}

/// Calls `f` with the name and the number of the current process.
pub(crate) fn with_current(f: impl FnOnce(&str, i32)) {
    let mut name = [0u8; 16];
    // SAFETY: There is space for a task's name.
    let pid = unsafe { bindings::rbtrfs_current_name(name.as_mut_ptr().cast()) };
    let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"?");
    f(name.to_str().unwrap_or("?"), pid);
}

/// A file, most often a pipe, that a send stream goes to.
pub(crate) struct FileSink {
    file: ARef<File>,
    position: i64,
}

impl FileSink {
    /// The file that the caller has open as `fd`.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is none or it is not open for writing.
    pub(crate) fn from_fd(fd: i64) -> Result<Self> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: The function takes any number.
        let file = unsafe { bindings::rbtrfs_fget_write(fd) };
        let file = core::ptr::NonNull::new(file).ok_or(EBADF)?;
        // SAFETY: The reference is ours, and `File` is a transparent wrapper. The position is our
        // own, so that nobody's `fdget_pos` is concerned.
        let file = unsafe { ARef::from_raw(file.cast::<File>()) };
        Ok(Self { file, position: 0 })
    }
}

impl send::Sink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> Result {
        let mut left = bytes;
        while !left.is_empty() {
            // SAFETY: The file is open, and the bytes are a live slice.
            let written = unsafe {
                bindings::kernel_write(
                    self.file.as_ptr(),
                    left.as_ptr().cast(),
                    left.len(),
                    &mut self.position,
                )
            };
            let written = match usize::try_from(written) {
                Ok(0) => return Err(EIO),
                Ok(written) => written,
                Err(_) => return Err(sink_error(written)),
            };
            left = left.get(written..).ok_or(EIO)?;
        }
        Ok(())
    }
}

/// A write that a signal stopped cannot be restarted, for part of the stream is out.
fn sink_error(status: isize) -> Error {
    let e = Error::from_errno(i32::try_from(status).unwrap_or(-5));
    if e == ERESTARTSYS {
        EINTR
    } else {
        e
    }
}

/// # Safety
///
/// `file` is an open file of ours, and stays open during the call.
unsafe fn dispatch(
    file: *mut bindings::file,
    cmd: u32,
    arg: usize,
    compat: bool,
) -> kernel::ffi::c_long {
    // SAFETY: By this function's contract.
    let file = unsafe { OpenFile::from_raw(file) };
    match crate::ioctl::dispatch(&file, cmd, UserArg(arg), compat) {
        Ok(value) => value,
        Err(e) => e.to_errno() as kernel::ffi::c_long,
    }
}

/// `file_operations::unlocked_ioctl`.
///
/// # Safety
///
/// As the VFS calls it, for an open file of ours.
pub(super) unsafe extern "C" fn unlocked_ioctl(
    file: *mut bindings::file,
    cmd: kernel::ffi::c_uint,
    arg: kernel::ffi::c_ulong,
) -> kernel::ffi::c_long {
    // SAFETY: The VFS keeps the file open during the call.
    unsafe { dispatch(file, cmd, arg, false) }
}

/// `file_operations::compat_ioctl`.
///
/// # Safety
///
/// As the VFS calls it, for an open file of ours.
#[cfg(CONFIG_COMPAT)]
pub(super) unsafe extern "C" fn compat_ioctl(
    file: *mut bindings::file,
    cmd: kernel::ffi::c_uint,
    arg: kernel::ffi::c_ulong,
) -> kernel::ffi::c_long {
    // SAFETY: The VFS keeps the file open during the call.
    unsafe { dispatch(file, cmd, arg, true) }
}
