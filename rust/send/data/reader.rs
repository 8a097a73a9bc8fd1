// SPDX-License-Identifier: GPL-2.0
//! File data for the stream: read ahead in large pieces, verified piece by piece as it is used.
//!
//! What is wanted is read together with the extents that follow in the same leaf, so that small
//! files do not cost one read each. A sector that does not match its checksum is read again through
//! [`crate::subvol::data`], which looks for a good mirror and knows how to complain.

use super::checksum::SECTOR;
use crate::device::{ChunkMap, ReadIo};
use crate::format::file_extent::MAX_COMPRESSED;
use crate::format::{self, compression, item_type, tree_id, BlockSize, Checksum};
use crate::send::cursor::Here;
use crate::subvol::csum;
use crate::subvol::data::{read_pieces, Checksums, Owner, Piece};
use crate::subvol::decompress::decompress;
use crate::subvol::file_extent::{self, Inline, Kind, Regular};
use crate::trans::Reader;
use crate::volume::{ReadSession, Stamp};
use crate::{fs_err, fs_warn};
use core::ops::Range;
use kernel::prelude::*;

/// Bytes read in one go at most.
const WINDOW: u64 = 4 << 20;

/// Pieces read in one go at most.
const MAX_PIECES: usize = 128;

/// A contiguous piece of what was read.
#[derive(Clone, Copy)]
struct Segment {
    logical: u64,
    len: u64,
    /// Where it is in the window, in bytes.
    at: usize,
    failed: bool,
}

impl Segment {
    fn holds(&self, from: u64, to: u64) -> bool {
        from >= self.logical && to <= self.logical.saturating_add(self.len)
    }
}

/// Reads file data.
pub(in crate::send) struct DataReader<'a> {
    session: &'a ReadSession,
    /// The subvolume being sent.
    tree: u64,
    sectorsize: BlockSize,
    /// Commits in which the addresses of what is kept here hold.
    stamp: Stamp,
    /// The receiver has what this transaction and those before it wrote, as far as it can be
    /// expected.
    known_to: u64,
    /// Of the current file it has nothing.
    is_new: bool,
    window: KVVec<u8>,
    segments: KVec<Segment>,
    /// The checksums of the window's sectors.
    sums: KVec<Option<Checksum>>,
    /// Decompressed data.
    plain: KVVec<u8>,
    /// The extent that `plain` is from.
    plain_of: Option<u64>,
}

impl<'a> DataReader<'a> {
    /// A reader of what a receiver gets that has a subvolume of transaction `known_to`, which is 0
    /// if it has none.
    pub(in crate::send) fn new(session: &'a ReadSession, tree: u64, known_to: u64) -> Self {
        DataReader {
            session,
            tree,
            sectorsize: session.fs().geometry.sectorsize,
            stamp: Stamp::NONE,
            known_to,
            is_new: true,
            window: KVVec::new(),
            segments: KVec::new(),
            sums: KVec::new(),
            plain: KVVec::new(),
            plain_of: None,
        }
    }

    /// Says whether the receiver has nothing of the file that is read next.
    pub(in crate::send) fn begin_file(&mut self, is_new: bool) {
        self.is_new = is_new;
    }

    /// A part of the extent that the item at `here` refers to; with the checksums of its sectors,
    /// or without any where those are not known to be right.
    ///
    /// # Errors
    ///
    /// `EIO` where no mirror has good data, and what reading trees gives.
    pub(in crate::send) fn raw(
        &mut self,
        here: &mut Here,
        owner: &Owner,
        part: Part,
    ) -> Result<(&[u8], &[Option<Checksum>])> {
        let session = self.session;
        let (at, known) = session.read(|reader| self.fetch(reader, here, owner, part))?;
        let bytes = format::slice(&self.window, at, part.size as usize)?;
        let sums = self.sums.get(known).unwrap_or(&[]);
        Ok((bytes, sums))
    }

