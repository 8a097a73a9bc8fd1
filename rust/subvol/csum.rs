// SPDX-License-Identifier: GPL-2.0
//! Data checksums: one a sector, in long items of the checksum tree.

use crate::format::{item_type, objectid, Checksum, Key};
use crate::tree::{Cursor, Geometry, Nodes, TreeRoot};
use kernel::prelude::*;

/// Appends the checksums of the sectors of `logical..logical + len` to `sums`, `None` where there
/// is none.
///
/// `logical` and `len` are multiples of the sector size, in bytes.
///
/// # Errors
///
/// `EUCLEAN` for a damaged item, `ENOMEM`, or what reading nodes gives.
pub fn lookup<S: Nodes>(
    nodes: &S,
    root: TreeRoot,
    geometry: &Geometry,
    logical: u64,
    len: u64,
    sums: &mut KVec<Option<Checksum>>,
) -> Result {
    let (sectorsize, kind) = (geometry.sectorsize, geometry.checksum);
    let sector = u64::from(sectorsize);
    let end = logical.checked_add(len).ok_or(EINVAL)?;
    let mut at = logical;
    let mut cursor = Cursor::new(nodes, root);
    let start = Key::new(objectid::EXTENT_CSUM, item_type::EXTENT_CSUM, logical);
    if !cursor.seek_before(&start)? {
        cursor.seek(&start)?;
    }
    while at < end {
        let Some((key, data)) = cursor.item() else {
            break;
        };
        if key.typ != item_type::EXTENT_CSUM || key.offset >= end {
            if key < start {
                // `seek_before` may have stopped at an item of another kind, before the first
                // checksum.
                cursor.next()?;
                continue;
            }
            break;
        }
        let count = (kind.count(data.len())) as u64;
        let covered = count
            .checked_mul(sector)
            .and_then(|bytes| bytes.checked_add(key.offset))
            .ok_or(EUCLEAN)?;
        if !kind.is_whole(data.len()) || key.offset % sectorsize != 0 {
            return Err(EUCLEAN);
        }
        while at < end && at < key.offset {
            sums.push(None, GFP_KERNEL)?;
            at = at.saturating_add(sector);
        }
        let first = at.saturating_sub(key.offset) / sectorsize;
        for sum in data.chunks_exact(kind.size()).skip(first as usize) {
            if at >= end || at >= covered {
                break;
            }
            sums.push(Some(kind.stored(sum)), GFP_KERNEL)?;
            at = at.saturating_add(sector);
        }
        if !cursor.next()? {
            break;
        }
    }
    while at < end {
        sums.push(None, GFP_KERNEL)?;
        at = at.saturating_add(sector);
    }
    Ok(())
}

/// Calls `each` for every run of checksums among those of consecutive sectors, the first of which
/// is at `logical`: with the address of the run's first sector, and its checksums as they are on
/// disk.
///
/// # Errors
///
/// `ENOMEM`, and those of `each`.
pub fn for_each_run(
    geometry: &Geometry,
    logical: u64,
    sums: impl Iterator<Item = Option<Checksum>>,
    each: &mut dyn FnMut(u64, &[u8]) -> Result,
) -> Result {
    let (mut at, mut start) = (logical, logical);
    let mut run: KVec<u8> = KVec::new();
    for sum in sums {
        match sum {
            Some(sum) => {
                if run.is_empty() {
                    start = at;
                }
                run.extend_from_slice(sum.bytes(), GFP_KERNEL)?;
            }
            None if !run.is_empty() => {
                each(start, &run)?;
                run.clear();
            }
            None => {}
        }
        at = at.saturating_add(u64::from(geometry.sectorsize));
    }
    if !run.is_empty() {
        each(start, &run)?;
    }
    Ok(())
}
