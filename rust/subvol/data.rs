// SPDX-License-Identifier: GPL-2.0
//! File data: read in large pieces, checked against its checksums, decompressed.
//!
//! A read is planned over all extents it touches, sent to the device at once, and only then looked
//! at, so that one call keeps the device busy. A sector whose checksum does not match is read from
//! the other mirror, and written over the bad copy.

use super::csum;
use super::decompress::decompress;
use super::file_extent::{self, Extent, Kind, Regular};
use super::scatter::Scatter;
use crate::device::corrected::Corrected;
use crate::device::stats::Stat;
use crate::device::ReadIo;
use crate::format::compression;
use crate::format::inode::inode_flags;
use crate::format::{tree_id, BlockSize, Checksum};
use crate::fs_warn;
use crate::trans::{Reader, RunningView, View};
use crate::tree::{Geometry, TreeRoot};
use crate::volume::Fs;
use kernel::prelude::*;

/// What is known of the checksums of some data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// There are none.
    None,
    /// Whatever there is must match.
    WherePresent,
    /// Every sector has one.
    Always,
}

/// Whose data is being read, for messages, and whether it has checksums.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The id of the tree.
    pub tree: u64,
    /// The inode.
    pub ino: u64,
    /// How the data is checked.
    pub checksums: Checksums,
}

impl Owner {
    /// The owner of the data of an inode with these [`inode_flags`].
    pub fn new(fs: &Fs, tree: u64, ino: u64, flags: u64) -> Self {
        let has_none = flags & inode_flags::NODATASUM != 0 || fs.ignores_data_checksums();
        Owner {
            tree,
            ino,
            checksums: if has_none {
                Checksums::None
            } else {
                Checksums::Always
            },
        }
    }
}

/// A contiguous piece of an extent, as it is on disk.
pub struct Piece<'b> {
    /// Its logical address, a multiple of the sector size, in bytes.
    pub logical: u64,
    /// Where the piece starts in the file, in bytes, for messages.
    pub file_offset: u64,
    /// Where the bytes go; a multiple of the sector size long.
    pub buf: &'b mut [u8],
}

