// SPDX-License-Identifier: GPL-2.0
//! Delayed references: what the running transaction still has to tell the extent tree.
//!
//! Changing the extent tree copies nodes, which changes references, which changes the extent tree.
//! The queue breaks the circle: tree edits only add to it, and [`super::extent_tree`] empties it
//! between edits, until nothing is left. Changes to one extent meet here first, so that a block
//! that came and went within the transaction never costs an edit. The queue is plain memory of the
//! transaction and takes no lock.

use super::refs::RefKind;
use crate::format::extent::{FLAG_DATA, FLAG_TREE_BLOCK};
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// What an extent that the transaction allocated is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewExtent {
    /// A tree block.
    Tree {
        /// Its level, 0 for a leaf.
        level: u8,
    },
    /// File data.
    Data,
}

impl NewExtent {
    /// The type flag of the extent item.
    pub const fn type_flag(&self) -> u64 {
        match self {
            NewExtent::Tree { .. } => FLAG_TREE_BLOCK,
            NewExtent::Data => FLAG_DATA,
        }
    }
}

/// A change of the number of references that one holder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefDelta {
    /// The holder.
    pub kind: RefKind,
    /// How many references it gained or, if negative, gave up. Never 0.
    pub count: i64,
}

/// All that is to be done to one extent.
#[derive(Debug)]
pub struct RefHead {
    /// The size of the extent, in bytes.
    pub num_bytes: u64,
    /// Set when the extent has no extent item yet.
    pub new: Option<NewExtent>,
    /// Flags to set in the extent item.
    pub set_flags: u64,
    /// The extent goes, with whatever references it still has in the extent tree.
    pub drop_all: bool,
    /// The net changes, ordered by holder, each holder at most once.
    pub deltas: KVec<RefDelta>,
}

impl RefHead {
    /// The change of the extent's reference count.
    pub fn net(&self) -> i64 {
        self.deltas
            .iter()
            .fold(0i64, |sum, delta| sum.saturating_add(delta.count))
    }

    /// Whether nothing would change.
    fn is_void(&self) -> bool {
        self.new.is_none() && self.set_flags == 0 && !self.drop_all && self.deltas.is_empty()
    }

    fn add(&mut self, kind: RefKind, count: i64) -> Result {
        match self.deltas.binary_search_by(|delta| delta.kind.cmp(&kind)) {
            Ok(at) => {
                let delta = self.deltas.get_mut(at).ok_or(EINVAL)?;
                delta.count = delta.count.checked_add(count).ok_or(EOVERFLOW)?;
                if delta.count == 0 {
                    self.deltas.remove(at).map_err(|_| EINVAL)?;
                }
            }
            Err(at) => {
                self.deltas.reserve(1, GFP_KERNEL)?;
                self.deltas
                    .insert_within_capacity(at, RefDelta { kind, count })
                    .map_err(|_| EINVAL)?;
            }
        }
        Ok(())
    }
}

/// The queue, by extent address.
pub struct DelayedRefs {
    heads: RBTree<u64, RefHead>,
    len: usize,
}

impl DelayedRefs {
    /// An empty queue.
    pub fn new() -> Self {
        DelayedRefs {
            heads: RBTree::new(),
            len: 0,
        }
    }

    /// How many extents have changes waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What waits for the extent at `bytenr`.
    pub fn get(&self, bytenr: u64) -> Option<&RefHead> {
        self.heads.get(&bytenr)
    }

    fn head(&mut self, bytenr: u64, num_bytes: u64) -> Result<&mut RefHead> {
        if self.heads.get(&bytenr).is_none() {
            let head = RefHead {
                num_bytes,
                new: None,
                set_flags: 0,
                drop_all: false,
                deltas: KVec::new(),
            };
            self.heads.try_create_and_insert(bytenr, head, GFP_KERNEL)?;
            self.len = self.len.saturating_add(1);
        }
        self.heads.get_mut(&bytenr).ok_or(EINVAL)
    }

    fn remove(&mut self, bytenr: u64) -> Option<RefHead> {
        let head = self.heads.remove(&bytenr);
        if head.is_some() {
            self.len = self.len.saturating_sub(1);
        }
        head
    }

    /// Queues that `kind` gained `count` references to the extent, or gave them up where `count` is
    /// negative.
    ///
    /// An extent whose count reaches zero when the queue is run is freed. Fails with `EINVAL` when
    /// `num_bytes` contradicts what is queued already, and `ENOMEM`.
    pub fn add(&mut self, bytenr: u64, num_bytes: u64, kind: RefKind, count: i64) -> Result {
        if count == 0 {
            return Ok(());
        }
        let head = self.head(bytenr, num_bytes)?;
        let added = if head.num_bytes != num_bytes || head.drop_all {
            Err(EINVAL)
        } else {
            head.add(kind, count)
        };
        if head.is_void() {
            self.remove(bytenr);
        }
        added
    }

