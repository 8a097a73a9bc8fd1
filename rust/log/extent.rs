// SPDX-License-Identifier: GPL-2.0
//! File extents of a log, and the checksums of their data.

use super::replay::Target;
use crate::extent::csum_tree::{delete_csums, insert_csums};
use crate::format::file_extent::FileExtentItem;
use crate::format::superblock::incompat;
use crate::format::{self, Key};
use crate::subvol::csum;
use crate::subvol::file_extent::{self, Kind, Regular};
use crate::subvol::write::{drop_range, insert_extent_item};
use crate::tree::edit;
use kernel::prelude::*;

/// Makes a part of a file what the log says. The space of its data was taken before.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item; those of changing trees.
pub(super) fn replay(target: &mut Target<'_, '_>, key: &Key, data: &[u8]) -> Result {
    let sectorsize = target.trans.fs().geometry.sectorsize;
    let (ino, subvol) = (key.objectid, target.log.subvol);
    let id = target.id(ino);
    let extent = file_extent::parse(key, data, sectorsize)?;
    target.read_inode(ino)?;
    let is_inline = matches!(extent.kind, Kind::Inline(_));
    if !is_inline {
        let old = edit::get(target.trans, subvol, key)?;
        if old.is_some_and(|old| &*old == data) {
            return Ok(());
        }
    }
    let end = sectorsize.round_up(extent.end()).ok_or(EUCLEAN)?;
    let freed = drop_range(target.trans, id, extent.offset, end)?;
    let mut added = 0;
    match extent.kind {
        Kind::Inline(_) => {
            edit::insert(target.trans, subvol, key, data)?;
            added = extent.len;
        }
        Kind::Hole => {
            if !target.trans.has_incompat(incompat::NO_HOLES) {
                let item: FileExtentItem = format::read(data)?;
                insert_extent_item(target.trans, id, extent.offset, &item)?;
            }
        }
        Kind::Regular(regular) | Kind::Prealloc(regular) => {
            let item: FileExtentItem = format::read(data)?;
            insert_extent_item(target.trans, id, extent.offset, &item)?;
            copy_checksums(target, &regular, extent.len)?;
            added = extent.len;
        }
    }
    let mut item = target.read_inode(ino)?;
    let nbytes = item.nbytes.get().saturating_sub(freed);
    item.nbytes = nbytes.saturating_add(added).into();
    target.write_inode(ino, &mut item)
}

/// Copies the checksums that the log has of the data of a part of a file. What the checksum tree
/// had is replaced, since other parts may refer to the same data.
fn copy_checksums(target: &mut Target<'_, '_>, regular: &Regular, len: u64) -> Result {
    let geometry = &target.trans.fs().geometry;
    let (start, len) = regular.checksummed(len)?;
    let mut sums = KVec::new();
    csum::lookup(
        target.nodes,
        target.log.root,
        geometry,
        start,
        len,
        &mut sums,
    )?;
    csum::for_each_run(geometry, start, sums.into_iter(), &mut |at, run| {
        let sectors = geometry.checksum.count(run.len()) as u64;
        let run_len = u64::from(geometry.sectorsize).saturating_mul(sectors);
        delete_csums(target.trans, at, run_len)?;
        insert_csums(target.trans, at, run)
    })
}