/// Reads pieces of extents as they are on disk.
///
/// # Errors
///
/// `EIO` where no mirror has good data, and what reading the checksum tree gives.
pub fn read_pieces(reader: &Reader, owner: &Owner, pieces: &mut [Piece<'_>]) -> Result {
    read_with_sums(reader, owner, pieces, None)
}

/// As [`read_pieces`], with the checksums of each piece if they were looked up already.
fn read_with_sums(
    reader: &Reader,
    owner: &Owner,
    pieces: &mut [Piece<'_>],
    sums: Option<&[&[Option<Checksum>]]>,
) -> Result {
    let mut failed = KVec::with_capacity(pieces.len(), GFP_KERNEL)?;
    {
        let chunks = reader.fs().chunk_map();
        let mut ios = KVec::with_capacity(pieces.len(), GFP_KERNEL)?;
        for piece in pieces.iter_mut() {
            let mirrors = chunks.mirrors(piece.logical, piece.buf.len() as u64)?;
            let io = ReadIo::new(mirrors.first(), piece.buf);
            ios.push(io, GFP_KERNEL)?;
        }
        // The call's own result says no more than those of its pieces, which are looked at one by
        // one.
        let _ = reader.fs().device.read_many(&mut ios);
        for io in ios.iter() {
            failed.push(io.result.is_err(), GFP_KERNEL)?;
        }
    }
    for (index, (piece, failed)) in pieces.iter_mut().zip(failed.iter()).enumerate() {
        match sums {
            None if owner.checksums == Checksums::None && !failed => {}
            None => {
                let sums = look_up(reader, owner, piece.logical, piece.buf.len() as u64)?;
                check_piece(reader, owner, piece, *failed, &sums)?;
            }
            Some(sums) => {
                let sums = sums.get(index).ok_or(EINVAL)?;
                check_piece(reader, owner, piece, *failed, sums)?;
            }
        }
    }
    Ok(())
}

/// Reads the whole of an extent as it is on disk, of a file as it is now. `offset` is where the
/// file has it, for messages. Lets go of the writer's mutex before it reads.
///
/// # Errors
///
/// `EIO` where no mirror has good data, `ENOMEM`, and what reading the checksum tree gives.
pub(super) fn read_extent(
    view: RunningView<'_>,
    owner: &Owner,
    extent: &Regular,
    offset: u64,
) -> Result<KVVec<u8>> {
    let sums = look_up(&view, owner, extent.disk_bytenr, extent.disk_num_bytes)?;
    let reader = view.into_reader();
    let mut bytes = KVVec::zeroed(extent.disk_num_bytes as usize, GFP_KERNEL)?;
    let piece = Piece {
        logical: extent.disk_bytenr,
        file_offset: offset,
        buf: &mut bytes,
    };
    read_with_sums(&reader, owner, &mut [piece], Some(&[&sums]))?;
    Ok(bytes)
}

/// The checksums of consecutive sectors, as far as there are any.
type Sums = KVec<Option<Checksum>>;

/// The checksums of what is at `logical`, none for data that has none.
fn look_up<V: View>(view: &V, owner: &Owner, logical: u64, len: u64) -> Result<Sums> {
    let mut sums = KVec::new();
    if owner.checksums != Checksums::None {
        let root = view.tree_root(tree_id::CSUM)?;
        let geometry = &view.volume().geometry;
        csum::lookup(view, root, geometry, logical, len, &mut sums)?;
    }
    Ok(sums)
}

/// Compares a piece with its checksums and repairs, from the other mirror, what does not match.
fn check_piece(
    reader: &Reader,
    owner: &Owner,
    piece: &mut Piece<'_>,
    failed: bool,
    sums: &[Option<Checksum>],
) -> Result {
    let Geometry {
        sectorsize,
        checksum,
        ..
    } = reader.fs().geometry;
    let mut at = 0u64;
    for (index, sector) in piece.buf.chunks_mut(sectorsize.into()).enumerate() {
        let sum = sums.get(index).copied().flatten();
        let place = Sector {
            logical: piece.logical.checked_add(at).ok_or(EUCLEAN)?,
            file_offset: piece.file_offset.saturating_add(at),
            // A sector without a checksum, of a file that has them, cannot be told good from bad.
            sum: match owner.checksums {
                Checksums::Always => Some(sum.unwrap_or(checksum.stored(&[]))),
                _ => sum,
            },
        };
        if failed || !place.matches(sector) {
            place.recover(reader, owner, sector, failed)?;
        }
        at = at.saturating_add(u64::from(sectorsize));
    }
    Ok(())
}

/// One sector of file data.
struct Sector {
    logical: u64,
    file_offset: u64,
    sum: Option<Checksum>,
}

impl Sector {
    fn matches(&self, sector: &[u8]) -> bool {
        self.sum.is_none_or(|sum| sum.matches(sector))
    }

    /// Reports bad data, and counts it.
    fn warn(&self, reader: &Reader, owner: &Owner, sector: &[u8], mirror: u32) {
        let fs = reader.fs();
        // Without a checksum nothing is known to be bad.
        let Some(expected) = self.sum else {
            return;
        };
        if crate::platform::may_log() {
            fs_warn!(
                fs,
                "csum failed root {} ino {} off {} logical {} csum {} expected csum {} mirror {}",
                owner.tree as i64,
                owner.ino,
                self.file_offset,
                self.logical,
                expected.kind().of(sector),
                expected,
                mirror
            );
        }
        fs.stats.count(Stat::Corruption, &*fs.device);
    }

    /// Tries each mirror by itself; the first that is good wins, and is written over the bad ones
    /// before it.
    fn recover(&self, reader: &Reader, owner: &Owner, sector: &mut [u8], failed: bool) -> Result {
        if !failed {
            self.warn(reader, owner, sector, 1);
        }
        let copies = reader
            .fs()
            .chunk_map()
            .mirrors(self.logical, sector.len() as u64)?
            .count();
        let first = if failed { 1 } else { 2 };
        for mirror in first..=copies {
            if reader.read_logical(self.logical, sector, mirror).is_err() {
                continue;
            }
            if self.matches(sector) {
                self.repair(reader, owner, sector, mirror);
                return Ok(());
            }
            self.warn(reader, owner, sector, mirror);
        }
        Err(EIO)
    }
}

impl Sector {
    /// Makes the copies before the mirror `good` like this one, if the volume may be written to. If
    /// that fails, nothing is worse than before. The reader keeps the place from being used for
    /// anything else; data without a checksum, which may be overwritten where it is, is left alone.
    fn repair(&self, reader: &Reader, owner: &Owner, sector: &[u8], good: u32) {
        let fs = reader.fs();
        let chunks = fs.chunk_map();
        let Ok(mirrors) = chunks.mirrors(self.logical, sector.len() as u64) else {
            return;
        };
        if fs.is_read_only() || self.sum.is_none() {
            return;
        }
        for mirror in 1..good {
            let Some(physical) = mirrors.get(mirror) else {
                return;
            };
            if fs.device.write(physical, sector).is_ok() {
                let corrected = Corrected {
                    ino: owner.ino,
                    offset: self.file_offset,
                    device: fs.name(),
                    physical,
                };
                crate::fs_info!(fs, "{}", corrected);
            }
        }
    }
}

/// A compressed extent that a read needs a part of.
struct Packed {
    extent: Regular,
    raw: KVVec<u8>,
    /// Where the part starts in the decompressed extent, in bytes.
    skip: usize,
    /// Where it goes in the caller's buffer, in bytes.
    at: usize,
    len: usize,
    file_offset: u64,
}

/// An uncompressed run of the caller's buffer.
#[derive(Clone, Copy)]
struct Direct {
    logical: u64,
    at: usize,
    len: usize,
}

/// What a read has to do, over all extents it touches.
struct Plan {
    direct: KVec<Direct>,
    packed: KVec<Packed>,
    /// The checksums of both, in this order, if they were looked up.
    sums: Option<KVec<Sums>>,
}

/// Reads file data at `offset` into the whole of `buf`; what lies after the end of the file's
/// extents reads as zeros. `offset` and `buf.len()`, and the size of each slice of a [`Scatter`],
/// are multiples of the sector size, in bytes.
///
/// # Errors
///
/// `EINVAL` for an unaligned request, `EIO` for bad data, `EUCLEAN` for damaged items, `ENOMEM`.
pub fn read_sectors(
    reader: &Reader,
    root: TreeRoot,
    owner: &Owner,
    offset: u64,
    buf: &mut [u8],
) -> Result {
    let mut buf = Scatter::one(buf)?;
    let plan = Plan::make(reader, root, owner, offset, &mut buf)?;
    plan.run(reader, owner, offset, &mut buf)
}

/// As [`read_sectors`], of the file as it is now, committed or not. Takes the writer's mutex if the
/// subvolume was changed since the last commit, and lets go of it before it reads data.
///
/// # Errors
///
/// As for [`read_sectors`].
pub fn read_running(fs: &Fs, owner: &Owner, offset: u64, buf: &mut Scatter<'_>) -> Result {
    let (plan, reader) = {
        let view = fs.running_view(owner.tree)?;
        let mut plan = Plan::make(&view, view.tree_root(owner.tree)?, owner, offset, buf)?;
        plan.look_up(&view, owner)?;
        (plan, view.into_reader())
    };
    plan.run(&reader, owner, offset, buf)
}

impl Plan {
    /// What reading at `offset` takes. Fills in what needs no reading.
    fn make<V: View>(
        view: &V,
        root: TreeRoot,
        owner: &Owner,
        offset: u64,
        buf: &mut Scatter<'_>,
    ) -> Result<Plan> {
        let sectorsize = view.volume().geometry.sectorsize;
        let end = offset.checked_add(buf.len() as u64).ok_or(EINVAL)?;
        if (offset | end) % sectorsize != 0 {
            return Err(EINVAL);
        }
        let mut plan = Plan {
            direct: KVec::new(),
            packed: KVec::new(),
            sums: None,
        };
        let range = (offset, end);
        file_extent::for_each(view, root, owner.ino, sectorsize, range, &mut |extent| {
            plan.add(extent, offset, buf, sectorsize)?;
            Ok(true)
        })?;
        Ok(plan)
    }

    /// Looks the checksums up.
    fn look_up<V: View>(&mut self, view: &V, owner: &Owner) -> Result {
        let mut all = KVec::new();
        for run in self.direct.iter() {
            let sums = look_up(view, owner, run.logical, run.len as u64)?;
            all.push(sums, GFP_KERNEL)?;
        }
        for packed in self.packed.iter() {
            let extent = &packed.extent;
            let sums = look_up(view, owner, extent.disk_bytenr, extent.disk_num_bytes)?;
            all.push(sums, GFP_KERNEL)?;
        }
        self.sums = Some(all);
        Ok(())
    }

    /// Adds the part of `extent` that lies within the buffer, which starts at `offset` in the file.
    fn add(
        &mut self,
        extent: &Extent<'_>,
        offset: u64,
        buf: &mut Scatter<'_>,
        sectorsize: BlockSize,
    ) -> Result {
        let buf_end = offset.saturating_add(buf.len() as u64);
        let from = extent.offset.max(offset);
        let to = extent.end().min(buf_end);
        if let Kind::Inline(inline) = extent.kind {
            return read_inline(&inline, extent, offset, buf, sectorsize);
        }
        if from >= to {
            return Ok(());
        }
        let at = from.saturating_sub(offset) as usize;
        let len = to.saturating_sub(from) as usize;
        let into = from.saturating_sub(extent.offset);
        match extent.kind {
            Kind::Regular(regular) if regular.compression == compression::NONE => {
                let logical = regular
                    .disk_bytenr
                    .checked_add(regular.extent_offset)
                    .and_then(|logical| logical.checked_add(into))
                    .ok_or(EUCLEAN)?;
                self.direct.push(Direct { logical, at, len }, GFP_KERNEL)?;
            }
            Kind::Regular(regular) => {
                let skip = regular.extent_offset.checked_add(into).ok_or(EUCLEAN)?;
                let raw = KVVec::zeroed(regular.disk_num_bytes as usize, GFP_KERNEL)?;
                let packed = Packed {
                    extent: regular,
                    raw,
                    skip: skip as usize,
                    at,
                    len,
                    file_offset: from,
                };
                self.packed.push(packed, GFP_KERNEL)?;
            }
            _ => buf.zero(at, len)?,
        }
        Ok(())
    }

    /// Sends everything to the device, checks it, and decompresses.
    fn run(mut self, reader: &Reader, owner: &Owner, offset: u64, buf: &mut Scatter<'_>) -> Result {
        self.read(reader, owner, offset, buf)?;
        for packed in self.packed.iter() {
            let mut plain = KVVec::zeroed(packed.extent.ram_bytes as usize, GFP_KERNEL)?;
            let method = packed.extent.compression;
            let sectorsize = reader.fs().geometry.sectorsize;
            decompress(method, &packed.raw, &mut plain, sectorsize).inspect_err(|error| {
                fs_warn!(
                    reader.fs(),
                    "decompression failed, root {} ino {} offset {} extent {}: error {}",
                    owner.tree as i64,
                    owner.ino,
                    packed.file_offset,
                    packed.extent.disk_bytenr,
                    error.to_errno()
                );
            })?;
            let from = crate::format::slice(&plain, packed.skip, packed.len)?;
            buf.copy_from(packed.at, from)?;
        }
        Ok(())
    }

    /// Reads and checks everything, as it is on disk.
    fn read(
        &mut self,
        reader: &Reader,
        owner: &Owner,
        offset: u64,
        buf: &mut Scatter<'_>,
    ) -> Result {
        let sectorsize = reader.fs().geometry.sectorsize;
        let count = self.direct.len().saturating_add(self.packed.len());
        let mut pieces = KVec::with_capacity(count, GFP_KERNEL)?;
        let mut sums: KVec<&[Option<Checksum>]> = KVec::new();
        let mut known = self.sums.iter().flatten();
        let mut taker = buf.take();
        for run in self.direct.iter() {
            let known = known.next();
            let end = run.at.checked_add(run.len).ok_or(EUCLEAN)?;
            let mut at = run.at;
            while at < end {
                let slice = taker.next(at, end).ok_or(EUCLEAN)?;
                let done = at.saturating_sub(run.at) as u64;
                if let Some(known) = known {
                    // Data without checksums has none here either.
                    let first = (done / sectorsize) as usize;
                    let rest = known.get(first..).unwrap_or_default();
                    sums.push(rest, GFP_KERNEL)?;
                }
                let piece = Piece {
                    logical: run.logical.checked_add(done).ok_or(EUCLEAN)?,
                    file_offset: offset.saturating_add(at as u64),
                    buf: slice,
                };
                at = at.saturating_add(piece.buf.len());
                pieces.push(piece, GFP_KERNEL)?;
            }
        }
        for packed in self.packed.iter_mut() {
            if let Some(known) = known.next() {
                sums.push(known, GFP_KERNEL)?;
            }
            let piece = Piece {
                logical: packed.extent.disk_bytenr,
                file_offset: packed.file_offset,
                buf: &mut packed.raw,
            };
            pieces.push(piece, GFP_KERNEL)?;
        }
        let sums = self.sums.is_some().then_some(&sums[..]);
        read_with_sums(reader, owner, &mut pieces, sums)
    }
}

/// Inline data starts at offset 0 and stands for its whole last sector, the rest of which is zeros.
fn read_inline(
    inline: &file_extent::Inline<'_>,
    extent: &Extent<'_>,
    offset: u64,
    buf: &mut Scatter<'_>,
    sectorsize: BlockSize,
) -> Result {
    let mut plain;
    let data = if inline.compression == compression::NONE {
        inline.data
    } else {
        plain = KVVec::zeroed(inline.ram_bytes as usize, GFP_KERNEL)?;
        decompress(inline.compression, inline.data, &mut plain, sectorsize)?;
        &plain[..]
    };
    let skip = offset.saturating_sub(extent.offset) as usize;
    let data = data.get(skip..).unwrap_or(&[]);
    let len = data.len().min(buf.len());
    buf.copy_from(0, data.get(..len).ok_or(EUCLEAN)?)?;
    let end = sectorsize.round_up(len as u64).ok_or(EUCLEAN)? as usize;
    let end = end.min(buf.len());
    buf.zero(len, end.saturating_sub(len))
}

/// Reads what the file has at `offset`, up to `buf.len()` bytes and its end; returns the number of
/// bytes.
///
/// # Errors
///
/// Those of [`read_sectors`], and of reading the inode.
pub fn read_file(
    reader: &Reader,
    root: TreeRoot,
    ino: u64,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize> {
    let inode = super::inode::read(reader, root, ino)?;
    let owner = Owner::new(reader.fs(), root.id, ino, inode.flags.get());
    let left = inode.size.get().saturating_sub(offset);
    let len = (buf.len() as u64).min(left) as usize;
    let sectorsize = reader.fs().geometry.sectorsize;
    let start = offset.saturating_sub(offset % sectorsize);
    let end = offset
        .checked_add(len as u64)
        .and_then(|end| sectorsize.round_up(end))
        .ok_or(EINVAL)?;
    let mut sectors = KVVec::zeroed(end.saturating_sub(start) as usize, GFP_KERNEL)?;
    read_sectors(reader, root, &owner, start, &mut sectors)?;
    let skip = offset.saturating_sub(start) as usize;
    let into = buf.get_mut(..len).ok_or(EUCLEAN)?;
    into.copy_from_slice(crate::format::slice(&sectors, skip, len)?);
    Ok(len)
}
