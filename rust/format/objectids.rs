// SPDX-License-Identifier: GPL-2.0
//! Well-known object ids and item types, with the numbers of `uapi/linux/btrfs_tree.h`.

/// Ids of trees.
pub mod tree_id {
    /// The tree of tree roots.
    pub const ROOT: u64 = 1;
    /// Every allocated extent, and who refers to it.
    pub const EXTENT: u64 = 2;
    /// Chunks and devices.
    pub const CHUNK: u64 = 3;
    /// Device extents and device statistics.
    pub const DEV: u64 = 4;
    /// The top-level subvolume.
    pub const FS: u64 = 5;
    /// The directory object in the root tree that names the default subvolume.
    pub const ROOT_TREE_DIR: u64 = 6;
    /// Data checksums.
    pub const CSUM: u64 = 7;
    /// Quota groups.
    pub const QUOTA: u64 = 8;
    /// Subvolumes by UUID.
    pub const UUID: u64 = 9;
    /// Free space.
    pub const FREE_SPACE: u64 = 10;
    /// Block group items, where they do not live in the extent tree.
    pub const BLOCK_GROUP: u64 = 11;
    /// Stripes of zoned RAID.
    pub const RAID_STRIPE: u64 = 12;
    /// The relocation helper tree of C btrfs.
    pub const DATA_RELOC: u64 = (-9i64) as u64;
    /// Trees that C btrfs makes while it relocates.
    pub const TREE_RELOC: u64 = (-8i64) as u64;
    /// The fsync log.
    pub const TREE_LOG: u64 = (-6i64) as u64;
    /// The first id of a subvolume.
    pub const FIRST_FREE: u64 = 256;
    /// The last id of a subvolume.
    pub const LAST_FREE: u64 = (-256i64) as u64;

    /// The first bit of an id that is the level of a quota group, and 0 in the ids of subvolumes.
    const QGROUP_LEVEL_SHIFT: u32 = 48;

    /// Whether the tree holds files: the top-level subvolume or any other.
    pub const fn is_fs_tree(id: u64) -> bool {
        id == FS || (id >= FIRST_FREE && id >> QGROUP_LEVEL_SHIFT == 0)
    }
}

/// Object ids within trees.
pub mod objectid {
    /// The device items of the chunk tree.
    pub const DEV_ITEMS: u64 = 1;
    /// The chunk items of the chunk tree.
    pub const FIRST_CHUNK_TREE: u64 = 256;
    /// The root directory of a subvolume, and the lowest inode number in use.
    pub const FIRST_FREE: u64 = 256;
    /// The highest inode number in use.
    pub const LAST_FREE: u64 = (-256i64) as u64;
    /// The balance item.
    pub const BALANCE: u64 = (-4i64) as u64;
    /// Orphan items.
    pub const ORPHAN: u64 = (-5i64) as u64;
    /// Checksum items.
    pub const EXTENT_CSUM: u64 = (-10i64) as u64;
    /// Version 1 free space cache headers.
    pub const FREE_SPACE: u64 = (-11i64) as u64;
    /// Free inode number caches, no longer written.
    pub const FREE_INO: u64 = (-12i64) as u64;
    /// Device statistics.
    pub const DEV_STATS: u64 = 0;
    /// The placeholder inode of a subvolume that is not there: what a snapshot shows for a nested
    /// subvolume.
    pub const EMPTY_SUBVOL_DIR: u64 = 2;
}

