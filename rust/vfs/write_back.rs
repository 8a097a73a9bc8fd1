// SPDX-License-Identifier: GPL-2.0
//! Dirty data from the page cache to the disk.
//!
//! iomap finds the dirty blocks, marks their folios as under writeback and hands them over. Neighbours are gathered
//! into runs; a run is written to newly allocated space, and enters the subvolume's tree after that. So a crash
//! leaves the old data or the new, and nothing that was on the disk before. Folios stay under writeback until the tree
//! shows the run, so that what is read from disk is never older than what was in memory.

use super::attributes::id;
use super::inode::Inode;
use super::resize::take_over_extents;
use super::table::Table;
use crate::bindings;
use crate::device::WriteIo;
use crate::format::inode::inode_flags;
use crate::platform::NofsScope;
use crate::subvol::write::{
    insert_data, insert_inline, preallocated, NewData, NewInline, MAX_INLINE,
};
use crate::volume::in_flight::push_checksums;
use crate::volume::{DataExtent, Fs};
use kernel::prelude::*;

/// The longest run, in bytes.
const RUN: u64 = 4 << 20;

/// A piece of a folio that is under writeback.
struct Part {
    folio: *mut bindings::folio,
    offset: usize,
    len: usize,
}

impl Part {
    fn bytes(&self) -> &[u8] {
        // SAFETY: The folio is under writeback until `finish`, so that it stays in memory, and as the mapping wants
        // stable writes nobody changes it. The mapping takes no high memory, so that a folio is contiguous in the
        // kernel's address space. `writeback_range` made the part of a range within the folio.
        unsafe {
            let data: *const u8 = bindings::rbtrfs_folio_address(self.folio).cast();
            core::slice::from_raw_parts(data.add(self.offset), self.len)
        }
    }
}

/// A run of dirty blocks that waits to be written.
struct Run {
    start: u64,
    len: u64,
    parts: KVVec<Part>,
}

impl Run {
    fn new(start: u64) -> Self {
        Self {
            start,
            len: 0,
            parts: KVVec::new(),
        }
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    fn takes(&self, pos: u64) -> bool {
        self.end() == pos && self.len < RUN
    }

    fn push(&mut self, part: Part) -> Result {
        let len = part.len as u64;
        self.parts.push(part, GFP_KERNEL)?;
        self.len = self.len.saturating_add(len);
        Ok(())
    }

    /// Writes the run and ends the writeback of its folios, whatever comes of it.
    fn finish(self, inode: &Inode) -> Result {
        let result = self.write(inode);
        if let Err(e) = result {
            // SAFETY: The inode is valid.
            unsafe { bindings::rbtrfs_mapping_set_error(inode.as_ptr(), e.to_errno()) };
        }
        for part in self.parts.iter() {
            // SAFETY: The folio is under writeback because of this part, among others.
            unsafe { bindings::iomap_finish_folio_write(inode.as_ptr(), part.folio, part.len) };
        }
        result
    }
}

impl Run {
    /// Writes the run, and makes the tree show it.
    fn write(&self, inode: &Inode) -> Result {
        let reserved = inode.reserved().ok_or(EINVAL)?;
        let mut promise = reserved.take(self.start, self.end());
        if self.write_inline(inode)? {
            return Ok(());
        }
        let fs = inode.fs();
        let checked = inode.info().flags() & inode_flags::NODATASUM == 0;
        let size = inode.size();
        let mut in_place = inode.info().flags() & inode_flags::PREALLOC != 0;
        let mut done = 0;
        while done < self.len {
            let offset = self.start.saturating_add(done);
            let want = self.len.saturating_sub(done);
            // Space that the file has preallocated holds nothing that could be overwritten.
            let found = if in_place {
                preallocated(fs, id(inode), offset, want)?
            } else {
                None
            };
            let used = found.is_some();
            let extent = match found {
                Some(extent) => extent,
                None => fs.alloc_data(promise.as_mut(), want)?,
            };
            let len = extent.len();
            let mut sums = KVVec::new();
            self.write_to(fs, &extent, done, checked.then_some(&mut sums))?;
            let inserted = insert_data(
                fs,
                id(inode),
                NewData {
                    offset,
                    extent,
                    sums: &sums,
                    size: offset.saturating_add(len).min(size),
                },
            );
            match inserted {
                Ok(item) => take_over_extents(inode, &item),
                Err(e) if e == EAGAIN && used => {
                    // The file has lost the space meanwhile.
                    in_place = false;
                    continue;
                }
                Err(e) => return Err(e),
            }
            if let (true, Some(promise)) = (used, promise.as_mut()) {
                promise.release(len);
            }
            done = done.saturating_add(len);
        }
        Ok(())
    }

