// SPDX-License-Identifier: GPL-2.0
//! The chunks of the last commit, from the last logical address down, as balance takes them.
//!
//! Relocation puts what it moves into chunks at higher addresses, so that a walk downwards meets
//! each old chunk once and no new one.

use kernel::prelude::*;

use crate::format::chunk::{block_group_flags as bg, BlockGroupItem};
use crate::format::chunk::{Chunk, Stripe};
use crate::format::superblock::compat_ro;
use crate::format::{self, item_type, objectid, tree_id, Key};
use crate::fs_err;
use crate::trans::Reader;

use super::args::ProfilesInUse;
use super::filter::Candidate;

/// What the profiles single and dup have at most.
const MAX_STRIPES: usize = 2;

/// A chunk and what of it is in use. Addresses and lengths are in bytes.
#[derive(Clone, Copy)]
pub struct ChunkInUse {
    /// Logical start.
    pub start: u64,
    /// Type and profile.
    pub typ: u64,
    length: u64,
    used: u64,
    stripes: [(u64, u64); MAX_STRIPES],
    num_stripes: usize,
}

impl ChunkInUse {
    /// As the filters look at it.
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate {
            start: self.start,
            length: self.length,
            typ: self.typ,
            used: self.used,
            stripes: self.stripes.get(..self.num_stripes).unwrap_or(&[]),
        }
    }
}

/// The last chunk that starts at `logical` or before.
///
/// # Errors
///
/// `EUCLEAN`, with a message, if it has no block group; `EUCLEAN` for a bad item; what reading
/// trees gives.
pub fn last_chunk_up_to(reader: &Reader, logical: u64) -> Result<Option<ChunkInUse>> {
    let mut cursor = reader.cursor(reader.root(tree_id::CHUNK)?);
    let chunks = objectid::FIRST_CHUNK_TREE;
    if !cursor.seek_before(&Key::new(chunks, item_type::CHUNK_ITEM, logical))? {
        return Ok(None);
    }
    let Some((key, item)) = cursor.item() else {
        return Ok(None);
    };
    if !key.is(chunks, item_type::CHUNK_ITEM) {
        return Ok(None);
    }
    let chunk: Chunk = format::read(item)?;
    let num_stripes = usize::from(chunk.num_stripes.get());
    let mut stripes = [(0, 0); MAX_STRIPES];
    for (at, place) in stripes.iter_mut().enumerate().take(num_stripes) {
        let offset = at.checked_mul(size_of::<Stripe>()).ok_or(EUCLEAN)?;
        let offset = offset.checked_add(size_of::<Chunk>()).ok_or(EUCLEAN)?;
        let stripe: Stripe = format::read_at(item, offset)?;
        *place = (stripe.devid.get(), stripe.offset.get());
    }
    let (start, length) = (key.offset, chunk.length.get());
    Ok(Some(ChunkInUse {
        start,
        typ: chunk.typ.get(),
        length,
        used: used_bytes(reader, start, length)?,
        stripes,
        num_stripes,
    }))
}

/// Bytes in use in the block group at `start`.
fn used_bytes(reader: &Reader, start: u64, length: u64) -> Result<u64> {
    let features = reader.superblock().compat_ro_flags.get();
    let tree = if features & compat_ro::BLOCK_GROUP_TREE != 0 {
        tree_id::BLOCK_GROUP
    } else {
        tree_id::EXTENT
    };
    let mut cursor = reader.cursor(reader.root(tree)?);
    let found = cursor.seek(&Key::new(start, item_type::BLOCK_GROUP_ITEM, length))?;
    match cursor.item() {
        Some((_, item)) if found => Ok(format::read::<BlockGroupItem>(item)?.used.get()),
        _ => {
            fs_err!(
                reader.fs(),
                "balance: chunk at bytenr {} has no corresponding block group",
                start
            );
            Err(EUCLEAN)
        }
    }
}

/// The profiles that metadata and system chunks have.
pub fn profiles_in_use(reader: &Reader) -> Result<ProfilesInUse> {
    let mut in_use = ProfilesInUse::default();
    let mut below = Some(u64::MAX);
    while let Some(chunk) = match below {
        Some(logical) => last_chunk_up_to(reader, logical)?,
        None => None,
    } {
        if chunk.typ & bg::METADATA != 0 {
            in_use.metadata |= chunk.typ & bg::PROFILE_MASK;
        }
        if chunk.typ & bg::SYSTEM != 0 {
            in_use.system |= chunk.typ & bg::PROFILE_MASK;
        }
        below = chunk.start.checked_sub(1);
    }
    Ok(in_use)
}
