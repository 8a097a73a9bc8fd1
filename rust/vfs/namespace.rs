// SPDX-License-Identifier: GPL-2.0
//! Changing directories: making, linking, removing and renaming what is in them.
//!
//! The VFS has locked the directories, and the inodes that lose or gain a name. Each call is one
//! operation of the engine, after which the VFS's inodes take over what changed.

use super::attributes::{id, now, take_over_dir, take_over_names};
use super::dir::name_of;
use super::iget::Unmade;
use super::inode::{Inode, InodeRef, ROOT_DIR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use super::lock::Exclusive;
use super::replace;
use super::security::Labels;
use super::xattr::Inherited;
use crate::bindings;
use crate::subvol::subvolume;
use crate::subvol::write::{self, Created, NewInode, RenameEnd, RenameMode};
use kernel::error::from_result;
use kernel::prelude::*;

const S_ISGID: u32 = bindings::S_ISGID;

/// What is to be made, besides its name.
struct New<'a> {
    mode: u32,
    rdev: u32,
    target: &'a [u8],
}

/// Whether something in a directory may be changed.
fn check_dir(dir: &Inode) -> Result {
    dir.subvolume().check_writable()
}

/// Makes an inode in `dir`, or one without a name if there is none.
///
/// # Safety
///
/// `idmap` is that of the caller's mount.
unsafe fn make(
    idmap: *mut bindings::mnt_idmap,
    dir: Exclusive<'_>,
    name: Option<&[u8]>,
    new: &New<'_>,
) -> Result<InodeRef> {
    check_dir(&dir)?;
    let mut mode = new.mode as bindings::umode_t;
    let acls = Inherited::from_dir(dir, &mut mode)?;
    let sb = dir.super_block();
    let mut mode = u32::from(mode);
    // SAFETY: By this function's contract; the inode and the superblock are valid.
    let (uid, gid) = unsafe {
        let gid = if dir.mode() & S_ISGID != 0 {
            if mode & S_IFMT == S_IFDIR {
                mode |= S_ISGID;
            }
            bindings::rbtrfs_inode_gid(dir.as_ptr())
        } else {
            bindings::rbtrfs_fsgid(idmap, sb.as_ptr())
        };
        (bindings::rbtrfs_fsuid(idmap, sb.as_ptr()), gid)
    };
    let inode = Unmade::new(sb, mode, new.rdev, (uid, gid))?;
    let labels = Labels::of(&inode, &dir, name)?;
    let mut xattrs = KVec::new();
    let mut push = |name, value| Ok(xattrs.push((name, value), GFP_KERNEL)?);
    acls.each(&mut push)?;
    labels.each(&mut push)?;
    let new = NewInode {
        mode,
        uid,
        gid,
        rdev: u64::from(new.rdev),
        flags: 0,
        now: now(&[&dir]),
        target: new.target,
        xattrs: &xattrs,
    };
    let created: Created = match name {
        Some(name) => {
            let created = write::create(dir.fs(), id(&dir), name, &new)?;
            take_over_dir(dir, &created.dir);
            created
        }
        None => write::tmpfile(dir.fs(), id(&dir), &new)?,
    };
    inode.made(&dir, created.ino, &created.item)
}

/// # Safety
///
/// As the VFS calls the operations that make something: `dir` is locked, and `dentry` a negative
/// dentry in it.
unsafe fn make_at(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    new: &New<'_>,
) -> Result {
    // SAFETY: By this function's contract; the name does not change while the directory is locked.
    unsafe {
        let dir = Exclusive::assume(Inode::from_raw(dir));
        let inode = make(idmap, dir, Some(name_of(dentry)), new)?;
        bindings::d_instantiate(dentry, inode.into_raw());
    }
    Ok(())
}

/// `inode_operations::create`. Before Linux 7.3 it was also told whether the file must be new:
/// that it is, the VFS has found out.
///
/// # Safety
///
/// As the VFS calls it, for a directory of ours.
pub(super) unsafe extern "C" fn create(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
    #[cfg(rbtrfs_before_7_3)] _exclusive: bool,
) -> kernel::ffi::c_int {
    let new = New {
        mode: u32::from(mode),
        rdev: 0,
        target: &[],
    };
    // SAFETY: By this function's contract.
    from_result(|| unsafe { make_at(idmap, dir, dentry, &new) }.map(|()| 0))
}

/// `inode_operations::mkdir`.
///
/// # Safety
///
/// As the VFS calls it, for a directory of ours.
pub(super) unsafe extern "C" fn mkdir(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
) -> *mut bindings::dentry {
    let new = New {
        mode: u32::from(mode) & !S_IFMT | S_IFDIR,
        rdev: 0,
        target: &[],
    };
    // SAFETY: By this function's contract.
    match unsafe { make_at(idmap, dir, dentry, &new) } {
        Ok(()) => core::ptr::null_mut(),
        Err(e) => e.to_ptr(),
    }
}

