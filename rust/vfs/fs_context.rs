// SPDX-License-Identifier: GPL-2.0
//! Mounting: from a filesystem context with its options to the root of a subvolume.

use super::control_device::Devices;
use super::filesystem::Filesystem;
use super::inode::Inode;
use super::mount_options::log;
use super::subvol_path;
use super::super_block::{self, SuperBlock};
use super::table::Table;
use crate::bindings;
use crate::mount::{Level, MountOptions, Parsed, SpaceCache, Subvol, Value};
use kernel::error::{from_err_ptr, from_result, to_result};
use kernel::fmt;
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
        // SAFETY: The context is valid. One for a remount has a root, of a superblock of ours that
        // is mounted.
        let options = unsafe {
            if (*fc).purpose() == bindings::fs_context_purpose_FS_CONTEXT_FOR_RECONFIGURE {
                let sb = SuperBlock::from_raw((*(*fc).root).d_sb);
                MountOptions::for_remount(sb.volume().settings())
            } else {
                MountOptions::default()
            }
        };
        let options = KBox::new(options, GFP_KERNEL)?;
        // SAFETY: The context is new and ours to fill in. `free` takes the options back.
        unsafe {
            (*fc).fs_private = KBox::into_raw(options).cast();
            (*fc).ops = OPERATIONS.as_ptr();
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
        _ => Value::Other,
    };
    // SAFETY: The VFS holds the context's lock.
    let mut log = move |level, message: fmt::Arguments<'_>| unsafe { log(fc, level, message) };
    match options.parse(key.to_bytes(), value, &mut log) {
        // SAFETY: The context is ours, and holds the module.
        Ok(Parsed::Taken) => from_result(|| unsafe { scan(fc, options) }.map(|()| 0)),
        Ok(Parsed::Unknown) => ENOPARAM,
        Err(e) => e.to_errno(),
    }
}

/// Bytes that the VFS took from a string, as a string again.
fn terminated(bytes: &[u8]) -> Result<KVec<u8>> {
    let mut text = KVec::with_capacity(bytes.len().saturating_add(1), GFP_KERNEL)?;
    text.extend_from_slice(bytes, GFP_KERNEL)?;
    text.push(0, GFP_KERNEL)?;
    Ok(text)
}

