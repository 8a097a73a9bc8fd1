// SPDX-License-Identifier: GPL-2.0
//! Properties: attributes under `btrfs.`, which say how a file is to be treated. There is one, how
//! to compress.
//!
//! Its value and the flags of the inode go together: who names a method has `COMPRESS` set, who
//! wants none `NOCOMPRESS` (`prop_compression_apply`). New files get it from their directories;
//! [`crate::subvol::compress`] follows it.

use super::{check_files, mode, read_inode, reserve, write_inode, xattr, InodeId};
use crate::format::inode::{inode_flags, InodeItem, Timespec};
use crate::format::CompressionMethod;
use crate::subvol;
use crate::trans::{Transaction, View};
use crate::tree::EditContext;
use crate::volume::Fs;
use kernel::prelude::*;

/// The full name of the property.
pub const COMPRESSION: &[u8] = b"btrfs.compression";

/// The name of the method that a value asks for, without a level.
fn method(value: &[u8]) -> Option<&'static [u8]> {
    CompressionMethod::of_property(value).map(|method| method.name().as_bytes())
}

/// The method that a file's property asks for. Takes the writer's mutex if the subvolume was
/// changed since the last commit.
///
/// # Errors
///
/// Those of reading.
pub fn property_of(fs: &Fs, id: InodeId) -> Result<Option<CompressionMethod>> {
    let view = fs.running_view(id.tree)?;
    let root = view.tree_root(id.tree)?;
    let of_value = |value: &[u8]| Ok(CompressionMethod::of_property(value));
    match subvol::xattr::get(&view, root, id.ino, COMPRESSION, of_value) {
        Err(e) if e == ENODATA => Ok(None),
        found => found,
    }
}

/// What becomes of an inode's flags when the property is set to `value`, or removed if that is
/// empty.
pub(in crate::subvol) fn apply(flags: u64, value: &[u8]) -> u64 {
    let cleared = flags & !(inode_flags::COMPRESS | inode_flags::NOCOMPRESS);
    if value.is_empty() {
        cleared
    } else if method(value).is_some() {
        cleared | inode_flags::COMPRESS
    } else {
        cleared | inode_flags::NOCOMPRESS
    }
}

/// Whether a property can be set: its name and value make sense, and the file with these flags can
/// be compressed.
///
/// # Errors
///
/// `EINVAL`.
pub fn check(name: &[u8], value: &[u8], flags: u64) -> Result {
    if name != COMPRESSION {
        return Err(EINVAL);
    }
    if value.is_empty() {
        return Ok(());
    }
    if flags & (inode_flags::NODATACOW | inode_flags::NODATASUM) != 0 {
        return Err(EINVAL);
    }
    if matches!(value, b"no" | b"none") {
        return Ok(());
    }
    let rest = method(value).and_then(|method| value.strip_prefix(method));
    match rest {
        Some([] | [b':', ..]) => Ok(()),
        _ => Err(EINVAL),
    }
}

/// Whether an inode of this mode has properties. All others do not, and setting one does nothing.
pub fn applies_to(mode: u32) -> bool {
    matches!(mode & mode::FMT, mode::REG | mode::DIR)
}

/// The value that a new inode in a directory gets: the method of the directory's property
/// (`btrfs_inode_inherit_props`), if the new one can have properties. `flags` are those of the new
/// inode.
pub(in crate::subvol) fn inherited(
    trans: &Transaction<'_>,
    (dir, dir_item): (InodeId, &InodeItem),
    mode: u32,
    flags: u64,
) -> Result<Option<&'static [u8]>> {
    // The flag goes with the property, so that few directories are looked at.
    let has_one = dir_item.flags.get() & inode_flags::COMPRESS != 0;
    if !has_one || !applies_to(mode) || check(COMPRESSION, b"none", flags).is_err() {
        return Ok(None);
    }
    let root = EditContext::root(trans, dir.tree)?;
    let found = subvol::xattr::get(trans, root, dir.ino, COMPRESSION, |value| Ok(method(value)));
    match found {
        Err(e) if e == ENODATA => Ok(None),
        found => found,
    }
}

/// Stores the value that [`inherited`] found.
pub(in crate::subvol) fn insert(
    trans: &mut Transaction<'_>,
    id: InodeId,
    value: Option<&[u8]>,
) -> Result {
    match value {
        Some(value) => xattr::insert(trans, id, COMPRESSION, value),
        None => Ok(()),
    }
}

/// Sets the [`inode_flags`] that `chattr` changes, and the property with them: `COMPRESS` without
/// one means `method`, and without `COMPRESS` there is none. Returns the inode's item.
///
/// # Errors
///
/// `ENOENT`, `EROFS`, `ENOSPC`.
pub fn set_flags(
    fs: &Fs,
    id: InodeId,
    flags: u64,
    method: CompressionMethod,
    now: Timespec,
) -> Result<InodeItem> {
    fs.operate(reserve(3), |trans| {
        check_files(trans, id.tree)?;
        let mut item = read_inode(trans, id)?;
        let root = EditContext::root(trans, id.tree)?;
        let len = match subvol::xattr::get(trans, root, id.ino, COMPRESSION, |old| Ok(old.len())) {
            Err(e) if e == ENODATA => None,
            len => Some(len?),
        };
        match (flags & inode_flags::COMPRESS != 0, len) {
            (true, None) => {
                let value = method.name().as_bytes();
                xattr::check_item_size(trans, id, COMPRESSION, value, None)?;
                xattr::insert(trans, id, COMPRESSION, value)?;
                trans.set_incompat(method.incompat());
            }
            (false, Some(_)) => xattr::remove(trans, id, COMPRESSION)?,
            _ => {}
        }
        // The engine notes by itself that there is preallocated space.
        let prealloc = item.flags.get() & inode_flags::PREALLOC;
        item.flags = (flags & !inode_flags::PREALLOC | prealloc).into();
        item.ctime = now;
        write_inode(trans, id, &mut item)?;
        Ok(item)
    })
}
