// SPDX-License-Identifier: GPL-2.0
//! The names of an inode that changed: renames, links, unlinks and removals, in an order that the receiver can follow.
//!
//! First whoever has one of the new names and is not dealt with yet makes room, by an orphan name. Then the inode
//! gets its new names, for which directories are created early and moves of directories put off, and loses the old
//! ones. In the end directories that waited to be empty may be.

use super::full::Send;
use super::inode::{mode, Fate};
use super::inode_state::Standing;
use super::path::Path;
use super::proto::{Attr, Command};
use super::recorded_refs::Side;
use super::snapshots::Snapshot;
use super::stream::Stream;
use crate::format::{item_type, objectid, Key};
use crate::fs_err;
use crate::subvol::inode::names_of_item;
use kernel::prelude::*;
use kernel::rbtree::RBTree;

/// What is being done to the current inode.
struct Relink {
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
    path: Path,
    /// The directories that it is or was in, in the order in which they were found.
    holders: KVec<(u64, u64)>,
    held: RBTree<(u64, u64), ()>,
}

impl Relink {
    fn hold(&mut self, dir: u64, generation: u64) -> Result {
        let holder = (dir, generation);
        if self.held.get(&holder).is_none() {
            self.held.try_create_and_insert(holder, (), GFP_KERNEL)?;
            self.holders.push(holder, GFP_KERNEL)?;
        }
        Ok(())
    }
}

pub(super) fn send_rename(stream: &mut Stream<'_>, from: &[u8], to: &[u8]) -> Result {
    stream
        .command(Command::Rename)?
        .bytes(Attr::Path, from)?
        .bytes(Attr::PathTo, to)?
        .end()
}

