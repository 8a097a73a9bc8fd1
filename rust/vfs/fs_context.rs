// SPDX-License-Identifier: GPL-2.0
//! Mounting: from a filesystem context with its options to the root of a subvolume.

use super::filesystem::Filesystem;
use super::inode::Inode;
use super::mount_options::{MountOptions, Parsed, Subvol, Value};
use super::subvol_path;
use super::super_block::{self, SuperBlock};
use super::table::Table;
use crate::bindings;
use kernel::error::{from_err_ptr, from_result, to_result};
use kernel::prelude::*;

const SB_RDONLY: u32 = 1;
const SB_POSIXACL: u32 = 1 << 16;
const SB_NOSEC: u32 = 1 << 28;
const SB_ACTIVE: usize = 1 << 30;

const ENOPARAM: i32 = -519;

/// `file_system_type::init_fs_context`.
///
/// # Safety
///
/// As the VFS calls it, with a context for our type.
pub(super) unsafe extern "C" fn init(fc: *mut kernel::bindings::fs_context) -> kernel::ffi::c_int {
    let fc: *mut bindings::fs_context = fc.cast();
    from_result(|| {
        let options = KBox::new(MountOptions::default(), GFP_KERNEL)?;
        // SAFETY: The context is new and ours to fill in. `free` takes the options back.
        unsafe {
            (*fc).fs_private = KBox::into_raw(options).cast();
            (*fc).ops = OPERATIONS.as_ptr();
            (*fc).sb_flags |= SB_POSIXACL;
        }
        Ok(0)
    })
}

/// `fs_context_operations::free`.
///
/// # Safety
///
/// As the VFS calls it, once, with a context that [`init`] has seen.
unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
    // SAFETY: By this function's contract.
    let options: *mut MountOptions = unsafe { (*fc).fs_private }.cast();
    if !options.is_null() {
        // SAFETY: `init` made the pointer of a box.
        drop(unsafe { KBox::from_raw(options) });
    }
}

/// `fs_context_operations::parse_param`.
///
/// # Safety
///
/// As the VFS calls it, with a context that [`init`] has filled in.
unsafe extern "C" fn parse_param(
    fc: *mut bindings::fs_context,
    param: *mut bindings::fs_parameter,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes the parameter, whose key is a terminated string, and holds the
    // context's lock.
    let (options, key) = unsafe {
        (
            &mut *(*fc).fs_private.cast::<MountOptions>(),
            CStr::from_char_ptr((*param).key.cast()),
        )
    };
    let mut text = core::ptr::null();
    // SAFETY: The VFS passes the parameter.
    let value = match unsafe { bindings::rbtrfs_param_text(param, &mut text) } {
        0 => Value::Flag,
        // SAFETY: The helper found a terminated string.
        1 => Value::Text(unsafe { CStr::from_char_ptr(text.cast()) }.to_bytes()),
        // Blobs and descriptors are not for any option of ours.
        _ => return EINVAL.to_errno(),
    };
    match options.parse(key.to_bytes(), value) {
        Ok(Parsed::Taken) => 0,
        Ok(Parsed::NotOurs) => ENOPARAM,
        Err(e) => e.to_errno(),
    }
}

/// A superblock that this thread has locked and holds an active reference to; dropping it gives up
/// both.
struct Locked(*mut bindings::super_block);

impl Locked {
    fn is_new(&self) -> bool {
        // SAFETY: The superblock is referenced.
        unsafe { (*self.0).s_root.is_null() }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: The lock and the reference are ours.
        unsafe { bindings::deactivate_locked_super(self.0) }
    }
}

