// SPDX-License-Identifier: GPL-2.0
//! Data of files as it is stored: what `ENCODED_READ` and `ENCODED_WRITE` pass.

use super::data::{self, Owner};
use super::file_extent::{self, Kind};
use super::scatter::Scatter;
use super::write::{insert_data, insert_inline, Encoded, InodeId, NewData, NewInline, MAX_INLINE};
use crate::format::file_extent::MAX_COMPRESSED;
use crate::format::inode::InodeItem;
use crate::format::CompressionMethod;
use crate::space::ordered_extent::push_checksums;
use crate::trans::View;
use crate::volume::Fs;
use kernel::prelude::*;

/// What was read. All but the bytes are as in `struct btrfs_ioctl_encoded_io_args`.
#[derive(Debug)]
pub struct EncodedRead {
    /// How much of the file this is, in bytes.
    pub len: u64,
    /// The size of the bytes once they are decompressed.
    pub unencoded_len: u64,
    /// Where in that the part of the file starts.
    pub unencoded_offset: u64,
    /// How they are compressed.
    pub method: Option<CompressionMethod>,
    /// The bytes as they are stored.
    pub bytes: KVVec<u8>,
    /// How many zeros follow those: of a hole, which has no bytes.
    pub zeros: u64,
}

/// Reads what a file of `size` bytes has at `offset`, as it is stored, up to the end of its extent:
/// `most` bytes at most. Nothing after the end of the file. The caller has written back what is
/// dirty. Takes the writer's mutex if the subvolume was changed since the last commit.
///
/// # Errors
///
/// `ENOBUFS` if that is compressed and longer than `most`; `EIO`, `EUCLEAN`, `ENOMEM`.
pub fn read_encoded(
    fs: &Fs,
    owner: &Owner,
    size: u64,
    offset: u64,
    most: u64,
) -> Result<Option<EncodedRead>> {
    if offset >= size {
        return Ok(None);
    }
    let sectorsize = fs.geometry.sectorsize;
    let start = offset.saturating_sub(offset % sectorsize);
    // The rest of a hole is read at once, other data as far as it is compressed at once.
    let end = start.saturating_add(MAX_COMPRESSED);
    let hole_end = start.saturating_add(most.max(MAX_COMPRESSED));
    let view = fs.running_view(owner.tree)?;
    let root = view.tree_root(owner.tree)?;
    let mut found = None;
    let mut inline = KVVec::new();
    file_extent::for_each(
        &view,
        root,
        owner.ino,
        sectorsize,
        (start, hole_end),
        &mut |extent| {
            if let Kind::Inline(data) = extent.kind {
                inline.extend_from_slice(data.data, GFP_KERNEL)?;
                let method = CompressionMethod::of_extent(data.compression);
                found = Some((extent.offset, extent.end(), Stored::Inline(method)));
            } else {
                let stored = match extent.kind {
                    Kind::Regular(regular) => Stored::Extent(regular),
                    _ => Stored::Nothing,
                };
                found = Some((extent.offset, extent.end(), stored));
            }
            Ok(false)
        },
    )?;
    let (extent_start, extent_end, stored) = found.ok_or(EUCLEAN)?;
    let len = extent_end.min(size).checked_sub(offset).ok_or(EUCLEAN)?;
    let plain = |bytes: KVVec<u8>| EncodedRead {
        len: bytes.len() as u64,
        unencoded_len: bytes.len() as u64,
        unencoded_offset: 0,
        method: None,
        bytes,
        zeros: 0,
    };
    let take = len.min(most);
    let read = match stored {
        Stored::Inline(None) => {
            let part = crate::format::slice(&inline, offset as usize, take as usize)?;
            let mut bytes = KVVec::new();
            bytes.extend_from_slice(part, GFP_KERNEL)?;
            plain(bytes)
        }
        Stored::Inline(method) => {
            if inline.len() as u64 > most {
                return Err(ENOBUFS);
            }
            EncodedRead {
                len,
                unencoded_len: extent_end,
                unencoded_offset: offset,
                method,
                bytes: inline,
                zeros: 0,
            }
        }
        Stored::Nothing => EncodedRead {
            len: take,
            unencoded_len: take,
            zeros: take,
            ..plain(KVVec::new())
        },
        Stored::Extent(extent) => match CompressionMethod::of_extent(extent.compression) {
            Some(method) => {
                if extent.disk_num_bytes > most {
                    return Err(ENOBUFS);
                }
                let into = offset.saturating_sub(extent_start);
                EncodedRead {
                    len,
                    unencoded_len: extent.ram_bytes,
                    unencoded_offset: extent.extent_offset.saturating_add(into),
                    method: Some(method),
                    bytes: data::read_extent(view, owner, &extent, offset)?,
                    zeros: 0,
                }
            }
            None => {
                drop(view);
                let last = end.min(offset.saturating_add(take));
                let whole = sectorsize.round_up(last).ok_or(EFBIG)?;
                let whole = whole.saturating_sub(start) as usize;
                let mut sectors = KVVec::zeroed(whole, GFP_KERNEL)?;
                data::read_running(fs, owner, start, &mut Scatter::one(&mut sectors)?)?;
                let from = offset.saturating_sub(start) as usize;
                let take = last.saturating_sub(offset) as usize;
                let mut bytes = KVVec::new();
                let part = crate::format::slice(&sectors, from, take)?;
                bytes.extend_from_slice(part, GFP_KERNEL)?;
                plain(bytes)
            }
        },
    };
    Ok(Some(read))
}