/// Looks at the devices that `device=` has named since the last call. There is nothing to be learnt
/// from them, as volumes have one device, but they must hold a btrfs volume, as with the C driver.
///
/// # Errors
///
/// What opening a device gives, and `EINVAL` if it holds no volume, with a message each.
///
/// # Safety
///
/// `fc` is a context of ours, and in use by the caller alone.
unsafe fn scan(fc: *mut bindings::fs_context, options: &mut MountOptions) -> Result {
    // SAFETY: By this function's contract.
    let devices = Devices::of(unsafe { Filesystem::of_context(fc) });
    while let Some(path) = options.devices.pop() {
        let path = terminated(&path)?;
        let path = CStr::from_bytes_with_nul(&path).map_err(|_| EINVAL)?;
        if let Err(e) = devices.volume_size(path) {
            let (shown, errno) = (path.to_str().unwrap_or("?"), e.to_errno());
            // SAFETY: By this function's contract.
            unsafe {
                log(
                    fc,
                    Level::Error,
                    fmt!("device '{shown}' cannot be scanned: error {errno}"),
                );
            }
            return Err(e);
        }
    }
    Ok(())
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

impl Locked {
    /// Unlocks the superblock, and keeps the reference.
    fn unlock(self) -> Unlocked {
        let sb = Unlocked(self.0);
        core::mem::forget(self);
        // SAFETY: The lock is ours.
        unsafe { bindings::rbtrfs_sb_unlock(sb.0) };
        sb
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
    // SAFETY: By this function's contract.
    let mut log = move |level, message: fmt::Arguments<'_>| unsafe { log(fc, level, message) };
    if source.is_null() {
        log(Level::Error, fmt!("no device to mount was given"));
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
        if options.settings.acl {
            (*fc).sb_flags |= SB_POSIXACL;
        }
        find_super(fc, dev, filesystem)
    }?;
    // SAFETY: As above.
    let wanted_ro = unsafe { (*fc).sb_flags } & SB_RDONLY != 0;
    if sb.is_new() {
        options.settings.check_read_only(wanted_ro, &mut log)?;
        // SAFETY: The superblock is new, and locked by us.
        unsafe {
            to_result(bindings::setup_bdev_super(sb.0, (*fc).sb_flags as i32, fc))?;
            let source = CStr::from_char_ptr(source.cast());
            super_block::fill(sb.0, &options.settings, filesystem, source, &mut log)?;
            (*sb.0).s_flags |= SB_ACTIVE;
        }
    } else if !wanted_ro {
        // A second mount that wants to write makes the shared superblock writable, as with the C
        // driver; one that does not is read-only by itself. What is in force stays. SAFETY: The
        // superblock has a root, so its data is set, and we hold its lock.
        unsafe {
            let sb = SuperBlock::from_raw(sb.0);
            sb.volume().settings().check_read_only(false, &mut log)?;
            set_read_only(sb, false)?;
        }
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

/// The dentry at the end of a path from the superblock's root, which the VFS walks as it would any
/// other in a namespace where nothing else is mounted: over symbolic links, `.` and `..`.
///
/// # Errors
///
/// Those of the walk. Then the superblock is unlocked, and the reference to it is dropped.
///
/// # Safety
///
/// `fc` is the context that `sb` was got for; its root is not set.
unsafe fn walk(fc: *mut bindings::fs_context, sb: Locked, path: &CStr) -> Result<(Locked, Dentry)> {
    let sb = sb.unlock();
    // SAFETY: By this function's contract. The mount has references of its own, which
    // `mount_subtree` takes over or drops; with the dentry it returns a reference to the
    // superblock, which it has locked.
    unsafe {
        let top = Dentry(bindings::rbtrfs_dget((*sb.0).s_root));
        (*fc).root = top.0;
        let mount = bindings::vfs_create_mount(fc.cast());
        (*fc).root = core::ptr::null_mut();
        let mount = from_err_ptr(mount)?;
        let found = from_err_ptr(bindings::mount_subtree(mount, path.as_char_ptr()))?;
        Ok((Locked((*found).d_sb), Dentry(found)))
    }
}

/// A reference to a superblock that is not locked; dropping it gives it up.
struct Unlocked(*mut bindings::super_block);

impl Drop for Unlocked {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::deactivate_super(self.0) }
    }
}

/// The dentry at the end of names from the superblock's root, reached by look-ups, so that the
/// dcache knows its path.
///
/// # Safety
///
/// `sb` is a superblock of ours with a root.
unsafe fn look_up(sb: &Locked, path: &subvol_path::SubvolPath) -> Result<Dentry> {
    // SAFETY: By this function's contract.
    let mut at = unsafe { Dentry(bindings::rbtrfs_dget((*sb.0).s_root)) };
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
    Ok(at)
}

/// The dentry of the subvolume that the options name, with the superblock locked.
///
/// # Errors
///
/// Those of looking it up; `EINVAL`, with a message, if it is no subvolume or not the one that
/// `subvolid=` says.
///
/// # Safety
///
/// `fc` is the context that `sb` was got for; its root is not set.
unsafe fn subvol_root(
    fc: *mut bindings::fs_context,
    sb: Locked,
    subvol: &Subvol,
) -> Result<(Locked, Dentry)> {
    // SAFETY: By this function's contract.
    let fs = unsafe { SuperBlock::from_raw(sb.0) }.volume().fs();
    if !fs.is_read_only() {
        // Where the subvolumes are is looked up in the last commit.
        fs.commit()?;
    }
    let (sb, found, wanted) = match subvol {
        Subvol::Path(path) | Subvol::PathAndId(path, _) => {
            let text = terminated(path)?;
            let text = CStr::from_bytes_with_nul(&text).map_err(|_| EINVAL)?;
            // SAFETY: By this function's contract.
            let (sb, found) = unsafe { walk(fc, sb, text) }?;
            (sb, found, Some(path))
        }
        Subvol::Id(_) | Subvol::Default => {
            let reader = fs.reader()?;
            let id = match subvol {
                Subvol::Id(id) => *id,
                _ => subvol_path::default_tree(&reader)?,
            };
            let path = subvol_path::of_tree(&reader, id)?;
            drop(reader);
            // SAFETY: By this function's contract.
            let found = unsafe { look_up(&sb, &path) }?;
            (sb, found, None)
        }
    };
    // SAFETY: The dentry is referenced, and of a superblock of ours.
    let inode = unsafe { found.inode() }.ok_or(ENOENT)?;
    let info = inode.info();
    let shown = wanted.map_or("", |path| core::str::from_utf8(path).unwrap_or("?"));
    // SAFETY: By this function's contract.
    let log = move |level, message: fmt::Arguments<'_>| unsafe { log(fc, level, message) };
    if !inode.is_dir() || info.ino != super::inode::ROOT_DIR {
        log(Level::Error, fmt!("'{shown}' is not a valid subvolume"));
        return Err(EINVAL);
    }
    if let Subvol::PathAndId(_, id) = subvol {
        if *id != info.tree {
            log(
                Level::Error,
                fmt!("subvol '{shown}' does not match subvolid {id}"),
            );
            return Err(EINVAL);
        }
    }
    Ok((sb, found))
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
        let (sb, root) = unsafe { subvol_root(fc, sb, &options.subvol) }?;
        // The VFS takes the reference to the superblock over with that to its dentry, and unlocks
        // it.
        core::mem::forget(sb);
        // SAFETY: The VFS expects the root here.
        unsafe { (*fc).root = root.into_raw() };
        Ok(0)
    })
}

