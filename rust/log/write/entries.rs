// SPDX-License-Identifier: GPL-2.0
//! The entries of a directory that is synced, as far as they differ from those of the last commit.
//!
//! An entry that it lost is logged as a range of its own that has no entry: a replay removes what
//! is there. An entry that it gained is logged with the names of the inode that it leads to.

use super::compare::compare;
use super::{keys_of, Record};
use crate::format::{item_type, Key};
use crate::subvol::dir::Entries;
use crate::subvol::write::{mode, InodeId};
use crate::trans::View;
use kernel::prelude::*;

/// An entry that the directory lost or gained.
struct Changed {
    index: u64,
    location: Key,
    lost: bool,
}

impl Record<'_, '_, '_> {
    /// Logs the entries that a directory lost and gained.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if they are too many, lead to subvolumes, or if a directory that had entries is
    /// gone; those of reading and of tree edits.
    pub(super) fn entries(&mut self, dir: InodeId) -> Result {
        let changed = self.changed_entries(dir)?;
        for entry in changed.iter().filter(|entry| entry.lost) {
            let key = Key::new(dir.ino, item_type::DIR_LOG_INDEX, entry.index);
            self.edit.put(dir.tree, &key, &entry.index.to_le_bytes())?;
        }
        for entry in &changed {
            let id = InodeId {
                ino: entry.location.objectid,
                ..dir
            };
            let running = self.running_inode(id)?;
            let running = running.filter(|item| item.nlink.get() != 0);
            match (running, self.base_inode(id)?) {
                (Some(item), Some(_)) => self.names_alone(id, &item)?,
                (Some(item), None) if !self.has(id) => self.whole(id, &item)?,
                (None, Some(old)) => {
                    // A replay removes all that was in it, and that may have gone elsewhere.
                    if old.mode.get() & mode::FMT == mode::DIR && old.size.get() != 0 {
                        return Err(EAGAIN);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn changed_entries(&self, dir: InodeId) -> Result<KVec<Changed>> {
        let trans = &*self.edit.trans;
        let range = keys_of(dir.ino, item_type::DIR_INDEX..=item_type::DIR_INDEX);
        let old = (trans.base(), self.base_root(dir.tree)?);
        let new = (trans, trans.tree_root(dir.tree)?);
        let mut changed = KVec::new();
        compare(old, new, &range, &mut |(key, old, new)| {
            for (data, lost) in [(old, true), (new, false)] {
                for entry in Entries::new(data.unwrap_or_default()) {
                    let location = entry?.location;
                    if location.typ != item_type::INODE_ITEM || changed.len() > 256 {
                        return Err(EAGAIN);
                    }
                    let index = key.offset;
                    let entry = Changed {
                        index,
                        location,
                        lost,
                    };
                    changed.push(entry, GFP_KERNEL)?;
                }
            }
            Ok(())
        })?;
        Ok(changed)
    }
}
