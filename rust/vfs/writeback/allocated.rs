// SPDX-License-Identifier: GPL-2.0
//! Dirty data that has a place on the device: on its way there, and from there into the tree.
//!
//! What is compressed is so before it gets its place ([`super::compressed`]).

use super::super::attributes::id;
use super::super::inode::Inode;
use super::super::setsize::take_over_extents;
use super::batch::Batch;
use super::compressed::{self, CompressedBytes, Planned};
use crate::device::WriteIo;
use crate::format::inode::inode_flags;
use crate::space::ordered_extent::push_checksums;
use crate::space::{DataReservation, OrderedExtent};
use crate::subvol::compress::Compressor;
use crate::subvol::write::{
    insert_inline, insert_pieces, preallocated, Encoded, NewData, NewInline,
};
use kernel::prelude::*;

/// A part of a run that has one place on the device.
struct Piece {
    /// Which of the batch's runs it is a part of.
    run: usize,
    /// Its length in bytes.
    len: u64,
    data: NewData,
    /// What is written instead of the batch's bytes: these compressed.
    compressed: Option<KVVec<u8>>,
}

impl Piece {
    /// Where it ends in the file.
    fn end(&self) -> u64 {
        self.data.offset.saturating_add(self.len)
    }

    /// Adds the writes that bring the piece to the device, every copy of it.
    fn push_writes<'a>(&'a self, batch: &'a Batch, writes: &mut KVVec<WriteIo<'a>>) -> Result {
        if let Some(buf) = &self.compressed {
            for offset in self.data.extent.mirrors(0, buf.len() as u64)?.iter() {
                writes.push(WriteIo { offset, buf }, GFP_KERNEL)?;
            }
            return Ok(());
        }
        let offset = self.data.offset;
        batch.for_each(self.run, (offset, self.end()), &mut |at, buf| {
            let within = at.saturating_sub(offset);
            for offset in self.data.extent.mirrors(within, buf.len() as u64)?.iter() {
                writes.push(WriteIo { offset, buf }, GFP_KERNEL)?;
            }
            Ok(())
        })
    }
}

/// A batch that has its places and its checksums, and is not written yet.
pub(super) struct AllocatedBatch {
    batch: Batch,
    pieces: KVVec<Piece>,
    reservation: Option<DataReservation>,
    /// Bytes over holes, for [`Reserved::written`](super::super::delalloc::Reserved::written).
    new_bytes: u64,
    /// Space for the pieces to come: those that lie side by side are written faster, and so are
    /// their checksums.
    spare: Option<OrderedExtent>,
}

impl AllocatedBatch {
    /// Finds a place for every run. What went into the tree as a small file's contents needs none.
    pub(super) fn new(batch: Batch, inode: &Inode) -> Self {
        let mut placed = Self {
            batch,
            pieces: KVVec::new(),
            reservation: None,
            new_bytes: 0,
            spare: None,
        };
        if let Err(e) = placed.allocate_all(inode) {
            placed.batch.fail_all(e);
        }
        placed.spare = None;
        placed
    }

    fn allocate_all(&mut self, inode: &Inode) -> Result {
        let reserved = inode.reserved().ok_or(EINVAL)?;
        for run in self.batch.runs() {
            let taken = reserved.take_for_writeback(run.start, run.end());
            let Some((share, new)) = taken else {
                continue;
            };
            self.new_bytes = self.new_bytes.saturating_add(new);
            match &mut self.reservation {
                Some(reservation) => reservation.merge(share),
                None => self.reservation = Some(share),
            }
        }
        let mut compressor = compressed::compressor(inode);
        if self.write_inline(inode, compressor.as_deref_mut())? {
            return Ok(());
        }
        let mut plan = compressed::plan(inode, &self.batch, compressor)?;
        let mut after = plan.iter().fold(0u64, |sum, planned| {
            sum.saturating_add(planned.disk_num_bytes())
        });
        self.pieces.reserve(plan.len(), GFP_KERNEL)?;
        for run in plan.chunk_by_mut(|a, b| a.run == b.run) {
            let before = self.pieces.len();
            if let Err((run, e)) = self.allocate_run(inode, run, &mut after) {
                self.batch.fail(run, e);
                self.pieces.truncate(before);
            }
        }
        Ok(())
    }

    /// Finds places for a run. `after` counts the bytes of the batch that none was looked for yet.
    /// With an error comes the number of the run.
    fn allocate_run(
        &mut self,
        inode: &Inode,
        run: &mut [Planned],
        after: &mut u64,
    ) -> Result<(), (usize, Error)> {
        for planned in run {
            *after = after.saturating_sub(planned.disk_num_bytes());
            self.allocate_planned(inode, planned, *after)
                .map_err(|e| (planned.run, e))?;
        }
        Ok(())
    }

