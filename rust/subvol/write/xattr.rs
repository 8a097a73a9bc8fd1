// SPDX-License-Identifier: GPL-2.0
//! Changing extended attributes.

use super::dir_item::{add_entry, check_entry, encode_entry, remove_entry};
use super::{check_files, property, read_inode, reserve, write_inode, InodeId};
use crate::format::crc::name_hash;
use crate::format::dir::{file_type, DirItem, NAME_LEN};
use crate::format::inode::{InodeItem, Timespec};
use crate::format::{item_type, CompressionMethod, Key};
use crate::subvol::xattr;
use crate::trans::Transaction;
use crate::tree::edit::{self, max_item_size};
use crate::tree::EditContext;
use crate::volume::Fs;
use kernel::prelude::*;

/// Which state of an attribute a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Any.
    Set,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
}

fn key(ino: u64, name: &[u8]) -> Key {
    Key::new(ino, item_type::XATTR_ITEM, name_hash(name))
}

/// Whether an attribute has space in an item.
pub(super) fn check_size(trans: &Transaction<'_>, name: &[u8], value: &[u8]) -> Result {
    if name.is_empty() {
        return Err(EINVAL);
    }
    if name.len() > NAME_LEN {
        return Err(ERANGE);
    }
    let size = size_of::<DirItem>()
        .saturating_add(name.len())
        .saturating_add(value.len());
    if size > max_item_size(trans.geometry()) {
        return Err(ENOSPC);
    }
    Ok(())
}

/// Adds an attribute that is not there.
pub(super) fn insert(
    trans: &mut Transaction<'_>,
    id: InodeId,
    name: &[u8],
    value: &[u8],
) -> Result {
    let entry = encode_entry(Key::MIN, trans.transid(), file_type::XATTR, name, value)?;
    add_entry(trans, id.tree, &key(id.ino, name), &entry)
}

/// Sets the attribute `name`, which is the full one (`user.x`), or removes it if `value` is `None`.
/// A property goes if its value is empty, and need not be there then; it changes the inode's flags
/// as well. Returns the inode's item.
///
/// # Errors
///
/// `EEXIST`, `ENODATA`, `ERANGE` for a long name, `ENOSPC` for what has no space, `ENOENT`,
/// `EROFS`.
pub fn set_xattr(
    fs: &Fs,
    id: InodeId,
    name: &[u8],
    value: Option<&[u8]>,
    mode: XattrMode,
    now: Timespec,
) -> Result<InodeItem> {
    let is_property = name == property::COMPRESSION;
    let resets = is_property && value.is_some_and(<[u8]>::is_empty);
    let value = value.filter(|_| !resets);
    fs.operate(reserve(3), |trans| {
        check_files(trans, id.tree)?;
        let mut item = read_inode(trans, id)?;
        match change(trans, id, name, value, mode) {
            Err(e) if e == ENODATA && resets && mode != XattrMode::Replace => (),
            changed => changed?,
        }
        if is_property {
            let value = value.unwrap_or_default();
            item.flags = property::apply(item.flags.get(), value).into();
            let method = CompressionMethod::of_property(value);
            trans.set_incompat(method.map_or(0, CompressionMethod::incompat));
        }
        item.ctime = now;
        write_inode(trans, id, &mut item)?;
        Ok(item)
    })
}

/// Sets the attribute `name`, which holds an ACL, or removes it if there is one and `value` is
/// `None`; and the inode's mode, which says the rest of what the ACL does. Returns the inode's
/// item.
///
/// # Errors
///
/// As for [`set_xattr`].
pub fn set_acl(
    fs: &Fs,
    id: InodeId,
    name: &[u8],
    value: Option<&[u8]>,
    mode: u32,
    now: Timespec,
) -> Result<InodeItem> {
    fs.operate(reserve(3), |trans| {
        check_files(trans, id.tree)?;
        let mut item = read_inode(trans, id)?;
        match change(trans, id, name, value, XattrMode::Set) {
            Err(e) if e == ENODATA && value.is_none() => (),
            changed => changed?,
        }
        item.mode = mode.into();
        item.ctime = now;
        write_inode(trans, id, &mut item)?;
        Ok(item)
    })
}

/// The part of [`set_xattr`] that is for the attribute.
fn change(
    trans: &mut Transaction<'_>,
    id: InodeId,
    name: &[u8],
    value: Option<&[u8]>,
    mode: XattrMode,
) -> Result {
    let root = EditContext::root(trans, id.tree)?;
    let old = match xattr::get(trans, root, id.ino, name, |old| Ok(old.len())) {
        Ok(len) => Some(len),
        Err(e) if e == ENODATA => None,
        Err(e) => return Err(e),
    };
    match (old, mode) {
        (Some(_), XattrMode::Create) => return Err(EEXIST),
        (None, XattrMode::Replace) => return Err(ENODATA),
        (None, _) if value.is_none() => return Err(ENODATA),
        _ => {}
    }
    if let Some(value) = value {
        check_item_size(trans, id, name, value, old)?;
    }
    if old.is_some() {
        remove(trans, id, name)?;
    }
    if let Some(value) = value {
        insert(trans, id, name, value)?;
    }
    Ok(())
}

/// Removes an attribute that is there.
pub(super) fn remove(trans: &mut Transaction<'_>, id: InodeId, name: &[u8]) -> Result {
    remove_entry(trans, id.tree, &key(id.ino, name), name)
}

/// Whether the value has space beside the other attributes with the same hash, once the old value
/// is gone.
pub(super) fn check_item_size(
    trans: &mut Transaction<'_>,
    id: InodeId,
    name: &[u8],
    value: &[u8],
    old: Option<usize>,
) -> Result {
    check_size(trans, name, value)?;
    let head = size_of::<DirItem>().saturating_add(name.len());
    let len = head.saturating_add(value.len());
    let Some(old) = old else {
        return match check_entry(trans, id.tree, &key(id.ino, name), name, len) {
            Err(e) if e == EOVERFLOW => Err(ENOSPC),
            checked => checked,
        };
    };
    let size = edit::get(trans, id.tree, &key(id.ino, name))?.map_or(0, |data| data.len());
    let rest = size.saturating_sub(head.saturating_add(old));
    if rest.saturating_add(len) > max_item_size(trans.geometry()) {
        return Err(ENOSPC);
    }
    Ok(())
}