/// Item types.
pub mod item_type {
    /// [`crate::format::inode::InodeItem`].
    pub const INODE_ITEM: u8 = 1;
    /// [`crate::format::inode::InodeRef`].
    pub const INODE_REF: u8 = 12;
    /// [`crate::format::inode::InodeExtref`].
    pub const INODE_EXTREF: u8 = 13;
    /// [`crate::format::dir::DirItem`] holding an extended attribute.
    pub const XATTR_ITEM: u8 = 24;
    /// fs-verity descriptor items.
    pub const VERITY_DESC_ITEM: u8 = 36;
    /// fs-verity Merkle tree items.
    pub const VERITY_MERKLE_ITEM: u8 = 37;
    /// An inode, or a subvolume, that is to be deleted.
    pub const ORPHAN_ITEM: u8 = 48;
    /// Log tree directory ranges, first kind.
    pub const DIR_LOG_ITEM: u8 = 60;
    /// Log tree directory ranges, second kind.
    pub const DIR_LOG_INDEX: u8 = 72;
    /// [`crate::format::dir::DirItem`] keyed by name hash.
    pub const DIR_ITEM: u8 = 84;
    /// [`crate::format::dir::DirItem`] keyed by a running number, the order of readdir.
    pub const DIR_INDEX: u8 = 96;
    /// [`crate::format::file_extent::FileExtentItem`].
    pub const EXTENT_DATA: u8 = 108;
    /// Checksums of data sectors.
    pub const EXTENT_CSUM: u8 = 128;
    /// [`crate::format::root::RootItem`].
    pub const ROOT_ITEM: u8 = 132;
    /// [`crate::format::root::RootRef`] from child to parent.
    pub const ROOT_BACKREF: u8 = 144;
    /// [`crate::format::root::RootRef`] from parent to child.
    pub const ROOT_REF: u8 = 156;
    /// [`crate::format::extent::ExtentItem`] with the extent's length as key offset.
    pub const EXTENT_ITEM: u8 = 168;
    /// [`crate::format::extent::ExtentItem`] of a tree block with the level as key offset
    /// ("skinny").
    pub const METADATA_ITEM: u8 = 169;
    /// The owner of an extent, for simple quotas.
    pub const EXTENT_OWNER_REF: u8 = 172;
    /// A tree block is referred to by a tree.
    pub const TREE_BLOCK_REF: u8 = 176;
    /// A data extent is referred to by an inode of a tree.
    pub const EXTENT_DATA_REF: u8 = 178;
    /// A tree block is referred to by a parent block.
    pub const SHARED_BLOCK_REF: u8 = 182;
    /// A data extent is referred to by a leaf.
    pub const SHARED_DATA_REF: u8 = 184;
    /// [`crate::format::chunk::BlockGroupItem`].
    pub const BLOCK_GROUP_ITEM: u8 = 192;
    /// [`crate::format::free_space::FreeSpaceInfo`].
    pub const FREE_SPACE_INFO: u8 = 198;
    /// A free extent; it has no data.
    pub const FREE_SPACE_EXTENT: u8 = 199;
    /// A bitmap of free sectors.
    pub const FREE_SPACE_BITMAP: u8 = 200;
    /// [`crate::format::chunk::DevExtent`].
    pub const DEV_EXTENT: u8 = 204;
    /// [`crate::format::chunk::DevItem`].
    pub const DEV_ITEM: u8 = 216;
    /// [`crate::format::chunk::Chunk`].
    pub const CHUNK_ITEM: u8 = 228;
    /// A stripe of the RAID stripe tree.
    pub const RAID_STRIPE: u8 = 230;
    /// A range of the remap tree that was not moved.
    pub const IDENTITY_REMAP: u8 = 234;
    /// Where a range of the remap tree was moved to.
    pub const REMAP: u8 = 235;
    /// Where a range of the remap tree was moved from.
    pub const REMAP_BACKREF: u8 = 236;
    /// Quota status.
    pub const QGROUP_STATUS: u8 = 240;
    /// Quota numbers.
    pub const QGROUP_INFO: u8 = 242;
    /// Quota limits.
    pub const QGROUP_LIMIT: u8 = 244;
    /// Quota hierarchy.
    pub const QGROUP_RELATION: u8 = 246;
    /// Items of passing interest, such as the balance item.
    pub const TEMPORARY_ITEM: u8 = 248;
    /// Items that stay, such as device statistics.
    pub const PERSISTENT_ITEM: u8 = 249;
    /// The device replace item.
    pub const DEV_REPLACE: u8 = 250;
    /// Subvolumes by UUID.
    pub const UUID_SUBVOL: u8 = 251;
    /// Subvolumes by received UUID.
    pub const UUID_RECEIVED_SUBVOL: u8 = 252;
    /// Text for debugging.
    pub const STRING_ITEM: u8 = 253;
}
