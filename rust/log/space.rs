// SPDX-License-Identifier: GPL-2.0
//! The space that a log takes: its blocks, and the data of the files in it.

use super::tree::{LogNodes, LogTree};
use crate::format::item_type;
use crate::fs_err;
use crate::subvol::file_extent::{self, Kind};
use crate::trans::Transaction;
use crate::tree::{Node, TreeRoot};
use kernel::prelude::*;

/// Proves all blocks of a log tree, and takes their space. They must be read before anything is
/// changed: what is damaged is found while the transaction can still be given up without a trace.
///
/// # Errors
///
/// `EUCLEAN` for damage, `EIO`, `ENOMEM`.
pub(super) fn pin_blocks(trans: &mut Transaction<'_>, nodes: &LogNodes, root: TreeRoot) -> Result {
    nodes.check(root)?;
    nodes.for_each_block(root, &mut |node| {
        let bytenr = node.bytenr();
        trans.pin_log_block(bytenr).inspect_err(|error| {
            if *error == EUCLEAN {
                fs_err!(
                    trans.fs(),
                    "corrupt log tree: the space of block {bytenr} is not free"
                );
            }
        })
    })
}

/// Takes the space of the data that files in a log tree refer to.
///
/// # Errors
///
/// `EUCLEAN` for damage, `EIO`, `ENOMEM`.
pub(super) fn take_extents(trans: &mut Transaction<'_>, nodes: &LogNodes, log: &LogTree) -> Result {
    nodes.for_each_block(log.root, &mut |node| {
        if node.is_leaf() {
            take_extents_of(trans, node)?;
        }
        Ok(())
    })
}

fn take_extents_of(trans: &mut Transaction<'_>, leaf: &Node) -> Result {
    let fs = trans.fs();
    for slot in 0..leaf.nritems() as usize {
        let (key, data) = leaf.item(slot).ok_or(EUCLEAN)?;
        if key.typ != item_type::EXTENT_DATA {
            continue;
        }
        let extent = file_extent::parse(&key, data, fs.geometry.sectorsize).inspect_err(|_| {
            fs_err!(fs, "corrupt log tree: invalid file extent item {key}");
        })?;
        let (Kind::Regular(data) | Kind::Prealloc(data)) = extent.kind else {
            continue;
        };
        let (bytenr, num_bytes) = (data.disk_bytenr, data.disk_num_bytes);
        trans
            .alloc_logged_extent(bytenr, num_bytes)
            .inspect_err(|error| {
                if *error == EUCLEAN {
                    fs_err!(
                        fs,
                        "corrupt log tree: file extent item {key}: the space of extent {bytenr} \
                         num_bytes {num_bytes} is not free"
                    );
                }
            })?;
    }
    Ok(())
}
