// SPDX-License-Identifier: GPL-2.0
//! Writing to files, into the page cache; from there `writeback` takes it to the disk.
//!
//! What is about to become dirty gets its space first (`reserved`). iomap does the rest: it reads
//! blocks that are written in part, and knows which blocks of a large folio are dirty. It asks for
//! no addresses, since data is never written where it was.

use super::attributes::id;
use super::inode::Inode;
use super::lock::{Exclusive, InodeGuard};
use super::page_cache;
use super::replace;
use super::setsize::clean;
use super::snapshot_lock::NocowWriteGuard;
use super::table::Table;
use super::writers::Dirtying;
use crate::bindings;
use crate::format::inode::inode_flags;
use crate::platform::NofsScope;
use crate::space::extent_set::Extent;
use crate::subvol::file_extent::{self, Kind};
use crate::subvol::write::is_preallocated;
use kernel::error::{from_result, to_result};
use kernel::prelude::*;

/// The block size, in bytes: that of sectors, of which only one is mounted.
pub(super) const BLOCK: u64 = 4096;

/// What one mapping covers, and so is reserved at once, in bytes.
const MAPPING: u64 = 1 << 20;

/// Space for blocks that are about to become dirty.
struct Provided<'a> {
    /// The sequence number of `reserved`.
    sequence: u64,
    /// There is none but what was preallocated; to be kept until the blocks are dirty.
    nocow: Option<NocowWriteGuard<'a>>,
}

/// What is a hole in a range. A file without holes, or without anything else, is not looked into:
/// that may have to wait for an operation to end.
fn holes(inode: &Inode, start: u64, end: u64) -> Result<KVec<Extent>> {
    let mut found = KVec::new();
    let mut push = |from: u64, to: u64| -> Result {
        if from < to {
            found.push(Extent::new(from, to.saturating_sub(from))?, GFP_KERNEL)?;
        }
        Ok(())
    };
    let (nbytes, known) = (inode.info().nbytes(), inode.info().disk_size());
    let known_end = known.next_multiple_of(BLOCK);
    let preallocated = inode.info().flags() & inode_flags::PREALLOC != 0;
    if nbytes == 0 {
        push(start, end)?;
    } else if nbytes >= known_end && !preallocated {
        push(start.max(known_end), end)?;
    } else {
        let _nofs = NofsScope::enter();
        let (view, root) = inode.tree()?;
        let sectorsize = inode.fs().geometry.sectorsize;
        let range = (start, end);
        file_extent::for_each(
            &*view,
            root,
            inode.info().ino,
            sectorsize,
            range,
            &mut |extent| {
                if extent.kind == Kind::Hole {
                    push(extent.offset.max(start), extent.end().min(end))?;
                }
                Ok(true)
            },
        )?;
    }
    Ok(found)
}

/// Gives blocks that are about to become dirty their space.
fn provide(inode: &Inode, start: u64, end: u64) -> Result<Provided<'_>> {
    let reserved = inode.reserved().ok_or(EINVAL)?;
    let holes = || holes(inode, start, end);
    let full = match reserved.add(inode.fs(), (start, end), &holes) {
        Err(e) if e == ENOSPC => e,
        other => {
            return Ok(Provided {
                sequence: other?,
                nocow: None,
            })
        }
    };
    if inode.info().flags() & inode_flags::PREALLOC == 0 {
        return Err(full);
    }
    // What is written to preallocated space needs no other, unless a snapshot is about to share
    // that. Writeback that goes on may be about to use that space up: it is waited for. What begins
    // later changes the sequence number first, and has to wait for the folio's lock if that is
    // held.
    let nocow = inode
        .subvolume()
        .snapshot_lock()
        .lock_for_nocow()
        .ok_or(full)?;
    let sequence = reserved.sequence();
    wait_for_writeback(inode, start, end)?;
    if is_preallocated(inode.fs(), id(inode), start, end.saturating_sub(start))? {
        Ok(Provided {
            sequence,
            nocow: Some(nocow),
        })
    } else {
        Err(full)
    }
}

