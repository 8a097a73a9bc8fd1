// SPDX-License-Identifier: GPL-2.0
//! Inodes and their references.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Inode flags, `BTRFS_INODE_*`.
pub mod inode_flags {
    /// The file's data has no checksums.
    pub const NODATASUM: u64 = 1 << 0;
    /// The file's data is overwritten in place.
    pub const NODATACOW: u64 = 1 << 1;
    /// The file is read-only.
    pub const READONLY: u64 = 1 << 2;
    /// Never compress.
    pub const NOCOMPRESS: u64 = 1 << 3;
    /// The file may have preallocated extents.
    pub const PREALLOC: u64 = 1 << 4;
    /// Write synchronously.
    pub const SYNC: u64 = 1 << 5;
    /// Immutable.
    pub const IMMUTABLE: u64 = 1 << 6;
    /// Append only.
    pub const APPEND: u64 = 1 << 7;
    /// Not to be dumped.
    pub const NODUMP: u64 = 1 << 8;
    /// Access times are not kept.
    pub const NOATIME: u64 = 1 << 9;
    /// Directory changes are synchronous.
    pub const DIRSYNC: u64 = 1 << 10;
    /// Compress.
    pub const COMPRESS: u64 = 1 << 11;
    /// The inode within a root item is initialised.
    pub const ROOT_ITEM_INIT: u64 = 1 << 31;
    /// The file has fs-verity.
    pub const RO_VERITY: u64 = 1 << 32;
    /// Every flag that has a meaning.
    pub const KNOWN: u64 = NODATASUM
        | NODATACOW
        | READONLY
        | NOCOMPRESS
        | PREALLOC
        | SYNC
        | IMMUTABLE
        | APPEND
        | NODUMP
        | NOATIME
        | DIRSYNC
        | COMPRESS
        | ROOT_ITEM_INIT
        | RO_VERITY;
}

/// A time, 12 bytes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Timespec {
    /// Seconds since the epoch, signed.
    pub sec: U64,
    /// Nanoseconds.
    pub nsec: U32,
}

/// An inode, 160 bytes; keyed by (inode number, 0).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InodeItem {
    /// The transaction that made the inode.
    pub generation: U64,
    /// The transaction that last changed it.
    pub transid: U64,
    /// The size in bytes; of a directory, twice the bytes of its names.
    pub size: U64,
    /// The bytes allocated to the file's data.
    pub nbytes: U64,
    /// For the version 1 free space cache.
    pub block_group: U64,
    /// The number of names.
    pub nlink: U32,
    /// Owner.
    pub uid: U32,
    /// Group.
    pub gid: U32,
    /// Type and permissions.
    pub mode: U32,
    /// The device number of a device file.
    pub rdev: U64,
    /// [`inode_flags`].
    pub flags: U64,
    /// Changed at every change; for NFS.
    pub sequence: U64,
    /// Zero.
    pub reserved: [U64; 4],
    /// Last access.
    pub atime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Last change of the data.
    pub mtime: Timespec,
    /// Birth.
    pub otime: Timespec,
}

/// One name of an inode, 10 bytes and the name; keyed by (inode number, parent). Several may share
/// an item.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InodeRef {
    /// The `DIR_INDEX` of the entry.
    pub index: U64,
    /// The name's length in bytes.
    pub name_len: U16,
}

/// One name of an inode that has no space in [`InodeRef`] items, 18 bytes and the name; keyed by
/// (inode number, [`super::crc::extref_hash`]).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InodeExtref {
    /// The directory's inode number.
    pub parent_objectid: U64,
    /// The `DIR_INDEX` of the entry.
    pub index: U64,
    /// The name's length in bytes.
    pub name_len: U16,
}

const _: () = assert!(size_of::<InodeItem>() == 160 && size_of::<Timespec>() == 12);
const _: () = assert!(size_of::<InodeRef>() == 10 && size_of::<InodeExtref>() == 18);