/// Where data is.
enum Stored {
    Nothing,
    Inline(Option<CompressionMethod>),
    Extent(file_extent::Regular),
}

/// Data to be written that is compressed already. The fields are as in
/// `struct btrfs_ioctl_encoded_io_args`, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct NewEncoded {
    /// Where in the file.
    pub offset: u64,
    /// How much of the file this is.
    pub len: u64,
    /// The size of the data once it is decompressed.
    pub unencoded_len: u64,
    /// Where in that the part of the file starts.
    pub unencoded_offset: u64,
    /// How it is compressed.
    pub method: CompressionMethod,
}

impl NewEncoded {
    /// Whether so many bytes may be data that is compressed to less.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn check_bytes(&self, bytes: u64) -> Result {
        let fits = bytes <= MAX_COMPRESSED && self.unencoded_len <= MAX_COMPRESSED;
        if !fits || bytes >= self.unencoded_len {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Where it ends in the file.
    ///
    /// # Errors
    ///
    /// `EFBIG`.
    pub fn end(&self) -> Result<u64> {
        self.offset.checked_add(self.len).ok_or(EFBIG)
    }

    /// Whether it can stand in a file of `size` bytes: it begins at a sector, and ends at one or
    /// with the file.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFBIG`.
    pub fn check_place(&self, fs: &Fs, size: u64) -> Result {
        let sectorsize = fs.geometry.sectorsize;
        let end = self.end()?;
        let is_within = end < size && end % sectorsize != 0;
        if (self.offset | self.unencoded_offset) % sectorsize != 0 || is_within {
            return Err(EINVAL);
        }
        Ok(())
    }
}

/// Puts compressed data into a file of `size` bytes, in the place of what was there. Nothing of
/// that is dirty. Takes the writer's mutex.
///
/// # Errors
///
/// `EINVAL` for what no extent may be, and for files without checksums; `ENOSPC`, also if no free
/// space is large enough; `EROFS`, `EIO`, `ENOMEM`.
pub fn write_encoded(
    fs: &Fs,
    id: InodeId,
    new: &NewEncoded,
    bytes: &[u8],
    size: u64,
) -> Result<InodeItem> {
    let sectorsize = fs.geometry.sectorsize;
    let end = new.end()?;
    let is_all = new.offset == 0 && new.unencoded_offset == 0 && new.len == new.unencoded_len;
    let fits = bytes.len() <= MAX_INLINE && end >= size && end <= u64::from(sectorsize);
    let whole = sectorsize.round_up(bytes.len() as u64).ok_or(EINVAL)?;
    let mut reservation = fs.reserve_data(whole)?;
    if is_all && fits {
        let inline = NewInline {
            data: bytes,
            size: new.len,
            method: Some(new.method),
        };
        return insert_inline(fs, id, inline);
    }
    let extent = fs.alloc_data(Some(&mut reservation), whole)?;
    if extent.len() != whole {
        return Err(ENOSPC);
    }
    let mut padded = KVVec::with_capacity(whole as usize, GFP_KERNEL)?;
    padded.extend_from_slice(bytes, GFP_KERNEL)?;
    padded.resize(whole as usize, 0, GFP_KERNEL)?;
    extent.write(0, &padded)?;
    let mut sums = KVVec::new();
    push_checksums(&padded, &fs.geometry, &mut sums)?;
    let data = NewData {
        offset: new.offset,
        extent,
        encoded: Some(Encoded {
            method: new.method,
            ram_bytes: sectorsize.round_up(new.unencoded_len).ok_or(EINVAL)?,
            offset: new.unencoded_offset,
            num_bytes: sectorsize.round_up(new.len).ok_or(EINVAL)?,
        }),
        sums,
        size: end,
    };
    insert_data(fs, id, data)
}
