// SPDX-License-Identifier: GPL-2.0
//! Directories whose times are still to be sent.
//!
//! Everything made in a directory changes its times again, so they are sent late. The order is that
//! of the C driver, whose list is shared with nothing else: used most recently last; when an inode
//! is done, the front goes until 64 are left; and at the end of the stream the list is sent from
//! its back.

use kernel::prelude::*;

/// Directories that wait when an inode is done.
const MAX_WAITING: usize = 64;

/// A directory: inode number and generation.
pub(super) type Dir = (u64, u64);

/// The list. Its front is `first`, so that taking from there moves nothing.
pub(super) struct Utimes {
    dirs: KVVec<Dir>,
    first: usize,
}

impl Utimes {
    pub(super) const fn new() -> Self {
        Utimes {
            dirs: KVVec::new(),
            first: 0,
        }
    }

    /// Moves `dir` to the back, or adds it there.
    pub(super) fn touch(&mut self, dir: Dir) -> Result {
        let waiting = self.dirs.get_mut(self.first..).ok_or(EINVAL)?;
        if let Some(at) = waiting.iter().rposition(|other| *other == dir) {
            if let Some(tail) = waiting.get_mut(at..) {
                tail.rotate_left(1);
            }
            return Ok(());
        }
        let len = waiting.len();
        if self.first >= MAX_WAITING.max(len) {
            self.dirs.rotate_left(self.first);
            self.dirs.truncate(len);
            self.first = 0;
        }
        self.dirs.push(dir, GFP_KERNEL)?;
        Ok(())
    }

    /// The front, if more wait than may.
    pub(super) fn overdue(&self) -> Option<Dir> {
        let waiting = self.dirs.len().saturating_sub(self.first);
        (waiting > MAX_WAITING)
            .then(|| self.dirs.get(self.first).copied())
            .flatten()
    }

    /// Removes the front.
    pub(super) fn drop_front(&mut self) {
        self.first = self.first.saturating_add(1).min(self.dirs.len());
    }

    /// Removes and returns the back.
    pub(super) fn pop(&mut self) -> Option<Dir> {
        (self.dirs.len() > self.first)
            .then(|| self.dirs.pop())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_use() {
        let mut list = Utimes::new();
        for ino in 1..=200 {
            list.touch((ino, 1)).unwrap();
            list.touch((1, 1)).unwrap();
            while let Some((front, _)) = list.overdue() {
                // Inode 1 is always at the back, and the others leave in order.
                assert_eq!(front, ino - 63);
                list.drop_front();
            }
        }
        assert_eq!(list.pop(), Some((1, 1)));
        for ino in (138..=200).rev() {
            assert_eq!(list.pop(), Some((ino, 1)));
        }
        assert_eq!(list.pop(), None);
    }
}
