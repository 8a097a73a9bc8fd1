// SPDX-License-Identifier: GPL-2.0
//! A part of a file in memory that need not be contiguous there, such as the folios of a page
//! cache.

use kernel::prelude::*;

/// Consecutive bytes of a file, in slices that follow one another in the file. All positions count
/// from the first byte of the first slice.
pub struct Scatter<'b> {
    slices: KVec<&'b mut [u8]>,
    len: usize,
}

impl<'b> Scatter<'b> {
    /// All of the slices, in this order.
    pub fn new(slices: KVec<&'b mut [u8]>) -> Self {
        let len = slices
            .iter()
            .fold(0usize, |len, slice| len.saturating_add(slice.len()));
        Self { slices, len }
    }

    /// One slice.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn one(slice: &'b mut [u8]) -> Result<Self> {
        let mut slices = KVec::new();
        slices.push(slice, GFP_KERNEL)?;
        Ok(Self::new(slices))
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices, to be taken from the front.
    pub fn take(&mut self) -> Taker<'_, 'b> {
        Taker {
            slices: self.slices.iter_mut(),
            current: &mut [],
            at: 0,
        }
    }

    /// Copies `from` to what is at `at`.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if that does not lie within.
    pub fn copy_from(&mut self, at: usize, from: &[u8]) -> Result {
        let mut rest = from;
        let end = at.checked_add(from.len()).ok_or(EUCLEAN)?;
        self.for_each(at, end, |slice| {
            if let Some((head, tail)) = rest.split_at_checked(slice.len()) {
                slice.copy_from_slice(head);
                rest = tail;
            }
        })
    }

    /// Makes `len` bytes at `at` zeros.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if they do not lie within.
    pub fn zero(&mut self, at: usize, len: usize) -> Result {
        let end = at.checked_add(len).ok_or(EUCLEAN)?;
        self.for_each(at, end, |slice| slice.fill(0))
    }

    fn for_each(&mut self, from: usize, to: usize, mut each: impl FnMut(&mut [u8])) -> Result {
        let mut taker = self.take();
        let mut at = from;
        while at < to {
            let slice = taker.next(at, to).ok_or(EUCLEAN)?;
            at = at.saturating_add(slice.len());
            each(slice);
        }
        Ok(())
    }
}

/// Gives out parts of a [`Scatter`], from front to back.
pub struct Taker<'t, 'b> {
    slices: core::slice::IterMut<'t, &'b mut [u8]>,
    /// What is left of the slice that was come to, and its position.
    current: &'t mut [u8],
    at: usize,
}

impl<'t> Taker<'t, '_> {
    /// What is contiguous from `from` on, up to `to`. Nothing if that is empty, not there, or was
    /// given out before.
    pub fn next(&mut self, from: usize, to: usize) -> Option<&'t mut [u8]> {
        while self.at.saturating_add(self.current.len()) <= from {
            self.at = self.at.saturating_add(self.current.len());
            self.current = self.slices.next()?;
        }
        let skip = from.checked_sub(self.at)?;
        let len = to.checked_sub(from)?;
        let (_, found) = core::mem::take(&mut self.current).split_at_mut_checked(skip)?;
        let len = len.min(found.len());
        let (found, rest) = found.split_at_mut_checked(len)?;
        self.current = rest;
        self.at = from.saturating_add(len);
        (!found.is_empty()).then_some(found)
    }
}