pub(super) fn send_rmdir(stream: &mut Stream<'_>, path: &[u8]) -> Result {
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

impl<'a> Send<'a> {
    /// Takes note of the names in one item of the current inode.
    pub(super) fn note_names(&mut self, side: Side, key: &Key, data: &[u8]) -> Result {
        names_of_item(key, data, &mut |name| {
            self.note_name(side, name.parent, name.name)?;
            Ok(true)
        })?;
        Ok(())
    }

    fn note_name(&mut self, side: Side, dir: u64, name: &[u8]) -> Result {
        let ino = self.inode.as_ref().ok_or(EINVAL)?.ino;
        self.check_name(ino, name)?;
        let (snapshot, other) = match side {
            Side::New => (Snapshot::Sent, Side::Gone),
            Side::Gone => (Snapshot::Parent, Side::New),
        };
        let generation = self.generation_in(snapshot, dir)?;
        if self.links.cancel(other, dir, generation, name) {
            return Ok(());
        }
        let mut above = core::mem::replace(&mut self.other, Path::empty());
        let result = self
            .path_now(dir, generation, &mut above)
            .and_then(|()| self.links.add(side, (dir, generation), &above, name));
        self.other = above;
        result
    }

    /// Takes note of all names that the current inode has in a snapshot.
    pub(super) fn note_all_names(&mut self, side: Side) -> Result {
        let reader: &'a crate::trans::Reader = self.reader;
        let ino = self.inode.as_ref().ok_or(EINVAL)?.ino;
        let root = match side {
            Side::New => self.root,
            Side::Gone => self.parent.as_ref().ok_or(EINVAL)?.root,
        };
        let mut cursor = reader.cursor(root);
        cursor.seek(&Key::new(ino, item_type::INODE_REF, 0))?;
        while let Some((key, data)) = cursor.item() {
            if key.objectid != ino || key.typ > item_type::INODE_EXTREF {
                break;
            }
            self.note_names(side, &key, data)?;
            cursor.next()?;
        }
        Ok(())
    }

    /// Sends what makes the names noted those of the current inode. Answers whether its move has to wait.
    pub(super) fn relink(&mut self) -> Result<bool> {
        let result = self.relink_noted();
        self.links.clear();
        self.early.inode_done();
        result
    }

    fn relink_noted(&mut self) -> Result<bool> {
        let inode = self.inode.as_ref().ok_or(EINVAL)?;
        let mut work = Relink {
            ino: inode.ino,
            generation: inode.generation(),
            is_dir: inode.is(mode::DIR),
            fate: inode.fate,
            is_orphan: false,
            orphaned_dir: false,
            orphaned_above: false,
            waits: false,
            path: Path::empty(),
            holders: KVec::new(),
            held: RBTree::new(),
        };
        if work.ino <= objectid::FIRST_FREE {
            fs_err!(
                self.reader.fs(),
                "send: unexpected inode {} with names",
                work.ino
            );
            return Err(EINVAL);
        }
        work.is_orphan = work.fate == Fate::New || self.lost_its_name()?;
        if work.is_orphan {
            let name = self.orphan_name(work.ino, work.generation)?;
            work.path.set(name.as_bytes())?;
        } else {
            self.path_now(work.ino, work.generation, &mut work.path)?;
        }
        let mut next = self.links.first(Side::New);
        while let Some(index) = next {
            self.make_room(&mut work, index)?;
            next = self.links.at_or_behind(Side::New, index.saturating_add(1));
        }
        next = self.links.first(Side::New);
        while let Some(index) = next {
            self.take_name(&mut work, index)?;
            next = self.links.at_or_behind(Side::New, index.saturating_add(1));
        }
        self.drop_names(&mut work)?;
        self.visit_holders(&mut work)?;
        Ok(work.waits)
    }

    /// Gives a link the path that its directory has now.
    fn refresh_path(&mut self, side: Side, index: usize) -> Result {
        let link = self.links.get(side, index)?;
        let (dir, generation) = (link.dir, link.generation);
        let mut above = core::mem::replace(&mut self.other, Path::empty());
        let result = self
            .path_now(dir, generation, &mut above)
            .and_then(|()| self.links.set_path(side, index, &above));
        self.other = above;
        result
    }

    /// Takes a new name away from an inode that has it still.
    #[inline(never)]
    fn make_room(&mut self, work: &mut Relink, index: usize) -> Result {
        let link = self.links.get(Side::New, index)?;
        let (dir, made) = (link.dir, link.generation);
        if self.standing(dir, made)?.standing == Standing::WillCreate {
            return Ok(());
        }
        let name = self.links.name_at(Side::New, index)?;
        let name = name.as_bytes();
        let Some(holder) = self.holder_of(dir, made, name)? else {
            return Ok(());
        };
        let first = self.is_first_name_in(Snapshot::Parent, holder.ino, dir, name)?;
        if work.orphaned_dir {
            self.refresh_path(Side::New, index)?;
        }
        let path = self.links.path(self.links.get(Side::New, index)?);
        if !first {
            return send_unlink(&mut self.stream, path);
        }
        let mut from = Path::empty();
        from.set(path)?;
        self.orphan(holder.ino, holder.generation, from.as_bytes())?;
        work.orphaned_dir |= mode::kind(holder.mode) == mode::DIR;
        self.moves.orphaned(holder.ino);
        self.names.remove(holder.ino, holder.generation);
        if self.was_above((holder.ino, holder.generation), work.ino)? {
            work.orphaned_above = true;
            self.path_known = false;
            self.path_now(work.ino, work.generation, &mut work.path)?;
        }
        Ok(())
    }

    /// Moves an inode from `path` to its orphan name.
    fn orphan(&mut self, ino: u64, generation: u64, path: &[u8]) -> Result {
        let name = self.orphan_name(ino, generation)?;
        send_rename(&mut self.stream, path, name.as_bytes())?;
        let current = self.inode.as_ref().ok_or(EINVAL)?;
        if (current.ino, current.generation()) == (ino, generation) {
            self.path.set(name.as_bytes())?;
            self.path_known = true;
        }
        Ok(())
    }

    /// Gives the current inode a new name.
    #[inline(never)]
    fn take_name(&mut self, work: &mut Relink, index: usize) -> Result {
        let link = self.links.get(Side::New, index)?;
        let (dir, made) = (link.dir, link.generation);
        if self.standing(dir, made)?.standing == Standing::WillCreate
            && !self.was_created_early(dir)?
        {
            let item = self.inode_in(Snapshot::Sent, dir)?.ok_or(ENOENT)?;
            self.create(None, dir, &item)?;
            self.early.add(dir, work.ino)?;
        }
        if work.is_dir {
            let name = self.links.name_at(Side::New, index)?;
            work.waits |= self.wait_for_name(dir, name.as_bytes(), work.is_orphan)?;
            if !work.waits {
                work.waits = self.wait_for_parent((dir, made), work.is_orphan)?;
            }
        }
        if !work.waits {
            if work.is_orphan || work.is_dir {
                self.rename_current(work, index)?;
                work.is_orphan = false;
            } else {
                if work.orphaned_dir {
                    self.refresh_path(Side::New, index)?;
                }
                let path = self.links.path(self.links.get(Side::New, index)?);
                self.stream
                    .command(Command::Link)?
                    .bytes(Attr::Path, path)?
                    .bytes(Attr::PathLink, work.path.as_bytes())?
                    .end()?;
            }
        }
        work.hold(dir, made)
    }

    fn rename_current(&mut self, work: &mut Relink, index: usize) -> Result {
        let path = self.links.path(self.links.get(Side::New, index)?);
        send_rename(&mut self.stream, work.path.as_bytes(), path)?;
        work.path.set(path)?;
        self.path.set(path)?;
        self.path_known = true;
        Ok(())
    }

    /// Takes the old names away.
    #[inline(never)]
    fn drop_names(&mut self, work: &mut Relink) -> Result {
        if work.is_dir {
            if work.fate == Fate::Deleted {
                if self.can_remove(work.ino, work.generation)? {
                    send_rmdir(&mut self.stream, work.path.as_bytes())?;
                } else if !work.is_orphan {
                    let path = core::mem::replace(&mut work.path, Path::empty());
                    self.orphan(work.ino, work.generation, path.as_bytes())?;
                    work.is_orphan = true;
                }
            }
            // A directory that was moved has one old name.
            let mut next = self.links.first(Side::Gone);
            while let Some(index) = next {
                let link = self.links.get(Side::Gone, index)?;
                work.hold(link.dir, link.generation)?;
                next = match work.fate {
                    Fate::Deleted => self.links.at_or_behind(Side::Gone, index.saturating_add(1)),
                    _ => None,
                };
            }
            return Ok(());
        }
        let mut next = self.links.first(Side::Gone);
        while let Some(index) = next {
            let link = self.links.get(Side::Gone, index)?;
            let dir = (link.dir, link.generation);
            let name = self.links.name_at(Side::Gone, index)?;
            if !self.was_taken(dir, (work.ino, work.generation), name.as_bytes())? {
                if work.orphaned_above {
                    self.refresh_path(Side::Gone, index)?;
                }
                let path = self.links.path(self.links.get(Side::Gone, index)?);
                send_unlink(&mut self.stream, path)?;
                if self.path_known && self.path.as_bytes() == path {
                    self.path_known = false;
                }
            }
            work.hold(dir.0, dir.1)?;
            next = self.links.at_or_behind(Side::Gone, index.saturating_add(1));
        }
        // An inode whose first name was taken, and that gets no other, may still have further names.
        if work.is_orphan {
            send_unlink(&mut self.stream, work.path.as_bytes())?;
        }
        Ok(())
    }

    /// Notes new times for the directories that the current inode is or was in, and removes those that only waited
    /// for it to go.
    #[inline(never)]
    fn visit_holders(&mut self, work: &mut Relink) -> Result {
        for (dir, made) in work.holders.iter().copied() {
            // The times of a directory whose turn has not come are sent when it has.
            if dir > work.ino {
                continue;
            }
            match self.standing(dir, made)?.standing {
                Standing::DidCreate | Standing::Kept => self.utimes.touch((dir, made))?,
                Standing::DidDelete => {
                    if self.can_remove(dir, made)? {
                        self.path_now(dir, made, &mut work.path)?;
                        send_rmdir(&mut self.stream, work.path.as_bytes())?;
                    }
                }
                Standing::WillCreate | Standing::WillDelete => {}
            }
        }
        Ok(())
    }
}
