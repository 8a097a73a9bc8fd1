// SPDX-License-Identifier: GPL-2.0
//! Inodes, and the names that they have.

use super::fault::{at_least, at_most, equal, fault, only_bits, within, Checked, Expected};
use super::item::Item;
use crate::format::dir::NAME_LEN;
use crate::format::inode::{inode_flags, InodeExtref, InodeItem, InodeRef};
use crate::format::{objectid, tree_id};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The file type within a mode.
const S_IFMT: u32 = 0o170_000;
/// That of a directory.
const S_IFDIR: u32 = 0o040_000;
/// FIFO, character device, directory, block device, regular file, symbolic link, socket.
const FILE_TYPES: [u32; 7] = [
    0o010_000, 0o020_000, S_IFDIR, 0o060_000, 0o100_000, 0o120_000, 0o140_000,
];
/// All bits that a mode can have: type, set-user-ID, set-group-ID, sticky, and permissions.
const MODE_MASK: u32 = S_IFMT | 0o7777;
/// The half of the flags that a reader must know; the other half, a writer must know.
const INCOMPAT_FLAGS: u64 = 0xffff_ffff;

/// An inode number: of a file, of the directory in the tree of roots, or of a free inode number
/// cache.
pub(super) fn check_number(what: &'static str, number: u64) -> Checked {
    if matches!(number, tree_id::ROOT_TREE_DIR | objectid::FREE_INO) {
        return Ok(());
    }
    within(what, number, objectid::FIRST_FREE, objectid::LAST_FREE)
}

/// `INODE_ITEM`.
pub(super) fn check_inode(item: &Item<'_>) -> Checked {
    check_number("invalid inode number", item.key.objectid)?;
    equal("invalid inode key offset", item.key.offset, 0)?;
    item.size_is(size_of::<InodeItem>())?;
    let Some(inode) = item.part::<InodeItem>(0) else {
        return Ok(());
    };
    let newest = item.limits.newest;
    at_most("invalid inode generation", inode.generation.get(), newest)?;
    at_most("invalid inode transid", inode.transid.get(), newest)?;
    let mode = inode.mode.get();
    only_bits("unknown mode bits", mode.into(), MODE_MASK.into())?;
    if !FILE_TYPES.contains(&(mode & S_IFMT)) {
        let types = Expected::Words("the mode of one of seven file types");
        return fault("invalid file type in mode", mode.into(), types);
    }
    if mode & S_IFMT == S_IFDIR {
        at_most("invalid nlink of a directory", inode.nlink.get().into(), 1)?;
    }
    check_flags(inode.flags.get(), item.limits.writable)
}

fn check_flags(flags: u64, writable: bool) -> Checked {
    let known = inode_flags::KNOWN;
    let what = "unknown incompat inode flags";
    only_bits(what, flags & INCOMPAT_FLAGS, known & INCOMPAT_FLAGS)?;
    if writable {
        let what = "unknown ro-compat inode flags on a writable mount";
        only_bits(what, flags & !INCOMPAT_FLAGS, known & !INCOMPAT_FLAGS)?;
    }
    Ok(())
}

/// The head of a name in an inode's references.
trait NameHead: FromBytes + KnownLayout + Immutable + Unaligned {
    /// The directory, if the head has it.
    fn parent(&self) -> Option<u64>;
    /// The length of the name that follows, in bytes.
    fn name_len(&self) -> u16;
}

impl NameHead for InodeRef {
    fn parent(&self) -> Option<u64> {
        None
    }

    fn name_len(&self) -> u16 {
        self.name_len.get()
    }
}

impl NameHead for InodeExtref {
    fn parent(&self) -> Option<u64> {
        Some(self.parent_objectid.get())
    }

    fn name_len(&self) -> u16 {
        self.name_len.get()
    }
}

/// The directory that a name is in.
fn check_parent(item: &Item<'_>, parent: u64) -> Checked {
    if item.is_in_subvolume() {
        let what = "invalid parent of an inode reference";
        within(what, parent, objectid::FIRST_FREE, objectid::LAST_FREE)?;
    }
    Ok(())
}

/// The names in the item.
fn check_names<T: NameHead>(item: &Item<'_>) -> Checked {
    let mut at = 0usize;
    while at < item.bytes.len() {
        let mut end = at.saturating_add(size_of::<T>());
        if let Some(head) = item.part::<T>(at) {
            if let Some(parent) = head.parent() {
                check_parent(item, parent)?;
            }
            let name_len = head.name_len();
            let what = "invalid name length of an inode reference";
            within(what, name_len.into(), 1, NAME_LEN as u64)?;
            end = end.saturating_add(name_len.into());
        }
        at_least("inode reference beyond its item", item.size(), end as u64)?;
        at = end;
    }
    Ok(())
}

/// `INODE_REF`.
pub(super) fn check_ref(item: &Item<'_>) -> Checked {
    item.follows_its_inode()?;
    // An item without a name is none.
    let least = size_of::<InodeRef>().saturating_add(1) as u64;
    let what = "invalid item size of an inode reference";
    at_least(what, item.size(), least)?;
    check_parent(item, item.key.offset)?;
    check_names::<InodeRef>(item)
}

/// `INODE_EXTREF`.
pub(super) fn check_extref(item: &Item<'_>) -> Checked {
    item.follows_its_inode()?;
    check_names::<InodeExtref>(item)
}
