// SPDX-License-Identifier: GPL-2.0
//! The running transaction: the one writer of the volume, and all that it changed since the last
//! commit.
//!
//! A transaction lives in memory until [`Transaction::commit`] writes it. What it reads is the
//! commit before it with its own changes on top; what others read is the last commit alone.
//! Dropping it without a commit aborts it: nothing of it reaches the disk, and because a half-done
//! change hints at trouble, the volume takes no more writes. [`Transaction::cancel`] is for changes
//! that are given up on purpose.

use super::dirty::{DirtyNodes, NodeRef};
use super::objectid::FreeObjectids;
use super::orphans::Orphans;
use super::reader::Reader;
use super::root_tree::RunningRoots;
use super::running::Running;
use super::tree_log::LogState;
use crate::device::{Chunk, SuperBuf};
use crate::extent::csum_tree;
use crate::extent::delayed_ref::{DelayedRefs, NewExtent};
use crate::extent::refs::RefKind;
use crate::format::superblock::SuperBlock;
use crate::format::{item_type, objectid, tree_id, Key};
use crate::platform::NofsScope;
use crate::space::block_group::Kind;
use crate::space::space_info::{Space, SpaceContext, Tracking, Volume};
use crate::tree::node::NodePtr;
use crate::tree::node_buf::{NewNode, NodeBuf};
use crate::tree::{EditContext, Geometry, Nodes, TreeRoot};
use crate::volume::fs::Fs;
use kernel::prelude::*;
use kernel::sync::{Arc, MutexGuard};

/// How many tree blocks are allocated between two looks at the space that is left.
const BUDGET: u64 = 32;

/// How much a transaction is going to allocate, so that it is refused at its begin rather than in
/// the middle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserve {
    /// Tree blocks, beyond those that every commit needs.
    pub nodes: u64,
    /// Bytes of data.
    pub data: u64,
    /// The transaction frees more than it takes, such as a deletion: on a full volume it may use
    /// what others leave for commits.
    pub freeing: bool,
}

/// What outlives single transactions, behind the writer's mutex.
pub struct WriterState {
    pub(crate) space: Space,
    /// The transaction that operations left open, unless one is at it.
    pub(crate) running: Option<Running>,
    /// The log of the running transaction.
    pub(super) log: LogState,
    pub(super) free_objectids: FreeObjectids,
    pub(super) orphans: Orphans,
}

impl WriterState {
    /// The state of a volume that nobody has written to yet.
    pub fn new() -> Self {
        WriterState {
            space: Space::unloaded(),
            running: None,
            log: LogState::None,
            free_objectids: FreeObjectids::new(),
            orphans: Orphans::new(),
        }
    }

    /// The space, between transactions.
    pub(crate) fn space_mut(&mut self) -> &mut Space {
        &mut self.space
    }
}

impl Default for WriterState {
    fn default() -> Self {
        WriterState::new()
    }
}

/// The running transaction. Holds the writer's mutex: there is one at a time.
pub struct Transaction<'fs> {
    // The first field, so that an abort comes before all else goes.
    pub(crate) handle: TransactionHandle<'fs>,
    pub(crate) fs: &'fs Fs,
    /// The commit that it started from, which may not be on disk yet.
    pub(crate) base: Reader,
    pub(crate) superblock: SuperBuf,
    pub(crate) roots: RunningRoots,
    pub(crate) dirty: DirtyNodes,
    pub(crate) refs: DelayedRefs,
    /// Allocations may use up what others leave for commits: this is one, or frees more than it
    /// takes.
    pub(crate) unchecked: bool,
    /// Blocks or extents of subvolumes that nobody changes move: readers have to look them up anew.
    pub(super) relocates: bool,
    /// How many tree blocks may be allocated before it is asked again whether there is space.
    pub(super) budget: u64,
    /// When the transaction began, by [`crate::platform::uptime_ms`].
    pub(crate) started: u64,
    pub(crate) _nofs: NofsScope,
}

/// The hold of a transaction on the volume. Unless the transaction came to an end, drop aborts it.
pub(crate) struct TransactionHandle<'fs> {
    pub(crate) fs: &'fs Fs,
    pub(crate) writer: MutexGuard<'fs, WriterState>,
    pub(crate) transid: u64,
    /// Something was changed, since the transaction was begun or joined, that a commit has to write
    /// or that has to be undone.
    pub(crate) changed: bool,
    /// Operations before this one changed something.
    pub(super) carried: bool,
    /// The transaction was committed, left open or given up; drop has nothing to do.
    pub(super) finished: bool,
}

