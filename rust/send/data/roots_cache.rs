// SPDX-License-Identifier: GPL-2.0
//! Which clone sources a leaf belongs to, remembered for the leaves asked for last.
//!
//! The size and the order of replacement are the C driver's. They are not only a matter of speed:
//! places in a leaf that is remembered are considered earlier than others, and so may become the
//! source of a clone.

use kernel::prelude::*;

/// Leaves remembered.
const MAX_LEAVES: usize = 128;

/// Sources of a leaf at most; a leaf with more is not remembered.
const MAX_ROOTS: usize = 17;

struct Entry {
    leaf: u64,
    /// When it was used, by a counter.
    used: u64,
    roots: [u64; MAX_ROOTS],
    count: usize,
}

/// The sources of a leaf, as a value.
#[derive(Clone, Copy)]
pub(in crate::send) struct Roots {
    roots: [u64; MAX_ROOTS],
    count: usize,
}

impl Roots {
    pub(in crate::send) fn as_slice(&self) -> &[u64] {
        self.roots.get(..self.count).unwrap_or(&[])
    }
}

pub(in crate::send) struct RootsCache {
    entries: KVec<Entry>,
    clock: u64,
}

impl RootsCache {
    pub(in crate::send) const fn new() -> Self {
        RootsCache {
            entries: KVec::new(),
            clock: 0,
        }
    }

    /// What is known of the leaf at `leaf`, which counts as a use.
    pub(in crate::send) fn get(&mut self, leaf: u64) -> Option<Roots> {
        self.clock = self.clock.saturating_add(1);
        let entry = self.entries.iter_mut().find(|entry| entry.leaf == leaf)?;
        entry.used = self.clock;
        Some(Roots {
            roots: entry.roots,
            count: entry.count,
        })
    }

    /// Remembers a leaf that is not known, in place of the one not used for longest.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: the stream would be another one without.
    pub(in crate::send) fn put(&mut self, leaf: u64, found: impl Iterator<Item = u64>) -> Result {
        self.clock = self.clock.saturating_add(1);
        let mut entry = Entry {
            leaf,
            used: self.clock,
            roots: [0; MAX_ROOTS],
            count: 0,
        };
        for root in found {
            let Some(slot) = entry.roots.get_mut(entry.count) else {
                return Ok(());
            };
            *slot = root;
            entry.count = entry.count.saturating_add(1);
        }
        if self.entries.len() < MAX_LEAVES {
            self.entries.push(entry, GFP_KERNEL)?;
        } else if let Some(oldest) = self.entries.iter_mut().min_by_key(|entry| entry.used) {
            *oldest = entry;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_not_used_for_longest_goes() {
        let mut cache = RootsCache::new();
        for leaf in 0..128 {
            cache.put(leaf, [leaf + 1000, 5].into_iter()).unwrap();
        }
        assert!(cache.get(0).is_some());
        cache.put(128, [].into_iter()).unwrap();
        assert!(cache.get(1).is_none());
        assert_eq!(cache.get(0).unwrap().as_slice(), [1000, 5]);
        assert!(cache.get(128).unwrap().as_slice().is_empty());
        cache.put(129, 0..18).unwrap();
        assert!(cache.get(129).is_none() && cache.get(2).is_some());
    }
}
