// SPDX-License-Identifier: GPL-2.0
//! Block groups: a chunk's space, its accounting, and its item on disk.

use kernel::prelude::*;

use super::dev_extent::DevExtents;
use super::extent_set::{Extent, ExtentSet};
use super::space_info::{SpaceContext, Volume};
use crate::format::chunk::{block_group_flags as flags, BlockGroupItem, STRIPE_LEN};
use crate::format::superblock::COPIES;
use crate::format::{self, item_type, objectid, tree_id, Key};
use crate::tree::edit;
use crate::tree::Cursor;

/// What a block group is for. Each kind has its own chunks; mixed ones are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// File data.
    Data,
    /// Every tree but the chunk tree.
    Metadata,
    /// The chunk tree.
    System,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Data, Kind::Metadata, Kind::System];

    /// The kind's bit of [`crate::format::chunk::block_group_flags`].
    pub const fn flag(self) -> u64 {
        match self {
            Kind::Data => flags::DATA,
            Kind::Metadata => flags::METADATA,
            Kind::System => flags::SYSTEM,
        }
    }

    /// The kind of block groups with these flags, if they name exactly one.
    pub fn of(flags: u64) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|kind| flags & flags::TYPE_MASK == kind.flag())
    }
}

/// The number of copies of the profile in `flags`, or `None` for a profile of several devices.
pub fn copies(flags: u64) -> Option<u64> {
    match flags & flags::PROFILE_MASK {
        0 => Some(1),
        flags::DUP => Some(2),
        _ => None,
    }
}

/// A block group.
#[derive(Debug)]
pub struct BlockGroup {
    /// The logical start, in bytes.
    pub start: u64,
    /// The length in bytes.
    pub length: u64,
    /// Kind and profile, as [`crate::format::chunk::block_group_flags`].
    pub flags: u64,
    kind: Kind,
    chunk_objectid: u64,
    /// Bytes in extents that have an extent item.
    pub(crate) used: u64,
    /// `used` as the block group's item says.
    pub(super) item_used: u64,
    /// `used` as of the last commit, to which its free space must add up.
    pub(super) committed_used: u64,
    /// Bytes allocated whose extent item is not there yet.
    pub(crate) reserved: u64,
    /// Bytes freed that may not be used again yet.
    pub(super) pinned: u64,
    /// How many hold the block group read-only.
    pub(crate) read_only: u32,
    /// Made by this transaction, and no item of it is on disk yet.
    pub(super) pending: bool,
    /// Made by this transaction.
    pub(super) fresh: bool,
    /// The free space tree has no items of it yet.
    pub(super) untracked: bool,
    /// Whether the free space tree keeps bitmaps, once known.
    pub(super) bitmaps: Option<bool>,
    /// What may be allocated, once loaded.
    pub(crate) free: Option<ExtentSet>,
    /// Logical ranges whose copy on the device is a superblock.
    pub(super) supers: KVec<Extent>,
    super_bytes: u64,
}

impl BlockGroup {
    /// A block group over the chunk at `start`, whose copies are in `devices` already.
    ///
    /// # Errors
    ///
    /// `EUCLEAN` if it is empty or its flags name no kind or an unsupported profile, `ENOMEM`.
    pub(crate) fn new(start: u64, length: u64, flags: u64, devices: &DevExtents) -> Result<Self> {
        let range = Extent::new(start, length).map_err(|_| EUCLEAN)?;
        let kind = Kind::of(flags).ok_or(EUCLEAN)?;
        copies(flags).ok_or(EUCLEAN)?;
        let mut group = BlockGroup {
            start,
            length,
            flags,
            kind,
            chunk_objectid: objectid::FIRST_CHUNK_TREE,
            used: 0,
            item_used: 0,
            committed_used: 0,
            reserved: 0,
            pinned: 0,
            read_only: 0,
            pending: false,
            fresh: false,
            untracked: false,
            bitmaps: None,
            free: None,
            supers: KVec::new(),
            super_bytes: 0,
        };
        group.find_supers(range, devices)?;
        Ok(group)
    }