/// Whether whole blocks are zeros without being written: there is nothing on disk, nor in memory
/// alone.
fn reads_as_zeros(inode: &Inode, start: u64, end: u64) -> Result<bool> {
    let reserved = inode.reserved().ok_or(EINVAL)?;
    if reserved.has(start, end) {
        return Ok(false);
    }
    // What is on its way to the device is in the tree after that.
    wait_for_writeback(inode, start, end)?;
    let _nofs = NofsScope::enter();
    let (view, root) = inode.tree()?;
    let sectorsize = inode.fs().geometry.sectorsize;
    let mut zeros = true;
    let range = (start, end);
    file_extent::for_each(
        &*view,
        root,
        inode.info().ino,
        sectorsize,
        range,
        &mut |extent| {
            zeros = matches!(extent.kind, Kind::Hole | Kind::Prealloc(_));
            Ok(zeros)
        },
    )?;
    Ok(zeros)
}

/// Waits for writeback that is under way in a range.
fn wait_for_writeback(inode: &Inode, start: u64, end: u64) -> Result {
    let first = i64::try_from(start).map_err(|_| EFBIG)?;
    let last = i64::try_from(end).map_err(|_| EFBIG)? - 1;
    let _nofs = NofsScope::enter();
    // SAFETY: The inode is valid. Errors are left for those who sync the file.
    unsafe {
        bindings::filemap_fdatawait_range_keep_errors((*inode.as_ptr()).i_mapping, first, last);
    }
    Ok(())
}

/// What is mapped is about to become dirty.
const DIRTIES: u32 = bindings::IOMAP_WRITE | bindings::IOMAP_ZERO;

/// `iomap_ops::iomap_begin`. All of a file is said to be mapped: reading finds out by itself what
/// is a hole. But what is to be zeroed and is so already stays as it is.
///
/// # Safety
///
/// As iomap calls it, for a regular file of ours.
unsafe extern "C" fn begin(
    inode: *mut bindings::inode,
    pos: i64,
    length: i64,
    flags: kernel::ffi::c_uint,
    map: *mut bindings::iomap,
    source: *mut bindings::iomap,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: iomap passes an inode that its caller holds.
        let inode = unsafe { Inode::from_raw(inode) };
        let pos = u64::try_from(pos).map_err(|_| EINVAL)?;
        let length = u64::try_from(length).map_err(|_| EINVAL)?;
        let start = pos - pos % BLOCK;
        let end = pos.checked_add(length.clamp(1, MAPPING)).ok_or(EFBIG)?;
        let end = end.checked_next_multiple_of(BLOCK).ok_or(EFBIG)?;
        let offset = i64::try_from(start).map_err(|_| EFBIG)?;
        // SAFETY: iomap passes a mapping to be filled in.
        let map = unsafe { &mut *map };
        map.addr = 0;
        map.offset = offset;
        map.length = end.saturating_sub(start);
        map.type_ = bindings::IOMAP_MAPPED as u16;
        if flags & bindings::IOMAP_UNSHARE != 0 {
            // Whoever shares it or not, all of it becomes dirty. iomap wants to be told where from.
            map.flags |= bindings::IOMAP_F_SHARED as u16;
            // SAFETY: iomap passes a second mapping to be filled in.
            let source = unsafe { &mut *source };
            source.offset = map.offset;
            source.length = map.length;
            source.type_ = map.type_;
        }
        if flags & DIRTIES != 0 {
            let dirtying = inode.subvolume().writers().begin()?;
            if flags & bindings::IOMAP_ZERO != 0 && reads_as_zeros(inode, start, end)? {
                dirtying.suspend();
                map.type_ = bindings::IOMAP_HOLE as u16;
                return Ok(0);
            }
            replace::about_to_be_written(inode)?;
            let space = provide(inode, start, end)?;
            dirtying.suspend();
            map.validity_cookie = space.sequence;
            map.private = space
                .nocow
                .map_or(core::ptr::null_mut(), NocowWriteGuard::into_raw);
        }
        Ok(0)
    })
}

