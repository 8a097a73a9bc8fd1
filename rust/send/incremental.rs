// SPDX-License-Identifier: GPL-2.0
//! The incremental send: one walk over what differs between the subvolume and its parent, in key
//! order.

use super::compare::{Change, Compare};
use super::context::Send;
use super::current_inode::{mode, Current, Fate};
use super::cursor::{Cursor, Here};
use super::names::recorded_refs::Side;
use super::snapshots::Snapshot;
use crate::format::inode::InodeItem;
use crate::format::{self, item_type, objectid, Key};
use crate::fs_err;
use crate::subvol::inode::names_of_item;
use kernel::prelude::*;

/// Directories remembered as kept.
const MAX_KEPT: usize = 1 << 16;

impl<'a> Send<'a> {
    /// Sends every difference to the parent, and then the directory times that are still due.
    pub(super) fn walk_changes(&mut self) -> Result {
        let parent = self.snapshots.parent.as_ref().ok_or(EINVAL)?.root;
        let mut compare = Compare::new(self.snapshots.session, self.snapshots.root.id, parent.id)?;
        while let Some((change, key)) = compare.next()? {
            self.change(&compare, change, &key)?;
        }
        self.finish_change(None)?;
        self.send_due_utimes()?;
        if !self.names.dir_moves.is_empty() {
            fs_err!(
                self.snapshots.session.fs(),
                "send: directories that could not be moved, send root is {}, parent root is {}",
                self.snapshots.root.id,
                parent.id
            );
            return Err(EUCLEAN);
        }
        Ok(())
    }

    /// One item that differs, or that both snapshots have.
    fn change(&mut self, compare: &Compare<'a>, mut change: Change, key: &Key) -> Result {
        let is_name = matches!(key.typ, item_type::INODE_REF | item_type::INODE_EXTREF);
        if change == Change::Same {
            if key.typ == item_type::EXTENT_DATA {
                return self.extent_kept(&compare.sent()?, key);
            }
            if !is_name || !self.parents_changed(key, compare.sent()?.data()?)? {
                return Ok(());
            }
            change = Change::Changed;
        }
        self.finish_change(Some(key))?;
        if matches!(key.objectid, objectid::FREE_INO | objectid::FREE_SPACE) {
            return Ok(());
        }
        if key.typ == item_type::INODE_ITEM {
            return self.begin_change(compare, change, key.objectid);
        }
        let fate = match &self.position.inode {
            Some(inode) if inode.ignored => return Ok(()),
            Some(inode) if inode.ino == key.objectid => {
                // All of an inode that replaces another one was sent when it began.
                if inode.replaces {
                    return Ok(());
                }
                inode.fate
            }
            // Extents change without their inodes when they are relocated or deduplicated.
            _ if key.typ == item_type::EXTENT_DATA => return Ok(()),
            _ if is_name || key.typ == item_type::XATTR_ITEM => {
                self.snapshots
                    .inconsistent_snapshot_error(key.objectid, stray(change, is_name));
                return Err(EIO);
            }
            _ => return Ok(()),
        };
        if is_name {
            if key.objectid == objectid::FIRST_FREE {
                return Ok(());
            }
            if change != Change::Deleted {
                self.record_refs(Side::New, key, compare.sent()?.data()?)?;
            }
            if change != Change::New {
                self.record_refs(Side::Deleted, key, compare.parent()?.data()?)?;
            }
            return Ok(());
        }
        if fate == Fate::Deleted {
            return Ok(());
        }
        match (key.typ, change) {
            (item_type::XATTR_ITEM, Change::New) => self.xattrs_of(compare.sent()?.data()?),
            (item_type::XATTR_ITEM, Change::Deleted) => {
                self.remove_xattrs_of(compare.parent()?.data()?)
            }
            (item_type::XATTR_ITEM, _) => {
                self.change_xattrs(compare.sent()?.data()?, compare.parent()?.data()?)
            }
            (item_type::EXTENT_DATA, Change::Deleted) => Ok(()),
            (item_type::EXTENT_DATA, _) => self.extent(compare.sent()?),
            _ => Ok(()),
        }
    }

    /// Whether a directory that names in an item are in was replaced by another one of the same
    /// number, so that names that did not change are new all the same.
    fn parents_changed(&mut self, key: &Key, data: &[u8]) -> Result<bool> {
        let mut last = 0;
        let mut changed = false;
        let one = key.typ == item_type::INODE_REF;
        names_of_item(key, data, &mut |name| {
            if name.parent != last {
                last = name.parent;
                changed = !self.is_kept(last)?;
            }
            Ok(!changed && !one)
        })?;
        Ok(changed)
    }

    /// Whether an inode number stands for the same inode in both snapshots.
    fn is_kept(&mut self, ino: u64) -> Result<bool> {
        if self.names.kept.contains(ino) {
            return Ok(true);
        }
        let sent = self.snapshots.generation_in(Snapshot::Sent, ino)?;
        let kept = sent == self.snapshots.generation_in(Snapshot::Parent, ino)?;
        if kept {
            if self.names.kept.len() >= MAX_KEPT {
                self.names.kept.clear();
            }
            self.names.kept.insert(ino)?;
        }
        Ok(kept)
    }