impl Fs {
    /// Begins a transaction, waiting for the one before to end.
    ///
    /// # Errors
    ///
    /// `EROFS` if the volume is read-only; `ENOSPC` if what is reserved does not fit; errors of
    /// reading; `ENOMEM`.
    pub fn begin(&self, reserve: Reserve) -> Result<Transaction<'_>> {
        self.write_back_before_commit();
        let mut trans = self.start(self.lock_idle()?, reserve)?;
        if trans.space().tracking() == Tracking::Stale {
            // A transaction of its own, so that whoever gives up the one it asked for gives up
            // nothing else.
            self.rebuild(trans)?;
            trans = self.start(self.lock_idle()?, reserve)?;
        }
        Ok(trans)
    }

    /// The writer's mutex, with no transaction open and all commits on disk: whoever begins a
    /// transaction has it for itself. On its own for the sake of the stack, on which a commit needs
    /// most.
    #[inline(never)]
    pub(crate) fn lock_idle(&self) -> Result<MutexGuard<'_, WriterState>> {
        self.check_writable()?;
        let mut writer = self.writer.lock();
        while writer.running.is_some() {
            self.commit_running(writer)?;
            writer = self.writer.lock();
        }
        self.wait_for_sealed(u64::MAX)?;
        Ok(writer)
    }

    pub(crate) fn start<'fs>(
        &'fs self,
        writer: MutexGuard<'fs, WriterState>,
        reserve: Reserve,
    ) -> Result<Transaction<'fs>> {
        let mut trans = self.start_locked(writer)?;
        let nodesize = u64::from(self.geometry.nodesize);
        let bytes = reserve.nodes.saturating_mul(nodesize);
        let (space, base) = trans.allocator();
        if !reserve.freeing {
            space.ensure_available(base, Kind::Metadata, bytes)?;
        }
        if reserve.data != 0 {
            space.ensure_available(base, Kind::Data, reserve.data)?;
        }
        trans.unchecked = reserve.freeing;
        trans.budget = reserve.nodes;
        Ok(trans)
    }

    /// Starts a transaction; there is none running.
    pub(super) fn start_locked<'fs>(
        &'fs self,
        writer: MutexGuard<'fs, WriterState>,
    ) -> Result<Transaction<'fs>> {
        // The transaction before may have failed while this one waited.
        self.check_writable()?;
        self.start_on(writer)
    }

    /// As [`Self::start_locked`], of a volume that may be read-only still because its log is to be
    /// replayed.
    pub(crate) fn start_on<'fs>(
        &'fs self,
        mut writer: MutexGuard<'fs, WriterState>,
    ) -> Result<Transaction<'fs>> {
        let nofs = NofsScope::enter();
        let base = self.newest()?;
        let superblock = base.superblock().try_clone()?;
        let space = &mut writer.space;
        space.begin(&base, &superblock)?;
        self.release_freed(space, &base)?;
        let transid = base.generation().checked_add(1).ok_or(EOVERFLOW)?;
        let roots = RunningRoots::new(base.root(tree_id::ROOT)?, base.root(tree_id::CHUNK)?)?;
        Ok(Transaction {
            handle: TransactionHandle {
                fs: self,
                writer,
                transid,
                changed: false,
                carried: false,
                finished: false,
            },
            fs: self,
            base,
            superblock,
            roots,
            dirty: DirtyNodes::new(),
            refs: DelayedRefs::new(),
            unchecked: false,
            relocates: false,
            budget: 0,
            started: crate::platform::uptime_ms(),
            _nofs: nofs,
        })
    }

    /// Lets go of what was freed by commits that all readers have seen.
    pub(super) fn release_freed(&self, space: &mut Space, base: &Reader) -> Result {
        space.retry_deferred_frees();
        let transid = self.epochs.oldest().unwrap_or_else(|| self.generation());
        space.release_up_to(base, transid)
    }
}

