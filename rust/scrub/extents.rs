// SPDX-License-Identifier: GPL-2.0
//! What is allocated in a part of a chunk, as the extent tree of one commit has it.

use super::stripe::{Window, STRIPE};
use crate::extent::extent_item::ExtentRecord;
use crate::extent::refs::RefKind;
use crate::format::extent::FLAG_DATA;
use crate::format::{item_type, tree_id, Key};
use crate::trans::Reader;
use crate::tree::NodePtr;
use kernel::prelude::*;

/// An allocated extent. Addresses are logical, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScrubExtent {
    pub(super) start: u64,
    pub(super) len: u64,
    /// Of a tree block, what must be found there; `None` for file data.
    pub(super) block: Option<NodePtr>,
}

impl ScrubExtent {
    /// The logical address after it.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Extents in the order of their addresses, and the part of the chunk that they are in.
pub(super) struct Allocated {
    pub(super) window: Window,
    pub(super) extents: KVVec<ScrubExtent>,
}

/// Finds the first extent of a chunk at `from` or after it, and those that follow within `most`
/// bytes. `None` if there is none before the chunk's end.
///
/// `chunk` is the logical range of the chunk; `from` and `most` are multiples of [`STRIPE`].
///
/// # Errors
///
/// `EUCLEAN` for a bad item, after a line in the log; what reading nodes gives; `ENOMEM`.
pub(super) fn find(
    reader: &Reader,
    chunk: (u64, u64),
    from: u64,
    most: u64,
) -> Result<Option<Allocated>> {
    let (chunk_start, chunk_end) = chunk;
    let mut found: Option<Allocated> = None;
    let mut cursor = reader.cursor(reader.root(tree_id::EXTENT)?);
    let first = first_key(reader, from)?;
    cursor.seek(&first)?;
    while let Some((key, bytes)) = cursor.item() {
        let end = found.as_ref().map_or(chunk_end, |all| all.window.end());
        if key.objectid >= end {
            break;
        }
        if matches!(key.typ, item_type::EXTENT_ITEM | item_type::METADATA_ITEM) {
            let extent = parse(reader, &key, bytes)?;
            if extent.end() > from {
                let all = match &mut found {
                    Some(all) => all,
                    none => none.insert(Allocated {
                        window: Window::at(extent.start.max(from), chunk_start, chunk_end, most),
                        extents: KVVec::new(),
                    }),
                };
                all.extents.push(extent, GFP_KERNEL)?;
            }
        }
        cursor.next()?;
    }
    Ok(found)
}

/// The key of the extent item from which to look: that of an extent that begins before `from` and
/// may reach beyond it, or else the first possible one.
fn first_key(reader: &Reader, from: u64) -> Result<Key> {
    let lowest = Key::new(from, 0, 0);
    let mut cursor = reader.cursor(reader.root(tree_id::EXTENT)?);
    let mut more = cursor.seek_before(&lowest)?;
    while more {
        let Some(key) = cursor.key() else {
            break;
        };
        match key.typ {
            item_type::EXTENT_ITEM | item_type::METADATA_ITEM => return Ok(key),
            // References and block groups stand between the extents.
            _ => more = cursor.prev()?,
        }
    }
    Ok(lowest)
}

fn parse(reader: &Reader, key: &Key, bytes: &[u8]) -> Result<ScrubExtent> {
    let fs = reader.fs();
    let record = ExtentRecord::parse(key, bytes, &fs.geometry)
        .map_err(|fault| crate::extent::backref::fault(fs, key, fault))?;
    if record.flags & FLAG_DATA != 0 {
        return Ok(ScrubExtent {
            start: key.objectid,
            len: key.offset,
            block: None,
        });
    }
    let level = match &record.block_info {
        Some(info) => info.level,
        None => u8::try_from(key.offset).map_err(|_| EUCLEAN)?,
    };
    Ok(ScrubExtent {
        start: key.objectid,
        len: u64::from(fs.geometry.nodesize),
        block: Some(NodePtr {
            bytenr: key.objectid,
            generation: record.generation,
            level,
            tree: owner(&record),
            first_key: None,
        }),
    })
}

/// The tree that a block must be of. Of the trees that one may be referred to by, the first says
/// what kind of tree it is; only subvolumes refer by the block above.
fn owner(record: &ExtentRecord) -> u64 {
    let tree = record.inline().iter().find_map(|r| match r.kind {
        RefKind::TreeBlock { root } => Some(root),
        RefKind::SharedBlock { .. } => Some(tree_id::FS),
        _ => None,
    });
    // All references may be items of their own.
    tree.unwrap_or(0)
}

const _: () = assert!(STRIPE.is_power_of_two());
