// SPDX-License-Identifier: GPL-2.0
//! What `stat` shows and `chmod`, `chown`, `utimes`, `truncate` and `chattr` change.
//!
//! The VFS's copy of mode, owner and times is changed first, and stored in the tree from there.
//! Times that a write changes are stored when the inode is written back, all others at once.

use super::inode::{Inode, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use super::lock::Exclusive;
use super::setsize;
use crate::bindings;
use crate::format::inode::{inode_flags, InodeItem, Timespec};
use crate::format::CompressionMethod;
use crate::subvol::write::{set_flags, update_inode, InodeId};
use kernel::error::{from_result, to_result};
use kernel::prelude::*;

/// The only sector size that is mounted.
const SECTOR_SIZE: u64 = 4096;

/// How the engine names an inode.
pub(super) fn id(inode: &Inode) -> InodeId {
    InodeId {
        tree: inode.info().tree,
        ino: inode.info().ino,
    }
}

/// The time for a change of these inodes, as it is stored. It is that of the last clock tick,
/// unless a `stat` has seen that very time of one of them: then it is a later one, so that the
/// change shows (multigrain timestamps).
pub(super) fn now(inodes: &[&Inode]) -> Timespec {
    let latest = inodes.iter().fold((0, 0), |latest, inode| {
        let (mut sec, mut nsec) = (0, 0);
        // SAFETY: The inode is valid, and so are the pointers for the write.
        unsafe { bindings::rbtrfs_current_time(inode.as_ptr(), &mut sec, &mut nsec) };
        latest.max((sec, nsec))
    });
    timespec(latest.0, latest.1)
}

fn timespec(sec: i64, nsec: u32) -> Timespec {
    Timespec {
        sec: (sec as u64).into(),
        nsec: nsec.into(),
    }
}

/// Sets the flags by which the VFS knows how an inode may be changed.
///
/// # Safety
///
/// `inode` is valid.
pub(super) unsafe fn set_vfs_flags(inode: *mut bindings::inode, flags: u64) {
    const ALL: u32 = bindings::S_NOATIME
        | bindings::S_SYNC
        | bindings::S_IMMUTABLE
        | bindings::S_APPEND
        | bindings::S_DIRSYNC;
    let mut vfs_flags = 0;
    for (flag, bit) in [
        (inode_flags::SYNC, bindings::S_SYNC),
        (inode_flags::IMMUTABLE, bindings::S_IMMUTABLE),
        (inode_flags::APPEND, bindings::S_APPEND),
        (inode_flags::DIRSYNC, bindings::S_DIRSYNC),
        (inode_flags::NOATIME, bindings::S_NOATIME),
    ] {
        if flags & flag != 0 {
            vfs_flags |= bit;
        }
    }
    // SAFETY: By this function's contract.
    unsafe { bindings::inode_set_flags(inode, vfs_flags, ALL) };
}

/// Takes over what an operation on a directory's names changed of the directory.
pub(super) fn take_over_dir(dir: Exclusive<'_>, item: &InodeItem) {
    if let Ok(size) = i64::try_from(item.size.get()) {
        // SAFETY: The inode is valid, and locked.
        unsafe { bindings::rbtrfs_inode_set_size(dir.as_ptr(), size) };
    }
    take_over_times(&dir, item, true);
}

/// Takes over what an operation on an inode's names changed of the inode.
pub(super) fn take_over_names(inode: &Inode, item: &InodeItem) {
    // SAFETY: The inode is valid, and the VFS holds its lock.
    unsafe { bindings::set_nlink(inode.as_ptr(), item.nlink.get()) };
    take_over_times(inode, item, false);
}

/// Sets the time of change, and that of the last modification as well if `modified`. The VFS holds
/// the inode's lock, or that of its directory.
fn set_times(inode: &Inode, time: Timespec, modified: bool) {
    // SAFETY: The inode is valid.
    unsafe {
        bindings::rbtrfs_inode_set_cmtime(
            inode.as_ptr(),
            time.sec.get() as i64,
            time.nsec.get(),
            modified,
        );
    }
}

/// Takes over the times of an inode, that of its last modification if `modified`.
pub(super) fn take_over_times(inode: &Inode, item: &InodeItem, modified: bool) {
    set_times(inode, item.ctime, modified);
    inode.set_changed(item.transid.get());
}

/// Notes that an inode changes now, in its contents if `modified`. [`store`] is to follow.
pub(super) fn take_over_now(inode: &Inode, modified: bool) {
    set_times(inode, now(&[inode]), modified);
}

/// Notes that transaction `transid` changed an inode at `time`, but not its contents.
pub(super) fn touch(inode: &Inode, time: Timespec, transid: u64) {
    set_times(inode, time, false);
    inode.set_changed(transid);
}

/// The VFS's copy of an inode's owner, mode and times before a change, to be brought back if that
/// fails.
struct Before(bindings::rbtrfs_attributes);

impl Before {
    fn of(inode: Exclusive<'_>) -> Self {
        let mut found: bindings::rbtrfs_attributes = pin_init::zeroed();
        // SAFETY: The inode is valid.
        unsafe { bindings::rbtrfs_inode_attributes(inode.as_ptr(), &mut found) };
        Self(found)
    }

    fn restore(&self, inode: Exclusive<'_>) {
        let Self(before) = self;
        // SAFETY: The inode is valid, and locked.
        unsafe {
            (*inode.as_ptr()).i_mode = before.mode as bindings::umode_t;
            bindings::rbtrfs_inode_set_owner(inode.as_ptr(), before.uid, before.gid);
            bindings::rbtrfs_inode_set_times(
                inode.as_ptr(),
                before.atime,
                before.atime_nsec,
                before.mtime,
                before.mtime_nsec,
                before.ctime,
                before.ctime_nsec,
            );
        }
    }
}

/// Stores the VFS's copy of an inode's attributes in its tree.
///
/// # Errors
///
/// Those of [`update_inode`].
pub(super) fn store(inode: &Inode) -> Result {
    let mut found: bindings::rbtrfs_attributes = pin_init::zeroed();
    // SAFETY: The inode is valid.
    unsafe { bindings::rbtrfs_inode_attributes(inode.as_ptr(), &mut found) };
    let flags = inode.info().flags();
    let item = update_inode(inode.fs(), id(inode), |item| {
        item.mode = found.mode.into();
        item.uid = found.uid.into();
        item.gid = found.gid.into();
        // The engine notes by itself that there is preallocated space.
        item.flags = (flags | item.flags.get() & inode_flags::PREALLOC).into();
        item.sequence = found.version.max(item.sequence.get()).into();
        item.atime = timespec(found.atime, found.atime_nsec);
        item.mtime = timespec(found.mtime, found.mtime_nsec);
        item.ctime = timespec(found.ctime, found.ctime_nsec);
        Ok(())
    })?;
    inode.set_changed(item.transid.get());
    Ok(())
}

/// `inode_operations::update_time`: times of reading and writing, in memory, from where
/// `write_inode` stores them.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours.
pub(super) unsafe extern "C" fn update_time(
    inode: *mut bindings::inode,
    typ: bindings::fs_update_time,
    flags: kernel::ffi::c_uint,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    let found = unsafe { Inode::from_raw(inode) };
    // The VFS knows of read-only mounts, and not of read-only subvolumes.
    if let Err(e) = found.subvolume().check_writable() {
        return e.to_errno();
    }
    // SAFETY: As above.
    unsafe { bindings::generic_update_time(inode, typ, flags) }
}

/// `super_operations::write_inode`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours.
pub(super) unsafe extern "C" fn write_inode(
    inode: *mut bindings::inode,
    _wbc: *mut bindings::writeback_control,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    let inode = unsafe { Inode::from_raw(inode) };
    from_result(|| match store(inode) {
        Ok(()) => Ok(0),
        // The subvolume was made read-only or is being deleted: the times of the last write go with
        // it.
        Err(e) if e == ENOENT || e == EROFS => Ok(0),
        Err(e) => Err(e),
    })
}

/// # Safety
///
/// As for [`setattr`].
unsafe fn set(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    attr: *mut bindings::iattr,
) -> Result {
    // SAFETY: The VFS passes a dentry that it holds, and has locked its inode.
    let inode = unsafe { Exclusive::assume(Inode::of_dentry(dentry)) };
    inode.subvolume().check_writable()?;
    // SAFETY: The arguments are the VFS's own.
    to_result(unsafe { bindings::setattr_prepare(idmap, dentry, attr) })?;
    // SAFETY: As above.
    let (valid, size) = unsafe { ((*attr).ia_valid, (*attr).ia_size) };
    if valid & bindings::ATTR_SIZE != 0 && inode.mode() & S_IFMT == S_IFREG {
        const TIMES: u32 = bindings::ATTR_MTIME | bindings::ATTR_CTIME;
        let size = u64::try_from(size).map_err(|_| EINVAL)?;
        let changes = size != inode.size();
        setsize::set_size(inode, size)?;
        // The VFS leaves it to us to see whether `truncate` changes anything.
        if changes && valid & TIMES == 0 {
            take_over_now(&inode, true);
        }
    }
    let before = Before::of(inode);
    // SAFETY: As above.
    unsafe { bindings::setattr_copy(idmap, inode.as_ptr(), attr) };
    store(&inode).inspect_err(|_| before.restore(inode))?;
    if valid & bindings::ATTR_MODE != 0 {
        // SAFETY: As above.
        to_result(unsafe {
            bindings::posix_acl_chmod(idmap, dentry, inode.mode() as bindings::umode_t)
        })?;
    }
    Ok(())
}

/// `inode_operations::setattr`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours, which is locked.
pub(super) unsafe extern "C" fn setattr(
    idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    attr: *mut bindings::iattr,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { set(idmap, dentry, attr) }.map(|()| 0))
}