impl<'fs> Transaction<'fs> {
    /// The volume.
    pub fn fs(&self) -> &'fs Fs {
        self.fs
    }

    /// Tells that this transaction, which is committed as soon as its one operation is done, moves
    /// blocks or extents.
    pub fn set_relocates(&mut self) {
        self.relocates = true;
    }

    /// The commit that this transaction started from.
    pub fn base(&self) -> &Reader {
        &self.base
    }

    /// Whether a feature that readers must know is set.
    pub fn has_incompat(&self, bit: u64) -> bool {
        self.superblock.incompat_flags.get() & bit != 0
    }

    /// Sets features that readers must know; the superblock of the next commit has them.
    pub fn set_incompat(&mut self, bits: u64) {
        if self.superblock.incompat_flags.get() & bits != bits {
            let superblock = self.superblock_mut();
            superblock.incompat_flags = (superblock.incompat_flags.get() | bits).into();
        }
    }

    /// The changes of references that wait to be run.
    pub fn refs(&mut self) -> &mut DelayedRefs {
        self.handle.changed = true;
        &mut self.refs
    }

    /// Allocates `num_bytes` of data space and queues the extent item, still without references.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; `EINVAL` if `num_bytes` is not a multiple of the sector size; `ENOMEM`.
    pub fn alloc_data(&mut self, num_bytes: u64, hint: u64) -> Result<u64> {
        self.handle.changed = true;
        let (space, base) = self.allocator();
        let extent = space.alloc_data(base, num_bytes, num_bytes, hint)?;
        self.refs
            .new_extent(extent.start, extent.len, NewExtent::Data, 0)?;
        Ok(extent.start)
    }

    /// Allocates up to `want` bytes of data space, at least `min`, and queues the extent item,
    /// still without references. Returns address and size.
    ///
    /// # Errors
    ///
    /// As for [`Self::alloc_data`].
    pub fn alloc_extent(&mut self, min: u64, want: u64) -> Result<(u64, u64)> {
        let (space, base) = self.allocator();
        let extent = space.alloc_data(base, min, want, 0)?;
        self.handle.changed = true;
        self.refs
            .new_extent(extent.start, extent.len, NewExtent::Data, 0)?;
        Ok((extent.start, extent.len))
    }

    /// Queues the removal of an extent with all references that the extent tree has of it. An
    /// extent that this transaction allocated goes once its references are given up.
    pub fn drop_extent(&mut self, bytenr: u64, num_bytes: u64) -> Result {
        self.handle.changed = true;
        self.refs.drop_extent(bytenr, num_bytes)
    }

    /// Adds or, if `count` is negative, gives up references of `kind` to an extent.
    pub fn add_ref(&mut self, bytenr: u64, num_bytes: u64, kind: RefKind, count: i64) -> Result {
        self.handle.changed = true;
        self.refs.add(bytenr, num_bytes, kind, count)
    }

    /// Makes sure that the commit will find the space that it needs: for copies of blocks that hold
    /// what is queued now, and for those that every commit copies.
    fn check_reservation(&mut self) -> Result {
        if self.unchecked {
            return Ok(());
        }
        if self.budget == 0 {
            let nodesize = u64::from(self.geometry().nodesize);
            let queued = (self.refs.len() as u64).saturating_mul(nodesize);
            let (space, base) = self.allocator();
            let for_commit = queued.min(space.totals(Kind::Metadata).used);
            let bytes = nodesize.saturating_mul(BUDGET).saturating_add(for_commit);
            space.ensure_available(base, Kind::Metadata, bytes)?;
            self.budget = BUDGET;
        }
        self.budget = self.budget.saturating_sub(1);
        Ok(())
    }

    /// Allocates the space of a tree block.
    pub(crate) fn alloc_tree_block(&mut self, tree: u64) -> Result<u64> {
        self.check_reservation()?;
        let (space, base) = self.allocator();
        space.alloc_tree_block(base, tree)
    }

    /// Gives back space that this transaction allocated and that never had an extent item.
    pub(crate) fn unreserve(&mut self, bytenr: u64, num_bytes: u64) -> Result {
        self.space_mut().release(bytenr, num_bytes)
    }

    /// Keeps space from being used again before the commit, and before readers have left.
    pub(crate) fn pin(&mut self, bytenr: u64, num_bytes: u64) -> Result {
        self.space_mut().pin(bytenr, num_bytes)
    }

    pub(crate) fn delete_csums(&mut self, bytenr: u64, num_bytes: u64) -> Result {
        csum_tree::delete_csums(self, bytenr, num_bytes)
    }

    /// The header of a new block.
    pub(crate) fn new_node(&self, bytenr: u64, owner: u64, level: u8) -> NewNode {
        NewNode {
            bytenr,
            generation: self.handle.transid,
            owner,
            level,
        }
    }

    /// A block, to be changed; it may be one that a tree edit would copy first. For relocation,
    /// which patches the blocks that [`Self::copy_block`] made.
    pub fn dirty_mut(&mut self, bytenr: u64) -> Result<&mut NodeBuf> {
        self.dirty.get_mut(bytenr).ok_or(EINVAL)
    }

    /// Notes that there is something to commit that neither tree edits nor references tell.
    pub fn mark_changed(&mut self) {
        self.handle.changed = true;
    }

    /// Gives up the transaction on purpose: nothing of it was written, and the volume goes on as
    /// the last commit left it.
    pub fn cancel(mut self) {
        self.handle.roll_back();
    }
}

