// SPDX-License-Identifier: GPL-2.0
//! Sends the recorded refs of an inode: renames, links, unlinks and removals, in an order that the
//! receiver can follow (`process_recorded_refs`).
//!
//! First, an inode that still has one of the new names, and has not been processed, gets an orphan
//! name. Then the current inode gets its new names, for which directories are created early and
//! moves of directories are put off, and loses the deleted ones. At last directories that wait for
//! their removal are looked at again: they may be empty now.

use super::inode_state::InodeState;
use super::path::FsPath;
use super::recorded_refs::Side;
use crate::format::{item_type, objectid, Key};
use crate::fs_err;
use crate::send::context::Send;
use crate::send::current_inode::{mode, Fate};
use crate::send::cursor::Cursor;
use crate::send::proto::{Attr, Command};
use crate::send::snapshots::Snapshot;
use crate::send::stream::Stream;
use crate::subvol::inode::names_of_item;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// What is being done to the current inode.
struct RecordedRefsWork {
    ino: u64,
    generation: u64,
    is_dir: bool,
    fate: Fate,
    /// It has its orphan name.
    is_orphan: bool,
    /// A directory whose name it gets was given an orphan name.
    orphaned_dir: bool,
    /// A directory above it was.
    orphaned_above: bool,
    /// Its move has to wait.
    waits: bool,
    /// Its path, as far as it has any.
    path: FsPath,
    /// The directories that it is or was in, in the order in which they were found.
    check_dirs: KVec<(u64, u64)>,
    check_dirs_seen: RBTree<(u64, u64), ()>,
}

impl RecordedRefsWork {
    fn add_check_dir(&mut self, dir: u64, generation: u64) -> Result {
        let holder = (dir, generation);
        if self.check_dirs_seen.get(&holder).is_none() {
            self.check_dirs_seen
                .try_create_and_insert(holder, (), GFP_KERNEL)?;
            self.check_dirs.push(holder, GFP_KERNEL)?;
        }
        Ok(())
    }
}

pub(in crate::send) fn send_rename(stream: &mut Stream<'_>, from: &[u8], to: &[u8]) -> Result {
    stream
        .command(Command::Rename)?
        .bytes(Attr::Path, from)?
        .bytes(Attr::PathTo, to)?
        .end()
}

pub(in crate::send) fn send_rmdir(stream: &mut Stream<'_>, path: &[u8]) -> Result {
    stream
        .command(Command::Rmdir)?
        .bytes(Attr::Path, path)?
        .end()
}

fn send_unlink(stream: &mut Stream<'_>, path: &[u8]) -> Result {
    stream
        .command(Command::Unlink)?
        .bytes(Attr::Path, path)?
        .end()
}

