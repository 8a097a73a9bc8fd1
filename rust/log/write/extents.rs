// SPDX-License-Identifier: GPL-2.0
//! The file extents of an inode in the log, and the checksums of their data.
//!
//! The log gets all file extents in those parts of the file that changed since the last commit, and
//! items for the holes there. A replay cuts a file at its end, so that all that is preallocated
//! after that is logged as well.

use super::compare::compare;
use super::{copy_of, keys_of, Items, Record};
use crate::extent::csum_tree::insert_csums_in;
use crate::format::file_extent::TYPE_REG;
use crate::format::inode::{inode_flags, InodeItem};
use crate::format::{item_type, tree_id, Key};
use crate::subvol::csum;
use crate::subvol::file_extent::{self, Kind, Regular};
use crate::subvol::write::{whole_extent, InodeId};
use crate::trans::View;
use crate::tree::{Cursor, EditContext};
use kernel::prelude::*;
use zerocopy::IntoBytes;

/// The most file extents of an inode in a log.
const MOST_EXTENTS: usize = 1024;

/// Parts of a file, in bytes, in order: where each starts and ends.
type Parts = KVec<(u64, u64)>;

fn add_part(parts: &mut Parts, from: u64, to: u64) -> Result {
    match parts.last_mut() {
        Some((_, end)) if from <= *end => *end = to.max(*end),
        _ => parts.push((from, to), GFP_KERNEL)?,
    }
    Ok(())
}

impl Record<'_, '_, '_> {
    /// Logs the file extents that changed.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are too many, or if one was logged with another size; those of reading and
    /// of tree edits.
    pub(super) fn extents(&mut self, id: InodeId, item: &InodeItem) -> Result {
        let sectorsize = self.edit.trans.fs().geometry.sectorsize;
        let end = sectorsize.round_up(item.size.get()).ok_or(EUCLEAN)?;
        let wanted = self.wanted_extents(id, &self.changed_parts(id, end)?, end)?;
        let range = keys_of(id.ino, item_type::EXTENT_DATA..=item_type::EXTENT_DATA);
        let put = self.put_items(id.tree, &range, &wanted)?;
        let mut put = put.iter().peekable();
        for (key, data) in &wanted {
            let is_new = put.next_if(|new| *new == key).is_some();
            let extent = file_extent::parse(key, data, sectorsize)?;
            let (Kind::Regular(regular) | Kind::Prealloc(regular)) = extent.kind else {
                continue;
            };
            let (bytenr, num_bytes) = (regular.disk_bytenr, regular.disk_num_bytes);
            self.edit
                .log
                .add_extent(bytenr, num_bytes, (id.tree, id.ino))?;
            let has_sums = item.flags.get() & inode_flags::NODATASUM == 0
                && matches!(extent.kind, Kind::Regular(_));
            if is_new && has_sums {
                self.checksums(id.tree, &regular, extent.len)?;
            }
        }
        Ok(())
    }

    /// The parts of a file that changed, and all after `end`.
    fn changed_parts(&self, id: InodeId, end: u64) -> Result<Parts> {
        let trans = &*self.edit.trans;
        let sectorsize = trans.fs().geometry.sectorsize;
        let range = keys_of(id.ino, item_type::EXTENT_DATA..=item_type::EXTENT_DATA);
        let old = (trans.base(), self.base_root(id.tree)?);
        let new = (trans, trans.tree_root(id.tree)?);
        let mut parts = KVec::new();
        compare(old, new, &range, &mut |(key, old, new)| {
            for data in [old, new].into_iter().flatten() {
                let extent = file_extent::parse(&key, data, sectorsize)?;
                let to = sectorsize.round_up(extent.end()).ok_or(EUCLEAN)?;
                add_part(&mut parts, extent.offset, to)?;
            }
            Ok(())
        })?;
        // The last part may start after the end.
        let from = match parts.last() {
            Some((from, _)) => end.max(*from),
            None => end,
        };
        add_part(&mut parts, from, u64::MAX)?;
        Ok(parts)
    }

    /// The file extents that are in some parts of a file, and holes up to `end`.
    fn wanted_extents(&self, id: InodeId, parts: &Parts, end: u64) -> Result<Items> {
        let trans = &*self.edit.trans;
        let sectorsize = trans.fs().geometry.sectorsize;
        let transid = self.edit.transid();
        let mut wanted = KVec::new();
        let mut at = 0u64;
        let mut cursor = Cursor::new(trans, trans.tree_root(id.tree)?);
        let hole = |wanted: &mut Items, from: u64, to: u64| -> Result {
            let to = to.min(end);
            if from < to {
                let item = whole_extent(transid, TYPE_REG, 0, to.saturating_sub(from));
                let key = Key::new(id.ino, item_type::EXTENT_DATA, from);
                wanted.push((key, copy_of(item.as_bytes())?), GFP_KERNEL)?;
            }
            Ok(())
        };
        for (from, to) in parts {
            at = at.max(*from);
            let start = Key::new(id.ino, item_type::EXTENT_DATA, at);
            cursor.seek_before(&start)?;
            while let Some((key, data)) = cursor.item() {
                if key > start && !key.is(id.ino, item_type::EXTENT_DATA) || key.offset >= *to {
                    break;
                }
                if key.is(id.ino, item_type::EXTENT_DATA) {
                    let extent = file_extent::parse(&key, data, sectorsize)?;
                    let extent_end = sectorsize.round_up(extent.end()).ok_or(EUCLEAN)?;
                    if extent_end > at {
                        hole(&mut wanted, at, extent.offset)?;
                        wanted.push((key, copy_of(data)?), GFP_KERNEL)?;
                        at = extent_end;
                    }
                }
                if wanted.len() > MOST_EXTENTS {
                    return Err(EAGAIN);
                }
                if !cursor.next()? {
                    break;
                }
            }
            hole(&mut wanted, at, *to)?;
            at = at.max((*to).min(end));
        }
        Ok(wanted)
    }

    /// Logs those checksums of the data of a file extent that the log does not have.
    fn checksums(&mut self, tree: u64, regular: &Regular, len: u64) -> Result {
        let trans = &*self.edit.trans;
        let geometry = &trans.fs().geometry;
        let (start, len) = regular.checksummed(len)?;
        let (mut sums, mut logged) = (KVec::new(), KVec::new());
        let root = EditContext::root(trans, tree_id::CSUM)?;
        csum::lookup(trans, root, geometry, start, len, &mut sums)?;
        let root = EditContext::root(self.edit, tree)?;
        csum::lookup(self.edit, root, geometry, start, len, &mut logged)?;
        let new = sums.iter().zip(&logged).map(|(sum, logged)| match logged {
            Some(_) => None,
            None => *sum,
        });
        csum::for_each_run(geometry, start, new, &mut |at, run| {
            insert_csums_in(self.edit, tree, at, run)
        })
    }
}