/// `inode_operations::mknod`.
///
/// # Safety
///
/// As the VFS calls it, for a directory of ours.
pub(super) unsafe extern "C" fn mknod(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    mode: bindings::umode_t,
    rdev: bindings::dev_t,
) -> kernel::ffi::c_int {
    let new = New {
        mode: u32::from(mode),
        rdev,
        target: &[],
    };
    // SAFETY: By this function's contract.
    from_result(|| unsafe { make_at(idmap, dir, dentry, &new) }.map(|()| 0))
}

/// `inode_operations::symlink`.
///
/// # Safety
///
/// As the VFS calls it, for a directory of ours.
pub(super) unsafe extern "C" fn symlink(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
    target: *const kernel::ffi::c_char,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes a terminated string.
    let target = unsafe { CStr::from_char_ptr(target) };
    let new = New {
        mode: S_IFLNK | 0o777,
        rdev: 0,
        target: target.to_bytes(),
    };
    // SAFETY: By this function's contract.
    from_result(|| unsafe { make_at(idmap, dir, dentry, &new) }.map(|()| 0))
}

/// `inode_operations::tmpfile`.
///
/// # Safety
///
/// As the VFS calls it, for a directory of ours.
pub(super) unsafe extern "C" fn tmpfile(
    idmap: *mut bindings::mnt_idmap,
    dir: *mut bindings::inode,
    file: *mut bindings::file,
    mode: bindings::umode_t,
) -> kernel::ffi::c_int {
    let new = New {
        mode: u32::from(mode),
        rdev: 0,
        target: &[],
    };
    from_result(|| {
        // SAFETY: By this function's contract. The inode has no name, and `d_tmpfile` counts the
        // one down that it expects.
        unsafe {
            let dir = Exclusive::assume(Inode::from_raw(dir));
            let inode = make(idmap, dir, None, &new)?;
            bindings::set_nlink(inode.as_ptr(), 1);
            bindings::d_tmpfile(file, inode.into_raw());
            Ok(bindings::rbtrfs_finish_tmpfile(file, 0))
        }
    })
}

/// `inode_operations::link`.
///
/// # Safety
///
/// As the VFS calls it, for inodes of ours.
pub(super) unsafe extern "C" fn link(
    old: *mut bindings::dentry,
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The VFS passes dentries that it holds, and has locked the directory and the
        // inode.
        let (inode, dir, name) = unsafe {
            let dir = Exclusive::assume(Inode::from_raw(dir));
            (Inode::of_dentry(old), dir, name_of(dentry))
        };
        check_dir(&dir)?;
        if inode.info().tree != dir.info().tree {
            return Err(EXDEV);
        }
        let linked = write::link(
            dir.fs(),
            inode.info().ino,
            id(&dir),
            name,
            now(&[&dir, inode]),
        )?;
        take_over_dir(dir, &linked.dir);
        take_over_names(inode, &linked.item);
        // SAFETY: As above; the dentry gets a reference of its own.
        unsafe {
            bindings::ihold(inode.as_ptr());
            bindings::d_instantiate(dentry, inode.as_ptr());
        }
        Ok(0)
    })
}

/// # Safety
///
/// As the VFS calls `unlink` and `rmdir`: the directory and the inode are locked.
unsafe fn remove(dir: *mut bindings::inode, dentry: *mut bindings::dentry, is_dir: bool) -> Result {
    // SAFETY: By this function's contract.
    let (dir, inode, name) = unsafe {
        let dir = Exclusive::assume(Inode::from_raw(dir));
        (dir, Inode::of_dentry(dentry), name_of(dentry))
    };
    check_dir(&dir)?;
    if inode.info().ino == ROOT_DIR && is_dir {
        return remove_subvolume(dir, inode, name);
    }
    let time = now(&[&dir, inode]);
    let removed = if is_dir {
        write::rmdir(dir.fs(), id(&dir), name, time)?
    } else {
        write::unlink(dir.fs(), id(&dir), name, time)?
    };
    take_over_dir(dir, &removed.dir);
    if !inode.is_stub() {
        take_over_names(inode, &removed.item);
    }
    Ok(())
}

/// Deletes a subvolume that holds nothing, as `rmdir` may.
fn remove_subvolume(dir: Exclusive<'_>, inode: &Inode, name: &[u8]) -> Result {
    if inode.size() != 0 {
        return Err(ENOTEMPTY);
    }
    let deleted = subvolume::delete_subvolume(dir.fs(), id(&dir), name, now(&[&dir]))?;
    take_over_dir(dir, &deleted.dir);
    inode.subvolume().set_deleted();
    dir.super_block().volume().wake_cleaner();
    Ok(())
}

/// `inode_operations::unlink`.
///
/// # Safety
///
/// As the VFS calls it, for inodes of ours.
pub(super) unsafe extern "C" fn unlink(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { remove(dir, dentry, false) }.map(|()| 0))
}

/// `inode_operations::rmdir`.
///
/// # Safety
///
/// As the VFS calls it, for inodes of ours.
pub(super) unsafe extern "C" fn rmdir(
    dir: *mut bindings::inode,
    dentry: *mut bindings::dentry,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    from_result(|| unsafe { remove(dir, dentry, true) }.map(|()| 0))
}

