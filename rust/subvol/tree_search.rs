// SPDX-License-Identifier: GPL-2.0
//! The search of a tree for a range of keys, as the ioctl `TREE_SEARCH` answers it.

use crate::format::Key;
use crate::trans::Reader;
use crate::tree::TreeRoot;
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

/// Puts header and bytes of all items between the bounds of `key` into a buffer of `buf_size`
/// bytes, through `put`, which takes an offset in the buffer and bytes.
///
/// # Errors
///
/// What reading nodes and `put` give.
pub fn search(
    reader: &Reader,
    root: TreeRoot,
    key: &SearchKey,
    buf_size: u64,
    put: &mut dyn FnMut(u64, &[u8]) -> Result,
) -> Result<Found> {
    let head = size_of::<SearchHeader>() as u64;
    if buf_size < head {
        return Ok(Found::TooLarge(head));
    }
    let upper = key.upper();
    let mut used = 0u64;
    let mut count = 0u32;
    let mut cursor = reader.cursor(root);
    cursor.seek(&key.lower())?;
    while let Some((at, item)) = cursor.item() {
        if at > upper {
            break;
        }
        let transid = cursor.node_at(0).map_or(0, |leaf| leaf.generation());
        if (key.min_transid..=key.max_transid).contains(&transid) {
            let needed = head.saturating_add(item.len() as u64);
            let too_large = count == 0 && needed > buf_size;
            let header = SearchHeader {
                transid,
                objectid: at.objectid,
                offset: at.offset,
                typ: u32::from(at.typ),
                len: if too_large { 0 } else { item.len() as u32 },
            };
            if too_large {
                put(used, header.as_bytes())?;
                return Ok(Found::TooLarge(needed));
            }
            let end = used.saturating_add(needed);
            if end > buf_size {
                break;
            }
            put(used, header.as_bytes())?;
            put(used.saturating_add(head), item)?;
            used = end;
            count = count.saturating_add(1);
            if count >= key.nr_items {
                break;
            }
        }
        cursor.next()?;
        crate::platform::yield_now();
        if crate::platform::fatal_signal_pending() {
            return Err(EINTR);
        }
    }
    Ok(Found::Items(count))
}
