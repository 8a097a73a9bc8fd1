// SPDX-License-Identifier: GPL-2.0
//! Space that is reserved for data which is still in memory: which blocks of a file have it.
//!
//! A block gets its share when it is about to become dirty, so that `write` fails for want of space
//! and writeback does not. Writeback takes the share over; cutting the block off gives it back.

use crate::platform::NofsScope;
use crate::space::extent_set::{Extent, ExtentSet};
use crate::space::DataReservation;
use crate::volume::Fs;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Mutex;

/// How many ranges are looked up at a time.
const RANGES: usize = 64;

struct Inner {
    blocks: ExtentSet,
    /// Those of `blocks` that are over a hole: what is on disk will be more by them.
    over_holes: ExtentSet,
    /// Bytes over holes that are being written back, until the tree has them.
    in_writeback: u64,
    /// As many bytes as there are in `blocks`.
    reservation: Option<DataReservation>,
    /// Grows whenever blocks lose their share, so that a writer who looked before notices.
    sequence: u64,
}

impl Inner {
    /// The parts of a range that have no share.
    fn gaps(&self, start: u64, end: u64, each: &mut dyn FnMut(Extent) -> Result) -> Result {
        let mut at = start;
        while at < end {
            let next = self.blocks.first_after(at);
            let until = match next {
                Some(next) if next.start <= at => {
                    at = next.end();
                    continue;
                }
                Some(next) => next.start.min(end),
                None => end,
            };
            each(Extent::new(at, until.saturating_sub(at))?)?;
            at = until;
        }
        Ok(())
    }

    fn missing(&self, start: u64, end: u64) -> Result<u64> {
        let mut missing = 0u64;
        self.gaps(start, end, &mut |gap| {
            missing = missing.saturating_add(gap.len);
            Ok(())
        })?;
        Ok(missing)
    }

    /// Notes which parts of a gap, whose blocks are about to get their share, are over one of
    /// `holes`.
    fn note_holes(&mut self, gap: Extent, holes: &[Extent]) -> Result {
        for hole in holes {
            let (start, end) = (gap.start.max(hole.start), gap.end().min(hole.end()));
            if start < end {
                self.over_holes
                    .insert(Extent::new(start, end.saturating_sub(start))?)?;
            }
        }
        Ok(())
    }

