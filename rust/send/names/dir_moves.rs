// SPDX-License-Identifier: GPL-2.0
//! Directories that cannot be moved yet.
//!
//! A directory that is to be moved below another one, which has a higher number and is to be moved
//! itself, waits for that one: the receiver could not make the move before, as the directory may be
//! above its own new place. Two directories may have changed places any number of levels apart, so
//! that a directory that had waited may have to wait again, for another one.
//!
//! What waits is in two maps, as in the C driver: `waiting_dir_move` by the directory to be moved,
//! `pending_dir_move` by the directory that is waited for. An example: 258 is to be moved below
//! 259, which was below it.
//!
//! ```text
//!     parent        sent           stream
//!     257 a         257 a
//!     258 a/b       259 a/c        258: its new place is below 259, which is still below 258:
//!     259 a/b/c     258 a/c/b           pending until 259 has moved
//!                                  259: rename a/b/c -> a/c
//!                                       then what waited for it: rename a/b -> a/c/b
//! ```

use super::path::{FsPath, NameBuf};
use super::pending_moves::{PendingDirMove, WaitingDirMove};
use crate::format::{item_type, objectid};
use crate::send::context::Send;
use crate::send::snapshots::{Climb, Snapshot};
use crate::send::utimes::Dir;
use kernel::prelude::*;

