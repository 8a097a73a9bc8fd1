// SPDX-License-Identifier: GPL-2.0
//! Reading for long: one commit after the other, and none while nothing is read.
//!
//! A reader keeps what its commit refers to from being used again, so that none may be held across
//! a wait for user space, nor for longer than one batch of work. A session holds one from look-up
//! to look-up, leaves it before each such wait and as soon as there is a newer commit, and enters
//! the newest one with the next look-up. Nodes in memory stay right meanwhile, as a committed node
//! never changes; what they point to does not, if it was freed or moved. Places in trees therefore
//! carry the [`Stamp`] of the commit that they were found in, and are sought anew where it has
//! changed.

use super::fs::Fs;
use crate::trans::reader::Reader;
use core::cell::Cell;
use kernel::prelude::*;

/// Reads the newest commit, and goes on to newer ones.
pub struct ReadSession {
    fs: Fs,
    /// The commit that was entered, unless it was left.
    reader: Cell<Option<Reader>>,
}

/// What tells whether an address that was found in one commit holds in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

impl Stamp {
    /// The stamp of what was never looked up.
    pub const NONE: Stamp = Stamp(0);

    /// For trees that nothing but a relocation changes: read-only snapshots under send. Their
    /// blocks and extents are where they were until something was relocated.
    pub fn of_snapshots(reader: &Reader) -> Stamp {
        Stamp(reader.relocated())
    }

    /// For all other trees: each commit has its own.
    pub fn of_commit(reader: &Reader) -> Stamp {
        Stamp(reader.generation())
    }
}

impl ReadSession {
    /// A session that begins with the commit of `reader`.
    pub fn new(reader: Reader) -> Self {
        Self {
            fs: reader.fs().clone(),
            reader: Cell::new(Some(reader)),
        }
    }

    /// The volume.
    pub fn fs(&self) -> &Fs {
        &self.fs
    }

    /// Reads from one commit: the one that was entered last, or the newest if that was left. `read`
    /// waits for nothing but the device.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of `read`.
    #[inline]
    pub fn read<T>(&self, read: impl FnOnce(&Reader) -> Result<T>) -> Result<T> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.fs.reader()?,
        };
        let result = read(&reader);
        self.reader.set(Some(reader));
        result
    }

    /// Leaves the commit, before a wait that may be long. What was read by address may be gone
    /// after this.
    pub fn leave(&self) {
        drop(self.reader.take());
    }

    /// Between two batches of work: leaves the commit if there is a newer one.
    #[inline]
    pub fn renew(&self) {
        let reader = self.reader.take();
        if let Some(reader) = reader {
            if reader.generation() == self.fs.epochs.committed() {
                self.reader.set(Some(reader));
            }
        }
    }
}