/// Releases the space of blocks of a write that was cut short, unless something in the range is
/// dirty already.
fn release_unwritten(inode: &Inode, start: u64, end: u64) {
    let (Some(reserved), Ok(first), Ok(last)) =
        (inode.reserved(), i64::try_from(start), i64::try_from(end))
    else {
        return;
    };
    // SAFETY: The inode is valid, and its lock held by whoever writes. The lock that is taken keeps
    // mapped pages from becoming dirty in between, and is given back.
    unsafe {
        bindings::rbtrfs_invalidate_lock(inode.as_ptr());
        if !bindings::filemap_range_has_writeback((*inode.as_ptr()).i_mapping, first, last - 1) {
            drop(reserved.take(start, end));
        }
        bindings::rbtrfs_invalidate_unlock(inode.as_ptr());
    }
}

/// `iomap_ops::iomap_end`: what was to become dirty is so.
///
/// # Safety
///
/// As iomap calls it, with a mapping that [`begin`] has filled in.
unsafe extern "C" fn end(
    inode: *mut bindings::inode,
    pos: i64,
    length: i64,
    written: isize,
    flags: kernel::ffi::c_uint,
    map: *mut bindings::iomap,
) -> kernel::ffi::c_int {
    // Faults and zeroing come with the invalidate lock held; of these nothing is cut short but by
    // errors.
    let is_write = flags & (bindings::IOMAP_WRITE | bindings::IOMAP_FAULT) == bindings::IOMAP_WRITE;
    if is_write && (written as i64) < length {
        let done = (pos as u64).saturating_add(written.max(0) as u64);
        // SAFETY: iomap passes an inode that its caller holds, and its own mapping.
        unsafe {
            let end = ((*map).offset as u64).saturating_add((*map).length);
            release_unwritten(Inode::from_raw(inode), done.next_multiple_of(BLOCK), end);
        }
    }
    // SAFETY: iomap calls this once for each mapping of [`begin`], whose subvolume outlives its
    // inodes.
    unsafe {
        let writing = (*map).private;
        if !writing.is_null() {
            drop(NocowWriteGuard::from_raw(writing));
        }
        if flags & DIRTIES != 0 {
            drop(Dirtying::resume(
                Inode::from_raw(inode).subvolume().writers(),
            ));
        }
    }
    0
}

/// `iomap_write_ops::iomap_valid`: whether the blocks of a mapping still have their space.
///
/// # Safety
///
/// As iomap calls it, with a mapping that [`begin`] has filled in.
unsafe extern "C" fn valid(inode: *mut bindings::inode, map: *const bindings::iomap) -> bool {
    // SAFETY: By this function's contract.
    let (inode, cookie) = unsafe { (Inode::from_raw(inode), (*map).validity_cookie) };
    inode
        .reserved()
        .is_some_and(|reserved| reserved.sequence() == cookie)
}

/// `iomap_write_ops::read_folio_range`.
///
/// # Safety
///
/// As iomap calls it: the folio is locked, and the range lies within it and is not uptodate.
unsafe extern "C" fn read_range(
    iter: *const bindings::iomap_iter,
    folio: *mut bindings::folio,
    pos: i64,
    len: usize,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract.
    let result = unsafe { page_cache::read_range(Inode::from_raw((*iter).inode), folio, pos, len) };
    from_result(|| result.map(|()| 0))
}

pub(super) static OPERATIONS: Table<bindings::iomap_ops> = Table::new(bindings::iomap_ops {
    iomap_begin: Some(begin),
    iomap_end: Some(end),
    ..pin_init::zeroed()
});