    /// Writes the part of the run that begins `done` bytes into it and fits `extent`.
    fn write_to(
        &self,
        fs: &Fs,
        extent: &DataExtent,
        done: u64,
        mut sums: Option<&mut KVVec<u8>>,
    ) -> Result {
        let end = done.saturating_add(extent.len());
        let mut writes = KVVec::new();
        let mut at = 0u64;
        for part in self.parts.iter() {
            let bytes = part.bytes();
            let (from, to) = (at.max(done), at.saturating_add(bytes.len() as u64).min(end));
            let start = at;
            at = at.saturating_add(bytes.len() as u64);
            if from >= to {
                continue;
            }
            let buf = bytes
                .get(from.saturating_sub(start) as usize..to.saturating_sub(start) as usize)
                .ok_or(EINVAL)?;
            if let Some(sums) = sums.as_deref_mut() {
                push_checksums(buf, fs.geometry.sectorsize, sums)?;
            }
            let within = from.saturating_sub(done);
            for offset in extent.mirrors(within, buf.len() as u64)?.iter() {
                writes.push(WriteIo { offset, buf }, GFP_KERNEL)?;
            }
        }
        fs.device.write_many(&writes)
    }

    /// Puts a small file's contents into the tree, if that is what the run is.
    fn write_inline(&self, inode: &Inode) -> Result<bool> {
        let size = inode.size();
        if self.start != 0 || size == 0 || size > MAX_INLINE as u64 || self.parts.len() != 1 {
            return Ok(false);
        }
        let Some(data) = self
            .parts
            .first()
            .and_then(|part| part.bytes().get(..size as usize))
        else {
            return Ok(false);
        };
        let item = match insert_inline(inode.fs(), id(inode), NewInline { data }) {
            // The file is being cut off, and longer in the tree still.
            Err(e) if e == EINVAL => return Ok(false),
            other => other?,
        };
        take_over_extents(inode, &item);
        Ok(true)
    }
}

/// `iomap_writeback_ops::writeback_range`: adds a range of a folio to the run, after writing what it does not go on.
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
    // SAFETY: By this function's contract; `writepages` made the context, whose `wb_ctx` is null or one of our runs.
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
        Err(e) => e.to_errno() as isize,
    }
}

fn gather(inode: &Inode, pending: &mut *mut kernel::ffi::c_void, pos: u64, part: Part) -> Result {
    // SAFETY: The pointer is null or was made of a box, below.
    let run = (!pending.is_null()).then(|| unsafe { KBox::<Run>::from_raw(pending.cast()) });
    *pending = core::ptr::null_mut();
    let mut run = match run {
        Some(run) if run.takes(pos) => run,
        other => {
            if let Some(full) = other {
                // A failure is the file's, and is found there; the writeback of what follows goes on.
                let _ = KBox::into_inner(full).finish(inode);
            }
            KBox::new(Run::new(pos), GFP_KERNEL)?
        }
    };
    let pushed = run.push(part);
    if run.len == 0 {
        return pushed;
    }
    *pending = KBox::into_raw(run).cast();
    pushed
}

/// `iomap_writeback_ops::writeback_submit`: writes the last run.
///
/// # Safety
///
/// As iomap calls it, with a context of [`writepages`] that has a run.
unsafe extern "C" fn writeback_submit(
    context: *mut bindings::iomap_writepage_ctx,
    error: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    // SAFETY: By this function's contract; `gather` made the pointer of a box.
    let (inode, run) = unsafe {
        let run = core::mem::replace(&mut (*context).wb_ctx, core::ptr::null_mut());
        (
            Inode::from_raw((*context).inode),
            KBox::<Run>::from_raw(run.cast()),
        )
    };
    // What was gathered before the error is good: it is written all the same.
    let result = KBox::into_inner(run).finish(inode);
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
    // SAFETY: The context is complete.
    unsafe { bindings::iomap_writepages(&mut context) }
}
