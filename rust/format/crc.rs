// SPDX-License-Identifier: GPL-2.0
//! The three uses of crc32c in the format: checksums, where a volume has those, name hashes, and
//! reference hashes.

use crate::platform::crc32c;

/// The checksum of a block or a data sector: crc32c with initial and final inversion.
pub fn checksum(data: &[u8]) -> u32 {
    !crc32c(!0, data)
}

/// The hash of a directory entry's or an extended attribute's name: a `DIR_ITEM`'s key offset.
pub fn name_hash(name: &[u8]) -> u64 {
    u64::from(crc32c(!1, name))
}

/// The hash of an extended inode reference: an `INODE_EXTREF`'s key offset.
pub fn extref_hash(parent: u64, name: &[u8]) -> u64 {
    // The seed is the parent's inode number, of which the checksum takes the low half.
    u64::from(crc32c(parent as u32, name))
}

/// The hash of a data reference, by which inline references are ordered and keyed ones are found.
pub fn data_ref_hash(root: u64, objectid: u64, offset: u64) -> u64 {
    let high = crc32c(!0, &root.to_le_bytes());
    let low = crc32c(!0, &objectid.to_le_bytes());
    let low = crc32c(low, &offset.to_le_bytes());
    (u64::from(high) << 31) ^ u64::from(low)
}