    /// Takes up the next inode.
    #[inline(never)]
    fn begin_change(&mut self, compare: &Compare<'a>, change: Change, ino: u64) -> Result {
        let item = |here: &Here| format::read::<InodeItem>(here.data()?);
        self.position.progress = ino;
        self.position.path_known = false;
        let named = |item: &InodeItem| item.nlink.get() != 0;
        match change {
            Change::New => {
                let here = compare.sent()?;
                let sent = item(&here)?;
                let mut inode = Current::new(ino, sent, Fate::New);
                inode.ignored = !named(&sent);
                let ignored = inode.ignored;
                self.position.inode = Some(inode);
                if ignored || ino == objectid::FIRST_FREE {
                    return Ok(());
                }
                self.create_if_needed(&here, ino, &sent)
            }
            Change::Deleted => {
                let parent = item(&compare.parent()?)?;
                self.position.inode = Some(Current::new(ino, parent, Fate::Deleted));
                Ok(())
            }
            Change::Changed | Change::Same => {
                let here = compare.sent()?;
                let (sent, parent) = (item(&here)?, item(&compare.parent()?)?);
                let mut inode = Current::new(ino, sent, Fate::Changed);
                inode.before = Some(parent);
                inode.ignored = !named(&sent) && !named(&parent);
                let other = ino != objectid::FIRST_FREE && sent.generation != parent.generation;
                let replaces = other || named(&sent) != named(&parent);
                let ignored = inode.ignored;
                self.position.inode = Some(inode);
                if ignored || !replaces {
                    return Ok(());
                }
                self.replace(&here, ino, &sent, &parent)
            }
        }
    }

    /// Deals with two inodes of the same number: the parent's, which is gone, and another one.
    #[inline(never)]
    fn replace(&mut self, here: &Here, ino: u64, sent: &InodeItem, parent: &InodeItem) -> Result {
        let replacing = |item: &InodeItem, fate| {
            let mut inode = Current::new(ino, *item, fate);
            inode.replaces = true;
            inode
        };
        if parent.nlink.get() != 0 {
            self.position.inode = Some(replacing(parent, Fate::Deleted));
            self.record_all_refs(Side::Deleted)?;
            self.process_recorded_refs()?;
        }
        if sent.nlink.get() == 0 {
            return Ok(());
        }
        self.position.inode = Some(replacing(sent, Fate::New));
        self.create_if_needed(here, ino, sent)?;
        self.record_all_refs(Side::New)?;
        // Where a move has to wait, the new directory waits under its orphan name.
        self.process_recorded_refs()?;
        self.position.progress = ino.saturating_add(1);
        let mut cursor = Cursor::new(self.snapshots.session, self.snapshots.root.id);
        cursor.seek(&Key::new(ino, item_type::EXTENT_DATA, 0))?;
        while let Some(key) = cursor.key() {
            if !key.is(ino, item_type::EXTENT_DATA) {
                break;
            }
            self.extent(cursor.here()?)?;
            cursor.next()?;
            cursor.renew()?;
        }
        cursor.seek(&Key::new(ino, item_type::XATTR_ITEM, 0))?;
        while let Some((key, data)) = cursor.item() {
            if !key.is(ino, item_type::XATTR_ITEM) {
                break;
            }
            self.xattrs_of(data)?;
            cursor.next()?;
        }
        Ok(())
    }

    /// Creates the current inode under its orphan name, unless it is a directory that others needed
    /// earlier.
    fn create_if_needed(&mut self, here: &Here, ino: u64, item: &InodeItem) -> Result {
        if mode::kind(item.mode.get()) == mode::DIR && self.was_created_early(ino)? {
            return Ok(());
        }
        self.create(Some(&here.leaf), ino, item)
    }

    /// To be called before each change, and at the end of the walk: sends what was waiting for the
    /// last change of the current inode.
    fn finish_change(&mut self, next: Option<&Key>) -> Result {
        let Some(inode) = &self.position.inode else {
            return Ok(());
        };
        if inode.ignored {
            return Ok(());
        }
        let (ino, fate) = (inode.ino, inode.fate);
        let same = next.filter(|key| key.objectid == ino);
        let more_names = same.is_some_and(|key| key.typ <= item_type::INODE_EXTREF);
        if !more_names && !self.names.recorded_refs.is_empty() {
            // The path of a directory that waits to be moved stays that of the parent.
            if !self.process_recorded_refs()? {
                self.position.progress = ino.saturating_add(1);
            }
        }
        if same.is_none() && fate != Fate::Deleted {
            self.finish_inode()?;
        }
        self.send_overdue_utimes()
    }
}

/// What is wrong with an item whose inode did not change.
fn stray(change: Change, is_name: bool) -> &'static str {
    match (change, is_name) {
        (Change::New, true) => "new reference without updated inode item",
        (Change::New, false) => "new xattr without updated inode item",
        (Change::Deleted, true) => "deleted reference without updated inode item",
        (Change::Deleted, false) => "deleted xattr without updated inode item",
        (_, true) => "updated reference without updated inode item",
        (_, false) => "updated xattr without updated inode item",
    }
}
