// SPDX-License-Identifier: GPL-2.0
//! Whether others use a file's extents, too.
//!
//! An extent is shared directly, by references of other files or of other places in the same one, or because a block
//! on the way from the subvolume's root down to the file extent item has more than one parent, as all of them
//! have below the root of a snapshot. The way is found from the top, so that what is known of its blocks serves the
//! next extent, too.

use super::file_extent::{Extent, Kind};
use crate::format::file_extent::{FileExtentHead, FileExtentItem, TYPE_INLINE};
use crate::format::header::MAX_LEVEL;
use crate::format::{self, item_type, tree_id, Key};
use crate::tree::TreeRoot;
use crate::volume::backref::{find_extent, for_each_keyed, FoundExtent};
use crate::volume::refs::{CountedRef, RefKind};
use crate::volume::Reader;
use kernel::prelude::*;

/// A block of a path and whether it, or one above it, has several parents.
#[derive(Clone, Copy)]
struct Block {
    bytenr: u64,
    shared: bool,
}

/// Looks at the extents of one file.
pub struct Sharing<'r> {
    reader: &'r Reader,
    root: TreeRoot,
    ino: u64,
    last_snapshot: u64,
    /// The blocks of the last path, by level.
    path: [Option<Block>; MAX_LEVEL as usize],
}

/// The references of an extent, as far as they matter.
enum Direct {
    None,
    One(CountedRef),
    Several,
}

impl<'r> Sharing<'r> {
    /// For inode `ino` of the subvolume `root`, as of the commit of `reader`.
    ///
    /// # Errors
    ///
    /// What reading the subvolume's root item gives.
    pub fn new(reader: &'r Reader, root: TreeRoot, ino: u64) -> Result<Self> {
        Ok(Self {
            reader,
            root,
            ino,
            last_snapshot: reader.root_item(root.id)?.last_snapshot.get(),
            path: [None; MAX_LEVEL as usize],
        })
    }

    /// Whether anything but this place of the file refers to the extent that `part` lies in. Parts of one extent that
    /// the file has kept after some of it was overwritten count as one place.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` for damaged items of the extent tree, after a line in the log; `ENOMEM`; errors of reading.
    pub fn is_shared(&mut self, part: &Extent<'_>) -> Result<bool> {
        let (Kind::Regular(extent) | Kind::Prealloc(extent)) = part.kind else {
            return Ok(false);
        };
        let bytenr = extent.disk_bytenr;
        let Some(found) = self.find(bytenr)? else {
            return Ok(false);
        };
        let only = match self.direct(&found)? {
            Direct::None => return Ok(false),
            Direct::Several => return Ok(true),
            Direct::One(only) => only,
        };
        let offset = match only.kind {
            RefKind::Data { root, ino, offset } if (root, ino) == (self.root.id, self.ino) => {
                Some(offset)
            }
            RefKind::Data { .. } => return Ok(true),
            _ => None,
        };
        // A snapshot shares only what was there when it was taken.
        if part.generation > self.last_snapshot {
            return Ok(false);
        }
        match offset {
            Some(offset) if only.count > 1 => self.any_path_is_shared(&found, offset),
            _ => self.path_is_shared(&Key::new(self.ino, item_type::EXTENT_DATA, part.offset)),
        }
    }

    fn find(&self, bytenr: u64) -> Result<Option<FoundExtent>> {
        let extents = self.reader.root(tree_id::EXTENT)?;
        find_extent(self.reader.fs(), self.reader, extents, bytenr)
    }

    fn direct(&self, found: &FoundExtent) -> Result<Direct> {
        let mut direct = match found.record.inline() {
            [] => Direct::None,
            [one] => Direct::One(*one),
            _ => Direct::Several,
        };
        let extents = self.reader.root(tree_id::EXTENT)?;
        let fs = self.reader.fs();
        for_each_keyed(fs, self.reader, extents, found.bytenr(), |_, counted| {
            direct = match direct {
                Direct::None => Direct::One(counted),
                _ => Direct::Several,
            };
            Ok(!matches!(direct, Direct::Several))
        })?;
        Ok(direct)
    }

    /// Whether one of the paths to the items is shared that a reference with this offset stands for.
    fn any_path_is_shared(&mut self, found: &FoundExtent, offset: u64) -> Result<bool> {
        // The offset is that of the extent's first byte, which may lie before the file's.
        let mut at = if offset > i64::MAX as u64 { 0 } else { offset };
        let span = found.num_bytes.max(super::file_extent::MAX_COMPRESSED);
        loop {
            let mut cursor = self.reader.cursor(self.root);
            cursor.seek(&Key::new(self.ino, item_type::EXTENT_DATA, at))?;
            let next = loop {
                let Some((key, data)) = cursor.item() else {
                    break None;
                };
                if !key.is(self.ino, item_type::EXTENT_DATA)
                    || key.offset.wrapping_sub(offset) >= span
                {
                    break None;
                }
                if refers(data, found.bytenr(), key.offset.wrapping_sub(offset))? {
                    break Some(key);
                }
                cursor.next()?;
            };
            let Some(key) = next else {
                return Ok(false);
            };
            if self.path_is_shared(&key)? {
                return Ok(true);
            }
            match key.offset.checked_add(1) {
                Some(behind) => at = behind,
                None => return Ok(false),
            }
        }
    }

    /// Whether a block on the way to the item with this key has several parents.
    fn path_is_shared(&mut self, key: &Key) -> Result<bool> {
        let mut cursor = self.reader.cursor(self.root);
        cursor.seek(key)?;
        let mut shared = false;
        for level in (0..=self.root.level).rev() {
            let bytenr = cursor.node_at(level).ok_or(EUCLEAN)?.bytenr();
            let known = *self.path.get(usize::from(level)).ok_or(EUCLEAN)?;
            shared = match known {
                Some(block) if block.bytenr == bytenr => block.shared,
                _ => shared || self.has_parents(bytenr)?,
            };
            let block = self.path.get_mut(usize::from(level)).ok_or(EUCLEAN)?;
            *block = Some(Block { bytenr, shared });
        }
        Ok(shared)
    }

    /// Whether a tree block has more than one parent.
    fn has_parents(&self, bytenr: u64) -> Result<bool> {
        let block = self.find(bytenr)?;
        Ok(block.is_some_and(|block| block.record.refs > 1))
    }
}

/// Whether a file extent item refers to the extent at `bytenr`, `offset` bytes behind its start.
fn refers(data: &[u8], bytenr: u64, offset: u64) -> Result<bool> {
    let head: FileExtentHead = format::read(data)?;
    if head.typ == TYPE_INLINE {
        return Ok(false);
    }
    let item: FileExtentItem = format::read(data)?;
    Ok(item.disk_bytenr.get() == bytenr && item.offset.get() == offset)
}
