// SPDX-License-Identifier: GPL-2.0
//! On-disk structures, keys, items and checksums of btrfs. No I/O and no locks.
//!
//! Every structure is a plain, unaligned, little-endian picture of the bytes, with the field names
//! of `uapi/linux/btrfs_tree.h`; reading one copies it out of its item and checks its size.

use kernel::prelude::*;
use zerocopy::{FromBytes, Immutable, KnownLayout};

pub mod balance;
pub mod block_size;
pub mod checksum;
pub mod chunk;
pub mod compression_method;
pub mod crc;
pub mod dir;
pub mod extent;
pub mod file_extent;
pub mod free_space;
pub mod header;
pub mod inode;
pub mod key;
pub mod objectids;
pub mod root;
pub mod superblock;

pub use block_size::BlockSize;
pub use checksum::{Checksum, ChecksumType};
pub use compression_method::CompressionMethod;
pub use file_extent::compression;
pub use key::{DiskKey, Key};
pub use objectids::{item_type, objectid, tree_id};

/// Reads a structure from the start of `bytes`.
///
/// # Errors
///
/// `EUCLEAN` if `bytes` is too short.
pub fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T> {
    T::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .map_err(|_| EUCLEAN)
}

/// Reads a structure `offset` bytes into `bytes`.
///
/// # Errors
///
/// `EUCLEAN` if `bytes` is too short.
pub fn read_at<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8], offset: usize) -> Result<T> {
    read(bytes.get(offset..).ok_or(EUCLEAN)?)
}

/// Cuts the `len` bytes at `offset` out of `bytes`.
///
/// # Errors
///
/// `EUCLEAN` if they are not all there.
pub fn slice(bytes: &[u8], offset: usize, len: usize) -> Result<&[u8]> {
    let end = offset.checked_add(len).ok_or(EUCLEAN)?;
    bytes.get(offset..end).ok_or(EUCLEAN)
}
