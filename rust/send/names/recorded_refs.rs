// SPDX-License-Identifier: GPL-2.0
//! Recorded refs: the names that the current inode gained and lost, gathered before any of them is
//! processed (`record_new_ref`, `record_deleted_ref`).
//!
//! The walk comes upon new and deleted names in the order of their keys. Items that hold several
//! names differ as a whole where one of these does, so that most of what is found is in both
//! snapshots and cancels out.
//!
//! An example: inode 258 has names `a` and `b` in directory 257, which share an `INODE_REF` item;
//! in the sent snapshot they are `a` and `c`. The item differs as a whole.
//!
//! ```text
//!     found         new            deleted
//!     deleted a, b                 257/a 257/b
//!     new a, c      257/c          257/b          a was in both and cancelled out
//! ```

use crate::number_set::spread;
use core::ops::Range;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// Whether a name was got or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::send) enum Side {
    New,
    Deleted,
}

/// A name.
pub(in crate::send) struct RecordedRef {
    /// The directory, and its generation.
    pub(in crate::send) dir: u64,
    pub(in crate::send) generation: u64,
    /// Where the path is in the text; the name is its end.
    path: Range<usize>,
    name_len: usize,
    /// It has not been cancelled.
    listed: bool,
    /// The next one that has the same hash.
    next: Option<usize>,
}

/// The names got and lost, in the order in which they were found.
pub(in crate::send) struct RecordedRefs {
    new: KVVec<RecordedRef>,
    deleted: KVVec<RecordedRef>,
    /// Paths, one after the other.
    text: KVVec<u8>,
    /// The last link of each hash, by side.
    by_hash: RBTree<(bool, usize), usize>,
}

fn hash(dir: u64, generation: u64, name: &[u8]) -> usize {
    let seed = dir ^ generation.rotate_left(32);
    let sum = crate::format::crc::name_hash(name);
    spread(seed ^ sum.rotate_left(16))
}

impl RecordedRefs {
    pub(in crate::send) fn new() -> Self {
        RecordedRefs {
            new: KVVec::new(),
            deleted: KVVec::new(),
            text: KVVec::new(),
            by_hash: RBTree::new(),
        }
    }

    pub(in crate::send) fn is_empty(&self) -> bool {
        self.first(Side::New).is_none() && self.first(Side::Deleted).is_none()
    }

    pub(in crate::send) fn clear(&mut self) {
        // What one inode made large is not kept for all that follow.
        const KEEP: usize = 64;
        for list in [&mut self.new, &mut self.deleted] {
            match list.len() > KEEP {
                true => *list = KVVec::new(),
                false => list.clear(),
            }
        }
        match self.text.len() > KEEP * 1024 {
            true => self.text = KVVec::new(),
            false => self.text.clear(),
        }
        self.by_hash = RBTree::new();
    }

    fn list(&self, side: Side) -> &KVVec<RecordedRef> {
        match side {
            Side::New => &self.new,
            Side::Deleted => &self.deleted,
        }
    }

    fn list_mut(&mut self, side: Side) -> &mut KVVec<RecordedRef> {
        match side {
            Side::New => &mut self.new,
            Side::Deleted => &mut self.deleted,
        }
    }

    /// Cancels `name` in `dir` on `side`, if it is there; returns whether it was.
    pub(in crate::send) fn cancel(
        &mut self,
        side: Side,
        dir: u64,
        generation: u64,
        name: &[u8],
    ) -> bool {
        let key = (side == Side::New, hash(dir, generation, name));
        let mut at = self.by_hash.get(&key).copied();
        while let Some(index) = at {
            let Some(recorded) = self.list(side).get(index) else {
                break;
            };
            let same = recorded.listed
                && (recorded.dir, recorded.generation) == (dir, generation)
                && self.name(recorded) == name;
            at = recorded.next;
            if same {
                if let Some(recorded) = self.list_mut(side).get_mut(index) {
                    recorded.listed = false;
                }
                return true;
            }
        }
        false
    }

