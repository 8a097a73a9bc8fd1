// SPDX-License-Identifier: GPL-2.0
//! Telling the device what is not in use (`FITRIM`): free space in block groups, and what of the
//! device is in no chunk.
//!
//! A piece is taken out of use, discarded with no lock held, and given back. What is free in memory
//! is in neither the last commit on disk nor the one that is being written, and no reader has it:
//! until then it is pinned. The start of the device and superblocks are never free.

use crate::platform::{fatal_signal_pending, yield_now};
use crate::space::extent_set::Extent;
use crate::space::space_info::SpaceContext;
use crate::volume::Fs;
use kernel::prelude::*;

/// The most that is out of use at a time, in bytes.
const PIECE: u64 = 128 << 20;

/// What to discard: `struct fstrim_range`.
#[derive(Clone, Copy, Debug)]
pub struct TrimRange {
    /// The logical address to begin at, in bytes.
    pub start: u64,
    /// How many bytes of logical addresses; `u64::MAX` for all.
    pub len: u64,
    /// Shorter free extents of block groups are left alone, in bytes.
    pub minlen: u64,
}

/// Discards what is free in the block groups of a range of logical addresses, and then, as in the C
/// driver whatever the range, what of the device is in no chunk. Returns the result, and how many
/// bytes were discarded by then, each copy counted. `is_interrupted` says whether the caller has to
/// go on with something else.
///
/// The result is `EOPNOTSUPP` if the device cannot discard, `EINVAL` for a range below a sector or
/// beyond all addresses, `EROFS`, `EINTR` if `is_interrupted` or on a fatal signal, and those of
/// reading and of the device.
pub fn trim(fs: &Fs, range: &TrimRange, is_interrupted: &dyn Fn() -> bool) -> (Result, u64) {
    let mut trim = Trim {
        fs,
        is_interrupted,
        trimmed: 0,
    };
    let result = trim.run(range);
    (result, trim.trimmed)
}

struct Trim<'a> {
    fs: &'a Fs,
    is_interrupted: &'a dyn Fn() -> bool,
    trimmed: u64,
}

impl Trim<'_> {
    fn run(&mut self, range: &TrimRange) -> Result {
        let granularity = self.fs.device.discard_granularity().ok_or(EOPNOTSUPP)?;
        if range.len < u64::from(self.fs.geometry.sectorsize) || range.start == u64::MAX {
            return Err(EINVAL);
        }
        let end = match range.len {
            u64::MAX => u64::MAX,
            len => range.start.checked_add(len).ok_or(EINVAL)?,
        };
        self.fs.check_writable()?;
        self.block_groups(range.start, end, range.minlen.max(granularity))?;
        self.holes()
    }

    /// What is free in block groups, in extents of at least `least` bytes.
    fn block_groups(&mut self, start: u64, end: u64, least: u64) -> Result {
        let mut from = start;
        loop {
            self.check()?;
            let piece = self.fs.take_free((from, end), least, PIECE.max(least))?;
            let Some(piece) = piece else {
                return Ok(());
            };
            from = piece.start().saturating_add(piece.len());
            for physical in piece.mirrors(0, piece.len())?.iter() {
                self.discard(physical, piece.len())?;
            }
        }
    }

    /// What of the device is in no chunk.
    fn holes(&mut self) -> Result {
        let mut from = 0;
        loop {
            self.check()?;
            let Some(hole) = Hole::take(self.fs, from)? else {
                return Ok(());
            };
            from = hole.physical.end();
            self.discard(hole.physical.start, hole.physical.len)?;
        }
    }

    fn discard(&mut self, physical: u64, len: u64) -> Result {
        self.fs.device.discard(physical, len)?;
        self.trimmed = self.trimmed.saturating_add(len);
        Ok(())
    }

    /// Whether to go on.
    fn check(&self) -> Result {
        yield_now();
        if (self.is_interrupted)() || fatal_signal_pending() {
            return Err(EINTR);
        }
        Ok(())
    }
}

/// A range of the device that is in no chunk, and that no chunk gets as long as this lives.
struct Hole<'a> {
    fs: &'a Fs,
    physical: Extent,
}

impl<'a> Hole<'a> {
    /// The first one at the physical address `from` or after it.
    fn take(fs: &'a Fs, from: u64) -> Result<Option<Self>> {
        let mut trans = fs.enter()?;
        let taken = trans.space_mut().devices.take_hole(from, PIECE);
        trans.leave();
        Ok(taken?.map(|physical| Self { fs, physical }))
    }
}

impl Drop for Hole<'_> {
    fn drop(&mut self) {
        let mut writer = self.fs.writer.lock();
        writer
            .space_mut()
            .devices
            .give_back_hole(self.physical.start);
    }
}
