// SPDX-License-Identifier: GPL-2.0
//! File data into the page cache.
//!
//! A folio that is written to block by block carries iomap's record of its blocks; what it lacks is read through iomap,
//! which leaves out the others. All else is read here. The engine reads extents, checks and decompresses them, straight into a folio; or, where the page cache asks
//! for a run of folios, into one buffer for all of them, so that the extents of the run are read at once and
//! each compressed one is decompressed once.

use super::inode::Inode;
use super::table::Table;
use super::{write, write_back};
use crate::bindings;
use crate::format::inode::inode_flags;
use crate::platform::NofsScope;
use crate::subvol::data::{self, Checksums, Owner};
use kernel::prelude::*;

/// The most that one read through a buffer takes, in bytes.
const RUN: usize = 1 << 20;

/// Reads whole sectors of a file; what lies behind its end is zero.
fn read_at(inode: &Inode, offset: u64, buf: &mut [u8]) -> Result {
    // The page cache's locks are held: memory must not wait for a filesystem.
    let _nofs = NofsScope::enter();
    let info = inode.info();
    let left = inode.size().saturating_sub(offset);
    let inside = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    if inside != 0 {
        let fs = inode.fs();
        let sector = fs.geometry.sectorsize as usize;
        let checksums = if info.flags() & inode_flags::NODATASUM == 0 {
            Checksums::Always
        } else {
            Checksums::None
        };
        let owner = Owner {
            tree: info.tree,
            ino: info.ino,
            checksums,
        };
        let sectors = inside.next_multiple_of(sector).min(buf.len());
        let wanted = buf.get_mut(..sectors).ok_or(EINVAL)?;
        data::read_live(fs, &owner, offset, wanted)?;
    }
    if let Some(behind) = buf.get_mut(inside..) {
        behind.fill(0);
    }
    Ok(())
}

/// A folio of the page cache that is locked and to be filled.
///
/// # Invariants
///
/// The folio is locked by whoever made this, is not uptodate, and belongs to an inode of ours.
struct Folio(*mut bindings::folio);

impl Folio {
    fn offset(&self) -> u64 {
        // SAFETY: By the type invariant; a locked folio keeps its place.
        let offset = unsafe { bindings::rbtrfs_folio_pos(self.0) };
        u64::try_from(offset).unwrap_or(0)
    }

    fn len(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::rbtrfs_folio_size(self.0) }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: The mapping takes no high memory, so that a folio is contiguous in the kernel's address
        // space; and as long as it is locked and not uptodate nobody else looks at its data.
        unsafe {
            let data: *mut u8 = bindings::rbtrfs_folio_address(self.0).cast();
            core::slice::from_raw_parts_mut(data, self.len())
        }
    }

    /// Marks the folio uptodate if `filled`, and unlocks it.
    fn end(self, filled: bool) {
        // SAFETY: By the type invariant; the folio is not used after.
        unsafe {
            bindings::rbtrfs_folio_flush_dcache(self.0);
            bindings::folio_end_read(self.0, filled);
        }
    }

    fn fill(mut self, inode: &Inode) -> Result {
        let offset = self.offset();
        let result = read_at(inode, offset, self.bytes());
        self.end(result.is_ok());
        result
    }
}

/// Reads a part of a folio.
///
/// # Safety
///
/// The folio is of the inode's mapping and locked, and the range lies within it and is not uptodate, so that nobody
/// looks at it.
pub(super) unsafe fn read_range(
    inode: &Inode,
    folio: *mut bindings::folio,
    pos: i64,
    len: usize,
) -> Result {
    let offset = u64::try_from(pos).map_err(|_| EINVAL)?;
    // SAFETY: By this function's contract. The mapping takes no high memory, so that a folio is contiguous in the
    // kernel's address space.
    let bytes = unsafe {
        let data: *mut u8 = bindings::rbtrfs_folio_address(folio).cast();
        let into = usize::try_from(pos - bindings::rbtrfs_folio_pos(folio)).map_err(|_| EINVAL)?;
        core::slice::from_raw_parts_mut(data.add(into), len)
    };
    read_at(inode, offset, bytes)
}

/// `iomap_read_ops::read_folio_range`.
///
/// # Safety
///
/// As iomap calls it, with a request that [`read_folio`] made.
unsafe extern "C" fn read_folio_range(
    iter: *const bindings::iomap_iter,
    context: *mut bindings::iomap_read_folio_ctx,
    len: usize,
) -> kernel::ffi::c_int {
    // SAFETY: iomap passes a locked folio and a range of it to be read.
    unsafe {
        let (folio, pos) = ((*context).cur_folio, (*iter).pos);
        let into = usize::try_from(pos - bindings::rbtrfs_folio_pos(folio)).unwrap_or(0);
        let result = read_range(Inode::from_raw((*iter).inode), folio, pos, len);
        let status = result.map_or_else(|e| e.to_errno(), |()| 0);
        bindings::rbtrfs_folio_flush_dcache(folio);
        bindings::iomap_finish_folio_read(folio, into, len, status);
    }
    0
}

