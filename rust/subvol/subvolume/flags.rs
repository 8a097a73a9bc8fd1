// SPDX-License-Identifier: GPL-2.0
//! What can be said of a subvolume: that it is read-only, the default, or received.

use super::uuid_tree;
use crate::format::crc::name_hash;
use crate::format::inode::Timespec;
use crate::format::root::ROOT_SUBVOL_RDONLY;
use crate::format::superblock::incompat;
use crate::format::{item_type, tree_id, DiskKey, Key};
use crate::fs_warn;
use crate::space::space_info::SpaceContext;
use crate::subvol::dir;
use crate::subvol::write::reserve;
use crate::trans::{Transaction, View};
use crate::tree::{edit, EditContext};
use crate::volume::Fs;
use kernel::prelude::*;
use zerocopy::IntoBytes;

const DEFAULT: &[u8] = b"default";

/// A subvolume that can be changed by its flags: not one that is being deleted.
fn check_alive(trans: &Transaction<'_>, tree: u64) -> Result {
    if !tree_id::is_fs_tree(tree) || trans.root_item(tree)?.is_dead() {
        return Err(ENOENT);
    }
    Ok(())
}

/// Makes a subvolume read-only, or allows changes again. Dirty data must have been written back
/// before.
///
/// # Errors
///
/// `EPERM` for a subvolume under send that would become writable, `ENOENT`, `EROFS`, `ENOSPC`.
pub fn set_read_only(fs: &Fs, tree: u64, read_only: bool) -> Result {
    fs.operate(reserve(2), |trans| {
        check_alive(trans, tree)?;
        if trans.root_item(tree)?.is_read_only() == read_only {
            return Ok(());
        }
        if !read_only && fs.state.sends_of(tree) != 0 {
            fs_warn!(
                fs,
                "Attempt to set subvolume {} read-write during send",
                tree
            );
            return Err(EPERM);
        }
        trans.update_root_item(tree, |item| {
            let flags = item.flags.get() & !ROOT_SUBVOL_RDONLY;
            let flag = if read_only { ROOT_SUBVOL_RDONLY } else { 0 };
            item.set_flags(flags | flag);
            Ok(())
        })
    })
}

fn default_key() -> Key {
    Key::new(
        tree_id::ROOT_TREE_DIR,
        item_type::DIR_ITEM,
        name_hash(DEFAULT),
    )
}

/// The subvolume that is mounted unless another one is asked for.
///
/// # Errors
///
/// Those of reading.
pub fn default_subvolume<V: View>(view: &V) -> Result<u64> {
    let root = view.tree_root(tree_id::ROOT)?;
    let found = dir::lookup(view, root, tree_id::ROOT_TREE_DIR, DEFAULT)?;
    Ok(found.map_or(tree_id::FS, |target| target.location.objectid))
}

/// Makes `tree` the subvolume that is mounted unless another one is asked for.
///
/// # Errors
///
/// `ENOENT` if there is no such subvolume, or the volume has no place for this; `EROFS`, `ENOSPC`.
pub fn set_default(fs: &Fs, tree: u64) -> Result {
    fs.operate(reserve(2), |trans| {
        check_alive(trans, tree)?;
        let key = default_key();
        let data = edit::get(trans, tree_id::ROOT, &key)?.ok_or(ENOENT)?;
        let entry = dir::Entries::new(&data).next().ok_or(EUCLEAN)??;
        if entry.name != DEFAULT {
            return Err(EUCLEAN);
        }
        let location = DiskKey::from(Key::new(tree, item_type::ROOT_ITEM, u64::MAX));
        edit::update_in_place(trans, tree_id::ROOT, &key, |bytes: &mut [u8]| {
            let place = bytes.get_mut(..size_of::<DiskKey>()).ok_or(EUCLEAN)?;
            place.copy_from_slice(location.as_bytes());
            Ok(())
        })?;
        let sb = trans.superblock_mut();
        sb.incompat_flags = (sb.incompat_flags.get() | incompat::DEFAULT_SUBVOL).into();
        Ok(())
    })
}

/// Where a received subvolume comes from.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// The UUID of the subvolume that was sent; zeros for none.
    pub uuid: [u8; 16],
    /// The sender's transaction.
    pub stransid: u64,
    /// Its time.
    pub stime: Timespec,
    /// The time of receiving.
    pub now: Timespec,
}

/// Notes that a subvolume was received. Returns the transaction.
///
/// # Errors
///
/// `EROFS` for a read-only subvolume, `EOVERFLOW` if too many others have this UUID, `ENOENT`,
/// `ENOSPC`.
pub fn set_received(fs: &Fs, tree: u64, received: &Received) -> Result<u64> {
    fs.operate(reserve(6), |trans| {
        check_alive(trans, tree)?;
        let item = trans.root_item(tree)?;
        if item.is_read_only() {
            return Err(EROFS);
        }
        let typ = item_type::UUID_RECEIVED_SUBVOL;
        let (old, new) = (item.received_uuid, received.uuid);
        if new != [0; 16] && !uuid_tree::can_lead(trans, &new, typ, tree)? {
            return Err(EOVERFLOW);
        }
        if old != new && old != [0; 16] {
            uuid_tree::remove(trans, &old, typ, tree)?;
        }
        let transid = trans.transid();
        trans.update_root_item(tree, |item| {
            item.received_uuid = new;
            item.stransid = received.stransid.into();
            item.rtransid = transid.into();
            item.stime = received.stime;
            item.rtime = received.now;
            Ok(())
        })?;
        if new != [0; 16] {
            uuid_tree::add(trans, &new, typ, tree)?;
        }
        Ok(transid)
    })
}
