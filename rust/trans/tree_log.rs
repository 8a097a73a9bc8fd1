// SPDX-License-Identifier: GPL-2.0
//! The log trees of the running transaction: in memory, and on their way to the disk.
//!
//! What is in them is the business of `log/`. Here are their blocks. These are allocated as any
//! tree block is, and pinned at once: no extent item, no free space item ever knows of them, and
//! the commit of the transaction frees them, as it frees what it replaced. A block that was
//! written is copied before it is changed, so that the log on disk stays whole. Once a newer
//! version of the log is on disk, the blocks that only the older one had are used again.
//!
//! A log is written in versions. All who ask for one version share its write: the first of them
//! seals it, under the writer's mutex, and writes it without; those who come meanwhile get the
//! next one. The superblock that leads to the log is that of the last commit, so a log is written
//! only while the commit before its transaction is on disk, and a commit writes its own superblock
//! only after a log that is being written.

use super::dirty::{DirtyNodes, NodeRef};
use super::running::Resumed;
use super::transaction::Transaction;
use crate::device::superblock;
use crate::device::SuperBuf;
use crate::format::root::RootItem;
use crate::format::{item_type, tree_id, Key};
use crate::platform::NofsScope;
use crate::space::space_info::SpaceContext;
use crate::tree::node::{Node, NodePtr};
use crate::tree::node_buf::{NewNode, NodeBuf};
use crate::tree::{edit, EditContext, Geometry, Nodes, TreeRoot};
use crate::volume::fs::Fs;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::Arc;
use zerocopy::IntoBytes;

/// The most blocks that a log has, in bytes. One that would have more becomes a commit.
const MAX_BYTES: usize = 4 << 20;

/// Tree blocks that must be there beside those that the commit needs, for a log to be written.
const SPARE: u64 = 128;

/// Whether the running transaction has a log.
pub(crate) enum LogState {
    /// It has none.
    None,
    /// It has one.
    Open(KBox<TreeLog>),
    /// It cannot have one any more: who wants to have something on disk commits. What is on disk of
    /// a log stays there until then.
    Closed,
}

/// Which version of which transaction's log has what somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogPoint {
    transid: u64,
    version: u64,
}

/// What is known of writing logs; behind a leaf lock.
pub(crate) struct LogSync {
    /// The newest version that is on disk.
    durable: LogPoint,
    /// One is being written. Set under the writer's mutex.
    writing: bool,
    /// The last transaction whose log could not be written.
    failed: u64,
}

impl LogSync {
    /// Of a volume without a log.
    pub(crate) const fn new() -> Self {
        LogSync {
            durable: LogPoint {
                transid: 0,
                version: 0,
            },
            writing: false,
            failed: 0,
        }
    }

    fn has(&self, point: LogPoint) -> bool {
        self.durable.transid == point.transid && self.durable.version >= point.version
    }
}

/// An inode that a log has: its subvolume's tree and its number.
pub(crate) type LoggedInode = (u64, u64);

/// The size of a data extent as a log has it, and the inode that it has it for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct LoggedExtent {
    num_bytes: u64,
    by: LoggedInode,
}

/// A log tree, and whether its root item is up to date.
struct LogRoot {
    root: TreeRoot,
    stored: bool,
}

/// The log of the running transaction.
pub(crate) struct TreeLog {
    /// The log trees, by subvolume. The tree of their root items is [`tree_id::TREE_LOG`].
    roots: RBTree<u64, LogRoot>,
    /// Blocks that the next version has and the last one has not.
    dirty: DirtyNodes,
    /// The blocks of the last version that are still in use.
    written: RBTree<u64, Arc<Node>>,
    written_len: usize,
    /// Blocks that the last version has and the next one has not.
    freed: KVec<u64>,
    /// Blocks that the last version no longer has: free once that is on disk.
    retiring: KVec<u64>,
    /// Blocks that no version on disk has.
    reusable: KVec<u64>,
    /// The last version that was sealed.
    version: u64,
    inodes: RBTree<LoggedInode, ()>,
    /// Logged inodes whose names were changed since.
    renamed: KVec<LoggedInode>,
    extents: RBTree<u64, LoggedExtent>,
}

