// SPDX-License-Identifier: GPL-2.0
//! What lives in a subvolume's tree: inodes, directories, file extents, xattrs, and data checksums.
//!
//! [`write`](mod@write) changes inodes and files; all else here reads. Functions that only need
//! nodes take any [`crate::tree::Nodes`], so that they serve the last commit and the running
//! transaction alike; those that read file data take a [`crate::trans::Reader`], whose epoch keeps
//! the extents in place meanwhile.

pub mod compress;
pub mod csum;
pub mod data;
pub mod decompress;
pub mod defrag;
pub mod dir;
pub mod encoded;
pub mod fiemap;
pub mod file_extent;
pub mod inode;
pub mod resolve;
mod root_ref;
pub mod scatter;
pub mod subvolume;
pub mod tree_search;
pub mod write;
pub mod xattr;
