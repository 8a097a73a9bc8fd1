// SPDX-License-Identifier: GPL-2.0
//! The running transaction between operations.
//!
//! An operation of the filesystem (the making of a file, a rename, the insertion of an extent)
//! joins the transaction that runs, or starts one, does all of its changes, and leaves the
//! transaction open for the next. So a commit writes whole operations, many at a time.
//! [`Fs::commit`] ends the transaction, as does whoever begins one for itself ([`Fs::begin`]), and
//! an operation that finds it grown large.
//!
//! An operation checks whatever can be wrong before its first change. An error before that is the
//! caller's alone; one after it leaves half an operation behind, and so aborts the transaction and
//! turns the volume read-only.

use super::abort;
use super::dirty::DirtyNodes;
use super::reader::{Reader, ReaderParts};
use super::root_tree::RunningRoots;
use super::transaction::{Reserve, Transaction, TransactionHandle, WriterState};
use super::tree_log::LogState;
use crate::device::SuperBuf;
use crate::extent::delayed_ref::DelayedRefs;
use crate::format::root::RootItem;
use crate::format::{item_type, tree_id, Key};
use crate::platform::{uptime_ms, NofsScope};
use crate::space::block_group::Kind;
use crate::space::free_space_tree;
use crate::space::space_info::{Space, SpaceContext, Tracking};
use crate::space::usage::Usage;
use crate::tree::EditContext;
use crate::volume::fs::Fs;
use kernel::prelude::*;
use kernel::sync::MutexGuard;

/// A transaction that nobody is at. It has no reference to the volume, which has it.
pub struct Running {
    /// The commit that it started from.
    pub(crate) base: ReaderParts,
    transid: u64,
    superblock: SuperBuf,
    pub(crate) roots: RunningRoots,
    pub(crate) dirty: DirtyNodes,
    pub(crate) refs: DelayedRefs,
    changed: bool,
    /// When it was started, by [`uptime_ms`].
    started: u64,
}

/// Tree blocks that must be available for a new free space tree; a large volume takes more, as long
/// as there are any.
const RENEWAL: u64 = 64;

