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
use crate::volume::{DataExtent, DataReservation};
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

    /// Calls `each` with the bytes from `from` to `to` of the run, piece by piece, and where in the run each begins.
    fn for_each<'a>(
        &'a self,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(u64, &'a [u8]) -> Result,
    ) -> Result {
        let mut at = 0u64;
        for part in self.parts.iter() {
            let (start, bytes) = (at, part.bytes());
            at = at.saturating_add(bytes.len() as u64);
            let (first, last) = (start.max(from), at.min(to));
            if first < last {
                let range =
                    first.saturating_sub(start) as usize..last.saturating_sub(start) as usize;
                each(first, bytes.get(range).ok_or(EINVAL)?)?;
            }
        }
        Ok(())
    }

    /// Ends the writeback of the folios.
    fn ended(self, inode: &Inode, result: Result) -> Result {
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

/// A part of a run that has a place on the device.
struct Piece {
    /// Where it begins in the run, in bytes.
    at: u64,
    extent: DataExtent,
    sums: KVVec<u8>,
}

/// A run that has its place and its checksums, and is not written yet.
struct Placed {
    run: Run,
    pieces: KVec<Piece>,
    promise: Option<DataReservation>,
}

impl Placed {
    /// Finds a place for a run. Nothing is left of one that went into the tree as a small file's contents, or for
    /// which there is no place: the error is the file's then, and is answered too.
    fn new(run: Run, inode: &Inode) -> Result<Option<Self>> {
        match Self::place(&run, inode) {
            Ok(Some((pieces, promise))) => Ok(Some(Self {
                run,
                pieces,
                promise,
            })),
            Ok(None) => run.ended(inode, Ok(())).map(|()| None),
            Err(e) => run.ended(inode, Err(e)).map(|()| None),
        }
    }

    fn place(run: &Run, inode: &Inode) -> Result<Option<(KVec<Piece>, Option<DataReservation>)>> {
        let reserved = inode.reserved().ok_or(EINVAL)?;
        let mut promise = reserved.take(run.start, run.end());
        if run.write_inline(inode)? {
            return Ok(None);
        }
        let in_place = inode.info().flags() & inode_flags::PREALLOC != 0;
        let mut pieces = KVec::new();
        let mut at = 0;
        while at < run.len {
            let piece = Piece::new(run, inode, (at, run.len), in_place, promise.as_mut())?;
            at = at.saturating_add(piece.extent.len());
            pieces.push(piece, GFP_KERNEL)?;
        }
        Ok(Some((pieces, promise)))
    }

    /// Writes the run, makes the tree show it, and ends the writeback of its folios, whatever comes of it. While the
    /// device is at work, `meanwhile` is called, unless it does not come to that.
    fn write(mut self, inode: &Inode, meanwhile: &mut dyn FnMut()) -> Result {
        let written = self.to_device(inode, meanwhile);
        let pieces = core::mem::take(&mut self.pieces);
        let shown = written.and_then(|()| {
            for piece in pieces {
                self.show(inode, piece)?;
            }
            Ok(())
        });
        self.run.ended(inode, shown)
    }

    fn to_device(&self, inode: &Inode, meanwhile: &mut dyn FnMut()) -> Result {
        let mut writes = KVVec::new();
        for piece in self.pieces.iter() {
            piece.writes(&self.run, &mut writes)?;
        }
        inode.fs().device.write_many_while(&writes, meanwhile)
    }

    /// Enters a piece that was written into the tree.
    fn show(&mut self, inode: &Inode, piece: Piece) -> Result {
        let (at, len, in_place) = (piece.at, piece.extent.len(), piece.extent.is_in_place());
        match piece.show(&self.run, inode) {
            // The file has lost the space meanwhile.
            Err(e) if e == EAGAIN && in_place => self.write_again(inode, at, len),
            Ok(()) if in_place => {
                if let Some(promise) = &mut self.promise {
                    promise.release(len);
                }
                Ok(())
            }
            other => other,
        }
    }

    /// Writes `len` bytes that lost their place to a new one.
    fn write_again(&mut self, inode: &Inode, mut at: u64, len: u64) -> Result {
        let end = at.saturating_add(len);
        while at < end {
            let piece = Piece::new(&self.run, inode, (at, end), false, self.promise.as_mut())?;
            at = at.saturating_add(piece.extent.len());
            let mut writes = KVVec::new();
            piece.writes(&self.run, &mut writes)?;
            inode.fs().device.write_many(&writes)?;
            piece.show(&self.run, inode)?;
        }
        Ok(())
    }
}

impl Piece {
    /// Finds a place for what lies between these bytes of the run, or for the first part of that: in space that the file
    /// has preallocated, which holds nothing that could be overwritten, if `in_place`.
    fn new(
        run: &Run,
        inode: &Inode,
        (at, to): (u64, u64),
        in_place: bool,
        promise: Option<&mut DataReservation>,
    ) -> Result<Self> {
        let fs = inode.fs();
        let want = to.saturating_sub(at);
        let found = if in_place {
            preallocated(fs, id(inode), run.start.saturating_add(at), want)?
        } else {
            None
        };
        let extent = match found {
            Some(extent) => extent,
            None => fs.alloc_data(promise, want)?,
        };
        let mut sums = KVVec::new();
        if inode.info().flags() & inode_flags::NODATASUM == 0 {
            let end = at.saturating_add(extent.len());
            run.for_each(at, end, &mut |_, bytes| {
                push_checksums(bytes, fs.geometry.sectorsize, &mut sums)
            })?;
        }
        Ok(Self { at, extent, sums })
    }

    /// Adds the writes that bring the piece to the device, every copy of it.
    fn writes<'a>(&self, run: &'a Run, writes: &mut KVVec<WriteIo<'a>>) -> Result {
        let end = self.at.saturating_add(self.extent.len());
        run.for_each(self.at, end, &mut |at, buf| {
            let within = at.saturating_sub(self.at);
            for offset in self.extent.mirrors(within, buf.len() as u64)?.iter() {
                writes.push(WriteIo { offset, buf }, GFP_KERNEL)?;
            }
            Ok(())
        })
    }

    /// Enters it into the tree.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if its place was a preallocated one, and the file has lost that.
    fn show(self, run: &Run, inode: &Inode) -> Result {
        let offset = run.start.saturating_add(self.at);
        let end = offset.saturating_add(self.extent.len());
        let data = NewData {
            offset,
            extent: self.extent,
            sums: &self.sums,
            size: end.min(inode.size()),
        };
        let item = insert_data(inode.fs(), id(inode), data)?;
        take_over_extents(inode, &item);
        Ok(())
    }
}