static WRITE_OPERATIONS: Table<bindings::iomap_write_ops> = Table::new(bindings::iomap_write_ops {
    iomap_valid: Some(valid),
    read_folio_range: Some(read_range),
    ..pin_init::zeroed()
});

/// Zeros a part of a file in the page cache.
///
/// # Errors
///
/// `ENOSPC`, and what reading the blocks at the ends gives.
pub(super) fn zero_range(inode: Exclusive<'_>, from: u64, to: u64) -> Result {
    let pos = i64::try_from(from).map_err(|_| EFBIG)?;
    let len = i64::try_from(to.saturating_sub(from)).map_err(|_| EFBIG)?;
    if len == 0 {
        return Ok(());
    }
    // SAFETY: The inode is locked, and is a regular file as the callers see to.
    to_result(unsafe {
        bindings::iomap_zero_range(
            inode.as_ptr(),
            pos,
            len,
            core::ptr::null_mut(),
            OPERATIONS.as_ptr(),
            WRITE_OPERATIONS.as_ptr(),
            core::ptr::null_mut(),
        )
    })
}

/// Reads a part of a file into the page cache, and makes it dirty as it is.
///
/// # Errors
///
/// `ENOSPC`, `EROFS`, and what reading gives.
pub(super) fn dirty_again(inode: Exclusive<'_>, from: u64, to: u64) -> Result {
    let pos = i64::try_from(from).map_err(|_| EFBIG)?;
    let len = i64::try_from(to.saturating_sub(from)).map_err(|_| EFBIG)?;
    // SAFETY: The inode is locked, and is a regular file as the callers see to.
    to_result(unsafe {
        bindings::iomap_file_unshare(
            inode.as_ptr(),
            pos,
            len,
            OPERATIONS.as_ptr(),
            WRITE_OPERATIONS.as_ptr(),
        )
    })
}

/// Prepares a file to grow beyond its end: the rest of its last block becomes zeros, on disk as
/// well, and small contents that are kept in the tree move to a block.
pub(super) fn zero_tail(inode: Exclusive<'_>) -> Result {
    let size = inode.size();
    zero_range(inode, size, size.next_multiple_of(BLOCK))?;
    // A mapping makes whole folios dirty. What of a large one is after the end has no space, and
    // must not be dirty once it is within the file.
    let last = i64::try_from(size.saturating_sub(1)).map_err(|_| EFBIG)?;
    // SAFETY: The inode is valid, and locked.
    let cached = unsafe { bindings::rbtrfs_cached_end(inode.as_ptr(), last) };
    if size != 0 && u64::try_from(cached).is_ok_and(|end| end > size.next_multiple_of(BLOCK)) {
        clean(&inode, size - 1, size)?;
    }
    Ok(())
}

/// # Safety
///
/// `iocb` and `from` are those of a running `write_iter` call for the file of `inode`.
unsafe fn write_locked(
    inode: Exclusive<'_>,
    iocb: *mut bindings::kiocb,
    from: *mut bindings::iov_iter,
) -> Result<isize> {
    inode.fs().check_shut_down()?;
    // SAFETY: By this function's contract.
    let count = unsafe { bindings::generic_write_checks(iocb, from) };
    if count <= 0 {
        return status(count);
    }
    // SAFETY: As above; the inode is locked.
    unsafe {
        to_result(bindings::file_remove_privs((*iocb).ki_filp))?;
        to_result(bindings::file_update_time((*iocb).ki_filp))?;
    }
    // SAFETY: As above.
    let pos = unsafe { (*iocb).ki_pos };
    if u64::try_from(pos).map_err(|_| EINVAL)? > inode.size() {
        zero_tail(inode)?;
    }
    // SAFETY: As above; the tables are statics.
    status(unsafe {
        bindings::iomap_file_buffered_write(
            iocb,
            from,
            OPERATIONS.as_ptr(),
            WRITE_OPERATIONS.as_ptr(),
            core::ptr::null_mut(),
        )
    })
}