/// What [`Fs::resume`] found.
pub(crate) enum Resumed<'fs> {
    /// The running transaction.
    Running(Transaction<'fs>),
    /// That none runs, and the writer's mutex.
    None(MutexGuard<'fs, WriterState>),
}

/// The trees that the running transaction has changed.
pub struct RunningTrees {
    ids: KVec<u64>,
    /// There was no memory to tell which.
    all: bool,
}

impl RunningTrees {
    /// None.
    pub(crate) const fn new() -> Self {
        RunningTrees {
            ids: KVec::new(),
            all: false,
        }
    }

    /// Whether the tree differs from the last commit.
    pub(crate) fn contains(&self, tree: u64) -> bool {
        self.all || self.ids.contains(&tree)
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.all || !self.ids.is_empty()
    }

    fn add(&mut self, tree: u64) {
        if !self.contains(tree) && self.ids.push(tree, GFP_KERNEL).is_err() {
            self.all = true;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.all = false;
    }
}

impl Fs {
    /// Takes the running transaction up again.
    ///
    /// # Errors
    ///
    /// `EROFS` if a transaction failed before.
    pub(super) fn resume<'fs>(
        &'fs self,
        mut writer: MutexGuard<'fs, WriterState>,
    ) -> Result<Resumed<'fs>> {
        if let Err(error) = self.check_failed() {
            // What ran when the volume failed goes the same way.
            let dropped = writer.running.take();
            self.nothing_runs();
            writer.space.rolled_back();
            writer.log = LogState::None;
            drop(writer);
            drop(dropped);
            return Err(error);
        }
        let Some(running) = writer.running.take() else {
            return Ok(Resumed::None(writer));
        };
        let Running {
            base,
            transid,
            superblock,
            roots,
            dirty,
            refs,
            changed,
            started,
        } = running;
        let mut base = Reader::from_parts(self.clone(), base);
        base.unseal();
        Ok(Resumed::Running(Transaction {
            handle: TransactionHandle {
                fs: self,
                writer,
                transid,
                changed: false,
                carried: changed,
                finished: false,
            },
            fs: self,
            base,
            superblock,
            roots,
            dirty,
            refs,
            unchecked: true,
            // A relocation is committed by the operation that it is.
            relocates: false,
            budget: 0,
            started,
            _nofs: NofsScope::enter(),
        }))
    }

    /// Joins the running transaction, or starts one, without asking for space.
    pub(crate) fn enter(&self) -> Result<Transaction<'_>> {
        self.check_writable()?;
        let mut trans = match self.resume(self.writer.lock())? {
            Resumed::Running(trans) => trans,
            Resumed::None(writer) => self.start_locked(writer)?,
        };
        if trans.space().tracking() == Tracking::Stale {
            self.rebuild(trans)?;
            trans = self.start_locked(self.writer.lock())?;
        }
        let base = &trans.base;
        if let Err(error) = self.release_freed(&mut trans.handle.writer.space, base) {
            // What is left is released by the next one. What operations before did stays.
            trans.leave();
            return Err(error);
        }
        trans.unchecked = true;
        Ok(trans)
    }

    /// Builds the free space tree anew and commits that.
    #[cold]
    #[inline(never)]
    pub(crate) fn rebuild(&self, mut trans: Transaction<'_>) -> Result {
        crate::fs_info!(self, "rebuilding free space tree");
        trans.mark_changed();
        free_space_tree::rebuild(&mut trans)?;
        trans.commit()
    }

    /// Makes the free space tree, or makes it anew, and commits that (the options `space_cache=v2`
    /// and `clear_cache`).
    ///
    /// # Errors
    ///
    /// `EROFS`, `ENOSPC`, those of reading and of changing trees, and of a commit.
    pub fn renew_free_space_tree(&self) -> Result {
        let mut trans = self.begin(Reserve {
            nodes: RENEWAL,
            data: 0,
            freeing: false,
        })?;
        if EditContext::root(&trans, tree_id::FREE_SPACE).is_err_and(|e| e == ENOENT) {
            crate::fs_info!(self, "creating free space tree");
            let mut item = RootItem::zeroed_boxed()?;
            item.refs = 1.into();
            trans.new_tree(
                &Key::new(tree_id::FREE_SPACE, item_type::ROOT_ITEM, 0),
                item,
            )?;
        }
        trans.space_mut().forget_tracking();
        self.rebuild(trans)
    }

    /// Joins with space for what is reserved.
    fn enter_with_reservation(&self, reserve: Reserve) -> Result<Transaction<'_>> {
        let mut trans = self.enter()?;
        match trans.reserve_space(reserve) {
            Ok(()) => Ok(trans),
            // What frees space may use up what others have to leave, but for what the commit itself
            // needs.
            Err(ENOSPC) if reserve.freeing && !trans.is_tight() => Ok(trans),
            Err(error) => {
                trans.leave();
                Err(error)
            }
        }
    }

    fn join(&self, reserve: Reserve) -> Result<Transaction<'_>> {
        match self.enter_with_reservation(reserve) {
            // What was freed since the last commit may make up for it.
            Err(ENOSPC) => {
                self.commit_as_is(u64::MAX)?;
                match self.enter_with_reservation(reserve) {
                    Err(ENOSPC) if reserve.freeing => self.enter(),
                    joined => joined,
                }
            }
            joined => joined,
        }
    }

    /// Runs `change` as one operation of the running transaction, which it leaves open. Waits for
    /// the operation before it to end, and for a commit under way.
    ///
    /// # Errors
    ///
    /// `EROFS` if the volume is read-only, `ENOSPC` if what is reserved does not fit, those of
    /// `change` and, if the transaction has grown large, of a commit. If `change` fails after it
    /// changed something, the volume turns read-only; else all is as it was.
    pub fn operate<T>(
        &self,
        reserve: Reserve,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut trans = self.join(reserve)?;
        match change(&mut trans) {
            Ok(value) => {
                trans.end()?;
                Ok(value)
            }
            Err(error) if !trans.handle.changed => {
                trans.leave();
                Err(error)
            }
            Err(error) => {
                abort::abort(&mut trans.handle, error);
                Err(error)
            }
        }
    }

    /// Commits what operations have done so far, and waits for a commit under way. The caller holds
    /// nothing that writing back a file may wait for: see [`crate::volume::before_commit`].
    ///
    /// # Errors
    ///
    /// `EROFS` if a transaction failed before; those of writing, which turn the volume read-only.
    pub fn commit(&self) -> Result {
        self.commit_up_to(self.newest_generation().saturating_add(1))
    }

    #[inline(never)]
    pub(super) fn commit_running<'fs>(&'fs self, writer: MutexGuard<'fs, WriterState>) -> Result {
        match self.resume(writer)? {
            Resumed::Running(trans) => trans.commit(),
            Resumed::None(writer) => {
                // Of those to come nobody asked for anything.
                let transid = self.newest_generation();
                drop(writer);
                self.wait_for_sealed(transid)
            }
        }
    }

    /// Brings all operations of transaction `transid`, and of those before it, to disk. The caller
    /// holds nothing that writing back a file may wait for: see [`crate::volume::before_commit`].
    ///
    /// # Errors
    ///
    /// As for [`Self::commit`].
    pub fn commit_up_to(&self, transid: u64) -> Result {
        self.commit_after(transid, &|| self.write_back_before_commit())
    }

    /// As [`Self::commit_up_to`], up to the running transaction at most, without anything being
    /// written back before.
    pub(crate) fn commit_as_is(&self, transid: u64) -> Result {
        let running = self.newest_generation().saturating_add(1);
        self.commit_after(transid.min(running), &|| ())
    }

    /// Commits as long as transaction `transid` is not on disk, each time after calling
    /// `write_back`.
    fn commit_after(&self, transid: u64, write_back: &dyn Fn()) -> Result {
        while self.generation() < transid {
            // Not with the writer's mutex: who changes something until the device is free has it in
            // the same commit.
            self.wait_for_sealed(transid.saturating_sub(1))?;
            write_back();
            let writer = self.writer.lock();
            let newest = self.newest_generation();
            if newest >= transid {
                // Another's commit has taken the operations along.
                break;
            }
            if newest == self.generation() {
                return self.commit_running(writer);
            }
        }
        self.wait_for_sealed(transid)
    }

    /// Whether the running transaction was started `age` milliseconds ago, or memory is short.
    pub fn is_commit_due(&self, age: u64) -> bool {
        self.is_due(&self.writer.lock(), age)
    }

    fn is_due(&self, writer: &WriterState, age: u64) -> bool {
        let old = |running: &Running| uptime_ms().saturating_sub(running.started) >= age;
        self.pressure.wants_commit() || writer.running.as_ref().is_some_and(old)
    }

    /// Commits the running transaction if [`Self::is_commit_due`] says so. The caller writes back
    /// before what must not be missing ([`Self::write_back_before_commit`]).
    ///
    /// # Errors
    ///
    /// As for [`Self::commit`].
    pub fn commit_if_due(&self, age: u64) -> Result {
        let writer = self.writer.lock();
        if !self.is_due(&writer, age) {
            return Ok(());
        }
        self.commit_running(writer)
    }
}

