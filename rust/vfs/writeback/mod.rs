// SPDX-License-Identifier: GPL-2.0
//! Dirty data from the page cache to the disk.
//!
//! iomap finds the dirty blocks, marks their folios as under writeback and hands them over.
//! Neighbours are gathered into runs, and runs into batches; a batch is written to newly allocated
//! space, and enters the subvolume's tree after that. So a crash leaves the old data or the new,
//! and nothing that was on the disk before. Folios stay under writeback until the tree shows them,
//! so that what is read from disk is never older than what was in memory.

mod allocated;
mod batch;
mod compressed;

use super::inode::Inode;
use super::table::Table;
use crate::bindings;
use crate::platform::NofsScope;
use crate::space::ordered_extent::MAX_EXTENT;
use allocated::AllocatedBatch;
use batch::{Batch, Part};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// How many pages of a file background writeback may write at a time before it turns to the next
/// file: as many as the largest extent has, so that two files that are written side by side do not
/// cut each other's extents. The C driver allocates as much at a time (`find_lock_delalloc_range`).
const LEAST_PAGES: isize = (MAX_EXTENT / PAGE_SIZE as u64) as isize;

/// What one call of [`writepages`] has under way: while a batch is on its way to the device, the
/// next one gets its checksums.
struct Writeback {
    gathering: Batch,
    placed: Option<AllocatedBatch>,
}

impl Writeback {
    /// Finds places for the batch that was gathered, and writes the one before it.
    fn turn(&mut self, inode: &Inode) -> Result {
        let mut full = Some(core::mem::replace(&mut self.gathering, Batch::new()));
        let Some(before) = self.placed.take() else {
            self.placed = full.map(|full| AllocatedBatch::new(full, inode));
            return Ok(());
        };
        let mut place = || {
            if let Some(full) = full.take() {
                self.placed = Some(AllocatedBatch::new(full, inode));
            }
        };
        let written = before.write(inode, &mut place);
        place();
        written
    }

    fn finish(mut self, inode: &Inode) -> Result {
        let turned = self.turn(inode);
        match self.placed.take() {
            Some(last) => turned.and(last.write(inode, &mut || ())),
            None => turned,
        }
    }
}

/// `iomap_writeback_ops::writeback_range`: adds a range of a folio to the batch, after writing the
/// one before if that is full.
///
/// # Safety
///
/// As iomap calls it: the folio is under writeback, and the range lies within it.
unsafe extern "C" fn writeback_range(
    context: *mut bindings::iomap_writepage_ctx,
    folio: *mut bindings::folio,
    pos: u64,
    len: u32,
    _end: u64,
) -> isize {
    // SAFETY: By this function's contract; `writepages` made the context, whose `wb_ctx` is null or
    // ours.
    let (inode, pending, into) = unsafe {
        let inode = Inode::from_raw((*context).inode);
        let into = pos.saturating_sub(bindings::rbtrfs_folio_pos(folio) as u64);
        (inode, &mut (*context).wb_ctx, into)
    };
    let part = Part {
        folio,
        offset: into as usize,
        len: len as usize,
    };
    match gather(inode, pending, pos, part) {
        Ok(()) => len as isize,
        Err(e) => {
            // The blocks are not dirty any more: the file has the error.
            if let Some(reserved) = inode.reserved() {
                drop(reserved.take(pos, pos.saturating_add(u64::from(len))));
            }
            e.to_errno() as isize
        }
    }
}

fn gather(inode: &Inode, pending: &mut *mut kernel::ffi::c_void, pos: u64, part: Part) -> Result {
    if pending.is_null() {
        let new = Writeback {
            gathering: Batch::new(),
            placed: None,
        };
        *pending = KBox::into_raw(KBox::new(new, GFP_KERNEL)?).cast();
    }
    // SAFETY: The pointer was made of a box, just now or in an earlier call for the same context.
    let writeback = unsafe { &mut *pending.cast::<Writeback>() };
    if !writeback.gathering.takes(pos) {
        // A failure is the file's, and is found there; the writeback of what follows goes on.
        let _ = writeback.turn(inode);
    }
    writeback.gathering.push(pos, part)
}

/// `iomap_writeback_ops::writeback_submit`: writes the last batches.
///
/// # Safety
///
/// As iomap calls it, with a context of [`writepages`] that has a `wb_ctx`.
unsafe extern "C" fn writeback_submit(
    context: *mut bindings::iomap_writepage_ctx,
    error: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract; `gather` made the pointer of a box.
    let (inode, writeback) = unsafe {
        let writeback = core::mem::replace(&mut (*context).wb_ctx, core::ptr::null_mut());
        (
            Inode::from_raw((*context).inode),
            KBox::<Writeback>::from_raw(writeback.cast()),
        )
    };
    // What was gathered before the error is good: it is written all the same.
    let result = KBox::into_inner(writeback).finish(inode);
    if error != 0 {
        return error;
    }
    result.map_or_else(|e| e.to_errno(), |()| 0)
}

static OPERATIONS: Table<bindings::iomap_writeback_ops> =
    Table::new(bindings::iomap_writeback_ops {
        writeback_range: Some(writeback_range),
        writeback_submit: Some(writeback_submit),
    });

/// `address_space_operations::writepages`.
///
/// # Safety
///
/// As the page cache calls it, for the mapping of a regular file of ours.
pub(super) unsafe extern "C" fn writepages(
    mapping: *mut bindings::address_space,
    wbc: *mut bindings::writeback_control,
) -> kernel::ffi::c_int {
    // This is how memory is freed: a filesystem must not be waited for to get some.
    let _nofs = NofsScope::enter();
    // SAFETY: A mapping belongs to its inode.
    let inode = unsafe { (*mapping).host };
    let mut context = bindings::iomap_writepage_ctx {
        inode,
        wbc,
        ops: OPERATIONS.as_ptr(),
        // Nothing that is dirty is a hole.
        iomap: bindings::iomap {
            type_: bindings::IOMAP_MAPPED as u16,
            ..pin_init::zeroed()
        },
        ..pin_init::zeroed()
    };
    // SAFETY: The context is complete. The page cache passes a request of its own, which no other
    // task looks at.
    unsafe {
        let more = if (*wbc).sync_mode == bindings::writeback_sync_modes_WB_SYNC_NONE {
            LEAST_PAGES.saturating_sub((*wbc).nr_to_write).max(0)
        } else {
            0
        };
        (*wbc).nr_to_write = (*wbc).nr_to_write.saturating_add(more);
        let status = bindings::iomap_writepages(&mut context);
        // What was written beyond the caller's number shows as a number below 0.
        (*wbc).nr_to_write = (*wbc).nr_to_write.saturating_sub(more);
        status
    }
}
