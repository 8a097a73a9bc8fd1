// SPDX-License-Identifier: GPL-2.0
//! The superblock, its backup roots, and the feature bits it carries.

use super::chunk::DevItem;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `_BHRfS_M`, little endian.
pub const MAGIC: u64 = 0x4d5f_5366_5248_425f;
/// The size of a superblock, in bytes.
pub const SUPERBLOCK_SIZE: usize = 4096;
/// Where the copies live on a device, in bytes; those past its end do not exist.
pub const COPIES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
/// The number of backup roots.
pub const BACKUP_ROOTS: usize = 4;
/// The size in bytes of the system chunk array.
pub const SYS_CHUNK_ARRAY_SIZE: usize = 2048;
/// The size in bytes of a label, with its final zero.
pub const LABEL_SIZE: usize = 256;

/// Superblock flags.
pub mod super_flags {
    /// An I/O error was seen.
    pub const ERROR: u64 = 1 << 2;
    /// The volume is a seed.
    pub const SEEDING: u64 = 1 << 32;
    /// A metadata dump, whose data is not there.
    pub const METADUMP: u64 = 1 << 33;
    /// A metadata dump of the second version.
    pub const METADUMP_V2: u64 = 1 << 34;
    /// The volume's UUID is being changed.
    pub const CHANGING_FSID: u64 = 1 << 35;
    /// The volume's UUID is being changed, second method.
    pub const CHANGING_FSID_V2: u64 = 1 << 36;
}

/// Features that a reader must know.
pub mod incompat {
    /// Both kinds of back references.
    pub const MIXED_BACKREF: u64 = 1 << 0;
    /// A default subvolume is set.
    pub const DEFAULT_SUBVOL: u64 = 1 << 1;
    /// Data and metadata share block groups.
    pub const MIXED_GROUPS: u64 = 1 << 2;
    /// LZO compression was used.
    pub const COMPRESS_LZO: u64 = 1 << 3;
    /// Zstd compression was used.
    pub const COMPRESS_ZSTD: u64 = 1 << 4;
    /// Nodes larger than a page.
    pub const BIG_METADATA: u64 = 1 << 5;
    /// Extended inode references.
    pub const EXTENDED_IREF: u64 = 1 << 6;
    /// RAID5 or RAID6.
    pub const RAID56: u64 = 1 << 7;
    /// Tree blocks have `METADATA_ITEM`s.
    pub const SKINNY_METADATA: u64 = 1 << 8;
    /// Holes have no file extent items.
    pub const NO_HOLES: u64 = 1 << 9;
    /// The metadata UUID differs from the volume's.
    pub const METADATA_UUID: u64 = 1 << 10;
    /// RAID1 with three or four copies.
    pub const RAID1C34: u64 = 1 << 11;
    /// Zoned devices.
    pub const ZONED: u64 = 1 << 12;
    /// Several extent trees.
    pub const EXTENT_TREE_V2: u64 = 1 << 13;
    /// The RAID stripe tree.
    pub const RAID_STRIPE_TREE: u64 = 1 << 14;
    /// Simple quotas.
    pub const SIMPLE_QUOTA: u64 = 1 << 16;
    /// The remap tree.
    pub const REMAP_TREE: u64 = 1 << 17;
}

/// Features that a writer must know.
pub mod compat_ro {
    /// The free space tree exists.
    pub const FREE_SPACE_TREE: u64 = 1 << 0;
    /// The free space tree is complete.
    pub const FREE_SPACE_TREE_VALID: u64 = 1 << 1;
    /// fs-verity was used.
    pub const VERITY: u64 = 1 << 2;
    /// Block group items have a tree of their own.
    pub const BLOCK_GROUP_TREE: u64 = 1 << 3;
}

