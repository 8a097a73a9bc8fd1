// SPDX-License-Identifier: GPL-2.0
//! Changing what lives in a subvolume's tree.
//!
//! Every public function here is one operation of the running transaction, or several bounded ones
//! where it says so: see [`crate::trans::running`]. All take the writer's mutex, so that none may
//! be called with it held. The VFS keeps others from the inodes and directories involved; what it
//! knows is checked again all the same, before the first change, so that its errors are clean.
//! Inodes are answered as their items are now, and the transaction that
//! [`crate::volume::Fs::commit_up_to`] takes is the one in the item.

mod attr;
mod clone;
mod create;
mod data;
mod dir_item;
mod extents;
mod inode_ref;
mod link;
mod nocow;
mod orphan;
mod prealloc;
mod property;
mod rename;
mod truncate;
mod xattr;

pub use attr::update_inode;
pub use clone::{clone_range, CloneRange};
pub use create::{create, tmpfile, Created, NewInode};
pub use data::{
    insert_data, insert_inline, insert_pieces, Encoded, NewData, NewInline, MAX_INLINE,
};
pub use link::{link, rmdir, unlink, Linked, Unlinked};
pub use nocow::{is_preallocated, preallocated};
pub use orphan::{clean_orphans, evict};
pub use prealloc::preallocate;
pub use property::{applies_to as has_properties, check as check_property, property_of, set_flags};
pub use rename::{rename, RenameEnd, RenameMode, Renamed};
pub use truncate::{grow, punch, trim, truncate};
pub use xattr::{set_acl, set_xattr, XattrMode};

// For the replay of a log, whose operations are all one transaction.
pub(crate) use create::file_type_of;
pub(crate) use dir_item::remove_entry;
pub(crate) use extents::{drop_range, insert_item as insert_extent_item, whole as whole_extent};
pub(crate) use inode_ref::{
    add as add_name, find as find_name, place_for as name_place, remove as remove_name, NameAt,
};
pub(crate) use link::{add_dir_entry, check_new_entry, next_index, remove_dir_entry};
pub(crate) use orphan::{
    add_unused as add_unused_orphan, exists as has_orphan, remove as remove_orphan,
};

use dir_item::add_entry;
pub(super) use link::find_dir_entry;
pub(super) use orphan::{add as add_orphan, next as next_orphan};
pub(super) use property::{
    apply as apply_property, inherited as inherited_property, insert as insert_property,
};

use super::inode;
use crate::format::inode::{InodeItem, Timespec};
use crate::format::{item_type, Key};
use crate::trans::{Reserve, Transaction, View};
use crate::tree::{edit, EditContext};
use kernel::prelude::*;
use zerocopy::IntoBytes;

/// An inode of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InodeId {
    /// The tree of its subvolume.
    pub tree: u64,
    /// Its number there.
    pub ino: u64,
}

/// File types within a mode.
pub mod mode {
    /// All bits of the type.
    pub const FMT: u32 = 0o170_000;
    /// A directory.
    pub const DIR: u32 = 0o040_000;
    /// A regular file.
    pub const REG: u32 = 0o100_000;
    /// A symbolic link.
    pub const LNK: u32 = 0o120_000;
    /// A character device.
    pub const CHR: u32 = 0o020_000;
    /// A block device.
    pub const BLK: u32 = 0o060_000;
    /// A named pipe.
    pub const FIFO: u32 = 0o010_000;
    /// A socket.
    pub const SOCK: u32 = 0o140_000;
}

/// The space for an operation that inserts or changes this many items.
pub(super) const fn reserve(items: u64) -> Reserve {
    Reserve {
        // The copy of a path to each in a tree of three levels, and splits on the way.
        nodes: items.saturating_mul(6),
        data: 0,
        freeing: false,
    }
}

/// An operation that frees more than it takes, or whose space was reserved before.
pub(super) const FREEING: Reserve = Reserve {
    nodes: 0,
    data: 0,
    freeing: true,
};

/// Checks that the tree of the subvolume is whole. That of a deleted one is as long as somebody has
/// files in it open.
///
/// # Errors
///
/// `ENOENT` if it is being dropped, or is not there.
pub(super) fn check_whole(trans: &Transaction<'_>, tree: u64) -> Result {
    let item = trans.root_item(tree)?;
    if item.is_dead() && Key::from(item.drop_progress) != Key::MIN {
        return Err(ENOENT);
    }
    Ok(())
}

/// Checks that files of the subvolume may be changed.
///
/// # Errors
///
/// `EROFS` if it is read-only, and those of [`check_whole`].
pub(super) fn check_files(trans: &Transaction<'_>, tree: u64) -> Result {
    check_whole(trans, tree)?;
    if trans.root_item(tree)?.is_read_only() {
        return Err(EROFS);
    }
    Ok(())
}

/// Checks that names in the subvolume may be changed.
///
/// # Errors
///
/// `EROFS` if it is read-only, `ENOENT` if it was deleted or is not there.
pub(super) fn check_subvol(trans: &Transaction<'_>, tree: u64) -> Result {
    let item = trans.root_item(tree)?;
    if item.is_dead() {
        return Err(ENOENT);
    }
    if item.is_read_only() {
        return Err(EROFS);
    }
    Ok(())
}

pub(super) fn read_inode(trans: &Transaction<'_>, id: InodeId) -> Result<InodeItem> {
    inode::read(trans, trans.tree_root(id.tree)?, id.ino)
}

/// Reads an inode that a name may lead to or from: `ENOENT` if it has no names left.
pub(super) fn read_linked(trans: &Transaction<'_>, id: InodeId) -> Result<InodeItem> {
    let item = read_inode(trans, id)?;
    if item.nlink.get() == 0 {
        return Err(ENOENT);
    }
    Ok(item)
}

/// Reads a directory that names can be added to or removed from.
pub(super) fn read_dir(trans: &Transaction<'_>, id: InodeId) -> Result<InodeItem> {
    let item = read_linked(trans, id)?;
    if item.mode.get() & mode::FMT != mode::DIR {
        return Err(ENOTDIR);
    }
    Ok(item)
}

pub(crate) const fn inode_key(ino: u64) -> Key {
    Key::new(ino, item_type::INODE_ITEM, 0)
}

/// Writes an inode's item, as changed by this transaction.
pub(super) fn write_inode(
    trans: &mut Transaction<'_>,
    id: InodeId,
    item: &mut InodeItem,
) -> Result {
    item.transid = trans.transid().into();
    item.sequence = item.sequence.get().wrapping_add(1).into();
    let item = &*item;
    edit::update_in_place(trans, id.tree, &inode_key(id.ino), |bytes: &mut [u8]| {
        let place = bytes.get_mut(..size_of::<InodeItem>()).ok_or(EUCLEAN)?;
        place.copy_from_slice(item.as_bytes());
        Ok(())
    })?;
    touch_subvol(trans, id.tree, item.ctime)
}

/// Notes in its root item that a subvolume changed.
fn touch_subvol(trans: &mut Transaction<'_>, tree: u64, now: Timespec) -> Result {
    let transid = trans.transid();
    trans.update_root_item(tree, |item| {
        item.ctransid = transid.into();
        item.ctime = now;
        Ok(())
    })
}

/// Notes a change of a directory's names: `grow` is the change of its size in bytes.
pub(super) fn touch_dir(item: &mut InodeItem, grow: i64, now: Timespec) {
    item.size = item.size.get().saturating_add_signed(grow).into();
    item.mtime = now;
    item.ctime = now;
}
