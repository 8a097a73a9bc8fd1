// SPDX-License-Identifier: GPL-2.0
//! Clones: data that is shared with something the receiver has already is shared there, too.
//!
//! Sources are the subvolume being sent, as far as it has been sent, and those that the caller says the receiver
//! has. Which of several candidates is taken decides what the stream looks like, and follows the C driver: the
//! first that covers the whole extent, in the order in which [`super::backrefs`] finds them, or else the largest.

use super::ahead;
use super::backrefs::{Candidate, Candidates, Walk};
use super::data::Here;
use super::full::Send;
use super::lookup::Finder;
use super::path::{is_name, push_name, Path};
use super::proto::{Attr, Command};
use super::roots_cache::RootsCache;
use super::snapshots::Snapshot;
use super::Sendable;
use crate::format::file_extent::{FileExtentHead, FileExtentItem, TYPE_INLINE};
use crate::format::inode::InodeItem;
use crate::format::{self, compression, item_type, objectid, tree_id, Key};
use crate::fs_warn;
use crate::subvol::file_extent::{Extent, Regular};
use crate::subvol::inode::names_of_item;
use crate::tree::TreeRoot;
use crate::volume::Reader;
use kernel::prelude::*;

/// The alignment that a receiver with the largest sector size needs, in bytes.
const MAX_SECTOR: u64 = 64 << 10;

/// Warnings of one send about sources that cannot be looked up.
const MAX_WARNINGS: u32 = 10;

/// A subvolume to clone from.
pub(super) struct Source<'a> {
    root: TreeRoot,
    /// What the receiver knows it by.
    uuid: [u8; 16],
    ctransid: u64,
    finder: Finder<'a, Reader>,
    /// The best that was found in it for the current extent.
    best: Option<Candidate>,
}

/// Everything that the current send may clone from.
pub(super) struct CloneSources<'a> {
    /// Sorted by tree id; among them the subvolume being sent.
    sources: KVec<Source<'a>>,
    extents: Finder<'a, Reader>,
    cache: RootsCache,
    warnings: u32,
}

impl<'a> CloneSources<'a> {
    pub(super) fn new(reader: &'a Reader) -> Result<Self> {
        Ok(CloneSources {
            sources: KVec::new(),
            extents: Finder::new(reader, reader.root(tree_id::EXTENT)?),
            cache: RootsCache::new(),
            warnings: 0,
        })
    }

    /// Adds a subvolume; one that is there already stays once.
    pub(super) fn add(&mut self, reader: &'a Reader, subvolume: &Sendable) -> Result {
        let root = subvolume.root;
        if self.sources.iter().any(|source| source.root.id == root.id) {
            return Ok(());
        }
        let source = Source {
            root,
            uuid: subvolume.uuid,
            ctransid: subvolume.ctransid,
            finder: Finder::new(reader, root),
            best: None,
        };
        self.sources.push(source, GFP_KERNEL)?;
        crate::sort::sort_by_key(&mut self.sources, |source| source.root.id);
        Ok(())
    }

    /// The tree of extents.
    pub(super) fn extent_root(&self) -> TreeRoot {
        self.extents.root()
    }

    /// The trees of all sources.
    pub(super) fn roots(&self) -> impl Iterator<Item = TreeRoot> + use<'_, 'a> {
        self.sources.iter().map(|source| source.root)
    }
}

/// Decides which of the places that share an extent can be cloned from.
struct Judge<'s, 'a> {
    sources: &'s mut [Source<'a>],
    send_root: u64,
    /// The inode and offset that want the data.
    ino: u64,
    offset: u64,
    /// How much of it, in bytes.
    len: u64,
    /// Where the file ends at the receiver so far, in bytes.
    next_write: u64,
}

impl Candidates for Judge<'_, '_> {
    fn wants(&self, root: u64) -> bool {
        let by_id = |source: &Source<'_>| source.root.id.cmp(&root);
        self.sources.binary_search_by(by_id).is_ok()
    }

