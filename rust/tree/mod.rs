// SPDX-License-Identifier: GPL-2.0
//! Verified tree nodes, their cache, search, and copy-on-write changes.

pub mod cursor;
pub mod geometry;
pub mod node;

pub use cursor::Cursor;
pub use geometry::Geometry;
pub use node::{Node, NodePtr, Nodes, TreeRoot};