    /// Where in the window the part is, verified, and where among the checksums those of its
    /// sectors are. All of it is of one commit, so that the address of the extent holds throughout.
    fn fetch(
        &mut self,
        reader: &Reader,
        here: &mut Here,
        owner: &Owner,
        part: Part,
    ) -> Result<(usize, Range<usize>)> {
        self.renew(reader, here)?;
        let Part {
            start,
            size,
            left,
            file_offset,
        } = part;
        let logical = here.extent()?.checked_add(start).ok_or(EUCLEAN)?;
        let skip = logical % self.sectorsize;
        let from = logical.saturating_sub(skip);
        let to = self.aligned_end(logical, size)?;
        let segment = match self.segment(from, to) {
            Some(segment) => segment,
            None => {
                let want = self.aligned_end(logical, left.max(size))?;
                let want = want.min(from.saturating_add(WINDOW)).max(to);
                self.load(reader, here, from, want.saturating_sub(from))?;
                self.segment(from, to).ok_or(EIO)?
            }
        };
        let at = from
            .saturating_sub(segment.logical)
            .saturating_add(segment.at as u64);
        let sectors = to.saturating_sub(from) / self.sectorsize;
        let first = at / self.sectorsize;
        for index in 0..sectors {
            let ahead = index.saturating_mul(self.sectorsize.into());
            let place = Sector {
                at: at.saturating_add(ahead) as usize,
                index: first.saturating_add(index) as usize,
                logical: from.saturating_add(ahead),
                file_offset: file_offset.saturating_sub(skip).saturating_add(ahead),
            };
            self.verify(reader, owner, &place, segment.failed)?;
        }
        let known = owner.checksums != Checksums::None
            && skip == 0
            && usize::from(self.sectorsize) == SECTOR;
        let sums = if known {
            first as usize..first.saturating_add(sectors) as usize
        } else {
            0..0
        };
        Ok((at.saturating_add(skip) as usize, sums))
    }

    /// Makes the addresses at `here` those of the reader's commit, and forgets what was read by
    /// others.
    fn renew(&mut self, reader: &Reader, here: &mut Here) -> Result {
        here.renew(reader, self.tree)?;
        if self.stamp != here.stamp {
            self.stamp = here.stamp;
            self.segments.clear();
            self.plain_of = None;
        }
        Ok(())
    }

    fn aligned_end(&self, start: u64, len: u64) -> Result<u64> {
        start
            .checked_add(len)
            .and_then(|end| self.sectorsize.round_up(end))
            .ok_or(EUCLEAN)
    }

    fn segment(&self, from: u64, to: u64) -> Option<Segment> {
        let mut segments = self.segments.iter();
        segments.find(|segment| segment.holds(from, to)).copied()
    }

    /// Fills the window with the `len` bytes at `logical`, and with what the leaf has after that.
    fn load(&mut self, reader: &Reader, here: &Here, logical: u64, len: u64) -> Result {
        self.segments.clear();
        self.sums.clear();
        let chunks = reader.fs().chunk_map();
        let mut total = 0u64;
        self.plan(&chunks, logical, len, &mut total)?;
        self.look_ahead(&chunks, here, &mut total)?;
        let size = usize::try_from(total).map_err(|_| EUCLEAN)?;
        if self.window.len() < size {
            self.window = KVVec::new();
            self.window = KVVec::zeroed(size, GFP_KERNEL)?;
        }
        self.read(&chunks)?;
        let root = reader.root(tree_id::CSUM)?;
        let geometry = &reader.fs().geometry;
        for segment in self.segments.iter() {
            let (at, len) = (segment.logical, segment.len);
            csum::lookup(reader, root, geometry, at, len, &mut self.sums)?;
        }
        Ok(())
    }

