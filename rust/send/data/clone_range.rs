// SPDX-License-Identifier: GPL-2.0
//! Sending an extent as clones of what a source has of it, and as data where it has something else.

use super::clones::CloneFrom;
use crate::format::file_extent::FileExtent;
use crate::format::inode::InodeItem;
use crate::format::{self, item_type, BlockSize, Key};
use crate::send::context::Send;
use crate::send::cursor::{Cursor, Here};
use crate::send::names::path::FsPath;
use crate::send::proto::{Attr, Command};
use crate::send::snapshots::Snapshot;
use crate::subvol::file_extent::{Extent, Regular};
use kernel::prelude::*;

/// The alignment that a receiver with the largest sector size needs, in bytes.
const MAX_SECTOR: u64 = 64 << 10;

impl Send<'_> {
    /// The inode item of what `source` would be cloned from.
    fn source_inode(&mut self, index: usize, ino: u64) -> Result<InodeItem> {
        let source = self.output.clones.sources.get_mut(index).ok_or(EINVAL)?;
        let key = Key::new(ino, item_type::INODE_ITEM, 0);
        format::read(source.finder.exact(&key)?.ok_or(ENOENT)?)
    }

    /// Whether an extent that ends at `end` in the current inode can be cloned from `from`. An end
    /// within a sector can be cloned only from the end of a file to the end of a file.
    pub(in crate::send) fn may_clone_to(
        &mut self,
        end: u64,
        extent: &Extent<'_>,
        from: &CloneFrom,
    ) -> Result<bool> {
        if self.snapshots.session.fs().geometry.is_sector_aligned(end) {
            return Ok(true);
        }
        let size = self
            .position
            .inode
            .as_ref()
            .map_or(0, |inode| inode.item.size.get());
        if end != size {
            return Ok(false);
        }
        let source_size = self.source_inode(from.source, from.place.ino)?.size.get();
        let len = end.saturating_sub(extent.offset);
        Ok(from.place.offset.checked_add(len) == Some(source_size))
    }

    /// Sends a CLONE of `len` bytes from `from` of the source to `offset` of the current inode.
    fn send_clone(&mut self, source: &SourceFile, from: u64, offset: u64, len: u64) -> Result {
        self.know_path()?;
        let mut path = core::mem::replace(&mut self.names.other, FsPath::empty());
        let found = if source.is_current && self.snapshots.parent.is_some() {
            self.snapshots
                .generation_in(Snapshot::Sent, source.ino)
                .and_then(|generation| self.get_cur_path(source.ino, generation, &mut path))
        } else if source.is_current {
            self.path_of(source.ino, &mut path).map(|_| ())
        } else {
            self.output
                .clones
                .path_of(source.index, source.ino, &mut path)
        };
        self.names.other = path;
        found?;
        let known = self.output.clones.sources.get(source.index).ok_or(EINVAL)?;
        self.output
            .stream
            .command(Command::Clone)?
            .u64(Attr::FileOffset, offset)?
            .u64(Attr::CloneLen, len)?
            .bytes(Attr::Path, self.position.path.as_bytes())?
            .bytes(Attr::CloneUuid, &known.uuid)?
            .u64(Attr::CloneCtransid, known.ctransid)?
            .bytes(Attr::ClonePath, self.names.other.as_bytes())?
            .u64(Attr::CloneOffset, from)?
            .end()
    }
}

/// What a file extent item of a source says.
#[derive(Clone, Copy)]
struct SourceExtent {
    offset: u64,
    len: u64,
    /// The extent's address and where in it the file's part starts, in bytes; `None` for inline
    /// data.
    disk: Option<(u64, u64)>,
}

impl SourceExtent {
    fn parse(key: &Key, data: &[u8], sectorsize: BlockSize) -> Result<Self> {
        let extent = |len, disk| SourceExtent {
            offset: key.offset,
            len,
            disk,
        };
        match FileExtent::read(data)? {
            FileExtent::Inline { head, .. } => {
                let len = sectorsize.round_up(head.ram_bytes.get());
                Ok(extent(len.ok_or(EUCLEAN)?, None))
            }
            FileExtent::Regular(item) => {
                let disk = (item.disk_bytenr.get(), item.offset.get());
                Ok(extent(item.num_bytes.get(), Some(disk)))
            }
        }
    }
}

