// SPDX-License-Identifier: GPL-2.0
//! What inodes are called: in the snapshots, and at the receiver by then.
//!
//! In a full send `refs` gives inodes their names, and `path` knows the paths of directories. In an
//! incremental one `recorded_refs` gathers the names that an inode gained and lost, and
//! `process_recorded_refs` sends them; `inode_state` and `current_path` know what is at the
//! receiver by then and what it is called there, `dir_moves` and `delayed_rmdir` what has to wait.
//! `orphan_names` are those of inodes that have no other name yet.

mod current_path;
pub(super) mod delayed_rmdir;
pub(super) mod dir_moves;
mod inode_state;
pub(super) mod name_cache;
pub(super) mod orphan_names;
pub(super) mod path;
mod process_recorded_refs;
pub(super) mod recorded_refs;
pub(super) mod refs;
