// SPDX-License-Identifier: GPL-2.0
//! The units of reading: stripes of 64 KiB, counted from the start of a chunk, and windows of some
//! of them.

/// The bytes of which one is either read or not (`BTRFS_STRIPE_LEN`). A device that cannot read all
/// of a longer range is asked for these one by one.
pub(super) const STRIPE: u64 = 64 << 10;

/// A part of a chunk that is read at once. Addresses are logical, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    start: u64,
    len: u64,
}

impl Window {
    /// The window of at most `most` bytes that begins with the stripe of `logical`.
    pub(super) fn at(logical: u64, chunk_start: u64, chunk_end: u64, most: u64) -> Window {
        let into = logical.saturating_sub(chunk_start);
        let start = chunk_start.saturating_add(into - into % STRIPE);
        let len = chunk_end.saturating_sub(start).min(most);
        Window { start, len }
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// The part of `start..end` that lies within.
    pub(super) fn part(&self, start: u64, end: u64) -> core::ops::Range<u64> {
        start.max(self.start)..end.min(self.end())
    }

    /// The numbers of the stripes that have something of `part`, which lies within.
    pub(super) fn stripes_of(&self, part: &core::ops::Range<u64>) -> core::ops::Range<u64> {
        if part.is_empty() {
            return 0..0;
        }
        let first = part.start.saturating_sub(self.start) / STRIPE;
        let last = part.end.saturating_sub(self.start).div_ceil(STRIPE);
        first..last
    }

    /// Where `logical` is in a buffer of the window.
    pub(super) fn offset(&self, logical: u64) -> usize {
        logical.saturating_sub(self.start) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_of_whole_stripes_and_end_with_the_chunk() {
        let (start, end) = (1 << 20, (1 << 20) + 5 * STRIPE + 4096);
        let window = Window::at(start + STRIPE + 8192, start, end, 3 * STRIPE);
        assert_eq!((window.start(), window.len()), (start + STRIPE, 3 * STRIPE));
        let last = Window::at(end - 1, start, end, 3 * STRIPE);
        assert_eq!(last.len(), 4096);
        let part = window.part(start, start + 2 * STRIPE + 1);
        assert_eq!(window.stripes_of(&part), 0..2);
        assert_eq!(window.stripes_of(&window.part(0, start)), 0..0);
    }
}