impl Transaction<'_> {
    /// Makes sure that there is space for `reserve` beside what is reserved already.
    fn reserve_space(&mut self, reserve: Reserve) -> Result {
        let nodesize = u64::from(self.fs.geometry.nodesize);
        let bytes_may_use = self.fs.reservations.lock().bytes_may_use();
        let used = self.space().totals(Kind::Metadata).used;
        let mut bytes = reserve.nodes.saturating_mul(nodesize);
        bytes = bytes.saturating_add(self.queued(used));
        let (space, base) = (&mut self.handle.writer.space, &self.base);
        if !reserve.freeing {
            bytes = bytes.saturating_add(bytes_may_use.metadata(used));
        }
        space.ensure_available(base, Kind::Metadata, bytes)?;
        if reserve.data != 0 {
            let bytes = reserve.data.saturating_add(bytes_may_use.data);
            space.ensure_available(base, Kind::Data, bytes)?;
        }
        Ok(())
    }

    /// The bytes of metadata that running what is queued may take, of which `used` bytes are in
    /// use.
    pub(crate) fn queued(&self, used: u64) -> u64 {
        let nodesize = u64::from(self.fs.geometry.nodesize);
        (self.refs.len() as u64).saturating_mul(nodesize).min(used)
    }

    /// How many tree blocks can be allocated without a new chunk, and without using up what the
    /// commit needs.
    pub fn spare_nodes(&self) -> u64 {
        let space = self.space();
        let totals = space.totals(Kind::Metadata);
        let needed = space.global_reserve(Kind::Metadata);
        let spare = totals.available.saturating_sub(needed);
        spare.saturating_sub(self.queued(totals.used)) / self.fs.geometry.nodesize
    }

    /// Whether the transaction should be committed before it uses up what the commit needs.
    fn is_tight(&self) -> bool {
        let space = &self.handle.writer.space;
        let reserve = space.global_reserve(Kind::Metadata);
        space.totals(Kind::Metadata).available < reserve / 2
    }

    /// Ends an operation that changed something.
    fn end(self) -> Result {
        let nodesize = u64::from(self.fs.geometry.nodesize);
        if (self.dirty.len() as u64).saturating_mul(nodesize) > self.fs.dirty_limit {
            return self.commit();
        }
        self.leave();
        Ok(())
    }

    /// Leaves the transaction as it is.
    pub(crate) fn leave(self) {
        let Transaction {
            mut handle,
            fs,
            base,
            superblock,
            roots,
            dirty,
            refs,
            started,
            ..
        } = self;
        handle.finished = true;
        fs.refresh_reservations(&handle.writer.space);
        fs.pressure.set_dirty(dirty.len());
        let changed = handle.is_changed();
        if !changed && !handle.writer.space.is_dirty() {
            return;
        }
        if handle.changed {
            let mut trees = fs.running_trees.lock();
            for tree in roots.changed() {
                trees.add(tree);
            }
        }
        handle.writer.running = Some(Running {
            base: base.into_parts(),
            transid: handle.transid,
            superblock,
            roots,
            dirty,
            refs,
            changed,
            started,
        });
    }
}

impl Fs {
    /// Tells those who look without the writer's mutex that no transaction is left that changed
    /// anything.
    pub(super) fn nothing_runs(&self) {
        self.running_trees.lock().clear();
        self.pressure.relieve();
    }

    /// Tells how much space there is now.
    #[inline(never)]
    pub(crate) fn refresh_reservations(&self, space: &Space) {
        let usages = space.usages();
        let sum = |kind: Kind, of: fn(&Usage) -> u64| {
            let sums = usages.iter().filter(|sum| sum.flags & kind.flag() != 0);
            sums.fold(0u64, |total, sum| total.saturating_add(of(sum)))
        };
        let reserve = space.global_reserve(Kind::Metadata);
        let metadata = sum(Kind::Metadata, Usage::available).saturating_sub(reserve);
        let mut reservations = self.reservations.lock();
        reservations.data = sum(Kind::Data, Usage::available);
        reservations.metadata = metadata;
        reservations.metadata_used =
            sum(Kind::Metadata, |sum| sum.used.saturating_add(sum.reserved));
        reservations.usages = Some(usages);
    }
}