/// The superblock for a device: that of the volume that is mounted from it, or a new one.
///
/// # Safety
///
/// `fc` is a context of ours that is about to be mounted.
unsafe fn find_super(
    fc: *mut bindings::fs_context,
    dev: u32,
    filesystem: &Filesystem,
) -> Result<Locked> {
    loop {
        let number = filesystem.numbers().of(dev);
        // SAFETY: By this function's contract; the result is locked and referenced.
        let sb = unsafe { bindings::sget_dev(fc, number.unwrap_or(dev)) };
        let sb = Locked(from_err_ptr(sb)?);
        // The number may have changed since it was looked up, as mounts come and go; then the
        // superblock is another.
        if !sb.is_new() || (number.is_none() && filesystem.numbers().of(dev).is_none()) {
            return Ok(sb);
        }
        drop(sb);
        crate::platform::yield_now();
    }
}

/// The superblock for the context's device, with the volume opened if this is its first mount.
///
/// # Safety
///
/// `fc` is a context of ours that is about to be mounted.
unsafe fn get_super(fc: *mut bindings::fs_context, options: &MountOptions) -> Result<Locked> {
    // SAFETY: By this function's contract.
    let source = unsafe { (*fc).source };
    if source.is_null() {
        pr_err!("no device to mount was given\n");
        return Err(EINVAL);
    }
    let mut dev = 0;
    // SAFETY: The source is a terminated string.
    to_result(unsafe { bindings::lookup_bdev(source, &mut dev) })?;
    // SAFETY: By this function's contract.
    let filesystem = unsafe { Filesystem::of_context(fc) };
    // SAFETY: By this function's contract.
    let sb = unsafe {
        (*fc).sb_flags |= SB_NOSEC;
        find_super(fc, dev, filesystem)
    }?;
    // SAFETY: As above.
    let wanted_ro = unsafe { (*fc).sb_flags } & SB_RDONLY != 0;
    if sb.is_new() {
        // SAFETY: The superblock is new, and locked by us.
        unsafe {
            to_result(bindings::setup_bdev_super(sb.0, (*fc).sb_flags as i32, fc))?;
            super_block::fill(
                sb.0,
                options,
                filesystem,
                CStr::from_char_ptr(source.cast()),
            )?;
            (*sb.0).s_flags |= SB_ACTIVE;
        }
    } else if !wanted_ro {
        // A second mount that wants to write makes the shared superblock writable, as with the C
        // driver; one that does not is read-only by itself. SAFETY: The superblock has a root, so
        // its data is set, and we hold its lock.
        unsafe { set_read_only(SuperBlock::from_raw(sb.0), false) }?;
    }
    Ok(sb)
}

/// Makes a superblock read-only, or writable.
///
/// # Errors
///
/// What the engine answers: `EROFS` if the volume cannot be written.
///
/// # Safety
///
/// The caller has locked the superblock (`s_umount` held for writing).
unsafe fn set_read_only(sb: &SuperBlock, read_only: bool) -> Result {
    if sb.is_read_only() == read_only {
        return Ok(());
    }
    // SAFETY: By this function's contract.
    unsafe { sb.set_read_only(read_only) }?;
    // SAFETY: The flags are protected by the lock that the caller holds.
    unsafe {
        if read_only {
            (*sb.as_ptr()).s_flags |= SB_RDONLY as usize;
        } else {
            (*sb.as_ptr()).s_flags &= !(SB_RDONLY as usize);
        }
    }
    Ok(())
}

/// A dentry reference of our own.
struct Dentry(*mut bindings::dentry);

impl Dentry {
    fn into_raw(self) -> *mut bindings::dentry {
        let ptr = self.0;
        core::mem::forget(self);
        ptr
    }

    /// # Safety
    ///
    /// The dentry is of a superblock of ours.
    unsafe fn inode(&self) -> Option<&Inode> {
        // SAFETY: By this function's contract; the dentry is referenced.
        unsafe {
            if bindings::rbtrfs_d_inode(self.0).is_null() {
                None
            } else {
                Some(Inode::of_dentry(self.0))
            }
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::dput(self.0) }
    }
}

