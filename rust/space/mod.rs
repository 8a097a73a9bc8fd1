// SPDX-License-Identifier: GPL-2.0
//! Space: block groups, free space, allocation, reservations and ordered extents.
//!
//! What is free and what is pinned is in [`space_info::Space`], which the writer's mutex protects.
//! What is reserved for delayed allocation is in [`reservation`], behind a leaf lock.

pub mod block_group;
pub mod chunk_alloc;
pub mod dev_extent;
pub mod extent_set;
pub(crate) mod find_free_extent;
pub mod free_space_bitmap;
pub mod free_space_load;
pub mod free_space_tree;
pub mod ordered_extent;
pub(crate) mod ordered_space;
pub mod read_only;
pub mod reservation;
pub mod space_info;
pub mod usage;

pub use ordered_extent::OrderedExtent;
pub use reservation::DataReservation;