/// `fs_context_operations::reconfigure`. If it fails, all is as it was.
///
/// # Safety
///
/// As the VFS calls it: the context's superblock is locked.
unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The root of a context to be reconfigured is of a superblock of ours.
        let (sb, flags, mask, mut settings) = unsafe {
            (
                SuperBlock::from_raw((*(*fc).root).d_sb),
                (*fc).sb_flags,
                (*fc).sb_flags_mask,
                (*(*fc).fs_private.cast::<MountOptions>()).settings,
            )
        };
        // One that says neither `ro` nor `rw`, as only `fspick` can make it, leaves that as it is.
        let read_only = if mask & SB_RDONLY != 0 {
            flags & SB_RDONLY != 0
        } else {
            sb.is_read_only()
        };
        // SAFETY: The VFS holds the context's lock.
        let mut log = move |level, message: fmt::Arguments<'_>| unsafe { log(fc, level, message) };
        let volume = sb.volume();
        let facts = volume.facts()?;
        settings.check_read_only(read_only, &mut log)?;
        settings.check_volume(facts, &mut log)?;
        let becomes_writable = sb.is_read_only() && !read_only;
        if settings.space_cache == SpaceCache::Tree && !facts.free_space_tree && !becomes_writable {
            log(
                Level::Warning,
                fmt!("remount supports changing free space tree only from RO to RW"),
            );
            settings.space_cache = SpaceCache::AsFound;
        }
        let before = volume.settings();
        volume.apply(settings);
        if sb.is_read_only() != read_only {
            // The VFS sets the flag itself when this succeeds.
            // SAFETY: The VFS has locked the superblock.
            unsafe { sb.set_read_only(read_only) }.inspect_err(|_| volume.apply(before))?;
        }
        volume.forget_once();
        // The VFS lets no remount ask for this, but does what it is told here.
        // SAFETY: The VFS holds the context's lock.
        unsafe {
            (*fc).sb_flags_mask |= SB_POSIXACL;
            if settings.acl {
                (*fc).sb_flags |= SB_POSIXACL;
            } else {
                (*fc).sb_flags &= !SB_POSIXACL;
            }
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
