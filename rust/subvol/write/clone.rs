// SPDX-License-Identifier: GPL-2.0
//! Reflinks: file ranges that share extents.

use super::data::{check_file, check_writable, insert_data, NewData, NewInline};
use super::extents::{drop_range, extent_key, fill_holes, insert_inline, insert_item, read_item};
use super::truncate::grow_to;
use super::{check_whole, read_inode, reserve, write_inode, InodeId};
use crate::format::file_extent::FileExtentItem;
use crate::format::inode::{inode_flags, InodeItem, Timespec};
use crate::format::{item_type, CompressionMethod};
use crate::space::ordered_extent::push_checksums;
use crate::subvol::data::{read_running, Checksums, Owner};
use crate::subvol::file_extent::{self, Kind};
use crate::subvol::inode;
use crate::subvol::scatter::Scatter;
use crate::trans::{Transaction, View};
use crate::tree::{Cursor, EditContext};
use crate::volume::Fs;
use kernel::prelude::*;

/// What is to be shared. All offsets are in bytes, multiples of the sector size.
#[derive(Clone, Copy, Debug)]
pub struct CloneRange {
    /// The file that has the data.
    pub src: InodeId,
    /// Where it is.
    pub src_offset: u64,
    /// How much; the end is rounded up by the caller where it is that of the file.
    pub len: u64,
    /// The file that gets the data.
    pub dst: InodeId,
    /// Where.
    pub dst_offset: u64,
    /// The size of the file that gets the data is at least this afterwards.
    pub dst_size: u64,
}

/// What the source has at a place.
enum Source {
    Nothing,
    Inline(OwnedInline),
    Extent(FileExtentItem),
}

/// Inline data, with memory of its own.
struct OwnedInline {
    data: KVec<u8>,
    size: u64,
    method: Option<CompressionMethod>,
}

impl OwnedInline {
    fn as_new(&self) -> NewInline<'_> {
        NewInline {
            data: &self.data,
            size: self.size,
            method: self.method,
        }
    }
}

/// Makes the range of one file share the extents of the other's; what was there is dropped. Data
/// that is not written back is not seen: the caller writes back the source, and waits for what is
/// under way to the destination. Each extent is an operation of its own.
///
/// Without a time for `now`, the file has the same contents afterwards: its times stay, and the
/// subvolume that it is in may be read-only.
///
/// # Errors
///
/// `EINVAL` for offsets that are not aligned, files of which only one has checksums, and
/// overlapping ranges of one file; `ENOENT`, `EROFS`, `ENOSPC`; what reading gives for inline data,
/// which is copied where it has no place.
pub fn clone_range(fs: &Fs, range: &CloneRange, now: Option<Timespec>) -> Result<InodeItem> {
    let sectorsize = fs.geometry.sectorsize;
    let CloneRange {
        src_offset,
        len,
        dst_offset,
        ..
    } = *range;
    if (src_offset | dst_offset | len) % sectorsize != 0 {
        return Err(EINVAL);
    }
    let src_end = src_offset.checked_add(len).ok_or(EINVAL)?;
    let dst_end = dst_offset.checked_add(len).ok_or(EFBIG)?;
    if i64::try_from(dst_end.max(range.dst_size)).is_err() {
        return Err(EFBIG);
    }
    if range.src == range.dst && src_offset < dst_end && dst_offset < src_end {
        return Err(EINVAL);
    }
    let mut at = src_offset;
    while at < src_end {
        at = match fs.operate(reserve(8), |trans| clone_step(trans, range, at, now))? {
            Step::Shared(end) => end,
            Step::NoPlace => copy_sector(fs, range, at)?,
        };
        crate::platform::yield_now();
    }
    fs.operate(reserve(4), |trans| {
        let mut item = read_target(trans, range.dst, now)?;
        // A size that no file can have stays an error.
        sectorsize.round_up(item.size.get()).ok_or(EUCLEAN)?;
        grow_to(trans, range.dst, &mut item, range.dst_size)?;
        set_times(&mut item, now);
        write_inode(trans, range.dst, &mut item)?;
        Ok(item)
    })
}

/// Reads the inode of the file that gets the data.
fn read_target(trans: &Transaction<'_>, id: InodeId, now: Option<Timespec>) -> Result<InodeItem> {
    if now.is_some() {
        return check_writable(trans, id);
    }
    check_whole(trans, id.tree)?;
    let item = read_inode(trans, id)?;
    check_file(&item)?;
    Ok(item)
}

fn set_times(item: &mut InodeItem, now: Option<Timespec>) {
    if let Some(now) = now {
        item.mtime = now;
        item.ctime = now;
    }
}

/// What came of sharing one extent.
enum Step {
    /// All up to this offset in the source is done.
    Shared(u64),
    /// The source has inline data, which has its place at the start of a file that has nothing
    /// else.
    NoPlace,
}

