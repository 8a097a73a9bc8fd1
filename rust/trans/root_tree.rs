// SPDX-License-Identifier: GPL-2.0
//! The roots of all trees as the running transaction has them, and their items in the root tree.
//!
//! The roots of the root tree and of the chunk tree are in the superblock; every other tree has a
//! root item, which is written once, at commit.

use super::transaction::Transaction;
use crate::format::root::RootItem;
use crate::format::{item_type, tree_id, Key};
use crate::tree::cursor::Cursor;
use crate::tree::edit;
use crate::tree::{EditContext, Nodes, TreeRoot};
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use zerocopy::IntoBytes;

/// A tree as the running transaction has it.
pub struct RunningRoot {
    /// Its root.
    pub root: TreeRoot,
    /// Its root item, but for what `root` tells better, and the item's key. The root and chunk
    /// trees have none.
    item: Option<(Key, KBox<RootItem>)>,
    /// The root item has to be written.
    dirty: bool,
}

impl RunningRoot {
    /// The last transaction in which blocks of the tree came to be shared: younger ones have one
    /// holder.
    pub fn last_snapshot(&self) -> u64 {
        self.item
            .as_ref()
            .map_or(0, |(_, item)| item.last_snapshot.get())
    }
}

/// The trees that the running transaction has looked up, by id.
pub struct RunningRoots {
    roots: RBTree<u64, RunningRoot>,
}

impl RunningRoots {
    /// No trees but the two that the superblock knows.
    pub fn new(root_tree: TreeRoot, chunk_tree: TreeRoot) -> Result<Self> {
        let mut roots = RBTree::new();
        for root in [root_tree, chunk_tree] {
            let running = RunningRoot {
                root,
                item: None,
                dirty: false,
            };
            roots.try_create_and_insert(root.id, running, GFP_KERNEL)?;
        }
        Ok(RunningRoots { roots })
    }

    /// The tree with this id, if it was looked up.
    pub fn get(&self, tree: u64) -> Option<&RunningRoot> {
        self.roots.get(&tree)
    }

    /// The trees that this transaction has changed so far, unless their root items were written
    /// meanwhile.
    pub(crate) fn changed(&self) -> impl Iterator<Item = u64> + '_ {
        let dirty = self.roots.iter().filter(|(_, running)| running.dirty);
        dirty.map(|(id, _)| *id)
    }

    /// The root of a tree, which may not have been looked up yet: in that case the root tree is
    /// read through `nodes`.
    pub(crate) fn root<S: Nodes>(&self, nodes: &S, tree: u64) -> Result<TreeRoot> {
        match self.roots.get(&tree) {
            Some(running) => Ok(running.root),
            None => {
                let root_tree = self.get(tree_id::ROOT).ok_or(EINVAL)?.root;
                find_root(nodes, root_tree, tree)
            }
        }
    }

    /// The root item of a tree, found in the same way.
    pub(crate) fn item<S: Nodes>(&self, nodes: &S, tree: u64) -> Result<KBox<RootItem>> {
        match self.roots.get(&tree) {
            Some(running) => running.item.as_ref().ok_or(ENOENT)?.1.try_clone(),
            None => {
                let root_tree = self.get(tree_id::ROOT).ok_or(EINVAL)?.root;
                Ok(find_root_item(nodes, root_tree, tree)?.1)
            }
        }
    }

    /// The trees whose root items have to be written.
    fn dirty(&self) -> Result<KVec<u64>> {
        let mut ids = KVec::new();
        for (id, running) in self.roots.iter() {
            if running.dirty && running.item.is_some() {
                ids.push(*id, GFP_KERNEL)?;
            }
        }
        Ok(ids)
    }
}