/// The dentry of the subvolume that the options name, reached from the superblock's root by
/// look-ups, so that the dcache knows its path.
///
/// # Safety
///
/// `sb` is a superblock of ours with a root.
unsafe fn subvol_root(sb: &Locked, options: &MountOptions) -> Result<Dentry> {
    // SAFETY: By this function's contract.
    let (volume, top) = unsafe {
        (
            SuperBlock::from_raw(sb.0).volume(),
            Dentry(bindings::rbtrfs_dget((*sb.0).s_root)),
        )
    };
    let fs = volume.fs();
    if !fs.is_read_only() {
        // Where the subvolumes are is looked up in the last commit.
        fs.commit()?;
    }
    let path = match &options.subvol {
        Subvol::Path(path) | Subvol::PathAndId(path, _) => subvol_path::split(path)?,
        Subvol::Id(id) => subvol_path::of_tree(&fs.reader()?, *id)?,
        Subvol::Default => {
            let reader = fs.reader()?;
            let id = subvol_path::default_tree(&reader)?;
            subvol_path::of_tree(&reader, id)?
        }
    };
    let mut at = top;
    for name in path.iter() {
        // SAFETY: The dentry is referenced and of a superblock of ours.
        let is_dir = unsafe { at.inode() }.is_some_and(Inode::is_dir);
        if !is_dir {
            return Err(ENOTDIR);
        }
        let len = u32::try_from(name.len()).map_err(|_| ENAMETOOLONG)?;
        // SAFETY: As above; the name is a live slice.
        let next = unsafe { bindings::rbtrfs_lookup(at.0, name.as_ptr().cast(), len) };
        at = Dentry(from_err_ptr(next)?);
    }
    // SAFETY: As above.
    let inode = unsafe { at.inode() }.ok_or(ENOENT)?;
    let info = inode.info();
    if !inode.is_dir() || info.ino != super::inode::ROOT_DIR {
        crate::fs_err!(fs, "what the option 'subvol=' names is not a subvolume");
        return Err(EINVAL);
    }
    if let Subvol::PathAndId(_, id) = options.subvol {
        if id != info.tree {
            crate::fs_err!(
                fs,
                "the option 'subvol=' names the subvolume {}, not {} as 'subvolid=' does",
                info.tree,
                id
            );
            return Err(EINVAL);
        }
    }
    Ok(at)
}

/// `fs_context_operations::get_tree`.
///
/// # Safety
///
/// As the VFS calls it, with a context that [`init`] has filled in.
unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: By this function's contract.
        let options = unsafe { &*(*fc).fs_private.cast::<MountOptions>() };
        // SAFETY: As above.
        let sb = unsafe { get_super(fc, options) }?;
        // SAFETY: `get_super` filled the superblock in.
        let root = unsafe { subvol_root(&sb, options) }?;
        // The VFS takes the reference to the superblock over with that to its dentry, and unlocks
        // it.
        core::mem::forget(sb);
        // SAFETY: The VFS expects the root here.
        unsafe { (*fc).root = root.into_raw() };
        Ok(0)
    })
}

/// `fs_context_operations::reconfigure`.
///
/// # Safety
///
/// As the VFS calls it: the context's superblock is locked.
unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The root of a context to be reconfigured is of a superblock of ours, and `init`
        // has filled the context in.
        let (sb, read_only, options) = unsafe {
            (
                SuperBlock::from_raw((*(*fc).root).d_sb),
                (*fc).sb_flags & SB_RDONLY != 0,
                &*(*fc).fs_private.cast::<MountOptions>(),
            )
        };
        if sb.is_read_only() != read_only {
            // The VFS sets the flag itself when this succeeds.
            // SAFETY: The VFS has locked the superblock.
            unsafe { sb.set_read_only(read_only) }?;
        }
        if let Some(mode) = options.send_balance {
            sb.volume().fs().state.set_send_balance(mode);
        }
        Ok(0)
    })
}

static OPERATIONS: Table<bindings::fs_context_operations> =
    Table::new(bindings::fs_context_operations {
        free: Some(free),
        parse_param: Some(parse_param),
        get_tree: Some(get_tree),
        reconfigure: Some(reconfigure),
        ..pin_init::zeroed()
    });