    /// Queues the creation of an extent item for an extent that the transaction allocated. Its
    /// references follow by [`add`](Self::add). Fails with `EEXIST` when the address already has
    /// changes waiting, and `ENOMEM`.
    pub fn new_extent(
        &mut self,
        bytenr: u64,
        num_bytes: u64,
        new: NewExtent,
        flags: u64,
    ) -> Result {
        if self.get(bytenr).is_some() {
            return Err(EEXIST);
        }
        let head = self.head(bytenr, num_bytes)?;
        head.new = Some(new);
        head.set_flags = flags;
        Ok(())
    }

    /// Makes the new data extents at `bytenr` and right after it one extent, if all that is known
    /// of the first is that `kind` holds it once, and nothing holds the second. True if that was
    /// so.
    pub fn join_new(&mut self, bytenr: u64, kind: RefKind) -> bool {
        let is_new = |head: &RefHead| {
            head.new == Some(NewExtent::Data) && head.set_flags == 0 && !head.drop_all
        };
        let Some(first) = self.get(bytenr).filter(|head| is_new(head)) else {
            return false;
        };
        let only = RefDelta { kind, count: 1 };
        let Some(end) = bytenr.checked_add(first.num_bytes) else {
            return false;
        };
        let second = self.get(end).filter(|head| is_new(head));
        let Some(second) = second.filter(|head| head.deltas.is_empty()) else {
            return false;
        };
        let Some(len) = first.num_bytes.checked_add(second.num_bytes) else {
            return false;
        };
        if *first.deltas != [only] {
            return false;
        }
        self.remove(end);
        if let Some(first) = self.heads.get_mut(&bytenr) {
            first.num_bytes = len;
        }
        true
    }

    /// Queues the setting of `flags` in the extent item.
    pub fn set_flags(&mut self, bytenr: u64, num_bytes: u64, flags: u64) -> Result {
        let head = self.head(bytenr, num_bytes)?;
        if head.num_bytes != num_bytes || head.drop_all {
            return Err(EINVAL);
        }
        head.set_flags |= flags;
        Ok(())
    }

    /// Queues the removal of the extent with all references it has in the extent tree, whoever
    /// holds them, and forgets what was queued for it. Fails with `EINVAL` for an extent that the
    /// transaction itself allocated and that has no extent item yet: that one goes by giving up its
    /// references.
    pub fn drop_extent(&mut self, bytenr: u64, num_bytes: u64) -> Result {
        let head = self.head(bytenr, num_bytes)?;
        if head.num_bytes != num_bytes || head.new.is_some() {
            return Err(EINVAL);
        }
        head.deltas.clear();
        head.set_flags = 0;
        head.drop_all = true;
        Ok(())
    }

    /// Forgets an extent that has no extent item and that nobody refers to any more. True if this
    /// was such an extent: its space was never used and may be handed out again at once.
    pub fn cancel_unused(&mut self, bytenr: u64) -> bool {
        let unused = self
            .get(bytenr)
            .is_some_and(|head| head.new.is_some() && head.deltas.is_empty());
        if unused {
            self.remove(bytenr);
        }
        unused
    }

    /// Takes the extent with the lowest address at or above `from`, or with the lowest of all after
    /// the last one.
    pub fn take_next(&mut self, from: u64) -> Option<(u64, RefHead)> {
        let bytenr = match self.heads.cursor_lower_bound(&from) {
            Some(cursor) => *cursor.current().0,
            None => *self.heads.cursor_front()?.current().0,
        };
        Some((bytenr, self.remove(bytenr)?))
    }
}