/// Where the important roots were in one of the last four commits, 168 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RootBackup {
    /// Address of the root tree's root.
    pub tree_root: U64,
    /// Its generation.
    pub tree_root_gen: U64,
    /// Address of the chunk tree's root.
    pub chunk_root: U64,
    /// Its generation.
    pub chunk_root_gen: U64,
    /// Address of the extent tree's root.
    pub extent_root: U64,
    /// Its generation.
    pub extent_root_gen: U64,
    /// Address of the top-level subvolume's root.
    pub fs_root: U64,
    /// Its generation.
    pub fs_root_gen: U64,
    /// Address of the device tree's root.
    pub dev_root: U64,
    /// Its generation.
    pub dev_root_gen: U64,
    /// Address of the checksum tree's root.
    pub csum_root: U64,
    /// Its generation.
    pub csum_root_gen: U64,
    /// The volume's size in bytes.
    pub total_bytes: U64,
    /// The bytes in extents.
    pub bytes_used: U64,
    /// The number of devices.
    pub num_devices: U64,
    /// Unused.
    pub unused_64: [U64; 4],
    /// Level of the root tree's root.
    pub tree_root_level: u8,
    /// Level of the chunk tree's root.
    pub chunk_root_level: u8,
    /// Level of the extent tree's root.
    pub extent_root_level: u8,
    /// Level of the top-level subvolume's root.
    pub fs_root_level: u8,
    /// Level of the device tree's root.
    pub dev_root_level: u8,
    /// Level of the checksum tree's root.
    pub csum_root_level: u8,
    /// Unused.
    pub unused_8: [u8; 10],
}

/// The superblock, 4096 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SuperBlock {
    /// The checksum of everything after this field.
    pub csum: [u8; 32],
    /// The volume's UUID.
    pub fsid: [u8; 16],
    /// This copy's own physical address, in bytes.
    pub bytenr: U64,
    /// [`super_flags`].
    pub flags: U64,
    /// [`MAGIC`].
    pub magic: U64,
    /// The last committed transaction.
    pub generation: U64,
    /// Address of the root tree's root.
    pub root: U64,
    /// Address of the chunk tree's root.
    pub chunk_root: U64,
    /// Address of the log root tree's root, or 0.
    pub log_root: U64,
    /// Unused.
    pub unused_log_root_transid: U64,
    /// The volume's size in bytes.
    pub total_bytes: U64,
    /// The bytes in extents.
    pub bytes_used: U64,
    /// [`super::tree_id::ROOT_TREE_DIR`].
    pub root_dir_objectid: U64,
    /// The number of devices.
    pub num_devices: U64,
    /// The sector size in bytes.
    pub sectorsize: U32,
    /// The size of a tree block in bytes.
    pub nodesize: U32,
    /// Unused.
    pub unused_leafsize: U32,
    /// The stripe size in bytes; equals the sector size.
    pub stripesize: U32,
    /// The bytes used in `sys_chunk_array`.
    pub sys_chunk_array_size: U32,
    /// The generation of the chunk tree's root.
    pub chunk_root_generation: U64,
    /// Features that nobody needs to know.
    pub compat_flags: U64,
    /// [`compat_ro`].
    pub compat_ro_flags: U64,
    /// [`incompat`].
    pub incompat_flags: U64,
    /// The number of a [`ChecksumType`](super::ChecksumType).
    pub csum_type: U16,
    /// Level of the root tree's root.
    pub root_level: u8,
    /// Level of the chunk tree's root.
    pub chunk_root_level: u8,
    /// Level of the log root tree's root.
    pub log_root_level: u8,
    /// The device that this superblock is on.
    pub dev_item: DevItem,
    /// The label, ended by a zero.
    pub label: [u8; LABEL_SIZE],
    /// The generation of the version 1 free space cache, or all ones.
    pub cache_generation: U64,
    /// The generation in which the UUID tree was last known complete.
    pub uuid_tree_generation: U64,
    /// The UUID in tree blocks, with [`incompat::METADATA_UUID`].
    pub metadata_uuid: [u8; 16],
    /// For extent tree v2.
    pub nr_global_roots: U64,
    /// For the remap tree.
    pub remap_root: U64,
    /// For the remap tree.
    pub remap_root_generation: U64,
    /// For the remap tree.
    pub remap_root_level: u8,
    /// Zero.
    pub reserved: [u8; 199],
    /// Pairs of [`super::key::DiskKey`] and [`super::chunk::Chunk`] of the system chunks.
    pub sys_chunk_array: [u8; SYS_CHUNK_ARRAY_SIZE],
    /// The roots of the last four commits.
    pub super_roots: [RootBackup; BACKUP_ROOTS],
    /// Zero.
    pub padding: [u8; 565],
}

const _: () = assert!(size_of::<RootBackup>() == 168 && size_of::<SuperBlock>() == SUPERBLOCK_SIZE);
