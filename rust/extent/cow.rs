// SPDX-License-Identifier: GPL-2.0
//! Reference accounting of copy-on-write.
//!
//! A tree holds one reference to each of its blocks, by its id, and through its leaves to data
//! extents. A snapshot copies only the root, so that the blocks below it have several holders. When
//! a holder that is not alone copies such a block, the references of the original's children must
//! not be lost with it: if it was the owner that leaves, the original's children are referred to by
//! the original's address from then on ("full back references"), and else the copy adds references
//! of its own.

use super::delayed_ref::NewExtent;
use super::refs::RefKind;
use crate::format::extent::FLAG_FULL_BACKREF;
use crate::format::file_extent::FileExtent;
use crate::format::header::HEADER_FLAG_RELOC;
use crate::format::root::RootItem;
use crate::format::{item_type, tree_id, Key};
use crate::trans::transaction::Transaction;
use crate::tree::node::{Node, NodePtr};
use crate::tree::node_buf::NodeBuf;
use crate::tree::{EditContext, Nodes};
use kernel::prelude::*;
use kernel::sync::Arc;

/// A reference that a tree block holds: to a child block, or to a data extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildRef {
    /// The logical address of the child, in bytes.
    pub bytenr: u64,
    /// Its size in bytes.
    pub num_bytes: u64,
    /// By whom it is referred to.
    pub kind: RefKind,
}

/// The references that the block `node` holds, one for each pointer or file extent item: by the
/// block's address if `full`, else by its owner. Leaves of trees without files hold none.
///
/// # Errors
///
/// `EUCLEAN` for a file extent item that is too short, `ENOMEM`.
pub fn child_refs(node: &Node, full: bool) -> Result<KVVec<ChildRef>> {
    let owner = node.owner();
    let parent = node.bytenr();
    let slots = node.nritems() as usize;
    let mut refs = KVVec::new();
    if !node.is_leaf() {
        let kind = if full {
            RefKind::SharedBlock { parent }
        } else {
            RefKind::TreeBlock { root: owner }
        };
        refs.reserve(slots, GFP_KERNEL)?;
        for slot in 0..slots {
            let child = node.child_ptr(slot, owner).ok_or(EUCLEAN)?;
            let child = ChildRef {
                bytenr: child.bytenr,
                num_bytes: node.bytes().len() as u64,
                kind,
            };
            refs.push(child, GFP_KERNEL)?;
        }
        return Ok(refs);
    }
    if !tree_id::is_fs_tree(owner) {
        return Ok(refs);
    }
    for slot in 0..slots {
        let (key, bytes) = node.item(slot).ok_or(EUCLEAN)?;
        if key.typ != item_type::EXTENT_DATA {
            continue;
        }
        let Some(item) = FileExtent::read(bytes)?.in_extent() else {
            continue;
        };
        let kind = if full {
            RefKind::SharedData { parent }
        } else {
            RefKind::Data {
                root: owner,
                ino: key.objectid,
                offset: item.backref_offset(key.offset),
            }
        };
        let child = ChildRef {
            bytenr: item.disk_bytenr.get(),
            num_bytes: item.disk_num_bytes.get(),
            kind,
        };
        refs.push(child, GFP_KERNEL)?;
    }
    Ok(refs)
}