    fn offer(&mut self, root: u64, candidate: &Candidate) -> bool {
        let by_id = |source: &Source<'_>| source.root.id.cmp(&root);
        let Ok(at) = self.sources.binary_search_by(by_id) else {
            return false;
        };
        if root == self.send_root {
            // What is still to come, this very extent included, is not there to be cloned.
            let end = candidate.offset.wrapping_add(self.len);
            let behind = candidate.ino == self.ino
                && (candidate.offset == self.offset || end > self.next_write);
            if candidate.ino > self.ino || behind {
                return false;
            }
        }
        let Some(source) = self.sources.get_mut(at) else {
            return false;
        };
        let known = source.best.map_or(0, |best| best.num_bytes);
        if candidate.num_bytes <= known {
            return false;
        }
        source.best = Some(*candidate);
        candidate.num_bytes >= self.len
    }

    fn is_own(&self, root: u64, ino: u64, offset: u64, own: (u64, u64)) -> bool {
        // With other sources about, the subvolume's own reference may lead to them, if they share its leaf.
        self.sources.len() == 1 && ino == self.ino && (root, offset) == own
    }

    fn alone(&self) -> bool {
        self.sources.len() == 1
    }
}

impl Send<'_> {
    /// Looks for something to clone the current inode's `extent` from: the index of the source, whose `best` it is.
    /// The item at `here` is that of the extent.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINTR`. Anything else only means that data is sent.
    pub(super) fn find_clone(
        &mut self,
        here: Here<'_>,
        extent: &Extent<'_>,
        regular: &Regular,
    ) -> Result<Option<usize>> {
        let Some(inode) = &self.inode else {
            return Ok(None);
        };
        let size = inode.item.size.get();
        let left = size.saturating_sub(extent.offset);
        let clones = &mut self.clones;
        for source in clones.sources.iter_mut() {
            source.best = None;
        }
        if clones.sources.len() > 1 {
            ahead::read_for_clone(self.reader, &clones.extents, here, regular);
        }
        let mut judge = Judge {
            sources: &mut clones.sources,
            send_root: self.root.id,
            ino: inode.ino,
            offset: extent.offset,
            len: extent.len.min(left),
            next_write: inode.next_write,
        };
        let mut walk = Walk {
            reader: self.reader,
            extents: &mut clones.extents,
            cache: &mut clones.cache,
            bytenr: regular.disk_bytenr,
            position: match regular.compression {
                compression::NONE => regular.extent_offset,
                _ => 0,
            },
            own: (
                here.leaf.owner(),
                extent.offset.wrapping_sub(regular.extent_offset),
            ),
        };
        match walk.run(&mut judge) {
            Ok(()) => {}
            Err(error) if error == ENOMEM || error == EINTR => return Err(error),
            Err(error) => {
                if clones.warnings < MAX_WARNINGS {
                    clones.warnings = clones.warnings.saturating_add(1);
                    fs_warn!(
                        self.reader.fs(),
                        "send: cannot tell who shares extent {} of inode {} offset {} root {}, error {}: sending its data",
                        regular.disk_bytenr,
                        inode.ino,
                        extent.offset,
                        self.root.id,
                        error.to_errno()
                    );
                }
                return Ok(None);
            }
        }
        let wanted = extent.len.min(left);
        let mut chosen = None;
        let mut most = 0;
        for (index, source) in clones.sources.iter().enumerate() {
            let Some(best) = source.best else {
                continue;
            };
            if best.num_bytes > most {
                most = best.num_bytes;
                chosen = Some(index);
                if most >= wanted {
                    break;
                }
            }
        }
        Ok(chosen)
    }

    /// The inode item of what `source` would be cloned from.
    fn source_inode(&mut self, index: usize, ino: u64) -> Result<InodeItem> {
        let source = self.clones.sources.get_mut(index).ok_or(EINVAL)?;
        let key = Key::new(ino, item_type::INODE_ITEM, 0);
        format::read(source.finder.exact(&key)?.ok_or(ENOENT)?)
    }

    /// Whether an extent that ends at `end` in the current inode can be cloned from the candidate in `source`. An
    /// end within a sector can be cloned only from the end of a file to the end of a file, and makes the file as short
    /// as is needed for that at the receiver.
    pub(super) fn may_clone_to(
        &mut self,
        end: u64,
        extent: &Extent<'_>,
        index: usize,
    ) -> Result<bool> {
        if self.reader.fs().geometry.is_sector_aligned(end) {
            return Ok(true);
        }
        let size = self.inode.as_ref().map_or(0, |inode| inode.item.size.get());
        if end != size {
            return Ok(false);
        }
        let source = self.clones.sources.get(index).ok_or(EINVAL)?;
        let best = source.best.ok_or(EINVAL)?;
        let source_size = self.source_inode(index, best.ino)?.size.get();
        let len = end.saturating_sub(extent.offset);
        if best.offset.checked_add(len) != Some(source_size) {
            return Ok(false);
        }
        // The file may still be longer at the receiver, so that this would not be its end.
        if self.parent.is_some() {
            self.send_truncate(extent.offset)?;
        }
        Ok(true)
    }

    /// Sends a CLONE of `len` bytes from `from` of the source to `offset` of the current inode.
    fn send_clone(&mut self, source: &SourceFile, from: u64, offset: u64, len: u64) -> Result {
        self.know_path()?;
        let mut path = core::mem::replace(&mut self.other, Path::empty());
        let found = if source.is_current && self.parent.is_some() {
            self.generation_in(Snapshot::Sent, source.ino)
                .and_then(|generation| self.path_now(source.ino, generation, &mut path))
        } else if source.is_current {
            self.path_of(source.ino, &mut path).map(|_| ())
        } else {
            self.clones.path_of(source.index, source.ino, &mut path)
        };
        self.other = path;
        found?;
        let known = self.clones.sources.get(source.index).ok_or(EINVAL)?;
        self.stream
            .command(Command::Clone)?
            .u64(Attr::FileOffset, offset)?
            .u64(Attr::CloneLen, len)?
            .bytes(Attr::Path, self.path.as_bytes())?
            .bytes(Attr::CloneUuid, &known.uuid)?
            .u64(Attr::CloneCtransid, known.ctransid)?
            .bytes(Attr::ClonePath, self.other.as_bytes())?
            .u64(Attr::CloneOffset, from)?
            .end()
    }
}

