// SPDX-License-Identifier: GPL-2.0
//! The map of a file's extents that users are shown (`FIEMAP`), a part at a time.
//!
//! It is that of the running transaction, with what is only in memory besides, and nothing is
//! committed for it.

use super::file_extent::{self, Extent, Kind, Regular};
use crate::backref::sharing::Sharing;
use crate::format::BlockSize;
use crate::space::extent_set::Extent as Range;
use crate::trans::View;
use crate::volume::Fs;
use kernel::prelude::*;

/// About how many extents are looked up at a time: others may have to wait meanwhile.
const PART: usize = 32;

/// What is in a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Data in the tree.
    Inline,
    /// Data in the tree, compressed.
    CompressedInline,
    /// Data in an extent.
    Data,
    /// Data in an extent, compressed: its address is that of the whole extent.
    Compressed,
    /// Space without data.
    Preallocated,
    /// Data in memory, which has no place yet.
    InMemory,
}

/// A part of a file that is no hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where it starts in the file, in bytes.
    pub logical: u64,
    /// Its logical address on the volume, in bytes; 0 where there is none.
    pub physical: u64,
    /// Its length in bytes; that of inline data is its sector's.
    pub len: u64,
    /// What it is.
    pub content: Content,
    /// Others have it, too.
    pub shared: bool,
}

fn address(extent: &Regular) -> u64 {
    extent.disk_bytenr.saturating_add(extent.extent_offset)
}

impl Mapped {
    fn of(extent: &Extent<'_>, sectorsize: BlockSize) -> Option<Self> {
        let (content, physical) = match &extent.kind {
            Kind::Hole => return None,
            Kind::Inline(inline) if inline.compression != 0 => (Content::CompressedInline, 0),
            Kind::Inline(_) => (Content::Inline, 0),
            Kind::Regular(regular) if regular.compression != 0 => {
                (Content::Compressed, regular.disk_bytenr)
            }
            Kind::Regular(regular) => (Content::Data, address(regular)),
            Kind::Prealloc(regular) => (Content::Preallocated, address(regular)),
        };
        Some(Self {
            logical: extent.offset,
            physical,
            len: sectorsize.round_up(extent.len).unwrap_or(u64::MAX),
            content,
            shared: false,
        })
    }

    /// The first byte after it.
    pub fn end(&self) -> u64 {
        self.logical.saturating_add(self.len)
    }

    /// What of it is in a range, which touches it.
    fn within(&self, start: u64, end: u64) -> Self {
        let (start, end) = (start.max(self.logical), end.min(self.end()));
        let cut = match self.content {
            Content::Data | Content::Preallocated => start.saturating_sub(self.logical),
            _ => 0,
        };
        Self {
            logical: start,
            physical: self.physical.saturating_add(cut),
            len: end.saturating_sub(start),
            ..*self
        }
    }

    /// What of it is at `start` and after it; nothing if it ends there.
    pub fn from(&self, start: u64) -> Option<Self> {
        (self.end() > start).then(|| self.within(start, u64::MAX))
    }

    /// Adds `next` if it goes on where this ends, in the file as on the volume.
    pub fn merge(&mut self, next: &Mapped) -> bool {
        let goes_on = (self.content, self.shared) == (next.content, next.shared)
            && !matches!(
                self.content,
                Content::Inline | Content::CompressedInline | Content::InMemory
            )
            && self.end() == next.logical
            && self.physical.checked_add(self.len) == Some(next.physical);
        if goes_on {
            self.len = self.len.saturating_add(next.len);
        }
        goes_on
    }
}

/// A part of the map.
pub struct Part {
    /// What is no hole, in order.
    pub extents: KVec<Mapped>,
    /// Where the next part starts; nothing at the end of the file.
    pub next: Option<u64>,
}

/// The part of the map of inode `ino` of subvolume `tree` that starts at `from` and reaches up to
/// `until`, or not as far if there is much. `dirty` are the ranges in it that have data in memory.
/// Whether extents are shared is only looked up if `sharing` says so. The first extent may start
/// before `from`.
///
/// # Errors
///
/// `EUCLEAN` for damaged items, `ENOMEM`, those of reading.
pub fn part(
    fs: &Fs,
    (tree, ino): (u64, u64),
    (from, until): (u64, u64),
    dirty: &[Range],
    sharing: bool,
) -> Result<Part> {
    let view = fs.running_view_all()?;
    let root = view.tree_root(tree)?;
    let sectorsize = fs.geometry.sectorsize;
    let mut shared = Sharing::new(&view, root, ino)?;
    let mut extents = KVec::with_capacity(PART, GFP_KERNEL)?;
    let mut next = from;
    let range = (from, until);
    file_extent::for_each(&view, root, ino, sectorsize, range, &mut |extent| {
        if extents.len() >= PART {
            return Ok(false);
        }
        match Mapped::of(extent, sectorsize) {
            Some(mut mapped) => {
                mapped.shared = sharing && is_shared(&mut shared, extent)?;
                next = mapped.end();
                if mapped.content == Content::Preallocated {
                    // Behind `until`, nobody knows what is dirty.
                    next = next.min(until);
                    push_around(&mut extents, Some(mapped), (mapped.logical, next), dirty)?;
                } else {
                    extents.push(mapped, GFP_KERNEL)?;
                }
            }
            None => {
                next = extent.end();
                push_around(&mut extents, None, (extent.offset, next), dirty)?;
            }
        }
        Ok(true)
    })?;
    Ok(Part {
        extents,
        next: (next < u64::MAX).then_some(next),
    })
}

/// Whether anything else refers to the extent of a part.
fn is_shared<V: View>(sharing: &mut Sharing<'_, V>, part: &Extent<'_>) -> Result<bool> {
    match part.kind {
        Kind::Regular(extent) | Kind::Prealloc(extent) => {
            sharing.is_shared(extent.disk_bytenr, part.generation, part.offset)
        }
        _ => Ok(false),
    }
}

/// Adds what is dirty in a range that reads as zeros from disk, and what there is of `mapped`
/// around it.
fn push_around(
    extents: &mut KVec<Mapped>,
    mapped: Option<Mapped>,
    (start, end): (u64, u64),
    dirty: &[Range],
) -> Result {
    let mut at = start;
    let first = dirty.partition_point(|range| range.end() <= start);
    let inside = dirty
        .iter()
        .skip(first)
        .take_while(|range| range.start < end);
    for range in inside {
        let dirty = Mapped {
            logical: range.start.max(start),
            physical: 0,
            len: range.end().min(end).saturating_sub(range.start.max(start)),
            content: Content::InMemory,
            shared: false,
        };
        if let Some(before) = mapped.filter(|_| dirty.logical > at) {
            extents.push(before.within(at, dirty.logical), GFP_KERNEL)?;
        }
        at = dirty.end();
        extents.push(dirty, GFP_KERNEL)?;
    }
    if let Some(rest) = mapped.filter(|_| at < end) {
        extents.push(rest.within(at, end), GFP_KERNEL)?;
    }
    Ok(())
}
