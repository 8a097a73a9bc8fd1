// SPDX-License-Identifier: GPL-2.0
//! One window of one copy: reading it, proving what is in it, counting.

use super::extents::{self, Allocated, ScrubExtent};
use super::repair::{self, Bad, Cause};
use super::stripe::{Window, STRIPE};
use super::ScrubArgs;
use crate::device::ReadIo;
use crate::format::{tree_id, Checksum};
use crate::state::ScrubProgress;
use crate::subvol::csum;
use crate::trans::Reader;
use crate::tree::verify::{verify, Check};
use crate::tree::NodePtr;
use crate::volume::device_extent::DeviceExtent;
use crate::volume::Fs;
use kernel::prelude::*;

/// The most bytes of a window.
pub(super) const MAX_WINDOW: u64 = 8 << 20;

/// What was done of a window.
pub(super) struct Done {
    /// The logical address after the window, in bytes.
    pub(super) end: u64,
    /// How many bytes were read of it.
    pub(super) read: u64,
}

/// Where a window is read to, and which of its stripes were.
pub(super) struct ReadBuffer {
    bytes: KVVec<u8>,
    /// The stripes that could not be read.
    failed: [bool; (MAX_WINDOW / STRIPE) as usize],
}

/// What is proved as one: a tree block or a sector of file data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// Its logical address, in bytes.
    pub(super) logical: u64,
    /// Its size, in bytes.
    pub(super) len: usize,
    pub(super) kind: UnitKind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum UnitKind {
    /// A tree block, and what the extent tree says of it.
    Block(NodePtr),
    /// A sector of file data, with its checksum if it has one.
    Sector(Option<Checksum>),
}

/// A copy of a chunk, as one commit has it.
pub(super) struct Copy<'a> {
    pub(super) reader: &'a Reader,
    pub(super) extent: &'a DeviceExtent,
    /// Its number, from 1 on.
    pub(super) mirror: u32,
    pub(super) read_only: bool,
}

impl Unit {
    /// Holds `bytes`, which were read from some copy, against what they must be.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the inner result says what is wrong.
    pub(super) fn prove(
        &self,
        reader: &Reader,
        bytes: &[u8],
    ) -> Result<core::result::Result<(), Cause>> {
        match &self.kind {
            UnitKind::Block(ptr) => {
                let mut copy = KVVec::with_capacity(bytes.len(), GFP_KERNEL)?;
                copy.extend_from_slice(bytes, GFP_KERNEL)?;
                let limits = reader.fs().cache.limits();
                let proved = verify(copy, ptr, &limits, Check::All);
                Ok(proved.map(|_| ()).map_err(Cause::Block))
            }
            UnitKind::Sector(Some(sum)) if !sum.matches(bytes) => Ok(Err(Cause::Checksum)),
            UnitKind::Sector(_) => Ok(Ok(())),
        }
    }
}

/// Scrubs the first window of a copy that has extents at the logical address `from` or after it, of
/// at most `most` bytes. `None` if there is none.
///
/// # Errors
///
/// What reading the trees gives; `ENOMEM`.
pub(super) fn scrub(
    fs: &Fs,
    args: &ScrubArgs,
    extent: &DeviceExtent,
    (from, most): (u64, u64),
    buffer: &mut ReadBuffer,
    progress: &mut ScrubProgress,
) -> Result<Option<Done>> {
    // Until this goes, nothing that the commit refers to is written to by anybody else.
    let reader = fs.reader()?;
    let Some(mirror) = extent.mirror(&reader) else {
        return Ok(None);
    };
    let Some(allocated) = extents::find(&reader, extent.logical(), from, most)? else {
        return Ok(None);
    };
    let copy = Copy {
        reader: &reader,
        extent,
        mirror,
        read_only: args.read_only || fs.is_read_only(),
    };
    let read = buffer.read(fs, extent, &allocated)?;
    let mut bad = KVVec::new();
    let sums = Sums::look_up(&reader, &allocated)?;
    for extent in allocated.extents.iter() {
        prove_extent(
            &copy,
            &allocated.window,
            extent,
            buffer,
            &sums,
            progress,
            &mut bad,
        )?;
    }
    for bad in bad.iter() {
        repair::repair(&copy, bad, progress)?;
    }
    Ok(Some(Done {
        end: allocated.window.end(),
        read,
    }))
}

