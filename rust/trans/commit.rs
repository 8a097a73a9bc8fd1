// SPDX-License-Identifier: GPL-2.0
//! Commit: from memory to disk, in an order that leaves the old or the new state, whenever the
//! power fails.
//!
//! All that refers to each other is brought to rest first: delayed references, block groups and
//! root items change trees, and changing trees makes more of them. That seals the commit; the
//! writer's mutex is let go of, and the next transaction can start from it. Then the blocks are
//! written to places that no committed state uses, and flushed; only then the superblock, which
//! decides, is written past the device's cache.

use super::abort;
use super::dirty::DirtyNodes;
use super::sealed::{Sealed, SealedNodes};
use super::transaction::Transaction;
use super::tree_log::LogState;
use super::CommitRoots;
use crate::device::{superblock, ChunkMap, SuperBuf, WriteIo};
use crate::format::superblock::RootBackup;
use crate::format::{tree_id, Key};
use crate::space::block_group;
use crate::space::chunk_alloc;
use crate::space::space_info::SpaceContext;
use crate::tree::check::{check_items, Limits};
use crate::tree::cow::cow_to;
use crate::tree::verify::{Fault, Report};
use crate::tree::{EditContext, Node, NodePtr, TreeRoot};
use crate::volume::dev_stats;
use crate::volume::fs::Fs;
use kernel::prelude::*;
use kernel::sync::Arc;

/// How many writes are given to the device at once: 4 MiB of 16 KiB blocks.
const BATCH: usize = 256;

/// The superblock flag that says that it was written, as in tree blocks.
const SUPER_FLAG_WRITTEN: u64 = 1;

impl Transaction<'_> {
    /// Writes the transaction to disk and makes it what everybody reads. Does nothing if nothing
    /// was changed. While the device is at work, the next transaction can run already.
    ///
    /// # Errors
    ///
    /// Any error aborts the transaction: the volume stays as the last commit left it, and turns
    /// read-only. If the commit before this one, which this one starts from, fails meanwhile, its
    /// error; `EROFS` if it had failed.
    pub fn commit(mut self) -> Result {
        if !self.handle.is_changed() && !self.space().is_dirty() {
            self.handle.finished = true;
            return Ok(());
        }
        let fs = self.fs;
        if let Err(e) = fs.wait_for_sealed(u64::MAX) {
            self.handle.roll_back();
            return Err(e);
        }
        // From here on a failure is an abort.
        self.handle.changed = true;
        self.unchecked = true;
        fs.commits.begin();
        let sealed = match self.seal() {
            Ok(sealed) => sealed,
            Err(e) => {
                fs.commits.end(false);
                abort::abort(&mut self.handle, e);
                return Err(e);
            }
        };
        let Transaction {
            handle,
            base,
            superblock,
            _nofs,
            ..
        } = self;
        drop((handle, base));
        let written = fs.write_sealed(&sealed, superblock);
        fs.commits.end(written.is_ok());
        fs.unseal(sealed, written);
        written
    }

    /// Brings the transaction to rest. From then on its blocks and its superblock do not change any
    /// more, and the next transaction starts from them.
    fn seal(&mut self) -> Result<Sealed> {
        dev_stats::store(self)?;
        // The superblock has no generation of its own for the tree of roots: that block must be of
        // this commit, too.
        let top = self.root(tree_id::ROOT)?.level;
        cow_to(self, tree_id::ROOT, &Key::MIN, top)?;
        self.settle()?;
        self.update_superblock()?;
        let kind = self.fs.geometry.checksum;
        for node in self.dirty.iter_mut() {
            node.seal(kind)?;
        }
        self.check_dirty_items(&self.dirty)?;
        let relocated = match self.relocates {
            true => self.transid(),
            false => self.base.relocated(),
        };
        let roots = CommitRoots::new(&self.superblock, relocated)?;
        self.space_mut().prepare_commit()?;
        let nodes = SealedNodes::new(&mut self.dirty)?;
        let sealed = Sealed { roots, nodes };
        // Nothing fails from here on.
        let (fs, transid) = (self.fs, self.transid());
        // In this order, for those who look without the writer's mutex.
        *fs.sealed.lock() = Some(sealed.clone());
        fs.nothing_runs();
        self.space_mut().committed(transid);
        // Its blocks, which are pinned, go with what the commit frees.
        self.handle.writer.log = LogState::None;
        fs.refresh_reservations(&self.handle.writer.space);
        self.handle.finished = true;
        Ok(sealed)
    }

    /// Runs everything that changes trees until nothing changes any more. Nothing is written: who
    /// does this before the commit can still cancel the transaction if it fails.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, `ENOMEM`, `EUCLEAN` for references that the extent tree does not agree with; those
    /// of reading.
    pub fn settle(&mut self) -> Result {
        loop {
            chunk_alloc::write_new_block_groups(self)?;
            self.run_refs()?;
            block_group::write_dirty_block_groups(self)?;
            if !self.refs.is_empty() || self.space().is_dirty() {
                continue;
            }
            if !self.write_root_items()? {
                return Ok(());
            }
        }
    }

    /// Holds what is to be written against the rules that readers apply: a mistake in memory must
    /// not reach the disk.
    ///
    /// # Errors
    ///
    /// `EUCLEAN`, after a line in the log, for a leaf that nobody would read.
    pub(super) fn check_dirty_items(&self, dirty: &DirtyNodes) -> Result {
        let limits = Limits {
            newest: self.transid(),
            writable: true,
            ..self.fs.cache.limits()
        };
        for node in dirty.iter() {
            check_items(node, &limits).map_err(|fault| {
                let ptr = NodePtr {
                    bytenr: node.bytenr(),
                    generation: node.generation(),
                    level: node.level(),
                    tree: node.owner(),
                    first_key: node.key(0),
                };
                let report = Report {
                    fault: Fault::Item(fault),
                    ptr: &ptr,
                    mirror: 0,
                };
                crate::fs_err!(self.fs, "refusing to write {report}");
                EUCLEAN
            })?;
        }
        Ok(())
    }

    /// Enters the new roots into the superblock that is to be written.
    fn update_superblock(&mut self) -> Result {
        let root = self.root(tree_id::ROOT)?;
        let chunk = self.root(tree_id::CHUNK)?;
        let transid = self.transid();
        let sb = &mut *self.superblock;
        // All that a transaction does keeps the tree of UUIDs as right as it was.
        if sb.uuid_tree_generation == sb.generation {
            sb.uuid_tree_generation = transid.into();
        }
        sb.generation = transid.into();
        sb.root = root.bytenr.into();
        sb.root_level = root.level;
        sb.chunk_root = chunk.bytenr.into();
        sb.chunk_root_level = chunk.level;
        sb.chunk_root_generation = chunk.generation.into();
        sb.flags = (sb.flags.get() | SUPER_FLAG_WRITTEN).into();
        let backup = self.backup(root, chunk)?;
        self.superblock.set_backup(&backup);
        Ok(())
    }

    /// The backup roots of this commit. A tree that does not exist counts as all zeros.
    fn backup(&self, root: TreeRoot, chunk: TreeRoot) -> Result<RootBackup> {
        let find = |tree| match self.root(tree) {
            Ok(root) => Ok(root),
            Err(e) if e == ENOENT => Ok(TreeRoot {
                id: tree,
                bytenr: 0,
                level: 0,
                generation: 0,
            }),
            Err(e) => Err(e),
        };
        let (extent, fs_tree) = (find(tree_id::EXTENT)?, find(tree_id::FS)?);
        let (dev, csum) = (find(tree_id::DEV)?, find(tree_id::CSUM)?);
        let sb = &self.superblock;
        Ok(RootBackup {
            tree_root: root.bytenr.into(),
            tree_root_gen: root.generation.into(),
            chunk_root: chunk.bytenr.into(),
            chunk_root_gen: chunk.generation.into(),
            extent_root: extent.bytenr.into(),
            extent_root_gen: extent.generation.into(),
            fs_root: fs_tree.bytenr.into(),
            fs_root_gen: fs_tree.generation.into(),
            dev_root: dev.bytenr.into(),
            dev_root_gen: dev.generation.into(),
            csum_root: csum.bytenr.into(),
            csum_root_gen: csum.generation.into(),
            total_bytes: sb.total_bytes,
            bytes_used: sb.bytes_used,
            num_devices: sb.num_devices,
            unused_64: [0.into(); 4],
            tree_root_level: root.level,
            chunk_root_level: chunk.level,
            extent_root_level: extent.level,
            fs_root_level: fs_tree.level,
            dev_root_level: dev.level,
            csum_root_level: csum.level,
            unused_8: [0; 10],
        })
    }
}

