// SPDX-License-Identifier: GPL-2.0
//! Paths within a volume, into and through subvolumes.

use crate::errno::What;
use anyhow::{bail, Result};
use rbtrfs_engine::format::{item_type, objectid, tree_id};
use rbtrfs_engine::subvol::dir;
use rbtrfs_engine::trans::Reader;
use rbtrfs_engine::tree::TreeRoot;

/// A file or directory.
#[derive(Clone, Copy)]
pub struct FoundPath {
    /// The subvolume's tree.
    pub root: TreeRoot,
    /// The inode number.
    pub ino: u64,
}

/// Walks `path` from the root of the top-level subvolume.
pub fn walk(reader: &Reader, path: &str) -> Result<FoundPath> {
    let mut place = FoundPath {
        root: reader.root(tree_id::FS).what("top-level subvolume")?,
        ino: objectid::FIRST_FREE,
    };
    for name in path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
    {
        let target = dir::lookup(reader, place.root, place.ino, name.as_bytes()).what(path)?;
        let Some(target) = target else {
            bail!("{path}: no such file or directory: {name}");
        };
        place = if target.location.typ == item_type::ROOT_ITEM {
            FoundPath {
                root: reader.root(target.location.objectid).what(path)?,
                ino: objectid::FIRST_FREE,
            }
        } else {
            FoundPath {
                root: place.root,
                ino: target.location.objectid,
            }
        };
    }
    Ok(place)
}
