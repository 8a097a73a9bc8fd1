// SPDX-License-Identifier: GPL-2.0
//! The roots of one commit.

use crate::device::SuperBuf;
use crate::format::header::MAX_LEVEL;
use crate::format::root::RootItem;
use crate::format::{item_type, tree_id, Key};
use crate::fs_err;
use crate::tree::{Cursor, Nodes, TreeRoot};
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNode};
use kernel::sync::{new_mutex, Arc, Mutex};

/// How many root items are kept: those that count are few, whatever the number of snapshots.
const KEPT: usize = 64;

/// Where all trees of a commit start. It never changes; the next commit has its own.
pub struct CommitRoots {
    /// The superblock of the commit.
    pub superblock: SuperBuf,
    /// The generation of the last commit since the mount that moved blocks or extents; 0 if none
    /// has.
    pub(crate) relocated: u64,
    /// Root items that were looked up, up to [`KEPT`].
    items: Pin<KBox<Mutex<Kept>>>,
}

struct Kept {
    items: RBTree<u64, Arc<RootItem>>,
    count: usize,
}

impl CommitRoots {
    /// The roots that a superblock leads to. `relocated` is the last commit that moved blocks or
    /// extents.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(superblock: &SuperBuf, relocated: u64) -> Result<Arc<Self>> {
        let kept = Kept {
            items: RBTree::new(),
            count: 0,
        };
        let roots = Self {
            superblock: superblock.try_clone()?,
            relocated,
            items: KBox::pin_init(new_mutex!(kept, "CommitRoots::items"), GFP_KERNEL)?,
        };
        Ok(Arc::new(roots, GFP_KERNEL)?)
    }

    /// The root of the tree of roots.
    pub fn root_tree(&self) -> TreeRoot {
        let sb = &self.superblock;
        TreeRoot {
            id: tree_id::ROOT,
            bytenr: sb.root.get(),
            level: sb.root_level,
            generation: sb.generation.get(),
        }
    }

    /// The root of the chunk tree.
    pub fn chunk_tree(&self) -> TreeRoot {
        let sb = &self.superblock;
        TreeRoot {
            id: tree_id::CHUNK,
            bytenr: sb.chunk_root.get(),
            level: sb.chunk_root_level,
            generation: sb.chunk_root_generation.get(),
        }
    }

    pub(crate) fn root(&self, nodes: &impl Nodes, tree: u64) -> Result<TreeRoot> {
        match tree {
            tree_id::ROOT => Ok(self.root_tree()),
            tree_id::CHUNK => Ok(self.chunk_tree()),
            _ => Ok(TreeRoot::of(tree, self.root_item(nodes, tree)?.block())),
        }
    }

    pub(super) fn root_item(&self, nodes: &impl Nodes, tree: u64) -> Result<Arc<RootItem>> {
        if let Some(item) = self.items.lock().items.get(&tree) {
            return Ok(item.clone());
        }
        let item = self.read_item(nodes, tree)?;
        // Nothing depends on its being kept.
        if let Ok(node) = RBTreeNode::new(tree, item.clone(), GFP_KERNEL) {
            let mut kept = self.items.lock();
            if kept.count < KEPT && kept.items.insert(node).is_none() {
                kept.count = kept.count.saturating_add(1);
            }
        }
        Ok(item)
    }

    /// Looks an item up in the tree of roots.
    fn read_item(&self, nodes: &impl Nodes, tree: u64) -> Result<Arc<RootItem>> {
        // A snapshot's item has its generation as key offset, so the offset is not known
        // beforehand.
        let mut cursor = Cursor::new(nodes, self.root_tree());
        if !cursor.seek_before(&Key::new(tree, item_type::ROOT_ITEM, u64::MAX))? {
            return Err(ENOENT);
        }
        let (key, bytes) = cursor.item().ok_or(ENOENT)?;
        if !key.is(tree, item_type::ROOT_ITEM) {
            return Err(ENOENT);
        }
        let item = match RootItem::parse_shared(bytes) {
            Ok(item) => item,
            Err(EUCLEAN) => {
                let size = bytes.len();
                fs_err!(nodes, "corrupt root item {key}: invalid size, have {size}");
                return Err(EUCLEAN);
            }
            Err(error) => return Err(error),
        };
        self.check_item(nodes, &key, &item)?;
        Ok(item)
    }

    fn check_item(&self, nodes: &impl Nodes, key: &Key, item: &RootItem) -> Result {
        let sector = u64::from(self.superblock.sectorsize.get());
        let bytenr = item.bytenr.get();
        let generation = item.generation.get();
        let fault = if bytenr == 0 || bytenr.checked_rem(sector) != Some(0) {
            Some(("invalid root bytenr", bytenr))
        } else if item.level >= MAX_LEVEL {
            Some(("invalid root level", item.level.into()))
        } else if item.drop_level >= MAX_LEVEL {
            Some(("invalid root drop_level", item.drop_level.into()))
        } else if generation > self.superblock.generation.get() {
            Some(("invalid root generation", generation))
        } else {
            None
        };
        match fault {
            None => Ok(()),
            Some((what, found)) => {
                fs_err!(nodes, "corrupt root item {key}: {what}, have {found}");
                Err(EUCLEAN)
            }
        }
    }
}
