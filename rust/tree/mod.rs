// SPDX-License-Identifier: GPL-2.0
//! Verified tree nodes, their cache, search, and copy-on-write changes.

pub mod cache;
pub mod check;
pub mod cow;
pub mod cursor;
pub mod delete;
pub mod edit;
pub mod geometry;
pub mod insert;
pub mod interior_mut;
pub mod leaf_mut;
pub mod merge;
pub mod node;
pub mod node_buf;
pub mod paths;
pub mod split;
pub mod verify;

pub use cache::NodeCache;
pub use cursor::Cursor;
pub use edit::EditContext;
pub use geometry::Geometry;
pub use node::{Node, NodePtr, Nodes, TreeRoot};
pub use node_buf::{NewNode, NodeBuf};
