// SPDX-License-Identifier: GPL-2.0
//! Putting written data into files.

use super::extents::{
    drop_range, fill_holes, insert_data_item, insert_inline as insert_inline_item, insert_item,
    whole,
};
use super::nocow::Conversion;
use super::{check_files, check_whole, mode, read_inode, write_inode, InodeId, FREEING};
use crate::extent::csum_tree;
use crate::format::file_extent::MAX_COMPRESSED;
use crate::format::file_extent::TYPE_REG;
use crate::format::inode::{inode_flags, InodeItem};
use crate::format::{BlockSize, CompressionMethod};
use crate::space::OrderedExtent;
use crate::trans::Transaction;
use crate::tree::{EditContext, Geometry};
use crate::volume::Fs;
use kernel::prelude::*;

/// The most bytes that a file stores inline.
pub const MAX_INLINE: usize = 2048;

/// What a compressed extent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// How it is compressed.
    pub method: CompressionMethod,
    /// Its size once decompressed, in bytes, of whole sectors.
    pub ram_bytes: u64,
    /// Where in that the file's part starts, in bytes.
    pub offset: u64,
    /// The length of the file's part in bytes.
    pub num_bytes: u64,
}

impl Encoded {
    /// Checks that an extent of `disk_num_bytes` may hold this.
    fn check(&self, disk_num_bytes: u64, sectorsize: BlockSize) -> Result {
        let end = self.offset.checked_add(self.num_bytes).ok_or(EINVAL)?;
        let is_aligned = (self.ram_bytes | self.offset | self.num_bytes) % sectorsize == 0;
        if !is_aligned
            || self.num_bytes == 0
            || end > self.ram_bytes
            || disk_num_bytes > self.ram_bytes
            || self.ram_bytes > MAX_COMPRESSED
        {
            return Err(EINVAL);
        }
        Ok(())
    }
}

/// Data that is on the device and goes into a file.
pub struct NewData {
    /// Where in the file, in bytes; a multiple of the sector size.
    pub offset: u64,
    /// The extent, all of which was written.
    pub extent: OrderedExtent,
    /// What the extent holds, if that is not the data itself.
    pub encoded: Option<Encoded>,
    /// The checksum of each sector ([`crate::space::ordered_extent::push_checksums`]); empty for
    /// files without.
    pub sums: KVVec<u8>,
    /// The size of the file is at least this afterwards, in bytes.
    pub size: u64,
}

impl NewData {
    /// The length in bytes of the part of the file that this is.
    pub fn num_bytes(&self) -> u64 {
        self.encoded
            .map_or(self.extent.len(), |encoded| encoded.num_bytes)
    }
}

/// All of a small file's data.
#[derive(Clone, Copy)]
pub struct NewInline<'a> {
    /// The bytes as they are stored.
    pub data: &'a [u8],
    /// The size of the file in bytes: that of the data once decompressed.
    pub size: u64,
    /// How they are compressed.
    pub method: Option<CompressionMethod>,
}

impl<'a> NewInline<'a> {
    /// Data that is not compressed.
    pub fn plain(data: &'a [u8]) -> Self {
        Self {
            data,
            size: data.len() as u64,
            method: None,
        }
    }
}

/// Puts written data into a file, in the place of what was there. Needs no space but what was
/// reserved for the data.
///
/// # Errors
///
/// `EINVAL` for offsets and checksums that do not fit the extent or the file, `ENOENT`, `EROFS`;
/// `EAGAIN` if the space of [`super::preallocated`] is not the file's any more. The extent is given
/// back then.
pub fn insert_data(fs: &Fs, id: InodeId, mut new: NewData) -> Result<InodeItem> {
    insert_pieces(fs, id, &mut core::iter::once(&mut new)).map(|(item, _)| item)
}

/// The most pieces that go into a file in one operation, which others wait for.
const MOST_PIECES: u64 = 64;

/// The tree blocks that a piece may take: the copies of a path to its place and of one to its
/// checksums, splits on the way, and what its references make of the extent tree.
const NODES_PER_PIECE: u64 = 16;

/// Does the same with several pieces, the first of them and, in the same operation, those after it:
/// until there is one that has an error, or no space for more. Returns the inode, and how many
/// pieces went in; their extents have landed.
///
/// # Errors
///
/// Those of [`insert_data`], for the first piece.
pub fn insert_pieces(
    fs: &Fs,
    id: InodeId,
    pieces: &mut dyn Iterator<Item = &mut NewData>,
) -> Result<(InodeItem, usize)> {
    fs.operate(FREEING, |trans| {
        let mut item = read_inode(trans, id)?;
        check_file(&item)?;
        // That the subvolume is not read-only was checked when the data was accepted.
        check_whole(trans, id.tree)?;
        let most = (trans.spare_nodes() / NODES_PER_PIECE).clamp(1, MOST_PIECES);
        let mut sums = Sums::new();
        let mut done = 0usize;
        for piece in pieces.take(most as usize) {
            let place = match Insertion::check(trans, id, &item, piece) {
                Err(_) if done != 0 => break,
                place => place?,
            };
            sums.add(trans, piece.extent.start(), &piece.sums)?;
            place.fill(trans, id, &mut item, piece)?;
            done = done.saturating_add(1);
        }
        sums.store(trans)?;
        write_inode(trans, id, &mut item)?;
        Ok((item, done))
    })
}

/// What a piece of data is to replace.
enum Insertion {
    /// Whatever the file has between the piece's offset and this one.
    UpTo(u64),
    /// Preallocated space.
    Own(Conversion),
}

