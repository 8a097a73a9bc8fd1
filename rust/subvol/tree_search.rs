// SPDX-License-Identifier: GPL-2.0
//! The search of a tree for a range of keys, as the ioctl `TREE_SEARCH` answers it.

use crate::format::Key;
use crate::trans::Reader;
use crate::volume::ReadSession;
use kernel::prelude::*;
use zerocopy::IntoBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct btrfs_ioctl_search_key`, 104 bytes: what to search for.
///
/// The bounds are keys and are compared as such: between them lie items of any type and offset,
/// except at the two ends. User space relies on that, and gives a smallest type above the largest
/// one.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SearchKey {
    /// The tree, or 0 for that of the file.
    pub tree_id: u64,
    /// Part of the lower bound.
    pub min_objectid: u64,
    /// Part of the upper bound.
    pub max_objectid: u64,
    /// Part of the lower bound.
    pub min_offset: u64,
    /// Part of the upper bound.
    pub max_offset: u64,
    /// The least generation of a leaf.
    pub min_transid: u64,
    /// The largest generation of a leaf.
    pub max_transid: u64,
    /// Part of the lower bound; only the low 8 bits count.
    pub min_type: u32,
    /// Part of the upper bound; only the low 8 bits count.
    pub max_type: u32,
    /// In: how many items to find at most; out: how many were found.
    pub nr_items: u32,
    unused: u32,
    unused_too: [u64; 4],
}

/// `struct btrfs_ioctl_search_header`, 32 bytes: stands before each item that was found.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SearchHeader {
    /// The generation of the leaf.
    pub transid: u64,
    /// Of the key.
    pub objectid: u64,
    /// Of the key.
    pub offset: u64,
    /// Of the key.
    pub typ: u32,
    /// The size of the item that follows, in bytes.
    pub len: u32,
}

const _: () = assert!(size_of::<SearchKey>() == 104 && size_of::<SearchHeader>() == 32);

impl SearchKey {
    fn lower(&self) -> Key {
        Key::new(self.min_objectid, self.min_type as u8, self.min_offset)
    }

    fn upper(&self) -> Key {
        Key::new(self.max_objectid, self.max_type as u8, self.max_offset)
    }
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This many items; there may be more, for which there was no space.
    Items(u32),
    /// The first item is larger than the buffer, and would need this many bytes. Its header was put
    /// without it.
    TooLarge(u64),
}

const HEADER: u64 = size_of::<SearchHeader>() as u64;

/// Items are gathered up to this many bytes before they are put, which may wait for user memory.
const BATCH_BYTES: usize = 4 << 10;

/// Leaves are walked up to this many between two looks at whether there is a newer commit.
const BATCH_LEAVES: u32 = 256;

/// Puts header and bytes of all items of a tree that are between the bounds of `key` into a buffer
/// of `buf_size` bytes, through `put`, which takes an offset in the buffer and bytes. No commit is
/// held while it runs; after it, the search goes on after the key that it came to, in the newest
/// commit.
///
/// # Errors
///
/// `ENOENT` if there is no such tree, what reading nodes and `put` give, `EINTR` on a fatal signal,
/// `ENOMEM`.
pub fn search(
    session: &ReadSession,
    tree: u64,
    key: &SearchKey,
    buf_size: u64,
    put: &mut dyn FnMut(u64, &[u8]) -> Result,
) -> Result<Found> {
    if buf_size < HEADER {
        return Ok(Found::TooLarge(HEADER));
    }
    let mut search = Search {
        key,
        buf_size,
        next: Some(key.lower()),
        batch: KVVec::new(),
        used: 0,
        count: 0,
        too_large: None,
    };
    while search.next.is_some() {
        session.read(|reader| search.gather(reader, tree))?;
        if !search.batch.is_empty() {
            session.leave();
            put(search.used, &search.batch)?;
            search.used = search.used.saturating_add(search.batch.len() as u64);
            search.batch.clear();
        }
        session.renew();
        crate::platform::yield_now();
        if crate::platform::fatal_signal_pending() {
            return Err(EINTR);
        }
    }
    Ok(match search.too_large {
        Some(needed) => Found::TooLarge(needed),
        None => Found::Items(search.count),
    })
}

/// A search under way.
struct Search<'k> {
    key: &'k SearchKey,
    buf_size: u64,
    /// Where it goes on; `None` at its end.
    next: Option<Key>,
    /// What was found and not put yet.
    batch: KVVec<u8>,
    /// The bytes that were put.
    used: u64,
    count: u32,
    /// The bytes that the first item would need.
    too_large: Option<u64>,
}

impl Search<'_> {
    /// Gathers a batch of items from `self.next` on, all of one commit.
    fn gather(&mut self, reader: &Reader, tree: u64) -> Result {
        let Some(from) = self.next.take() else {
            return Ok(());
        };
        let upper = self.key.upper();
        let mut leaves = 0u32;
        let mut cursor = reader.cursor(reader.root(tree)?);
        cursor.seek(&from)?;
        while let Some((at, item)) = cursor.item() {
            if at > upper {
                break;
            }
            if cursor.slot_at(0) == 0 {
                leaves = leaves.saturating_add(1);
            }
            if self.batch.len() >= BATCH_BYTES || leaves > BATCH_LEAVES {
                self.next = Some(at);
                break;
            }
            let transid = cursor.node_at(0).map_or(0, |leaf| leaf.generation());
            if !self.add(transid, &at, item)? {
                break;
            }
            cursor.next()?;
        }
        Ok(())
    }

    /// Adds an item, if its leaf is of a generation that is asked for. Returns whether another one
    /// is wanted.
    fn add(&mut self, transid: u64, at: &Key, item: &[u8]) -> Result<bool> {
        if !(self.key.min_transid..=self.key.max_transid).contains(&transid) {
            return Ok(true);
        }
        let needed = HEADER.saturating_add(item.len() as u64);
        let too_large = self.count == 0 && needed > self.buf_size;
        let filled = self.used.saturating_add(self.batch.len() as u64);
        if !too_large && filled.saturating_add(needed) > self.buf_size {
            return Ok(false);
        }
        let header = SearchHeader {
            transid,
            objectid: at.objectid,
            offset: at.offset,
            typ: u32::from(at.typ),
            len: if too_large { 0 } else { item.len() as u32 },
        };
        self.batch
            .extend_from_slice(header.as_bytes(), GFP_KERNEL)?;
        if too_large {
            self.too_large = Some(needed);
            return Ok(false);
        }
        self.batch.extend_from_slice(item, GFP_KERNEL)?;
        self.count = self.count.saturating_add(1);
        Ok(self.count < self.key.nr_items)
    }
}
