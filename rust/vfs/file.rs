// SPDX-License-Identifier: GPL-2.0
//! Regular files: reading, seeking to data and holes, and the map of extents.

use super::inode::{self, Inode};
use super::table::Table;
use super::{fallocate, fsync, ioctl, resize, write};
use crate::bindings;
use crate::platform;
use crate::subvol::file_extent::{self, Extent, Kind};
use crate::subvol::sharing::Sharing;
use kernel::error::{from_result, to_result};
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
    resize::flush(inode, from, size)?;
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

/// `file_operations::open`: a direct read is allowed, and goes through the page cache all the same.
///
/// # Safety
///
/// As the VFS calls it, for a regular file of ours.
unsafe extern "C" fn open(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> kernel::ffi::c_int {
    // SAFETY: The file is being opened, so that nobody else uses it.
    unsafe { (*file).f_mode |= bindings::rbtrfs_FMODE_CAN_ODIRECT };
    0
}

/// `file_operations::read_iter`.
///
/// # Safety
///
/// As the VFS calls it, for an open regular file of ours.
unsafe extern "C" fn read_iter(iocb: *mut bindings::kiocb, to: *mut bindings::iov_iter) -> isize {
    // Data is checked and decompressed in the page cache; a direct read would do that for each reader anew.
    // SAFETY: The request is the caller's own; the flag only picks the path that is taken below.
    unsafe {
        (*iocb).ki_flags &= !(bindings::IOCB_DIRECT as i32);
        bindings::generic_file_read_iter(iocb, to)
    }
}

/// Extent flags of `FIEMAP`.
fn fiemap_flags(kind: &Kind<'_>) -> u32 {
    match kind {
        Kind::Inline(_) => {
            bindings::FIEMAP_EXTENT_DATA_INLINE | bindings::FIEMAP_EXTENT_NOT_ALIGNED
        }
        Kind::Prealloc(_) => bindings::FIEMAP_EXTENT_UNWRITTEN,
        Kind::Regular(regular) if regular.compression != 0 => bindings::FIEMAP_EXTENT_ENCODED,
        _ => 0,
    }
}

/// One extent as it is told to the caller.
#[derive(Clone, Copy)]
struct Mapped {
    logical: u64,
    physical: u64,
    len: u64,
    flags: u32,
}

impl Mapped {
    /// What the caller is told of an extent that is not a hole, but whether it is shared.
    fn of(extent: &Extent<'_>, sector: u32) -> Option<Self> {
        let physical = match &extent.kind {
            Kind::Hole => return None,
            Kind::Inline(_) => 0,
            Kind::Regular(regular) | Kind::Prealloc(regular) => {
                // Where a compressed extent's bytes lie within it is not an address.
                let skip = if regular.compression != 0 {
                    0
                } else {
                    regular.extent_offset
                };
                regular.disk_bytenr.saturating_add(skip)
            }
        };
        Some(Self {
            logical: extent.offset,
            physical,
            // Inline data stands for its whole last sector.
            len: extent.len.next_multiple_of(u64::from(sector)),
            flags: fiemap_flags(&extent.kind),
        })
    }

    /// Adds `next` if it goes on where this ends, in the file as on disk.
    fn merge(&mut self, next: &Mapped) -> bool {
        let goes_on = self.flags == next.flags
            && self.flags & bindings::FIEMAP_EXTENT_DATA_INLINE == 0
            && self.logical.checked_add(self.len) == Some(next.logical)
            && self.physical.checked_add(self.len) == Some(next.physical);
        if goes_on {
            self.len = self.len.saturating_add(next.len);
        }
        goes_on
    }
}

fn fiemap_of(
    inode: &Inode,
    info: *mut bindings::fiemap_extent_info,
    start: u64,
    len: &mut u64,
) -> Result<i32> {
    // SAFETY: The VFS passes an inode that it holds, and its own structure.
    to_result(unsafe { bindings::fiemap_prep(inode.as_ptr(), info.cast(), start, len, 0) })?;
    // SAFETY: As above.
    let only_counted = unsafe { (*info).fi_extents_max } == 0;
    let end = start.saturating_add(*len);
    // A view of what is not committed may not be held while the caller's memory is written to.
    resize::flush(inode, 0, i64::MAX as u64)?;
    let fs = inode.fs();
    if !fs.is_read_only() {
        if only_counted {
            fs.commit_upto(inode.changed())?;
        } else {
            // Whoever drops or shares an extent changes what is told of others that have it.
            fs.commit()?;
        }
    }
    let reader = fs.reader()?;
    let root = reader.root(inode.info().tree)?;
    let ino = inode.info().ino;
    let sector = reader.fs().geometry.sectorsize;
    let mut sharing = Sharing::new(&reader, root, ino)?;
    // The last extent of the file is flagged, so each is told when it is known whether another follows.
    let mut held: Option<Mapped> = None;
    let mut full = false;
    // Space may be preallocated behind the end of the file.
    let everything = (start, u64::MAX);
    file_extent::for_each(&reader, root, ino, sector, everything, &mut |extent| {
        let Some(mut next) = Mapped::of(extent, sector) else {
            return Ok(true);
        };
        if next.logical >= end {
            if let Some(known) = held.take() {
                full = tell(info, &known, 0)?;
            }
            return Ok(false);
        }
        if !only_counted && sharing.is_shared(extent)? {
            next.flags |= bindings::FIEMAP_EXTENT_SHARED;
        }
        if held.as_mut().is_some_and(|known| known.merge(&next)) {
            return Ok(true);
        }
        if let Some(known) = held.replace(next) {
            full = tell(info, &known, 0)?;
        }
        platform::yield_now();
        if platform::fatal_signal_pending() {
            return Err(EINTR);
        }
        Ok(!full)
    })?;
    if let (false, Some(last)) = (full, held) {
        tell(info, &last, bindings::FIEMAP_EXTENT_LAST)?;
    }
    Ok(0)
}

/// Hands one extent to the caller, and answers whether it wants no more.
fn tell(info: *mut bindings::fiemap_extent_info, extent: &Mapped, flags: u32) -> Result<bool> {
    // SAFETY: `fiemap_of` passes the VFS's structure.
    let status = unsafe {
        bindings::fiemap_fill_next_extent(
            info.cast(),
            extent.logical,
            extent.physical,
            extent.len,
            extent.flags | flags,
        )
    };
    if status < 0 {
        to_result(status)?;
    }
    Ok(status == 1)
}

/// `inode_operations::fiemap`.
///
/// # Safety
///
/// As the VFS calls it, for a regular file of ours.
unsafe extern "C" fn fiemap(
    inode: *mut bindings::inode,
    info: *mut kernel::bindings::fiemap_extent_info,
    start: u64,
    mut len: u64,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes an inode that it holds.
    let inode = unsafe { Inode::from_raw(inode) };
    // The kernel crate knows the other type by name alone.
    from_result(|| fiemap_of(inode, info.cast(), start, &mut len))
}

pub(super) static INODE_OPERATIONS: Table<bindings::inode_operations> =
    Table::new(bindings::inode_operations {
        fiemap: Some(fiemap),
        ..inode::COMMON
    });

pub(super) static FILE_OPERATIONS: Table<bindings::file_operations> =
    Table::new(bindings::file_operations {
        llseek: Some(llseek),
        open: Some(open),
        read_iter: Some(read_iter),
        write_iter: Some(write::write_iter),
        splice_read: Some(bindings::filemap_splice_read),
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
