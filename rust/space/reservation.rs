// SPDX-License-Identifier: GPL-2.0
//! Space that is reserved for writers, so that data which was accepted finds its place when it is
//! written back.
//!
//! A reservation counts bytes; which bytes is decided when they are allocated. What is reserved is
//! compared with what the last operation left free, under a leaf lock, so that a writer waits for
//! nobody as long as there is enough. Where there is not, it makes chunks, and commits, which makes
//! usable again what was freed.

use super::block_group::Kind;
use super::usage::Usages;
use crate::trans::transaction::Reserve;
use crate::volume::fs::Fs;
use kernel::prelude::*;

/// What is free and what of it is reserved, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceReservations {
    /// Data that can be allocated without a new chunk.
    pub(crate) data: u64,
    /// The same of metadata, less what commits need.
    pub(crate) metadata: u64,
    /// Metadata in use.
    pub(crate) metadata_used: u64,
    /// What users are told, once there was an operation.
    pub(crate) usages: Option<Usages>,
    bytes_may_use: BytesMayUse,
}

/// What is reserved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BytesMayUse {
    /// Bytes of data.
    pub(crate) data: u64,
}

/// How much may be copied by one transaction before it is committed.
const COPIED: u64 = 64 << 20;

impl BytesMayUse {
    /// The metadata that putting this much data in place takes, in bytes, if every sector gets an
    /// extent of its own: the new items, and copies of the tree blocks that they go to, of which
    /// there are `used` bytes in all.
    pub(crate) fn metadata(&self, used: u64) -> u64 {
        let items = self.data / 16;
        let copies = self.data.saturating_mul(8).min(used).min(COPIED);
        items.saturating_add(copies)
    }
}

impl BytesMayUse {
    /// What is reserved of a kind, of which `used` bytes are in use.
    pub(super) fn of_kind(&self, kind: Kind, used: u64) -> u64 {
        match kind {
            Kind::Data => self.data,
            Kind::Metadata => self.metadata(used),
            Kind::System => 0,
        }
    }
}

impl SpaceReservations {
    pub(crate) fn bytes_may_use(&self) -> BytesMayUse {
        self.bytes_may_use
    }

    /// Reserves `bytes` more, if they are there for sure.
    fn try_reserve(&mut self, bytes: u64) -> bool {
        let bytes_may_use = BytesMayUse {
            data: self.bytes_may_use.data.saturating_add(bytes),
        };
        let fits = bytes_may_use.data <= self.data
            && bytes_may_use.metadata(self.metadata_used) <= self.metadata;
        if fits {
            self.bytes_may_use = bytes_may_use;
        }
        fits
    }
}

/// A reservation of space for data, in bytes; taken back when this is dropped.
#[must_use = "the room is anybody's once this is dropped"]
pub struct DataReservation {
    fs: Fs,
    bytes: u64,
}

impl Fs {
    /// Reserves space for `bytes` of data, a multiple of the sector size, and for the metadata that
    /// goes with it. May commit; no lock of the engine may be held.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, `EROFS`; those of a commit.
    pub fn reserve_data(&self, bytes: u64) -> Result<DataReservation> {
        self.check_writable()?;
        let try_reserve = || {
            self.reservations
                .lock()
                .try_reserve(bytes)
                .then(|| DataReservation {
                    fs: self.clone(),
                    bytes,
                })
        };
        if let Some(reservation) = try_reserve() {
            return Ok(reservation);
        }
        let reserve = Reserve {
            data: bytes,
            ..Reserve::default()
        };
        // Another writer may take what was made: the one that made it gets a few more chances.
        for _ in 0..4 {
            self.operate(reserve, |_| Ok(()))?;
            if let Some(reservation) = try_reserve() {
                return Ok(reservation);
            }
            self.commit_as_is(u64::MAX)?;
        }
        Err(ENOSPC)
    }
}

impl Fs {
    /// The bytes of data that are reserved for writers.
    pub fn data_bytes_may_use(&self) -> u64 {
        self.reservations.lock().bytes_may_use.data
    }
}

impl DataReservation {
    /// How much is reserved, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes a reservation of its own of `bytes` of this one, or of all of it if that is less.
    pub fn split(&mut self, bytes: u64) -> DataReservation {
        let bytes = bytes.min(self.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
        DataReservation {
            fs: self.fs.clone(),
            bytes,
        }
    }

    /// Adds another reservation to this one.
    pub fn merge(&mut self, mut other: DataReservation) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        other.bytes = 0;
    }

    /// Takes up to `bytes` of the reservation back.
    pub fn release(&mut self, bytes: u64) {
        drop(self.split(bytes));
    }
}

impl Drop for DataReservation {
    fn drop(&mut self) {
        if self.bytes != 0 {
            let mut reservations = self.fs.reservations.lock();
            reservations.bytes_may_use.data =
                reservations.bytes_may_use.data.saturating_sub(self.bytes);
        }
    }
}
