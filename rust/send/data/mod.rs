// SPDX-License-Identifier: GPL-2.0
//! File data in the stream: written, cloned from what the receiver has, or a hole.
//!
//! `extents` decides for each file extent item. With a parent, `holes` tells data that changed from
//! data that did not. `clones` looks for a place to clone from among `clone_candidates`, and
//! `clone_range` sends the clones. `reader` reads and verifies what is written.

pub(super) mod checksum;
mod clone_candidates;
mod clone_range;
pub(super) mod clone_sources;
mod clones;
mod extents;
mod holes;
pub(super) mod reader;
mod roots_cache;
