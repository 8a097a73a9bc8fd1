// SPDX-License-Identifier: GPL-2.0
//! The names that the current inode got and lost, gathered before any of them is dealt with.
//!
//! The walk comes upon new and deleted names in the order of their keys. Items that hold several names differ as a
//! whole where one of these does, so that most of what is found is in both snapshots and cancels out.

use super::number_set::spread;
use core::ops::Range;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// Whether a name was got or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    New,
    Gone,
}

/// A name.
pub(super) struct Link {
    /// The directory, and its generation.
    pub(super) dir: u64,
    pub(super) generation: u64,
    /// Where the path is in the text; the name is its end.
    path: Range<usize>,
    name_len: usize,
    /// It has not been cancelled.
    live: bool,
    /// The next one that has the same hash.
    next: Option<usize>,
}

/// The names got and lost, in the order in which they were found.
pub(super) struct Links {
    new: KVVec<Link>,
    gone: KVVec<Link>,
    /// Paths, one behind the other.
    text: KVVec<u8>,
    /// The last link of each hash, by side.
    by_hash: RBTree<(bool, usize), usize>,
}

fn hash(dir: u64, generation: u64, name: &[u8]) -> usize {
    let seed = dir ^ generation.rotate_left(32);
    let sum = crate::format::crc::name_hash(name);
    spread(seed ^ sum.rotate_left(16))
}