/// Proves what of an extent is in the window, counts it, and adds what is wrong to `bad`.
fn prove_extent(
    copy: &Copy<'_>,
    window: &Window,
    extent: &ScrubExtent,
    buffer: &ReadBuffer,
    sums: &Sums,
    progress: &mut ScrubProgress,
    bad: &mut KVVec<Bad>,
) -> Result {
    let sectorsize = copy.reader.fs().geometry.sectorsize;
    let part = window.part(extent.start, extent.end());
    let bytes = part.end.saturating_sub(part.start);
    let stripes = window.stripes_of(&part);
    let stripes = stripes.end.saturating_sub(stripes.start);
    let Some(ptr) = extent.block else {
        add(&mut progress.data_extents_scrubbed, stripes);
        add(&mut progress.data_bytes_scrubbed, bytes);
        for logical in part.step_by(sectorsize.into()) {
            let sum = sums.get(logical);
            if sum.is_none() {
                add(&mut progress.no_csum, 1);
            }
            let unit = Unit {
                logical,
                len: sectorsize.into(),
                kind: UnitKind::Sector(sum),
            };
            prove_unit(copy, window, &unit, buffer, bad)?;
        }
        return Ok(());
    };
    add(&mut progress.tree_extents_scrubbed, stripes);
    add(&mut progress.tree_bytes_scrubbed, bytes);
    // One that began in the window before was proved there.
    if extent.start < window.start() {
        return Ok(());
    }
    let unit = Unit {
        logical: extent.start,
        len: copy.reader.fs().geometry.nodesize.into(),
        kind: UnitKind::Block(ptr),
    };
    prove_unit(copy, window, &unit, buffer, bad)
}

fn prove_unit(
    copy: &Copy<'_>,
    window: &Window,
    unit: &Unit,
    buffer: &ReadBuffer,
    bad: &mut KVVec<Bad>,
) -> Result {
    let found = match buffer.get(window, unit) {
        Some(bytes) => unit.prove(copy.reader, bytes)?,
        // A block of an old volume may begin in one window and end in another.
        None if !buffer.has_failed(window, unit) => {
            let mut bytes = KVVec::zeroed(unit.len, GFP_KERNEL)?;
            let physical = copy.extent.physical_of(unit.logical);
            match copy.reader.fs().device.read(physical, &mut bytes) {
                Ok(()) => unit.prove(copy.reader, &bytes)?,
                Err(ENOMEM) => return Err(ENOMEM),
                Err(_) => Err(Cause::Read),
            }
        }
        None => Err(Cause::Read),
    };
    if let Err(cause) = found {
        bad.push(Bad { unit: *unit, cause }, GFP_KERNEL)?;
    }
    Ok(())
}

fn add(count: &mut u64, more: u64) {
    *count = count.saturating_add(more);
}