impl Default for DelayedRefs {
    fn default() -> Self {
        DelayedRefs::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: RefKind = RefKind::TreeBlock { root: 5 };
    const OTHER: RefKind = RefKind::TreeBlock { root: 256 };

    #[test]
    fn what_came_and_went_costs_nothing() {
        let mut refs = DelayedRefs::new();
        refs.add(4096, 4096, TREE, 1).unwrap();
        refs.add(4096, 4096, TREE, -1).unwrap();
        assert!(refs.is_empty());
        assert!(refs.take_next(0).is_none());
    }

    #[test]
    fn a_new_block_that_nobody_holds_is_cancelled() {
        let mut refs = DelayedRefs::new();
        let kind = NewExtent::Tree { level: 0 };
        refs.new_extent(4096, 4096, kind, 0).unwrap();
        refs.add(4096, 4096, TREE, 1).unwrap();
        assert!(!refs.cancel_unused(4096));
        refs.add(4096, 4096, TREE, -1).unwrap();
        assert_eq!(refs.len(), 1);
        assert!(refs.cancel_unused(4096));
        assert!(refs.is_empty());
        assert!(!refs.cancel_unused(4096));
    }

    #[test]
    fn counts_of_holders_are_kept_apart() {
        let mut refs = DelayedRefs::new();
        refs.add(8192, 4096, OTHER, 1).unwrap();
        refs.add(8192, 4096, TREE, -1).unwrap();
        refs.add(4096, 4096, TREE, -1).unwrap();
        refs.set_flags(4096, 4096, 256).unwrap();
        let (bytenr, head) = refs.take_next(0).unwrap();
        assert_eq!((bytenr, head.net(), head.set_flags), (4096, -1, 256));
        let (bytenr, head) = refs.take_next(bytenr + 1).unwrap();
        assert_eq!((bytenr, head.net()), (8192, 0));
        assert_eq!(
            &head.deltas[..],
            &[
                RefDelta {
                    kind: TREE,
                    count: -1
                },
                RefDelta {
                    kind: OTHER,
                    count: 1
                }
            ]
        );
        assert!(refs.take_next(bytenr + 1).is_none());
    }

    #[test]
    fn new_neighbours_become_one_extent() {
        let kind = |root| RefKind::Data {
            root,
            ino: 257,
            offset: 0,
        };
        let start = |first: &[(RefKind, i64)], second: &[(RefKind, i64)]| {
            let mut refs = DelayedRefs::new();
            for (bytenr, deltas) in [(4096, first), (8192, second)] {
                refs.new_extent(bytenr, 4096, NewExtent::Data, 0).unwrap();
                for (kind, count) in deltas {
                    refs.add(bytenr, 4096, *kind, *count).unwrap();
                }
            }
            refs
        };
        let mut refs = start(&[(kind(5), 1)], &[]);
        assert!(refs.join_new(4096, kind(5)));
        assert_eq!(refs.len(), 1);
        let (bytenr, head) = refs.take_next(0).unwrap();
        assert_eq!((bytenr, head.num_bytes, head.net()), (4096, 8192, 1));
        // Of what anybody else holds the size is known elsewhere.
        for (first, second) in [
            (&[(kind(5), 2)][..], &[][..]),
            (&[(kind(256), 1)], &[]),
            (&[(kind(5), 1), (kind(256), 1)], &[]),
            (&[], &[]),
            (&[(kind(5), 1)], &[(kind(5), 1)]),
        ] {
            let mut refs = start(first, second);
            assert!(!refs.join_new(4096, kind(5)));
            assert_eq!(refs.get(4096).unwrap().num_bytes, 4096);
            assert_eq!(refs.len(), 2);
        }
        // There is an extent item for what is not new.
        let mut refs = DelayedRefs::new();
        refs.add(4096, 4096, kind(5), 1).unwrap();
        refs.new_extent(8192, 4096, NewExtent::Data, 0).unwrap();
        assert!(!refs.join_new(4096, kind(5)));
        // They do not touch.
        let mut refs = DelayedRefs::new();
        for bytenr in [4096, 12288] {
            refs.new_extent(bytenr, 4096, NewExtent::Data, 0).unwrap();
        }
        refs.add(4096, 4096, kind(5), 1).unwrap();
        assert!(!refs.join_new(4096, kind(5)));
    }

    #[test]
    fn the_queue_is_walked_round() {
        let mut refs = DelayedRefs::new();
        for bytenr in [4096, 8192, 12288] {
            refs.add(bytenr, 4096, TREE, 1).unwrap();
        }
        assert_eq!(refs.take_next(8192).unwrap().0, 8192);
        assert_eq!(refs.take_next(8193).unwrap().0, 12288);
        assert_eq!(refs.take_next(12289).unwrap().0, 4096);
    }

    #[test]
    fn a_dropped_extent_takes_nothing_more() {
        let mut refs = DelayedRefs::new();
        refs.add(4096, 4096, TREE, 1).unwrap();
        refs.drop_extent(4096, 4096).unwrap();
        assert_eq!(refs.add(4096, 4096, OTHER, 1), Err(EINVAL));
        assert_eq!(refs.set_flags(4096, 4096, 256), Err(EINVAL));
        let (_, head) = refs.take_next(0).unwrap();
        assert!(head.drop_all && head.deltas.is_empty());
    }

    #[test]
    fn sizes_must_agree() {
        let mut refs = DelayedRefs::new();
        refs.add(4096, 4096, TREE, 1).unwrap();
        assert_eq!(refs.add(4096, 8192, OTHER, 1), Err(EINVAL));
        assert_eq!(refs.len(), 1);
        assert_eq!(refs.drop_extent(4096, 8192), Err(EINVAL));
    }

    #[test]
    fn no_memory_leaves_the_queue_as_it_was() {
        for n in 0..8 {
            let mut refs = DelayedRefs::new();
            refs.add(4096, 4096, TREE, 1).unwrap();
            kernel::fault::fail_alloc_after(n);
            let added = refs.add(8192, 4096, OTHER, 1);
            kernel::fault::clear();
            assert_eq!(refs.len(), if added.is_ok() { 2 } else { 1 });
        }
    }
}
