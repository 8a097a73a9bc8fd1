// SPDX-License-Identifier: GPL-2.0
//! Making, snapshotting, marking and deleting subvolumes.
//!
//! As in [`super::write`], each function is an operation of the running transaction. A subvolume
//! that is deleted loses its name at once, and its tree later: see [`clean_subvolumes`].

mod clean;
mod create;
mod delete;
mod flags;
mod uuid_check;
mod uuid_tree;

pub use clean::clean_subvolumes;
pub use create::{create_subvolume, snapshot, Made, NewSnapshot, NewSubvolume};
pub use delete::{delete_subvolume, Deleted};
pub use flags::{default_subvolume, set_default, set_read_only, set_received, Received};
pub use uuid_check::check_uuid_tree;