    /// Adds a piece to what is to be read.
    fn plan(&mut self, chunks: &ChunkMap, logical: u64, len: u64, total: &mut u64) -> Result {
        let end = logical.checked_add(len).ok_or(EUCLEAN)?;
        if self.segment(logical, end).is_some() {
            return Ok(());
        }
        if let Some(last) = self.segments.last_mut() {
            let joined = last.len.saturating_add(len);
            let touches = last.logical.checked_add(last.len) == Some(logical);
            // Extents that touch may still be in different chunks.
            if touches && chunks.mirrors(last.logical, joined).is_ok() {
                last.len = joined;
                *total = total.saturating_add(len);
                return Ok(());
            }
        }
        let segment = Segment {
            logical,
            len,
            at: *total as usize,
            failed: false,
        };
        self.segments.push(segment, GFP_KERNEL)?;
        *total = total.saturating_add(len);
        Ok(())
    }

    /// Plans to read what the leaf's further file extents refer to, as far as there is space.
    fn look_ahead(&mut self, chunks: &ChunkMap, here: &Here, total: &mut u64) -> Result {
        let mut slot = here.slot;
        let current = here.leaf.key(slot).map(|key| key.objectid);
        while *total < WINDOW && self.segments.len() < MAX_PIECES {
            slot = slot.saturating_add(1);
            let Some((key, data)) = here.leaf.item(slot) else {
                break;
            };
            if key.typ != item_type::EXTENT_DATA {
                continue;
            }
            // What is wrong with an item is found out when its turn comes.
            let Ok(extent) = file_extent::parse(&key, data, self.sectorsize) else {
                break;
            };
            let Kind::Regular(regular) = extent.kind else {
                continue;
            };
            let is_new = self.is_new && current == Some(key.objectid);
            if extent.generation <= self.known_to && !is_new {
                continue;
            }
            let (logical, len) = if regular.compression == compression::NONE {
                let start = regular.disk_bytenr.saturating_add(regular.extent_offset);
                (start, extent.len)
            } else {
                (regular.disk_bytenr, regular.disk_num_bytes)
            };
            let len = len.min(WINDOW.saturating_sub(*total));
            if chunks.mirrors(logical, len).is_ok() {
                self.plan(chunks, logical, len, total)?;
            }
        }
        Ok(())
    }

    /// Reads all segments at once.
    fn read(&mut self, chunks: &ChunkMap) -> Result {
        let mut ios = KVec::with_capacity(self.segments.len(), GFP_KERNEL)?;
        let mut rest: &mut [u8] = &mut self.window;
        for segment in self.segments.iter() {
            let len = usize::try_from(segment.len).map_err(|_| EUCLEAN)?;
            let (buf, tail) = rest.split_at_mut_checked(len).ok_or(EUCLEAN)?;
            rest = tail;
            let mirrors = chunks.mirrors(segment.logical, segment.len)?;
            ios.push(ReadIo::new(mirrors.first(), buf), GFP_KERNEL)?;
        }
        // The results of the pieces say all that the call's own does.
        let _ = self.session.fs().device.read_many(&mut ios);
        for (segment, io) in self.segments.iter_mut().zip(ios.iter()) {
            segment.failed = io.result.is_err();
        }
        Ok(())
    }

    /// Makes sure that a sector of the window is what was written.
    fn verify(&mut self, reader: &Reader, owner: &Owner, place: &Sector, failed: bool) -> Result {
        let sector = usize::from(self.sectorsize);
        let end = place.at.checked_add(sector).ok_or(EUCLEAN)?;
        let bytes = self.window.get_mut(place.at..end).ok_or(EUCLEAN)?;
        let sum = self.sums.get(place.index).copied().flatten();
        let good = match (owner.checksums, sum) {
            (Checksums::None, _) | (Checksums::WherePresent, None) => true,
            (_, Some(sum)) => sum.matches(bytes),
            (Checksums::Always, None) => false,
        };
        if good && !failed {
            return Ok(());
        }
        let mut pieces = [Piece {
            logical: place.logical,
            file_offset: place.file_offset,
            buf: bytes,
        }];
        read_pieces(reader, owner, &mut pieces).inspect_err(|_| {
            fs_err!(
                self.session.fs(),
                "send: IO error at offset {} for inode {} root {}",
                place.file_offset,
                owner.ino,
                owner.tree
            );
        })
    }

