// SPDX-License-Identifier: GPL-2.0
//! The checksum of a command that carries whole data sectors, from the checksums that the sectors
//! have on disk.
//!
//! Both are crc32c, and a crc is linear: the crc of a head and a sector is the head's crc, moved on
//! by the length of a sector of zeros, xor the sector's crc from 0. The checksum tree holds the
//! latter, up to the inversions at its start and end, so that data is summed once, when it is
//! verified, and not again for the stream.

/// The sector size that the table is made for, in bytes.
pub(in crate::send) const SECTOR: usize = 4096;

/// The reflected Castagnoli polynomial.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What 32 single bits become, one matrix column each.
type Matrix = [u32; 32];

// Here and below: every index is that of a loop, or a byte, and less than the length of its array.
#[allow(clippy::indexing_slicing)]
const fn apply(matrix: &Matrix, bits: u32) -> u32 {
    let mut out = 0;
    let mut i = 0;
    while i < 32 {
        if (bits >> i) & 1 != 0 {
            out ^= matrix[i];
        }
        i += 1;
    }
    out
}

/// The effect on a crc of as many zero bits as there are in a sector.
#[allow(clippy::indexing_slicing)]
const fn sector_of_zeros() -> Matrix {
    // One zero bit: a shift, and the polynomial for the bit that falls out.
    let mut matrix = [0; 32];
    matrix[0] = POLYNOMIAL;
    let mut i = 1;
    while i < 32 {
        matrix[i] = 1 << (i - 1);
        i += 1;
    }
    let mut bits = 1;
    while bits < SECTOR * 8 {
        let mut square = [0; 32];
        let mut i = 0;
        while i < 32 {
            square[i] = apply(&matrix, matrix[i]);
            i += 1;
        }
        matrix = square;
        bits *= 2;
    }
    matrix
}

/// The same by bytes: one look-up for each byte of a crc.
#[allow(clippy::indexing_slicing)]
const fn tables() -> [[u32; 256]; 4] {
    let matrix = sector_of_zeros();
    let mut tables = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 4 {
        let mut value = 0;
        while value < 256 {
            tables[byte][value] = apply(&matrix, (value as u32) << (8 * byte));
            value += 1;
        }
        byte += 1;
    }
    tables
}

static TABLES: [[u32; 256]; 4] = tables();

/// What a crc of all ones becomes after a sector of zeros.
const ONES_MOVED: u32 = apply(&sector_of_zeros(), !0);

/// Moves a crc on by a sector of zeros.
#[allow(clippy::indexing_slicing)]
fn moved(crc: u32) -> u32 {
    let [b0, b1, b2, b3] = crc.to_le_bytes();
    let [t0, t1, t2, t3] = &TABLES;
    // A byte is always within a table of 256, so that none of these can be out of bounds.
    t0[usize::from(b0)] ^ t1[usize::from(b1)] ^ t2[usize::from(b2)] ^ t3[usize::from(b3)]
}

/// Moves the crc `seed` on by a sector whose checksum on disk is `sum`.
pub(in crate::send) fn append_sector(seed: u32, sum: u32) -> u32 {
    moved(seed) ^ !sum ^ ONES_MOVED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crc::checksum;
    use crate::platform::crc32c;

    #[test]
    fn agrees_with_summing_the_bytes() {
        let mut sector = [0u8; SECTOR];
        let mut state = 12345u32;
        for seed in [0, 1, 0x8000_0000, !0, 0xdead_beef] {
            for byte in sector.iter_mut() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (state >> 24) as u8;
            }
            assert_eq!(
                append_sector(seed, checksum(&sector)),
                crc32c(seed, &sector)
            );
        }
    }
}
