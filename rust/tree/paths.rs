// SPDX-License-Identifier: GPL-2.0
//! Reading the ways to several keys ahead, all of them at once.

use super::cache::NodeCache;
use super::node::{NodePtr, TreeRoot};
use crate::format::Key;
use kernel::prelude::*;

impl NodeCache {
    /// Reads the nodes that searches for these keys will come by, those of all trees at once. What
    /// fails is left for the searches to report.
    pub fn prefetch_paths(&self, goals: impl Iterator<Item = (TreeRoot, Key)>) {
        let _ = self.try_paths(goals);
    }

    fn try_paths(&self, goals: impl Iterator<Item = (TreeRoot, Key)>) -> Result {
        let mut ways: KVec<(NodePtr, Key)> = KVec::new();
        for (root, key) in goals {
            ways.push((root.into(), key), GFP_KERNEL)?;
        }
        let mut missing: KVec<NodePtr> = KVec::new();
        loop {
            missing.clear();
            for (ptr, key) in ways.iter_mut() {
                while let Some(child) = self.step(ptr, key) {
                    *ptr = child;
                }
                if self.cached(ptr).is_none() {
                    missing.push(*ptr, GFP_KERNEL)?;
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            self.prefetch(&missing);
            // One that could not be read leads no further.
            ways.retain(|(ptr, _)| ptr.level > 0 && self.cached(ptr).is_some());
        }
    }

    /// The child on the way to `key`, which is one level down; `None` below a leaf and where the
    /// node is not in memory.
    fn step(&self, ptr: &NodePtr, key: &Key) -> Option<NodePtr> {
        let node = self.cached(ptr)?;
        if node.level() != ptr.level {
            return None;
        }
        node.child_ptr(node.child_slot(key), ptr.tree)
    }
}
