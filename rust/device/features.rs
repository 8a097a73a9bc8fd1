// SPDX-License-Identifier: GPL-2.0
//! Feature bits: which are supported, and what the others are called.

use crate::format::superblock::{compat_ro, incompat};
use core::fmt;

/// What a volume may have.
pub const INCOMPAT_SUPPORTED: u64 = incompat::MIXED_BACKREF
    | incompat::DEFAULT_SUBVOL
    | incompat::COMPRESS_LZO
    | incompat::COMPRESS_ZSTD
    | incompat::BIG_METADATA
    | incompat::EXTENDED_IREF
    | incompat::SKINNY_METADATA
    | incompat::NO_HOLES;

/// What a volume that is written to may have.
pub const COMPAT_RO_SUPPORTED: u64 =
    compat_ro::FREE_SPACE_TREE | compat_ro::FREE_SPACE_TREE_VALID | compat_ro::BLOCK_GROUP_TREE;

const INCOMPAT_NAMES: &[(u64, &str)] = &[
    (incompat::MIXED_BACKREF, "MIXED_BACKREF"),
    (incompat::DEFAULT_SUBVOL, "DEFAULT_SUBVOL"),
    (incompat::MIXED_GROUPS, "MIXED_GROUPS"),
    (incompat::COMPRESS_LZO, "COMPRESS_LZO"),
    (incompat::COMPRESS_ZSTD, "COMPRESS_ZSTD"),
    (incompat::BIG_METADATA, "BIG_METADATA"),
    (incompat::EXTENDED_IREF, "EXTENDED_IREF"),
    (incompat::RAID56, "RAID56"),
    (incompat::SKINNY_METADATA, "SKINNY_METADATA"),
    (incompat::NO_HOLES, "NO_HOLES"),
    (incompat::METADATA_UUID, "METADATA_UUID"),
    (incompat::RAID1C34, "RAID1C34"),
    (incompat::ZONED, "ZONED"),
    (incompat::EXTENT_TREE_V2, "EXTENT_TREE_V2"),
    (incompat::RAID_STRIPE_TREE, "RAID_STRIPE_TREE"),
    (incompat::SIMPLE_QUOTA, "SIMPLE_QUOTA"),
    (incompat::REMAP_TREE, "REMAP_TREE"),
];

const COMPAT_RO_NAMES: &[(u64, &str)] = &[
    (compat_ro::FREE_SPACE_TREE, "FREE_SPACE_TREE"),
    (compat_ro::FREE_SPACE_TREE_VALID, "FREE_SPACE_TREE_VALID"),
    (compat_ro::VERITY, "VERITY"),
    (compat_ro::BLOCK_GROUP_TREE, "BLOCK_GROUP_TREE"),
];

/// Feature bits that print as their names, with a number for those that have none.
pub struct Names {
    bits: u64,
    table: &'static [(u64, &'static str)],
}

/// The names of incompat features.
pub fn incompat_names(bits: u64) -> Names {
    Names {
        bits,
        table: INCOMPAT_NAMES,
    }
}

/// The names of compat_ro features.
pub fn compat_ro_names(bits: u64) -> Names {
    Names {
        bits,
        table: COMPAT_RO_NAMES,
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unnamed = self.bits;
        let mut separator = "";
        for (bit, name) in self.table {
            if self.bits & bit != 0 {
                write!(f, "{separator}{name}")?;
                unnamed &= !bit;
                separator = " ";
            }
        }
        if unnamed != 0 {
            write!(f, "{separator}unknown {unnamed:#x}")?;
        }
        Ok(())
    }
}