impl Insertion {
    /// Checks a piece before anything is changed for it.
    fn check(
        trans: &Transaction<'_>,
        id: InodeId,
        item: &InodeItem,
        new: &NewData,
    ) -> Result<Self> {
        let Geometry {
            sectorsize,
            checksum,
            ..
        } = trans.fs().geometry;
        let len = new.extent.len();
        let end = new.offset.checked_add(new.num_bytes()).ok_or(EFBIG)?;
        let wanted = if item.flags.get() & inode_flags::NODATASUM == 0 {
            (len / sectorsize).saturating_mul(checksum.size() as u64)
        } else {
            0
        };
        if len == 0 || new.offset % sectorsize != 0 || new.sums.len() as u64 != wanted {
            return Err(EINVAL);
        }
        if let Some(encoded) = &new.encoded {
            encoded.check(len, sectorsize)?;
            // What is compressed has checksums, and is never written in place.
            if wanted == 0 || new.extent.is_nocow() {
                return Err(EINVAL);
            }
        }
        if !new.extent.is_nocow() {
            return Ok(Insertion::UpTo(end));
        }
        Conversion::check(trans, id, new.offset, new.extent.start(), len).map(Insertion::Own)
    }

    /// Makes the file have the piece there, all but its checksums.
    fn fill(
        self,
        trans: &mut Transaction<'_>,
        id: InodeId,
        item: &mut InodeItem,
        new: &mut NewData,
    ) -> Result {
        let sectorsize = trans.fs().geometry.sectorsize;
        let (start, len) = (new.extent.start(), new.extent.len());
        let num_bytes = new.num_bytes();
        let old_end = sectorsize.round_up(item.size.get()).unwrap_or(u64::MAX);
        trans.finish_ordered(&mut new.extent)?;
        match self {
            Insertion::Own(conversion) => conversion.run(trans, id)?,
            Insertion::UpTo(end) => {
                let freed = drop_range(trans, id, new.offset, end)?;
                match new.encoded {
                    None => insert_data_item(trans, id, new.offset, (start, len))?,
                    Some(encoded) => {
                        insert_encoded(trans, id, new.offset, (start, len), encoded)?;
                    }
                }
                let nbytes = item.nbytes.get().saturating_add(num_bytes);
                item.nbytes = nbytes.saturating_sub(freed).into();
            }
        }
        fill_holes(trans, id, old_end, new.offset)?;
        item.size = item.size.get().max(new.size).into();
        Ok(())
    }
}

/// Checksums on their way to the tree: those of neighbours go there together.
struct Sums {
    /// The logical address of the first sector.
    start: u64,
    bytes: KVVec<u8>,
}

impl Sums {
    fn new() -> Self {
        Self {
            start: 0,
            bytes: KVVec::new(),
        }
    }

    /// Adds those of the sectors from `start` on. If they do not follow, what was there before is
    /// stored.
    fn add(&mut self, trans: &mut Transaction<'_>, start: u64, sums: &[u8]) -> Result {
        let geometry = &trans.fs().geometry;
        let sectorsize = u64::from(geometry.sectorsize);
        let sectors = geometry.checksum.count(self.bytes.len()) as u64;
        let end = self
            .start
            .saturating_add(sectors.saturating_mul(sectorsize));
        if end != start {
            self.store(trans)?;
            self.start = start;
        }
        Ok(self.bytes.extend_from_slice(sums, GFP_KERNEL)?)
    }

    fn store(&mut self, trans: &mut Transaction<'_>) -> Result {
        csum_tree::insert_csums(trans, self.start, &self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

/// Inserts the item of a compressed extent where the file has nothing.
fn insert_encoded(
    trans: &mut Transaction<'_>,
    id: InodeId,
    offset: u64,
    (start, len): (u64, u64),
    encoded: Encoded,
) -> Result {
    let mut item = whole(trans.transid(), TYPE_REG, start, len);
    item.head.compression = encoded.method.number();
    item.head.ram_bytes = encoded.ram_bytes.into();
    item.offset = encoded.offset.into();
    item.num_bytes = encoded.num_bytes.into();
    trans.set_incompat(encoded.method.incompat());
    insert_item(trans, id, offset, &item)
}

/// Makes `new` all that a file has, within its item. Needs no space but what was reserved for the
/// data.
///
/// # Errors
///
/// `EINVAL` for data that is empty, too long, or shorter than the file; `ENOENT`, `EROFS`.
pub fn insert_inline(fs: &Fs, id: InodeId, new: NewInline<'_>) -> Result<InodeItem> {
    let sectorsize = u64::from(fs.geometry.sectorsize);
    let (len, size) = (new.data.len(), new.size);
    let fits = match new.method {
        None => size == len as u64,
        Some(_) => size > len as u64 && size <= sectorsize,
    };
    if len == 0 || len > MAX_INLINE || len as u64 >= sectorsize || !fits {
        return Err(EINVAL);
    }
    fs.operate(FREEING, |trans| {
        let mut item = read_inode(trans, id)?;
        check_file(&item)?;
        if item.size.get() > size {
            return Err(EINVAL);
        }
        if new.method.is_some() && item.flags.get() & inode_flags::NODATASUM != 0 {
            return Err(EINVAL);
        }
        check_whole(trans, id.tree)?;
        let freed = drop_range(trans, id, 0, sectorsize)?;
        insert_inline_item(trans, id, new)?;
        let nbytes = item.nbytes.get().saturating_add(size);
        item.nbytes = nbytes.saturating_sub(freed).into();
        item.size = size.into();
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
pub(super) fn check_writable(trans: &Transaction<'_>, id: InodeId) -> Result<InodeItem> {
    check_files(trans, id.tree)?;
    let item = read_inode(trans, id)?;
    check_file(&item)?;
    Ok(item)
}
