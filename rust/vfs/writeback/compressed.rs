// SPDX-License-Identifier: GPL-2.0
//! Which parts of a batch are written compressed.
//!
//! A run is cut into pieces of [`MAX_COMPRESSED`] bytes; those that become smaller are extents of
//! their own, and what lies between them stays together. Memory that there is not is no error: the
//! data is written as it is, so that reclaim never waits for compression.

use super::super::attributes::id;
use super::super::inode::Inode;
use super::batch::Batch;
use crate::format::file_extent::MAX_COMPRESSED;
use crate::format::inode::inode_flags;
use crate::format::CompressionMethod;
use crate::subvol::compress::{can_compress, choose, Compressed, Compressor};
use crate::subvol::write::{NewInline, MAX_INLINE};
use kernel::prelude::*;

/// What is written in the place of data.
pub(super) struct CompressedBytes {
    pub(super) method: CompressionMethod,
    /// Whole sectors.
    pub(super) bytes: KVVec<u8>,
}

/// A part of a run that has no place on the device yet.
pub(super) struct Planned {
    /// Which of the batch's runs it is a part of.
    pub(super) run: usize,
    /// Where it begins and ends in the file, in bytes.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) compressed: Option<CompressedBytes>,
}

impl Planned {
    /// The space that it takes on the device, in bytes.
    pub(super) fn disk_num_bytes(&self) -> u64 {
        match &self.compressed {
            Some(compressed) => compressed.bytes.len() as u64,
            None => self.end.saturating_sub(self.start),
        }
    }
}

/// What compresses the data of a file, if it is to be compressed. It is not on the stack, under
/// which a commit may be written.
#[inline(never)]
pub(super) fn compressor(inode: &Inode) -> Option<KBox<Compressor>> {
    let mount = inode.super_block().volume().settings().compress;
    let flags = inode.info().flags();
    let chosen = choose(inode.fs(), id(inode), flags, mount).ok()?;
    let chosen = inode.recompress().choose(chosen, can_compress(flags))?;
    let new = Compressor::new(chosen, inode.fs().geometry.sectorsize).ok()?;
    KBox::new(new, GFP_KERNEL | __GFP_NOWARN).ok()
}

/// The contents of a file of `size` bytes, all of which is in `block`, as they are kept in the
/// tree: compressed, if they are to be and become smaller. Nothing if they are too large for that.
#[inline(never)]
pub(super) fn inline_contents<'a>(
    compressor: Option<&'a mut Compressor>,
    block: &'a [u8],
    size: u64,
) -> Option<NewInline<'a>> {
    let data = block.get(..usize::try_from(size).ok()?)?;
    if data.is_empty() {
        return None;
    }
    if let Some(compressor) = compressor {
        let method = compressor.chosen().method;
        if let Ok(Some(data)) = compressor.compress_inline(block, size, MAX_INLINE) {
            let method = Some(method);
            return Some(NewInline { data, size, method });
        }
    }
    (data.len() <= MAX_INLINE).then(|| NewInline::plain(data))
}

/// Cuts the runs of a batch into parts, and compresses those that are to be. The parts are in the
/// order of the runs.
///
/// # Errors
///
/// `ENOMEM`.
#[inline(never)]
pub(super) fn plan(
    inode: &Inode,
    batch: &Batch,
    compressor: Option<KBox<Compressor>>,
) -> Result<KVVec<Planned>> {
    // What is preallocated is written to as it is.
    let is_plain = inode.info().flags() & inode_flags::PREALLOC != 0;
    let mut compressor = compressor.filter(|_| !is_plain);
    let mut plan = KVVec::with_capacity(batch.runs().len(), GFP_KERNEL)?;
    for (number, run) in batch.runs().iter().enumerate() {
        let mut start = run.start;
        while start < run.end() {
            let length = match compressor {
                Some(_) => MAX_COMPRESSED,
                None => u64::MAX,
            };
            let end = run.end().min(start.saturating_add(length));
            let compressed = compress(inode, batch, number, (start, end), &mut compressor);
            push(&mut plan, number, (start, end), compressed)?;
            start = end;
        }
    }
    Ok(plan)
}

/// Adds a part, to the one before it if neither is compressed.
fn push(
    plan: &mut KVVec<Planned>,
    run: usize,
    (start, end): (u64, u64),
    compressed: Option<CompressedBytes>,
) -> Result {
    match plan.last_mut() {
        Some(last) if last.run == run && last.compressed.is_none() && compressed.is_none() => {
            last.end = end;
        }
        _ => {
            let new = Planned {
                run,
                start,
                end,
                compressed,
            };
            plan.push(new, GFP_KERNEL)?;
        }
    }
    Ok(())
}

/// Compresses a part of a run. If that does not help, the file is marked, and nothing more of it is
/// tried, unless it is compressed by order.
fn compress(
    inode: &Inode,
    batch: &Batch,
    run: usize,
    range: (u64, u64),
    by: &mut Option<KBox<Compressor>>,
) -> Option<CompressedBytes> {
    let compressor = by.as_mut()?;
    let chosen = *compressor.chosen();
    let made = parts(batch, run, range).and_then(|parts| compressor.compress(&parts));
    match made.ok()? {
        Compressed::Smaller(bytes) => Some(CompressedBytes {
            method: chosen.method,
            bytes,
        }),
        Compressed::Incompressible if chosen.gives_up => {
            inode.set_incompressible();
            *by = None;
            None
        }
        Compressed::Incompressible | Compressed::NotTried => None,
    }
}

/// The bytes of a part of a run.
fn parts(batch: &Batch, run: usize, range: (u64, u64)) -> Result<KVec<&[u8]>> {
    let mut parts = KVec::new();
    batch.for_each(run, range, &mut |_, bytes| {
        Ok(parts.push(bytes, GFP_KERNEL | __GFP_NOWARN)?)
    })?;
    Ok(parts)
}
