// SPDX-License-Identifier: GPL-2.0
//! Whether and how a file is compressed: by its flags, its property, and the options of the mount
//! (`inode_need_compress`).

use super::super::write::{property_of, InodeId};
use crate::format::inode::inode_flags;
use crate::format::CompressionMethod;
use crate::mount::Compress;
use crate::volume::Fs;
use kernel::prelude::*;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The method.
    pub method: CompressionMethod,
    /// One of the method's levels.
    pub level: i32,
    /// No sample is looked at (`compress-force=`).
    pub is_forced: bool,
    /// If it does not help, the file is not to be tried again: it gets the flag `NOCOMPRESS`.
    pub gives_up: bool,
}

/// Flags of files that are never compressed: what is written in place has the size that it had, and
/// compressed data always has checksums (`btrfs_inode_can_compress`).
const NEVER: u64 = inode_flags::NODATACOW | inode_flags::NODATASUM;

/// Whether data of a file with these [`inode_flags`] may be compressed at all.
pub fn can_compress(flags: u64) -> bool {
    flags & NEVER == 0
}

/// How data of a file with these [`inode_flags`] is compressed, if it is. Takes the writer's mutex
/// if the file may have a property and its subvolume was changed since the last commit.
///
/// # Errors
///
/// Those of reading the property.
pub fn choose(fs: &Fs, id: InodeId, flags: u64, mount: Option<Compress>) -> Result<Option<Chosen>> {
    if !can_compress(flags) {
        return Ok(None);
    }
    let is_forced = mount.is_some_and(|mount| mount.is_forced);
    let is_wanted = mount.is_some() || flags & inode_flags::COMPRESS != 0;
    if !is_forced && (flags & inode_flags::NOCOMPRESS != 0 || !is_wanted) {
        return Ok(None);
    }
    // The flag goes with the property.
    let property = if flags & inode_flags::COMPRESS != 0 {
        property_of(fs, id)?
    } else {
        None
    };
    let Some(method) = property.or(mount.map(|mount| mount.method)) else {
        return Ok(None);
    };
    Ok(Some(Chosen {
        method,
        level: method.level(mount.map_or(0, |mount| mount.level)),
        is_forced,
        gives_up: !is_forced && property.is_none(),
    }))
}
