// SPDX-License-Identifier: GPL-2.0
//! Where subvolumes are: the names on the way from the top-level subvolume to another.

use super::inode::ROOT_DIR;
use crate::format::root::RootRef;
use crate::format::{self, item_type, tree_id, Key};
use crate::subvol;
use crate::trans::{Reader, View};
use crate::tree::Cursor;
use kernel::prelude::*;

/// Names, outermost first.
pub(super) type SubvolPath = KVec<KVec<u8>>;

/// More names than this make no path that the VFS would take.
const MAX_DEPTH: usize = 2048;

fn owned(name: &[u8]) -> Result<KVec<u8>> {
    let mut copy = KVec::with_capacity(name.len(), GFP_KERNEL)?;
    copy.extend_from_slice(name, GFP_KERNEL)?;
    Ok(copy)
}

/// The way to the root directory of subvolume `tree`.
///
/// # Errors
///
/// `ENOENT` if there is no such subvolume or no way to it, `EUCLEAN` for damage, or what reading
/// gives.
pub(super) fn of_tree(reader: &Reader, tree: u64) -> Result<SubvolPath> {
    let mut names: SubvolPath = KVec::new();
    let mut tree = tree;
    while tree != tree_id::FS {
        let (parent, mut dir, name) = place(reader, tree)?;
        push(&mut names, name)?;
        let root = reader.root(parent)?;
        while dir != ROOT_DIR {
            let mut found = None;
            subvol::inode::for_each_name(reader, root, dir, &mut |name| {
                found = Some((name.parent, owned(name.name)?));
                Ok(false)
            })?;
            let (above, name) = found.ok_or(ENOENT)?;
            push(&mut names, name)?;
            dir = above;
        }
        tree = parent;
    }
    names.reverse();
    Ok(names)
}

fn push(names: &mut SubvolPath, name: KVec<u8>) -> Result {
    // A loop of damaged items would go on for ever.
    if names.len() >= MAX_DEPTH {
        return Err(EUCLEAN);
    }
    Ok(names.push(name, GFP_KERNEL)?)
}

/// The tree and the directory that hold the subvolume `tree`, and its name there.
pub(super) fn place<V: View>(view: &V, tree: u64) -> Result<(u64, u64, KVec<u8>)> {
    let mut cursor = Cursor::new(view, view.tree_root(tree_id::ROOT)?);
    cursor.seek(&Key::new(tree, item_type::ROOT_BACKREF, 0))?;
    let (key, data) = cursor.item().ok_or(ENOENT)?;
    if !key.is(tree, item_type::ROOT_BACKREF) {
        return Err(ENOENT);
    }
    let item: RootRef = format::read(data)?;
    let len = usize::from(item.name_len.get());
    let name = format::slice(data, size_of::<RootRef>(), len)?;
    Ok((key.offset, item.dirid.get(), owned(name)?))
}

/// The subvolume that is mounted when none is named.
///
/// # Errors
///
/// `EUCLEAN` for damage, or what reading gives.
pub(super) fn default_tree(reader: &Reader) -> Result<u64> {
    let root = reader.root(tree_id::ROOT)?;
    let dir = reader.superblock().root_dir_objectid.get();
    match subvol::dir::lookup(reader, root, dir, b"default")? {
        Some(target) if target.location.typ == item_type::ROOT_ITEM => Ok(target.location.objectid),
        Some(_) => Err(EUCLEAN),
        // Volumes without such an entry have the top-level one for their default.
        None => Ok(tree_id::FS),
    }
}