impl Transaction<'_> {
    /// Adds the references that `node` holds: by its address if `full`, else by its owner.
    pub fn inc_refs(&mut self, node: &Node, full: bool) -> Result {
        self.mod_refs(&child_refs(node, full)?, 1)
    }

    /// Gives up the references that `node` holds: by its address if `full`, else by its owner.
    pub fn dec_refs(&mut self, node: &Node, full: bool) -> Result {
        self.mod_refs(&child_refs(node, full)?, -1)
    }

    fn mod_refs(&mut self, refs: &[ChildRef], count: i64) -> Result {
        for child in refs {
            self.refs
                .add(child.bytenr, child.num_bytes, child.kind, count)?;
        }
        Ok(())
    }

    /// Reference count and flags of `old`, reached in `tree`. Only blocks that may have other
    /// holders are looked up.
    fn sharing(&mut self, tree: u64, old: &Node) -> Result<(u64, u64)> {
        let bytenr = old.bytenr();
        let root = self.running_root(tree)?;
        let is_root = root.root.bytenr == bytenr;
        let young = old.generation() > root.last_snapshot()
            && old.flags() & HEADER_FLAG_RELOC == 0
            && self.dirty.get(bytenr).is_none();
        let (refs, flags) = if !tree_id::is_fs_tree(tree) || is_root || young {
            (1, 0)
        } else {
            let info = self.extent_info(bytenr)?;
            (info.refs, info.flags)
        };
        if refs == 0 {
            crate::fs_err!(
                self.fs(),
                "found 0 references for tree block at bytenr {} level {} root {}",
                bytenr,
                old.level(),
                tree
            );
            return Err(EUCLEAN);
        }
        if old.owner() == tree_id::TREE_RELOC && flags & FLAG_FULL_BACKREF == 0 {
            crate::fs_err!(
                self.fs(),
                "found tree block at bytenr {} level {} root {} refs {} flags {:#x} without full backref flag set",
                bytenr,
                old.level(),
                tree,
                refs,
                flags
            );
            return Err(EUCLEAN);
        }
        Ok((refs, flags))
    }

    /// Accounts for `copy` taking the place of `old` in `tree`.
    fn account_copy(&mut self, tree: u64, old: &Node, copy: &Node) -> Result {
        let (refs, flags) = self.sharing(tree, old)?;
        let full = flags & FLAG_FULL_BACKREF != 0;
        let nodesize = u64::from(self.geometry().nodesize);
        if refs > 1 {
            if old.owner() == tree && !full {
                self.inc_refs(old, true)?;
                self.refs
                    .set_flags(old.bytenr(), nodesize, FLAG_FULL_BACKREF)?;
            } else {
                self.inc_refs(copy, false)?;
            }
        } else if full {
            self.inc_refs(copy, false)?;
            self.dec_refs(old, true)?;
        }
        self.drop_tree_ref(tree, old.bytenr(), refs == 1)
    }

    /// Gives up the reference of `tree` to the block at `bytenr`. The buffer of a block of this
    /// transaction goes with the last one, and if the extent tree never heard of it, so does its
    /// space.
    pub(super) fn drop_tree_ref(&mut self, tree: u64, bytenr: u64, last: bool) -> Result {
        let nodesize = u64::from(self.geometry().nodesize);
        self.refs
            .add(bytenr, nodesize, RefKind::TreeBlock { root: tree }, -1)?;
        if !last || self.dirty.get(bytenr).is_none() {
            return Ok(());
        }
        self.dirty.remove(bytenr);
        if self.refs.cancel_unused(bytenr) {
            self.unreserve(bytenr, nodesize)?;
        }
        Ok(())
    }

    /// The block that `ptr` points to, independent of the transaction.
    fn detached(&self, ptr: &NodePtr) -> Result<Arc<Node>> {
        match self.dirty.get(ptr.bytenr) {
            None => self.base.node(ptr),
            Some(buf) => {
                let copy = NodeBuf::copy_of(buf, ptr.bytenr, self.transid(), buf.owner())?;
                Ok(Arc::new(copy.into_node(), GFP_KERNEL)?)
            }
        }
    }

    /// Copies the block that `old` points to, reached in `tree`. See [`EditContext::cow_node`].
    pub(crate) fn cow(&mut self, tree: u64, old: &NodePtr) -> Result<u64> {
        self.handle.changed = true;
        let source = self.detached(old)?;
        let new = self.alloc_block(tree, source.level())?;
        let copy = NodeBuf::copy_of(&source, new, self.transid(), tree)?;
        self.refs.add(
            new,
            copy.bytes().len() as u64,
            RefKind::TreeBlock { root: tree },
            1,
        )?;
        self.account_copy(tree, &source, copy.node())?;
        self.dirty.insert(copy, false)?;
        Ok(new)
    }

    /// Makes a new, empty block. See [`EditContext::alloc_node`].
    pub(crate) fn alloc(&mut self, tree: u64, level: u8) -> Result<u64> {
        self.handle.changed = true;
        let new = self.alloc_block(tree, level)?;
        let buf = NodeBuf::new(self.geometry(), &self.new_node(new, tree, level))?;
        let nodesize = u64::from(self.geometry().nodesize);
        self.refs
            .add(new, nodesize, RefKind::TreeBlock { root: tree }, 1)?;
        self.dirty.insert(buf, false)?;
        self.count_used(tree, 1)?;
        Ok(new)
    }

    /// Drops a block of this transaction. See [`EditContext::free_node`].
    pub(crate) fn free(&mut self, tree: u64, bytenr: u64) -> Result {
        if self.dirty.get(bytenr).is_none() {
            return Err(EINVAL);
        }
        self.drop_tree_ref(tree, bytenr, true)?;
        self.count_used(tree, -1)
    }

    /// Allocates the space of a tree block for `tree` and queues its extent item, still without
    /// references.
    fn alloc_block(&mut self, tree: u64, level: u8) -> Result<u64> {
        let bytenr = self.alloc_tree_block(tree)?;
        let nodesize = u64::from(self.geometry().nodesize);
        self.refs
            .new_extent(bytenr, nodesize, NewExtent::Tree { level }, 0)?;
        Ok(bytenr)
    }

    /// Makes the tree `key.objectid` as a snapshot of `source`: a copy of its root block, whose
    /// children both trees hold from then on. `item` becomes its root item, with address, level and
    /// generations filled in.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no tree `source`, `EEXIST` if there is one at `key`; those of
    /// allocating and of tree edits.
    pub fn snapshot_root(&mut self, source: u64, key: &Key, mut item: KBox<RootItem>) -> Result {
        self.handle.changed = true;
        self.set_last_snapshot(source)?;
        let root = self.root(source)?;
        let node = self.detached(&root.into())?;
        let tree = key.objectid;
        let new = self.alloc_block(tree, node.level())?;
        let copy = NodeBuf::copy_of(&node, new, self.transid(), tree)?;
        self.refs.add(
            new,
            copy.bytes().len() as u64,
            RefKind::TreeBlock { root: tree },
            1,
        )?;
        self.inc_refs(copy.node(), false)?;
        self.dirty.insert(copy, false)?;
        let transid = self.transid().into();
        item.bytenr = new.into();
        item.level = node.level();
        item.generation = transid;
        item.generation_v2 = transid;
        item.last_snapshot = transid;
        self.insert_root(key, item)
    }

    /// Makes the tree `key.objectid`, of one empty leaf. `item` becomes its root item, with
    /// address, level and generations filled in.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is one at `key`; those of allocating and of tree edits.
    pub fn new_tree(&mut self, key: &Key, mut item: KBox<RootItem>) -> Result {
        self.handle.changed = true;
        let tree = key.objectid;
        let new = self.alloc_block(tree, 0)?;
        let buf = NodeBuf::new(self.geometry(), &self.new_node(new, tree, 0))?;
        let nodesize = u64::from(self.geometry().nodesize);
        self.refs
            .add(new, nodesize, RefKind::TreeBlock { root: tree }, 1)?;
        self.dirty.insert(buf, false)?;
        let transid = self.transid().into();
        item.bytenr = new.into();
        item.level = 0;
        item.generation = transid;
        item.generation_v2 = transid;
        item.bytes_used = nodesize.into();
        self.insert_root(key, item)
    }

    /// Copies the block `old`, which keeps its owner, its level and its flags, and nothing is
    /// accounted for: the new block has an extent item queued that still lacks all references, and
    /// all other references are as before.
    ///
    /// A tree edit treats a block of a subvolume that was copied like this as one that others may
    /// hold.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, `ENOMEM`.
    pub fn copy_block(&mut self, old: &Node, tree_owner: u64) -> Result<u64> {
        self.handle.changed = true;
        let nodesize = u64::from(self.geometry().nodesize);
        let new = self.alloc_tree_block(tree_owner)?;
        let kind = NewExtent::Tree { level: old.level() };
        self.refs.new_extent(new, nodesize, kind, 0)?;
        let mut copy = NodeBuf::copy_of(old, new, self.transid(), old.owner())?;
        // A block that C btrfs relocated has full back references for as long as it lives, and is
        // known by this flag.
        if old.flags() & HEADER_FLAG_RELOC != 0 {
            copy.add_flags(HEADER_FLAG_RELOC)?;
        }
        let shared = tree_id::is_fs_tree(tree_owner);
        self.dirty.insert(copy, shared)?;
        Ok(new)
    }
}
