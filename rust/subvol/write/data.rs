// SPDX-License-Identifier: GPL-2.0
//! Putting written data into files.

use super::extents::{
    drop_range, fill_holes, insert_inline as insert_inline_item, insert_item, whole,
};
use super::in_place::Conversion;
use super::{check_files, check_whole, mode, read_inode, write_inode, InodeId, FREEING};
use crate::format::file_extent::TYPE_REG;
use crate::format::inode::{inode_flags, InodeItem};
use crate::tree::EditContext;
use crate::volume::csum_tree::{self, CSUM_SIZE};
use crate::volume::{DataExtent, Fs};
use kernel::prelude::*;

/// The most bytes that a file stores inline.
pub const MAX_INLINE: usize = 2048;

/// Data that is on the device and goes into a file.
pub struct NewData<'a> {
    /// Where in the file, in bytes; a multiple of the sector size.
    pub offset: u64,
    /// The extent, all of which was written.
    pub extent: DataExtent,
    /// The checksum of each sector ([`crate::volume::in_flight::push_checksums`]); empty for files without.
    pub sums: &'a [u8],
    /// The size of the file is at least this afterwards, in bytes.
    pub size: u64,
}

/// All of a small file's data.
#[derive(Clone, Copy)]
pub struct NewInline<'a> {
    /// The bytes; as many as the file's size.
    pub data: &'a [u8],
}

/// Puts written data into a file, in the place of what was there. Needs no room but what the data was promised.
///
/// # Errors
///
/// `EINVAL` for offsets and checksums that do not fit the extent or the file, `ENOENT`, `EROFS`; `EAGAIN` if the space of
/// [`super::preallocated`] is not the file's any more. The extent is given back then.
pub fn insert_data(fs: &Fs, id: InodeId, mut new: NewData<'_>) -> Result<InodeItem> {
    let sectorsize = u64::from(fs.geometry.sectorsize);
    let (start, len) = (new.extent.start(), new.extent.len());
    let end = new.offset.checked_add(len).ok_or(EFBIG)?;
    if len == 0 || new.offset % sectorsize != 0 {
        return Err(EINVAL);
    }
    let sums = (len / sectorsize).saturating_mul(CSUM_SIZE as u64);
    let extent = &mut new.extent;
    fs.operate(FREEING, |trans| {
        let mut item = read_inode(trans, id)?;
        check_file(&item)?;
        let wanted = if item.flags.get() & inode_flags::NODATASUM == 0 {
            sums
        } else {
            0
        };
        if new.sums.len() as u64 != wanted {
            return Err(EINVAL);
        }
        // That the subvolume is not read-only was checked when the data was accepted.
        check_whole(trans, id.tree)?;

        let old_end = item.size.get().next_multiple_of(sectorsize);
        if extent.is_in_place() {
            let conversion = Conversion::check(trans, id, new.offset, start, len)?;
            trans.land(extent)?;
            conversion.run(trans, id)?;
        } else {
            trans.land(extent)?;
            let freed = drop_range(trans, id, new.offset, end)?;
            let data = whole(trans.transid(), TYPE_REG, start, len);
            insert_item(trans, id, new.offset, &data)?;
            let nbytes = item.nbytes.get().saturating_add(len);
            item.nbytes = nbytes.saturating_sub(freed).into();
        }
        fill_holes(trans, id, old_end, new.offset)?;
        csum_tree::insert_csums(trans, start, new.sums)?;
        item.size = item.size.get().max(new.size).into();
        write_inode(trans, id, &mut item)?;
        Ok(item)
    })
}

/// Makes `new` all that a file has, within its item. Needs no room but what the data was promised.
///
/// # Errors
///
/// `EINVAL` for data that is empty, too long, or shorter than the file; `ENOENT`, `EROFS`.
pub fn insert_inline(fs: &Fs, id: InodeId, new: NewInline<'_>) -> Result<InodeItem> {
    let sectorsize = u64::from(fs.geometry.sectorsize);
    let len = new.data.len();
    if len == 0 || len > MAX_INLINE || len as u64 >= sectorsize {
        return Err(EINVAL);
    }
    fs.operate(FREEING, |trans| {
        let mut item = read_inode(trans, id)?;
        check_file(&item)?;
        if item.size.get() > len as u64 {
            return Err(EINVAL);
        }
        check_whole(trans, id.tree)?;
        let freed = drop_range(trans, id, 0, sectorsize)?;
        insert_inline_item(trans, id, new.data)?;
        let nbytes = item.nbytes.get().saturating_add(len as u64);
        item.nbytes = nbytes.saturating_sub(freed).into();
        item.size = (len as u64).into();
        write_inode(trans, id, &mut item)?;
        Ok(item)
    })
}

/// Whether an inode has data.
pub(super) fn check_file(item: &InodeItem) -> Result {
    if item.mode.get() & mode::FMT != mode::REG {
        return Err(EINVAL);
    }
    Ok(())
}

/// Whether a file can be changed.
pub(super) fn check_writable(
    trans: &crate::volume::Transaction<'_>,
    id: InodeId,
) -> Result<InodeItem> {
    check_files(trans, id.tree)?;
    let item = read_inode(trans, id)?;
    check_file(&item)?;
    Ok(item)
}
