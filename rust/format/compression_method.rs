// SPDX-License-Identifier: GPL-2.0
//! The methods of compression: their numbers, names, levels and feature bits.

use super::compression;
use super::superblock::incompat;

/// A method by which data is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionMethod {
    /// A zlib stream for each extent.
    Zlib,
    /// An LZO1X block for each sector.
    Lzo,
    /// A zstd frame for each extent.
    Zstd,
}

use CompressionMethod::{Lzo, Zlib, Zstd};

impl CompressionMethod {
    /// All of them.
    pub const ALL: [Self; 3] = [Zlib, Lzo, Zstd];

    /// The method of a file extent item, none if its data is not compressed or the number unknown.
    pub fn of_extent(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.number() == number)
    }

    /// The method whose name a property begins with (`btrfs_compress_is_valid_type`).
    pub fn of_property(value: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|m| value.starts_with(m.name().as_bytes()))
    }

    /// Its number in file extent items, one of [`compression`].
    pub const fn number(self) -> u8 {
        match self {
            Zlib => compression::ZLIB,
            Lzo => compression::LZO,
            Zstd => compression::ZSTD,
        }
    }

    /// Its name in mount options and properties.
    pub const fn name(self) -> &'static str {
        match self {
            Zlib => "zlib",
            Lzo => "lzo",
            Zstd => "zstd",
        }
    }

    /// The [`incompat`] bit of a volume that has data in it, 0 for the method that every reader
    /// knows.
    pub const fn incompat(self) -> u64 {
        match self {
            Zlib => 0,
            Lzo => incompat::COMPRESS_LZO,
            Zstd => incompat::COMPRESS_ZSTD,
        }
    }

    /// The lowest level, the highest, and the usual one.
    const fn levels(self) -> (i32, i32, i32) {
        match self {
            Zlib => (1, 9, 3),
            Lzo => (0, 1, 1),
            Zstd => (-15, 15, 3),
        }
    }

    /// Whether the method has a level (`btrfs_compress_level_valid`).
    pub fn has_level(self, level: i32) -> bool {
        let (lowest, highest, _) = self.levels();
        (lowest..=highest).contains(&level)
    }

    /// The nearest level that the method has; 0 stands for the usual one
    /// (`btrfs_compress_set_level`).
    pub fn level(self, level: i32) -> i32 {
        let (lowest, highest, usual) = self.levels();
        if level == 0 {
            usual
        } else {
            level.clamp(lowest, highest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back() {
        for method in CompressionMethod::ALL {
            assert_eq!(CompressionMethod::of_extent(method.number()), Some(method));
        }
        assert_eq!(CompressionMethod::of_extent(compression::NONE), None);
        assert_eq!(CompressionMethod::of_extent(4), None);
    }

    #[test]
    fn levels_are_those_that_there_are() {
        assert_eq!([Zlib.level(0), Lzo.level(0), Zstd.level(0)], [3, 1, 3]);
        assert_eq!([Zlib.level(-7), Lzo.level(9), Zstd.level(99)], [1, 1, 15]);
        assert_eq!(
            [Zlib.level(9), Zstd.level(-15), Zstd.level(-99)],
            [9, -15, -15]
        );
    }
}
