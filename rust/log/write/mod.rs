// SPDX-License-Identifier: GPL-2.0
//! Writing the log: what an fsync puts there, so that it need not wait for a commit.
//!
//! What was changed since the last commit is found by comparing the running tree of the subvolume
//! with the committed one ([`compare`]). Of an inode the log gets its item and attributes
//! ([`contents`]), the file extents that changed, with their checksums ([`extents`]), and the names
//! that changed ([`names`]). A new directory that a name is in comes along. Of a directory that is
//! synced itself the entries that it lost are logged as well, and the inodes that it gained
//! ([`entries`]). Inodes that are in the log already and were renamed or removed since are brought
//! up to date before anything is added, so that the names in a version of the log are those of one
//! moment.
//!
//! Whatever a replay could not make of the last commit without losing something else gives
//! `EAGAIN`, and becomes a commit; docs/log.md has the list.

mod compare;
mod contents;
mod entries;
mod extents;
mod names;

use crate::format::inode::InodeItem;
use crate::format::{item_type, Key};
use crate::subvol::inode;
use crate::subvol::write::{mode, InodeId};
use crate::trans::tree_log::LogEdit;
use crate::trans::View;
use crate::tree::{edit, Cursor, EditContext, Nodes, TreeRoot};
use crate::volume::Fs;
use core::ops::RangeInclusive;
use kernel::prelude::*;

/// The most inodes that one fsync logs. More of them are better off with a commit.
const MOST_INODES: u32 = 64;

/// Brings an inode to disk as it is in the tree, its data having been written: by the log, or by a
/// commit. `changed` is the last transaction that changed it. The caller holds nothing that writing
/// back a file may wait for: see [`crate::volume::before_commit`].
///
/// # Errors
///
/// Those of [`Fs::commit_up_to`].
pub fn sync_inode(fs: &Fs, id: InodeId, changed: u64) -> Result {
    if fs.generation() >= changed {
        return fs.commit_up_to(changed);
    }
    let point = fs.log(changed, |edit| {
        let mut record = Record {
            edit,
            todo: KVec::new(),
            count: 0,
        };
        record.run(id)
    })?;
    match point {
        Some(point) if fs.write_log(point)? => Ok(()),
        _ => fs.commit_up_to(changed),
    }
}

/// One fsync, while it puts things into the log.
struct Record<'r, 'a, 'fs> {
    edit: &'r mut LogEdit<'a, 'fs>,
    /// Inodes that the last commit does not have and that are to be logged whole.
    todo: KVec<InodeId>,
    count: u32,
}

/// Items with their keys, in order.
type Items = KVec<(Key, KVec<u8>)>;

/// Copies the items of a tree in a range of keys.
fn items_in<N: Nodes>(nodes: &N, root: TreeRoot, range: &RangeInclusive<Key>) -> Result<Items> {
    let mut items = KVec::new();
    let mut cursor = Cursor::new(nodes, root);
    cursor.seek(range.start())?;
    while let Some((key, data)) = cursor.item().filter(|(key, _)| range.contains(key)) {
        items.push((key, copy_of(data)?), GFP_KERNEL)?;
        cursor.next()?;
    }
    Ok(items)
}

fn copy_of(bytes: &[u8]) -> Result<KVec<u8>> {
    let mut copy = KVec::with_capacity(bytes.len(), GFP_KERNEL)?;
    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(copy)
}

/// The keys of an inode's items of some types.
fn keys_of(ino: u64, types: RangeInclusive<u8>) -> RangeInclusive<Key> {
    Key::new(ino, *types.start(), 0)..=Key::new(ino, *types.end(), u64::MAX)
}

