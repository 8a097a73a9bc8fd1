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

    /// Enters the gaps of a range, for which `reservation` has enough; what is over stays there.
    fn fill(&mut self, start: u64, end: u64, reservation: &mut DataReservation) -> Result {
        let mut gaps = KVec::new();
        self.gaps(start, end, &mut |gap| Ok(gaps.push(gap, GFP_KERNEL)?))?;
        for gap in gaps {
            self.blocks.insert(gap)?;
            let share = reservation.split(gap.len);
            match &mut self.reservation {
                Some(reservation) => reservation.merge(share),
                None => self.reservation = Some(share),
            }
        }
        Ok(())
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

    /// The bytes that are reserved.
    pub(super) fn bytes(&self) -> u64 {
        self.inner.lock().blocks.bytes()
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

    /// Gives every block of the range its share, and returns the sequence number.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; `ENOMEM`; those of a commit, which may be tried to find space.
    pub(super) fn add(&self, fs: &Fs, start: u64, end: u64) -> Result<u64> {
        // Reclaim cuts off what is clean, which takes the mutex.
        let _nofs = NofsScope::enter();
        let mut reservation: Option<DataReservation> = None;
        loop {
            let missing = {
                let mut inner = self.inner.lock();
                let missing = inner.missing(start, end)?;
                if missing == 0 {
                    return Ok(inner.sequence);
                }
                if let Some(reservation) = reservation.as_mut().filter(|p| p.bytes() >= missing) {
                    inner.fill(start, end, reservation)?;
                    return Ok(inner.sequence);
                }
                missing
            };
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
        let range = Extent::new(start, end.saturating_sub(start)).ok()?;
        let _nofs = NofsScope::enter();
        let mut inner = self.inner.lock();
        inner.sequence = inner.sequence.wrapping_add(1);
        let before = inner.blocks.bytes();
        // Without memory to split an extent the rest keeps its share until the inode goes.
        let _ = inner.blocks.subtract(range);
        let bytes = before.saturating_sub(inner.blocks.bytes());
        inner
            .reservation
            .as_mut()
            .map(|reservation| reservation.split(bytes))
    }
}
