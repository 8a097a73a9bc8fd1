// SPDX-License-Identifier: GPL-2.0
//! One consistent view of the volume: that of a commit.

use super::epoch::EpochGuard;
use super::sealed::SealedNodes;
use super::CommitRoots;
use crate::device::SuperBuf;
use crate::format::root::RootItem;
use crate::format::Key;
use crate::tree::{Cursor, Node, NodePtr, Nodes, TreeRoot};
use crate::volume::fs::Fs;
use kernel::prelude::*;
use kernel::sync::Arc;

/// What a reader consists of, less the reference to the volume.
pub(crate) type ReaderParts = (Arc<CommitRoots>, EpochGuard, Option<Arc<SealedNodes>>);

/// Reads the volume as of the last commit before it was made. Nothing that this commit refers to is
/// overwritten as long as it lives. It holds no lock.
#[derive(Clone)]
pub struct Reader {
    fs: Fs,
    roots: Arc<CommitRoots>,
    _epoch: EpochGuard,
    /// The blocks of the commit, as long as they may not be on disk yet.
    sealed: Option<Arc<SealedNodes>>,
}

impl Reader {
    pub(crate) fn new(
        fs: Fs,
        roots: Arc<CommitRoots>,
        epoch: EpochGuard,
        sealed: Option<Arc<SealedNodes>>,
    ) -> Self {
        Self {
            fs,
            roots,
            _epoch: epoch,
            sealed,
        }
    }

    /// See [`Self::into_parts`].
    pub(super) fn from_parts(fs: Fs, (roots, epoch, sealed): ReaderParts) -> Self {
        Self::new(fs, roots, epoch, sealed)
    }

    /// Keeps what the reader sees from being overwritten, after it as well.
    pub(crate) fn epoch(&self) -> EpochGuard {
        self._epoch.clone()
    }

    /// What the reader consists of, less the reference to the volume.
    pub(super) fn into_parts(self) -> ReaderParts {
        (self.roots, self._epoch, self.sealed)
    }

    /// If the commit is on disk by now, makes this a reader like any other: blocks are where all
    /// look for them, and what the commit freed need not be kept.
    pub(super) fn unseal(&mut self) {
        if self.sealed.is_none() || self.fs.generation() < self.generation() {
            return;
        }
        self.sealed = None;
        // The older epoch only keeps more than it has to.
        if let Ok(epoch) = self.fs.epochs.enter() {
            self._epoch = epoch;
        }
    }

    /// A block of a sealed commit.
    fn sealed(&self, ptr: &NodePtr) -> Option<Arc<Node>> {
        self.sealed.as_ref()?.get(ptr).cloned()
    }

    /// The volume.
    pub fn fs(&self) -> &Fs {
        &self.fs
    }

    /// The generation of the commit.
    pub fn generation(&self) -> u64 {
        self.superblock().generation.get()
    }

    /// The generation of the last commit since the mount that moved blocks or extents; 0 if none
    /// has.
    pub fn relocated(&self) -> u64 {
        self.roots.relocated
    }

    /// The superblock of the commit.
    pub fn superblock(&self) -> &SuperBuf {
        &self.roots.superblock
    }

    /// The root of a tree.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such tree, `EUCLEAN` for a bad root item, and what reading nodes
    /// gives.
    pub fn root(&self, tree: u64) -> Result<TreeRoot> {
        self.roots.root(self, tree)
    }

    /// The root item of a tree that has one: any but those of roots and of chunks.
    ///
    /// # Errors
    ///
    /// As [`Self::root`].
    pub fn root_item(&self, tree: u64) -> Result<Arc<RootItem>> {
        self.roots.root_item(self, tree)
    }

    /// A cursor over a tree.
    pub fn cursor(&self, root: TreeRoot) -> Cursor<'_, Reader> {
        Cursor::new(self, root)
    }

    /// A node, if it is in memory.
    pub fn cached(&self, ptr: &NodePtr) -> Option<Arc<Node>> {
        self.sealed(ptr).or_else(|| self.fs.cache.cached(ptr))
    }

    /// Reads the nodes that searches for these keys will come by, those of all trees at once. What
    /// fails is left for the searches to report.
    pub fn prefetch_paths(&self, goals: impl Iterator<Item = (TreeRoot, Key)>) {
        // Of a sealed commit, all that is new is in memory.
        if self.sealed.is_none() {
            self.fs.cache.prefetch_paths(goals);
        }
    }

    /// Fills `buf` with what is at a logical address, unchecked. Address and size are multiples of
    /// the sector size. `mirror` counts from 1; 0 is any copy that the device can read.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if the range does not lie within one chunk, `EINVAL` if there is no such copy,
    /// `EIO`.
    pub fn read_logical(&self, logical: u64, buf: &mut [u8], mirror: u32) -> Result {
        let chunks = self.fs.chunk_map();
        let mirrors = chunks.mirrors(logical, buf.len() as u64)?;
        if mirror != 0 {
            return self.fs.device.read(mirrors.get(mirror).ok_or(EINVAL)?, buf);
        }
        let mut result = Err(EIO);
        for physical in mirrors.iter() {
            result = self.fs.device.read(physical, buf);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl Nodes for Reader {
    type Ref<'a> = Arc<Node>;

    fn node(&self, ptr: &NodePtr) -> Result<Arc<Node>> {
        match self.sealed(ptr) {
            Some(node) => Ok(node),
            None => self.fs.cache.get(ptr),
        }
    }

    fn prefetch(&self, ptrs: &[NodePtr]) {
        let is_sealed = |ptr: &NodePtr| self.sealed(ptr).is_some();
        for on_disk in ptrs.split(is_sealed).filter(|ptrs| !ptrs.is_empty()) {
            self.fs.cache.prefetch(on_disk);
        }
    }

    fn name(&self) -> &str {
        self.fs.name()
    }
}
