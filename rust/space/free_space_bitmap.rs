// SPDX-License-Identifier: GPL-2.0
//! Bitmaps of the free space tree: bit `n` of an item, lowest bit of each byte first, is its `n`th
//! sector.

use kernel::prelude::*;

/// Whether a bit is set; `EUCLEAN` if the bitmap is shorter.
pub fn test(bitmap: &[u8], bit: u64) -> Result<bool> {
    let byte = usize::try_from(bit / 8).map_err(|_| EUCLEAN)?;
    Ok((bitmap.get(byte).ok_or(EUCLEAN)? >> (bit % 8)) & 1 != 0)
}

/// Sets or clears `count` bits from `first` on; `EUCLEAN` if the bitmap is shorter, or one of them
/// is so already.
pub fn change(bitmap: &mut [u8], first: u64, count: u64, set: bool) -> Result {
    let end = first.checked_add(count).ok_or(EUCLEAN)?;
    let mut bit = first;
    while bit < end {
        let byte = usize::try_from(bit / 8).map_err(|_| EUCLEAN)?;
        let byte = bitmap.get_mut(byte).ok_or(EUCLEAN)?;
        let low = bit % 8;
        let high = end.saturating_sub(bit).saturating_add(low).min(8);
        // Bits low..high of this byte; high is at least 1.
        let mask = (0xffu8 << low) & (0xffu8 >> 8u64.saturating_sub(high));
        if *byte & mask != if set { 0 } else { mask } {
            return Err(EUCLEAN);
        }
        *byte ^= mask;
        bit = bit.saturating_sub(low).saturating_add(8);
    }
    Ok(())
}

/// The runs of set bits among the first `bits`, as (first bit, count).
pub fn runs(bitmap: &[u8], bits: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    let bits = bits.min((bitmap.len() as u64).saturating_mul(8));
    let mut at = 0u64;
    core::iter::from_fn(move || {
        let first = next(bitmap, at, bits, true);
        if first >= bits {
            return None;
        }
        at = next(bitmap, first, bits, false);
        Some((first, at.saturating_sub(first)))
    })
}

/// The first bit from `at` on that is `set`, or `bits`.
fn next(bitmap: &[u8], mut at: u64, bits: u64, set: bool) -> u64 {
    let plain = if set { 0 } else { 0xff };
    while at < bits {
        let byte = usize::try_from(at / 8).ok().and_then(|i| bitmap.get(i));
        let Some(byte) = byte else {
            break;
        };
        if at % 8 == 0 && *byte == plain {
            at = at.saturating_add(8);
        } else if ((byte >> (at % 8)) & 1 != 0) == set {
            return at;
        } else {
            at = at.saturating_add(1);
        }
    }
    bits
}
