// SPDX-License-Identifier: GPL-2.0
//! File extents: what is written, what is left out, and in which pieces.

use super::reader::Part;
use crate::format::compression;
use crate::fs_crit;
use crate::send::context::Send;
use crate::send::current_inode::{mode, Fate};
use crate::send::cursor::Here;
use crate::send::proto::{encoded, Attr, Command};
use crate::subvol::data::Owner;
use crate::subvol::file_extent::{self, Extent, Inline, Kind, Regular};
use kernel::prelude::*;

impl Send<'_> {
    /// One file extent of the current inode.
    pub(in crate::send) fn extent(&mut self, mut here: Here) -> Result {
        // What is taken from here holds whatever is relocated: all but addresses.
        let leaf = here.leaf.clone();
        let (key, data) = leaf.item(here.slot).ok_or(EUCLEAN)?;
        let (here, key) = (&mut here, &key);
        let Some(inode) = &self.position.inode else {
            return Ok(());
        };
        if inode.ino != key.objectid || inode.is(mode::LINK) {
            return Ok(());
        }
        if !inode.is(mode::FILE) {
            fs_crit!(
                self.snapshots.session.fs(),
                "send: extent for non-regular inode {} root {} mode 0{:o}",
                inode.ino,
                self.snapshots.root.id,
                mode::kind(inode.item.mode.get())
            );
            return Err(EUCLEAN);
        }
        let size = inode.item.size.get();
        let changed = inode.fate == Fate::Changed;
        self.output.data.begin_file(!changed);
        let extent = file_extent::parse(key, data, self.snapshots.sectorsize)?;
        if changed {
            if !self.is_unchanged(here, key)? {
                self.send_extent(here, &extent, size)?;
            }
            return self.hole_before(here, key);
        }
        match extent.kind {
            // A file starts out as a hole, and there is no command for preallocation.
            Kind::Hole | Kind::Prealloc(_) => Ok(()),
            Kind::Inline(_) | Kind::Regular(_) => self.send_extent(here, &extent, size),
        }
    }

    /// Sends what of an extent is within the file, which has `size` bytes.
    fn send_extent(&mut self, here: &mut Here, extent: &Extent<'_>, size: u64) -> Result {
        let end = match extent.kind {
            // Inline data stands for its whole sector, whatever its length.
            Kind::Inline(_) => u64::from(self.snapshots.sectorsize),
            _ => extent.end(),
        };
        let end = end.min(size);
        if extent.offset >= end {
            return Ok(());
        }
        let clone = match extent.kind {
            Kind::Regular(regular) | Kind::Prealloc(regular) => self
                .find_clone(here, extent, &regular)?
                .map(|from| (from, regular)),
            Kind::Hole | Kind::Inline(_) => None,
        };
        match clone {
            Some((from, regular)) if self.may_clone_to(end, extent, &from)? => {
                self.clone_range(here, extent, &regular, end, &from)?;
            }
            _ => {
                let len = end.saturating_sub(extent.offset);
                self.send_data(here, extent, extent.offset, len)?;
            }
        }
        if let Some(inode) = &mut self.position.inode {
            inode.next_write = end;
        }
        Ok(())
    }

    /// Sends `len` bytes of the file at `offset`, all of which are in `extent`.
    pub(in crate::send) fn send_data(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        offset: u64,
        len: u64,
    ) -> Result {
        if self.output.options.no_data {
            return self.send_update(offset, len);
        }
        self.know_path()?;
        // An extent of which less is wanted than its compressed size is sent as plain data.
        match extent.kind {
            Kind::Inline(inline) if self.sends_packed(inline.compression) => {
                if inline.data.len() as u64 <= len {
                    return self.send_packed_inline(extent, &inline, offset, len);
                }
            }
            Kind::Regular(regular) if self.sends_packed(regular.compression) => {
                if regular.disk_num_bytes <= len {
                    return self.send_packed(here, extent, &regular, offset, len);
                }
            }
            _ => {}
        }
        let into = offset.checked_sub(extent.offset).ok_or(EUCLEAN)?;
        match extent.kind {
            Kind::Inline(inline) => {
                self.output.data.load_inline(&inline)?;
                self.write_plain(into, offset, len)
            }
            Kind::Regular(regular) if regular.compression != compression::NONE => {
                let owner = self.owner()?;
                self.output
                    .data
                    .load_packed(here, &owner, &regular, extent.offset)?;
                let skip = regular.extent_offset.checked_add(into).ok_or(EUCLEAN)?;
                self.write_plain(skip, offset, len)
            }
            Kind::Regular(regular) => self.write_raw(here, &regular, into, offset, len),
            // What was something else in the parent.
            Kind::Hole | Kind::Prealloc(_) => self.write_zeros(offset, len),
        }
    }

    /// Says that `len` bytes of the current file at `offset` changed.
    pub(in crate::send) fn send_update(&mut self, offset: u64, len: u64) -> Result {
        self.know_path()?;
        self.output
            .stream
            .command(Command::UpdateExtent)?
            .bytes(Attr::Path, self.position.path.as_bytes())?
            .u64(Attr::FileOffset, offset)?
            .u64(Attr::Size, len)?
            .end()
    }

    /// Writes `len` zeros to `offset` of the current file.
    pub(in crate::send) fn write_zeros(&mut self, offset: u64, len: u64) -> Result {
        self.know_path()?;
        let piece = self.output.stream.version().max_data();
        let mut done = 0u64;
        while done < len {
            let size = len.saturating_sub(done).min(piece);
            let zeros = self.output.data.zeros(size)?;
            self.output
                .stream
                .command(Command::Write)?
                .bytes(Attr::Path, self.position.path.as_bytes())?
                .u64(Attr::FileOffset, offset.saturating_add(done))?
                .data(zeros, &[])?;
            done = done.saturating_add(size);
        }
        Ok(())
    }

    fn sends_packed(&self, method: u8) -> bool {
        self.output.options.compressed && method != compression::NONE
    }

    fn owner(&self) -> Result<Owner> {
        let inode = self.position.inode.as_ref().ok_or(EINVAL)?;
        Ok(Owner::new(
            self.snapshots.session.fs(),
            self.snapshots.root.id,
            inode.ino,
            inode.item.flags.get(),
        ))
    }

    /// Writes `len` bytes of what was decompressed, from `skip` on, to `offset`; zeros where it
    /// ends before that.
    fn write_plain(&mut self, skip: u64, offset: u64, len: u64) -> Result {
        let piece = self.output.stream.version().max_data();
        let mut done = 0u64;
        while done < len {
            let size = len.saturating_sub(done).min(piece);
            let at = skip.checked_add(done).ok_or(EUCLEAN)?;
            let bytes = self.output.data.plain(at, size)?;
            self.output
                .stream
                .command(Command::Write)?
                .bytes(Attr::Path, self.position.path.as_bytes())?
                .u64(Attr::FileOffset, offset.saturating_add(done))?
                .data(bytes, &[])?;
            done = done.saturating_add(size);
        }
        Ok(())
    }

    /// Writes `len` bytes of an extent that is not compressed, from `into` its part of the file on,
    /// to `offset`.
    fn write_raw(
        &mut self,
        here: &mut Here,
        regular: &Regular,
        into: u64,
        offset: u64,
        len: u64,
    ) -> Result {
        let owner = self.owner()?;
        let piece = self.output.stream.version().max_data();
        let start = regular.extent_offset.checked_add(into).ok_or(EUCLEAN)?;
        let mut done = 0u64;
        while done < len {
            let left = len.saturating_sub(done);
            let size = left.min(piece);
            let at = offset.saturating_add(done);
            let part = Part {
                start: start.checked_add(done).ok_or(EUCLEAN)?,
                size,
                left,
                file_offset: at,
            };
            let (bytes, sums) = self.output.data.raw(here, &owner, part)?;
            self.output
                .stream
                .command(Command::Write)?
                .bytes(Attr::Path, self.position.path.as_bytes())?
                .u64(Attr::FileOffset, at)?
                .data(bytes, sums)?;
            done = done.saturating_add(size);
        }
        Ok(())
    }

    fn send_packed_inline(
        &mut self,
        extent: &Extent<'_>,
        inline: &Inline<'_>,
        offset: u64,
        len: u64,
    ) -> Result {
        let into = offset.checked_sub(extent.offset).ok_or(EUCLEAN)?;
        let method = self.encoding(inline.compression)?;
        self.output
            .stream
            .command(Command::EncodedWrite)?
            .bytes(Attr::Path, self.position.path.as_bytes())?
            .u64(Attr::FileOffset, offset)?
            .u64(
                Attr::UnencodedFileLen,
                inline.ram_bytes.saturating_sub(into).min(len),
            )?
            .u64(Attr::UnencodedLen, inline.ram_bytes)?
            .u64(Attr::UnencodedOffset, into)?
            .u32(Attr::Compression, method)?
            .data(inline.data, &[])
    }

    fn send_packed(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        regular: &Regular,
        offset: u64,
        len: u64,
    ) -> Result {
        let into = offset.checked_sub(extent.offset).ok_or(EUCLEAN)?;
        let skip = regular.extent_offset.checked_add(into).ok_or(EUCLEAN)?;
        let method = self.encoding(regular.compression)?;
        let owner = self.owner()?;
        let whole = Part {
            start: 0,
            size: regular.disk_num_bytes,
            left: regular.disk_num_bytes,
            file_offset: offset,
        };
        let (bytes, sums) = self.output.data.raw(here, &owner, whole)?;
        self.output
            .stream
            .command(Command::EncodedWrite)?
            .bytes(Attr::Path, self.position.path.as_bytes())?
            .u64(Attr::FileOffset, offset)?
            .u64(
                Attr::UnencodedFileLen,
                extent.len.saturating_sub(into).min(len),
            )?
            .u64(Attr::UnencodedLen, regular.ram_bytes)?
            .u64(Attr::UnencodedOffset, skip)?
            .u32(Attr::Compression, method)?
            .u32(Attr::Encryption, 0)?
            .data(bytes, sums)
    }

    /// How the stream calls a compression.
    fn encoding(&self, method: u8) -> Result<u32> {
        match method {
            compression::ZLIB => Ok(encoded::ZLIB),
            compression::ZSTD => Ok(encoded::ZSTD),
            // The segments of LZO are as long as a sector, so that each sector size is a format of
            // its own.
            compression::LZO => {
                let steps = u32::from(self.snapshots.sectorsize)
                    .checked_ilog2()
                    .and_then(|bits| bits.checked_sub(12));
                steps
                    .filter(|steps| *steps <= 4)
                    .map(|steps| encoded::LZO_4K.saturating_add(steps))
                    .ok_or(EINVAL)
            }
            _ => Err(EUCLEAN),
        }
    }
}