/// Which bit of `chattr` stands for which flag.
const CHATTR: [(u32, u64); 7] = [
    (bindings::FS_SYNC_FL, inode_flags::SYNC),
    (bindings::FS_IMMUTABLE_FL, inode_flags::IMMUTABLE),
    (bindings::FS_APPEND_FL, inode_flags::APPEND),
    (bindings::FS_NODUMP_FL, inode_flags::NODUMP),
    (bindings::FS_NOATIME_FL, inode_flags::NOATIME),
    (bindings::FS_DIRSYNC_FL, inode_flags::DIRSYNC),
    (bindings::FS_NOCOMP_FL, inode_flags::NOCOMPRESS),
];

/// The flags that an inode has after `wanted` bits were asked for.
///
/// # Errors
///
/// `EOPNOTSUPP` for attributes that cannot be set, writing in place among them; `EINVAL` for those
/// that contradict each other.
fn new_flags(old: u64, wanted: u32) -> Result<u64> {
    const COMPRESSION: u32 = bindings::FS_COMPR_FL | bindings::FS_NOCOMP_FL;
    let shown = CHATTR.iter().fold(0, |all, (bit, _)| all | bit);
    let nocow = if old & inode_flags::NODATACOW != 0 {
        bindings::FS_NOCOW_FL
    } else {
        0
    };
    // What is there already may stay, or go.
    if wanted & !(shown | bindings::FS_COMPR_FL | nocow) != 0 {
        return Err(EOPNOTSUPP);
    }
    if wanted & COMPRESSION == COMPRESSION || (nocow != 0 && wanted & COMPRESSION != 0) {
        return Err(EINVAL);
    }
    let mut flags = old;
    for (bit, flag) in CHATTR {
        if wanted & bit != 0 {
            flags |= flag;
        } else {
            flags &= !flag;
        }
    }
    if wanted & bindings::FS_COMPR_FL == 0 {
        flags &= !inode_flags::COMPRESS;
    } else {
        flags |= inode_flags::COMPRESS;
    }
    if (wanted & bindings::FS_NOCOW_FL == 0) != (nocow == 0) {
        return Err(EOPNOTSUPP);
    }
    Ok(flags)
}