impl Send<'_> {
    /// Makes the move of the current inode wait for `parent_ino`.
    fn add_pending_dir_move(&mut self, parent_ino: u64, is_orphan: bool) -> Result {
        let inode = self.position.inode.as_ref().ok_or(EINVAL)?;
        let dir = (inode.ino, inode.generation());
        let mut touched = KVec::new();
        for holder in self.names.recorded_refs.deleted_parents() {
            touched.push(holder, GFP_KERNEL)?;
        }
        for holder in self.names.recorded_refs.new_parents() {
            touched.push(holder, GFP_KERNEL)?;
        }
        let waiting = WaitingDirMove {
            is_orphan,
            rmdir: None,
        };
        self.names
            .dir_moves
            .add(parent_ino, PendingDirMove { dir, touched }, waiting)
    }

    /// Lets the current inode wait if the name that it is to get in `dir` is still that of a
    /// directory that waits. Returns whether it does.
    pub(in crate::send) fn wait_for_dest_dir_move(
        &mut self,
        dir: u64,
        name: &[u8],
        is_orphan: bool,
    ) -> Result<bool> {
        if self.names.dir_moves.is_empty() {
            return Ok(false);
        }
        let found = self.snapshots.entry_in(Snapshot::Parent, dir, name)?;
        let Some(key) = found.filter(|key| key.typ == item_type::INODE_ITEM) else {
            return Ok(false);
        };
        let ino = key.objectid;
        let before = self.snapshots.generation_in(Snapshot::Parent, ino)?;
        let after = self.snapshots.inode_in(Snapshot::Sent, ino)?;
        if after.is_none_or(|inode| inode.generation.get() != before) {
            return Ok(false);
        }
        if self.names.dir_moves.is_orphan_if_waiting_for_move(ino) != Some(false) {
            return Ok(false);
        }
        self.add_pending_dir_move(ino, is_orphan)?;
        Ok(true)
    }

    /// Lets the current inode wait if a directory above its new place, `dir`, has yet to be moved.
    /// Returns whether it does.
    pub(in crate::send) fn wait_for_parent_move(
        &mut self,
        dir: Dir,
        is_orphan: bool,
    ) -> Result<bool> {
        let inode = self.position.inode.as_ref().ok_or(EINVAL)?;
        let current = (inode.ino, inode.generation());
        let (mut ino, mut generation) = dir;
        let mut climb = Climb::new();
        let (mut name, mut old_name) = (NameBuf::empty(), NameBuf::empty());
        while ino > objectid::FIRST_FREE {
            climb.to(ino)?;
            // A directory that waits itself matters only where the current one was above it, or
            // else two could wait for each other.
            if self.names.dir_moves.is_waiting_for_move(ino)
                && self.snapshots.was_above(current, ino)?
            {
                self.add_pending_dir_move(ino, is_orphan)?;
                return Ok(true);
            }
            let after = self.snapshots.name_in(Snapshot::Sent, ino, &mut name)?;
            let Some(before) =
                self.snapshots
                    .first_name_in(Snapshot::Parent, ino, &mut old_name)?
            else {
                break;
            };
            let moved = before.0 != after.0 || old_name.as_bytes() != name.as_bytes();
            if ino > current.0
                && moved
                && self.snapshots.generation_in(Snapshot::Parent, ino)? == generation
            {
                self.add_pending_dir_move(ino, is_orphan)?;
                return Ok(true);
            }
            (ino, generation) = after;
        }
        Ok(false)
    }

    /// Makes the moves that waited for the current inode, and those that waited for these.
    pub(in crate::send) fn apply_children_dir_moves(&mut self) -> Result {
        if self.names.dir_moves.is_empty() {
            return Ok(());
        }
        let current = self.position.inode.as_ref().ok_or(EINVAL)?.ino;
        let mut queue = KVVec::new();
        self.names.dir_moves.take_pending(current, &mut queue)?;
        let mut next = 0usize;
        // Moves that had to be put off since the last one that was made.
        let mut put_off = 0usize;
        while let Some(place) = queue.get_mut(next) {
            let dir = place.dir;
            let pending = PendingDirMove {
                dir,
                touched: core::mem::replace(&mut place.touched, KVec::new()),
            };
            next = next.saturating_add(1);
            if self.apply_dir_move(pending)? {
                put_off = 0;
            } else {
                put_off = put_off.saturating_add(1);
                if put_off
                    > self
                        .names
                        .dir_moves
                        .count()
                        .saturating_mul(4)
                        .saturating_add(4)
                {
                    self.snapshots
                        .inconsistent_snapshot_error(dir.0, "directories that wait for each other");
                    return Err(EUCLEAN);
                }
            }
            self.names.dir_moves.take_pending(dir.0, &mut queue)?;
            crate::platform::yield_now();
        }
        Ok(())
    }

    /// Makes a move, unless it has to wait for yet another directory. Returns whether it was made.
    fn apply_dir_move(&mut self, pending: PendingDirMove) -> Result<bool> {
        let progress = self.position.progress;
        let mut from = core::mem::replace(&mut self.names.other, FsPath::empty());
        let result = self.apply_dir_move_from(pending, &mut from);
        self.names.other = from;
        self.position.progress = progress;
        result
    }

    /// [`Send::apply_dir_move`], which undoes what this does to the progress. Uses `from` for a
    /// path.
    #[inline(never)]
    fn apply_dir_move_from(&mut self, pending: PendingDirMove, from: &mut FsPath) -> Result<bool> {
        let (ino, generation) = pending.dir;
        let waiting = self.names.dir_moves.take(ino).ok_or(EINVAL)?;
        if waiting.is_orphan {
            let name = self.gen_unique_name(ino, generation)?;
            from.set(name.as_bytes())?;
        } else {
            let mut name = NameBuf::empty();
            let (parent, made) = self.snapshots.name_in(Snapshot::Parent, ino, &mut name)?;
            self.get_cur_path(parent, made, from)?;
            from.push(name.as_bytes())?;
        }
        let current = self.position.inode.as_ref().ok_or(EINVAL)?.ino;
        self.position.progress = current.saturating_add(1);
        if let Some(parent_ino) = self.path_loop(ino, generation)? {
            if parent_ino == ino {
                self.snapshots
                    .inconsistent_snapshot_error(ino, "a directory in itself");
                return Err(EUCLEAN);
            }
            self.names.dir_moves.add(parent_ino, pending, waiting)?;
            return Ok(false);
        }
        let mut to = core::mem::replace(&mut self.names.spare, FsPath::empty());
        let result = self.get_cur_path(ino, generation, &mut to).and_then(|()| {
            super::process_recorded_refs::send_rename(
                &mut self.output.stream,
                from.as_bytes(),
                to.as_bytes(),
            )
        });
        self.names.spare = to;
        result?;
        if let Some((dir, made)) = waiting.rmdir {
            if self.names.delayed_rmdirs.is_waiting_for_rm(dir, made)
                && self.can_rmdir(dir, made)?
            {
                self.get_cur_path(dir, made, from)?;
                super::process_recorded_refs::send_rmdir(&mut self.output.stream, from.as_bytes())?;
            }
        }
        self.output.utimes.touch((ino, generation))?;
        for (dir, made) in pending.touched.iter().copied() {
            if self.is_in_sent(dir)? {
                self.output.utimes.touch((dir, made))?;
            }
        }
        Ok(true)
    }
}
