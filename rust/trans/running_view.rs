// SPDX-License-Identifier: GPL-2.0
//! The volume as it is now: the newest commit with the running transaction's changes on top.

use super::dirty::NodeRef;
use super::reader::Reader;
use super::running::Running;
use super::transaction::{Transaction, WriterState};
use crate::extent::delayed_ref::RefHead;
use crate::format::root::RootItem;
use crate::platform::NofsScope;
use crate::tree::{EditContext, NodePtr, Nodes, TreeRoot};
use crate::volume::fs::Fs;
use kernel::prelude::*;
use kernel::sync::MutexGuard;

/// A state of the volume that can be read: a commit, or the running transaction.
pub trait View: Nodes {
    /// The root of a tree.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such tree; errors of reading.
    fn tree_root(&self, tree: u64) -> Result<TreeRoot>;

    /// The root item of a tree.
    ///
    /// # Errors
    ///
    /// As for [`Self::tree_root`].
    fn tree_root_item(&self, tree: u64) -> Result<KBox<RootItem>>;

    /// What the extent tree of this state is still to be told of the extent at a logical address.
    fn queued(&self, bytenr: u64) -> Option<&RefHead>;

    /// The volume.
    fn volume(&self) -> &Fs;
}

impl View for Reader {
    fn tree_root(&self, tree: u64) -> Result<TreeRoot> {
        self.root(tree)
    }

    fn tree_root_item(&self, tree: u64) -> Result<KBox<RootItem>> {
        self.root_item(tree)?.try_clone()
    }

    fn queued(&self, _bytenr: u64) -> Option<&RefHead> {
        None
    }

    fn volume(&self) -> &Fs {
        self.fs()
    }
}

impl View for Transaction<'_> {
    fn tree_root(&self, tree: u64) -> Result<TreeRoot> {
        EditContext::root(self, tree)
    }

    fn tree_root_item(&self, tree: u64) -> Result<KBox<RootItem>> {
        self.root_item(tree)
    }

    fn queued(&self, bytenr: u64) -> Option<&RefHead> {
        self.refs.get(bytenr)
    }

    fn volume(&self) -> &Fs {
        self.fs()
    }
}

/// The volume as it is now. If that is more than the last commit, the writer's mutex is held:
/// nobody changes anything meanwhile, so that it must be dropped before any wait, and before user
/// memory is touched.
pub struct RunningView<'fs> {
    // Dropped before the reader, and before allocations may enter the filesystem again.
    writer: Option<MutexGuard<'fs, WriterState>>,
    _nofs: Option<NofsScope>,
    base: Reader,
}

impl Fs {
    /// A view of `tree` as it is now. As long as no operation changed the tree since the last
    /// commit, that is a view of the last commit and takes no lock. Of other trees, it may show an
    /// older state than this one's.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn running_view(&self, tree: u64) -> Result<RunningView<'_>> {
        self.running_view_of(&[tree])
    }

    /// As [`Self::view`], of several trees.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn running_view_of(&self, trees: &[u64]) -> Result<RunningView<'_>> {
        let changed = {
            let running = self.running_trees.lock();
            trees.iter().any(|tree| running.contains(*tree))
        };
        self.running_view_if(changed)
    }

    /// As [`Self::view`], of all trees, and of the references that operations of any tree gained or
    /// gave up.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn running_view_all(&self) -> Result<RunningView<'_>> {
        let changed = self.running_trees.lock().any();
        self.running_view_if(changed)
    }

    fn running_view_if(&self, changed: bool) -> Result<RunningView<'_>> {
        if changed {
            let nofs = NofsScope::enter();
            let writer = self.writer.lock();
            // Of what ran on top of a commit that failed, nothing is left.
            let running = writer.running.as_ref();
            if let Some(running) = running.filter(|_| self.failure().is_none()) {
                let base = Reader::from_parts(self.clone(), running.base.clone());
                return Ok(RunningView {
                    writer: Some(writer),
                    _nofs: Some(nofs),
                    base,
                });
            }
        }
        Ok(RunningView {
            writer: None,
            _nofs: None,
            base: self.newest()?,
        })
    }
}

impl Fs {
    /// Whether `tree` may have been changed since the last commit that is on disk.
    pub fn differs(&self, tree: u64) -> bool {
        self.running_trees.lock().contains(tree) || self.sealed.lock().is_some()
    }
}

impl RunningView<'_> {
    fn running(&self) -> Option<&Running> {
        self.writer.as_ref()?.running.as_ref()
    }

    /// Lets go of the writer's mutex, and keeps what was seen from being overwritten: data extents
    /// that were found through the view can be read as long as the reader lives.
    pub fn into_reader(self) -> Reader {
        self.base
    }
}

impl Nodes for RunningView<'_> {
    type Ref<'a>
        = NodeRef<'a>
    where
        Self: 'a;

    fn node(&self, ptr: &NodePtr) -> Result<NodeRef<'_>> {
        match self.running() {
            Some(running) => running.dirty.look_up(&self.base, ptr),
            None => Ok(NodeRef::Clean(self.base.node(ptr)?)),
        }
    }

    fn prefetch(&self, ptrs: &[NodePtr]) {
        self.base.prefetch(ptrs);
    }

    fn name(&self) -> &str {
        self.base.name()
    }
}

impl View for RunningView<'_> {
    fn tree_root(&self, tree: u64) -> Result<TreeRoot> {
        match self.running() {
            Some(running) => running.roots.root(self, tree),
            None => self.base.root(tree),
        }
    }

    fn tree_root_item(&self, tree: u64) -> Result<KBox<RootItem>> {
        match self.running() {
            Some(running) => running.roots.item(self, tree),
            None => self.base.tree_root_item(tree),
        }
    }

    fn queued(&self, bytenr: u64) -> Option<&RefHead> {
        self.running()?.refs.get(bytenr)
    }

    fn volume(&self) -> &Fs {
        self.base.fs()
    }
}
