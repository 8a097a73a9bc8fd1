// SPDX-License-Identifier: GPL-2.0
//! The set of blocks that must be copied so that some blocks can move: those blocks and all their
//! ancestors.
//!
//! Every parent of a block of the set is in the set, so that the set can be copied block by block,
//! each of them once, however many snapshots share it. Only trees of files share blocks. Blocks of
//! any other tree have one parent each, and moving them is plain copy-on-write of the path to them
//! ([`Seeds::paths`]).

use super::drop_progress;
use crate::backref::tree_block::{descend, read_block};
use crate::extent::backref::{all_refs, find_extent};
use crate::extent::refs::{CountedRef, RefKind};
use crate::format::extent::FLAG_FULL_BACKREF;
use crate::format::{tree_id, Key};
use crate::fs_err;
use crate::trans::transaction::Transaction;
use crate::tree::{EditContext, NodePtr};
use core::cell::Cell;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// Whether to go on: an error, `ECANCELED` or `EINTR` most of all, ends the walk before anything
/// was changed.
pub type Check<'a> = &'a dyn Fn() -> Result;

/// A block of the set.
#[derive(Debug)]
pub struct Block {
    /// The transaction that wrote it.
    pub generation: u64,
    /// The flags of its extent item.
    pub flags: u64,
    /// Its references.
    pub refs: KVec<CountedRef>,
    /// The trees whose root it is.
    pub roots: KVec<u64>,
    /// The first slot that leads to a child. Those before lead to what a subvolume's deletion has
    /// dropped already.
    pub first_slot: usize,
    /// How many pointers of the set lead to it.
    pointers: Cell<usize>,
}

impl Block {
    /// Whether its children are referred to by its address.
    pub fn is_full_backref(&self) -> bool {
        self.flags & FLAG_FULL_BACKREF != 0
    }

    /// Whether more than one tree may hold it.
    pub fn is_shared(&self) -> bool {
        self.refs.len() > 1 || self.is_full_backref()
    }
}

/// A block of a tree that shares nothing: found again by its place in that tree.
#[derive(Clone, Copy, Debug)]
pub struct TreePath {
    /// The tree's id.
    pub tree: u64,
    /// The block's level.
    pub level: u8,
    /// The block's first key.
    pub key: Key,
    /// The block's logical address, in bytes.
    pub bytenr: u64,
}

/// Where the set is in a walk order that meets children before parents.
type BlockKey = (u8, u64);

/// The set.
pub struct BackrefCache {
    blocks: RBTree<BlockKey, Block>,
    len: usize,
}

/// What a set grows from.
pub struct Seeds {
    todo: KVec<BlockKey>,
    /// Blocks of trees that share nothing.
    pub paths: KVec<TreePath>,
}

impl Seeds {
    /// Nothing yet.
    pub fn new() -> Self {
        Seeds {
            todo: KVec::new(),
            paths: KVec::new(),
        }
    }

    /// Adds the block at `bytenr`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn add(&mut self, level: u8, bytenr: u64) -> Result {
        Ok(self.todo.push((level, bytenr), GFP_KERNEL)?)
    }
}

impl Default for Seeds {
    fn default() -> Self {
        Seeds::new()
    }
}

impl BackrefCache {
    /// Grows the set from `seeds`, and moves what belongs to trees that share nothing to
    /// [`Seeds::paths`].
    ///
    /// # Errors
    ///
    /// `EIO` for a missing back reference and `EUCLEAN` for a wrong one, each after a line in the
    /// log; what `check` gives; those of reading.
    pub fn build(
        trans: &Transaction<'_>,
        seeds: &mut Seeds,
        check: Check<'_>,
    ) -> Result<BackrefCache> {
        let walk = Walk { trans };
        let mut backref_cache = BackrefCache {
            blocks: RBTree::new(),
            len: 0,
        };
        while let Some((level, bytenr)) = seeds.todo.pop() {
            if backref_cache.get(level, bytenr).is_some() {
                continue;
            }
            check()?;
            if let Some(block) = walk.block(level, bytenr, seeds)? {
                backref_cache
                    .blocks
                    .try_create_and_insert((level, bytenr), block, GFP_KERNEL)?;
                backref_cache.len = backref_cache.len.saturating_add(1);
            }
        }
        backref_cache.skip_dropped_refs(trans)?;
        backref_cache.prove(trans)?;
        Ok(backref_cache)
    }

    /// Leaves out the pointers of subvolumes that are being deleted to what was dropped already.
    fn skip_dropped_refs(&mut self, trans: &Transaction<'_>) -> Result {
        let mut roots = KVec::new();
        for block in self.blocks.values() {
            roots.extend_from_slice(&block.roots, GFP_KERNEL)?;
        }
        for root in roots.iter() {
            let Some(progress) = drop_progress::read(trans, *root)? else {
                continue;
            };
            progress.for_each(trans, |level, bytenr, slot| {
                if let Some(block) = self.blocks.get_mut(&(level, bytenr)) {
                    block.first_slot = slot;
                }
            })?;
        }
        Ok(())
    }

