// SPDX-License-Identifier: GPL-2.0
//! Attributes of inodes.

use super::{check_files, read_inode, reserve, write_inode, InodeId};
use crate::format::inode::InodeItem;
use crate::volume::Fs;
use kernel::prelude::*;

/// Lets `change` change an inode's item: owner, mode, times, flags. Size, number of names and bytes
/// in use are kept by the operations that they belong to, and are as they were afterwards.
///
/// # Errors
///
/// `ENOENT`, `EROFS`, `ENOSPC`, those of `change`.
pub fn update_inode(
    fs: &Fs,
    id: InodeId,
    change: impl FnOnce(&mut InodeItem) -> Result,
) -> Result<InodeItem> {
    fs.operate(reserve(1), |trans| {
        check_files(trans, id.tree)?;
        let old = read_inode(trans, id)?;
        let mut item = old;
        change(&mut item)?;
        item.size = old.size;
        item.nlink = old.nlink;
        item.nbytes = old.nbytes;
        item.generation = old.generation;
        write_inode(trans, id, &mut item)?;
        Ok(item)
    })
}