impl Fs {
    /// Writes a sealed commit, and the superblock last.
    fn write_sealed(&self, sealed: &Sealed, mut superblock: SuperBuf) -> Result {
        self.write_nodes(sealed.nodes.iter()).inspect_err(|e| {
            crate::fs_err!(
                self,
                "error while writing out transaction: {}",
                e.to_errno()
            );
        })?;
        self.device.flush().inspect_err(|e| {
            crate::fs_err!(
                self,
                "error while submitting device barriers: {}",
                e.to_errno()
            );
        })?;
        self.wait_for_log();
        superblock::write_copies(&*self.device, &mut superblock)
    }

    /// Ends the time between a commit's sealing and its being on disk, and tells those who wait for
    /// that.
    fn unseal(&self, sealed: Sealed, written: Result) {
        match written {
            Ok(()) => {
                for node in sealed.nodes.iter() {
                    self.cache.insert(node.clone());
                }
                self.publish(sealed.roots);
            }
            // What runs on top of it goes the same way, when its operation has ended.
            Err(error) => abort::fail(self, sealed.generation(), error),
        }
        let done = self.sealed.lock().take();
        self.unsealed.notify_all();
        // The blocks go after the lock, if nobody else has them.
        drop(done);
    }

    /// Writes blocks to all their copies. Nothing is flushed.
    pub(super) fn write_nodes<'n>(&self, nodes: impl Iterator<Item = &'n Arc<Node>>) -> Result {
        let chunks = self.chunk_map();
        let mut batch = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        for node in nodes {
            if batch.len().saturating_add(MAX_COPIES) > BATCH {
                self.device.write_many(&batch)?;
                batch.clear();
            }
            push_copies(&mut batch, &chunks, node.bytenr(), node.bytes())?;
        }
        self.device.write_many(&batch)
    }
}

/// The most copies a block has.
const MAX_COPIES: usize = 2;

fn push_copies<'b>(
    batch: &mut KVec<WriteIo<'b>>,
    chunks: &ChunkMap,
    bytenr: u64,
    buf: &'b [u8],
) -> Result {
    for offset in chunks.mirrors(bytenr, buf.len() as u64)?.iter() {
        batch.push(WriteIo { offset, buf }, GFP_KERNEL)?;
    }
    Ok(())
}
