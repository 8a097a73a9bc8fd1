// SPDX-License-Identifier: GPL-2.0
//! Names of inodes: a new inode moves from its orphan name to its first name, and gets links for
//! the others.
//!
//! A name may lie in a directory that is sent later, having a higher inode number. That directory
//! is then created early, under its orphan name.

use super::path::FsPath;
use crate::format::inode::InodeItem;
use crate::format::{item_type, objectid, Key};
use crate::send::context::Send;
use crate::send::current_inode::mode;
use crate::send::proto::{Attr, Command};
use crate::subvol::dir::Entries;
use crate::subvol::inode::names_of_item;
use kernel::prelude::*;

impl Send<'_> {
    /// Whether directory `dir`, whose turn has not come, is in the stream already.
    pub(in crate::send) fn was_created_early(&mut self, dir: u64) -> Result<bool> {
        if self.names.early.created.contains(dir) {
            return Ok(true);
        }
        if !self.names.early.overflow {
            return Ok(false);
        }
        Ok(self.names.early.just_now.contains(dir) || self.has_older_entry(dir)?)
    }

    /// Whether an entry of `dir` is an inode that has been sent, so that `dir` was created for it.
    fn has_older_entry(&mut self, dir: u64) -> Result<bool> {
        let mut cursor =
            crate::send::cursor::Cursor::new(self.snapshots.session, self.snapshots.root.id);
        cursor.seek(&Key::new(dir, item_type::DIR_INDEX, 0))?;
        while let Some((key, data)) = cursor.item() {
            if !key.is(dir, item_type::DIR_INDEX) {
                break;
            }
            for entry in Entries::new(data) {
                let target = entry?.location;
                if target.typ != item_type::ROOT_ITEM && target.objectid < self.position.progress {
                    return Ok(true);
                }
            }
            cursor.next()?;
        }
        Ok(false)
    }

    /// Sends the names in one item of the current inode.
    pub(in crate::send) fn names_of(&mut self, key: &Key, data: &[u8]) -> Result {
        if key.objectid == objectid::FIRST_FREE {
            return Ok(());
        }
        names_of_item(key, data, &mut |name| {
            self.add_name(name.parent, name.name)?;
            Ok(true)
        })?;
        Ok(())
    }

    fn add_name(&mut self, parent: u64, name: &[u8]) -> Result {
        let Some(inode) = &self.position.inode else {
            return Err(EINVAL);
        };
        let (ino, item, named) = (inode.ino, inode.item, inode.named);
        self.snapshots.check_name(ino, name)?;
        let dir = self.existing(parent)?;
        if parent >= self.position.progress && !self.was_created_early(parent)? {
            self.create(None, parent, &dir)?;
            self.names.early.add(parent, ino)?;
        }
        let mut full = core::mem::replace(&mut self.names.other, FsPath::empty());
        let until = self
            .path_of_dir(parent, &mut full)
            .and_then(|until| full.push(name).map(|()| until));
        self.names.other = full;
        let until = until?;
        if named && mode::kind(item.mode.get()) != mode::DIR {
            self.output
                .stream
                .command(Command::Link)?
                .bytes(Attr::Path, self.names.other.as_bytes())?
                .bytes(Attr::PathLink, self.position.path.as_bytes())?
                .end()?;
        } else {
            self.rename_to_other(ino, &item, named)?;
        }
        self.names
            .early
            .add_check_dir(parent, dir.generation.get())?;
        if let Some(inode) = &mut self.position.inode {
            if !named {
                inode.path_until = until;
            }
            inode.named = true;
            inode.names_pending = true;
        }
        Ok(())
    }

    /// Moves the current inode to `self.names.other`.
    fn rename_to_other(&mut self, ino: u64, item: &InodeItem, named: bool) -> Result {
        let orphan;
        let from = if named {
            self.position.path.as_bytes()
        } else {
            let generation = item.generation.get();
            orphan = self
                .names
                .orphans
                .name(&mut self.snapshots.sent_inodes, ino, generation)?;
            orphan.as_bytes()
        };
        self.output
            .stream
            .command(Command::Rename)?
            .bytes(Attr::Path, from)?
            .bytes(Attr::PathTo, self.names.other.as_bytes())?
            .end()?;
        core::mem::swap(&mut self.position.path, &mut self.names.other);
        self.position.path_known = true;
        Ok(())
    }

    /// All names of the current inode are sent: the directories that hold them have new times, and
    /// from now on paths go by these names.
    pub(in crate::send) fn names_done(&mut self) -> Result {
        let Some(inode) = &mut self.position.inode else {
            return Ok(());
        };
        inode.names_pending = false;
        let (ino, item, until) = (inode.ino, inode.item, inode.path_until);
        // The times of a directory whose turn has not come are sent when it has.
        for (dir, generation) in self
            .names
            .early
            .check_dirs
            .iter()
            .filter(|(dir, _)| *dir < ino)
        {
            self.output.utimes.touch((*dir, *generation))?;
        }
        let one_name = self.names.early.check_dirs.len() == 1;
        self.names.early.check_dirs.clear();
        self.names.early.check_dirs_seen.clear();
        self.names.early.inode_done();
        self.position.progress = ino.saturating_add(1);
        if one_name && mode::kind(item.mode.get()) == mode::DIR {
            self.names
                .dirs
                .put(ino, until, &item, self.position.path.as_bytes());
        }
        Ok(())
    }
}
