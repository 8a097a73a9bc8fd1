// SPDX-License-Identifier: GPL-2.0
//! LZO data as btrfs frames it: its total length, and then a segment for each sector.
//!
//! A segment is the length of a block and the block. No length crosses the end of a sector: where
//! fewer than four bytes are left in one, they are zeros. `decompress.rs` reads this.

use crate::format::BlockSize;
use crate::platform;
use kernel::prelude::*;

/// The size of a length, in bytes.
const LEN: usize = 4;

/// Compresses `src` into `dst`, and returns the size of what it made.
///
/// # Errors
///
/// `E2BIG` if it does not fit, `ENOMEM`.
pub(super) fn compress(src: &[u8], dst: &mut [u8], sectorsize: BlockSize) -> Result<usize> {
    let sector = usize::from(sectorsize);
    let mut at = LEN;
    for block in src.chunks(sector) {
        let left = sector.saturating_sub((at as u64 % sectorsize) as usize);
        if left < LEN {
            dst.get_mut(at..at.saturating_add(left))
                .ok_or(E2BIG)?
                .fill(0);
            at = at.saturating_add(left);
        }
        let start = at.saturating_add(LEN);
        let len = platform::lzo1x_compress(block, dst.get_mut(start..).ok_or(E2BIG)?)?;
        put(dst, at, len)?;
        at = start.saturating_add(len);
    }
    put(dst, 0, at)?;
    Ok(at)
}

/// Writes a length.
fn put(dst: &mut [u8], at: usize, len: usize) -> Result {
    let place = dst.get_mut(at..at.saturating_add(LEN)).ok_or(E2BIG)?;
    place.copy_from_slice(&u32::try_from(len).map_err(|_| E2BIG)?.to_le_bytes());
    Ok(())
}
