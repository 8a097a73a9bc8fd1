// SPDX-License-Identifier: GPL-2.0
//! Block groups that are being emptied: nothing is allocated from them meanwhile.

use super::chunk_alloc;
use super::space_info::SpaceContext;
use crate::trans::transaction::Reserve;
use crate::volume::fs::Fs;
use kernel::prelude::*;

/// A block group from which nothing is allocated for as long as this lives.
#[must_use = "the block group is in use again when this is dropped"]
pub struct ReadOnlyBlockGroup<'f> {
    fs: &'f Fs,
    start: u64,
    end: u64,
    flags: u64,
}

impl Fs {
    /// Stops allocation from the block group at `start`, a logical address in bytes, and makes sure
    /// that what is in it fits elsewhere.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such block group, `ENOSPC` if its contents have no space elsewhere,
    /// those of committing the chunks that were made for them, `EINTR` if a signal came while data
    /// was on its way to the block group.
    pub fn set_block_group_read_only(&self, start: u64) -> Result<ReadOnlyBlockGroup<'_>> {
        let mut trans = self.begin(Reserve::default())?;
        let bytes_may_use = self.reservations.lock().bytes_may_use();
        let (space, base) = trans.allocator();
        space.set_read_only(base, start)?;
        let group = space.group_at(start)?;
        let (kind, moving) = (group.kind(), group.used().saturating_add(group.reserved()));
        let bytes_may_use = bytes_may_use.of_kind(kind, space.totals(kind).used);
        if bytes_may_use != 0 {
            // Space is reserved for writers, and what moves must not take it.
            let made = space.ensure_available(base, kind, moving.saturating_add(bytes_may_use));
            if let Err(error) = made {
                space.set_read_write(start)?;
                return Err(error);
            }
        }
        let group = space.group_at(start)?;
        let read_only = ReadOnlyBlockGroup {
            fs: self,
            start,
            end: group.end(),
            flags: group.flags,
        };
        self.refresh_reservations(space);
        let made_chunks = space.is_dirty();
        let committed = if made_chunks {
            trans.mark_changed();
            match trans.settle() {
                Ok(()) => trans.commit(),
                Err(error) => {
                    trans.cancel();
                    Err(error)
                }
            }
        } else {
            drop(trans);
            Ok(())
        };
        // The transaction is over in either case, so that dropping `read_only` may take the
        // writer's mutex.
        committed?;
        read_only.wait_for_data()?;
        Ok(read_only)
    }
}

impl ReadOnlyBlockGroup<'_> {
    /// Waits until no data is on its way to the block group: as nothing is allocated from it, none
    /// comes after that.
    ///
    /// # Errors
    ///
    /// `EINTR` if a signal came first, `ENOMEM` where space in the block group cannot be given
    /// back.
    fn wait_for_data(&self) -> Result {
        let mut writer = self.fs.writer.lock();
        loop {
            let space = writer.space_mut();
            space.retry_deferred_frees();
            if !space.is_ordered(self.start, self.end) {
                return Ok(());
            }
            if space.has_deferred_frees() {
                return Err(ENOMEM);
            }
            if self.fs.ordered_done.wait_interruptible(&mut writer) {
                return Err(EINTR);
            }
        }
    }

    /// The logical end, in bytes.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What the block group holds, and its profile: [`crate::format::chunk::block_group_flags`].
    pub fn flags(&self) -> u64 {
        self.flags
    }

    /// Removes the block group, which must be empty, and its chunk.
    ///
    /// # Errors
    ///
    /// `EBUSY` if something is in it; those of committing.
    pub fn remove(self) -> Result {
        let mut trans = self.fs.begin(Reserve::default())?;
        let removed = chunk_alloc::remove_chunk(&mut trans, self.start);
        if let Err(error) = removed.and_then(|()| trans.settle()) {
            trans.cancel();
            return Err(error);
        }
        trans.commit()
        // Dropping `self` then finds no such block group.
    }
}

impl Drop for ReadOnlyBlockGroup<'_> {
    fn drop(&mut self) {
        let mut writer = self.fs.writer.lock();
        // Removed block groups, and those of a volume that has to be read anew, need no thawing.
        if writer.space_mut().set_read_write(self.start).is_ok() {
            self.fs.refresh_reservations(&writer.space);
        }
    }
}