impl ReadBuffer {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            bytes: KVVec::zeroed(MAX_WINDOW as usize, GFP_KERNEL)?,
            failed: [false; (MAX_WINDOW / STRIPE) as usize],
        })
    }

    /// Reads the stripes of a copy that have extents. Those that the device cannot read are known
    /// afterwards. Returns how many bytes were asked for.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn read(&mut self, fs: &Fs, extent: &DeviceExtent, allocated: &Allocated) -> Result<u64> {
        let window = &allocated.window;
        self.failed.fill(false);
        let runs = runs(allocated)?;
        let mut read = 0u64;
        let mut ios = KVec::with_capacity(runs.len(), GFP_KERNEL)?;
        let len = usize::try_from(window.len()).map_err(|_| EINVAL)?;
        let mut rest = self.bytes.get_mut(..len).ok_or(EINVAL)?;
        let mut at = window.start();
        for run in runs.iter() {
            let skipped = usize::try_from(run.start.saturating_sub(at)).map_err(|_| EINVAL)?;
            let len = run.end.saturating_sub(run.start);
            let from = rest.get_mut(skipped..).ok_or(EINVAL)?;
            let (buf, behind) = from
                .split_at_mut_checked(usize::try_from(len).map_err(|_| EINVAL)?)
                .ok_or(EINVAL)?;
            let io = ReadIo::new(extent.physical_of(run.start), buf);
            ios.push(io, GFP_KERNEL)?;
            (rest, at) = (behind, run.end);
            read = read.saturating_add(len);
        }
        if fs.device.read_many(&mut ios) == Err(ENOMEM) {
            return Err(ENOMEM);
        }
        for (io, run) in ios.iter_mut().zip(runs.iter()) {
            if io.result.is_ok() {
                continue;
            }
            // One bad sector makes all of a read fail.
            let mut at = run.start;
            for stripe in io.buf.chunks_mut(STRIPE as usize) {
                match fs.device.read(extent.physical_of(at), stripe) {
                    Ok(()) => {}
                    Err(ENOMEM) => return Err(ENOMEM),
                    Err(_) => {
                        let index = at.saturating_sub(window.start()) / STRIPE;
                        if let Some(failed) = self.failed.get_mut(index as usize) {
                            *failed = true;
                        }
                    }
                }
                at = at.saturating_add(stripe.len() as u64);
            }
        }
        Ok(read)
    }

    fn has_failed(&self, window: &Window, unit: &Unit) -> bool {
        let end = unit.logical.saturating_add(unit.len as u64);
        let stripes = window.stripes_of(&window.part(unit.logical, end));
        let (first, last) = (stripes.start as usize, stripes.end as usize);
        let failed = self.failed.get(first..last);
        failed.is_none_or(|failed| failed.contains(&true))
    }

    /// The bytes of a unit, if all of them were read.
    fn get(&self, window: &Window, unit: &Unit) -> Option<&[u8]> {
        let at = window.offset(unit.logical);
        let end = at.checked_add(unit.len)?;
        if end as u64 > window.len() || self.has_failed(window, unit) {
            return None;
        }
        self.bytes.get(at..end)
    }
}

/// The logical ranges of neighbouring stripes that have extents.
fn runs(allocated: &Allocated) -> Result<KVec<core::ops::Range<u64>>> {
    let window = &allocated.window;
    let mut runs: KVec<core::ops::Range<u64>> = KVec::new();
    for extent in allocated.extents.iter() {
        let stripes = window.stripes_of(&window.part(extent.start, extent.end()));
        let address = |stripe: u64| window.start().saturating_add(stripe.saturating_mul(STRIPE));
        let start = address(stripes.start);
        let end = address(stripes.end).min(window.end());
        match runs.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => runs.push(start..end, GFP_KERNEL)?,
        }
    }
    Ok(runs)
}

/// The checksums of the file data of a window.
struct Sums {
    start: u64,
    sectorsize: u64,
    sums: KVec<Option<Checksum>>,
}

impl Sums {
    fn look_up(reader: &Reader, allocated: &Allocated) -> Result<Sums> {
        let sectorsize = reader.fs().geometry.sectorsize;
        let is_data = |extent: &&ScrubExtent| extent.block.is_none();
        let mut sums = Sums {
            start: 0,
            sectorsize: sectorsize.into(),
            sums: KVec::new(),
        };
        let first = allocated.extents.iter().find(is_data);
        let last = allocated.extents.iter().rfind(is_data);
        if let (Some(first), Some(last)) = (first, last) {
            let part = allocated.window.part(first.start, last.end());
            let len = part.end.saturating_sub(part.start);
            let root = reader.root(tree_id::CSUM).map_err(|e| {
                crate::fs_err!(reader.fs(), "scrub: no valid extent or csum root found");
                if e == ENOENT {
                    EUCLEAN
                } else {
                    e
                }
            })?;
            sums.start = part.start;
            let geometry = &reader.fs().geometry;
            csum::lookup(reader, root, geometry, part.start, len, &mut sums.sums)?;
        }
        Ok(sums)
    }

    fn get(&self, logical: u64) -> Option<Checksum> {
        let at = logical.checked_sub(self.start)? / self.sectorsize;
        self.sums.get(at as usize).copied().flatten()
    }
}
