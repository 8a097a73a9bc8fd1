// SPDX-License-Identifier: GPL-2.0
//! Delayed rmdir: directories that are removed once they are empty (`orphan_dir_info`,
//! `can_rmdir`).
//!
//! A directory goes when all that was in it has been processed: inodes with higher numbers must
//! have had their turn, and directories that wait to be moved out must have been. Until then it is
//! at the top under its orphan name.
//!
//! An example: directory 257 is deleted with file 258 in it.
//!
//! ```text
//!     parent        sent           stream
//!     257 a                        257: not empty, as 258 has not been processed:
//!     258 a/f                           rename a -> o257-7-0, and 257 waits for the turn of 258
//!                                  258: unlink o257-7-0/f
//!                                       257 is empty now: rmdir o257-7-0
//! ```

use super::orphan_dirs::OrphanDirInfo;
use crate::format::{item_type, objectid, Key};
use crate::send::context::Send;
use crate::send::cursor::Cursor;
use crate::send::snapshots::Snapshot;
use crate::subvol::dir::Entries;
use kernel::prelude::*;

impl Send<'_> {
    /// Whether directory `dir` of the parent is empty now. If not, it is noted to wait.
    pub(in crate::send) fn can_rmdir(&mut self, dir: u64, generation: u64) -> Result<bool> {
        if dir == objectid::FIRST_FREE {
            return Ok(false);
        }
        let current = self.position.inode.as_ref().ok_or(EINVAL)?.ino;
        let known = self.names.delayed_rmdirs.get(dir, generation);
        let mut orphan_dir = match known {
            Some(orphan_dir) if current < orphan_dir.not_before => return Ok(false),
            Some(orphan_dir) => orphan_dir,
            None => {
                let Some(last) = self.last_entry(dir)? else {
                    return Ok(true);
                };
                OrphanDirInfo {
                    generation,
                    next_index: 0,
                    not_before: last,
                }
            }
        };
        let empty = (known.is_some() || current >= orphan_dir.not_before)
            && self.all_gone(dir, &mut orphan_dir, current)?;
        if empty {
            self.names.delayed_rmdirs.waiting.remove(&dir);
            return Ok(true);
        }
        match self.names.delayed_rmdirs.waiting.get_mut(&dir) {
            Some(place) => *place = orphan_dir,
            None => {
                let waiting = &mut self.names.delayed_rmdirs.waiting;
                waiting.try_create_and_insert(dir, orphan_dir, GFP_KERNEL)?;
            }
        }
        Ok(false)
    }

    /// The inode of the entry that was made last, which probably has the highest number.
    fn last_entry(&mut self, dir: u64) -> Result<Option<u64>> {
        let root = self.snapshots.parent.as_ref().ok_or(EINVAL)?.root;
        let mut cursor = Cursor::new(self.snapshots.session, root.id);
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

    /// Whether all entries from where `orphan_dir` has come to are gone; advances it.
    fn all_gone(&mut self, dir: u64, orphan_dir: &mut OrphanDirInfo, current: u64) -> Result<bool> {
        let root = self.snapshots.parent.as_ref().ok_or(EINVAL)?.root;
        let generation = orphan_dir.generation;
        let mut cursor = Cursor::new(self.snapshots.session, root.id);
        cursor.seek(&Key::new(dir, item_type::DIR_INDEX, orphan_dir.next_index))?;
        orphan_dir.next_index = 0;
        while let Some((key, data)) = cursor.item() {
            if !key.is(dir, item_type::DIR_INDEX) {
                break;
            }
            let entry = Entries::new(data).next().ok_or(EUCLEAN)??;
            let ino = entry.location.objectid;
            orphan_dir.not_before = orphan_dir.not_before.max(ino);
            orphan_dir.next_index = key.offset;
            if self.names.dir_moves.set_rmdir(ino, (dir, generation)) || ino > current {
                return Ok(false);
            }
            cursor.next()?;
        }
        Ok(true)
    }

    /// Whether `dir` has an item in the subvolume being sent, with whatever generation.
    pub(in crate::send) fn is_in_sent(&mut self, dir: u64) -> Result<bool> {
        Ok(self.snapshots.inode_in(Snapshot::Sent, dir)?.is_some())
    }
}
