// SPDX-License-Identifier: GPL-2.0
//! `FIEMAP`: the map of a file's extents.

use super::inode::Inode;
use crate::bindings;
use crate::platform;
use crate::space::extent_set::Extent;
use crate::subvol::fiemap::{self, Content, Mapped};
use kernel::error::{from_result, to_result};
use kernel::prelude::*;

fn flags_of(extent: &Mapped) -> u32 {
    let shared = if extent.shared {
        bindings::FIEMAP_EXTENT_SHARED
    } else {
        0
    };
    let inline = bindings::FIEMAP_EXTENT_DATA_INLINE | bindings::FIEMAP_EXTENT_NOT_ALIGNED;
    shared
        | match extent.content {
            Content::Inline => inline,
            Content::CompressedInline => inline | bindings::FIEMAP_EXTENT_ENCODED,
            Content::Data => 0,
            Content::Compressed => bindings::FIEMAP_EXTENT_ENCODED,
            Content::Preallocated => bindings::FIEMAP_EXTENT_UNWRITTEN,
            Content::InMemory => bindings::FIEMAP_EXTENT_DELALLOC | bindings::FIEMAP_EXTENT_UNKNOWN,
        }
}

/// Whoever is told of the extents. No lock of the engine may be held meanwhile, for it touches the
/// caller's memory.
struct Caller {
    info: *mut bindings::fiemap_extent_info,
    /// The last extent of the file is flagged, so each is told when it is known whether another
    /// follows.
    pending: Option<Mapped>,
}

impl Caller {
    /// Takes the next extent. Returns whether the caller wants no more.
    fn take(&mut self, next: Mapped) -> Result<bool> {
        let told = self.pending.as_ref().map_or(0, Mapped::end);
        // The file may have changed since the part before was looked up.
        let Some(next) = next.from(told) else {
            return Ok(false);
        };
        if self
            .pending
            .as_mut()
            .is_some_and(|pending| pending.merge(&next))
        {
            return Ok(false);
        }
        let before = self.pending.replace(next);
        before.map_or(Ok(false), |before| self.tell(&before, 0))
    }

    /// Tells of the extent that is left.
    fn finish(&mut self, flags: u32) -> Result {
        if let Some(last) = self.pending.take() {
            self.tell(&last, flags)?;
        }
        Ok(())
    }

    fn tell(&self, extent: &Mapped, flags: u32) -> Result<bool> {
        // SAFETY: `fiemap` passes the VFS's structure.
        let status = unsafe {
            bindings::fiemap_fill_next_extent(
                self.info.cast(),
                extent.logical,
                extent.physical,
                extent.len,
                flags_of(extent) | flags,
            )
        };
        if status < 0 {
            to_result(status)?;
        }
        Ok(status == 1)
    }
}

/// The ranges from `from` on that are in memory alone, and up to where these are all. What was on
/// its way to the device when they were looked up is in the tree now.
fn dirty_from(inode: &Inode, from: u64) -> Result<(KVec<Extent>, u64)> {
    let Some(reserved) = inode.reserved() else {
        return Ok((KVec::new(), u64::MAX));
    };
    let (ranges, until) = reserved.ranges(from)?;
    let first = i64::try_from(from).unwrap_or(i64::MAX);
    let last = i64::try_from(until).unwrap_or(i64::MAX);
    // SAFETY: The inode is valid. Errors are left for those who sync the file.
    unsafe {
        bindings::filemap_fdatawait_range_keep_errors((*inode.as_ptr()).i_mapping, first, last);
    }
    Ok((ranges, until))
}

fn fiemap_of(
    inode: &Inode,
    info: *mut bindings::fiemap_extent_info,
    start: u64,
    len: &mut u64,
) -> Result<i32> {
    // Writes dirty data back if the caller asks for that.
    // SAFETY: The VFS passes an inode that it holds, and its own structure.
    to_result(unsafe { bindings::fiemap_prep(inode.as_ptr(), info.cast(), start, len, 0) })?;
    // SAFETY: As above.
    let only_counted = unsafe { (*info).fi_extents_max } == 0;
    let end = start.saturating_add(*len);
    let place = (inode.info().tree, inode.info().ino);
    let mut caller = Caller {
        info,
        pending: None,
    };
    let mut from = Some(start);
    while let Some(at) = from {
        let (dirty, until) = dirty_from(inode, at)?;
        let part = fiemap::part(inode.fs(), place, (at, until), &dirty, !only_counted)?;
        for extent in part.extents {
            if extent.logical >= end {
                caller.finish(0)?;
                return Ok(0);
            }
            if caller.take(extent)? {
                return Ok(0);
            }
        }
        from = part.next;
        platform::yield_now();
        if platform::fatal_signal_pending() {
            return Err(EINTR);
        }
    }
    caller.finish(bindings::FIEMAP_EXTENT_LAST)?;
    Ok(0)
}

/// `inode_operations::fiemap`.
///
/// # Safety
///
/// As the VFS calls it, for a regular file of ours.
pub(super) unsafe extern "C" fn fiemap(
    inode: *mut bindings::inode,
    info: *mut kernel::bindings::fiemap_extent_info,
    start: u64,
    mut len: u64,
) -> kernel::ffi::c_int {
    // SAFETY: The VFS passes an inode that it holds.
    let inode = unsafe { Inode::from_raw(inode) };
    // The kernel crate knows the other type by name alone.
    from_result(|| fiemap_of(inode, info.cast(), start, &mut len))
}
