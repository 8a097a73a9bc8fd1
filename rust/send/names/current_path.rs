// SPDX-License-Identifier: GPL-2.0
//! Current paths: what inodes are called at the receiver, at the point that an incremental stream
//! has reached (`get_cur_path`).
//!
//! A path goes up directory by directory. One that was processed has the first name that it has in
//! the subvolume being sent, and one that was not has that in the parent; one that does not exist
//! yet, does not exist any more, or whose name was taken is at the top under its orphan name, as is
//! a directory that waits to be removed. A directory that waits to be moved still has the name of
//! the parent, whatever its number.
//!
//! An example: directories 257 and 258 are renamed from `a` and `a/b` to `x` and `x/y`. Where 257
//! has been processed and 258 has not, the current path of 258 is `x/b`.

use super::name_cache::Known;
use super::orphan_names::Name;
use super::path::{push_name, FsPath};
use crate::format::objectid;
use crate::send::context::Send;
use crate::send::snapshots::{Climb, Snapshot};
use kernel::prelude::*;

impl Send<'_> {
    /// The orphan name of an inode: one that neither snapshot has at the top.
    pub(in crate::send) fn gen_unique_name(&mut self, ino: u64, generation: u64) -> Result<Name> {
        let mut index = 0u64;
        loop {
            let name = Name::new(ino, generation, index);
            let top = objectid::FIRST_FREE;
            let bytes = name.as_bytes();
            if self
                .snapshots
                .entry_in(Snapshot::Sent, top, bytes)?
                .is_none()
                && self
                    .snapshots
                    .entry_in(Snapshot::Parent, top, bytes)?
                    .is_none()
            {
                return Ok(name);
            }
            index = index.checked_add(1).ok_or(EOVERFLOW)?;
        }
    }

    /// Puts into `known` what an inode is called now, and where; pending moves and removals apart.
    #[inline(never)]
    fn get_cur_name_and_parent(&mut self, ino: u64, generation: u64, known: &mut Known) -> Result {
        let progress = self.position.progress;
        if let Some(found) = self.names.cache.get(ino, generation) {
            if ino >= progress || !found.until_its_turn {
                known.clone_from(found);
                return Ok(());
            }
            self.names.cache.remove(ino, generation);
        }
        known.is_orphan = true;
        known.until_its_turn = ino >= progress;
        if self.is_inode_existent(ino, generation)? {
            let snapshot = match ino < progress {
                true => Snapshot::Sent,
                false => Snapshot::Parent,
            };
            known.parent = self.snapshots.name_in(snapshot, ino, &mut known.name)?;
            known.is_orphan =
                self.did_overwrite_ref(known.parent, (ino, generation), known.name.as_bytes())?;
        }
        if known.is_orphan {
            let name = self.gen_unique_name(ino, generation)?;
            known.name.set(name.as_bytes())?;
        }
        self.names.cache.put(ino, generation, known)
    }

    /// Puts the path that inode `ino` has now into `path`.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` for a path that is too long or goes in circles, `ENOENT` and `EUCLEAN` for
    /// damage.
    pub(in crate::send) fn get_cur_path(
        &mut self,
        ino: u64,
        generation: u64,
        path: &mut FsPath,
    ) -> Result {
        let is_current = self
            .position
            .inode
            .as_ref()
            .is_some_and(|inode| inode.ino == ino && inode.generation() == generation);
        if !is_current {
            return self.build_cur_path(ino, generation, path);
        }
        self.know_path()?;
        path.set(self.position.path.as_bytes())
    }

    /// As [`Send::get_cur_path`], without regard to what is known of the current inode.
    pub(in crate::send) fn build_cur_path(
        &mut self,
        ino: u64,
        generation: u64,
        path: &mut FsPath,
    ) -> Result {
        path.clear();
        let mut names = core::mem::replace(&mut self.names.components, KVec::new());
        names.clear();
        let result = self
            .names_above(ino, generation, &mut names)
            .and_then(|()| path.push_names(&names));
        self.names.components = names;
        if result == Err(ENAMETOOLONG) {
            self.snapshots
                .inconsistent_snapshot_error(ino, "a path of more than 4095 bytes or without end");
        }
        result
    }

    /// Lists the names from `ino` up to the top.
    #[inline(never)]
    fn names_above(&mut self, ino: u64, generation: u64, names: &mut KVec<u8>) -> Result {
        let (mut ino, mut generation) = (ino, generation);
        let mut known = Known::nothing();
        while ino != objectid::FIRST_FREE {
            let waiting = self.names.dir_moves.is_orphan_if_waiting_for_move(ino);
            if self.names.delayed_rmdirs.is_waiting_for_rm(ino, generation) || waiting == Some(true)
            {
                let name = self.gen_unique_name(ino, generation)?;
                return push_name(names, name.as_bytes());
            }
            if waiting == Some(false) {
                (ino, generation) =
                    self.snapshots
                        .name_in(Snapshot::Parent, ino, &mut known.name)?;
                push_name(names, known.name.as_bytes())?;
                continue;
            }
            self.get_cur_name_and_parent(ino, generation, &mut known)?;
            push_name(names, known.name.as_bytes())?;
            if known.is_orphan {
                break;
            }
            (ino, generation) = known.parent;
        }
        Ok(())
    }

    /// Whether `ino`, if it were called what it is to be called, would be above itself: the
    /// directory that has to be moved first then.
    pub(in crate::send) fn path_loop(&mut self, ino: u64, generation: u64) -> Result<Option<u64>> {
        let start = ino;
        let (mut ino, mut generation) = (ino, generation);
        let mut first_waiting = None;
        let mut climb = Climb::new();
        let mut known = Known::nothing();
        while ino != objectid::FIRST_FREE {
            climb.to(ino)?;
            if self.names.delayed_rmdirs.is_waiting_for_rm(ino, generation) {
                break;
            }
            let above = if self.names.dir_moves.is_waiting_for_move(ino) {
                first_waiting = first_waiting.or(Some(ino));
                // One that the parent does not have waits under its orphan name; the C driver gives
                // up on it.
                match self
                    .snapshots
                    .first_name_in(Snapshot::Parent, ino, &mut known.name)?
                {
                    Some(above) => above,
                    None => break,
                }
            } else {
                self.get_cur_name_and_parent(ino, generation, &mut known)?;
                if known.is_orphan {
                    break;
                }
                known.parent
            };
            if above.0 == start {
                return Ok(Some(first_waiting.unwrap_or(ino)));
            }
            (ino, generation) = above;
        }
        Ok(None)
    }
}
