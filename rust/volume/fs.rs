// SPDX-License-Identifier: GPL-2.0
//! One mounted volume.

use super::before_commit::Asked;
use crate::device::barrier::Barrier;
use crate::device::stats::DeviceStats;
use crate::device::{BlockDevice, ChunkMap};
use crate::mount::Rescue;
use crate::space::reservation::SpaceReservations;
use crate::state::State;
use crate::trans::commit_stats::CommitStats;
use crate::trans::epoch::Epochs;
use crate::trans::pressure::Pressure;
use crate::trans::reader::Reader;
use crate::trans::running::RunningTrees;
use crate::trans::sealed::Sealed;
use crate::trans::transaction::WriterState;
use crate::trans::tree_log::LogSync;
use crate::tree::{Geometry, NodeCache};
use core::ops::Deref;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};
use kernel::sync::{Arc, CondVar, Mutex};

use crate::trans::commit_roots::CommitRoots;

/// A volume. It is a reference to what all its users share; readers have one of their own.
#[derive(Clone)]
pub struct Fs(Arc<Shared>);

/// What everybody who uses a volume shares.
pub struct Shared {
    /// The device.
    pub device: Arc<dyn BlockDevice>,
    /// How often the device failed. What goes through `device` is counted there.
    pub stats: Arc<DeviceStats>,
    /// Whether the cache of `device` is flushed.
    pub(super) barrier: Arc<Barrier>,
    /// File data is not compared with its checksums.
    pub(super) ignore_data_checksums: Atomic<bool>,
    /// Trees that only some operations need may be unreadable.
    pub(super) ignore_bad_roots: bool,
    /// How fast a scrub may read, in bytes a second; 0 for as fast as it can.
    pub(super) scrub_speed_max: Atomic<u64>,
    /// Sizes and UUIDs.
    pub geometry: Geometry,
    /// The committed nodes that were read.
    pub cache: NodeCache,
    /// Who reads which commit.
    pub epochs: Epochs,
    /// Sends, relocation, and exclusive operations.
    pub state: State,
    /// How long commits took.
    pub commits: CommitStats,
    /// What waits in memory for a commit.
    pub pressure: Pressure,
    /// A transaction of more bytes of tree blocks than this is committed by the operation that made
    /// it so large.
    pub(crate) dirty_limit: u64,
    /// The map in use; swapped whole, under a leaf lock. The cache shares it.
    pub(crate) chunks: Arc<Mutex<Arc<ChunkMap>>>,
    /// The last commit; swapped whole, under a leaf lock.
    pub(crate) roots: Pin<KBox<Mutex<Arc<CommitRoots>>>>,
    /// The commit that is being written; a leaf lock.
    pub(crate) sealed: Pin<KBox<Mutex<Option<Sealed>>>>,
    /// Told when none is any more.
    pub(crate) unsealed: Pin<KBox<CondVar>>,
    /// How far the log of the running transaction is written; a leaf lock.
    pub(crate) log_sync: Pin<KBox<Mutex<LogSync>>>,
    /// Told when a log was written.
    pub(crate) log_synced: Pin<KBox<CondVar>>,
    /// What the one writer needs; held for the length of a transaction.
    pub(crate) writer: Pin<KBox<Mutex<WriterState>>>,
    /// Told whenever data space that was allocated gets its extent item or is given back; waited
    /// for with the writer's mutex.
    pub(crate) ordered_done: Pin<KBox<CondVar>>,
    /// The trees that differ from the last commit; a leaf lock.
    pub(crate) running_trees: Pin<KBox<Mutex<RunningTrees>>>,
    /// What is asked before a commit; see `before_commit.rs`. Taken outside of the writer's mutex.
    pub(super) before_commit: Pin<KBox<Mutex<Asked>>>,
    /// What may still be reserved for writers; a leaf lock.
    pub(crate) reservations: Pin<KBox<Mutex<SpaceReservations>>>,
    pub(crate) read_only: Atomic<bool>,
    /// The error number of a transaction that failed, or 0: nothing is written until the next
    /// mount.
    pub(crate) failed: Atomic<i32>,
    /// All use of the volume was ended; then `failed` is set as well.
    pub(super) is_shut_down: Atomic<bool>,
}

impl Deref for Fs {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Fs {
    pub(crate) fn new(shared: Shared) -> Result<Self> {
        Ok(Self(Arc::new(shared, GFP_KERNEL)?))
    }

    /// A view of the last commit, which stays as it is as long as the reader lives.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn reader(&self) -> Result<Reader> {
        // In this order, so that the epoch is never younger than the roots; see `epoch.rs`.
        let epoch = self.epochs.enter()?;
        let roots = self.roots.lock().clone();
        Ok(Reader::new(self.clone(), roots, epoch, None))
    }

