// SPDX-License-Identifier: GPL-2.0
//! Which parts of a file are worth being written anew, so that its data lies together
//! (`btrfs_defrag_file`).
//!
//! What is written anew gets new extents. Snapshots and other files that share the old ones keep
//! them whole.

use super::compress::Chosen;
use super::file_extent::{self, Extent, Kind};
use super::write::{InodeId, MAX_INLINE};
use crate::format::file_extent::MAX_COMPRESSED;
use crate::format::CompressionMethod;
use crate::space::extent_set::Extent as Range;
use crate::space::ordered_extent::MAX_EXTENT;
use crate::trans::View;
use crate::volume::Fs;
use kernel::prelude::*;

/// What becomes of the data's compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompress {
    /// It is compressed as if it were written now.
    AsWritten,
    /// It is compressed so.
    With {
        /// The method.
        method: CompressionMethod,
        /// One of the method's own levels, 0 for the usual one.
        level: i32,
    },
    /// It is decompressed.
    Not,
}

impl Recompress {
    /// All of this as one number, for who keeps it in an atomic.
    pub fn to_bits(self) -> u32 {
        match self {
            Self::AsWritten => 0,
            Self::Not => 1,
            // Levels have a byte in the ioctl's arguments, too.
            Self::With { method, level } => {
                u32::from_le_bytes([2, method.number(), level as i8 as u8, 0])
            }
        }
    }

    /// What [`Self::to_bits`] made a number of.
    pub fn from_bits(bits: u32) -> Self {
        let [kind, method, level, _] = bits.to_le_bytes();
        match (kind, CompressionMethod::of_extent(method)) {
            (1, _) => Self::Not,
            (2, Some(method)) => Self::With {
                method,
                level: i32::from(level as i8),
            },
            _ => Self::AsWritten,
        }
    }

    /// How data is compressed that would be compressed as `chosen` says, if the file's flags allow
    /// it.
    pub fn choose(self, chosen: Option<Chosen>, is_allowed: bool) -> Option<Chosen> {
        match self {
            Self::AsWritten => chosen,
            Self::Not => None,
            Self::With { method, level } => is_allowed.then(|| Chosen {
                method,
                level: method.level(level),
                is_forced: chosen.is_some_and(|chosen| chosen.is_forced),
                gives_up: chosen.is_none_or(|chosen| chosen.gives_up),
            }),
        }
    }
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Defrag {
    /// Extents of this size in bytes and above stay as they are, unless [`Self::all`].
    pub threshold: u64,
    /// Every extent is written anew.
    pub all: bool,
}

/// An extent, or several that follow each other on the device as in the file.
#[derive(Clone, Copy)]
struct Piece {
    start: u64,
    len: u64,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// A hole, or preallocated space.
    Nothing,
    Inline,
    Compressed,
    /// Where it is, as a logical address in bytes.
    Plain(u64),
}

impl Piece {
    fn of(extent: &Extent<'_>) -> Self {
        let what = match extent.kind {
            Kind::Hole | Kind::Prealloc(_) => What::Nothing,
            Kind::Inline(_) => What::Inline,
            Kind::Regular(regular) if regular.compression != 0 => What::Compressed,
            Kind::Regular(regular) => {
                What::Plain(regular.disk_bytenr.saturating_add(regular.extent_offset))
            }
        };
        Self {
            start: extent.offset,
            len: extent.len,
            what,
        }
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Adds `next` if it goes on where this ends.
    fn merge(&mut self, next: &Piece) -> bool {
        let goes_on = match (self.what, next.what) {
            (What::Plain(at), What::Plain(next)) => at.checked_add(self.len) == Some(next),
            _ => false,
        };
        if goes_on {
            self.len = self.len.saturating_add(next.len);
        }
        goes_on
    }

    /// The largest that an extent of its kind can be, in bytes.
    fn most(&self) -> u64 {
        if self.what == What::Compressed {
            MAX_COMPRESSED
        } else {
            MAX_EXTENT
        }
    }

    /// Whether an extent of its own kind would gain from being written together with this one,
    /// which follows it.
    fn can_be_joined(&self, before: &Piece, defrag: &Defrag) -> bool {
        self.what != What::Nothing && self.len < before.most().min(defrag.threshold)
    }
}

/// The parts between two offsets of a file, in bytes and of whole sectors, that are to be written
/// anew. Takes the writer's mutex if the subvolume was changed since the last commit.
///
/// # Errors
///
/// `EUCLEAN` for damaged items, `ENOMEM`, those of reading.
pub fn targets(
    fs: &Fs,
    id: InodeId,
    (start, end): (u64, u64),
    defrag: &Defrag,
) -> Result<KVec<Range>> {
    let mut pieces: KVec<Piece> = KVec::new();
    {
        let view = fs.running_view(id.tree)?;
        let root = view.tree_root(id.tree)?;
        let sectorsize = fs.geometry.sectorsize;
        // The one that follows the range says whether the last one can be joined with it.
        let range = (start, u64::MAX);
        file_extent::for_each(&view, root, id.ino, sectorsize, range, &mut |extent| {
            let piece = Piece::of(extent);
            if !pieces.last_mut().is_some_and(|last| last.merge(&piece)) {
                pieces.push(piece, GFP_KERNEL)?;
            }
            // What is large enough is left alone, however much of it there is.
            let enough = pieces.last().is_some_and(|last| {
                last.start >= end || last.len >= defrag.threshold && last.end() >= end
            });
            Ok(!enough)
        })?;
    }
    let mut targets: KVec<Range> = KVec::new();
    for (index, piece) in pieces.iter().enumerate() {
        if piece.start >= end {
            break;
        }
        let next = index.checked_add(1).and_then(|next| pieces.get(next));
        let from = piece.start.max(start);
        let len = piece.end().min(end).saturating_sub(from);
        let last = targets.last_mut().filter(|last| last.end() == from);
        if !is_worth_it(piece, next, last.is_some(), defrag) {
            continue;
        }
        let sectorsize = fs.geometry.sectorsize;
        let len = sectorsize.round_up(len).ok_or(EUCLEAN)?;
        match last {
            Some(last) => last.len = last.len.saturating_add(len),
            None => targets.push(Range::new(from, len)?, GFP_KERNEL)?,
        }
    }
    Ok(targets)
}

/// Whether a piece is to be written anew, where `joins` says that the one before it is.
fn is_worth_it(piece: &Piece, next: Option<&Piece>, joins: bool, defrag: &Defrag) -> bool {
    match piece.what {
        What::Nothing => return false,
        What::Inline if piece.len <= MAX_INLINE as u64 => return false,
        _ if defrag.all => return true,
        _ => {}
    }
    if piece.len >= defrag.threshold.min(piece.most()) {
        return false;
    }
    let follows = |next: &Piece| next.start == piece.end() && next.can_be_joined(piece, defrag);
    piece.what == What::Inline || joins || next.is_some_and(follows)
}
