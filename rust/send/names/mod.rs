// SPDX-License-Identifier: GPL-2.0
//! What inodes are called: in the snapshots, and at the receiver by then.
//!
//! In a full send `refs` gives inodes their names, and `full_path` knows where directories are. In
//! an incremental one `recorded_refs` gathers the names that an inode gained and lost, and
//! `process_recorded_refs` sends them; `inode_state` and `current_path` know what is at the
//! receiver by then and what it is called there, `dir_moves` and `delayed_rmdir` what has to wait.
//! `orphan_names` are those of inodes that have no other name yet.
//!
//! State that outlives a step is in files of its own, which know nothing of the send that uses it.

mod current_path;
mod delayed_rmdir;
mod dir_moves;
pub(super) mod early_dirs;
mod full_path;
mod inode_state;
pub(super) mod name_cache;
pub(super) mod orphan_dirs;
pub(super) mod orphan_names;
pub(super) mod path;
pub(super) mod pending_moves;
mod process_recorded_refs;
pub(super) mod recorded_refs;
mod refs;
