// SPDX-License-Identifier: GPL-2.0
//! Ordered extents: space for data that is on its way to the device
//! (`struct btrfs_ordered_extent`).
//!
//! Data is written first, to space that is allocated and that no tree knows of; once it is there,
//! an operation puts the extent into the trees. Power that fails in between leaves the space free.
//! Such space is in no transaction: it outlives commits, and transactions that are given up.

use super::block_group::Kind;
use super::extent_set::Extent;
use super::ordered_space::{DeferredFree, FreeKind};
use super::reservation::DataReservation;
use super::space_info::{Space, SpaceContext};
use crate::device::{Mirrors, WriteIo};
use crate::extent::delayed_ref::NewExtent;
use crate::extent::refs::RefKind;
use crate::platform::NofsScope;
use crate::trans::epoch::EpochGuard;
use crate::trans::transaction::Transaction;
use crate::tree::Geometry;
use crate::volume::fs::Fs;
use kernel::prelude::*;

/// The largest data extent, in bytes.
pub const MAX_EXTENT: u64 = 128 << 20;

/// Data space that is allocated and in no tree yet; given back when this is dropped, which takes
/// the writer's mutex. Writes to it must have ended by then.
#[must_use = "the space is given back when this is dropped"]
pub struct OrderedExtent {
    fs: Fs,
    start: u64,
    len: u64,
    /// Taken by the drop, which must not fail.
    deferred_free: Option<KBox<DeferredFree>>,
    /// A file has this space already, preallocated; if it loses it, the space is not used again as
    /// long as this lives.
    nocow_epoch: Option<EpochGuard>,
}

impl Fs {
    /// Allocates up to `want` bytes of data space, a multiple of the sector size and at most
    /// [`MAX_EXTENT`]; fewer if there is no free extent of that size. `reservation` shrinks by what
    /// is allocated. Takes the writer's mutex.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, which cannot be where the reservation covers it; `EINVAL` if `want` is 0 or not
    /// aligned; `EROFS`; those of reading; `ENOMEM`.
    pub fn alloc_data(
        &self,
        reservation: Option<&mut DataReservation>,
        want: u64,
    ) -> Result<OrderedExtent> {
        let deferred_free = DeferredFree::new()?;
        let mut trans = self.enter()?;
        let allocated = trans.alloc_ordered(want.min(MAX_EXTENT), deferred_free);
        trans.leave();
        let (extent, deferred_free) = allocated?;
        if let Some(reservation) = reservation {
            reservation.release(extent.len);
        }
        Ok(OrderedExtent {
            fs: self.clone(),
            start: extent.start,
            len: extent.len,
            deferred_free: Some(deferred_free),
            nocow_epoch: None,
        })
    }

    /// Takes the first free space of at least `least` bytes between two logical addresses, or the
    /// first `most` bytes of it, out of use, as if data were on its way there. Block groups that
    /// are being emptied have none, nor is anything taken that is reserved or that commits need.
    /// Takes the writer's mutex.
    ///
    /// # Errors
    ///
    /// `EROFS`; those of reading; `ENOMEM`.
    pub fn take_free(
        &self,
        between: (u64, u64),
        least: u64,
        most: u64,
    ) -> Result<Option<OrderedExtent>> {
        let deferred_free = DeferredFree::new()?;
        let mut trans = self.enter()?;
        let bytes_may_use = self.reservations.lock().bytes_may_use();
        let queued = trans.queued(trans.space().totals(Kind::Metadata).used);
        let spare = |space: &Space, kind| {
            let totals = space.totals(kind);
            let queued = if kind == Kind::Metadata { queued } else { 0 };
            totals
                .available
                .saturating_sub(space.global_reserve(kind))
                .saturating_sub(bytes_may_use.of_kind(kind, totals.used))
                .saturating_sub(queued)
        };
        let (space, base) = trans.allocator();
        let taken = space.take_free(base, between, least, most, spare);
        let taken = taken.and_then(|extent| {
            let Some(extent) = extent else {
                return Ok(None);
            };
            match space.set_ordered(extent) {
                Ok(()) => Ok(Some((extent, deferred_free))),
                Err(error) => {
                    space.free_or_defer(deferred_free, extent, FreeKind::Allocated);
                    Err(error)
                }
            }
        });
        trans.leave();
        Ok(taken?.map(|(extent, deferred_free)| OrderedExtent {
            fs: self.clone(),
            start: extent.start,
            len: extent.len,
            deferred_free: Some(deferred_free),
            nocow_epoch: None,
        }))
    }

    /// Makes space that a file has, and that nothing was written to yet, a place for data. `find`
    /// returns address and size in bytes, or nothing. Returns nothing as well if the space is about
    /// to be moved, or written to already.
    ///
    /// # Errors
    ///
    /// Those of `find`, `EROFS`, `ENOMEM`.
    pub fn nocow_extent(
        &self,
        find: impl FnOnce(&Transaction<'_>) -> Result<Option<(u64, u64)>>,
    ) -> Result<Option<OrderedExtent>> {
        let deferred_free = DeferredFree::new()?;
        let mut trans = self.enter()?;
        let found = find(&trans).and_then(|found| {
            let Some((start, len)) = found else {
                return Ok(None);
            };
            match trans.space_mut().begin_nocow(Extent::new(start, len)?) {
                Ok(true) => Ok(Some((start, len))),
                Ok(false) => Ok(None),
                Err(e) if e == EEXIST => Ok(None),
                Err(e) => Err(e),
            }
        });
        let epoch = trans.base.epoch();
        trans.leave();
        Ok(found?.map(|(start, len)| OrderedExtent {
            fs: self.clone(),
            start,
            len,
            deferred_free: Some(deferred_free),
            nocow_epoch: Some(epoch),
        }))
    }
}

impl Transaction<'_> {
    fn alloc_ordered(
        &mut self,
        want: u64,
        deferred_free: KBox<DeferredFree>,
    ) -> Result<(Extent, KBox<DeferredFree>)> {
        let sectorsize = u64::from(self.fs.geometry.sectorsize);
        let (space, base) = self.allocator();
        let extent = space.alloc_data(base, sectorsize, want, 0)?;
        if let Err(error) = space.set_ordered(extent) {
            space.free_or_defer(deferred_free, extent, FreeKind::Allocated);
            return Err(error);
        }
        Ok((extent, deferred_free))
    }

