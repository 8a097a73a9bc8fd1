// SPDX-License-Identifier: GPL-2.0
//! The transaction that replays a log, and the space that the log takes.
//!
//! The blocks of a log, and the data that only a log refers to, are in no extent item: to the last
//! commit that space is free. The transaction takes all of it before it changes anything, so that
//! nothing that the log needs is overwritten, and a power cut in the midst of the replay leaves a
//! log that can be replayed again.

use super::fs::Fs;
use crate::extent::delayed_ref::NewExtent;
use crate::format::extent::FLAG_DATA;
use crate::space::space_info::SpaceContext;
use crate::trans::transaction::Transaction;
use kernel::prelude::*;

impl Fs {
    /// Whether the last commit left a log that is to be replayed.
    pub fn has_log(&self) -> bool {
        self.roots.lock().superblock.log_root.get() != 0
    }

    /// Begins the transaction that replays the log. Until its commit, which ends the log, nothing
    /// else may write to the volume. It starts from the last commit as it is: a free space tree
    /// that is not complete is rebuilt by the transaction after it.
    ///
    /// # Errors
    ///
    /// `EINVAL` and `EROFS` for volumes that cannot be written to, with a message; errors of
    /// reading; `ENOMEM`.
    pub fn begin_replay(&self) -> Result<Transaction<'_>> {
        self.check_failed()?;
        let roots = self.roots.lock().clone();
        super::open::check_writing(&*self.device, &roots.superblock)?;
        super::writable::check(&self.reader()?)?;
        let writer = self.writer.lock();
        if writer.running.is_some() {
            return Err(EBUSY);
        }
        let mut trans = self.start_on(writer)?;
        trans.unchecked = true;
        trans.mark_changed();
        trans.superblock.log_root = 0.into();
        trans.superblock.log_root_level = 0;
        Ok(trans)
    }
}

impl Transaction<'_> {
    /// Takes the space of a block of the log. The commit frees it.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if it is not free; errors of reading; `ENOMEM`.
    pub fn pin_log_block(&mut self, bytenr: u64) -> Result {
        let nodesize = u64::from(self.fs().geometry.nodesize);
        self.mark_changed();
        let (space, base) = self.allocator();
        space.alloc_at(base, bytenr, nodesize)?;
        space.abandon(bytenr, nodesize)
    }

    /// Makes sure that a data extent that a logged file refers to has its space: one that is not in
    /// the extent tree is allocated, with an extent item that has no references yet. If it gets
    /// none, the commit frees it.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if something else is there; errors of reading; `ENOMEM`.
    pub fn alloc_logged_extent(&mut self, bytenr: u64, num_bytes: u64) -> Result {
        match self.extent_info(bytenr) {
            Ok(info) if info.flags & FLAG_DATA != 0 && info.num_bytes == num_bytes => {
                return Ok(());
            }
            Ok(_) => return Err(EUCLEAN),
            Err(ENOENT) => {}
            Err(error) => return Err(error),
        }
        self.mark_changed();
        let (space, base) = self.allocator();
        space.alloc_at(base, bytenr, num_bytes)?;
        self.refs()
            .new_extent(bytenr, num_bytes, NewExtent::Data, 0)
    }
}