impl CloneSources<'_> {
    /// The path of an inode in a source: the first name of each, up to the top.
    fn path_of(&mut self, index: usize, mut ino: u64, path: &mut Path) -> Result {
        let source = self.sources.get_mut(index).ok_or(EINVAL)?;
        let mut names: KVec<u8> = KVec::new();
        path.clear();
        while ino != objectid::FIRST_FREE {
            let key = Key::new(ino, item_type::INODE_REF, 0);
            let found = source.finder.at_or_behind(&key)?;
            let (at, data) = found
                .filter(|(at, _)| at.objectid == ino && at.typ <= item_type::INODE_EXTREF)
                .ok_or(ENOENT)?;
            let mut parent = None;
            names_of_item(&at, data, &mut |name| {
                if !is_name(name.name) {
                    return Err(EUCLEAN);
                }
                push_name(&mut names, name.name)?;
                parent = Some(name.parent);
                Ok(false)
            })?;
            ino = parent.ok_or(ENOENT)?;
        }
        path.push_names(&names)
    }
}

/// What a file extent item of a source says.
#[derive(Clone, Copy)]
struct SourceExtent {
    offset: u64,
    len: u64,
    /// The extent's address and where in it the file's part starts, in bytes; `None` for inline data.
    disk: Option<(u64, u64)>,
}

impl SourceExtent {
    fn parse(key: &Key, data: &[u8], sectorsize: u32) -> Result<Self> {
        let extent = |len, disk| SourceExtent {
            offset: key.offset,
            len,
            disk,
        };
        let head: FileExtentHead = format::read(data)?;
        if head.typ == TYPE_INLINE {
            let len = head.ram_bytes.get();
            let len = len.checked_next_multiple_of(u64::from(sectorsize));
            return Ok(extent(len.ok_or(EUCLEAN)?, None));
        }
        let item: FileExtentItem = format::read(data)?;
        let disk = (item.disk_bytenr.get(), item.offset.get());
        Ok(extent(item.num_bytes.get(), Some(disk)))
    }
}

/// A clone under way: what of the current inode is still to be sent, and where that is in the source.
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