/// `inode_operations::fileattr_get`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours.
pub(super) unsafe extern "C" fn fileattr_get(
    dentry: *mut bindings::dentry,
    attr: *mut kernel::bindings::file_kattr,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes a dentry that it holds.
    let flags = unsafe { Inode::of_dentry(dentry) }.info().flags();
    let mut shown = 0;
    for (flag, bit) in [
        (inode_flags::SYNC, bindings::FS_SYNC_FL),
        (inode_flags::IMMUTABLE, bindings::FS_IMMUTABLE_FL),
        (inode_flags::APPEND, bindings::FS_APPEND_FL),
        (inode_flags::NODUMP, bindings::FS_NODUMP_FL),
        (inode_flags::NOATIME, bindings::FS_NOATIME_FL),
        (inode_flags::DIRSYNC, bindings::FS_DIRSYNC_FL),
        (inode_flags::NODATACOW, bindings::FS_NOCOW_FL),
        (inode_flags::RO_VERITY, bindings::FS_VERITY_FL),
    ] {
        if flags & flag != 0 {
            shown |= bit;
        }
    }
    if flags & inode_flags::NOCOMPRESS != 0 {
        shown |= bindings::FS_NOCOMP_FL;
    } else if flags & inode_flags::COMPRESS != 0 {
        shown |= bindings::FS_COMPR_FL;
    }
    // SAFETY: The VFS passes a structure to be filled in; the kernel crate knows it by name alone.
    unsafe { bindings::fileattr_fill_flags(attr.cast(), shown) };
    0
}

