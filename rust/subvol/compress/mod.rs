// SPDX-License-Identifier: GPL-2.0
//! Compression of file data on its way to the device.
//!
//! Writeback cuts what it writes into pieces of [`MAX_COMPRESSED`] bytes, each of which becomes an
//! extent of its own if that saves a sector, and else is written as it is. [`choose`] says whether
//! and how a file is compressed, [`Heuristic`] whether a piece is worth it, and [`Compressor`] does
//! it.
//!
//! Nothing here waits for memory, and the want of it is no error: the data is written as it is.

mod choose;
mod heuristic;
mod lzo;
#[cfg(test)]
mod tests;

pub use choose::{can_compress, choose, Chosen};
pub use heuristic::Heuristic;

use crate::format::file_extent::MAX_COMPRESSED;
use crate::format::{BlockSize, CompressionMethod};
use crate::platform;
use kernel::prelude::*;

/// Compresses `src` into `dst`, and returns the size of what it made. `level` is one of the
/// method's own, see [`CompressionMethod::level`].
///
/// # Errors
///
/// `E2BIG` if it does not fit, `ENOMEM`.
pub fn compress(
    method: CompressionMethod,
    level: i32,
    src: &[u8],
    dst: &mut [u8],
    sectorsize: BlockSize,
) -> Result<usize> {
    match method {
        CompressionMethod::Zlib => platform::deflate(level, src, dst),
        CompressionMethod::Zstd => platform::zstd_compress(level, src, dst),
        CompressionMethod::Lzo => lzo::compress(src, dst, sectorsize),
    }
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Compressed {
    /// It is smaller by a sector or more. The bytes are whole sectors, with zeros at the end.
    Smaller(KVVec<u8>),
    /// It was not tried: the piece is too small, or the sample is against it.
    NotTried,
    /// It was tried, and saves nothing.
    Incompressible,
}

/// Memory for compressing one piece after the other.
pub struct Compressor {
    chosen: Chosen,
    sectorsize: BlockSize,
    heuristic: Heuristic,
    /// A piece that does not lie in one place.
    gathered: KVVec<u8>,
    made: KVVec<u8>,
}

impl Compressor {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(chosen: Chosen, sectorsize: BlockSize) -> Result<Self> {
        let bytes = MAX_COMPRESSED as usize;
        Ok(Self {
            chosen,
            sectorsize,
            heuristic: Heuristic::new()?,
            gathered: KVVec::with_capacity(bytes, GFP_KERNEL | __GFP_NOWARN)?,
            made: KVVec::zeroed(bytes, GFP_KERNEL | __GFP_NOWARN)?,
        })
    }

    /// How it compresses.
    pub fn chosen(&self) -> &Chosen {
        &self.chosen
    }

    /// Compresses a piece of whole sectors, up to [`MAX_COMPRESSED`] bytes, that lies in `parts`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a longer piece, `ENOMEM`.
    pub fn compress(&mut self, parts: &[&[u8]]) -> Result<Compressed> {
        let src = gather(&mut self.gathered, parts)?;
        let sector = usize::from(self.sectorsize);
        // With less than two sectors there is none to save.
        if src.len() <= sector || !self.chosen.is_forced && !self.heuristic.is_compressible(src) {
            return Ok(Compressed::NotTried);
        }
        let most = src.len().saturating_sub(sector);
        let dst = self.made.get_mut(..most).ok_or(EINVAL)?;
        let Chosen { method, level, .. } = self.chosen;
        let len = match compress(method, level, src, dst, self.sectorsize) {
            Err(e) if e == E2BIG => return Ok(Compressed::Incompressible),
            len => len?,
        };
        let whole = self.sectorsize.round_up(len as u64).ok_or(EINVAL)? as usize;
        let mut kept = KVVec::with_capacity(whole, GFP_KERNEL | __GFP_NOWARN)?;
        kept.extend_from_slice(dst.get(..len).ok_or(EINVAL)?, GFP_KERNEL)?;
        kept.resize(whole, 0, GFP_KERNEL)?;
        Ok(Compressed::Smaller(kept))
    }

    /// Compresses the only sector of a file of `size` bytes to be kept in the tree, and returns
    /// what there is of it, if that is smaller than the file and at most `most` bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINVAL`.
    pub fn compress_inline(
        &mut self,
        sector: &[u8],
        size: u64,
        most: usize,
    ) -> Result<Option<&[u8]>> {
        if !self.chosen.is_forced && !self.heuristic.is_compressible(sector) {
            return Ok(None);
        }
        let below = usize::try_from(size).map_err(|_| EINVAL)?.saturating_sub(1);
        let dst = self.made.get_mut(..most.min(below)).ok_or(EINVAL)?;
        let Chosen { method, level, .. } = self.chosen;
        match compress(method, level, sector, dst, self.sectorsize) {
            Err(e) if e == E2BIG => Ok(None),
            len => Ok(dst.get(..len?)),
        }
    }
}

/// The bytes of `parts` in one place: where they are if that is one.
fn gather<'a>(into: &'a mut KVVec<u8>, parts: &[&'a [u8]]) -> Result<&'a [u8]> {
    if let [only] = parts {
        return Ok(only);
    }
    into.clear();
    for part in parts {
        if into.len().saturating_add(part.len()) as u64 > MAX_COMPRESSED {
            return Err(EINVAL);
        }
        into.extend_from_slice(part, GFP_KERNEL)?;
    }
    Ok(into)
}