fn status(count: isize) -> Result<isize> {
    if count < 0 {
        to_result(i32::try_from(count).unwrap_or(-5))?;
    }
    Ok(count)
}

/// `file_operations::write_iter`. A direct write goes through the page cache, and is on disk when
/// it returns.
///
/// # Safety
///
/// As the VFS calls it, for an open regular file of ours.
pub(super) unsafe extern "C" fn write_iter(
    iocb: *mut bindings::kiocb,
    from: *mut bindings::iov_iter,
) -> isize {
    // SAFETY: The VFS passes a file that is open.
    let inode = unsafe { Inode::of_file((*iocb).ki_filp) };
    // SAFETY: The request is the caller's own.
    let flags = unsafe { (*iocb).ki_flags };
    let direct = flags & bindings::IOCB_DIRECT as i32 != 0;
    if flags & bindings::rbtrfs_IOCB_NOWAIT != 0 {
        // A write takes the inode's lock, and may have to wait for a space reservation.
        return EAGAIN.to_errno() as isize;
    }
    let written = {
        let guard = InodeGuard::lock(inode);
        // SAFETY: By this function's contract.
        unsafe { write_locked(guard.exclusive(), iocb, from) }
    };
    let count = match written {
        Ok(count) => count,
        Err(e) => return e.to_errno() as isize,
    };
    if direct && count > 0 {
        // SAFETY: The position is that after what was written, within the inode's mapping.
        let status = unsafe {
            let end = (*iocb).ki_pos;
            bindings::filemap_write_and_wait_range(
                (*inode.as_ptr()).i_mapping,
                end - count as i64,
                end - 1,
            )
        };
        if status != 0 {
            return status as isize;
        }
    }
    // SAFETY: As above. The function writes more back if the file or the request says so.
    unsafe { bindings::rbtrfs_write_sync(iocb, count) }
}

/// `vm_operations_struct::page_mkwrite`: a mapped page is about to be written to.
///
/// # Safety
///
/// As the memory manager calls it, for a mapping of a regular file of ours.
unsafe extern "C" fn page_mkwrite(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The fault is on a mapping of an open file. The locks that are taken are given back.
    unsafe {
        let file = bindings::rbtrfs_vmf_file(fault);
        let inode = Inode::of_file(file);
        let sb = inode.super_block().as_ptr();
        bindings::rbtrfs_start_pagefault(sb);
        let result = if bindings::file_update_time(file) != 0 {
            bindings::vm_fault_reason_VM_FAULT_SIGBUS
        } else {
            bindings::rbtrfs_invalidate_lock_shared(inode.as_ptr());
            let result =
                bindings::iomap_page_mkwrite(fault, OPERATIONS.as_ptr(), core::ptr::null_mut());
            bindings::rbtrfs_invalidate_unlock_shared(inode.as_ptr());
            result
        };
        bindings::rbtrfs_end_pagefault(sb);
        result
    }
}

static MAPPING_OPERATIONS: Table<bindings::vm_operations_struct> =
    Table::new(bindings::vm_operations_struct {
        fault: Some(bindings::filemap_fault),
        map_pages: Some(bindings::filemap_map_pages),
        page_mkwrite: Some(page_mkwrite),
        ..pin_init::zeroed()
    });

/// `file_operations::mmap_prepare`.
///
/// # Safety
///
/// As the memory manager calls it, for an open regular file of ours.
pub(super) unsafe extern "C" fn mmap_prepare(
    desc: *mut bindings::vm_area_desc,
) -> kernel::ffi::c_int {
    from_result(|| {
        // SAFETY: The description is the caller's, to be filled in, and of an open file.
        unsafe {
            Inode::of_file((*desc).file).fs().check_shut_down()?;
            bindings::rbtrfs_file_accessed((*desc).file);
            (*desc).vm_ops = MAPPING_OPERATIONS.as_ptr();
        }
        Ok(0)
    })
}
