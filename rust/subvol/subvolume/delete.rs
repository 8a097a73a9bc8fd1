// SPDX-License-Identifier: GPL-2.0
//! Deleting subvolumes: the name goes, and an orphan item in the root tree tells the cleaner of the
//! rest.

use super::{flags, uuid_tree};
use crate::format::inode::{InodeItem, Timespec};
use crate::format::root::ROOT_SUBVOL_DEAD;
use crate::format::{item_type, tree_id, Key};
use crate::fs_warn;
use crate::subvol::root_ref;
use crate::subvol::write::{
    add_orphan, check_subvol, find_dir_entry, read_dir, remove_dir_entry, touch_dir, write_inode,
    InodeId, FREEING,
};
use crate::trans::Transaction;
use crate::tree::{Cursor, EditContext};
use crate::volume::Fs;
use kernel::prelude::*;

/// What [`delete_subvolume`] changed.
#[derive(Clone, Copy)]
pub struct Deleted {
    /// The tree of the subvolume.
    pub tree: u64,
    /// The item of the directory that held it.
    pub dir: InodeItem,
}

/// Deletes the subvolume that has the name `name` in directory `dir`. Its tree is dropped by
/// [`super::clean_subvolumes`]; until then who has files in it open may go on using them.
///
/// # Errors
///
/// `ENOENT` if there is no such subvolume, `ENOTEMPTY` if it holds subvolumes, `EPERM` if it is the
/// default or under send, `EINVAL` for what is not a subvolume, `EROFS`.
pub fn delete_subvolume(fs: &Fs, dir: InodeId, name: &[u8], now: Timespec) -> Result<Deleted> {
    fs.operate(FREEING, |trans| {
        check_subvol(trans, dir.tree)?;
        let mut dir_item = read_dir(trans, dir)?;
        let target = find_dir_entry(trans, dir, name)?;
        if target.location.typ != item_type::ROOT_ITEM {
            return Err(EINVAL);
        }
        let tree = target.location.objectid;
        let index = root_ref::find(trans, dir.tree, tree, dir.ino, name)?.ok_or(ENOENT)?;
        check_unused(trans, tree)?;
        let item = trans.root_item(tree)?;

        root_ref::remove(trans, dir.tree, tree)?;
        remove_dir_entry(trans, dir, name, index)?;
        touch_dir(&mut dir_item, -2 * name.len() as i64, now);
        write_inode(trans, dir, &mut dir_item)?;
        trans.update_root_item(tree, |item| {
            item.refs = 0.into();
            item.set_flags(item.flags.get() | ROOT_SUBVOL_DEAD);
            item.drop_progress = Key::MIN.into();
            item.drop_level = 0;
            Ok(())
        })?;
        let orphan = InodeId {
            tree: tree_id::ROOT,
            ino: tree,
        };
        add_orphan(trans, orphan)?;
        uuid_tree::remove(trans, &item.uuid, item_type::UUID_SUBVOL, tree)?;
        if item.received_uuid != [0; 16] {
            let typ = item_type::UUID_RECEIVED_SUBVOL;
            uuid_tree::remove(trans, &item.received_uuid, typ, tree)?;
        }
        Ok(Deleted {
            tree,
            dir: dir_item,
        })
    })
}

fn check_unused(trans: &Transaction<'_>, tree: u64) -> Result {
    if flags::default_subvolume(trans)? == tree {
        fs_warn!(
            trans.fs(),
            "deleting default subvolume {} is not allowed",
            tree
        );
        return Err(EPERM);
    }
    if trans.fs().state.sends_of(tree) != 0 {
        fs_warn!(
            trans.fs(),
            "attempt to delete subvolume {} during send",
            tree
        );
        return Err(EPERM);
    }
    let mut cursor = Cursor::new(trans, EditContext::root(trans, tree_id::ROOT)?);
    cursor.seek(&Key::new(tree, item_type::ROOT_REF, 0))?;
    let nested = cursor.key().filter(|key| key.is(tree, item_type::ROOT_REF));
    if nested.is_some() {
        return Err(ENOTEMPTY);
    }
    Ok(())
}