    /// Superblocks lie within chunks: the stripe of each is never allocated. Copies of a chunk may
    /// hold different superblocks, and the same one never twice at one logical address.
    fn find_supers(&mut self, range: Extent, devices: &DevExtents) -> Result {
        if let Some(len) = COPIES[0].checked_sub(self.start).filter(|len| *len != 0) {
            self.exclude(Extent {
                start: self.start,
                len: len.min(range.len),
            })?;
        }
        for physical in COPIES {
            let Some(stripe) = devices.at(physical).filter(|s| s.chunk == self.start) else {
                continue;
            };
            let offset = physical.saturating_sub(stripe.physical.start);
            let start = self.start.saturating_add(offset);
            let len = range.end().saturating_sub(start).min(STRIPE_LEN);
            if len != 0 && !self.supers.iter().any(|s| s.start == start) {
                self.exclude(Extent { start, len })?;
            }
        }
        Ok(())
    }

    fn exclude(&mut self, extent: Extent) -> Result {
        self.supers.push(extent, GFP_KERNEL)?;
        self.super_bytes = self.super_bytes.saturating_add(extent.len);
        Ok(())
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The profile bits of its flags.
    pub fn profile(&self) -> u64 {
        self.flags & flags::PROFILE_MASK
    }

    /// The first logical address after it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Bytes in extents that have an extent item in the running transaction.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Bytes allocated whose extent item the running transaction has not written yet.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Bytes that were freed, and wait for a commit or for readers.
    pub fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Bytes that are never allocated, as they surround copies of the superblock.
    pub fn super_bytes(&self) -> u64 {
        self.super_bytes
    }

    /// Whether nothing is allocated from it.
    pub fn is_read_only(&self) -> bool {
        self.read_only != 0
    }

    /// Whether its item, or all its items, have to be written.
    pub fn is_dirty(&self) -> bool {
        self.pending || self.used != self.item_used
    }

    /// The bytes that can be allocated, read-only or not. Known whether or not the free space is
    /// loaded.
    pub fn available(&self) -> u64 {
        self.length
            .saturating_sub(self.super_bytes)
            .saturating_sub(self.used)
            .saturating_sub(self.reserved)
            .saturating_sub(self.pinned)
    }

    /// What can be allocated, if it was needed and read already.
    pub fn free_space(&self) -> Option<&ExtentSet> {
        self.free.as_ref()
    }

    /// Whether `extent` lies within it.
    pub fn covers(&self, extent: &Extent) -> bool {
        self.start <= extent.start && extent.end() <= self.end()
    }

    fn key(&self) -> Key {
        Key::new(self.start, item_type::BLOCK_GROUP_ITEM, self.length)
    }

    fn item(&self) -> BlockGroupItem {
        BlockGroupItem {
            used: self.used.into(),
            chunk_objectid: self.chunk_objectid.into(),
            flags: self.flags.into(),
        }
    }
}

/// Reads the block groups of all chunks in `devices`, in order of their start.
///
/// # Errors
///
/// `EUCLEAN` if a chunk has no block group, or they do not agree; errors of reading; `ENOMEM`.
pub(crate) fn load<V: Volume>(
    vol: &V,
    tree: u64,
    devices: &DevExtents,
) -> Result<KVVec<BlockGroup>> {
    let mut chunks: KVVec<(u64, u64)> = KVVec::new();
    for range in devices.in_use() {
        chunks.push((range.chunk, range.physical.len), GFP_KERNEL)?;
    }
    crate::sort::sort(&mut chunks);
    let mut groups = KVVec::new();
    let mut cursor = Cursor::new(vol, vol.commit_root(tree)?);
    for same in chunks.chunk_by(|a, b| a.0 == b.0) {
        let Some(&(start, length)) = same.first() else {
            continue;
        };
        cursor.seek(&Key::new(start, item_type::BLOCK_GROUP_ITEM, 0))?;
        let Some((key, data)) = cursor
            .item()
            .filter(|(key, _)| key.is(start, item_type::BLOCK_GROUP_ITEM))
        else {
            vol.report(fmt!("chunk {start} has no block group"));
            return Err(EUCLEAN);
        };
        let item: BlockGroupItem = format::read(data)?;
        let found = same.len() as u64;
        if key.offset != length
            || same.iter().any(|s| s.1 != length)
            || copies(item.flags.get()) != Some(found)
            || item.used.get() > length
        {
            vol.report(fmt!(
                "block group {start} is corrupt: length {}, used {}, flags {:#x}, but {found} device extents of {length} bytes",
                key.offset,
                item.used.get(),
                item.flags.get()
            ));
            return Err(EUCLEAN);
        }
        let mut group = BlockGroup::new(start, length, item.flags.get(), devices)?;
        group.chunk_objectid = item.chunk_objectid.get();
        group.used = item.used.get();
        group.item_used = group.used;
        group.committed_used = group.used;
        groups.push(group, GFP_KERNEL)?;
    }
    Ok(groups)
}

/// Counts an extent of `len` bytes whose extent item was made (`len` above 0) or removed (below 0),
/// in its block group and in the superblock.
///
/// # Errors
///
/// `ENOENT` if there is no block group, `EUCLEAN` if more would be used than there is or less than
/// nothing.
pub fn account<C: SpaceContext>(cx: &mut C, start: u64, len: i64) -> Result {
    let group = cx
        .space_mut()
        .group_mut(Extent::new(start, len.unsigned_abs())?)?;
    let used = group.used.checked_add_signed(len);
    let used = used.filter(|used| *used <= group.length).ok_or(EUCLEAN)?;
    group.used = used;
    if len > 0 {
        group.reserved = group.reserved.saturating_sub(len.unsigned_abs());
    }
    let total = cx.superblock().bytes_used.get();
    let total = total.checked_add_signed(len).ok_or(EUCLEAN)?;
    cx.superblock_mut().bytes_used = total.into();
    Ok(())
}

/// Writes the items of all block groups whose use changed. That changes trees and may so dirty
/// block groups again: commit calls it until [`super::space_info::Space::is_dirty`] says no.
///
/// # Errors
///
/// Those of changing the tree of block groups.
pub fn write_dirty_block_groups<C: SpaceContext>(cx: &mut C) -> Result {
    let tree = cx.space().block_group_tree();
    let mut next = 0u64;
    while let Some(group) = cx.space().next_dirty(next) {
        next = group.end();
        let (key, item, start) = (group.key(), group.item(), group.start);
        edit::update_in_place(cx, tree, &key, |bytes: &mut [u8]| {
            let head = bytes
                .get_mut(..size_of::<BlockGroupItem>())
                .ok_or(EUCLEAN)?;
            head.copy_from_slice(item.as_bytes());
            Ok(())
        })?;
        // Writing may have allocated from this very block group: only what was written is clean.
        cx.space_mut().group_at_mut(start)?.item_used = item.used.get();
    }
    Ok(())
}

/// Inserts the item of a block group that the running transaction made.
pub(super) fn insert_item<C: SpaceContext>(cx: &mut C, start: u64) -> Result {
    let tree = cx.space().block_group_tree();
    let group = cx.space().group_at(start)?;
    let (key, item) = (group.key(), group.item());
    edit::insert(cx, tree, &key, item.as_bytes())?;
    cx.space_mut().group_at_mut(start)?.item_used = item.used.get();
    Ok(())
}

/// Deletes the item of a block group.
pub(super) fn delete_item<C: SpaceContext>(cx: &mut C, start: u64) -> Result {
    let tree = cx.space().block_group_tree();
    let key = cx.space().group_at(start)?.key();
    edit::delete(cx, tree, &key)
}

/// The tree in which block group items live.
pub(super) fn tree_of(compat_ro_flags: u64) -> u64 {
    if compat_ro_flags & crate::format::superblock::compat_ro::BLOCK_GROUP_TREE != 0 {
        tree_id::BLOCK_GROUP
    } else {
        tree_id::EXTENT
    }
}