/// A clone under way: what of the current inode is still to be sent, and where that is in the
/// source.
struct Range {
    /// In the current inode.
    offset: u64,
    len: u64,
    /// In the source.
    from: u64,
    /// In the extent.
    data_offset: u64,
}

impl Range {
    fn advance(&mut self, by: u64) -> Result {
        self.offset = self.offset.checked_add(by).ok_or(EUCLEAN)?;
        self.from = self.from.checked_add(by).ok_or(EUCLEAN)?;
        self.data_offset = self.data_offset.checked_add(by).ok_or(EUCLEAN)?;
        self.len = self.len.checked_sub(by).ok_or(EUCLEAN)?;
        Ok(())
    }
}

/// A piece of the current inode.
enum Piece<'s> {
    /// Has the data at `from` of the source.
    Clone { source: &'s SourceFile, from: u64 },
    /// Has data that nothing is known to share.
    Data,
}

/// Takes the pieces of the current inode one after the other: what it is, where it starts, and its
/// length, in bytes.
type Pieces<'p, 'a> = dyn FnMut(&mut Send<'a>, &mut Here, Piece<'_>, u64, u64) -> Result + 'p;

impl<'a> Send<'a> {
    /// Sends the part of the current inode in `extent` that ends at `end`: clones what is shared
    /// with `from`, and writes the rest.
    pub(in crate::send) fn clone_range(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        regular: &Regular,
        end: u64,
        from: &CloneFrom,
    ) -> Result {
        // The file may still be longer at the receiver, so that this would not be its end.
        if self.snapshots.parent.is_some()
            && !self.snapshots.session.fs().geometry.is_sector_aligned(end)
        {
            self.send_truncate(extent.offset)?;
        }
        let each =
            &mut |send: &mut Self, here: &mut Here, piece: Piece<'_>, offset, len| match piece {
                Piece::Clone { source, from } => send.send_clone(source, from, offset, len),
                Piece::Data => send.send_data(here, extent, offset, len),
            };
        self.split(here, extent, regular, end, from, each)
    }

    /// How many bytes [`Self::clone_range`] would clone.
    pub(in crate::send) fn cloned_from(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        regular: &Regular,
        end: u64,
        from: &CloneFrom,
    ) -> Result<u64> {
        let mut cloned = 0u64;
        if !self.may_clone_to(end, extent, from)? {
            return Ok(cloned);
        }
        let each = &mut |_: &mut Self, _: &mut Here, piece: Piece<'_>, _, len| {
            if let Piece::Clone { .. } = piece {
                cloned = cloned.saturating_add(len);
            }
            Ok(())
        };
        self.split(here, extent, regular, end, from, each)?;
        Ok(cloned)
    }

    /// Splits the part of the current inode in `extent` that ends at `end` into what is shared with
    /// `from` and the rest.
    fn split(
        &mut self,
        here: &mut Here,
        extent: &Extent<'_>,
        regular: &Regular,
        end: u64,
        from: &CloneFrom,
        each: &mut Pieces<'_, 'a>,
    ) -> Result {
        let (index, best) = (from.source, from.place);
        let root = self.output.clones.sources.get(index).ok_or(EINVAL)?.root;
        let mut range = Range {
            offset: extent.offset,
            len: end.saturating_sub(extent.offset),
            from: best.offset,
            data_offset: regular.extent_offset,
        };
        // A receiver may have this sector inline, and inline data cannot be cloned to just
        // anywhere.
        if range.from == 0 && range.len == u64::from(self.snapshots.sectorsize) {
            return each(self, here, Piece::Data, range.offset, range.len);
        }
        let source_size = self.source_inode(index, best.ino)?.size.get();
        let mut cursor = Cursor::new(self.snapshots.session, root.id);
        let start = Key::new(best.ino, item_type::EXTENT_DATA, range.from);
        let inside = cursor.seek_before(&start)?
            && cursor
                .item()
                .is_some_and(|(key, _)| key.is(best.ino, item_type::EXTENT_DATA));
        if !inside {
            cursor.seek(&start)?;
        }
        let tree = self.snapshots.root.id;
        while cursor.key().is_some() {
            // Both addresses are of one commit, as no command is sent until they are compared.
            self.snapshots
                .session
                .read(|reader| here.renew(reader, tree))?;
            cursor.renew()?;
            let (key, data) = cursor.item().ok_or(EUCLEAN)?;
            if !key.is(best.ino, item_type::EXTENT_DATA) {
                break;
            }
            let found = SourceExtent::parse(&key, data, self.snapshots.sectorsize)?;
            let source = SourceFile {
                index,
                ino: best.ino,
                size: source_size,
                is_current: root.id == self.snapshots.root.id,
            };
            let bytenr = here.extent()?;
            if !self.clone_step(here, bytenr, &source, found, &mut range, each)? {
                break;
            }
            cursor.next()?;
        }
        if range.len == 0 {
            return Ok(());
        }
        each(self, here, Piece::Data, range.offset, range.len)
    }

    /// Goes over one file extent of the source; returns whether the next one may have more.
    fn clone_step(
        &mut self,
        here: &mut Here,
        disk_bytenr: u64,
        source: &SourceFile,
        found: SourceExtent,
        range: &mut Range,
        each: &mut Pieces<'_, 'a>,
    ) -> Result<bool> {
        let found_end = found.offset.checked_add(found.len).ok_or(EUCLEAN)?;
        if found_end <= range.from {
            return Ok(true);
        }
        if found.offset > range.from {
            // The source has a hole here.
            let hole = found.offset.saturating_sub(range.from).min(range.len);
            each(self, here, Piece::Data, range.offset, hole)?;
            range.advance(hole)?;
            if range.len == 0 {
                return Ok(false);
            }
        }
        let range_end = range.from.checked_add(range.len).ok_or(EUCLEAN)?;
        if found.offset >= range_end || found.offset >= source.size {
            return Ok(false);
        }
        let crossed = found_end > source.size;
        let mut len = found_end.min(source.size).saturating_sub(found.offset);
        let shared = found.disk.filter(|(bytenr, _)| *bytenr == disk_bytenr);
        let mut data_offset = found.disk.map_or(0, |(_, offset)| offset);
        if shared.is_some() {
            range.from = found.offset;
            let ahead = range.data_offset.saturating_sub(data_offset);
            if ahead > 0 && ahead < len {
                len = len.saturating_sub(ahead);
                data_offset = range.data_offset;
                range.from = range.from.checked_add(ahead).ok_or(EUCLEAN)?;
            }
        }
        let len = len.min(range.len);
        if shared.is_some() && data_offset == range.data_offset {
            self.clone_piece(here, source, range, len, each)?;
        } else if crossed && len < range.len {
            // The source ends here: the rest goes as one piece.
            return Ok(false);
        } else {
            each(self, here, Piece::Data, range.offset, len)?;
        }
        range.advance(len)?;
        if range.len == 0 {
            return Ok(false);
        }
        // Of the file being sent only what the receiver has so far can be cloned.
        let current = self.position.inode.as_ref().ok_or(EINVAL)?;
        let own = source.is_current && source.ino == current.ino;
        Ok(!(own && range.from >= current.next_write))
    }

    /// Clones `len` bytes, except the end of a file whose last sector would come to lie within the
    /// current one.
    fn clone_piece(
        &mut self,
        here: &mut Here,
        source: &SourceFile,
        range: &Range,
        len: u64,
        each: &mut Pieces<'_, 'a>,
    ) -> Result {
        let from = range.from;
        let size = self
            .position
            .inode
            .as_ref()
            .map_or(0, |inode| inode.item.size.get());
        let source_end = from.checked_add(len).ok_or(EUCLEAN)?;
        let end = range.offset.checked_add(len).ok_or(EUCLEAN)?;
        let ends_within = source_end == source.size && source_end % MAX_SECTOR != 0 && end < size;
        if !ends_within {
            return each(self, here, Piece::Clone { source, from }, range.offset, len);
        }
        let whole = len.saturating_sub(len % MAX_SECTOR);
        if whole > 0 {
            each(
                self,
                here,
                Piece::Clone { source, from },
                range.offset,
                whole,
            )?;
        }
        let rest = range.offset.checked_add(whole).ok_or(EUCLEAN)?;
        each(self, here, Piece::Data, rest, len.saturating_sub(whole))
    }
}

/// The file that is cloned from.
struct SourceFile {
    /// The source's index.
    index: usize,
    ino: u64,
    size: u64,
    /// The source is the subvolume being sent.
    is_current: bool,
}
