// SPDX-License-Identifier: GPL-2.0
//! A set of numbers that are not 0, such as inode numbers.

use kernel::prelude::*;

/// Open addressing with linear probing; at most half full, so that a free slot ends every search.
pub(crate) struct NumberSet {
    /// A power of two of slots, 0 where free.
    slots: KVVec<u64>,
    len: usize,
}

/// Slots at first.
const FIRST: usize = 64;

impl NumberSet {
    pub(crate) const fn new() -> Self {
        NumberSet {
            slots: KVVec::new(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.len != 0 && self.find(number).is_ok_and(|(_, found)| found)
    }

    /// Adds `number`; returns whether it is new.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and `EINVAL` for 0.
    pub(crate) fn insert(&mut self, number: u64) -> Result<bool> {
        if number == 0 {
            return Err(EINVAL);
        }
        if self.len.saturating_mul(2) >= self.slots.len() {
            self.grow()?;
        }
        let (at, found) = self.find(number)?;
        if found {
            return Ok(false);
        }
        *self.slots.get_mut(at).ok_or(EINVAL)? = number;
        self.len = self.len.saturating_add(1);
        Ok(true)
    }

    pub(crate) fn clear(&mut self) {
        if self.len == 0 {
            return;
        }
        // What grew large for one inode is not swept for all that follow.
        if self.slots.len() > FIRST {
            self.slots = KVVec::new();
        } else {
            self.slots.fill(0);
        }
        self.len = 0;
    }

    /// Removes all that `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(u64) -> bool) -> Result {
        let mut old = core::mem::replace(&mut self.slots, KVVec::new());
        self.len = 0;
        for number in old
            .iter()
            .copied()
            .filter(|number| *number != 0 && keep(*number))
        {
            self.insert(number)?;
        }
        old.clear();
        Ok(())
    }

    fn grow(&mut self) -> Result {
        let wanted = self.slots.len().saturating_mul(2).max(FIRST);
        let larger = KVVec::zeroed(wanted, GFP_KERNEL)?;
        let old = core::mem::replace(&mut self.slots, larger);
        for number in old.iter().copied().filter(|number| *number != 0) {
            let (at, _) = self.find(number)?;
            *self.slots.get_mut(at).ok_or(EINVAL)? = number;
        }
        Ok(())
    }

    /// The slot of `number` and `true`, or the free slot where it belongs and `false`.
    fn find(&self, number: u64) -> Result<(usize, bool)> {
        let mask = self.slots.len().checked_sub(1).ok_or(EINVAL)?;
        let mut at = spread(number) & mask;
        loop {
            let slot = *self.slots.get(at).ok_or(EINVAL)?;
            if slot == number || slot == 0 {
                return Ok((at, slot == number));
            }
            at = at.wrapping_add(1) & mask;
        }
    }
}

/// Mixes the bits of a number, so that its low bits make a good index.
pub(crate) fn spread(number: u64) -> usize {
    // 2^64 divided by the golden ratio.
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_inserted() {
        let mut set = NumberSet::new();
        for number in 1..5000u64 {
            assert!(set.insert(number * 256).unwrap());
            assert!(!set.insert(number * 256).unwrap());
        }
        assert_eq!(set.len(), 4999);
        for number in 1..5000u64 * 256 {
            assert_eq!(set.contains(number), number % 256 == 0);
        }
        set.retain(|number| number >= 256 * 4000).unwrap();
        assert_eq!(set.len(), 1000);
        assert!(!set.contains(256 * 3999) && set.contains(256 * 4000));
        set.clear();
        assert!(!set.contains(256 * 4000));
        assert!(set.insert(0).is_err());
    }
}
