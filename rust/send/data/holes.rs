// SPDX-License-Identifier: GPL-2.0
//! What of a changed file is the same as in the parent, and what became a hole.

use crate::format::file_extent::{FileExtent, TYPE_INLINE, TYPE_REG};
use crate::format::{item_type, BlockSize, Key};
use crate::send::context::Send;
use crate::send::current_inode::{mode, Fate};
use crate::send::cursor::{Cursor, Here};
use crate::send::proto::{Attr, Command, Version};
use kernel::prelude::*;

/// The flags of fallocate(2) that make a hole and keep the file's size.
const PUNCH_HOLE: u32 = 0x02 | 0x01;

/// A file extent item, as far as it says whether data changed.
struct Raw {
    offset: u64,
    typ: u8,
    generation: u64,
    /// In bytes; of inline data, whole sectors.
    len: u64,
    /// The extent's address and where in it the part starts; 0 for a hole.
    disk_bytenr: u64,
    extent_offset: u64,
}

impl Raw {
    fn parse(key: &Key, data: &[u8], sectorsize: BlockSize) -> Result<Raw> {
        let item = FileExtent::read(data)?;
        let head = item.head();
        let mut raw = Raw {
            offset: key.offset,
            typ: head.typ,
            generation: head.generation.get(),
            len: 0,
            disk_bytenr: 0,
            extent_offset: 0,
        };
        match item {
            FileExtent::Inline { head, .. } => {
                let len = head.ram_bytes.get();
                raw.len = sectorsize.round_up(len).ok_or(EUCLEAN)?;
            }
            FileExtent::Regular(item) => {
                raw.len = item.num_bytes.get();
                raw.disk_bytenr = item.disk_bytenr.get();
                raw.extent_offset = item.offset.get();
            }
        }
        Ok(raw)
    }

    /// Where the part ends in the file, in bytes. Inline data stands for one sector.
    fn end(&self, sectorsize: BlockSize) -> Result<u64> {
        let len = match self.typ {
            TYPE_INLINE => u64::from(sectorsize),
            _ => self.len,
        };
        self.offset.checked_add(len).ok_or(EUCLEAN)
    }
}

