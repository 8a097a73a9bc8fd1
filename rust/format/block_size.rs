// SPDX-License-Identifier: GPL-2.0
//! The unit in which a volume counts its space.

use core::ops::{Div, Rem};

/// The size of a sector or a tree block, in bytes: a power of two, so that dividing by it cannot
/// fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    /// The logarithm to base 2, less than 32.
    bits: u32,
}

impl BlockSize {
    /// One byte: the size as long as that of the volume is not known.
    pub const ONE: BlockSize = BlockSize { bits: 0 };

    /// `None` unless `bytes` is a power of two.
    pub const fn new(bytes: u32) -> Option<BlockSize> {
        if bytes.is_power_of_two() {
            Some(BlockSize {
                bits: bytes.trailing_zeros(),
            })
        } else {
            None
        }
    }

    /// The least multiple of this that is not less than `value`, if there is one.
    pub fn round_up(self, value: u64) -> Option<u64> {
        Some(value.checked_add(self.mask())? & !self.mask())
    }

    fn remainder(self, value: u64) -> u64 {
        value & self.mask()
    }

    /// The bits of a number that its remainder consists of.
    fn mask(self) -> u64 {
        u64::from(self).wrapping_sub(1)
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> u32 {
        1u32.wrapping_shl(size.bits)
    }
}

impl From<BlockSize> for u64 {
    fn from(size: BlockSize) -> u64 {
        u32::from(size).into()
    }
}

impl From<BlockSize> for usize {
    fn from(size: BlockSize) -> usize {
        u32::from(size) as usize
    }
}

impl Div<BlockSize> for u64 {
    type Output = u64;

    fn div(self, size: BlockSize) -> u64 {
        self.wrapping_shr(size.bits)
    }
}

impl Rem<BlockSize> for u64 {
    type Output = u64;

    fn rem(self, size: BlockSize) -> u64 {
        size.remainder(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two() {
        for bytes in [0, 3, 4095, 12345, u32::MAX] {
            assert_eq!(BlockSize::new(bytes), None);
        }
        assert_eq!(BlockSize::new(1), Some(BlockSize::ONE));
    }

    #[test]
    fn computes_as_its_number_does() {
        for size in [1, 512, 4096, 65536, 1 << 31] {
            let block = BlockSize::new(size).unwrap();
            assert_eq!(u32::from(block), size);
            let size = u64::from(block);
            assert_eq!(usize::from(block) as u64, size);
            for value in [0, 1, 4095, 4096, 4097, 1 << 40, u64::MAX - 4096, u64::MAX] {
                assert_eq!(value / block, value / size);
                assert_eq!(value % block, value % size);
                assert_eq!(block.round_up(value), value.checked_next_multiple_of(size));
            }
        }
    }
}
