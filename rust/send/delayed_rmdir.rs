// SPDX-License-Identifier: GPL-2.0
//! Directories that are to be removed once they are empty.
//!
//! A directory goes when all that was in it has been dealt with: inodes with higher numbers must have had their turn,
//! and directories that wait to be moved out must have been. Until then it is at the top under its orphan name.

use super::full::Send;
use super::snapshots::Snapshot;
use crate::format::{item_type, objectid, Key};
use crate::subvol::dir::Entries;
use crate::trans::Reader;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// What is known of a directory that waits.
#[derive(Clone, Copy)]
struct Removal {
    generation: u64,
    /// Entries of the parent below this index are gone.
    next_index: u64,
    /// The directory cannot go before the turn of this inode.
    not_before: u64,
}

/// The directories that wait, by inode number.
pub(super) struct Removals {
    waiting: RBTree<u64, Removal>,
}

impl Removals {
    pub(super) fn new() -> Self {
        Removals {
            waiting: RBTree::new(),
        }
    }

    pub(super) fn is_waiting(&self, dir: u64, generation: u64) -> bool {
        self.get(dir, generation).is_some()
    }

    fn get(&self, dir: u64, generation: u64) -> Option<Removal> {
        let found = self.waiting.get(&dir).copied();
        found.filter(|removal| removal.generation == generation)
    }
}

impl<'a> Send<'a> {
    /// Whether directory `dir` of the parent is empty now. If not, it is noted to wait.
    pub(super) fn can_remove(&mut self, dir: u64, generation: u64) -> Result<bool> {
        if dir == objectid::FIRST_FREE {
            return Ok(false);
        }
        let current = self.inode.as_ref().ok_or(EINVAL)?.ino;
        let known = self.removals.get(dir, generation);
        let mut removal = match known {
            Some(removal) if current < removal.not_before => return Ok(false),
            Some(removal) => removal,
            None => {
                let Some(last) = self.last_entry(dir)? else {
                    return Ok(true);
                };
                Removal {
                    generation,
                    next_index: 0,
                    not_before: last,
                }
            }
        };
        let empty = (known.is_some() || current >= removal.not_before)
            && self.all_gone(dir, &mut removal, current)?;
        if empty {
            self.removals.waiting.remove(&dir);
            return Ok(true);
        }
        match self.removals.waiting.get_mut(&dir) {
            Some(place) => *place = removal,
            None => {
                let waiting = &mut self.removals.waiting;
                waiting.try_create_and_insert(dir, removal, GFP_KERNEL)?;
            }
        }
        Ok(false)
    }

    /// The inode of the entry that was made last, which probably has the highest number.
    fn last_entry(&mut self, dir: u64) -> Result<Option<u64>> {
        let reader: &'a Reader = self.reader;
        let root = self.parent.as_ref().ok_or(EINVAL)?.root;
        let mut cursor = reader.cursor(root);
        if !cursor.seek_before(&Key::new(dir, item_type::DIR_INDEX, u64::MAX))? {
            return Ok(None);
        }
        let found = cursor.item();
        let Some((_, data)) = found.filter(|(key, _)| key.is(dir, item_type::DIR_INDEX)) else {
            return Ok(None);
        };
        let entry = Entries::new(data).next().ok_or(EUCLEAN)??;
        Ok(Some(entry.location.objectid))
    }

    /// Whether all entries from where `removal` has come to are gone; advances it.
    fn all_gone(&mut self, dir: u64, removal: &mut Removal, current: u64) -> Result<bool> {
        let reader: &'a Reader = self.reader;
        let root = self.parent.as_ref().ok_or(EINVAL)?.root;
        let generation = removal.generation;
        let mut cursor = reader.cursor(root);
        cursor.seek(&Key::new(dir, item_type::DIR_INDEX, removal.next_index))?;
        removal.next_index = 0;
        while let Some((key, data)) = cursor.item() {
            if !key.is(dir, item_type::DIR_INDEX) {
                break;
            }
            let entry = Entries::new(data).next().ok_or(EUCLEAN)??;
            let ino = entry.location.objectid;
            removal.not_before = removal.not_before.max(ino);
            removal.next_index = key.offset;
            if self.moves.remove_behind(ino, (dir, generation)) || ino > current {
                return Ok(false);
            }
            cursor.next()?;
        }
        Ok(true)
    }

    /// Whether `dir` has an item in the subvolume being sent, with whatever generation.
    pub(super) fn is_in_sent(&mut self, dir: u64) -> Result<bool> {
        Ok(self.inode_in(Snapshot::Sent, dir)?.is_some())
    }
}
