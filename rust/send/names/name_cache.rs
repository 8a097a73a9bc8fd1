// SPDX-License-Identifier: GPL-2.0
//! What inodes were called when somebody asked last.
//!
//! The size and the order of replacement are the C driver's, whose streams depend on them in rare
//! cases: a name that is remembered is not always the one that would be found now.

use super::path::NameBuf;
use crate::number_set::spread;
use crate::send::utimes::Dir;
use kernel::prelude::*;

/// Names remembered.
const MAX: usize = 256;

/// Chains by inode number, a power of two.
const CHAINS: usize = 256;

/// The end of a chain or list.
const NONE: u16 = u16::MAX;

/// What an inode is called, and where.
#[derive(Clone)]
pub(in crate::send) struct Known {
    pub(in crate::send) parent: Dir,
    pub(in crate::send) name: NameBuf,
    /// The name is an orphan name at the top, and `parent` means nothing.
    pub(in crate::send) is_orphan: bool,
    /// Right only until it is the inode's turn.
    pub(in crate::send) until_its_turn: bool,
}

impl Known {
    pub(in crate::send) const fn nothing() -> Self {
        Known {
            parent: (0, 0),
            name: NameBuf::empty(),
            is_orphan: false,
            until_its_turn: false,
        }
    }
}

struct Entry {
    ino: u64,
    generation: u64,
    known: Known,
    /// The next in the same chain.
    chain: u16,
    /// Neighbours in the order of use; `older` is `NONE` for the one not used for longest.
    older: u16,
    newer: u16,
}

/// The names. Without memory there are none, until the first is stored.
pub(in crate::send) struct NameCache {
    entries: KVVec<Entry>,
    chains: KVec<u16>,
    free: u16,
    oldest: u16,
    newest: u16,
    len: usize,
}

impl NameCache {
    pub(in crate::send) const fn new() -> Self {
        NameCache {
            entries: KVVec::new(),
            chains: KVec::new(),
            free: NONE,
            oldest: NONE,
            newest: NONE,
            len: 0,
        }
    }

    /// What is remembered of an inode, which counts as a use.
    pub(in crate::send) fn get(&mut self, ino: u64, generation: u64) -> Option<&Known> {
        let at = self.find(ino, generation)?;
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
        self.entry(at).map(|entry| &entry.known)
    }

    /// Remembers an inode that is not remembered, in place of the one not used for longest.
    pub(in crate::send) fn put(&mut self, ino: u64, generation: u64, known: &Known) -> Result {
        if self.chains.is_empty() {
            self.chains.resize(CHAINS, NONE, GFP_KERNEL)?;
        }
        if self.len >= MAX {
            self.drop_at(self.oldest);
        }
        let chain = Self::chain(ino);
        let head = *self.chains.get(chain).ok_or(EINVAL)?;
        let entry = Entry {
            ino,
            generation,
            known: known.clone(),
            chain: head,
            older: NONE,
            newer: NONE,
        };
        let at = if self.free == NONE {
            let at = u16::try_from(self.entries.len()).map_err(|_| EINVAL)?;
            self.entries.push(entry, GFP_KERNEL)?;
            at
        } else {
            let at = self.free;
            let place = self.entries.get_mut(usize::from(at)).ok_or(EINVAL)?;
            self.free = place.chain;
            *place = entry;
            at
        };
        *self.chains.get_mut(chain).ok_or(EINVAL)? = at;
        self.link(at);
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    /// Forgets an inode.
    pub(in crate::send) fn remove(&mut self, ino: u64, generation: u64) {
        if let Some(at) = self.find(ino, generation) {
            self.drop_at(at);
        }
    }

    fn chain(ino: u64) -> usize {
        spread(ino) % CHAINS
    }

    fn entry(&self, at: u16) -> Option<&Entry> {
        self.entries.get(usize::from(at))
    }

    fn entry_mut(&mut self, at: u16) -> Option<&mut Entry> {
        self.entries.get_mut(usize::from(at))
    }

    fn find(&self, ino: u64, generation: u64) -> Option<u16> {
        let mut at = *self.chains.get(Self::chain(ino))?;
        loop {
            let entry = self.entry(at)?;
            if entry.ino == ino && entry.generation == generation {
                return Some(at);
            }
            at = entry.chain;
        }
    }

    /// Appends an entry to the order of use.
    fn link(&mut self, at: u16) {
        let newest = core::mem::replace(&mut self.newest, at);
        if let Some(entry) = self.entry_mut(at) {
            (entry.older, entry.newer) = (newest, NONE);
        }
        match self.entry_mut(newest) {
            Some(entry) => entry.newer = at,
            None => self.oldest = at,
        }
    }

    /// Takes an entry out of the order of use.
    fn unlink(&mut self, at: u16) {
        let Some((older, newer)) = self.entry(at).map(|entry| (entry.older, entry.newer)) else {
            return;
        };
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    fn drop_at(&mut self, at: u16) {
        let Some((ino, next)) = self.entry(at).map(|entry| (entry.ino, entry.chain)) else {
            return;
        };
        self.unlink(at);
        let chain = Self::chain(ino);
        let head = self.chains.get(chain).copied().unwrap_or(NONE);
        if head == at {
            if let Some(head) = self.chains.get_mut(chain) {
                *head = next;
            }
        } else {
            let mut before = head;
            while let Some(entry) = self.entry_mut(before) {
                if entry.chain == at {
                    entry.chain = next;
                    break;
                }
                before = entry.chain;
            }
        }
        let free = core::mem::replace(&mut self.free, at);
        if let Some(entry) = self.entry_mut(at) {
            // No inode has the number 0.
            (entry.ino, entry.chain) = (0, free);
        }
        self.len = self.len.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(parent: u64) -> Known {
        let mut known = Known::nothing();
        known.parent = (parent, 1);
        known
    }

    #[test]
    fn the_name_not_used_for_longest_goes() {
        let mut cache = NameCache::new();
        assert!(cache.get(1, 1).is_none());
        for ino in 1..=256 {
            cache.put(ino * 256, 1, &known(ino)).unwrap();
        }
        assert_eq!(cache.get(256, 1).unwrap().parent.0, 1);
        assert!(cache.get(256, 2).is_none());
        cache.put(5, 5, &known(9)).unwrap();
        assert!(cache.get(512, 1).is_none() && cache.get(256, 1).is_some());
        cache.remove(768, 1);
        cache.remove(768, 1);
        assert!(cache.get(768, 1).is_none());
        for ino in 1..=10_000 {
            cache.put(ino, 7, &known(ino)).unwrap();
            assert_eq!(cache.get(ino, 7).unwrap().parent.0, ino);
        }
        for ino in 1..=10_000 {
            assert_eq!(cache.get(ino, 7).is_some(), ino > 10_000 - 256, "{ino}");
        }
        assert_eq!(cache.entries.len(), 256);
    }
}
