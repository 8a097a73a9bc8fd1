// SPDX-License-Identifier: GPL-2.0
//! The parents of a tree block, and the trees that lead to it.

use crate::extent::backref::{all_refs, find_extent};
use crate::extent::refs::RefKind;
use crate::format::{tree_id, Key};
use crate::number_set::NumberSet;
use crate::sort::sort_by;
use crate::trans::Reader;
use crate::tree::{NodePtr, Nodes, TreeRoot};
use kernel::prelude::*;

/// Reads the block at the logical address `bytenr`; a `generation` of 0 takes any.
///
/// # Errors
///
/// Those of reading nodes.
pub fn read_block<S: Nodes>(
    nodes: &S,
    bytenr: u64,
    level: u8,
    generation: u64,
) -> Result<S::Ref<'_>> {
    nodes.node(&NodePtr {
        bytenr,
        generation,
        level,
        tree: 0,
        first_key: None,
    })
}

/// Walks from `root` to the block at `level` on the path of `key`.
///
/// # Errors
///
/// `ENOENT` if the tree is not that high; those of reading nodes.
pub fn descend<'s, S: Nodes>(
    nodes: &'s S,
    root: &TreeRoot,
    key: &Key,
    level: u8,
) -> Result<S::Ref<'s>> {
    if root.level < level {
        return Err(ENOENT);
    }
    let mut node = nodes.node(&NodePtr::from(*root))?;
    while node.level() > level {
        let slot = node.child_slot(key);
        let child = node.child_ptr(slot, root.id).ok_or(EUCLEAN)?;
        node = nodes.node(&child)?;
    }
    Ok(node)
}

/// The root of a tree, if the tree exists.
pub(super) fn tree(reader: &Reader, id: u64) -> Result<Option<TreeRoot>> {
    match reader.root(id) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error == ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// The trees that the leaf at the logical address `leaf` belongs to (`btrfs_find_all_roots`), in
/// the C driver's order: level by level up, at each block its references by tree before those by
/// parent, larger numbers first. The parents of a block with more than `max_refs` references are
/// not looked for.
///
/// # Errors
///
/// `EUCLEAN` for damaged trees, `ENOMEM`, and those of reading nodes.
pub fn roots_of(reader: &Reader, leaf: u64, max_refs: u64) -> Result<KVec<u64>> {
    let mut up = Ancestors {
        reader,
        extent_root: reader.root(tree_id::EXTENT)?,
        max_refs,
        roots: KVec::new(),
        seen_roots: NumberSet::new(),
        blocks: KVec::new(),
        seen_blocks: NumberSet::new(),
    };
    let mut at = leaf;
    let mut next = 0usize;
    loop {
        up.climb(at)?;
        let Some(block) = up.blocks.get(next) else {
            return Ok(up.roots);
        };
        at = *block;
        next = next.saturating_add(1);
        crate::platform::yield_now();
    }
}

struct Ancestors<'r> {
    reader: &'r Reader,
    extent_root: TreeRoot,
    max_refs: u64,
    roots: KVec<u64>,
    seen_roots: NumberSet,
    blocks: KVec<u64>,
    seen_blocks: NumberSet,
}

impl Ancestors<'_> {
    fn add_root(&mut self, root: u64) -> Result {
        if self.seen_roots.insert(root)? {
            self.roots.push(root, GFP_KERNEL)?;
        }
        Ok(())
    }

    fn add_block(&mut self, block: u64) -> Result {
        if self.seen_blocks.insert(block)? {
            self.blocks.push(block, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Adds the blocks above `bytenr`, or the trees whose root it is.
    fn climb(&mut self, bytenr: u64) -> Result {
        let (reader, fs) = (self.reader, self.reader.fs());
        let Some(extent) = find_extent(fs, reader, self.extent_root, bytenr)? else {
            return Ok(());
        };
        let level = extent.level().ok_or(EUCLEAN)?;
        if extent.record.refs > self.max_refs {
            return Ok(());
        }
        let mut trees = KVec::new();
        let mut parents = KVec::new();
        for counted in all_refs(fs, reader, self.extent_root, &extent)?.iter() {
            match counted.kind {
                RefKind::TreeBlock { root } => trees.push(root, GFP_KERNEL)?,
                RefKind::SharedBlock { parent } => parents.push(parent, GFP_KERNEL)?,
                _ => return Err(EUCLEAN),
            }
        }
        sort_by(&mut trees, |a, b| b.cmp(a));
        sort_by(&mut parents, |a, b| b.cmp(a));
        if !trees.is_empty() {
            let key = read_block(reader, bytenr, level, 0)?
                .key(0)
                .ok_or(EUCLEAN)?;
            for id in trees.iter().filter(|id| **id != tree_id::DATA_RELOC) {
                match tree(reader, *id)? {
                    Some(root) if root.level != level => {
                        let above = level.saturating_add(1).min(root.level);
                        let parent = descend(reader, &root, &key, above)?;
                        self.add_block(parent.bytenr())?;
                    }
                    _ => self.add_root(*id)?,
                }
            }
        }
        for parent in parents.iter() {
            self.add_block(*parent)?;
        }
        Ok(())
    }
}