/// What one call of [`writepages`] has under way: while a run is on its way to the device, the next one gets its
/// checksums.
struct Writeback {
    gathering: Run,
    placed: Option<Placed>,
}

impl Writeback {
    /// Finds a place for the run that was gathered, and writes the one before it.
    fn turn(&mut self, inode: &Inode, next: u64) -> Result {
        let full = core::mem::replace(&mut self.gathering, Run::new(next));
        if full.len == 0 {
            return Ok(());
        }
        let Some(before) = self.placed.take() else {
            self.placed = Placed::new(full, inode)?;
            return Ok(());
        };
        let (mut full, mut placed) = (Some(full), Ok(None));
        let written = before.write(inode, &mut || {
            if let Some(full) = full.take() {
                placed = Placed::new(full, inode);
            }
        });
        if let Some(full) = full {
            placed = Placed::new(full, inode);
        }
        self.placed = placed?;
        written
    }

    fn finish(mut self, inode: &Inode) -> Result {
        let turned = self.turn(inode, 0);
        match self.placed.take() {
            Some(last) => turned.and(last.write(inode, &mut || ())),
            None => turned,
        }
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
    // SAFETY: By this function's contract; `writepages` made the context, whose `wb_ctx` is null or ours.
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
    if pending.is_null() {
        let new = Writeback {
            gathering: Run::new(pos),
            placed: None,
        };
        *pending = KBox::into_raw(KBox::new(new, GFP_KERNEL)?).cast();
    }
    // SAFETY: The pointer was made of a box, just now or in an earlier call for the same context.
    let writeback = unsafe { &mut *pending.cast::<Writeback>() };
    if !writeback.gathering.takes(pos) {
        // A failure is the file's, and is found there; the writeback of what follows goes on.
        let _ = writeback.turn(inode, pos);
    }
    writeback.gathering.push(part)
}

/// `iomap_writeback_ops::writeback_submit`: writes the last runs.
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
    // SAFETY: The context is complete.
    unsafe { bindings::iomap_writepages(&mut context) }
}
