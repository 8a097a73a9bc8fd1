// SPDX-License-Identifier: GPL-2.0
//! Reading and writing data of files as it is stored, beside the page cache.

use super::attributes::id;
use super::fallocate::modified;
use super::fsync;
use super::inode::{S_IFMT, S_IFREG};
use super::ioctl::OpenFile;
use super::lock::{InodeGuard, InvalidateGuard};
use super::setsize::{drop_cached, flush, settle_end, take_over_extents};
use super::write::{zero_tail, BLOCK};
use crate::bindings;
use crate::format::file_extent::MAX_COMPRESSED;
use crate::platform::NofsScope;
use crate::subvol::data::Owner;
use crate::subvol::encoded::{read_encoded, write_encoded, EncodedRead, NewEncoded};
use kernel::error::to_result;
use kernel::prelude::*;

/// `FMODE_WRITE`, a macro that bindgen does not understand.
const FMODE_WRITE: u32 = 1 << 1;

impl OpenFile<'_> {
    /// Whether the file was opened to be written to.
    pub(crate) fn is_open_for_writing(&self) -> bool {
        // SAFETY: The file is open, and its mode does not change.
        unsafe { (*self.file()).f_mode & FMODE_WRITE != 0 }
    }

    /// Reads what the file has at `offset`: see [`read_encoded`].
    ///
    /// # Errors
    ///
    /// `EINVAL` for what is not a regular file; those of writing back what is dirty, and of
    /// [`read_encoded`].
    pub(crate) fn read_encoded(&self, offset: u64, most: u64) -> Result<Option<EncodedRead>> {
        let inode = self.inode();
        if inode.mode() & S_IFMT != S_IFREG {
            return Err(EINVAL);
        }
        let start = offset - offset % BLOCK;
        flush(inode, start, start.saturating_add(MAX_COMPRESSED))?;
        // The writer's mutex may be held.
        let _nofs = NofsScope::enter();
        let info = inode.info();
        let owner = Owner::new(inode.fs(), info.tree, info.ino, info.flags());
        read_encoded(inode.fs(), &owner, inode.size(), offset, most)
    }

    /// Writes data that is compressed already. What the page cache has there is dropped.
    ///
    /// # Errors
    ///
    /// `EINVAL` for what is not a regular file; `EFBIG`, `EROFS`, and those of [`write_encoded`].
    pub(crate) fn write_encoded(&self, new: &NewEncoded, bytes: &[u8]) -> Result {
        let inode = self.inode();
        if inode.mode() & S_IFMT != S_IFREG {
            return Err(EINVAL);
        }
        inode.fs().check_shut_down()?;
        {
            let guard = InodeGuard::lock(inode);
            let inode = guard.exclusive();
            let (size, end) = (inode.size(), new.end()?);
            new.check_place(inode.fs(), size)?;
            // Keeps the subvolume from being made read-only.
            let _dirtying = inode.subvolume().writers().begin()?;
            if end > size {
                let end = i64::try_from(end).map_err(|_| EFBIG)?;
                // SAFETY: The inode is valid, and locked.
                to_result(unsafe { bindings::inode_newsize_ok(inode.as_ptr(), end) })?;
            }
            // SAFETY: The file is open, and its inode locked.
            unsafe { modified(self.file()) }?;
            if new.offset > size {
                zero_tail(inode)?;
                flush(&inode, 0, i64::MAX as u64)?;
            } else {
                settle_end(inode, size)?;
            }
            let _invalidate = InvalidateGuard::lock(inode);
            drop_cached(inode, new.offset, end.next_multiple_of(BLOCK))?;
            let item = write_encoded(inode.fs(), id(&inode), new, bytes, size)?;
            take_over_extents(&inode, &item);
            if end > size {
                // SAFETY: The inode is valid, and locked.
                unsafe { bindings::rbtrfs_inode_set_size(inode.as_ptr(), end as i64) };
            }
        }
        // SAFETY: The file is open.
        unsafe {
            if bindings::rbtrfs_file_is_sync(self.file()) {
                fsync::sync(self.file())?;
            }
        }
        Ok(())
    }
}
