// SPDX-License-Identifier: GPL-2.0
//! Paths in a full send: what an inode is called at the point that the stream has reached.
//!
//! Inodes are sent in the order of their numbers, and those below `Position::progress` have their
//! names. A path goes through the first name of each directory up to the top; a directory that has
//! not got its name yet is found at the top under its orphan name. So a path either is final, or
//! holds until the one such directory on it is reached.

use super::path::{first_name, push_name, FsPath, NameBuf};
use crate::format::inode::InodeItem;
use crate::format::{self, item_type, objectid, Key};
use crate::send::context::Send;
use kernel::prelude::*;

impl Send<'_> {
    /// Puts the path of inode `ino` into `path`, and returns up to which `progress` it holds.
    ///
    /// # Errors
    ///
    /// `ENOENT` for an inode that is not there or has no names, `ENAMETOOLONG` for a path that is
    /// too long or goes in circles, `EUCLEAN` for a name that cannot be one.
    pub(in crate::send) fn path_of(&mut self, ino: u64, path: &mut FsPath) -> Result<u64> {
        path.clear();
        // From the inode up, the names that are not known yet, back to front.
        let mut above = core::mem::replace(&mut self.names.components, KVec::new());
        above.clear();
        let result = self.climb(ino, path, &mut above).and_then(|until| {
            path.push_names(&above)?;
            Ok(until)
        });
        self.names.components = above;
        if result == Err(ENAMETOOLONG) {
            self.snapshots
                .inconsistent_snapshot_error(ino, "a path of more than 4095 bytes or without end");
        }
        result
    }

    /// Climbs from `ino` to the top or to a directory whose path is known, which is put into
    /// `path`. The names passed are appended to `names`, each with its length after it.
    fn climb(&mut self, mut ino: u64, path: &mut FsPath, names: &mut KVec<u8>) -> Result<u64> {
        while ino != objectid::FIRST_FREE {
            if let Some(dir) = self.names.dirs.get(ino, self.position.progress) {
                path.set(&dir.path)?;
                return Ok(dir.until);
            }
            if ino >= self.position.progress {
                let inode = self.existing(ino)?;
                let generation = inode.generation.get();
                let name =
                    self.names
                        .orphans
                        .name(&mut self.snapshots.sent_inodes, ino, generation)?;
                path.push(name.as_bytes())?;
                return Ok(ino);
            }
            self.existing(ino)?;
            let mut name = NameBuf::empty();
            ino = self.first_name(ino, &mut name)?;
            push_name(names, name.as_bytes())?;
        }
        Ok(u64::MAX)
    }

    /// As [`Send::path_of`] for a directory that is going to be asked for again.
    pub(in crate::send) fn path_of_dir(&mut self, ino: u64, path: &mut FsPath) -> Result<u64> {
        if let Some(dir) = self.names.dirs.get(ino, self.position.progress) {
            path.set(&dir.path)?;
            return Ok(dir.until);
        }
        let until = self.path_of(ino, path)?;
        if ino != objectid::FIRST_FREE {
            let inode = self.existing(ino)?;
            self.names.dirs.put(ino, until, &inode, path.as_bytes());
        }
        Ok(until)
    }

    /// The item of a directory, or of any inode.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none or it has no names any more.
    pub(in crate::send) fn existing(&mut self, ino: u64) -> Result<InodeItem> {
        if let Some(dir) = self.names.dirs.get(ino, 0) {
            return Ok(dir.inode);
        }
        let inode =
            match self
                .snapshots
                .sent_inodes
                .exact(&Key::new(ino, item_type::INODE_ITEM, 0))?
            {
                Some(data) => format::read::<InodeItem>(data)?,
                None => {
                    self.snapshots
                        .inconsistent_snapshot_error(ino, "reference without inode item");
                    return Err(ENOENT);
                }
            };
        if inode.nlink.get() == 0 {
            self.snapshots
                .inconsistent_snapshot_error(ino, "reference and a link count of zero");
            return Err(ENOENT);
        }
        Ok(inode)
    }

    /// Puts the first name of an inode into `name`, and returns the directory that it is in.
    fn first_name(&mut self, ino: u64, name: &mut NameBuf) -> Result<u64> {
        let Some(parent) = first_name(&mut self.snapshots.sent_inodes, ino, name)? else {
            self.snapshots
                .inconsistent_snapshot_error(ino, "no reference");
            return Err(ENOENT);
        };
        self.snapshots.check_name(ino, name.as_bytes())?;
        Ok(parent)
    }

    /// Names the inode at which damage ended the send, if it was that.
    pub(in crate::send) fn report_inconsistent_snapshot(&self, error: Error) {
        if [EUCLEAN, ENOENT, EEXIST, E2BIG].contains(&error) {
            let ino = self.position.inode.as_ref().map_or(0, |inode| inode.ino);
            self.snapshots
                .inconsistent_snapshot_error(ino, "what ended the send");
        }
    }
}
