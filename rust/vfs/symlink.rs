// SPDX-License-Identifier: GPL-2.0
//! Symbolic links.

use super::inode::{self, Inode};
use super::table::Table;
use crate::bindings;
use crate::subvol::data::{self, Checksums, Owner};
use crate::subvol::scatter::Scatter;
use kernel::prelude::*;

/// The longest target that the VFS follows, with its terminator.
const PATH_MAX: usize = 4096;

/// The target with a terminator after it, in memory that `kfree` frees.
fn target(inode: &Inode) -> Result<KVec<u8>> {
    let size = usize::try_from(inode.size()).map_err(|_| EUCLEAN)?;
    if size == 0 || size >= PATH_MAX {
        return Err(EUCLEAN);
    }
    let mut link = KVec::zeroed(size + 1, GFP_KERNEL)?;
    let owner = Owner {
        tree: inode.info().tree,
        ino: inode.info().ino,
        checksums: Checksums::Always,
    };
    let mut sectors: KVec<u8> = KVec::zeroed(PATH_MAX, GFP_KERNEL)?;
    data::read_running(inode.fs(), &owner, 0, &mut Scatter::one(&mut sectors)?)?;
    let text = link.get_mut(..size).ok_or(EUCLEAN)?;
    text.copy_from_slice(sectors.get(..size).ok_or(EUCLEAN)?);
    if text.contains(&0) {
        return Err(EUCLEAN);
    }
    Ok(link)
}

/// `inode_operations::get_link`.
///
/// # Safety
///
/// As the VFS calls it, for a symbolic link of ours.
unsafe extern "C" fn get_link(
    dentry: *mut bindings::dentry,
    inode: *mut bindings::inode,
    done: *mut bindings::delayed_call,
) -> *const kernel::ffi::c_char {
    // A walk under RCU cannot wait for the disk.
    if dentry.is_null() {
        return ECHILD.to_ptr::<kernel::ffi::c_char>();
    }
    // SAFETY: The VFS passes an inode that it holds.
    match target(unsafe { Inode::from_raw(inode) }) {
        Ok(link) => {
            let (text, _, _) = link.into_raw_parts();
            // SAFETY: The memory came from kmalloc, and the VFS makes the delayed call once.
            unsafe { bindings::rbtrfs_set_kfree_link(done, text.cast()) };
            text.cast()
        }
        Err(e) => e.to_ptr::<kernel::ffi::c_char>(),
    }
}

pub(super) static INODE_OPERATIONS: Table<bindings::inode_operations> =
    Table::new(bindings::inode_operations {
        get_link: Some(get_link),
        ..inode::COMMON
    });