impl TreeLog {
    fn new() -> Result<KBox<Self>> {
        let log = TreeLog {
            roots: RBTree::new(),
            dirty: DirtyNodes::new(),
            written: RBTree::new(),
            written_len: 0,
            freed: KVec::new(),
            retiring: KVec::new(),
            reusable: KVec::new(),
            version: 0,
            inodes: RBTree::new(),
            renamed: KVec::new(),
            extents: RBTree::new(),
        };
        Ok(KBox::new(log, GFP_KERNEL)?)
    }

    /// Whether the log has the inode.
    pub(crate) fn has_inode(&self, inode: LoggedInode) -> bool {
        self.inodes.get(&inode).is_some()
    }

    /// Notes that the log has the inode.
    pub(crate) fn add_inode(&mut self, inode: LoggedInode) -> Result {
        if !self.has_inode(inode) {
            self.inodes.try_create_and_insert(inode, (), GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Notes that the log has the inode no longer.
    pub(crate) fn remove_inode(&mut self, inode: LoggedInode) {
        self.inodes.remove(&inode);
    }

    /// A logged inode whose names were changed since, which then is not one any more.
    pub(crate) fn take_renamed(&mut self) -> Option<LoggedInode> {
        self.renamed.pop()
    }

    /// Notes that the log has a data extent of this size for an inode.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it has the extent with another size for another inode: an extent of this
    /// transaction that grew since. A replay could not tell which is right. `ENOMEM`.
    pub(crate) fn add_extent(&mut self, bytenr: u64, num_bytes: u64, by: LoggedInode) -> Result {
        let new = LoggedExtent { num_bytes, by };
        match self.extents.get_mut(&bytenr) {
            Some(old) if old.num_bytes == num_bytes => {}
            Some(old) if old.by == by => *old = new,
            Some(_) => return Err(EAGAIN),
            None => {
                self.extents
                    .try_create_and_insert(bytenr, new, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// The version that has all that was put into the log so far.
    fn newest(&self) -> u64 {
        if self.dirty.is_empty() {
            self.version
        } else {
            self.version.saturating_add(1)
        }
    }

    fn len(&self) -> usize {
        self.dirty.len().saturating_add(self.written_len)
    }
}

/// A log that is being changed, with the transaction that it is of.
pub(crate) struct LogEdit<'a, 'fs> {
    pub(crate) trans: &'a mut Transaction<'fs>,
    pub(crate) log: &'a mut TreeLog,
}

impl LogEdit<'_, '_> {
    /// The space of a block.
    fn block(&mut self) -> Result<u64> {
        if let Some(bytenr) = self.log.reusable.pop() {
            return Ok(bytenr);
        }
        let nodesize = u64::from(self.trans.fs.geometry.nodesize);
        let (space, base) = self.trans.allocator();
        let bytenr = space.alloc_tree_block(base, tree_id::TREE_LOG)?;
        space.abandon(bytenr, nodesize)?;
        Ok(bytenr)
    }

    /// Makes sure that there is a log tree for a subvolume.
    ///
    /// # Errors
    ///
    /// Those of allocating.
    pub(crate) fn ensure_tree(&mut self, subvol: u64) -> Result {
        if self.log.roots.get(&subvol).is_some() {
            return Ok(());
        }
        let bytenr = self.alloc_node(subvol, 0)?;
        let root = TreeRoot {
            id: subvol,
            bytenr,
            level: 0,
            generation: self.transid(),
        };
        let stored = false;
        let log_root = LogRoot { root, stored };
        self.log
            .roots
            .try_create_and_insert(subvol, log_root, GFP_KERNEL)?;
        Ok(())
    }

    /// Puts the roots of the log trees into the tree of these.
    fn store_roots(&mut self) -> Result {
        self.ensure_tree(tree_id::TREE_LOG)?;
        let mut changed = KVec::new();
        for (subvol, log_root) in self.log.roots.iter() {
            if !log_root.stored && *subvol != tree_id::TREE_LOG {
                changed.push(log_root.root, GFP_KERNEL)?;
            }
        }
        for root in changed {
            let mut item = RootItem::zeroed_boxed()?;
            item.inode.generation = 1.into();
            item.inode.size = 3.into();
            item.inode.nlink = 1.into();
            item.inode.nbytes = u64::from(self.geometry().nodesize).into();
            item.inode.mode = 0o040_755.into();
            item.bytenr = root.bytenr.into();
            item.level = root.level;
            item.generation = root.generation.into();
            item.generation_v2 = item.generation;
            let key = Key::new(tree_id::TREE_LOG, item_type::ROOT_ITEM, root.id);
            self.put(tree_id::TREE_LOG, &key, item.as_bytes())?;
            if let Some(log_root) = self.log.roots.get_mut(&root.id) {
                log_root.stored = true;
            }
        }
        Ok(())
    }

    /// Makes `data` the item at `key` of a log tree.
    ///
    /// # Errors
    ///
    /// Those of tree edits.
    pub(crate) fn put(&mut self, tree: u64, key: &Key, data: &[u8]) -> Result {
        match edit::replace(self, tree, key, data) {
            Err(ENOENT) => edit::insert(self, tree, key, data),
            replaced => replaced,
        }
    }

    /// Brings the log to rest: a version that does not change any more.
    fn seal(&mut self) -> Result<SealedLog> {
        let fs = self.trans.fs;
        self.store_roots()?;
        let root = EditContext::root(self, tree_id::TREE_LOG)?;
        let mut nodes = KVec::with_capacity(self.log.dirty.len(), GFP_KERNEL)?;
        for node in self.log.dirty.iter_mut() {
            node.seal(fs.geometry.checksum)?;
        }
        self.trans.check_dirty_items(&self.log.dirty)?;
        while let Some(buf) = self.log.dirty.pop_first() {
            let node = Arc::new(buf.into_node(), GFP_KERNEL)?;
            let bytenr = node.bytenr();
            self.log
                .written
                .try_create_and_insert(bytenr, node.clone(), GFP_KERNEL)?;
            self.log.written_len = self.log.written_len.saturating_add(1);
            nodes.push(node, GFP_KERNEL)?;
        }
        let mut superblock = fs.roots.lock().superblock.try_clone()?;
        superblock.log_root = root.bytenr.into();
        superblock.log_root_level = root.level;
        self.log.version = self.log.version.saturating_add(1);
        self.log.retiring = core::mem::take(&mut self.log.freed);
        Ok(SealedLog {
            point: LogPoint {
                transid: self.trans.transid(),
                version: self.log.version,
            },
            nodes,
            superblock,
        })
    }
}

impl Nodes for LogEdit<'_, '_> {
    type Ref<'a>
        = NodeRef<'a>
    where
        Self: 'a;

    fn node(&self, ptr: &NodePtr) -> Result<NodeRef<'_>> {
        if let Some(dirty) = self.log.dirty.get(ptr.bytenr) {
            return Ok(NodeRef::Dirty(dirty.node()));
        }
        let written = self.log.written.get(&ptr.bytenr);
        Ok(NodeRef::Clean(written.ok_or(EUCLEAN)?.clone()))
    }

    fn name(&self) -> &str {
        self.trans.name()
    }
}

impl EditContext for LogEdit<'_, '_> {
    fn transid(&self) -> u64 {
        self.trans.transid()
    }

    fn geometry(&self) -> &Geometry {
        &self.trans.fs.geometry
    }

    fn root(&self, tree: u64) -> Result<TreeRoot> {
        Ok(self.log.roots.get(&tree).ok_or(ENOENT)?.root)
    }

    fn set_root(&mut self, tree: u64, root: TreeRoot) -> Result {
        let log_root = self.log.roots.get_mut(&tree).ok_or(ENOENT)?;
        log_root.root = root;
        log_root.stored = false;
        Ok(())
    }

    fn is_dirty(&self, bytenr: u64) -> bool {
        self.log.dirty.get(bytenr).is_some()
    }

    fn dirty_mut(&mut self, bytenr: u64) -> Result<&mut NodeBuf> {
        self.log.dirty.get_mut(bytenr).ok_or(EINVAL)
    }

    fn alloc_node(&mut self, _tree: u64, level: u8) -> Result<u64> {
        let bytenr = self.block()?;
        let new = NewNode {
            bytenr,
            generation: self.transid(),
            owner: tree_id::TREE_LOG,
            level,
        };
        let buf = NodeBuf::new(self.geometry(), &new)?;
        self.log.dirty.insert(buf, false)?;
        Ok(bytenr)
    }

    fn cow_node(&mut self, _tree: u64, old: &NodePtr) -> Result<u64> {
        let source = self.log.written.get(&old.bytenr).ok_or(EUCLEAN)?.clone();
        let bytenr = self.block()?;
        let copy = NodeBuf::copy_of(&source, bytenr, self.transid(), tree_id::TREE_LOG)?;
        self.log.dirty.insert(copy, false)?;
        self.log.freed.push(old.bytenr, GFP_KERNEL)?;
        self.log.written.remove(&old.bytenr);
        self.log.written_len = self.log.written_len.saturating_sub(1);
        Ok(bytenr)
    }

    fn free_node(&mut self, _tree: u64, bytenr: u64) -> Result {
        self.log.dirty.remove(bytenr).ok_or(EINVAL)?;
        Ok(self.log.reusable.push(bytenr, GFP_KERNEL)?)
    }
}

/// A version of a log that is written.
struct SealedLog {
    point: LogPoint,
    nodes: KVec<Arc<Node>>,
    superblock: SuperBuf,
}

impl Transaction<'_> {
    /// Tells the log that names of an inode change.
    pub(crate) fn note_renamed(&mut self, tree: u64, ino: u64) {
        let state = &mut self.handle.writer.log;
        if let LogState::Open(log) = state {
            if log.has_inode((tree, ino)) && log.renamed.push((tree, ino), GFP_KERNEL).is_err() {
                *state = LogState::Closed;
            }
        }
    }

    /// Whether the log of this transaction has space, and can be replayed: what it leads to must be
    /// in chunks that the last commit has.
    fn may_log(&self) -> bool {
        self.spare_nodes() >= SPARE && !self.space().has_new_chunk()
    }

    /// Lets `change` put something into the log. After any error the transaction has no log any
    /// more, but for what is on disk of it.
    fn edit_log(&mut self, change: impl FnOnce(&mut LogEdit<'_, '_>) -> Result) -> Result<u64> {
        let mut log = match core::mem::replace(&mut self.handle.writer.log, LogState::Closed) {
            LogState::None => TreeLog::new()?,
            LogState::Open(log) => log,
            LogState::Closed => return Err(EAGAIN),
        };
        if !self.may_log() {
            return Err(EAGAIN);
        }
        change(&mut LogEdit {
            trans: self,
            log: &mut log,
        })?;
        let nodesize = u32::from(self.fs.geometry.nodesize) as usize;
        if !self.may_log() || log.len().saturating_mul(nodesize) > MAX_BYTES {
            return Err(EAGAIN);
        }
        let newest = log.newest();
        self.handle.writer.log = LogState::Open(log);
        Ok(newest)
    }

    /// Seals a version of the log.
    fn seal_log(&mut self, durable: LogPoint) -> Result<SealedLog> {
        let LogState::Open(mut log) =
            core::mem::replace(&mut self.handle.writer.log, LogState::Closed)
        else {
            return Err(EAGAIN);
        };
        let transid = self.transid();
        if durable.transid == transid && durable.version == log.version {
            let retired = core::mem::take(&mut log.retiring);
            log.reusable.extend_from_slice(&retired, GFP_KERNEL)?;
        }
        let sealed = LogEdit {
            trans: self,
            log: &mut log,
        }
        .seal()?;
        if !self.may_log() {
            return Err(EAGAIN);
        }
        self.handle.writer.log = LogState::Open(log);
        Ok(sealed)
    }
}

impl Fs {
    /// The running transaction, if it is `transid`; the commit before it is on disk then.
    ///
    /// # Errors
    ///
    /// `EROFS` and others if a commit failed.
    fn enter_for_log(&self, transid: u64) -> Result<Option<Transaction<'_>>> {
        self.wait_for_sealed(transid.saturating_sub(1))?;
        let Resumed::Running(trans) = self.resume(self.writer.lock())? else {
            return Ok(None);
        };
        if trans.transid() != transid || self.generation().saturating_add(1) != transid {
            trans.leave();
            return Ok(None);
        }
        Ok(Some(trans))
    }

    /// Lets `change` put something into the log of transaction `transid`. Nothing is written yet:
    /// see [`Self::write_log`]. `None` if that transaction is not running any more, or has no log:
    /// then it is to be committed.
    ///
    /// # Errors
    ///
    /// `EROFS` and others if a commit failed.
    pub(crate) fn log(
        &self,
        transid: u64,
        change: impl FnOnce(&mut LogEdit<'_, '_>) -> Result,
    ) -> Result<Option<LogPoint>> {
        self.check_writable()?;
        let Some(mut trans) = self.enter_for_log(transid)? else {
            return Ok(None);
        };
        let version = trans.edit_log(change);
        trans.leave();
        Ok(version.ok().map(|version| LogPoint { transid, version }))
    }

    /// Waits until a version of a log is on disk, and writes it unless others do. False if that
    /// takes a commit.
    ///
    /// # Errors
    ///
    /// `EROFS` and others if a commit failed.
    pub(crate) fn write_log(&self, point: LogPoint) -> Result<bool> {
        loop {
            let durable = {
                let mut sync = self.log_sync.lock();
                while sync.writing && !sync.has(point) {
                    self.log_synced.wait(&mut sync);
                }
                if sync.has(point) {
                    return Ok(true);
                }
                if sync.failed == point.transid {
                    return Ok(false);
                }
                sync.durable
            };
            let Some(mut trans) = self.enter_for_log(point.transid)? else {
                return Ok(false);
            };
            // Others may have begun since, but not from here on.
            let raced = {
                let sync = self.log_sync.lock();
                sync.writing || sync.durable != durable || sync.failed == point.transid
            };
            if raced {
                trans.leave();
                continue;
            }
            let sealed = trans.seal_log(durable);
            if sealed.is_ok() {
                self.log_sync.lock().writing = true;
            }
            let nofs = NofsScope::enter();
            trans.leave();
            let Ok(sealed) = sealed else {
                return Ok(false);
            };
            let written = self.write_sealed_log(&sealed);
            drop(nofs);
            let mut sync = self.log_sync.lock();
            sync.writing = false;
            match written {
                Ok(()) => sync.durable = sealed.point,
                Err(_) => sync.failed = sealed.point.transid,
            }
            drop(sync);
            self.log_synced.notify_all();
        }
    }

    fn write_sealed_log(&self, sealed: &SealedLog) -> Result {
        self.write_nodes(sealed.nodes.iter())?;
        self.device.flush()?;
        let mut superblock = sealed.superblock.try_clone()?;
        superblock::write_primary(&*self.device, &mut superblock)
    }

    /// Waits for a log that is being written. The transaction that it is of was sealed, so that no
    /// other one follows: its superblock, which is of the commit before, comes before that of the
    /// commit, and its blocks are written before the commit lets others have them.
    pub(super) fn wait_for_log(&self) {
        let mut sync = self.log_sync.lock();
        while sync.writing {
            self.log_synced.wait(&mut sync);
        }
    }
}