static READ_OPERATIONS: Table<bindings::iomap_read_ops> = Table::new(bindings::iomap_read_ops {
    read_folio_range: Some(read_folio_range),
    ..pin_init::zeroed()
});

/// `address_space_operations::read_folio`.
///
/// # Safety
///
/// As the page cache calls it, for a mapping of a regular file of ours.
unsafe extern "C" fn read_folio(
    _file: *mut bindings::file,
    folio: *mut bindings::folio,
) -> kernel::ffi::c_int {
    let mut context = bindings::iomap_read_folio_ctx {
        ops: READ_OPERATIONS.as_ptr(),
        cur_folio: folio,
        ..pin_init::zeroed()
    };
    // SAFETY: The page cache passes a locked folio, which iomap unlocks. The tables are statics.
    unsafe {
        bindings::iomap_read_folio(
            write::OPERATIONS.as_ptr(),
            &mut context,
            core::ptr::null_mut(),
        )
    };
    0
}

/// `address_space_operations::invalidate_folio`: what is cut off needs no space any more.
///
/// # Safety
///
/// As the page cache calls it, for a locked folio of a regular file of ours.
unsafe extern "C" fn invalidate_folio(folio: *mut bindings::folio, offset: usize, len: usize) {
    // SAFETY: The folio is locked, so that it stays in its mapping, which is its inode's.
    let (inode, pos) = unsafe {
        (
            Inode::from_raw(bindings::rbtrfs_folio_inode(folio)),
            bindings::rbtrfs_folio_pos(folio),
        )
    };
    if let (Some(reserved), Ok(pos)) = (inode.reserved(), u64::try_from(pos)) {
        // A block of which only a part is cut off stays dirty.
        let start = pos.saturating_add(offset as u64);
        let end = start.saturating_add(len as u64);
        drop(reserved.take(
            start.next_multiple_of(write::BLOCK),
            end - end % write::BLOCK,
        ));
    }
    // SAFETY: As above.
    unsafe { bindings::iomap_invalidate_folio(folio, offset, len) }
}

/// The folios of a readahead request that were not taken yet.
struct Request(*mut bindings::readahead_control);

impl Request {
    fn next(&mut self) -> Option<Folio> {
        // SAFETY: `readahead` made this of the request that it was passed.
        let folio = unsafe { bindings::rbtrfs_readahead_folio(self.0) };
        // INVARIANT: Folios of a request are locked and not uptodate.
        (!folio.is_null()).then_some(Folio(folio))
    }

    fn left(&self) -> usize {
        // SAFETY: As above.
        unsafe { bindings::rbtrfs_readahead_length(self.0) }
    }
}

/// `address_space_operations::readahead`. What cannot be read is left for `read_folio` to report.
///
/// # Safety
///
/// As the page cache calls it, for a mapping of a regular file of ours.
unsafe extern "C" fn readahead(rac: *mut bindings::readahead_control) {
    // SAFETY: The request keeps the mapping, which is its inode's.
    let inode = unsafe { Inode::from_raw(bindings::rbtrfs_readahead_inode(rac)) };
    let mut request = Request(rac);
    let mut buffer: KVVec<u8> = KVVec::new();
    while let Some(folio) = request.next() {
        let len = folio.len();
        // This still counts the folio that was handed out last.
        let left = request.left();
        if left <= len || len >= RUN {
            // One folio, or one that is large: it needs no help.
            let _ = folio.fill(inode);
            continue;
        }
        let run = left.min(RUN);
        let start = folio.offset();
        buffer.clear();
        if buffer.resize(run, 0, GFP_KERNEL | __GFP_NOWARN).is_err()
            || read_at(inode, start, &mut buffer).is_err()
        {
            let _ = folio.fill(inode);
            continue;
        }
        let mut next = Some(folio);
        while let Some(mut folio) = next.take() {
            let at = usize::try_from(folio.offset().saturating_sub(start)).unwrap_or(usize::MAX);
            let Some(part) = at
                .checked_add(folio.len())
                .and_then(|end| buffer.get(at..end))
            else {
                // It reaches beyond the buffer: it starts no run, but is read by itself.
                let _ = folio.fill(inode);
                break;
            };
            folio.bytes().copy_from_slice(part);
            let end = at + part.len();
            folio.end(true);
            if end < run {
                next = request.next();
            }
        }
    }
}

pub(super) static OPERATIONS: Table<bindings::address_space_operations> =
    Table::new(bindings::address_space_operations {
        read_folio: Some(read_folio),
        readahead: Some(readahead),
        writepages: Some(write_back::writepages),
        dirty_folio: Some(bindings::iomap_dirty_folio),
        invalidate_folio: Some(invalidate_folio),
        release_folio: Some(bindings::iomap_release_folio),
        is_partially_uptodate: Some(bindings::iomap_is_partially_uptodate),
        #[cfg(CONFIG_MIGRATION)]
        migrate_folio: Some(bindings::filemap_migrate_folio),
        ..pin_init::zeroed()
    });
