// SPDX-License-Identifier: GPL-2.0
//! Directory entries and extended attributes, which have one form.

use super::fault::{at_least, at_most, equal, fault, within, Checked, Expected};
use super::inode;
use super::item::{part, Item};
use crate::format::crc::name_hash;
use crate::format::dir::{file_type, DirItem, NAME_LEN};
use crate::format::header::{HEADER_SIZE, ITEM_SIZE};
use crate::format::{item_type, tree_id, Key};

/// `DIR_ITEM`, `DIR_INDEX` and `XATTR_ITEM`: entries one after the other.
pub(super) fn check(item: &Item<'_>) -> Checked {
    item.follows_its_inode()?;
    let mut rest = item.bytes;
    while !rest.is_empty() {
        let left = rest.len() as u64;
        let mut end = size_of::<DirItem>();
        if let Some(entry) = part::<DirItem>(rest, 0) {
            check_location(item, entry.location.into())?;
            check_type(item, entry.typ & !file_type::ENCRYPTED)?;
            check_lengths(item, entry)?;
            let data_len = usize::from(entry.data_len.get());
            end = end.saturating_add(entry.name_len.get().into());
            end = end.saturating_add(data_len);
            let name = rest.get(size_of::<DirItem>()..end.saturating_sub(data_len));
            if let Some(name) = name.filter(|_| item.key.typ != item_type::DIR_INDEX) {
                check_hash(item, name)?;
            }
        }
        at_least("directory entry beyond its item", left, end as u64)?;
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(())
}

/// What the entry leads to: an inode of this tree, or a subvolume; nothing, for an extended
/// attribute.
fn check_location(item: &Item<'_>, location: Key) -> Checked {
    if item.key.typ == item_type::XATTR_ITEM {
        let what = "location of an extended attribute is not empty";
        let parts = location.objectid | location.offset | u64::from(location.typ);
        return equal(what, parts, 0);
    }
    match location.typ {
        item_type::ROOT_ITEM if tree_id::is_fs_tree(location.objectid) => Ok(()),
        item_type::ROOT_ITEM => {
            let subvolumes = Expected::Words("the id of a subvolume");
            let what = "location is not a subvolume";
            fault(what, location.objectid, subvolumes)
        }
        // The C driver takes type 0 as well.
        item_type::INODE_ITEM | 0 => {
            inode::check_number("invalid inode number in a location", location.objectid)?;
            equal("invalid offset in a location", location.offset, 0)
        }
        typ => {
            let types = Expected::Words("INODE_ITEM (1) or ROOT_ITEM (132)");
            fault("invalid key type in a location", typ.into(), types)
        }
    }
}

fn check_type(item: &Item<'_>, typ: u8) -> Checked {
    let known = u64::from(file_type::XATTR);
    within("invalid type of a directory entry", typ.into(), 1, known)?;
    let is_xattr = item.key.typ == item_type::XATTR_ITEM;
    if is_xattr == (typ == file_type::XATTR) {
        return Ok(());
    }
    let words = if is_xattr {
        "that of an extended attribute (8)"
    } else {
        "that of a file"
    };
    let what = "type of a directory entry does not match its key";
    fault(what, typ.into(), Expected::Words(words))
}

fn check_lengths(item: &Item<'_>, entry: &DirItem) -> Checked {
    let name_len = u64::from(entry.name_len.get());
    let data_len = u64::from(entry.data_len.get());
    at_most(
        "name of a directory entry is too long",
        name_len,
        NAME_LEN as u64,
    )?;
    let heads = (HEADER_SIZE + ITEM_SIZE + size_of::<DirItem>()) as u64;
    let most = item.limits.nodesize().saturating_sub(heads);
    let both = name_len.saturating_add(data_len);
    at_most(
        "name and value of a directory entry are too long",
        both,
        most,
    )?;
    if item.key.typ != item_type::XATTR_ITEM {
        equal("directory entry with a value", data_len, 0)?;
    }
    Ok(())
}

/// The entry must be found where it is looked for. The C driver does not open what this refuses,
/// and would not find it.
fn check_hash(item: &Item<'_>, name: &[u8]) -> Checked {
    let hash = name_hash(name);
    if item.key.offset == hash {
        return Ok(());
    }
    fault(
        "name hash mismatch with key",
        item.key.offset,
        Expected::Hex(hash),
    )
}
