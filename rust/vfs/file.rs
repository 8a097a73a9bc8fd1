// SPDX-License-Identifier: GPL-2.0
//! Regular files: reading, and seeking to data and holes.

use super::inode::{self, Inode};
use super::table::Table;
use super::{attributes, fallocate, fiemap, fsync, ioctl, replace, setsize, write};
use crate::bindings;
use crate::subvol::file_extent::{self, Extent, Kind};
use kernel::error::from_result;
use kernel::prelude::*;

/// What a seek looks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Find {
    Data,
    Hole,
}

fn is_hole(extent: &Extent<'_>) -> bool {
    // Preallocated space reads as zeros, which is what a hole does.
    matches!(extent.kind, Kind::Hole | Kind::Prealloc(_))
}

/// The first place at or behind `offset` with data or a hole; the end of the file counts as a hole.
fn seek(inode: &Inode, offset: i64, find: Find) -> Result<i64> {
    let from = u64::try_from(offset).map_err(|_| ENXIO)?;
    let size = inode.size();
    if from >= size {
        return Err(ENXIO);
    }
    // The tree does not show what is only in memory.
    setsize::flush(inode, from, size)?;
    let (view, root) = inode.tree()?;
    let sector = inode.fs().geometry.sectorsize;
    let mut found = None;
    file_extent::for_each(
        &*view,
        root,
        inode.info().ino,
        sector,
        (from, size),
        &mut |extent| {
            if is_hole(extent) == (find == Find::Hole) {
                found = Some(extent.offset.max(from));
            }
            Ok(found.is_none())
        },
    )?;
    let found = match (found, find) {
        (Some(found), _) if found < size => found,
        (_, Find::Hole) => size,
        (_, Find::Data) => return Err(ENXIO),
    };
    i64::try_from(found).map_err(|_| EUCLEAN)
}

/// `file_operations::llseek`.
///
/// # Safety
///
/// As the VFS calls it, for an open regular file of ours.
unsafe extern "C" fn llseek(
    file: *mut bindings::file,
    offset: i64,
    whence: kernel::ffi::c_int,
) -> i64 {
    let find = match whence as u32 {
        bindings::SEEK_DATA => Find::Data,
        bindings::SEEK_HOLE => Find::Hole,
        // SAFETY: The arguments are the VFS's own.
        _ => return unsafe { bindings::generic_file_llseek(file, offset, whence) },
    };
    // SAFETY: The VFS passes a file that is open.
    match seek(unsafe { Inode::of_file(file) }, offset, find) {
        // SAFETY: As above. The position lies within the file.
        Ok(found) => unsafe { bindings::vfs_setpos(file, found, i64::MAX) },
        Err(e) => i64::from(e.to_errno()),
    }
}

/// `file_operations::open`: a direct read is allowed, and goes through the page cache all the same;
/// so is one that must not wait, as io_uring makes them. On a volume that was shut down there is
/// nothing to open.
///
/// # Safety
///
/// As the VFS calls it, for a regular file of ours.
unsafe extern "C" fn open(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The VFS passes an inode that it holds; the file is being opened, so that nobody
        // else uses it.
        unsafe {
            Inode::from_raw(inode).fs().check_shut_down()?;
            (*file).f_mode |= bindings::rbtrfs_FMODE_CAN_ODIRECT | bindings::rbtrfs_FMODE_NOWAIT;
        }
        Ok(0)
    })
}

/// `file_operations::release`: the file was closed, and nothing maps it by that opening any more.
///
/// # Safety
///
/// As the VFS calls it, for a regular file of ours.
unsafe extern "C" fn release(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract; the file keeps its inode until this returns.
    replace::closed(unsafe { Inode::of_file(file) });
    0
}

/// `file_operations::read_iter`.
///
/// # Safety
///
/// As the VFS calls it, for an open regular file of ours.
unsafe extern "C" fn read_iter(iocb: *mut bindings::kiocb, to: *mut bindings::iov_iter) -> isize {
    // SAFETY: The VFS passes a file that is open. The request is the caller's own; the flag only
    // picks the path that is taken below.
    from_result(|| unsafe {
        Inode::of_file((*iocb).ki_filp).fs().check_shut_down()?;
        // Data is checked and decompressed in the page cache; a direct read would do that for each
        // reader anew.
        (*iocb).ki_flags &= !(bindings::IOCB_DIRECT as i32);
        if (*iocb).ki_flags & bindings::rbtrfs_IOCB_NOWAIT != 0 {
            // What is not in the page cache is not read either: looking extents up takes locks.
            (*iocb).ki_flags |= bindings::IOCB_NOIO as i32;
        }
        Ok(bindings::generic_file_read_iter(iocb, to))
    })
}

/// `file_operations::splice_read`.
///
/// # Safety
///
/// As the VFS calls it, for an open regular file of ours.
unsafe extern "C" fn splice_read(
    file: *mut bindings::file,
    pos: *mut i64,
    pipe: *mut bindings::pipe_inode_info,
    len: usize,
    flags: kernel::ffi::c_uint,
) -> isize {
    // SAFETY: The VFS passes a file that is open; the other arguments are its own.
    from_result(|| unsafe {
        Inode::of_file(file).fs().check_shut_down()?;
        Ok(bindings::filemap_splice_read(file, pos, pipe, len, flags))
    })
}

pub(super) static INODE_OPERATIONS: Table<bindings::inode_operations> =
    Table::new(bindings::inode_operations {
        fiemap: Some(fiemap::fiemap),
        fileattr_get: Some(attributes::fileattr_get),
        fileattr_set: Some(attributes::fileattr_set),
        ..inode::COMMON
    });

pub(super) static FILE_OPERATIONS: Table<bindings::file_operations> =
    Table::new(bindings::file_operations {
        llseek: Some(llseek),
        open: Some(open),
        release: Some(release),
        read_iter: Some(read_iter),
        write_iter: Some(write::write_iter),
        splice_read: Some(splice_read),
        splice_write: Some(bindings::iter_file_splice_write),
        fallocate: Some(fallocate::fallocate),
        remap_file_range: Some(fallocate::remap_file_range),
        mmap_prepare: Some(write::mmap_prepare),
        #[cfg(CONFIG_TRANSPARENT_HUGEPAGE)]
        get_unmapped_area: Some(bindings::thp_get_unmapped_area),
        fsync: Some(fsync::fsync),
        setlease: Some(bindings::generic_setlease),
        unlocked_ioctl: Some(ioctl::unlocked_ioctl),
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: Some(ioctl::compat_ioctl),
        ..pin_init::zeroed()
    });