impl<'a> Send<'a> {
    /// Sends the part of the current inode in `extent` that ends at `end`: clones what the candidate in source
    /// `index` shares of it, and writes the rest.
    pub(super) fn clone_range(
        &mut self,
        here: Here<'_>,
        extent: &Extent<'_>,
        regular: &Regular,
        end: u64,
        index: usize,
    ) -> Result {
        let source = self.clones.sources.get(index).ok_or(EINVAL)?;
        let best = source.best.ok_or(EINVAL)?;
        let root = source.root;
        let mut range = Range {
            offset: extent.offset,
            len: end.saturating_sub(extent.offset),
            from: best.offset,
            data_offset: regular.extent_offset,
        };
        // A receiver may have this sector inline, and inline data cannot be cloned to just anywhere.
        if range.from == 0 && range.len == u64::from(self.sectorsize) {
            return self.send_data(here, extent, range.offset, range.len);
        }
        let source_size = self.source_inode(index, best.ino)?.size.get();
        let reader: &'a Reader = self.reader;
        let mut cursor = reader.cursor(root);
        let start = Key::new(best.ino, item_type::EXTENT_DATA, range.from);
        let inside = cursor.seek_before(&start)?
            && cursor
                .item()
                .is_some_and(|(key, _)| key.is(best.ino, item_type::EXTENT_DATA));
        if !inside {
            cursor.seek(&start)?;
        }
        while let Some((key, data)) = cursor.item() {
            if !key.is(best.ino, item_type::EXTENT_DATA) {
                break;
            }
            let found = SourceExtent::parse(&key, data, self.sectorsize)?;
            let source = SourceFile {
                index,
                ino: best.ino,
                size: source_size,
                is_current: root.id == self.root.id,
            };
            if !self.clone_step(
                here,
                extent,
                regular.disk_bytenr,
                &source,
                found,
                &mut range,
            )? {
                break;
            }
            cursor.next()?;
        }
        if range.len == 0 {
            return Ok(());
        }
        self.send_data(here, extent, range.offset, range.len)
    }

    /// Goes over one file extent of the source; answers whether the next one may have more.
    fn clone_step(
        &mut self,
        here: Here<'_>,
        extent: &Extent<'_>,
        disk_bytenr: u64,
        source: &SourceFile,
        found: SourceExtent,
        range: &mut Range,
    ) -> Result<bool> {
        let found_end = found.offset.checked_add(found.len).ok_or(EUCLEAN)?;
        if found_end <= range.from {
            return Ok(true);
        }
        if found.offset > range.from {
            // The source has a hole here.
            let hole = found.offset.saturating_sub(range.from).min(range.len);
            self.send_data(here, extent, range.offset, hole)?;
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
            self.clone_piece(here, extent, source, range, len)?;
        } else if crossed && len < range.len {
            // The source ends here: the rest goes as one piece.
            return Ok(false);
        } else {
            self.send_data(here, extent, range.offset, len)?;
        }
        range.advance(len)?;
        if range.len == 0 {
            return Ok(false);
        }
        // Of the file being sent only what the receiver has so far can be cloned.
        let current = self.inode.as_ref().ok_or(EINVAL)?;
        let own = source.is_current && source.ino == current.ino;
        Ok(!(own && range.from >= current.next_write))
    }

    /// Clones `len` bytes, except the end of a file whose last sector would come to lie within the current one.
    fn clone_piece(
        &mut self,
        here: Here<'_>,
        extent: &Extent<'_>,
        source: &SourceFile,
        range: &Range,
        len: u64,
    ) -> Result {
        let size = self.inode.as_ref().map_or(0, |inode| inode.item.size.get());
        let source_end = range.from.checked_add(len).ok_or(EUCLEAN)?;
        let end = range.offset.checked_add(len).ok_or(EUCLEAN)?;
        let ends_within = source_end == source.size && source_end % MAX_SECTOR != 0 && end < size;
        if !ends_within {
            return self.send_clone(source, range.from, range.offset, len);
        }
        let whole = len.saturating_sub(len % MAX_SECTOR);
        if whole > 0 {
            self.send_clone(source, range.from, range.offset, whole)?;
        }
        let rest = range.offset.checked_add(whole).ok_or(EUCLEAN)?;
        self.send_data(here, extent, rest, len.saturating_sub(whole))
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