impl Links {
    pub(super) fn new() -> Self {
        Links {
            new: KVVec::new(),
            gone: KVVec::new(),
            text: KVVec::new(),
            by_hash: RBTree::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first(Side::New).is_none() && self.first(Side::Gone).is_none()
    }

    pub(super) fn clear(&mut self) {
        // What one inode made large is not kept for all that follow.
        const KEEP: usize = 64;
        for list in [&mut self.new, &mut self.gone] {
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

    fn list(&self, side: Side) -> &KVVec<Link> {
        match side {
            Side::New => &self.new,
            Side::Gone => &self.gone,
        }
    }

    fn list_mut(&mut self, side: Side) -> &mut KVVec<Link> {
        match side {
            Side::New => &mut self.new,
            Side::Gone => &mut self.gone,
        }
    }

    /// Cancels `name` in `dir` on `side`, if it is there; answers whether it was.
    pub(super) fn cancel(&mut self, side: Side, dir: u64, generation: u64, name: &[u8]) -> bool {
        let key = (side == Side::New, hash(dir, generation, name));
        let mut at = self.by_hash.get(&key).copied();
        while let Some(index) = at {
            let Some(link) = self.list(side).get(index) else {
                break;
            };
            let same = link.live
                && (link.dir, link.generation) == (dir, generation)
                && self.name(link) == name;
            at = link.next;
            if same {
                if let Some(link) = self.list_mut(side).get_mut(index) {
                    link.live = false;
                }
                return true;
            }
        }
        false
    }

    /// Adds `name` in `dir`, whose path is `above`.
    pub(super) fn add(
        &mut self,
        side: Side,
        (dir, generation): (u64, u64),
        above: &super::path::Path,
        name: &[u8],
    ) -> Result {
        let path = self.write(above, name)?;
        let key = (side == Side::New, hash(dir, generation, name));
        let index = self.list(side).len();
        let next = self.by_hash.get(&key).copied();
        let link = Link {
            dir,
            generation,
            path,
            name_len: name.len(),
            live: true,
            next,
        };
        self.list_mut(side).push(link, GFP_KERNEL)?;
        match self.by_hash.get_mut(&key) {
            Some(last) => *last = index,
            None => {
                let by_hash = &mut self.by_hash;
                by_hash.try_create_and_insert(key, index, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Writes the path of `name` in `above` behind the text.
    fn write(&mut self, above: &super::path::Path, name: &[u8]) -> Result<Range<usize>> {
        let start = self.text.len();
        above.check_room(name)?;
        self.text.extend_from_slice(above.as_bytes(), GFP_KERNEL)?;
        if self.text.len() > start {
            self.text.push(b'/', GFP_KERNEL)?;
        }
        self.text.extend_from_slice(name, GFP_KERNEL)?;
        Ok(start..self.text.len())
    }

    /// Gives a link the path of its name in `above`.
    pub(super) fn set_path(
        &mut self,
        side: Side,
        index: usize,
        above: &super::path::Path,
    ) -> Result {
        let mut name = super::path::NameBuf::empty();
        name.set(self.name(self.list(side).get(index).ok_or(EINVAL)?))?;
        let path = self.write(above, name.as_bytes())?;
        self.list_mut(side).get_mut(index).ok_or(EINVAL)?.path = path;
        Ok(())
    }

    /// The first link of a side.
    pub(super) fn first(&self, side: Side) -> Option<usize> {
        self.at_or_behind(side, 0)
    }

    /// The first link from `index` on.
    pub(super) fn at_or_behind(&self, side: Side, index: usize) -> Option<usize> {
        let rest = self.list(side).get(index..)?;
        let ahead = rest.iter().position(|link| link.live)?;
        index.checked_add(ahead)
    }

    pub(super) fn get(&self, side: Side, index: usize) -> Result<&Link> {
        self.list(side).get(index).ok_or(EINVAL)
    }

    /// The path that a link has, or had when it was found.
    pub(super) fn path(&self, link: &Link) -> &[u8] {
        self.text.get(link.path.clone()).unwrap_or(&[])
    }

    fn name(&self, link: &Link) -> &[u8] {
        let path = self.path(link);
        let start = path.len().saturating_sub(link.name_len);
        path.get(start..).unwrap_or(&[])
    }

    /// A copy of a link's name.
    pub(super) fn name_at(&self, side: Side, index: usize) -> Result<super::path::NameBuf> {
        let mut name = super::path::NameBuf::empty();
        name.set(self.name(self.get(side, index)?))?;
        Ok(name)
    }

    fn holders(&self, side: Side) -> impl Iterator<Item = (u64, u64)> + '_ {
        let live = self.list(side).iter().filter(|link| link.live);
        live.map(|link| (link.dir, link.generation))
    }

    /// The directories of the names that were got, with repetition.
    pub(super) fn new_holders(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.holders(Side::New)
    }

    /// The directories of the names that were lost, with repetition.
    pub(super) fn gone_holders(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.holders(Side::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::path::Path;

    #[test]
    fn what_is_in_both_cancels_out() {
        let mut links = Links::new();
        let mut above = Path::new().unwrap();
        above.push(b"dir").unwrap();
        for i in 0..1000u32 {
            let name = std::format!("name{i}");
            links
                .add(Side::New, (256, 7), &above, name.as_bytes())
                .unwrap();
        }
        for i in (0..1000u32).filter(|i| i % 100 != 5) {
            let name = std::format!("name{i}");
            assert!(!links.cancel(Side::Gone, 256, 7, name.as_bytes()));
            assert!(!links.cancel(Side::New, 256, 8, name.as_bytes()));
            assert!(links.cancel(Side::New, 256, 7, name.as_bytes()));
            assert!(!links.cancel(Side::New, 256, 7, name.as_bytes()));
        }
        let mut at = links.first(Side::New);
        let mut left = 0;
        while let Some(index) = at {
            let wanted = std::format!("dir/name{}", left * 100 + 5);
            let link = links.get(Side::New, index).unwrap();
            assert_eq!(links.path(link), wanted.as_bytes());
            left += 1;
            at = links.at_or_behind(Side::New, index + 1);
        }
        assert_eq!(left, 10);
        links.set_path(Side::New, 5, &Path::empty()).unwrap();
        let link = links.get(Side::New, 5).unwrap();
        assert_eq!(links.path(link), b"name5");
        links.clear();
        assert!(links.is_empty());
    }
}