impl Transaction<'_> {
    /// The root item of `tree` in the running root tree.
    fn find_root_item(&self, tree: u64) -> Result<(Key, KBox<RootItem>)> {
        let root_tree = self.roots.get(tree_id::ROOT).ok_or(EINVAL)?.root;
        find_root_item(self, root_tree, tree)
    }

    /// See [`EditContext::root`].
    pub(super) fn lookup_root(&self, tree: u64) -> Result<TreeRoot> {
        self.roots.root(self, tree)
    }

    /// The tree with this id, looked up for the rest of the transaction.
    pub(crate) fn running_root(&mut self, tree: u64) -> Result<&mut RunningRoot> {
        if self.roots.get(tree).is_none() {
            let (key, item) = self.find_root_item(tree)?;
            let running = RunningRoot {
                root: item_root(tree, &item),
                item: Some((key, item)),
                dirty: false,
            };
            self.roots
                .roots
                .try_create_and_insert(tree, running, GFP_KERNEL)?;
        }
        self.roots.roots.get_mut(&tree).ok_or(EINVAL)
    }

    /// The root item of `tree` as the transaction has it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such tree or it has no root item.
    pub fn root_item(&self, tree: u64) -> Result<KBox<RootItem>> {
        self.roots.item(self, tree)
    }

    /// The key of the root item of `tree`.
    ///
    /// # Errors
    ///
    /// As for [`Self::root_item`].
    pub fn root_key(&self, tree: u64) -> Result<Key> {
        match self.roots.get(tree) {
            Some(running) => Ok(running.item.as_ref().ok_or(ENOENT)?.0),
            None => Ok(self.find_root_item(tree)?.0),
        }
    }

    /// Changes the root item of `tree`. What the tree's root tells (address, level, generation) is
    /// set at commit.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such tree or it has no root item; those of `change`.
    pub fn update_root_item(
        &mut self,
        tree: u64,
        change: impl FnOnce(&mut RootItem) -> Result,
    ) -> Result {
        self.handle.changed = true;
        let running = self.running_root(tree)?;
        let (_, item) = running.item.as_mut().ok_or(ENOENT)?;
        change(item)?;
        running.dirty = true;
        Ok(())
    }

    /// Tells that blocks of `tree` are shared by other holders as of this transaction: from now on,
    /// those of its blocks that this transaction made have their references looked up, and are not
    /// changed in place any more.
    pub fn set_last_snapshot(&mut self, tree: u64) -> Result {
        let transid = self.transid();
        self.update_root_item(tree, |item| {
            item.last_snapshot = transid.into();
            Ok(())
        })?;
        let root = self.running_root(tree)?.root;
        self.dirty.share_blocks_of(tree, root.bytenr);
        Ok(())
    }

    /// Adds a tree: its root item at `key`, whose root is a block of this transaction.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is a root item at this key.
    pub fn insert_root(&mut self, key: &Key, item: KBox<RootItem>) -> Result {
        edit::insert(self, tree_id::ROOT, key, item.as_bytes())?;
        let running = RunningRoot {
            root: item_root(key.objectid, &item),
            item: Some((*key, item)),
            dirty: true,
        };
        self.roots
            .roots
            .try_create_and_insert(key.objectid, running, GFP_KERNEL)?;
        Ok(())
    }

    /// Removes the root item of a tree whose blocks are all gone.
    pub fn remove_root(&mut self, tree: u64) -> Result {
        let (key, _) = self.find_root_item(tree)?;
        self.keep_objectids(tree_id::ROOT)?;
        self.handle.writer.free_objectids.forget(tree);
        self.roots.roots.remove(&tree);
        edit::delete(self, tree_id::ROOT, &key)
    }

    /// See [`EditContext::set_root`].
    pub(super) fn switch_root(&mut self, tree: u64, root: TreeRoot) -> Result {
        self.handle.changed = true;
        let running = self.running_root(tree)?;
        running.root = root;
        running.dirty = true;
        Ok(())
    }

    /// Counts blocks that a tree gained, or lost if negative, in its root item.
    pub(crate) fn count_used(&mut self, tree: u64, blocks: i64) -> Result {
        let nodesize = i64::from(u32::from(self.geometry().nodesize));
        let running = self.running_root(tree)?;
        if let Some((_, item)) = running.item.as_mut() {
            // The number is informative, and on old volumes it may be wrong.
            let bytes = nodesize.saturating_mul(blocks);
            let used = item.bytes_used.get().saturating_add_signed(bytes);
            item.bytes_used = used.into();
            running.dirty = true;
        }
        Ok(())
    }

    /// Writes the root items of all trees that changed. True if there were any; writing changes
    /// trees again.
    pub(super) fn write_root_items(&mut self) -> Result<bool> {
        let trees = self.roots.dirty()?;
        for tree in &trees {
            let running = self.running_root(*tree)?;
            running.dirty = false;
            let root = running.root;
            let Some((key, item)) = running.item.as_mut() else {
                continue;
            };
            item.bytenr = root.bytenr.into();
            item.level = root.level;
            item.generation = root.generation.into();
            // Equal, or else everything after it is taken as not valid.
            item.generation_v2 = item.generation;
            let (key, item) = (*key, item.try_clone()?);
            edit::replace(self, tree_id::ROOT, &key, item.as_bytes()).inspect_err(|e| {
                if *e == ENOENT {
                    crate::fs_err!(self.fs(), "unable to find root key {key} in tree 1");
                }
            })?;
        }
        Ok(!trees.is_empty())
    }
}

/// The root item of `tree` in a root tree, and its key.
fn find_root_item<S: Nodes>(
    nodes: &S,
    root_tree: TreeRoot,
    tree: u64,
) -> Result<(Key, KBox<RootItem>)> {
    let mut cursor = Cursor::new(nodes, root_tree);
    let (key, bytes) = seek_root_item(&mut cursor, tree)?;
    match RootItem::parse_boxed(bytes) {
        Ok(item) => Ok((key, item)),
        Err(error) => Err(bad_root_item(nodes, &key, error)),
    }
}

/// The root of `tree` by its item in a root tree.
fn find_root<S: Nodes>(nodes: &S, root_tree: TreeRoot, tree: u64) -> Result<TreeRoot> {
    let mut cursor = Cursor::new(nodes, root_tree);
    let (key, bytes) = seek_root_item(&mut cursor, tree)?;
    match RootItem::block_of(bytes) {
        Ok(block) => Ok(TreeRoot::of(tree, block)),
        Err(error) => Err(bad_root_item(nodes, &key, error)),
    }
}

fn seek_root_item<'c, S: Nodes>(
    cursor: &'c mut Cursor<'_, S>,
    tree: u64,
) -> Result<(Key, &'c [u8])> {
    // A snapshot's item has its generation as key offset, so the offset is not known beforehand.
    cursor.seek_before(&Key::new(tree, item_type::ROOT_ITEM, u64::MAX))?;
    let found = cursor.item();
    found
        .filter(|(key, _)| key.is(tree, item_type::ROOT_ITEM))
        .ok_or(ENOENT)
}

#[cold]
fn bad_root_item<S: Nodes>(nodes: &S, key: &Key, error: Error) -> Error {
    if error == EUCLEAN {
        crate::fs_err!(nodes, "corrupt root item: key {key}");
    }
    error
}

fn item_root(tree: u64, item: &RootItem) -> TreeRoot {
    TreeRoot::of(tree, item.block())
}
