// SPDX-License-Identifier: GPL-2.0
//! Decompression of extents.

use crate::format::{compression, BlockSize};
use crate::platform;
use kernel::prelude::*;

/// The size of a length in LZO data, in bytes.
const LZO_LEN: usize = 4;

/// Decompresses `src` into `dst`, and fills what the data leaves of `dst` with zeros.
///
/// # Errors
///
/// `EIO` for data that does not decompress, or an unknown `method`.
pub fn decompress(method: u8, src: &[u8], dst: &mut [u8], sectorsize: BlockSize) -> Result {
    let made = match method {
        compression::ZLIB => platform::inflate(src, dst),
        compression::ZSTD => platform::zstd(src, dst),
        compression::LZO => lzo(src, dst, sectorsize),
        _ => Err(EIO),
    }
    .map_err(|error| if error == ENOMEM { error } else { EIO })?;
    dst.get_mut(made..).ok_or(EIO)?.fill(0);
    Ok(())
}

fn length(src: &[u8], at: usize) -> Result<usize> {
    let bytes = crate::format::slice(src, at, LZO_LEN)?;
    let bytes = bytes.try_into().map_err(|_| EIO)?;
    Ok(u32::from_le_bytes(bytes) as usize)
}

/// LZO data is a total length and then segments, each a length and a block that holds one sector at
/// most. No length crosses the end of a sector: where fewer than four bytes are left in one, the
/// next one goes on.
fn lzo(src: &[u8], dst: &mut [u8], sectorsize: BlockSize) -> Result<usize> {
    let total = length(src, 0)?;
    let src = src.get(..total).ok_or(EIO)?;
    let sector = usize::from(sectorsize);
    let mut at = LZO_LEN;
    let mut made = 0usize;
    while at < src.len() && made < dst.len() {
        let left = sector.saturating_sub((at as u64 % sectorsize) as usize);
        if left < LZO_LEN {
            at = at.checked_add(left).ok_or(EIO)?;
        }
        let len = length(src, at)?;
        at = at.checked_add(LZO_LEN).ok_or(EIO)?;
        let segment = crate::format::slice(src, at, len)?;
        at = at.checked_add(len).ok_or(EIO)?;
        let rest = dst.get_mut(made..).ok_or(EIO)?;
        let got = match rest.get_mut(..sector) {
            Some(block) => platform::lzo1x(segment, block)?,
            None => lzo_last(segment, rest, sector)?,
        };
        made = made.checked_add(got).ok_or(EIO)?;
    }
    Ok(made)
}

/// The block of a sector of which only the start is wanted. Unlike the other methods LZO cannot
/// stop early, and the C driver compresses whole sectors even where the data is inline and shorter.
fn lzo_last(segment: &[u8], dst: &mut [u8], sector: usize) -> Result<usize> {
    let mut block = KVec::zeroed(sector, GFP_KERNEL)?;
    let len = platform::lzo1x(segment, &mut block)?.min(dst.len());
    dst.get_mut(..len)
        .ok_or(EIO)?
        .copy_from_slice(crate::format::slice(&block, 0, len)?);
    Ok(len)
}