    /// Puts a small file's contents into the tree, if that is what the batch is.
    fn write_inline(&self, inode: &Inode, compressor: Option<&mut Compressor>) -> Result<bool> {
        let Some(block) = self.batch.first_and_only() else {
            return Ok(false);
        };
        match compressed::inline_contents(compressor, block, inode.size()) {
            Some(new) => insert_contents(inode, new),
            None => Ok(false),
        }
    }

    /// Finds places for a part of a run, after which `after` bytes have no place yet.
    fn allocate_planned(&mut self, inode: &Inode, planned: &mut Planned, after: u64) -> Result {
        if let Some(compressed) = planned.compressed.take() {
            let len = compressed.bytes.len() as u64;
            if let Some(extent) = self.allocate_whole(inode, len, after)? {
                let piece = compressed_piece(inode, planned, compressed, extent)?;
                return Ok(self.pieces.push(piece, GFP_KERNEL)?);
            }
        }
        let Planned {
            run,
            mut start,
            end,
            ..
        } = *planned;
        while start < end {
            let extent = self.find(inode, (start, end), after)?;
            let piece = self.piece(inode, run, start, extent)?;
            start = piece.end();
            self.pieces.push(piece, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Allocates `want` bytes in one place. Nothing if there is no such place.
    fn allocate_whole(
        &mut self,
        inode: &Inode,
        want: u64,
        after: u64,
    ) -> Result<Option<OrderedExtent>> {
        self.spare = self.spare.take().filter(|spare| spare.len() >= want);
        let extent = self.allocate(inode, want, want.saturating_add(after))?;
        Ok(Some(extent).filter(|extent| extent.len() == want))
    }

    /// Finds space for what lies between two offsets of the file, or for the first part of that:
    /// what the file has preallocated, which holds nothing that could be overwritten, or else some
    /// that is allocated for the `after` bytes that follow, too.
    fn find(&mut self, inode: &Inode, (at, to): (u64, u64), after: u64) -> Result<OrderedExtent> {
        let want = to.saturating_sub(at);
        if inode.info().flags() & inode_flags::PREALLOC == 0 {
            return self.allocate(inode, want, want.saturating_add(after));
        }
        match preallocated(inode.fs(), id(inode), at, want)? {
            Some(extent) => Ok(extent),
            None => self.allocate(inode, want, want),
        }
    }

    /// Takes up to `want` bytes of the spare space. If there is none, up to `all` bytes are
    /// allocated.
    fn allocate(&mut self, inode: &Inode, want: u64, all: u64) -> Result<OrderedExtent> {
        let mut extent = match self.spare.take() {
            Some(extent) => extent,
            None => inode.fs().alloc_data(self.reservation.as_mut(), all)?,
        };
        if extent.len() <= want {
            return Ok(extent);
        }
        let first = extent.split(want)?;
        self.spare = Some(extent);
        Ok(first)
    }

    /// What `extent` gets of the run, from `offset` in the file on.
    fn piece(
        &self,
        inode: &Inode,
        run: usize,
        offset: u64,
        extent: OrderedExtent,
    ) -> Result<Piece> {
        let len = extent.len();
        let end = offset.saturating_add(len);
        let mut sums = KVVec::new();
        if inode.info().flags() & inode_flags::NODATASUM == 0 {
            let geometry = &inode.fs().geometry;
            self.batch.for_each(run, (offset, end), &mut |_, bytes| {
                push_checksums(bytes, geometry, &mut sums)
            })?;
        }
        let data = NewData {
            offset,
            extent,
            encoded: None,
            sums,
            size: 0,
        };
        Ok(Piece {
            run,
            len,
            data,
            compressed: None,
        })
    }

    /// Writes the batch, makes the tree show it, and ends the writeback of its folios, whatever
    /// comes of it. While the device is at work, `meanwhile` is called, unless it does not come to
    /// that.
    pub(super) fn write(mut self, inode: &Inode, meanwhile: &mut dyn FnMut()) -> Result {
        let mut pieces = core::mem::take(&mut self.pieces);
        if self.write_pieces(inode, &pieces, meanwhile).is_err() {
            self.write_runs(inode, &mut pieces);
        }
        self.show(inode, &mut pieces);
        drop(pieces);
        if let Some(reserved) = inode.reserved() {
            reserved.written(self.new_bytes);
        }
        self.batch.ended(inode)
    }

    fn write_pieces(&self, inode: &Inode, pieces: &[Piece], meanwhile: &mut dyn FnMut()) -> Result {
        if pieces.is_empty() {
            return Ok(());
        }
        let mut writes = KVVec::with_capacity(pieces.len(), GFP_KERNEL)?;
        for piece in pieces {
            piece.push_writes(&self.batch, &mut writes)?;
        }
        inode.fs().device.write_many_while(&writes, meanwhile)
    }

    /// Writes run after run, and drops the pieces of those that fail: no others are to suffer from
    /// it.
    fn write_runs(&mut self, inode: &Inode, pieces: &mut KVVec<Piece>) {
        for of_run in pieces.chunk_by(|a, b| a.run == b.run) {
            let written = self.write_pieces(inode, of_run, &mut || ());
            if let (Err(e), Some(piece)) = (written, of_run.first()) {
                self.batch.fail(piece.run, e);
            }
        }
        pieces.retain(|piece| !self.batch.has_failed(piece.run));
    }

    /// Enters pieces that were written into the tree.
    fn show(&mut self, inode: &Inode, pieces: &mut [Piece]) {
        let mut at = 0usize;
        while let Some([first, ..]) = pieces.get_mut(at..) {
            let (run, range) = (first.run, (first.data.offset, first.end()));
            let is_nocow = first.data.extent.is_nocow();
            let rest = pieces.get_mut(at..).unwrap_or_default();
            let mut count = 1;
            let shown = match insert(inode, rest) {
                Ok(inserted) => {
                    count = inserted;
                    self.release(rest.get(..count).unwrap_or_default());
                    Ok(())
                }
                // The file has lost the space meanwhile.
                Err(e) if e == EAGAIN && is_nocow => self.write_again(inode, run, range),
                Err(e) => Err(e),
            };
            if let Err(e) = shown {
                self.batch.fail(run, e);
            }
            at = at.saturating_add(count);
        }
    }

    /// Takes the reservation back for pieces that took no new space.
    fn release(&mut self, pieces: &[Piece]) {
        let Some(reservation) = &mut self.reservation else {
            return;
        };
        for piece in pieces.iter().filter(|p| p.data.extent.is_nocow()) {
            reservation.release(piece.len);
        }
    }

    /// Writes a piece of a run that lost its place to a new one.
    fn write_again(&mut self, inode: &Inode, run: usize, (mut at, to): (u64, u64)) -> Result {
        while at < to {
            let want = to.saturating_sub(at);
            let extent = self.allocate(inode, want, want)?;
            let piece = self.piece(inode, run, at, extent)?;
            at = piece.end();
            let mut piece = [piece];
            self.write_pieces(inode, &piece, &mut || ())?;
            insert(inode, &mut piece)?;
        }
        Ok(())
    }
}

/// Puts all of a small file into the tree. False if the file is longer there.
fn insert_contents(inode: &Inode, new: NewInline<'_>) -> Result<bool> {
    let item = match insert_inline(inode.fs(), id(inode), new) {
        // The file is being cut off, and longer in the tree still.
        Err(e) if e == EINVAL => return Ok(false),
        other => other?,
    };
    take_over_extents(inode, &item);
    Ok(true)
}

/// What is written of a compressed part of a run.
fn compressed_piece(
    inode: &Inode,
    planned: &Planned,
    CompressedBytes { method, bytes }: CompressedBytes,
    extent: OrderedExtent,
) -> Result<Piece> {
    let len = planned.end.saturating_sub(planned.start);
    let mut sums = KVVec::new();
    push_checksums(&bytes, &inode.fs().geometry, &mut sums)?;
    let encoded = Some(Encoded {
        method,
        ram_bytes: len,
        offset: 0,
        num_bytes: len,
    });
    let data = NewData {
        offset: planned.start,
        extent,
        encoded,
        sums,
        size: 0,
    };
    Ok(Piece {
        run: planned.run,
        len,
        data,
        compressed: Some(bytes),
    })
}

/// Enters the first pieces into the tree, and returns how many.
fn insert(inode: &Inode, pieces: &mut [Piece]) -> Result<usize> {
    let size = inode.size();
    let mut data = pieces.iter_mut().map(|piece| {
        piece.data.size = piece.end().min(size);
        &mut piece.data
    });
    let (item, count) = insert_pieces(inode.fs(), id(inode), &mut data)?;
    take_over_extents(inode, &item);
    Ok(count)
}