impl Send<'_> {
    /// Whether what an item of the current file refers to is what the parent has there, if cut in
    /// other pieces.
    pub(in crate::send) fn is_unchanged(&mut self, here: &mut Here, key: &Key) -> Result<bool> {
        let sectorsize = self.snapshots.sectorsize;
        let tree = self.snapshots.root.id;
        // Both addresses are of one commit, as no command is sent in between.
        self.snapshots
            .session
            .read(|reader| here.renew(reader, tree))?;
        let sent = Raw::parse(key, here.data()?, sectorsize)?;
        if sent.typ != TYPE_REG {
            return Ok(false);
        }
        let is_hole = sent.disk_bytenr == 0;
        let end = sent.end(sectorsize)?;
        let cursor = &mut self.snapshots.parent.as_mut().ok_or(EINVAL)?.extents;
        if !cursor.seek_before(key)? {
            return Ok(false);
        }
        let part_of = |at: &Key| at.is(key.objectid, item_type::EXTENT_DATA);
        let mut at = match cursor.key() {
            Some(at) if part_of(&at) => at.offset,
            // Where the parent has nothing, a hole is no news.
            _ => return Ok(is_hole),
        };
        while at < end {
            let Some((found, data)) = cursor.item() else {
                return Ok(false);
            };
            let old = Raw::parse(&found, data, sectorsize)?;
            if old.typ != TYPE_REG && old.typ != TYPE_INLINE {
                return Ok(false);
            }
            let old_end = old.offset.checked_add(old.len).ok_or(EUCLEAN)?;
            // The parent's file ends before this.
            if old_end <= sent.offset {
                return Ok(is_hole);
            }
            if old.typ == TYPE_INLINE {
                return Ok(false);
            }
            // Where in their extents both have the first byte that they have in common.
            let ours = old.offset.saturating_sub(sent.offset);
            let theirs = sent.offset.saturating_sub(old.offset);
            let same = sent.disk_bytenr == old.disk_bytenr
                && sent.generation == old.generation
                && sent.extent_offset.wrapping_add(ours) == old.extent_offset.wrapping_add(theirs);
            if !same {
                return Ok(false);
            }
            cursor.next()?;
            match cursor.key() {
                Some(next) if part_of(&next) => {
                    if next.offset != old_end {
                        return Ok(false);
                    }
                    at = next.offset;
                }
                _ => return Ok(old_end >= end),
            }
        }
        Ok(true)
    }

    /// Whether holes of the current file have to be made at the receiver.
    fn makes_holes(&self) -> bool {
        let inode = self.position.inode.as_ref();
        inode.is_some_and(|inode| inode.fate == Fate::Changed && inode.is(mode::FILE))
    }

    /// An item of a file that is as in the parent.
    pub(in crate::send) fn extent_kept(&mut self, here: &Here, key: &Key) -> Result {
        let is_current = self
            .position
            .inode
            .as_ref()
            .is_some_and(|inode| inode.ino == key.objectid && !inode.ignored);
        if !is_current || !self.makes_holes() {
            return Ok(());
        }
        self.hole_before(here, key)
    }

    /// Makes the hole before an item of the current file, if there is one, and was not in the
    /// parent.
    pub(in crate::send) fn hole_before(&mut self, here: &Here, key: &Key) -> Result {
        if !self.makes_holes() {
            return Ok(());
        }
        let end = Raw::parse(key, here.data()?, self.snapshots.sectorsize)?
            .end(self.snapshots.sectorsize)?;
        let known = self
            .position
            .inode
            .as_ref()
            .and_then(|inode| inode.last_extent);
        let last = match known {
            // Whole leaves that are the same in the parent are passed by.
            Some(last) if here.slot != 0 || last >= key.offset => last,
            _ => self.end_of_extent_at(key.offset.wrapping_sub(1))?,
        };
        if last < key.offset && !self.was_hole(last, key.offset)? {
            self.send_hole(last, key.offset)?;
        }
        if let Some(inode) = &mut self.position.inode {
            inode.last_extent = Some(end);
        }
        Ok(())
    }

    /// Makes the hole at the end of the current file.
    pub(in crate::send) fn hole_at_end(&mut self) -> Result {
        if !self.makes_holes() {
            return Ok(());
        }
        let inode = self.position.inode.as_ref().ok_or(EINVAL)?;
        let size = inode.item.size.get();
        let last = match inode.last_extent {
            Some(last) if last >= size => return Ok(()),
            _ => self.end_of_extent_at(u64::MAX)?,
        };
        if let Some(inode) = &mut self.position.inode {
            inode.last_extent = Some(last);
        }
        if last < size && !self.was_hole(last, size)? {
            self.send_hole(last, size)?;
        }
        Ok(())
    }

    /// Where the extent of the current file ends that starts at or before `offset`, 0 if there is
    /// none.
    fn end_of_extent_at(&mut self, offset: u64) -> Result<u64> {
        let ino = self.position.inode.as_ref().ok_or(EINVAL)?.ino;
        let mut cursor = Cursor::new(self.snapshots.session, self.snapshots.root.id);
        cursor.seek_before(&Key::new(ino, item_type::EXTENT_DATA, offset))?;
        match cursor.item() {
            Some((key, data)) if key.is(ino, item_type::EXTENT_DATA) => {
                Raw::parse(&key, data, self.snapshots.sectorsize)?.end(self.snapshots.sectorsize)
            }
            _ => Ok(0),
        }
    }

    /// Whether the current file is a hole from `start` to `end` in the parent.
    fn was_hole(&mut self, start: u64, end: u64) -> Result<bool> {
        let sectorsize = self.snapshots.sectorsize;
        let ino = self.position.inode.as_ref().ok_or(EINVAL)?.ino;
        let cursor = &mut self.snapshots.parent.as_mut().ok_or(EINVAL)?.extents;
        let key = Key::new(ino, item_type::EXTENT_DATA, start);
        if !cursor.seek_before(&key)? {
            cursor.seek(&key)?;
        }
        let mut from = start;
        while from < end {
            let Some((at, data)) = cursor.item() else {
                break;
            };
            if at.objectid == ino && at.typ == item_type::EXTENT_DATA {
                if at.offset >= end {
                    break;
                }
                let old = Raw::parse(&at, data, sectorsize)?;
                let old_end = old.end(sectorsize)?;
                if old_end > start {
                    if old.typ == TYPE_INLINE || old.disk_bytenr != 0 {
                        return Ok(false);
                    }
                    from = old_end;
                }
            } else if at > key {
                break;
            }
            cursor.next()?;
        }
        Ok(true)
    }

    /// Makes a hole from `offset` to `end`: version 1 has no command for it and writes zeros.
    fn send_hole(&mut self, offset: u64, end: u64) -> Result {
        if self.output.stream.version() >= Version::V2 {
            self.know_path()?;
            return self
                .output
                .stream
                .command(Command::Fallocate)?
                .bytes(Attr::Path, self.position.path.as_bytes())?
                .u32(Attr::FallocateMode, PUNCH_HOLE)?
                .u64(Attr::FileOffset, offset)?
                .u64(Attr::Size, end.saturating_sub(offset))?
                .end();
        }
        // What lies after the file's end goes when its size is set.
        let size = self.position.inode.as_ref().ok_or(EINVAL)?.item.size.get();
        if offset >= size {
            return Ok(());
        }
        let end = end.min(size);
        if self.output.options.no_data {
            return self.send_update(offset, end.saturating_sub(offset));
        }
        self.write_zeros(offset, end.saturating_sub(offset))?;
        if let Some(inode) = &mut self.position.inode {
            inode.next_write = end;
        }
        Ok(())
    }
}