impl Nodes for Transaction<'_> {
    type Ref<'a>
        = NodeRef<'a>
    where
        Self: 'a;

    fn node(&self, ptr: &NodePtr) -> Result<NodeRef<'_>> {
        self.dirty.look_up(&self.base, ptr)
    }

    fn prefetch(&self, ptrs: &[NodePtr]) {
        self.base.prefetch(ptrs);
    }

    fn name(&self) -> &str {
        self.base.name()
    }
}

impl EditContext for Transaction<'_> {
    fn transid(&self) -> u64 {
        self.handle.transid
    }

    fn geometry(&self) -> &Geometry {
        &self.fs.geometry
    }

    fn root(&self, tree: u64) -> Result<TreeRoot> {
        self.lookup_root(tree)
    }

    fn set_root(&mut self, tree: u64, root: TreeRoot) -> Result {
        self.switch_root(tree, root)
    }

    fn is_dirty(&self, bytenr: u64) -> bool {
        self.dirty.is_exclusive(bytenr)
    }

    fn dirty_mut(&mut self, bytenr: u64) -> Result<&mut NodeBuf> {
        self.handle.changed = true;
        self.dirty.get_mut(bytenr).ok_or(EINVAL)
    }

    fn alloc_node(&mut self, tree: u64, level: u8) -> Result<u64> {
        self.alloc(tree, level)
    }

    fn cow_node(&mut self, tree: u64, old: &NodePtr) -> Result<u64> {
        self.cow(tree, old)
    }

    fn free_node(&mut self, tree: u64, bytenr: u64) -> Result {
        self.free(tree, bytenr)
    }
}

impl Volume for Reader {
    fn commit_root(&self, tree: u64) -> Result<TreeRoot> {
        self.root(tree)
    }

    fn set_chunks(&self, keep: &dyn Fn(u64) -> bool, new: Option<(u64, &[u8])>) -> Result {
        let fs = self.fs();
        let mut map = fs.chunk_map();
        for gone in fs.chunk_map().iter().filter(|chunk| !keep(chunk.logical)) {
            map = Arc::new(map.without(gone.logical)?, GFP_KERNEL)?;
        }
        if let Some((logical, item)) = new {
            let key = Key::new(objectid::FIRST_CHUNK_TREE, item_type::CHUNK_ITEM, logical);
            let limits = self.superblock().chunk_limits()?;
            let chunk = Chunk::parse(&key, item, &limits).map_err(|fault| fault.errno())?;
            map = Arc::new(map.with(chunk)?, GFP_KERNEL)?;
        }
        fs.publish_chunk_map(map);
        Ok(())
    }
}

impl SpaceContext for Transaction<'_> {
    type Volume = Reader;

    fn volume(&self) -> &Reader {
        &self.base
    }

    fn space(&self) -> &Space {
        &self.handle.writer.space
    }

    fn space_mut(&mut self) -> &mut Space {
        &mut self.handle.writer.space
    }

    fn allocator(&mut self) -> (&mut Space, &Reader) {
        (&mut self.handle.writer.space, &self.base)
    }

    fn superblock(&self) -> &SuperBlock {
        &self.superblock
    }

    fn superblock_mut(&mut self) -> &mut SuperBlock {
        &mut self.superblock
    }
}
