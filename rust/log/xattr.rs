// SPDX-License-Identifier: GPL-2.0
//! Extended attributes of a log, which has all of an inode's or none.

use super::replay::Target;
use crate::format::crc::name_hash;
use crate::format::{item_type, Key};
use crate::subvol::dir::Entries;
use crate::subvol::write::remove_entry;
use crate::subvol::xattr;
use crate::trans::View;
use crate::tree::edit;
use kernel::prelude::*;

/// Whether an item that holds entries has one of this name.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item.
pub(super) fn has_name(data: &[u8], name: &[u8]) -> Result<bool> {
    for entry in Entries::new(data) {
        if entry?.name == name {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the attributes of an inode that the log does not have.
///
/// # Errors
///
/// `EUCLEAN`, `ENOMEM`, those of changing trees.
pub(super) fn remove_unlogged(target: &mut Target<'_, '_>, ino: u64) -> Result {
    let root = target.trans.tree_root(target.log.subvol)?;
    let key = |name: &[u8]| Key::new(ino, item_type::XATTR_ITEM, name_hash(name));
    let mut gone: KVec<KVec<u8>> = KVec::new();
    xattr::for_each(&*target.trans, root, ino, &mut |entry| {
        let logged = match target.logged(&key(entry.name))? {
            Some(data) => has_name(&data, entry.name)?,
            None => false,
        };
        if !logged {
            let mut name = KVec::with_capacity(entry.name.len(), GFP_KERNEL)?;
            name.extend_from_slice(entry.name, GFP_KERNEL)?;
            gone.push(name, GFP_KERNEL)?;
        }
        Ok(true)
    })?;
    for name in gone {
        remove_entry(target.trans, target.log.subvol, &key(&name), &name)?;
    }
    Ok(())
}

/// Makes the attributes whose names have the same hash what the log says.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item; those of changing trees.
pub(super) fn replay(target: &mut Target<'_, '_>, key: &Key, data: &[u8]) -> Result {
    for entry in Entries::new(data) {
        entry?;
    }
    target.put(key, data)
}

impl Target<'_, '_> {
    /// Makes `data` the item at `key` of the subvolume.
    pub(super) fn put(&mut self, key: &Key, data: &[u8]) -> Result {
        let subvol = self.log.subvol;
        match edit::replace(self.trans, subvol, key, data) {
            Err(ENOENT) => edit::insert(self.trans, subvol, key, data),
            replaced => replaced,
        }
    }
}
