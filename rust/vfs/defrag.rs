// SPDX-License-Identifier: GPL-2.0
//! Defragmenting: data is read into the page cache and becomes dirty there, so that writeback gives
//! it a new place, all of it together.

use super::attributes::id;
use super::inode::{Inode, S_IFDIR, S_IFMT, S_IFREG};
use super::ioctl::{capable_sys_admin, OpenFile};
use super::lock::InodeGuard;
use super::setsize::flush;
use super::write::{dirty_again, BLOCK};
use crate::bindings;
use crate::platform::{signal_pending, NofsScope};
use crate::subvol::defrag::{targets, Defrag, Recompress};
use kernel::error::to_result;
use kernel::prelude::*;

/// How much is looked at with the file locked, in bytes.
const CLUSTER: u64 = 256 << 10;

/// What of a file is defragmented, and how.
pub(crate) struct DefragArgs {
    /// From where on, in bytes.
    pub(crate) start: u64,
    /// How much, in bytes; all that follows if that is more than can be counted.
    pub(crate) len: u64,
    /// What is to be written anew.
    pub(crate) defrag: Defrag,
    /// What becomes of its compression.
    pub(crate) recompress: Recompress,
    /// The data is written at once.
    pub(crate) starts_io: bool,
}

impl OpenFile<'_> {
    /// Whether the caller may have the file defragmented, for which it need not be open for
    /// writing.
    ///
    /// # Errors
    ///
    /// `EROFS` in a subvolume that is read-only, `EPERM`, `EINVAL` for what has no data.
    pub(crate) fn may_defragment(&self) -> Result {
        let inode = self.inode();
        inode.subvolume().check_writable()?;
        match inode.mode() & S_IFMT {
            S_IFDIR if capable_sys_admin() => Ok(()),
            S_IFREG if capable_sys_admin() => Ok(()),
            S_IFREG => {
                // SAFETY: The file is open, and so is its mount.
                to_result(unsafe {
                    let idmap = bindings::rbtrfs_file_idmap(self.file());
                    bindings::inode_permission(idmap, inode.as_ptr(), bindings::MAY_WRITE as i32)
                })
                .map_err(|_| EPERM)
            }
            S_IFDIR => Err(EPERM),
            _ => Err(EINVAL),
        }
    }

    /// Defragments a regular file.
    ///
    /// # Errors
    ///
    /// `EINVAL` beyond the end of the file; `EAGAIN` once a signal is pending; `ENOSPC`, those of
    /// reading and, for data that is written at once, of writing.
    pub(crate) fn defragment(&self, args: &DefragArgs) -> Result {
        let inode = self.inode();
        let size = inode.size();
        if size == 0 {
            return Ok(());
        }
        if args.start >= size {
            return Err(EINVAL);
        }
        let end = args.start.checked_add(args.len);
        let end = end.filter(|end| *end > args.start).unwrap_or(size);
        let end = end.min(size).checked_next_multiple_of(BLOCK).ok_or(EFBIG)?;
        let first = args.start - args.start % BLOCK;
        let done = run(inode, (first, end), args);
        let written = match done {
            Ok(true) if args.starts_io => flush(inode, first, end),
            _ => Ok(()),
        };
        if args.recompress != Recompress::AsWritten {
            inode.set_recompress(Recompress::AsWritten);
        }
        done.and(written)
    }
}

/// Makes what is to be written anew dirty. Returns whether there was anything.
fn run(inode: &Inode, (mut at, end): (u64, u64), args: &DefragArgs) -> Result<bool> {
    let mut any = false;
    while at < end {
        if signal_pending() {
            return Err(EAGAIN);
        }
        inode.fs().check_shut_down()?;
        let until = at.saturating_add(CLUSTER).min(end);
        let guard = InodeGuard::lock(inode);
        if args.recompress != Recompress::AsWritten {
            inode.set_recompress(args.recompress);
        }
        let found = {
            let _nofs = NofsScope::enter();
            targets(inode.fs(), id(inode), (at, until), &args.defrag)?
        };
        for target in found.iter() {
            // What is dirty already will be written anew all the same.
            let is_dirty = inode
                .reserved()
                .is_some_and(|reserved| reserved.has(target.start, target.end()));
            if !is_dirty || args.defrag.all {
                dirty_again(guard.exclusive(), target.start, target.end())?;
            }
            any = true;
        }
        at = until;
    }
    Ok(any)
}