    /// Adds `name` in `dir`, whose path is `above`.
    pub(in crate::send) fn add(
        &mut self,
        side: Side,
        (dir, generation): (u64, u64),
        above: &super::path::FsPath,
        name: &[u8],
    ) -> Result {
        let path = self.write(above, name)?;
        let key = (side == Side::New, hash(dir, generation, name));
        let index = self.list(side).len();
        let next = self.by_hash.get(&key).copied();
        let recorded = RecordedRef {
            dir,
            generation,
            path,
            name_len: name.len(),
            listed: true,
            next,
        };
        self.list_mut(side).push(recorded, GFP_KERNEL)?;
        match self.by_hash.get_mut(&key) {
            Some(last) => *last = index,
            None => {
                let by_hash = &mut self.by_hash;
                by_hash.try_create_and_insert(key, index, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Writes the path of `name` in `above` after the text.
    fn write(&mut self, above: &super::path::FsPath, name: &[u8]) -> Result<Range<usize>> {
        let start = self.text.len();
        above.check_path_length(name)?;
        self.text.extend_from_slice(above.as_bytes(), GFP_KERNEL)?;
        if self.text.len() > start {
            self.text.push(b'/', GFP_KERNEL)?;
        }
        self.text.extend_from_slice(name, GFP_KERNEL)?;
        Ok(start..self.text.len())
    }

    /// Gives a link the path of its name in `above`.
    pub(in crate::send) fn set_path(
        &mut self,
        side: Side,
        index: usize,
        above: &super::path::FsPath,
    ) -> Result {
        let mut name = super::path::NameBuf::empty();
        name.set(self.name(self.list(side).get(index).ok_or(EINVAL)?))?;
        let path = self.write(above, name.as_bytes())?;
        self.list_mut(side).get_mut(index).ok_or(EINVAL)?.path = path;
        Ok(())
    }

    /// The first link of a side.
    pub(in crate::send) fn first(&self, side: Side) -> Option<usize> {
        self.at_or_after(side, 0)
    }

    /// The first link from `index` on.
    pub(in crate::send) fn at_or_after(&self, side: Side, index: usize) -> Option<usize> {
        let rest = self.list(side).get(index..)?;
        let ahead = rest.iter().position(|recorded| recorded.listed)?;
        index.checked_add(ahead)
    }

    pub(in crate::send) fn get(&self, side: Side, index: usize) -> Result<&RecordedRef> {
        self.list(side).get(index).ok_or(EINVAL)
    }

    /// The path that a link has, or had when it was found.
    pub(in crate::send) fn path(&self, recorded: &RecordedRef) -> &[u8] {
        self.text.get(recorded.path.clone()).unwrap_or(&[])
    }

    fn name(&self, recorded: &RecordedRef) -> &[u8] {
        let path = self.path(recorded);
        let start = path.len().saturating_sub(recorded.name_len);
        path.get(start..).unwrap_or(&[])
    }

    /// A copy of a link's name.
    pub(in crate::send) fn name_at(
        &self,
        side: Side,
        index: usize,
    ) -> Result<super::path::NameBuf> {
        let mut name = super::path::NameBuf::empty();
        name.set(self.name(self.get(side, index)?))?;
        Ok(name)
    }

    fn parents(&self, side: Side) -> impl Iterator<Item = (u64, u64)> + '_ {
        let listed = self.list(side).iter().filter(|recorded| recorded.listed);
        listed.map(|recorded| (recorded.dir, recorded.generation))
    }

    /// The directories of the names that were got, with repetition.
    pub(in crate::send) fn new_parents(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.parents(Side::New)
    }

    /// The directories of the names that were lost, with repetition.
    pub(in crate::send) fn deleted_parents(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.parents(Side::Deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::names::path::FsPath;

    #[test]
    fn what_is_in_both_cancels_out() {
        let mut recorded_refs = RecordedRefs::new();
        let mut above = FsPath::new().unwrap();
        above.push(b"dir").unwrap();
        for i in 0..1000u32 {
            let name = std::format!("name{i}");
            recorded_refs
                .add(Side::New, (256, 7), &above, name.as_bytes())
                .unwrap();
        }
        for i in (0..1000u32).filter(|i| i % 100 != 5) {
            let name = std::format!("name{i}");
            assert!(!recorded_refs.cancel(Side::Deleted, 256, 7, name.as_bytes()));
            assert!(!recorded_refs.cancel(Side::New, 256, 8, name.as_bytes()));
            assert!(recorded_refs.cancel(Side::New, 256, 7, name.as_bytes()));
            assert!(!recorded_refs.cancel(Side::New, 256, 7, name.as_bytes()));
        }
        let mut at = recorded_refs.first(Side::New);
        let mut left = 0;
        while let Some(index) = at {
            let wanted = std::format!("dir/name{}", left * 100 + 5);
            let recorded = recorded_refs.get(Side::New, index).unwrap();
            assert_eq!(recorded_refs.path(recorded), wanted.as_bytes());
            left += 1;
            at = recorded_refs.at_or_after(Side::New, index + 1);
        }
        assert_eq!(left, 10);
        recorded_refs
            .set_path(Side::New, 5, &FsPath::empty())
            .unwrap();
        let recorded = recorded_refs.get(Side::New, 5).unwrap();
        assert_eq!(recorded_refs.path(recorded), b"name5");
        recorded_refs.clear();
        assert!(recorded_refs.is_empty());
    }
}
