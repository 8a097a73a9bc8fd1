// SPDX-License-Identifier: GPL-2.0
//! The directories that were created before their turn, under their orphan names.

use crate::number_set::NumberSet;
use kernel::prelude::*;

/// Directories remembered as created early; beyond that, the tree is asked.
const MAX_EARLY: usize = 1 << 18;

/// The directories that were created before their turn.
pub(in crate::send) struct EarlyDirs {
    pub(super) created: NumberSet,
    /// Not all fit into `created`.
    pub(super) overflow: bool,
    /// Those that did not fit, of the current inode.
    pub(super) just_now: NumberSet,
    /// The directories that hold names of the current inode, without repetition, with their
    /// generations.
    pub(super) check_dirs: KVec<(u64, u64)>,
    /// The same as a set, from the second one on.
    pub(super) check_dirs_seen: NumberSet,
}

impl EarlyDirs {
    pub(in crate::send) const fn new() -> Self {
        EarlyDirs {
            created: NumberSet::new(),
            overflow: false,
            just_now: NumberSet::new(),
            check_dirs: KVec::new(),
            check_dirs_seen: NumberSet::new(),
        }
    }

    /// Remembers that `dir` was created while inode `ino` was current.
    pub(in crate::send) fn add(&mut self, dir: u64, ino: u64) -> Result {
        if !self.overflow && self.created.len() >= MAX_EARLY {
            // Directories whose turn has come are not asked for again.
            self.created.retain(|number| number > ino)?;
            self.overflow = self.created.len() >= MAX_EARLY;
        }
        let set = if self.overflow {
            &mut self.just_now
        } else {
            &mut self.created
        };
        set.insert(dir)?;
        Ok(())
    }

    /// The current inode has its names.
    pub(in crate::send) fn inode_done(&mut self) {
        self.just_now.clear();
    }

    /// Notes that `dir` holds a name of the current inode.
    pub(super) fn add_check_dir(&mut self, dir: u64, generation: u64) -> Result {
        let Some((first, _)) = self.check_dirs.first().copied() else {
            self.check_dirs.push((dir, generation), GFP_KERNEL)?;
            return Ok(());
        };
        if self.check_dirs.last().is_some_and(|(last, _)| *last == dir) {
            return Ok(());
        }
        self.check_dirs_seen.insert(first)?;
        if self.check_dirs_seen.insert(dir)? {
            self.check_dirs.push((dir, generation), GFP_KERNEL)?;
        }
        Ok(())
    }
}
