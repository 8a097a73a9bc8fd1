// SPDX-License-Identifier: GPL-2.0
//! How much space block groups of each kind have, whether or not the volume was written to.

use super::chunks::last_chunk_up_to;
use super::filter::Candidate;
use crate::format::chunk::{block_group_flags as bg, STRIPE_LEN};
use crate::format::superblock::COPIES;
use crate::format::BlockSize;
use crate::space::usage::{Usage, Usages, NONE};
use crate::trans::Reader;
use crate::volume::Fs;
use kernel::prelude::*;

/// Sums over the block groups, as the last operation left them; kinds of which there is none have
/// zeros. Waits for nobody.
///
/// # Errors
///
/// `EUCLEAN` for chunks without a block group and bad items; what reading trees gives.
pub fn usage(fs: &Fs) -> Result<Usages> {
    if let Some(sums) = fs.usages() {
        return Ok(sums);
    }
    match committed(&fs.reader()?) {
        Err(e) if e != ENOMEM && fs.ignores_bad_roots() => Ok(all_used(fs)),
        sums => sums,
    }
}

/// Sums over chunks whose block groups cannot be read: as if all of them were full, as the C driver
/// has it.
fn all_used(fs: &Fs) -> Usages {
    let mut sums = NONE;
    for chunk in fs.chunk_map().iter() {
        if let Some(sum) = sums.iter_mut().find(|sum| sum.flags == chunk.flags) {
            sum.groups = sum.groups.saturating_add(1);
            sum.total = sum.total.saturating_add(chunk.length);
            sum.used = sum.total;
        }
    }
    sums
}

/// Sums over the block groups of the last commit.
///
/// # Errors
///
/// As for [`usage`].
pub fn committed(reader: &Reader) -> Result<Usages> {
    let mut sums = NONE;
    let mut below = Some(u64::MAX);
    while let Some(logical) = below {
        let Some(chunk) = last_chunk_up_to(reader, logical)? else {
            break;
        };
        if let Some(sum) = sums.iter_mut().find(|sum| sum.flags == chunk.typ) {
            let chunk = chunk.candidate();
            sum.groups = sum.groups.saturating_add(1);
            sum.total = sum.total.saturating_add(chunk.length);
            sum.used = sum.used.saturating_add(chunk.used);
            sum.supers = sum.supers.saturating_add(supers(&chunk));
        }
        below = chunk.start.checked_sub(1);
    }
    Ok(sums)
}

/// Bytes of a chunk around copies of the superblock.
fn supers(chunk: &Candidate<'_>) -> u64 {
    let mut bytes = 0u64;
    for (_, start) in chunk.stripes {
        let inside = |copy: &&u64| **copy >= *start && **copy - *start < chunk.length;
        let copies = COPIES.iter().filter(inside).count() as u64;
        bytes = bytes.saturating_add(copies.saturating_mul(STRIPE_LEN));
    }
    bytes
}

/// What is shown as kept for commits, in bytes: a share of the metadata, but enough for some paths
/// through the trees.
pub fn commit_reserve(sums: &[Usage], nodesize: BlockSize) -> u64 {
    let metadata = sums
        .iter()
        .filter(|sum| sum.flags & bg::METADATA != 0)
        .fold(0u64, |bytes, sum| bytes.saturating_add(sum.used));
    let paths = u64::from(nodesize).saturating_mul(8 * 2 * 20);
    (metadata / 16).max(paths).min(512 << 20)
}
