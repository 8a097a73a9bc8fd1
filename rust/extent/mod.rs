// SPDX-License-Identifier: GPL-2.0
//! Extents: extent items and their back references, delayed references, the extent tree and the
//! checksum tree.
//!
//! All of this is changed by the running transaction alone, under the writer's mutex.

pub mod backref;
pub(crate) mod cow;
pub mod csum_tree;
pub mod delayed_ref;
pub mod extent_item;
pub(crate) mod extent_tree;
pub mod refs;
mod space_change;