/// Copies the sector at `at` in the source. Returns where it goes on.
fn copy_sector(fs: &Fs, range: &CloneRange, at: u64) -> Result<u64> {
    let sectorsize = u64::from(fs.geometry.sectorsize);
    let mut data = KVec::zeroed(sectorsize as usize, GFP_KERNEL)?;
    let owner = Owner {
        tree: range.src.tree,
        ino: range.src.ino,
        checksums: Checksums::Always,
    };
    read_running(fs, &owner, at, &mut Scatter::one(&mut data)?)?;
    let offset = range
        .dst_offset
        .saturating_add(at.saturating_sub(range.src_offset));
    let mut reservation = fs.reserve_data(sectorsize)?;
    let extent = fs.alloc_data(Some(&mut reservation), sectorsize)?;
    extent.write(0, &data)?;
    let has_sums = {
        let view = fs.running_view(range.dst.tree)?;
        let item = inode::read(&view, view.tree_root(range.dst.tree)?, range.dst.ino)?;
        item.flags.get() & inode_flags::NODATASUM == 0
    };
    let mut sums = KVVec::new();
    if has_sums {
        push_checksums(&data, &fs.geometry, &mut sums)?;
    }
    let end = offset.saturating_add(sectorsize);
    let new = NewData {
        offset,
        extent,
        encoded: None,
        sums,
        size: end.min(range.dst_size),
    };
    insert_data(fs, range.dst, new)?;
    Ok(at.saturating_add(sectorsize))
}

/// Shares one extent, from `at` in the source on.
fn clone_step(
    trans: &mut Transaction<'_>,
    range: &CloneRange,
    at: u64,
    now: Option<Timespec>,
) -> Result<Step> {
    let sectorsize = trans.fs().geometry.sectorsize;
    let mut item = read_target(trans, range.dst, now)?;
    let src_item = read_inode(trans, range.src)?;
    check_file(&src_item)?;
    let sums = |item: &InodeItem| item.flags.get() & inode_flags::NODATASUM;
    if sums(&src_item) != sums(&item) {
        return Err(EINVAL);
    }
    let src_end = range.src_offset.saturating_add(range.len);
    let (start, end, source) = find_source(trans, range.src, at, src_end)?;
    let (start, stop) = (start.max(at), end.min(src_end));
    let to = range
        .dst_offset
        .saturating_add(start.saturating_sub(range.src_offset));
    let len = stop.saturating_sub(start);
    let to_end = to.saturating_add(len);
    match &source {
        Source::Inline(inline) => {
            let fits = to == 0 && item.size.get() <= inline.size;
            if !fits || range.dst_size > u64::from(sectorsize) {
                return Ok(Step::NoPlace);
            }
        }
        Source::Nothing | Source::Extent(_) => {}
    }

    let freed = drop_range(trans, range.dst, to, to_end)?;
    let mut added = 0u64;
    match source {
        Source::Nothing => {
            let eof = item.size.get().max(range.dst_size);
            let eof = sectorsize.round_up(eof).unwrap_or(u64::MAX);
            fill_holes(trans, range.dst, to, to_end.min(eof))?;
        }
        Source::Inline(inline) => {
            insert_inline(trans, range.dst, inline.as_new())?;
            added = inline.size;
            item.size = item.size.get().max(added.min(range.dst_size)).into();
        }
        Source::Extent(mut extent) => {
            let skip = start.saturating_sub(find_offset(end, &extent));
            extent.offset = extent.offset.get().checked_add(skip).ok_or(EUCLEAN)?.into();
            extent.num_bytes = len.into();
            extent.head.generation = trans.transid().into();
            let old_end = sectorsize.round_up(item.size.get()).unwrap_or(u64::MAX);
            fill_holes(trans, range.dst, old_end, to)?;
            insert_item(trans, range.dst, to, &extent)?;
            added = len;
            item.size = item.size.get().max(to_end.min(range.dst_size)).into();
        }
    }
    let nbytes = item.nbytes.get().saturating_add(added);
    item.nbytes = nbytes.saturating_sub(freed).into();
    set_times(&mut item, now);
    write_inode(trans, range.dst, &mut item)?;
    Ok(Step::Shared(stop))
}

/// Where an item starts that ends at `end`.
fn find_offset(end: u64, item: &FileExtentItem) -> u64 {
    end.saturating_sub(item.num_bytes.get())
}

/// What the source has at `at`: start and end of the part, and what it is.
fn find_source(
    trans: &Transaction<'_>,
    id: InodeId,
    at: u64,
    to: u64,
) -> Result<(u64, u64, Source)> {
    let sectorsize = trans.fs().geometry.sectorsize;
    let root = EditContext::root(trans, id.tree)?;
    let mut found = (at, to, Source::Nothing);
    file_extent::for_each(trans, root, id.ino, sectorsize, (at, to), &mut |extent| {
        let end = sectorsize.round_up(extent.end()).ok_or(EUCLEAN)?;
        let source = match extent.kind {
            Kind::Hole => Source::Nothing,
            Kind::Inline(inline) => {
                let mut data = KVec::new();
                data.extend_from_slice(inline.data, GFP_KERNEL)?;
                Source::Inline(OwnedInline {
                    data,
                    size: inline.ram_bytes,
                    method: CompressionMethod::of_extent(inline.compression),
                })
            }
            Kind::Prealloc(_) | Kind::Regular(_) => {
                Source::Extent(item_at(trans, id, extent.offset)?)
            }
        };
        found = (extent.offset, end, source);
        Ok(false)
    })?;
    Ok(found)
}

fn item_at(trans: &Transaction<'_>, id: InodeId, offset: u64) -> Result<FileExtentItem> {
    let mut cursor = Cursor::new(trans, EditContext::root(trans, id.tree)?);
    cursor.seek(&extent_key(id.ino, offset))?;
    match cursor.item() {
        Some((key, data)) if key.is(id.ino, item_type::EXTENT_DATA) => read_item(data),
        _ => Err(EUCLEAN),
    }
}