    /// Makes data space in an ordered extent an extent of this transaction, with its extent item
    /// queued and without references yet. Nothing is left to be given back. Space that a file has
    /// already only ceases to be in an ordered extent.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the space is not in an ordered extent, `ENOMEM`.
    pub fn finish_ordered(&mut self, data: &mut OrderedExtent) -> Result {
        let extent = Extent::new(data.start, data.len)?;
        self.handle.changed = true;
        if data.is_nocow() {
            self.space_mut().end_nocow(extent)?;
        } else {
            self.space_mut().finish_ordered(extent)?;
            self.refs
                .new_extent(extent.start, extent.len, NewExtent::Data, 0)?;
        }
        data.len = 0;
        self.fs.ordered_done.notify_all();
        Ok(())
    }
}

impl Transaction<'_> {
    /// Makes the data extent of `len` bytes at `start`, which `kind` holds, reach over the extent
    /// of `more` bytes that follows and that nobody holds yet. That can be if this transaction
    /// allocated both, in one block group, nobody else refers to the first, and the size is that of
    /// an extent. True if it was done.
    ///
    /// The caller has the holder's item say the new size, and makes sure that no snapshot shares
    /// the old one.
    pub fn extend_data(&mut self, (start, len): (u64, u64), more: u64, kind: RefKind) -> bool {
        let both = len.checked_add(more).filter(|len| *len <= MAX_EXTENT);
        let Some(Ok(extent)) = both.map(|len| Extent::new(start, len)) else {
            return false;
        };
        if !self.space().is_within_group(extent) {
            return false;
        }
        self.refs.join_new(start, kind)
    }
}

impl OrderedExtent {
    /// The logical address, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has landed: nothing is left of it here.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a file has this space already.
    pub fn is_nocow(&self) -> bool {
        self.nocow_epoch.is_some()
    }

    /// Takes the first `len` bytes, a multiple of the sector size, off as an extent of their own.
    ///
    /// # Errors
    ///
    /// `EINVAL` unless that leaves something of both, and for space that a file has already;
    /// `ENOMEM`.
    pub fn split(&mut self, len: u64) -> Result<OrderedExtent> {
        let sectorsize = self.fs.geometry.sectorsize;
        if len == 0 || len >= self.len || len % sectorsize != 0 || self.is_nocow() {
            return Err(EINVAL);
        }
        let first = OrderedExtent {
            fs: self.fs.clone(),
            start: self.start,
            len,
            deferred_free: Some(DeferredFree::new()?),
            nocow_epoch: None,
        };
        self.start = self.start.saturating_add(len);
        self.len = self.len.saturating_sub(len);
        Ok(first)
    }

    /// Where `len` bytes at `offset` in the extent are on the device: the data has to be written to
    /// every copy.
    ///
    /// # Errors
    ///
    /// `EINVAL` outside of the extent.
    pub fn mirrors(&self, offset: u64, len: u64) -> Result<Mirrors> {
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if end > self.len {
            return Err(EINVAL);
        }
        let logical = self.start.checked_add(offset).ok_or(EINVAL)?;
        self.fs.chunk_map().mirrors(logical, len)
    }

    /// Writes `buf` to `offset` in the extent, to all copies. Both are multiples of the sector
    /// size. Nothing is flushed: the commit does that.
    ///
    /// # Errors
    ///
    /// `EINVAL` outside of the extent, `EIO`, `ENOMEM`.
    pub fn write(&self, offset: u64, buf: &[u8]) -> Result {
        let mut writes = KVec::new();
        for offset in self.mirrors(offset, buf.len() as u64)?.iter() {
            writes.push(WriteIo { offset, buf }, GFP_KERNEL)?;
        }
        self.fs.device.write_many(&writes)
    }
}

/// Appends the checksums of the sectors of `data` to `sums`, as the checksum tree has them.
///
/// # Errors
///
/// `ENOMEM`.
pub fn push_checksums(data: &[u8], geometry: &Geometry, sums: &mut KVVec<u8>) -> Result {
    for sector in data.chunks(geometry.sectorsize.into()) {
        sums.extend_from_slice(geometry.checksum.of(sector).bytes(), GFP_KERNEL)?;
    }
    Ok(())
}

impl Drop for OrderedExtent {
    fn drop(&mut self) {
        let Ok(extent) = Extent::new(self.start, self.len) else {
            return;
        };
        let Some(deferred_free) = self.deferred_free.take() else {
            return;
        };
        let kind = if self.is_nocow() {
            FreeKind::Nocow
        } else {
            FreeKind::Ordered
        };
        let _nofs = NofsScope::enter();
        let mut writer = self.fs.writer.lock();
        writer
            .space_mut()
            .free_or_defer(deferred_free, extent, kind);
        self.fs.ordered_done.notify_all();
    }
}
