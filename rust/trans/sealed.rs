// SPDX-License-Identifier: GPL-2.0
//! A commit between the moment when nothing of it changes any more and the one when it is on disk.
//!
//! Meanwhile the next transaction runs: it starts from the sealed commit, whose blocks it finds
//! here and not on the device. For whoever asks for the last commit nothing has changed yet. There
//! is one sealed commit at a time: the next one is sealed when this one is on disk, or has failed,
//! and then there is no next one.

use super::dirty::DirtyNodes;
use super::epoch::EpochGuard;
use super::reader::Reader;
use super::CommitRoots;
use crate::tree::{Node, NodePtr};
use crate::volume::fs::Fs;
use kernel::prelude::*;
use kernel::sync::Arc;

/// The blocks of a sealed commit.
///
/// # Invariants
///
/// They are in the ascending order of their addresses.
pub(crate) struct SealedNodes(KVVec<Arc<Node>>);

impl SealedNodes {
    /// Takes the blocks, each of which has its checksum.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: some of them are lost.
    pub(crate) fn new(dirty: &mut DirtyNodes) -> Result<Arc<Self>> {
        let mut nodes = KVVec::with_capacity(dirty.len(), GFP_KERNEL)?;
        // INVARIANT: The one with the lowest address comes first.
        while let Some(node) = dirty.pop_first() {
            nodes.push(Arc::new(node.into_node(), GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(Arc::new(Self(nodes), GFP_KERNEL)?)
    }

    /// The blocks in the order of their addresses.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.0.iter()
    }

    /// The block that `ptr` points to, if it is of this commit.
    pub(crate) fn get(&self, ptr: &NodePtr) -> Option<&Arc<Node>> {
        let found = self
            .0
            .binary_search_by_key(&ptr.bytenr, |node| node.bytenr());
        self.0.get(found.ok()?)
    }
}

/// A sealed commit.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) roots: Arc<CommitRoots>,
    pub(crate) nodes: Arc<SealedNodes>,
}

impl Sealed {
    pub(crate) fn generation(&self) -> u64 {
        self.roots.superblock.generation.get()
    }

    fn into_reader(self, fs: &Fs, epoch: EpochGuard) -> Reader {
        Reader::new(fs.clone(), self.roots, epoch, Some(self.nodes))
    }
}

impl Fs {
    /// A view of the newest commit, which may not be on disk yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn newest(&self) -> Result<Reader> {
        // The epoch is that of the last commit on disk, or of one before it: a sealed one does not
        // need less than that.
        let epoch = self.epochs.enter()?;
        let sealed = self.sealed.lock().clone();
        // A commit is published first, and is not sealed any more then.
        Ok(match sealed {
            Some(sealed) => sealed.into_reader(self, epoch),
            None => Reader::new(self.clone(), self.roots.lock().clone(), epoch, None),
        })
    }

    /// The generation of the newest commit, which may not be on disk yet.
    pub(super) fn newest_generation(&self) -> u64 {
        let sealed = self.sealed.lock().as_ref().map(Sealed::generation);
        sealed.unwrap_or_else(|| self.generation())
    }

    /// Waits until no commit of a generation up to `transid` is sealed. Whoever holds the writer's
    /// mutex keeps the next one from being sealed as well.
    ///
    /// # Errors
    ///
    /// What a commit that was waited for failed with; `EROFS` if one had failed before.
    pub(super) fn wait_for_sealed(&self, transid: u64) -> Result {
        let mut waited = false;
        let mut sealed = self.sealed.lock();
        while sealed
            .as_ref()
            .is_some_and(|sealed| sealed.generation() <= transid)
        {
            waited = true;
            self.unsealed.wait(&mut sealed);
        }
        drop(sealed);
        match self.failure() {
            Some(error) if waited => Err(error),
            _ => self.check_failed(),
        }
    }
}
