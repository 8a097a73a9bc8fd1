// SPDX-License-Identifier: GPL-2.0
//! Directory entries and extended attributes.

use super::key::DiskKey;
use zerocopy::little_endian::{U16, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Entry types, in the low 7 bits of [`DirItem::typ`].
pub mod file_type {
    /// Unknown.
    pub const UNKNOWN: u8 = 0;
    /// A regular file.
    pub const REG_FILE: u8 = 1;
    /// A directory or a subvolume.
    pub const DIR: u8 = 2;
    /// A character device.
    pub const CHRDEV: u8 = 3;
    /// A block device.
    pub const BLKDEV: u8 = 4;
    /// A named pipe.
    pub const FIFO: u8 = 5;
    /// A socket.
    pub const SOCK: u8 = 6;
    /// A symbolic link.
    pub const SYMLINK: u8 = 7;
    /// An extended attribute.
    pub const XATTR: u8 = 8;
    /// The name is encrypted.
    pub const ENCRYPTED: u8 = 0x80;
}

/// The longest name in bytes.
pub const NAME_LEN: usize = 255;

/// A directory entry or an extended attribute, 30 bytes, then name and data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DirItem {
    /// The key of what the entry names: an inode item, or a root item for a subvolume.
    pub location: DiskKey,
    /// The transaction that made the entry.
    pub transid: U64,
    /// The size in bytes of an extended attribute's value.
    pub data_len: U16,
    /// The name's length in bytes.
    pub name_len: U16,
    /// [`file_type`].
    pub typ: u8,
}

const _: () = assert!(size_of::<DirItem>() == 30);
