// SPDX-License-Identifier: GPL-2.0
//! The state of inodes and names at the receiver, at the point that the stream has reached
//! (`get_cur_inode_state`, `will_overwrite_ref` and `did_overwrite_ref` in the C driver).
//!
//! An inode is known by number and generation. Inodes are processed in the order of their numbers:
//! those below `Position::progress` are as in the subvolume being sent, the others as in the
//! parent. A name of the parent may be taken by then, though, by an inode that was processed
//! earlier and has this name now; the inode that had it before got an orphan name at that point.
//!
//! An example: directories 257 and 258, of generation 7, exchange their names.
//!
//! ```text
//!     parent        sent           stream
//!     257 a         257 b          rename b -> o258-7-0    258 still has b: will_overwrite_ref
//!     258 b         258 a          rename a -> b           257 has its new name
//!                                  rename o258-7-0 -> a    257 took b from 258: did_overwrite_ref
//! ```

use super::path::NameBuf;
use crate::format::objectid;
use crate::send::context::Send;
use crate::send::current_inode::Fate;
use crate::send::snapshots::Snapshot;
use kernel::prelude::*;

/// What becomes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::send) enum InodeState {
    /// It is in both snapshots.
    NoChange,
    WillCreate,
    DidCreate,
    WillDelete,
    DidDelete,
}

/// A standing, with the generations that the inode's number has in the two snapshots: 0 where there
/// is no such inode, or it has no names.
pub(in crate::send) struct Found {
    pub(in crate::send) state: InodeState,
    pub(in crate::send) sent: u64,
    pub(in crate::send) parent: u64,
}

/// The inode that has a name which another one is going to take.
pub(in crate::send) struct OverwrittenInode {
    pub(in crate::send) ino: u64,
    pub(in crate::send) generation: u64,
    pub(in crate::send) mode: u32,
}

impl Send<'_> {
    /// The standing of an inode.
    ///
    /// # Errors
    ///
    /// `ENOENT` if neither snapshot has it.
    pub(in crate::send) fn get_inode_state(&mut self, ino: u64, generation: u64) -> Result<Found> {
        let named = |inode: crate::format::inode::InodeItem| {
            (inode.nlink.get() != 0).then_some(inode.generation.get())
        };
        let sent = self
            .snapshots
            .inode_in(Snapshot::Sent, ino)?
            .and_then(named);
        let parent = self
            .snapshots
            .inode_in(Snapshot::Parent, ino)?
            .and_then(named);
        let done = ino < self.position.progress;
        let state = match (sent == Some(generation), parent == Some(generation)) {
            (true, true) => InodeState::NoChange,
            (true, false) if done => InodeState::DidCreate,
            (true, false) => InodeState::WillCreate,
            (false, true) if done => InodeState::DidDelete,
            (false, true) => InodeState::WillDelete,
            (false, false) => return Err(ENOENT),
        };
        Ok(Found {
            state,
            sent: sent.unwrap_or(0),
            parent: parent.unwrap_or(0),
        })
    }

    /// As [`Send::get_inode_state`], if the inode is at the receiver now. The top directory always
    /// is.
    fn existing_inode_state(&mut self, ino: u64, generation: u64) -> Result<Option<Found>> {
        let found = self.get_inode_state(ino, generation)?;
        let there = matches!(
            found.state,
            InodeState::NoChange | InodeState::DidCreate | InodeState::WillDelete
        );
        Ok(there.then_some(found))
    }

    /// Whether an inode is at the receiver now.
    pub(in crate::send) fn is_inode_existent(&mut self, ino: u64, generation: u64) -> Result<bool> {
        if ino == objectid::FIRST_FREE {
            return Ok(true);
        }
        Ok(self.existing_inode_state(ino, generation)?.is_some())
    }

    /// The inode that has `name` in `dir` now and is not processed yet.
    pub(in crate::send) fn will_overwrite_ref(
        &mut self,
        dir: u64,
        generation: u64,
        name: &[u8],
    ) -> Result<Option<OverwrittenInode>> {
        if dir != objectid::FIRST_FREE {
            let Some(found) = self.existing_inode_state(dir, generation)? else {
                return Ok(None);
            };
            // A directory that was made anew is empty.
            if found.parent != generation {
                return Ok(None);
            }
        }
        let Some(ino) = self.snapshots.entry_inode_in(Snapshot::Parent, dir, name)? else {
            return Ok(None);
        };
        if ino <= self.position.progress && !self.names.dir_moves.is_waiting_for_move(ino) {
            return Ok(None);
        }
        let inode = self
            .snapshots
            .inode_in(Snapshot::Parent, ino)?
            .ok_or(ENOENT)?;
        Ok(Some(OverwrittenInode {
            ino,
            generation: inode.generation.get(),
            mode: inode.mode.get(),
        }))
    }

    /// Whether an inode that was processed earlier, or is being processed, has taken `name` in
    /// `dir` from inode `ino`.
    pub(in crate::send) fn did_overwrite_ref(
        &mut self,
        (dir, dir_generation): (u64, u64),
        (ino, generation): (u64, u64),
        name: &[u8],
    ) -> Result<bool> {
        if dir != objectid::FIRST_FREE {
            match self.existing_inode_state(dir, dir_generation)? {
                Some(found) if found.sent == dir_generation => {}
                _ => return Ok(false),
            }
        }
        let Some(new_ino) = self.snapshots.entry_inode_in(Snapshot::Sent, dir, name)? else {
            return Ok(false);
        };
        if new_ino == ino && self.snapshots.generation_in(Snapshot::Sent, new_ino)? == generation {
            return Ok(false);
        }
        if new_ino < self.position.progress {
            return Ok(true);
        }
        match self
            .position
            .inode
            .as_ref()
            .map(|current| (current.ino, current.generation()))
        {
            Some((current, made)) if ino != current && new_ino == current => {
                Ok(self.snapshots.generation_in(Snapshot::Sent, new_ino)? == made)
            }
            _ => Ok(false),
        }
    }

    /// Whether the first name that the current inode had was taken, so that it has an orphan name
    /// now.
    pub(in crate::send) fn did_overwrite_first_ref(&mut self) -> Result<bool> {
        let current = self.position.inode.as_ref().ok_or(EINVAL)?;
        if current.fate == Fate::New {
            return Ok(false);
        }
        let (ino, generation) = (current.ino, current.generation());
        let mut name = NameBuf::empty();
        let dir = self.snapshots.name_in(Snapshot::Parent, ino, &mut name)?;
        self.did_overwrite_ref(dir, (ino, generation), name.as_bytes())
    }
}