/// `inode_operations::fileattr_set`.
///
/// # Safety
///
/// As the VFS calls it, for an inode of ours, which is locked.
pub(super) unsafe extern "C" fn fileattr_set(
    _idmap: *mut bindings::mnt_idmap,
    dentry: *mut bindings::dentry,
    attr: *mut kernel::bindings::file_kattr,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The VFS passes a dentry that it holds, and has locked its inode.
        let inode = unsafe { Exclusive::assume(Inode::of_dentry(dentry)) };
        inode.subvolume().check_writable()?;
        // SAFETY: The VFS passes what is asked for; the kernel crate knows the type by name alone.
        let (wanted, more) = unsafe {
            let attr = attr.cast();
            (
                bindings::rbtrfs_kattr_flags(attr),
                bindings::rbtrfs_kattr_has_fsx(attr),
            )
        };
        if more {
            return Err(EOPNOTSUPP);
        }
        // A file has no names whose changes could be written at once.
        let wanted = if inode.is_dir() {
            wanted
        } else {
            wanted & !bindings::FS_DIRSYNC_FL
        };
        let flags = new_flags(inode.info().flags(), wanted)?;
        let mount = inode.super_block().volume().settings().compress;
        let method = mount.map_or(CompressionMethod::Zlib, |mount| mount.method);
        let item = set_flags(inode.fs(), id(&inode), flags, method, now(&[&inode]))?;
        inode.set_flags(item.flags.get());
        take_over_times(&inode, &item, false);
        Ok(0)
    })
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
    let flags = info.flags();
    // What is still in memory counts with the space that it will take; where it replaces what is on
    // disk, it takes no more.
    let new = inode.reserved().map_or(0, |reserved| reserved.new_bytes());
    let space = info.nbytes().saturating_add(new);
    // SAFETY: The VFS passes a `kstat` to be filled in.
    unsafe {
        bindings::generic_fillattr(idmap, mask, inode.as_ptr(), stat);
        let stat = &mut *stat;
        stat.dev = inode.subvolume().dev();
        stat.subvol = info.tree;
        stat.result_mask |= bindings::STATX_SUBVOL | STATX_BTIME;
        stat.btime.tv_sec = info.created.0;
        stat.btime.tv_nsec = info.created.1 as isize;
        stat.blksize = u32::try_from(kernel::page::PAGE_SIZE).unwrap_or(4096);
        stat.blocks = space
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
            if flags & flag != 0 {
                stat.attributes |= bit;
            }
        }
    }
    0
}

/// `inode_operations::permission`: nothing in a read-only subvolume may be written.
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
    if mask & MAY_WRITE != 0 {
        // SAFETY: The VFS passes an inode that it holds.
        let inode = unsafe { Inode::from_raw(inode) };
        if matches!(inode.mode() & S_IFMT, S_IFREG | S_IFDIR | S_IFLNK) {
            if inode.subvolume().is_read_only() {
                return EROFS.to_errno();
            }
            if inode.info().flags() & inode_flags::READONLY != 0 {
                return EACCES.to_errno();
            }
        }
    }
    // SAFETY: The arguments are the VFS's own.
    unsafe { bindings::generic_permission(idmap, inode, mask) }
}
