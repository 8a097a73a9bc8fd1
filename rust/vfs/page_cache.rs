// SPDX-License-Identifier: GPL-2.0
//! File data into the page cache.
//!
//! A folio that is written to block by block carries iomap's record of its blocks; what it lacks is
//! read through iomap, which leaves out the others. What is read ahead is read whole, by
//! [`read_ahead`](super::read_ahead). Either way the engine reads extents, checks and decompresses
//! them, straight into the folios.

use super::inode::Inode;
use super::table::Table;
use super::{read_ahead, write, writeback};
use crate::bindings;
use crate::platform::NofsScope;
use crate::subvol::data::{self, Owner};
use crate::subvol::scatter::Scatter;
use kernel::prelude::*;

/// Reads whole sectors of a file; what lies after its end is zero.
fn read_at(inode: &Inode, offset: u64, buf: &mut Scatter<'_>) -> Result {
    // The page cache's locks are held: memory must not wait for a filesystem.
    let _nofs = NofsScope::enter();
    let info = inode.info();
    let left = inode.size().saturating_sub(offset);
    let inside = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    if inside != 0 {
        let owner = Owner::new(inode.fs(), info.tree, info.ino, info.flags());
        data::read_running(inode.fs(), &owner, offset, buf)?;
    }
    buf.zero(inside, buf.len().saturating_sub(inside))
}

/// A folio of the page cache that is to be filled. It is unlocked when this is dropped.
///
/// # Invariants
///
/// The folio is locked by whoever made this, is not uptodate, and belongs to an inode of ours.
pub(super) struct Folio {
    ptr: *mut bindings::folio,
    filled: bool,
}

// SAFETY: A folio may be filled and unlocked by another task than the one that locked it.
unsafe impl Send for Folio {}

impl Folio {
    /// # Safety
    ///
    /// The folio is of the mapping of an inode of ours, not uptodate, and locked by the caller, who
    /// leaves it to this.
    pub(super) unsafe fn from_raw(ptr: *mut bindings::folio) -> Self {
        // INVARIANT: By this function's contract.
        Self { ptr, filled: false }
    }

    /// Where it begins in the file, in bytes.
    pub(super) fn offset(&self) -> u64 {
        // SAFETY: By the type invariant; a locked folio keeps its place.
        let offset = unsafe { bindings::rbtrfs_folio_pos(self.ptr) };
        u64::try_from(offset).unwrap_or(0)
    }

    /// Its size in bytes.
    pub(super) fn len(&self) -> usize {
        // SAFETY: By the type invariant.
        unsafe { bindings::rbtrfs_folio_size(self.ptr) }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: The mapping takes no high memory, so that a folio is contiguous in the kernel's
        // address space; and as long as it is locked and not uptodate nobody else looks at its
        // data.
        unsafe {
            let data: *mut u8 = bindings::rbtrfs_folio_address(self.ptr).cast();
            core::slice::from_raw_parts_mut(data, self.len())
        }
    }
}

impl Drop for Folio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; the folio is not used after.
        unsafe {
            bindings::rbtrfs_folio_flush_dcache(self.ptr);
            bindings::folio_end_read(self.ptr, self.filled);
        }
    }
}

/// Fills folios that follow one another in the file of `inode`: all of them, or none.
///
/// # Errors
///
/// Those of reading.
pub(super) fn fill(inode: &Inode, folios: &mut [Folio]) -> Result {
    let Some(start) = folios.first().map(Folio::offset) else {
        return Ok(());
    };
    let mut slices = KVec::with_capacity(folios.len(), GFP_KERNEL)?;
    for folio in folios.iter_mut() {
        slices.push(folio.bytes(), GFP_KERNEL)?;
    }
    read_at(inode, start, &mut Scatter::new(slices))?;
    for folio in folios {
        folio.filled = true;
    }
    Ok(())
}

/// Reads a part of a folio.
///
/// # Safety
///
/// The folio is of the inode's mapping and locked, and the range lies within it and is not
/// uptodate, so that nobody looks at it.
pub(super) unsafe fn read_range(
    inode: &Inode,
    folio: *mut bindings::folio,
    pos: i64,
    len: usize,
) -> Result {
    let offset = u64::try_from(pos).map_err(|_| EINVAL)?;
    // SAFETY: By this function's contract. The mapping takes no high memory, so that a folio is
    // contiguous in the kernel's address space.
    let bytes = unsafe {
        let data: *mut u8 = bindings::rbtrfs_folio_address(folio).cast();
        let into = usize::try_from(pos - bindings::rbtrfs_folio_pos(folio)).map_err(|_| EINVAL)?;
        core::slice::from_raw_parts_mut(data.add(into), len)
    };
    read_at(inode, offset, &mut Scatter::one(bytes)?)
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

pub(super) static OPERATIONS: Table<bindings::address_space_operations> =
    Table::new(bindings::address_space_operations {
        read_folio: Some(read_folio),
        readahead: Some(read_ahead::readahead),
        writepages: Some(writeback::writepages),
        dirty_folio: Some(bindings::iomap_dirty_folio),
        // Space reservations are released by those who cut data off: they know that no block of it
        // stays dirty.
        invalidate_folio: Some(bindings::iomap_invalidate_folio),
        release_folio: Some(bindings::iomap_release_folio),
        is_partially_uptodate: Some(bindings::iomap_is_partially_uptodate),
        #[cfg(CONFIG_MIGRATION)]
        migrate_folio: Some(bindings::filemap_migrate_folio),
        ..pin_init::zeroed()
    });