    /// Counts the pointers within the set: each reference of a block is one, or the root of a tree.
    fn prove(&self, trans: &Transaction<'_>) -> Result {
        for (level, bytenr, block) in self.iter() {
            let Some(below) = level.checked_sub(1) else {
                continue;
            };
            let node = read_block(trans, bytenr, level, block.generation)?;
            for slot in block.first_slot..node.nritems() as usize {
                let child = node.child_ptr(slot, 0).ok_or(EUCLEAN)?;
                if let Some(found) = self.get(below, child.bytenr) {
                    expect_generation(trans, &child, found.generation)?;
                    found.pointers.set(found.pointers.get().saturating_add(1));
                }
            }
        }
        for (level, bytenr, block) in self.iter() {
            let expected = block.refs.len().saturating_sub(block.roots.len());
            let found = block.pointers.get();
            if found != expected {
                fs_err!(
                    trans.fs(),
                    "tree block {} level {} has {} pointers to it, but expected {} by its extent item",
                    bytenr,
                    level,
                    found,
                    expected
                );
                return Err(EIO);
            }
        }
        Ok(())
    }

    /// The number of blocks.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The block at `bytenr`, if it is of the set.
    pub fn get(&self, level: u8, bytenr: u64) -> Option<&Block> {
        self.blocks.get(&(level, bytenr))
    }

    /// The blocks with their levels and addresses, children before parents.
    pub fn iter(&self) -> impl Iterator<Item = (u8, u64, &Block)> {
        self.blocks
            .iter()
            .map(|((level, bytenr), block)| (*level, *bytenr, block))
    }
}

/// Holds what points to a block against the block's generation.
fn expect_generation(trans: &Transaction<'_>, ptr: &NodePtr, found: u64) -> Result {
    if ptr.generation == found {
        return Ok(());
    }
    fs_err!(
        trans.fs(),
        "parent transid verify failed on logical {} mirror 1 wanted {} found {}",
        ptr.bytenr,
        ptr.generation,
        found
    );
    Err(EIO)
}

/// What finding parents takes.
struct Walk<'a, 'fs> {
    trans: &'a Transaction<'fs>,
}

impl Walk<'_, '_> {
    /// Reads the references of a block and adds its parents to the seeds; `None` for a block that
    /// is left to plain copy-on-write.
    fn block(&self, level: u8, bytenr: u64, seeds: &mut Seeds) -> Result<Option<Block>> {
        let (trans, fs) = (self.trans, self.trans.fs());
        let extents = trans.root(tree_id::EXTENT)?;
        let found = find_extent(fs, trans, extents, bytenr)?;
        let Some(found) = found.filter(|found| found.level() == Some(level)) else {
            fs_err!(
                fs,
                "did not find extent item of tree block {} level {}",
                bytenr,
                level
            );
            return Err(EIO);
        };
        let refs = all_refs(fs, trans, extents, &found)?;
        let mut block = Block {
            generation: found.record.generation,
            flags: found.record.flags,
            refs: KVec::new(),
            roots: KVec::new(),
            first_slot: 0,
            pointers: Cell::new(0),
        };
        for r in refs.iter() {
            match r.kind {
                RefKind::SharedBlock { parent } => {
                    let above = level.checked_add(1).ok_or(EUCLEAN)?;
                    seeds.add(above, parent)?;
                }
                RefKind::TreeBlock { root } if tree_id::is_fs_tree(root) => {
                    match self.parent_in(root, level, bytenr, block.generation)? {
                        Some((above, parent)) => seeds.add(above, parent)?,
                        None => block.roots.push(root, GFP_KERNEL)?,
                    }
                }
                RefKind::TreeBlock { root } if refs.len() == 1 => {
                    self.parent_in(root, level, bytenr, block.generation)?;
                    let node = read_block(trans, bytenr, level, block.generation)?;
                    let path = TreePath {
                        tree: root,
                        level,
                        key: node.key(0).unwrap_or(Key::MIN),
                        bytenr,
                    };
                    seeds.paths.push(path, GFP_KERNEL)?;
                    return Ok(None);
                }
                _ => {
                    fs_err!(
                        fs,
                        "tree block {} has {} references, one of which it cannot have: {}",
                        bytenr,
                        refs.len(),
                        r.kind
                    );
                    return Err(EUCLEAN);
                }
            }
        }
        block.refs = refs;
        Ok(Some(block))
    }

    /// Finds the parent of a block that the tree `root` refers to, by the block's first key: its
    /// level and address; `None` for the root of that tree.
    fn parent_in(
        &self,
        root: u64,
        level: u8,
        bytenr: u64,
        generation: u64,
    ) -> Result<Option<(u8, u64)>> {
        let trans = self.trans;
        let missing = || {
            fs_err!(
                trans.fs(),
                "backref of tree block {} level {} names root {}, which does not lead to it",
                bytenr,
                level,
                root
            );
            EIO
        };
        let or_missing = |e| if e == ENOENT { missing() } else { e };
        let tree = trans.root(root).map_err(or_missing)?;
        if tree.bytenr == bytenr {
            expect_generation(trans, &tree.into(), generation)?;
            return Ok(None);
        }
        let node = read_block(trans, bytenr, level, generation)?;
        let key = node.key(0).ok_or_else(missing)?;
        drop(node);
        let above = level.checked_add(1).ok_or(EUCLEAN)?;
        let parent = descend(trans, &tree, &key, above).map_err(or_missing)?;
        let child = parent.child_ptr(parent.child_slot(&key), root);
        let child = child.filter(|child| child.bytenr == bytenr);
        expect_generation(trans, &child.ok_or_else(missing)?, generation)?;
        Ok(Some((above, parent.bytenr())))
    }
}