impl Send<'_> {
    /// Takes note of the names in one item of the current inode.
    pub(in crate::send) fn record_refs(&mut self, side: Side, key: &Key, data: &[u8]) -> Result {
        names_of_item(key, data, &mut |name| {
            self.record_ref(side, name.parent, name.name)?;
            Ok(true)
        })?;
        Ok(())
    }

    fn record_ref(&mut self, side: Side, dir: u64, name: &[u8]) -> Result {
        let ino = self.position.inode.as_ref().ok_or(EINVAL)?.ino;
        self.snapshots.check_name(ino, name)?;
        let (snapshot, other) = match side {
            Side::New => (Snapshot::Sent, Side::Deleted),
            Side::Deleted => (Snapshot::Parent, Side::New),
        };
        let generation = self.snapshots.generation_in(snapshot, dir)?;
        if self
            .names
            .recorded_refs
            .cancel(other, dir, generation, name)
        {
            return Ok(());
        }
        let mut above = core::mem::replace(&mut self.names.other, FsPath::empty());
        let result = self
            .get_cur_path(dir, generation, &mut above)
            .and_then(|()| {
                self.names
                    .recorded_refs
                    .add(side, (dir, generation), &above, name)
            });
        self.names.other = above;
        result
    }

    /// Takes note of all names that the current inode has in a snapshot.
    pub(in crate::send) fn record_all_refs(&mut self, side: Side) -> Result {
        let ino = self.position.inode.as_ref().ok_or(EINVAL)?.ino;
        let root = match side {
            Side::New => self.snapshots.root,
            Side::Deleted => self.snapshots.parent.as_ref().ok_or(EINVAL)?.root,
        };
        let mut cursor = Cursor::new(self.snapshots.session, root.id);
        cursor.seek(&Key::new(ino, item_type::INODE_REF, 0))?;
        while let Some((key, data)) = cursor.item() {
            if key.objectid != ino || key.typ > item_type::INODE_EXTREF {
                break;
            }
            self.record_refs(side, &key, data)?;
            cursor.next()?;
        }
        Ok(())
    }

    /// Sends what makes the names noted those of the current inode. Returns whether its move has to
    /// wait.
    pub(in crate::send) fn process_recorded_refs(&mut self) -> Result<bool> {
        let result = self.process_new_and_deleted_refs();
        self.names.recorded_refs.clear();
        self.names.early.inode_done();
        result
    }

    fn process_new_and_deleted_refs(&mut self) -> Result<bool> {
        let inode = self.position.inode.as_ref().ok_or(EINVAL)?;
        let mut work = RecordedRefsWork {
            ino: inode.ino,
            generation: inode.generation(),
            is_dir: inode.is(mode::DIR),
            fate: inode.fate,
            is_orphan: false,
            orphaned_dir: false,
            orphaned_above: false,
            waits: false,
            path: FsPath::empty(),
            check_dirs: KVec::new(),
            check_dirs_seen: RBTree::new(),
        };
        if work.ino <= objectid::FIRST_FREE {
            fs_err!(
                self.snapshots.session.fs(),
                "send: unexpected inode {} with names",
                work.ino
            );
            return Err(EINVAL);
        }
        work.is_orphan = work.fate == Fate::New || self.did_overwrite_first_ref()?;
        if work.is_orphan {
            let name = self.gen_unique_name(work.ino, work.generation)?;
            work.path.set(name.as_bytes())?;
        } else {
            self.get_cur_path(work.ino, work.generation, &mut work.path)?;
        }
        let mut next = self.names.recorded_refs.first(Side::New);
        while let Some(index) = next {
            self.orphanize_conflicting(&mut work, index)?;
            next = self
                .names
                .recorded_refs
                .at_or_after(Side::New, index.saturating_add(1));
        }
        next = self.names.recorded_refs.first(Side::New);
        while let Some(index) = next {
            self.add_new_ref(&mut work, index)?;
            next = self
                .names
                .recorded_refs
                .at_or_after(Side::New, index.saturating_add(1));
        }
        self.drop_deleted_refs(&mut work)?;
        self.process_check_dirs(&mut work)?;
        Ok(work.waits)
    }

    /// Gives a link the path that its directory has now.
    fn update_ref_path(&mut self, side: Side, index: usize) -> Result {
        let recorded = self.names.recorded_refs.get(side, index)?;
        let (dir, generation) = (recorded.dir, recorded.generation);
        let mut above = core::mem::replace(&mut self.names.other, FsPath::empty());
        let result = self
            .get_cur_path(dir, generation, &mut above)
            .and_then(|()| self.names.recorded_refs.set_path(side, index, &above));
        self.names.other = above;
        result
    }

    /// Takes a new name away from an inode that has it still.
    #[inline(never)]
    fn orphanize_conflicting(&mut self, work: &mut RecordedRefsWork, index: usize) -> Result {
        let recorded = self.names.recorded_refs.get(Side::New, index)?;
        let (dir, made) = (recorded.dir, recorded.generation);
        if self.get_inode_state(dir, made)?.state == InodeState::WillCreate {
            return Ok(());
        }
        let name = self.names.recorded_refs.name_at(Side::New, index)?;
        let name = name.as_bytes();
        let Some(holder) = self.will_overwrite_ref(dir, made, name)? else {
            return Ok(());
        };
        let first = self
            .snapshots
            .is_first_name_in(Snapshot::Parent, holder.ino, dir, name)?;
        if work.orphaned_dir {
            self.update_ref_path(Side::New, index)?;
        }
        let path = self
            .names
            .recorded_refs
            .path(self.names.recorded_refs.get(Side::New, index)?);
        if !first {
            return send_unlink(&mut self.output.stream, path);
        }
        let mut from = FsPath::empty();
        from.set(path)?;
        self.orphanize_inode(holder.ino, holder.generation, from.as_bytes())?;
        work.orphaned_dir |= mode::kind(holder.mode) == mode::DIR;
        self.names.dir_moves.orphaned(holder.ino);
        self.names.cache.remove(holder.ino, holder.generation);
        if self
            .snapshots
            .was_above((holder.ino, holder.generation), work.ino)?
        {
            work.orphaned_above = true;
            self.position.path_known = false;
            self.get_cur_path(work.ino, work.generation, &mut work.path)?;
        }
        Ok(())
    }

    /// Moves an inode from `path` to its orphan name.
    fn orphanize_inode(&mut self, ino: u64, generation: u64, path: &[u8]) -> Result {
        let name = self.gen_unique_name(ino, generation)?;
        send_rename(&mut self.output.stream, path, name.as_bytes())?;
        let current = self.position.inode.as_ref().ok_or(EINVAL)?;
        if (current.ino, current.generation()) == (ino, generation) {
            self.position.path.set(name.as_bytes())?;
            self.position.path_known = true;
        }
        Ok(())
    }

    /// Gives the current inode a new name.
    #[inline(never)]
    fn add_new_ref(&mut self, work: &mut RecordedRefsWork, index: usize) -> Result {
        let recorded = self.names.recorded_refs.get(Side::New, index)?;
        let (dir, made) = (recorded.dir, recorded.generation);
        if self.get_inode_state(dir, made)?.state == InodeState::WillCreate
            && !self.was_created_early(dir)?
        {
            let item = self
                .snapshots
                .inode_in(Snapshot::Sent, dir)?
                .ok_or(ENOENT)?;
            self.create(None, dir, &item)?;
            self.names.early.add(dir, work.ino)?;
        }
        if work.is_dir {
            let name = self.names.recorded_refs.name_at(Side::New, index)?;
            work.waits |= self.wait_for_dest_dir_move(dir, name.as_bytes(), work.is_orphan)?;
            if !work.waits {
                work.waits = self.wait_for_parent_move((dir, made), work.is_orphan)?;
            }
        }
        if !work.waits {
            if work.is_orphan || work.is_dir {
                self.rename_current(work, index)?;
                work.is_orphan = false;
            } else {
                if work.orphaned_dir {
                    self.update_ref_path(Side::New, index)?;
                }
                let path = self
                    .names
                    .recorded_refs
                    .path(self.names.recorded_refs.get(Side::New, index)?);
                self.output
                    .stream
                    .command(Command::Link)?
                    .bytes(Attr::Path, path)?
                    .bytes(Attr::PathLink, work.path.as_bytes())?
                    .end()?;
            }
        }
        work.add_check_dir(dir, made)
    }

    fn rename_current(&mut self, work: &mut RecordedRefsWork, index: usize) -> Result {
        let path = self
            .names
            .recorded_refs
            .path(self.names.recorded_refs.get(Side::New, index)?);
        send_rename(&mut self.output.stream, work.path.as_bytes(), path)?;
        work.path.set(path)?;
        self.position.path.set(path)?;
        self.position.path_known = true;
        Ok(())
    }

    /// Takes the old names away.
    #[inline(never)]
    fn drop_deleted_refs(&mut self, work: &mut RecordedRefsWork) -> Result {
        if work.is_dir {
            if work.fate == Fate::Deleted {
                if self.can_rmdir(work.ino, work.generation)? {
                    send_rmdir(&mut self.output.stream, work.path.as_bytes())?;
                } else if !work.is_orphan {
                    let path = core::mem::replace(&mut work.path, FsPath::empty());
                    self.orphanize_inode(work.ino, work.generation, path.as_bytes())?;
                    work.is_orphan = true;
                }
            }
            // A directory that was moved has one old name.
            let mut next = self.names.recorded_refs.first(Side::Deleted);
            while let Some(index) = next {
                let recorded = self.names.recorded_refs.get(Side::Deleted, index)?;
                work.add_check_dir(recorded.dir, recorded.generation)?;
                next = match work.fate {
                    Fate::Deleted => self
                        .names
                        .recorded_refs
                        .at_or_after(Side::Deleted, index.saturating_add(1)),
                    _ => None,
                };
            }
            return Ok(());
        }
        let mut next = self.names.recorded_refs.first(Side::Deleted);
        while let Some(index) = next {
            let recorded = self.names.recorded_refs.get(Side::Deleted, index)?;
            let dir = (recorded.dir, recorded.generation);
            let name = self.names.recorded_refs.name_at(Side::Deleted, index)?;
            if !self.did_overwrite_ref(dir, (work.ino, work.generation), name.as_bytes())? {
                if work.orphaned_above {
                    self.update_ref_path(Side::Deleted, index)?;
                }
                let path = self
                    .names
                    .recorded_refs
                    .path(self.names.recorded_refs.get(Side::Deleted, index)?);
                send_unlink(&mut self.output.stream, path)?;
                if self.position.path_known && self.position.path.as_bytes() == path {
                    self.position.path_known = false;
                }
            }
            work.add_check_dir(dir.0, dir.1)?;
            next = self
                .names
                .recorded_refs
                .at_or_after(Side::Deleted, index.saturating_add(1));
        }
        // An inode whose first name was taken, and that gets no other, may still have further
        // names.
        if work.is_orphan {
            send_unlink(&mut self.output.stream, work.path.as_bytes())?;
        }
        Ok(())
    }

    /// Notes new times for the directories that the current inode is or was in, and removes those
    /// that only waited for it to go.
    #[inline(never)]
    fn process_check_dirs(&mut self, work: &mut RecordedRefsWork) -> Result {
        for (dir, made) in work.check_dirs.iter().copied() {
            // The times of a directory whose turn has not come are sent when it has.
            if dir > work.ino {
                continue;
            }
            match self.get_inode_state(dir, made)?.state {
                InodeState::DidCreate | InodeState::NoChange => {
                    self.output.utimes.touch((dir, made))?
                }
                InodeState::DidDelete => {
                    if self.can_rmdir(dir, made)? {
                        self.get_cur_path(dir, made, &mut work.path)?;
                        send_rmdir(&mut self.output.stream, work.path.as_bytes())?;
                    }
                }
                InodeState::WillCreate | InodeState::WillDelete => {}
            }
        }
        Ok(())
    }
}