    /// Decompresses an extent, whose first byte the file has at `file_offset`, for
    /// [`DataReader::plain`].
    pub(in crate::send) fn load_packed(
        &mut self,
        here: &mut Here,
        owner: &Owner,
        extent: &Regular,
        file_offset: u64,
    ) -> Result {
        let session = self.session;
        let address = session.read(|reader| {
            self.renew(reader, here)?;
            here.extent()
        })?;
        // Parts of an extent often follow one another.
        if self.plain_of == Some(address) {
            return Ok(());
        }
        self.plain_of = None;
        let mut plain = core::mem::replace(&mut self.plain, KVVec::new());
        plain.clear();
        plain.resize(extent.ram_bytes as usize, 0, GFP_KERNEL)?;
        let sectorsize = self.sectorsize;
        let whole = Part {
            start: 0,
            size: extent.disk_num_bytes,
            left: extent.disk_num_bytes,
            file_offset,
        };
        let (packed, _) = self.raw(here, owner, whole)?;
        let result = decompress(extent.compression, packed, &mut plain, sectorsize);
        self.plain = plain;
        result.inspect_err(|error| {
            fs_warn!(
                self.session.fs(),
                "decompression failed, root {} ino {} offset {} extent {}: error {}",
                owner.tree,
                owner.ino,
                file_offset,
                address,
                error.to_errno()
            );
        })?;
        self.plain_of = Some(address);
        Ok(())
    }

    /// Decompresses inline data for [`DataReader::plain`].
    pub(in crate::send) fn load_inline(&mut self, inline: &Inline<'_>) -> Result {
        self.plain_of = None;
        self.plain.clear();
        if inline.compression == compression::NONE {
            self.plain.extend_from_slice(inline.data, GFP_KERNEL)?;
            return Ok(());
        }
        self.plain
            .resize(inline.ram_bytes as usize, 0, GFP_KERNEL)?;
        let sectorsize = self.sectorsize;
        decompress(inline.compression, inline.data, &mut self.plain, sectorsize)
    }

    /// `size` zeros.
    pub(in crate::send) fn zeros(&mut self, size: u64) -> Result<&[u8]> {
        if self.plain_of.is_some() || self.plain.len() as u64 != size {
            self.plain_of = None;
            self.plain.clear();
            self.plain.resize(size as usize, 0, GFP_KERNEL)?;
        }
        self.plain.fill(0);
        Ok(&self.plain)
    }

    /// The `size` bytes at `at` of what was decompressed last, zeros after its end.
    pub(in crate::send) fn plain(&mut self, at: u64, size: u64) -> Result<&[u8]> {
        let end = at.checked_add(size).ok_or(EUCLEAN)?;
        if end > MAX_COMPRESSED {
            return Err(EUCLEAN);
        }
        if end > self.plain.len() as u64 {
            self.plain.resize(end as usize, 0, GFP_KERNEL)?;
        }
        format::slice(&self.plain, at as usize, size as usize)
    }
}

/// A part of an extent.
#[derive(Clone, Copy)]
pub(in crate::send) struct Part {
    /// Where in the extent it starts, in bytes.
    pub(in crate::send) start: u64,
    /// In bytes.
    pub(in crate::send) size: u64,
    /// How much from its start on will be wanted in all, in bytes.
    pub(in crate::send) left: u64,
    /// Where the file has it, in bytes.
    pub(in crate::send) file_offset: u64,
}

/// A sector of the window.
struct Sector {
    /// Where it is in the window, in bytes.
    at: usize,
    /// Its number in the window.
    index: usize,
    logical: u64,
    file_offset: u64,
}
