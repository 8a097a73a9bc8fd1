// SPDX-License-Identifier: GPL-2.0
//! Copying a closed set of blocks: each block once, sharing kept, references re-keyed.
//!
//! A copy has the references of its original. Those by a tree stay as they are; those by a parent
//! block name the parent's copy. Where a block's children are referred to by its address, the
//! children outside of the set get their references moved to the copy's address.

use super::backref_cache::{BackrefCache, Block, Check};
use super::data_relocation::DataRelocation;
use crate::extent::refs::RefKind;
use crate::format::extent::FLAG_FULL_BACKREF;
use crate::format::file_extent::{FileExtent, FileExtentItem};
use crate::format::item_type;
use crate::trans::transaction::Transaction;
use crate::tree::edit::EditContext;
use crate::tree::{Node, NodePtr, TreeRoot};
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::Arc;

/// Copies every block of the set and switches the roots; file extents that are in `relocated` point
/// to their new places in the copies. `check` is asked at each block whether to go on.
///
/// # Errors
///
/// `ENOSPC`, `ENOMEM`, those of reading, and what `check` gives. The transaction is then only good
/// for being given up.
pub fn copy(
    trans: &mut Transaction<'_>,
    backref_cache: &BackrefCache,
    relocated: &DataRelocation,
    check: Check<'_>,
) -> Result<Copies> {
    let mut copies = Copies {
        at: RBTree::new(),
        nodesize: u64::from(trans.geometry().nodesize),
    };
    for (level, bytenr, block) in backref_cache.iter() {
        check()?;
        let node = original(trans, level, bytenr, block)?;
        let copy = trans.copy_block(&node, node.owner())?;
        copies.at.try_create_and_insert(bytenr, copy, GFP_KERNEL)?;
        if level == 0 {
            patch_leaf(trans, &node, copy, relocated)?;
        } else {
            copies.patch_node(trans, &node, block, copy)?;
        }
    }
    let mut shared = false;
    for (level, bytenr, block) in backref_cache.iter() {
        check()?;
        copies.move_refs(trans, bytenr, block)?;
        if block.is_full_backref() {
            let node = original(trans, level, bytenr, block)?;
            copies.rekey_children(trans, &node, block, relocated)?;
        }
        shared |= block.is_shared();
    }
    for (level, bytenr, block) in backref_cache.iter() {
        for root in block.roots.iter() {
            let place = TreeRoot {
                id: *root,
                bytenr: copies.of(bytenr)?,
                level,
                generation: trans.transid(),
            };
            trans.set_root(*root, place)?;
            if shared {
                // The copies are as young as the transaction, and yet shared: whoever copies one on
                // write has to look its references up.
                let transid = trans.transid();
                trans.update_root_item(*root, |item| {
                    item.last_snapshot = transid.into();
                    Ok(())
                })?;
            }
        }
    }
    Ok(copies)
}

fn original(trans: &Transaction<'_>, level: u8, bytenr: u64, block: &Block) -> Result<Arc<Node>> {
    trans.fs().cache.get(&NodePtr {
        bytenr,
        generation: block.generation,
        level,
        tree: 0,
        first_key: None,
    })
}

fn patch_leaf(
    trans: &mut Transaction<'_>,
    node: &Node,
    copy: u64,
    relocated: &DataRelocation,
) -> Result {
    if relocated.is_empty() {
        return Ok(());
    }
    let buf = trans.dirty_mut(copy)?;
    for slot in 0..node.nritems() as usize {
        let (key, data) = node.item(slot).ok_or(EUCLEAN)?;
        if key.typ != item_type::EXTENT_DATA {
            continue;
        }
        let extent = FileExtent::read(data)?.in_extent();
        let to = extent.and_then(|item| relocated.target(item.disk_bytenr.get()));
        if let Some(to) = to {
            FileExtentItem::set_disk_bytenr(buf.item_mut(slot).ok_or(EUCLEAN)?, to)?;
        }
    }
    Ok(())
}

/// Where each block's copy is.
pub struct Copies {
    at: RBTree<u64, u64>,
    nodesize: u64,
}

impl Copies {
    /// The address of the copy of the block at `bytenr`, in bytes.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the block was not of the set.
    pub fn of(&self, bytenr: u64) -> Result<u64> {
        self.at.get(&bytenr).copied().ok_or(EUCLEAN)
    }

    fn patch_node(
        &self,
        trans: &mut Transaction<'_>,
        node: &Node,
        block: &Block,
        copy: u64,
    ) -> Result {
        let transid = trans.transid();
        let buf = trans.dirty_mut(copy)?;
        for slot in block.first_slot..node.nritems() as usize {
            let child = node.child_ptr(slot, 0).ok_or(EUCLEAN)?;
            if let Some(to) = self.at.get(&child.bytenr) {
                buf.set_child(slot, *to, transid)?;
            }
        }
        Ok(())
    }

    /// Gives the copy of a block the references of its original, which goes.
    fn move_refs(&self, trans: &mut Transaction<'_>, bytenr: u64, block: &Block) -> Result {
        let copy = self.of(bytenr)?;
        let refs = trans.refs();
        if block.is_full_backref() {
            refs.set_flags(copy, self.nodesize, FLAG_FULL_BACKREF)?;
        }
        for r in block.refs.iter() {
            let kind = match r.kind {
                RefKind::SharedBlock { parent } => RefKind::SharedBlock {
                    parent: self.of(parent)?,
                },
                kind => kind,
            };
            refs.add(copy, self.nodesize, kind, 1)?;
        }
        refs.drop_extent(bytenr, self.nodesize)
    }

    /// Moves the references that the children outside of the set have by a block's address.
    fn rekey_children(
        &self,
        trans: &mut Transaction<'_>,
        node: &Node,
        block: &Block,
        relocated: &DataRelocation,
    ) -> Result {
        let parent = node.bytenr();
        let copy = self.of(parent)?;
        let refs = trans.refs();
        for slot in block.first_slot..node.nritems() as usize {
            let (bytenr, num_bytes, from, to) = if node.is_leaf() {
                let (key, data) = node.item(slot).ok_or(EUCLEAN)?;
                if key.typ != item_type::EXTENT_DATA {
                    continue;
                }
                let Some(item) = FileExtent::read(data)?.in_extent() else {
                    continue;
                };
                let (bytenr, num_bytes) = (item.disk_bytenr.get(), item.disk_num_bytes.get());
                if relocated.target(bytenr).is_some() {
                    continue;
                }
                let from = RefKind::SharedData { parent };
                (
                    bytenr,
                    num_bytes,
                    from,
                    RefKind::SharedData { parent: copy },
                )
            } else {
                let child = node.child_ptr(slot, 0).ok_or(EUCLEAN)?;
                if self.at.get(&child.bytenr).is_some() {
                    continue;
                }
                let from = RefKind::SharedBlock { parent };
                let to = RefKind::SharedBlock { parent: copy };
                (child.bytenr, self.nodesize, from, to)
            };
            refs.add(bytenr, num_bytes, from, -1)?;
            refs.add(bytenr, num_bytes, to, 1)?;
        }
        Ok(())
    }
}