    /// Enters the gaps of a range, for which `reservation` has enough; what is over stays there.
    fn fill(
        &mut self,
        start: u64,
        end: u64,
        reservation: &mut DataReservation,
        holes: &[Extent],
    ) -> Result {
        let mut gaps = KVec::new();
        self.gaps(start, end, &mut |gap| Ok(gaps.push(gap, GFP_KERNEL)?))?;
        for gap in gaps {
            let noted = self.note_holes(gap, holes);
            if let Err(e) = noted.and_then(|()| self.blocks.insert(gap)) {
                let _ = self.over_holes.subtract(gap);
                return Err(e);
            }
            let share = reservation.split(gap.len);
            match &mut self.reservation {
                Some(reservation) => reservation.merge(share),
                None => self.reservation = Some(share),
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Takes the shares of a range out, and returns how many bytes of them were over holes.
    fn take_out(&mut self, start: u64, end: u64) -> Option<(DataReservation, u64)> {
        let range = Extent::new(start, end.saturating_sub(start)).ok()?;
        let _nofs = NofsScope::enter();
        self.sequence = self.sequence.wrapping_add(1);
        let (before, new_before) = (self.blocks.bytes(), self.over_holes.bytes());
        // Without memory to split an extent the rest keeps its share until the inode goes.
        let _ = self.blocks.subtract(range);
        let _ = self.over_holes.subtract(range);
        let bytes = before.saturating_sub(self.blocks.bytes());
        let new = new_before.saturating_sub(self.over_holes.bytes());
        let share = self.reservation.as_mut()?.split(bytes);
        Some((share, new))
    }
}

/// The reserved blocks of one file. The mutex is a leaf.
#[pin_data]
pub(super) struct Delalloc {
    #[pin]
    inner: Mutex<Inner>,
}

impl Delalloc {
    pub(super) fn new() -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                inner <- new_mutex!(Inner {
                    blocks: ExtentSet::new(),
                    over_holes: ExtentSet::new(),
                    in_writeback: 0,
                    reservation: None,
                    sequence: 0,
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// The number of times that blocks lost their share.
    pub(super) fn sequence(&self) -> u64 {
        self.inner.lock().sequence
    }

    /// The bytes by which the file will take up more space once all is written: dirty, or being
    /// written back, and over a hole. In the C driver these are `new_delalloc_bytes`.
    pub(super) fn new_bytes(&self) -> u64 {
        let inner = self.inner.lock();
        inner.over_holes.bytes().saturating_add(inner.in_writeback)
    }

    /// Whether a block of a range has its share: it is dirty, or about to be.
    pub(super) fn has(&self, start: u64, end: u64) -> bool {
        let next = self.inner.lock().blocks.first_after(start);
        next.is_some_and(|next| next.start < end)
    }

    /// The reserved blocks from `from` on, not too many of them, and up to where these are all.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn ranges(&self, from: u64) -> Result<(KVec<Extent>, u64)> {
        let mut ranges = KVec::with_capacity(RANGES, GFP_KERNEL)?;
        let inner = self.inner.lock();
        let mut at = from;
        while let Some(range) = inner.blocks.first_after(at) {
            if ranges.len() >= RANGES {
                return Ok((ranges, at));
            }
            at = range.end();
            // There is space, so that nothing is allocated here.
            ranges.push(range, GFP_KERNEL)?;
        }
        Ok((ranges, u64::MAX))
    }

    /// Gives every block of the range its share, and returns the sequence number. `holes` finds out
    /// what in the range is a hole; it is called if there is a block without a share.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; `ENOMEM`; those of `holes`, and of a commit, which may be tried to find space.
    pub(super) fn add(
        &self,
        fs: &Fs,
        (start, end): (u64, u64),
        holes: &dyn Fn() -> Result<KVec<Extent>>,
    ) -> Result<u64> {
        // Reclaim cuts off what is clean, which takes the mutex.
        let _nofs = NofsScope::enter();
        let mut reservation: Option<DataReservation> = None;
        let mut found: Option<KVec<Extent>> = None;
        loop {
            let missing = {
                let mut inner = self.inner.lock();
                let missing = inner.missing(start, end)?;
                if missing == 0 {
                    return Ok(inner.sequence);
                }
                let enough = reservation.as_mut().filter(|p| p.bytes() >= missing);
                if let (Some(reservation), Some(holes)) = (enough, &found) {
                    inner.fill(start, end, reservation, holes)?;
                    return Ok(inner.sequence);
                }
                missing
            };
            if found.is_none() {
                found = Some(holes()?);
            }
            let have = reservation.as_ref().map_or(0, DataReservation::bytes);
            let more = fs.reserve_data(missing.saturating_sub(have))?;
            match &mut reservation {
                Some(reservation) => reservation.merge(more),
                None => reservation = Some(more),
            }
        }
    }

    /// Takes the shares of a range out. Dropping what is returned gives the space back.
    pub(super) fn take(&self, start: u64, end: u64) -> Option<DataReservation> {
        self.inner
            .lock()
            .take_out(start, end)
            .map(|(share, _)| share)
    }

    /// As [`Self::take`], for blocks that are under writeback. Returns as well how many bytes of
    /// them count as new until [`Self::written`].
    pub(super) fn take_for_writeback(
        &self,
        start: u64,
        end: u64,
    ) -> Option<(DataReservation, u64)> {
        let mut inner = self.inner.lock();
        let (share, new) = inner.take_out(start, end)?;
        inner.in_writeback = inner.in_writeback.saturating_add(new);
        Some((share, new))
    }

    /// Ends the writeback of `new` bytes that [`Self::take_for_writeback`] counted.
    pub(super) fn written(&self, new: u64) {
        let mut inner = self.inner.lock();
        inner.in_writeback = inner.in_writeback.saturating_sub(new);
    }
}
