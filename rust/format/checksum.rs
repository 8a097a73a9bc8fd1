// SPDX-License-Identifier: GPL-2.0
//! Checksums of tree blocks, superblocks and data sectors, by the algorithm that the superblock
//! names (`BTRFS_CSUM_TYPE_*`).

use super::crc;
use crate::platform;
use core::fmt;

/// The bytes that a checksum has in a superblock and in the header of a tree block, whatever the
/// algorithm; those after the checksum are zero (`BTRFS_CSUM_SIZE`).
pub const CSUM_FIELD: usize = 32;

/// By what a volume checks all that is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumType {
    /// crc32c with initial and final inversion.
    Crc32c,
    /// xxhash with 64 bits and the seed 0.
    XxHash64,
    /// SHA-256.
    Sha256,
    /// BLAKE2b with 256 bits and without a key.
    Blake2b,
}

use ChecksumType::{Blake2b, Crc32c, Sha256, XxHash64};

impl ChecksumType {
    /// What is known of, in the order of their numbers.
    pub const ALL: [ChecksumType; 4] = [Crc32c, XxHash64, Sha256, Blake2b];

    /// The one of this number in a superblock.
    pub fn new(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The size of a checksum, in bytes.
    pub const fn size(self) -> usize {
        match self {
            Crc32c => 4,
            XxHash64 => 8,
            Sha256 | Blake2b => CSUM_FIELD,
        }
    }

    /// How many whole checksums so many bytes are.
    pub const fn count(self, bytes: usize) -> usize {
        match bytes.checked_div(self.size()) {
            Some(count) => count,
            None => 0,
        }
    }

    /// Whether so many bytes are whole checksums.
    pub const fn is_whole(self, bytes: usize) -> bool {
        self.count(bytes).saturating_mul(self.size()) == bytes
    }

    /// The name, as in `mkfs.btrfs --csum` and in sysfs.
    pub const fn name(self) -> &'static str {
        match self {
            Crc32c => "crc32c",
            XxHash64 => "xxhash64",
            Sha256 => "sha256",
            Blake2b => "blake2b",
        }
    }

    /// The checksum of `data` (`btrfs_csum`).
    pub fn of(self, data: &[u8]) -> Checksum {
        match self {
            Crc32c => self.stored(&crc::checksum(data).to_le_bytes()),
            XxHash64 => self.stored(&platform::xxh64(data).to_le_bytes()),
            Sha256 => self.stored(&platform::sha256(data)),
            Blake2b => self.stored(&platform::blake2b(data)),
        }
    }

    /// A checksum as it is on disk, at the start of `bytes`. What is missing there is zero.
    pub fn stored(self, bytes: &[u8]) -> Checksum {
        let mut field = [0; CSUM_FIELD];
        for (to, from) in field.iter_mut().zip(bytes).take(self.size()) {
            *to = *from;
        }
        Checksum { field, kind: self }
    }
}

/// A checksum. Two are equal if they are of one algorithm and say the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    field: [u8; CSUM_FIELD],
    kind: ChecksumType,
}

impl Checksum {
    /// As it is on disk.
    pub fn bytes(&self) -> &[u8] {
        self.field.get(..self.kind.size()).unwrap_or(&[])
    }

    /// As it is in a superblock and in the header of a tree block.
    pub fn field(&self) -> &[u8; CSUM_FIELD] {
        &self.field
    }

    /// Whether it is that of `data`.
    pub fn matches(&self, data: &[u8]) -> bool {
        self.kind.of(data) == *self
    }

    /// By what it was computed.
    pub fn kind(&self) -> ChecksumType {
        self.kind
    }

    /// The number, if this is a crc32c.
    pub fn crc32c(&self) -> Option<u32> {
        let [a, b, c, d, ..] = self.field;
        (self.kind == Crc32c).then_some(u32::from_le_bytes([a, b, c, d]))
    }
}

/// The bytes in their order on disk, as the messages of the C driver have them
/// (`BTRFS_CSUM_FMT`).
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    /// The checksums of "123456789", which the algorithms' authors publish.
    #[test]
    fn checksums_are_what_others_compute() {
        for (kind, expected) in [
            (Crc32c, "0x839206e3"),
            (XxHash64, "0x83aee640db41b88c"),
            (
                Sha256,
                "0x15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ),
            (
                Blake2b,
                "0x16e0bf1f85594a11e75030981c0b670370b3ad83a43f49ae58a2fd6f6513cde9",
            ),
        ] {
            let sum = kind.of(b"123456789");
            assert_eq!(sum.to_string(), expected, "{}", kind.name());
            assert_eq!(sum.bytes().len(), kind.size());
            assert_eq!(kind.count(3 * kind.size() + 1), 3);
            assert!(kind.is_whole(3 * kind.size()) && !kind.is_whole(3 * kind.size() + 1));
            assert_eq!(kind.stored(sum.field()), sum);
            assert!(sum.matches(b"123456789") && !sum.matches(b"123456780"));
            assert_eq!(sum.kind(), kind);
        }
    }

    #[test]
    fn types_go_by_their_numbers() {
        for (number, kind) in ChecksumType::ALL.into_iter().enumerate() {
            assert_eq!(ChecksumType::new(number as u16), Some(kind));
        }
        assert_eq!(ChecksumType::new(4), None);
        assert_eq!(ChecksumType::new(u16::MAX), None);
    }
}