    /// Forbids writing, or allows it again, as a remount asks.
    ///
    /// # Errors
    ///
    /// `EROFS` if a transaction failed since the volume was opened; `EINVAL` for features that
    /// forbid writing, and `EROFS` for a log tree and whatever else is not kept up here, with a
    /// message each; `ENOMEM`.
    pub fn set_read_only(&self, read_only: bool) -> Result {
        if read_only {
            self.note_read_only(true);
            return Ok(());
        }
        self.check_failed()?;
        let roots = self.roots.lock().clone();
        super::open::check_writing(&*self.device, &roots.superblock)?;
        if roots.superblock.log_root.get() != 0 {
            crate::fs_warn!(
                self,
                "mount required to replay tree-log, cannot remount read-write"
            );
            return Err(EINVAL);
        }
        self.note_read_only(false);
        self.prove_writable()
            .inspect_err(|_| self.note_read_only(true))
    }
}

impl Shared {
    /// The device's name, for messages.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// The map from logical to physical addresses.
    pub fn chunk_map(&self) -> Arc<ChunkMap> {
        self.chunks.lock().clone()
    }

    /// Puts a new map in the place of the old one.
    pub fn publish_chunk_map(&self, map: Arc<ChunkMap>) {
        let old = core::mem::replace(&mut *self.chunks.lock(), map);
        // What was the last reference is dropped here, after the lock.
        drop(old);
    }

    /// The generation of the last commit.
    pub fn generation(&self) -> u64 {
        self.roots.lock().superblock.generation.get()
    }

    /// Makes a commit, whose superblock is durable, the one that new readers see.
    pub fn publish(&self, roots: Arc<CommitRoots>) {
        let transid = roots.superblock.generation.get();
        self.cache.committed(transid);
        let old = core::mem::replace(&mut *self.roots.lock(), roots);
        self.epochs.advance(transid);
        drop(old);
    }

    /// Turns the flushing of the device's cache on or off.
    pub fn set_barrier(&self, is_on: bool) {
        self.barrier.set(is_on);
    }

    /// Puts those rescue options in force that can be changed while a volume is open: about
    /// checksums.
    pub fn set_rescue(&self, rescue: &Rescue) {
        self.ignore_data_checksums
            .store(rescue.ignore_data_checksums, Relaxed);
        self.cache
            .ignore_checksums(rescue.ignore_metadata_checksums);
    }

    /// Whether file data is not compared with its checksums.
    pub fn ignores_data_checksums(&self) -> bool {
        self.ignore_data_checksums.load(Relaxed)
    }

    /// Whether trees that only some operations need may be unreadable.
    pub fn ignores_bad_roots(&self) -> bool {
        self.ignore_bad_roots
    }

    /// How fast a scrub may read, in bytes a second; 0 for as fast as it can.
    pub fn scrub_speed_max(&self) -> u64 {
        self.scrub_speed_max.load(Relaxed)
    }

    /// Limits scrubs.
    pub fn set_scrub_speed_max(&self, bytes: u64) {
        self.scrub_speed_max.store(bytes, Relaxed);
    }

    /// Whether nothing may be written.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Acquire) || self.failure().is_some()
    }

    /// Says whether something may be written.
    fn note_read_only(&self, read_only: bool) {
        self.cache.allow_repairs(!read_only);
        self.read_only.store(read_only, Release);
    }

    /// Forbids writing until the next mount, because a transaction failed with `error`.
    pub fn force_read_only(&self, error: Error) {
        self.cache.allow_repairs(false);
        self.failed.store(error.to_errno(), Release);
    }

    /// Ends all use of the volume at once: what is only in memory is lost, and reading and writing
    /// files fails. It is as if the power were cut, but for a commit that is on its way to the disk
    /// already.
    pub fn shut_down(&self) {
        if self.is_shut_down.cmpxchg(false, true, Full).is_ok() {
            self.force_read_only(EIO);
            crate::fs_crit!(self, "emergency shutdown");
        }
    }

    /// Whether the volume can still be used.
    ///
    /// # Errors
    ///
    /// `EIO` once it was shut down.
    pub fn check_shut_down(&self) -> Result {
        if self.is_shut_down.load(Acquire) {
            return Err(EIO);
        }
        Ok(())
    }

    /// What the transaction that failed, if one did, failed with.
    pub(crate) fn failure(&self) -> Option<Error> {
        match self.failed.load(Acquire) {
            0 => None,
            errno => Some(Error::from_errno(errno)),
        }
    }

    /// Whether transactions can still be committed.
    ///
    /// # Errors
    ///
    /// `EROFS` once one has failed.
    pub fn check_failed(&self) -> Result {
        match self.failure() {
            Some(_) => Err(EROFS),
            None => Ok(()),
        }
    }

    /// Whether writing is allowed.
    ///
    /// # Errors
    ///
    /// `EROFS` if it is not.
    pub fn check_writable(&self) -> Result {
        if self.is_read_only() {
            return Err(EROFS);
        }
        Ok(())
    }
}