impl Record<'_, '_, '_> {
    fn run(&mut self, id: InodeId) -> Result {
        let item = self.running_inode(id)?.ok_or(EAGAIN)?;
        // A new subvolume is not there without a commit.
        self.base_root(id.tree)?;
        self.edit.ensure_tree(id.tree)?;
        while let Some((tree, ino)) = self.edit.log.take_renamed() {
            self.renamed(InodeId { tree, ino })?;
        }
        if item.nlink.get() != 0 {
            self.whole(id, &item)?;
            if item.mode.get() & mode::FMT == mode::DIR {
                self.entries(id)?;
            }
        }
        while let Some(id) = self.todo.pop() {
            if !self.has(id) {
                let item = self.running_inode(id)?.ok_or(EAGAIN)?;
                self.whole(id, &item)?;
            }
        }
        Ok(())
    }

    /// Logs all there is of an inode that has names.
    fn whole(&mut self, id: InodeId, item: &InodeItem) -> Result {
        self.count = self.count.saturating_add(1);
        if self.count > MOST_INODES || item.nlink.get() == 0 {
            return Err(EAGAIN);
        }
        self.edit.log.add_inode((id.tree, id.ino))?;
        self.names(id, item)?;
        self.contents(id, item)
    }

    /// Logs the names of an inode that the last commit has, which is not synced itself.
    fn names_alone(&mut self, id: InodeId, item: &InodeItem) -> Result {
        self.count = self.count.saturating_add(1);
        if self.count > MOST_INODES {
            return Err(EAGAIN);
        }
        if !self.has(id) {
            self.edit.log.add_inode((id.tree, id.ino))?;
            self.existence(id, item)?;
        }
        self.names(id, item)
    }

    /// Brings an inode up to date that is in the log and whose names were changed.
    fn renamed(&mut self, id: InodeId) -> Result {
        match self.running_inode(id)? {
            Some(item) if item.nlink.get() != 0 => self.names(id, &item),
            _ => self.removed(id),
        }
    }

    /// An inode that is in the log has no names left. One that the last commit has stays as it was
    /// synced, with the names that it had; nothing says that these are gone.
    fn removed(&mut self, id: InodeId) -> Result {
        let all = if self.base_inode(id)?.is_some() {
            keys_of(id.ino, item_type::INODE_REF..=item_type::INODE_EXTREF)
        } else {
            keys_of(id.ino, 0..=u8::MAX)
        };
        if self.base_inode(id)?.is_some() {
            let root = EditContext::root(self.edit, id.tree)?;
            // Other names were synced, and those of the commit must not come back.
            if !items_in(self.edit, root, &all)?.is_empty() {
                return Err(EAGAIN);
            }
        } else {
            self.put_items(id.tree, &all, &[])?;
        }
        self.edit.log.remove_inode((id.tree, id.ino));
        Ok(())
    }

    fn has(&self, id: InodeId) -> bool {
        self.edit.log.has_inode((id.tree, id.ino))
    }

    fn base_root(&self, tree: u64) -> Result<TreeRoot> {
        self.edit.trans.base().root(tree)
    }

    fn base_inode(&self, id: InodeId) -> Result<Option<InodeItem>> {
        found(inode::read(
            self.edit.trans.base(),
            self.base_root(id.tree)?,
            id.ino,
        ))
    }

    fn running_inode(&self, id: InodeId) -> Result<Option<InodeItem>> {
        let root = self.edit.trans.tree_root(id.tree)?;
        found(inode::read(&*self.edit.trans, root, id.ino))
    }

    /// Makes `wanted` all that the log has in a range of keys. Returns which of them it had not.
    fn put_items(
        &mut self,
        tree: u64,
        range: &RangeInclusive<Key>,
        wanted: &[(Key, KVec<u8>)],
    ) -> Result<KVec<Key>> {
        let root = EditContext::root(self.edit, tree)?;
        let old = items_in(self.edit, root, range)?;
        let mut olds = old.iter().peekable();
        let mut put = KVec::new();
        for (key, data) in wanted {
            while let Some((gone, _)) = olds.next_if(|(old, _)| old < key) {
                edit::delete(self.edit, tree, gone)?;
            }
            match olds.next_if(|(old, _)| old == key) {
                Some((_, old)) if **old == **data => continue,
                Some(_) => edit::replace(self.edit, tree, key, data)?,
                None => edit::insert(self.edit, tree, key, data)?,
            }
            put.push(*key, GFP_KERNEL)?;
        }
        for (gone, _) in olds {
            edit::delete(self.edit, tree, gone)?;
        }
        Ok(put)
    }

    /// Whether the log has an item.
    fn is_logged(&self, tree: u64, key: &Key) -> Result<bool> {
        Ok(edit::get(self.edit, tree, key)?.is_some())
    }
}

/// `None` for what is not there.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
