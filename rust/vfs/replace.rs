// SPDX-License-Identifier: GPL-2.0
//! Files whose contents are replaced in place: truncated to 0, and written anew.
//!
//! The truncation is part of the running transaction at once; the new data waits in the page cache.
//! A commit in between would leave an empty file after a power cut, where programs expect the old
//! contents or the new. So the data is written back when the file is closed, as in the C driver
//! (`BTRFS_INODE_FLUSH_ON_CLOSE`), and, as the file may still be open or mapped, before a commit
//! that somebody asks for or that is due. A file that takes another's place by `rename` is looked
//! after in the same way. What was not written when the commit came is not in it: a program that
//! truncates, and writes a second later, can find the file empty. Commits that the engine makes in
//! the midst of an operation, for want of memory or space, do without writing back.

use super::attributes::id;
use super::iget;
use super::inode::Inode;
use super::super_block::SuperBlock;
use crate::bindings;
use kernel::prelude::*;
use kernel::sync::atomic::{Full, Relaxed};
use kernel::sync::{new_mutex, Mutex};

// The states of `InodeInfo::replacing`.
/// Nothing is replaced.
const NONE: u32 = 0;
/// The file was truncated to 0, and nothing was written since.
const EMPTIED: u32 = 1;
/// It is in the list of [`Replaced`].
const LISTED: u32 = 2;

/// The inodes of a volume that are to be written back before the next commit: tree and inode
/// number. The mutex is a leaf.
#[pin_data]
pub(super) struct Replaced {
    #[pin]
    inodes: Mutex<KVVec<(u64, u64)>>,
}

impl Replaced {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                inodes <- new_mutex!(KVVec::new(), "Replaced::inodes"),
            }),
            GFP_KERNEL,
        )
    }

    fn push(&self, inode: &Inode) -> Result {
        let id = id(inode);
        let _nofs = crate::platform::NofsScope::enter();
        Ok(self.inodes.lock().push((id.tree, id.ino), GFP_KERNEL)?)
    }

    fn take(&self) -> KVVec<(u64, u64)> {
        core::mem::replace(&mut *self.inodes.lock(), KVVec::new())
    }
}

/// Notes that a file that had contents was truncated to 0. Its size in memory is 0 already.
pub(super) fn emptied(inode: &Inode) {
    // What is in the list stays there.
    let _ = inode.info().replacing.cmpxchg(NONE, EMPTIED, Full);
}

fn list(inode: &Inode, from: u32) -> Result {
    let state = &inode.info().replacing;
    if state.cmpxchg(from, LISTED, Full).is_err() {
        return Ok(());
    }
    let pushed = inode.super_block().volume().replaced().push(inode);
    if pushed.is_err() {
        state.store(from, Relaxed);
    }
    pushed
}

/// Notes that blocks of a file are about to become dirty.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn about_to_be_written(inode: &Inode) -> Result {
    if inode.info().replacing.load(Relaxed) != EMPTIED {
        return Ok(());
    }
    list(inode, EMPTIED)
}

/// Begins to write a file back that is about to take the place of another one, and has the next
/// commit wait for it.
pub(super) fn takes_place(inode: &Inode) {
    // Without memory the rest is as it is in the C driver.
    let _ = list(inode, NONE);
    start_write_back(inode);
}

/// Begins to write back what a file that is being replaced has in memory, because it is closed.
pub(super) fn closed(inode: &Inode) {
    if inode.info().replacing.load(Relaxed) != NONE {
        start_write_back(inode);
    }
}

fn start_write_back(inode: &Inode) {
    // SAFETY: The inode is valid. What fails is told to those who sync the file.
    unsafe { bindings::filemap_flush((*inode.as_ptr()).i_mapping) };
}

/// Writes a file back and waits for it.
fn write_back(inode: &Inode) {
    // SAFETY: The inode is valid. Errors are left for those who sync the file.
    unsafe {
        bindings::filemap_fdatawrite((*inode.as_ptr()).i_mapping);
        bindings::filemap_fdatawait_keep_errors((*inode.as_ptr()).i_mapping);
    }
}

/// Writes back the files of a volume that are being replaced, and waits for them.
pub(super) fn write_back_replaced(sb: &SuperBlock) {
    for (tree, ino) in sb.volume().replaced().take() {
        let Some(inode) = iget::find(sb, tree, ino) else {
            // It left memory, which it does not with dirty data.
            continue;
        };
        let state = &inode.info().replacing;
        // Before the data: what is truncated from here on is noted anew.
        state.xchg(NONE, Full);
        let is_empty = inode.size() == 0;
        write_back(&inode);
        if is_empty {
            // It is still without contents: what is written next is to be closed and committed
            // as before.
            emptied(&inode);
        }
    }
}