/// An end of a rename.
struct End<'a> {
    dir: Exclusive<'a>,
    name: &'a [u8],
    /// What has the name.
    inode: Option<&'a Inode>,
}

impl<'a> End<'a> {
    /// # Safety
    ///
    /// `dir` is a locked directory of ours, and `dentry` a dentry in it whose inode, if it has one
    /// and that is not a directory, is locked as well; all for `'a`.
    unsafe fn new(dir: *mut bindings::inode, dentry: *mut bindings::dentry) -> Self {
        // SAFETY: By this function's contract; names do not change while their directory is locked.
        unsafe {
            let inode = !bindings::rbtrfs_d_inode(dentry).is_null();
            Self {
                dir: Exclusive::assume(Inode::from_raw(dir)),
                name: name_of(dentry),
                inode: inode.then(|| Inode::of_dentry(dentry)),
            }
        }
    }

    fn engine(&self) -> RenameEnd<'a> {
        RenameEnd {
            dir: id(self.dir.inode()),
            name: self.name,
        }
    }

    /// Whether the name leads to a subvolume.
    fn is_subvolume(&self) -> bool {
        self.inode
            .is_some_and(|inode| inode.info().ino == ROOT_DIR || inode.is_stub())
    }
}

/// # Safety
///
/// `idmap` is that of the caller's mount.
unsafe fn rename_ends(
    idmap: *mut bindings::mnt_idmap,
    from: &End<'_>,
    to: &End<'_>,
    flags: u32,
) -> Result {
    if to.dir.is_stub() {
        return Err(EPERM);
    }
    check_dir(&from.dir)?;
    check_dir(&to.dir)?;
    let moved = from.inode.ok_or(ENOENT)?;
    // Only subvolumes move between subvolumes.
    let exchange = flags & bindings::RENAME_EXCHANGE != 0;
    if from.dir.info().tree != to.dir.info().tree
        && !(from.is_subvolume() && (to.is_subvolume() || !exchange))
    {
        return Err(EXDEV);
    }
    // Something takes the name of a subvolume only by changing places with it.
    if moved.is_stub() || (to.is_subvolume() && !exchange) {
        return Err(ENOTEMPTY);
    }
    let replaced = to.inode.unwrap_or(moved);
    let time = now(&[&from.dir, &to.dir, moved, replaced]);
    let sb = from.dir.super_block().as_ptr();
    // SAFETY: By this function's contract; the superblock is valid.
    let (uid, gid) = unsafe {
        (
            bindings::rbtrfs_fsuid(idmap, sb),
            bindings::rbtrfs_fsgid(idmap, sb),
        )
    };
    let whiteout = NewInode {
        mode: bindings::S_IFCHR,
        uid,
        gid,
        rdev: 0,
        flags: 0,
        now: time,
        target: &[],
        xattrs: &[],
    };
    let mode = if exchange {
        RenameMode::Exchange
    } else if flags & bindings::RENAME_WHITEOUT != 0 {
        RenameMode::Whiteout(&whiteout)
    } else if flags & bindings::RENAME_NOREPLACE != 0 {
        RenameMode::NoReplace
    } else {
        RenameMode::Replace
    };
    if let (S_IFREG, Some(replaced)) = (moved.mode() & S_IFMT, to.inode) {
        if replaced.size() != 0 && !exchange {
            // Who replaces a file by a new one wants the one or the other to be there after a
            // crash.
            replace::takes_place(moved);
        }
    }
    let renamed = write::rename(from.dir.fs(), from.engine(), to.engine(), mode, time)?;
    take_over_dir(from.dir, &renamed.from_dir);
    take_over_dir(to.dir, &renamed.to_dir);
    for inode in [Some(moved), to.inode].into_iter().flatten() {
        super::attributes::touch(inode, time, renamed.to_dir.transid.get());
    }
    if let (Some((_, item)), Some(inode)) = (&renamed.replaced, to.inode) {
        take_over_names(inode, item);
    }
    Ok(())
}

/// `inode_operations::rename`.
///
/// # Safety
///
/// As the VFS calls it, for inodes of ours.
pub(super) unsafe extern "C" fn rename(
    idmap: *mut bindings::mnt_idmap,
    from_dir: *mut bindings::inode,
    from: *mut bindings::dentry,
    to_dir: *mut bindings::inode,
    to: *mut bindings::dentry,
    flags: kernel::ffi::c_uint,
) -> kernel::ffi::c_int {
    const KNOWN: u32 =
        bindings::RENAME_NOREPLACE | bindings::RENAME_EXCHANGE | bindings::RENAME_WHITEOUT;
    from_result(|| {
        if flags & !KNOWN != 0 {
            return Err(EINVAL);
        }
        // SAFETY: By this function's contract.
        unsafe {
            let (from, to) = (End::new(from_dir, from), End::new(to_dir, to));
            rename_ends(idmap, &from, &to, flags)?;
        }
        Ok(0)
    })
}
