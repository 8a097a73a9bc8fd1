// SPDX-License-Identifier: GPL-2.0
//! Reading log trees.
//!
//! Their blocks are proved like those of any tree: the owner of each is `TREE_LOG`, and its
//! generation that of the transaction that was running when the log was written, which is one above
//! the last commit.

use crate::format::header::MAX_LEVEL;
use crate::format::root::RootItem;
use crate::format::{item_type, tree_id, Key};
use crate::fs_err;
use crate::tree::check::{check_tree, Fault};
use crate::tree::{Cursor, Node, NodePtr, Nodes, TreeRoot};
use crate::volume::Fs;
use kernel::prelude::*;
use kernel::sync::Arc;

/// The blocks of the log of a volume.
pub(super) struct LogNodes {
    fs: Fs,
    /// The generation of all of them.
    transid: u64,
}

/// A log tree and the subvolume that it is for.
#[derive(Clone, Copy)]
pub(super) struct LogTree {
    /// The id of the subvolume's tree.
    pub(super) subvol: u64,
    /// Its root.
    pub(super) root: TreeRoot,
}

impl LogNodes {
    /// The blocks of the log that the last commit of the volume was followed by.
    pub(super) fn new(fs: &Fs) -> Result<Self> {
        let transid = fs.generation().checked_add(1).ok_or(EUCLEAN)?;
        Ok(LogNodes {
            fs: fs.clone(),
            transid,
        })
    }

    /// The root of the tree of log trees.
    pub(super) fn log_root(&self) -> Result<TreeRoot> {
        let reader = self.fs.reader()?;
        let superblock = reader.superblock();
        Ok(TreeRoot {
            id: tree_id::TREE_LOG,
            bytenr: superblock.log_root.get(),
            level: superblock.log_root_level,
            generation: self.transid,
        })
    }

    /// All log trees, in the order of the C driver: that of the highest subvolume first.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for what is not a root item of a log tree; those of reading; `ENOMEM`.
    pub(super) fn trees(&self) -> Result<KVec<LogTree>> {
        let mut trees = KVec::new();
        let mut cursor = Cursor::new(self, self.log_root()?);
        cursor.seek(&Key::MIN)?;
        while let Some((key, data)) = cursor.item() {
            let block = RootItem::block_of(data)?;
            let is_log = key.objectid == tree_id::TREE_LOG
                && key.typ == item_type::ROOT_ITEM
                && tree_id::is_fs_tree(key.offset);
            if !is_log || block.level >= MAX_LEVEL {
                fs_err!(self.fs, "corrupt log root tree: {key} is no log tree");
                return Err(EUCLEAN);
            }
            let tree = LogTree {
                subvol: key.offset,
                root: TreeRoot::of(tree_id::TREE_LOG, block),
            };
            trees.push(tree, GFP_KERNEL)?;
            cursor.next()?;
        }
        trees.reverse();
        Ok(trees)
    }

    /// Checks all blocks of a log tree, alone and against each other.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` or that of reading, after a line for each fault; `ENOMEM`.
    pub(super) fn check(&self, root: TreeRoot) -> Result {
        let mut error = None;
        check_tree(self, root, self.transid, &mut |problem| {
            fs_err!(self.fs, "corrupt log tree: {problem}");
            error = error.or(Some(match problem.fault {
                Fault::Unreadable(error) => error,
                _ => EUCLEAN,
            }));
        })?;
        error.map_or(Ok(()), Err)
    }

    /// Calls `each` for every block of a log tree, parents first.
    ///
    /// # Errors
    ///
    /// Those of reading and of `each`; `ENOMEM`.
    pub(super) fn for_each_block(
        &self,
        root: TreeRoot,
        each: &mut dyn FnMut(&Node) -> Result,
    ) -> Result {
        let mut ptrs = KVec::new();
        ptrs.push(NodePtr::from(root), GFP_KERNEL)?;
        while let Some(ptr) = ptrs.pop() {
            let node = self.node(&ptr)?;
            each(&node)?;
            if node.is_leaf() {
                continue;
            }
            for slot in (0..node.nritems() as usize).rev() {
                let child = node.child_ptr(slot, root.id).ok_or(EUCLEAN)?;
                ptrs.push(child, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// The data of the item at `key` of a log tree, or `None`.
    ///
    /// # Errors
    ///
    /// Those of reading; `ENOMEM`.
    pub(super) fn get(&self, root: TreeRoot, key: &Key) -> Result<Option<KVec<u8>>> {
        let mut cursor = Cursor::new(self, root);
        if !cursor.seek(key)? {
            return Ok(None);
        }
        let (_, found) = cursor.item().ok_or(EUCLEAN)?;
        let mut data = KVec::with_capacity(found.len(), GFP_KERNEL)?;
        data.extend_from_slice(found, GFP_KERNEL)?;
        Ok(Some(data))
    }
}

impl Nodes for LogNodes {
    type Ref<'a> = Arc<Node>;

    fn node(&self, ptr: &NodePtr) -> Result<Arc<Node>> {
        if ptr.generation != self.transid {
            fs_err!(
                self.fs,
                "corrupt log tree: generation of block {} is {}, expected {}",
                ptr.bytenr,
                ptr.generation,
                self.transid
            );
            return Err(EUCLEAN);
        }
        self.fs.cache.get(ptr)
    }

    fn prefetch(&self, ptrs: &[NodePtr]) {
        self.fs.cache.prefetch(ptrs);
    }

    fn name(&self) -> &str {
        self.fs.name()
    }
}
